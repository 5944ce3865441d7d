//! Conversations, piped in line by line.

use std::path::Path;

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, storyteller, trained};

/// `llada chat` with the lines `input`; short answers, so that the tests are fast.
fn chat(dir: &Path, flags: &[&str], input: &str) -> (i32, String, String) {
    let common = ["chat", "-m", storyteller(), "-n", "4", "--seed", "7", "--temperature", "0"];
    let own = flags.contains(&"--temperature");
    let args = [if own { &common[..7] } else { &common[..] }, flags].concat();
    outcome(llada(dir, &args).write_stdin(input).output().unwrap())
}

#[test]
fn each_line_is_answered_on_stdout_and_a_seed_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--temperature", "1", "--system", "Be kind."];
    let input = "Hello\n\nWho are you?\n";
    let (code, stdout, stderr) = chat(dir.path(), &flags, input);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.ends_with('\n') && !stdout.contains('\x1b'), "{stdout:?}");
    assert_eq!(chat(dir.path(), &flags, input).1, stdout);
    let two = [&flags[..], &["--threads", "2", "--no-watch"]].concat();
    assert_eq!(chat(dir.path(), &two, input).1, stdout);
    let set = chat(dir.path(), &[], "/set temperature 1\n/system Be kind.\n/set seed 7\nHello\n");
    assert!(stdout.starts_with(set.1.trim_end()), "{stdout} {set:?}");
}

#[test]
fn conversations_are_saved_loaded_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let input =
        "Hi\nYes <|eot_id|>\n/undo\n/save a b.json\n//no\n/save two.json\n/quit\nnot read\n";
    let (code, stdout, stderr) = chat(dir.path(), &["--system", "Be kind."], input);
    assert_eq!(code, 0, "{stderr}");
    let messages = |name: &str| -> Vec<[String; 2]> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        let saved: Value = serde_json::from_str(&text).unwrap();
        let part = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
        let messages = saved["messages"].as_array().unwrap();
        messages.iter().map(|m| [part(m, "role"), part(m, "content")]).collect()
    };
    let first = messages("a b.json");
    assert_eq!(first[..2], [["system", "Be kind."], ["user", "Hi"]]);
    assert_eq!((first.len(), first[2][0].as_str()), (3, "assistant"));
    assert!(stdout.starts_with(&first[2][1]), "{stdout}");
    let second = messages("two.json");
    assert_eq!((&second[..3], second[3][1].as_str()), (&first[..], "/no"));

    let again = "/load two.json\n/retry\n/reset\n/save none.json\n";
    let (code, answer, stderr) = chat(dir.path(), &[], again);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("read 5 messages"), "{stderr}");
    assert_eq!(answer.trim_end(), second[4][1]);
    assert_eq!(messages("none.json"), first[..1]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_line_that_fails_does_not_end_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let long = "word ".repeat(200);
    let input = format!(
        "/fly\n{long}\n/load none.json\n/set steps 3\n/set steps many\n/set wings 2\n/retry\nHi\n"
    );
    let (code, stdout, stderr) = chat(dir.path(), &[], &input);
    assert_eq!((code, stdout.lines().count() > 0), (1, true), "{stderr}");
    for part in [
        "there is no command `/fly`",
        "`/help` lists the commands",
        "say less",
        "cannot read `none.json`",
        "steps is many, which is not a whole number",
        "unknown setting `wings`",
        "nothing was said yet",
        "6 of the lines failed",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    assert_eq!(stderr.matches("error: ").count(), stderr.matches("hint: ").count(), "{stderr}");
}

#[test]
fn long_conversations_lose_their_oldest_turns() {
    let dir = tempfile::tempdir().unwrap();
    let line = "Once upon a time there was a king who had three sons and a horse.\n".repeat(4);
    let (code, _, stderr) = chat(dir.path(), &["--system", "Be kind."], &(line + "/show\n"));
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("left out"), "{stderr}");
    assert!(stderr.contains("9 messages of"), "{stderr}");
}

#[test]
fn help_and_settings_are_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = chat(dir.path(), &[], "/help\n/set cfg-scale 0.5\n/show\n");
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    for part in ["/retry", "gen_length              4", "cfg_scale               0.5"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let (code, _, stderr) = chat(dir.path(), &["--block-length", "3"], "");
    assert_eq!(code, 2, "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["run", "--system", "x", "y"]);
    assert_eq!(code, 2, "{stderr}");
    let args = ["run", "-m", storyteller(), "-n", "2", "--chat", "--system", "Be kind.", "Hi"];
    let (code, _, stderr) = run(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_base_model_is_called_one() {
    let dir = trained();
    let bare = dir.join("bare");
    std::fs::create_dir_all(&bare).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(dir.join(MODEL).join(name), bare.join(name)).unwrap();
    }
    let mut tokenizer = std::fs::read_to_string(dir.join(MODEL).join("tokenizer.json")).unwrap();
    for token in ["start_header_id", "end_header_id", "eot_id"] {
        tokenizer = tokenizer.replace(token, &format!("no_{token}"));
    }
    std::fs::write(bare.join("tokenizer.json"), tokenizer).unwrap();
    let (code, stdout, stderr) = run(dir, &["chat", "-m", "bare"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("`bare` has no chat tokens"), "{stderr}");
    assert!(!run(dir, &["chat", "-m", MODEL]).2.contains("no chat tokens"));
}
