//! From the losses of noisy copies to the estimate of an answer.

use super::Estimate;

/// The noisy copies of an answer: which sequence each is, and how much it counts.
#[derive(Debug)]
pub(super) struct Samples {
    /// Sequence and weight L/m of each.
    all: Vec<(usize, f64)>,
    /// How many make one iteration.
    batch: usize,
    /// Whether they are all there is to know, and not a draw of it.
    exact: bool,
}

impl Samples {
    /// None yet; `batch` of them make one iteration.
    pub(super) fn new(batch: usize) -> Self {
        Self { all: Vec::new(), batch, exact: false }
    }

    /// The one sequence of a causal model.
    pub(super) fn exact() -> Self {
        Self { all: vec![(0, 1.0)], batch: 1, exact: true }
    }

    pub(super) fn push(&mut self, sequence: usize, weight: f64) {
        self.all.push((sequence, weight));
    }
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The estimate of an answer of `tokens` tokens, from the losses of all sequences.
    pub(super) fn estimate(&self, losses: &[f64], tokens: usize) -> Estimate {
        let loss = |&(sequence, weight): &(usize, f64)| weight * losses[sequence];
        let iterations: Vec<f64> = self
            .all
            .chunks(self.batch)
            .map(|batch| batch.iter().map(loss).sum::<f64>() / batch.len() as f64)
            .collect();
        let n = iterations.len() as f64;
        let mean = iterations.iter().sum::<f64>() / n;
        let squares: f64 = iterations.iter().map(|x| (x - mean).powi(2)).sum();
        Estimate {
            log_likelihood: -mean,
            // All noisy copies of a single token are the same.
            standard_error: match (self.exact || tokens == 1, iterations.len()) {
                (true, _) => Some(0.0),
                (false, 1) => None,
                (false, _) => Some((squares / (n - 1.0) / n).sqrt()),
            },
            samples: self.all.len(),
            tokens,
        }
    }
}
