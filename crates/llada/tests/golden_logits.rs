//! The mask predictor against the logits and hidden states of the official code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{bytes, fixture, golden_f32, golden_u32, has};
use llada::{
    checkpoint,
    config::AttentionMask,
    model::{Batch, MaskPredictor, Model},
};
use llada_kernels::Cpu;
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-4;

/// The rows of one golden file, as the batch that the reference saw.
struct Rows {
    tokens: Vec<u32>,
    starts: Vec<usize>,
}

impl Rows {
    fn read(file: &SafeTensors<'_>) -> Self {
        let (shape, tokens) = golden_u32(file, "input_ids").unwrap();
        Self { tokens, starts: (0..=shape[0]).map(|row| row * shape[1]).collect() }
    }

    fn logits(&self, model: &Model, keep: Option<&[bool]>) -> Vec<f32> {
        let mut predictor = predictor(model);
        let batch = Batch { tokens: &self.tokens, starts: &self.starts, keep };
        let all: Vec<usize> = (0..self.tokens.len()).collect();
        let mut logits = Vec::new();
        predictor.logits(batch, &all, &mut logits).unwrap();
        logits
    }
}

fn predictor(model: &Model) -> MaskPredictor {
    MaskPredictor::new(model.clone(), Cpu::new(2).unwrap()).unwrap()
}

fn load(name: &str) -> Model {
    checkpoint::load(&fixture(&format!("models/{name}"))).unwrap()
}

/// The golden file of a model.
fn logits(name: &str) -> String {
    format!("logits/{name}.safetensors")
}

/// The largest difference at the tokens that are kept.
fn difference(a: &[f32], b: &[f32], keep: Option<&[bool]>, tokens: usize) -> f32 {
    assert_eq!(a.len(), b.len());
    let width = a.len() / tokens;
    let kept = |i: &usize| keep.is_none_or(|k| k[i / width]);
    (0..a.len()).filter(kept).map(|i| (a[i] - b[i]).abs()).fold(0.0, f32::max)
}

/// Compares every kind of logits that the file holds, of which there is at least one.
fn check(name: &str, unmasked: &str) {
    let bytes = bytes(&logits(name));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = Rows::read(&file);
    let mut model = load(name);
    model.config.attention = AttentionMask::Bidirectional;
    let mut kinds = 0;
    let mut compare = |model: &Model, golden: &str, keep: Option<&[bool]>| {
        let Some((_, expected)) = golden_f32(&file, golden) else { return };
        let found = difference(&rows.logits(model, keep), &expected, keep, rows.tokens.len());
        assert!(found <= TOLERANCE, "{name} {golden}: off by {found}");
        kinds += 1;
    };
    compare(&model, unmasked, None);
    if let Some((_, mask)) = golden_u32(&file, "attention_mask_leftpad") {
        let keep: Vec<bool> = mask.iter().map(|&m| m == 1).collect();
        compare(&model, "logits_leftpad", Some(&keep));
    }
    model.config.attention = AttentionMask::BlockCausal { block_length: 4 };
    compare(&model, "logits_block_causal_bs4", None);
    model.config.attention = AttentionMask::Causal;
    compare(&model, "logits_causal", None);
    let known = [unmasked, "logits_leftpad", "logits_block_causal_bs4", "logits_causal"];
    let recorded = file.names().iter().filter(|found| known.contains(found)).count();
    assert!(kinds == recorded && kinds > 0, "{name}: {kinds} of {recorded} kinds");
}

#[test]
fn logits_without_mask_with_left_padding_and_causal() {
    for name in ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm", "e_illada_llama_naming"] {
        check(name, "logits_nomask");
    }
}

/// Experts, heads that are normalised one by one or rotated in part, masks by blocks.
#[test]
fn logits_of_the_other_families() {
    for (name, unmasked) in [
        ("f_llada_moe", "logits_nomask"),
        ("g_dream", "logits_nomask_unshifted"),
        ("h_llada2_moe", "logits_full_bidirectional"),
        ("i_sdar", "logits_full_bidirectional"),
        ("j_fast_dllm_v2", "logits_full_bidirectional"),
    ] {
        if has(&logits(name)) {
            check(name, unmasked);
        }
    }
}

#[test]
fn bf16_shards_are_computed_in_f32() {
    check("c_a_bf16_sharded", "logits_f32_compute_of_bf16_weights");
}

#[test]
fn hidden_states_of_every_block() {
    for name in ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm"] {
        let bytes = bytes(&logits(name));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rows = Rows::read(&file);
        let batch = Batch { tokens: &rows.tokens, starts: &rows.starts, keep: None };
        let states = predictor(&load(name)).hidden_states(&batch).unwrap();
        let mut compared = 0;
        for (i, state) in states.iter().enumerate() {
            let Some((_, expected)) = golden_f32(&file, &format!("hidden_{i}")) else { continue };
            compared += 1;
            let found = difference(state, &expected, None, rows.tokens.len());
            assert!(found <= TOLERANCE, "{name} hidden_{i}: off by {found}");
        }
        let recorded = file.names().iter().filter(|found| found.starts_with("hidden_")).count();
        assert_eq!(compared, recorded, "{name}: every recorded state is compared");
    }
}

#[test]
fn a_row_is_the_same_alone_in_a_batch_and_on_any_threads() {
    let llada = ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm", "c_a_bf16_sharded"];
    let others = ["f_llada_moe", "g_dream", "h_llada2_moe", "i_sdar", "j_fast_dllm_v2"];
    for name in llada.into_iter().chain(others).filter(|name| has(&logits(name))) {
        let bytes = bytes(&logits(name));
        let rows = Rows::read(&SafeTensors::deserialize(&bytes).unwrap());
        let together = rows.logits(&load(name), None);
        let vocab = together.len() / rows.tokens.len();
        for threads in [1, 3] {
            let cpu = Cpu::new(threads).unwrap();
            let mut predictor = MaskPredictor::new(load(name), cpu).unwrap();
            for row in rows.starts.windows(2) {
                let tokens = &rows.tokens[row[0]..row[1]];
                let starts = [0, tokens.len()];
                let batch = Batch { tokens, starts: &starts, keep: None };
                let wanted: Vec<usize> = (0..tokens.len()).collect();
                let mut alone = Vec::new();
                predictor.logits(batch, &wanted, &mut alone).unwrap();
                assert_eq!(alone, together[row[0] * vocab..row[1] * vocab], "{name}");
                let middle = tokens.len() / 2;
                predictor.logits(batch, &[middle], &mut alone).unwrap();
                let middle = (row[0] + middle) * vocab;
                assert_eq!(alone, together[middle..middle + vocab], "{name}: one position");
            }
        }
    }
}

#[test]
fn a_malformed_batch_is_an_error() {
    let model = load("a_mha_untied");
    let (vocabulary, limit) = (model.config.embedding_size, model.config.max_sequence_length);
    let mut predictor = predictor(&model);
    let mut logits = Vec::new();
    let mut error = |tokens: &[u32], starts: &[usize], wanted: &[usize]| {
        let batch = Batch { tokens, starts, keep: None };
        predictor.logits(batch, wanted, &mut logits).unwrap_err().to_string()
    };
    assert!(error(&[1, 2], &[0, 1], &[0]).contains("starts"));
    assert!(error(&[1, 2], &[0, 2, 1, 2], &[0]).contains("decrease"));
    assert!(error(&[1, 2], &[0, 2], &[2]).contains("beyond"));
    let unknown = error(&[1, vocabulary as u32], &[0, 2], &[0]);
    assert!(unknown.contains(&vocabulary.to_string()), "{unknown}");
    let long = error(&vec![1; limit + 1], &[0, limit + 1], &[0]);
    assert!(long.contains(&format!("longer than the model's {limit}")), "{long}");
}
