//! Whether greedy decoding gives an answer.

use llada_kernels::statistics;

use super::LikelihoodError;
use super::{Pair, Scorer, rows::Rows};
use crate::{
    Result,
    config::SpecialTokens,
    diffusion::{Precision, sample},
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
    let scorer = Scorer::new(&predictor.model().config, special, cfg_scale)?;
    scorer.check(pair)?;
    if scorer.is_autoregressive() {
        let guesses = guesses(&scorer.causal_row(pair), 0.0, predictor)?;
        return Ok(guesses.iter().zip(&pair.answer).all(|(guess, &token)| guess.token == token));
    }
    let mut masked: Vec<usize> = (0..pair.answer.len()).collect();
    while !masked.is_empty() {
        let guesses = guesses(&scorer.noisy_row(pair, &masked), cfg_scale, predictor)?;
        let best = guesses.iter().enumerate().fold(0, |best, (i, guess)| {
            if guess.probability > guesses[best].probability { i } else { best }
        });
        if guesses[best].token != pair.answer[masked[best]] {
            return Ok(false);
        }
        masked.remove(best);
    }
    Ok(true)
}

/// The most probable token of a position.
struct Guess {
    token: u32,
    probability: f64,
}

/// The most probable tokens at the positions of a row that predict.
fn guesses(
    row: &super::rows::Row,
    cfg_scale: f32,
    predictor: &mut MaskPredictor,
) -> Result<Vec<Guess>> {
    let mut rows = Rows::new(cfg_scale);
    rows.push(row);
    let guesses = rows.read(predictor, &|_, logits| {
        let whole = statistics::of(logits)?;
        let probability = sample::probability(logits, &whole, whole.token, Precision::F32);
        Some(Guess { token: whole.token as u32, probability })
    })?;
    let found = |(guess, &position): (Option<Guess>, &usize)| {
        guess.ok_or_else(|| LikelihoodError::NotFinite { position }.into())
    };
    guesses.into_iter().zip(&row.positions).map(found).collect()
}
