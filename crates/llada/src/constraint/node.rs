//! A regular language over bytes as a tree, which shares what a JSON text repeats.

use std::rc::Rc;

/// A regular language.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// These bytes.
    Bytes(Vec<u8>),
    /// One character of these ranges.
    Class(Vec<(char, char)>),
    /// One after the other.
    Seq(Vec<Node>),
    /// Any of them; without any, nothing is accepted.
    Or(Vec<Node>),
    /// From the first number on, to the second.
    Repeat(Rc<Node>, u32, Option<u32>),
    /// Once or more, with this text between.
    List(Rc<Node>, &'static str),
    /// Elements of a JSON array, without its brackets.
    Items {
        /// The first elements.
        prefix: Vec<Node>,
        /// Those after; `None` where there is none.
        item: Option<Rc<Node>>,
        /// The fewest.
        min: u32,
        /// The most.
        max: Option<u32>,
    },
    /// Members of a JSON object in their order, without its braces; whether each must be there.
    Fields(Vec<(Node, bool)>),
    /// What all of them accept.
    All(Vec<Node>),
}

impl Node {
    /// The empty text.
    pub(super) fn empty() -> Self {
        Self::Bytes(Vec::new())
    }

    /// This text.
    pub(super) fn text(text: &str) -> Self {
        Self::Bytes(text.into())
    }

    /// `self`, `min` times or more, up to `max`.
    pub(super) fn times(self, min: u32, max: Option<u32>) -> Self {
        Self::Repeat(Rc::new(self), min, max)
    }

    /// `self` or nothing.
    pub(super) fn optional(self) -> Self {
        self.times(0, Some(1))
    }

    /// `self` between two texts.
    pub(super) fn between(self, before: &str, after: &str) -> Self {
        Self::Seq(vec![Self::text(before), self, Self::text(after)])
    }

    /// One character of a range.
    pub(super) fn range(first: char, last: char) -> Self {
        Self::Class(vec![(first, last)])
    }

    /// What all `nodes` accept, of which there is at least one.
    pub(super) fn all(mut nodes: Vec<Self>) -> Self {
        match (nodes.len(), nodes.pop()) {
            (1, Some(node)) => node,
            (_, last) => Self::All(nodes.into_iter().chain(last).collect()),
        }
    }
}
