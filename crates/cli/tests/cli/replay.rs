//! Recordings: played, exported, damaged.

use std::path::Path;

use crate::{MODEL, run, storyteller, trained};

/// A recording whose texts would be markup.
const TRACE: &str = concat!(
    r#"{"llada_trace":1,"program":"llada 0.1.0","model":"m<x>","sampler":{},"mask":9,"#,
    r#""prompt":[1],"prompt_text":["<script>"],"length":4}"#,
    "\n",
    r#"{"nfe":1,"step":0,"block":0,"committed":[{"position":1,"token":2,"confidence":0.2,"#,
    r#""text":"</script>"}],"stable":1}"#,
    "\n",
    r#"{"nfe":2,"step":1,"block":0,"committed":[{"position":2,"token":3,"confidence":0.9,"#,
    r#""text":" 日本&\u001b[2J"},{"position":3,"token":4,"confidence":1.0,"text":"\n"}],"stable":4}"#,
    "\n"
);

fn written(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.jsonl"), text).unwrap();
    dir
}

#[test]
fn without_a_terminal_the_text_comes_to_stdout() {
    let dir = written(TRACE);
    let (code, stdout, stderr) = run(dir.path(), &["replay", "t.jsonl"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, "</script> 日本&\u{1b}[2J\n\n");
}

#[test]
fn exports_stand_alone_and_escape_every_text() {
    let dir = written(TRACE);
    for format in ["html", "svg"] {
        let out = format!("out.{format}");
        let args = ["replay", "t.jsonl", "--export", format, "-o", &out];
        let (code, stdout, stderr) = run(dir.path(), &args);
        assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
        let export = std::fs::read_to_string(dir.path().join(&out)).unwrap();
        assert!(export.contains("日本"), "{export}");
        assert!(!export.contains("m<x>") && !export.contains('\x1b'), "{export}");
        for address in ["src=", "href=", "url(http", "@import"] {
            assert!(!export.contains(address), "{export}");
        }
        let (_, to_stdout, _) = run(dir.path(), &args[..4]);
        assert_eq!(to_stdout.trim_end(), export.trim_end());
    }
    let svg = std::fs::read_to_string(dir.path().join("out.svg")).unwrap();
    assert!(svg.contains("&lt;script&gt;") && !svg.contains("<script"), "{svg}");
    assert!(svg.contains("@keyframes") && svg.contains("prefers-reduced-motion"), "{svg}");
    let html = std::fs::read_to_string(dir.path().join("out.html")).unwrap();
    // The page's own two scripts, and no more.
    assert_eq!(html.matches("</script>").count(), 2, "{html}");
    assert!(html.contains(r#"type="range""#) && html.contains("Content-Security-Policy"));
}

#[test]
fn a_recorded_run_plays_back_its_answer() {
    let dir = trained();
    let args =
        ["run", "-m", MODEL, "-n", "8", "-q", "--logits-eos-inf", "--trace", "rec.jsonl", "the"];
    let (code, answer, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    let (code, played, _) = run(dir, &["replay", "rec.jsonl", "--tokenizer", "tok"]);
    assert_eq!(code, 0);
    // The answer leaves special tokens out, and the recording spells them as `<|name|>`.
    let plain = played.split("<|").map(|part| part.split_once("|>").map_or(part, |(_, rest)| rest));
    let plain: String = plain.collect();
    assert!(plain.starts_with(answer.trim_end()), "{plain:?} {answer:?}");
}

#[test]
fn a_recording_that_was_cut_off_is_played_as_far_as_it_goes() {
    for cut in [1, 20, 100] {
        let dir = written(&TRACE[..TRACE.len() - 1 - cut]);
        let (code, stdout, stderr) = run(dir.path(), &["replay", "t.jsonl"]);
        assert_eq!((code, stdout.as_str()), (0, "</script>\n"), "{stderr}");
        assert!(stderr.contains("warning: ") && stderr.contains("cut off"), "{stderr}");
    }
}

/// Tokens of a byte-level tokenizer that has learnt none of these characters hold a byte each.
#[test]
fn characters_of_several_tokens_are_whole_in_every_view() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Größe 王 {{hole:2}} 王!";
    let args = ["infill", "-m", storyteller(), "--seed", "1", "--trace", "t.jsonl", text];
    let (code, filled, stderr) = run(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let trace = std::fs::read_to_string(dir.path().join("t.jsonl")).unwrap();
    assert!(trace.contains("[231]") && !trace.contains('\u{fffd}'), "{trace}");
    let (code, played, stderr) = run(dir.path(), &["replay", "t.jsonl"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(played, filled);
    assert!(played.starts_with("Größe 王"), "{played}");
    for format in ["svg", "html"] {
        let (code, export, stderr) = run(dir.path(), &["replay", "t.jsonl", "--export", format]);
        assert_eq!(code, 0, "{stderr}");
        assert!(export.contains('王') && export.contains('ß'), "{export}");
        assert!(!export.contains('\u{fffd}'), "{export}");
    }
}

#[test]
fn the_work_and_the_picture_grow_with_the_recording() {
    // As many masks as a sequence may have, none of which is ever filled.
    let dir = written(&TRACE.replace("\"length\":4", "\"length\":131072"));
    let (code, svg, stderr) = run(dir.path(), &["replay", "t.jsonl", "--export", "svg"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(svg.len() < 1_000_000, "{} bytes", svg.len());

    // One cell that changes all the time, and tokens put in before it.
    let header = TRACE.lines().next().unwrap().replace("\"length\":4", "\"length\":4096");
    let change = concat!(
        r#"{"nfe":1,"step":0,"block":0,"committed":[{"position":1,"token":2,"confidence":0.2,"#,
        r#""text":"a long text "}],"remasked":[1],"stable":1}"#,
        "\n"
    );
    let insertion = change.replace("\"stable\"", "\"inserted\":[1],\"stable\"");
    let trace = format!("{header}\n{}{}", change.repeat(20_000), insertion.repeat(4096));
    let dir = written(&trace);
    for args in [&["replay", "t.jsonl"][..], &["replay", "t.jsonl", "--export", "svg"]] {
        let (code, stdout, stderr) = run(dir.path(), args);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.len() < 10 * trace.len(), "{} of {}", stdout.len(), trace.len());
    }

    // More of these than the row has room for.
    let dir = written(&format!("{trace}{insertion}"));
    let (code, _, stderr) = run(dir.path(), &["replay", "t.jsonl"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("lengthened too often"), "{stderr}");

    // A few bytes that stand for a long text each.
    let prompt = format!("\"prompt\":[{}1]", "1,".repeat(4000));
    let header = header.replace("\"prompt\":[1]", &prompt);
    let dir = written(&header.replace("<script>", &"x".repeat(1000)));
    let (code, _, stderr) = run(dir.path(), &["replay", "t.jsonl", "--export", "html"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("out of proportion"), "{stderr}");
}

#[test]
fn a_trace_makes_the_folders_above_it_as_other_outputs_do() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["run", "-m", storyteller(), "-n", "4", "--trace", "new/folder/t.jsonl", "Once"];
    let (code, _, stderr) = run(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) =
        run(dir.path(), &["replay", "new/folder/t.jsonl", "--export", "html", "--out", "a/b.html"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(dir.path().join("a/b.html").is_file());
}

#[test]
fn a_trace_that_cannot_be_written_costs_neither_the_answer_nor_an_earlier_trace() {
    let dir = tempfile::tempdir().unwrap();
    let model = trained().join(MODEL);
    let common = ["run", "-m", model.to_str().unwrap(), "-n", "8", "--seed", "1", "the"];
    let (_, answer, _) = run(dir.path(), &common);
    let traced = |path: &str| run(dir.path(), &[&common[..], &["--trace", path]].concat());
    let below_a_file = model.join("config.json/t.jsonl");
    for path in [below_a_file.to_str().unwrap(), "/dev/full"] {
        if path.starts_with("/dev") && !Path::new(path).exists() {
            continue;
        }
        let (code, stdout, stderr) = traced(path);
        assert_eq!((code, stdout.as_str()), (1, answer.as_str()), "{stderr}");
        assert!(stderr.contains("there is no trace: ") && stderr.contains("hint: "));
    }
    // One that can be written takes the place of the earlier one, and leaves nothing else behind.
    std::fs::write(dir.path().join("t.jsonl"), "an earlier trace").unwrap();
    assert_eq!(traced("t.jsonl").0, 0);
    let trace = std::fs::read_to_string(dir.path().join("t.jsonl")).unwrap();
    assert!(trace.starts_with("{\"llada_trace\":1") && trace.ends_with('\n'), "{trace}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // What is no text is no trace, and stays; so does the recording that is exported.
    std::fs::write(dir.path().join("w.safetensors"), b"\x10\0\0\0\0\0\0\0{}").unwrap();
    let (code, stdout, stderr) = traced("w.safetensors");
    assert_eq!((code, stdout.as_str()), (1, answer.as_str()), "{stderr}");
    assert!(std::fs::read(dir.path().join("w.safetensors")).unwrap().starts_with(b"\x10\0"));
    let (code, _, _) = run(dir.path(), &["replay", "t.jsonl", "-o", "t.jsonl", "--export", "svg"]);
    assert_eq!(code, 2);
    assert_eq!(std::fs::read_to_string(dir.path().join("t.jsonl")).unwrap(), trace);
}

#[test]
fn damaged_recordings_are_refused_with_a_hint() {
    let lines: Vec<&str> = TRACE.lines().collect();
    let cases = [
        ("", "line 1"),
        ("[train]\nsteps = 1\n", "line 1"),
        (&TRACE.replace("\"llada_trace\":1", "\"llada_trace\":7"), "format version 7"),
        (&TRACE.replace("\"position\":2", "\"position\":44"), "position 44"),
        (&format!("{}\n{}\n{}\n", lines[0], &lines[1][..40], lines[2]), "line 2"),
        (&lines[0].replace("\"length\":4", "\"length\":4194304"), "sequence of 4194304"),
        (&TRACE.replace("</script>", &"x".repeat(2000)), "2000 bytes"),
    ];
    for (text, expected) in cases {
        let (code, stdout, stderr) = run(written(text).path(), &["replay", "t.jsonl"]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{text}");
        assert!(stderr.contains(expected) && stderr.contains("hint: "), "{stderr}");
    }
    let (code, _, stderr) = run(Path::new("."), &["replay", "no-such-file"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("cannot read `no-such-file`"), "{stderr}");
}
