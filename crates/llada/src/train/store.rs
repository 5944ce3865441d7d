//! The run folder: its lock, and checkpoints that appear whole or not at all.

use std::{
    fs::{self, File, TryLockError},
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    TrainError,
    state::{FileMark, State},
};
use crate::{Result, checkpoint::files, io};

/// How a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// From the beginning, in a folder without checkpoints.
    Fresh,
    /// From the newest checkpoint.
    Resume,
    /// From the checkpoint of this step. Later ones are superseded, and go when the run writes
    /// its next.
    ResumeAt(u64),
}

/// A run folder, held by this process alone.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// The folders that were made for it, inner ones first.
    made: Vec<PathBuf>,
    _lock: File,
}

/// The end of the names of what is not finished.
const UNFINISHED: &str = ".tmp";
/// The end of the name of a checkpoint while another takes its place.
const REPLACED: &str = ".old.tmp";

impl Store {
    /// Makes or opens the folder, locks it, and removes what an interrupted run left unfinished.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let checkpoints = dir.join("checkpoints");
        let above = checkpoints.ancestors().filter(|dir| !dir.as_os_str().is_empty());
        let made = above.take_while(|dir| !dir.exists()).map(Path::to_path_buf).collect();
        files::create_dir(&checkpoints)?;
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::Locked { path: dir.to_path_buf() }.into());
            }
            Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
        }
        clean(dir)?;
        clean(&checkpoints)?;
        Ok(Self { dir: dir.to_path_buf(), made, _lock: lock })
    }

    /// The run folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The checkpoints, oldest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<_> = entries(&self.dir.join("checkpoints"))?
            .into_iter()
            .filter_map(|path| Some((step_of(&path)?, path)))
            .collect();
        found.sort();
        Ok(found)
    }

    /// The checkpoint to start from, every byte of it checked.
    pub(super) fn find(&self, start: Start) -> Result<Option<(State, PathBuf)>> {
        let all = self.checkpoints()?;
        let wanted = match start {
            Start::Fresh if all.is_empty() => return Ok(None),
            Start::Fresh => return Err(TrainError::Exists { path: self.dir.clone() }.into()),
            Start::Resume => None,
            Start::ResumeAt(step) => Some(step),
        };
        let at = match wanted {
            None => all.len().checked_sub(1),
            Some(step) => all.iter().position(|(s, _)| *s == step),
        };
        let Some(at) = at else {
            return Err(TrainError::NoCheckpoint { path: self.dir.clone(), step: wanted }.into());
        };
        let (step, path) = &all[at];
        let previous = at.checked_sub(1).map(|before| all[before].0);
        let state = State::read(&path.join("state.json"), previous)?;
        let damaged = |name: &str, reason: String| {
            let path = path.join(name);
            TrainError::Damaged { path, reason, previous }
        };
        if state.step != *step {
            return Err(damaged("state.json", format!("it is of step {}", state.step)).into());
        }
        for mark in &state.files {
            let found =
                FileMark::of(path, &mark.name).map_err(|e| damaged(&mark.name, e.to_string()))?;
            if found.bytes != mark.bytes {
                let reason = format!("{} bytes, it was written with {}", found.bytes, mark.bytes);
                return Err(damaged(&mark.name, reason).into());
            }
            if found != *mark {
                return Err(damaged(&mark.name, "its checksum differs".into()).into());
            }
        }
        Ok(Some((state, path.clone())))
    }

    /// Writes the checkpoint of `state.step`: `fill` writes its files into an empty folder, which
    /// takes its name when everything is on the disk. Then removes the checkpoints beyond the
    /// newest `keep` (0 keeps all) and those of later steps, which this one supersedes.
    pub(super) fn save(
        &self,
        state: &mut State,
        keep: usize,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let name = format!("step-{}", state.step);
        let target = self.dir.join("checkpoints").join(&name);
        let staging = target.with_file_name(format!("{name}{UNFINISHED}"));
        let result = write(&staging, state, fill).and_then(|()| {
            if target.exists() {
                let old = target.with_file_name(format!("{name}{REPLACED}"));
                fs::rename(&target, &old).map_err(io("replace", &target))?;
            }
            fs::rename(&staging, &target).map_err(io("create", &target))
        });
        if let Err(error) = result {
            // What was written so far only takes room from whoever frees the disk.
            let _ = remove(&staging);
            return Err(error);
        }
        sync_dir(target.parent().unwrap_or(&self.dir));
        self.prune(state.step, keep)?;
        Ok(target)
    }

    fn prune(&self, newest: u64, keep: usize) -> Result<()> {
        let mut kept = self.checkpoints()?;
        kept.retain(|(step, path)| *step <= newest || remove(path).is_err());
        let surplus = if keep == 0 { 0 } else { kept.len().saturating_sub(keep) };
        for (_, path) in &kept[..surplus] {
            remove(path)?;
        }
        clean(&self.dir.join("checkpoints"))
    }
}

impl Drop for Store {
    /// A run that wrote nothing leaves nothing: a start that fails must not look like a run.
    fn drop(&mut self) {
        let own = |path: &PathBuf| path.ends_with("checkpoints") || path.ends_with("lock");
        let is_unused = !self.made.is_empty()
            && entries(&self.dir).is_ok_and(|all| all.iter().all(own))
            && entries(&self.dir.join("checkpoints")).is_ok_and(|all| all.is_empty());
        if is_unused {
            let _ = fs::remove_file(self.dir.join("lock"));
            // Only an empty folder can be removed so.
            self.made.iter().for_each(|dir| drop(fs::remove_dir(dir)));
        }
    }
}

/// Removes what is unfinished, after putting back a checkpoint whose replacement never came.
fn clean(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(name) = name.strip_suffix(REPLACED)
            && !folder.join(name).exists()
        {
            fs::rename(&path, folder.join(name)).map_err(io("rename", &path))?;
        } else if name.ends_with(UNFINISHED) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn write(staging: &Path, state: &mut State, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if staging.exists() {
        remove(staging)?;
    }
    files::create_dir(staging)?;
    fill(staging)?;
    state.files.clear();
    for path in entries(staging)? {
        if let Some(name) = path.file_name().and_then(|n| n.to_str()) {
            state.files.push(FileMark::of(staging, name).map_err(io("read", &path))?);
        }
    }
    state.write(&staging.join("state.json"))?;
    sync_dir(staging);
    Ok(())
}

impl FileMark {
    fn of(dir: &Path, name: &str) -> std::io::Result<Self> {
        let mut file = File::open(dir.join(name))?;
        let mut buffer = vec![0; 1 << 20];
        let mut mark = Self { name: name.into(), bytes: 0, crc32c: 0 };
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(mark);
            }
            mark.bytes += n as u64;
            mark.crc32c = crc32c::crc32c_append(mark.crc32c, &buffer[..n]);
        }
    }
}

fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(io("read", dir))? {
        paths.push(entry.map_err(io("read", dir))?.path());
    }
    paths.sort();
    Ok(paths)
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(io("remove", path))
}

/// A rename lasts once its folder is on the disk; not every system can open a folder to say so.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, train::state::tests::fingerprint};

    fn save(store: &Store, step: u64, keep: usize) -> Result<PathBuf> {
        let mut state = State::new(fingerprint());
        state.step = step;
        let write = |dir: &Path| {
            files::replace_with(
                &dir.join("model.safetensors"),
                format!("weights {step}").as_bytes(),
            )
        };
        store.save(&mut state, keep, write)
    }

    fn steps(store: &Store) -> Vec<u64> {
        store.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn the_newest_are_kept_and_later_ones_superseded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for step in [5, 10, 15, 20] {
            save(&store, step, 3).unwrap();
        }
        assert_eq!(steps(&store), [10, 15, 20]);
        let (state, path) = store.find(Start::Resume).unwrap().unwrap();
        assert_eq!((state.step, path.ends_with("step-20")), (20, true));
        assert!(matches!(
            store.find(Start::Fresh).unwrap_err(),
            Error::Train(TrainError::Exists { .. })
        ));
        save(&store, 12, 0).unwrap();
        assert_eq!(steps(&store), [10, 12]);
        save(&store, 12, 0).unwrap();
        assert_eq!(steps(&store), [10, 12]);
        assert_eq!(entries(&dir.path().join("checkpoints")).unwrap().len(), 2);
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
            let error = store.find(Start::Resume).unwrap_err();
            assert!(error.to_string().contains("step-2/model.safetensors"), "{error}");
            assert!(error.hint().unwrap().contains("--resume step-1"));
        }
        fs::remove_file(&weights).unwrap();
        assert!(store.find(Start::Resume).is_err());
        assert_eq!(store.find(Start::ResumeAt(1)).unwrap().unwrap().0.step, 1);
        let error = store.find(Start::ResumeAt(7)).unwrap_err();
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
        let error = store.save(&mut state, 1, full).unwrap_err();
        assert!(error.hint().unwrap().contains("free some space"));
        assert_eq!(entries(&dir.path().join("checkpoints")).unwrap().len(), 1);
        assert_eq!(store.find(Start::Resume).unwrap().unwrap().0.step, 1);
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
        assert!(run.join("checkpoints/step-1").exists() && run.join("lock").exists());
    }

    #[test]
    fn one_process_at_a_time_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Train(TrainError::Locked { .. })), "{error}");
        drop(store);
        let half = dir.path().join("checkpoints/step-9.tmp");
        fs::create_dir_all(&half).unwrap();
        let replaced = dir.path().join("checkpoints/step-8.old.tmp");
        fs::create_dir(&replaced).unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(!half.exists() && !replaced.exists());
        assert_eq!(steps(&store), [8]);
        fs::remove_dir(dir.path().join("checkpoints/step-8")).unwrap();
        assert!(store.find(Start::Fresh).unwrap().is_none());
        assert!(store.find(Start::Resume).is_err());
    }
}
