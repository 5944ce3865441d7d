//! Which format each parameter of a model is stored in.

use llada_kernels::{BlockFormat, DType};

use super::Layout;
use crate::config::family::{Parameter, Part};

/// The formats of a model's matrices. Norms, biases and routers are always `f32`: they are
/// small, and llama.cpp reads no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// The matrices of the blocks.
    pub blocks: DType,
    /// The embedding, and so the LM head of a model that ties the two.
    pub embedding: DType,
    /// The LM head.
    pub head: DType,
}

impl Formats {
    /// The same format for all matrices.
    pub fn all(dtype: DType) -> Self {
        Self { blocks: dtype, embedding: dtype, head: dtype }
    }

    /// `blocks` for the matrices of the blocks; where those are quantised, embedding and LM head keep
    /// 8 bits, since every token is read from the one and chosen by the other.
    pub fn usual(blocks: DType) -> Self {
        let ends = match blocks {
            DType::Blocks(_) => DType::Blocks(BlockFormat::Q8_0),
            _ => blocks,
        };
        Self { blocks, embedding: ends, head: ends }
    }

    /// The format that is asked for every tensor of `layout`, in its order.
    pub fn asked(&self, layout: &Layout) -> Vec<DType> {
        let formats = layout.specs().iter().enumerate().map(|(id, spec)| match id {
            _ if spec.shape.len() < 2 => DType::F32,
            // Scores that nearly tie decide who computes.
            _ if matches!(spec.parameter, Parameter::Block(_, Part::Router)) => DType::F32,
            id if id == layout.wte => self.embedding,
            id if Some(id) == layout.head => self.head,
            _ => self.blocks,
        });
        formats.collect()
    }

    /// The format that every tensor of `layout` gets. A matrix whose width is no whole number of
    /// blocks gets a simpler and finer one: Q8_0, which has blocks of 32, or else `f16`.
    pub fn of_each(&self, layout: &Layout) -> Vec<DType> {
        let widths = layout.specs().iter().map(|spec| spec.shape.last().copied().unwrap_or(1));
        let formats = self.asked(layout).into_iter().zip(widths);
        formats.map(|(asked, width)| fitting(asked, width)).collect()
    }
}

/// The first of `dtype` and what may stand in for it whose blocks divide `width`.
fn fitting(dtype: DType, width: usize) -> DType {
    let simpler = [dtype, DType::Blocks(BlockFormat::Q8_0)];
    let fits = |dtype: &DType| dtype.bytes(width).is_some();
    simpler.into_iter().find(fits).unwrap_or(DType::F16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_matrices_get_simpler_formats() {
        let q4_k = DType::Blocks(BlockFormat::Q4K);
        let q8_0 = DType::Blocks(BlockFormat::Q8_0);
        for (width, expected) in [(512, q4_k), (192, q8_0), (100, DType::F16)] {
            assert_eq!(fitting(q4_k, width), expected);
        }
        assert_eq!(fitting(DType::Blocks(BlockFormat::Q4_0), 96), DType::Blocks(BlockFormat::Q4_0));
        assert_eq!(fitting(DType::Bf16, 7), DType::Bf16);
    }
}
