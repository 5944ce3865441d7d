//! `llada train` by preferences and by rewards.

use std::{fs, path::Path, sync::OnceLock};

use crate::{MODEL, run, trained};

const REST: &str = "[train]\nsteps = 4\nbatch_size = 4\ncheckpoint_every = 2\ncompute = \"f32\"\n\
    [eval]\nevery = 4\nsequences = 2\ndraws = 1\n[log]\nevery = 1\nsample_every = 0\n";

/// The folder of [`trained`] with pairs, a task, and recipes for them.
fn aligned() -> &'static Path {
    static READY: OnceLock<()> = OnceLock::new();
    let dir = trained();
    READY.get_or_init(|| {
        let row = |i: usize| {
            format!("{{\"prompt\":\"cat {i}\",\"chosen\":\"sat\",\"rejected\":\"ran\"}}\n")
        };
        let rows: String = (0..8).map(row).collect();
        fs::write(dir.join("pairs.jsonl"), format!("{rows}{{\"prompt\":\"cat\"}}\n")).unwrap();
        let start = format!("[model]\ninit_from = \"{MODEL}\"\n[data]\nsequence_length = 32\n");
        let preference = "path = \"pairs.jsonl\"\n[preference]\ntemplate = \"plain\"\ndraws = 2\n\
                          held_out = 0.2\n";
        fs::write(dir.join("preference.toml"), format!("{start}{preference}{REST}")).unwrap();
        let reward = "[reward]\ntask = \"letters.toml\"\ntemplate = \"plain\"\ncompletions = 2\n\
                      iterations = 2\ngen_length = 6\nheld_out = 0.2\n";
        fs::write(dir.join("reward.toml"), format!("{start}{reward}{REST}")).unwrap();
        let task = "name = \"letters\"\nversion = 1\nabout = \"a\"\nkind = \"generate\"\n\
                    prompt = \"{{ t }}\"\ntarget = \"a\"\n\
                    [data]\nrows = [{ t = \"cat\" }, { t = \"sat\" }, { t = \"the\" }]\n\
                    [generate]\n[[extract]]\nname = \"none\"\ncompare = \"contains\"\n";
        fs::write(dir.join("letters.toml"), task).unwrap();
        let code = "[code]\nprogram = \"{{ response }}\"\ntimeout = 5.0\nmemory_mb = 200\n";
        fs::write(dir.join("programs.toml"), format!("{task}{code}")).unwrap();
    });
    dir
}

#[test]
fn preferences_are_trained_on_and_measured() {
    let dir = aligned();
    let (code, stdout, stderr) = run(dir, &["train", "preference.toml", "--out", "preferred"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    for part in [
        "pairs to train on",
        "warning: 1 row rejected",
        "pairs.jsonl:9: no field `chosen`",
        "step 4/4",
        "accuracy ",
        "margin ",
        "validation at step 4: nll bound ",
        "saved preferred/checkpoints/step-4",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let args = ["train", "--out", "preferred", "--resume", "train.steps=5"];
    let (code, _, stderr) = run(dir, &args);
    assert!(code == 0 && stderr.contains("from step 4"), "{stderr}");
    let (code, _, stderr) = run(dir, &["sft", "--out", "preferred", "--resume", "train.steps=6"]);
    assert!(code != 0 && stderr.contains("preference optimisation"), "{stderr}");
}

#[test]
fn completions_are_judged_by_a_task() {
    let dir = aligned();
    let (code, stdout, stderr) = run(dir, &["train", "reward.toml", "--out", "rewarded"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    for part in [
        "2 prompts to train on, 1 held out",
        "step 4/4",
        "flat groups ",
        "reward ",
        "validation at step 4: completion tokens ",
        "saved rewarded/checkpoints/step-4",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    let args = ["train", "--out", "rewarded", "--resume", "train.steps=6"];
    let (code, _, stderr) = run(dir, &args);
    assert!(code == 0 && stderr.contains("from step 4"), "{stderr}");
}

#[test]
fn programs_of_the_model_run_only_where_that_is_allowed() {
    let dir = aligned();
    let refuse = |args: &[&str]| {
        let (code, _, stderr) = run(dir, &[&["train"], args, &["--out", "refused"]].concat());
        assert_ne!(code, 0, "{stderr}");
        stderr
    };
    let code = ["reward.toml", "reward.task=programs.toml"];
    assert!(refuse(&code).contains("add `--allow-code`"));
    assert!(refuse(&["reward.toml", "--allow-code"]).contains("no task of this run runs programs"));
    assert!(
        refuse(&["preference.toml", "--allow-code"]).contains("no task of this run runs programs")
    );
    let metric = refuse(&["reward.toml", "reward.metrics=solved"]);
    assert!(metric.contains("`solved`") && metric.contains("contains,none"), "{metric}");
    assert!(refuse(&["reward.toml", "reward.task=nothing"]).contains("nothing"));
}
