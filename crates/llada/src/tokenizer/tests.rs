use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Error;

const TEXT: &str = "The cat sat on the mat. The dog sat on the log.\n\n\
    It's 12345 o'clock; the cats' naïve façade — 日本語 🦙!\n\tlet x = 10;\r\n";

fn bpe(vocab_size: usize) -> Tokenizer {
    train(Kind::Bpe { vocab_size }, [Ok(TEXT.repeat(3))]).unwrap()
}

fn characters() -> Tokenizer {
    train(Kind::Character { min_count: 0 }, [Ok(TEXT)]).unwrap()
}

fn json_of(tokenizer: &Tokenizer) -> Value {
    serde_json::from_str(&tokenizer.inner.to_string(false).unwrap()).unwrap()
}

fn from(json: Value) -> std::result::Result<Tokenizer, String> {
    Tokenizer::from_json(json, Settings::default())
}

/// A tokenizer of whole words, as other families have.
fn words() -> Value {
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst",
                        "stride": 0 },
        "padding": { "strategy": { "Fixed": 8 }, "direction": "Right",
                     "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
                     "pad_token": "[UNK]" },
        "added_tokens": [
            { "id": 4, "content": "[MASK]", "single_word": false, "lstrip": false,
              "rstrip": false, "normalized": false, "special": true },
        ],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "unk_token": "[UNK]",
                   "vocab": { "[UNK]": 0, "a": 1, "b": 2, "</s>": 3, "[MASK]": 4 } },
    })
}

#[test]
fn byte_pairs_are_learnt_and_special_tokens_follow() {
    let tokenizer = bpe(300);
    assert_eq!(tokenizer.vocab_size(), 300);
    let ids = SPECIAL_TOKENS.map(|token| tokenizer.id(token).unwrap());
    assert_eq!(ids, [294, 295, 296, 297, 298, 299]);
    let special = tokenizer.special_tokens();
    let expected = SpecialTokens {
        bos: Some(294),
        eos: Some(295),
        pad: Some(295),
        mask: Some(296),
        eot: Some(299),
    };
    assert_eq!(special, expected);
    let ids = tokenizer.encode(TEXT).unwrap();
    assert!(ids.len() < TEXT.len());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), TEXT);
    let pieces: Vec<String> = ids.iter().take(2).map(|&id| tokenizer.token(id).unwrap()).collect();
    assert_eq!(pieces, ["The", " cat"]);
}

#[test]
fn characters_are_one_token_each() {
    let tokenizer = characters();
    let ids = tokenizer.encode(TEXT).unwrap();
    assert_eq!(ids.len(), TEXT.chars().count());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), TEXT);
    let unknown = tokenizer.id("<|unk|>").unwrap();
    assert_eq!(unknown, 0);
    let ids = tokenizer.encode("TéhQQ ").unwrap();
    assert_eq!(ids.iter().filter(|&&id| id == unknown).count(), 3);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "Th ");
    assert_eq!(tokenizer.encode_plain("Qé").unwrap(), [0, 0]);
    let frequent = train(Kind::Character { min_count: 2 }, [Ok("aab")]).unwrap();
    assert_eq!(frequent.vocab_size(), 1 + 1 + SPECIAL_TOKENS.len());
    assert_eq!(frequent.encode("ab").unwrap(), [1, 0]);
}

#[test]
fn special_tokens_in_the_text_are_parsed_unless_it_is_plain() {
    for tokenizer in [bpe(280), characters()] {
        let special = tokenizer.special_tokens();
        let text = "The<|mdm_mask|> cat<|endoftext|>";
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(ids.last().copied(), special.eos);
        assert!(ids.contains(&special.mask.unwrap()));
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "The cat");
        let plain = tokenizer.encode_plain(text).unwrap();
        assert!(plain.iter().all(|id| *id < special.bos.unwrap()));
        assert!(plain.len() > ids.len());
        assert_eq!(
            tokenizer.encode("The cat").unwrap(),
            tokenizer.encode_plain("The cat").unwrap()
        );
        assert_eq!(tokenizer.token(special.mask.unwrap()).unwrap(), "<|mdm_mask|>");
    }
}

#[test]
fn special_tokens_are_not_learnt_from() {
    let text = "ab<|endoftext|>ab<|endoftext|>ab";
    let tokenizer = train(Kind::Bpe { vocab_size: 400 }, [Ok(text)]).unwrap();
    assert_eq!(tokenizer.vocab_size(), 256 + 1 + SPECIAL_TOKENS.len());
    let characters = train(Kind::Character { min_count: 0 }, [Ok(text)]).unwrap();
    assert_eq!(characters.vocab_size(), 1 + 2 + SPECIAL_TOKENS.len());
}

#[test]
fn training_gives_the_same_bytes_each_time() {
    let text = (0..400).map(|i| format!("word{} {} ab abc bc bcd {i}", i * 7919 % 97, i % 13));
    let text: Vec<String> = text.collect();
    for kind in [Kind::Bpe { vocab_size: 600 }, Kind::Character { min_count: 2 }] {
        let train = || {
            let dir = tempfile::tempdir().unwrap();
            train(kind, text.iter().map(Ok)).unwrap().save_dir(dir.path()).unwrap();
            let read = |name| fs::read(dir.path().join(name)).unwrap();
            (read("tokenizer.json"), read("tokenizer_config.json"))
        };
        let first = train();
        assert!((0..4).all(|_| train() == first), "{kind:?}");
    }
}

#[test]
fn what_is_saved_is_read_back() {
    for tokenizer in [bpe(290), characters()] {
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save_dir(dir.path()).unwrap();
        let again = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(json_of(&again), json_of(&tokenizer));
        assert_eq!(again.settings, tokenizer.settings);
        assert_eq!(again.special_tokens(), tokenizer.special_tokens());
        let bare = Tokenizer::from_file(&dir.path().join("tokenizer.json")).unwrap();
        assert_eq!(bare.special_tokens(), tokenizer.special_tokens());
        assert_eq!(bare.encode(TEXT).unwrap(), tokenizer.encode(TEXT).unwrap());
        let messages = [crate::chat::Message::new("user", "cat")];
        let template = crate::chat::Template::from_dir(dir.path()).unwrap();
        let prompt = template.render(&messages, true).unwrap();
        let ids = again.encode(&prompt).unwrap();
        assert_eq!(ids[0], again.special_tokens().bos.unwrap());
        assert!(ids.contains(&again.special_tokens().eot.unwrap()));
    }
}

#[test]
fn a_lone_file_is_saved_with_its_special_tokens_stated() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    bpe(290).save_dir(from.path()).unwrap();
    let file = from.path().join("tokenizer.json");
    let config = || -> Value {
        Tokenizer::from_file(&file).unwrap().save_dir(to.path()).unwrap();
        let text = fs::read_to_string(to.path().join("tokenizer_config.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let beside = config();
    assert!(beside.get("chat_template").is_none(), "a tokenizer alone is for no conversation");
    fs::remove_file(from.path().join("tokenizer_config.json")).unwrap();
    let lone = config();
    for key in ["bos_token", "eos_token", "pad_token", "mask_token", "tokenizer_class"] {
        assert!(lone[key].is_string() && lone[key] == beside[key], "{key}: {lone}");
    }
}

#[test]
fn training_needs_text_and_room() {
    let error = train(Kind::Bpe { vocab_size: 261 }, [Ok("a")]).unwrap_err();
    assert!(matches!(error, Error::Tokenizer(TokenizerError::Size { asked: 261, least: 262 })));
    assert!(train(Kind::Bpe { vocab_size: 262 }, [Ok("a")]).is_ok());
    for kind in [Kind::Bpe { vocab_size: 300 }, Kind::Character { min_count: 0 }] {
        for text in [vec![], vec![""], vec!["<|endoftext|>"]] {
            let error = train(kind, text.into_iter().map(Ok)).unwrap_err();
            assert!(matches!(error, Error::Tokenizer(TokenizerError::NoText)), "{error}");
        }
        let failing = || Err::<&str, _>(TokenizerError::NoText.into());
        assert!(train(kind, [Ok("a"), failing()]).is_err());
    }
}

#[test]
fn other_tokenizers_work_without_their_limits() {
    let tokenizer = from(words()).unwrap();
    assert_eq!(tokenizer.encode("a b a b zebra").unwrap(), [1, 2, 1, 2, 0]);
    assert_eq!(tokenizer.vocab_size(), 5);
    let special = tokenizer.special_tokens();
    assert_eq!((special.mask, special.eos, special.pad), (Some(4), Some(3), Some(3)));
    assert_eq!((special.bos, special.eot), (None, None));
    let batch = tokenizer.encode_batch(vec!["a", "", "b b"]).unwrap();
    assert_eq!(batch, [vec![1], vec![], vec![2, 2]]);
    // Whole words have no way to spell these, so plain text may not contain them.
    for text in ["a [MASK]", "</s>"] {
        let error = tokenizer.encode_plain(text).unwrap_err();
        assert!(matches!(error, Error::Tokenizer(TokenizerError::Special { .. })), "{error}");
    }
    assert_eq!(tokenizer.encode_plain("zebra").unwrap(), [0]);
}

#[test]
fn stated_tokens_go_before_well_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), words().to_string()).unwrap();
    let config = json!({ "mask_token": { "content": "a" }, "eos_token": "b", "bos_token": "no" });
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let special = Tokenizer::from_dir(dir.path()).unwrap().special_tokens();
    let expected =
        SpecialTokens { mask: Some(1), eos: Some(2), pad: Some(2), ..Default::default() };
    assert_eq!(special, expected);
}

#[test]
fn unknown_ids_have_no_text() {
    let tokenizer = bpe(262);
    let beyond = tokenizer.vocab_size() as u32;
    assert_eq!(tokenizer.token(beyond), None);
    assert_eq!(tokenizer.decode(&[beyond, u32::MAX], false).unwrap(), "");
    // Three tokens make one character: each alone is unreadable.
    let ids = tokenizer.encode("日").unwrap();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|&id| tokenizer.token(id).unwrap() == "\u{fffd}"));
}

#[test]
fn a_tokenizer_must_fit_its_model() {
    let path = crate::golden::own_model("a_mha_untied");
    let mut config = crate::checkpoint::load_config(&path).unwrap();
    let tokenizer = bpe(300);
    assert!(tokenizer.check(&config).is_ok());
    config.embedding_size = 299;
    let error = tokenizer.check(&config).unwrap_err().to_string();
    assert!(error.contains("<|eot_id|>") && error.contains("299"), "{error}");
}

#[test]
fn files_that_are_no_tokenizer_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Tokenizer(TokenizerError::Missing { .. })));
    assert!(Tokenizer::from_file(&dir.path().join("no.json")).is_err());
    let path = dir.path().join("tokenizer.json");
    for content in ["", "3", "{}", "[]", r#"{"version":"1.0"}"#, &"[".repeat(100_000)] {
        fs::write(&path, content).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn merges_that_give_no_token_are_refused() {
    let merges = |merges: Value, prefix: Value| {
        let mut json = json_of(&bpe(262));
        json["model"]["merges"] = merges;
        json["model"]["continuing_subword_prefix"] = prefix;
        from(json)
    };
    assert!(merges(json!([]), Value::Null).is_ok());
    for bad in [json!([["a", "b"]]), json!(["a b"]), json!([["a"]]), json!([3]), json!(["ab"])] {
        let error = merges(bad, Value::Null).unwrap_err();
        assert!(error.starts_with("the merge "), "{error}");
    }
    assert!(merges(json!([["a", "b"]]), json!("#####")).is_err());
}

proptest! {
    #[test]
    fn byte_level_text_comes_back_as_it_was(text in any::<String>()) {
        static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(|| bpe(320));
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(&TOKENIZER.decode(&ids, false).unwrap(), &text);
        let plain = TOKENIZER.encode_plain(&text).unwrap();
        prop_assert_eq!(&TOKENIZER.decode(&plain, false).unwrap(), &text);
    }

    #[test]
    fn whitespace_and_special_tokens_come_back_too(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "\u{3000}", "'S", "'ll", "12345", "x", "é",
                "<|endoftext|>", "<|mdm_", "mask|>", "<|mdm_mask|>", "\u{0}", "🦙", "e\u{301}",
            ]),
            0..40,
        ),
    ) {
        static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(|| bpe(320));
        let text = parts.concat();
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(&TOKENIZER.decode(&ids, false).unwrap(), &text);
        let plain = TOKENIZER.encode_plain(&text).unwrap();
        prop_assert_eq!(&TOKENIZER.decode(&plain, false).unwrap(), &text);
        prop_assert!(plain.iter().all(|id| !TOKENIZER.reserved.contains(id)));
    }
}

#[test]
fn what_lies_in_the_place_of_a_tokenizer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (content, name) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "Git LFS"),
        (b"<html><head>", "web page"),
        (b"\xff\xfe{\0", "UTF-16"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"", "it is empty"),
    ] {
        std::fs::write(dir.path().join("tokenizer.json"), content).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}
