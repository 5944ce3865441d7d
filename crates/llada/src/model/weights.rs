//! The parameters of a mask predictor: their names and shapes, and where their numbers lie.

use std::{ops::Range, sync::Arc};

use llada_kernels::{DType, Mapping, WeightView};

use crate::config::{Family, ModelConfig};

/// How a parameter starts a training run (the reference's `mitchell` initialisation).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All ones (norms).
    Ones,
    /// All zeros (biases).
    Zeros,
    /// Normal of this standard deviation, truncated at three of them.
    Normal(f32),
}

/// Name and shape of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Name in the checkpoint.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Indices of one block's parameters in the [`Layout`].
#[derive(Debug, Clone)]
pub struct BlockIds {
    /// Norm before attention.
    pub attn_norm: usize,
    /// Query, key and value projections.
    pub qkv: [usize; 3],
    /// Their biases.
    pub qkv_bias: Option<[usize; 3]>,
    /// Norms of q and k.
    pub qk_norm: Option<[usize; 2]>,
    /// Output projection of attention.
    pub attn_out: usize,
    /// Norm before the feed-forward network.
    pub ff_norm: usize,
    /// Gate projection (`ff_proj`).
    pub gate: usize,
    /// Up projection.
    pub up: usize,
    /// Down projection (`ff_out` of the block).
    pub down: usize,
}

/// Every parameter of a model: order, names, shapes.
#[derive(Debug, Clone)]
pub struct Layout {
    specs: Vec<TensorSpec>,
    /// The embedding.
    pub wte: usize,
    /// The blocks.
    pub blocks: Vec<BlockIds>,
    /// The final norm.
    pub ln_f: usize,
    /// The LM head; `None` when tied to the embedding.
    pub head: Option<usize>,
}

impl Layout {
    /// The parameters of `config`, under the names of its family.
    pub fn new(config: &ModelConfig) -> Self {
        let names = Names(config.family);
        let (d, f) = (config.d_model, config.mlp_hidden_size);
        let (kv, vocab) = (config.kv_dim(), config.embedding_size);
        let mut specs = Vec::new();
        let mut add = |name: String, shape: &[usize], init| {
            specs.push(TensorSpec { name, shape: shape.to_vec(), init });
            specs.len() - 1
        };
        let normal = |fan_in: usize, layer_factor: f32| {
            Init::Normal(1.0 / ((fan_in as f32).sqrt() * layer_factor))
        };
        let wte = add(names.embedding(), &[vocab, d], normal(d, 1.0));
        let blocks = (0..config.n_layers)
            .map(|n| {
                let depth = (2.0 * (n + 1) as f32).sqrt();
                let mut block =
                    |part: &str, shape: &[usize], init| add(names.block(n, part), shape, init);
                let attn_norm = block("attn_norm.weight", &[d], Init::Ones);
                let qkv = [("q", d), ("k", kv), ("v", kv)].map(|(p, rows)| {
                    block(&format!("{p}_proj.weight"), &[rows, d], normal(d, 1.0))
                });
                let qkv_bias = config.qkv_bias.then(|| {
                    [("q", d), ("k", kv), ("v", kv)]
                        .map(|(p, rows)| block(&format!("{p}_proj.bias"), &[rows], Init::Zeros))
                });
                let qk_norm = config.qk_norm.then(|| {
                    [("q", d), ("k", kv)]
                        .map(|(p, width)| block(&format!("{p}_norm.weight"), &[width], Init::Ones))
                });
                BlockIds {
                    attn_norm,
                    qkv,
                    qkv_bias,
                    qk_norm,
                    attn_out: block("attn_out.weight", &[d, d], normal(d, depth)),
                    ff_norm: block("ff_norm.weight", &[d], Init::Ones),
                    gate: block("ff_proj.weight", &[f, d], normal(d, 1.0)),
                    up: block("up_proj.weight", &[f, d], normal(d, 1.0)),
                    down: block("ff_out.weight", &[d, f], normal(f, depth)),
                }
            })
            .collect();
        let ln_f = add(names.final_norm(), &[d], Init::Ones);
        let head = (!config.weight_tying).then(|| add(names.head(), &[vocab, d], normal(d, 1.0)));
        Self { specs, wte, blocks, ln_f, head }
    }

    /// Names and shapes, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// The matrix of the LM head: its own, or the embedding when tied.
    pub fn head_or_tied(&self) -> usize {
        self.head.unwrap_or(self.wte)
    }
}

/// The names that a family gives to its parameters.
struct Names(Family);

impl Names {
    fn embedding(&self) -> String {
        match self.0 {
            Family::Llada => "model.transformer.wte.weight".into(),
            Family::Illada => "model.embed_tokens.weight".into(),
        }
    }

    fn final_norm(&self) -> String {
        match self.0 {
            Family::Llada => "model.transformer.ln_f.weight".into(),
            Family::Illada => "model.norm.weight".into(),
        }
    }

    fn head(&self) -> String {
        match self.0 {
            Family::Llada => "model.transformer.ff_out.weight".into(),
            Family::Illada => "lm_head.weight".into(),
        }
    }

    /// The name of block `n`'s `part`, given as LLaDA calls it.
    fn block(&self, n: usize, part: &str) -> String {
        let Family::Illada = self.0 else {
            return format!("model.transformer.blocks.{n}.{part}");
        };
        let part = match part {
            "attn_norm.weight" => "input_layernorm.weight".into(),
            "ff_norm.weight" => "post_attention_layernorm.weight".into(),
            "attn_out.weight" => "self_attn.o_proj.weight".into(),
            "ff_proj.weight" => "mlp.gate_proj.weight".into(),
            "up_proj.weight" => "mlp.up_proj.weight".into(),
            "ff_out.weight" => "mlp.down_proj.weight".into(),
            attention => format!("self_attn.{attention}"),
        };
        format!("model.layers.{n}.{part}")
    }
}

/// The numbers of one parameter: owned `f32`, or bytes of a mapped file in their storage type.
#[derive(Debug, Clone)]
pub enum Tensor {
    /// Owned, and so trainable.
    Owned(Vec<f32>),
    /// A part of a mapped file. The bytes are aligned for `dtype`; [`Tensor::mapped`] checks.
    Mapped {
        /// The file.
        file: Arc<Mapping>,
        /// Its bytes that hold the tensor.
        bytes: Range<usize>,
        /// How they are stored.
        dtype: DType,
    },
}

impl Tensor {
    /// A tensor of a mapped file, little-endian as safetensors stores it. Where the bytes are not
    /// aligned (or the machine is big-endian) they are copied out as `f32`. `None` when `bytes`
    /// lies outside the file or is not a whole number of elements.
    pub fn mapped(file: Arc<Mapping>, bytes: Range<usize>, dtype: DType) -> Option<Self> {
        let slice = file.get(bytes.clone())?;
        dtype.len(slice.len())?;
        let aligned = slice.as_ptr().align_offset(dtype.align()) == 0;
        if aligned && (cfg!(target_endian = "little") || dtype.align() == 1) {
            return Some(Self::Mapped { file, bytes, dtype });
        }
        Some(Self::Owned(decode(slice, dtype)))
    }

    /// The numbers, in their storage type.
    pub fn view(&self) -> WeightView<'_> {
        match self {
            Self::Owned(values) => WeightView::F32(values),
            Self::Mapped { file, bytes, dtype } => {
                let slice = &file[bytes.clone()];
                match dtype {
                    DType::F32 => WeightView::F32(bytemuck::cast_slice(slice)),
                    DType::Bf16 => WeightView::Bf16(bytemuck::cast_slice(slice)),
                    DType::F16 => WeightView::F16(bytemuck::cast_slice(slice)),
                    DType::Blocks(format) => WeightView::Blocks { format: *format, bytes: slice },
                }
            }
        }
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Owned(_) => DType::F32,
            Self::Mapped { dtype, .. } => *dtype,
        }
    }

    /// The numbers as `f32`, copied.
    pub fn to_f32(&self) -> Vec<f32> {
        let view = self.view();
        let mut out = vec![0.0; view.len()];
        view.widen(&mut out);
        out
    }
}

fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match dtype {
        DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        DType::Bf16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_bits(pair(b)).to_f32()).collect()
        }
        DType::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_bits(pair(b)).to_f32()).collect()
        }
        DType::Blocks(format) => {
            let view = WeightView::Blocks { format, bytes };
            let mut out = vec![0.0; view.len()];
            view.widen(&mut out);
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada_kernels::{BlockFormat, Cpu};

    #[test]
    fn blocks_of_a_mapped_file_are_viewed_at_any_address() {
        let format = BlockFormat::Q4K;
        let weights: Vec<f32> = (0..512).map(|i| (i as f32).sin()).collect();
        let mut bytes = vec![0; format.bytes(512).unwrap()];
        format.quantize(&Cpu::new(1).unwrap(), &weights, &mut bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        std::fs::write(&path, [&[7; 3], &bytes[..]].concat()).unwrap();
        let file = Arc::new(Mapping::open(&path).unwrap());
        let end = 3 + bytes.len();
        let tensor = Tensor::mapped(file.clone(), 3..end, DType::Blocks(format)).unwrap();
        assert!(matches!(tensor, Tensor::Mapped { .. }));
        assert_eq!(tensor.dtype(), DType::Blocks(format));
        assert_eq!(tensor.view().bytes(), bytes.len());
        assert!(tensor.to_f32().iter().zip(weights).all(|(a, b)| (a - b).abs() < 0.1));
        for range in [3..end - 1, 3..end + 1, end..end + 144] {
            assert!(Tensor::mapped(file.clone(), range, DType::Blocks(format)).is_none());
        }
    }
}
