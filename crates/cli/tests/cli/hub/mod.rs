//! `llada pull`, `list` and `rm` against a small hub on this machine.
#![cfg(feature = "hub")]

mod interrupted;
#[allow(unreachable_pub)]
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use assert_cmd::Command;
use server::{COMMIT, Fault, Hub, git_blob, sha256};

use crate::{MODEL, llada, names, outcome, trained};

/// A hub with the model of [`trained`] as `org/tiny`, and an empty cache.
struct Bench {
    hub: Hub,
    dir: tempfile::TempDir,
    weights: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let read = |file: &str| fs::read(trained().join(MODEL).join(file)).unwrap();
        let hub = Hub::start();
        let weights = read("model.safetensors");
        hub.add(
            "org/tiny",
            &[
                ("README.md", b"# Tiny"),
                ("config.json", &read("config.json")),
                ("modeling.py", b"import os"),
                ("model.safetensors", &weights),
                ("pytorch_model.bin", b"pickled"),
                ("tokenizer.json", &read("tokenizer.json")),
                ("tokenizer_config.json", &read("tokenizer_config.json")),
            ],
        );
        Self { hub, dir: tempfile::tempdir().unwrap(), weights }
    }

    fn command(&self, line: &str) -> Command {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = llada(self.dir.path(), &words);
        command.env("HF_ENDPOINT", &self.hub.endpoint).env("HF_HOME", self.dir.path());
        command
    }

    fn run(&self, line: &str) -> (i32, String, String) {
        outcome(self.command(line).output().unwrap())
    }

    /// Runs what must fail; its message with the hint.
    fn refused(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.run(line);
        assert_eq!((code, stdout.as_str()), (1, ""), "{line}: {stderr}");
        assert_eq!(stderr.matches("  hint: ").count(), 1, "{line}: {stderr}");
        stderr
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("hub/models--org--tiny")
    }

    fn blob(&self) -> PathBuf {
        self.repo().join("blobs").join(sha256(&self.weights))
    }

    fn partial(&self) -> PathBuf {
        self.blob().with_extension("incomplete")
    }

    /// The model is whole, and nothing else is in its folder.
    fn assert_whole(&self) {
        let snapshot = self.repo().join("snapshots").join(COMMIT);
        let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
        assert!(weights == self.weights, "other weights");
        assert_eq!(fs::read_to_string(self.repo().join("refs/main")).unwrap(), COMMIT);
        assert_eq!(names(&self.repo().join("blobs")).len(), 4);
    }
}

/// Every file below a folder.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

#[test]
fn a_model_is_fetched_run_listed_and_removed() {
    let bench = Bench::new();
    let stderr = bench.refused("run -m org/tiny the");
    assert!(stderr.contains("`llada pull org/tiny` fetches it"), "{stderr}");
    let (code, stdout, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    let snapshot = bench.repo().join("snapshots").join(COMMIT);
    assert_eq!(stdout.trim_end(), snapshot.to_str().unwrap());
    // Only what is needed, under its name, as a link to a blob that its checksum names.
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(&snapshot), files);
    bench.assert_whole();
    let config = fs::read(snapshot.join("config.json")).unwrap();
    assert!(bench.repo().join("blobs").join(git_blob(&config)).is_file());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.join("config.json")).unwrap(),
        Path::new("../../blobs").join(git_blob(&config))
    );
    let sent = bench.hub.with(|state| state.requests.len());
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    // Again only what the hub says of the files is asked for.
    let new = bench.hub.with(|state| state.requests.split_off(sent));
    assert!(new.iter().all(|r| r.method == "HEAD" || r.path.starts_with("/api")), "{new:?}");

    let (code, stdout, stderr) = bench.run("run -m org/tiny -n 4 --seed 1 --json the");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains(r#""model":"org/tiny""#), "{stdout}");
    let (_, stdout, _) = bench.run("list");
    let line = stdout.lines().find(|line| line.starts_with("org/tiny ")).unwrap();
    assert!(line.contains(" llada ") && line.contains(" 0123456 "), "{line}");
    assert!(stdout.contains("storyteller-chat"), "{stdout}");

    let (code, _, stderr) = bench.run("rm org/tiny");
    assert_eq!((code, bench.repo().exists()), (2, true), "{stderr}");
    let (code, _, stderr) = bench.run("rm --yes org/tiny");
    assert_eq!((code, bench.repo().exists()), (0, false), "{stderr}");
    assert!(bench.run("list --json").1.is_empty());
}

// Elsewhere the files of a snapshot may be copies, of which no name tells the checksum.
#[cfg(unix)]
#[test]
fn damage_in_the_cache_is_found_by_the_names_of_blobs() {
    let bench = Bench::new();
    assert_eq!(bench.run("pull org/tiny").0, 0);
    let (code, stdout, stderr) = bench.run("show --verify org/tiny");
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(stdout.lines().filter(|line| line.ends_with("  ok")).count(), 4, "{stdout}");
    let snapshot = bench.repo().join("snapshots").join(COMMIT);
    for name in ["model.safetensors", "tokenizer_config.json"] {
        let blob = snapshot.join(name).canonicalize().unwrap();
        let good = fs::read(&blob).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        fs::write(&blob, bad).unwrap();
        let (code, stdout, stderr) = bench.run("show --verify org/tiny");
        assert_eq!(code, 1, "{stdout}");
        let line = stdout.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains("damaged: ") && line.contains("checksum differs"), "{stdout}");
        assert!(stderr.contains("1 file is damaged"), "{stderr}");
        fs::write(&blob, good).unwrap();
    }
    fs::remove_file(snapshot.join("tokenizer_config.json").canonicalize().unwrap()).unwrap();
    let (code, stdout, _) = bench.run("show --verify org/tiny");
    assert!(code == 1 && stdout.contains("damaged: the file that it links to is gone"), "{stdout}");
}

#[test]
fn an_answer_that_is_too_large_is_called_so() {
    let bench = Bench::new();
    bench.hub.with(|state| state.listed = vec!["x".repeat(33 << 20)]);
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("the hub's answer is larger than 32 MiB"), "{stderr}");
    assert_eq!(bench.hub.with(|state| state.requests.len()), 1, "it is asked for once");
}

#[test]
fn the_token_stays_with_the_hub() {
    let bench = Bench::new();
    bench.hub.with(|state| state.gated.push("org/tiny".into()));
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("is gated") && stderr.contains("HF_TOKEN"), "{stderr}");
    assert!(stderr.contains(&format!("accept it at {}/org/tiny", bench.hub.endpoint)), "{stderr}");
    let stderr = bench.refused("pull org/tiny --token other");
    assert!(stderr.contains("the token must be of the account that did"), "{stderr}");
    assert!(!stderr.contains("other"), "{stderr}");
    fs::write(bench.dir.path().join("token"), " good\n").unwrap();
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    bench.assert_whole();
    let sent = bench.hub.store_requests();
    assert!(!sent.is_empty());
    assert!(sent.iter().all(|request| request.header("authorization").is_none()));
    let empty = bench.command("pull org/tiny").env("HF_TOKEN", "").output().unwrap();
    assert_eq!(outcome(empty).0, 0, "an empty variable is not set");
    let odd = bench.command("pull org/tiny").env("HF_TOKEN", "a\r\nX: y").output().unwrap();
    let (code, _, stderr) = outcome(odd);
    assert_eq!(code, 1, "{stderr}");
}

#[test]
fn names_that_are_not_there() {
    let bench = Bench::new();
    let stderr = bench.refused("pull org/tinny");
    assert!(stderr.contains("shows no `org/tinny`\n  hint: did you mean `org/tiny`?"), "{stderr}");
    let stderr = bench.refused("pull GSAI-ML/LLaDA-8B-Instuct --token x");
    assert!(stderr.contains("did you mean `GSAI-ML/LLaDA-8B-Instruct`?"), "{stderr}");
    let stderr = bench.refused("pull zzz/qqq");
    assert!(stderr.contains("check the spelling") && stderr.contains("HF_TOKEN"), "{stderr}");
    let stderr = bench.refused("pull org/tiny --revision v7");
    assert!(stderr.contains("`org/tiny` has no revision `v7`"), "{stderr}");
    let stderr = bench.refused("pull org/tiny:Q8_0");
    assert!(stderr.contains("has no GGUF file `Q8_0`"), "{stderr}");
    for name in ["tiny", "../tiny", "org/../tiny", "org/tiny:../x", "/etc/passwd"] {
        let stderr = bench.refused(&format!("pull {name}"));
        assert!(stderr.contains("does not name a model of the hub"), "{name}: {stderr}");
    }
    assert!(!bench.dir.path().join("hub").exists());
}

#[test]
fn nothing_is_written_outside_of_the_cache() {
    let listed = [
        "../evil.json",
        "/tmp/llada-evil",
        "C:\\evil",
        "a\\..\\..\\evil",
        "..",
        "tokenizer.json/../x",
    ];
    let bench = Bench::new();
    bench.hub.with(|state| state.listed = listed.map(str::to_owned).to_vec());
    let (code, _, stderr) = bench.run("pull org/tiny");
    assert_eq!(code, 0, "{stderr}");
    bench.assert_whole();
    let asked = bench.hub.with(|state| state.requests.clone());
    assert!(!asked.iter().any(|request| request.path.contains("evil")), "{asked:?}");

    type Damage = fn(&mut server::State);
    let index: Damage = |state| {
        let files = state.repos.get_mut("org/tiny").unwrap();
        files.remove("model.safetensors");
        let index = br#"{"weight_map": {"x": "../../../../evil.safetensors"}}"#.to_vec();
        files.insert("model.safetensors.index.json".into(), index);
    };
    let cases: [(&str, Damage); 4] = [
        ("no commit", |state| state.commit = Some("../../../evil".into())),
        ("no commit", |state| state.commit = Some("0".repeat(39))),
        ("does not say what", |state| state.etag = Some("../../../../evil".into())),
        ("which is no file of the folder", index),
    ];
    for (message, damage) in cases {
        let bench = Bench::new();
        bench.hub.with(damage);
        let stderr = bench.refused("pull org/tiny");
        assert!(stderr.contains(message), "{stderr}");
        let files = below(bench.dir.path());
        let allowed = [bench.repo(), bench.dir.path().join("hub/.locks")];
        let stray = files.iter().find(|file| !allowed.iter().any(|dir| file.starts_with(dir)));
        assert_eq!(stray, None);
        assert!(!files.iter().any(|file| file.to_string_lossy().contains("evil")), "{files:?}");
    }
}

#[test]
#[cfg(unix)]
fn links_in_the_cache_are_not_written_through() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    fs::create_dir_all(bench.repo().join("blobs")).unwrap();
    std::os::unix::fs::symlink(&outside, bench.partial()).unwrap();
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("is a link"), "{stderr}");
    assert_eq!(fs::read_to_string(outside).unwrap(), "mine");
}

#[test]
fn another_architecture_is_refused_before_its_weights_are_fetched() {
    let bench = Bench::new();
    bench.hub.with(|state| {
        let config = br#"{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}"#.to_vec();
        state.repos.get_mut("org/tiny").unwrap().insert("config.json".into(), config);
    });
    let stderr = bench.refused("pull org/tiny");
    assert!(stderr.contains("unknown architecture `GPT2LMHeadModel`"), "{stderr}");
    assert!(bench.hub.store_requests().is_empty());
}

#[test]
fn one_of_several_gguf_files_is_fetched() {
    let bench = Bench::new();
    let (code, _, stderr) = outcome(
        llada(trained(), &["quantize", MODEL, "-o", "pulled.gguf", "--format", "q8_0", "--force"])
            .output()
            .unwrap(),
    );
    assert_eq!(code, 0, "{stderr}");
    let q8 = fs::read(trained().join("pulled.gguf")).unwrap();
    let files: [(&str, &[u8]); 3] =
        [("m-Q8_0.gguf", &q8), ("m-Q4_0.gguf", b"other"), ("config.json", b"{}")];
    bench.hub.add("org/quantised", &files);
    let stderr = bench.refused("pull org/quantised");
    assert!(stderr.contains("several models: m-Q4_0.gguf, m-Q8_0.gguf"), "{stderr}");
    let (code, stdout, stderr) = bench.run("pull org/quantised:q8_0");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.trim_end().ends_with("m-Q8_0.gguf"), "{stdout}");
    for name in ["org/quantised", "org/quantised:Q8_0", "org/quantised:m-Q8_0.gguf"] {
        let (code, _, stderr) = bench.run(&format!("run -m {name} -n 4 the"));
        assert_eq!(code, 0, "{name}: {stderr}");
    }
    assert!(bench.run("list").1.contains("org/quantised:m-Q8_0.gguf"));
}

#[test]
fn a_configuration_alone_tells_what_the_model_needs() {
    let bench = Bench::new();
    let (code, _, stderr) = bench.run("pull org/tiny --config-only");
    assert_eq!(code, 0, "{stderr}");
    assert!(bench.hub.store_requests().is_empty());
    let (code, stdout, stderr) = bench.run("show org/tiny");
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("not here: `model.safetensors` is missing"), "{stdout}");
    assert!(stdout.contains("Q4_K") && stdout.contains("runs in about"), "{stdout}");
    let stderr = bench.refused("run -m org/tiny x");
    assert!(stderr.contains("`llada pull org/tiny` fetches the rest"), "{stderr}");
    assert!(bench.run("list").1.contains("without model.safetensors"));
}

#[test]
fn without_the_network_only_what_is_there_is_used() {
    let bench = Bench::new();
    let offline =
        |line: &str| outcome(bench.command(line).env("HF_HUB_OFFLINE", "1").output().unwrap());
    let (code, _, stderr) = offline("pull org/tiny");
    assert_eq!(code, 1);
    assert!(stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
    assert!(bench.hub.with(|state| state.requests.is_empty()));
    assert_eq!(bench.run("pull org/tiny").0, 0);
    let sent = bench.hub.with(|state| state.requests.len());
    assert_eq!(offline("pull org/tiny").0, 0);
    assert_eq!(bench.hub.with(|state| state.requests.len()), sent);
}

#[test]
fn two_pulls_at_once_fetch_each_file_once() {
    let bench = Bench::new();
    let start = || {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("llada"));
        command.args(["pull", "org/tiny"]).env("HF_ENDPOINT", &bench.hub.endpoint);
        command.env("HF_HOME", bench.dir.path()).env_remove("HF_HUB_CACHE");
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut pulls = [start(), start(), start()];
    assert!(pulls.iter_mut().all(|pull| pull.wait().unwrap().success()));
    bench.assert_whole();
    assert_eq!(bench.hub.store_requests().len(), 1);
}

#[test]
fn only_folders_of_models_are_removed() {
    let bench = Bench::new();
    assert_eq!(bench.run("pull org/tiny").0, 0);
    for (line, message) in [
        ("rm --yes org/other", "is not on this machine"),
        ("rm --yes org/tiny@main", "only a whole repository"),
        ("rm --yes org/tiny:x.gguf", "only a whole repository"),
        ("rm --yes ../hub", "is not ORG/REPO"),
        ("rm --yes org/tiny /etc", "is not ORG/REPO"),
        ("rm --yes hub", "is not ORG/REPO"),
    ] {
        let (code, _, stderr) = bench.run(line);
        assert_ne!(code, 0, "{line}");
        assert!(stderr.contains(message), "{line}: {stderr}");
    }
    fs::write(bench.repo().join("notes.txt"), "mine").unwrap();
    let stderr = bench.refused("rm --yes org/tiny");
    assert!(stderr.contains("holds `notes.txt`"), "{stderr}");
    bench.assert_whole();
    #[cfg(unix)]
    {
        let elsewhere = bench.dir.path().join("elsewhere");
        fs::rename(bench.repo(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, bench.repo()).unwrap();
        let stderr = bench.refused("rm --yes org/tiny");
        assert!(stderr.contains("is a link"), "{stderr}");
        assert!(elsewhere.join("refs/main").exists());
    }
}
