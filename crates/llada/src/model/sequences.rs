//! The sequences whose keys and values a predictor caches, and what a forward pass is fed of them.

use std::collections::VecDeque;

use llada_kernels::attention::Storage;

use super::{
    Batch, ModelError,
    cache::{KvCache, Past, Reuse, SequenceId},
};
use crate::{Result, config::ModelConfig, recycle::recycled};

/// What a forward pass is fed: the tokens of a batch, which need not be whole sequences where the keys
/// and values of their other tokens are cached.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    /// The tokens that are fed.
    pub batch: Batch<'a>,
    /// The position of each token, which RoPE turns it by; `None` where those of a sequence follow on
    /// each other from [`CachedSequence::first`] on.
    pub positions: Option<&'a [u32]>,
    /// Which cache each sequence has; empty where none has one.
    pub cached: &'a [CachedSequence],
    /// Whether each sequence is the pair [x_t ; x_0] of block diffusion: a noisy half and a clean one of
    /// the same positions, which no cache has. A noisy token attends to its own block and to the clean
    /// blocks before it, a clean one to its own block and those before; blocks are as long as the
    /// model's.
    pub paired: bool,
}

impl<'a> Feed<'a> {
    /// Whole pairs of a noisy and a clean half.
    pub fn pairs(batch: Batch<'a>) -> Self {
        Self { paired: true, ..batch.into() }
    }
}

/// The cached keys and values that a sequence of a batch goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedSequence {
    /// Its name; `None` for a sequence that is fed whole and not cached.
    pub id: Option<SequenceId>,
    /// The position of the first token that is fed. It may be one that is cached already: what is
    /// cached of the tokens' positions is replaced. In a sequence with gaps, its number among the
    /// tokens that take part.
    pub first: usize,
    /// Tokens of the sequence that take part; what is cached beyond them is forgotten.
    pub len: usize,
}

impl<'a> From<Batch<'a>> for Feed<'a> {
    /// Whole sequences, of which nothing is cached.
    fn from(batch: Batch<'a>) -> Self {
        Self { batch, positions: None, cached: &[], paired: false }
    }
}

impl<'a> From<&Batch<'a>> for Feed<'a> {
    fn from(batch: &Batch<'a>) -> Self {
        (*batch).into()
    }
}

/// A sequence whose keys and values are cached from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its name.
    pub id: SequenceId,
    /// How many of its first tokens are cached already: another sequence began with them.
    pub cached: usize,
}

/// The caches of one predictor.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    open: Vec<(SequenceId, KvCache)>,
    opened: u64,
    /// Those of sequences that were closed, the last one last, and how many there may be.
    closed: VecDeque<KvCache>,
    retained: usize,
    /// For sequences that are not cached and share a pass with some that are.
    spare: Vec<KvCache>,
    pasts: Vec<Past>,
}

impl Sequences {
    pub(super) fn open(
        &mut self,
        config: &ModelConfig,
        capacity: usize,
        storage: Storage,
        reuse: Reuse,
        beginning: &[u32],
    ) -> Result<Opened> {
        let mut cache = KvCache::with_storage(config, capacity, storage)?.with_reuse(reuse);
        // How far an open sequence has come is nothing that an approximation should depend on.
        let open = self.open.iter().map(|(_, cache)| cache).filter(|cache| cache.is_exact());
        let others = open.chain(&self.closed);
        let shared = others.map(|other| (other.shared(beginning), other));
        let cached = match shared.max_by_key(|(shared, _)| *shared) {
            Some((shared, other)) if shared > 0 => cache.begin_as(other, shared),
            _ => 0,
        };
        let id = SequenceId(self.opened);
        self.opened += 1;
        self.open.push((id, cache));
        Ok(Opened { id, cached })
    }

    pub(super) fn close(&mut self, id: SequenceId) {
        let Some(found) = self.open.iter().position(|(open, _)| *open == id) else { return };
        let cache = self.open.swap_remove(found).1;
        if cache.reusable().is_empty() || self.retained == 0 {
            return;
        }
        // An earlier turn of a conversation has nothing that this one lacks.
        self.closed.retain(|other| !cache.reusable().starts_with(other.reusable()));
        self.closed.push_back(cache);
        self.retain(self.retained);
    }

    /// Has the last `count` sequences outlive their closing.
    pub(super) fn retain(&mut self, count: usize) {
        self.retained = count;
        while self.closed.len() > count {
            self.closed.pop_front();
        }
    }

    /// Takes what is cached for that of another model.
    pub(super) fn distrust(&mut self) {
        self.closed.clear();
        self.open.iter_mut().for_each(|(_, cache)| cache.distrust());
    }

    pub(super) fn get(&self, id: SequenceId) -> Option<&KvCache> {
        self.open.iter().find(|(open, _)| *open == id).map(|(_, cache)| cache)
    }

    pub(super) fn get_mut(&mut self, id: SequenceId) -> Option<&mut KvCache> {
        self.open.iter_mut().find(|(open, _)| *open == id).map(|(_, cache)| cache)
    }

    /// Takes out the caches of a pass, in the order of its sequences; nothing where none has one. They
    /// are to be put back whatever the pass gave.
    pub(super) fn take(&mut self, config: &ModelConfig, feed: &Feed<'_>) -> Result<Vec<Past>> {
        if feed.cached.iter().all(|cached| cached.id.is_none()) {
            return Ok(Vec::new());
        }
        let mut pasts = recycled(std::mem::take(&mut self.pasts));
        let result = self.take_into(config, feed, &mut pasts);
        match result {
            Ok(()) => Ok(pasts),
            Err(error) => {
                self.put_back(pasts);
                Err(error)
            }
        }
    }

    fn take_into(
        &mut self,
        config: &ModelConfig,
        feed: &Feed<'_>,
        pasts: &mut Vec<Past>,
    ) -> Result<()> {
        let Feed { batch, cached, .. } = feed;
        if cached.len() != batch.ranges().len() {
            let what = "`cached` must have one entry for each sequence, or none at all";
            return Err(ModelError::Batch(what.into()).into());
        }
        for (&CachedSequence { id, first, len }, range) in cached.iter().zip(batch.ranges()) {
            let cache = match id {
                Some(id) => {
                    let found = self.open.iter().position(|(open, _)| *open == id);
                    self.open.swap_remove(found.ok_or(ModelError::Sequence)?).1
                }
                None => self.spare(config, range.len())?,
            };
            pasts.push(Past { id, first, len, cache });
        }
        Ok(())
    }

    /// An empty cache with room for `tokens`.
    fn spare(&mut self, config: &ModelConfig, tokens: usize) -> Result<KvCache> {
        let fits = |cache: &KvCache| cache.capacity() >= tokens;
        if let Some(found) = self.spare.iter().position(fits) {
            let mut cache = self.spare.swap_remove(found);
            cache.clear();
            return Ok(cache);
        }
        // One that is too small makes room for one that is not.
        self.spare.pop();
        let most = config.max_sequence_length.max(tokens);
        KvCache::new(config, tokens.next_power_of_two().min(most))
    }

    /// Takes the caches of a pass back.
    pub(super) fn put_back(&mut self, mut pasts: Vec<Past>) {
        for Past { id, cache, .. } in pasts.drain(..) {
            match id {
                Some(id) => self.open.push((id, cache)),
                None => self.spare.push(cache),
            }
        }
        self.pasts = pasts;
    }
}

#[cfg(test)]
mod tests;
