//! `tokenizer_config.json` and `chat_template.jinja`: what lies beside a `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{TokenizerError, TokenizerFiles, files::place};
use crate::{Result, config::SpecialTokens, files, json};

pub(super) const FILE: &str = "tokenizer_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";

/// Names by which models of this family call their special tokens; the first that is known counts.
const MASK: &[&str] = &["<|mdm_mask|>", "<|mask|>", "[MASK]", "<mask>"];
const EOS: &[&str] = &["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
const EOT: &[&str] = &["<|eot_id|>", "<|role_end|>", "<|im_end|>"];
const BOS: &[&str] = &["<|startoftext|>", "<|begin_of_text|>", "<s>", "<bos>"];
const PAD: &[&str] = &["<|pad|>", "[PAD]", "<pad>"];

/// The keys of a `tokenizer_config.json`; none of them is needed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// Those that `tokenizer` holds, which is from the folder or the file `origin`; a template file
    /// goes before the key.
    pub(crate) fn of(tokenizer: &TokenizerFiles, origin: &Path) -> Result<Self> {
        let mut settings = Self::default();
        if let Some(text) = tokenizer.text(FILE, origin)? {
            let file = place(origin, FILE);
            let own = if file == origin { format!("{FILE}: ") } else { String::new() };
            settings.0 = json::parse_object(text.as_bytes())
                .map_err(|e| TokenizerError::File { file, what: format!("{own}{e}") })?;
        }
        if let Some(text) = tokenizer.text(TEMPLATE, origin)? {
            settings.0.insert("chat_template".into(), text.into());
        }
        Ok(settings)
    }

    /// Those of a tokenizer with LLaDA's special tokens. There is no chat template among them: a model
    /// gets one when it is tuned on conversations.
    pub(super) fn llada(unknown: Option<&str>) -> Self {
        let mut settings = Map::new();
        for (key, value) in [
            ("add_bos_token", json!(false)),
            ("add_eos_token", json!(false)),
            ("bos_token", json!("<|startoftext|>")),
            ("eos_token", json!("<|endoftext|>")),
            ("pad_token", json!("<|endoftext|>")),
            ("mask_token", json!("<|mdm_mask|>")),
            ("clean_up_tokenization_spaces", json!(false)),
            ("tokenizer_class", json!("PreTrainedTokenizerFast")),
        ] {
            settings.insert(key.into(), value);
        }
        if let Some(token) = unknown {
            settings.insert("unk_token".into(), token.into());
        }
        Self(settings)
    }

    /// With the tokens of `special`, whose texts `name` gives, where these do not state them, and
    /// the class that reads any `tokenizer.json`.
    pub(super) fn stating(
        &self,
        special: SpecialTokens,
        name: &dyn Fn(Option<u32>) -> Option<String>,
    ) -> Self {
        let SpecialTokens { mask, eos, bos, pad, eot: _ } = special;
        let tokens =
            [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("mask_token", mask)];
        let mut settings = self.0.clone();
        for (key, id) in tokens {
            if let Some(token) = name(id).filter(|_| self.token(key).is_none()) {
                settings.insert(key.into(), token.into());
            }
        }
        settings.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
        Self(settings)
    }

    /// Writes `tokenizer_config.json`, the template with it.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        files::replace_with(&dir.join(FILE), text.as_bytes())
    }

    /// Whether something is said of the key, be it that there is none.
    pub(crate) fn states(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether they state nothing but a chat template.
    pub(crate) fn are_bare(&self) -> bool {
        self.0.keys().all(|key| key == "chat_template")
    }

    /// The text of a special token: a string, or an object with its `content`.
    pub(crate) fn token(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    /// The chat template; of several, the one called `default`, or else the first.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        match self.0.get("chat_template")? {
            Value::Array(list) => {
                let named = list.iter().find(|t| t.get("name").is_some_and(|n| n == "default"));
                named.or(list.first())?.get("template")?.as_str()
            }
            template => template.as_str(),
        }
    }

    /// The ids that a tokenizer gives to the tokens with a meaning.
    pub(super) fn special_tokens(&self, tokenizer: &tokenizers::Tokenizer) -> SpecialTokens {
        let find = |key: &str, names: &[&str]| {
            let stated = self.token(key).and_then(|token| tokenizer.token_to_id(token));
            stated.or_else(|| names.iter().find_map(|name| tokenizer.token_to_id(name)))
        };
        let eos = find("eos_token", EOS);
        SpecialTokens {
            mask: find("mask_token", MASK),
            eos,
            eot: find("eot_token", EOT),
            bos: find("bos_token", BOS),
            pad: find("pad_token", PAD).or(eos),
        }
    }
}
