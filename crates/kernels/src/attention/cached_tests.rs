//! Attention with kept keys and values: the same bits as without, whatever comes in one call.
#![allow(clippy::unwrap_used)]

use std::slice;

use half::bf16;

use super::*;
use crate::{
    reference,
    testing::{assert_close, cpus, noise, wide},
};

const SHAPES: [Shape; 3] = [
    Shape { heads: 2, kv_heads: 2, head_dim: 16 },
    Shape { heads: 6, kv_heads: 2, head_dim: 5 },
    Shape { heads: 3, kv_heads: 1, head_dim: 33 },
];
const MASKS: [Mask; 3] = [Mask::Bidirectional, Mask::Causal, Mask::BlockCausal(7)];

/// The outputs of some tokens and the log-sum-exps of their scores.
type Outputs = (Vec<f32>, Vec<f32>);

/// One sequence: its queries, keys and values at all positions.
struct Whole {
    shape: Shape,
    len: usize,
    attention_mask: Option<Vec<bool>>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Whole {
    fn new(shape: Shape, len: usize, padded: bool, seed: u64) -> Self {
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        Self {
            shape,
            len,
            attention_mask: padded.then(|| (0..len).map(|i| i >= len / 3).collect()),
            q: noise(seed, len * queries).iter().map(|x| 3.0 * x).collect(),
            k: noise(seed + 1, len * keys).iter().map(|x| 3.0 * x).collect(),
            v: noise(seed + 2, len * keys),
        }
    }

    /// The outputs and log-sum-exps of all positions in one call without a cache.
    fn forward(&self, cpu: &Cpu, mask: Mask) -> Outputs {
        let mut out = vec![f32::NAN; self.q.len()];
        let mut lse = vec![f32::NAN; self.len * self.shape.heads];
        let sequences =
            Sequences { starts: &[0, self.len], attention_mask: self.attention_mask.as_deref() };
        let (q, k, v) = (&self.q, &self.k, &self.v);
        forward(cpu, Inputs { shape: self.shape, mask, q, k, v }, sequences, &mut out, &mut lse)
            .unwrap();
        (out, lse)
    }

    /// The elements of `x` at the positions `range`.
    fn cut<'a>(&self, x: &'a [f32], range: &std::ops::Range<usize>) -> &'a [f32] {
        let width = x.len() / self.len;
        &x[range.start * width..range.end * width]
    }

    /// A cache that holds garbage.
    fn cache(&self, spare: usize) -> Cache {
        self.cache_of(spare, Storage::F32)
    }

    fn cache_of(&self, spare: usize, storage: Storage) -> Cache {
        let mut cache = Cache::new(self.shape, self.len + spare, storage).unwrap();
        match cache.packed_mut() {
            cache::PackedMut::F32(packed) => packed.fill(f32::NAN),
            cache::PackedMut::Bf16(packed) => packed.fill(bf16::NAN),
        }
        cache
    }
}

/// One call with the positions `ranges[i]` of `sequences[i]`, in sequences that then have `lens[i]` positions.
fn feed(
    cpu: &Cpu,
    mask: Mask,
    sequences: &[Whole],
    caches: &mut [Cache],
    ranges: &[std::ops::Range<usize>],
    lens: &[usize],
) -> Outputs {
    let gather = |of: fn(&Whole) -> &[f32]| -> Vec<f32> {
        sequences
            .iter()
            .zip(ranges)
            .flat_map(|(sequence, range)| sequence.cut(of(sequence), range).to_vec())
            .collect()
    };
    let (q, k, v) = (gather(|r| &r.q), gather(|r| &r.k), gather(|r| &r.v));
    let shape = sequences[0].shape;
    let mut out = vec![f32::NAN; q.len()];
    let mut lse = vec![f32::NAN; q.len() / shape.head_dim];
    let mut cached: Vec<CachedSequence<'_>> = (0..sequences.len())
        .zip(caches)
        .map(|(i, cache)| CachedSequence {
            tokens: ranges[i].len(),
            first: ranges[i].start,
            len: lens[i],
            attention_mask: sequences[i].attention_mask.as_ref().map(|mask| &mask[..lens[i]]),
            cache,
        })
        .collect();
    forward_cached(
        cpu,
        Inputs { shape, mask, q: &q, k: &k, v: &v },
        &mut cached,
        &mut out,
        &mut lse,
    )
    .unwrap();
    (out, lse)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_causal_row_has_the_same_bits_however_it_is_fed() {
    const LEN: usize = 300;
    for cpu in cpus() {
        for (shape, padded, storage) in [
            (SHAPES[0], false, Storage::F32),
            (SHAPES[1], true, Storage::F32),
            (SHAPES[2], false, Storage::Bf16),
        ] {
            let sequences = [Whole::new(shape, LEN, padded, 1)];
            let (out, lse) = match storage {
                Storage::F32 => sequences[0].forward(&cpu, Mask::Causal),
                Storage::Bf16 => {
                    let mut caches = [sequences[0].cache_of(30, storage)];
                    feed(
                        &cpu,
                        Mask::Causal,
                        &sequences,
                        &mut caches,
                        std::slice::from_ref(&(0..LEN)),
                        &[LEN],
                    )
                }
            };
            // Single tokens at the edges of tiles, and pieces of odd sizes over them.
            let cuts = [0, 1, 2, 63, 64, 65, 66, 126, 127, 128, 129, 192, 193, 255, 256, 257, LEN];
            let mut caches = [sequences[0].cache_of(11, storage)];
            for cut in cuts.windows(2) {
                let range = cut[0]..cut[1];
                let part = std::slice::from_ref(&range);
                let found = feed(&cpu, Mask::Causal, &sequences, &mut caches, part, &[cut[1]]);
                assert!(
                    bits(&found.0) == bits(sequences[0].cut(&out, &range)),
                    "{cpu:?} {range:?}"
                );
                assert!(
                    bits(&found.1) == bits(sequences[0].cut(&lse, &range)),
                    "{cpu:?} {range:?}"
                );
            }
        }
    }
}

#[test]
fn any_range_of_an_unchanged_row_has_the_bits_of_the_whole() {
    for cpu in cpus() {
        for mask in MASKS {
            for (shape, padded) in [(SHAPES[0], true), (SHAPES[1], false)] {
                let sequences: Vec<Whole> = [(150, 1), (1, 4), (129, 7), (40, 10)]
                    .map(|(len, seed)| Whole::new(shape, len, padded, seed))
                    .into();
                let lens = [150, 1, 129, 40];
                let mut caches: Vec<Cache> =
                    sequences.iter().map(|sequence| sequence.cache(0)).collect();
                let all: Vec<_> = lens.iter().map(|&len| 0..len).collect();
                let (out, lse) = feed(&cpu, mask, &sequences, &mut caches, &all, &lens);
                let whole: Vec<_> =
                    sequences.iter().map(|sequence| sequence.forward(&cpu, mask)).collect();
                let flat = |x: fn(&Outputs) -> &[f32]| -> Vec<u32> {
                    whole.iter().flat_map(|sequence| bits(x(sequence))).collect()
                };
                assert!(bits(&out) == flat(|x| &x.0) && bits(&lse) == flat(|x| &x.1));

                // Suffixes, inner blocks, single tokens and nothing, all in one batch.
                for ranges in [
                    [70..150, 0..1, 60..61, 5..5],
                    [31..99, 1..1, 127..129, 39..40],
                    [149..150, 0..1, 0..129, 8..16],
                ] {
                    let (out, _) = feed(&cpu, mask, &sequences, &mut caches, &ranges, &lens);
                    let expected: Vec<u32> = (0..sequences.len())
                        .flat_map(|i| bits(sequences[i].cut(&whole[i].0, &ranges[i])))
                        .collect();
                    assert!(bits(&out) == expected, "{cpu:?} {mask:?} {ranges:?}");
                }
            }
        }
    }
}

#[test]
fn stale_keys_and_values_are_those_of_the_reference() {
    for cpu in cpus() {
        for (shape, padded) in [(SHAPES[1], true), (SHAPES[2], false)] {
            for mask in MASKS {
                // The cache is of other tokens; only a block in the middle is fed anew.
                let (old, len) = (Whole::new(shape, 140, padded, 1), 140);
                let mut caches = [old.cache(3)];
                let new = Whole::new(shape, len, padded, 20);
                let all = 0..len;
                feed(&cpu, mask, &[old], &mut caches, std::slice::from_ref(&all), &[len]);
                let range = 50..83;
                let (out, lse) =
                    feed(&cpu, mask, &[new], &mut caches, std::slice::from_ref(&range), &[len]);

                let (old, new) =
                    (Whole::new(shape, len, padded, 1), Whole::new(shape, len, padded, 20));
                let mixed = |old_x: &[f32], new_x: &[f32]| {
                    let width = old_x.len() / len;
                    let mut mixed = wide(old_x);
                    let part = range.start * width..range.end * width;
                    mixed[part].copy_from_slice(&wide(new.cut(new_x, &range)));
                    mixed
                };
                let sequence = reference::attention::Sequence {
                    tokens: range.len(),
                    first: range.start,
                    len,
                    attention_mask: new.attention_mask.as_deref(),
                };
                let q = wide(new.cut(&new.q, &range));
                let (k, v) = (mixed(&old.k, &new.k), mixed(&old.v, &new.v));
                let expected =
                    reference::attention::forward_sequences(shape, mask, &[sequence], &q, &k, &v);
                let what = format!("{cpu:?} {mask:?}");
                assert_close(&what, &out, &expected.0, 1e-5);
                assert_close(&what, &lse, &expected.1, 1e-5);
            }
        }
    }
}

/// A cache in bf16 is exact on what it holds, and what it holds is off by 2⁻⁹ at most: a score by 2⁻⁹ of
/// the sum of its terms' magnitudes, δ, and so an output by e^(2δ) − 1 + 2⁻⁹ of the greatest value.
#[test]
fn a_cache_in_bf16_is_off_by_what_rounding_costs() {
    const LEN: usize = 270;
    for cpu in cpus() {
        for ((shape, padded), mask) in
            [(SHAPES[1], true), (SHAPES[2], false)].into_iter().zip(MASKS)
        {
            let sequences = [Whole::new(shape, LEN, padded, 3)];
            let (q, k, v) = (&sequences[0].q, &sequences[0].k, &sequences[0].v);
            let mut caches = [sequences[0].cache_of(7, Storage::Bf16)];
            let (found, _) =
                feed(&cpu, mask, &sequences, &mut caches, std::slice::from_ref(&(0..LEN)), &[LEN]);

            let reference = |k: &[f32], v: &[f32]| {
                let starts = Sequences {
                    starts: &[0, LEN],
                    attention_mask: sequences[0].attention_mask.as_deref(),
                };
                reference::attention::forward(shape, mask, starts, &wide(q), &wide(k), &wide(v)).0
            };
            let rounded =
                |x: &[f32]| -> Vec<f32> { x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect() };
            assert_close("bf16", &found, &reference(&rounded(k), &rounded(v)), 1e-5);

            let greatest = |x: &[f32]| f64::from(x.iter().fold(0.0f32, |a, x| a.max(x.abs())));
            let terms = shape.head_dim as f64 * greatest(q) * greatest(k);
            let delta = terms / (shape.head_dim as f64).sqrt() / 512.0;
            let bound = ((2.0 * delta).exp_m1() + 1.0 / 512.0) * greatest(v) + 1e-5;
            let exact = reference(k, v);
            let errors = found.iter().zip(&exact).map(|(f, e)| (f64::from(*f) - e).abs());
            let worst = errors.fold(0.0, f64::max);
            assert!(worst < bound && worst > 1e-5, "{worst} of {bound}");
        }
    }
}

#[test]
fn nan_stays_with_the_tokens_that_see_it() {
    for cpu in cpus() {
        let mut sequence = Whole::new(SHAPES[0], 10, false, 1);
        let width = sequence.k.len() / 10;
        sequence.k[4 * width..][..width].fill(f32::NAN);
        let (sequences, mut caches) = ([sequence], [Whole::new(SHAPES[0], 10, false, 1).cache(0)]);
        for (range, clean) in [(0..4, true), (4..5, false), (5..10, false)] {
            let part = std::slice::from_ref(&range);
            let (out, _) = feed(&cpu, Mask::Causal, &sequences, &mut caches, part, &[range.end]);
            assert_eq!(out.iter().all(|x| x.is_finite()), clean, "{range:?}");
            assert_eq!(out.iter().any(|x| x.is_nan()), !clean, "{range:?}");
        }
    }
}

#[test]
fn refuses_rows_that_do_not_fit_their_cache() {
    let (cpu, shape) = (Cpu::new(1).unwrap(), SHAPES[0]);
    let attempt = |cache_shape, (tokens, first, len), attention_mask: Option<&[bool]>| {
        let mut cache = Cache::new(cache_shape, 5, Storage::F32).unwrap();
        let mut sequences =
            [CachedSequence { tokens, first, len, attention_mask, cache: &mut cache }];
        let (q, mut out, mut lse) = (vec![0.0; 2 * 32], vec![0.0; 2 * 32], vec![0.0; 4]);
        forward_cached(
            &cpu,
            Inputs { shape, mask: Mask::Causal, q: &q, k: &q, v: &q },
            &mut sequences,
            &mut out,
            &mut lse,
        )
    };
    assert!(attempt(shape, (2, 3, 5), Some(&[true; 5])).is_ok());
    for (tokens, first, len) in [(2, 3, 4), (2, 4, 6), (1, 0, 5), (2, usize::MAX, 5)] {
        assert!(attempt(shape, (tokens, first, len), None).is_err(), "{tokens} {first} {len}");
    }
    assert!(attempt(shape, (2, 3, 5), Some(&[true; 4])).is_err());
    let other = Shape { head_dim: 8, ..shape };
    assert!(attempt(other, (2, 3, 5), None).unwrap_err().to_string().contains("8"));
    let mut cache = Cache::new(shape, 4, Storage::F32).unwrap();
    let mut pair =
        [CachedSequence { tokens: 2, first: 0, len: 2, attention_mask: None, cache: &mut cache }];
    let (q, mut out, mut lse) = (vec![0.0; 2 * 32], vec![0.0; 2 * 32], vec![0.0; 4]);
    let inputs = Inputs { shape, mask: Mask::BlockDiffusion(1), q: &q, k: &q, v: &q };
    assert!(forward_cached(&cpu, inputs, &mut pair, &mut out, &mut lse).is_err());
    assert!(Cache::new(shape, usize::MAX / 8, Storage::Bf16).is_err());
    assert!(Cache::new(shape, 0, Storage::F32).is_ok());
}

#[test]
fn a_cache_says_its_size() {
    let shape = Shape { heads: 4, kv_heads: 2, head_dim: 64 };
    for (storage, bytes) in [(Storage::F32, 4), (Storage::Bf16, 2)] {
        let cache = Cache::new(shape, 256, storage).unwrap();
        assert_eq!(cache.capacity(), 256);
        assert_eq!(cache.bytes() - 64, 256 * 2 * 2 * 64 * bytes);
    }
}

#[test]
fn a_row_goes_on_from_the_copied_beginning_of_another() {
    const LEN: usize = 300;
    let cpu = &Cpu::new(2).unwrap();
    for (shape, storage) in
        SHAPES.into_iter().flat_map(|shape| [(shape, Storage::F32), (shape, Storage::Bf16)])
    {
        let sequences = [Whole::new(shape, LEN, false, 3)];
        let mut whole = [sequences[0].cache_of(5, storage)];
        feed(cpu, Mask::Causal, &sequences, &mut whole, slice::from_ref(&(0..LEN)), &[LEN]);
        for count in [0, 1, 15, 16, 127, 128, 129, 256, 299] {
            let rest = count..LEN;
            let expected =
                feed(cpu, Mask::Causal, &sequences, &mut whole, slice::from_ref(&rest), &[LEN]);
            for capacity in [LEN, LEN + 1, 512, 1000] {
                let mut copy = [sequences[0].cache_of(capacity - LEN, storage)];
                copy[0].copy_prefix(&whole[0], count).unwrap();
                let found =
                    feed(cpu, Mask::Causal, &sequences, &mut copy, slice::from_ref(&rest), &[LEN]);
                assert_eq!(bits(&found.0), bits(&expected.0), "{count} of {capacity}");
            }
        }
    }
}

#[test]
fn what_cannot_be_copied_is_refused() {
    let cache = |shape, capacity, storage| Cache::new(shape, capacity, storage).unwrap();
    let from = cache(SHAPES[0], 20, Storage::F32);
    for (mut into, count) in [
        (cache(SHAPES[1], 20, Storage::F32), 1),
        (cache(SHAPES[0], 20, Storage::Bf16), 1),
        (cache(SHAPES[0], 20, Storage::F32), 21),
        (cache(SHAPES[0], 10, Storage::F32), 11),
        (cache(SHAPES[0], 20, Storage::F32), usize::MAX),
    ] {
        assert!(into.copy_prefix(&from, count).is_err(), "{count}");
    }
    cache(SHAPES[0], 10, Storage::F32).copy_prefix(&from, 10).unwrap();
}
