//! Recordings: played, exported, damaged.

use std::path::Path;

use crate::{MODEL, run, trained};

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
fn damaged_recordings_are_refused_with_a_hint() {
    let lines: Vec<&str> = TRACE.lines().collect();
    let cases = [
        ("", "line 1"),
        ("[train]\nsteps = 1\n", "line 1"),
        (&TRACE.replace("\"llada_trace\":1", "\"llada_trace\":7"), "format version 7"),
        (&TRACE.replace("\"position\":2", "\"position\":44"), "position 44"),
        (&format!("{}\n{}", lines[0], &lines[1][..40]), "line 2"),
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
