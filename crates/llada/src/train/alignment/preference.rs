//! Preference optimisation: VRPO of LLaDA 1.5.

use super::{Alignment, Step, log_probabilities};
use crate::{
    Result,
    data::conversations::Pair,
    diffusion::{
        forward::noise_levels,
        likelihood::spread_evenly,
        policy::{
            Versions,
            masks::{self, Response},
            vrpo::{self, Preference},
        },
    },
    rng::{Purpose, Stream},
    train::{
        Recipe, recipe,
        source::Source,
        update::{Measured, Weighted},
    },
};

/// Validation has noise of its own, the same every time.
const SEED: u64 = 0;

/// How responses are masked.
#[derive(Debug, Clone, Copy)]
struct Draws {
    count: usize,
    antithetic: bool,
    low_discrepancy: bool,
    purposes: [Purpose; 2],
    seed: u64,
}

impl Draws {
    fn of(recipe: &Recipe, settings: &recipe::Preference) -> Self {
        Self {
            count: settings.draws,
            antithetic: settings.antithetic,
            low_discrepancy: recipe.diffusion.low_discrepancy,
            purposes: [Purpose::NoiseLevel, Purpose::Masking],
            seed: recipe.train.seed,
        }
    }

    /// Adds the versions of a pair whose responses have the numbers `first` and `first + 1`, and are the
    /// terms from `term` on.
    fn push(&self, versions: &mut Versions, pair: &[Pair; 2], mask: u32, first: u64, term: usize) {
        for ((side, number), term) in pair.iter().zip(first..).zip(term..) {
            let response = Response { tokens: side.ids(), prompt: side.prompt_len() };
            let [mut levels, mut stream] = self.purposes.map(|p| Stream::new(self.seed, p, number));
            let count = if self.antithetic { self.count / 2 } else { self.count };
            for t in noise_levels(&mut levels, count, self.low_discrepancy) {
                let of = (term, 1.0 / count as f64);
                match self.antithetic {
                    true => masks::draw_antithetic(versions, response, mask, t, &mut stream, of),
                    false => masks::draw_bound(versions, response, mask, t, &mut stream, of),
                }
            }
        }
    }
}

impl Alignment {
    pub(super) fn prefer(&mut self, mut step: Step<'_>) -> Result<Option<Weighted>> {
        let (Some(settings), Source::Preferences { preferences, .. }) =
            (&step.recipe.preference, step.source)
        else {
            return Ok(None);
        };
        let draws = Draws::of(step.recipe, settings);
        let (seed, pairs) = (step.recipe.train.seed, step.recipe.train.batch_size as u64);
        let numbers = step.step * pairs..(step.step + 1) * pairs;
        let chosen: Vec<_> = numbers.clone().map(|n| preferences.choice(n, seed)).collect();
        let mut versions = Versions::new(2 * chosen.len());
        for (i, (n, pair)) in numbers.zip(&chosen).enumerate() {
            draws.push(&mut versions, pair, step.mask, 2 * n, 2 * i);
        }
        let Some(found) = self.compare(&mut step, settings, &versions, &chosen)? else {
            return Ok(None);
        };
        let measured = Measured::from([("accuracy", found.accuracy()), ("margin", found.margin())]);
        let shift = step.predictor.model().config.shift;
        Ok(Some(Weighted::new(&versions, (found.value, &found.slopes), shift, measured)))
    }

    /// The loss of pairs whose versions are `versions`; policy and reference see the same.
    fn compare(
        &mut self,
        step: &mut Step<'_>,
        settings: &recipe::Preference,
        versions: &Versions,
        pairs: &[&[Pair; 2]],
    ) -> Result<Option<Preference>> {
        let policy =
            log_probabilities(step.ranks, step.predictor, versions, step.recipe, step.stop)?;
        let reference = self.reference(versions, step)?;
        let (Some(policy), Some(reference)) = (policy, reference) else { return Ok(None) };
        let lengths: Vec<usize> =
            pairs.iter().flat_map(|pair| pair.iter().map(Pair::answer_len)).collect();
        let (beta, sft) = (settings.beta, settings.sft_weight);
        Ok(Some(vrpo::loss(&policy, &reference, &lengths, beta, sft)))
    }

    /// Accuracy and margin of the pairs held out.
    pub(super) fn measure_preference(&mut self, mut step: Step<'_>) -> Result<Measured> {
        let (Some(settings), Source::Preferences { preferences, .. }) =
            (&step.recipe.preference, step.source)
        else {
            return Ok(Measured::new());
        };
        let eval = &step.recipe.eval;
        let all = preferences.validation();
        let draws = Draws {
            count: eval.draws,
            antithetic: false,
            low_discrepancy: true,
            purposes: [Purpose::Validation, Purpose::Likelihood],
            seed: SEED,
        };
        let numbers: Vec<u64> = spread_evenly(all.len() as u64, eval.sequences as u64).collect();
        let pairs: Vec<_> = numbers.iter().map(|&n| &all[n as usize]).collect();
        let mut versions = Versions::new(2 * pairs.len());
        for (i, (n, pair)) in numbers.iter().zip(&pairs).enumerate() {
            draws.push(&mut versions, pair, step.mask, 2 * n, 2 * i);
        }
        let Some(found) = self.compare(&mut step, settings, &versions, &pairs)? else {
            return Ok(Measured::new());
        };
        let (accuracy, margin) = (found.accuracy(), found.margin());
        let loss = found.value;
        Ok(Measured::from([("accuracy", accuracy), ("loss", loss), ("margin", margin)]))
    }
}
