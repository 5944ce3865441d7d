//! How well a model predicts running text: nats per token, a bound for diffusion and exact for the
//! autoregressive baseline.

mod blocks;

use std::ops::Range;

use super::{
    LikelihoodError, TOKENS,
    draws::subset,
    scorer::mask_of,
    sequence::{Losses, Sequence},
};
use crate::{
    Result,
    config::{AttentionMask, LogitShift, ModelConfig, Objective},
    engine,
    model::MaskPredictor,
    rng::{Purpose, Stream},
};

/// Buckets of the masked fraction of a sequence.
const BUCKETS: usize = 10;
/// Address of the draws that are not of one sequence.
const SHARED: u64 = 1 << 55;

/// A sequence of text to be scored by itself: no token sees another sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its number in the text, which addresses its noise; below 2³⁹.
    pub number: u64,
    /// Its tokens.
    pub length: usize,
    /// How many of the first are a prompt: neither masked nor predicted.
    pub given: usize,
}

/// How to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceSettings {
    /// Masked versions of each sequence, at most 2¹⁶; a causal model has one, without masks.
    pub draws: usize,
    /// Seed of the masks.
    pub seed: u64,
    /// Tokens of a forward pass, at most, unless one sequence has more. No result depends on it.
    pub tokens_per_forward: usize,
}

impl Default for EvidenceSettings {
    fn default() -> Self {
        Self { draws: 4, seed: 0, tokens_per_forward: TOKENS }
    }
}

/// A measurement of text under way.
///
/// For diffusion each sequence is scored under `draws` masked versions. A version masks exactly l
/// of the L tokens that are not given, and counts their cross-entropy L/l times: the form of Eq. 6, whose mean over l from 1
/// to L is a bound of −log p of the sequence. The l of all versions share out 1..=L evenly.
///
/// A model that attends by blocks is scored so block by block, from the blocks before without masks: the
/// sum of these bounds is one of −log p of the sequence. A version masks l tokens of each block, and each
/// block's l share out 1..=L of its own.
///
/// A causal model predicts every token of a sequence but the first, from those before it in the
/// sequence.
#[derive(Debug)]
pub struct Evidence {
    windows: Vec<Window>,
    settings: EvidenceSettings,
    /// The mask token of a diffusion model.
    mask: Option<u32>,
    attention: AttentionMask,
    shift: LogitShift,
    /// Where in 1..=L the number of masks of each version lies, from 0 to below 1.
    levels: Vec<f64>,
    /// Versions that are scored.
    done: usize,
    /// Nats of each sequence, as far as its versions are scored.
    nats: Vec<f64>,
    buckets: [(f64, u64); BUCKETS],
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Bound {
    /// Nats per token: an upper bound (Eq. 4) for diffusion, exact for a causal model.
    pub nll: f64,
    /// Standard error of `nll` over sequences; `None` for a single sequence.
    pub standard_error: Option<f64>,
    /// Sequences.
    pub sequences: usize,
    /// Tokens that were predicted, each counted once.
    pub tokens: usize,
    /// Cross-entropy of the masked tokens by the fraction of the sequence that is masked, or of the
    /// block; empty for a causal model.
    pub buckets: Vec<Bucket>,
}

impl Bound {
    /// e to the nats per token.
    pub fn perplexity(&self) -> f64 {
        self.nll.exp()
    }

    /// Bits per byte of a text with `bytes_per_token` bytes per token.
    pub fn bits_per_byte(&self, bytes_per_token: f64) -> f64 {
        self.nll / std::f64::consts::LN_2 / bytes_per_token
    }
}

/// Sequences, or blocks, with a similar masked fraction.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Bucket {
    /// Masked fractions above this and up to that of the next bucket, the last up to 1.
    pub from: f64,
    /// Mean nats of a masked token; `None` when there was none.
    pub nll: Option<f64>,
    /// Masked tokens.
    pub tokens: u64,
}

impl Evidence {
    /// Plans to score `windows` with a model of `config`, whose mask token is `mask`.
    ///
    /// # Errors
    /// If there is no window, one does not fit the model or has nothing to predict, `draws` is 0,
    /// or a diffusion model has no mask token.
    pub fn new(
        config: &ModelConfig,
        mask: Option<u32>,
        windows: Vec<Window>,
        settings: EvidenceSettings,
    ) -> Result<Self> {
        let mask = mask_of(config, mask)?;
        // A causal model does not predict the first token of a sequence.
        let least = if mask.is_some() { 1 } else { 2 };
        let limit = config.max_sequence_length;
        for &Window { length: found, given, .. } in &windows {
            let least = least.max(given + 1);
            if !(least..=limit).contains(&found) {
                return Err(LikelihoodError::SequenceLength { found, least, limit }.into());
            }
        }
        if windows.is_empty() {
            return Err(LikelihoodError::EmptyText.into());
        }
        if settings.draws == 0 {
            return Err(LikelihoodError::Zero("draws").into());
        }
        let draws = if mask.is_some() { settings.draws } else { 1 };
        let settings = EvidenceSettings { draws, ..settings };
        Ok(Self {
            levels: levels(windows.len() * draws, settings.seed),
            nats: vec![0.0; windows.len()],
            windows,
            settings,
            mask,
            attention: config.attention,
            shift: config.shift,
            done: 0,
            buckets: [(0.0, 0); BUCKETS],
        })
    }

    /// Versions of sequences to score, in all.
    pub fn versions(&self) -> usize {
        self.levels.len()
    }

    /// Versions that are scored.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Scores some versions in one forward pass; `false` when none are left. `read` appends the
    /// tokens of a window, given its number and length.
    ///
    /// # Errors
    /// If `read` fails, gives another number of tokens, or gives tokens that are not the model's.
    pub fn advance(
        &mut self,
        predictor: &mut MaskPredictor,
        read: &mut dyn FnMut(Window, &mut Vec<u32>) -> Result<()>,
    ) -> Result<bool> {
        if let (Some(mask), Some(block)) = (self.mask, self.attention.block_length()) {
            return self.advance_blocks(predictor, read, mask, block);
        }
        let (mut sequences, mut tokens_fed) = (Vec::new(), 0);
        for version in self.done..self.versions() {
            let window = self.windows[version / self.settings.draws];
            tokens_fed += window.length;
            if !sequences.is_empty() && tokens_fed > self.settings.tokens_per_forward {
                break;
            }
            let tokens = tokens_of(window, read)?;
            sequences.push(Losses::of(vec![match self.mask {
                Some(mask) => self.masked_sequence(version, &tokens, mask),
                None => causal_sequence(tokens, window.given, self.attention),
            }]));
        }
        for losses in engine::run(predictor, sequences)? {
            losses.losses.into_iter().for_each(|loss| self.add(loss));
        }
        Ok(self.done < self.versions())
    }

    /// The result so far; of all sequences when [`advance`](Self::advance) has come to the end.
    pub fn bound(&self) -> Bound {
        let sequences = self.done / self.settings.draws;
        let predicted = |window: &Window| self.predicted(window);
        let tokens: usize = self.windows[..sequences].iter().map(predicted).sum();
        let nll = self.nats[..sequences].iter().sum::<f64>() / tokens as f64;
        // Of a ratio of sums, because sequences differ in length.
        let deviation = |(window, nats): (&Window, &f64)| nats - nll * predicted(window) as f64;
        let squares: f64 = self.windows[..sequences]
            .iter()
            .zip(&self.nats)
            .map(|sequence| deviation(sequence).powi(2))
            .sum();
        let n = sequences as f64;
        let bucket = |(i, &(sum, tokens)): (usize, &(f64, u64))| Bucket {
            from: i as f64 / BUCKETS as f64,
            nll: (tokens > 0).then(|| sum / tokens as f64),
            tokens,
        };
        Bound {
            nll,
            standard_error: (sequences > 1)
                .then(|| (squares * n / (n - 1.0)).sqrt() / tokens as f64),
            sequences,
            tokens,
            buckets: match self.mask {
                Some(_) => self.buckets.iter().enumerate().map(bucket).collect(),
                None => Vec::new(),
            },
        }
    }

    /// How many tokens of a sequence are predicted.
    fn predicted(&self, window: &Window) -> usize {
        match self.mask {
            Some(_) => window.length - window.given,
            // Nothing predicts the first token of a sequence.
            None => window.length - window.given.max(1),
        }
    }

    /// How many tokens `version` masks.
    fn masks(&self, version: usize) -> usize {
        let length = self.predicted(&self.windows[version / self.settings.draws]);
        (1 + (self.levels[version] * length as f64) as usize).min(length)
    }

    fn masked_sequence(&self, version: usize, tokens: &[u32], mask: u32) -> Sequence {
        let draws = self.settings.draws;
        let (window, draw) = (self.windows[version / draws], version % draws);
        let address = (window.number << 16) | draw as u64;
        let mut stream = Stream::new(self.settings.seed, Purpose::Validation, address);
        let (given, response) = tokens.split_at(window.given);
        let masked = subset(&mut stream, response.len(), self.masks(version));
        Sequence::masked(given, response, &masked, mask, self.attention, 0.0)
    }

    /// Takes in the loss of the next version.
    fn add(&mut self, loss: f64) {
        let version = self.done;
        self.done += 1;
        let sequence = version / self.settings.draws;
        if self.mask.is_none() {
            self.nats[sequence] = loss;
            return;
        }
        let (length, masks) = (self.predicted(&self.windows[sequence]), self.masks(version));
        self.add_masked(sequence, loss, masks, length);
    }

    /// Takes in the loss of `masks` masked tokens of `length`.
    fn add_masked(&mut self, sequence: usize, loss: f64, masks: usize, length: usize) {
        self.nats[sequence] += loss * length as f64 / masks as f64 / self.settings.draws as f64;
        // A fraction on the border belongs to the lower bucket.
        let bucket = &mut self.buckets[((masks * BUCKETS - 1) / length).min(BUCKETS - 1)];
        bucket.0 += loss;
        bucket.1 += masks as u64;
    }
}

/// The tokens of a window.
fn tokens_of(
    window: Window,
    read: &mut dyn FnMut(Window, &mut Vec<u32>) -> Result<()>,
) -> Result<Vec<u32>> {
    let mut tokens = Vec::with_capacity(window.length);
    read(window, &mut tokens)?;
    let (found, limit) = (tokens.len(), window.length);
    match found == limit {
        true => Ok(tokens),
        false => Err(LikelihoodError::SequenceLength { found, least: limit, limit }.into()),
    }
}

/// Each token of the sequence that is not `given` predicted from those before it.
fn causal_sequence(tokens: Vec<u32>, given: usize, attention: AttentionMask) -> Sequence {
    let first = given.max(1);
    let (targets, positions) = (tokens[first..].to_vec(), (first - 1..tokens.len() - 1).collect());
    Sequence { tokens, unconditional: None, positions, targets, attention, cfg_scale: 0.0 }
}

/// Levels of `n` versions that share out [0, 1) evenly, in a mixed order.
fn levels(n: usize, seed: u64) -> Vec<f64> {
    let mut stream = Stream::new(seed, Purpose::Validation, SHARED);
    let offset = stream.uniform();
    let mut levels: Vec<f64> = (0..n).map(|i| (i as f64 + offset) / n as f64).collect();
    stream.shuffle(&mut levels);
    levels
}

/// Cuts a stream of `tokens` tokens into sequences of at most `length`, such that each token but the
/// first is predicted exactly once. The first is only a place to start from, as an end of text.
///
/// For diffusion the sequences lie side by side after the first token. For a causal model they
/// overlap by one token, the one that the next sequence starts from. Either way a token sees its
/// own sequence only, so that longer sequences give it more context and a lower loss.
pub fn windows(tokens: usize, length: usize, objective: Objective) -> Vec<Range<usize>> {
    let (overlap, least) = match objective {
        Objective::Diffusion => (0, 1),
        Objective::Autoregressive => (1, 2),
    };
    let first = 1 - overlap;
    if length < least {
        return Vec::new();
    }
    (first..tokens)
        .step_by(length - overlap)
        .map(|start| start..tokens.min(start + length))
        .filter(|sequence| sequence.len() >= least)
        .collect()
}

/// The numbers of `sequences` of `count` windows, spread evenly over them; all when `sequences` is
/// more.
pub fn spread_evenly(count: u64, sequences: u64) -> impl Iterator<Item = u64> {
    let sequences = sequences.min(count);
    (0..sequences).map(move |sequence| {
        (u128::from(sequence) * u128::from(count) / u128::from(sequences)) as u64
    })
}

#[cfg(test)]
mod tests;
