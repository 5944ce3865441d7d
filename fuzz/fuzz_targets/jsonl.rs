//! Rows of conversations in JSON Lines or in a list, laid out as pairs for fine-tuning.
#![no_main]

use std::{path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use llada::{
    chat::Template,
    data::{
        Conversations,
        conversations::{Encoder, Files},
    },
    tokenizer::Tokenizer,
};

static MODEL: LazyLock<(Tokenizer, Template)> = LazyLock::new(|| {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/storyteller-chat"));
    let tokenizer = Tokenizer::from_dir(dir).expect("the tokenizer that ships");
    (tokenizer, Template::from_dir(dir).expect("the template that ships"))
});

fuzz_target!(|bytes: &[u8]| {
    let (tokenizer, template) = &*MODEL;
    let special = tokenizer.special_tokens();
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join("rows.jsonl");
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let encoder = Encoder {
        tokenizer,
        template: Some(template),
        eos: special.eos.expect("an end of text"),
        eot: special.eot,
        longest: 64,
    };
    let files = Files { train: &[path], validation: None, held_out: 0.5 };
    let _ = Conversations::open(&files, &encoder);
});
