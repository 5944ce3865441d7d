//! Tests of the table: each walks over its rows.

#[path = "../../../../../tests/settings.rs"]
mod values;

pub(crate) use values::{example, outside};

use super::*;
use crate::{
    config::{ModelConfig, SpecialTokens},
    diffusion::{
        Cache, Edit, Preset, Reference, TransferRule,
        cache::{Refresh, SuffixWindow},
    },
};

/// A model's configuration, of a small vocabulary.
pub(crate) fn config() -> ModelConfig {
    crate::train::Recipe::default().model_config(300, SpecialTokens::default()).unwrap()
}

/// A value of every setting.
fn all() -> Settings {
    let mut settings = Settings::default();
    for key in Settings::KEYS {
        settings.set(key.name, &example(key)).unwrap();
    }
    settings
}

#[test]
fn every_row_says_what_it_is() {
    for (i, key) in Settings::KEYS.iter().enumerate() {
        assert!(!key.about().is_empty() && !key.about().ends_with('.'), "{}", key.name);
        assert!(Settings::KEYS[..i].iter().all(|other| other.name != key.name), "{}", key.name);
        assert_eq!(key.placeholder.is_empty(), matches!(key.kind, Kind::Switch), "{}", key.name);
        assert!(key.needs.is_none_or(|other| Key::named(other).is_ok()), "{}", key.name);
        if let Kind::Name(names) = key.kind {
            for name in names() {
                let name = name.split_once('=').map_or(name, |(name, _)| name);
                assert!(key.about().contains(name), "{}: {name}", key.name);
            }
        }
    }
}

#[test]
fn every_setting_is_set_listed_and_taken_back() {
    let settings = all();
    let listed = settings.list();
    assert_eq!(listed.len(), Settings::KEYS.len(), "{listed:?}");
    let mut again = Settings::default();
    for (name, value) in &listed {
        again.set(&name.replace('_', "-").to_uppercase(), value).unwrap();
    }
    assert_eq!(again, settings);
    assert_eq!(Settings::default().over(&settings), settings);
    assert_eq!(settings.over(&Settings::default()), settings);
    for name in Settings::names() {
        assert_eq!(settings.only(|key| key.name == name).list().len(), 1, "{name}");
        again.set(name, "default").unwrap();
    }
    assert_eq!(again, Settings::NONE);
    assert_eq!(Settings::default(), Settings::NONE);
}

#[test]
fn every_setting_is_read_from_json_and_toml() {
    let settings = all();
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
    let mut known = settings.clone();
    // TOML has no numbers above those of 63 bits.
    known.seed = Some(7);
    let text = toml::to_string(&known).unwrap();
    assert_eq!(toml::from_str::<Settings>(&text).unwrap(), known, "{text}");
    assert_eq!(serde_json::from_str::<Settings>(r#"{"steps": null}"#).unwrap(), Settings::NONE);
}

#[test]
fn every_setting_reaches_the_sampler() {
    let window = Some(SuffixWindow { masks: 9, decay: false });
    let base = Sampler {
        blocks: Blocks::SemiAutoregressive,
        cache: Cache::Prefix(Refresh::default()),
        edit: Some(Edit::default()),
        suffix_window: window,
        ..Sampler::default()
    };
    for key in Settings::KEYS.iter().filter(|key| key.name != "preset") {
        let mut asked = Settings::default();
        asked.set(key.name, &example(key)).unwrap();
        let sampler = asked.apply(base.clone()).unwrap();
        assert_ne!(sampler, base, "{}", key.name);
        match (key.name, sampler.blocks) {
            ("blocks", blocks) => assert_eq!(blocks, Blocks::Autoregressive),
            // It goes with a preset, of which a sampler knows nothing.
            ("reference", _) => assert_eq!(sampler.reference, Reference::Diffusers),
            _ => assert_eq!(Settings::of(&sampler).only(|k| k.name == key.name), asked),
        }
    }
    for preset in Preset::ALL {
        let sampler = preset.sampler();
        let again = Settings::of(&sampler).apply(sampler.clone()).unwrap();
        assert_eq!(again.block(), sampler.block());
        let same = Sampler { block_length: sampler.block_length, ..again };
        assert_eq!(same, sampler, "{preset}: what a sampler does is what makes it");
    }
}

#[test]
fn every_number_outside_its_range_is_refused_with_the_same_words() {
    for key in Settings::KEYS {
        for wrong in outside(key) {
            let range = key.range().unwrap();
            let expected = format!("{} is {wrong}, which is not {range}", key.name);
            let mut settings = Settings::default();
            let error = settings.set(key.name, &wrong).unwrap_err();
            assert_eq!(error.to_string(), expected);
            let flag = error.hint_for(crate::diffusion::Spelling::Flag).unwrap();
            assert!(flag.contains(&format!("--{} ", key.flag())), "{flag}");
            let command = error.hint_for(crate::diffusion::Spelling::Command).unwrap();
            assert!(command.contains(&format!("`/set {}`", key.name)), "{command}");
            let text = serde_json::json!({ key.name: wrong }).to_string();
            let error = serde_json::from_str::<Settings>(&text).unwrap_err();
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert_eq!(settings, Settings::NONE);
            // A sampler that was made otherwise is checked by the same table.
            let number: f64 = wrong.parse().unwrap();
            if !range.is_whole && number.is_finite() && key.name != "edit" {
                let json = serde_json::json!({ key.name: number }).to_string();
                let sampler: Sampler = serde_json::from_str(&json).unwrap();
                let error = sampler.check().unwrap_err().to_string();
                assert!(error.starts_with(key.name), "{error}");
            }
        }
    }
}

#[test]
fn a_refresh_belongs_to_a_cache() {
    let settings = Settings {
        cache: Some("dual".parse().unwrap()),
        cache_refresh: Some(4),
        cache_window: Some(2),
        ..Settings::default()
    };
    let cache = |settings: &Settings, cache| {
        settings.apply(Sampler { cache, ..Sampler::default() }).map(|sampler| sampler.cache)
    };
    let refresh = Refresh { every: 4, before: 2, after: 2, ..Refresh::default() };
    assert_eq!(cache(&settings, Cache::None), Ok(Cache::Dual(refresh)));
    let usual = Cache::Prefix(Refresh::default());
    assert_eq!(cache(&Settings::NONE, usual), Ok(usual));
    let idle = Settings { cache_refresh: Some(4), ..Settings::default() };
    let every = Refresh { every: 4, ..Refresh::default() };
    assert_eq!(cache(&idle, usual), Ok(Cache::Prefix(every)));
    let error = cache(&idle, Cache::None).unwrap_err();
    assert!(error.to_string().starts_with("cache_refresh has no meaning"), "{error}");
    assert_eq!(error.hint().unwrap(), "use --cache dual or prefix");
}

#[test]
fn parts_need_their_whole() {
    let refuse = |settings: Settings| settings.apply(Sampler::default()).unwrap_err().to_string();
    let decay = Settings { suffix_decay: Some(true), ..Settings::default() };
    assert_eq!(refuse(decay), "suffix_decay has no meaning without a suffix_window");
    let rounds = Settings { edit_rounds: Some(2), ..Settings::default() };
    assert!(refuse(rounds).starts_with("edit_rounds has no meaning"));
}

#[test]
fn what_is_no_value_is_refused_and_changes_nothing() {
    let mut settings = all();
    for (name, value, message) in [
        ("steps", "many", "steps is many, which is not a whole number from 1 to 16777216"),
        ("temperature", "-1", "temperature is -1, which is not a number from 0 to 100"),
        ("seed", "-1", "seed is -1, which is not a whole number of 64 bits"),
        (
            "transfer",
            "factor=0",
            "transfer factor is 0, which is not a number above 0, up to 1048576",
        ),
        ("suffix_decay", "2", "unknown suffix_decay `2`"),
        ("blocks", "spiral", "unknown block layout `spiral`"),
        ("wings", "2", "unknown setting `wings`"),
    ] {
        let error = settings.set(name, value).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some(), "{name}");
        let json = serde_json::json!({ name: value }).to_string();
        let error = serde_json::from_str::<Settings>(&json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    assert_eq!(settings, all());
    let error = serde_json::from_str::<Settings>(r#"{"wings": 2}"#).unwrap_err().to_string();
    assert!(Settings::names().all(|name| error.contains(name)), "{error}");
    assert_eq!(
        settings.transfer,
        Some(TransferRule::Credit(crate::diffusion::transfer::Credit::default()))
    );
}
