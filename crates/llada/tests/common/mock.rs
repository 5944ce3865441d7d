//! Predictors that are no models, and canvases for them.
#![allow(dead_code, unreachable_pub)]

#[path = "../../../../tests/hash.rs"]
mod hash;

use std::ops::ControlFlow;

use hash::mix;
use llada::{
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Canvas, Logits, Predictor, Prompt, Sampler, Step,
        generate::{self, Summary},
    },
    model::Batch,
    rng::nth_seed,
};
use proptest::prelude::*;

pub const VOCABULARY: usize = 23;
pub const MASK: u32 = 20;
pub const EOS: u32 = 21;
pub const EOT: u32 = 22;
pub const SPECIAL: SpecialTokens =
    SpecialTokens { mask: Some(MASK), eos: Some(EOS), eot: Some(EOT), bos: None, pad: None };

/// Logits that depend on nothing but the sequence's visible tokens and the position. `favourite` gets
/// the highest.
#[derive(Default)]
pub struct Mock {
    pub favourite: Option<u32>,
    pub forwards: usize,
}

impl Logits for Mock {
    fn logits(
        &mut self,
        batch: &Batch<'_>,
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> llada::Result<()> {
        assert_eq!(*batch.starts.last().unwrap(), batch.tokens.len());
        let distinct: std::collections::BTreeSet<_> = wanted.iter().collect();
        assert!(!wanted.is_empty() && distinct.len() == wanted.len());
        self.forwards += 1;
        logits.clear();
        for &index in wanted {
            let sequence = batch.starts.iter().rposition(|&start| start <= index).unwrap();
            let range = batch.starts[sequence]..batch.starts[sequence + 1];
            let position = index - range.start;
            let mut state = position as u64 + 1;
            for i in range {
                let token = if batch.attention_mask.is_none_or(|mask| mask[i]) {
                    batch.tokens[i]
                } else {
                    99
                };
                state = mix(state ^ u64::from(token));
            }
            for token in 0..VOCABULARY as u32 {
                state = mix(state);
                let noise = (state >> 40) as f32 / (1 << 24) as f32 * 6.0;
                logits.push(if Some(token) == self.favourite { 9.0 } else { noise });
            }
        }
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
}

/// A canvas for sequence number `sequence` of a run whose sequences have seeds of their own.
pub fn canvas(prompt: &Prompt, sampler: &Sampler, sequence: u64) -> Canvas {
    let sampler = Sampler { seed: nth_seed(sampler.seed, sequence), ..sampler.clone() };
    Canvas::new(prompt.clone(), &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap()
}

/// Runs canvases and returns all their steps.
pub fn run(mock: &mut impl Predictor, canvases: &mut [Canvas]) -> (Summary, Vec<Vec<Step>>) {
    let mut steps = vec![Vec::new(); canvases.len()];
    let summary = generate::run(mock, canvases, &mut |sequence, step| {
        steps[sequence].push(step.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    (summary, steps)
}

pub fn prompts() -> impl Strategy<Value = Prompt> {
    (prop::collection::vec(0u32..18, 0..6), 0usize..3)
        .prop_map(|(tokens, padding)| Prompt { padding: padding.min(tokens.len()), tokens })
}

/// Logits by a rule: the sequence and the position in, the favoured tokens and their logits out;
/// all others have 0.
pub struct Script<F>(pub F);

impl<F: FnMut(&[u32], usize) -> Vec<(u32, f32)>> Logits for Script<F> {
    fn logits(
        &mut self,
        batch: &Batch<'_>,
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> llada::Result<()> {
        logits.clear();
        for &index in wanted {
            let sequence = batch.starts.iter().rposition(|&start| start <= index).unwrap();
            let (start, end) = (batch.starts[sequence], batch.starts[sequence + 1]);
            let at = logits.len();
            logits.resize(at + VOCABULARY, 0.0);
            for (token, logit) in self.0(&batch.tokens[start..end], index - start) {
                logits[at + token as usize] = logit;
            }
        }
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
}
