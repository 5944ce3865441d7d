//! Soft-max attention of ragged sequences, forward and backward.
//!
//! A batch is tokens cut into sequences; a token attends to the keys of its own sequence, as
//! far as the [`Mask`] goes. Scores are computed tile by tile and never kept: the forward pass
//! carries the running maximum and sum of each query from one tile of keys to the next (Dao et al.,
//! "FlashAttention", 2022, Algorithm 1) and leaves only their logarithm, from which the backward
//! pass recomputes the probabilities (Algorithm 4).
//!
//! Keys and values may outlive a call: with a [`Cache`] for each sequence, [`forward_cached`] takes only
//! the tokens that are new and lets them attend to those before.
//!
//! The bits of a token depend on nothing but its query, the keys that it sees, the shape and the
//! instruction set: not on the sequences around it, nor on how many of its sequence come in one call.

mod backward;
mod cache;
#[cfg(test)]
mod cached_tests;
mod forward;
mod matmul;
mod scratch;
#[cfg(test)]
mod tests;

use std::ops::Range;

use cache::Layout;
pub use cache::{Cache, Storage};
use scratch::{Element, Head, LINE};

use crate::{Cpu, KernelError, Result, error::check};

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, which divide `heads`: query head `j` uses number
    /// `j / (heads / kv_heads)` (grouped-query attention).
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Which keys of its sequence a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    Bidirectional,
    /// Its own and those before it.
    Causal,
    /// Those of its own block of this many tokens, and of the blocks before it. Blocks count from
    /// the start of the sequence.
    BlockCausal(usize),
    /// The sequence is [x_t ; x_0] of block diffusion: a noisy half and a clean one, as long as each
    /// other, each in blocks of this many tokens. A noisy token sees its own block and the clean
    /// blocks before it; clean ones attend to each other as in [`Mask::BlockCausal`].
    BlockDiffusion(usize),
}

impl Mask {
    /// The keys that query `i` of a sequence of `len` tokens sees, at least one: those in two ranges,
    /// either of which may be empty.
    #[inline]
    pub(crate) fn visible(self, i: usize, len: usize) -> [Range<usize>; 2] {
        let after = |i: usize, block: usize| (i / block + 1).saturating_mul(block);
        let first = |end: usize| [0..end, end..end];
        match self {
            Self::Bidirectional => first(len),
            Self::Causal => first(i + 1),
            Self::BlockCausal(block) => first(after(i, block).min(len)),
            Self::BlockDiffusion(block) => {
                let half = len / 2;
                match i.checked_sub(half) {
                    None => {
                        let begin = i / block * block;
                        [begin..after(i, block).min(half), half..half + begin]
                    }
                    Some(i) => [half..half, half..half + after(i, block).min(half)],
                }
            }
        }
    }

    /// Two ranges that hold those of all `queries`, each range that of the same number.
    fn visible_to(self, queries: Range<usize>, len: usize) -> [Range<usize>; 2] {
        if !matches!(self, Self::BlockDiffusion(_)) {
            // A query sees what those before it see.
            return self.visible(queries.end.saturating_sub(1), len);
        }
        let each = queries.map(|i| self.visible(i, len));
        let both = each.reduce(|a, b| [hull(&a[0], &b[0]), hull(&a[1], &b[1])]);
        both.unwrap_or([0..0, 0..0])
    }
}

/// The smallest range that holds both.
fn hull(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

/// Cuts `ranges` of keys where tiles of `tile` keys end; each piece begins with a whole cache line, at or
/// before its range. With each comes the number of its range.
fn pieces(ranges: [Range<usize>; 2], tile: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    ranges.into_iter().enumerate().flat_map(move |(number, range)| {
        let begin = if range.is_empty() { range.end } else { range.start / LINE * LINE };
        let starts = std::iter::once(begin)
            .chain((begin / tile + 1..range.end.div_ceil(tile)).map(move |n| n * tile));
        let piece = move |start: usize| start..range.end.min((start / tile + 1) * tile);
        starts.map(piece).filter(|piece| !piece.is_empty()).map(move |piece| (number, piece))
    })
}

/// What of `range` lies in `piece`, counted from its beginning.
#[inline]
fn within(range: &Range<usize>, piece: &Range<usize>) -> Range<usize> {
    let place = |i: usize| i.clamp(piece.start, piece.end) - piece.start;
    place(range.start)..place(range.end)
}

/// How the tokens are cut into sequences.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// Sequence `r` is tokens `starts[r]..starts[r + 1]`: one offset more than there are sequences, from 0 to
    /// the number of tokens, never decreasing. Sequences may be empty.
    pub starts: &'a [usize],
    /// One flag for each token; keys where it is `false` are padding.
    ///
    /// As in the reference model, `f32::MIN` is added to their scores rather than negative infinity,
    /// so that a query which sees nothing but padding stays finite: it averages all the values that
    /// the [`Mask`] lets it see, and gives no gradient to queries and keys, which `f32::MIN` absorbs.
    pub attention_mask: Option<&'a [bool]>,
}

/// What attention reads, forward and backward.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The heads.
    pub shape: Shape,
    /// The keys that a query sees.
    pub mask: Mask,
    /// Queries `[tokens, heads * head_dim]`.
    pub q: &'a [f32],
    /// Keys `[tokens, kv_heads * head_dim]`.
    pub k: &'a [f32],
    /// Values, shaped as the keys.
    pub v: &'a [f32],
}

/// What [`forward`] gave and [`backward`] reads.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The outputs `[tokens, heads * head_dim]`.
    pub out: &'a [f32],
    /// The logarithm of the sum of the exponentials of each query's scores `[tokens, heads]`.
    pub lse: &'a [f32],
}

/// The gradients of [`Inputs`], each shaped as what it is the gradient of.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the queries.
    pub dq: &'a mut [f32],
    /// Of the keys.
    pub dk: &'a mut [f32],
    /// Of the values.
    pub dv: &'a mut [f32],
}

/// `out = softmax(q k^T / sqrt(head_dim) + padding) v` for each sequence and head.
///
/// `out` is shaped as the queries. `lse` is `[tokens, heads]` and receives the logarithm of the sum of the exponentials of each
/// query's scores, for [`backward`]; it is `f32::MIN` where a query sees nothing but padding. NaN
/// anywhere in a sequence reaches its outputs.
///
/// # Errors
/// [`KernelError::Length`] for a buffer that does not fit the shape, [`KernelError::Argument`] for
/// a shape, mask or sequences that make no sense.
pub fn forward(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: Sequences<'_>,
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<()> {
    const OP: &str = "attention::forward";
    let Inputs { shape, mask, q, k, v } = inputs;
    let sizes = Sizes::new(OP, shape, mask, sequences)?;
    let queries = [("q", q.len()), ("out", out.len())];
    sizes.check(OP, &queries, &[("k", k.len()), ("v", v.len())], lse.len())?;
    if !out.is_empty() {
        forward::run(cpu, inputs, sequences, out, lse);
    }
    Ok(())
}

/// Some tokens of a sequence, and what is kept of the others.
#[derive(Debug)]
pub struct CachedSequence<'a> {
    /// How many tokens of this sequence are given; they are at the positions from `first` on.
    pub tokens: usize,
    /// The position of the first.
    pub first: usize,
    /// The tokens attend to the positions `0..len`, as far as the [`Mask`] goes. Their own are among
    /// these; the others hold what earlier calls have written.
    pub len: usize,
    /// One flag for each of these positions; those where it is `false` are padding, as in [`Sequences`].
    pub attention_mask: Option<&'a [bool]>,
    /// Keys and values by position; those of the tokens are written over what is there.
    pub cache: &'a mut Cache,
}

/// As [`forward`] for tokens that go on where earlier calls ended: first writes their keys and
/// values to the caches of their sequences, then attends to all that the caches hold.
///
/// The tokens of all sequences lie one after the other in the inputs, `out` and `lse`, which are shaped as
/// in [`forward`]. A token that sees the same keys gets the same bits, whether its sequence comes in
/// one call or in many.
///
/// # Errors
/// [`KernelError::Length`] for a buffer that does not fit the shape, [`KernelError::Argument`] for
/// a shape, mask or sequences that make no sense, or a cache that was made for others.
pub fn forward_cached(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: &mut [CachedSequence<'_>],
    out: &mut [f32],
    lse: &mut [f32],
) -> Result<()> {
    const OP: &str = "attention::forward_cached";
    let Inputs { shape, mask, q, k, v } = inputs;
    if let Mask::BlockDiffusion(_) = mask {
        let what = "a cache has no clean copies of noisy tokens".into();
        return Err(KernelError::Argument { op: OP, what });
    }
    let mut total = 0usize;
    for sequence in &*sequences {
        let CachedSequence { tokens, first, len, .. } = *sequence;
        total = total.saturating_add(tokens);
        let Layout { kv_heads, head_dim, capacity } = sequence.cache.layout;
        if !sequence.cache.fits(shape) {
            let what = format!(
                "a cache for {kv_heads} key heads of {head_dim}, the shape has {} of {}",
                shape.kv_heads, shape.head_dim
            );
            return Err(KernelError::Argument { op: OP, what });
        }
        if first.checked_add(tokens).is_none_or(|end| end > len) || len > capacity {
            let what = format!(
                "{tokens} tokens from position {first} on, in a sequence of {len} and a cache of \
                 {capacity}"
            );
            return Err(KernelError::Argument { op: OP, what });
        }
        if let Some(attention_mask) = sequence.attention_mask {
            check(OP, "attention_mask", attention_mask.len(), &[len])?;
        }
    }
    let sizes =
        Sizes::new(OP, shape, mask, Sequences { starts: &[0, total], attention_mask: None })?;
    let queries = [("q", q.len()), ("out", out.len())];
    sizes.check(OP, &queries, &[("k", k.len()), ("v", v.len())], lse.len())?;
    if !out.is_empty() {
        forward::run_cached(cpu, inputs, sequences, out, lse);
    }
    Ok(())
}

/// The gradients of [`forward`], written over what `gradients` hold.
///
/// `saved` is what `forward` gave for the same arguments on the same instruction set; `dout`, the
/// gradient of its output, is shaped as that.
///
/// # Errors
/// Those of [`forward`].
pub fn backward(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: Sequences<'_>,
    saved: Saved<'_>,
    dout: &[f32],
    gradients: Gradients<'_>,
) -> Result<()> {
    const OP: &str = "attention::backward";
    let Inputs { shape, mask, q, k, v } = inputs;
    let (Saved { out, lse }, Gradients { dq, dk, dv }) = (saved, &gradients);
    let sizes = Sizes::new(OP, shape, mask, sequences)?;
    let queries = [("q", q.len()), ("out", out.len()), ("dout", dout.len()), ("dq", dq.len())];
    let keys = [("k", k.len()), ("v", v.len()), ("dk", dk.len()), ("dv", dv.len())];
    sizes.check(OP, &queries, &keys, lse.len())?;
    if !out.is_empty() {
        backward::run(cpu, inputs, sequences, saved, dout, gradients);
    }
    Ok(())
}

impl Inputs<'_> {
    /// The factor of the scores.
    fn scale(&self) -> f32 {
        1.0 / (self.shape.head_dim as f32).sqrt()
    }

    /// Packs the keys and values of `count` tokens from `start` on as those of the positions from
    /// `first` on.
    fn pack<E: Element>(
        &self,
        layout: Layout,
        head: usize,
        start: usize,
        (first, count): (usize, usize),
        packed: &mut [E],
    ) {
        if count > 0 {
            let Shape { kv_heads, head_dim, .. } = self.shape;
            let keys = Head::new(self.k, start, kv_heads, head, head_dim);
            let values = Head::new(self.v, start, kv_heads, head, head_dim);
            layout.pack(keys, values, (first, count), packed);
        }
    }

    /// The key head of query head `head`.
    fn key_head(&self, head: usize) -> usize {
        head / (self.shape.heads / self.shape.kv_heads)
    }
}

/// The shapes that the buffers must have.
struct Sizes {
    queries: [usize; 3],
    keys: [usize; 3],
    lse: [usize; 2],
}

impl Sizes {
    fn new(op: &'static str, shape: Shape, mask: Mask, sequences: Sequences<'_>) -> Result<Self> {
        let refuse = |what: String| Err(KernelError::Argument { op, what });
        let Shape { heads, kv_heads, head_dim } = shape;
        if heads == 0 || kv_heads == 0 || head_dim == 0 || heads % kv_heads != 0 {
            return refuse(format!(
                "{heads} heads of {head_dim} with {kv_heads} key heads; all must be above 0 and \
                 the key heads divide the heads"
            ));
        }
        if matches!(mask, Mask::BlockCausal(0) | Mask::BlockDiffusion(0)) {
            return refuse("blocks of 0 tokens; a block has at least 1".into());
        }
        let (Some(&first), Some(&tokens)) = (sequences.starts.first(), sequences.starts.last())
        else {
            return refuse(
                "`starts` is empty; it has one offset more than there are sequences".into(),
            );
        };
        if first != 0 || !sequences.starts.is_sorted() {
            return refuse("`starts` must begin with 0 and never decrease".into());
        }
        let is_odd = |bounds: &[usize]| !(bounds[1] - bounds[0]).is_multiple_of(2);
        if matches!(mask, Mask::BlockDiffusion(_)) && sequences.starts.windows(2).any(is_odd) {
            return refuse("a sequence has no two halves of the same length".into());
        }
        if let Some(attention_mask) = sequences.attention_mask {
            check(op, "attention_mask", attention_mask.len(), &[tokens])?;
        }
        Ok(Self {
            queries: [tokens, heads, head_dim],
            keys: [tokens, kv_heads, head_dim],
            lse: [tokens, heads],
        })
    }

    /// Checks the lengths of the buffers that are shaped as the queries, of those that are shaped as
    /// the keys, and of `lse`.
    fn check(
        &self,
        op: &'static str,
        queries: &[(&'static str, usize)],
        keys: &[(&'static str, usize)],
        lse: usize,
    ) -> Result<()> {
        queries.iter().try_for_each(|&(what, len)| check(op, what, len, &self.queries))?;
        keys.iter().try_for_each(|&(what, len)| check(op, what, len, &self.keys))?;
        check(op, "lse", lse, &self.lse)
    }
}
