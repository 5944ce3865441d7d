//! What a mask predictor computes, whatever its family calls it.

use super::{MAX_DIMENSION, MOST_LAYERS, Result, wrong};

/// No real layer has as many; a larger number in a file is damage or malice.
const MOST_EXPERTS: usize = 1 << 12;

/// Which tokens of its sequence a token attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionMask {
    /// All of them.
    Bidirectional,
    /// Itself and those before it.
    Causal,
    /// Those of its own block and of the blocks before it. Blocks count from position 0.
    BlockCausal {
        /// Tokens of a block.
        block_length: usize,
    },
}

impl AttentionMask {
    /// Tokens of a block, where attention is block-causal.
    pub fn block_length(self) -> Option<usize> {
        match self {
            Self::BlockCausal { block_length } => Some(block_length),
            Self::Bidirectional | Self::Causal => None,
        }
    }
}

/// Whose published sampler the models of a family come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedSampler {
    /// `generate()` of LLaDA.
    Llada,
    /// `diffusion_generate()` of Dream.
    Dream,
    /// `generate()` of LLaDA2.0, and with edits that of LLaDA2.1.
    Llada2,
    /// `block_diffusion_generate()` of SDAR.
    Sdar,
    /// `generate()` of Fast-dLLM v2.
    FastDllmV2,
}

impl PublishedSampler {
    /// Where the rules are from that the preset [`balanced`](crate::diffusion::Preset::Balanced) has for
    /// its models.
    pub fn source(self) -> &'static str {
        match self {
            Self::Llada => "Fast-dLLM, arXiv 2505.22618",
            Self::Dream => "Dream, arXiv 2508.15487; Fast-dLLM, arXiv 2505.22618",
            Self::Llada2 => "the card of LLaDA2.0; arXiv 2512.15745",
            Self::Sdar => "the defaults of SDAR's `generate.py`; arXiv 2510.06303",
            Self::FastDllmV2 => "the card of Fast-dLLM v2; arXiv 2509.26328",
        }
    }
}

/// Which position a row of the logits predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitShift {
    /// Its own.
    Same,
    /// The next one: the token at i is predicted by row i − 1 of the logits. There is none before the
    /// first, which row 0 predicts as well as the second (Dream's `cat(l[:, :1], l[:, :-1])`).
    Next,
}

impl LogitShift {
    /// The row of a sequence's logits that predicts the token at `position`.
    pub fn row(self, position: usize) -> usize {
        match self {
            Self::Same => position,
            Self::Next => position.saturating_sub(1),
        }
    }
}

/// What of the queries and keys is normalised, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// All heads together.
    Whole,
    /// Each head alone, all with the same weights.
    PerHead,
}

/// A mixture of experts in place of the feed-forward network.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that a token goes through.
    pub per_token: usize,
    /// Width of each expert's SwiGLU.
    pub hidden_size: usize,
    /// Width of the SwiGLU that every token goes through beside its experts; 0 is none.
    pub shared_hidden_size: usize,
    /// How the experts of a token are chosen, and what each counts.
    pub router: Router,
    /// One flag for each layer: whether it has experts, or a dense network of `mlp_hidden_size`.
    pub layers: Vec<bool>,
}

impl Experts {
    /// Experts as LLaDA-MoE has them, in every one of `n_layers` layers.
    pub fn llada_moe(count: usize, per_token: usize, hidden_size: usize, n_layers: usize) -> Self {
        let layers = vec![true; n_layers.min(MOST_LAYERS)];
        let router = Router::SOFTMAX;
        Self { count, per_token, hidden_size, shared_hidden_size: 0, router, layers }
    }

    /// Layers that have experts.
    pub fn layer_count(&self) -> usize {
        self.layers.iter().filter(|&&has| has).count()
    }

    /// The width of all networks of a layer together.
    pub fn width(&self) -> usize {
        self.count * self.hidden_size + self.shared_hidden_size
    }

    /// The width of those together that a token goes through.
    pub fn active_width(&self) -> usize {
        self.per_token * self.hidden_size + self.shared_hidden_size
    }

    /// Checks that the numbers fit each other and the `n_layers` layers.
    pub(super) fn check(&self, n_layers: usize) -> Result<()> {
        let Self { count, per_token, router, .. } = self;
        if !(1..=MOST_EXPERTS).contains(count) {
            return Err(wrong("num_experts", count, format!("1 to {MOST_EXPERTS}")));
        }
        if !(1..=*count).contains(per_token) {
            return Err(wrong("num_experts_per_tok", per_token, format!("1 to {count} experts")));
        }
        for (key, size) in [
            ("expert_intermediate_size", self.hidden_size),
            ("shared_expert_intermediate_size", self.shared_hidden_size),
        ] {
            let least = usize::from(key.starts_with("expert"));
            if size < least || size as u64 > MAX_DIMENSION {
                return Err(wrong(key, size, format!("{least} to {MAX_DIMENSION}")));
            }
        }
        if router.groups == 0 || !count.is_multiple_of(router.groups) {
            return Err(wrong("n_group", router.groups, format!("a divisor of {count} experts")));
        }
        if !(1..=router.groups).contains(&router.groups_per_token) {
            let expected = format!("1 to {} groups", router.groups);
            return Err(wrong("topk_group", router.groups_per_token, expected));
        }
        let size = count / router.groups;
        if router.groups > 1 && (size < 2 || router.groups_per_token * size < *per_token) {
            let expected =
                format!("groups of two experts or more, {per_token} in those of a token");
            return Err(wrong("n_group", router.groups, expected));
        }
        if self.layers.len() != n_layers {
            let expected = format!("one entry for each of {n_layers} layers");
            return Err(wrong("moe_layer_freq", self.layers.len(), expected));
        }
        match router.scale.is_finite() && router.scale > 0.0 {
            true => Ok(()),
            false => Err(wrong("routed_scaling_factor", router.scale, "a positive number")),
        }
    }
}

/// How the experts of a token are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// What makes scores of the router's logits.
    pub score: Score,
    /// A learned number that is added to the score of each expert.
    pub bias: RouterBias,
    /// Groups of neighbouring experts; 1 is none. A group scores the sum of its best two experts.
    pub groups: usize,
    /// Groups that a token chooses its experts from.
    pub groups_per_token: usize,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalise: bool,
    /// Factor on the weights.
    pub scale: f32,
}

impl Router {
    /// The soft-max over all experts, whose best count as they are.
    pub const SOFTMAX: Self = Self {
        score: Score::Softmax,
        bias: RouterBias::None,
        groups: 1,
        groups_per_token: 1,
        normalise: false,
        scale: 1.0,
    };
}

/// What makes scores of the router's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Score {
    /// The soft-max over all experts.
    Softmax,
    /// The logistic function of each.
    Sigmoid,
}

/// What the router's bias is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterBias {
    /// There is none.
    None,
    /// The scores by which experts are chosen, not the weights that they get.
    Selection,
    /// Both.
    SelectionAndWeights,
}
