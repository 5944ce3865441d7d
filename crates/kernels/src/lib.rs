//! The numeric core of llada: a closed set of operations, forward and backward, on the CPU.
//!
//! Numbers in, numbers out: nothing here knows a model. One operation a file, its forward and its
//! backward together; `reference` holds every operation as the textbook writes it, in plain `f64`,
//! and judges the fast ones. All matrices are row-major slices. Every operation takes the [`Cpu`]
//! that runs it, but for the [`statistics`] of one row, and gives the same bits for a row whatever the
//! rows around it and the threads.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod adamw;
pub mod attention;
pub mod average;
mod blocks;
pub mod counting;
mod cpu;
pub mod cross_entropy;
pub mod embedding;
mod error;
mod fault;
mod gemm;
pub mod grad_norm;
mod int8;
mod isa;
pub mod linear;
mod map;
mod math;
mod memory;
pub mod peak;
mod pool;
mod product;
pub mod reference;
pub mod rms_norm;
pub mod rope;
mod simd;
pub mod statistics;
pub mod swiglu;
#[cfg(test)]
mod testing;
mod tiles;
mod weights;

pub use blocks::BlockFormat;
pub use cpu::{Compute, Cpu, Features, Isa};
pub use error::{KernelError, Result};
pub use fault::{explain_shrunk_files, report_large_files};
pub use map::Mapping;
#[doc(hidden)]
pub use tiles::Tiles;
pub use weights::{DType, WeightView};
