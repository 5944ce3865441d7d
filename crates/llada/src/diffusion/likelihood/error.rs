//! Why an answer or a text cannot be scored.

use crate::diffusion::Spelling;

/// What can go wrong while estimating a likelihood.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LikelihoodError {
    /// An answer without tokens.
    #[error("the answer is empty: there is nothing to score")]
    EmptyAnswer,
    /// Prompt and answer do not fit the model.
    #[error("prompt and answer have {found} tokens together, the model takes {limit}")]
    TooLong {
        /// Tokens of both.
        found: usize,
        /// `max_sequence_length`.
        limit: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} is outside the vocabulary of {vocabulary} tokens")]
    TokenOutside {
        /// Its id.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// The samples do not fill whole batches.
    #[error("mc_num {mc_num} is not a multiple of batch_size {batch_size}")]
    Samples {
        /// Noisy copies in all.
        mc_num: usize,
        /// Copies that share one draw.
        batch_size: usize,
    },
    /// A size that must be positive is zero.
    #[error("{0} is 0")]
    Zero(&'static str),
    /// A guidance weight that is no weight.
    #[error("cfg_scale is {0}, which is not a number from 0 to 100")]
    CfgScale(f32),
    /// The model names no mask token.
    #[error("this model has no mask token, which its likelihood is estimated with")]
    NoMask,
    /// A model that attends by blocks learnt to see what is before a block without masks.
    #[error(
        "a model that attends by blocks has no likelihood by masks all over an answer: it was \
         trained to see the blocks before without any"
    )]
    ByBlocks,
    /// Guidance replaces the prompt by masks, which a causal model does not know.
    #[error("the likelihood of an autoregressive model cannot be guided by cfg_scale {0}")]
    CausalGuidance(f32),
    /// A causal model needs a token before the first that it predicts.
    #[error("an autoregressive model without an end-of-text token cannot score from nothing")]
    NoStart,
    /// A text too short to score.
    #[error("the text has no token that the model could predict")]
    EmptyText,
    /// Sequences longer than the model, or too short to predict anything.
    #[error("sequences of {found} tokens cannot be scored, the model takes {least} to {limit}")]
    SequenceLength {
        /// Tokens of a sequence.
        found: usize,
        /// The fewest that have a loss.
        least: usize,
        /// `max_sequence_length`.
        limit: usize,
    },
    /// A loss that is no number.
    #[error("the model's logits at position {position} are not finite numbers")]
    NotFinite {
        /// Position in the sequence.
        position: usize,
    },
}

impl LikelihoodError {
    /// What the user of a command line can do about it.
    pub fn hint(&self) -> Option<String> {
        self.hint_for(Spelling::Flag)
    }

    /// What the user can do about it, where settings are spelt in this way.
    pub fn hint_for(&self, spelling: Spelling) -> Option<String> {
        let give = |name: &str, value: usize| spelling.give(name, &value.to_string());
        Some(match self {
            Self::EmptyAnswer => "give an answer of at least one token".into(),
            Self::TooLong { .. } => "shorten the prompt or the answer".into(),
            Self::TokenOutside { .. } => "use the tokenizer that belongs to the checkpoint".into(),
            Self::Samples { mc_num, batch_size } => {
                let divisor = super::batch_size(*mc_num, *batch_size);
                let multiple = batch_size * (mc_num / batch_size + 1);
                format!("{}, or {}", give("batch_size", divisor), give("mc_num", multiple))
            }
            Self::Zero(name) => spelling.give(name, "1 or more"),
            Self::CfgScale(_) | Self::CausalGuidance(_) => give("cfg_scale", 0),
            Self::ByBlocks => {
                "compare its answers instead: `llada eval run` on a task that generates".into()
            }
            Self::NoMask => "give `mask_token_id` in the model's config.json".into(),
            Self::NoStart => "begin the prompt with at least one token".into(),
            Self::EmptyText => "give a longer text".into(),
            Self::SequenceLength { least, limit, .. } => {
                spelling.give("length", &format!("{least} to {limit}"))
            }
            Self::NotFinite { .. } => {
                "the weights are damaged or training diverged: try another checkpoint".into()
            }
        })
    }
}
