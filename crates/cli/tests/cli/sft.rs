//! `llada sft` and `llada merge`.

use std::{fs, path::Path, sync::OnceLock};

use crate::{MODEL, llada, outcome, run, trained};

/// The folder of [`trained`] with conversations and a recipe for them.
fn chats() -> &'static Path {
    static READY: OnceLock<()> = OnceLock::new();
    let dir = trained();
    READY.get_or_init(|| {
        let row = |i: usize| format!("{{\"prompt\":\"cat {i}\",\"response\":\"sat\"}}\n");
        let rows: String = (0..8).map(row).collect();
        let bad = "{\"prompt\":\"cat\"}\nno\n";
        fs::write(dir.join("chat.jsonl"), format!("{bad}{rows}")).unwrap();
        let recipe = format!(
            "[model]\ninit_from = \"{MODEL}\"\n[data]\npath = \"chat.jsonl\"\n\
             sequence_length = 32\n[sft]\ntemplate = \"plain\"\nheld_out = 0.2\n\
             [train]\nsteps = 4\nbatch_size = 2\ncheckpoint_every = 2\ncompute = \"f32\"\n\
             [eval]\nevery = 4\nsequences = 2\ndraws = 1\n[log]\nevery = 2\nsample_every = 4\n"
        );
        fs::write(dir.join("sft.toml"), recipe).unwrap();
    });
    dir
}

#[test]
fn conversations_are_trained_on_and_bad_rows_named() {
    let dir = chats();
    let (code, stdout, stderr) = run(dir, &["sft", "sft.toml", "--out", "tuned"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    for part in [
        "dialogues to train on",
        "warning: 2 rows rejected",
        "chat.jsonl:1: no field `response`",
        "chat.jsonl:2: not JSON",
        "step 4/4",
        "sample at step 4",
        "validation at step 4",
        "saved tuned/checkpoints/step-4",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let args = ["sft", "sft.toml", "--out", "tuned", "--resume", "train.steps=5"];
    let (code, _, stderr) = run(dir, &args);
    assert!(code == 0 && stderr.contains("from step 4"), "{stderr}");
    let (code, answer, stderr) =
        run(dir, &["run", "-m", "tuned/checkpoints/step-5", "-n", "4", "cat 1"]);
    assert!(code == 0 && answer.ends_with('\n'), "{stderr}");
}

#[test]
fn a_list_in_json_trains_as_its_rows_do() {
    let dir = chats();
    let row = |i: usize| {
        format!(
            "  {{\n    \"instruction\": \"cat\",\n    \"input\": \"{i}\",\n    \"output\": \"sat\"\n  }}"
        )
    };
    let rows: Vec<String> = (0..8).map(row).collect();
    fs::write(dir.join("alpaca.json"), format!("[\n{},\n  7\n] x\n", rows.join(",\n"))).unwrap();
    let args = ["sft", "sft.toml", "data.path=alpaca.json", "--out", "listed"];
    let (code, _, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    for part in [
        "warning: 2 rows rejected",
        "alpaca.json:42: not a JSON object",
        "alpaca.json:43: it follows the end of the list",
        "saved listed/checkpoints/step-4",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    fs::write(dir.join("texts.json"), "[{\"text\": \"the cat\"},\n {\"text\": \"sat\"}]").unwrap();
    let args = ["data", "prepare", "texts.json", "-t", "tok/tokenizer.json", "-o", "of-list"];
    let (code, _, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    let meta = fs::read_to_string(dir.join("of-list/meta.json")).unwrap();
    assert_eq!(meta.matches("\"documents\": 1").count(), 2, "{meta}");
}

#[test]
fn adapters_are_a_model_and_can_be_merged() {
    let dir = chats();
    let args = ["sft", "sft.toml", "--out", "lora", "lora.rank=2", "optim.lr=0.05"];
    let (code, _, stderr) = run(dir, &args);
    assert!(code == 0 && stderr.contains("training adapters of "), "{stderr}");
    let adapter = "lora/checkpoints/step-4";
    let (code, _, stderr) = run(dir, &["merge", adapter, "--out", "merged"]);
    assert!(code == 0 && stderr.contains("wrote merged"), "{stderr}");
    assert!(!dir.join("merged/adapter_config.json").exists());
    let answer = |model: &str| {
        let (code, answer, stderr) = run(dir, &["run", "-m", model, "-n", "8", "the cat"]);
        assert_eq!(code, 0, "{stderr}");
        answer
    };
    assert_eq!(answer(adapter), answer("merged"));
    let (code, shown, _) = run(dir, &["show", adapter]);
    assert!(code == 0 && shown.contains("adapter_model.safetensors"), "{shown}");

    let (code, _, stderr) = run(dir, &["merge", adapter, "--out", "merged"]);
    assert!(code == 1 && stderr.contains("`merged` is not empty"), "{stderr}");
    let (code, _, stderr) = run(dir, &["merge", MODEL, "--out", "other"]);
    assert!(code == 1 && stderr.contains("no adapters to merge"), "{stderr}");
    let (code, _, stderr) = run(dir, &["merge", adapter, "--out", "other", "--base", "nowhere"]);
    assert!(code == 1 && stderr.contains("nowhere"), "{stderr}");
    assert!(!dir.join("other").exists());
}

#[test]
fn adapters_without_a_tokenizer_have_that_of_their_model() {
    let dir = chats();
    let args = ["sft", "sft.toml", "--out", "low", "lora.rank=2", "optim.lr=0.05"];
    let (code, _, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    fs::create_dir(dir.join("peft")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(dir.join("low/checkpoints/step-4").join(name), dir.join("peft").join(name))
            .unwrap();
    }
    let own = "low/checkpoints/step-4";
    let stdin = "the cat 1\n";
    for verb in [
        &["run", "-n", "4", "the cat"][..],
        &["score", "the cat", " sat", " ran"],
        &["infill", "the cat {{hole:4}} sat"],
        &["score", "--perplexity", "text.txt"],
        &["tokenizer", "encode", "the cat"],
    ] {
        let answer = |model: &str| {
            let flag = if verb[0] == "tokenizer" { "--tokenizer" } else { "-m" };
            let mut command = llada(dir, &[verb, &[flag, model]].concat());
            let (code, answer, stderr) = outcome(command.write_stdin(stdin).output().unwrap());
            assert!(code == 0 && !answer.is_empty(), "{verb:?} {model}: {stderr}");
            answer
        };
        assert_eq!(answer("peft"), answer(own), "{verb:?}");
    }
    let (_, shown, stderr) = run(dir, &["show", "peft"]);
    assert!(shown.contains("<|mdm_mask|>"), "{shown}{stderr}");
    for args in [
        &["convert", "peft", "--out", "peft.gguf"][..],
        &["quantize", "peft", "--format", "q8_0", "--out", "peft-q8.gguf"],
        &["merge", "peft", "--out", "peft-merged"],
    ] {
        let (code, _, stderr) = run(dir, args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
    }
    let answer = |model: &str| run(dir, &["run", "-m", model, "-n", "4", "the cat"]).1;
    assert_eq!(answer("peft.gguf"), answer(own));
    assert_eq!(answer("peft-merged"), answer(own));
}

#[test]
fn each_verb_sends_to_the_other() {
    let dir = chats();
    for (args, message, hint) in [
        (&["train", "sft.toml"][..], "it has `[sft]`", "llada sft"),
        (&["train", "recipe.toml", "data.path=chat.jsonl"], "not a folder", "llada sft"),
        (&["sft", "sft.toml", "data.path=data"], "not of conversations", "llada train"),
        (&["sft", "recipe.toml"], "`model.init_from` is not set", "checkpoint"),
    ] {
        let (code, stdout, stderr) = run(dir, &[args, &["--out", "never"]].concat());
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(message) && stderr.contains(hint), "{args:?}: {stderr}");
        assert!(!dir.join("never").exists(), "{args:?}");
    }
}
