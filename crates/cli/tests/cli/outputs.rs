//! Outputs: whole or not there, one writer each, and nothing of the user's lost around them.

use std::{fs, path::Path};

use crate::{MODEL, names, run, storyteller, trained};

/// Endings that other programs and users give to names beside an output.
const ENDINGS: [&str; 6] = [".tmp", ".old", ".lock", ".bak", ".part", "~"];

/// A folder with the files of [`trained`] and, for each output, bystanders beside it.
fn place(outputs: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::copy(trained().join("text.txt"), dir.join("text.txt")).unwrap();
    for output in outputs {
        for (i, name) in bystanders(output).iter().enumerate() {
            let path = dir.join(name);
            if i % 2 == 1 {
                fs::create_dir(&path).unwrap();
            }
            fs::write(if i % 2 == 1 { path.join("file") } else { path }, name).unwrap();
        }
    }
    folder
}

fn bystanders(output: &str) -> Vec<String> {
    let beside = ENDINGS.iter().map(|ending| format!("{output}{ending}"));
    let hidden = ENDINGS.iter().map(|ending| format!(".{output}{ending}"));
    // These have the very names of unfinished work.
    let like_ours = ["AbCd1234", "EfGh5678"].map(|random| format!(".{output}.llada-{random}.tmp"));
    beside.chain(hidden).chain(like_ours).collect()
}

/// Checks that `dir` holds the text, the outputs and their bystanders, and nothing else.
fn check(dir: &Path, outputs: &[&str], written: &[&str]) {
    let mut expected: Vec<String> = vec!["text.txt".into()];
    expected.extend(written.iter().map(|name| (*name).to_owned()));
    for output in outputs {
        for (i, name) in bystanders(output).into_iter().enumerate() {
            let path = dir.join(&name);
            let content = fs::read_to_string(if i % 2 == 1 { path.join("file") } else { path });
            assert_eq!(content.unwrap(), name);
            expected.push(name);
        }
    }
    expected.sort();
    assert_eq!(names(dir), expected);
}

/// `line` with `MODEL` and `TOKENIZER` put in.
fn arguments(line: &str) -> Vec<String> {
    let tokenizer = trained().join("tok");
    let model = trained().join(MODEL);
    line.split(' ')
        .map(|word| match word {
            "MODEL" => model.to_str().unwrap().to_owned(),
            "TOKENIZER" => tokenizer.to_str().unwrap().to_owned(),
            word => word.to_owned(),
        })
        .collect()
}

fn done(dir: &Path, line: &str) -> (i32, String) {
    let args = arguments(line);
    let (code, _, stderr) = run(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
    (code, stderr)
}

/// What writes each output, and the flag that replaces it.
const WRITERS: [(&str, &str, &str); 5] = [
    ("shards", "data prepare text.txt -t TOKENIZER -o shards --validation 0.2", "--overwrite"),
    ("tok", "tokenizer train text.txt --kind char -o tok", "--overwrite"),
    ("m.gguf", "convert MODEL -o m.gguf", "--force"),
    ("folder", "convert MODEL -o folder", "--force"),
    ("q.gguf", "quantize MODEL -o q.gguf --format q8_0", "--force"),
];

#[test]
fn neighbours_of_every_output_are_untouched() {
    let outputs = WRITERS.map(|(output, ..)| output);
    let folder = place(&outputs);
    let dir = folder.path();
    for (i, (output, line, replace)) in WRITERS.into_iter().enumerate() {
        let (code, stderr) = done(dir, line);
        assert_eq!(code, 0, "{line}: {stderr}");
        check(dir, &outputs, &outputs[..=i]);
        let (code, stderr) = done(dir, line);
        assert_eq!(code, 1, "{line}: {stderr}");
        let hint = format!("`{replace}`");
        assert!(stderr.contains("already") && stderr.contains(&hint), "{line}: {stderr}");
        let is_folder = dir.join(output).is_dir();
        if is_folder {
            fs::write(dir.join(output).join("notes.txt"), "mine").unwrap();
        }
        let (code, stderr) = done(dir, &format!("{line} {replace}"));
        assert_eq!(code, 0, "{line}: {stderr}");
        if is_folder {
            assert_eq!(fs::read(dir.join(output).join("notes.txt")).unwrap(), b"mine");
        }
        check(dir, &outputs, &outputs[..=i]);
    }
}

#[test]
fn an_output_that_another_process_writes_is_refused() {
    let folder = place(&[]);
    let dir = folder.path();
    for (output, line, replace) in WRITERS {
        let held = llada::files::Output::lock(&dir.join(output)).unwrap();
        let (code, stderr) = done(dir, &format!("{line} {replace}"));
        let message = format!("`{output}` is being written by another process");
        assert!(code == 1 && stderr.contains(&message), "{line}: {stderr}");
        assert!(stderr.contains("hint: wait until it has ended"), "{stderr}");
        drop(held);
        assert_eq!(names(dir), ["text.txt"]);
    }
}

/// Replacing a folder would take the lock of what is written in it along, and a second writer could
/// begin.
#[test]
fn a_folder_with_a_run_in_it_that_goes_on_is_not_replaced() {
    let folder = place(&[]);
    let dir = folder.path();
    for (output, line, replace) in WRITERS.into_iter().filter(|(name, ..)| !name.contains('.')) {
        assert_eq!(done(dir, line).0, 0, "{line}");
        let run = format!("{output}/runs/mine");
        let held = llada::files::Output::lock(&dir.join(&run)).unwrap();
        let before = names(&dir.join(output));
        let (code, stderr) = done(dir, &format!("{line} {replace}"));
        let message = format!("`{run}` is being written by another process");
        assert!(code == 1 && stderr.contains(&message), "{line}: {stderr}");
        assert!(stderr.contains("hint: wait until it has ended"), "{stderr}");
        assert_eq!(names(&dir.join(output)), before);
        let train = "train recipe.toml --out";
        fs::write(dir.join("recipe.toml"), "[data]\npath = \"shards\"\n").unwrap();
        let (code, stderr) = done(dir, &format!("{train} {run}"));
        assert!(code == 1 && stderr.contains(&format!("`{run}`")), "{stderr}");
        assert!(stderr.contains("another process"), "{stderr}");
        drop(held);
        let (code, stderr) = done(dir, &format!("{line} {replace}"));
        assert_eq!(code, 0, "{line}: {stderr}");
    }
}

#[test]
fn a_tokenizer_is_not_overwritten_unasked() {
    let folder = place(&[]);
    let dir = folder.path();
    let line = WRITERS[1].1;
    fs::create_dir(dir.join("tok")).unwrap();
    fs::write(dir.join("tok/notes.txt"), "mine").unwrap();
    assert_eq!(done(dir, line).0, 0);
    let before = fs::read(dir.join("tok/tokenizer.json")).unwrap();
    fs::write(dir.join("text.txt"), "other letters: xyz").unwrap();
    let (code, stderr) = done(dir, line);
    assert!(code == 1 && stderr.contains("`tok` has a `tokenizer.json` already"), "{stderr}");
    assert_eq!(fs::read(dir.join("tok/tokenizer.json")).unwrap(), before);
    assert_eq!(done(dir, &format!("{line} --overwrite")).0, 0);
    assert_ne!(fs::read(dir.join("tok/tokenizer.json")).unwrap(), before);
    assert_eq!(names(&dir.join("tok")), ["notes.txt", "tokenizer.json", "tokenizer_config.json"]);
    let (code, stderr) = done(dir, "tokenizer train text.txt --kind char -o text.txt");
    assert!(code == 2 && stderr.contains("`text.txt` is a file"), "{stderr}");
}

#[test]
fn convert_refuses_a_tokenizer_that_show_refuses() {
    let folder = place(&[]);
    let dir = folder.path();
    assert_eq!(done(dir, "convert MODEL -o bad").0, 0);
    let own = fs::read_to_string(dir.join("bad/tokenizer.json")).unwrap();
    for damage in [own.replace("\"vocab\"", "\"vocabulary\""), "{".into()] {
        fs::write(dir.join("bad/tokenizer.json"), damage).unwrap();
        let shown = done(dir, "show bad");
        assert_eq!(shown.0, 1, "{}", shown.1);
        for line in ["convert bad -o out", "convert bad -o out.gguf"] {
            assert_eq!(done(dir, line), shown, "{line}");
            assert_eq!(names(dir), ["bad", "text.txt"], "{line}");
        }
    }
    // Another model's, with more tokens than this one has.
    fs::copy(Path::new(storyteller()).join("tokenizer.json"), dir.join("bad/tokenizer.json"))
        .unwrap();
    for line in ["convert bad -o out", "convert bad -o out.gguf"] {
        let (code, stderr) = done(dir, line);
        assert!(code == 1 && stderr.contains("embedding"), "{line}: {stderr}");
        assert_eq!(names(dir), ["bad", "text.txt"], "{line}");
    }
}

#[cfg(unix)]
#[test]
fn pipes_in_the_place_of_small_files_are_refused_at_once() {
    let folder = place(&[]);
    let dir = folder.path();
    assert_eq!(done(dir, "convert MODEL -o m").0, 0);
    let pipe = |path: &str| {
        let _ = fs::remove_file(dir.join(path));
        assert!(
            std::process::Command::new("mkfifo").arg(dir.join(path)).status().unwrap().success()
        );
    };
    for name in ["tokenizer_config.json", "tokenizer.json", "config.json"] {
        let kept = fs::read(dir.join("m").join(name)).unwrap();
        pipe(&format!("m/{name}"));
        for line in ["show m", "convert m -o out", "run -m m -n 4 the"] {
            let (code, stderr) = done(dir, line);
            assert_eq!(code, 1, "{name}: {line}: {stderr}");
        }
        fs::remove_file(dir.join("m").join(name)).unwrap();
        fs::write(dir.join("m").join(name), kept).unwrap();
    }
    pipe("m/chat_template.jinja");
    pipe("recipe.toml");
    pipe("task.toml");
    for line in ["show m", "train recipe.toml", "eval validate task.toml"] {
        let (code, stderr) = done(dir, line);
        assert!(code != 0 && stderr.contains("not a regular file"), "{line}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let trace = trained().join("t.jsonl");
    let model = trained().join(MODEL);
    let args = ["run", "-m", model.to_str().unwrap(), "-n", "4", "the", "--trace"];
    let (code, _, stderr) = run(dir, &[&args[..], &[trace.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{stderr}");
    let trace = trace.to_str().unwrap();
    let (code, _, stderr) = run(dir, &["replay", trace, "--export", "svg", "-o", "/dev/full"]);
    assert!(code == 1 && stderr.contains("free some space"), "{stderr}");
    let (code, _, stderr) = run(dir, &["replay", trace, "--export", "svg", "-o", "/dev/null"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(names(dir).is_empty());
}

#[cfg(unix)]
#[test]
fn a_limit_of_file_sizes_is_no_end_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let model = trained().join(MODEL);
    let program = assert_cmd::cargo::cargo_bin("llada");
    let (program, model) = (program.display(), model.display());
    let line = format!("ulimit -f 0; {program} run -m {model} -n 4 the --trace t.jsonl");
    let mut command = std::process::Command::new("sh");
    let output = command.current_dir(folder.path()).args(["-c", &line]).output().unwrap();
    let (code, answer, stderr) = crate::outcome(output);
    assert!(code == 1 && stderr.contains("ulimit"), "{code}: {stderr}");
    assert!(!answer.is_empty(), "the answer is not lost");
    assert!(names(folder.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_left_of_its_trace_goes_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mine = [".t.jsonl.llada-aB3dE6gH.tmp", ".u.jsonl.llada-aB3dE6gH.tmp"];
    mine.iter().for_each(|name| fs::write(dir.join(name), "mine").unwrap());
    let args = ["run", "-m", storyteller(), "-n", "100", "the", "--trace", "t.jsonl"];
    let mut killed = std::process::Command::new(assert_cmd::cargo::cargo_bin("llada"))
        .current_dir(dir)
        .args(args)
        .env("LLADA_THREADS", "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let is_left = || {
        names(dir).iter().any(|name| {
            name.starts_with(".t.jsonl.llada-") && dir.join(name).join("t.jsonl").is_file()
        })
    };
    while !is_left() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it could be killed");
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(is_left() && !dir.join("t.jsonl").exists());
    assert_eq!(run(dir, &args).0, 0);
    assert_eq!(names(dir), [mine[0], mine[1], "t.jsonl"]);
    assert!(mine.iter().all(|name| fs::read(dir.join(name)).unwrap() == b"mine"));
}

#[cfg(unix)]
#[test]
fn what_was_read_from_stdin_goes_with_an_interrupted_run() {
    use std::process::{Command, Stdio};
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut reading = Command::new(assert_cmd::cargo::cargo_bin("llada"))
            .args(["data", "prepare", "-", "--tokenizer", storyteller(), "--out"])
            .arg(dir.join("shards"))
            .env("TMPDIR", dir)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !names(dir).iter().any(|name| name.starts_with("stdin-")) {
            assert!(reading.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        }
        let kill = Command::new("kill").args(["-s", signal, &reading.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert_eq!(reading.wait().unwrap().code(), Some(130), "{signal}");
        assert!(names(dir).is_empty(), "{:?}", names(dir));
    }
}
