//! A language as a deterministic automaton over bytes: the subset construction, and products.
//!
//! Every step of the construction is counted, so that a constraint which takes too long is refused like
//! one that takes too much memory.

use std::{collections::HashMap, hash::Hash};

use super::{
    ConstraintError,
    nfa::{Nfa, State},
};

/// Most states.
const MOST: usize = 60_000;
/// Most steps of a construction.
const MOST_STEPS: usize = 100_000_000;

/// From where no text is accepted.
pub(super) const DEAD: u32 = 0;

/// A deterministic automaton whose states, but for the first, all lead to an accepted text.
#[derive(Debug, Clone)]
pub(super) struct Dfa {
    /// Bytes that no state tells apart share a class.
    classes: [u8; 256],
    /// Classes of bytes.
    stride: usize,
    /// By state and class.
    next: Vec<u32>,
    accepting: Vec<bool>,
    start: u32,
}

impl Dfa {
    /// About the bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.next.as_slice()) + self.accepting.len()
    }

    /// The deterministic automaton that accepts the same.
    pub(super) fn of(nfa: &Nfa) -> Result<Self, ConstraintError> {
        let (classes, stride) = classes(nfa);
        let mut states = Numbers::new();
        let mut closure = Closure { seen: vec![0; nfa.states.len()], round: 0, stack: Vec::new() };
        states.number(Vec::new())?;
        let start = states.number(closure.of(nfa, &[nfa.start]))?;
        let mut dfa =
            Self { classes, stride, next: vec![DEAD; stride], accepting: vec![false], start };
        let mut buckets: Vec<Vec<u32>> = vec![Vec::new(); stride];
        let (mut steps, mut at) = (0, 1);
        while at < states.len() {
            buckets.iter_mut().for_each(Vec::clear);
            let set = states.key(at);
            for &state in set {
                if let State::Range(low, high, next) = nfa.states[state as usize] {
                    for class in classes[low as usize]..=classes[high as usize] {
                        buckets[class as usize].push(next);
                    }
                }
            }
            dfa.accepting.push(set.iter().any(|&s| matches!(nfa.states[s as usize], State::Match)));
            for class in 0..stride {
                let same = class > 0 && buckets[class] == buckets[class - 1];
                let to = match buckets[class].is_empty() {
                    true => DEAD,
                    false if same => dfa.next[at * stride + class - 1],
                    false => {
                        let set = closure.of(nfa, &buckets[class]);
                        steps += set.len() + buckets[class].len();
                        states.number(set)?
                    }
                };
                dfa.next.push(to);
            }
            steps += stride;
            within(steps)?;
            at += 1;
        }
        Ok(dfa.trimmed())
    }

    /// What both accept.
    pub(super) fn and(&self, other: &Self) -> Result<Self, ConstraintError> {
        let mut states = Numbers::new();
        let mut pairs = HashMap::new();
        let mut classes = [0; 256];
        let mut representatives = Vec::new();
        for byte in 0..256 {
            let pair = (self.classes[byte], other.classes[byte]);
            classes[byte] = *pairs.entry(pair).or_insert_with(|| {
                representatives.push(byte as u8);
                representatives.len() as u8 - 1
            });
        }
        let stride = representatives.len();
        states.number((DEAD, DEAD))?;
        let start = states.number((self.start, other.start))?;
        let mut dfa =
            Self { classes, stride, next: vec![DEAD; stride], accepting: vec![false], start };
        let mut at = 1;
        while at < states.len() {
            let (a, b) = *states.key(at);
            dfa.accepting.push(self.accepts(a) && other.accepts(b));
            for &byte in &representatives {
                let to = (self.step(a, byte), other.step(b, byte));
                let is_dead = to.0 == DEAD || to.1 == DEAD;
                dfa.next.push(if is_dead { DEAD } else { states.number(to)? });
            }
            at += 1;
            within(at * stride)?;
        }
        Ok(dfa.trimmed())
    }

    /// Without states that lead nowhere.
    fn trimmed(mut self) -> Self {
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); self.len()];
        for (state, row) in self.next.chunks(self.stride).enumerate() {
            let mut last = DEAD;
            for &to in row.iter().filter(|&&to| to != DEAD) {
                if to != last {
                    sources[to as usize].push(state as u32);
                }
                last = to;
            }
        }
        let mut is_live = self.accepting.clone();
        let mut stack: Vec<usize> = (0..self.len()).filter(|&s| is_live[s]).collect();
        while let Some(state) = stack.pop() {
            for &source in &sources[state] {
                if !std::mem::replace(&mut is_live[source as usize], true) {
                    stack.push(source as usize);
                }
            }
        }
        let mut number = vec![DEAD; self.len()];
        let mut kept = 1;
        for state in 1..self.len() {
            if is_live[state] {
                number[state] = kept as u32;
                self.accepting[kept] = self.accepting[state];
                self.next.copy_within(
                    state * self.stride..(state + 1) * self.stride,
                    kept * self.stride,
                );
                kept += 1;
            }
        }
        self.accepting.truncate(kept);
        self.next.truncate(kept * self.stride);
        self.next.iter_mut().for_each(|to| *to = number[*to as usize]);
        self.start = number[self.start as usize];
        self
    }

    /// Adds a state from which `byte` leads to the start, and gives it.
    pub(super) fn before_start(&mut self, byte: u8) -> u32 {
        // The byte may share its class with others.
        let class = self.classes[byte as usize];
        if self.classes.iter().filter(|&&c| c == class).count() > 1 {
            let old: Vec<u32> = std::mem::take(&mut self.next);
            for row in old.chunks(self.stride) {
                self.next.extend_from_slice(row);
                self.next.push(row[class as usize]);
            }
            self.classes[byte as usize] = self.stride as u8;
            self.stride += 1;
        }
        let class = usize::from(self.classes[byte as usize]);
        let start = self.start;
        self.next.extend((0..self.stride).map(|c| if c == class { start } else { DEAD }));
        self.accepting.push(false);
        self.len() as u32 - 1
    }

    /// Number of states.
    pub(super) fn len(&self) -> usize {
        self.accepting.len()
    }

    /// The first state; [`DEAD`] where nothing is accepted.
    pub(super) fn start(&self) -> u32 {
        self.start
    }

    /// Whether the text may end in `state`.
    pub(super) fn accepts(&self, state: u32) -> bool {
        self.accepting[state as usize]
    }

    /// The class of a byte.
    pub(super) fn class(&self, byte: u8) -> u8 {
        self.classes[byte as usize]
    }

    /// The state after a byte of this class.
    #[inline]
    pub(super) fn step_class(&self, state: u32, class: u8) -> u32 {
        self.next[state as usize * self.stride + class as usize]
    }

    /// The state after a byte.
    pub(super) fn step(&self, state: u32, byte: u8) -> u32 {
        self.step_class(state, self.class(byte))
    }

    /// The state after some bytes.
    pub(super) fn walk(&self, state: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(state, |state, &byte| self.step(state, byte))
    }

    /// Whether a text is accepted.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        self.accepts(self.walk(self.start, text))
    }

    /// The ranges of bytes that lead on from `state`, and where to.
    pub(super) fn ranges(&self, state: u32) -> Vec<(u8, u8, u32)> {
        let mut ranges: Vec<(u8, u8, u32)> = Vec::new();
        for byte in 0..=u8::MAX {
            let to = self.step(state, byte);
            match ranges.last_mut() {
                _ if to == DEAD => {}
                Some((_, high, last)) if *last == to && *high + 1 == byte => *high = byte,
                _ => ranges.push((byte, byte, to)),
            }
        }
        ranges
    }
}

fn within(steps: usize) -> Result<(), ConstraintError> {
    match steps > MOST_STEPS {
        true => {
            Err(ConstraintError::TooLarge { what: "steps of its construction", limit: MOST_STEPS })
        }
        false => Ok(()),
    }
}

/// Classes of bytes that no state tells apart, in ascending order of their bytes, and their number.
fn classes(nfa: &Nfa) -> ([u8; 256], usize) {
    let mut begins = [false; 257];
    for state in &nfa.states {
        if let State::Range(low, high, _) = *state {
            begins[low as usize] = true;
            begins[high as usize + 1] = true;
        }
    }
    let (mut classes, mut class) = ([0; 256], 0);
    for byte in 1..256 {
        class += u8::from(begins[byte]);
        classes[byte] = class;
    }
    (classes, class as usize + 1)
}

/// Numbers things in the order of their first mention.
struct Numbers<K> {
    numbers: HashMap<K, u32>,
    keys: Vec<K>,
}

impl<K: Hash + Eq + Clone> Numbers<K> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), keys: Vec::new() }
    }

    fn number(&mut self, key: K) -> Result<u32, ConstraintError> {
        if let Some(&number) = self.numbers.get(&key) {
            return Ok(number);
        }
        if self.keys.len() >= MOST {
            return Err(ConstraintError::TooLarge { what: "states", limit: MOST });
        }
        let number = self.keys.len() as u32;
        self.numbers.insert(key.clone(), number);
        self.keys.push(key);
        Ok(number)
    }

    fn key(&self, number: usize) -> &K {
        &self.keys[number]
    }

    fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Works out which states are reached without a byte.
struct Closure {
    seen: Vec<u32>,
    round: u32,
    stack: Vec<u32>,
}

impl Closure {
    /// The states that take a byte or end the text, in ascending order.
    fn of(&mut self, nfa: &Nfa, from: &[u32]) -> Vec<u32> {
        self.round += 1;
        self.stack.extend_from_slice(from);
        let mut set = Vec::new();
        while let Some(state) = self.stack.pop() {
            if std::mem::replace(&mut self.seen[state as usize], self.round) == self.round {
                continue;
            }
            match &nfa.states[state as usize] {
                State::Split(to) => self.stack.extend_from_slice(to),
                _ => set.push(state),
            }
        }
        set.sort_unstable();
        set
    }
}
