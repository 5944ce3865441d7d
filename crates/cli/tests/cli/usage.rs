//! Help, usage errors, messages.

use crate::{llada, outcome, run};

#[test]
fn every_verb_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (code, help, _) = run(dir.path(), &["--help"]);
    assert_eq!(code, 0);
    let verbs = [
        "run",
        "chat",
        "infill",
        "train",
        "sft",
        "score",
        "merge",
        "convert",
        "quantize",
        "eval",
        "data",
        "tokenizer",
        "replay",
        "pull",
        "list",
        "rm",
        "show",
        "bench",
        "doctor",
        "completions",
    ];
    for verb in verbs {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb} is missing in\n{help}");
        let (code, help, stderr) = run(dir.path(), &[verb, "--help"]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(help.contains("Usage: llada"), "{help}");
    }
    let (_, help, _) = run(dir.path(), &["run", "--help-all"]);
    for flag in [
        "--steps",
        "--gen-length",
        "--block-length",
        "--temperature",
        "--cfg-scale",
        "--remasking",
        "--blocks",
        "--seed",
        "--preset",
        "--logits-eos-inf",
        "--confidence-eos-eot-inf",
        "--transfer",
        "--cache",
        "--cache-refresh",
        "--cache-window",
        "--suffix-window",
        "--revise",
        "--adaptive-blocks",
        "--variable-length",
        "--threads",
        "--watch",
        "--json",
        "--trace",
        "--model",
        "--quiet",
        "--verbose",
    ] {
        assert!(help.contains(flag), "{flag} is missing in\n{help}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_leaves_stdout_empty() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        "",
        "fly",
        "run --no-such-flag x",
        "run --steps many x",
        "run --blocks spiral x",
        "run --watch --prompts p.txt",
        "run --raw --chat x",
        "run --threads 100000 x",
        "run --seed -1 x",
        "run --quiet --verbose x",
        "train",
        "train recipe.toml --resume somewhere",
        "replay t.jsonl --export gif",
        "data prepare --out x",
        "tokenizer decode --tokenizer tok",
        "completions tcsh",
    ];
    for line in lines {
        let (code, stdout, stderr) = run(dir.path(), &line.split_whitespace().collect::<Vec<_>>());
        // Without a terminal `tokenizer decode` reads an empty stdin, and misses the tokenizer.
        let expected = if line.starts_with("tokenizer") { 1 } else { 2 };
        assert_eq!((code, stdout.as_str()), (expected, ""), "{line}: {stderr}");
        assert!(!stderr.is_empty(), "{line}");
        if !line.is_empty() {
            assert!(stderr.starts_with("error: "), "{line}: {stderr}");
            assert_eq!(stderr.matches("  hint: ").count(), 1, "{line}: {stderr}");
        }
    }
}

#[test]
fn a_missing_model_is_exit_code_1_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(dir.path(), &["run", "--model", "nowhere", "x"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("error: there is no folder `nowhere`\n  hint: "), "{stderr}");

    let by_env = llada(dir.path(), &["show"]).env("LLADA_MODEL", "elsewhere").output().unwrap();
    let (code, _, stderr) = outcome(by_env);
    assert_eq!(code, 1);
    assert!(stderr.contains("`elsewhere`"), "{stderr}");

    let (code, _, stderr) = run(dir.path(), &["run", "--model", ".", "x"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("it has no `config.json`"), "{stderr}");
}

#[test]
fn completions_name_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, stdout, stderr) = run(dir.path(), &["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.contains("tokenizer") && stdout.contains("replay"), "{shell}");
    }
}

#[test]
fn doctor_gives_its_findings_as_text_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = run(dir.path(), &["doctor"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for name in ["kernels", "threads", "memory", "f32 peak", "shipped model"] {
        assert!(stdout.contains(name), "{name} is missing in\n{stdout}");
    }
    let (_, stdout, _) = run(dir.path(), &["doctor", "--json"]);
    let findings: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(findings["threads"], 1);
    assert!(findings["peak_f32_flops"].as_f64().unwrap() > 0.0);
}

#[test]
fn mistakes_in_a_recipe_name_the_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("r.toml"), "[train]\nsteps = 3\n").unwrap();
    let (code, stdout, _) = run(dir.path(), &["train", "r.toml", "--print-config"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("steps = 3") && stdout.contains("weight_decay"), "{stdout}");

    let (code, stdout, stderr) = run(dir.path(), &["train", "r.toml", "train.stps=3"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("caused by: unknown key `train.stps`"), "{stderr}");
    assert!(stderr.contains("hint: ") && stderr.contains("train.steps"), "{stderr}");

    let (code, _, stderr) = run(dir.path(), &["train", "none.toml"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("cannot read `none.toml`"), "{stderr}");
}
