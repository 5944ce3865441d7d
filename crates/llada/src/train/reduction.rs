//! A step on several ranks: which part of its batch each does, and how their gradients become one.

use std::ops::Range;

use llada_kernels::{Cpu, grad_norm};

use super::Recipe;
use crate::{
    Result,
    model::Arena,
    ranks::{Collective, Node, RankError, Shares, Stack, add, cover},
};

/// The sum of the gradients of a step over its micro-batches, wherever they are computed.
#[derive(Debug)]
pub(super) struct Reduction {
    /// Which rank owns which of the trained numbers: whole chunks of the gradient's norm.
    shares: Shares,
    rank: usize,
    world: usize,
    /// Sequences of a micro-batch.
    micro: usize,
    tree: Option<Tree>,
}

/// Gradients that are summed by a fixed tree, whose leaves are the micro-batches of all ranks.
#[derive(Debug)]
struct Tree {
    leaves: usize,
    /// The sums that each rank comes to.
    nodes: Vec<Vec<Node>>,
    stack: Stack,
    /// The sums of this rank so far, and memory for the next ones.
    sums: Vec<Vec<f32>>,
    spare: Vec<Vec<f32>>,
    /// The leaves of this rank, and how many it has added.
    own: Range<usize>,
    pushed: usize,
}

impl Reduction {
    /// For a run of `recipe` that trains numbers which lie as `parameters`.
    ///
    /// # Errors
    /// When a rank would have nothing to do.
    pub(super) fn new(
        recipe: &Recipe,
        parameters: impl IntoIterator<Item = usize>,
        rank: usize,
        world: usize,
    ) -> Result<Self> {
        let (batch, micro) = (recipe.train.batch_size, recipe.micro_batch());
        let leaves = batch.div_ceil(micro);
        let (parts, what) = match recipe.train.tree_reduction {
            true => (leaves, "micro-batches"),
            false => (batch, "sequences"),
        };
        if parts < world {
            return Err(RankError::TooMany { parts, what, world }.into());
        }
        let own = |rank: usize| Shares::even(parts, world).of(rank);
        let tree = recipe.train.tree_reduction.then(|| Tree {
            leaves,
            nodes: (0..world).map(|rank| cover(leaves, own(rank))).collect(),
            stack: Stack::new(leaves),
            sums: Vec::new(),
            spare: Vec::new(),
            own: own(rank),
            pushed: 0,
        });
        Ok(Self { shares: shares(parameters, world), rank, world, micro, tree })
    }

    /// The sequences of each micro-batch of this rank, of so many that a step has; with a tree these are
    /// the recipe's batch.
    pub(super) fn micro_batches(&self, sequences: usize) -> Vec<Range<usize>> {
        let micro = self.micro;
        let own = match &self.tree {
            Some(tree) => tree.own.start * micro..sequences.min(tree.own.end * micro),
            None => Shares::even(sequences, self.world).of(self.rank),
        };
        own.clone().step_by(micro).map(|start| start..own.end.min(start + micro)).collect()
    }

    /// Which rank owns which of the trained numbers.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The numbers that this rank owns.
    pub(super) fn share(&self) -> Range<usize> {
        self.shares.of(self.rank)
    }

    /// Whether the gradients of each micro-batch are summed by a tree, and not as they are computed.
    pub(super) fn is_tree(&self) -> bool {
        self.tree.is_some()
    }

    /// Before the first micro-batch of a step.
    pub(super) fn begin(&mut self) {
        let Some(tree) = &mut self.tree else { return };
        tree.pushed = 0;
        tree.stack = Stack::new(tree.leaves);
        tree.spare.append(&mut tree.sums);
    }

    /// Adds the gradients of the next micro-batch to the tree.
    pub(super) fn push(&mut self, gradients: &Arena) {
        let Some(tree) = &mut self.tree else { return };
        let mut sum = tree.spare.pop().unwrap_or_default();
        sum.clear();
        sum.extend_from_slice(gradients.values());
        tree.sums.push(sum);
        for _ in 0..tree.stack.push(Node::leaf(tree.own.start + tree.pushed)) {
            if let (Some(last), Some(before)) = (tree.sums.pop(), tree.sums.last_mut()) {
                add(before, &last);
                tree.spare.push(last);
            }
        }
        tree.pushed += 1;
    }

    /// Puts the sums over all ranks into this rank's share of `gradients`, and gives the norm of all
    /// of them.
    pub(super) fn reduce(
        &mut self,
        ranks: &dyn Collective,
        cpu: &Cpu,
        gradients: &mut Arena,
    ) -> Result<f64> {
        let share = self.share();
        match &mut self.tree {
            None => ranks.reduce_scatter(gradients.values_mut(), &self.shares)?,
            Some(tree) => {
                let mut sums: Vec<&mut [f32]> =
                    tree.sums.iter_mut().map(Vec::as_mut_slice).collect();
                ranks.reduce_scatter_tree(tree.leaves, &tree.nodes, &mut sums, &self.shares)?;
                if let Some(sum) = sums.first() {
                    gradients.values_mut()[share.clone()].copy_from_slice(&sum[share.clone()]);
                }
            }
        }
        let own: Vec<&[f32]> = (0..gradients.len())
            .map(|parameter| gradients.range(parameter))
            .map(|range| range.start.clamp(share.start, share.end)..range.end.min(share.end))
            .filter(|range| range.start < range.end)
            .map(|range| &gradients.values()[range])
            .collect();
        let squares = grad_norm::squares(cpu, &own);
        let all = ranks.gather_bytes(bytemuck::cast_slice(&squares))?;
        let all = all.iter().flat_map(|bytes| bytes.chunks_exact(8));
        let sum: f64 = all.map(bytemuck::pod_read_unaligned::<f64>).sum();
        Ok(sum.sqrt())
    }
}

/// The shares of the ranks in trained numbers that lie as `parameters`.
pub(super) fn shares(parameters: impl IntoIterator<Item = usize>, world: usize) -> Shares {
    let chunks = parameters.into_iter().flat_map(|len| {
        let starts = (0..len).step_by(grad_norm::CHUNK);
        starts.map(move |start| grad_norm::CHUNK.min(len - start))
    });
    Shares::of_units(chunks, world)
}

/// What the micro-batches of a step come to, besides their gradients.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Tally {
    /// Whether the step was left before they were done.
    pub(super) is_stopped: bool,
    /// The bits of each one's share of the loss, and of the balance of experts: text would round them.
    losses: Vec<u64>,
    balances: Vec<u64>,
    /// Positions that were predicted.
    pub(super) predicted: usize,
    /// Tokens that each expert got.
    pub(super) expert_tokens: Vec<u64>,
}

impl Tally {
    /// Adds a micro-batch.
    pub(super) fn add(&mut self, loss: f64, balance: f64, predicted: usize) {
        self.losses.push(loss.to_bits());
        self.balances.push(balance.to_bits());
        self.predicted += predicted;
    }

    /// Adds the tokens of the experts of a layer.
    pub(super) fn add_experts(&mut self, counts: &[u64]) {
        let longest = self.expert_tokens.len().max(counts.len());
        self.expert_tokens.resize(longest, 0);
        self.expert_tokens.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
    }

    /// The tally of all ranks' micro-batches, in order, if all have succeeded.
    pub(super) fn together(ranks: &dyn Collective, own: Result<Self>) -> Result<Self> {
        let own = ranks.agree(own)?;
        if ranks.world() == 1 {
            return Ok(own);
        }
        let mut all = Self::default();
        for tally in ranks.gather_all(&own)? {
            all.is_stopped |= tally.is_stopped;
            all.losses.extend(tally.losses);
            all.balances.extend(tally.balances);
            all.predicted += tally.predicted;
            all.add_experts(&tally.expert_tokens);
        }
        Ok(all)
    }

    /// The loss of the batch.
    pub(super) fn loss(&self) -> f64 {
        sum(&self.losses)
    }

    /// The load-balancing loss of the batch, in models with experts.
    pub(super) fn balance(&self) -> Option<f64> {
        (!self.expert_tokens.is_empty()).then(|| sum(&self.balances))
    }
}

fn sum(bits: &[u64]) -> f64 {
    bits.iter().map(|&bits| f64::from_bits(bits)).fold(0.0, |sum, x| sum + x)
}
