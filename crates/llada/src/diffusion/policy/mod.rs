//! Losses that compare a model with itself: preferences and rewards. Each is a function of
//! log-probabilities of whole responses or of their tokens, so that its gradient is
//! Σ (∂loss/∂nll)·∇nll: one pass gives the nll, the loss what each counts, and the pass of every other
//! loss the gradient.
//!
//! | paper | here |
//! |---|---|
//! | ELBO over masked versions of a response, policy and reference under the same masks | [`Versions`] |
//! | masks: a timestep each, a mask and its complement, a masked prompt | [`masks`] |
//! | A = r − baseline, of the completions of a prompt | [`advantages`] |
//! | ESPO, arXiv 2512.03759 | [`espo`] |
//! | diffu-GRPO, d1, arXiv 2504.12216 | [`diffu_grpo`] |
//! | GDSD, arXiv 2605.29398 | [`gdsd`] |
//! | VRPO, LLaDA 1.5, arXiv 2505.19223 | [`vrpo`] |

pub mod advantages;
mod clip;
pub mod diffu_grpo;
pub mod espo;
pub mod gdsd;
pub mod masks;
mod versions;
pub mod vrpo;

pub use clip::Clip;
pub use versions::Versions;

/// A loss, and how it changes with what it is a function of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loss {
    /// Its value.
    pub value: f64,
    /// ∂loss/∂log p of each term, for [`Versions::weights`].
    pub slopes: Vec<f64>,
    /// The estimate of the divergence from the reference, per token; 0 where it does not count.
    pub kl: f64,
    /// Share of the terms whose ratio to the old policy is clipped.
    pub clipped: f64,
}

/// What a policy says of some terms, and what it is compared with. All have as many entries.
#[derive(Debug, Clone, Copy)]
pub struct LogProbabilities<'a> {
    /// The policy that is trained.
    pub policy: &'a [f64],
    /// The policy that wrote the responses.
    pub old: &'a [f64],
    /// The reference; empty where the divergence from it does not count.
    pub reference: &'a [f64],
}

impl LogProbabilities<'_> {
    /// log p − log p of the reference, of a term; 0 without one.
    fn gap_to_reference(&self, term: usize) -> f64 {
        self.reference.get(term).map_or(0.0, |reference| self.policy[term] - reference)
    }
}

#[cfg(test)]
mod tests;
