//! Damaged checkpoints and tokenizers: reading them gives a model or an error, never a panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../tests/golden.rs"]
mod golden;

use std::{fs, path::PathBuf, sync::LazyLock};

use llada::{
    checkpoint::{
        self,
        gguf::{self, Formats},
    },
    tokenizer::{self, Kind, Tokenizer, TokenizerFiles},
};
use llada_kernels::{BlockFormat, Cpu, DType};
use proptest::prelude::*;

use golden::own_model;

/// How a file is damaged.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Vec<(prop::sample::Index, u8)>),
    Cut(prop::sample::Index),
    Repeat(prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let flip = (any::<prop::sample::Index>(), 1..=255u8);
    prop_oneof![
        4 => prop::collection::vec(flip, 1..6).prop_map(Damage::Flip),
        1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        1 => (any::<prop::sample::Index>(), 1..300usize).prop_map(|(i, n)| Damage::Repeat(i, n)),
    ]
}

impl Damage {
    /// Damages the first `reach` bytes of `content`.
    fn apply(&self, content: &[u8], reach: usize) -> Vec<u8> {
        let reach = reach.min(content.len());
        let mut out = content.to_vec();
        match self {
            Self::Flip(places) => places.iter().for_each(|(i, x)| out[i.index(reach)] ^= x),
            Self::Cut(at) => out.truncate(at.index(reach)),
            Self::Repeat(at, n) => {
                let from = at.index(reach);
                let piece = out[from..(from + n).min(reach)].to_vec();
                out.splice(from..from, piece);
            }
        }
        out
    }
}

/// A folder of all files of a golden model, one of them damaged.
fn damaged(model: &str, file: &str, damage: &Damage, reach: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(own_model(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join(file);
    let content = fs::read(&path).unwrap();
    fs::write(&path, damage.apply(&content, reach)).unwrap();
    dir
}

/// Loading gives a model that can be read to its last weight, or an error with a message.
fn load_or_refuse(dir: &tempfile::TempDir) {
    match checkpoint::load(dir.path()) {
        Ok(model) => {
            let finite =
                |t: llada_kernels::WeightView<'_>| t.to_f32().iter().all(|x| x.is_finite());
            assert!(model.tensors.iter().all(finite));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Two GGUF files: one of floats without a tokenizer, and one of blocks with the shipped model's.
static GGUF: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller");
    let q8_0 = DType::Blocks(BlockFormat::Q8_0);
    let cases = [(own_model("d_qkvbias_qknorm"), DType::F32), (shipped.into(), q8_0)];
    cases
        .map(|(folder, dtype): (PathBuf, DType)| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.gguf");
            let (model, files) = (checkpoint::load(&folder), TokenizerFiles::read(&folder));
            let (formats, cpu) = (Formats::all(dtype), Cpu::new(1).unwrap());
            gguf::save(&model.unwrap(), &files.unwrap(), &path, &formats, &cpu).unwrap();
            fs::read(&path).unwrap()
        })
        .into()
});

/// Loads a damaged GGUF file, and the tokenizer in it.
fn load_or_refuse_file(file: &[u8], damage: &Damage, reach: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, damage.apply(file, reach)).unwrap();
    match checkpoint::load(&path) {
        Ok(model) => {
            let finite =
                |t: llada_kernels::WeightView<'_>| t.to_f32().iter().all(|x| x.is_finite());
            assert!(model.tensors.iter().all(finite));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(tokenizer) = Tokenizer::from_dir(&path) {
        let _ = tokenizer.encode("a text <|mdm_mask|> 日本");
    }
}

static TOKENIZER: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let kinds = [Kind::Bpe { vocab_size: 280 }, Kind::Character { min_count: 0 }];
    let text = "a small text, a small text";
    kinds
        .map(|kind| {
            let dir = tempfile::tempdir().unwrap();
            tokenizer::train(kind, [Ok(text)]).unwrap().save_dir(dir.path()).unwrap();
            fs::read(dir.path().join("tokenizer.json")).unwrap()
        })
        .into()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_damaged_header(damage in damage()) {
        load_or_refuse(&damaged("d_qkvbias_qknorm", "model.safetensors", &damage, 2000));
    }

    #[test]
    fn damaged_weights(damage in damage()) {
        load_or_refuse(&damaged("d_qkvbias_qknorm", "model.safetensors", &damage, usize::MAX));
    }

    #[test]
    fn a_damaged_index(damage in damage()) {
        let index = "model.safetensors.index.json";
        load_or_refuse(&damaged("c_a_bf16_sharded", index, &damage, usize::MAX));
    }

    #[test]
    fn a_damaged_config(damage in damage()) {
        load_or_refuse(&damaged("d_qkvbias_qknorm", "config.json", &damage, usize::MAX));
    }

    #[test]
    fn a_damaged_gguf_header(damage in damage()) {
        load_or_refuse_file(&GGUF[0], &damage, 6000);
    }

    #[test]
    fn a_damaged_gguf_file(damage in damage()) {
        load_or_refuse_file(&GGUF[0], &damage, usize::MAX);
    }

    #[test]
    fn a_damaged_tokenizer(damage in damage(), kind in 0..2usize) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        fs::write(&path, damage.apply(&TOKENIZER[kind], usize::MAX)).unwrap();
        if let Ok(tokenizer) = Tokenizer::from_file(&path) {
            let _ = tokenizer.encode("a text <|mdm_mask|> 日本");
            let _ = tokenizer.encode_plain("a text <|mdm_mask|>");
            let _ = tokenizer.decode(&[0, 1, 300, u32::MAX], false);
        }
    }
}

proptest! {
    // The vocabulary is long: fewer cases, as each takes longer.
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn a_damaged_gguf_vocabulary(damage in damage()) {
        load_or_refuse_file(&GGUF[1], &damage, 300_000);
    }
}
