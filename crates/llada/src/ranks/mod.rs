//! Many processes that train one model: which of them this is, and how they exchange numbers.
//!
//! A [`Collective`] moves bytes between ranks; sums are made here, in an order that depends on the
//! number of ranks alone, so that every way of moving bytes gives the same bits. [`Alone`] is a world
//! of one, [`Threads`] has a thread for each rank, and `Mpi` (of the feature `mpi`) a process.
//! [`Launched`] tells what a launcher has started.

mod agree;
mod error;
mod launched;
#[cfg(feature = "mpi")]
mod mpi;
mod shares;
mod threads;
mod tree;

use std::fmt;

pub use error::RankError;
pub use launched::Launched;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use shares::Shares;
pub use threads::Threads;
pub(crate) use tree::add;
pub use tree::{Node, Stack, cover};

use crate::Result;

/// Bytes of the numbers on their way to and from all ranks at a time.
const PIECE: usize = 16 << 20;

/// The ranks of a world, seen from one of them. Every method but the first two is called by all ranks,
/// in the same order and with the same sizes; a rank that does not call keeps the others waiting.
pub trait Collective: fmt::Debug + Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Ranks.
    fn world(&self) -> usize;

    /// Sends rank i the bytes of part i of `sent`, whose parts have `sizes.0` bytes, and receives in
    /// part i of `received`, whose parts have `sizes.1`, what rank i has sent.
    fn exchange(&self, sent: &[u8], received: &mut [u8], sizes: (&[usize], &[usize]))
    -> Result<()>;

    /// Receives in part i of `received`, whose parts have `sizes` bytes, what rank i has for `own`.
    fn gather(&self, own: &[u8], received: &mut [u8], sizes: &[usize]) -> Result<()>;

    /// Waits for all ranks.
    fn barrier(&self) -> Result<()> {
        self.gather_bytes(&[]).map(drop)
    }

    /// What each rank has for `own`, of any lengths.
    fn gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let world = self.world();
        let mut lengths = vec![0u64; world];
        let length = (own.len() as u64).to_ne_bytes();
        self.gather(&length, bytemuck::cast_slice_mut(&mut lengths), &vec![8; world])?;
        let sizes: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
        let mut received = vec![0; sizes.iter().sum()];
        self.gather(own, &mut received, &sizes)?;
        let mut rest = &received[..];
        Ok(sizes
            .iter()
            .map(|&size| {
                let (part, others) = rest.split_at(size);
                rest = others;
                part.to_vec()
            })
            .collect())
    }

    /// Gives all ranks the `bytes` of the rank `from`.
    fn broadcast(&self, from: usize, bytes: &mut Vec<u8>) -> Result<()> {
        if self.world() == 1 {
            return Ok(());
        }
        let own = if self.rank() == from { &bytes[..] } else { &[] };
        let mut all = self.gather_bytes(own)?;
        *bytes = all.swap_remove(from);
        Ok(())
    }

    /// Gives all ranks the numbers that each has in its share of `values`.
    fn all_gather(&self, values: &mut [f32], shares: &Shares) -> Result<()> {
        if self.world() == 1 {
            return Ok(());
        }
        let size = (PIECE / 4 / self.world()).max(1);
        let mut received = Vec::new();
        for offset in (0..shares.longest()).step_by(size) {
            let parts = shares.pieces(offset, size);
            received.resize(parts.iter().map(|part| part.len()).sum(), 0.0f32);
            let sizes: Vec<usize> = parts.iter().map(|part| 4 * part.len()).collect();
            let own = bytemuck::cast_slice(&values[parts[self.rank()].clone()]);
            self.gather(own, bytemuck::cast_slice_mut(&mut received), &sizes)?;
            let mut rest = &received[..];
            for part in parts {
                let (piece, others) = rest.split_at(part.len());
                values[part].copy_from_slice(piece);
                rest = others;
            }
        }
        Ok(())
    }

    /// Puts into this rank's share of `values` the sums over all ranks; the rest is left as it was.
    fn reduce_scatter(&self, values: &mut [f32], shares: &Shares) -> Result<()> {
        let nodes: Vec<Vec<Node>> = (0..self.world()).map(|rank| vec![Node::leaf(rank)]).collect();
        self.reduce_scatter_tree(self.world(), &nodes, &mut [values], shares)
    }

    /// Puts into this rank's share of `values[0]` the sums of all `leaves` of a tree. Rank i has the
    /// sums of `nodes[i]`, one at least, and `values` has those of this rank.
    fn reduce_scatter_tree(
        &self,
        leaves: usize,
        nodes: &[Vec<Node>],
        values: &mut [&mut [f32]],
        shares: &Shares,
    ) -> Result<()> {
        let all: usize = nodes.iter().map(Vec::len).sum();
        if all < 2 {
            return Ok(());
        }
        let size = (PIECE / 4 / all).max(1);
        let (mut sent, mut received) = (Vec::<f32>::new(), Vec::<f32>::new());
        for offset in (0..shares.longest()).step_by(size) {
            let parts = shares.pieces(offset, size);
            sent.clear();
            for part in &parts {
                values.iter().for_each(|values| sent.extend_from_slice(&values[part.clone()]));
            }
            let own = parts[self.rank()].clone();
            received.resize(own.len() * all, 0.0);
            let to: Vec<usize> = parts.iter().map(|p| 4 * p.len() * values.len()).collect();
            let from: Vec<usize> = nodes.iter().map(|nodes| 4 * own.len() * nodes.len()).collect();
            let bytes = bytemuck::cast_slice_mut(&mut received);
            self.exchange(bytemuck::cast_slice(&sent), bytes, (&to, &from))?;
            let sum = tree::sum(leaves, nodes.iter().flatten(), own.len(), &mut received);
            if let Some(first) = values.first_mut() {
                first[own].copy_from_slice(sum);
            }
        }
        Ok(())
    }

    /// Puts into `values` the sums over all ranks.
    fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let shares = Shares::even(values.len(), self.world());
        self.reduce_scatter(values, &shares)?;
        self.all_gather(values, &shares)
    }
}

/// A world of one rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn exchange(
        &self,
        sent: &[u8],
        received: &mut [u8],
        _sizes: (&[usize], &[usize]),
    ) -> Result<()> {
        received.copy_from_slice(sent);
        Ok(())
    }

    fn gather(&self, own: &[u8], received: &mut [u8], _sizes: &[usize]) -> Result<()> {
        received.copy_from_slice(own);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
