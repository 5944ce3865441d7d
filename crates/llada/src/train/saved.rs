//! The checkpoints of a run as they lie on the disk: found, and every byte of them checked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    TrainError,
    state::{FileMark, State},
};
use crate::{
    Result,
    files::{self, Marks},
    io,
};

/// What a checkpoint holds besides weights and optimiser; no other folder of a run has it.
pub(crate) const STATE: &str = "state.json";

/// Files that every checkpoint has: a folder with none of them is none, whatever its name.
const WRITTEN: [&str; 3] = [STATE, "optimizer.safetensors", "config.json"];

/// The file with a rank's share of the optimiser; of one rank alone, all of it.
pub(super) fn optimizer(rank: usize, world: usize) -> String {
    match world {
        1 => "optimizer.safetensors".into(),
        _ => format!("optimizer-{:05}-of-{world:05}.safetensors", rank + 1),
    }
}

/// The files with the optimiser in the checkpoint at `path`, whose state is `state`.
pub(super) fn optimizers(path: &Path, state: &State) -> Vec<PathBuf> {
    let names = state.files.iter().map(|mark| mark.name.as_str());
    let is_share = |name: &&str| name.starts_with("optimizer-") && name.ends_with(".safetensors");
    let shares: Vec<PathBuf> = names.filter(is_share).map(|name| path.join(name)).collect();
    if shares.is_empty() { vec![path.join(optimizer(0, 1))] } else { shares }
}

/// The folder of the checkpoints of a run.
pub(super) fn folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

/// The run folder of a checkpoint, where it lies in one.
pub(super) fn run_of(checkpoint: &Path) -> Option<&Path> {
    let run = checkpoint.parent()?.parent()?;
    (folder(run).as_path() == checkpoint.parent()?).then_some(run)
}

/// The checkpoints of a run, oldest first.
pub(super) fn all(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found: Vec<_> = entries(&folder(run))?
        .into_iter()
        .filter_map(|path| Some((step_of(&path)?, path)))
        .filter(|(_, path)| WRITTEN.iter().any(|name| path.join(name).exists()))
        .collect();
    found.sort();
    Ok(found)
}

/// The folders of the checkpoints of a run, oldest first; none where there is no run.
pub(crate) fn checkpoints(run: &Path) -> Result<Vec<PathBuf>> {
    Ok(all(run)?.into_iter().map(|(_, path)| path).collect())
}

/// The checksums that a state, at `path`, has of the other files of its checkpoint; or what is
/// wrong with it.
pub(crate) fn marks(path: &Path) -> std::result::Result<Marks, String> {
    let state = State::read(path, None).map_err(|e| e.to_string())?;
    Ok(state.files.into_iter().map(|mark| (mark.name, mark.crc32c)).collect())
}

/// The checkpoint that `path` stands for: itself, the newest of a run folder, or `RUN/step-N`.
pub(super) fn locate(path: &Path) -> Result<PathBuf> {
    let none = |step| TrainError::NoCheckpoint { path: path.to_path_buf(), step }.into();
    if path.join(STATE).is_file() {
        return Ok(path.to_path_buf());
    }
    if folder(path).is_dir() {
        return all(path)?.pop().map(|(_, path)| path).ok_or_else(|| none(None));
    }
    let (step, run) = (step_of(path), path.parent().unwrap_or(Path::new("")));
    let named = step.map(|step| folder(run).join(format!("step-{step}")));
    named.filter(|path| path.is_dir()).ok_or_else(|| none(step))
}

/// Reads the state of a checkpoint, and checks all its files. Errors name the step `previous` as
/// the one to go back to.
pub(super) fn read(path: &Path, previous: Option<u64>) -> Result<State> {
    let state = State::read(&path.join(STATE), previous)?;
    let damaged = |name: &str, reason: String| {
        TrainError::Damaged { path: path.join(name), reason, previous }.into()
    };
    if step_of(path).is_some_and(|step| step != state.step) {
        return Err(damaged(STATE, format!("it is of step {}", state.step)));
    }
    for mark in &state.files {
        mark.check(path).map_err(|reason| damaged(&mark.name, reason))?;
    }
    Ok(state)
}

/// The number in the name of a checkpoint.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// What is in a folder, in the order of the names; nothing where there is none.
pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("read", dir))? {
        paths.push(entry.map_err(io("read", dir))?.path());
    }
    paths.sort();
    Ok(paths)
}

impl FileMark {
    /// That of the file `name` in `dir`.
    pub(super) fn of(dir: &Path, name: &str) -> Result<Self> {
        let (bytes, crc32c) = files::sum(&dir.join(name))?;
        Ok(Self { name: name.into(), bytes, crc32c })
    }

    /// Says how the file in `dir` differs from what was written.
    pub(super) fn check(&self, dir: &Path) -> std::result::Result<(), String> {
        let found = Self::of(dir, &self.name).map_err(|e| e.to_string())?;
        if found.bytes != self.bytes {
            return Err(format!("{} bytes, it was written with {}", found.bytes, self.bytes));
        }
        if found.crc32c != self.crc32c { Err("its checksum differs".into()) } else { Ok(()) }
    }
}
