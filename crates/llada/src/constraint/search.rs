//! The most probable text of a language over open positions: the dynamic programme of DINGO (arXiv
//! 2505.23061), a Viterbi search over the states of the automaton.

use std::sync::{Arc, PoisonError};

use super::{Automaton, automaton::NEVER};

/// The best token of a class at a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Best {
    /// By what it was found.
    pub(crate) score: f32,
    /// Its logit.
    pub(crate) logit: f32,
    /// The token; without meaning where the score is −∞.
    pub(crate) token: u32,
}

impl Best {
    /// Of a class without tokens.
    pub(crate) const NONE: Self =
        Self { score: f32::NEG_INFINITY, logit: f32::NEG_INFINITY, token: 0 };
}

/// What a position holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// This token.
    Fixed(u32),
    /// The best token of a class.
    Scored(&'a [Best]),
    /// Any token, of which nothing is known.
    Free,
}

/// How a text ends after the places.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    /// In at most so many more tokens.
    Within(usize),
    /// In exactly so many as lead from these states to an accepted text.
    Exactly(Arc<[bool]>),
}

/// A state that was reached, and how.
#[derive(Clone, Copy)]
struct Step {
    state: u32,
    /// The number of the one before, among those of its position.
    before: u32,
    label: u32,
}

const NO_LABEL: u32 = u32::MAX;

/// What a search works with, one position at a time.
struct Front {
    steps: Vec<Step>,
    scores: Vec<f64>,
    /// Of each state, its number among the steps.
    numbers: Vec<u32>,
}

impl Front {
    fn new(states: usize) -> Self {
        Self { steps: Vec::new(), scores: Vec::new(), numbers: vec![u32::MAX; states] }
    }

    /// Takes a step unless one to the same state is as good.
    #[inline]
    fn offer(&mut self, step: Step, score: f64) {
        let number = &mut self.numbers[step.state as usize];
        if *number == u32::MAX {
            *number = self.steps.len() as u32;
            self.steps.push(step);
            self.scores.push(score);
        } else if score > self.scores[*number as usize] {
            self.scores[*number as usize] = score;
            self.steps[*number as usize] = step;
        }
    }

    fn clear(&mut self) {
        for step in self.steps.drain(..) {
            self.numbers[step.state as usize] = u32::MAX;
        }
        self.scores.clear();
    }
}

impl Automaton {
    /// Which states exactly `count` tokens lead from to an accepted text, none of them one that ends it.
    pub(crate) fn endings(&self, count: usize) -> Arc<[bool]> {
        let mut exact = self.exact.lock().unwrap_or_else(PoisonError::into_inner);
        let states = self.least.len() as u32;
        while exact.len() <= count {
            let done = |state: u32| Some(state) == self.done;
            let next: Arc<[bool]> = match exact.last() {
                None => (0..states).map(|s| !done(s) && self.is_end(s)).collect(),
                Some(last) => (0..states)
                    .map(|s| !done(s) && self.edges(s).iter().any(|edge| last[edge.to as usize]))
                    .collect(),
            };
            exact.push(next);
        }
        Arc::clone(&exact[count])
    }

    /// The tokens of the best text that goes on from `state` over `places`, and ends as it must; `None` if
    /// there is no such text. Where a place is free the token is `None` too. Of equals, the one with the
    /// first of classes.
    pub(crate) fn search(
        &self,
        state: u32,
        places: &[Place<'_>],
        ending: &Ending,
    ) -> Option<Vec<Option<Best>>> {
        let rest = match ending {
            Ending::Within(rest) => *rest,
            Ending::Exactly(_) => usize::MAX - places.len(),
        };
        let mut front = Front::new(self.least.len());
        let mut next = Front::new(self.least.len());
        let mut trail: Vec<Vec<Step>> = Vec::with_capacity(places.len());
        // Of each label the best score at this position, once it was asked.
        let mut values = vec![(usize::MAX, 0.0f64); self.labels.len()];
        front.offer(Step { state, before: 0, label: NO_LABEL }, 0.0);
        for (i, place) in places.iter().enumerate() {
            let room = rest.saturating_add(places.len() - 1 - i);
            let leads = |to: u32| {
                let least = self.least[to as usize];
                least != NEVER && least as usize <= room
            };
            for number in 0..front.steps.len() {
                let (Step { state, .. }, score) = (front.steps[number], front.scores[number]);
                let before = number as u32;
                match place {
                    Place::Fixed(token) => {
                        if let Some(to) = self.step(state, *token).filter(|&to| leads(to)) {
                            next.offer(Step { state: to, before, label: NO_LABEL }, score);
                        }
                    }
                    Place::Free => {
                        for edge in self.edges(state).iter().filter(|edge| leads(edge.to)) {
                            next.offer(Step { state: edge.to, before, label: NO_LABEL }, score);
                        }
                    }
                    Place::Scored(best) => {
                        for edge in self.edges(state).iter().filter(|edge| leads(edge.to)) {
                            let value = &mut values[edge.label as usize];
                            if value.0 != i {
                                *value = (i, f64::from(self.best_of(edge.label, best).score));
                            }
                            if value.1 > f64::NEG_INFINITY {
                                let step = Step { state: edge.to, before, label: edge.label };
                                next.offer(step, score + value.1);
                            }
                        }
                    }
                }
            }
            trail.push(front.steps.clone());
            std::mem::swap(&mut front, &mut next);
            next.clear();
        }
        let ends = |step: &Step| match ending {
            Ending::Within(rest) => self.least[step.state as usize] as usize <= *rest,
            Ending::Exactly(states) => states[step.state as usize],
        };
        let mut best: Option<usize> = None;
        for number in (0..front.steps.len()).filter(|&number| ends(&front.steps[number])) {
            if best.is_none_or(|best| front.scores[number] > front.scores[best]) {
                best = Some(number);
            }
        }
        let mut step = front.steps[best?];
        let mut tokens = vec![None; places.len()];
        for (i, place) in places.iter().enumerate().rev() {
            tokens[i] = match place {
                Place::Scored(best) => Some(self.best_of(step.label, best)),
                Place::Fixed(_) | Place::Free => None,
            };
            step = trail[i][step.before as usize];
        }
        Some(tokens)
    }

    /// The best token of a label, the first of equals.
    fn best_of(&self, label: u32, best: &[Best]) -> Best {
        let first = |a: Best, b: Best| if b.score > a.score { b } else { a };
        let classes = self.labels[label as usize].iter();
        classes.filter_map(|&class| best.get(class as usize)).fold(Best::NONE, |a, &b| first(a, b))
    }
}
