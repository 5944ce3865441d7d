//! Keys and values cached between forward passes, so that a pass feeds only what is new.
//!
//! A causal model never has to see a token twice: those after a position never change its keys. Of
//! a diffusion model every commit changes all of them; caching them is then the approximation of
//! Fast-dLLM (arXiv 2505.22618), whose prefix cache feeds the positions from the open block on, and
//! whose dual cache feeds the open block alone.

use llada_kernels::attention::{Cache, CachedSequence, Shape, Storage};

use super::{Batch, ModelError};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig},
};

/// Names a sequence whose keys and values a predictor caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub(crate) u64);

/// Which keys and values of an earlier sequence another that begins with the same tokens takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reuse {
    /// Those that it would compute itself, to the last bit: with bidirectional attention, none.
    #[default]
    Exact,
    /// With bidirectional attention, those of the same tokens although other tokens followed them: an
    /// approximation, by which its logits depend on what was fed before.
    Approximate,
}

/// The keys, after RoPE, and the values of one sequence in every block of the model, by position.
#[derive(Debug)]
pub struct KvCache {
    blocks: Vec<Cache>,
    capacity: usize,
    /// `false` where a position is padding; one flag for each position held.
    attention_mask: Vec<bool>,
    /// The tokens at the positions held.
    tokens: Vec<u32>,
    /// Positions from the first on that attended to no token beyond them, so that any sequence which
    /// begins with the same tokens has the same keys and values there; or which may be taken for that.
    reusable: usize,
    reuse: Reuse,
    attention: AttentionMask,
}

impl KvCache {
    /// Room for sequences of up to `capacity` tokens; it holds none yet.
    ///
    /// # Errors
    /// If the model is not made for sequences that long.
    pub fn new(config: &ModelConfig, capacity: usize) -> Result<Self> {
        Self::with_storage(config, capacity, Storage::F32)
    }

    /// As [`KvCache::new`], with the numbers stored as `storage` says.
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
        let (attention_mask, tokens) = (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
        let attention = config.attention;
        Ok(Self {
            blocks,
            capacity,
            attention_mask,
            tokens,
            reusable: 0,
            reuse: Reuse::Exact,
            attention,
        })
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
        self.attention_mask.len()
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.attention_mask.is_empty()
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The same for a sequence that takes over from others, and leaves to them, what `reuse` says.
    pub(super) fn with_reuse(self, reuse: Reuse) -> Self {
        Self { reuse, ..self }
    }

    /// Whether what it leaves to others is what they would compute.
    pub(super) fn is_exact(&self) -> bool {
        self.attention != AttentionMask::Bidirectional
    }

    /// Forgets the positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.attention_mask.truncate(len);
        self.tokens.truncate(len);
        self.reusable = self.self_contained(self.reusable.min(len));
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Bytes of the keys and values: about 2 · layers · kv_dim · capacity · 4, or half of it in bf16.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(Cache::bytes).sum()
    }

    /// How many of the first `len` positions attend to no token beyond them: whole blocks where
    /// attention is causal between blocks, none where it is bidirectional, unless an approximation will
    /// do.
    fn self_contained(&self, len: usize) -> usize {
        match self.attention {
            AttentionMask::Causal => len,
            AttentionMask::BlockCausal { block_length } => len - len % block_length.max(1),
            AttentionMask::Bidirectional if self.reuse == Reuse::Approximate => len,
            AttentionMask::Bidirectional => 0,
        }
    }

    /// Takes note of `tokens` at the positions from `first` on, whose keys and values the blocks are
    /// about to write. `positions` are those that RoPE turns them by.
    pub(super) fn extend(
        &mut self,
        first: usize,
        tokens: &[u32],
        positions: &[u32],
        attention_mask: Option<&[bool]>,
    ) {
        let end = first + tokens.len();
        let most = end.max(self.attention_mask.len());
        self.attention_mask.resize(most, true);
        self.tokens.resize(most, 0);
        self.tokens[first..end].copy_from_slice(tokens);
        match attention_mask {
            Some(mask) => self.attention_mask[first..end].copy_from_slice(mask),
            None => self.attention_mask[first..end].fill(true),
        }
        // In a sequence with padding or gaps nothing that follows them is where it would be without.
        let is_plain = attention_mask.is_none_or(|mask| !mask.contains(&false))
            && (first..end).eq(positions.iter().map(|&position| position as usize));
        let before = self.self_contained(self.reusable.min(first));
        // What was held of an open block did not see all of what follows.
        self.reusable = if is_plain && before == first { self.self_contained(end) } else { before };
    }

    /// Takes the keys and values for those of no other sequence.
    pub(super) fn distrust(&mut self) {
        self.reusable = 0;
    }

    /// How many of the first positions have the keys and values of any sequence that begins with
    /// `tokens`.
    pub(super) fn shared(&self, tokens: &[u32]) -> usize {
        let pairs = self.reusable().iter().zip(tokens);
        self.self_contained(pairs.take_while(|(held, token)| held == token).count())
    }

    /// The tokens of the positions whose keys and values another sequence may take over.
    pub(super) fn reusable(&self) -> &[u32] {
        &self.tokens[..self.reusable]
    }

    /// Takes over the first `count` positions of another cache of the model, which it
    /// [shares](Self::shared) with what begins here, as far as there is room; nothing if they are
    /// stored as another type. Gives how many it took.
    pub(super) fn begin_as(&mut self, from: &Self, count: usize) -> usize {
        let count = self.self_contained(count.min(self.capacity));
        let mut pairs = self.blocks.iter_mut().zip(&from.blocks);
        if !pairs.all(|(into, from)| into.copy_prefix(from, count).is_ok()) {
            return 0;
        }
        self.clear();
        self.attention_mask.resize(count, true);
        self.tokens.extend_from_slice(&from.tokens[..count]);
        self.reusable = count;
        count
    }

    /// What attention needs of block `block` for these tokens.
    pub(super) fn view(&mut self, block: usize, first: usize, tokens: usize) -> CachedSequence<'_> {
        let (len, mask) = (self.attention_mask.len(), self.attention_mask.as_slice());
        let attention_mask = mask.contains(&false).then_some(mask);
        CachedSequence { tokens, first, len, attention_mask, cache: &mut self.blocks[block] }
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

/// Checks that the tokens of each sequence fit what its cache holds.
pub(super) fn check(batch: &Batch<'_>, pasts: &[Past], config: &ModelConfig) -> Result<()> {
    for (range, Past { first, cache, .. }) in batch.ranges().zip(pasts) {
        let (first, len, capacity) = (*first, cache.len(), cache.capacity);
        let (found, limit) = (first.saturating_add(range.len()), config.max_sequence_length);
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

#[cfg(test)]
mod tests;
