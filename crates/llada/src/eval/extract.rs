//! From a response to the answer in it, and whether two answers are the same.

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
    /// Where the answer is: the first group that takes part in the match, or all of it. Without a
    /// regex the response is the answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regex: String,
    /// Which match.
    #[serde(default)]
    pub pick: Pick,
    /// Whether the response is the answer where nothing matches; otherwise there is none, which is
    /// wrong.
    #[serde(default)]
    pub fallback: bool,
    /// What is removed from both answers before they are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
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
}

/// How two answers are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compare {
    /// As texts, without the white space around them.
    #[default]
    Text,
    /// As numbers: `1,000` is `1000.0`; an answer that is none is wrong.
    Number,
    /// Whether the wanted answer occurs anywhere in the given one.
    Contains,
}

/// An [`Extract`] with its regexes compiled.
#[derive(Debug, Clone)]
pub(super) struct Extractor {
    pub(super) settings: Extract,
    regex: Option<Regex>,
    ignore: Vec<Regex>,
}

impl Extractor {
    /// Compiles the regexes, or says which one is wrong.
    pub(super) fn new(settings: &Extract) -> Result<Self, String> {
        let regex = match settings.regex.as_str() {
            "" => None,
            pattern => Some(compile(pattern)?),
        };
        let ignore = settings.ignore.iter().map(|p| compile(p)).collect::<Result<_, _>>()?;
        Ok(Self { settings: settings.clone(), regex, ignore })
    }

    /// The answer in `response`.
    pub(super) fn answer(&self, response: &str) -> Option<String> {
        let Some(regex) = &self.regex else { return Some(response.to_owned()) };
        let mut matches = regex.captures_iter(response);
        let found = match self.settings.pick {
            Pick::First => matches.next(),
            Pick::Last => matches.last(),
        };
        let Some(captures) = found else {
            return self.settings.fallback.then(|| response.to_owned());
        };
        let group = (1..captures.len()).find_map(|i| captures.get(i)).or(captures.get(0))?;
        Some(group.as_str().to_owned())
    }

    /// Whether an answer is the one that is wanted.
    pub(super) fn agrees(&self, answer: &str, target: &str) -> bool {
        let (answer, target) = (self.normal(answer), self.normal(target));
        match self.settings.compare {
            Compare::Text => answer == target,
            Compare::Number => match (number(&answer), number(&target)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
            Compare::Contains => !target.is_empty() && answer.contains(&target),
        }
    }

    /// The text without what does not count.
    pub(super) fn normal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for regex in &self.ignore {
            text = regex.replace_all(&text, "").into_owned();
        }
        let text = text.trim();
        if self.settings.ignore_case { text.to_lowercase() } else { text.to_owned() }
    }
}

pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern).size_limit(MAX_REGEX).build();
    regex.map_err(|e| format!("`{pattern}` is no regex: {e}"))
}

fn number(text: &str) -> Option<f64> {
    let digits: String = text.chars().filter(|c| !matches!(c, ',' | '$' | '_' | ' ')).collect();
    let digits = digits.strip_suffix('.').unwrap_or(&digits);
    digits.parse().ok().filter(|x: &f64| x.is_finite())
}

/// The response before the first of the `stop` texts.
pub(super) fn cut<'a>(response: &'a str, stop: &[String]) -> &'a str {
    let ends = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| response.find(s.as_str()));
    &response[..ends.min().unwrap_or(response.len())]
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
    fn case_and_white_space() {
        let text = extractor(Extract { ignore_case: true, ..Extract::default() });
        assert!(text.agrees(" Yes\n", "yes"));
        assert!(!extractor(Extract::default()).agrees("Yes", "yes"));
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
