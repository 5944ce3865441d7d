//! From what the model said to scores.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{
    EvalError, Example, Prepared, Request, arithmetic,
    extract::Extractor,
    metric::Value,
    task::{ChoiceMetric, Code},
    template,
};
use crate::Result;

/// Runs programs that a model wrote. The library has no processes: the caller brings one.
pub trait Checker {
    /// Whether `program` and then its `tests` end without an error within the limits of `code`.
    ///
    /// # Errors
    /// If the program could not be run; one that fails is a [`Verdict`].
    fn check(&mut self, program: &str, tests: &str, code: &Code) -> Result<Verdict>;
}

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it ended without an error.
    pub passed: bool,
    /// How it ended, in a few words.
    pub reason: String,
}

/// Scores by `metric,filter`, and what they were derived from.
pub(super) type Judged = (BTreeMap<String, Value>, Json);

/// The number of the largest, the first of equals.
fn best(scores: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, score) in scores.enumerate() {
        if score > best.1 {
            best = (i, score);
        }
    }
    best.0
}

/// Whether the right answer has the best score, under each of the normalisations: as it is, per
/// character and per byte of the answer (without the delimiter, as the harness), per token.
pub(super) fn choice(
    metrics: &[ChoiceMetric],
    choices: &[String],
    answer: usize,
    scores: &[f64],
    tokens: &[usize],
) -> BTreeMap<String, Value> {
    let lengths = |metric| -> Vec<usize> {
        match metric {
            ChoiceMetric::Acc => vec![1; scores.len()],
            ChoiceMetric::AccNorm => choices.iter().map(|c| c.chars().count()).collect(),
            ChoiceMetric::AccBytes => choices.iter().map(String::len).collect(),
            ChoiceMetric::AccToken => tokens.to_vec(),
        }
    };
    let is_right = |metric| {
        let normalised = scores.iter().zip(lengths(metric)).map(|(s, n)| s / n as f64);
        best(normalised) == answer
    };
    let score = |metric: &ChoiceMetric| {
        (format!("{},none", metric.name()), Value::One(f64::from(is_right(*metric))))
    };
    metrics.iter().map(score).collect()
}

/// Finds the answer in a response, in every way that the task names, and judges it.
pub(super) fn response(
    prepared: &Prepared,
    example: &Example,
    response: &str,
    checker: &mut Option<&mut dyn Checker>,
) -> Result<Judged> {
    let Request::Generate { target, expression, given, .. } = &example.request else {
        return Ok((BTreeMap::new(), Json::Null));
    };
    let (mut metrics, mut answers) = (BTreeMap::new(), serde_json::Map::new());
    for extractor in &prepared.extractors {
        let name = &extractor.settings.name;
        let answer = extractor.answer(response);
        let mut found = json!({ "answer": answer });
        let mut add = |metric: &str, score: f64| {
            metrics.insert(format!("{metric},{name}"), Value::One(score));
        };
        let answer = answer.as_deref();
        if let Some(target) = target {
            let agrees = answer.is_some_and(|answer| extractor.agrees(answer, target));
            add(extractor.settings.compare.metric(), f64::from(agrees));
        }
        if let (Some(given), Some(target), Some(cells)) = (given, target, &prepared.task.cells) {
            add("cell_accuracy", filled(answer, given, target, cells.blank, extractor));
        }
        if let Some((numbers, value)) = expression {
            let solved = answer.is_some_and(|answer| arithmetic::solves(answer, numbers, *value));
            add("solved", f64::from(solved));
        }
        if prepared.task.code.is_some() {
            let (passed, reason) = run(prepared, example, answer, checker)?;
            add("pass@1", f64::from(passed));
            found["verdict"] = reason.into();
        }
        answers.insert(name.clone(), found);
    }
    Ok((metrics, json!({ "response": response, "answers": answers })))
}

/// The share of the blanks of `given` that the answer fills as `target`. What the extractor ignores
/// does not count as a cell.
fn filled(
    answer: Option<&str>,
    given: &str,
    target: &str,
    blank: char,
    extractor: &Extractor,
) -> f64 {
    let answer = extractor.normal(answer.unwrap_or_default());
    let mut cells = answer.trim().chars().map(Some).chain(std::iter::repeat(None));
    let (mut blanks, mut right) = (0, 0);
    for (given, wanted) in given.chars().zip(target.chars()) {
        let found = cells.next().flatten();
        if given == blank {
            blanks += 1;
            right += usize::from(found == Some(wanted));
        }
    }
    f64::from(right as u32) / f64::from(blanks.max(1))
}

fn run(
    prepared: &Prepared,
    example: &Example,
    answer: Option<&str>,
    checker: &mut Option<&mut dyn Checker>,
) -> Result<(bool, String)> {
    let (Some(code), Some(checker)) = (&prepared.task.code, checker) else {
        return Err(EvalError::Checker("there is nothing to run it".into()).into());
    };
    let Some(answer) = answer else { return Ok((false, "no program in the response".into())) };
    let fields = minijinja::context! { response => answer, ..example.fields.clone() };
    let text = |template| {
        template::render(&prepared.environment, template, &fields)
            .map_err(|what| EvalError::Task { task: prepared.task.name.clone(), what })
    };
    let verdict = checker.check(&text(&code.program)?, &text(&code.tests)?, code)?;
    Ok((verdict.passed, verdict.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::extract::Extract;

    #[test]
    fn normalisations_of_unequal_answers() {
        let choices = ["ab".to_owned(), "abcdefgh".to_owned(), "日本語日本".to_owned()];
        use ChoiceMetric::{Acc, AccBytes, AccNorm, AccToken};
        let names = ["acc", "acc_norm", "acc_bytes", "acc_token"].map(|m| format!("{m},none"));
        // Per character −1.5, −0.5, −0.8; per byte −1.5, −0.5, −0.27; per token −3, −4, −1.
        let right = |answer| {
            let all = [Acc, AccNorm, AccBytes, AccToken];
            let scores = choice(&all, &choices, answer, &[-3.0, -4.0, -4.0], &[1, 1, 4]);
            names.clone().map(|name| scores[&name])
        };
        let (yes, no) = (Value::One(1.0), Value::One(0.0));
        assert_eq!(right(0), [yes, no, no, no]);
        assert_eq!(right(1), [no, yes, no, no]);
        assert_eq!(right(2), [no, no, yes, yes]);
    }

    #[test]
    fn the_first_of_equals_is_best() {
        assert_eq!(best([-1.0, 2.0, 2.0].into_iter()), 1);
        assert_eq!(best([f64::NEG_INFINITY; 2].into_iter()), 0);
    }

    #[test]
    fn only_the_blanks_count() {
        let space = Extract { ignore: vec![r"\s".into()], ..Extract::default() };
        let extractor = Extractor::new(&space).unwrap();
        let filled = |answer| filled(answer, "1020", "1324", '0', &extractor);
        assert_eq!(filled(Some("1324")), 1.0);
        assert_eq!(filled(Some("13\n21")), 0.5);
        assert_eq!(filled(Some("93")), 0.5);
        assert_eq!(filled(Some("13249999")), 1.0);
        assert_eq!(filled(None), 0.0);
    }
}
