//! Attention against its reference, and its promises about bits and NaN.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Isa, reference, simd};

/// A batch and the gradient of its output.
struct Case {
    shape: Shape,
    mask: Mask,
    starts: Vec<usize>,
    attention_mask: Option<Vec<bool>>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

/// The results of both passes: `[out, lse, dq, dk, dv]`.
type Results = [Vec<f32>; 5];

const NAMES: [&str; 5] = ["out", "lse", "dq", "dk", "dv"];

impl Case {
    /// Sequences of these lengths; where `padded`, some keys of each and all of every third sequence are padding.
    fn new(shape: Shape, mask: Mask, lens: &[usize], padded: bool) -> Self {
        let mut starts = vec![0];
        starts.extend(lens.iter().scan(0, |end, len| {
            *end += len;
            Some(*end)
        }));
        let attention_mask = padded.then(|| {
            let flags = |(sequence, &len): (usize, &usize)| {
                (0..len).map(move |i| sequence % 3 != 1 && i * 7 % 5 != 0 && i > len / 3)
            };
            lens.iter().enumerate().flat_map(flags).collect()
        });
        let tokens = starts[lens.len()];
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        Self {
            shape,
            mask,
            starts,
            attention_mask,
            q: noise(1, tokens * queries, 3.0),
            k: noise(2, tokens * keys, 3.0),
            v: noise(3, tokens * keys, 1.0),
            dout: noise(4, tokens * queries, 1.0),
        }
    }

    fn sequences(&self) -> Sequences<'_> {
        Sequences { starts: &self.starts, attention_mask: self.attention_mask.as_deref() }
    }

    fn run(&self, cpu: &Cpu) -> Results {
        let Self { shape, mask, q, k, v, dout, .. } = self;
        // What the buffers hold before must not matter.
        let garbage = |like: &[f32]| vec![f32::NAN; like.len()];
        let mut out = garbage(q);
        let mut lse = vec![f32::NAN; q.len() / shape.head_dim];
        forward(
            cpu,
            Inputs { shape: *shape, mask: *mask, q, k, v },
            self.sequences(),
            &mut out,
            &mut lse,
        )
        .unwrap();
        let (mut dq, mut dk, mut dv) = (garbage(q), garbage(k), garbage(v));
        let sequences = self.sequences();
        backward(
            cpu,
            Inputs { shape: *shape, mask: *mask, q, k, v },
            sequences,
            Saved { out: &out, lse: &lse },
            dout,
            Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv },
        )
        .unwrap();
        [out, lse, dq, dk, dv]
    }

    fn reference(&self) -> [Vec<f64>; 5] {
        let (q, k, v, dout) = (wide(&self.q), wide(&self.k), wide(&self.v), wide(&self.dout));
        let sequences = self.sequences();
        let (out, lse) =
            reference::attention::forward(self.shape, self.mask, sequences, &q, &k, &v);
        let (dq, dk, dv) =
            reference::attention::backward(self.shape, self.mask, sequences, &q, &k, &v, &dout);
        [out, lse, dq, dk, dv]
    }

    /// The same batch cut down to one sequence.
    fn sequence(&self, sequence: usize) -> Self {
        let (from, to) = (self.starts[sequence], self.starts[sequence + 1]);
        let tokens = self.starts[self.starts.len() - 1];
        let cut = |x: &[f32]| x[from * (x.len() / tokens)..to * (x.len() / tokens)].to_vec();
        Self {
            starts: vec![0, to - from],
            attention_mask: self.attention_mask.as_ref().map(|mask| mask[from..to].to_vec()),
            q: cut(&self.q),
            k: cut(&self.k),
            v: cut(&self.v),
            dout: cut(&self.dout),
            ..*self
        }
    }
}

/// Numbers spread over `-size..size`.
fn noise(seed: u64, n: usize, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * size).collect()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// One processor for each instruction set of this machine.
fn cpus() -> Vec<Cpu> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter(|&isa| isa <= Isa::detect())
        .map(|isa| Cpu::with_isa(isa, 2).unwrap())
        .collect()
}

const SHAPES: [Shape; 4] = [
    Shape { heads: 2, kv_heads: 2, head_dim: 32 },
    Shape { heads: 4, kv_heads: 2, head_dim: 7 },
    Shape { heads: 3, kv_heads: 1, head_dim: 64 },
    Shape { heads: 1, kv_heads: 1, head_dim: 1 },
];

const MASKS: [Mask; 5] = [
    Mask::Bidirectional,
    Mask::Causal,
    Mask::BlockCausal(1),
    Mask::BlockCausal(32),
    Mask::BlockCausal(50),
];

/// Lengths around the tiles, 1 and 0 among them.
const LENS: [usize; 8] = [5, 1, 0, 17, 64, 1, 65, 150];

/// The same of noisy and clean halves together: halves of odd lengths, around tiles, in whole blocks and not.
const PAIRS: [usize; 8] = [10, 2, 0, 34, 64, 128, 130, 298];

#[test]
fn agrees_with_the_reference() {
    for shape in SHAPES {
        for mask in MASKS {
            agrees(shape, mask, &LENS);
        }
        for block in [1, 3, 4, 16, 32, 50, 100, 149, 1000] {
            agrees(shape, Mask::BlockDiffusion(block), &PAIRS);
        }
    }
}

fn agrees(shape: Shape, mask: Mask, lens: &[usize]) {
    for padded in [false, true] {
        let case = Case::new(shape, mask, lens, padded);
        let expected = case.reference();
        for cpu in cpus() {
            let what = format!("{} {shape:?} {mask:?} {padded}", cpu.isa());
            assert_close(&what, &case.run(&cpu), &expected);
        }
    }
}

#[test]
fn of_the_noisy_and_the_clean_each_sees_its_own() {
    let seen = |block, i: usize, len: usize| -> Vec<usize> {
        Mask::BlockDiffusion(block).visible(i, len).into_iter().flatten().collect()
    };
    // Blocks of 2 in halves of 5: noisy 0 1 | 2 3 | 4, clean 5 6 | 7 8 | 9.
    assert_eq!(seen(2, 1, 10), [0, 1]);
    assert_eq!(seen(2, 2, 10), [2, 3, 5, 6]);
    assert_eq!(seen(2, 4, 10), [4, 5, 6, 7, 8]);
    assert_eq!(seen(2, 5, 10), [5, 6]);
    assert_eq!(seen(2, 9, 10), [5, 6, 7, 8, 9]);
    assert_eq!(seen(usize::MAX, 3, 10), [0, 1, 2, 3, 4]);
    assert_eq!(seen(usize::MAX, 7, 10), [5, 6, 7, 8, 9]);
}

#[test]
fn pieces_hold_each_key_once() {
    for len in [2, 10, 64, 250, 600] {
        for block in [1, 7, 16, 100, 999] {
            let mask = Mask::BlockDiffusion(block);
            for first in (0..len).step_by(64) {
                let ranges = mask.visible_to(first..len.min(first + 64), len);
                let mut held = Vec::new();
                for (number, piece) in pieces(ranges.clone(), 128) {
                    assert!(piece.start % LINE == 0 && piece.start / 128 == (piece.end - 1) / 128);
                    let own = within(&ranges[number], &piece);
                    held.extend(piece.start + own.start..piece.start + own.end);
                }
                assert!(held.iter().copied().eq(ranges.into_iter().flatten()), "{len} {block}");
            }
        }
    }
}

/// Asserts errors below 1e-5, relative to what is above 1: values are of the order of 1, and are
/// sums of up to 150 terms.
fn assert_close(what: &str, found: &Results, expected: &[Vec<f64>; 5]) {
    for ((found, expected), name) in found.iter().zip(expected).zip(NAMES) {
        for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(f) - e).abs() / e.abs().max(1.0);
            assert!(error < 1e-5, "{what}: {name}[{i}] is {f}, expected {e}");
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_batch_or_the_threads() {
    for isa in cpus().iter().map(Cpu::isa) {
        let masks = [
            (Mask::Bidirectional, LENS),
            (Mask::Causal, LENS),
            (Mask::BlockCausal(32), LENS),
            (Mask::BlockDiffusion(5), PAIRS),
        ];
        for (mask, lens) in masks {
            for padded in [false, true] {
                let case = Case::new(SHAPES[1], mask, &lens, padded);
                let run = |case: &Case, threads| {
                    case.run(&Cpu::with_isa(isa, threads).unwrap()).map(|x| bits(&x))
                };
                let whole = run(&case, 1);
                assert!(whole == run(&case, 2) && whole == run(&case, 3), "{isa} {mask:?}");
                for sequence in 0..LENS.len() {
                    let alone = run(&case.sequence(sequence), 1);
                    for (alone, whole) in alone.iter().zip(&whole) {
                        let width = whole.len() / case.starts[LENS.len()];
                        let part = case.starts[sequence] * width..case.starts[sequence + 1] * width;
                        assert!(alone[..] == whole[part], "{isa} {mask:?} sequence {sequence}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_query_that_sees_only_padding_averages() {
    let shape = Shape { heads: 1, kv_heads: 1, head_dim: 2 };
    for cpu in cpus() {
        let mut case = Case::new(shape, Mask::Causal, &[3], false);
        case.attention_mask = Some(vec![false; 3]);
        case.v = vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0];
        let [out, lse, dq, dk, _] = case.run(&cpu);
        for (found, expected) in out.iter().zip([1.0, 2.0, 2.0, 3.0, 3.0, 5.0]) {
            assert!((found - expected).abs() < 1e-6, "{out:?}");
        }
        assert_eq!(lse, [f32::MIN; 3]);
        assert!(dq.iter().chain(&dk).all(|&x| x == 0.0));
    }
}

#[test]
fn padding_after_many_tiles_leaves_no_trace() {
    for cpu in cpus() {
        // A sequence with 300 tokens of padding on its left is the sequence alone.
        let mut case = Case::new(SHAPES[0], Mask::Bidirectional, &[340], false);
        case.attention_mask = Some((0..340).map(|i| i >= 300).collect());
        let expected = Case::new(SHAPES[0], Mask::Bidirectional, &[300, 40], false);
        let found = case.run(&cpu);
        for (name, (found, expected)) in NAMES.iter().zip(found.iter().zip(expected.run(&cpu))) {
            let width = found.len() / 340;
            if *name == "dk" || *name == "dv" {
                continue;
            }
            for (f, e) in found[300 * width..].iter().zip(&expected[300 * width..]) {
                assert!((f - e).abs() < 1e-5, "{name}: {f}, expected {e}");
            }
        }
    }
}

#[test]
fn nan_reaches_the_outputs_of_its_row_and_no_other() {
    let shape = Shape { heads: 2, kv_heads: 1, head_dim: 5 };
    for cpu in cpus() {
        for which in 0..3 {
            let mut case = Case::new(shape, Mask::Bidirectional, &[7, 140], false);
            let input = [&mut case.q, &mut case.k, &mut case.v];
            let at = input[which].len() - 3;
            input[which][at] = f32::NAN;
            let [out, ..] = case.run(&cpu);
            let (clean, dirty) = out.split_at(7 * 10);
            assert!(clean.iter().all(|x| x.is_finite()));
            match which {
                0 => assert!(dirty[dirty.len() - 5..].iter().all(|x| x.is_nan())),
                1 => assert!(dirty.iter().all(|x| x.is_nan())),
                _ => assert!(dirty.chunks(5).all(|head| head[2].is_nan())),
            }
        }
    }
}

#[test]
fn great_scores_stay_finite() {
    for cpu in cpus() {
        let mut case = Case::new(SHAPES[0], Mask::Bidirectional, &[150], false);
        case.q.iter_mut().for_each(|x| *x *= 1e4);
        assert!(case.run(&cpu).iter().flatten().all(|x| x.is_finite()));
    }
}

#[test]
fn exponentials() {
    struct Exp<'a>(&'a [f32], &'a mut [f32]);
    impl simd::Kernel for Exp<'_> {
        #[inline(always)]
        fn call<S: simd::Simd>(self, s: S) {
            for (x, y) in self.0.chunks_exact(S::LANES).zip(self.1.chunks_exact_mut(S::LANES)) {
                s.store(s.exp(s.load(x)), y);
            }
        }
    }
    let mut x: Vec<f32> = (0..160_000).map(|i| i as f32 * -5.45e-4).collect();
    x.extend([f32::NAN, f32::NEG_INFINITY, f32::MIN, -87.4, 0.0, -0.0, -1e-30, -1e9]);
    x.extend([-1.0; 8]);
    for cpu in cpus() {
        let mut y = vec![0.0; x.len()];
        simd::run(cpu.isa(), Exp(&x, &mut y));
        for (x, y) in x[..160_000].iter().zip(&y) {
            let expected = f64::from(*x).exp();
            assert!((f64::from(*y) / expected - 1.0).abs() < 2e-7, "exp({x}) is {y}");
        }
        assert!(y[160_000].is_nan());
        assert_eq!(y[160_001..160_008], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let cpu = Cpu::new(1).unwrap();
    let shape = Shape { heads: 2, kv_heads: 1, head_dim: 2 };
    let attempt = |shape, mask, starts: &[usize], attention_mask: Option<&[bool]>, k: usize| {
        let (q, k) = (vec![0.0; 12], vec![0.0; k]);
        let (mut out, mut lse) = (vec![0.0; 12], vec![0.0; 6]);
        let sequences = Sequences { starts, attention_mask };
        forward(&cpu, Inputs { shape, mask, q: &q, k: &k, v: &k }, sequences, &mut out, &mut lse)
    };
    let all = Mask::Bidirectional;
    assert!(attempt(shape, all, &[0, 3], None, 6).is_ok());
    assert!(attempt(shape, all, &[0, 3], None, 5).is_err());
    assert!(attempt(shape, all, &[0, usize::MAX], None, 6).is_err());
    assert!(attempt(shape, all, &[0, 3, 2, 3], None, 6).is_err());
    assert!(attempt(shape, all, &[1, 3], None, 6).is_err());
    assert!(attempt(shape, all, &[], None, 6).is_err());
    assert!(attempt(shape, all, &[0, 3], Some(&[true]), 6).is_err());
    assert!(attempt(shape, Mask::BlockCausal(0), &[0, 3], None, 6).is_err());
    assert!(attempt(shape, Mask::BlockDiffusion(2), &[0, 2, 3], None, 6).is_err());
    assert!(attempt(shape, Mask::BlockDiffusion(0), &[0, 2], None, 4).is_err());
    assert!(attempt(Shape { kv_heads: 0, ..shape }, all, &[0, 3], None, 6).is_err());
    assert!(attempt(Shape { heads: 3, kv_heads: 2, ..shape }, all, &[0, 3], None, 6).is_err());
}
