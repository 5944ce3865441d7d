//! From the scores of rows to a number with its standard error.

use serde::{Deserialize, Serialize};

/// The score of a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// One number.
    One(f64),
    /// A log-likelihood in nats, and the words or bytes that it is for.
    Share(f64, f64),
}

/// A metric over all rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Its value.
    pub value: f64,
    /// Its standard error over the rows; `None` with fewer than two.
    pub standard_error: Option<f64>,
    /// Rows.
    pub rows: usize,
}

/// Whether more is better.
pub fn higher_is_better(metric: &str) -> bool {
    !metric.contains("perplexity") && !metric.starts_with("bits_per_byte")
}

/// The metric `name` (without its filter) over the scores of the rows:
///
/// - `perplexity`: e^−(mean log-likelihood of a row);
/// - `word_perplexity`, `byte_perplexity`: e^−(Σ log-likelihoods / Σ words or bytes);
/// - `bits_per_byte`: −Σ log-likelihoods / Σ bytes / ln 2;
/// - all others: the mean.
///
/// The standard error of a mean is √(variance / n) with n − 1 degrees of freedom, as in
/// lm-evaluation-harness; that of a ratio is its linearisation, and that of an exponential follows
/// from it by the delta method (the harness resamples instead).
pub fn aggregate(name: &str, scores: &[Value]) -> Estimate {
    let pairs: Vec<(f64, f64)> = scores
        .iter()
        .map(|score| match *score {
            Value::One(x) => (x, 1.0),
            Value::Share(x, weight) => (x, weight),
        })
        .collect();
    let (n, total) = (pairs.len() as f64, pairs.iter().map(|p| p.1).sum::<f64>());
    let ratio = pairs.iter().map(|p| p.0).sum::<f64>() / total;
    let squares: f64 = pairs.iter().map(|(x, weight)| (x - ratio * weight).powi(2)).sum();
    // With weights of 1 this is the standard error of the mean.
    let error = (squares * n / (n - 1.0)).sqrt() / total;
    let (value, error) = match name {
        "perplexity" | "word_perplexity" | "byte_perplexity" => {
            let perplexity = (-ratio).exp();
            (perplexity, perplexity * error)
        }
        "bits_per_byte" => (-ratio / std::f64::consts::LN_2, error / std::f64::consts::LN_2),
        _ => (ratio, error),
    };
    Estimate { value, standard_error: (pairs.len() > 1).then_some(error), rows: pairs.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1.0)
    }

    #[test]
    fn means_have_the_standard_error_of_the_harness() {
        // statistics.stdev([1, 0, 1, 1]) / 2 in Python.
        let scores = [1.0, 0.0, 1.0, 1.0].map(Value::One);
        let acc = aggregate("acc", &scores);
        assert!(close(acc.value, 0.75) && close(acc.standard_error.unwrap(), 0.25), "{acc:?}");
        assert_eq!(aggregate("acc", &scores[..1]).standard_error, None);
    }

    #[test]
    fn perplexities_weigh_by_length() {
        let scores = [Value::Share(-10.0, 4.0), Value::Share(-2.0, 2.0)];
        let words = aggregate("word_perplexity", &scores);
        assert!(close(words.value, 2.0f64.exp()), "{words:?}");
        // Residuals −10 + 8 and −2 + 4; √(8 · 2) / 6 = 2/3, times e².
        assert!(close(words.standard_error.unwrap(), 2.0f64.exp() * 2.0 / 3.0), "{words:?}");
        let bits = aggregate("bits_per_byte", &scores);
        assert!(close(bits.value, 2.0 / std::f64::consts::LN_2));
        let rows = aggregate("perplexity", &[-1.0, -3.0].map(Value::One));
        assert!(close(rows.value, 2.0f64.exp()));
        assert!(close(rows.standard_error.unwrap(), 2.0f64.exp()));
    }

    #[test]
    fn scores_survive_json() {
        let scores = [Value::One(0.5), Value::Share(-1.0, 3.0)];
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(json, "[0.5,[-1.0,3.0]]");
        assert_eq!(serde_json::from_str::<Vec<Value>>(&json).unwrap(), scores);
    }

    #[test]
    fn what_is_better() {
        assert!(higher_is_better("acc_norm") && higher_is_better("pass@1"));
        assert!(!higher_is_better("word_perplexity") && !higher_is_better("bits_per_byte"));
    }
}
