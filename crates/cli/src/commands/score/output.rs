//! Scored answers, for people and for programs.

use llada::diffusion::likelihood::{Estimate, Settings};
use serde_json::{Value, json};

use super::input::Row;

/// What is known of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// Its log-likelihood.
    pub estimate: Estimate,
    /// Whether greedy decoding gives it, if that was asked for.
    pub greedy: Option<bool>,
}

/// One object: the answers in the order given, and the number of the most probable. `settings` are
/// those of an estimate; an exact score has none.
pub fn json(row: &Row, answers: &[Scored], model: &str, settings: Option<&Settings>) -> Value {
    let answer = |(text, scored): (&String, &Scored)| {
        let Scored { estimate, greedy } = scored;
        let mut value = json!({
            "answer": text,
            "log_likelihood": estimate.log_likelihood,
            "standard_error": estimate.standard_error,
            "per_token": estimate.per_token(),
            "tokens": estimate.tokens,
            "samples": estimate.samples,
        });
        if let Some(greedy) = greedy {
            value["greedy"] = (*greedy).into();
        }
        value
    };
    let mut value = json!({
        "model": model,
        "prompt": row.prompt,
        "answers": row.answers.iter().zip(answers).map(answer).collect::<Vec<_>>(),
        "best": ranked(answers).first(),
        "is_bound": settings.is_some(),
        "settings": settings,
    });
    if let Some(line) = row.line {
        value["line"] = line.into();
    }
    value
}

/// A table, the most probable answer first. Rows of a file begin with their prompt.
pub fn table(row: &Row, answers: &[Scored]) -> String {
    let mut columns: Vec<Vec<String>> =
        vec![column("log-likelihood"), column("per token"), column("tokens")];
    let asked_greedy = answers.iter().any(|a| a.greedy.is_some());
    if asked_greedy {
        columns.push(column("greedy"));
    }
    let order = ranked(answers);
    for Scored { estimate, greedy } in order.iter().map(|&i| answers[i]) {
        let error = match estimate.standard_error {
            Some(error) if error > 0.0 => format!(" ± {error:.3}"),
            _ => String::new(),
        };
        columns[0].push(format!("{:.3}{error}", estimate.log_likelihood));
        columns[1].push(format!("{:.3}", estimate.per_token()));
        columns[2].push(estimate.tokens.to_string());
        if asked_greedy {
            columns[3].push(if greedy == Some(true) { "yes" } else { "no" }.into());
        }
    }
    let mut lines: Vec<String> =
        row.line.map(|n| format!("line {n}: {:?}", row.prompt)).into_iter().collect();
    let texts = order.iter().map(|&i| format!("{:?}", row.answers[i]));
    for (i, text) in std::iter::once("answer".to_owned()).chain(texts).enumerate() {
        let cell = |column: &Vec<String>| {
            let width = column.iter().map(|c| c.chars().count()).max().unwrap_or(0);
            format!("{:>width$}  ", column[i])
        };
        lines.push(columns.iter().map(cell).collect::<String>() + &text);
    }
    if row.line.is_some() {
        lines.push(String::new());
    }
    lines.join("\n")
}

fn column(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// The numbers of the answers, the most probable first, equal ones in the order given.
fn ranked(answers: &[Scored]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..answers.len()).collect();
    let score = |i: &usize| answers[*i].estimate.log_likelihood;
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(log_likelihood: f64, standard_error: Option<f64>, greedy: Option<bool>) -> Scored {
        let estimate = Estimate { log_likelihood, standard_error, samples: 8, tokens: 4 };
        Scored { estimate, greedy }
    }

    fn row(line: Option<usize>) -> Row {
        Row { line, prompt: "a\n".into(), answers: vec![" b".into(), " c".into()] }
    }

    #[test]
    fn the_best_answer_comes_first() {
        let answers = [scored(-12.0, Some(0.25), None), scored(-3.5, None, None)];
        let table = table(&row(None), &answers);
        let expected = [
            " log-likelihood  per token  tokens  answer",
            "         -3.500     -0.875       4  \" c\"",
            "-12.000 ± 0.250     -3.000       4  \" b\"",
        ];
        assert_eq!(table.lines().collect::<Vec<_>>(), expected);
        let value = json(&row(Some(3)), &answers, "m", Some(&Settings::default()));
        assert_eq!((&value["best"], &value["line"]), (&1.into(), &3.into()));
        assert_eq!(value["answers"][0]["log_likelihood"], -12.0);
        assert_eq!(value["answers"][1]["standard_error"], Value::Null);
        assert_eq!(value["settings"]["mc_num"], 128);
        assert_eq!(value["answers"][0].get("greedy"), None);
    }

    #[test]
    fn rows_of_a_file_are_named() {
        let answers = [scored(-1.0, Some(0.0), Some(true)), scored(-2.0, Some(0.0), Some(false))];
        let text = table(&row(Some(7)), &answers);
        assert!(
            text.starts_with(
                "line 7: \"a\\n\"\nlog-likelihood  per token  tokens  greedy  answer\n"
            ),
            "{text}"
        );
        assert!(text.contains("yes  \" b\"\n") && text.ends_with("no  \" c\"\n"), "{text}");
        assert_eq!(json(&row(None), &answers, "m", None)["answers"][0]["greedy"], true);
    }
}
