//! `generation_config.json`: how a model proposes to be sampled.
//!
//! The keys are those of [`Settings`], and of `transformers` `max_new_tokens` and `do_sample`; all
//! others are passed over, because files of `transformers` have many. A number on its own as
//! `threshold` or `factor` stands for the transfer rule of that name.

use std::path::Path;

use serde_json::Value;

use super::CheckpointError;
use crate::{
    Result,
    diffusion::{Settings, settings::Key},
    json,
};

/// What the text of the file `file` proposes.
///
/// # Errors
/// When the file is damaged, or a value is none that its setting can have: the error names file, key
/// and range.
pub(super) fn parse(text: &str, file: &Path) -> Result<Settings> {
    let file = || file.to_path_buf();
    let read = json::parse_object(text.as_bytes());
    let json =
        read.map_err(|e| CheckpointError::GenerationJson { file: file(), what: e.to_string() })?;
    let wrong = |source| CheckpointError::Generation { file: file(), source };
    let mut settings = Settings::default();
    // For `transformers` these two are of no effect where nothing is drawn.
    let is_drawn = json.get("do_sample") == Some(&Value::Bool(true))
        && json.get("temperature").and_then(Value::as_f64).is_some_and(|t| t > 0.0);
    let counts = |name: &str| is_drawn || !["top_k", "top_p"].contains(&name);
    for (name, value) in json.iter().filter(|(_, value)| !value.is_null()) {
        if let Ok(key) = Key::named(name)
            && counts(key.name)
        {
            settings.set_value(key.name, value).map_err(wrong)?;
        }
    }
    let alone = |key: &str| json.get(key).filter(|value| !value.is_null());
    if let (None, Some(length)) = (settings.gen_length, alone("max_new_tokens")) {
        settings.set_value("gen_length", length).map_err(wrong)?;
    }
    for rule in ["threshold", "factor"] {
        if let (None, Some(number)) = (settings.transfer, alone(rule)) {
            settings.set("transfer", &format!("{rule}={}", plain(number))).map_err(wrong)?;
        }
    }
    // For `transformers` a temperature beside it is of no effect.
    if json.get("do_sample") == Some(&Value::Bool(false)) {
        settings.temperature = None;
    }
    Ok(settings)
}

/// A value as a person would type it.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::{GENERATION_CONFIG, load_generation_config};
    use crate::diffusion::{
        Preset, TransferRule,
        settings::tests::{example, outside},
    };

    fn written(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(GENERATION_CONFIG), text).unwrap();
        load_generation_config(dir.path())
    }

    #[test]
    fn our_keys_are_read_and_others_passed_over() {
        let found = written(
            r#"{"_from_model_config": true, "eos_token_id": [1, 2], "top_p": 0.9, "steps": null,
                "temperature": 0.5, "max_new_tokens": 64, "preset": "FAST", "threshold": 0.8,
                "block-length": "16", "top_k": Infinity, "logits_eos_inf": true, "transformers_version": "5.0"}"#,
        );
        let expected = Settings {
            temperature: Some(0.5),
            gen_length: Some(64),
            preset: Some(Preset::Fast),
            transfer: Some(TransferRule::Threshold(0.8)),
            block_length: Some(16),
            logits_eos_inf: Some(true),
            ..Settings::default()
        };
        assert_eq!(found.unwrap(), expected);
        let drawn = written(r#"{"do_sample": true, "temperature": 0.5, "top_p": 0.9, "top_k": 8}"#);
        let drawn = drawn.unwrap();
        assert_eq!((drawn.temperature, drawn.top_p, drawn.top_k), (Some(0.5), Some(0.9), Some(8)));
        let both =
            written(r#"{"gen_length": 8, "max_new_tokens": 64, "transfer": "klass", "factor": 2}"#);
        let both = both.unwrap();
        assert_eq!(
            (both.gen_length, both.transfer.map(TransferRule::name)),
            (Some(8), Some("klass"))
        );
        let greedy = written(r#"{"do_sample": false, "temperature": 0.9}"#).unwrap();
        assert_eq!(greedy, Settings::default());
        assert_eq!(load_generation_config(Path::new("none")).unwrap(), Settings::default());
    }

    #[test]
    fn every_setting_of_the_table_is_read_within_its_range() {
        for key in Settings::KEYS {
            let mut expected = Settings::default();
            expected.set(key.name, &example(key)).unwrap();
            let mut json = expected.to_json();
            // Beside a temperature that draws, as `transformers` reads `top_k` and `top_p`.
            json.insert("do_sample".into(), true.into());
            json.entry("temperature").or_insert(0.5.into());
            expected.temperature.get_or_insert(0.5);
            assert_eq!(written(&Value::Object(json).to_string()).unwrap(), expected);
            for wrong in outside(key) {
                let text = serde_json::json!({ key.name: wrong, "do_sample": true });
                let mut text = text.as_object().cloned().unwrap();
                text.entry("temperature").or_insert(0.5.into());
                let error = written(&Value::Object(text).to_string()).unwrap_err().to_string();
                let range = key.range().unwrap();
                let expected = format!("{} is {wrong}, which is not {range}", key.name);
                assert!(error.contains(&expected), "{error}");
            }
        }
    }

    #[test]
    fn bad_values_name_file_key_and_range() {
        for (text, message) in [
            (r#"{"temperature": -1}"#, "temperature is -1, which is not a number from 0 to 100"),
            (r#"{"temperature": "hot"}"#, "temperature is hot, which is not"),
            (r#"{"steps": 2.5}"#, "steps is 2.5, which is not a whole number from 1 to"),
            (r#"{"max_new_tokens": 0}"#, "gen_length is 0, which is not a whole number"),
            (r#"{"threshold": 2}"#, "transfer threshold is 2, which is not a number from 0 to 1"),
            (r#"{"remasking": "luck"}"#, "unknown remasking `luck`"),
            (r#"{"cache": ["dual"]}"#, "unknown cache `[\"dual\"]`"),
            (r#"{"temperature": NaN}"#, "temperature is NaN, which is not a number"),
            (r#"{"temperature": 1e999}"#, "temperature is 1e999, which is not"),
            (r#"{"temperature": nan}"#, "is not a JSON object"),
            ("[]", "is not a JSON object"),
            ("", "it is empty"),
        ] {
            let error = written(text).unwrap_err();
            let shown = error.to_string();
            assert!(shown.contains(message) && shown.contains(GENERATION_CONFIG), "{shown}");
            assert!(error.hint().is_some_and(|hint| !hint.contains("--")), "{shown}");
        }
    }
}
