//! Whether greedy decoding gives an answer.

use super::{Pair, Scorer, sequence::Sequence};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig, SpecialTokens},
    diffusion::{Query, ReadSpec, Reading},
    engine::{self, Work},
    model::MaskPredictor,
};

/// Whether greedy decoding after the prompt gives exactly the answer (`suffix_greedy_prediction`
/// of the reference). The whole answer starts masked; each of its L steps predicts all that is
/// still masked and commits only the most probable prediction, the first of equals. For an
/// autoregressive model it is whether each token is the most probable after those before it, in
/// one forward pass.
///
/// It stops at the first token that differs, so that a wrong answer is cheap.
///
/// # Errors
/// As [`score`](super::score) for one pair.
pub fn is_greedy(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    pair: &Pair,
    cfg_scale: f32,
) -> Result<bool> {
    let greedy = Greedy::new(&predictor.model().config, special, pair, cfg_scale)?;
    let done = engine::run(predictor, [greedy])?;
    Ok(done.iter().all(|greedy| greedy.verdict() == Some(true)))
}

/// An answer that is decoded greedily, as work of an [`Engine`](crate::engine::Engine): see
/// [`is_greedy`].
#[derive(Debug)]
pub struct Greedy {
    sequence: Sequence,
    is_autoregressive: bool,
    verdict: Option<bool>,
}

impl Greedy {
    /// Begins with the whole answer masked.
    ///
    /// # Errors
    /// If the pair cannot be scored.
    pub fn new(
        config: &ModelConfig,
        special: &SpecialTokens,
        pair: &Pair,
        cfg_scale: f32,
    ) -> Result<Self> {
        let scorer = Scorer::new(config, special, cfg_scale)?;
        scorer.check(pair)?;
        let is_autoregressive = scorer.is_autoregressive();
        let sequence = match is_autoregressive {
            true => scorer.causal_sequence(pair),
            false => scorer.noisy_sequence(pair, &(0..pair.answer.len()).collect::<Vec<_>>()),
        };
        Ok(Self { sequence, is_autoregressive, verdict: None })
    }

    /// Whether it gives the answer; `None` until that is known.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }
}

impl Work for Greedy {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        (ahead == 0 && self.verdict.is_none()).then(|| self.sequence.query())
    }

    fn read_spec(&self, _ahead: usize, wanted: usize) -> ReadSpec<'_> {
        ReadSpec::best(wanted, self.sequence.cfg_scale)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        if self.is_autoregressive {
            self.verdict =
                Some(readings.iter().map(Reading::token).eq(self.sequence.targets.iter().copied()));
            return Ok(());
        }
        let best = most_probable(readings);
        let is_right = readings[best].token() == self.sequence.targets[best];
        if is_right {
            self.sequence.unmask(best);
        }
        if !is_right || self.sequence.positions.is_empty() {
            self.verdict = Some(is_right);
        }
        Ok(())
    }

    fn attention(&self) -> AttentionMask {
        self.sequence.attention
    }
}

/// The most probable of what was read, the first of equals.
pub(crate) fn most_probable(readings: &[Reading]) -> usize {
    let value = |i: usize| readings[i].log_probability();
    (1..readings.len()).fold(0, |best, i| if value(i) > value(best) { i } else { best })
}
