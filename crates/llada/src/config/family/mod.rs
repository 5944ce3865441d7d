//! The families of checkpoints: how each calls the keys of its `config.json` and its tensors. What
//! they compute is data, a [`ModelConfig`]; nothing outside of this folder asks for a family.

mod dream;
mod fast_dllm_v2;
mod illada;
mod llada;
mod llada2;
mod llada_moe;
mod llama;
mod sdar;

use serde_json::Value;

use super::{AttentionMask, ModelConfig, PublishedSampler, QkNorm, Result, keys::Keys};

/// Whose names and conventions a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LLaDA-8B, LLaDA-1.5: OLMo's keys and names (`model.transformer.blocks.N.…`).
    Llada,
    /// iLLaDA: Llama's keys and names (`model.layers.N.…`), the same mathematics.
    Illada,
    /// LLaDA-MoE: OLMoE's keys and names.
    LladaMoe,
    /// Dream, Dream-Coder, DiffuCoder: Qwen2's keys and names, logits for the next position.
    Dream,
    /// LLaDA2.0, 2.1: experts, and block-causal attention.
    Llada2,
    /// SDAR: Qwen3's keys and names, block-causal attention.
    Sdar,
    /// Fast-dLLM v2: Qwen2.5's keys and names, block-causal attention, logits for the next position.
    FastDllmV2,
}

/// A parameter, whatever a checkpoint calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// The embedding.
    Embedding,
    /// The norm before the LM head.
    FinalNorm,
    /// The LM head.
    Head,
    /// A part of the block of this number.
    Block(usize, Part),
}

/// A parameter of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Norm before attention.
    AttnNorm,
    /// The matrix of a projection.
    Weight(Projection),
    /// Its bias.
    Bias(Projection),
    /// Norm of the queries or keys.
    Norm(Projection),
    /// Output projection of attention.
    AttnOut,
    /// Norm before the feed-forward network.
    FfNorm,
    /// A matrix of the dense feed-forward network.
    Dense(Matrix),
    /// A matrix of the expert of this number.
    Expert(usize, Matrix),
    /// A matrix of the network that every token goes through beside its experts.
    Shared(Matrix),
    /// The matrix whose product with a token gives the logits of its experts.
    Router,
    /// What is added to the scores of the experts.
    RouterBias,
}

/// A projection of attention's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projection {
    /// The queries.
    Q,
    /// The keys.
    K,
    /// The values.
    V,
}

impl Projection {
    /// All, in the order in which they are computed and stored.
    pub const ALL: [Self; 3] = [Self::Q, Self::K, Self::V];

    /// Its letter.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Q => 'q',
            Self::K => 'k',
            Self::V => 'v',
        }
    }
}

/// A matrix of a SwiGLU network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// The one whose product is activated.
    Gate,
    /// The one whose product is multiplied by that.
    Up,
    /// The one that leads back into the residual stream.
    Down,
}

impl Matrix {
    /// Its name in most families: `gate`, `up`, `down`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// llama.cpp's name of LLaDA, where a model is no more than its code computes.
fn plain_gguf(config: &ModelConfig) -> Option<&'static str> {
    let is_plain = !config.qkv_bias
        && config.qk_norm == QkNorm::None
        && !config.scale_logits
        && !config.input_emb_norm
        && config.attention == AttentionMask::Bidirectional;
    is_plain.then_some("llada")
}

/// How one family writes its models down.
trait Convention: Sync {
    /// Names of its class in `architectures`; the first is written.
    fn classes(&self) -> &'static [&'static str];

    /// Its name in one word.
    fn word(&self) -> &'static str;

    /// The models that have it, for messages.
    fn models(&self) -> &'static str;

    /// The model that the keys of a `config.json` describe.
    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig>;

    /// Keys of the computation that [`read`](Self::read) looks at itself, or that change nothing.
    fn judged(&self) -> &'static [&'static str];

    /// Refuses a model that the family's files cannot describe.
    fn check(&self, _: &ModelConfig) -> Result<()> {
        Ok(())
    }

    /// The `config.json` of a model.
    fn write(&self, config: &ModelConfig) -> Value;

    /// What llama.cpp calls the architecture; `None` where its code would compute something else.
    fn gguf(&self, _: &ModelConfig) -> Option<&'static str> {
        None
    }

    /// Whether the rows of q and k in a GGUF file are in the order in which neighbours are rotated
    /// together, and not those of two halves.
    fn gguf_interleaves(&self) -> bool {
        false
    }

    /// Whose published sampler its models come with.
    fn sampler(&self) -> PublishedSampler {
        PublishedSampler::Llada
    }

    /// Whether its models attend by blocks, of a length that its files say in their own way.
    fn is_by_blocks(&self) -> bool {
        false
    }

    /// The name of a parameter.
    fn name(&self, parameter: Parameter) -> String;

    /// Whether q, k and v are the rows of one tensor, in this order.
    fn fuses_qkv(&self) -> bool {
        false
    }
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 7] = [
        Self::Llada,
        Self::Illada,
        Self::LladaMoe,
        Self::Dream,
        Self::Llada2,
        Self::Sdar,
        Self::FastDllmV2,
    ];

    fn convention(self) -> &'static dyn Convention {
        match self {
            Self::Llada => &llada::Llada,
            Self::Illada => &illada::Illada,
            Self::LladaMoe => &llada_moe::LladaMoe,
            Self::Dream => &dream::Dream,
            Self::Llada2 => &llada2::Llada2,
            Self::Sdar => &sdar::Sdar,
            Self::FastDllmV2 => &fast_dllm_v2::FastDllmV2,
        }
    }

    /// The family whose models have the class `class`.
    pub(super) fn of_class(class: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.convention().classes().contains(&class))
    }

    /// What can be read, as a sentence: every class with its models.
    pub(super) fn supported() -> String {
        let one = |family: Self| {
            let convention = family.convention();
            format!("`{}` ({})", convention.classes()[0], convention.models())
        };
        format!("supported: {}", Self::ALL.map(one).join(", "))
    }

    pub(super) fn read(self, keys: &Keys<'_>) -> Result<ModelConfig> {
        self.convention().read(keys)
    }

    pub(super) fn write(self, config: &ModelConfig) -> Value {
        let mut json = self.convention().write(config);
        json["architectures"] = self.convention().classes()[..1].into();
        json
    }

    pub(super) fn check(self, config: &ModelConfig) -> Result<()> {
        self.convention().check(config)
    }

    /// Whether a key is looked at when a model of this family is read, or changes nothing.
    pub(super) fn judges(self, key: &str) -> bool {
        self.convention().judged().contains(&key)
    }

    /// Its name in one word: `llada`, `dream`, …
    pub fn word(self) -> &'static str {
        self.convention().word()
    }

    /// The name of its class.
    pub fn class(self) -> &'static str {
        self.convention().classes()[0]
    }

    /// What llama.cpp calls the architecture of a model; `None` where its code would compute something
    /// else.
    pub fn gguf(self, config: &ModelConfig) -> Option<&'static str> {
        self.convention().gguf(config)
    }

    /// Whether the rows of q and k in a GGUF file are in the order in which neighbours are rotated
    /// together, and not those of two halves.
    pub fn gguf_interleaves(self) -> bool {
        self.convention().gguf_interleaves()
    }

    /// The family of llama.cpp's architecture `name`, if it is one of these.
    pub fn of_gguf(name: &str) -> Option<Self> {
        match name {
            "llada" => Some(Self::Llada),
            "llada-moe" => Some(Self::LladaMoe),
            "dream" => Some(Self::Dream),
            _ => None,
        }
    }

    /// Whose published sampler its models come with.
    pub fn sampler(self) -> PublishedSampler {
        self.convention().sampler()
    }

    /// Whether its models attend by blocks, of a length that its files say in their own way. Files of
    /// other families say that of a model which does in `block_size`.
    pub(crate) fn is_by_blocks(self) -> bool {
        self.convention().is_by_blocks()
    }

    /// The name of a parameter in a checkpoint.
    pub fn name(self, parameter: Parameter) -> String {
        self.convention().name(parameter)
    }

    /// Whether a checkpoint keeps q, k and v as the rows of one tensor, in this order.
    pub fn fuses_qkv(self) -> bool {
        self.convention().fuses_qkv()
    }
}
