//! What a run writes besides checkpoints: `config.toml`, `metrics.jsonl`, TensorBoard events,
//! samples and the report.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{Recipe, StepMetrics, Validation, events::EventsWriter, report};
use crate::{Result, checkpoint::files, io};

/// The open files of a run folder.
#[derive(Debug)]
pub(super) struct RunLog {
    dir: PathBuf,
    path: PathBuf,
    metrics: BufWriter<File>,
    events: Option<EventsWriter>,
}

/// A line of `metrics.jsonl`.
#[derive(serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Line<'a> {
    Train(&'a StepMetrics),
    Validation(&'a Validation),
}

impl RunLog {
    /// Writes the resolved recipe, and opens the metrics without the lines after `step`: those of
    /// a run that was killed after its last checkpoint.
    pub(super) fn open(dir: &Path, recipe: &Recipe, step: u64, now: f64) -> Result<Self> {
        files::replace_with(&dir.join("config.toml"), recipe.to_toml().as_bytes())?;
        let path = dir.join("metrics.jsonl");
        if path.exists() {
            let kept = up_to(&read(&path)?, step);
            files::replace_with(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let metrics = BufWriter::new(file.map_err(io("open", &path))?);
        let events = match recipe.log.tensorboard {
            true => Some(EventsWriter::create(dir, step, now)?),
            false => None,
        };
        Ok(Self { dir: dir.to_path_buf(), path, metrics, events })
    }

    /// One training step.
    pub(super) fn step(&mut self, metrics: &StepMetrics, now: f64) -> Result<()> {
        self.line(&Line::Train(metrics))?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let scalars = [
            ("train/loss", metrics.loss),
            ("train/loss_smoothed", metrics.loss_ema),
            ("train/learning_rate", metrics.learning_rate),
            ("train/grad_norm", metrics.grad_norm),
            ("speed/tokens_per_second", metrics.tokens_per_second),
            ("speed/flops_per_second", metrics.flops / metrics.seconds),
        ];
        events.scalars(metrics.step, now, &scalars)?;
        events.flush()
    }

    /// One validation.
    pub(super) fn validation(&mut self, found: &Validation, now: f64) -> Result<()> {
        self.line(&Line::Validation(found))?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let mut scalars = vec![
            ("validation/nll".to_owned(), found.nll),
            ("validation/bits_per_byte".to_owned(), found.bits_per_byte),
        ];
        for bucket in &found.buckets {
            let percent = bucket.from * 100.0;
            let tag = format!("validation_by_masked_percent/{percent:02.0}");
            scalars.push((tag, bucket.nll.unwrap_or(f64::NAN)));
        }
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(t, x)| (t.as_str(), *x)).collect();
        events.scalars(found.step, now, &scalars)?;
        events.flush()
    }

    /// The sample of a step, as `samples/step-N.txt`.
    pub(super) fn sample(&mut self, step: u64, text: &str) -> Result<()> {
        let dir = self.dir.join("samples");
        files::create_dir(&dir)?;
        files::replace_with(&dir.join(format!("step-{step}.txt")), text.as_bytes())
    }

    /// Puts all lines on the disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.metrics.flush().map_err(io("write", &self.path))?;
        self.metrics.get_ref().sync_data().map_err(io("write", &self.path))
    }

    /// `report.html`, drawn from all lines so far.
    pub(super) fn report(&mut self, recipe: &Recipe) -> Result<()> {
        self.flush()?;
        let html = report::render(&read(&self.path)?, &recipe.to_toml());
        files::replace_with(&self.dir.join("report.html"), html.as_bytes())
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        self.metrics.write_all(text.as_bytes()).map_err(io("write", &self.path))?;
        self.metrics.flush().map_err(io("write", &self.path))
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The whole lines of steps up to `step`.
fn up_to(lines: &str, step: u64) -> String {
    let is_kept = |line: &&str| {
        let value = serde_json::from_str::<serde_json::Value>(line).ok();
        value.and_then(|v| v["step"].as_u64()).is_some_and(|s| s <= step)
    };
    lines.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_checkpoint_and_half_lines_go() {
        let lines = "{\"kind\":\"train\",\"step\":1}\n{\"step\":3}\n{\"step\":4}\n{\"ste";
        assert_eq!(up_to(lines, 3), "{\"kind\":\"train\",\"step\":1}\n{\"step\":3}\n");
        assert_eq!(up_to("", 3), "");
    }
}
