//! Random weights in their storage type, for measuring speed: a model of any size is made in about
//! the memory that its file would need.

use std::sync::Arc;

use llada_kernels::{Cpu, DType, Mapping, WeightView};

use super::{Formats, Init, Layout, Model, Tensor, TensorSpec, initial, numbers};
use crate::{
    Result,
    config::{Experts, Family, ModelConfig, QkNorm, SpecialTokens},
    rng::{Purpose, Stream},
};

/// Weights of a matrix that are drawn one by one; a longer matrix repeats runs of them in random
/// order. A power of two, and whole blocks of every format.
const DISTINCT: usize = 1 << 17;

/// Runs that a task copies.
const CHUNK: usize = 1 << 12;

/// Weights of a run in a storage type without blocks.
const RUN: usize = 32;

impl Model {
    /// Random weights, the same for the same seed: matrices of a normal with σ = 1/√fan-in, norms of
    /// ones, biases of zeros. Matrices are stored as `formats` says (or, where their width is no
    /// whole number of blocks, as [`Formats::of_each`] does), and never exist as `f32`. Logits are
    /// finite and of about unit variance, and nothing that a real model's speed depends on is
    /// missing: blocks are those that the quantisers make.
    ///
    /// # Errors
    /// When the configuration contradicts itself, or the memory is refused.
    pub fn random(config: ModelConfig, formats: &Formats, seed: u64, cpu: &Cpu) -> Result<Self> {
        config.check()?;
        let layout = Layout::new(&config);
        let specs = layout.specs().iter().zip(formats.of_each(&layout)).enumerate();
        let tensors = specs
            .map(|(i, (spec, dtype))| tensor(cpu, spec, dtype, seed, i as u64))
            .collect::<Result<_>>()?;
        Ok(Self { config, tensors })
    }
}

fn tensor(cpu: &Cpu, spec: &TensorSpec, dtype: DType, seed: u64, index: u64) -> Result<Tensor> {
    let (Init::Normal(_), Some(&width)) = (spec.init, spec.shape.last()) else {
        return Ok(Tensor::Owned(fresh(spec, seed, index)));
    };
    let drawn = TensorSpec {
        shape: vec![spec.len().min(DISTINCT)],
        init: Init::Normal(1.0 / (width as f32).sqrt()),
        ..spec.clone()
    };
    let drawn = stored(cpu, &fresh(&drawn, seed, index), dtype)?;
    let bytes = match dtype.bytes(spec.len()) {
        Some(bytes) if bytes > drawn.len() => bytes,
        _ => drawn.len(),
    };
    let memory = Mapping::filled(bytes, |out| match out.len() == drawn.len() {
        true => out.copy_from_slice(&drawn),
        false => repeat(cpu, &drawn, dtype, &|| Stream::new(seed, Purpose::Init, index), out),
    })?;
    let whole = Tensor::mapped(Arc::new(memory), 0..bytes, dtype);
    Ok(whole.unwrap_or_else(|| Tensor::Owned(fresh(spec, seed, index))))
}

/// The initial values of a parameter.
fn fresh(spec: &TensorSpec, seed: u64, index: u64) -> Vec<f32> {
    let mut values = vec![0.0; spec.len()];
    initial(spec, seed, index, &mut values);
    values
}

/// The bytes of `values`, which are finite and whole blocks.
fn stored(cpu: &Cpu, values: &[f32], dtype: DType) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match dtype {
        DType::Blocks(format) => {
            bytes.resize(format.bytes(values.len()).unwrap_or(0), 0);
            format.quantize(cpu, values, &mut bytes)?;
        }
        // A normal cut at 3σ is finite in every type.
        _ => drop(numbers::encode(WeightView::F32(values), dtype, &mut bytes)),
    }
    Ok(bytes)
}

/// Fills `out` with runs of `drawn` in random order, which depends on the place of each alone.
fn repeat(
    cpu: &Cpu,
    drawn: &[u8],
    dtype: DType,
    stream: &(dyn Fn() -> Stream + Sync),
    out: &mut [u8],
) {
    let weights = match dtype {
        DType::Blocks(format) => format.block_len(),
        _ => RUN,
    };
    let (runs, size) = (DISTINCT / weights, drawn.len() / (DISTINCT / weights));
    cpu.chunks(out, CHUNK * size, |chunk, out| {
        let mut stream = stream();
        // Far behind the draws of the weights themselves.
        stream.seek((chunk as u64 + 1) << 32);
        for out in out.chunks_mut(size) {
            let run = stream.bits() as usize % runs;
            out.copy_from_slice(&drawn[run * size..][..out.len()]);
        }
    });
}

/// A shape that speed is measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 135 M parameters, 110 M of them in products: 12 blocks of width 768, 32768 tokens.
    M100,
    /// 1.3 B parameters: 16 blocks of width 2048, and LLaDA's vocabulary.
    B1,
    /// LLaDA-MoE-7B-A1B: 16 blocks of width 2048 with 64 experts, 8 for each token.
    Moe7,
    /// LLaDA-8B: 32 blocks of width 4096.
    B8,
}

impl Shape {
    /// Every shape, smallest first.
    pub const ALL: [Self; 4] = [Self::M100, Self::B1, Self::Moe7, Self::B8];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::M100 => "100m",
            Self::B1 => "1b",
            Self::Moe7 => "moe-7b",
            Self::B8 => "8b",
        }
    }

    /// A configuration of these sizes. The last token of the vocabulary is the mask, and no token
    /// ends a text: a response of random weights is as long as it may be.
    pub fn config(self) -> ModelConfig {
        let (d_model, n_layers, n_heads, mlp_hidden_size, vocab_size) = match self {
            Self::M100 => (768, 12, 12, 2048, 32768),
            Self::B1 => (2048, 16, 16, 5632, 126464),
            Self::Moe7 => (2048, 16, 16, 0, 157184),
            Self::B8 => (4096, 32, 32, 12288, 126464),
        };
        let tokens =
            SpecialTokens { mask: Some(vocab_size as u32 - 1), ..SpecialTokens::default() };
        let config = ModelConfig::llada(d_model, n_layers, n_heads, mlp_hidden_size, vocab_size);
        let config = ModelConfig { tokens, ..config };
        match self {
            Self::Moe7 => ModelConfig {
                family: Family::LladaMoe,
                qk_norm: QkNorm::PerHead,
                experts: Some(Experts::llada_moe(64, 8, 1024, n_layers)),
                ..config
            },
            _ => config,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        checkpoint::{self, gguf},
        model::{Batch, MaskPredictor},
        tokenizer::TokenizerFiles,
    };
    use llada_kernels::BlockFormat;

    /// Wide enough for blocks of 256, with an embedding of more than [`DISTINCT`] weights.
    fn config() -> ModelConfig {
        ModelConfig {
            n_kv_heads: 2,
            max_sequence_length: 16,
            qkv_bias: true,
            ..ModelConfig::llada(256, 1, 4, 256, 600)
        }
    }

    fn dtypes() -> impl Iterator<Item = DType> {
        [DType::F32, DType::Bf16, DType::F16].into_iter().chain(BlockFormat::ALL.map(DType::Blocks))
    }

    fn bytes(model: &Model) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for tensor in model.tensors.iter() {
            let mut bytes = Vec::new();
            numbers::encode(tensor, tensor.dtype(), &mut bytes).unwrap();
            all.push(bytes);
        }
        all
    }

    #[test]
    fn a_seed_gives_the_same_weights_on_any_number_of_threads() {
        let random = |formats, seed, threads| {
            bytes(&Model::random(config(), &formats, seed, &Cpu::new(threads).unwrap()).unwrap())
        };
        for dtype in [DType::Bf16, DType::Blocks(BlockFormat::Q4K)] {
            let formats = Formats::all(dtype);
            let (one, two) = (random(formats, 7, 1), random(formats, 7, 2));
            assert!(one == two, "{dtype:?}");
            let other = random(formats, 8, 1);
            let wte = Layout::new(&config()).wte;
            assert!(one[wte] != other[wte] && one[wte].len() == other[wte].len());
        }
    }

    #[test]
    fn weights_have_their_format_size_and_variance() {
        let layout = Layout::new(&config());
        for dtype in dtypes() {
            let formats = Formats {
                blocks: dtype,
                embedding: DType::Blocks(BlockFormat::Q8_0),
                head: DType::F16,
            };
            let model = Model::random(config(), &formats, 1, &Cpu::new(1).unwrap()).unwrap();
            let all = layout.specs().iter().zip(formats.of_each(&layout)).zip(model.tensors.iter());
            for ((spec, dtype), tensor) in all {
                assert_eq!((tensor.dtype(), tensor.len()), (dtype, spec.len()));
                let values = tensor.to_f32();
                let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
                let expected = match spec.init {
                    Init::Ones => 1.0,
                    Init::Zeros => 0.0,
                    Init::Normal(_) => 1.0 / spec.shape[1] as f32,
                };
                let name = &spec.name;
                assert!((square - expected).abs() <= 0.06 * expected, "{name} {dtype:?} {square}");
            }
        }
    }

    #[test]
    fn rows_differ_and_logits_are_finite() {
        for dtype in dtypes() {
            let cpu = Cpu::new(2).unwrap();
            let model = Model::random(config(), &Formats::all(dtype), 3, &cpu).unwrap();
            let rows = model.tensors.get(Layout::new(&config()).wte).to_f32();
            let rows: BTreeSet<Vec<u32>> =
                rows.chunks(256).map(|row| row.iter().map(|x| x.to_bits()).collect()).collect();
            // One run of the longest blocks is a whole row here.
            assert!(rows.len() > 300, "{dtype:?}: {}", rows.len());
            let mut predictor = MaskPredictor::new(model, cpu).unwrap();
            let mut logits = Vec::new();
            let batch =
                Batch { tokens: &[1, 2, 3, 599, 599], starts: &[0, 5], attention_mask: None };
            predictor.logits(batch, &[3, 4], &mut logits).unwrap();
            let square = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
            assert!((0.5..1.6).contains(&square), "{dtype:?}: {square}");
        }
    }

    #[test]
    fn a_saved_model_computes_the_same() {
        let cpu = Cpu::new(1).unwrap();
        let formats = Formats::all(DType::Blocks(BlockFormat::Q4_0));
        // Without a bias it is what llama.cpp's architecture is.
        let config = ModelConfig { qkv_bias: false, ..config() };
        let model = Model::random(config, &formats, 3, &cpu).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("random.gguf");
        gguf::save(&model, &TokenizerFiles::default(), &path, &formats, &cpu).unwrap();
        let logits = |model| {
            let mut predictor = MaskPredictor::new(model, cpu.clone()).unwrap();
            let batch =
                Batch { tokens: &[1, 2, 3, 599, 599], starts: &[0, 5], attention_mask: None };
            let mut logits = Vec::new();
            predictor.logits(batch, &[3, 4], &mut logits).unwrap();
            logits
        };
        assert!(logits(checkpoint::load(&path).unwrap()) == logits(model));
    }

    #[test]
    fn shapes_are_consistent_and_impossible_ones_are_refused() {
        let millions = Shape::ALL.map(|shape| {
            shape.config().check().unwrap();
            shape.config().parameters() / 1_000_000
        });
        assert_eq!(millions, [135, 1340, 7356, 8015]);
        let odd = ModelConfig { n_heads: 3, ..config() };
        let formats = Formats::all(DType::F32);
        assert!(Model::random(odd, &formats, 0, &Cpu::new(1).unwrap()).is_err());
    }
}
