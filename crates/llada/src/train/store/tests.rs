use super::*;
use crate::{ranks::Alone, train::state::tests::fingerprint};

fn save(store: &Store, step: u64, last: usize) -> Result<PathBuf> {
    save_validated(store, step, None, Keep { last, best: 0 })
}

fn save_validated(store: &Store, step: u64, loss: Option<f64>, keep: Keep) -> Result<PathBuf> {
    let mut state = State::new(fingerprint());
    state.step = step;
    state.set_validation(loss);
    let write = |dir: &Path| {
        files::replace_with(&dir.join("model.safetensors"), format!("weights {step}").as_bytes())
    };
    store.save(&Alone, &mut state, keep, write)
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
fn the_best_stay_beside_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let keep = Keep { last: 1, best: 2 };
    let losses = [(1, Some(3.0)), (2, Some(2.0)), (3, None), (4, Some(f64::NAN)), (5, Some(2.0))];
    for (step, loss) in losses {
        save_validated(&store, step, loss, keep).unwrap();
    }
    assert_eq!(steps(&store), [2, 5]);
    assert!(store.is_among_best(1.9, 1).unwrap() && !store.is_among_best(2.0, 2).unwrap());
    save_validated(&store, 6, Some(1.0), keep).unwrap();
    save_validated(&store, 7, Some(9.0), keep).unwrap();
    assert_eq!(steps(&store), [2, 6, 7]);
    save_validated(&store, 8, None, Keep { best: 0, ..keep }).unwrap();
    assert_eq!(steps(&store), [8]);
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
    let notes = |name: &str| fs::read(checkpoints.join(name).join("notes.md")).unwrap() == b"mine";
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
    let error = store.save(&Alone, &mut state, Keep { last: 1, best: 0 }, full).unwrap_err();
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
