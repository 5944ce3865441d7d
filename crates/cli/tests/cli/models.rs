//! How models are named.

use std::{fs, path::Path};

use crate::{MODEL, llada, outcome, run, trained};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache of the hub with the model of [`trained`] as `org/tiny`.
fn cache(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("hub/models--org--tiny");
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    for file in files {
        fs::copy(trained().join(MODEL).join(file), snapshot.join(file)).unwrap();
    }
    dir
}

const ALL: [&str; 4] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

fn with_cache(dir: &Path, cache: &Path, line: &str) -> (i32, String, String) {
    let words: Vec<&str> = line.split(' ').collect();
    outcome(llada(dir, &words).env("HF_HOME", cache).output().unwrap())
}

#[test]
fn every_verb_takes_a_model_of_the_hub() {
    let (cache, dir) = (cache(&ALL), trained());
    let seeded = "-n 4 --seed 1 --json";
    for line in [
        &format!("run -m org/tiny {seeded} the"),
        &format!("run -hf org/tiny {seeded} the"),
        &format!("run --hf-repo org/tiny@{COMMIT} {seeded} the"),
        &format!("run --model org/tiny@0123456 {seeded} the"),
        "infill -m org/tiny --seed 1 the{{hole:2}}",
        "score -m org/tiny the cat sat",
        "show org/tiny",
        "show -m org/tiny --json",
        "bench -m org/tiny --rounds 1 --lengths 8 --wanted 4",
        "convert org/tiny -o hub-copy.gguf",
        "quantize -m org/tiny -o hub-q8.gguf --format q8_0",
    ] {
        let (code, stdout, stderr) = with_cache(dir, cache.path(), line);
        assert_eq!(code, 0, "{line}: {stderr}");
        if line.starts_with("run") {
            assert!(stdout.contains(r#""model":"org/tiny""#), "{line}: {stdout}");
        }
    }
    let (code, _, stderr) = with_cache(dir, cache.path(), "show org/tiny -m org/other");
    assert_eq!((code, stderr.contains("two models were given")), (2, true), "{stderr}");
    let chat =
        llada(dir, &["chat", "-m", "org/tiny", "-n", "4"]).env("HF_HOME", cache.path()).output();
    assert_eq!(outcome(chat.unwrap()).0, 0);
}

#[test]
fn what_is_not_there_is_offered_with_its_command() {
    let (cache, dir) = (cache(&ALL), tempfile::tempdir().unwrap());
    let cases = [
        ("run -m org/other x", "`org/other` is not on this machine", "`llada pull org/other`"),
        ("run -m org/tiny@v2 x", "`org/tiny@v2` is not", "`llada pull org/tiny@v2`"),
        ("score -m org/tiny:Q8_0 a b", "`org/tiny:Q8_0` is not", "`llada pull org/tiny:Q8_0`"),
        ("chat -m llada", "`GSAI-ML/LLaDA-8B-Instruct` is not", "`llada pull GSAI-ML/"),
        ("run -m no/such/folder x", "there is no folder `no/such/folder`", "ORG/REPO"),
    ];
    for (line, message, hint) in cases {
        let (code, stdout, stderr) = with_cache(dir.path(), cache.path(), line);
        assert_eq!((code, stdout.as_str()), (1, ""), "{line}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {message}")), "{line}: {stderr}");
        assert!(stderr.split_once("hint: ").unwrap().1.contains(hint), "{line}: {stderr}");
    }
}

#[test]
fn a_part_of_a_model_is_described_and_not_run() {
    let (cache, dir) = (cache(&ALL[..1]), tempfile::tempdir().unwrap());
    let (code, _, stderr) = with_cache(dir.path(), cache.path(), "run -m org/tiny x");
    assert_eq!(code, 1);
    assert!(stderr.contains("`model.safetensors` is missing"), "{stderr}");
    assert!(stderr.contains("`llada pull org/tiny` fetches the rest"), "{stderr}");
}

#[test]
fn a_run_stands_for_its_newest_checkpoint() {
    let dir = trained();
    let (code, of_run, stderr) = run(dir, &["show", "run", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let of_run: serde_json::Value = serde_json::from_str(&of_run).unwrap();
    assert!(of_run["folder"].as_str().unwrap().ends_with("step-4"), "{}", of_run["folder"]);
    let (code, _, stderr) = run(dir, &["run", "-m", "run", "-n", "4", "the"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn fine_tuning_starts_from_a_model_of_the_hub() {
    let (cache, dir) = (cache(&ALL), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("r.toml"), "[model]\ninit_from = \"org/tiny\"\n[sft]\n").unwrap();
    let (code, stdout, stderr) = with_cache(dir.path(), cache.path(), "sft r.toml --print-config");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(&format!("snapshots/{COMMIT}")), "{stdout}");
    let line = "sft r.toml model.init_from=org/other";
    let (code, _, stderr) = with_cache(dir.path(), cache.path(), line);
    assert_eq!(code, 1);
    assert!(stderr.contains("`llada pull org/other` fetches it"), "{stderr}");
}

#[test]
fn the_guide_has_the_sizes_that_show_prints() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = crate::golden::own("configs/llada-8b");
    let args = ["show", config.to_str().unwrap(), "--length", "1024", "--json"];
    let (code, stdout, stderr) = run(trained(), &args);
    assert_eq!(code, 0, "{stderr}");
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    // The paper's 8.02 and 6.98 billion.
    assert_eq!(facts["parameters"], 8_015_581_184_u64);
    assert_eq!(facts["non_embedding_parameters"], 6_979_588_096_u64);
    let guide = fs::read_to_string(root.join("docs/guides/run-llada-8b.md")).unwrap();
    let formats = facts["memory"]["formats"].as_array().unwrap();
    assert_eq!(formats.len(), 6);
    for format in formats {
        let bytes = format["weights"].as_u64().unwrap();
        let size = format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let name = format["format"].as_str().unwrap();
        let line = guide.lines().find(|line| line.contains(name) && line.contains("runs in"));
        assert!(line.is_some_and(|line| line.contains(&size)), "{name}: {size}, {line:?}");
    }
    assert_eq!(formats[1]["weights"], 2 * 8_015_314_944_u64 + 4 * 266_240);
}
