//! The linear layer `y = x W^T + b` (`torch.nn.functional.linear`) and its gradients.
//!
//! Weights are read in their storage type and computed in `f32`; a row of the result has the same
//! bits in any batch, on any number of threads.

use std::cell::Cell;

use crate::{
    Cpu, KernelError, Result, WeightView,
    error::check,
    gemm::{Layout, Operand, Source, gemm, gemm_on_tiles},
    int8,
    weights::Floats,
};
pub use crate::{
    int8::Activations,
    product::{Out, Shape},
};

/// Rows that several linear layers take as their input. They are quantised once, by the first layer
/// whose weight is of blocks and multiplied as integers.
#[derive(Debug)]
pub struct Input<'a> {
    x: &'a [f32],
    m: usize,
    k: usize,
    quantized: &'a mut Activations,
    is_quantized: bool,
}

impl<'a> Input<'a> {
    /// The `m` rows `x` of `k` inputs each; `quantized` lends its memory, whatever it holds.
    pub fn new(x: &'a [f32], m: usize, k: usize, quantized: &'a mut Activations) -> Self {
        Self { x, m, k, quantized, is_quantized: false }
    }

    /// [`forward`] for these rows, `n` being the outputs: the same bits.
    ///
    /// # Errors
    /// Those of [`forward`].
    pub fn forward(
        &mut self,
        cpu: &Cpu,
        w: WeightView<'_>,
        bias: Option<&[f32]>,
        n: usize,
        y: &mut [f32],
        out: Out,
    ) -> Result<()> {
        const OP: &str = "linear forward";
        let Self { x, m, k, .. } = *self;
        check(OP, "x", x.len(), &[m, k])?;
        w.check_matrix(OP, "w", n, k)?;
        check(OP, "y", y.len(), &[m, n])?;
        let (shape, rows) =
            (Shape { m, n, k }, Operand { data: Floats::F32(x), layout: Layout::KInner });
        if let WeightView::Blocks { format, bytes } = w {
            if let Some(tiles) = cpu.tiles() {
                let out = add_bias(OP, bias, n, y, out)?;
                gemm_on_tiles(cpu, tiles, shape, rows, Source::Blocks(format, bytes), y, out);
                return Ok(());
            }
            if !self.is_quantized {
                self.quantized.quantize(cpu, x, m, k)?;
                self.is_quantized = true;
            }
            return forward_quantized(cpu, self.quantized, w, bias, n, y, out);
        }
        let out = add_bias(OP, bias, n, y, out)?;
        let w = Operand { data: w.floats(OP)?, layout: Layout::KInner };
        gemm(cpu, shape, rows, w, y, out);
        Ok(())
    }
}

thread_local! {
    /// The quantised rows of the last call, kept for their memory.
    static ACTIVATIONS: Cell<Activations> = const { Cell::new(Activations::new()) };
}

/// `y[m, n] (+)= x[m, k] w[n, k]^T + bias[n]`.
///
/// With a weight of blocks the rows are quantised too ([`Activations`]) and multiplied as integers:
/// an element is then off by `sum |w| max |x| / 254` at most, the maximum being that of the 128 inputs
/// around. But under [`Compute::Bf16`](crate::Compute) a matrix unit ([`Cpu::has_tiles`]) multiplies what
/// the blocks stand for with the rows, both rounded to `bf16`: an element is then off by
/// `2^-7 sum |w x|` at most, and by the rounding of the `f32` sum.
///
/// # Errors
/// A buffer that does not have the length of its shape, or a weight whose rows are not whole blocks.
pub fn forward(
    cpu: &Cpu,
    Shape { m, n, k }: Shape,
    x: &[f32],
    w: WeightView<'_>,
    bias: Option<&[f32]>,
    y: &mut [f32],
    out: Out,
) -> Result<()> {
    ACTIVATIONS.with(|cell| {
        let mut quantized = cell.take();
        let result = Input::new(x, m, k, &mut quantized).forward(cpu, w, bias, n, y, out);
        cell.set(quantized);
        result
    })
}

/// [`forward`] with a weight of blocks and rows that are quantised already: the same bits, but where a matrix
/// unit would multiply the rows as they are. `n` are the outputs.
///
/// # Errors
/// A buffer that does not have the length of its shape, a weight that is not of blocks, or rows of it
/// that are not whole blocks.
pub fn forward_quantized(
    cpu: &Cpu,
    x: &Activations,
    w: WeightView<'_>,
    bias: Option<&[f32]>,
    n: usize,
    y: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear forward (quantised)";
    w.check_matrix(OP, "w", n, x.inputs())?;
    check(OP, "y", y.len(), &[x.rows(), n])?;
    let WeightView::Blocks { format, bytes } = w else {
        let what = "the weight is not of blocks: call `forward` with the rows as `f32`".into();
        return Err(KernelError::Argument { op: OP, what });
    };
    let out = add_bias(OP, bias, n, y, out)?;
    int8::product(cpu, x, format, bytes, n, y, out);
    Ok(())
}

/// Puts the bias where the product is to be added, or adds it to what is there.
fn add_bias(
    op: &'static str,
    bias: Option<&[f32]>,
    n: usize,
    y: &mut [f32],
    out: Out,
) -> Result<Out> {
    let Some(bias) = bias else { return Ok(out) };
    check(op, "bias", bias.len(), &[n])?;
    for y in y.chunks_exact_mut(n.max(1)) {
        match out {
            Out::Write => y.copy_from_slice(bias),
            Out::Add => y.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
        }
    }
    Ok(Out::Add)
}

/// `dx[m, k] (+)= dy[m, n] w[n, k]`.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn backward_input(
    cpu: &Cpu,
    Shape { m, n, k }: Shape,
    dy: &[f32],
    w: WeightView<'_>,
    dx: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear backward (input)";
    check(OP, "dy", dy.len(), &[m, n])?;
    w.check_matrix(OP, "w", n, k)?;
    check(OP, "dx", dx.len(), &[m, k])?;
    let dy = Operand { data: Floats::F32(dy), layout: Layout::KInner };
    let w = Operand { data: w.floats(OP)?, layout: Layout::KOuter };
    gemm(cpu, Shape { m, n: k, k: n }, dy, w, dx, out);
    Ok(())
}

/// `dw[n, k] (+)= dy[m, n]^T x[m, k]`.
///
/// # Errors
/// A buffer that does not have the length of its shape.
pub fn backward_weight(
    cpu: &Cpu,
    Shape { m, n, k }: Shape,
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
    out: Out,
) -> Result<()> {
    const OP: &str = "linear backward (weight)";
    check(OP, "dy", dy.len(), &[m, n])?;
    check(OP, "x", x.len(), &[m, k])?;
    check(OP, "dw", dw.len(), &[n, k])?;
    let dy = Operand { data: Floats::F32(dy), layout: Layout::KOuter };
    let x = Operand { data: Floats::F32(x), layout: Layout::KOuter };
    gemm(cpu, Shape { m: n, n: k, k: m }, dy, x, dw, out);
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
    check(OP, "dy", dy.len(), &[m, n])?;
    check(OP, "db", db.len(), &[n])?;
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
