//! Rows that share one forward pass, and the loss of each.

use super::LikelihoodError;
use crate::{
    Result,
    diffusion::guidance,
    model::{Batch, MaskPredictor, Targets},
};

/// Tokens of one forward pass: enough to keep the processor busy. No result depends on it.
pub(super) const TOKENS: usize = 4096;

/// One row, and what is to be predicted from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The tokens that the model sees.
    pub(super) tokens: Vec<u32>,
    /// The row with its prompt masked, for guidance (Eq. 16).
    pub(super) unconditional: Option<Vec<u32>>,
    /// Indices into `tokens` whose logits predict.
    pub(super) positions: Vec<usize>,
    /// The token that each should predict.
    pub(super) targets: Vec<u32>,
}

impl Row {
    fn len(&self) -> usize {
        self.tokens.len() + self.unconditional.as_ref().map_or(0, Vec::len)
    }
}

/// Rows one after the other, as the model takes them.
#[derive(Debug)]
pub(super) struct Rows {
    tokens: Vec<u32>,
    starts: Vec<usize>,
    /// Positions that predict, of all rows; with guidance, each followed by its twin in the row
    /// whose prompt is masked.
    wanted: Vec<usize>,
    targets: Vec<u32>,
    /// Position in its row of each target.
    places: Vec<usize>,
    /// How many targets there are up to the end of each row.
    ends: Vec<usize>,
    cfg_scale: f32,
}

impl Rows {
    /// No rows yet; all that come have an unconditional twin iff `cfg_scale` is not 0.
    pub(super) fn new(cfg_scale: f32) -> Self {
        Self {
            tokens: Vec::new(),
            starts: vec![0],
            wanted: Vec::new(),
            targets: Vec::new(),
            places: Vec::new(),
            ends: Vec::new(),
            cfg_scale,
        }
    }

    /// Rows pushed so far.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether `row` should wait for the next forward pass.
    pub(super) fn is_full_for(&self, row: &Row) -> bool {
        self.is_full(row.len(), TOKENS)
    }

    /// Whether `more` tokens would make this more than `most`.
    pub(super) fn is_full(&self, more: usize, most: usize) -> bool {
        self.len() > 0 && self.tokens.len() + more > most
    }

    pub(super) fn push(&mut self, row: &Row) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(&row.tokens);
        self.starts.push(self.tokens.len());
        let twin = self.tokens.len();
        if let Some(tokens) = &row.unconditional {
            self.tokens.extend_from_slice(tokens);
            self.starts.push(self.tokens.len());
        }
        for &position in &row.positions {
            self.wanted.push(start + position);
            if row.unconditional.is_some() {
                self.wanted.push(twin + position);
            }
        }
        self.targets.extend_from_slice(&row.targets);
        self.places.extend_from_slice(&row.positions);
        self.ends.push(self.targets.len());
    }

    /// −log p of the targets, summed over each row.
    ///
    /// # Errors
    /// If the model refuses the rows, or a loss is not finite.
    pub(super) fn losses(&self, predictor: &mut MaskPredictor) -> Result<Vec<f64>> {
        let nll = self.nll(predictor)?;
        if let Some(i) = nll.iter().position(|nll| !nll.is_finite()) {
            return Err(LikelihoodError::NotFinite { position: self.places[i] }.into());
        }
        Ok(self.sums(&nll))
    }

    /// As [`losses`](Self::losses), of a model that may have diverged: NaN is a loss too.
    pub(super) fn losses_or_nan(&self, predictor: &mut MaskPredictor) -> Result<Vec<f64>> {
        Ok(self.sums(&self.nll(predictor)?))
    }

    fn nll(&self, predictor: &mut MaskPredictor) -> Result<Vec<f64>> {
        match self.cfg_scale == 0.0 {
            true => self.fused(predictor),
            false => self.guided(predictor),
        }
    }

    fn sums(&self, nll: &[f64]) -> Vec<f64> {
        let mut start = 0;
        let row = |&end: &usize| nll[std::mem::replace(&mut start, end)..end].iter().sum();
        self.ends.iter().map(row).collect()
    }

    /// Each loss, without logits in memory.
    fn fused(&self, predictor: &mut MaskPredictor) -> Result<Vec<f64>> {
        let weights = vec![1.0; self.targets.len()];
        let (positions, tokens) = (&self.wanted, &self.targets);
        let targets = Targets { positions, tokens, weights: &weights, balance: 0.0 };
        let mut nll = Vec::new();
        predictor.nll(&self.batch(), &targets, &mut nll)?;
        Ok(nll.into_iter().map(f64::from).collect())
    }

    /// Each loss, from guided logits.
    fn guided(&self, predictor: &mut MaskPredictor) -> Result<Vec<f64>> {
        self.read(predictor, &|target, logits| {
            negative_log_likelihood(logits, self.targets[target])
        })
    }

    /// What `read` makes of the logits [embedding_size] that predict each target, guided where that is
    /// asked for; it is called on all threads.
    pub(super) fn read<T: Send + Default>(
        &self,
        predictor: &mut MaskPredictor,
        read: &(dyn Fn(usize, &[f32]) -> T + Sync),
    ) -> Result<Vec<T>> {
        let is_guided = self.cfg_scale != 0.0;
        let rows = self.wanted.chunks(1 + usize::from(is_guided));
        let rows = rows.map(|rows| (rows[0], rows.get(1).copied()));
        let mut out = Vec::new();
        out.resize_with(self.targets.len(), T::default);
        let read = |target: usize, logits: &mut [f32]| match is_guided {
            false => read(target, logits),
            true => {
                let (conditional, unconditional) = logits.split_at_mut(logits.len() / 2);
                guidance::combine(conditional, unconditional, self.cfg_scale);
                read(target, conditional)
            }
        };
        predictor.read_logits(&self.batch().into(), rows, &read, &mut out)?;
        Ok(out)
    }

    fn batch(&self) -> Batch<'_> {
        Batch { tokens: &self.tokens, starts: &self.starts, keep: None }
    }
}

/// −log softmax(logits)[target].
fn negative_log_likelihood(logits: &[f32], target: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    let target = logits.get(target as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() + f64::from(max) - f64::from(target)
}
