//! The examples in front of a prompt.

use std::{collections::BTreeMap, path::Path};

use minijinja::Value;

use super::{
    EvalError,
    dataset::{self, DataFile, with_source},
    mersenne::Random,
    request::Renderer,
    task::{Data, Fewshot, FewshotSampler},
    template::{evaluate, render},
};
use crate::{Result, files::read_text};

/// Largest file of ready examples.
const MAX_TEXT: u64 = 1 << 24;

/// The harness's `--seed` of examples.
const SEED: u32 = 1234;

/// What stands before the prompts of a task; files are read and rendered once.
pub(super) struct Prefixes<'a> {
    renderer: Renderer<'a>,
    base: &'a Path,
    pub(super) shots: usize,
    known: BTreeMap<Option<String>, Prefix>,
}

/// What stands before the prompts of a group.
struct Prefix {
    description: String,
    shots: Vec<String>,
    /// Draws the examples of each prompt; without it they are the first.
    random: Option<Random>,
}

impl<'a> Prefixes<'a> {
    /// Nothing is read yet.
    pub(super) fn new(renderer: Renderer<'a>, base: &'a Path, shots: usize) -> Self {
        Self { renderer, base, shots, known: BTreeMap::new() }
    }

    /// What stands before the next prompt of `group`.
    pub(super) fn of(&mut self, group: Option<&str>) -> Result<String> {
        let key = group.map(str::to_owned);
        let mut prefix = match self.known.remove(&key) {
            Some(prefix) => prefix,
            None => self.read(group)?,
        };
        let chosen = match &mut prefix.random {
            Some(random) if self.shots > 0 => random.sample(prefix.shots.len(), self.shots),
            _ => (0..self.shots).collect(),
        };
        let mut text = prefix.description.clone();
        let separator = self.renderer.task.fewshot.as_ref().map_or("", |f| &f.separator);
        for shot in chosen {
            text.push_str(&prefix.shots[shot]);
            text.push_str(separator);
        }
        self.known.insert(key, prefix);
        Ok(text)
    }

    fn read(&self, group: Option<&str>) -> Result<Prefix> {
        let task = self.renderer.task;
        let invalid = |what| EvalError::Task { task: task.name.clone(), what };
        let fields = Value::from_pairs([("group", group.unwrap_or_default())]);
        let environment = self.renderer.environment;
        let description = render(environment, &task.description, &fields).map_err(invalid)?;
        let mut prefix = Prefix { description, shots: Vec::new(), random: None };
        let Some(fewshot) = &task.fewshot else {
            return match self.shots {
                0 => Ok(prefix),
                wanted => Err(self.too_few(group, 0, wanted).into()),
            };
        };
        if fewshot.sampler == FewshotSampler::Random {
            prefix.random = Some(Random::new(SEED));
        }
        // A text of examples begins with the description, which is wanted without examples too.
        if !fewshot.text.is_empty() {
            let (description, shots) = self.ready(fewshot, group)?;
            prefix.description.push_str(&description);
            prefix.shots = shots;
        } else if self.shots > 0 {
            prefix.shots = self.rendered(fewshot, group)?;
        }
        if prefix.shots.len() < self.shots {
            return Err(self.too_few(group, prefix.shots.len(), self.shots).into());
        }
        Ok(prefix)
    }

    fn too_few(&self, group: Option<&str>, found: usize, wanted: usize) -> EvalError {
        let task = match group {
            Some(group) => format!("{}, {group}", self.renderer.task.name),
            None => self.renderer.task.name.clone(),
        };
        EvalError::Shots { task, found, wanted }
    }

    /// The rows that can be examples, rendered: the first that are wanted, or all to draw from.
    fn rendered(&self, fewshot: &Fewshot, group: Option<&str>) -> Result<Vec<String>> {
        let Renderer { task, environment } = self.renderer;
        let path = dataset::find_one(self.base, &task.name, &fewshot.files, group)
            .map_err(|error| with_source(error, &task.source))?;
        let data = Data { begin: None, ..task.data.clone() };
        let file = DataFile { path, group: group.map(str::to_owned) };
        let mut shots = Vec::new();
        for (index, row) in dataset::read(&file, &data)?.into_iter().enumerate() {
            if fewshot.sampler == FewshotSampler::First && shots.len() == self.shots {
                break;
            }
            let shot = row.map_err(|bad| (bad.place, bad.reason)).and_then(|row| {
                let fields = row.values(index);
                let wanted = match &fewshot.condition {
                    Some(condition) => {
                        evaluate(environment, condition, &fields).map(|v| v.is_true())
                    }
                    None => Ok(true),
                };
                let shot = wanted.and_then(|wanted| {
                    wanted.then(|| self.renderer.shot(fewshot, &fields)).transpose()
                });
                shot.map_err(|reason| (row.place, reason))
            });
            // An example that is wrong would be part of every prompt.
            let shot = shot.map_err(|(place, reason)| EvalError::Task {
                task: task.name.clone(),
                what: format!("its example at {place} cannot be used: {reason}"),
            })?;
            shots.extend(shot);
        }
        Ok(shots)
    }

    /// The description and the examples of a text.
    fn ready(&self, fewshot: &Fewshot, group: Option<&str>) -> Result<(String, Vec<String>)> {
        let task = self.renderer.task;
        let path = dataset::find_one(self.base, &task.name, &fewshot.text, group)
            .map_err(|error| with_source(error, &task.source))?;
        let text = read_text(&path, MAX_TEXT)?;
        let text = match &fewshot.after {
            Some(after) => text.split_once(after.as_str()).map_or(text.as_str(), |(_, rest)| rest),
            None => &text,
        };
        let begin = fewshot.begin.as_deref().unwrap_or_default();
        let marker = format!("{}{begin}", fewshot.separator);
        let mut parts = text.split(marker.as_str());
        let first = parts.next().unwrap_or_default().trim_end_matches('\n');
        let mut shots: Vec<String> =
            parts.map(|part| format!("{begin}{}", part.trim_end_matches('\n'))).collect();
        if first.starts_with(begin) {
            shots.insert(0, first.to_owned());
            return Ok((String::new(), shots));
        }
        Ok((format!("{first}{}", fewshot.separator), shots))
    }
}
