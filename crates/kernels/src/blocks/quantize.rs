//! One block of weights into codes and scales, in the order of arithmetic of ggml's reference
//! quantisers, so that the same weights give the same bytes.

use half::f16;

use super::layout::Q4K;
use crate::{
    BlockFormat,
    isa::vectorised,
    simd::{Portable, Simd},
};

/// Groups whose greatest weight is below this are zero.
const NOTHING: f32 = 1e-15;

/// Writes an `f16` and returns the number it holds.
#[inline(always)]
fn write_half(x: f32, out: &mut [u8]) -> f32 {
    let half = f16::from_f32(x);
    out.copy_from_slice(&half.to_le_bytes());
    Portable.half(half.to_bits())
}

/// The whole number nearest to `x`, even ones in the middle, kept within `low..=high`.
#[inline(always)]
fn nearest(x: f32, low: i32, high: i32) -> i32 {
    (x.round_ties_even() as i32).clamp(low, high)
}

/// The weight of the greatest magnitude, the first of equals; 0 if there is none.
#[inline(always)]
fn greatest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, &x| if x.abs() > max.abs() { x } else { max })
}

/// `a / b`, or 0 where `b` is.
#[inline(always)]
fn ratio(a: f32, b: f32) -> f32 {
    if b == 0.0 { 0.0 } else { a / b }
}

vectorised! {
    /// Whole blocks of weights.
    pub(super) fn quantize(format: BlockFormat, x: &[f32], out: &mut [u8]) {
        let blocks = x.chunks_exact(format.block_len());
        for (x, block) in blocks.zip(out.chunks_exact_mut(format.block_bytes())) {
            match format {
                BlockFormat::Q8_0 => q8_0(x, block),
                BlockFormat::Q4_0 => q4_0(x, block),
                BlockFormat::Q4K => q4_k(x, block),
                BlockFormat::Q6K => q6_k(x, block),
            }
        }
    }
}

/// The greatest magnitude becomes 127.
#[inline(always)]
fn q8_0(x: &[f32], block: &mut [u8]) {
    let d = greatest(x).abs() / 127.0;
    let inverse = ratio(1.0, d);
    write_half(d, &mut block[..2]);
    for (q, x) in block[2..].iter_mut().zip(x) {
        *q = (x * inverse).round() as i8 as u8;
    }
}

/// The weight of the greatest magnitude becomes -8, the end of the range that has one code more.
#[inline(always)]
fn q4_0(x: &[f32], block: &mut [u8]) {
    let d = greatest(x) / -8.0;
    let inverse = ratio(1.0, d);
    write_half(d, &mut block[..2]);
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    for i in 0..16 {
        block[2 + i] = code(x[i]) | code(x[16 + i]) << 4;
    }
}

/// Each group's scale and minimum are searched, then rounded to 6 bits, then the codes found anew.
#[inline(always)]
fn q4_k(x: &[f32], block: &mut [u8]) {
    let mut fits = [Affine::default(); 8];
    for (fit, x) in fits.iter_mut().zip(x.as_chunks().0) {
        *fit = Affine::search(x);
    }
    let most = |of: fn(&Affine) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (scale, min) = (most(|f| f.scale), most(|f| f.min));
    let (to_scale, to_min) = (ratio(63.0, scale), ratio(63.0, min));
    let d = write_half(scale / 63.0, &mut block[..2]);
    let dmin = write_half(min / 63.0, &mut block[2..4]);

    let (head, q) = block.split_at_mut(16);
    let packed = &mut head[4..];
    packed.fill(0);
    for (j, fit) in fits.iter().enumerate() {
        let scale = nearest(to_scale * fit.scale, 0, 63) as u8;
        let min = nearest(to_min * fit.min, 0, 63) as u8;
        if j < 4 {
            packed[j] = scale;
            packed[j + 4] = min;
        } else {
            packed[j + 4] = scale & 15 | min << 4;
            packed[j - 4] |= scale >> 4 << 6;
            packed[j] |= min >> 4 << 6;
        }
    }
    let (scales, mins) = Q4K::scales_and_mins(packed);
    for (j, x) in x.chunks_exact(32).enumerate() {
        let (scale, min) = (d * f32::from(scales[j]), dmin * f32::from(mins[j]));
        for (i, x) in x.iter().enumerate() {
            // Without a scale the codes mean nothing, and those of the search are kept.
            let code = match scale == 0.0 {
                true => fits[j].codes[i],
                false => nearest((x + min) / scale, 0, 15) as u8,
            };
            let byte = &mut q[j / 2 * 32 + i];
            *byte = if j % 2 == 0 { code } else { *byte | code << 4 };
        }
    }
}

/// 32 weights as `scale * code - min` with codes of 4 bits.
#[derive(Clone, Copy, Default)]
struct Affine {
    scale: f32,
    min: f32,
    codes: [u8; 32],
}

impl Affine {
    /// Tries 21 ranges of codes around the plain one; for each, scale and minimum are the weighted
    /// least-squares fit, large weights counting more; keeps the best.
    #[inline(always)]
    fn search(x: &[f32; 32]) -> Self {
        const HIGHEST: f32 = 15.0;
        let square: f32 = x.iter().fold(0.0, |sum, x| sum + x * x);
        let mean = (square / 32.0).sqrt();
        let weight = |x: f32| mean + x.abs();
        let (mut low, mut high) = (x[0], x[0]);
        let (mut sum_w, mut sum_x) = (weight(x[0]), weight(x[0]) * x[0]);
        for &x in &x[1..] {
            (low, high) = (low.min(x), high.max(x));
            sum_w += weight(x);
            sum_x += weight(x) * x;
        }
        low = low.min(0.0);
        if high == low {
            return Self { scale: 0.0, min: -low, codes: [0; 32] };
        }
        let codes = |factor: f32, low: f32| {
            let mut codes = [0; 32];
            for i in 0..32 {
                codes[i] = nearest(factor * (x[i] - low), 0, 15) as u8;
            }
            codes
        };
        let error = |codes: &[u8; 32], scale: f32, low: f32| {
            let mut sum = 0.0;
            for i in 0..32 {
                let off = scale * f32::from(codes[i]) + low - x[i];
                sum += weight(x[i]) * (off * off);
            }
            sum
        };
        let factor = HIGHEST / (high - low);
        let mut best = Self { scale: 1.0 / factor, min: low, codes: codes(factor, low) };
        let mut least = error(&best.codes, best.scale, best.min);
        for step in 0..=20 {
            let low = best.min;
            let codes = codes((-1.0 + 0.1 * step as f32 + HIGHEST) / (high - low), low);
            let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
            for i in 0..32 {
                let l = f32::from(codes[i]);
                let wl = weight(x[i]) * l;
                sum_l += wl;
                sum_l2 += wl * l;
                sum_xl += wl * x[i];
            }
            let determinant = sum_w * sum_l2 - sum_l * sum_l;
            if determinant <= 0.0 {
                continue;
            }
            let mut scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if low > 0.0 {
                (low, scale) = (0.0, sum_xl / sum_l2);
            }
            let error = error(&codes, scale, low);
            if error < least {
                least = error;
                best = Self { scale, min: low, codes };
            }
        }
        best.min = -best.min;
        best
    }
}

/// Each group's scale is searched, then rounded to 8 bits, then the codes found anew.
#[inline(always)]
fn q6_k(x: &[f32], block: &mut [u8]) {
    let mut fits = [Linear::default(); 16];
    for (fit, x) in fits.iter_mut().zip(x.as_chunks().0) {
        *fit = Linear::search(x);
    }
    let mut scales = [0.0; 16];
    scales.iter_mut().zip(&fits).for_each(|(scale, fit)| *scale = fit.scale);
    let scale = greatest(&scales);
    if scale.abs() < NOTHING {
        return block.fill(0);
    }
    let factor = -128.0 / scale;
    let d = write_half(1.0 / factor, &mut block[208..]);
    let mut codes = [0u8; 256];
    for (j, x) in x.chunks_exact(16).enumerate() {
        let scale = nearest(factor * scales[j], -128, 127);
        block[192 + j] = scale as i8 as u8;
        let scale = d * scale as f32;
        for (i, x) in x.iter().enumerate() {
            codes[j * 16 + i] = match scale == 0.0 {
                true => fits[j].codes[i],
                false => (nearest(x / scale, -32, 31) + 32) as u8,
            };
        }
    }
    for (part, codes) in codes.chunks_exact(128).enumerate() {
        for i in 0..32 {
            let quarter = |q: usize| codes[q * 32 + i];
            let (low, high) = (|q| quarter(q) & 15, |q| quarter(q) >> 4);
            block[part * 64 + i] = low(0) | low(2) << 4;
            block[part * 64 + 32 + i] = low(1) | low(3) << 4;
            block[128 + part * 32 + i] = high(0) | high(1) << 2 | high(2) << 4 | high(3) << 6;
        }
    }
}

/// 16 weights as `scale * (code - 32)` with codes of 6 bits.
#[derive(Clone, Copy, Default)]
struct Linear {
    scale: f32,
    codes: [u8; 16],
}

impl Linear {
    /// Tries 19 ranges of codes around the plain one; for each, the scale is the least-squares fit,
    /// weights counting by their squares; keeps the best.
    #[inline(always)]
    fn search(x: &[f32; 16]) -> Self {
        let most = greatest(x);
        if most.abs() < NOTHING {
            return Self::default();
        }
        let fit = |step: f32| {
            let factor = -(32.0 + 0.1 * step) / most;
            let mut codes = [0; 16];
            let (mut sum_xl, mut sum_l2) = (0.0f32, 0.0f32);
            for i in 0..16 {
                let l = nearest(factor * x[i], -32, 31);
                codes[i] = (l + 32) as u8;
                let (w, l) = (x[i] * x[i], l as f32);
                sum_xl += w * x[i] * l;
                sum_l2 += w * l * l;
            }
            (codes, sum_xl, sum_l2)
        };
        let (codes, sum_xl, sum_l2) = fit(0.0);
        let mut best = Self { scale: if sum_l2 > 0.0 { sum_xl / sum_l2 } else { 0.0 }, codes };
        let mut most = best.scale * sum_xl;
        for step in (-9..=9).filter(|&step| step != 0) {
            let (codes, sum_xl, sum_l2) = fit(step as f32);
            if sum_l2 > 0.0 && sum_xl * sum_xl > most * sum_l2 {
                best = Self { scale: sum_xl / sum_l2, codes };
                most = best.scale * sum_xl;
            }
        }
        best
    }
}
