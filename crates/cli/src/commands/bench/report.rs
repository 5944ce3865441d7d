//! What was measured, as a table and as JSON.

use llada::{diffusion::Sampler, train::forward_flops};
use serde::Serialize;

use crate::{commands::eval::table, view::units};
use llada::config::ModelConfig;

/// A run of `llada bench`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The instruction set of the kernels.
    pub kernels: String,
    /// Threads that computed.
    pub threads: usize,
    /// What was measured, in the order of the command line.
    pub models: Vec<Measured>,
}

/// One model in one format.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Name of the shape or of the model's folder or file.
    pub model: String,
    /// The format of most matrices.
    pub format: &'static str,
    /// Number of parameters.
    pub parameters: usize,
    /// Bytes of all weights.
    pub weight_bytes: usize,
    /// Whether the weights are random, and so [`seconds_to_start`](Self::seconds_to_start) is of
    /// making them rather than of loading.
    pub random: bool,
    /// Seconds until the first pass could begin.
    pub seconds_to_start: f64,
    /// Most memory that the process had while this model was measured; unknown where the system
    /// does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Operations each second that the processor's registers allow, measured in the same rounds: of
    /// bytes where the matrices are quantised, of `f32` otherwise.
    pub peak_operations_per_second: f64,
    /// Single passes.
    pub forward: Vec<Forward>,
    /// A whole generation.
    pub generation: Option<Generation>,
}

/// One pass over a sequence.
#[derive(Debug, Serialize)]
pub struct Forward {
    /// Tokens of the sequence.
    pub tokens: usize,
    /// Positions whose logits were computed.
    pub wanted: usize,
    /// Multiplications and additions.
    pub operations: f64,
    /// Times.
    #[serde(flatten)]
    pub times: Times,
    /// Tokens each second.
    pub tokens_per_second: f64,
    /// Operations each second.
    pub operations_per_second: f64,
    /// Their share of the peak.
    pub share_of_peak: f64,
}

/// A whole generation, of which every round did the same work.
#[derive(Debug, Serialize)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Forward passes.
    pub forwards: usize,
    /// Tokens that went through the model in all of them.
    pub tokens_fed: usize,
    /// Tokens unmasked in each, on average.
    pub tokens_per_forward: f64,
    /// Tokens of the response.
    pub canvas_tokens: usize,
    /// Those before the end of the text.
    pub useful_tokens: usize,
    /// Times.
    #[serde(flatten)]
    pub times: Times,
    /// Seconds for each useful token.
    pub seconds_per_useful_token: f64,
    /// Useful tokens each second.
    pub useful_tokens_per_second: f64,
    /// The same once more, where a model holds what it was fed.
    pub again: Option<Again>,
    /// How it was sampled.
    pub sampler: Sampler,
}

/// A generation after a prompt that the model was fed before.
#[derive(Debug, Serialize)]
pub struct Again {
    /// Tokens that were not fed again.
    pub tokens_reused: usize,
    /// Times.
    #[serde(flatten)]
    pub times: Times,
}

/// Seconds of all rounds.
#[derive(Debug, Serialize)]
pub struct Times {
    /// Of each round.
    pub seconds: Vec<f64>,
    /// Their median.
    pub median_seconds: f64,
    /// The greatest less the least, as a share of the median.
    pub spread: f64,
}

impl Times {
    /// Of some rounds, at least one.
    pub fn new(seconds: Vec<f64>) -> Self {
        let median_seconds = median(&seconds);
        let most = seconds.iter().copied().fold(0.0, f64::max);
        let least = seconds.iter().copied().fold(most, f64::min);
        Self { median_seconds, spread: (most - least) / median_seconds.max(1e-12), seconds }
    }
}

impl Forward {
    /// A pass over `tokens` tokens, on a machine of a given peak.
    pub fn new(
        config: &ModelConfig,
        tokens: usize,
        wanted: usize,
        seconds: Vec<f64>,
        peak: f64,
    ) -> Self {
        let operations = forward_flops(config, tokens, wanted);
        let times = Times::new(seconds);
        let operations_per_second = operations / times.median_seconds;
        Self {
            tokens,
            wanted,
            operations,
            tokens_per_second: tokens as f64 / times.median_seconds,
            operations_per_second,
            share_of_peak: operations_per_second / peak,
            times,
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        _ => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

impl Report {
    /// The report as people read it.
    pub fn text(&self) -> String {
        let models = self.models.iter().map(Measured::text);
        let threads = units::counted(self.threads as u64, "thread");
        [format!("{threads}, {} kernels", self.kernels)]
            .into_iter()
            .chain(models)
            .collect::<Vec<_>>()
            .join("\n\n")
    }
}

impl Measured {
    fn text(&self) -> String {
        let memory = self.peak_memory_bytes.map_or("unknown".into(), units::bytes);
        let title = format!(
            "{} in {}: {} parameters, weights {}, {} in {}, peak memory {memory}, peak {:.0} Gop/s",
            self.model,
            self.format,
            units::count(self.parameters as u64),
            units::bytes(self.weight_bytes as u64),
            if self.random { "made" } else { "loaded" },
            units::duration(self.seconds_to_start),
            self.peak_operations_per_second / 1e9,
        );
        let header = ["", "median", "spread", "tokens/s", "Gop/s", "of peak"];
        let mut rows = vec![header.map(String::from).to_vec()];
        rows.extend(self.forward.iter().map(|pass| {
            vec![
                format!("pass of {} tokens, {} logits", pass.tokens, pass.wanted),
                seconds(pass.times.median_seconds),
                percent(pass.times.spread),
                format!("{:.0}", pass.tokens_per_second),
                format!("{:.0}", pass.operations_per_second / 1e9),
                percent(pass.share_of_peak),
            ]
        }));
        let generation = self.generation.as_ref().map(Generation::text);
        let lines = [title, table::columns(&rows)].into_iter().chain(generation);
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Generation {
    fn text(&self) -> String {
        format!(
            "generation after {} tokens: {} useful of {} canvas tokens in {} (spread {}); {} \
             forwards, {:.1} tokens/forward, {} tokens fed; {} and {:.2} useful tokens/s",
            self.prompt_tokens,
            self.useful_tokens,
            self.canvas_tokens,
            seconds(self.times.median_seconds),
            percent(self.times.spread),
            self.forwards,
            self.tokens_per_forward,
            units::thousands(self.tokens_fed as u64),
            format_args!("{} for each useful token", seconds(self.seconds_per_useful_token)),
            self.useful_tokens_per_second,
        ) + &self.again.as_ref().map(Again::text).unwrap_or_default()
    }
}

impl Again {
    fn text(&self) -> String {
        format!(
            "; once more, {} tokens not fed again: {} (spread {})",
            units::thousands(self.tokens_reused as u64),
            seconds(self.times.median_seconds),
            percent(self.times.spread),
        )
    }
}

/// A time with three digits: `12.3ms`, `1.23s`, `123s`.
fn seconds(s: f64) -> String {
    match s {
        s if s < 0.001 => format!("{:.0}µs", s * 1e6),
        s if s < 0.1 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2}s"),
        s if s < 100.0 => format!("{s:.1}s"),
        s => format!("{s:.0}s"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::model::Shape;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(
            [&[][..], &[3.0], &[3.0, 1.0], &[9.0, 1.0, 2.0]].map(median),
            [0.0, 3.0, 2.0, 2.0]
        );
        let times = Times::new(vec![2.0, 1.0, 4.0]);
        assert_eq!((times.median_seconds, times.spread), (2.0, 1.5));
        assert_eq!(
            [5e-4, 0.0123, 0.45, 1.234, 12.34, 123.4].map(seconds),
            ["500µs", "12.3ms", "450ms", "1.23s", "12.3s", "123s"]
        );
    }

    /// Counted by hand: 2 for each weight and token, and 4 · d · length in attention.
    #[test]
    fn operations_of_a_pass() {
        let pass = Forward::new(&Shape::M100.config(), 128, 32, vec![0.5, 0.5], 1e12);
        let blocks = 12.0 * (4.0 * 768.0 * 768.0 + 3.0 * 768.0 * 2048.0);
        let attention = 12.0 * 4.0 * 768.0 * 128.0 * 128.0;
        let expected = 2.0 * (128.0 * blocks + 32.0 * 768.0 * 32768.0) + attention;
        assert!((pass.operations - expected).abs() < 1.0, "{} {expected}", pass.operations);
        assert!((pass.share_of_peak - expected / 0.5e12).abs() < 1e-9);
        assert_eq!(pass.tokens_per_second, 256.0);
    }
}
