//! Settings of a [`Sampler`] by name, each of which may be left to another layer:
//! what flags say, what a chat's `/set` changes, what a model's `generation_config.json` proposes.

use std::str::FromStr;

use super::{
    Blocks, Cache, Edit, Keep, Preset, Range, Remasking, Sampler, SamplerError,
    cache::{CacheType, SuffixWindow},
};

/// Settings that were made; `None` is left open.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Where to start from.
    pub preset: Option<Preset>,
    /// Length of the response.
    pub gen_length: Option<usize>,
    /// Sampling steps.
    pub steps: Option<usize>,
    /// Where tokens may be committed.
    pub blocks: Option<Blocks>,
    /// Length of a block.
    pub block_length: Option<usize>,
    /// End blocks where the text has a joint.
    pub adaptive_blocks: Option<bool>,
    /// Find the length of the response.
    pub variable_length: Option<bool>,
    /// Who is kept.
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise.
    pub temperature: Option<f64>,
    /// Draw among this many most probable tokens only.
    pub top_k: Option<usize>,
    /// Draw among the fewest most probable tokens only that have this probability together.
    pub top_p: Option<f64>,
    /// Draw who is kept, by confidence over this.
    pub alg_temp: Option<f64>,
    /// Guidance w of Eq. 16.
    pub cfg_scale: Option<f32>,
    /// Never choose EOS.
    pub logits_eos_inf: Option<bool>,
    /// Choose EOS and EoT last.
    pub confidence_eos_eot_inf: Option<bool>,
    /// Seed of all random draws.
    pub seed: Option<u64>,
    /// How many are kept.
    pub keep: Option<Keep>,
    /// What a pass forwards.
    pub cache: Option<Cache>,
    /// Passes of a block after which one is over the whole row.
    pub cache_refresh: Option<usize>,
    /// Passes over the whole row at the beginning of a block.
    pub cache_warm_up: Option<usize>,
    /// Positions around the block that are fed along with it.
    pub cache_window: Option<usize>,
    /// The type of what is kept.
    pub cache_type: Option<CacheType>,
    /// How many masks after the block take part.
    pub suffix_window: Option<usize>,
    /// Whether they thin out with their distance.
    pub suffix_decay: Option<bool>,
    /// Mask tokens again that the model comes to contradict.
    pub revise: Option<f64>,
    /// Let tokens of the open block give way to those of more than this probability.
    pub edit: Option<f64>,
    /// Passes over a block that is full already, at most.
    pub edit_rounds: Option<usize>,
}

impl Settings {
    /// No setting at all.
    pub const NONE: Self = Self {
        preset: None,
        gen_length: None,
        steps: None,
        blocks: None,
        block_length: None,
        adaptive_blocks: None,
        variable_length: None,
        remasking: None,
        temperature: None,
        top_k: None,
        top_p: None,
        alg_temp: None,
        cfg_scale: None,
        logits_eos_inf: None,
        confidence_eos_eot_inf: None,
        seed: None,
        keep: None,
        cache: None,
        cache_refresh: None,
        cache_warm_up: None,
        cache_window: None,
        cache_type: None,
        suffix_window: None,
        suffix_decay: None,
        revise: None,
        edit: None,
        edit_rounds: None,
    };

    /// The names of all settings, in the order in which people are told of them.
    pub const NAMES: [&'static str; 27] = [
        "preset",
        "gen_length",
        "steps",
        "blocks",
        "block_length",
        "remasking",
        "keep",
        "cache",
        "cache_type",
        "cache_refresh",
        "cache_warm_up",
        "cache_window",
        "suffix_window",
        "suffix_decay",
        "revise",
        "edit",
        "edit_rounds",
        "adaptive_blocks",
        "variable_length",
        "temperature",
        "top_k",
        "top_p",
        "alg_temp",
        "cfg_scale",
        "logits_eos_inf",
        "confidence_eos_eot_inf",
        "seed",
    ];

    /// Makes the setting `name` (`-` counts as `_`) from its text; `default` leaves it open again.
    ///
    /// # Errors
    /// When there is no such setting, or `value` is none of its values.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SamplerError> {
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        let Some(name) = Self::NAMES.into_iter().find(|known| *known == name) else {
            let known = Self::NAMES.join(", ");
            return Err(SamplerError::Unknown { what: "setting", found: name, known });
        };
        match name {
            "preset" => choose(&mut self.preset, value),
            "gen_length" => number(&mut self.gen_length, name, value),
            "steps" => number(&mut self.steps, name, value),
            "blocks" => choose(&mut self.blocks, value),
            "block_length" => number(&mut self.block_length, name, value),
            "remasking" => choose(&mut self.remasking, value),
            "keep" => choose(&mut self.keep, value),
            "cache" => choose(&mut self.cache, value),
            "cache_type" => choose(&mut self.cache_type, value),
            "cache_refresh" => number(&mut self.cache_refresh, name, value),
            "cache_warm_up" => number(&mut self.cache_warm_up, name, value),
            "cache_window" => number(&mut self.cache_window, name, value),
            "suffix_window" => number(&mut self.suffix_window, name, value),
            "suffix_decay" => switch(&mut self.suffix_decay, name, value),
            "revise" => number(&mut self.revise, name, value),
            "edit" => number(&mut self.edit, name, value),
            "edit_rounds" => number(&mut self.edit_rounds, name, value),
            "adaptive_blocks" => switch(&mut self.adaptive_blocks, name, value),
            "variable_length" => switch(&mut self.variable_length, name, value),
            "temperature" => number(&mut self.temperature, name, value),
            "top_k" => number(&mut self.top_k, name, value),
            "top_p" => number(&mut self.top_p, name, value),
            "alg_temp" => number(&mut self.alg_temp, name, value),
            "cfg_scale" => number(&mut self.cfg_scale, name, value),
            "logits_eos_inf" => switch(&mut self.logits_eos_inf, name, value),
            "confidence_eos_eot_inf" => switch(&mut self.confidence_eos_eot_inf, name, value),
            _ => number(&mut self.seed, name, value),
        }
    }

    /// These settings, and where they are open those of `other`.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self {
            preset: self.preset.or(other.preset),
            gen_length: self.gen_length.or(other.gen_length),
            steps: self.steps.or(other.steps),
            blocks: self.blocks.or(other.blocks),
            block_length: self.block_length.or(other.block_length),
            adaptive_blocks: self.adaptive_blocks.or(other.adaptive_blocks),
            variable_length: self.variable_length.or(other.variable_length),
            remasking: self.remasking.or(other.remasking),
            temperature: self.temperature.or(other.temperature),
            top_k: self.top_k.or(other.top_k),
            top_p: self.top_p.or(other.top_p),
            alg_temp: self.alg_temp.or(other.alg_temp),
            cfg_scale: self.cfg_scale.or(other.cfg_scale),
            logits_eos_inf: self.logits_eos_inf.or(other.logits_eos_inf),
            confidence_eos_eot_inf: self.confidence_eos_eot_inf.or(other.confidence_eos_eot_inf),
            seed: self.seed.or(other.seed),
            keep: self.keep.or(other.keep),
            cache: self.cache.or(other.cache),
            cache_refresh: self.cache_refresh.or(other.cache_refresh),
            cache_warm_up: self.cache_warm_up.or(other.cache_warm_up),
            cache_window: self.cache_window.or(other.cache_window),
            cache_type: self.cache_type.or(other.cache_type),
            suffix_window: self.suffix_window.or(other.suffix_window),
            suffix_decay: self.suffix_decay.or(other.suffix_decay),
            revise: self.revise.or(other.revise),
            edit: self.edit.or(other.edit),
            edit_rounds: self.edit_rounds.or(other.edit_rounds),
        }
    }

    /// Those of the settings that go with any choice of the others.
    #[must_use]
    pub fn unbound(&self) -> Self {
        Self {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            ..Self::default()
        }
    }

    /// The settings that are made, by name, in the spelling that [`set`](Self::set) reads.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        fn text<T: ToString>(value: &Option<T>) -> Option<String> {
            value.as_ref().map(T::to_string)
        }
        let value = |name: &str| match name {
            "preset" => text(&self.preset),
            "gen_length" => text(&self.gen_length),
            "steps" => text(&self.steps),
            "blocks" => text(&self.blocks),
            "block_length" => text(&self.block_length),
            "remasking" => text(&self.remasking),
            "keep" => text(&self.keep),
            "cache" => text(&self.cache),
            "cache_type" => text(&self.cache_type),
            "cache_refresh" => text(&self.cache_refresh),
            "cache_warm_up" => text(&self.cache_warm_up),
            "cache_window" => text(&self.cache_window),
            "suffix_window" => text(&self.suffix_window),
            "suffix_decay" => text(&self.suffix_decay),
            "revise" => text(&self.revise),
            "edit" => text(&self.edit),
            "edit_rounds" => text(&self.edit_rounds),
            "adaptive_blocks" => text(&self.adaptive_blocks),
            "variable_length" => text(&self.variable_length),
            "temperature" => text(&self.temperature),
            "top_k" => text(&self.top_k),
            "top_p" => text(&self.top_p),
            "alg_temp" => text(&self.alg_temp),
            "cfg_scale" => text(&self.cfg_scale),
            "logits_eos_inf" => text(&self.logits_eos_inf),
            "confidence_eos_eot_inf" => text(&self.confidence_eos_eot_inf),
            _ => text(&self.seed),
        };
        Self::NAMES.into_iter().filter_map(|name| Some((name, value(name)?))).collect()
    }

    /// The cache with its refresh; the `usual` one where none is chosen.
    ///
    /// # Errors
    /// If there is a refresh and nothing to be refreshed.
    pub fn cache(&self, usual: Cache) -> Result<Cache, SamplerError> {
        let mut cache = self.cache.unwrap_or(usual);
        let refreshes = [
            ("cache_refresh", self.cache_refresh),
            ("cache_warm_up", self.cache_warm_up),
            ("cache_window", self.cache_window),
        ];
        match cache.refresh_mut() {
            Some(refresh) => {
                refresh.every = self.cache_refresh.unwrap_or(refresh.every);
                refresh.warm_up = self.cache_warm_up.unwrap_or(refresh.warm_up);
                refresh.before = self.cache_window.unwrap_or(refresh.before);
                refresh.after = self.cache_window.unwrap_or(refresh.after);
            }
            None => {
                if let Some((setting, _)) = refreshes.iter().find(|(_, n)| n.is_some_and(|n| n > 0))
                {
                    return Err(SamplerError::NoCache { setting });
                }
            }
        }
        Ok(cache)
    }

    /// Refuses what was set and has no effect in the layout of the `sampler` that these settings
    /// gave.
    ///
    /// # Errors
    /// If there is such a setting.
    pub fn check_used(&self, sampler: &Sampler) -> Result<(), SamplerError> {
        let blocks = sampler.blocks;
        let refuse = |setting, why| Err(SamplerError::Unused { setting, blocks, why });
        match blocks {
            Blocks::Pure if self.block_length.is_some_and(|n| n != sampler.gen_length) => {
                refuse("block_length", "whose one block is the response")
            }
            Blocks::Autoregressive if self.block_length.is_some_and(|n| n != 1) => {
                refuse("block_length", "whose blocks are single tokens")
            }
            Blocks::Autoregressive if self.steps.is_some_and(|n| n != sampler.gen_length) => {
                refuse("steps", "which takes one step for each token")
            }
            _ => Ok(()),
        }
    }

    /// How tokens of the open block give way to others; none where they are kept for good.
    ///
    /// # Errors
    /// If there are rounds of nothing.
    pub fn edit(&self) -> Result<Option<Edit>, SamplerError> {
        match (self.edit, self.edit_rounds) {
            (None, Some(_)) => Err(SamplerError::NoEdit),
            (None, None) => Ok(None),
            (Some(threshold), rounds) => {
                let rounds = rounds.unwrap_or(Edit::default().rounds);
                Ok(Some(Edit { threshold, rounds }))
            }
        }
    }

    /// The window over the masks after the block.
    pub fn suffix(&self) -> Option<SuffixWindow> {
        let decay = self.suffix_decay.unwrap_or(false);
        self.suffix_window.map(|masks| SuffixWindow { masks, decay })
    }
}

/// The text of a setting that leaves it open.
const OPEN: &str = "default";

fn choose<T>(slot: &mut Option<T>, value: &str) -> Result<(), SamplerError>
where
    T: FromStr<Err = SamplerError>,
{
    let value = value.trim();
    *slot = if value.eq_ignore_ascii_case(OPEN) { None } else { Some(value.parse()?) };
    Ok(())
}

fn number<T: FromStr>(
    slot: &mut Option<T>,
    name: &'static str,
    value: &str,
) -> Result<(), SamplerError> {
    let is_open = value.trim().eq_ignore_ascii_case(OPEN);
    *slot = if is_open { None } else { Some(Range::parse(name, value)?) };
    Ok(())
}

fn switch(slot: &mut Option<bool>, name: &'static str, value: &str) -> Result<(), SamplerError> {
    *slot = match value.trim().to_ascii_lowercase().as_str() {
        OPEN => None,
        "true" | "on" | "yes" => Some(true),
        "false" | "off" | "no" => Some(false),
        other => {
            let (found, known) = (other.to_owned(), "true, false".to_owned());
            return Err(SamplerError::Unknown { what: name, found, known });
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::cache::Refresh;

    /// A value of every setting.
    fn all() -> Settings {
        let mut settings = Settings::default();
        for name in Settings::NAMES {
            let values =
                ["fast", "pure", "margin", "threshold=0.5", "dual", "bf16", "on", "1", "0.5"];
            let taken = values.into_iter().find(|value| settings.set(name, value).is_ok());
            assert!(taken.is_some(), "{name}");
        }
        settings
    }

    #[test]
    fn every_setting_is_set_listed_and_taken_back() {
        let settings = all();
        let listed = settings.list();
        assert_eq!(listed.len(), Settings::NAMES.len(), "{listed:?}");
        let mut again = Settings::default();
        for (name, value) in &listed {
            again.set(&name.replace('_', "-").to_uppercase(), value).unwrap();
        }
        assert_eq!(again, settings);
        assert_eq!(Settings::default().over(&settings), settings);
        assert_eq!(settings.over(&Settings::default()), settings);
        for name in Settings::NAMES {
            again.set(name, "default").unwrap();
        }
        assert_eq!(again, Settings::default());
    }

    #[test]
    fn a_refresh_belongs_to_a_cache() {
        let settings = Settings {
            cache: Some("dual".parse().unwrap()),
            cache_refresh: Some(4),
            cache_window: Some(2),
            ..Settings::default()
        };
        let refresh = Refresh { every: 4, before: 2, after: 2, ..Refresh::default() };
        assert_eq!(settings.cache(Cache::None), Ok(Cache::Dual(refresh)));
        let usual = Cache::Prefix(Refresh::default());
        assert_eq!(Settings::default().cache(usual), Ok(usual));
        let idle = Settings { cache_refresh: Some(4), ..Settings::default() };
        let every = Refresh { every: 4, ..Refresh::default() };
        assert_eq!(idle.cache(usual), Ok(Cache::Prefix(every)));
        let error = idle.cache(Cache::None).unwrap_err();
        assert!(error.to_string().starts_with("cache_refresh has no meaning"), "{error}");
        assert_eq!(error.hint().unwrap(), "use --cache dual or prefix");
    }

    #[test]
    fn what_is_no_value_is_refused_and_changes_nothing() {
        let mut settings = all();
        for (name, value, message) in [
            ("steps", "many", "steps is many, which is not a whole number from 1 to 16777216"),
            ("temperature", "-1", "temperature is -1, which is not a number from 0 to 100"),
            ("seed", "-1", "seed is -1, which is not a whole number of 64 bits"),
            ("keep", "factor=0", "keep factor is 0, which is not a number above 0, up to 1048576"),
            ("suffix_decay", "2", "unknown suffix_decay `2`"),
            ("blocks", "spiral", "unknown block layout `spiral`"),
            ("wings", "2", "unknown setting `wings`"),
        ] {
            let error = settings.set(name, value).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().is_some(), "{name}");
        }
        assert_eq!(settings, all());
    }
}
