//! SwiGLU's gate: `silu(gate) * up`, where `silu(g) = g * sigmoid(g)`.
//!
//! Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202, equation 6 without its matrices.

use crate::{Cpu, Result, error::check, isa::vectorised, math::exp};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// `out = silu(gate) * up`; all have the same length.
///
/// # Errors
/// [`Length`](crate::KernelError::Length) when the lengths differ.
pub fn forward(cpu: &Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<()> {
    check("swiglu::forward", "up", up.len(), &[gate.len()])?;
    check("swiglu::forward", "out", out.len(), &[gate.len()])?;
    cpu.chunks(out, CHUNK, |i, out| {
        let part = i * CHUNK..i * CHUNK + out.len();
        forward_chunk(cpu.isa(), &gate[part.clone()], &up[part], out);
    });
    Ok(())
}

/// The gradients of [`forward`] for `dout`, written over `dgate` and `dup`; all have the same
/// length.
///
/// # Errors
/// [`Length`](crate::KernelError::Length) when the lengths differ.
pub fn backward(
    cpu: &Cpu,
    gate: &[f32],
    up: &[f32],
    dout: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) -> Result<()> {
    check("swiglu::backward", "up", up.len(), &[gate.len()])?;
    check("swiglu::backward", "dout", dout.len(), &[gate.len()])?;
    check("swiglu::backward", "dgate", dgate.len(), &[gate.len()])?;
    check("swiglu::backward", "dup", dup.len(), &[gate.len()])?;
    cpu.chunk_pairs((dgate, CHUNK), (dup, CHUNK), |i, dgate, dup| {
        let part = i * CHUNK..i * CHUNK + dgate.len();
        let (gate, up, dout) = (&gate[part.clone()], &up[part.clone()], &dout[part]);
        backward_chunk(cpu.isa(), gate, up, dout, dgate, dup);
    });
    Ok(())
}

vectorised! {
    fn forward_chunk(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *out = g / (1.0 + exp(-g)) * u;
        }
    }
}

vectorised! {
    fn backward_chunk(
        gate: &[f32], up: &[f32], dout: &[f32], dgate: &mut [f32], dup: &mut [f32],
    ) {
        let outputs = dgate.iter_mut().zip(dup.iter_mut());
        for ((((dgate, dup), &g), &u), &d) in outputs.zip(gate).zip(up).zip(dout) {
            let sigmoid = 1.0 / (1.0 + exp(-g));
            *dup = d * g * sigmoid;
            *dgate = d * u * sigmoid * (1.0 + g * (1.0 - sigmoid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    #[test]
    fn agrees_with_the_reference() {
        for n in [0, 1, 15, 37, CHUNK + 5] {
            let scaled = |seed, by: f32| noise(seed, n).iter().map(|x| x * by).collect::<Vec<_>>();
            let (gate, up, dout) = (scaled(1, 12.0), scaled(2, 2.0), scaled(3, 1.0));
            let found = on_every_cpu(|cpu| {
                let (mut out, mut dgate, mut dup) = (vec![9.0; n], vec![9.0; n], vec![9.0; n]);
                forward(cpu, &gate, &up, &mut out).unwrap();
                backward(cpu, &gate, &up, &dout, &mut dgate, &mut dup).unwrap();
                [out, dgate, dup].concat()
            });
            let (g, u, d) = (wide(&gate), wide(&up), wide(&dout));
            let (dgate, dup) = reference::swiglu::backward(&g, &u, &d);
            assert_close("out", &found[..n], &reference::swiglu::forward(&g, &u), 3e-7);
            assert_close("dgate", &found[n..2 * n], &dgate, 1e-6);
            assert_close("dup", &found[2 * n..], &dup, 3e-7);
        }
    }

    #[test]
    fn extreme_gates() {
        let cpu = Cpu::new(1).unwrap();
        let mut out = [0.0; 4];
        forward(&cpu, &[f32::NAN, 200.0, -200.0, 1.0], &[1.0, 1.0, 1.0, f32::NAN], &mut out)
            .unwrap();
        assert!(out[0].is_nan() && out[3].is_nan());
        assert_eq!(out[1..3], [200.0, -0.0]);
        let (mut dgate, mut dup) = ([0.0; 3], [0.0; 3]);
        backward(&cpu, &[-200.0, 200.0, f32::NAN], &[1.0; 3], &[1.0; 3], &mut dgate, &mut dup)
            .unwrap();
        assert_eq!((dgate[0], dup[0]), (0.0, -0.0));
        assert_eq!((dgate[1], dup[1]), (1.0, 200.0));
        assert!(dgate[2].is_nan() && dup[2].is_nan());
    }

    #[test]
    fn refuses_other_lengths() {
        let cpu = Cpu::new(1).unwrap();
        assert!(forward(&cpu, &[1.0], &[], &mut [0.0]).is_err());
        assert!(forward(&cpu, &[1.0], &[1.0], &mut []).is_err());
        assert!(backward(&cpu, &[1.0], &[1.0], &[], &mut [0.0], &mut [0.0]).is_err());
        assert!(backward(&cpu, &[1.0], &[1.0], &[1.0], &mut [0.0; 2], &mut [0.0]).is_err());
        assert!(backward(&cpu, &[1.0], &[1.0], &[1.0], &mut [0.0], &mut []).is_err());
    }
}
