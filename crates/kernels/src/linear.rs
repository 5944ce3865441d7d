//! The linear layer `y = x W^T + b` (`torch.nn.functional.linear`) and its gradients.
//!
//! `m` rows (tokens), `k` inputs, `n` outputs. Weights are read in their storage type and computed
//! in `f32`; a row of the result has the same bits in any batch, on any number of threads.

use crate::{
    Cpu, Result, WeightView,
    error::check,
    gemm::{Layout, Operand, gemm},
    weights::Floats,
};

/// What happens to the values that a result buffer holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// They are overwritten.
    Write,
    /// The result is added to them.
    Add,
}

/// `y[m, n] (+)= x[m, k] w[n, k]^T + bias[n]`.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn forward(
    cpu: &Cpu,
    x: &[f32],
    w: WeightView<'_>,
    bias: Option<&[f32]>,
    m: usize,
    n: usize,
    k: usize,
    y: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear forward";
    check(OP, "x", x.len(), m * k)?;
    w.check_matrix(OP, "w", n, k)?;
    check(OP, "y", y.len(), m * n)?;
    let mut out = out;
    if let Some(bias) = bias {
        check(OP, "bias", bias.len(), n)?;
        if n > 0 {
            for y in y.chunks_exact_mut(n) {
                match out {
                    Out::Write => y.copy_from_slice(bias),
                    Out::Add => y.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
                }
            }
        }
        out = Out::Add;
    }
    if let WeightView::Blocks { format, bytes } = w {
        let mut wide = vec![0.0; n * k];
        format.dequantize(cpu, bytes, &mut wide)?;
        return forward(cpu, x, WeightView::F32(&wide), None, m, n, k, y, out);
    }
    let x = Operand { data: Floats::F32(x), layout: Layout::KInner };
    let w = Operand { data: w.floats(OP)?, layout: Layout::KInner };
    gemm(cpu, x, w, (m, n, k), y, out);
    Ok(())
}

/// `dx[m, k] (+)= dy[m, n] w[n, k]`.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn backward_input(
    cpu: &Cpu,
    dy: &[f32],
    w: WeightView<'_>,
    m: usize,
    n: usize,
    k: usize,
    dx: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear backward (input)";
    check(OP, "dy", dy.len(), m * n)?;
    w.check_matrix(OP, "w", n, k)?;
    check(OP, "dx", dx.len(), m * k)?;
    let dy = Operand { data: Floats::F32(dy), layout: Layout::KInner };
    let w = Operand { data: w.floats(OP)?, layout: Layout::KOuter };
    gemm(cpu, dy, w, (m, k, n), dx, out);
    Ok(())
}

/// `dw[n, k] (+)= dy[m, n]^T x[m, k]`.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn backward_weight(
    cpu: &Cpu,
    dy: &[f32],
    x: &[f32],
    m: usize,
    n: usize,
    k: usize,
    dw: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear backward (weight)";
    check(OP, "dy", dy.len(), m * n)?;
    check(OP, "x", x.len(), m * k)?;
    check(OP, "dw", dw.len(), n * k)?;
    let dy = Operand { data: Floats::F32(dy), layout: Layout::KOuter };
    let x = Operand { data: Floats::F32(x), layout: Layout::KOuter };
    gemm(cpu, dy, x, (n, k, m), dw, out);
    Ok(())
}

/// `db[n] += dy[m, n]` summed over the rows, in their order.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn backward_bias(cpu: &Cpu, dy: &[f32], m: usize, n: usize, db: &mut [f32]) -> Result<()> {
    const OP: &str = "linear backward (bias)";
    /// Columns of a task: a few cache lines, so that two tasks seldom share one.
    const COLUMNS: usize = 64;
    check(OP, "dy", dy.len(), m * n)?;
    check(OP, "db", db.len(), n)?;
    cpu.chunks(db, COLUMNS, |i, db| {
        let mut sums = [0.0f32; COLUMNS];
        let sums = &mut sums[..db.len()];
        for row in dy.chunks_exact(n) {
            let row = &row[i * COLUMNS..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
        }
        db.iter_mut().zip(sums).for_each(|(db, sum)| *db += *sum);
    });
    Ok(())
}

#[cfg(test)]
mod tests;
