//! Keys and values kept between forward passes, so that a pass feeds only what is new.
//!
//! A causal model never has to see a token twice: those before a position never change its keys. Of
//! a diffusion model every commit changes all of them; keeping them is then the approximation of
//! Fast-dLLM (arXiv 2505.22618), whose prefix cache feeds the positions from the open block on, and
//! whose dual cache feeds the open block alone.

use llada_kernels::attention::{Cache, CachedRow, Shape, Storage};

use super::{Batch, ModelError, SequenceId};
use crate::{Result, config::ModelConfig};

/// The keys, after RoPE, and the values of one row in every block of the model, by position.
#[derive(Debug)]
pub struct KvCache {
    blocks: Vec<Cache>,
    capacity: usize,
    /// `false` where a position is padding; one flag for each position held.
    keep: Vec<bool>,
}

impl KvCache {
    /// Room for rows of up to `capacity` tokens; it holds none yet.
    ///
    /// # Errors
    /// If the model is not made for rows that long.
    pub fn new(config: &ModelConfig, capacity: usize) -> Result<Self> {
        Self::with_storage(config, capacity, Storage::F32)
    }

    /// As [`KvCache::new`], keeping the numbers as `storage` says.
    ///
    /// # Errors
    /// As [`KvCache::new`].
    pub fn with_storage(config: &ModelConfig, capacity: usize, storage: Storage) -> Result<Self> {
        let limit = config.max_sequence_length;
        if capacity > limit {
            return Err(ModelError::TooLong { found: capacity, limit }.into());
        }
        let block = |_| Cache::new(shape(config), capacity, storage);
        let blocks = (0..config.n_layers).map(block).collect::<std::result::Result<_, _>>()?;
        Ok(Self { blocks, capacity, keep: Vec::with_capacity(capacity) })
    }

    /// Bytes that such a cache has.
    ///
    /// # Errors
    /// As [`KvCache::new`].
    pub fn needed(config: &ModelConfig, capacity: usize, storage: Storage) -> Result<usize> {
        // One block is enough to know.
        let one = ModelConfig { n_layers: 1, ..config.clone() };
        Ok(Self::with_storage(&one, capacity, storage)?.bytes() * config.n_layers)
    }

    /// Positions held: `0..len`.
    pub fn len(&self) -> usize {
        self.keep.len()
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty()
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.keep.truncate(len);
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.keep.clear();
    }

    /// Bytes of the keys and values: about 2 · layers · kv_dim · capacity · 4, or half of it in bf16.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Cache::bytes).sum()
    }

    /// Takes note of `tokens` tokens at the positions from `first` on, whose keys and values the
    /// blocks are about to write.
    pub(super) fn extend(&mut self, first: usize, tokens: usize, keep: Option<&[bool]>) {
        let end = first + tokens;
        self.keep.resize(end.max(self.keep.len()), true);
        match keep {
            Some(keep) => self.keep[first..end].copy_from_slice(keep),
            None => self.keep[first..end].fill(true),
        }
    }

    /// What attention needs of block `block` for these tokens.
    pub(super) fn row(&mut self, block: usize, first: usize, tokens: usize) -> CachedRow<'_> {
        let (len, padded) = (self.keep.len(), self.keep.contains(&false));
        let keep = padded.then_some(self.keep.as_slice());
        CachedRow { tokens, first, len, keep, cache: &mut self.blocks[block] }
    }
}

/// Where the tokens of a batch's sequence belong, if they are not the whole sequence.
#[derive(Debug)]
pub(super) struct Past {
    /// The name of the sequence.
    pub(super) id: Option<SequenceId>,
    /// The position of the first of them.
    pub(super) first: usize,
    /// Tokens of the sequence that take part.
    pub(super) len: usize,
    /// The rest of the sequence.
    pub(super) cache: KvCache,
}

/// Checks that the tokens of each row fit what its cache holds.
pub(super) fn check(batch: &Batch<'_>, pasts: &[Past], config: &ModelConfig) -> Result<()> {
    for (row, Past { first, cache, .. }) in batch.starts.windows(2).zip(pasts) {
        let (first, len, capacity) = (*first, cache.len(), cache.capacity);
        let (found, limit) = (first.saturating_add(row[1] - row[0]), config.max_sequence_length);
        if first > len {
            return Err(ModelError::Gap { first, len }.into());
        } else if found > limit {
            return Err(ModelError::TooLong { found, limit }.into());
        } else if found > capacity {
            return Err(ModelError::CacheFull { found, capacity }.into());
        }
    }
    Ok(())
}

/// The heads of an attention layer.
pub(super) fn shape(config: &ModelConfig) -> Shape {
    Shape { heads: config.n_heads, kv_heads: config.n_kv_heads, head_dim: config.head_dim }
}
