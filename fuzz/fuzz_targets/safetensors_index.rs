//! A checkpoint folder: the input is cut at the first two zero bytes into `config.json`, the index
//! of the shards, and one shard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llada::checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let files = ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"];
    let Ok(dir) = tempfile::tempdir() else { return };
    for file in files {
        let part = parts.next().unwrap_or_default();
        if std::fs::write(dir.path().join(file), part).is_err() {
            return;
        }
    }
    let _ = checkpoint::load(dir.path());
});
