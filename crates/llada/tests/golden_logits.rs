//! The mask predictor against the logits and hidden states of the official code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    bytes,
    golden::{self, Golden},
    golden_f32, golden_u32,
};
use llada::{
    checkpoint,
    config::AttentionMask,
    model::{Batch, MaskPredictor, Model},
};
use llada_kernels::Cpu;
use safetensors::SafeTensors;

const TOLERANCE: f32 = 1e-4;

/// The sequences of one golden file, as the batch that the reference saw.
struct Sequences {
    tokens: Vec<u32>,
    starts: Vec<usize>,
}

impl Sequences {
    fn read(file: &SafeTensors<'_>) -> Self {
        let (shape, tokens) = golden_u32(file, "input_ids").unwrap();
        Self { tokens, starts: (0..=shape[0]).map(|sequence| sequence * shape[1]).collect() }
    }

    fn logits(&self, model: &Model, attention_mask: Option<&[bool]>) -> Vec<f32> {
        let mut predictor = predictor(model);
        let batch = Batch { tokens: &self.tokens, starts: &self.starts, attention_mask };
        let all: Vec<usize> = (0..self.tokens.len()).collect();
        let mut logits = Vec::new();
        predictor.logits(batch, &all, &mut logits).unwrap();
        logits
    }
}

fn load(golden: Golden) -> Model {
    checkpoint::load(&golden.folder()).unwrap()
}

fn predictor(model: &Model) -> MaskPredictor {
    MaskPredictor::new(model.clone(), Cpu::new(2).unwrap()).unwrap()
}

/// The largest difference at the tokens that are not padding.
fn difference(a: &[f32], b: &[f32], attention_mask: Option<&[bool]>, tokens: usize) -> f32 {
    assert_eq!(a.len(), b.len());
    let width = a.len() / tokens;
    let is_attended = |i: &usize| attention_mask.is_none_or(|mask| mask[i / width]);
    (0..a.len()).filter(is_attended).map(|i| (a[i] - b[i]).abs()).fold(0.0, f32::max)
}

/// Compares every kind of logits that the file holds, of which there is at least one.
fn check(golden: Golden) {
    let name = golden.name;
    let bytes = bytes(&golden.logits_file());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let sequences = Sequences::read(&file);
    let mut model = load(golden);
    model.config.attention = AttentionMask::Bidirectional;
    let mut kinds = 0;
    let mut compare = |model: &Model, golden: &str, attention_mask: Option<&[bool]>| {
        let Some((_, expected)) = golden_f32(&file, golden) else { return };
        let found = difference(
            &sequences.logits(model, attention_mask),
            &expected,
            attention_mask,
            sequences.tokens.len(),
        );
        assert!(found <= TOLERANCE, "{name} {golden}: off by {found}");
        kinds += 1;
    };
    compare(&model, golden.logits, None);
    if let Some((_, mask)) = golden_u32(&file, "attention_mask_leftpad") {
        let attention_mask: Vec<bool> = mask.iter().map(|&m| m == 1).collect();
        compare(&model, "logits_leftpad", Some(&attention_mask));
    }
    model.config.attention = AttentionMask::BlockCausal { block_length: 4 };
    compare(&model, "logits_block_causal_bs4", None);
    model.config.attention = AttentionMask::Causal;
    compare(&model, "logits_causal", None);
    let known = [golden.logits, "logits_leftpad", "logits_block_causal_bs4", "logits_causal"];
    let recorded = file.names().iter().filter(|found| known.contains(found)).count();
    assert!(kinds == recorded && kinds > 0, "{name}: {kinds} of {recorded} kinds");
}

/// Of every family: grouped heads, heads that are normalised one by one or rotated in part, experts,
/// weights in bf16 that are computed in f32; with every attention mask.
#[test]
fn logits_of_every_model() {
    golden::MODELS.into_iter().filter(Golden::has_logits).for_each(check);
}

#[test]
fn hidden_states_of_every_block() {
    for golden in golden::of_llada() {
        let name = golden.name;
        let bytes = bytes(&golden.logits_file());
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let sequences = Sequences::read(&file);
        let batch =
            Batch { tokens: &sequences.tokens, starts: &sequences.starts, attention_mask: None };
        let states = predictor(&load(golden)).hidden_states(&batch).unwrap();
        let mut compared = 0;
        for (i, state) in states.iter().enumerate() {
            let Some((_, expected)) = golden_f32(&file, &format!("hidden_{i}")) else { continue };
            compared += 1;
            let found = difference(state, &expected, None, sequences.tokens.len());
            assert!(found <= TOLERANCE, "{name} hidden_{i}: off by {found}");
        }
        let recorded = file.names().iter().filter(|found| found.starts_with("hidden_")).count();
        assert_eq!(compared, recorded, "{name}: every recorded state is compared");
    }
}

#[test]
fn a_sequence_is_the_same_alone_in_a_batch_and_on_any_threads() {
    for golden in golden::MODELS.into_iter().filter(Golden::has_logits) {
        let name = golden.name;
        let bytes = bytes(&golden.logits_file());
        let sequences = Sequences::read(&SafeTensors::deserialize(&bytes).unwrap());
        let together = sequences.logits(&load(golden), None);
        let vocab = together.len() / sequences.tokens.len();
        for threads in [1, 3] {
            let cpu = Cpu::new(threads).unwrap();
            let mut predictor = MaskPredictor::new(load(golden), cpu).unwrap();
            for sequence in sequences.starts.windows(2) {
                let tokens = &sequences.tokens[sequence[0]..sequence[1]];
                let starts = [0, tokens.len()];
                let batch = Batch { tokens, starts: &starts, attention_mask: None };
                let wanted: Vec<usize> = (0..tokens.len()).collect();
                let mut alone = Vec::new();
                predictor.logits(batch, &wanted, &mut alone).unwrap();
                assert_eq!(alone, together[sequence[0] * vocab..sequence[1] * vocab], "{name}");
                let middle = tokens.len() / 2;
                predictor.logits(batch, &[middle], &mut alone).unwrap();
                let middle = (sequence[0] + middle) * vocab;
                assert_eq!(alone, together[middle..middle + vocab], "{name}: one position");
            }
        }
    }
}

#[test]
fn a_malformed_batch_is_an_error() {
    let model = checkpoint::load(&golden::model("a_mha_untied")).unwrap();
    let (vocabulary, limit) = (model.config.embedding_size, model.config.max_sequence_length);
    let mut predictor = predictor(&model);
    let mut logits = Vec::new();
    let mut error = |tokens: &[u32], starts: &[usize], wanted: &[usize]| {
        let batch = Batch { tokens, starts, attention_mask: None };
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
