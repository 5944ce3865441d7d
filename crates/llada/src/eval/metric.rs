//! From the scores of rows to a number with its standard error.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use super::mersenne::Random;

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
    /// Its standard error over the rows, as the harness computes it; `None` where it has none, and
    /// with fewer than two rows.
    pub standard_error: Option<f64>,
    /// The linearised standard error of a ratio, for which the harness has none.
    pub linear_error: Option<f64>,
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
/// As in lm-evaluation-harness, the standard error of a mean is √(variance / n) with n − 1 degrees
/// of freedom, and that of `perplexity` is the deviation of 100,000 resamples. For ratios the
/// harness has none; their linearisation, with the delta method for exponentials, is a field of its
/// own.
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
    let perplexity = (-ratio).exp();
    let (value, standard_error, linear_error) = match name {
        "perplexity" => {
            let scores: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
            (perplexity, bootstrap(&scores, &|mean| (-mean).exp()), None)
        }
        "word_perplexity" | "byte_perplexity" => (perplexity, None, Some(perplexity * error)),
        "bits_per_byte" => (-ratio / LN_2, None, Some(error / LN_2)),
        _ => (ratio, Some(error), None),
    };
    let known = |error: Option<f64>| error.filter(|_| pairs.len() > 1);
    Estimate {
        value,
        standard_error: known(standard_error),
        linear_error: known(linear_error),
        rows: pairs.len(),
    }
}

/// A metric over groups of rows, as the harness has it for a group of tasks: whatever the metric,
/// the mean of theirs, in which a group weighs as many as it has rows.
pub fn pooled(groups: &[Estimate]) -> Estimate {
    let rows: usize = groups.iter().map(|group| group.rows).sum();
    let sum: f64 = groups.iter().map(|group| group.value * group.rows as f64).sum();
    Estimate {
        value: sum / rows as f64,
        standard_error: pooled_error(groups),
        linear_error: None,
        rows,
    }
}

/// The standard error of a mean over groups of rows, where each group weighs as many as it has rows:
/// the pooled one of the harness. `None` where a group has none.
fn pooled_error(groups: &[Estimate]) -> Option<f64> {
    let rows: f64 = groups.iter().map(|group| group.rows as f64).sum();
    let mut sum = 0.0;
    for group in groups {
        let n = group.rows as f64;
        sum += (n - 1.0) * group.standard_error?.powi(2) * n;
    }
    Some((sum / (rows - groups.len() as f64) / rows).sqrt())
}

/// The deviation of `statistic` of the mean over resamples of `scores`, drawn as the harness does:
/// by Python's generator with the seeds 0 to 99, a thousand resamples each.
fn bootstrap(scores: &[f64], statistic: &(dyn Fn(f64) -> f64 + Sync)) -> Option<f64> {
    const SEEDS: u32 = 100;
    const RESAMPLES: usize = 1000;
    let n = scores.len();
    if n < 2 {
        return None;
    }
    let resample = |random: &mut Random| {
        let sum: f64 = (0..n).map(|_| scores[random.choice(n)]).sum();
        statistic(sum / n as f64)
    };
    let of_seed = |seed| {
        let mut random = Random::new(seed);
        (0..RESAMPLES).map(|_| resample(&mut random)).collect::<Vec<f64>>()
    };
    // Seeds are shared out among the threads and put together in their order.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(16)) as u32;
    let values: Vec<f64> = std::thread::scope(|scope| {
        let part = SEEDS.div_ceil(threads);
        let parts = (0..threads).map(|i| part * i..SEEDS.min(part * (i + 1)));
        let running: Vec<_> = parts
            .map(|seeds| scope.spawn(|| seeds.flat_map(of_seed).collect::<Vec<_>>()))
            .collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (count - 1.0)).sqrt())
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
        assert!(close(words.linear_error.unwrap(), 2.0f64.exp() * 2.0 / 3.0), "{words:?}");
        assert_eq!(words.standard_error, None, "the harness has none");
        let bits = aggregate("bits_per_byte", &scores);
        assert!(close(bits.value, 2.8853900817779268) && bits.standard_error.is_none());
    }

    #[test]
    fn perplexities_are_resampled_as_the_harness_does() {
        // `perplexity` and its `stderr_for_metric` of lm_eval 0.4.13.
        let rows = aggregate("perplexity", &[-1.0, -3.0, -0.5, -2.25].map(Value::One));
        assert!(close(rows.value, 5.405948925141167), "{rows:?}");
        assert!((rows.standard_error.unwrap() - 3.1939766370251292).abs() < 1e-9, "{rows:?}");
        assert_eq!(aggregate("perplexity", &[Value::One(-1.0)]).standard_error, None);
    }

    #[test]
    fn groups_are_pooled_as_the_harness_does() {
        // `pooled_sample_stderr` and `aggregate_subtask_metrics` of lm_eval 0.4.13.
        let group = |scores: &[f64]| {
            aggregate("acc", &scores.iter().copied().map(Value::One).collect::<Vec<_>>())
        };
        let (a, b) = (group(&[1.0, 0.0, 1.0, 1.0]), group(&[0.0, 0.0, 1.0]));
        let both = pooled(&[a, b]);
        assert!(close(both.value, 4.0 / 7.0) && both.rows == 7, "{both:?}");
        assert!(close(both.standard_error.unwrap(), 0.20118695404073914));
        assert_eq!(pooled(&[a, group(&[1.0])]).standard_error, None);
        // Not the perplexity of all rows, which is 5.9638.
        let perplexity = |scores: &[f64]| {
            aggregate("perplexity", &scores.iter().copied().map(Value::One).collect::<Vec<_>>())
        };
        let both =
            pooled(&[perplexity(&[-1.0, -3.0, -0.5, -2.25]), perplexity(&[-0.25, -4.0, -1.5])]);
        assert!(close(both.value, 6.0026535828823295), "{both:?}");
        assert!((both.standard_error.unwrap() - 4.934697839878547).abs() < 1e-9, "{both:?}");
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
