//! The mask predictor p_θ(·|x_t): a transformer without a causal mask that, as Eq. 11 allows, is
//! not told the time t. The causal baseline of Eq. 2 is the same code under another mask.

mod arena;
mod batch;
mod block;
mod cache;
mod feed_forward;
mod formats;
mod layout;
pub(crate) mod lora;
pub(crate) mod numbers;
mod pass;
mod predictor;
mod random;
mod router;
mod sequences;
mod tensors;
mod weights;

pub use arena::Arena;
pub use batch::{Batch, Ragged};
pub(crate) use block::FFN_CHUNK;
pub use cache::{KvCache, Reuse, SequenceId};
pub use formats::Formats;
pub use layout::{BlockIds, ExpertIds, FeedForwardIds, Fused, Init, Layout, SwigluIds, TensorSpec};
pub use lora::{Adapter, LowRank};
pub use predictor::MaskPredictor;
pub(crate) use predictor::{Output, Wanted, tile_rows};
pub use random::Shape;
pub use router::{Load, balance_loss};
pub use sequences::{CachedSequence, Feed, Opened};
pub use tensors::Tensors;
pub use weights::Tensor;

use crate::{
    Result,
    config::ModelConfig,
    rng::{Purpose, Stream},
};

/// Which positions are scored, against what, and how much each counts in the loss.
#[derive(Debug, Clone, Copy, Default)]
pub struct Targets<'a> {
    /// Indices into the batch's tokens: the positions whose logits predict.
    pub positions: &'a [usize],
    /// The token that each should predict.
    pub tokens: &'a [u32],
    /// ∂loss/∂nll of each; the loss is Σ weight · nll.
    pub weights: &'a [f32],
    /// What the load-balancing loss of the experts counts beside it; 0 leaves it out.
    pub balance: f64,
    /// A token whose logit is left out of the soft-max, and which is no target: the mask.
    pub excluded: Option<u32>,
    /// What the mean entropy of the positions counts beside it at which the most probable token is the
    /// one that they should predict (CAP, confidence-aware parallel training, as dFactory has it); 0
    /// leaves it out.
    pub cap: f64,
}

/// What a model refuses.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The tensors are not those of the configuration.
    #[error("the model has {found} tensors, its configuration needs {expected}")]
    Tensors {
        /// Tensors that the configuration needs.
        expected: usize,
        /// Tensors found.
        found: usize,
    },
    /// One tensor has another size than its configuration says.
    #[error("tensor `{name}` has {found} elements, its configuration needs {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// Elements that the configuration needs.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// A batch contradicts itself.
    #[error("malformed batch: {0}")]
    Batch(String),
    /// A sequence is longer than the model was made for.
    #[error("a sequence of {found} tokens is longer than the model's {limit}")]
    TooLong {
        /// Tokens of the sequence.
        found: usize,
        /// `max_sequence_length`.
        limit: usize,
    },
    /// Tokens that do not follow on what their cache holds.
    #[error("tokens from position {first} on were given to a cache that ends at {len}")]
    Gap {
        /// Position of the first token.
        first: usize,
        /// Positions that the cache holds.
        len: usize,
    },
    /// A sequence that outgrows its cache.
    #[error("a sequence of {found} tokens does not fit a cache of {capacity}")]
    CacheFull {
        /// Tokens of the sequence.
        found: usize,
        /// Positions that the cache has room for.
        capacity: usize,
    },
    /// A sequence that was never opened, was closed, or comes twice in one pass.
    #[error("no keys and values are cached under this name, or they were asked for twice")]
    Sequence,
    /// A token that the model has no embedding of.
    #[error("token {token} lies beyond the model's vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// The weights are mapped from a file and cannot be trained in place.
    #[error("tensor `{0}` is mapped from a file and cannot be changed")]
    NotTrainable(String),
    /// No matrix of the blocks has the name that an adapter is asked for.
    #[error("the blocks of this model have no matrix `{found}`")]
    Target {
        /// The name.
        found: String,
        /// Those that there are.
        known: String,
    },
    /// An adapter would have a rank that its matrix does not have.
    #[error("adapters of rank {found} do not fit `{name}`, whose rank is at most {most}")]
    Rank {
        /// The rank asked for.
        found: usize,
        /// The matrix.
        name: String,
        /// The most that fits.
        most: usize,
    },
}

impl ModelError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooLong { .. } => Some("shorten the prompt or lower --gen-length".into()),
            Self::Target { known, .. } => Some(format!("`lora.targets` can be {known}")),
            Self::Rank { most, .. } => Some(format!("set `lora.rank` to 1 up to {most}")),
            Self::Gap { len, .. } => Some(format!("give all tokens from position {len} on")),
            Self::CacheFull { found, .. } => {
                Some(format!("make the cache with a capacity of {found} or more"))
            }
            Self::Sequence => Some("open the sequence first, and name it once a pass".into()),
            Self::Token { .. } => Some("encode the text with the model's own tokenizer".into()),
            _ => None,
        }
    }
}

/// A configuration with its numbers.
#[derive(Debug, Clone)]
pub struct Model {
    /// Sizes and options.
    pub config: ModelConfig,
    /// The numbers of each spec of `Layout::new(&config)`, in that order.
    pub tensors: Tensors,
}

impl Model {
    /// Fresh weights, the same for the same seed: the reference's `mitchell` initialisation, a
    /// normal of σ = 1/√fan-in cut at 3σ, the maps into the residual stream of block n smaller by
    /// √(2(n + 1)).
    pub fn init(config: ModelConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let layout = Layout::new(&config);
        let mut arena = Arena::zeros(layout.lengths());
        for (i, spec) in layout.specs().iter().enumerate() {
            initial(spec, seed, i as u64, &mut arena[i]);
        }
        Ok(Self { config, tensors: arena.into() })
    }

    /// Copies all numbers into one allocation as `f32`, so that the model can be trained.
    pub fn into_trainable(mut self) -> Self {
        self.tensors.flatten();
        self
    }
}

/// Fills `out` with the initial values of a parameter.
fn initial(spec: &TensorSpec, seed: u64, index: u64, out: &mut [f32]) {
    let sigma = match spec.init {
        Init::Ones => return out.fill(1.0),
        Init::Zeros => return out.fill(0.0),
        Init::Normal(sigma) => f64::from(sigma),
    };
    let mut stream = Stream::new(seed, Purpose::Init, index);
    let mut truncated = || {
        loop {
            let x = stream.normal();
            if x.abs() <= 3.0 {
                return (x * sigma) as f32;
            }
        }
    };
    out.iter_mut().for_each(|x| *x = truncated());
}

/// The gradients of all parameters, in the order of the [`Layout`].
#[derive(Debug, Clone)]
pub struct Gradients(pub Arena);

impl Gradients {
    /// Zeros of the model's shapes.
    pub fn zeros(model: &Model) -> Self {
        Self(Arena::zeros(Layout::new(&model.config).lengths()))
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        self.0.values_mut().fill(0.0);
    }
}
