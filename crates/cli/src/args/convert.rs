//! The flags of `llada convert` and `llada quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use llada_kernels::{BlockFormat, DType};

use super::{SourceArg, Threads, merge::Storage};

/// `llada convert`.
#[derive(Debug, Args)]
pub struct Convert {
    #[command(flatten)]
    pub model: SourceArg,
    /// What to write: one GGUF file where the name ends in `.gguf`, a folder otherwise
    #[arg(short, long, value_name = "PATH")]
    pub out: PathBuf,
    /// How to store the matrices [default: as the model does; bf16 in place of quantised ones]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Storage>,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
}

/// `llada quantize`.
#[derive(Debug, Args)]
pub struct Quantize {
    #[command(flatten)]
    pub model: SourceArg,
    /// The GGUF file to write
    #[arg(short, long, value_name = "FILE.gguf")]
    pub out: PathBuf,
    /// Format of the matrices in the blocks
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Format,
    /// Format of the embedding
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "q8_0")]
    pub embedding: Format,
    /// Format of the LM head, where the model has one of its own [default: q8_0]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub head: Option<Format>,
    /// Replace the file
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// Formats of a matrix in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Format {
    /// 8.5 bits: as good as not quantised.
    #[value(name = "q8_0")]
    Q8_0,
    /// 6.6 bits.
    #[value(name = "q6_k")]
    Q6K,
    /// 4.5 bits, the better of the two.
    #[value(name = "q4_k")]
    Q4K,
    /// 4.5 bits, the simpler of the two.
    #[value(name = "q4_0")]
    Q4_0,
    /// The upper half of 32-bit floats.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 32-bit floats.
    F32,
}

impl From<Format> for DType {
    fn from(format: Format) -> Self {
        match format {
            Format::Q8_0 => Self::Blocks(BlockFormat::Q8_0),
            Format::Q6K => Self::Blocks(BlockFormat::Q6K),
            Format::Q4K => Self::Blocks(BlockFormat::Q4K),
            Format::Q4_0 => Self::Blocks(BlockFormat::Q4_0),
            Format::Bf16 => Self::Bf16,
            Format::F16 => Self::F16,
            Format::F32 => Self::F32,
        }
    }
}
