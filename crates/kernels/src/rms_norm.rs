//! Root-mean-square normalisation: `x / sqrt(mean(x^2) + eps) * weight`, each row for itself.
//!
//! Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation 4.

use crate::{
    Cpu, Result,
    error::check,
    isa::vectorised,
    math::{sum, sum2},
};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// Rows whose part of `dweight` is summed by one task.
const BLOCK: usize = 64;

/// Normalises each row of `x` and multiplies it by `weight`, in this order, each rounded to `f32`.
///
/// `x` and `out` are `[rows, d]` with `d = weight.len()`; `rstd` is `[rows]` and receives
/// `1 / sqrt(mean(x^2) + eps)` for [`backward`].
///
/// # Errors
/// [`Length`](crate::KernelError::Length) when a buffer is not of that shape.
pub fn forward(
    cpu: &Cpu,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
    rstd: &mut [f32],
) -> Result<()> {
    let d = weight.len();
    check("rms_norm::forward", "x", x.len(), &[rstd.len(), d])?;
    check("rms_norm::forward", "out", out.len(), &[rstd.len(), d])?;
    if d == 0 {
        return Ok(());
    }
    let rows = CHUNK.div_ceil(d);
    cpu.chunk_pairs((out, rows * d), (rstd, rows), |i, out, rstd| {
        let x = &x[i * rows * d..][..out.len()];
        forward_rows(cpu.isa(), x, weight, eps, out, rstd);
    });
    Ok(())
}

/// What [`forward`] read and gave, for [`backward`].
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// Its input `[rows, d]`.
    pub x: &'a [f32],
    /// The reciprocal root mean square of each row `[rows]`.
    pub rstd: &'a [f32],
}

/// The gradients of [`forward`].
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the input `[rows, d]`.
    pub dx: &'a mut [f32],
    /// Of the weight `[d]`.
    pub dweight: &'a mut [f32],
}

/// Adds to `gradients` those of [`forward`] for the gradient `dout` of its output, `[rows, d]`.
///
/// `dweight` is summed over blocks of rows, then over the blocks, both in order.
///
/// # Errors
/// [`Length`](crate::KernelError::Length) when a buffer is not of its shape.
pub fn backward(
    cpu: &Cpu,
    weight: &[f32],
    Saved { x, rstd }: Saved<'_>,
    dout: &[f32],
    Gradients { dx, dweight }: Gradients<'_>,
) -> Result<()> {
    let d = weight.len();
    check("rms_norm::backward", "x", x.len(), &[rstd.len(), d])?;
    check("rms_norm::backward", "dout", dout.len(), &[rstd.len(), d])?;
    check("rms_norm::backward", "dx", dx.len(), &[rstd.len(), d])?;
    check("rms_norm::backward", "dweight", dweight.len(), &[d])?;
    if d == 0 {
        return Ok(());
    }
    let mut partial = vec![0.0; rstd.len().div_ceil(BLOCK) * d];
    cpu.chunk_pairs((dx, BLOCK * d), (&mut partial, d), |i, dx, partial| {
        let part = i * BLOCK * d..i * BLOCK * d + dx.len();
        let rstd = &rstd[i * BLOCK..][..dx.len() / d];
        backward_rows(cpu.isa(), &x[part.clone()], weight, rstd, &dout[part], dx, partial);
    });
    cpu.chunks(dweight, CHUNK, |i, dweight| {
        for block in partial.chunks(d) {
            let block = &block[i * CHUNK..];
            dweight.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
        }
    });
    Ok(())
}

vectorised! {
    fn forward_rows(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32], rstd: &mut [f32]) {
        let d = weight.len();
        for ((x, out), rstd) in x.chunks(d).zip(out.chunks_mut(d)).zip(rstd) {
            let squares = sum(x, |x| f64::from(x) * f64::from(x));
            *rstd = (1.0 / (squares / d as f64 + f64::from(eps)).sqrt()) as f32;
            for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                *out = x * *rstd * weight;
            }
        }
    }
}

vectorised! {
    fn backward_rows(
        x: &[f32], weight: &[f32], rstd: &[f32], dout: &[f32], dx: &mut [f32],
        dweight: &mut [f32],
    ) {
        let d = weight.len();
        let rows = x.chunks(d).zip(dout.chunks(d)).zip(dx.chunks_mut(d)).zip(rstd);
        let mut scaled = vec![0.0; d];
        for (((x, dout), dx), &rstd) in rows {
            for ((scaled, dout), weight) in scaled.iter_mut().zip(dout).zip(weight) {
                *scaled = dout * weight;
            }
            let along = sum2(&scaled, x, |g, x| f64::from(g) * f64::from(x));
            let along = (along * f64::from(rstd) / d as f64) as f32;
            let outputs = dx.iter_mut().zip(dweight.iter_mut());
            for ((((dx, dweight), x), dout), scaled) in outputs.zip(x).zip(dout).zip(&scaled) {
                let normal = x * rstd;
                *dx += rstd * (scaled - normal * along);
                *dweight += dout * normal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    const EPS: f32 = 1e-5;

    #[test]
    fn agrees_with_the_reference() {
        for (rows, d) in [(0, 5), (1, 1), (3, 37), (2 * BLOCK + 7, 300), (2, CHUNK + 3)] {
            let (x, dout) = (noise(1, rows * d), noise(2, rows * d));
            let weight: Vec<f32> = noise(3, d).iter().map(|w| w + 1.5).collect();
            let found = on_every_cpu(|cpu| {
                let (mut out, mut rstd) = (vec![9.0; rows * d], vec![9.0; rows]);
                forward(cpu, &x, &weight, EPS, &mut out, &mut rstd).unwrap();
                let (mut dx, mut dweight) = (vec![1.0; rows * d], vec![2.0; d]);
                let gradients = Gradients { dx: &mut dx, dweight: &mut dweight };
                backward(cpu, &weight, Saved { x: &x, rstd: &rstd }, &dout, gradients).unwrap();
                [out, dx, dweight].concat()
            });
            let (x, weight, dout) = (wide(&x), wide(&weight), wide(&dout));
            let out = reference::rms_norm::forward(&x, &weight, EPS.into());
            let (mut dx, mut dweight) =
                reference::rms_norm::backward(&x, &weight, EPS.into(), &dout);
            dx.iter_mut().for_each(|g| *g += 1.0);
            dweight.iter_mut().for_each(|g| *g += 2.0);
            assert_close("out", &found[..rows * d], &out, 2e-7);
            assert_close("dx", &found[rows * d..2 * rows * d], &dx, 1e-6);
            assert_close("dweight", &found[2 * rows * d..], &dweight, 2e-6);
        }
    }

    #[test]
    fn a_row_does_not_see_the_others() {
        let (rows, d) = (70, 500);
        let (x, weight) = (noise(1, rows * d), noise(2, d));
        let cpu = Cpu::new(2).unwrap();
        let (mut all, mut rstd) = (vec![0.0; rows * d], vec![0.0; rows]);
        forward(&cpu, &x, &weight, EPS, &mut all, &mut rstd).unwrap();
        for row in [0, 33, 69] {
            let (mut one, mut rstd) = (vec![0.0; d], [0.0]);
            forward(&cpu, &x[row * d..][..d], &weight, EPS, &mut one, &mut rstd).unwrap();
            assert_eq!(one, all[row * d..][..d]);
        }
    }

    #[test]
    fn nan_stays_in_its_row() {
        let cpu = Cpu::new(1).unwrap();
        let (mut out, mut rstd) = ([0.0; 6], [0.0; 2]);
        let x = [1.0, f32::NAN, 3.0, 1.0, 2.0, 3.0];
        forward(&cpu, &x, &[1.0; 3], EPS, &mut out, &mut rstd).unwrap();
        assert!(out[..3].iter().all(|y| y.is_nan()) && out[3..].iter().all(|y| y.is_finite()));
        let (mut dx, mut dweight) = ([0.0; 6], [0.0; 3]);
        let gradients = Gradients { dx: &mut dx, dweight: &mut dweight };
        let saved = Saved { x: &x, rstd: &rstd };
        backward(&cpu, &[1.0; 3], saved, &[1.0; 6], gradients).unwrap();
        assert!(dx[..3].iter().all(|g| g.is_nan()) && dx[3..].iter().all(|g| g.is_finite()));
        assert!(dweight.iter().all(|g| g.is_nan()));
    }

    #[test]
    fn refuses_other_shapes() {
        let cpu = Cpu::new(1).unwrap();
        let (x, w) = ([1.0; 6], [1.0; 3]);
        assert!(forward(&cpu, &x[..5], &w, EPS, &mut [0.0; 6], &mut [0.0; 2]).is_err());
        assert!(forward(&cpu, &x, &w, EPS, &mut [0.0; 5], &mut [0.0; 2]).is_err());
        let run = |x: &[f32], dout: &[f32], dx: usize, dw: usize| {
            let (saved, dx, dw) =
                (Saved { x, rstd: &[1.0; 2] }, &mut vec![0.0; dx], &mut vec![0.0; dw]);
            backward(&cpu, &w, saved, dout, Gradients { dx, dweight: dw })
        };
        assert!(run(&x, &x, 6, 3).is_ok());
        assert!(run(&x[..3], &x, 6, 3).is_err());
        assert!(run(&x, &x[..3], 6, 3).is_err());
        assert!(run(&x, &x, 5, 3).is_err());
        assert!(run(&x, &x, 6, 2).is_err());
    }
}
