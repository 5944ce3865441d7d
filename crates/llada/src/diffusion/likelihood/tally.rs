//! From the losses of rows to the estimates of pairs.

use std::{collections::VecDeque, ops::ControlFlow};

use super::{Estimate, Event, Pair};

/// The noisy copies of an answer: which row each is, and how much it counts.
#[derive(Debug)]
pub(super) struct Samples {
    /// Row and weight L/m of each.
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

    /// The one row of a causal model.
    pub(super) fn exact() -> Self {
        Self { all: vec![(0, 1.0)], batch: 1, exact: true }
    }

    pub(super) fn push(&mut self, row: usize, weight: f64) {
        self.all.push((row, weight));
    }
}

/// A pair whose rows are not all computed.
#[derive(Debug)]
struct Open {
    number: usize,
    /// Tokens of the answer.
    tokens: usize,
    samples: Samples,
    /// Rows that it needs.
    rows: usize,
    /// Losses of the rows so far.
    losses: Vec<f64>,
}

impl Open {
    fn estimate(&self) -> Estimate {
        let Samples { all, batch, exact } = &self.samples;
        let loss = |&(row, weight): &(usize, f64)| weight * self.losses[row];
        let iterations: Vec<f64> = all
            .chunks(*batch)
            .map(|batch| batch.iter().map(loss).sum::<f64>() / batch.len() as f64)
            .collect();
        let n = iterations.len() as f64;
        let mean = iterations.iter().sum::<f64>() / n;
        let squares: f64 = iterations.iter().map(|x| (x - mean).powi(2)).sum();
        Estimate {
            log_likelihood: -mean,
            // All noisy copies of a single token are the same.
            standard_error: match (*exact || self.tokens == 1, iterations.len()) {
                (true, _) => Some(0.0),
                (false, 1) => None,
                (false, _) => Some((squares / (n - 1.0) / n).sqrt()),
            },
            samples: all.len(),
            tokens: self.tokens,
        }
    }
}

/// The pairs that are scored and those under way. Rows are computed in the order of their pairs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    open: VecDeque<Open>,
    done: Vec<Estimate>,
    /// Samples of the pairs that are done.
    samples: usize,
}

impl Tally {
    /// A pair whose `rows` rows come next.
    pub(super) fn open(&mut self, number: usize, pair: &Pair, samples: Samples, rows: usize) {
        let (tokens, losses) = (pair.answer.len(), Vec::with_capacity(rows));
        self.open.push_back(Open { number, tokens, samples, rows, losses });
    }

    /// Hands out the losses of a forward pass, and closes the pairs that have all of theirs.
    pub(super) fn settle(
        &mut self,
        losses: Vec<f64>,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for loss in losses {
            let Some(first) = self.open.front_mut() else { break };
            first.losses.push(loss);
            if first.losses.len() == first.rows {
                let (number, estimate) = (first.number, first.estimate());
                self.open.pop_front();
                self.samples += estimate.samples;
                self.done.push(estimate);
                on_event(Event::Done(number, estimate))?;
            }
        }
        let begun = self.open.front().map_or(0, |o| o.samples.all.len() * o.losses.len() / o.rows);
        on_event(Event::Forward { samples: self.samples + begun })
    }

    /// The estimates of the pairs that are done, in order.
    pub(super) fn into_done(self) -> Vec<Estimate> {
        self.done
    }
}
