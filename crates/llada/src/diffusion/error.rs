//! What can go wrong while sampling: settings that contradict each other or the model.

use crate::diffusion::Blocks;

/// Settings that cannot be sampled with, or logits that cannot be sampled from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A size that must be positive is zero.
    #[error("{0} is 0")]
    Zero(&'static str),
    /// A size beyond what the sampler can address.
    #[error("{name} {value} is more than {limit}")]
    TooLarge {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The largest that is possible.
        limit: usize,
    },
    /// The blocks do not fill the response.
    #[error("block_length {block_length} does not divide gen_length {gen_length}")]
    BlockLength {
        /// Length of a block.
        block_length: usize,
        /// Length of the response.
        gen_length: usize,
    },
    /// The steps cannot be shared equally among the blocks.
    #[error("steps {steps} cannot be shared equally by {blocks} blocks")]
    Steps {
        /// Sampling steps in all.
        steps: usize,
        /// Number of blocks.
        blocks: usize,
    },
    /// A factor that must be finite and not negative.
    #[error("{name} is {value}, which is not a finite number of at least 0")]
    Factor {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// Two choices that do not go together.
    #[error("{setting} cannot be combined with {with}: {why}")]
    Combination {
        /// The setting that is too much.
        setting: &'static str,
        /// What it does not go with.
        with: String,
        /// The reason.
        why: &'static str,
    },
    /// A name that stands for nothing.
    #[error("unknown {what} `{found}`")]
    Unknown {
        /// Kind of name.
        what: &'static str,
        /// What was given.
        found: String,
        /// The names that exist.
        known: String,
    },
    /// The model names no mask token.
    #[error("this model has no mask token to start from")]
    NoMask,
    /// A setting about a token that the model does not name.
    #[error("{setting} is set, but this model names no {token} token")]
    NoToken {
        /// The setting.
        setting: &'static str,
        /// The token it is about.
        token: &'static str,
    },
    /// A causal model can only write from left to right.
    #[error("an autoregressive model cannot generate in the layout `{0}`")]
    CausalLayout(Blocks),
    /// Guidance replaces the prompt by masks, which a causal model does not know.
    #[error("an autoregressive model cannot be guided by cfg_scale {0}")]
    CausalGuidance(f32),
    /// A layout that grows a response, of which an infill has none.
    #[error("holes cannot be filled in the layout `{0}`")]
    InfillLayout(Blocks),
    /// A causal model sees nothing of what follows a hole.
    #[error(
        "an autoregressive model cannot fill holes: it predicts a token from those before it, and \
         never sees what follows"
    )]
    CausalInfill,
    /// Lengths that do not fit the holes.
    #[error("{lengths} lengths were given for {holes} holes, or a length of 0")]
    HoleLengths {
        /// Lengths given.
        lengths: usize,
        /// Holes of the text.
        holes: usize,
    },
    /// A causal model predicts the token after one that it is given.
    #[error("an autoregressive model cannot start from an empty prompt")]
    EmptyPrompt,
    /// More padding than prompt.
    #[error("the prompt has {padding} padding tokens among its {length} tokens")]
    Padding {
        /// Leading tokens that are padding.
        padding: usize,
        /// Tokens of the prompt.
        length: usize,
    },
    /// A special token that has no logit.
    #[error("the {name} token {token} is outside the vocabulary of {vocabulary} tokens")]
    TokenOutside {
        /// Which special token.
        name: &'static str,
        /// Its id.
        token: u32,
        /// Columns of the logits.
        vocabulary: usize,
    },
    /// Readings that are not one for each wanted position, in their order.
    #[error("{found} readings for {positions} positions, or not of these positions")]
    Readings {
        /// Readings given.
        found: usize,
        /// Positions wanted.
        positions: usize,
    },
    /// Logits in a number that fits no whole row for each wanted position.
    #[error("{found} logits were given for {positions} positions")]
    LogitCount {
        /// How many came.
        found: usize,
        /// Positions that were asked for.
        positions: usize,
    },
    /// A canvas without an open step was given logits.
    #[error("the canvas is finished and takes no logits")]
    Finished,
    /// Logits that name no distribution.
    #[error("the model's logits at position {position} are not finite numbers")]
    NotFinite {
        /// Position in the row.
        position: usize,
    },
}

impl SamplerError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let flag = |name: &str| format!("--{}", name.replace('_', "-"));
        Some(match self {
            Self::Zero(name) => format!("use {} 1 or more", flag(name)),
            Self::TooLarge { name, limit, .. } => format!("use {} {limit} or less", flag(name)),
            Self::BlockLength { block_length, gen_length } => {
                format!("use --gen-length {}", neighbours(*gen_length, *block_length))
            }
            Self::Steps { steps, blocks } => {
                format!("use --steps {}", neighbours(*steps, *blocks))
            }
            Self::Factor { name: "keep", .. } => "use a number as in --keep threshold=0.9".into(),
            Self::Factor { name, .. } => format!("use {} 0 to switch it off", flag(name)),
            Self::Combination { setting, .. } => match *setting {
                "blocks" => "use --blocks pure or semi-autoregressive".into(),
                "remasking" => "use --remasking low-confidence, margin or entropy".into(),
                setting => format!("leave out {}", flag(setting)),
            },
            Self::Unknown { known, .. } => format!("use one of: {known}"),
            Self::NoMask => "give `mask_token_id` in the model's config.json".into(),
            Self::NoToken { setting, .. } => format!("leave out {}", flag(setting)),
            Self::CausalLayout(_) => "use --blocks autoregressive".into(),
            Self::CausalGuidance(_) => "use --cfg-scale 0".into(),
            Self::InfillLayout(_) => "use --blocks pure or semi-autoregressive".into(),
            Self::CausalInfill => {
                "use a masked-diffusion model; `llada show` names its kind".into()
            }
            Self::EmptyPrompt => "begin the prompt with at least one token, such as BOS".into(),
            Self::TokenOutside { .. } => {
                "check the token ids in the model's config.json and tokenizer".into()
            }
            Self::NotFinite { .. } => {
                "the weights are damaged or training diverged: try another checkpoint".into()
            }
            Self::Padding { .. }
            | Self::HoleLengths { .. }
            | Self::LogitCount { .. }
            | Self::Readings { .. }
            | Self::Finished => return None,
        })
    }
}

/// The multiples of `unit` around `n`: `96 or 128`.
fn neighbours(n: usize, unit: usize) -> String {
    let below = n / unit.max(1) * unit;
    let above = below.saturating_add(unit);
    if below == 0 { above.to_string() } else { format!("{below} or {above}") }
}
