//! What lies beside a `tokenizer.json`: `tokenizer_config.json`, `special_tokens_map.json` and chat
//! templates, read as `transformers` reads them.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::{
    TokenizerError, TokenizerFiles,
    files::{CONFIG, DEFAULT, MAP, TEMPLATE, place},
};
use crate::{Result, config::SpecialTokens, files, json};

/// The key of chat templates.
const TEMPLATES: &str = "chat_template";
/// The chat template for conversations with tools.
pub(crate) const TOOLS: &str = "tool_use";
/// Objects whose fields are further special tokens.
const FURTHER: [&str; 2] = ["extra_special_tokens", "model_specific_special_tokens"];

/// Names by which models of this family call their special tokens; the first that is known counts.
const MASK: &[&str] = &["<|mdm_mask|>", "<|mask|>", "<|MASK|>", "|<MASK>|", "[MASK]", "<mask>"];
const EOS: &[&str] = &["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"];
const EOT: &[&str] = &["<|eot_id|>", "<|role_end|>", "<|im_end|>"];
const BOS: &[&str] = &["<|startoftext|>", "<|begin_of_text|>", "<s>", "<bos>"];
const PAD: &[&str] = &["<|pad|>", "[PAD]", "<pad>"];

/// The keys of a `tokenizer_config.json`; none of them is needed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Settings(Map<String, Value>);

impl Settings {
    /// Those that `tokenizer` holds, which is from the folder or the file `origin`: a template file
    /// goes before the key, and `special_tokens_map.json` before `tokenizer_config.json` where that has
    /// no `added_tokens_decoder`.
    pub(crate) fn of(tokenizer: &TokenizerFiles, origin: &Path) -> Result<Self> {
        let object = |name: &str| -> Result<Map<String, Value>> {
            let Some(text) = tokenizer.text(name, origin)? else { return Ok(Map::new()) };
            let file = place(origin, name);
            let own = if file == origin { format!("{name}: ") } else { String::new() };
            let parsed = json::parse_object(text.as_bytes());
            Ok(parsed.map_err(|e| TokenizerError::File { file, what: format!("{own}{e}") })?)
        };
        let mut settings = object(CONFIG)?;
        if !settings.contains_key("added_tokens_decoder") {
            settings.extend(object(MAP)?);
        }
        if let Some(text) = tokenizer.text(TEMPLATE, origin)? {
            settings.insert(TEMPLATES.into(), text.into());
        }
        Ok(Self(settings))
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
        files::replace_with(&dir.join(CONFIG), text.as_bytes())
    }

    /// Whether something is said of the key, be it that there is none.
    pub(crate) fn states(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The text of a special token.
    pub(crate) fn token(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(token)
    }

    /// The special tokens that a chat template may name: the keys that end in `_token`, and those of
    /// the objects of further ones.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = self.0.iter().filter(|(key, _)| key.ends_with("_token"));
        let further = FURTHER.iter().filter_map(|key| self.0.get(*key)?.as_object()).flatten();
        own.chain(further).filter_map(|(key, value)| Some((key.as_str(), token(value)?)))
    }

    /// The chat templates by their names; a single one has the name `default`. `None` where nothing is
    /// said of any.
    pub(crate) fn chat_templates(&self) -> Option<BTreeMap<&str, &str>> {
        match self.0.get(TEMPLATES)? {
            Value::String(template) => Some([(DEFAULT, template.as_str())].into()),
            Value::Array(list) => {
                let named = list.iter().filter_map(|template| {
                    Some((template.get("name")?.as_str()?, template.get("template")?.as_str()?))
                });
                Some(named.collect())
            }
            Value::Object(named) => Some(
                named.iter().filter_map(|(name, t)| Some((name.as_str(), t.as_str()?))).collect(),
            ),
            _ => None,
        }
    }

    /// The chat template that is meant where none is named.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        self.chat_templates()?.get(DEFAULT).copied()
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

impl TokenizerFiles {
    /// Adds a chat template if there is none.
    pub(crate) fn or_chat_template(&mut self, template: &str) {
        if self.has_no_chat_template() {
            self.set(TEMPLATE, template.into());
        }
    }

    /// Whether nothing is said of chat templates.
    fn has_no_chat_template(&self) -> bool {
        Settings::of(self, Path::new("")).is_ok_and(|settings| settings.chat_templates().is_none())
    }

    /// The chat template that they hold.
    pub(crate) fn chat_template(&self) -> Option<String> {
        let settings = Settings::of(self, Path::new("")).ok()?;
        settings.chat_template().map(str::to_owned)
    }
}

/// The text of a special token: a string, or an object with its `content`.
fn token(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
