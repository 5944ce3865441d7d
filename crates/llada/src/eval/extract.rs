//! From a response to the answer in it, and whether two answers are the same.

use std::{iter, ops::Range};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Largest compiled regex: task files may come from anywhere.
const MAX_REGEX: usize = 1 << 20;

/// `[[extract]]`: one way to find the answer; its name stands behind the metric in results.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// Its name.
    pub name: String,
    /// Where the answer is: the group, the first of several groups that is not empty, or without
    /// groups all of the match. Without a regex the response is the answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regex: String,
    /// Which match.
    #[serde(default)]
    pub pick: Pick,
    /// Whether the response is the answer where nothing matches; otherwise there is none, which is
    /// wrong.
    #[serde(default)]
    pub fallback: bool,
    /// Whether the white space around the answer does not count; around what a regex found it
    /// never does.
    #[serde(default)]
    pub strip: bool,
    /// What is removed from both answers before they are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
    /// Whether ASCII punctuation does not count.
    #[serde(default)]
    pub ignore_punctuation: bool,
    /// Whether the digits 0 to 9 do not count.
    #[serde(default)]
    pub ignore_numbers: bool,
    /// Whether the white space around both answers does not count once all that is ignored is gone.
    #[serde(default)]
    pub trim: bool,
    /// How the answers are compared.
    #[serde(default)]
    pub compare: Compare,
}

/// Which match of a regex.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
    /// One by its number: 0 is the first, -1 the last.
    #[serde(untagged)]
    Number(i64),
}

/// How two answers are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// As texts, character by character.
    #[default]
    Text,
    /// As numbers: `1,000` is `1000.0`; an answer that is none is wrong.
    Number,
    /// Whether the wanted answer occurs anywhere in the given one.
    Contains,
}

impl Compare {
    /// The name in results. Only the first is the harness's.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Text => "exact_match",
            Self::Number => "number_match",
            Self::Contains => "contains",
        }
    }
}

/// An [`Extract`] with its regexes compiled.
#[derive(Debug, Clone)]
pub(super) struct Extractor {
    pub(super) settings: Extract,
    regex: Option<FindAll>,
    ignore: Vec<Regex>,
}

impl Extractor {
    /// Compiles the regexes, or says which one is wrong.
    pub(super) fn new(settings: &Extract) -> Result<Self, String> {
        let regex = match settings.regex.as_str() {
            "" => None,
            pattern => Some(FindAll::new(pattern)?),
        };
        let ignore = settings.ignore.iter().map(|p| compile(p)).collect::<Result<_, _>>()?;
        Ok(Self { settings: settings.clone(), regex, ignore })
    }

    /// The answer in `response`.
    pub(super) fn answer(&self, response: &str) -> Option<String> {
        let Some(regex) = &self.regex else { return Some(response.to_owned()) };
        let mut matches = regex.matches(response);
        let found = match self.settings.pick {
            Pick::First => matches.next(),
            Pick::Last => matches.last(),
            Pick::Number(n) => match usize::try_from(n) {
                Ok(n) => matches.nth(n),
                Err(_) => {
                    let mut all: Vec<_> = matches.collect();
                    let back = usize::try_from(n.unsigned_abs()).ok();
                    let at = back.and_then(|back| all.len().checked_sub(back));
                    at.map(|at| all.swap_remove(at))
                }
            },
        };
        let answer = found.and_then(|found| match found.groups.as_slice() {
            [one] => Some(one.clone()),
            several => several.iter().find(|group| !group.is_empty()).cloned(),
        });
        answer.or_else(|| self.settings.fallback.then(|| response.to_owned()))
    }

    /// Whether an answer is the one that is wanted.
    pub(super) fn agrees(&self, answer: &str, target: &str) -> bool {
        let strip = self.settings.strip || self.regex.is_some();
        let answer = if strip { answer.trim() } else { answer };
        let (answer, target) = (self.normal(answer), self.normal(target));
        let (answer, target) = match self.settings.trim {
            true => (answer.trim(), target.trim()),
            false => (answer.as_str(), target.as_str()),
        };
        match self.settings.compare {
            Compare::Text => answer == target,
            Compare::Number => match (number(answer), number(target)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
            Compare::Contains => !target.trim().is_empty() && answer.contains(target.trim()),
        }
    }

    /// The text without what does not count.
    pub(super) fn normal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for regex in &self.ignore {
            text = regex.replace_all(&text, "").into_owned();
        }
        if self.settings.ignore_case {
            text = text.to_lowercase();
        }
        let Extract { ignore_punctuation, ignore_numbers, .. } = self.settings;
        text.retain(|c| {
            !(ignore_punctuation && c.is_ascii_punctuation()
                || ignore_numbers && c.is_ascii_digit())
        });
        text
    }
}

/// The matches of a regex in a text, as Python's `re.findall` has them: after a match that is not
/// empty the next may be, and after an empty one the next, if it begins there too, must not be.
#[derive(Debug, Clone)]
struct FindAll {
    regex: Regex,
    /// The same, but that the match may not be empty where the search begins. There is none of a
    /// regex that only the other engine knows.
    not_empty: Option<fancy_regex::Regex>,
}

/// One match: its groups, or without groups all of it.
struct Match {
    end: usize,
    is_empty: bool,
    groups: Vec<String>,
}

impl FindAll {
    fn new(pattern: &str) -> Result<Self, String> {
        let regex = compile(pattern)?;
        let not_empty = fancy_regex::RegexBuilder::new(&format!(r"(?:{pattern})(?!\G)"))
            .delegate_size_limit(MAX_REGEX)
            .build();
        Ok(Self { regex, not_empty: not_empty.ok() })
    }

    fn matches<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Match> + 'a {
        let (mut at, mut after_empty) = (0, false);
        iter::from_fn(move || {
            let found = match after_empty {
                false => self.from(text, at),
                true => self.after_empty(text, at),
            }?;
            (at, after_empty) = (found.end, found.is_empty);
            Some(found)
        })
    }

    fn from(&self, text: &str, at: usize) -> Option<Match> {
        let found = self.regex.captures_at(text, at)?;
        let group = |i| found.get(i).map(|group| group.range());
        Some(Match::new(text, found.len(), group))
    }

    fn after_empty(&self, text: &str, at: usize) -> Option<Match> {
        let next = at + text[at..].chars().next()?.len_utf8();
        let Some(Ok(found)) = self.not_empty.as_ref().map(|r| r.captures_from_pos(text, at)) else {
            return self.from(text, next);
        };
        let found = found?;
        let group = |i| found.get(i).map(|group| group.range());
        Some(Match::new(text, found.len(), group))
    }
}

impl Match {
    fn new(text: &str, groups: usize, range: impl Fn(usize) -> Option<Range<usize>>) -> Self {
        let all = range(0).unwrap_or_default();
        let first = if groups > 1 { 1 } else { 0 };
        let group = |i| range(i).map_or(String::new(), |range| text[range].to_owned());
        let groups = (first..groups).map(group).collect();
        Self { end: all.end, is_empty: all.is_empty(), groups }
    }
}

pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern).size_limit(MAX_REGEX).build();
    regex.map_err(|e| format!("`{pattern}` is no regex: {e}"))
}

fn number(text: &str) -> Option<f64> {
    let text = text.trim().chars();
    let digits: String = text.filter(|c| !matches!(c, ',' | '$' | '_' | ' ')).collect();
    let digits = digits.strip_suffix('.').unwrap_or(&digits);
    digits.parse().ok().filter(|x: &f64| x.is_finite())
}

/// The response before the first of the `stop` texts, which are looked for one after the other: as
/// in the harness, a text does not end the response where an earlier one has cut off its end.
pub(super) fn cut<'a>(response: &'a str, stop: &[String]) -> &'a str {
    let stop = stop.iter().filter(|stop| !stop.is_empty());
    stop.fold(response, |text, stop| text.split(stop.as_str()).next().unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extractor(settings: Extract) -> Extractor {
        Extractor::new(&settings).unwrap()
    }

    #[test]
    fn the_two_filters_of_gsm8k() {
        let ignore = [",", r"\$", "(?s).*#### ", r"\.$"].map(String::from).to_vec();
        let regex = r"#### (\-?[0-9\.\,]+)".into();
        let strict = extractor(Extract { regex, ignore: ignore.clone(), ..Extract::default() });
        let regex = r"(-?[$0-9.,]{2,})|(-?[0-9]+)".into();
        let flexible = extractor(Extract { regex, pick: Pick::Last, ignore, ..Extract::default() });
        let response = " 80,000 + 50,000 is $130,000.\n#### 70,000.";
        let target = "He made <<1+1=2>>2.\n#### 70000";
        let answer = strict.answer(response).unwrap();
        assert_eq!(answer, "70,000.");
        assert!(strict.agrees(&answer, target));
        assert_eq!(strict.answer("The answer is 7"), None);
        assert_eq!(flexible.answer("The answer is 7").as_deref(), Some("7"));
        assert_eq!(flexible.answer(response).as_deref(), Some("70,000."));
        assert!(!flexible.agrees("70001", target));
    }

    #[test]
    fn numbers_are_compared_by_value() {
        let number = extractor(Extract { compare: Compare::Number, ..Extract::default() });
        for (a, b, same) in [
            ("1,000", "1000.0", true),
            ("$5.", "5", true),
            ("-3", "3", false),
            ("many", "many", false),
            ("inf", "inf", false),
        ] {
            assert_eq!(number.agrees(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn where_nothing_matches() {
        let fence =
            Extract { regex: r"```(?:python)?\n([\s\S]*?)```".into(), ..Extract::default() };
        assert_eq!(extractor(fence.clone()).answer("x = 1"), None);
        let fence = extractor(Extract { fallback: true, ..fence });
        assert_eq!(fence.answer("x = 1").as_deref(), Some("x = 1"));
        assert_eq!(fence.answer("so\n```python\nx = 1\n```").as_deref(), Some("x = 1\n"));
        assert!(Extractor::new(&Extract { regex: "(".into(), ..Extract::default() }).is_err());
        assert!(compile("(a{1000}){1000}").is_err(), "too large");
    }

    #[test]
    fn an_answer_may_stand_anywhere() {
        let anywhere = extractor(Extract { compare: Compare::Contains, ..Extract::default() });
        assert!(anywhere.agrees("said: the line, and more", " the line "));
        assert!(!anywhere.agrees("the lin", "the line"));
        assert!(!anywhere.agrees("anything", ""));
    }

    #[test]
    fn the_match_and_the_group_are_those_of_the_harness() {
        // Right values of `RegexFilter` of lm_eval 0.4.13, where `None` is its "[invalid]".
        for (regex, pick, response, expected) in [
            (r"#### (\-?[0-9\.\,]+)", Pick::First, "x\n#### 1,234. and #### 5", Some("1,234.")),
            (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", Pick::Last, "so 12 then 7", Some("7")),
            (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", Pick::First, "so 12 then 7", Some("12")),
            ("(a*)(b*)", Pick::Last, "ab c", None),
            ("x(a*)y", Pick::First, "xy", Some("")),
            ("the answer is (.*).", Pick::First, "So the answer is (A).\nb", Some("(A)")),
            (r"(\w+)", Pick::Number(1), "a b c", Some("b")),
            (r"(\w+)", Pick::Number(-2), "a b c", Some("b")),
            (r"(\w+)", Pick::Number(-4), "a b c", None),
            (r" \w+ ", Pick::First, "x  ab y", Some(" ab ")),
            ("z", Pick::First, "no", None),
        ] {
            let settings = Extract { regex: regex.into(), pick, ..Extract::default() };
            assert_eq!(extractor(settings).answer(response).as_deref(), expected, "{regex}");
        }
        // What a regex found is compared without the white space around it.
        let word = extractor(Extract { regex: r" \w+ ".into(), ..Extract::default() });
        assert!(word.agrees(&word.answer("x  ab y").unwrap(), "ab") && !word.agrees("ab", " ab"));
        assert_eq!(
            toml::from_str::<Extract>("name = \"e\"\npick = -2").unwrap().pick,
            Pick::Number(-2)
        );
    }

    #[test]
    fn empty_matches_are_those_of_python() {
        // `re.findall` of Python 3.11.
        for (regex, text, expected) in [
            ("a*", "baac", &["", "aa", "", ""][..]),
            ("a*", "aa", &["aa", ""][..]),
            ("a*?", "aa", &["", "a", "", "a", ""][..]),
            ("|a", "ab", &["", "a", "", ""][..]),
            ("a|", "ba", &["", "a", ""][..]),
            ("\\b", "ab c", &["", "", "", ""][..]),
            ("\\b|\\w+", "ab c", &["", "ab", "", "", "c", ""][..]),
            ("(a*)(b*)", "ab c", &["a|b", "|", "|", "|"][..]),
            ("", "é1", &["", "", ""][..]),
            ("é*", "éxé", &["é", "", "é", ""][..]),
            ("[0-9]*", "1,23", &["1", "", "23", ""][..]),
            ("(?m)^\\w*$", "ab\n\nc", &["ab", "", "c"][..]),
            ("(x?)|y", "xyx", &["x", "", "", "x", ""][..]),
            ("(a)?(b)??", "abb", &["a|", "|", "|b", "|", "|b", "|"][..]),
        ] {
            let regex = FindAll::new(regex).unwrap();
            let found: Vec<String> = regex.matches(text).map(|m| m.groups.join("|")).collect();
            assert_eq!(found, *expected, "{regex:?}");
        }
        let last = Extract { regex: "a*".into(), pick: Pick::Last, ..Extract::default() };
        assert_eq!(extractor(last).answer("baa").as_deref(), Some(""));
        let pick = Pick::Number(-2);
        let second = Extract { regex: "a*".into(), pick, ..Extract::default() };
        assert_eq!(extractor(second).answer("baa").as_deref(), Some("aa"));
    }

    #[test]
    fn texts_are_compared_as_the_harness_does() {
        // Right values of `exact_match_hf_evaluate` of lm_eval 0.4.13.
        let plain = Extract::default();
        let case = Extract { ignore_case: true, ..plain.clone() };
        let punctuation = Extract { ignore_punctuation: true, ..plain.clone() };
        let both = Extract { ignore_punctuation: true, ..case.clone() };
        let numbers = Extract { ignore_numbers: true, ..plain.clone() };
        let letter = Extract { ignore: vec!["a".into()], ..case.clone() };
        for (settings, answer, target, same) in [
            (&plain, "a", " a", false),
            (&plain, "a\n", "a", false),
            (&plain, "A", "a", false),
            (&case, "ÄB", "äb", true),
            (&punctuation, "a,b!", "ab", true),
            (&punctuation, "a—b", "ab", false),
            (&both, "Yes.", "yes", true),
            (&numbers, "a1b2", "ab", true),
            (&numbers, "a²", "a", false),
            (&letter, "Ab", "b", false),
        ] {
            let found = extractor(settings.clone()).agrees(answer, target);
            assert_eq!(found, same, "{settings:?} {answer} {target}");
        }
        // Filters of the harness's `remove_whitespace`, and ours that it does not have.
        assert!(extractor(Extract { strip: true, ..plain.clone() }).agrees(" a\n", "a"));
        assert!(!extractor(Extract { strip: true, ..plain.clone() }).agrees("a", "a "));
        let trim = Extract { trim: true, ignore: vec!["the".into()], ..plain };
        assert!(extractor(trim).agrees("the cat", "cat"));
    }

    #[test]
    fn stops_are_looked_for_one_after_the_other() {
        // Right values of `postprocess_generated_text` of lm_eval 0.4.13.
        let stops = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(cut("abXYc", &stops(&["Y", "XY"])), "abX");
        assert_eq!(cut("abXYc", &stops(&["XY", "Y"])), "ab");
        assert_eq!(cut("abc", &stops(&["", "z"])), "abc");
        assert_eq!(cut("\n\nabc", &stops(&["\n\n"])), "");
    }

    proptest! {
        #[test]
        fn a_cut_response_has_no_stop(response in "[abc]{0,20}", stop in "[abc]{1,2}") {
            let stops = [stop.clone(), String::new()];
            let cut = cut(&response, &stops);
            prop_assert!(response.starts_with(cut) && !cut.contains(&stop));
            prop_assert!(cut.len() == response.len() || response[cut.len()..].starts_with(&stop));
        }
    }
}
