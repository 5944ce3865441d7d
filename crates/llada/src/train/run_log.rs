//! What a run writes besides checkpoints: `config.toml`, `metrics.jsonl`, TensorBoard events,
//! samples and the report.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    Measured, Recipe, StepMetrics, TaskScore, TrainError, Validation,
    events::EventsWriter,
    report,
    state::{Origin, State},
};
use crate::{Result, files, io};

/// The recipe of the run.
pub(super) const CONFIG: &str = "config.toml";
/// The folder of the samples.
pub(super) const SAMPLES: &str = "samples";
const METRICS: &str = "metrics.jsonl";
const REPORT: &str = "report.html";
/// A step has a line of 300 bytes.
const MAX_METRICS: u64 = 4 << 30;

/// What is written, and replaced, under a fixed name.
pub(super) const WRITTEN: [&str; 4] = [CONFIG, METRICS, REPORT, SAMPLES];

/// How [`CONFIG`] begins: a folder with such a file is that of a run.
const HEADER: &str = "# The recipe of this run, with all defaults; written by llada.\n";

/// Whether a folder is that of a run, which may not have come to its first checkpoint.
pub(super) fn is_ours(dir: &Path) -> bool {
    let mut start = vec![0; HEADER.len()];
    let read = files::open_regular(&dir.join(CONFIG)).map(|mut file| file.read_exact(&mut start));
    matches!(read, Ok(Ok(()))) && start == HEADER.as_bytes()
}

/// The content of [`CONFIG`].
fn config(recipe: &Recipe, origin: Option<&Origin>) -> String {
    let origin = origin.map_or(String::new(), |Origin { path, step }| {
        format!("# It branched at step {step} from {:?}.\n", path.display().to_string())
    });
    format!("{HEADER}{origin}{}", recipe.to_toml())
}

/// What a run writes in its folder; of several ranks, the first writes it.
#[derive(Debug)]
pub(super) struct RunLog(Option<Files>);

/// The open files of a run folder.
#[derive(Debug)]
struct Files {
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
    Task {
        step: u64,
        #[serde(flatten)]
        score: &'a TaskScore,
    },
}

impl RunLog {
    /// Writes nothing.
    pub(super) fn silent() -> Self {
        Self(None)
    }

    /// Writes the resolved recipe, and opens the metrics without the lines that come after `state`:
    /// those of a run that was killed after its last checkpoint. A run that `continues`
    /// nothing in this folder starts anew.
    pub(super) fn open(
        dir: &Path,
        recipe: &Recipe,
        state: &State,
        continues: bool,
        now: f64,
    ) -> Result<Self> {
        // Whoever opens a pipe waits for the other end.
        let irregular = |path: &PathBuf| path.exists() && !path.is_file();
        let written = [CONFIG, METRICS, REPORT].map(|name| dir.join(name));
        if let Some(path) = written.into_iter().find(irregular) {
            return Err(TrainError::InTheWay { path }.into());
        }
        let config = config(recipe, state.origin.as_ref());
        files::replace_with(&dir.join(CONFIG), config.as_bytes())?;
        let path = dir.join(METRICS);
        if path.exists() {
            let kept = if continues { up_to(&read(&path)?, state) } else { String::new() };
            files::replace_with(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let metrics = BufWriter::new(file.map_err(io("open", &path))?);
        let events = match recipe.log.tensorboard {
            true => Some(EventsWriter::create(dir, state.step, now)?),
            false => None,
        };
        Ok(Self(Some(Files { dir: dir.to_path_buf(), path, metrics, events })))
    }

    /// One training step.
    pub(super) fn step(&mut self, metrics: &StepMetrics, now: f64) -> Result<()> {
        let Some(files) = &mut self.0 else { return Ok(()) };
        files.line(&Line::Train(metrics))?;
        let Some(events) = &mut files.events else { return Ok(()) };
        let mut scalars = vec![
            ("train/loss", metrics.loss),
            ("train/loss_smoothed", metrics.loss_ema),
            ("train/learning_rate", metrics.learning_rate),
            ("train/grad_norm", metrics.grad_norm),
            ("speed/tokens_per_second", metrics.tokens_per_second),
            ("speed/flops_per_second", metrics.flops / metrics.seconds),
        ];
        let measured: Vec<_> = named("train", &metrics.measured).collect();
        scalars.extend(measured.iter().map(|(tag, x)| (tag.as_str(), *x)));
        events.scalars(metrics.step, now, &scalars)?;
        events.flush()
    }

    /// One validation.
    pub(super) fn validation(&mut self, found: &Validation, now: f64) -> Result<()> {
        let Some(files) = &mut self.0 else { return Ok(()) };
        files.line(&Line::Validation(found))?;
        let Some(events) = &mut files.events else { return Ok(()) };
        let mut scalars = vec![
            ("validation/nll".to_owned(), found.nll),
            ("validation/bits_per_byte".to_owned(), found.bits_per_byte),
        ];
        scalars.retain(|(_, x)| !x.is_nan());
        scalars.extend(named("validation", &found.measured));
        for bucket in &found.buckets {
            let percent = bucket.from * 100.0;
            let tag = format!("validation_by_masked_percent/{percent:02.0}");
            scalars.push((tag, bucket.nll.unwrap_or(f64::NAN)));
        }
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(t, x)| (t.as_str(), *x)).collect();
        events.scalars(found.step, now, &scalars)?;
        events.flush()
    }

    /// What tasks found.
    pub(super) fn tasks(&mut self, step: u64, scores: &[TaskScore], now: f64) -> Result<()> {
        let Some(files) = &mut self.0 else { return Ok(()) };
        scores.iter().try_for_each(|score| files.line(&Line::Task { step, score }))?;
        let Some(events) = &mut files.events else { return Ok(()) };
        let tag = |score: &TaskScore| format!("task/{}/{}", score.task, score.metric);
        let tags: Vec<String> = scores.iter().map(tag).collect();
        let scalars: Vec<(&str, f64)> =
            tags.iter().zip(scores).map(|(tag, score)| (tag.as_str(), score.value)).collect();
        events.scalars(step, now, &scalars)?;
        events.flush()
    }

    /// The sample of a step, as `samples/step-N.txt`.
    pub(super) fn sample(&mut self, step: u64, text: &str) -> Result<()> {
        let Some(files) = &self.0 else { return Ok(()) };
        let dir = files.dir.join(SAMPLES);
        files::create_dir(&dir)?;
        files::replace_with(&dir.join(format!("step-{step}.txt")), text.as_bytes())
    }

    /// Puts all lines on the disk.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), Files::flush)
    }

    /// `report.html`, drawn from all lines so far.
    pub(super) fn report(&mut self, recipe: &Recipe) -> Result<()> {
        let Some(files) = &mut self.0 else { return Ok(()) };
        files.flush()?;
        let html = report::render(&read(&files.path)?, &recipe.to_toml());
        files::replace_with(&files.dir.join(REPORT), html.as_bytes())
    }
}

impl Files {
    fn flush(&mut self) -> Result<()> {
        self.metrics.flush().map_err(io("write", &self.path))?;
        self.metrics.get_ref().sync_data().map_err(io("write", &self.path))
    }

    fn line(&mut self, line: &Line<'_>) -> Result<()> {
        let mut text = serde_json::to_string(line).unwrap_or_default();
        text.push('\n');
        self.metrics.write_all(text.as_bytes()).map_err(io("write", &self.path))?;
        self.metrics.flush().map_err(io("write", &self.path))
    }
}

/// What an objective tells, under the tags of TensorBoard.
fn named<'a>(of: &'a str, measured: &'a Measured) -> impl Iterator<Item = (String, f64)> + 'a {
    measured.iter().map(move |(name, x)| (format!("{of}/{name}"), *x))
}

fn read(path: &Path) -> Result<String> {
    let bytes = files::read_bytes(path, MAX_METRICS)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The whole lines of steps up to that of `state`, without what is still to be measured.
fn up_to(lines: &str, state: &State) -> String {
    let is_kept = |line: &&str| {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return false };
        let Some(step) = value["step"].as_u64() else { return false };
        let again = match value["kind"].as_str() {
            Some("validation") => state.pending.validation,
            Some("task") => state.pending.tasks,
            _ => false,
        };
        step < state.step || step == state.step && !again
    };
    lines.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::state::tests::fingerprint;

    #[test]
    fn lines_after_the_checkpoint_and_half_lines_go() {
        let mut state = State::new(fingerprint());
        state.step = 3;
        let train = "{\"kind\":\"train\",\"step\":3}\n";
        let validation = "{\"kind\":\"validation\",\"step\":3}\n";
        let lines = format!("{train}{validation}{{\"step\":4}}\n{{\"ste");
        assert_eq!(up_to(&lines, &state), format!("{train}{validation}"));
        assert_eq!(up_to("", &state), "");
        state.pending.validation = true;
        assert_eq!(up_to(&lines, &state), train);
        let task = "{\"kind\":\"task\",\"step\":3}\n";
        assert_eq!(up_to(task, &state), task);
        state.pending.tasks = true;
        assert_eq!(up_to(task, &state), "");
    }

    #[test]
    fn a_folder_of_a_run_is_known_by_its_recipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CONFIG);
        assert!(!is_ours(dir.path()));
        std::fs::write(&path, Recipe::default().to_toml()).unwrap();
        assert!(!is_ours(dir.path()));
        let origin = Origin { path: "a \"b\"\n[c]".into(), step: 5 };
        let text = config(&Recipe::default(), Some(&origin));
        std::fs::write(&path, &text).unwrap();
        assert!(is_ours(dir.path()));
        let none: [&str; 0] = [];
        assert_eq!(Recipe::parse(&text, &none).unwrap(), Recipe::default());
    }
}
