//! Tests of automata over tokens and of the search, against doing it all by hand.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::{dfa::Dfa, nfa::Nfa, *};
use crate::tokenizer::{Kind, train};

/// Tokens over the letters a, b and c, each also alone, a space and pieces of a character; and two ends.
fn vocabulary() -> Arc<Vocabulary> {
    let words = ["", "a", "b", "c", " ", "ab", "ba", "abc", "cc", "bb", " a", "aab", "a", "日", ""];
    let mut bytes: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    bytes.extend([vec![0xe6], vec![0x97, 0xa5], b"<end>".to_vec(), b"<turn>".to_vec()]);
    Arc::new(Vocabulary::of(bytes, vec![17, 18]))
}

const ENDS: [u32; 2] = [17, 18];

fn regex(pattern: &str) -> Result<Automaton, ConstraintError> {
    Automaton::new(&Constraint::Regex(pattern.into()), &vocabulary())
}

#[test]
fn automata_are_kept_as_long_as_they_take_little() {
    let patterns = ["a", "[ab]{50}", "b"];
    let automata: Vec<Arc<Automaton>> =
        patterns.iter().map(|pattern| Arc::new(regex(pattern).unwrap())).collect();
    let sizes: Vec<usize> = automata.iter().map(|automaton| automaton.bytes()).collect();
    assert!(sizes[1] > sizes[0], "{sizes:?}");
    let left = |count, bytes| {
        let constraint = |pattern: &str| Constraint::Regex(pattern.into());
        let all = patterns.iter().map(|pattern| constraint(pattern)).zip(automata.iter().cloned());
        let mut kept: Kept = all.collect();
        forget(&mut kept, count, bytes);
        kept.len()
    };
    let sum = sizes.iter().sum();
    assert_eq!([left(3, sum), left(2, sum), left(3, sum - 1), left(3, sizes[2])], [3, 2, 2, 1]);
    assert_eq!([left(0, sum), left(3, 0)], [0, 0]);
}

/// The bytes of tokens before the first that ends the text, if nothing but ends follows.
fn text(tokens: &[u32]) -> Option<Vec<u8>> {
    let end = tokens.iter().position(|token| ENDS.contains(token)).unwrap_or(tokens.len());
    let (text, rest) = tokens.split_at(end);
    let vocabulary = vocabulary();
    let has_bytes = text.iter().all(|&token| !vocabulary.bytes(token).is_empty());
    let ends = rest.iter().all(|token| ENDS.contains(token));
    (has_bytes && ends)
        .then(|| text.iter().flat_map(|&token| vocabulary.bytes(token).to_vec()).collect())
}

/// Patterns of few letters.
fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("c".to_owned()),
        Just("日".to_owned()),
        Just("[ab]".to_owned()),
        Just("[^a]".to_owned()),
        Just(" ".to_owned()),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("(?:{})", parts.join("|"))),
            (inner.clone(), "[*+?]").prop_map(|(part, times)| format!("(?:{part}){times}")),
            (inner, 0u32..3, 0u32..3)
                .prop_map(|(part, a, b)| format!("(?:{part}){{{a},{}}}", a + b)),
        ]
    })
}

/// All sequences of `length` tokens.
fn sequences(length: usize) -> Vec<Vec<u32>> {
    let mut all = vec![vec![]];
    for _ in 0..length {
        let longer = |before: &Vec<u32>| {
            let before = before.clone();
            (0..19).map(move |token| [before.as_slice(), &[token]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tokens_lead_to_ends_as_their_texts_match(pattern in pattern()) {
        let Ok(automaton) = regex(&pattern) else {
            // No token sequence of any length spells a match.
            return Ok(());
        };
        let matches = regex_crate(&pattern);
        let mut shortest = None;
        for length in 0..=3 {
            for tokens in sequences(length) {
                let start = Some(automaton.start(false));
                let state = tokens.iter().fold(start, |s, &t| automaton.step(s?, t));
                let is_accepted = state.is_some_and(|state| automaton.is_end(state));
                let expected = text(&tokens).is_some_and(|text| matches(&text));
                prop_assert_eq!(is_accepted, expected, "{} {:?}", pattern, tokens);
                if expected {
                    shortest = shortest.or(Some(length));
                }
            }
        }
        match shortest {
            Some(shortest) => prop_assert_eq!(automaton.shortest(), shortest),
            None => prop_assert!(automaton.shortest() > 3),
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_search_finds_the_best_text_there_is(
        pattern in pattern(),
        logits in proptest::collection::vec(-4.0f32..4.0, 3 * 19),
        kinds in proptest::collection::vec(0u32..4, 3),
        tokens in proptest::collection::vec(0u32..19, 3),
        rest in 0usize..2,
        is_exact: bool,
        spaced: bool,
    ) {
        let Ok(automaton) = regex(&pattern) else { return Ok(()) };
        let matches = regex_crate(&pattern);
        // The best of each class.
        let best: Vec<Vec<Best>> = logits.chunks(19).map(|row| {
            let mut best = vec![Best::NONE; automaton.classes()];
            for (token, (&logit, &class)) in row.iter().zip(automaton.class_of()).enumerate() {
                if let Some(best) = best.get_mut(class as usize).filter(|best| logit > best.score) {
                    *best = Best { score: logit, logit, token: token as u32 };
                }
            }
            best
        }).collect();
        let places: Vec<Place<'_>> = (0..3).map(|i| match kinds[i] {
            0 => Place::Free,
            1 => Place::Fixed(tokens[i]),
            _ => Place::Scored(&best[i]),
        }).collect();
        let ending = match is_exact {
            true => Ending::Exactly(automaton.endings(rest)),
            false => Ending::Within(rest),
        };
        let found = automaton.search(automaton.start(spaced), &places, &ending);

        let score = |tokens: &[u32]| -> f64 {
            (0..3).filter(|&i| kinds[i] > 1).map(|i| f64::from(logits[i * 19 + tokens[i] as usize])).sum()
        };
        let fits = |sequence: &[u32]| {
            let whole = text(sequence).is_some_and(|text| match spaced {
                true => text.strip_prefix(b" ").is_some_and(&matches),
                false => matches(&text),
            });
            let without_end = !sequence.iter().any(|token| ENDS.contains(token));
            whole && (!is_exact || without_end)
        };
        let starts: Vec<Vec<u32>> = sequences(3)
            .into_iter()
            .filter(|s| (0..3).all(|i| kinds[i] != 1 || s[i] == tokens[i]))
            .collect();
        let ways: Vec<Vec<u32>> = match is_exact {
            true => sequences(rest),
            false => (0..=rest).flat_map(sequences).collect(),
        };
        let possible = starts.iter().filter(|start| {
            ways.iter().any(|way| fits(&[start.as_slice(), way].concat()))
        });
        let most = possible.map(|start| score(start)).fold(f64::NEG_INFINITY, f64::max);
        match found {
            None => prop_assert!(most == f64::NEG_INFINITY, "{} {}", pattern, most),
            Some(found) => {
                let sum: f64 = found.iter().flatten().map(|best| f64::from(best.score)).sum();
                prop_assert!((sum - most).abs() < 1e-4, "{} {} {}", pattern, sum, most);
                for (i, found) in found.iter().enumerate() {
                    prop_assert_eq!(found.is_some(), kinds[i] > 1);
                    if let Some(best) = found {
                        prop_assert_eq!(logits[i * 19 + best.token as usize], best.score);
                    }
                }
            }
        }
    }
}

/// Whether the crate `regex` finds that a text matches from end to end.
fn regex_crate(pattern: &str) -> impl Fn(&[u8]) -> bool {
    let regex = ::regex::bytes::Regex::new(&format!("^(?:{pattern})$")).unwrap();
    move |text| regex.is_match(text)
}

#[test]
fn tokens_that_no_state_tells_apart_share_a_class() {
    let automaton = regex("[a-c]*").unwrap();
    let class = |token: usize| automaton.class_of()[token];
    let letters: BTreeSet<u16> = [1, 2, 3, 5, 6, 7, 8, 9, 11, 12].map(class).into();
    assert_eq!(letters.len(), 1);
    assert_eq!((class(17), class(17) == class(1)), (class(18), false));
    // Special tokens, and those that nothing takes.
    assert!([0, 14, 13, 15].iter().all(|&token| class(token) as usize == automaton.classes()));
    assert!(format!("{automaton:?}").contains("classes"));
}

#[test]
fn what_is_too_large_is_refused_before_it_hurts() {
    let begun = std::time::Instant::now();
    let nested = (0..90).fold(json!({}), |inner, _| json!({ "items": inner, "type": "array" }));
    let too_deep = (0..200).fold(json!({}), |inner, _| json!({ "items": inner, "type": "array" }));
    let wide = json!({ "type": "array", "minItems": 100_000, "items": { "type": "string" } });
    let branches = (0..9).fold(json!({ "type": "string" }), |inner, _| {
        json!({ "type": "object", "properties": { "a": inner, "b": inner, "c": inner, "d": inner } })
    });
    let of_many = json!({ "allOf": vec![json!({ "anyOf": vec![json!({}); 40] }); 9] });
    for constraint in [
        Constraint::Regex("(?:(?:a{100}){100}){100}".into()),
        Constraint::Regex("[ab]*a[ab]{24}".into()),
        Constraint::Regex(r"(?:\w{1,100}b){100}".into()),
        Constraint::Regex("(?:a?){1000}{1000}".into()),
        Constraint::Regex("(?:){1000000000}(?:(?:){4000000000}){4000000000}a{400001}".into()),
        Constraint::JsonSchema(wide),
        Constraint::JsonSchema(branches),
        Constraint::JsonSchema(of_many),
        Constraint::JsonSchema(too_deep),
    ] {
        let error = Automaton::new(&constraint, &vocabulary()).unwrap_err();
        assert!(matches!(error, ConstraintError::TooLarge { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    Dfa::of(&Nfa::of(&Constraint::JsonSchema(nested).node().unwrap()).unwrap()).unwrap();
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn what_cannot_be_spelt_or_chosen_is_refused() {
    assert_eq!(regex("d").unwrap_err(), ConstraintError::Unspeakable);
    let never = Constraint::Regex("[a&&b]".into());
    let error = Automaton::new(&never, &vocabulary()).unwrap_err();
    assert_eq!(error, ConstraintError::Never { pointer: "#".into() });
    let error = Automaton::new(&Constraint::Choices(vec![]), &vocabulary()).unwrap_err();
    assert_eq!(error, ConstraintError::Empty("choices"));
    let choices = Constraint::Choices(vec!["ab".into(), "abc".into(), "".into()]);
    let automaton = Automaton::new(&choices, &vocabulary()).unwrap();
    assert_eq!(automaton.shortest(), 0);
    assert!(["ab", "abc", ""].iter().all(|text| automaton.accepts(text)));
    assert!(!automaton.accepts("a"));
}

#[test]
fn the_tokens_of_every_kind_of_tokenizer_spell_texts() {
    for kind in [Kind::Bpe { vocab_size: 320 }, Kind::Character { min_count: 0 }] {
        let tokenizer = train(kind, [Ok("The cat sat, 日本.".repeat(3))]).unwrap();
        let special = tokenizer.special_tokens();
        let vocabulary = Arc::new(Vocabulary::new(&tokenizer, &special).unwrap());
        let choices = Constraint::Choices(vec!["cat, 日".into(), "The sat".into()]);
        let automaton = Automaton::new(&choices, &vocabulary).unwrap();
        for text in ["cat, 日", "The sat"] {
            let tokens = tokenizer.encode(text).unwrap();
            let start = Some(automaton.start(false));
            let state = tokens.iter().fold(start, |s, &t| automaton.step(s?, t));
            assert!(state.is_some_and(|state| automaton.is_end(state)), "{text} {tokens:?}");
            let end = special.eos.unwrap();
            assert!(
                automaton.step(state.unwrap(), end).is_some()
                    && tokens.len() >= automaton.shortest()
            );
        }
    }
}

#[test]
fn constraints_are_written_in_files() {
    let read = |text: &str| serde_json::from_str::<Constraint>(text).unwrap();
    assert_eq!(read("\"json_object\""), Constraint::Json);
    assert_eq!(read("{\"regex\": \"a+\"}"), Constraint::Regex("a+".into()));
    assert_eq!(read("{\"json_schema\": true}"), Constraint::JsonSchema(json!(true)));
    let tools = read(
        r#"{"tools": {"tools": [{"name": "f", "parameters": {}}], "choice": {"named": "f"}}}"#,
    );
    let text = serde_json::to_string(&tools).unwrap();
    assert_eq!(read(&text), tools);
}
