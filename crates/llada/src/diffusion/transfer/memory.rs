//! What rules remember of the steps before: a few numbers for each open position.

use std::collections::BTreeMap;

use llada_kernels::statistics::Statistics;

use super::{Credit, TransferRule};
use crate::diffusion::{Precision, sample};

/// Tokens of a distribution that are remembered one by one; the rest counts as one token.
const REMEMBERED: usize = 32;

/// By position, what came before.
#[derive(Debug, Default)]
pub(in crate::diffusion) struct Memory {
    positions: BTreeMap<usize, Past>,
}

/// What came before at one position.
#[derive(Debug, Clone, Default)]
pub(in crate::diffusion) struct Past {
    /// The most probable tokens and their probabilities in the last step.
    distribution: Vec<(usize, f64)>,
    /// For how many steps the distribution has been at rest.
    at_rest: usize,
    /// Tokens and their credits.
    credits: Vec<(usize, f64)>,
}

impl Memory {
    /// What came before at `position`.
    pub(in crate::diffusion) fn of(&self, position: usize) -> Option<&Past> {
        self.positions.get(&position)
    }

    /// Takes note of what came before.
    pub(in crate::diffusion) fn remember(&mut self, position: usize, past: Past) {
        self.positions.insert(position, past);
    }

    /// For how many steps the distribution of `position` has been at rest.
    pub(super) fn steps_at_rest(&self, position: usize) -> usize {
        self.positions.get(&position).map_or(0, |past| past.at_rest)
    }

    /// Forgets a position.
    pub(in crate::diffusion) fn forget(&mut self, position: usize) {
        self.positions.remove(&position);
    }

    /// Takes note that `count` masks were put in before the position `at`.
    pub(in crate::diffusion) fn shift(&mut self, at: usize, count: usize) {
        let after = self.positions.split_off(&at);
        self.positions.extend(after.into_iter().map(|(i, past)| (i + count, past)));
    }
}

impl Past {
    /// What will have come before once these `logits` of a position have, with the statistics `whole`,
    /// after `past`; those that have credit are raised. `None` if `rule` remembers nothing.
    pub(in crate::diffusion) fn observe(
        past: Option<&Self>,
        rule: TransferRule,
        logits: &mut [f32],
        whole: &Statistics,
    ) -> Option<Self> {
        let past = || past.cloned().unwrap_or_default();
        match rule {
            TransferRule::Klass(klass) => Some(past().compared(logits, whole, klass.divergence)),
            TransferRule::Credit(credit) => Some(past().lent(logits, whole, credit)),
            _ => None,
        }
    }

    /// Counts the step as one at rest if KL(now ‖ before), with all that was not remembered taken
    /// together, is below `limit`; the true divergence is at least that.
    fn compared(mut self, logits: &[f32], whole: &Statistics, limit: f64) -> Self {
        let probability = |token: usize| sample::probability(logits, whole, token, Precision::F64);
        let is_first = self.distribution.is_empty();
        let (mut divergence, mut rest_now, mut rest_before) = (0.0, 1.0f64, 1.0f64);
        for &(token, before) in &self.distribution {
            let now = probability(token);
            divergence += relative(now, before);
            rest_now -= now;
            rest_before -= before;
        }
        // What rounding leaves of nothing is nothing.
        divergence += relative(rest_now.max(0.0), rest_before.max(1e-12));
        self.at_rest = if !is_first && divergence < limit { self.at_rest + 1 } else { 0 };

        let remembered = most_probable(logits);
        self.distribution = remembered.into_iter().map(|t| (t, probability(t))).collect();
        self
    }

    /// Gives the most probable token its credit, then adds all credits to the logits.
    fn lent(mut self, logits: &mut [f32], whole: &Statistics, credit: Credit) -> Self {
        let top = whole.token;
        let earned = whole.probability(whole.greatest).powf(credit.exponent);
        self.credits.iter_mut().for_each(|(_, amount)| *amount *= credit.decay);
        // Credits that no longer matter are dropped, so that few are remembered.
        self.credits.retain(|&(token, amount)| token == top || amount > 1e-3);
        match self.credits.iter_mut().find(|(token, _)| *token == top) {
            Some((_, amount)) => *amount += earned,
            None => self.credits.push((top, earned)),
        }
        for &(token, amount) in &self.credits {
            logits[token] += (credit.weight * amount.ln_1p()) as f32;
        }
        self
    }
}

/// The tokens to remember, in ascending order.
fn most_probable(logits: &[f32]) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(REMEMBERED + 1);
    for (token, &logit) in logits.iter().enumerate() {
        // Most are no better than the least of those found.
        if best.len() == REMEMBERED && logit <= logits[best[REMEMBERED - 1]] {
            continue;
        }
        best.insert(best.partition_point(|&t| logits[t] >= logit), token);
        best.truncate(REMEMBERED);
    }
    best.sort_unstable();
    best
}

/// p ln(p/q).
fn relative(p: f64, q: f64) -> f64 {
    if p > 0.0 { p * (p / q.max(f64::MIN_POSITIVE)).ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::transfer::Klass;
    use llada_kernels::statistics;

    #[test]
    fn a_distribution_comes_to_rest_and_is_shaken() {
        let rule = TransferRule::Klass(Klass::default());
        let mut memory = Memory::default();
        let logits: Vec<f32> = (0..100).map(|i| (i * i % 37) as f32 / 5.0).collect();
        let mut rest = |logits: &[f32]| {
            let whole = statistics::of(logits).unwrap();
            let mut seen = logits.to_vec();
            let past = Past::observe(memory.of(3), rule, &mut seen, &whole).unwrap();
            memory.remember(3, past);
            memory.steps_at_rest(3)
        };
        assert_eq!([rest(&logits), rest(&logits), rest(&logits)], [0, 1, 2]);
        let mut other = logits.clone();
        other[50] += 9.0;
        assert_eq!([rest(&other), rest(&other)], [0, 1]);
        // Mass that moves within what is not remembered is not seen.
        let least = (0..100).filter(|&i| other[i] == 0.0).collect::<Vec<_>>();
        assert!(least.len() > 1);
        other[least[0]] += 1e-3;
        assert_eq!(rest(&other), 2);
        memory.forget(3);
        assert_eq!(memory.steps_at_rest(3), 0);
    }

    #[test]
    fn credit_grows_for_what_leads_and_fades_for_what_led() {
        let rule = TransferRule::Credit(Credit::default());
        let mut memory = Memory::default();
        let mut lent = |logits: [f32; 3]| {
            let mut now = logits;
            let whole = statistics::of(&now).unwrap();
            let past = Past::observe(memory.of(0), rule, &mut now, &whole).unwrap();
            memory.remember(0, past);
            [now[0] - logits[0], now[1] - logits[1], now[2] - logits[2]]
        };
        let first = lent([1.0, 0.0, 0.0]);
        let p = 1f64.exp() / (1f64.exp() + 2.0);
        assert!((f64::from(first[0]) - 0.7 * p.powf(0.2).ln_1p()).abs() < 1e-6);
        assert_eq!(first[1..], [0.0, 0.0]);
        let second = lent([1.0, 0.0, 0.0]);
        assert!(second[0] > first[0]);
        let third = lent([0.0, 1.0, 0.0]);
        assert!(third[0] < second[0] && third[0] > 0.0 && (third[1] - first[0]).abs() < 1e-6);
    }

    #[test]
    fn positions_move_with_what_is_put_in_before_them() {
        let mut memory = Memory::default();
        for position in [2, 5] {
            memory.positions.entry(position).or_default().at_rest = position;
        }
        memory.shift(3, 4);
        assert_eq!([2, 5, 9].map(|i| memory.steps_at_rest(i)), [2, 0, 5]);
    }
}
