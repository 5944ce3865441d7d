//! The tokenizer as keys of a GGUF file, under llama.cpp's names, and back.
//!
//! The files of the tokenizer travel whole: `tokenizer.json` in the key that GGUF has for it, the
//! others beside it. For other readers the vocabulary of a byte-level BPE is written out as well.
//! From a file that another program wrote the tokenizer is built of tokens and merges.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::{
    container::File,
    metadata::FILE,
    value::Value,
    write::{Entry, Setting},
};
use crate::{
    Result, checkpoint::CheckpointError, config::SpecialTokens, json, tokenizer::TokenizerFiles,
};

/// GGUF's key for a whole `tokenizer.json`.
const JSON: &str = "tokenizer.huggingface.json";

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// How a text is cut into words before the merges.
enum Words {
    /// The pattern of GPT-2, which is part of the byte-level step.
    Gpt2,
    /// A pattern of its own.
    Pattern(&'static str),
}

/// A way to cut words that llama.cpp knows.
struct Known {
    /// The name that is written first, and others for the same.
    names: &'static [&'static str],
    words: Words,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    whole_words: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

const KNOWN: [Known; 5] = [
    Known { names: &["smaug-bpe", "dbrx"], words: Words::Pattern(LLAMA3), whole_words: false },
    Known {
        names: &["llama-bpe", "llama3", "llama-v3"],
        words: Words::Pattern(LLAMA3),
        whole_words: true,
    },
    Known { names: &["qwen2"], words: Words::Pattern(QWEN2), whole_words: false },
    Known {
        names: &["llada-moe", "bailingmoe", "bailingmoe2"],
        words: Words::Pattern(BAILING),
        whole_words: false,
    },
    Known { names: &["gpt-2"], words: Words::Gpt2, whole_words: false },
];

/// The keys of a tokenizer whose model has `rows` embeddings, and what other readers will miss.
pub(super) fn keys(
    files: &TokenizerFiles,
    special: &SpecialTokens,
    rows: usize,
) -> (Vec<Entry>, Option<String>) {
    let mut keys = Vec::new();
    for (name, bytes) in files.iter() {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let key = key(name);
            keys.push((key, Setting::Text(text.to_owned())));
        }
    }
    let json = |name| files.get(name).and_then(|bytes| json::parse_settings(bytes).ok());
    let tokenizer = json(TOKENIZER);
    let vocabulary = tokenizer.as_ref().and_then(|json| Vocabulary::new(json, rows));
    let (model, missed) = match (&vocabulary, &tokenizer) {
        (Some(_), _) => ("gpt2", None),
        (None, None) => ("no_vocab", None),
        (None, Some(_)) => (
            "no_vocab",
            Some("the tokenizer is no byte-level BPE: other programs will see token ids only"),
        ),
    };
    let mut missed = missed.map(str::to_owned);
    keys.push(("tokenizer.ggml.model".into(), Setting::Text(model.into())));
    if let Some(vocabulary) = vocabulary {
        if vocabulary.pre.is_none() {
            missed = Some(
                "llama.cpp has no name for the way in which this tokenizer cuts words: other \
                 programs may give other token ids for the same text"
                    .into(),
            );
        }
        let settings = json(SETTINGS);
        keys.extend(vocabulary.keys(settings.as_ref()));
        if let Some(template) = files.chat_template() {
            keys.push(("tokenizer.chat_template".into(), Setting::Text(template)));
        }
    }
    // Who has token ids and no text of them still needs the mask.
    let ids = [
        ("bos", special.bos),
        ("eos", special.eos),
        ("eot", special.eot),
        ("padding", special.pad),
        ("mask", special.mask),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            keys.push((format!("tokenizer.ggml.{name}_token_id"), Setting::Number(id)));
        }
    }
    (keys, missed)
}

/// A byte-level BPE, as llama.cpp has it.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<i32>,
    merges: Vec<String>,
    pre: Option<&'static str>,
}

impl Vocabulary {
    /// From a `tokenizer.json`; `None` where it is of another kind. Rows of the embedding that have
    /// no token get an unused one.
    fn new(tokenizer: &Json, rows: usize) -> Option<Self> {
        let model = tokenizer.get("model")?;
        let vocab = model.get("vocab")?.as_object()?;
        let merges = model.get("merges")?.as_array()?;
        let pre = tokenizer.get("pre_tokenizer")?;
        let steps = match pre.get("pretokenizers").and_then(Json::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![pre],
        };
        let is = |step: &Json, name: &str| step.get("type").and_then(Json::as_str) == Some(name);
        let byte_level = steps.iter().find(|step| is(step, "ByteLevel"))?;
        let unused = |row: usize| (format!("[PAD{row}]"), UNUSED);
        let mut tokens: Vec<(String, i32)> = (0..rows).map(unused).collect();
        let mut set = |id: &Json, token: &str, kind| {
            let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
            let slot = id.and_then(|id| tokens.get_mut(id))?;
            *slot = (token.to_owned(), kind);
            Some(())
        };
        for (token, id) in vocab {
            set(id, token, NORMAL)?;
        }
        for added in tokenizer.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
            let special = added.get("special").and_then(Json::as_bool).unwrap_or(false);
            let kind = if special { CONTROL } else { USER_DEFINED };
            set(added.get("id")?, added.get("content")?.as_str()?, kind)?;
        }
        let merge = |merge: &Json| match merge {
            Json::String(line) => Some(line.clone()),
            pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
        };
        let merges = merges.iter().map(merge).collect::<Option<_>>()?;
        let pattern = steps
            .iter()
            .find(|step| is(step, "Split"))
            .and_then(|step| step.get("pattern")?.get("Regex")?.as_str());
        let gpt2 = byte_level.get("use_regex").and_then(Json::as_bool).unwrap_or(true);
        let cuts = |known: &&Known| match (&known.words, pattern) {
            (Words::Pattern(known), Some(found)) => *known == found && !gpt2 && steps.len() == 2,
            (Words::Gpt2, None) => gpt2 && steps.len() == 1,
            _ => false,
        };
        let whole_words = model.get("ignore_merges").and_then(Json::as_bool).unwrap_or(false);
        let mut cutting: Vec<&Known> = KNOWN.iter().filter(cuts).collect();
        cutting.sort_by_key(|known| known.whole_words != whole_words);
        let (tokens, kinds) = tokens.into_iter().unzip();
        Some(Self { tokens, kinds, merges, pre: cutting.first().map(|known| known.names[0]) })
    }

    fn keys(self, settings: Option<&Json>) -> Vec<Entry> {
        let flag = |key: &str| {
            let stated = settings.and_then(|s| s.get(key)).and_then(Json::as_bool);
            Setting::Bool(stated.unwrap_or(false))
        };
        vec![
            ("tokenizer.ggml.pre".into(), Setting::Text(self.pre.unwrap_or("default").into())),
            ("tokenizer.ggml.tokens".into(), Setting::Texts(self.tokens)),
            ("tokenizer.ggml.token_type".into(), Setting::Signed(self.kinds)),
            ("tokenizer.ggml.merges".into(), Setting::Texts(self.merges)),
            ("tokenizer.ggml.add_bos_token".into(), flag("add_bos_token")),
            ("tokenizer.ggml.add_eos_token".into(), flag("add_eos_token")),
        ]
    }
}

/// The files of the tokenizer in `file`: those that it carries, or else those that its tokens and
/// merges make. None where it has no tokenizer at all.
///
/// # Errors
/// When the tokenizer is of a kind that is not known, or its keys are damaged.
pub(in crate::checkpoint) fn files(file: &File) -> Result<TokenizerFiles> {
    let mut files = TokenizerFiles::collect(|name| Some(carried(file, name)?.as_bytes().to_vec()));
    let model = file.value("tokenizer.ggml.model").and_then(Value::text);
    if files.get(TOKENIZER).is_some() || matches!(model, None | Some("no_vocab" | "none")) {
        return Ok(files);
    }
    let built = Built::new(file)?;
    if files.get(SETTINGS).is_none() {
        files.set(SETTINGS, format!("{:#}\n", built.settings(file)).into_bytes());
    }
    files.set(TOKENIZER, format!("{:#}\n", built.tokenizer()).into_bytes());
    Ok(files)
}

/// The key that holds the file of a tokenizer of that name.
fn key(name: &str) -> String {
    if name == TOKENIZER { JSON.to_owned() } else { format!("{FILE}{name}") }
}

/// The text of the file `name` of a tokenizer, where it travels whole.
fn carried<'a>(file: &'a File, name: &str) -> Option<&'a str> {
    file.value(&key(name))?.text()
}

/// A tokenizer of tokens and merges.
struct Built<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<i32>,
    merges: Vec<&'a str>,
    known: &'static Known,
}

impl<'a> Built<'a> {
    fn new(file: &'a File) -> Result<Self> {
        let wrong = |key: &str, what: String| CheckpointError::GgufKey {
            file: file.path().to_path_buf(),
            key: key.to_owned(),
            what,
        };
        let name = |key| {
            let name = file.value(key).and_then(Value::text).unwrap_or("");
            name.chars().take(100).collect::<String>()
        };
        let model = name("tokenizer.ggml.model");
        if model != "gpt2" {
            let what = format!("is `{model}`: only byte-level BPE (`gpt2`) is read");
            return Err(wrong("tokenizer.ggml.model", what).into());
        }
        let pre = name("tokenizer.ggml.pre");
        let Some(known) = KNOWN.iter().find(|known| known.names.contains(&pre.as_str())) else {
            let what = format!("is `{pre}`, a way to cut words that is not known here");
            return Err(wrong("tokenizer.ggml.pre", what).into());
        };
        let texts = |key: &str| {
            let array = file.value(key).and_then(Value::array);
            let array = array.ok_or_else(|| wrong(key, "is missing".into()))?;
            let texts: Vec<&str> = array.iter().map_while(Value::text).collect();
            if texts.len() == array.len() {
                Ok(texts)
            } else {
                Err(wrong(key, "is no list of texts".into()))
            }
        };
        let (tokens, merges) = (texts("tokenizer.ggml.tokens")?, texts("tokenizer.ggml.merges")?);
        let kinds = file.value("tokenizer.ggml.token_type").and_then(Value::array);
        let kinds: Vec<i32> = match kinds {
            None => vec![NORMAL; tokens.len()],
            Some(kinds) => kinds.iter().map(|kind| kind.index().unwrap_or(0) as i32).collect(),
        };
        if kinds.len() != tokens.len() {
            let what = format!("has {} kinds for {} tokens", kinds.len(), tokens.len());
            return Err(wrong("tokenizer.ggml.token_type", what).into());
        }
        if tokens.iter().collect::<BTreeSet<_>>().len() != tokens.len() {
            return Err(wrong("tokenizer.ggml.tokens", "has a token twice".into()).into());
        }
        Ok(Self { tokens, kinds, merges, known })
    }

    fn tokens(&self) -> impl Iterator<Item = (usize, &'a str, i32)> + '_ {
        self.tokens.iter().zip(&self.kinds).enumerate().map(|(id, (text, kind))| (id, *text, *kind))
    }

    fn tokenizer(&self) -> Json {
        let mut vocab = Map::new();
        let mut added = Vec::new();
        for (id, token, kind) in self.tokens() {
            match kind {
                CONTROL | USER_DEFINED | UNKNOWN => added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false,
                    "rstrip": false, "normalized": false, "special": kind != USER_DEFINED,
                })),
                UNUSED => {}
                _ => {
                    vocab.insert(token.to_owned(), json!(id));
                }
            }
        }
        let gpt2 = matches!(self.known.words, Words::Gpt2);
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": gpt2,
        });
        let cut = match self.known.words {
            Words::Gpt2 => byte_level.clone(),
            Words::Pattern(pattern) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                 "invert": false},
                byte_level,
            ]}),
        };
        let merges: Vec<_> = self.merges.iter().map(|merge| merge.split_once(' ')).collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "pre_tokenizer": cut, "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": self.known.whole_words, "vocab": vocab,
                "merges": merges,
            },
        })
    }

    fn settings(&self, file: &File) -> Json {
        let mut settings = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
        let names = [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("mask", "mask")];
        for (name, key) in names {
            let id = file.value(&format!("tokenizer.ggml.{key}_token_id")).and_then(Value::index);
            if let Some(token) = id.and_then(|id| self.tokens.get(id)) {
                settings[format!("{name}_token")] = json!(token);
            }
        }
        for key in ["add_bos_token", "add_eos_token"] {
            if let Some(Value::Bool(flag)) = file.value(&format!("tokenizer.ggml.{key}")) {
                settings[key] = json!(flag);
            }
        }
        if let Some(template) = file.value("tokenizer.chat_template").and_then(Value::text) {
            settings["chat_template"] = json!(template);
        }
        settings
    }
}
