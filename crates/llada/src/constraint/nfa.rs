//! A language as a nondeterministic automaton over bytes (Thompson's construction, from the end to the
//! beginning).

use std::collections::HashMap;

use regex_syntax::utf8::Utf8Sequences;

use super::{ConstraintError, dfa::Dfa, node::Node};

/// Most states.
const MOST: usize = 400_000;

/// What stands between two elements or members.
const SEPARATOR: &[u8] = b", ";

/// A state.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Takes a byte of a range.
    Range(u8, u8, u32),
    /// Goes to any of these without a byte.
    Split(Vec<u32>),
    /// The text may end.
    Match,
}

/// A nondeterministic automaton.
#[derive(Debug)]
pub(super) struct Nfa {
    pub(super) states: Vec<State>,
    pub(super) start: u32,
}

impl Nfa {
    /// The automaton of a language.
    pub(super) fn of(node: &Node) -> Result<Self, ConstraintError> {
        let mut builder = Builder { states: vec![State::Match] };
        let start = builder.node(node, 0)?;
        Ok(Self { states: builder.states, start })
    }
}

struct Builder {
    states: Vec<State>,
}

impl Builder {
    fn push(&mut self, state: State) -> Result<u32, ConstraintError> {
        if self.states.len() >= MOST {
            return Err(ConstraintError::TooLarge { what: "states of its grammar", limit: MOST });
        }
        self.states.push(state);
        Ok(self.states.len() as u32 - 1)
    }

    fn split(&mut self, mut to: Vec<u32>) -> Result<u32, ConstraintError> {
        match (to.len(), to.pop()) {
            (1, Some(state)) => Ok(state),
            (_, last) => {
                to.extend(last);
                self.push(State::Split(to))
            }
        }
    }

    fn bytes(&mut self, bytes: &[u8], next: u32) -> Result<u32, ConstraintError> {
        bytes.iter().rev().try_fold(next, |next, &b| self.push(State::Range(b, b, next)))
    }

    /// Adds `node` before the state `next`, and gives where it begins.
    fn node(&mut self, node: &Node, next: u32) -> Result<u32, ConstraintError> {
        match node {
            Node::Bytes(bytes) => self.bytes(bytes, next),
            Node::Class(ranges) => self.class(ranges, next),
            Node::Seq(nodes) => {
                nodes.iter().rev().try_fold(next, |next, node| self.node(node, next))
            }
            Node::Or(nodes) => {
                let starts = nodes.iter().map(|node| self.node(node, next));
                let starts = starts.collect::<Result<Vec<_>, _>>()?;
                self.split(starts)
            }
            Node::Repeat(node, min, max) => self.repeat(node, *min, *max, next),
            Node::List(node, separator) => {
                let around = self.push(State::Split(vec![next]))?;
                let begin = self.node(node, around)?;
                let again = self.bytes(separator.as_bytes(), begin)?;
                self.states[around as usize] = State::Split(vec![again, next]);
                Ok(begin)
            }
            Node::Items { prefix, item, min, max } => {
                self.items(prefix, item.as_deref(), *min, *max, next)
            }
            Node::Fields(fields) => self.fields(fields, next),
            Node::All(nodes) => self.all(nodes, next),
        }
    }

    fn class(&mut self, ranges: &[(char, char)], next: u32) -> Result<u32, ConstraintError> {
        let mut starts = Vec::new();
        // Characters that end alike share their last bytes.
        let mut known = HashMap::new();
        for &(first, last) in ranges {
            for sequence in Utf8Sequences::new(first, last) {
                let mut to = next;
                for range in sequence.as_slice().iter().rev() {
                    let key = (range.start, range.end, to);
                    to = match known.get(&key) {
                        Some(&state) => state,
                        None => self.push(State::Range(range.start, range.end, to))?,
                    };
                    known.insert(key, to);
                }
                starts.push(to);
            }
        }
        self.split(starts)
    }

    fn repeat(
        &mut self,
        node: &Node,
        min: u32,
        max: Option<u32>,
        next: u32,
    ) -> Result<u32, ConstraintError> {
        let mut at = next;
        match max {
            None => {
                let around = self.push(State::Split(vec![next]))?;
                let body = self.node(node, around)?;
                self.states[around as usize] = State::Split(vec![body, next]);
                at = around;
            }
            Some(max) => {
                for _ in min..max {
                    let body = self.node(node, at)?;
                    at = self.push(State::Split(vec![body, next]))?;
                }
            }
        }
        for _ in 0..min {
            // An empty body adds no states, which are what bounds the loop.
            let before = self.states.len();
            at = self.node(node, at)?;
            if self.states.len() == before {
                break;
            }
        }
        Ok(at)
    }

    fn items(
        &mut self,
        prefix: &[Node],
        item: Option<&Node>,
        min: u32,
        max: Option<u32>,
        next: u32,
    ) -> Result<u32, ConstraintError> {
        let given = prefix.len() as u32;
        let most = match item {
            Some(_) => max,
            None => Some(max.map_or(given, |max| max.min(given))),
        };
        if most.is_some_and(|most| most < min) {
            return self.split(Vec::new());
        }
        // What follows once so many elements are there, and where an element after them begins.
        let (mut count, mut after, mut element) = match (most, item) {
            (None, Some(item)) => {
                let around = self.push(State::Split(vec![next]))?;
                let element = self.node(item, around)?;
                let comma = self.bytes(SEPARATOR, element)?;
                self.states[around as usize] = State::Split(vec![comma, next]);
                (given.max(min).max(1), around, Some(element))
            }
            (most, _) => (most.unwrap_or(given), next, None),
        };
        let is_loop = element.is_some();
        if is_loop && count > given && count == 1 {
            // The only element that must be is the one that is repeated.
            count = 0;
        }
        while count > 0 {
            count -= 1;
            let node = prefix.get(count as usize).or(item);
            let Some(node) = node else { break };
            let begin = self.node(node, after)?;
            element = Some(begin);
            if count > 0 {
                let comma = self.bytes(SEPARATOR, begin)?;
                after = match count >= min {
                    true => self.split(vec![comma, next])?,
                    false => comma,
                };
            }
        }
        let mut starts: Vec<u32> = element.into_iter().collect();
        if min == 0 {
            starts.push(next);
        }
        self.split(starts)
    }

    fn fields(&mut self, fields: &[(Node, bool)], next: u32) -> Result<u32, ConstraintError> {
        // Where the rest begins, as the first member and after one.
        let (mut first, mut after) = (next, next);
        for (field, is_required) in fields.iter().rev() {
            let begin = self.node(field, after)?;
            let comma = self.bytes(SEPARATOR, begin)?;
            (first, after) = match is_required {
                true => (begin, comma),
                false => (self.split(vec![begin, first])?, self.split(vec![comma, after])?),
            };
        }
        Ok(first)
    }

    fn all(&mut self, nodes: &[Node], next: u32) -> Result<u32, ConstraintError> {
        let mut both: Option<Dfa> = None;
        for node in nodes {
            let dfa = Dfa::of(&Nfa::of(node)?)?;
            both = Some(match both {
                None => dfa,
                Some(other) => other.and(&dfa)?,
            });
        }
        let Some(dfa) = both else { return Ok(next) };
        let first = self.states.len() as u32;
        for _ in 0..dfa.len() {
            self.push(State::Split(Vec::new()))?;
        }
        for state in 0..dfa.len() as u32 {
            let mut to = Vec::new();
            for (low, high, target) in dfa.ranges(state) {
                to.push(self.push(State::Range(low, high, first + target))?);
            }
            if dfa.accepts(state) {
                to.push(next);
            }
            self.states[(first + state) as usize] = State::Split(to);
        }
        Ok(first + dfa.start())
    }
}
