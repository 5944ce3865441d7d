//! The terms of a matrix product, which the linear layer and its kernels share.

/// The sizes of a linear layer and its batch, by the names of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the batch (tokens).
    pub m: usize,
    /// Outputs of the layer: rows of its weight.
    pub n: usize,
    /// Inputs of the layer: columns of its weight.
    pub k: usize,
}

/// What happens to the values that a result buffer holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// They are overwritten.
    Write,
    /// The result is added to them.
    Add,
}
