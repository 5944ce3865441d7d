//! GGML's block formats: weights of a few bits, with scales of their own for every few of them.
//!
//! A row is cut into blocks, each of which holds integer codes and the scales that turn them
//! back into weights: `w = scale * (code - offset) - min`. The layouts, to the byte, are those of
//! GGUF files (ggml, `ggml-quants.c` and `ggml-common.h`); the quantisers follow its reference ones.

mod layout;
mod quantize;

pub(crate) use layout::{Columns, Layout, Q4K, Q4Zero, Q6K, Q8Zero, RUN, RUN_ROWS};

use std::{fmt, marker::PhantomData};

use crate::{
    Cpu, KernelError, Result,
    error::check,
    isa::vectorised,
    simd::{Kernel, Portable, Simd},
};

/// The longest block of any format, in weights.
pub(crate) const LONGEST: usize = 256;
/// The greatest weight that is quantised: beyond it, scales leave the range of an `f16`.
const GREATEST: f32 = 65504.0;
/// Blocks of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 64;

/// A block format. All numbers are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockFormat {
    /// 8.5 bits a weight: an `f16` scale and 32 signed bytes.
    Q8_0,
    /// 4.5 bits: an `f16` scale and 32 codes of 4 bits, 8 of them standing for zero.
    Q4_0,
    /// 4.5 bits: 256 codes of 4 bits; each 32 have a scale and a minimum of 6 bits, which count in
    /// the block's two `f16`.
    Q4K,
    /// 6.5625 bits: 256 codes of 6 bits, 32 standing for zero; each 16 have a scale of 8 signed bits,
    /// which counts in the block's `f16`.
    Q6K,
}

/// Runs an expression with `$layout` being the [`Layout`] of a format.
macro_rules! with_layout {
    ($format:expr, $layout:ident => $result:expr) => {
        match $format {
            $crate::BlockFormat::Q8_0 => {
                type $layout = $crate::blocks::Q8Zero;
                $result
            }
            $crate::BlockFormat::Q4_0 => {
                type $layout = $crate::blocks::Q4Zero;
                $result
            }
            $crate::BlockFormat::Q4K => {
                type $layout = $crate::blocks::Q4K;
                $result
            }
            $crate::BlockFormat::Q6K => {
                type $layout = $crate::blocks::Q6K;
                $result
            }
        }
    };
}

pub(crate) use with_layout;

impl BlockFormat {
    /// Every format, finest first.
    pub const ALL: [Self; 4] = [Self::Q8_0, Self::Q6K, Self::Q4K, Self::Q4_0];

    /// GGML's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Weights of a block. A row must be a multiple of it.
    pub fn block_len(self) -> usize {
        with_layout!(self, L => L::LEN)
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        with_layout!(self, L => L::BYTES)
    }

    /// Bytes of `len` weights; `None` unless they are whole blocks.
    pub fn bytes(self, len: usize) -> Option<usize> {
        let whole = len.is_multiple_of(self.block_len());
        whole.then(|| (len / self.block_len()).checked_mul(self.block_bytes())).flatten()
    }

    /// Weights in `bytes` bytes; `None` unless they are whole blocks.
    pub fn len(self, bytes: usize) -> Option<usize> {
        let whole = bytes.is_multiple_of(self.block_bytes());
        whole.then(|| (bytes / self.block_bytes()).checked_mul(self.block_len())).flatten()
    }

    /// Quantises `x` into the blocks `out`, `x.len() / block_len * block_bytes` bytes.
    ///
    /// Q8_0 and Q4_0 divide by the greatest of the block; Q4_K and Q6_K search for scales with a small
    /// squared error, as ggml's `quantize_row_*_ref` do.
    ///
    /// # Errors
    /// [`Argument`](KernelError::Argument) when `x` is not whole blocks or has a weight that is NaN,
    /// infinite or beyond 65504, and [`Length`](KernelError::Length) when `out` does not fit.
    pub fn quantize(self, cpu: &Cpu, x: &[f32], out: &mut [u8]) -> Result<()> {
        const OP: &str = "blocks::quantize";
        check(OP, "out", out.len(), &[self.whole_blocks(OP, x.len())?])?;
        if let Some(at) = x.iter().position(|x| x.is_nan() || x.abs() > GREATEST) {
            let what = format!(
                "weight {at} is {}, but a block holds finite numbers up to {GREATEST}",
                x[at]
            );
            return Err(KernelError::Argument { op: OP, what });
        }
        let (len, bytes) = (self.block_len(), self.block_bytes());
        cpu.chunks(out, CHUNK * bytes, |i, out| {
            let x = &x[i * CHUNK * len..][..out.len() / bytes * len];
            quantize::quantize(cpu.isa(), self, x, out);
        });
        Ok(())
    }

    /// The weights of the blocks `bytes`, exactly as the format defines them.
    ///
    /// # Errors
    /// [`Argument`](KernelError::Argument) when `bytes` is not whole blocks, and
    /// [`Length`](KernelError::Length) when `out` has not as many elements as they hold.
    pub fn dequantize(self, cpu: &Cpu, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        const OP: &str = "blocks::dequantize";
        let Some(len) = self.len(bytes.len()) else {
            let (found, block) = (bytes.len(), self.block_bytes());
            let what = format!("{found} bytes are not whole {self} blocks of {block} bytes");
            return Err(KernelError::Argument { op: OP, what });
        };
        check(OP, "out", out.len(), &[len])?;
        let (len, size) = (self.block_len(), self.block_bytes());
        cpu.chunks(out, CHUNK * len, |i, out| {
            let bytes = &bytes[i * CHUNK * size..][..out.len() / len * size];
            self.widen(cpu.isa(), bytes, out);
        });
        Ok(())
    }

    /// [`dequantize`](Self::dequantize) on the calling thread, of buffers known to fit.
    pub(crate) fn widen(self, isa: crate::Isa, bytes: &[u8], out: &mut [f32]) {
        with_layout!(self, L => widen::<L>(isa, bytes, out));
    }

    /// The weights of the blocks `bytes` rounded to `bf16`, two neighbours in each place of `out`, which fits.
    pub(crate) fn round<S: Simd>(self, s: S, bytes: &[u8], out: &mut [f32]) {
        with_layout!(self, L => s.run(Round::<L> { bytes, out, layout: PhantomData }));
    }

    /// Bytes of `len` weights, which must be whole blocks.
    pub(crate) fn whole_blocks(self, op: &'static str, len: usize) -> Result<usize> {
        self.bytes(len).ok_or_else(|| {
            let block = self.block_len();
            let what = format!("{len} weights are not whole {self} blocks of {block} weights");
            KernelError::Argument { op, what }
        })
    }
}

impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

vectorised! {
    /// The weights of whole blocks.
    fn widen<L: Layout>(bytes: &[u8], out: &mut [f32]) {
        let (mut codes, mut factors) = ([0; LONGEST], [0.0; LONGEST / 16]);
        for (block, out) in bytes.chunks_exact(L::BYTES).zip(out.chunks_exact_mut(L::LEN)) {
            L::codes(Portable, block, &mut codes);
            L::factors(Portable, block, &mut factors);
            for (g, out) in out.chunks_exact_mut(L::GROUP).enumerate() {
                let factors = &factors[g * L::GROUP / RUN * L::FACTORS..];
                let scale = factors[g % (RUN / L::GROUP)];
                for (out, &code) in out.iter_mut().zip(&codes[g * L::GROUP..]) {
                    let product = scale * (i32::from(code) - L::OFFSET) as f32;
                    *out = if L::MINS { product - factors[1] } else { product };
                }
            }
        }
    }
}

/// See [`BlockFormat::round`].
struct Round<'a, L> {
    bytes: &'a [u8],
    out: &'a mut [f32],
    layout: PhantomData<L>,
}

impl<L: Layout> Kernel for Round<'_, L> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (mut codes, mut factors) = ([0; LONGEST], [0.0; LONGEST / 16]);
        let blocks = self.bytes.chunks_exact(L::BYTES);
        for (block, out) in blocks.zip(self.out.chunks_exact_mut(L::LEN / 2)) {
            L::codes(s, block, &mut codes);
            L::factors(s, block, &mut factors);
            for (run, out) in out.chunks_exact_mut(RUN / 2).enumerate() {
                let codes = &codes[run * RUN..][..RUN];
                let factors = &factors[run * L::FACTORS..][..L::FACTORS];
                for at in (0..RUN).step_by(2 * S::LANES) {
                    let low = weights::<L, S>(s, codes, factors, at);
                    let high = weights::<L, S>(s, codes, factors, at + S::LANES);
                    s.store(s.pairs(low, high), &mut out[at / 2..]);
                }
            }
        }
    }
}

/// A vector of the weights of a run, from weight `at` on: the bits of [`widen`].
#[inline(always)]
fn weights<L: Layout, S: Simd>(s: S, codes: &[u8], factors: &[f32], at: usize) -> S::Floats {
    let codes = &codes[at..][..S::LANES];
    // SAFETY: the slice has as many bytes as a vector elements.
    let codes = unsafe { s.read_bytes(codes.as_ptr()) };
    let scale = s.splat(factors[at / L::GROUP]);
    let product = s.mul(scale, s.sub(codes, s.splat(L::OFFSET as f32)));
    if L::MINS { s.sub(product, s.splat(factors[1])) } else { product }
}

#[cfg(test)]
mod tests;
