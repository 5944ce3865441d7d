//! An automaton over tokens: which state follows which by which tokens.
//!
//! Of a vocabulary of 126 thousand tokens, a state that is within a string accepts nearly all. But few of them are
//! told apart by any state: tokens that lead every state to the same next one are one class, and a set of classes
//! that leads some state to another is a label, of which states that are alike share theirs. So a step costs one
//! look at each token, which reads the best of every class, and the search runs over classes and labels alone.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Constraint, ConstraintError, Vocabulary,
    dfa::{DEAD, Dfa},
    nfa::Nfa,
    vocabulary::Trie,
};

/// Most nodes of the vocabulary's trie that are looked at.
const MOST_STEPS: usize = 600_000_000;
/// Most classes of tokens.
const MOST_CLASSES: usize = 20_000;
/// Most edges, and most classes in all labels.
const MOST_EDGES: usize = 4_000_000;

/// No number of tokens leads from there to an end.
pub(super) const NEVER: u32 = u32::MAX;

/// A constraint over one vocabulary.
pub struct Automaton {
    pub(super) vocabulary: Arc<Vocabulary>,
    pub(super) dfa: Dfa,
    /// The state before a text whose first byte is a space that does not belong to it.
    pub(super) lead: u32,
    /// The state after the end of the text; `None` where no token ends it.
    pub(super) done: Option<u32>,
    /// By token id, its class; the number of classes where no state takes it.
    class_of: Vec<u16>,
    classes: usize,
    /// Classes of each label.
    pub(super) labels: Vec<Box<[u16]>>,
    /// Where the edges of each state begin, and of the last end.
    first_edge: Vec<u32>,
    edges: Vec<Edge>,
    /// By state, the fewest tokens to an end.
    pub(super) least: Vec<u32>,
    /// By a number of tokens, which states exactly so many lead to an accepted text.
    pub(super) exact: Mutex<Vec<Arc<[bool]>>>,
}

/// By any token of a label to a state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) label: u32,
    pub(super) to: u32,
}

impl Automaton {
    /// About the bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let lengths = self.exact.lock().unwrap_or_else(PoisonError::into_inner).len();
        let labels: usize = self.labels.iter().map(|label| label.len()).sum();
        let states = self.least.len();
        self.dfa.bytes()
            + size_of_val(self.class_of.as_slice())
            + labels * size_of::<u16>()
            + size_of_val(self.edges.as_slice())
            + states * (2 * size_of::<u32>() + lengths)
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// If it is none, has parts that are not supported, accepts nothing, or takes too much.
    pub fn new(
        constraint: &Constraint,
        vocabulary: &Arc<Vocabulary>,
    ) -> Result<Self, ConstraintError> {
        let dfa = Dfa::of(&Nfa::of(&constraint.node()?)?)?;
        if dfa.start() == DEAD {
            return Err(ConstraintError::Never { pointer: "#".into() });
        }
        Self::over(dfa, vocabulary)
    }

    pub(super) fn over(
        mut dfa: Dfa,
        vocabulary: &Arc<Vocabulary>,
    ) -> Result<Self, ConstraintError> {
        let lead = dfa.before_start(b' ');
        let mut classes = Classes::new(vocabulary.sorted().len());
        let mut reached = vec![false; dfa.len()];
        let mut states = vec![dfa.start(), lead];
        (reached[dfa.start() as usize], reached[lead as usize]) = (true, true);
        let (mut at, mut steps, mut survivors) = (0, 0, Vec::new());
        while at < states.len() {
            survivors.clear();
            let visit = |word, to| survivors.push((word, to));
            steps += vocabulary.trie().walk(&dfa, states[at], visit);
            classes.refine(&survivors);
            for &(_, to) in &survivors {
                if !std::mem::replace(&mut reached[to as usize], true) {
                    states.push(to);
                }
            }
            within(steps, MOST_STEPS, "steps through the vocabulary")?;
            within(classes.sizes.len(), MOST_CLASSES, "classes of tokens")?;
            at += 1;
        }
        let (number, classes, representatives) = classes.numbered();
        let mut class_of = vec![classes as u16; vocabulary.len()];
        for (&id, &number) in vocabulary.sorted().iter().zip(&number) {
            class_of[id as usize] = number;
        }
        let ends = vocabulary.ends();
        for &end in ends {
            class_of.resize(class_of.len().max(end as usize + 1), classes as u16);
        }
        let mut automaton = Self {
            vocabulary: Arc::clone(vocabulary),
            lead,
            done: (!ends.is_empty()).then_some(dfa.len() as u32),
            class_of,
            classes,
            labels: Vec::new(),
            first_edge: Vec::new(),
            edges: Vec::new(),
            least: Vec::new(),
            exact: Mutex::default(),
            dfa,
        };
        automaton.connect(&states, &number, &representatives)?;
        automaton.end();
        automaton.measure();
        match automaton.least[automaton.dfa.start() as usize] {
            NEVER => Err(ConstraintError::Unspeakable),
            _ => Ok(automaton),
        }
    }

    /// Finds the edges of `states` by one token of each class.
    fn connect(
        &mut self,
        states: &[u32],
        number: &[u16],
        representatives: &[u32],
    ) -> Result<(), ConstraintError> {
        let bytes = |&word: &u32| self.vocabulary.bytes(self.vocabulary.sorted()[word as usize]);
        let trie = Trie::of(representatives.iter().map(bytes));
        let mut by_state: Vec<Vec<Edge>> = vec![Vec::new(); self.dfa.len()];
        let mut known: HashMap<Box<[u16]>, u32> = HashMap::new();
        let (mut edges, mut members) = (0, 0);
        let mut found: Vec<(u32, u16)> = Vec::new();
        for &state in states {
            found.clear();
            trie.walk(&self.dfa, state, |word, to| {
                found.push((to, number[representatives[word as usize] as usize]));
            });
            found.sort_unstable();
            for same in found.chunk_by(|a, b| a.0 == b.0) {
                let label: Box<[u16]> = same.iter().map(|&(_, class)| class).collect();
                let label = match known.get(&label) {
                    Some(&label) => label,
                    None => {
                        members += label.len();
                        self.labels.push(label.clone());
                        known.insert(label, self.labels.len() as u32 - 1);
                        self.labels.len() as u32 - 1
                    }
                };
                by_state[state as usize].push(Edge { label, to: same[0].0 });
                edges += 1;
            }
            within(edges.max(members), MOST_EDGES, "edges")?;
        }
        for edges in by_state {
            self.first_edge.push(self.edges.len() as u32);
            self.edges.extend(edges);
        }
        self.first_edge.push(self.edges.len() as u32);
        Ok(())
    }

    /// Adds the state after the end of the text, to which the tokens lead that end it.
    fn end(&mut self) {
        let Some(done) = self.done else { return };
        let class = self.classes as u16;
        // One more class, before that of the tokens that no state takes.
        self.classes += 1;
        for other in self.class_of.iter_mut().filter(|other| **other == class) {
            *other = self.classes as u16;
        }
        for &end in self.vocabulary.ends() {
            self.class_of[end as usize] = class;
        }
        self.labels.push([class].into());
        let edge = Edge { label: self.labels.len() as u32 - 1, to: done };
        let old = std::mem::take(&mut self.edges);
        for state in 0..done as usize {
            let own = self.first_edge[state] as usize..self.first_edge[state + 1] as usize;
            self.first_edge[state] = self.edges.len() as u32;
            self.edges.extend_from_slice(&old[own]);
            if self.dfa.accepts(state as u32) {
                self.edges.push(edge);
            }
        }
        self.first_edge[done as usize] = self.edges.len() as u32;
        self.edges.push(edge);
        self.first_edge.push(self.edges.len() as u32);
    }

    /// Works out how far each state is from an end.
    fn measure(&mut self) {
        let states = self.first_edge.len() - 1;
        let mut sources: Vec<Vec<u32>> = vec![Vec::new(); states];
        for state in 0..states as u32 {
            self.edges(state).iter().for_each(|edge| sources[edge.to as usize].push(state));
        }
        self.least = vec![NEVER; states];
        let mut queue: Vec<u32> = (0..states as u32).filter(|&state| self.is_end(state)).collect();
        queue.iter().for_each(|&state| self.least[state as usize] = 0);
        let mut at = 0;
        while at < queue.len() {
            let state = queue[at] as usize;
            for &source in &sources[state] {
                if self.least[source as usize] == NEVER {
                    self.least[source as usize] = self.least[state] + 1;
                    queue.push(source);
                }
            }
            at += 1;
        }
    }

    /// The fewest tokens of an accepted text.
    pub fn shortest(&self) -> usize {
        self.least[self.dfa.start() as usize] as usize
    }

    /// Whether a text is accepted.
    pub fn accepts(&self, text: &str) -> bool {
        self.dfa.is_match(text.as_bytes())
    }

    /// Whether there are tokens that end a text, so that one may be shorter than its room.
    pub(crate) fn has_ends(&self) -> bool {
        self.done.is_some()
    }

    /// The classes of tokens.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The states between tokens.
    pub fn states(&self) -> usize {
        self.least.iter().filter(|&&least| least != NEVER).count()
    }

    /// By token id, its class; [`classes`](Self::classes) where no state takes it.
    pub(crate) fn class_of(&self) -> &[u16] {
        &self.class_of
    }

    /// The state before the first token; `spaced` is that of a text whose first token begins with a space
    /// which belongs to the text before.
    pub(crate) fn start(&self, spaced: bool) -> u32 {
        if spaced { self.lead } else { self.dfa.start() }
    }

    /// Whether a text may end in `state`, or has ended.
    pub(super) fn is_end(&self, state: u32) -> bool {
        Some(state) == self.done || self.dfa.accepts(state)
    }

    /// The edges of a state.
    pub(super) fn edges(&self, state: u32) -> &[Edge] {
        let [first, last] = [0, 1].map(|i| self.first_edge[state as usize + i] as usize);
        &self.edges[first..last]
    }

    /// The state after a token; `None` where there is none.
    pub(crate) fn step(&self, state: u32, token: u32) -> Option<u32> {
        if self.vocabulary.ends().contains(&token) {
            return self.done.filter(|_| self.is_end(state));
        }
        let bytes = self.vocabulary.bytes(token);
        if Some(state) == self.done || bytes.is_empty() {
            return None;
        }
        let to = self.dfa.walk(state, bytes);
        (to != DEAD && self.least[to as usize] != NEVER).then_some(to)
    }
}

impl fmt::Debug for Automaton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Automaton")
            .field("states", &self.states())
            .field("classes", &self.classes)
            .field("labels", &self.labels.len())
            .field("edges", &self.edges.len())
            .finish_non_exhaustive()
    }
}

fn within(found: usize, limit: usize, what: &'static str) -> Result<(), ConstraintError> {
    match found > limit {
        true => Err(ConstraintError::TooLarge { what, limit }),
        false => Ok(()),
    }
}

/// Words in classes, which are split as states tell words apart.
struct Classes {
    class_of: Vec<u32>,
    sizes: Vec<u32>,
    /// Of each class the group that one of its words went to last: words come in runs.
    last: Vec<(u32, u32)>,
    groups: HashMap<(u32, u32), u32>,
    /// Of each group its class, how many words it has, and the class that it becomes.
    counts: Vec<(u32, u32, u32)>,
    group_of: Vec<u32>,
    is_taken: Vec<bool>,
}

impl Classes {
    fn new(words: usize) -> Self {
        Self {
            class_of: vec![0; words],
            sizes: vec![words as u32],
            last: vec![(DEAD, 0)],
            groups: HashMap::new(),
            counts: Vec::new(),
            group_of: Vec::new(),
            is_taken: vec![false; words],
        }
    }

    /// Splits classes by where a state leads to, which takes the words of `survivors` and no others.
    fn refine(&mut self, survivors: &[(u32, u32)]) {
        self.groups.clear();
        self.counts.clear();
        self.group_of.clear();
        self.last.iter_mut().for_each(|last| *last = (DEAD, 0));
        for &(word, to) in survivors {
            self.is_taken[word as usize] = true;
            let class = self.class_of[word as usize];
            let last = &mut self.last[class as usize];
            if last.0 != to {
                let group = *self.groups.entry((class, to)).or_insert_with(|| {
                    self.counts.push((class, 0, 0));
                    self.counts.len() as u32 - 1
                });
                *last = (to, group);
            }
            self.counts[last.1 as usize].1 += 1;
            self.group_of.push(last.1);
        }
        for (class, count, becomes) in &mut self.counts {
            let size = &mut self.sizes[*class as usize];
            *becomes = *class;
            if count != size {
                *size -= *count;
                *becomes = self.sizes.len() as u32;
                self.sizes.push(*count);
                self.last.push((DEAD, 0));
            }
        }
        for (&(word, _), &group) in survivors.iter().zip(&self.group_of) {
            self.class_of[word as usize] = self.counts[group as usize].2;
        }
    }

    /// The class of each word, numbered in the order of their first words; how many there are, without that
    /// of words that no state takes, which is their number; and the first word of each.
    fn numbered(&self) -> (Vec<u16>, usize, Vec<u32>) {
        let mut numbers = HashMap::new();
        let mut representatives = Vec::new();
        for (word, class) in self.class_of.iter().enumerate().filter(|&(w, _)| self.is_taken[w]) {
            numbers.entry(*class).or_insert_with(|| {
                representatives.push(word as u32);
                representatives.len() as u16 - 1
            });
        }
        let count = representatives.len();
        let number =
            self.class_of.iter().map(|class| *numbers.get(class).unwrap_or(&(count as u16)));
        (number.collect(), count, representatives)
    }
}
