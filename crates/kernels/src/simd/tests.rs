//! Every instruction set of this machine, against plain loops.

use std::array::from_fn;

use super::*;
use crate::testing::{cpus, noise};

/// Operations to be tried on vectors of any kind.
trait Trial: Copy {
    fn check<S: Simd>(self, s: S);
}

/// A trial of an instruction set and of its narrow vectors.
#[derive(Clone, Copy)]
struct Both<T>(T);

impl<T: Trial> Kernel for Both<T> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        self.0.check(s);
        self.0.check(s.narrow());
    }
}

/// Tries with VNNI and without.
fn everywhere(trial: impl Trial) {
    for cpu in cpus() {
        run(cpu.isa(), Both(trial));
        run_int8(cpu.isa(), Both(trial));
    }
}

/// The elements of a vector.
#[inline(always)]
fn elements<S: Simd>(s: S, v: S::Floats) -> Vec<f32> {
    let mut all = [0.0; MAX_LANES];
    s.store(v, &mut all);
    all[..S::LANES].to_vec()
}

#[derive(Clone, Copy)]
struct Dot;

impl Trial for Dot {
    #[inline(always)]
    fn check<S: Simd>(self, s: S) {
        for seed in 0..50 {
            let bytes: Vec<i8> = noise(seed, 64).iter().map(|x| (x * 128.0) as i8).collect();
            for most in [64.0, 256.0] {
                let codes: Vec<u8> =
                    noise(seed + 99, 64).iter().map(|x| ((x + 1.0) / 2.0 * most) as u8).collect();
                let words = |bytes: &[u8]| -> Vec<i32> {
                    bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
                };
                let expected: Vec<f32> = (0..S::LANES)
                    .map(|i| {
                        let products = (4 * i..4 * i + 4)
                            .map(|at| i32::from(codes[at]) * i32::from(bytes[at]));
                        (7 + products.sum::<i32>()) as f32
                    })
                    .collect();
                let signed: Vec<u8> = bytes.iter().map(|&byte| byte as u8).collect();
                let (a, b) = (words(&codes), words(&signed));
                // SAFETY: both have the elements of the widest vector.
                let (a, b) = unsafe { (s.read_ints(a.as_ptr()), s.read_ints(b.as_ptr())) };
                let sum = s.dot(s.splat_int(7), a, b, most == 64.0);
                assert_eq!(elements(s, s.to_floats(sum)), expected);
            }
        }
        let shifted = s.minus_shifted(s.add_ints(s.splat_int(-5), s.splat_int(2)), 7);
        assert_eq!(elements(s, s.to_floats(shifted)), vec![384.0; S::LANES]);
    }
}

#[test]
fn products_of_bytes_are_exact() {
    everywhere(Dot);
}

#[derive(Clone, Copy)]
struct Parts;

impl Trial for Parts {
    #[inline(always)]
    fn check<S: Simd>(self, s: S) {
        let x = noise(3, S::LANES);
        let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        let brain: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        for count in 0..=S::LANES {
            let first = |x: &dyn Fn(usize) -> f32| -> Vec<f32> {
                (0..S::LANES).map(|i| if i < count { x(i) } else { 0.0 }).collect()
            };
            // SAFETY: the vectors have as many elements.
            let (a, b, c) = unsafe {
                (
                    f32::read_first(s, x.as_ptr(), count),
                    f16::read_first(s, half.as_ptr(), count),
                    bf16::read_first(s, brain.as_ptr(), count),
                )
            };
            assert_eq!(elements(s, a), first(&|i| x[i]));
            assert_eq!(elements(s, b), first(&|i| half[i].to_f32()));
            assert_eq!(elements(s, c), first(&|i| brain[i].to_f32()));
            let mut out = vec![9.0; S::LANES];
            // SAFETY: as above.
            unsafe { s.write_first(s.load(&x), out.as_mut_ptr(), count) };
            assert_eq!(out[..count], x[..count]);
            assert!(out[count..].iter().all(|&x| x == 9.0));
        }
    }
}

#[test]
fn parts_of_vectors_are_read_and_written() {
    everywhere(Parts);
}

#[derive(Clone, Copy)]
struct Transposition;

impl Trial for Transposition {
    #[inline(always)]
    fn check<S: Simd>(self, s: S) {
        let (from_line, to_line) = (S::LANES + 3, S::LANES + 1);
        let from = noise(4, S::LANES * from_line);
        let mut to = vec![9.0; S::LANES * to_line];
        // SAFETY: both have as many lines.
        unsafe { s.transpose(from.as_ptr(), from_line, to.as_mut_ptr(), to_line) };
        for i in 0..S::LANES {
            for j in 0..S::LANES {
                assert_eq!(to[i * to_line + j], from[j * from_line + i]);
            }
            assert_eq!(to[i * to_line + S::LANES], 9.0);
        }
    }
}

#[test]
fn squares_are_transposed() {
    everywhere(Transposition);
}

#[derive(Clone, Copy)]
struct Rounding;

impl Trial for Rounding {
    #[inline(always)]
    fn check<S: Simd>(self, s: S) {
        let [x, y, z] = [5, 6, 7].map(|seed| noise(seed, S::LANES));
        let (a, b, c) = (s.load(&x), s.load(&y), s.load(&z));
        let fused: Vec<f32> = (0..S::LANES).map(|i| x[i].mul_add(y[i], z[i])).collect();
        assert_eq!(elements(s, s.fma(a, b, c)), fused);
        let fused: Vec<f32> = (0..S::LANES).map(|i| (-x[i]).mul_add(y[i], z[i])).collect();
        assert_eq!(elements(s, s.neg_fma(a, b, c)), fused);
    }
}

#[test]
fn fused_operations_round_once() {
    everywhere(Rounding);
}

#[derive(Clone, Copy)]
struct Bytes;

impl Trial for Bytes {
    #[inline(always)]
    fn check<S: Simd>(self, s: S) {
        let mut bytes = [[0; RUN]; 2];
        for (byte, x) in bytes.as_flattened_mut().iter_mut().zip(noise(8, 2 * RUN)) {
            *byte = ((x + 1.0) * 128.0) as u8;
        }
        let (x, y) = (bytes[0], bytes[1]);
        let (a, b) = (s.read_run(&x), s.read_run(&y));
        let found = [
            s.and(a, b),
            s.or(a, b),
            s.xor(a, b),
            s.and(s.up::<4>(a), s.splat_byte(0xf0)),
            s.and(s.down::<2>(a), s.splat_byte(0x3f)),
            s.nibbles(x.first_chunk().unwrap()),
        ];
        let expected: [[u8; RUN]; 6] = [
            from_fn(|i| x[i] & y[i]),
            from_fn(|i| x[i] | y[i]),
            from_fn(|i| x[i] ^ y[i]),
            from_fn(|i| x[i] << 4),
            from_fn(|i| x[i] >> 2),
            from_fn(|i| x[i % 16] >> (i / 16 * 4) & 0xf),
        ];
        for (found, expected) in found.into_iter().zip(expected) {
            let mut out = [0; RUN];
            s.write_run(found, &mut out);
            assert_eq!(out, expected);
        }
        let mut rows = [[0; RUN / 2]; RUN_ROWS];
        for (i, byte) in rows.as_flattened_mut().iter_mut().enumerate() {
            *byte = i as u8;
        }
        for (column, run) in s.columns(rows.each_ref()).into_iter().enumerate() {
            let mut out = [0; RUN];
            s.write_run(run, &mut out);
            assert_eq!(out, from_fn(|i| rows[i / 4][4 * column + i % 4]));
        }
        for bits in 0..=u16::MAX {
            let (found, expected) = (s.half(bits), f16::from_bits(bits).to_f32());
            assert!(found == expected || found.is_nan() && expected.is_nan(), "{bits:x}");
            assert_eq!(found.is_sign_negative(), expected.is_sign_negative(), "{bits:x}");
        }
    }
}

#[test]
fn runs_of_bytes_and_halves() {
    everywhere(Bytes);
}
