//! The rows of one update: which tokens, how noisy, and what is to be predicted.

use std::ops::Range;

use crate::{
    Result,
    config::Objective,
    data::Windows,
    diffusion::{
        forward::{self, Noised},
        loss,
    },
    model::{Batch, Targets},
    rng::{Purpose, Stream},
    train::Recipe,
};

/// Some rows of an update with their targets, ready for the model.
#[derive(Debug)]
pub(super) struct MicroBatch {
    /// Offsets of the rows.
    pub(super) starts: Vec<usize>,
    /// Tokens and targets; the weights are ∂loss/∂nll of each target.
    pub(super) noised: Noised,
}

impl MicroBatch {
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { tokens: &self.noised.tokens, starts: &self.starts, keep: None }
    }

    pub(super) fn targets(&self) -> Targets<'_> {
        let Noised { positions, targets, weights, .. } = &self.noised;
        Targets { positions, tokens: targets, weights }
    }
}

/// All rows of the update of one step. Everything random in it is addressed by the seed and the
/// step or the row's number in the run, so that it does not depend on how the batch is divided.
pub(super) struct StepRows<'a> {
    recipe: &'a Recipe,
    windows: Windows<'a>,
    mask: u32,
    /// Number in the run of the first row.
    first: u64,
    /// Noise level t of each row.
    levels: Vec<f64>,
    /// Tokens of each row.
    pub(super) length: usize,
}

impl<'a> StepRows<'a> {
    /// The rows of `step`, from 0. `mask` is not used by the autoregressive objective.
    pub(super) fn new(recipe: &'a Recipe, windows: Windows<'a>, mask: u32, step: u64) -> Self {
        let (seed, rows) = (recipe.train.seed, recipe.train.batch_size);
        let mut stream = Stream::new(seed, Purpose::NoiseLevel, step);
        let levels = forward::noise_levels(&mut stream, rows, recipe.diffusion.low_discrepancy);
        let first = step * rows as u64;
        let length = row_length(recipe, step);
        Self { recipe, windows, mask, first, levels, length }
    }

    /// The rows `range` of the batch.
    pub(super) fn micro_batch(&self, range: Range<usize>) -> Result<MicroBatch> {
        let run = self.first + range.start as u64..self.first + range.end as u64;
        let mut tokens = Vec::with_capacity(range.len() * self.length);
        self.windows.rows(run, self.length, &mut tokens)?;
        let starts: Vec<usize> = (0..=range.len()).map(|row| row * self.length).collect();
        let mut noised = match self.recipe.train.objective {
            Objective::Diffusion => self.noisy(&tokens, &starts, range),
            Objective::Autoregressive => loss::autoregressive(&tokens, &starts),
        };
        // Every part of the batch weighs as its share of the whole.
        noised.weights = match self.recipe.train.objective {
            Objective::Diffusion => {
                loss::pretrain_weights(&noised, self.recipe.train.batch_size * self.length)
            }
            Objective::Autoregressive => {
                let predicted = self.recipe.train.batch_size * (self.length - 1);
                vec![1.0 / predicted as f32; noised.positions.len()]
            }
        };
        Ok(MicroBatch { starts, noised })
    }

    fn noisy(&self, tokens: &[u32], starts: &[usize], range: Range<usize>) -> Noised {
        let Recipe { diffusion, train, .. } = self.recipe;
        let first = self.first + range.start as u64;
        let mut draws: Vec<Stream> = (0..range.len() as u64)
            .map(|row| Stream::new(train.seed, Purpose::Masking, first + row))
            .collect();
        let mut draw = |row: usize| draws[row].uniform();
        forward::noise(tokens, starts, &self.levels[range], diffusion.eps, self.mask, &mut draw)
    }
}

/// The length of the rows of `step`: now and then a batch is cut short, so that the model also
/// sees short rows (Section 2.2 of the paper; per batch, as the reference code does it).
fn row_length(recipe: &Recipe, step: u64) -> usize {
    let longest = recipe.data.sequence_length;
    let mut stream = Stream::new(recipe.train.seed, Purpose::Length, step);
    let mut length = longest;
    if stream.uniform() < recipe.data.random_length {
        length = 1 + stream.below(longest as u64) as usize;
    }
    match recipe.train.objective {
        Objective::Diffusion => length,
        // The first token of a row is not predicted, so that a row of one has no loss.
        Objective::Autoregressive => length.max(2).min(longest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_cut_as_often_as_asked() {
        let mut recipe = Recipe::default();
        recipe.data.sequence_length = 64;
        recipe.data.random_length = 0.25;
        let lengths: Vec<usize> = (0..4000).map(|step| row_length(&recipe, step)).collect();
        let cut = lengths.iter().filter(|l| **l < 64).count();
        assert!((850..1120).contains(&cut), "{cut}");
        assert!(lengths.iter().all(|l| (1..=64).contains(l)));
        recipe.train.objective = Objective::Autoregressive;
        assert!((0..4000).all(|step| row_length(&recipe, step) >= 2));
        recipe.data.random_length = 0.0;
        assert!((0..100).all(|step| row_length(&recipe, step) == 64));
    }
}
