//! The run folder: held by one process, with checkpoints that appear whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    TrainError, run_log,
    saved::{self, STATE, entries},
    state::{FileMark, State},
};
use crate::{
    Error, Result,
    files::{self, Existing, Output, OutputError, Staging},
    io,
    ranks::Collective,
};

/// How a run starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// From the beginning, in a folder without checkpoints.
    Fresh,
    /// From the newest checkpoint, with the settings of the run.
    Resume,
    /// From the checkpoint of this step. Later ones are set aside when the run goes on, and go when
    /// it writes its next.
    ResumeAt(u64),
    /// From a checkpoint of another run, in a folder without checkpoints, with other settings: that
    /// of this folder, or the newest of this run folder.
    Branch(PathBuf),
}

/// A checkpoint to start from.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Found {
    pub(super) state: State,
    pub(super) path: PathBuf,
    /// Later checkpoints of the same run, newest first.
    pub(super) later: Vec<PathBuf>,
}

/// Which checkpoints stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keep {
    /// So many of the newest; 0 keeps all.
    pub(super) last: usize,
    /// So many of those with the lowest validation loss.
    pub(super) best: usize,
}

/// A run folder, held by this process alone, or by the first of its ranks for all.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// The folders that were made for it, inner ones first.
    made: Vec<PathBuf>,
    _held: Option<Output>,
}

/// The beginning of the name of a checkpoint that another takes the place of.
const SUPERSEDED: &str = "superseded-";

impl Store {
    /// Makes or opens the folder, holds it, and removes what an interrupted run left unfinished.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let held = Output::lock(dir).map_err(|error| match error {
            Error::Output(OutputError::Busy { path, .. }) => TrainError::Locked { path }.into(),
            error => error,
        })?;
        let checkpoints = saved::folder(dir);
        let missing = [checkpoints.as_path(), dir].into_iter().filter(|dir| !dir.exists());
        let made = missing.map(Path::to_path_buf).collect();
        files::create_dir(&checkpoints)?;
        let store = Self { dir: dir.to_path_buf(), made, _held: Some(held) };
        for folder in [dir, checkpoints.as_path(), dir.join(run_log::SAMPLES).as_path()] {
            if folder.is_dir() {
                files::recover(folder)?;
            }
        }
        for path in store.superseded()? {
            // Killed after the checkpoint in its place was written.
            if path.with_file_name(original(&path)).exists() {
                remove(&path)?;
            }
        }
        Ok(store)
    }

    /// The folder that the first rank has opened.
    pub(super) fn of_first(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), made: Vec::new(), _held: None }
    }

    /// The run folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the checkpoint of a step is.
    pub(super) fn path(&self, step: u64) -> PathBuf {
        saved::folder(&self.dir).join(format!("step-{step}"))
    }

    /// The checkpoints, oldest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        saved::all(&self.dir)
    }

    /// The checkpoint to start from, every byte of it checked.
    pub(super) fn find(&self, start: &Start) -> Result<Option<Found>> {
        let mut all = self.checkpoints()?;
        let wanted = match start {
            Start::Resume => None,
            Start::ResumeAt(step) => Some(*step),
            Start::Fresh | Start::Branch(_) if !all.is_empty() => {
                return Err(TrainError::Exists { path: self.dir.clone() }.into());
            }
            Start::Fresh => return self.check_free().map(|()| None),
            Start::Branch(from) => {
                self.check_free()?;
                let path = saved::locate(from)?;
                let path = path.canonicalize().map_err(io("read", &path))?;
                let state = saved::read(&path, None)?;
                return Ok(Some(Found { state, path, later: Vec::new() }));
            }
        };
        let at = match wanted {
            None => all.len().checked_sub(1),
            Some(step) => all.iter().position(|(s, _)| *s == step),
        };
        let Some(at) = at else {
            return Err(TrainError::NoCheckpoint { path: self.dir.clone(), step: wanted }.into());
        };
        let later = all.split_off(at + 1).into_iter().rev().map(|(_, path)| path).collect();
        let previous = at.checked_sub(1).map(|before| all[before].0);
        let path = all.swap_remove(at).1;
        Ok(Some(Found { state: saved::read(&path, previous)?, path, later }))
    }

    /// Fails when the folder holds files that are not of a run and that a run would replace.
    fn check_free(&self) -> Result<()> {
        if run_log::is_ours(&self.dir) {
            return Ok(());
        }
        let paths = run_log::WRITTEN.map(|name| self.dir.join(name));
        match paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
            Some(path) => Err(TrainError::InTheWay { path }.into()),
            None => Ok(()),
        }
    }

    /// Sets checkpoints aside, in this order: the run goes on from an earlier one. With the newest
    /// first, those that remain after a kill belong together.
    pub(super) fn set_aside(&self, later: &[PathBuf]) -> Result<()> {
        for path in later {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let to = path.with_file_name(format!("{SUPERSEDED}{name}"));
            remove(&to)?;
            if to.exists() {
                // What the user put into one that was set aside before stays.
                remove(path)?;
                continue;
            }
            fs::rename(path, &to).map_err(io("rename", path))?;
        }
        Ok(())
    }

    /// Writes the checkpoint of `state.step`: on each rank `fill` writes its files into an empty folder,
    /// which takes its name when everything is on the disk. Then removes the checkpoints that `keep` does
    /// not want and those that were set aside.
    pub(super) fn save(
        &self,
        ranks: &dyn Collective,
        state: &mut State,
        keep: Keep,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let target = self.path(state.step);
        let mut staging = None;
        let dir = ranks.first(|| {
            if target.join(STATE).exists() {
                self.set_aside(std::slice::from_ref(&target))?;
            }
            let dir = staging.insert(Staging::new(&target)?).path();
            files::create_dir(&dir)?;
            Ok(dir)
        })?;
        ranks.agree(fill(&dir))?;
        state.files = marks(ranks, &dir)?;
        ranks.first(|| {
            state.write(&dir.join(STATE))?;
            if let Some(staging) = staging {
                // What the user put into an earlier one stays.
                staging.commit(Existing::Replace(&|_| false))?;
            }
            self.prune(keep)
        })?;
        Ok(target)
    }

    fn prune(&self, Keep { last, best }: Keep) -> Result<()> {
        let all = self.checkpoints()?;
        let surplus = if last == 0 { 0 } else { all.len().saturating_sub(last) };
        let mut kept = self.by_loss()?;
        kept.truncate(best);
        let surplus = all.into_iter().take(surplus).map(|(_, path)| path);
        let surplus = surplus.filter(|path| !kept.iter().any(|(_, best)| best == path));
        self.superseded()?.into_iter().chain(surplus).try_for_each(|path| remove(&path))
    }

    /// Whether `loss` is below those of all but `best` − 1 of the checkpoints that were validated.
    pub(super) fn is_among_best(&self, loss: f64, best: usize) -> Result<bool> {
        let better = self.by_loss()?.into_iter().filter(|(other, _)| *other <= loss);
        Ok(better.count() < best)
    }

    /// The checkpoints that were validated, the best first and the earlier of two that are alike.
    fn by_loss(&self) -> Result<Vec<(f64, PathBuf)>> {
        let states = self.checkpoints()?.into_iter().filter_map(|(_, path)| {
            let state = State::read(&path.join(STATE), None).ok()?;
            Some((state.validation()?, path))
        });
        let mut all: Vec<_> = states.collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(all)
    }

    /// What was set aside.
    fn superseded(&self) -> Result<Vec<PathBuf>> {
        let mut all = entries(&saved::folder(&self.dir))?;
        all.retain(|path| !original(path).is_empty());
        Ok(all)
    }
}

impl Drop for Store {
    /// A run that wrote nothing leaves nothing: a start that fails must not look like a run.
    fn drop(&mut self) {
        // Only an empty folder can be removed so.
        self.made.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

/// The marks of the files in `dir`, which ranks read in turn.
fn marks(ranks: &dyn Collective, dir: &Path) -> Result<Vec<FileMark>> {
    let names: Vec<String> = ranks.first(|| {
        let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        Ok(entries(dir)?.into_iter().filter_map(name).collect())
    })?;
    let (rank, world) = (ranks.rank(), ranks.world());
    let own = names.iter().skip(rank).step_by(world).map(|name| FileMark::of(dir, name));
    let mut marks = ranks.gather_all(&ranks.agree(own.collect::<Result<Vec<_>>>())?)?.concat();
    marks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(marks)
}

/// The name that a checkpoint had before it was set aside, empty if it was not.
fn original(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix(SUPERSEDED)).unwrap_or_default()
}

/// Removes a checkpoint, the files that its state lists; what has its name and is none stays, and so
/// does what was put into it. It loses its name or its state first, so that a kill does not leave half
/// of one.
fn remove(path: &Path) -> Result<()> {
    let step = saved::step_of(path).or_else(|| saved::step_of(Path::new(original(path))));
    let state = State::read(&path.join(STATE), None).ok();
    let Some(state) = state.filter(|state| Some(state.step) == step) else { return Ok(()) };
    let own: Vec<&str> =
        [STATE].into_iter().chain(state.files.iter().map(|mark| mark.name.as_str())).collect();
    let is_own = |entry: &PathBuf| own.iter().any(|name| entry.ends_with(name));
    let removed = Staging::new(path)?;
    if entries(path)?.iter().all(is_own) {
        return fs::rename(path, removed.path()).map_err(io("remove", path));
    }
    files::create_dir(&removed.path())?;
    for name in own {
        let file = path.join(name);
        if file.exists() {
            fs::rename(&file, removed.path().join(name)).map_err(io("remove", &file))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
