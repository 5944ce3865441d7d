//! A GGUF file: its header, metadata, tensor table, and the model and tokenizer built from them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llada::{checkpoint, tokenizer::Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("model.gguf");
    if std::fs::write(&path, bytes).is_ok() {
        let _ = checkpoint::load(&path);
        let _ = checkpoint::load_config(&path);
        let _ = Tokenizer::from_dir(&path);
    }
});
