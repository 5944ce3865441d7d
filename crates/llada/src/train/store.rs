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
    /// which takes its name when everything is on the disk. Then removes the checkpoints beyond the
    /// `keep_last` newest (0 keeps all) and those that were set aside.
    pub(super) fn save(
        &self,
        ranks: &dyn Collective,
        state: &mut State,
        keep_last: usize,
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
            self.prune(keep_last)
        })?;
        Ok(target)
    }

    fn prune(&self, keep_last: usize) -> Result<()> {
        let all = self.checkpoints()?;
        let surplus = if keep_last == 0 { 0 } else { all.len().saturating_sub(keep_last) };
        let surplus = all.into_iter().take(surplus).map(|(_, path)| path);
        self.superseded()?.into_iter().chain(surplus).try_for_each(|path| remove(&path))
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
mod tests {
    use super::*;
    use crate::{ranks::Alone, train::state::tests::fingerprint};

    fn save(store: &Store, step: u64, keep_last: usize) -> Result<PathBuf> {
        let mut state = State::new(fingerprint());
        state.step = step;
        let write = |dir: &Path| {
            files::replace_with(
                &dir.join("model.safetensors"),
                format!("weights {step}").as_bytes(),
            )
        };
        store.save(&Alone, &mut state, keep_last, write)
    }

    fn steps(store: &Store) -> Vec<u64> {
        store.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn the_newest_are_kept_and_later_ones_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for step in [5, 10, 15, 20] {
            save(&store, step, 3).unwrap();
        }
        assert_eq!(steps(&store), [10, 15, 20]);
        let found = store.find(&Start::Resume).unwrap().unwrap();
        assert_eq!((found.state.step, found.path.ends_with("step-20")), (20, true));
        assert!(matches!(
            store.find(&Start::Fresh).unwrap_err(),
            Error::Train(TrainError::Exists { .. })
        ));
        let names = || {
            let paths = entries(&dir.path().join("checkpoints")).unwrap();
            let name = |p: PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
            paths.into_iter().map(name).collect::<Vec<_>>()
        };
        // Looking changes nothing; going on from step 10 sets the later ones aside.
        let found = store.find(&Start::ResumeAt(10)).unwrap().unwrap();
        assert!(found.later[0].ends_with("step-20") && found.later[1].ends_with("step-15"));
        assert_eq!(steps(&store), [10, 15, 20]);
        store.set_aside(&found.later).unwrap();
        assert_eq!(names(), ["step-10", "superseded-step-15", "superseded-step-20"]);
        assert_eq!(store.find(&Start::Resume).unwrap().unwrap().state.step, 10);
        save(&store, 12, 0).unwrap();
        assert_eq!(names(), ["step-10", "step-12"]);
        save(&store, 12, 0).unwrap();
        assert_eq!(names(), ["step-10", "step-12"]);
    }

    #[test]
    fn a_kill_while_checkpoints_are_set_aside_or_removed_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for step in [1, 2, 3] {
            save(&store, step, 0).unwrap();
        }
        // Half of the later ones are aside.
        let found = store.find(&Start::ResumeAt(1)).unwrap().unwrap();
        store.set_aside(&found.later[..1]).unwrap();
        assert_eq!(store.find(&Start::Resume).unwrap().unwrap().state.step, 2);
        // One that is aside is half removed.
        let aside = dir.path().join("checkpoints/superseded-step-3");
        let removed = Staging::new(&aside).unwrap();
        fs::rename(&aside, removed.path()).unwrap();
        fs::remove_file(removed.path().join("model.safetensors")).unwrap();
        std::mem::forget(removed);
        assert_eq!(store.find(&Start::Resume).unwrap().unwrap().state.step, 2);
        save(&store, 3, 0).unwrap();
        assert_eq!(steps(&store), [1, 2, 3]);
        // A newer one is in its place already.
        save(&store, 4, 0).unwrap();
        store.set_aside(&[dir.path().join("checkpoints/step-4")]).unwrap();
        fs::rename(dir.path().join("checkpoints/step-3"), dir.path().join("checkpoints/step-4"))
            .unwrap();
        drop(store);
        assert_eq!(steps(&Store::open(dir.path()).unwrap()), [1, 2, 4]);
        assert!(!dir.path().join("checkpoints/superseded-step-4").exists());
    }

    #[test]
    fn what_is_not_of_the_run_stays() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join("checkpoints");
        let mine = ["notes.tmp", "lock", "checkpoints/step-3.tmp", "checkpoints/a.old.tmp"];
        let mine = mine.map(|name| dir.path().join(name));
        let folders = ["step-1", "superseded-step-1", "step-7.tmp"];
        let folders = folders.map(|name| checkpoints.join(name));
        folders.iter().for_each(|path| fs::create_dir_all(path.join("mine")).unwrap());
        mine.iter().for_each(|path| fs::write(path, "mine").unwrap());
        let store = Store::open(dir.path()).unwrap();
        for step in [2, 3, 4] {
            save(&store, step, 1).unwrap();
        }
        drop(store);
        assert!(mine.iter().all(|path| fs::read(path).unwrap() == b"mine"));
        assert!(folders.iter().all(|path| path.join("mine").is_dir()));
        assert!(checkpoints.join("step-4").is_dir() && !checkpoints.join("step-3").exists());
    }

    #[test]
    fn what_was_put_into_a_checkpoint_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join("checkpoints");
        let store = Store::open(dir.path()).unwrap();
        for step in [1, 2, 3, 4] {
            save(&store, step, 0).unwrap();
            fs::write(checkpoints.join(format!("step-{step}/notes.md")), "mine").unwrap();
        }
        // A copy under another number is the user's.
        fs::create_dir(checkpoints.join("step-5")).unwrap();
        for name in [STATE, "model.safetensors"] {
            fs::copy(checkpoints.join("step-4").join(name), checkpoints.join("step-5").join(name))
                .unwrap();
        }
        let found = store.find(&Start::ResumeAt(2)).unwrap().unwrap();
        store.set_aside(&found.later[1..]).unwrap();
        save(&store, 3, 1).unwrap();
        save(&store, 6, 1).unwrap();
        let notes =
            |name: &str| fs::read(checkpoints.join(name).join("notes.md")).unwrap() == b"mine";
        for name in ["step-1", "step-2", "superseded-step-3", "superseded-step-4"] {
            assert!(notes(name) && entries(&checkpoints.join(name)).unwrap().len() == 1, "{name}");
        }
        assert!(checkpoints.join("step-5/model.safetensors").exists());
        assert_eq!(steps(&store).last(), Some(&6));
        // The step is come to again where only the user's file is left.
        save(&store, 1, 0).unwrap();
        assert!(notes("step-1") && checkpoints.join("step-1").join(STATE).exists());
    }

    #[test]
    fn files_that_a_run_would_replace_are_in_the_way() {
        for name in run_log::WRITTEN {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(name), "mine").unwrap();
            let store = Store::open(dir.path()).unwrap();
            let error = store.find(&Start::Fresh).unwrap_err();
            let Error::Train(TrainError::InTheWay { path }) = &error else { panic!("{error}") };
            assert!(path.ends_with(name));
            drop(store);
            assert_eq!(entries(dir.path()).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_the_one_before_still_loads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        save(&store, 1, 0).unwrap();
        let newest = save(&store, 2, 0).unwrap();
        let weights = newest.join("model.safetensors");
        for bad in [&b"weights X"[..], b"weigh"] {
            fs::write(&weights, bad).unwrap();
            let error = store.find(&Start::Resume).unwrap_err();
            assert!(error.to_string().contains("step-2/model.safetensors"), "{error}");
            assert!(error.hint().unwrap().contains("--resume step-1"));
        }
        fs::remove_file(&weights).unwrap();
        assert!(store.find(&Start::Resume).is_err());
        assert_eq!(store.find(&Start::ResumeAt(1)).unwrap().unwrap().state.step, 1);
        let error = store.find(&Start::ResumeAt(7)).unwrap_err();
        assert!(error.to_string().contains("of step 7"), "{error}");
    }

    #[test]
    fn a_failed_save_leaves_the_previous_checkpoint_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        save(&store, 1, 0).unwrap();
        let mut state = State::new(fingerprint());
        state.step = 2;
        let full = |dir: &Path| {
            fs::write(dir.join("model.safetensors"), "half").unwrap();
            Err(io("write", dir.join("model.safetensors"))(std::io::ErrorKind::StorageFull.into()))
        };
        let error = store.save(&Alone, &mut state, 1, full).unwrap_err();
        assert!(error.hint().unwrap().contains("free some space"));
        assert_eq!(entries(&dir.path().join("checkpoints")).unwrap().len(), 1);
        assert_eq!(store.find(&Start::Resume).unwrap().unwrap().state.step, 1);
    }

    #[test]
    fn a_run_that_wrote_nothing_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/new");
        drop(Store::open(&run).unwrap());
        assert!(entries(dir.path()).unwrap().is_empty());
        let store = Store::open(&run).unwrap();
        save(&store, 1, 0).unwrap();
        drop(store);
        drop(Store::open(&run).unwrap());
        assert!(run.join("checkpoints/step-1").exists());
        assert_eq!(entries(run.parent().unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn one_process_at_a_time_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let store = Store::open(&run).unwrap();
        let error = Store::open(&run).unwrap_err();
        assert!(matches!(error, Error::Train(TrainError::Locked { .. })), "{error}");
        save(&store, 8, 0).unwrap();
        // As a kill leaves it: nothing is tidied up, and nobody holds it any more.
        let checkpoints = run.join("checkpoints");
        let staging = Staging::new(&checkpoints.join("step-9")).unwrap();
        files::create_dir(&staging.path()).unwrap();
        assert_eq!(entries(&checkpoints).unwrap().len(), 2);
        drop(store);
        drop(Store::open(&run).unwrap());
        assert_eq!(entries(&checkpoints).unwrap().len(), 2, "a living process writes there");
        drop(staging);
        let store = Store::open(&run).unwrap();
        assert_eq!(steps(&store), [8]);
        assert_eq!(entries(&checkpoints).unwrap().len(), 1);
    }
}
