//! `[block]`: block diffusion, as independent choices and as the presets that published recipes are.

use toml::{Table, Value};

use super::OneOrMany;
use crate::{Result, diffusion::loss::Normalisation, train::TrainError};

/// `[block]`: block diffusion. Its presence makes a run one.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Block {
    /// Whose recipe the keys that are left out are taken from; the defaults told here are those of `bd3lm`.
    pub preset: BlockPreset,
    /// Tokens of a block, counted from the start of a sequence. A list is a schedule: each item holds from
    /// its `from_step` on, the last is that of the finished model.
    pub length: OneOrMany<usize>,
    /// The step, from 0, from which each item of `length` holds.
    pub from_step: OneOrMany<u64>,
    /// Range from which the masking probability t is drawn uniformly; one that is clipped at both ends has
    /// gradients of less variance.
    pub noise_range: [f64; 2],
    /// What has one t.
    pub noise_level: NoiseLevel,
    /// What the loss of a masked token counts.
    pub weighting: Weighting,
    /// What the sum over masked tokens is divided by: the tokens that can be masked (`tokens`) or are
    /// (`masked`), in each sequence the first and then the sequences (`sequence`), or those (`batch`).
    pub normalisation: Normalisation,
    /// Whether the logit of the mask token is left out of the soft-max.
    pub exclude_mask_logit: bool,
    /// What the mean entropy of the masked positions whose most probable token is right counts beside the
    /// loss, in each micro-batch (CAP, confidence-aware parallel training; LLaDA2 has 2.0); 0 leaves it out.
    pub cap_weight: f64,
}

impl Default for Block {
    fn default() -> Self {
        BlockPreset::Bd3lm.block()
    }
}

/// A published recipe of block diffusion.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BlockPreset {
    /// BD3LM (arXiv 2503.09573): the bound of log p, each block with a t of its own.
    Bd3lm,
    /// SDAR (arXiv 2510.06303): the bound, one t a sequence.
    Sdar,
    /// LLaDA2 (arXiv 2512.15745) as dFactory trains it: the mean over masked tokens, t from 0.3 to 0.8.
    Llada2,
}

/// What of a batch has one noise level.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseLevel {
    /// Each block of a sequence.
    Block,
    /// Each sequence.
    Sequence,
}

/// What the loss of a masked token counts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub enum Weighting {
    /// 1/t, which makes the loss a bound of −log p.
    #[serde(rename = "1/t")]
    InverseT,
    /// All the same.
    #[serde(rename = "none")]
    None,
}

impl BlockPreset {
    /// Its choices.
    fn block(self) -> Block {
        let bd3lm = Block {
            preset: self,
            length: 32.into(),
            from_step: OneOrMany::Many(vec![0]),
            noise_range: [1e-3, 1.0],
            noise_level: NoiseLevel::Block,
            weighting: Weighting::InverseT,
            normalisation: Normalisation::Tokens,
            exclude_mask_logit: true,
            cap_weight: 0.0,
        };
        let (noise_level, exclude_mask_logit) = (NoiseLevel::Sequence, false);
        match self {
            Self::Bd3lm => bd3lm,
            Self::Sdar => Block { noise_level, exclude_mask_logit, ..bd3lm },
            Self::Llada2 => Block {
                noise_level,
                exclude_mask_logit,
                noise_range: [0.3, 0.8],
                weighting: Weighting::None,
                normalisation: Normalisation::Masked,
                ..bd3lm
            },
        }
    }
}

impl Block {
    /// Tokens of a block in `step`, from 0.
    pub fn length_at(&self, step: u64) -> usize {
        let begun = self.from_step.as_slice().iter().filter(|from| **from <= step).count();
        let lengths = self.length.as_slice();
        lengths.get(begun.saturating_sub(1)).or(lengths.last()).copied().unwrap_or(1).max(1)
    }

    /// Tokens of a block of the finished model.
    pub fn last_length(&self) -> usize {
        self.length.as_slice().last().copied().unwrap_or(1)
    }

    /// The masking probability for `t`, uniform from 0 to 1.
    pub(in crate::train) fn probability(&self, t: f64) -> f64 {
        let [low, high] = self.noise_range;
        low + (high - low) * t
    }

    /// Fails at the first value that is out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |key: &str, found: String, expected: &str| {
            let (key, expected) = (format!("block.{key}"), expected.into());
            Err(TrainError::Value { key, found, expected }.into())
        };
        let (lengths, from) = (self.length.as_slice(), self.from_step.as_slice());
        if lengths.is_empty() || lengths.iter().any(|n| !(1..=1 << 24).contains(n)) {
            return wrong("length", format!("{lengths:?}"), "from 1 to 16777216");
        }
        let rises = from.windows(2).all(|pair| pair[0] < pair[1]);
        if from.len() != lengths.len() || from.first() != Some(&0) || !rises {
            let expected = "a rising step for each item of `block.length`, the first 0";
            return wrong("from_step", format!("{from:?}"), expected);
        }
        let [low, high] = self.noise_range;
        let least = if self.weighting == Weighting::InverseT { 1e-6 } else { 0.0 };
        if !(least <= low && low <= high && high <= 1.0 && high > 0.0) {
            let expected = "two rising numbers from 0 to 1, above 0 where losses count 1/t";
            return wrong("noise_range", format!("[{low}, {high}]"), expected);
        }
        if !(0.0..=1e3).contains(&self.cap_weight) {
            return wrong("cap_weight", self.cap_weight.to_string(), "from 0 to 1000");
        }
        Ok(())
    }
}

/// Puts the choices of its preset in a `[block]` for those that it leaves out.
pub(super) fn complete(table: &mut Table) -> Result<()> {
    let Some(Value::Table(section)) = table.get_mut("block") else { return Ok(()) };
    let preset = section.get("preset").cloned().unwrap_or_else(|| Value::String("bd3lm".into()));
    let preset: BlockPreset = preset
        .try_into()
        .map_err(|e: toml::de::Error| TrainError::Recipe(e.to_string().trim().into()))?;
    let choices = Table::try_from(preset.block()).unwrap_or_default();
    for (key, value) in choices {
        section.entry(key).or_insert(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    fn block(overrides: &[&str]) -> Block {
        Recipe::parse("", overrides).unwrap().block.unwrap()
    }

    #[test]
    fn a_preset_is_where_choices_start_from() {
        let llada2 = block(&["block.preset=llada2", "block.length=4", "block.cap_weight=2"]);
        assert_eq!(llada2.noise_range, [0.3, 0.8]);
        assert_eq!((llada2.length.as_slice(), llada2.cap_weight), (&[4][..], 2.0));
        assert_eq!((llada2.weighting, llada2.exclude_mask_logit), (Weighting::None, false));
        let mixed = block(&["block.preset=llada2", "block.weighting=1/t"]);
        assert_eq!(mixed.weighting, Weighting::InverseT);
        assert_eq!(block(&["block.preset=sdar"]).noise_level, NoiseLevel::Sequence);
        assert_eq!(block(&["block.length=32"]), Block::default());
        assert_eq!(Recipe::parse("", &["train.steps=5"]).unwrap().block, None);
        let resolved = Recipe::parse("", &["block.preset=sdar"]).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(Recipe::parse(&resolved.to_toml(), &none).unwrap(), resolved);
    }

    #[test]
    fn lengths_hold_from_their_steps_on() {
        let warm = block(&["block.length=1,4,32", "block.from_step=0,10,25"]);
        let at = [0, 9, 10, 24, 25, 9000].map(|step| warm.length_at(step));
        assert_eq!((at, warm.last_length()), ([1, 1, 4, 4, 32, 32], 32));
        assert_eq!(Block::default().length_at(7), 32);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_key() {
        for (overrides, key) in [
            (&["block.length=0"][..], "block.length"),
            (&["block.length=1,4"], "block.from_step"),
            (&["block.length=1,4", "block.from_step=0,0"], "block.from_step"),
            (&["block.length=1,4", "block.from_step=1,2"], "block.from_step"),
            (&["block.noise_range=0,1"], "block.noise_range"),
            (&["block.noise_range=0.8,0.3"], "block.noise_range"),
            (&["block.noise_range=0.3,1.5"], "block.noise_range"),
            (&["block.cap_weight=-1"], "block.cap_weight"),
            (&["block.length=4", "train.objective=autoregressive"], "train.objective"),
        ] {
            let error = Recipe::parse("", overrides).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{key}` is")), "{overrides:?}: {error}");
        }
        assert!(Recipe::parse("", &["block.noise_range=0,1", "block.weighting=none"]).is_ok());
        assert!(Recipe::parse("", &["block.preset=best"]).is_err());
    }
}
