//! Scalar mathematics that vectorises, and reductions in a fixed order.
//!
//! Everything here is inlined into loops that [`vectorised`](crate::isa) compiles, and gives the
//! same bits on every instruction set.

use crate::isa::vectorised;

/// Partial sums of a reduction: one vector of AVX-512, whatever the instruction set.
pub(crate) const LANES: usize = 16;

/// [`exp`] is 0 here and below.
pub(crate) const SMALLEST: f32 = -104.0;

/// `e^x` with a relative error below 2e-7. Underflows to 0, overflows to infinity, keeps NaN.
///
/// The range reduction and the polynomial are those of `expf` in Cephes.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, which stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has so few bits that its product with `n` is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;

    // Beyond these bounds the result is 0 or infinity; `clamp` keeps NaN.
    let x = x.clamp(SMALLEST, 89.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;

    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let p = p * (r * r) + r + 1.0;

    // 2^n in two factors, because `n` reaches beyond the exponents of one `f32`.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `2^n` for `n` in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// The greatest of `x`; NaN is passed over, and nothing at all gives negative infinity.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for part in whole {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane = greater(*lane, x);
        }
    }
    rest.iter().chain(&lanes).fold(f32::NEG_INFINITY, |a, &b| greater(a, b))
}

/// The sum of `term(a[i], b[i])` in `f64`, always in the same order.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }
    for (lane, (&a, &b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += term(a, b);
    }
    total(lanes)
}

/// The sum of `term(x[i])` in `f64`, always in the same order.
#[inline(always)]
pub(crate) fn sum(x: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    sum2(x, x, |x, _| term(x))
}

vectorised! {
    /// The greatest logit, and the sum of `exp(logit - greatest)`: NaN when a logit is NaN or the
    /// greatest is infinite, 0 when there is no logit.
    pub(crate) fn soft_max_sum(row: &[f32]) -> (f32, f64) {
        let greatest = max(row);
        (greatest, sum(row, |x| f64::from(exp(x - greatest))))
    }
}

vectorised! {
    /// The sum of `exp(logit - greatest) * (logit - greatest)`. What is too small to count has no part in
    /// it, infinitely small ones among them.
    pub(crate) fn soft_max_moment(row: &[f32], greatest: f32) -> f64 {
        sum(row, |x| {
            let below = (x - greatest).max(SMALLEST);
            f64::from(exp(below)) * f64::from(below)
        })
    }
}

/// Adds the lanes pairwise.
#[inline(always)]
pub(crate) fn total(mut lanes: [f64; LANES]) -> f64 {
    by_halves(&mut lanes, |a, b| a + b)
}

/// Combines the first half of the elements, whose number is a power of two, with the second, and so on
/// until one is left.
#[inline(always)]
pub(crate) fn by_halves<T: Copy>(lanes: &mut [T], combine: impl Fn(T, T) -> T) -> T {
    let mut width = lanes.len() / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = combine(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        // Every 97th bit pattern of each sign whose result is a normal number.
        for bits in (0..0x7f80_0000u32).step_by(97) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let expected = f64::from(x).exp();
                if expected < f64::from(f32::MIN_POSITIVE) || expected > f64::from(f32::MAX) {
                    continue;
                }
                let error = (f64::from(exp(x)) - expected).abs() / expected;
                assert!(error < 2e-7, "exp({x}) is off by {error:e}");
            }
        }
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-104.0), 0.0);
        assert!(exp(f32::NAN).is_nan());
        // Results below the normal numbers are as good as their spacing of 1.4e-45.
        for x in [-87.5f32, -95.0, -100.0, -103.0] {
            assert!((f64::from(exp(x)) - f64::from(x).exp()).abs() < 1.5e-45, "exp({x})");
        }
    }

    #[test]
    fn reductions() {
        let x: Vec<f32> = (0..37).map(|i| ((i * 7) % 37) as f32).collect();
        assert_eq!(max(&x), 36.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        assert_eq!(max(&[f32::NAN, 2.0]), 2.0);
        assert_eq!(sum(&x, f64::from), 666.0);
        assert_eq!(sum2(&x, &x, |a, b| f64::from(a) * f64::from(b)), 16206.0);
    }
}
