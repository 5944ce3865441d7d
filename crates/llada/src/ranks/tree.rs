//! A sum whose bits do not depend on who has which of the summands: they are the leaves of a binary
//! tree, and what is added to what depends on their number alone.

use std::ops::Range;

/// A node of the tree: the sum of the leaves from `index << level` to the next node of its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    level: u32,
    index: usize,
}

impl Node {
    /// The leaf of this number.
    pub fn leaf(index: usize) -> Self {
        Self { level: 0, index }
    }
}

/// The sums so far, when nodes come in the order of their leaves.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    leaves: usize,
    nodes: Vec<Node>,
}

impl Stack {
    /// No sums yet, of a tree with so many leaves.
    pub fn new(leaves: usize) -> Self {
        Self { leaves, nodes: Vec::new() }
    }

    /// The nodes whose sums there are.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds a node at the end, and says how often the last sum is then to be added to the one before
    /// it, which takes the place of both.
    #[must_use]
    pub fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        let mut additions = 0;
        loop {
            let Some(&last) = self.nodes.last() else { return additions };
            let before = self.nodes.len().checked_sub(2).map(|before| self.nodes[before]);
            let is_left = last.index.is_multiple_of(2);
            let parent = Node { level: last.level + 1, index: last.index / 2 };
            if is_left && (last.index + 1) << last.level >= self.leaves && last.index > 0 {
                // It has no sibling.
                self.replace(1, parent);
            } else if !is_left && before == Some(Node { index: last.index - 1, ..last }) {
                self.replace(2, parent);
                additions += 1;
            } else {
                return additions;
            }
        }
    }

    fn replace(&mut self, last: usize, node: Node) {
        self.nodes.truncate(self.nodes.len() - last);
        self.nodes.push(node);
    }
}

/// The nodes whose sums are there once the leaves of `range` have been added, of a tree with so many.
pub fn cover(leaves: usize, range: Range<usize>) -> Vec<Node> {
    let mut stack = Stack::new(leaves);
    for leaf in range {
        let _ = stack.push(Node::leaf(leaf));
    }
    stack.nodes
}

/// The sum of all leaves of a tree, from the sums of `nodes`, in the order of their leaves, each of
/// `len` numbers in `values`.
pub(super) fn sum<'a>(
    leaves: usize,
    nodes: impl Iterator<Item = &'a Node>,
    len: usize,
    values: &mut [f32],
) -> &[f32] {
    let (mut stack, mut places) = (Stack::new(leaves), Vec::new());
    for (place, node) in nodes.enumerate() {
        places.push(place);
        for _ in 0..stack.push(*node) {
            let last = places.pop().unwrap_or(0);
            let before = places.last().copied().unwrap_or(0);
            let (sums, rest) = values.split_at_mut(last * len);
            add(&mut sums[before * len..][..len], &rest[..len]);
        }
    }
    &values[..len]
}

/// Adds `other` to `sum`, number by number.
pub(crate) fn add(sum: &mut [f32], other: &[f32]) {
    sum.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
}
