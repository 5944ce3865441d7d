//! The flags of `llada convert` and `llada quantize`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use llada_kernels::{BlockFormat, DType};

use super::{NO_STREAM, SourceArg, Threads, merge::Storage, place, with_tip};

/// `llada convert`.
#[derive(Debug, Args)]
pub struct Convert {
    #[command(flatten)]
    pub model: SourceArg,
    /// What to write: one GGUF file where the name ends in `.gguf`, a folder otherwise
    #[arg(short, long, value_name = "PATH", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// How to store the matrices [default: as the model does; bf16 in place of quantised ones]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub dtype: Option<Storage>,
    /// Replace what is there
    #[arg(long, alias = "overwrite")]
    pub force: bool,
}

/// `llada quantize`.
#[derive(Debug, Args)]
pub struct Quantize {
    #[command(flatten)]
    pub model: SourceArg,
    /// The GGUF file to write
    #[arg(short, long, value_name = "FILE.gguf", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// Format of the matrices in the blocks: q8_0, q6_k, q4_k, q4_0
    #[arg(long, value_name = "FORMAT", value_parser = asked)]
    pub format: Asked,
    /// Format of the embedding
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "q8_0")]
    pub embedding: Format,
    /// Format of the LM head, where the model has one of its own [default: q8_0]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub head: Option<Format>,
    /// Replace the file
    #[arg(long, alias = "overwrite")]
    pub force: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// A format as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The format.
    pub format: Format,
    /// The name that llama.cpp has for a mixture of it and others, if that is what was asked for.
    pub mixture: Option<String>,
}

/// Reads a format in any case.
fn asked(text: &str) -> Result<Asked, String> {
    let name = text.to_ascii_lowercase();
    let format = Format::from_str(&name, true).map_err(|_| {
        let known = Format::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
        with_tip(&format!("unknown format `{text}`"), &format!("use one of: {}", known.join(", ")))
    })?;
    let is_mixture = name.ends_with("_k_m") || name.ends_with("_k_s");
    Ok(Asked { format, mixture: is_mixture.then_some(name) })
}

/// Formats of a matrix in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Format {
    /// 8.5 bits: as good as not quantised.
    #[value(name = "q8_0", alias = "q8")]
    Q8_0,
    /// 6.6 bits.
    #[value(name = "q6_k")]
    Q6K,
    /// 4.5 bits, the better of the two.
    #[value(name = "q4_k", aliases = ["q4_k_m", "q4_k_s"])]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_read_in_any_case_and_by_the_names_of_mixtures() {
        let plain = |format| Ok(Asked { format, mixture: None });
        assert_eq!(asked("Q4_K"), plain(Format::Q4K));
        assert_eq!(asked("q8_0"), plain(Format::Q8_0));
        let mixture = Some("q4_k_m".to_owned());
        assert_eq!(asked("Q4_K_M"), Ok(Asked { format: Format::Q4K, mixture }));
        assert!(asked("q5_k_m").unwrap_err().contains("tip: use one of: q8_0, q6_k, q4_k"));
    }
}
