//! The program as a person meets it: streams, exit codes, messages, files.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod alignment;
mod bench;
mod bounds;
mod chat;
#[cfg(feature = "hub")]
mod chat_url;
mod constrained;
mod convert;
mod eval;
mod families;
#[path = "../../../../tests/golden.rs"]
mod golden;
mod grammar;
mod hostile_text;
mod hub;
mod infill;
mod mistakes;
mod models;
mod outputs;
mod pipeline;
mod proposed;
mod ranks;
mod replay;
mod saving;
mod score;
mod seeds;
mod sft;
mod shipped;
#[cfg(unix)]
mod terminal;
mod usage;

use std::{path::Path, process::Output, sync::OnceLock};

use assert_cmd::Command;

/// `llada` with arguments, in `dir`, shielded from the caller's environment.
fn llada(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("llada").unwrap();
    command.current_dir(dir).args(args).env("LLADA_THREADS", "1");
    command.env("LLADA_NO_HISTORY", "1");
    for key in [
        "LLADA_MODEL",
        "NO_COLOR",
        "COLORTERM",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "OMPI_COMM_WORLD_SIZE",
        "PMI_SIZE",
        "SLURM_STEP_NUM_TASKS",
        "WORLD_SIZE",
    ] {
        command.env_remove(key);
    }
    let home = concat!(env!("CARGO_TARGET_TMPDIR"), "/home");
    command
        .env("HF_HOME", home)
        .env("XDG_CACHE_HOME", home)
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    command
}

/// Runs it; the exit code, stdout and stderr.
fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    outcome(llada(dir, args).output().unwrap())
}

fn outcome(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The names of all that is in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A folder with a text, a tokenizer, shards and a tiny model trained on them, made once with the
/// program itself.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path();
            let story = |i: usize| format!("the cat {i} sat & <slept> \u{2014} 日本.<|endoftext|>");
            std::fs::write(dir.join("text.txt"), (0..40).map(story).collect::<String>()).unwrap();
            std::fs::write(dir.join("recipe.toml"), RECIPE).unwrap();
            for line in [
                "tokenizer train text.txt --kind char --out tok",
                "data prepare text.txt --tokenizer tok --out data --validation 0.2",
                "train recipe.toml --out run",
            ] {
                let args: Vec<&str> = line.split(' ').collect();
                let (code, stdout, stderr) = run(dir, &args);
                assert_eq!((code, stdout.as_str()), (0, ""), "{line}: {stderr}");
            }
            folder
        })
        .path()
}

const RECIPE: &str = r#"
[model]
d_model = 32
n_layers = 1
n_heads = 2
[data]
path = "data"
sequence_length = 32
[train]
steps = 4
batch_size = 2
checkpoint_every = 2
compute = "f32"
[eval]
every = 4
sequences = 2
draws = 1
[log]
every = 2
sample_every = 4
"#;

/// The model of [`trained`].
const MODEL: &str = "run/checkpoints/step-4";

/// The folder of the model that ships, whose sequences have room for a conversation.
fn storyteller() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller")
}

/// The folder of the tuned model that ships.
fn tuned() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller-chat")
}

/// A copy of a model's folder with another `generation_config.json`.
fn with_generation_config(model: &str, text: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(Path::new(model).join(name), copy.path().join(name)).unwrap();
    }
    std::fs::write(copy.path().join("generation_config.json"), text).unwrap();
    copy
}
