//! The flags of `llada merge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{NO_STREAM, place};

/// `llada merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Folder of the adapters, with `adapter_config.json`, or of the run that trained them
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,
    /// Folder for the merged model
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// The model that they adapt [default: the one that they name]
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// How to store the weights [default: as that model does]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub storage: Option<Storage>,
}

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// The upper half of those.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl From<Storage> for llada_kernels::DType {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Self::F32,
            Storage::Bf16 => Self::Bf16,
            Storage::F16 => Self::F16,
        }
    }
}
