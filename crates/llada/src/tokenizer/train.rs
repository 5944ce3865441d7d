//! Tokenizers trained on raw text, with LLaDA's special tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::{
    NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizer,
    pre_tokenizers::byte_level::ByteLevel,
};

use super::{Settings, Tokenizer, TokenizerError, apply, bpe};
use crate::Result;

/// The special tokens of LLaDA, in the order of their ids. They follow the vocabulary, as in LLaDA.
pub const SPECIAL_TOKENS: [&str; 6] = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
];

/// Stands for a character that a character tokenizer has not seen.
const UNKNOWN: &str = "<|unk|>";

/// Where words begin and end for byte-pair encoding: Llama 3's pattern.
const WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Bytes of text looked at in one go: `tokenizers` needs a hundred times as much memory.
const PIECE: usize = 1 << 20;

/// What kind of tokenizer to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte-pair encoding of UTF-8 bytes (GPT-2's, with Llama 3's word pattern): every text can be
    /// encoded and comes back as it was.
    Bpe {
        /// Entries of the vocabulary, the 256 bytes and the special tokens included. Fewer come
        /// out where the text has too few pairs that occur twice.
        vocab_size: usize,
    },
    /// One token for each character; those seen less than `min_count` times become `<|unk|>`.
    Character {
        /// The least number of times that a character must be seen; 0 and 1 keep all.
        min_count: u64,
    },
}

/// Trains a tokenizer. The same texts give the same bytes of `tokenizer.json`. Special tokens
/// written in the texts (`<|endoftext|>` between documents) are not learnt from.
///
/// # Errors
/// When a text cannot be read, there is none, or the vocabulary asked for is too small.
pub fn train<T: AsRef<str>>(
    kind: Kind,
    texts: impl IntoIterator<Item = Result<T>>,
) -> Result<Tokenizer> {
    match kind {
        Kind::Bpe { vocab_size } => train_bpe(vocab_size, texts),
        Kind::Character { min_count } => train_characters(min_count, texts),
    }
}

fn train_bpe<T: AsRef<str>>(
    vocab_size: usize,
    texts: impl IntoIterator<Item = Result<T>>,
) -> Result<Tokenizer> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let least = alphabet.len() + SPECIAL_TOKENS.len();
    let budget = vocab_size
        .checked_sub(SPECIAL_TOKENS.len())
        .filter(|&n| n >= alphabet.len())
        .ok_or(TokenizerError::Size { asked: vocab_size, least })?;
    let bytes = alphabet.iter().map(char::to_string).collect();
    let blank = build(byte_level(bytes, &[]), None)?;
    let mut words = BTreeMap::new();
    for_each_piece(&blank, texts, |word| count(&mut words, word))?;
    let (vocab, merges) = bpe::learn(&words, &alphabet, budget);
    build(byte_level(vocab, &merges), None)
}

fn train_characters<T: AsRef<str>>(
    min_count: u64,
    texts: impl IntoIterator<Item = Result<T>>,
) -> Result<Tokenizer> {
    let blank = build(characters(Vec::new()), Some(UNKNOWN))?;
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for_each_piece(&blank, texts, |text| {
        text.chars().for_each(|c| *counts.entry(c).or_default() += 1)
    })?;
    let kept = counts.into_iter().filter(|&(_, n)| n >= min_count).map(|(c, _)| c.to_string());
    build(characters(kept.collect()), Some(UNKNOWN))
}

/// Cuts texts as `tokenizer` does before its model sees them, special tokens left out.
fn for_each_piece<T: AsRef<str>>(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = Result<T>>,
    mut see: impl FnMut(&str),
) -> Result<()> {
    let inner = &tokenizer.inner;
    let mut any = false;
    for text in texts {
        for part in parts(text?.as_ref()) {
            apply("encode", || {
                let added = inner.get_added_vocabulary();
                let mut pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, part);
                if let Some(cut) = inner.get_pre_tokenizer() {
                    cut.pre_tokenize(&mut pieces)?;
                }
                for (piece, _, special) in
                    pieces.get_splits(OffsetReferential::Normalized, OffsetType::None)
                {
                    if special.is_none() && !piece.is_empty() {
                        any = true;
                        see(piece);
                    }
                }
                Ok(())
            })?;
        }
    }
    if any { Ok(()) } else { Err(TokenizerError::NoText.into()) }
}

/// Cuts a long text into parts of about [`PIECE`] bytes: after a line, or else before a space, so
/// that words stay whole where they can.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let limit = (PIECE.min(rest.len())..rest.len()).find(|&i| rest.is_char_boundary(i));
        let cut = limit.map_or(rest.len(), |limit| {
            let line_end = rest[..limit].rfind('\n').map(|i| i + 1);
            let space = || rest[..limit].rfind(' ').filter(|&i| i > 0);
            line_end.or_else(space).unwrap_or(limit)
        });
        let (part, tail) = rest.split_at(cut);
        rest = tail;
        (!part.is_empty()).then_some(part)
    })
}

fn count(words: &mut BTreeMap<String, u64>, word: &str) {
    match words.get_mut(word) {
        Some(n) => *n += 1,
        None => {
            words.insert(word.to_owned(), 1);
        }
    }
}

/// Puts the special tokens after a model's vocabulary.
fn build(mut json: Value, unknown: Option<&str>) -> Result<Tokenizer> {
    let size = json["model"]["vocab"].as_object().map_or(0, Map::len);
    let added = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let unknown_entry = unknown.map(|token| added(0, token));
    let special = SPECIAL_TOKENS.iter().enumerate().map(|(n, token)| added(size + n, token));
    json["added_tokens"] = unknown_entry.into_iter().chain(special).collect();
    Tokenizer::from_json(json, Settings::llada(unknown))
        .map_err(|what| TokenizerError::Apply { action: "encode", what }.into())
}

/// The `tokenizer.json` of byte-level BPE.
fn byte_level(vocab: Vec<String>, merges: &[(String, String)]) -> Value {
    json!({
        "version": "1.0",
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": WORDS }, "behavior": "Isolated",
                  "invert": false },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                  "use_regex": false },
            ],
        },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                     "use_regex": false },
        "model": model(vocab, merges, None),
    })
}

/// The `tokenizer.json` of a character tokenizer: BPE without merges, which cuts text into
/// characters faster than a pattern does.
fn characters(characters: Vec<String>) -> Value {
    let vocab = std::iter::once(UNKNOWN.to_owned()).chain(characters).collect();
    json!({
        "version": "1.0",
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": model(vocab, &[], Some(UNKNOWN)),
    })
}

fn model(vocab: Vec<String>, merges: &[(String, String)], unknown: Option<&str>) -> Value {
    let vocab: Map<String, Value> = vocab.into_iter().zip((0u32..).map(Value::from)).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": vocab, "merges": merges,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_words() {
        let length = 5 * PIECE / 2;
        for (unit, starts) in [("some words\n", "some"), ("some words ", " "), ("日", "日")] {
            let text = unit.repeat(length / unit.len());
            let parts: Vec<&str> = parts(&text).collect();
            assert_eq!(parts.len(), 3);
            assert!(parts[1..].iter().all(|part| part.starts_with(starts)));
            assert_eq!(parts.concat(), text);
        }
        assert_eq!(parts("").count(), 0);
        assert_eq!(parts("a\nb").collect::<Vec<_>>(), ["a\nb"]);
    }
}
