//! From a text to an answer, through every verb.

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, trained};

#[test]
fn the_answer_alone_is_on_stdout() {
    let dir = trained();
    let args = ["run", "--model", MODEL, "-n", "8", "--seed", "7", "the cat"];
    let (code, answer, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(answer.ends_with('\n'));
    assert!(stderr.contains("8 NFE · 1.0 tok/forward"), "{stderr}");
    assert!(stderr.contains("of 8 canvas tokens") && stderr.contains("seed 7"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "{stderr:?}");

    let quiet = run(dir, &[&args[..], &["--quiet"]].concat());
    assert_eq!(quiet, (0, answer.clone(), String::new()));
    let no_color = llada(dir, &args).env("NO_COLOR", "1").output().unwrap();
    assert_eq!(outcome(no_color).1, answer);
    let from_stdin = llada(dir, &args[..7]).write_stdin("the cat\n").output().unwrap();
    assert_eq!(outcome(from_stdin).1, answer);
    let dash = [&args[..7], &["-"]].concat();
    assert_eq!(outcome(llada(dir, &dash).write_stdin("the cat").output().unwrap()).1, answer);
}

#[test]
fn watching_without_a_terminal_writes_no_drawing_codes() {
    let args = ["run", "--model", MODEL, "-n", "4", "--watch", "the"];
    let (code, stdout, stderr) = run(trained(), &args);
    assert_eq!(code, 0);
    assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "{stderr:?}");
    assert!(stderr.contains("not a terminal"), "{stderr}");
}

#[test]
fn json_carries_text_tokens_and_summary() {
    let args = ["run", "-m", MODEL, "-n", "8", "--block-length", "4", "--steps", "4", "--json"];
    let (code, stdout, _) = run(trained(), &[&args[..], &["the"]].concat());
    assert_eq!(code, 0);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert!(answer["text"].is_string() && answer["tokens"].is_array());
    let summary = &answer["summary"];
    assert_eq!((&summary["nfe"], &summary["canvas_tokens"]), (&4.into(), &8.into()));
    assert_eq!(summary["sampler"]["blocks"], "semi-autoregressive");
    assert!(summary["sampler"]["seed"].is_u64());
}

#[test]
fn many_prompts_give_the_answers_of_each_alone() {
    let dir = trained();
    std::fs::write(dir.join("prompts.txt"), "the cat\nsat\n").unwrap();
    let common = ["run", "-m", MODEL, "-n", "6", "--json", "--seed", "1"];
    let (code, stdout, stderr) = run(dir, &[&common[..], &["--prompts", "prompts.txt"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let answers: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    for (answer, prompt) in answers.iter().zip(["the cat", "sat"]) {
        let (_, alone, _) = run(dir, &[&common[..], &[prompt]].concat());
        let alone: Value = serde_json::from_str(&alone).unwrap();
        assert_eq!(answer["tokens"], alone["tokens"]);
        assert_eq!(answer["summary"]["prompt"], prompt);
    }
}

#[test]
fn settings_that_contradict_each_other_are_explained() {
    let base = ["run", "-m", MODEL];
    // Flags at odds with each other are wrong usage; at odds with the model, a failure.
    let cases: [(&[&str], i32, &str, &str); 4] = [
        (&["-n", "10", "--block-length", "4"], 2, "does not divide", "--gen-length 8 or 12"),
        (&["-n", "1000"], 1, "do not fit a sequence of 32", "--gen-length 31 or less"),
        (
            &["-n", "8", "--block-length", "4", "--steps", "3"],
            2,
            "shared equally",
            "--steps 2 or 4",
        ),
        (&["--blocks", "pure", "--block-length", "4"], 2, "has no meaning", "leave out"),
    ];
    for (flags, expected, message, hint) in cases {
        let (code, stdout, stderr) = run(trained(), &[&base[..], flags, &["t"]].concat());
        assert_eq!((code, stdout.as_str()), (expected, ""), "{flags:?}");
        assert!(stderr.contains(message) && stderr.contains(hint), "{stderr}");
    }
}

#[test]
fn training_reports_steps_and_can_be_resumed() {
    let dir = trained();
    let (code, stdout, stderr) = run(dir, &["train", "recipe.toml", "--out", "again"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    for part in ["step 2/4 (50.00%) | loss ", "% of peak", "nll bound", "sample at step 4", "saved"]
    {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let (code, _, stderr) = run(dir, &["train", "recipe.toml", "--out", "again"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("hint: ") && stderr.contains("--resume"), "{stderr}");

    let args = ["train", "recipe.toml", "--out", "again", "--resume", "step-2", "train.steps=6"];
    let (code, _, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("from step 2") && stderr.contains("step 6/6"), "{stderr}");
    let (code, _, stderr) =
        run(dir, &["train", "recipe.toml", "--out", "again", "--resume=step-99"]);
    assert_eq!(code, 1, "{stderr}");
}

#[test]
fn a_run_goes_on_by_itself_or_as_a_branch() {
    let dir = trained();
    let train =
        |line: &str| run(dir, &[&["train"], &line.split(' ').collect::<Vec<_>>()[..]].concat());
    assert_eq!(train("recipe.toml --out own train.seed=3").0, 0);
    // Its own settings, without a recipe; another recipe is refused, whichever is meant.
    let (code, _, stderr) = train("--resume --out own train.steps=6");
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("train.steps: 4 -> 6") && stderr.contains("from step 4"), "{stderr}");
    let (code, _, stderr) = train("recipe.toml --resume --out own optim.lr=0.5");
    assert_eq!(code, 1);
    for part in ["`optim.lr` is 0.001, not 0.5", "`train.seed` is 3, not 0", "--branch-from own"] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let (code, _, stderr) = train("--branch-from own/step-4 --out twig optim.lr=0.5");
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("optim.lr: 0.001 -> 0.5") && stderr.contains("from step 4"),
        "{stderr}"
    );
    let config = std::fs::read_to_string(dir.join("twig/config.toml")).unwrap();
    assert!(config.contains("# It branched at step 4 from ") && config.contains("seed = 3"));
    let (code, _, stderr) = train("--resume");
    assert!(code == 2 && stderr.contains("--out DIR"), "{stderr}");
    let (code, _, stderr) = run(dir, &["sft", "--resume", "--out", "own"]);
    assert!(code == 1 && stderr.contains("llada train"), "{stderr}");
}

#[test]
fn what_a_run_will_take_is_told_without_a_trace() {
    let dir = trained();
    let (code, told, stderr) = run(dir, &["train", "recipe.toml", "--out", "dry", "--dry-run"]);
    assert_eq!(code, 0, "{stderr}");
    for part in ["parameters", "passes over the data", "at least", "a step here", "32 x 32"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!dir.join("dry").exists());
    // A run that is resumed so stands where it stood.
    assert_eq!(run(dir, &["train", "recipe.toml", "--out", "wet"]).0, 0);
    let before = std::fs::read(dir.join("wet/metrics.jsonl")).unwrap();
    let resumed = ["train", "--resume", "--out", "wet", "train.steps=9", "--dry-run"];
    let (code, told, stderr) = run(dir, &resumed);
    assert_eq!(code, 0, "{stderr}");
    assert!(told.contains("9, of which 4 are done"), "{told}");
    assert_eq!(std::fs::read(dir.join("wet/metrics.jsonl")).unwrap(), before);
    let config = std::fs::read_to_string(dir.join("wet/config.toml")).unwrap();
    assert!(config.contains("steps = 4"), "{config}");
}

#[test]
fn a_size_that_cannot_be_is_refused() {
    let args = ["train", "recipe.toml", "--out", "huge", "train.batch_size=1000000000000"];
    let (code, _, stderr) = run(trained(), &args);
    assert_eq!(code, 1);
    assert!(stderr.contains("`train.batch_size` is `1000000000000`, expected at most"), "{stderr}");
    assert!(!trained().join("huge").exists());
}

#[test]
fn damage_is_shown() {
    let dir = trained();
    assert_eq!(run(dir, &["train", "recipe.toml", "--out", "seen"]).0, 0);
    let (code, stdout, stderr) = run(dir, &["show", "--verify", "seen"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let shown = |name: &str| stdout.lines().find(|line| line.contains(name)).unwrap_or_default();
    assert!(shown("checkpoints/step-4/model.safetensors").ends_with("  ok"), "{stdout}");
    assert!(shown("step-2/state.json").ends_with("  ok"), "{stdout}");
    let notes = dir.join("seen/checkpoints/step-4/notes.txt");
    std::fs::write(&notes, "mine").unwrap();
    let (code, stdout, stderr) = run(dir, &["show", "--verify", "seen"]);
    let line = stdout.lines().find(|line| line.contains("notes.txt")).unwrap();
    assert!(code == 0 && line.ends_with("has no checksum"), "{stdout}");
    assert!(stderr.contains("1 file has no checksum and was not checked"), "{stderr}");
    std::fs::remove_file(notes).unwrap();
    let (code, stdout, stderr) = run(dir, &["show", "--verify", "text.txt"]);
    assert!(code == 1 && stdout.contains("has no checksum"), "{stdout}");
    assert!(stderr.contains("nothing could be checked: no file has a checksum"), "{stderr}");
    for shipped in ["storyteller", "storyteller-chat"] {
        let (code, stdout, _) = run(dir, &["show", "--verify", shipped]);
        let weights = stdout.lines().find(|line| line.contains("model.safetensors"));
        assert!(code == 0 && weights.is_some_and(|line| line.ends_with("  ok")), "{stdout}");
    }

    let weights = dir.join("seen/checkpoints/step-4/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    for of in ["seen", "seen/checkpoints/step-4", "seen/checkpoints/step-4/model.safetensors"] {
        let (code, stdout, stderr) = run(dir, &["show", "--verify", of]);
        assert_eq!(code, 1, "{of}");
        assert!(stdout.contains("damaged: its checksum differs"), "{stdout}");
        assert!(stderr.contains("1 file is damaged"), "{stderr}");
    }
    let (code, stdout, _) = run(dir, &["show", "--verify", "data", "--json"]);
    assert_eq!(code, 0);
    let files: Value = serde_json::from_str(&stdout).unwrap();
    assert!(files.as_array().unwrap().iter().all(|file| file["state"] == "ok"), "{stdout}");
}

#[test]
fn shards_prepared_with_a_tokenizer_file_know_its_special_tokens() {
    let dir = trained();
    let args = ["data", "prepare", "text.txt", "-t", "tok/tokenizer.json", "-o", "from-file"];
    let (code, _, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("from-file/tokenizer_config.json"), read("tok/tokenizer_config.json"));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_and_exits_with_130() {
    let dir = trained();
    let endless = ["train", "recipe.toml", "--out", "endless", "train.steps=100000000"];
    let quiet = ["eval.every=0", "log.sample_every=0", "train.checkpoint_every=0"];
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("llada"))
        .args(endless.iter().chain(&quiet))
        .current_dir(dir)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let metrics = dir.join("endless/metrics.jsonl");
    while std::fs::metadata(&metrics).map_or(0, |m| m.len()) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "training ended by itself");
    }
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(dir.join("endless/checkpoints")).unwrap().count(), 1);
}

#[test]
fn show_describes_the_model() {
    let dir = trained();
    let (code, stdout, stderr) = run(dir, &["show", MODEL]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["masked diffusion", "<|mdm_mask|>", "model.safetensors", "tensors in f32"] {
        assert!(stdout.contains(part), "{part} is missing in\n{stdout}");
    }
    let (_, stdout, _) = run(dir, &["show", MODEL, "--json"]);
    let facts: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(facts["d_model"], 32);
    let (all, inner) = (&facts["parameters"], &facts["non_embedding_parameters"]);
    assert!(all.as_u64().unwrap() > inner.as_u64().unwrap());
}

#[test]
fn show_predicts_the_memory_of_a_generation() {
    let memory = |flags: &[&str]| {
        let (code, stdout, stderr) = run(trained(), &[&["show", MODEL, "--json"], flags].concat());
        assert_eq!(code, 0, "{flags:?}: {stderr}");
        let memory = serde_json::from_str::<Value>(&stdout).unwrap()["memory"].clone();
        let part = |name: &str| memory[name].as_u64().unwrap();
        let parts = ["weights", "cache", "scratch", "program"].map(part);
        assert_eq!(part("total"), parts.iter().sum::<u64>());
        parts
    };
    let [weights, none, whole, _] = memory(&[]);
    let [same, cache, short, _] =
        memory(&["--length", "24", "-n", "8", "--block-length", "4", "--cache", "dual"]);
    let halved = memory(&["--length", "24", "-n", "8", "--cache", "dual", "--cache-type", "bf16"]);
    // 24 positions of keys and values of 2 heads of 16, and a cache line.
    assert_eq!((none, cache, halved[1]), (0, 32 * 64 * 4 + 64, 32 * 64 * 2 + 64));
    assert!(weights == same && weights > 0 && short < whole);

    for (flags, message) in [
        (["--length", "99"], "longer than the model's 32"),
        (["-n", "40"], "longer than its sequence of 32"),
        (["--cache-type", "bf16"], "cache_type cannot be combined with no cache"),
    ] {
        let (code, stdout, stderr) = run(trained(), &[&["show", MODEL], &flags[..]].concat());
        assert!(code != 0 && stdout.is_empty() && stderr.contains(message), "{stderr}");
    }
}

#[test]
fn the_tokenizer_goes_there_and_back() {
    let dir = trained();
    let text = "the cat \u{2014} 日本";
    let (code, ids, _) = run(dir, &["tokenizer", "encode", "-t", "tok", text]);
    assert_eq!(code, 0);
    let mut back = llada(dir, &["tokenizer", "decode", "-t", "tok/tokenizer.json"]);
    assert_eq!(outcome(back.write_stdin(ids).output().unwrap()).1, format!("{text}\n"));
    let (code, stdout, stderr) = run(dir, &["tokenizer", "decode", "-t", "tok", "1 x 2"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("`x` is not a token id"), "{stderr}");
    let (code, _, stderr) = run(dir, &["tokenizer", "train", "none.txt", "--out", "t2"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("none.txt"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("llada"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn tasks_measure_a_run_as_eval_does() {
    let dir = trained();
    let args = ["train", "recipe.toml", "--out", "measured", "eval.tasks=short.toml"];
    let task = "name = \"short\"\nversion = 1\nabout = \"a\"\nkind = \"choice\"\nprompt = \"the \"\n\
        delimiter = \"\"\n[data]\nrows = [{ right = 0 }, { right = 1 }, { right = 0 }, { right = 1 }]\n\
        [choice]\nchoices = [\"cat\", \"mat\"]\nanswer = \"right\"\nmetrics = [\"acc\", \"acc_norm\"]\n";
    std::fs::write(dir.join("short.toml"), task).unwrap();
    let long = task.replace("prompt = \"the \"", &format!("prompt = \"{}\"", "the ".repeat(40)));
    std::fs::write(dir.join("long.toml"), long).unwrap();
    let rows = ["eval.task_rows=3", "eval.task_every=2"];
    let (code, _, stderr) = run(dir, &[&args[..], &rows].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("step 4: short, 3 rows: acc "), "{stderr}");
    let metrics = std::fs::read_to_string(dir.join("measured/metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tasks: Vec<Value> = lines.filter(|line| line["kind"] == "task").collect();
    assert_eq!(tasks.len(), 4, "two metrics at two steps");

    let model = "measured/checkpoints/step-4";
    let eval = ["eval", "run", "-m", model, "short.toml", "--limit", "3", "--json", "-q"];
    let (code, stdout, stderr) = run(dir, &eval);
    assert_eq!(code, 0, "{stderr}");
    let results: Value = serde_json::from_str(&stdout).unwrap();
    for line in &tasks[2..] {
        let metric = line["metric"].as_str().unwrap();
        assert_eq!(line["value"], results["results"]["short"][metric], "{metric}");
    }

    for (key, message) in [
        ("eval.tasks=no_such_task", "no_such_task"),
        ("eval.tasks=humaneval", "--allow-code"),
        ("eval.tasks=gsm8k", "gsm8k"),
        ("eval.tasks=long.toml", "no row of it can be used"),
        ("eval.tasks=short.toml,short.toml", "it is given twice"),
        ("eval.tasks=short.toml block.length=4", "has no likelihood of a given answer"),
    ] {
        let keys: Vec<_> = key.split(' ').collect();
        let args = [&["train", "recipe.toml", "--out", "never"], &keys[..]].concat();
        let (code, _, stderr) = run(dir, &args);
        assert!(code != 0 && stderr.contains(message), "{stderr}");
        assert!(!dir.join("never").exists(), "{key}");
    }
}
