//! The parameters of a mask predictor: their order, names and shapes.

use crate::config::{
    Experts, ModelConfig, QkNorm, RouterBias,
    family::{Matrix, Parameter, Part, Projection},
};

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
    /// Which parameter it is.
    pub parameter: Parameter,
    /// Name of its tensor in the checkpoint.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// Where its rows are, if a checkpoint keeps several parameters as one tensor.
    pub fused: Option<Fused>,
}

/// Rows of a tensor that is several parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fused {
    /// The first row of the parameter.
    pub first: usize,
    /// Rows of the tensor.
    pub rows: usize,
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

    /// The shape of its tensor in the checkpoint.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let (Some(fused), Some(rows)) = (self.fused, shape.first_mut()) {
            *rows = fused.rows;
        }
        shape
    }

    /// A name that no other parameter has: that of its tensor, and where it begins in one of several.
    pub fn own_name(&self) -> String {
        match self.fused {
            Some(fused) => format!("{}.{}", self.name, fused.first),
            None => self.name.clone(),
        }
    }

    /// Whether it is the first parameter of its tensor in the checkpoint.
    pub fn begins_tensor(&self) -> bool {
        self.fused.is_none_or(|fused| fused.first == 0)
    }
}

/// Indices of the matrices of one SwiGLU network in the [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SwigluIds {
    /// Gate projection.
    pub gate: usize,
    /// Up projection.
    pub up: usize,
    /// Down projection.
    pub down: usize,
}

impl SwigluIds {
    /// All, in the order of the layout.
    pub fn all(&self) -> [usize; 3] {
        [self.gate, self.up, self.down]
    }
}

/// Indices of the parameters of one feed-forward network.
#[derive(Debug, Clone)]
pub enum FeedForwardIds {
    /// One SwiGLU network.
    Dense(SwigluIds),
    /// A mixture of them.
    Experts(ExpertIds),
}

/// Indices of the parameters of a mixture of experts.
#[derive(Debug, Clone)]
pub struct ExpertIds {
    /// The router's matrix.
    pub router: usize,
    /// Its bias.
    pub bias: Option<usize>,
    /// Each expert.
    pub experts: Vec<SwigluIds>,
    /// The network that every token goes through.
    pub shared: Option<SwigluIds>,
}

impl FeedForwardIds {
    /// The SwiGLU networks, in the order of the layout.
    pub fn networks(&self) -> impl Iterator<Item = SwigluIds> {
        let (dense, experts) = match self {
            Self::Dense(dense) => (Some(*dense), None),
            Self::Experts(ids) => (None, Some(ids)),
        };
        let experts = experts.map(|ids| ids.experts.iter().copied().chain(ids.shared));
        dense.into_iter().chain(experts.into_iter().flatten())
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
    /// The feed-forward network.
    pub ff: FeedForwardIds,
}

impl BlockIds {
    /// The matrices that can be adapted, in the order of the layout: those of attention and of the
    /// SwiGLU networks.
    pub fn matrices(&self) -> impl Iterator<Item = usize> {
        let networks = self.ff.networks().flat_map(|network| network.all());
        self.qkv.into_iter().chain([self.attn_out]).chain(networks)
    }
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
        let mut specs = Specs { config, specs: Vec::new() };
        let (d, vocab) = (config.d_model, config.embedding_size);
        let wte = specs.add(Parameter::Embedding, &[vocab, d], normal(d, 1.0));
        let blocks = (0..config.n_layers).map(|n| specs.block(n)).collect();
        let ln_f = specs.add(Parameter::FinalNorm, &[d], Init::Ones);
        let head = !config.weight_tying;
        let head = head.then(|| specs.add(Parameter::Head, &[vocab, d], normal(d, 1.0)));
        Self { specs: specs.specs, wte, blocks, ln_f, head }
    }

    /// Names and shapes, in order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Numbers of each, in order: what lies in an [`Arena`](super::Arena) of them.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.specs.iter().map(TensorSpec::len)
    }

    /// The matrix of the LM head: its own, or the embedding when tied.
    pub fn head_or_tied(&self) -> usize {
        self.head.unwrap_or(self.wte)
    }
}

impl ModelConfig {
    /// Parameters of the matrices and norms, embedding and head included.
    pub fn parameters(&self) -> usize {
        Layout::new(self).lengths().sum()
    }

    /// Those that one token goes through: without the experts that are not its own.
    pub fn active_parameters(&self) -> usize {
        let idle = self
            .experts
            .as_ref()
            .map_or(0, |e| e.layer_count() * (e.width() - e.active_width()) * 3 * self.d_model);
        self.parameters() - idle
    }
}

/// A normal of σ = 1/√fan-in, smaller by a factor for maps into the residual stream.
fn normal(fan_in: usize, layer_factor: f32) -> Init {
    Init::Normal(1.0 / ((fan_in as f32).sqrt() * layer_factor))
}

/// The parameters that are listed so far.
struct Specs<'a> {
    config: &'a ModelConfig,
    specs: Vec<TensorSpec>,
}

impl Specs<'_> {
    fn add(&mut self, parameter: Parameter, shape: &[usize], init: Init) -> usize {
        let name = self.config.family.name(parameter);
        self.specs.push(TensorSpec { parameter, name, shape: shape.to_vec(), init, fused: None });
        self.specs.len() - 1
    }

    fn block(&mut self, n: usize) -> BlockIds {
        let config = self.config;
        let (d, q, kv) = (config.d_model, config.q_dim(), config.kv_dim());
        let depth = (2.0 * (n + 1) as f32).sqrt();
        let of = |part| Parameter::Block(n, part);
        let attn_norm = self.add(of(Part::AttnNorm), &[d], Init::Ones);
        let widths = [q, kv, kv];
        let parts = [0, 1, 2].map(|i| (Projection::ALL[i], widths[i]));
        let qkv = parts.map(|(p, rows)| self.add(of(Part::Weight(p)), &[rows, d], normal(d, 1.0)));
        let bias = |specs: &mut Self| {
            parts.map(|(p, rows)| specs.add(of(Part::Bias(p)), &[rows], Init::Zeros))
        };
        let qkv_bias = config.qkv_bias.then(|| bias(self));
        if config.family.fuses_qkv() {
            for ids in [Some(qkv), qkv_bias].into_iter().flatten() {
                let (mut first, rows) = (0, widths.iter().sum());
                for (id, width) in ids.into_iter().zip(widths) {
                    self.specs[id].fused = Some(Fused { first, rows });
                    first += width;
                }
            }
        }
        let widths = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::Whole => Some([(Projection::Q, q), (Projection::K, kv)]),
            QkNorm::PerHead => Some([Projection::Q, Projection::K].map(|p| (p, config.head_dim))),
        };
        let qk_norm =
            widths.map(|norms| norms.map(|(p, n)| self.add(of(Part::Norm(p)), &[n], Init::Ones)));
        let attn_out = self.add(of(Part::AttnOut), &[d, q], normal(q, depth));
        let ff_norm = self.add(of(Part::FfNorm), &[d], Init::Ones);
        let ff = match &config.experts {
            Some(experts) if config.has_experts(n) => {
                FeedForwardIds::Experts(self.experts(n, experts, depth))
            }
            _ => FeedForwardIds::Dense(self.swiglu(n, config.mlp_hidden_size, depth, &Part::Dense)),
        };
        BlockIds { attn_norm, qkv, qkv_bias, qk_norm, attn_out, ff_norm, ff }
    }

    fn experts(&mut self, n: usize, experts: &Experts, depth: f32) -> ExpertIds {
        let (d, count) = (self.config.d_model, experts.count);
        let of = |part| Parameter::Block(n, part);
        let router = self.add(of(Part::Router), &[count, d], normal(d, 1.0));
        let bias = experts.router.bias != RouterBias::None;
        let bias = bias.then(|| self.add(of(Part::RouterBias), &[count], Init::Zeros));
        let width = experts.hidden_size;
        let all = (0..count)
            .map(|e| self.swiglu(n, width, depth, &move |matrix| Part::Expert(e, matrix)))
            .collect();
        let shared = experts.shared_hidden_size;
        let shared = (shared > 0).then(|| self.swiglu(n, shared, depth, &Part::Shared));
        ExpertIds { router, bias, experts: all, shared }
    }

    fn swiglu(
        &mut self,
        n: usize,
        width: usize,
        depth: f32,
        part: &dyn Fn(Matrix) -> Part,
    ) -> SwigluIds {
        let d = self.config.d_model;
        let mut add = |matrix, shape: &[usize], init| {
            self.add(Parameter::Block(n, part(matrix)), shape, init)
        };
        SwigluIds {
            gate: add(Matrix::Gate, &[width, d], normal(d, 1.0)),
            up: add(Matrix::Up, &[width, d], normal(d, 1.0)),
            down: add(Matrix::Down, &[d, width], normal(width, depth)),
        }
    }
}
