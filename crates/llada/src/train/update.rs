//! What one update is computed from, whatever it learns from.

use std::{collections::BTreeMap, ops::Range};

use super::batch::{MicroBatch, StepBatch};
use crate::{config::LogitShift, diffusion::policy::Versions};

/// What an objective tells besides its loss, by name.
pub type Measured = BTreeMap<&'static str, f64>;

/// The sequences of one update.
#[derive(Debug)]
pub(super) enum Update<'a> {
    /// Noisy sequences, whose loss is Σ weight · nll.
    Noisy(StepBatch<'a>),
    /// Masked versions, whose weights are the slopes of a loss at the policy as it is.
    Weighted(Weighted),
}

/// Masked versions with the slopes of a loss.
#[derive(Debug)]
pub(super) struct Weighted {
    /// Those that have any slope.
    versions: Versions,
    weights: Vec<f32>,
    shift: LogitShift,
    loss: f64,
    /// Tokens of each version, of those without a slope too.
    lengths: Vec<usize>,
    measured: Measured,
}

impl Weighted {
    /// The versions of a loss of so much and with these slopes by term.
    pub(super) fn new(
        versions: &Versions,
        (loss, slopes): (f64, &[f64]),
        shift: LogitShift,
        measured: Measured,
    ) -> Self {
        let lengths = versions.lengths().collect();
        let (versions, weights) = versions.that_count(&versions.weights(slopes));
        Self { versions, weights, shift, loss, lengths, measured }
    }
}

impl Update<'_> {
    /// What it is divided by: rows of sequences, or masked versions.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Noisy(batch) => batch.sequences().rows(),
            Self::Weighted(weighted) => weighted.versions.count(),
        }
    }

    /// Those of them in `range`.
    pub(super) fn micro_batch(&self, range: Range<usize>) -> MicroBatch {
        match self {
            Self::Noisy(batch) => batch.micro_batch(range),
            Self::Weighted(Weighted { versions, weights, shift, .. }) => {
                let (sequences, noised) = versions.part(range, weights, *shift);
                MicroBatch::new(sequences, noised)
            }
        }
    }

    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Self::Noisy(batch) => batch.sequences().tokens().len(),
            Self::Weighted(weighted) => weighted.versions.lengths().sum(),
        }
    }

    /// Tokens of each.
    pub(super) fn lengths(&self) -> Vec<usize> {
        match self {
            Self::Noisy(batch) => batch.sequences().lengths().collect(),
            Self::Weighted(weighted) => weighted.lengths.clone(),
        }
    }

    /// The loss, where it is not Σ weight · nll.
    pub(super) fn loss(&self) -> Option<f64> {
        match self {
            Self::Noisy(_) => None,
            Self::Weighted(weighted) => Some(weighted.loss),
        }
    }

    /// What the objective tells besides.
    pub(super) fn measured(&self) -> Measured {
        match self {
            Self::Noisy(_) => Measured::new(),
            Self::Weighted(weighted) => weighted.measured.clone(),
        }
    }
}
