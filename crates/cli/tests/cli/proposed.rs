//! What models say of themselves: their chat template, their `generation_config.json`.

use serde_json::Value;

use crate::{llada, outcome, run, storyteller, trained, tuned, with_generation_config};

/// The sampler of a run.
fn sampler(model: &str, flags: &str) -> Value {
    let args: Vec<&str> = ["run", "--raw", "-m", model, "--json", "--seed", "1"]
        .into_iter()
        .chain(flags.split_whitespace())
        .chain(["Once"])
        .collect();
    let (code, stdout, stderr) = run(trained(), &args);
    assert_eq!(code, 0, "{flags}: {stderr}");
    serde_json::from_str::<Value>(&stdout).unwrap()["summary"]["sampler"].take()
}

#[test]
fn flags_go_before_the_file_and_the_file_before_the_preset() {
    let text = r#"{"temperature": 0.5, "max_new_tokens": 16, "transfer": "factor=2", "top_p": 0.9,
                   "_from_model_config": true}"#;
    let copy = with_generation_config(storyteller(), text);
    let model = copy.path().to_str().unwrap();
    let plain = sampler(model, "");
    assert_eq!((&plain["temperature"], &plain["gen_length"]), (&0.5.into(), &16.into()));
    assert_eq!(plain["transfer"]["factor"], 2.0);
    let asked = sampler(model, "--temperature 0 -n 8 --transfer schedule");
    assert_eq!((&asked["temperature"], &asked["gen_length"]), (&0.0.into(), &8.into()));
    assert_eq!(asked["transfer"], "schedule");
    assert_eq!(sampler(model, "--preset fast")["temperature"], 0.5);
    let exact = sampler(model, "--preset exact");
    assert_eq!((&exact["exact"], &exact["transfer"]), (&true.into(), &"schedule".into()));

    let (code, shown, _) = run(trained(), &["show", model]);
    assert_eq!(code, 0);
    assert!(shown.contains("gen_length 16, temperature 0.5, transfer factor=2"), "{shown}");
    let (_, shown, _) = run(trained(), &["show", model, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["generation"]["temperature"], "0.5");
    let (_, _, stderr) = run(trained(), &["run", "-v", "-n", "4", "-m", model, "Once"]);
    assert!(stderr.contains("generation_config.json: gen_length 16"), "{stderr}");
}

#[test]
fn the_file_travels_with_its_model() {
    let copy = with_generation_config(storyteller(), r#"{"temperature": 0.25}"#);
    let model = copy.path().to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for args in [
        ["convert", model, "-o", "a.gguf"],
        ["convert", "a.gguf", "-o", "b"],
        ["convert", "b", "-o", "c.gguf"],
    ] {
        let (code, _, stderr) = run(dir.path(), &args);
        assert_eq!(code, 0, "{stderr}");
    }
    let (_, shown, stderr) = run(dir.path(), &["show", "c.gguf"]);
    assert!(shown.contains("temperature 0.25"), "{shown} {stderr}");
    assert!(dir.path().join("b/generation_config.json").is_file());
}

#[test]
fn bad_values_name_file_key_and_range() {
    for (text, parts) in [
        (r#"{"temperature": -1}"#, ["generation_config.json`: temperature is -1", "from 0 to 100"]),
        (
            r#"{"threshold": 2}"#,
            ["generation_config.json`: transfer threshold is 2", "from 0 to 1"],
        ),
        (r#"{"steps": "x"}"#, ["generation_config.json`: steps is x", "a whole number from 1"]),
        ("{", ["generation_config.json` is not a JSON object", "remove the file"]),
        (
            r#"{"transfer": "leap", "remasking": "random"}"#,
            ["`generation_config.json` contradicts itself", "remasking cannot be combined"],
        ),
    ] {
        let copy = with_generation_config(storyteller(), text);
        let args = ["run", "-n", "4", "-m", copy.path().to_str().unwrap(), "Once"];
        let (code, stdout, stderr) = run(copy.path(), &args);
        assert!(code > 0 && stdout.is_empty(), "{text}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{text}: {part} is missing in\n{stderr}");
        }
        assert_eq!(stderr.matches("hint: ").count(), 1, "{stderr}");
    }
}

#[test]
fn a_model_with_a_chat_template_is_sent_messages() {
    let dir = tempfile::tempdir().unwrap();
    let with = |flags: &[&str]| {
        let common = ["run", "-m", tuned(), "--temperature", "0", "-n", "16", "--seed", "1"];
        run(dir.path(), &[&common[..], flags, &["Hello!"]].concat())
    };
    let (code, plain, stderr) = with(&[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stderr.matches("has a chat template").count(), 1, "{stderr}");
    assert!(stderr.contains("`--raw`"), "{stderr}");
    let (_, chat, stderr) = with(&["--chat"]);
    assert_eq!((chat, stderr.contains("has a chat template")), (plain.clone(), false));
    let (_, raw, stderr) = with(&["--raw"]);
    assert!(raw != plain && !stderr.contains("template"), "{raw} {stderr}");
    let (code, _, stderr) = with(&["--system", "Be kind."]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = with(&["--raw", "--system", "Be kind."]);
    assert_eq!(code, 2, "{stderr}");

    let (code, _, stderr) = run(dir.path(), &["run", "-n", "4", "-m", storyteller(), "Once"]);
    assert!(code == 0 && !stderr.contains("template"), "{stderr}");
    let (code, _, stderr) = run(dir.path(), &["run", "-m", storyteller(), "--system", "x", "y"]);
    assert!(code == 2 && stderr.contains("add `--chat`"), "{stderr}");
}

#[test]
fn training_names_the_command_for_its_model() {
    let dir = trained();
    let step = dir.join("run/checkpoints/step-4/tokenizer_config.json");
    assert!(!std::fs::read_to_string(step).unwrap().contains("chat_template"));
    let row = |i: usize| format!("{{\"prompt\": \"{i}\", \"response\": \"t\"}}\n");
    std::fs::write(dir.join("named.jsonl"), (0..10).map(row).collect::<String>()).unwrap();
    std::fs::write(
        dir.join("named.toml"),
        "[model]\ninit_from = \"run/checkpoints/step-4\"\n[data]\npath = \"named.jsonl\"\n\
         sequence_length = 32\n[sft]\nheld_out = 0.3\n[train]\nsteps = 1\nbatch_size = 2\n\
         [eval]\nsequences = 2\ndraws = 1\n",
    )
    .unwrap();
    let (code, _, stderr) = run(dir, &["sft", "named.toml", "-o", "talks"]);
    assert_eq!(code, 0, "{stderr}");
    let command = "`llada chat talks/checkpoints/step-1`";
    assert!(stderr.contains(command), "{stderr}");
    let args = ["chat", "talks/checkpoints/step-1", "-n", "2"];
    let (code, _, stderr) = outcome(llada(dir, &args).write_stdin("a\n").output().unwrap());
    assert!(!stderr.contains("no chat tokens") && code < 2, "{stderr}");
    let (_, shown, _) = run(dir, &["show", "talks/checkpoints/step-1", "--json"]);
    assert!(shown.contains("\"chat_template\": true"), "{shown}");
}
