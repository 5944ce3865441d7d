//! Progress on stderr: bars on a terminal, lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use llada::train::{Measured, Skip, StepMetrics, TaskScore, Validation};

use super::units;
use crate::term::{self, Level, Term, visible_line};

/// A bar, or a line that is written over; its texts show what control characters they hold.
#[derive(Debug, Clone)]
pub struct Bar(ProgressBar);

impl Bar {
    /// One that is never drawn.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Whether nothing is drawn.
    pub fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// Says how much there is to do.
    pub fn set_length(&self, length: u64) {
        self.0.set_length(length);
    }

    /// Says how much is done.
    pub fn set_position(&self, position: u64) {
        self.0.set_position(position);
    }

    /// Writes beside the bar.
    pub fn set_message(&self, message: impl AsRef<str>) {
        self.0.set_message(visible_line(message.as_ref()));
    }

    /// Removes the bar.
    pub fn finish_and_clear(&self) {
        self.0.finish_and_clear();
    }
}

/// A bar over bytes; invisible off a terminal and with `--quiet`.
pub fn bytes_bar(term: &Term) -> Bar {
    bar(term, 0, "{bar:30} {bytes}/{total_bytes} · {msg} · eta {eta}")
}

/// A bar over bytes of weights; invisible off a terminal and with `--quiet`.
pub fn weights_bar(term: &Term) -> Bar {
    bar(term, 0, "{bar:30} {bytes}/{total_bytes} · eta {eta}")
}

/// A bar over steps; invisible off a terminal and with `--quiet`.
pub fn steps_bar(term: &Term, steps: u64) -> Bar {
    bar(term, steps, "{bar:30} {pos}/{len} · {msg}")
}

/// A bar over noisy copies that are scored; invisible off a terminal and with `--quiet`.
pub fn samples_bar(term: &Term, samples: u64) -> Bar {
    bar(term, samples, "{bar:30} {pos}/{len} samples · eta {eta}")
}

/// One line that is written over; invisible off a terminal and with `--quiet`.
pub fn status_line(term: &Term) -> Bar {
    bar(term, 0, "{wide_msg}")
}

fn bar(term: &Term, length: u64, template: &str) -> Bar {
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ");
    Bar(match term.interactive && term.level > Level::Quiet {
        true => term::draw_progress(ProgressBar::new(length).with_style(style)),
        false => ProgressBar::hidden().with_style(style),
    })
}

/// One training step, with the machine's peak in FLOP/s to compare its speed with.
pub fn step_line(m: &StepMetrics, peak: f64) -> String {
    let digits = m.steps.to_string().len();
    let mut parts = vec![
        format!(
            "step {:0digits$}/{} ({:.2}%)",
            m.step,
            m.steps,
            100.0 * m.step as f64 / m.steps.max(1) as f64
        ),
        format!("loss {:.3}", m.loss),
        format!("mean {:.3}", m.loss_ema),
        format!("lr {:.1e}", m.learning_rate),
        format!("gnorm {:.2}", m.grad_norm),
        format!("dt {}", units::duration(m.seconds)),
        format!("{} tok/s", units::thousands(m.tokens_per_second as u64)),
    ];
    parts.splice(2..2, named(&m.measured));
    if peak > 0.0 {
        parts.push(format!("{:.0}% of peak", 100.0 * m.flops / m.seconds / peak));
    }
    parts.push(format!("eta {}", units::duration(m.seconds_left)));
    match m.skipped {
        Some(Skip::NotFinite) => parts.push("skipped: not finite".into()),
        Some(Skip::Spike) => parts.push("skipped: gradient spike".into()),
        None => {}
    }
    parts.join(" | ")
}

/// What an objective tells, by name.
fn named(measured: &Measured) -> Vec<String> {
    measured.iter().map(|(name, x)| format!("{} {x:.3}", name.replace('_', " "))).collect()
}

/// One measurement on what is held out; `is_bound` says that the loss is an upper bound.
pub fn validation_line(v: &Validation, is_bound: bool) -> String {
    let kind = if is_bound { "nll bound" } else { "nll" };
    let mut parts = Vec::new();
    // Completions have no text to compare with.
    if !v.nll.is_nan() {
        parts.push(format!("{kind} {:.4} ± {:.4} nats/token", v.nll, v.standard_error));
        parts.push(format!("{:.4} bits/byte", v.bits_per_byte));
    }
    parts.extend(named(&v.measured));
    format!("validation at step {}: {}", v.step, parts.join(" | "))
}

/// What tasks found, a line for each.
pub fn task_lines(scores: &[TaskScore]) -> Vec<String> {
    let of_task = |scores: &[TaskScore]| {
        let metrics = scores.iter().map(|score| {
            let error =
                score.standard_error.map_or(String::new(), |error| format!(" ± {error:.4}"));
            format!("{} {:.4}{error}", score.metric.trim_end_matches(",none"), score.value)
        });
        let (task, rows) = (&scores[0].task, units::counted(scores[0].rows as u64, "row"));
        format!("{task}, {rows}: {}", metrics.collect::<Vec<_>>().join(" | "))
    };
    scores.chunk_by(|a, b| a.task == b.task).map(of_task).collect()
}

/// What a generation has done so far.
#[derive(Debug, Clone, Copy)]
pub struct Generation {
    /// Steps done and in all.
    pub step: (usize, usize),
    /// Block under way, from 1, and blocks in all.
    pub block: (usize, usize),
    /// Forward passes.
    pub nfe: usize,
    /// Tokens committed.
    pub committed: usize,
    /// Time since the first forward pass began.
    pub elapsed: Duration,
}

/// One line about a generation under way.
pub fn generation_line(g: &Generation) -> String {
    let seconds = g.elapsed.as_secs_f64().max(1e-9);
    let left = seconds / g.step.0 as f64 * g.step.1.saturating_sub(g.step.0) as f64;
    let mut parts = vec![format!("step {}/{}", g.step.0, g.step.1)];
    if g.block.1 > 1 {
        parts.push(format!("block {}/{}", g.block.0, g.block.1));
    }
    parts.extend([
        format!("{} NFE", g.nfe),
        format!("{:.1} tok/forward", g.committed as f64 / g.nfe.max(1) as f64),
        format!("{:.1} tok/s", g.committed as f64 / seconds),
        format!("eta {}", units::duration(left)),
    ]);
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_training_line_names_every_number() {
        let metrics = StepMetrics {
            balance: None,
            expert_tokens: Vec::new(),
            step: 120,
            steps: 5000,
            loss: 3.9123,
            loss_ema: 3.88,
            learning_rate: 4e-4,
            grad_norm: 0.812,
            skipped: None,
            length: 256,
            tokens: 32768,
            total_tokens: 0,
            seconds: 0.812,
            communication: None,
            tokens_per_second: 40350.2,
            flops: 0.812 * 37e9,
            seconds_left: 3960.0,
            measured: Default::default(),
        };
        let expected = "step 0120/5000 (2.40%) | loss 3.912 | mean 3.880 | lr 4.0e-4 | gnorm 0.81 \
                        | dt 812ms | 40,350 tok/s | 37% of peak | eta 1h06m";
        assert_eq!(step_line(&metrics, 100e9), expected);
        let skipped = StepMetrics { skipped: Some(Skip::Spike), ..metrics };
        assert!(step_line(&skipped, 0.0).ends_with("eta 1h06m | skipped: gradient spike"));
    }

    #[test]
    fn the_generation_line_survives_the_first_step() {
        let g = Generation {
            step: (0, 8),
            block: (1, 2),
            nfe: 0,
            committed: 0,
            elapsed: Duration::ZERO,
        };
        let line = generation_line(&g);
        let expected = "step 0/8 · block 1/2 · 0 NFE · 0.0 tok/forward · 0.0 tok/s · eta ?";
        assert_eq!(line, expected);
    }
}
