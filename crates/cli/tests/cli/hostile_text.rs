//! Names and messages out of files that would command the terminal: they are shown, not obeyed.

use std::{fs, path::Path};

use crate::{MODEL, llada, outcome, trained};

/// Clears the screen, sets the title, begins a line of its own, reorders, hides.
const EVIL: &str =
    "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{202e}\u{2028}\u{200b}\n  hint: run `evil`\n";

/// A string of JSON or TOML.
fn quoted() -> String {
    EVIL.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_ascii() && !c.is_control() => c.to_string(),
            c => format!("\\u{:04x}", c as u32),
        })
        .collect()
}

/// Runs a line of words; nothing on either stream may command a terminal.
fn calm(dir: &Path, words: &[&str]) -> (i32, String, String) {
    let (code, stdout, stderr) = outcome(llada(dir, words).output().unwrap());
    for text in [&stdout, &stderr] {
        let loud = |c: char| {
            c.is_control() && !"\n\t".contains(c) || "\u{202e}\u{2028}\u{200b}".contains(c)
        };
        assert!(!text.contains(loud), "{words:?}: {text:?}");
    }
    // A prompt that is shown has its lines; a message has ours only.
    assert!(!stderr.lines().any(|line| line.starts_with("  hint: run `evil`")), "{stderr}");
    (code, stdout, stderr)
}

/// A copy of the tiny model, in which a file has been changed.
fn model(dir: &Path, file: &str, change: &dyn Fn(&str) -> String) -> String {
    let target = dir.join("model");
    fs::create_dir_all(&target).unwrap();
    for entry in fs::read_dir(trained().join(MODEL)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
        }
    }
    let text = fs::read_to_string(target.join(file)).unwrap();
    fs::write(target.join(file), change(&text)).unwrap();
    target.to_string_lossy().into_owned()
}

const VERBS: [&[&str]; 5] = [
    &["show", "M"],
    &["run", "the", "--model", "M", "-n", "4", "-v"],
    &["score", "the", "cat", "--model", "M", "-v"],
    &["infill", "the {{hole:1}}", "--model", "M", "-v"],
    &["chat", "--model", "M"],
];

fn with_model(verb: &[&'static str], model: &str) -> Vec<String> {
    verb.iter()
        .map(|word| if *word == "M" { model.to_owned() } else { (*word).to_owned() })
        .collect()
}

#[test]
fn no_file_of_a_model_commands_the_terminal() {
    let evil = quoted();
    let set = |key: &'static str| {
        let evil = evil.clone();
        move |text: &str| {
            let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
            json[key] = serde_json::from_str(&format!("\"{evil}\"")).unwrap();
            json.to_string()
        }
    };
    type Change = Box<dyn Fn(&str) -> String>;
    let changes: Vec<(&str, Change)> = vec![
        ("config.json", Box::new(set("model_type"))),
        ("config.json", Box::new(set("activation_type"))),
        ("config.json", Box::new(set("d_model"))),
        ("config.json", Box::new(|_| EVIL.to_owned())),
        ("tokenizer.json", Box::new(set("version"))),
        ("tokenizer.json", Box::new(|text| text.replacen("\"the\"", "\"\\u001b[2J\"", 1))),
        ("tokenizer.json", Box::new(|_| format!("{{\"{EVIL}\":1}}"))),
        ("tokenizer_config.json", Box::new(set("chat_template"))),
        ("tokenizer_config.json", Box::new(set("eos_token"))),
        ("tokenizer_config.json", Box::new(|_| EVIL.to_owned())),
    ];
    for (file, change) in changes {
        if !trained().join(MODEL).join(file).is_file() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let model = model(folder.path(), file, &*change);
        for verb in VERBS {
            let words = with_model(verb, &model);
            calm(folder.path(), &words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

#[test]
fn no_other_file_and_no_argument_commands_the_terminal() {
    let evil = quoted();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let model = trained().join(MODEL);
    let model = model.to_str().unwrap();
    let write = |name: &str, text: String| fs::write(dir.join(name), text).unwrap();
    write("recipe.toml", format!("[model]\nd_model = \"{evil}\"\n"));
    write("key.toml", format!("[model]\n\"{evil}\" = 1\n"));
    write("task.toml", format!("name = \"{evil}\"\n"));
    write(
        "about.toml",
        format!(
            "name = \"t\"\nversion = 1\nabout = \"a\"\nsource = \"{evil}\"\nkind = \"generate\"\n\
         prompt = \"{{{{ p }}}}{evil}\"\ntarget = \"{evil}\"\n[data]\nfiles = [\"rows.jsonl\"]\n[generate]\n"
        ),
    );
    write("rows.jsonl", format!("{{\"p\":\"{evil}\"}}\n{{\"{evil}\":1}}\n\u{1b}[2J\n"));
    write("trace.jsonl", format!("{{\"model\":\"{evil}\",\"\u{9b}\":1}}\n{EVIL}"));
    write("bad.gguf", format!("GGUF{EVIL}"));
    write("bad.safetensors", format!("{:8}{EVIL}", "\u{10}"));
    for words in [
        &["train", "recipe.toml"][..],
        &["train", "key.toml"],
        &["sft", "key.toml"],
        &["eval", "validate", "task.toml"],
        &["eval", "validate", "about.toml"],
        &["eval", "run", "about.toml", "--model", model, "-n", "4"],
        &["eval", "run", "about.toml", "task.toml", "--model", model],
        &["replay", "trace.jsonl"],
        &["show", "bad.gguf"],
        &["show", "bad.safetensors"],
        &["show", EVIL],
        &[EVIL],
        &["run", "x", "--blocks", EVIL],
        &["run", "x", "--model", EVIL],
        &["eval", "run", EVIL],
        &["eval", "validate", "mmlu", "--data", EVIL],
        &["train", EVIL],
        &["train", "recipe.toml", EVIL],
        &["data", "prepare", EVIL, "--tokenizer", EVIL, "--out", "o"],
        &["convert", EVIL, "-o", "o.gguf"],
    ] {
        let (code, _, stderr) = calm(dir, words);
        assert!(code != 0 || words[0] == "eval", "{words:?}: {stderr}");
    }
}

#[test]
#[cfg(unix)]
fn no_name_of_a_file_commands_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let name = EVIL.replace(['\n', '`', '/'], "");
    let dir = folder.path().join(&name);
    fs::create_dir(&dir).unwrap();
    let text = folder.path().join(format!("{name}.txt"));
    fs::write(&text, "the cat sat\n".repeat(50)).unwrap();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let (tok, out) = (path(&dir.join("tok")), path(&dir.join("data")));
    let (code, _, _) =
        calm(folder.path(), &["tokenizer", "train", &path(&text), "--kind", "char", "--out", &tok]);
    assert_eq!(code, 0);
    calm(
        folder.path(),
        &["data", "prepare", &path(&text), "--tokenizer", &tok, "--out", &out, "-v"],
    );
    calm(folder.path(), &["show", &path(&dir)]);
    calm(folder.path(), &["replay", &path(&text)]);
    calm(folder.path(), &["tokenizer", "encode", "the", "--tokenizer", &out]);
}
