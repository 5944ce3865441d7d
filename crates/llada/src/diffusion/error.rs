//! What can go wrong while sampling: settings that contradict each other or the model.

use crate::diffusion::{Blocks, Range, Reference};

/// Settings that cannot be sampled with, or logits that cannot be sampled from.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// A number that a setting cannot have.
    #[error("{name} is {value}, which is not {}", expected(name))]
    OutOfRange {
        /// The setting, as [`Range`] names it.
        name: &'static str,
        /// What was given.
        value: String,
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
    /// A refresh of nothing.
    #[error("{setting} has no meaning without a cache")]
    NoCache {
        /// The setting.
        setting: &'static str,
    },
    /// Rounds of edits where tokens are unmasked for good.
    #[error("edit_rounds has no meaning where no token is edited")]
    NoEdit,
    /// Masks that thin out, in no window.
    #[error("suffix_decay has no meaning without a suffix_window")]
    NoWindow,
    /// A setting that a layout does not use.
    #[error("{setting} has no meaning in the layout `{blocks}`, {why}")]
    Unused {
        /// The setting.
        setting: &'static str,
        /// The layout.
        blocks: Blocks,
        /// What the layout is like.
        why: &'static str,
    },
    /// Prompt and response together are longer than the model's longest sequence.
    #[error(
        "a prompt of {prompt} tokens and a response of {response} do not fit a sequence of {limit}"
    )]
    NoRoom {
        /// Tokens of the prompt.
        prompt: usize,
        /// The fewest that the response has.
        response: usize,
        /// `max_sequence_length`.
        limit: usize,
    },
    /// What a model proposes cannot be sampled with.
    #[error("the model's `generation_config.json` contradicts itself")]
    Proposed(#[source] Box<SamplerError>),
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
    /// A model that attends by blocks fills them one after the other.
    #[error("a model that attends by blocks cannot generate in the layout `{0}`")]
    BlockLayout(Blocks),
    /// Blocks of another length than those of the attention mask.
    #[error("block_length is {found}, but this model attends by blocks of {attention} tokens")]
    BlockAttention {
        /// Length of a block.
        found: usize,
        /// That of the attention mask.
        attention: usize,
    },
    /// Parts of a block that do not fill it.
    #[error("sub_block_length is {part}, which does not divide a block of {block_length} tokens")]
    SubBlock {
        /// The length of a part.
        part: usize,
        /// The length of a block.
        block_length: usize,
    },
    /// A sampler for models whose logits are for the next position.
    #[error("the published code `fast-dllm-v2` needs a model whose logits predict the next token")]
    Unshifted,
    /// A sampler that is made for another attention mask.
    #[error("the published code `{0}` needs a model that attends {how}", how = match .0.is_by_blocks() {
        true => "by blocks",
        false => "to all tokens",
    })]
    ByBlocks(Reference),
    /// A model that attends by blocks sees nothing of what follows a hole's block.
    #[error("a model that attends by blocks cannot fill holes: it sees nothing of later blocks")]
    BlockInfill,
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
    /// Logits in a number that is not one row for each wanted position.
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
    /// A constraint on a canvas that has taken steps.
    #[error("a canvas takes a constraint before its first step only")]
    Begun,
    /// A constraint on a prompt whose masks are filled too.
    #[error(
        "a constraint is for a response, and the prompt has masks that would be filled with it"
    )]
    ConstrainedMasks,
    /// Less room than any text needs.
    #[error(
        "the shortest answer that satisfies the constraint has {least} tokens; there is room for {room}"
    )]
    ShortOfRoom {
        /// Tokens of the shortest.
        least: usize,
        /// Tokens of the response.
        room: usize,
    },
    /// Room that no text fills, where it must be filled.
    #[error("no text of exactly {length} tokens satisfies the constraint")]
    UnfitLength {
        /// Tokens of the hole, or of the response of a model without an end of text.
        length: usize,
    },
    /// Holes of no length that was tried satisfy the constraint.
    #[error("no text of {longest} tokens or fewer satisfies the constraint")]
    NoFitLength {
        /// The longest that was tried.
        longest: usize,
    },
    /// Tokens from which no accepted text goes on.
    #[error(
        "the tokens up to position {position} cannot be completed to what the constraint accepts"
    )]
    Stranded {
        /// Where the open positions begin.
        position: usize,
    },
    /// Logits that name no distribution.
    #[error("the model's logits at position {position} are not finite numbers")]
    NotFinite {
        /// Position in the sequence.
        position: usize,
    },
}

/// How settings are given where an error is read: hints name them so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As flags of the command line: `--gen-length 96`.
    Flag,
    /// As commands of a chat: `/set gen_length 96`.
    Command,
    /// As keys of a file: `gen_length`.
    Key,
}

impl Spelling {
    /// Asks for values of a setting.
    pub(crate) fn give(self, name: &str, values: &str) -> String {
        match self {
            Self::Flag => {
                let verb = if values.starts_with("a ") { "give" } else { "use" };
                format!("{verb} --{} {values}", name.replace('_', "-"))
            }
            Self::Command => format!("use `/set {name}` with {values}"),
            Self::Key => format!("give `{name}` as {values}"),
        }
    }

    /// Asks to leave a setting alone.
    fn drop(self, name: &str) -> String {
        match self {
            Self::Flag => format!("leave out --{}", name.replace('_', "-")),
            Self::Command => format!("use `/set {name} default`"),
            Self::Key => format!("leave out `{name}`"),
        }
    }
}

impl SamplerError {
    /// A number that the setting `name` cannot have.
    pub(crate) fn out_of_range(name: &'static str, value: impl ToString) -> Self {
        Self::OutOfRange { name, value: value.to_string() }
    }

    /// The setting that is at fault, where it is one.
    pub fn setting(&self) -> Option<&'static str> {
        Some(match self {
            // Parts of a setting are named after it, or by the rule of `transfer` that they belong to.
            Self::OutOfRange { name, .. } => match name.split_once(' ') {
                None => name,
                Some((setting @ ("adaptive_blocks" | "variable_length"), _)) => setting,
                Some(_) => "transfer",
            },
            Self::BlockLength { .. } | Self::BlockAttention { .. } => "block_length",
            Self::Steps { .. } => "steps",
            Self::Combination { setting, .. }
            | Self::NoCache { setting }
            | Self::Unused { setting, .. }
            | Self::NoToken { setting, .. } => setting,
            Self::NoEdit => "edit_rounds",
            Self::NoWindow => "suffix_decay",
            Self::CausalLayout(_) | Self::BlockLayout(_) | Self::InfillLayout(_) => "blocks",
            Self::CausalGuidance(_) => "cfg_scale",
            Self::SubBlock { .. } => "sub_block_length",
            Self::Unshifted | Self::ByBlocks(_) => "reference",
            _ => return None,
        })
    }

    /// What the user of a command line can do about it.
    pub fn hint(&self) -> Option<String> {
        self.hint_for(Spelling::Flag)
    }

    /// What the user can do about it, where settings are spelt in this way.
    pub fn hint_for(&self, spelling: Spelling) -> Option<String> {
        let give = |name: &str, values: &str| spelling.give(name, values);
        Some(match self {
            Self::OutOfRange { name, .. } => match name.split_once(' ') {
                None => give(name, &expected(name)),
                Some((setting @ ("adaptive_blocks" | "variable_length"), number)) => {
                    format!("give `{number}` of `{setting}` as {}", expected(name))
                }
                Some(("transfer", rule)) => {
                    give("transfer", &format!("{rule}=X, X being {}", expected(name)))
                }
                Some((rule, "confidence" | "anchor")) => {
                    give("transfer", &format!("{rule}=X, X being {}", expected(name)))
                }
                Some((rule, number)) => {
                    give("transfer", &format!("{rule},{number}=X, X being {}", expected(name)))
                }
            },
            Self::BlockLength { block_length, gen_length } => {
                give("gen_length", &neighbours(*gen_length, *block_length))
            }
            Self::Steps { steps, blocks } => give("steps", &neighbours(*steps, *blocks)),
            Self::Combination { setting, .. } => match *setting {
                "blocks" => give("blocks", "pure or semi-autoregressive"),
                "reference" => give("preset", "exact"),
                "remasking" => give("remasking", "low-confidence, margin or entropy"),
                setting => spelling.drop(setting),
            },
            Self::NoCache { .. } => give("cache", "dual or prefix"),
            Self::NoEdit => give("edit", "0.9"),
            Self::NoWindow => give("suffix_window", &expected("suffix_window")),
            Self::Unused { setting, .. } => {
                format!("{}, or choose another layout", spelling.drop(setting))
            }
            Self::NoRoom { prompt, limit, .. } => match limit.saturating_sub(*prompt) {
                0 => "shorten the prompt".into(),
                room => give("gen_length", &format!("{room} or less")),
            },
            Self::Proposed(error) => return error.hint_for(spelling),
            Self::Unknown { known, .. } => format!("use one of: {known}"),
            Self::NoMask => "give `mask_token_id` in the model's config.json".into(),
            Self::NoToken { setting, .. } => spelling.drop(setting),
            Self::CausalLayout(_) => give("blocks", "autoregressive"),
            Self::CausalGuidance(_) => give("cfg_scale", "0"),
            Self::InfillLayout(_) => {
                "fill all holes at once, or in semi-autoregressive blocks".into()
            }
            Self::BlockLayout(_) => give("blocks", "block-diffusion"),
            Self::BlockAttention { attention, .. } => give("block_length", &attention.to_string()),
            Self::SubBlock { part, block_length } => {
                let divisor = (1..=*part).rev().find(|&part| block_length.is_multiple_of(part));
                give("sub_block_length", &divisor.unwrap_or(1).to_string())
            }
            Self::Unshifted => "use another reference, or none".into(),
            Self::ByBlocks(_) => "use the preset `balanced` or `fast`, or another reference".into(),
            Self::CausalInfill | Self::BlockInfill => {
                "use a masked-diffusion model; `llada show` names its kind".into()
            }
            Self::EmptyPrompt => "begin the prompt with at least one token, such as BOS".into(),
            Self::TokenOutside { .. } => {
                "check the token ids in the model's config.json and tokenizer".into()
            }
            Self::NotFinite { .. } => {
                "the weights are damaged or training diverged: try another checkpoint".into()
            }
            Self::ConstrainedMasks => {
                "mark holes with `{{hole}}` instead, for `llada infill`".into()
            }
            Self::ShortOfRoom { least, .. } => give("gen_length", &format!("{least} or more")),
            Self::UnfitLength { .. } => "give another length, or none".into(),
            Self::NoFitLength { .. } => "let holes be longer, or constrain them less".into(),
            Self::Begun
            | Self::Stranded { .. }
            | Self::Padding { .. }
            | Self::HoleLengths { .. }
            | Self::LogitCount { .. }
            | Self::Readings { .. }
            | Self::Finished => return None,
        })
    }
}

/// What a setting's number must be.
fn expected(name: &str) -> String {
    match Range::of(name) {
        Some(range) => range.to_string(),
        None => "a whole number of 64 bits".to_owned(),
    }
}

/// The multiples of `unit` around `n`: `96 or 128`.
fn neighbours(n: usize, unit: usize) -> String {
    let below = n / unit.max(1) * unit;
    let above = below.saturating_add(unit);
    if below == 0 { above.to_string() } else { format!("{below} or {above}") }
}
