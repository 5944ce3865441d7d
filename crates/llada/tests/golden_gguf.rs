//! Files that the `gguf` package wrote: the same logits as libllama's, the same tokens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{golden::own, ids};
use llada::{
    checkpoint,
    model::{Batch, MaskPredictor},
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

/// What was expected of the files, which are this repository's own: no other set has them.
fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(own("gguf/expected.json")).unwrap()).unwrap()
}

/// The largest difference from libllama's logits, and the largest logit.
fn difference(name: &str) -> (f32, f32) {
    let model = checkpoint::load(&own(&format!("gguf/{name}.gguf"))).unwrap();
    let tokens = ids(&expected()["ids"]);
    let expected: Vec<f32> = std::fs::read(own(&format!("gguf/{name}.f32")))
        .unwrap()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
    let positions: Vec<usize> = (0..tokens.len()).collect();
    let mut logits = Vec::new();
    let batch = Batch { tokens: &tokens, starts: &[0, tokens.len()], attention_mask: None };
    predictor.logits(batch, &positions, &mut logits).unwrap();
    assert_eq!(logits.len(), expected.len());
    let pairs = logits.iter().zip(&expected);
    let largest = expected.iter().map(|x| x.abs()).fold(0.0, f32::max);
    (pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max), largest)
}

#[test]
fn floats_give_libllamas_logits() {
    for name in ["floats", "dream", "experts"] {
        let (difference, largest) = difference(name);
        assert!(difference < 2e-5 && largest > 1.0, "{name}: off by {difference} of {largest}");
    }
}

/// libllama rounds the activations to the type of each matrix, here they are rounded for blocks
/// only: the tolerance is what that makes of the logits.
#[test]
fn halves_and_blocks_give_libllamas_logits() {
    for name in ["mixed", "mixed_experts"] {
        let (difference, largest) = difference(name);
        let is_near = difference < 0.04 * largest && largest > 1.0;
        assert!(is_near, "{name}: off by {difference} of {largest}");
    }
}

#[test]
fn text_becomes_libllamas_tokens() {
    let expected = expected();
    for name in ["floats", "mixed"] {
        let path = own(&format!("gguf/{name}.gguf"));
        let tokenizer = Tokenizer::from_dir(&path).unwrap();
        let text = expected["text"].as_str().unwrap();
        let found = tokenizer.encode(text).unwrap();
        assert_eq!(found, ids(&expected["text_ids"]));
        assert_eq!(tokenizer.decode(&found, false).unwrap(), text);
        let (config, special) =
            (checkpoint::load_config(&path).unwrap(), tokenizer.special_tokens());
        assert_eq!((config.tokens.mask, config.tokens.eot), (Some(266), Some(267)));
        assert_eq!((special.mask, special.eos), (Some(266), Some(265)));
        assert_eq!((config.vocab_size, config.weight_tying), (272, name == "mixed"));
    }
}
