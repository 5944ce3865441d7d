//! What outputs may and may not touch.

use std::path::PathBuf;

use super::*;

/// What other programs and users have beside an output called `x`.
const BYSTANDERS: [&str; 16] = [
    "x.tmp",
    "x.old",
    "x.lock",
    "x.bak",
    "x.part",
    "x~",
    ".x.tmp",
    ".x.swp",
    "lock",
    ".x.llada-backup.tmp",
    ".x.llada-2026.tar.tmp",
    ".y.llada-AbCd1234.tmp",
    // These have the very names that unfinished work has.
    ".x.llada-AbCd1234.tmp",
    ".x.llada-EfGh5678.tmp",
    ".x.llada.lock.bak",
    ".y.llada-EfGh5678.tmp",
];

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder with all the bystanders, each a file, a folder with a file, or a link.
fn crowded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in BYSTANDERS.iter().enumerate() {
        let path = dir.path().join(name);
        if i % 2 == 0 {
            fs::write(path, name).unwrap();
        } else {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("a"), name).unwrap();
        }
    }
    dir
}

fn check_bystanders(dir: &Path, with: &[&str]) {
    let mut expected: Vec<String> = BYSTANDERS.iter().chain(with).map(|n| (*n).into()).collect();
    expected.sort();
    assert_eq!(names(dir), expected);
    for (i, name) in BYSTANDERS.iter().enumerate() {
        let path = dir.join(name);
        let content = if i % 2 == 0 { path } else { path.join("a") };
        assert_eq!(fs::read_to_string(content).unwrap(), *name);
    }
}

fn full(path: &Path) -> Error {
    io("write", path)(io::ErrorKind::StorageFull.into())
}

#[test]
fn a_failed_write_keeps_the_previous_file_and_leaves_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    replace_with(&path, b"before").unwrap();
    let error = replace(&path, |out| {
        out.write_all(&[0; 1 << 21]).unwrap();
        Err(full(&path))
    })
    .unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert!(error.hint().unwrap().contains("free some space"));
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(names(dir.path()), ["config.json"]);
}

#[test]
fn neighbours_are_untouched_by_files_and_folders() {
    let dir = crowded();
    let path = dir.path().join("x");
    for round in ["1", "2"] {
        replace_with(&path, round.as_bytes()).unwrap();
        check_bystanders(dir.path(), &["x"]);
        let output = Output::lock(&path).unwrap();
        output.fill(Existing::Replace(&|_| true), |x| replace_with(x, b"filled")).unwrap();
        drop(output);
        assert_eq!(fs::read(&path).unwrap(), b"filled");
        check_bystanders(dir.path(), &["x"]);
    }
    fs::remove_file(&path).unwrap();
    for round in ["1", "2"] {
        let output = Output::lock(&path).unwrap();
        let fill = |x: &Path| {
            create_dir(x)?;
            replace_with(&x.join("a"), round.as_bytes())
        };
        output.fill(Existing::Replace(&|_| true), fill).unwrap();
        let failed = output.fill(Existing::Replace(&|_| true), |x| {
            fill(x)?;
            Err::<(), _>(full(&x.join("a")))
        });
        let Error::Io { path: named, .. } = failed.unwrap_err() else { panic!() };
        assert_eq!(named, path.join("a"));
        drop(output);
        assert_eq!(fs::read(path.join("a")).unwrap(), round.as_bytes());
        check_bystanders(dir.path(), &["x"]);
    }
}

#[test]
fn an_output_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/folder/x");
    let output = Output::lock(&path).unwrap();
    let error = Output::lock(&dir.path().join("new/./folder/../folder/x")).unwrap_err();
    let Error::Output(OutputError::Busy { by, .. }) = &error else { panic!("{error}") };
    if cfg!(unix) {
        assert_eq!(*by, Some(std::process::id()));
    }
    assert!(error.to_string().contains("written by another process"), "{error}");
    assert!(Output::lock(&path.with_file_name("y")).is_ok());
    drop(output);
    // Nothing was written, and so nothing is left.
    assert!(names(dir.path()).is_empty());
    Output::lock(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_lock_is_the_same_by_every_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    std::os::unix::fs::symlink("x", dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("none", dir.path().join("dangling")).unwrap();
    let held = [Output::lock(&dir.path().join("link")), Output::lock(&dir.path().join("dangling"))];
    for name in ["x", "none"] {
        let error = Output::lock(&dir.path().join(name)).unwrap_err();
        assert!(matches!(error, Error::Output(OutputError::Busy { .. })), "{error}");
    }
    drop(held);
    assert_eq!(names(dir.path()), ["dangling", "link", "x"]);
}

#[cfg(unix)]
#[test]
fn what_has_the_name_of_a_lock_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, lock) = (dir.path().join("x"), dir.path().join(".x.llada.lock"));
    let precious = dir.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let check = |what: &str| {
        let error = Output::lock(&path).unwrap_err();
        assert!(matches!(error, Error::Output(OutputError::NoLock { .. })), "{what}: {error}");
        assert!(fs::symlink_metadata(&lock).is_ok(), "{what}");
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{what}");
    };
    for target in ["precious", "none"] {
        std::os::unix::fs::symlink(target, &lock).unwrap();
        check("a link");
        fs::remove_file(&lock).unwrap();
    }
    fs::hard_link(&precious, &lock).unwrap();
    check("a file");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    check("a folder");
    fs::remove_dir(&lock).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RWXU).unwrap();
    check("a pipe");
    fs::remove_file(&lock).unwrap();
    // What a killed run left is a lock that nobody holds.
    for left in ["llada lock of process 1\n", "llada lock of", ""] {
        fs::write(&lock, left).unwrap();
        Output::lock(&path).unwrap();
        assert!(!lock.exists());
    }
}

#[test]
fn only_what_a_killed_run_left_is_removed() {
    let dir = crowded();
    let path = dir.path().join("x");
    fs::write(&path, "x").unwrap();
    // A living writer's, which is held; then the same after a kill.
    let staging = Staging::new(&path).unwrap();
    let replacement = Replacement::create(&path).unwrap();
    let living = names(dir.path());
    drop(Output::lock(&path).unwrap());
    assert_eq!(names(dir.path()), living);
    assert_eq!(living.len(), BYSTANDERS.len() + 3, "{living:?}");
    // The same as a kill leaves it: nobody holds it, the mark is cut short, or not even there.
    let killed = |random: &str| {
        let folder = dir.path().join(format!(".x.llada-{random}.tmp"));
        fs::create_dir(&folder).unwrap();
        folder
    };
    let left: Vec<PathBuf> = ["Killed00", "Killed01", "Killed02"].map(killed).into();
    for folder in &left[..2] {
        drop(leftovers::mark(folder).unwrap());
        fs::write(folder.join("x"), "half").unwrap();
    }
    fs::write(left[1].join(".llada-staging"), "unfin").unwrap();
    drop(Output::lock(&path).unwrap());
    assert!(left.iter().all(|folder| !folder.exists()), "{:?}", names(dir.path()));
    assert_eq!(names(dir.path()), living);
    drop((staging, replacement));
    check_bystanders(dir.path(), &["x"]);
}

#[test]
fn what_is_replaced_keeps_files_with_names_like_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::create_dir(&path).unwrap();
    let mine = [".a.bin.llada-AbCd1234.tmp", ".a.bin.llada.lock", "a.bin.tmp"];
    mine.iter().for_each(|name| fs::write(path.join(name), "mine").unwrap());
    assert!(is_occupied(&path));
    let output = Output::lock(&path).unwrap();
    let fill = |x: &Path| {
        create_dir(x)?;
        replace_with(&x.join("a.bin"), b"new")
    };
    assert!(output.fill(Existing::Refuse, fill).is_err());
    output.fill(Existing::Replace(&|name| name.ends_with(".bin")), fill).unwrap();
    recover(&path).unwrap();
    assert!(mine.iter().all(|name| fs::read(path.join(name)).unwrap() == b"mine"));
    assert_eq!(names(&path).len(), mine.len() + 1);
}

#[test]
fn a_folder_is_replaced_around_what_the_user_has_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::create_dir_all(path.join(".git/objects")).unwrap();
    for (name, text) in
        [("a.bin", "old"), ("b.bin", "old"), ("notes", "n"), (".git/objects/o", "o")]
    {
        fs::write(path.join(name), text).unwrap();
    }
    let output = Output::lock(&path).unwrap();
    let fill = |x: &Path| {
        create_dir(x)?;
        replace_with(&x.join("a.bin"), b"new")
    };
    let error = output.fill(Existing::Refuse, fill).unwrap_err();
    assert!(matches!(error, Error::Output(OutputError::Exists { .. })), "{error}");
    assert_eq!(fs::read(path.join("a.bin")).unwrap(), b"old");
    output.fill(Existing::Replace(&|name| name.ends_with(".bin")), fill).unwrap();
    drop(output);
    assert_eq!(names(&path), [".git", "a.bin", "notes"]);
    assert_eq!(fs::read(path.join("a.bin")).unwrap(), b"new");
    assert_eq!(fs::read(path.join(".git/objects/o")).unwrap(), b"o");
    assert_eq!(names(dir.path()), ["x"]);
    assert!(is_occupied(&path) && !is_occupied(&dir.path().join("y")));
    // A file is not replaced by a folder, nor a folder by a file.
    fs::write(dir.path().join("y"), "y").unwrap();
    let output = Output::lock(&dir.path().join("y")).unwrap();
    assert!(output.fill(Existing::Replace(&|_| true), fill).is_err());
    let output = Output::lock(&path).unwrap();
    assert!(output.fill(Existing::Replace(&|_| true), |x| replace_with(x, b"")).is_err());
    assert_eq!(fs::read(dir.path().join("y")).unwrap(), b"y");
    assert!(replace_with(&path, b"").is_err());
}

#[test]
fn a_folder_with_an_output_that_is_being_written_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (exp, run) = (dir.path().join("exp"), dir.path().join("exp/a/run"));
    let fill = |output: &Output| {
        output.fill(Existing::Replace(&|_| true), |path| {
            create_dir(path)?;
            super::write(&path.join("new"), b"new")
        })
    };
    let running = Output::lock(&run).unwrap();
    create_dir(&run).unwrap();
    let output = Output::lock(&exp).unwrap();
    let error = fill(&output).unwrap_err();
    let named = format!("`{}` is being written by another process", run.display());
    assert!(error.to_string().starts_with(&named), "{error}");
    assert_eq!(names(&exp), ["a"]);
    assert!(dir.path().join("exp/a/.run.llada.lock").is_file(), "its lock is where it was");
    // One that begins while the folder is being made is not lost either.
    drop(running);
    let late = std::cell::Cell::new(None);
    let error = output.fill(Existing::Replace(&|_| true), |path| {
        late.set(Some(Output::lock(&run)?));
        create_dir(path)
    });
    assert!(error.is_err());
    drop(late);
    fill(&output).unwrap();
    assert!(exp.join("new").is_file() && run.is_dir());
    // The lock of a killed run holds nothing back, and neither does a file of the user's.
    fs::write(dir.path().join("exp/a/.run.llada.lock"), "llada lock of process 1").unwrap();
    fs::write(dir.path().join("exp/a/.x.llada.lock"), "mine").unwrap();
    fill(&output).unwrap();
}

#[cfg(unix)]
#[test]
fn links_lead_to_what_is_replaced_and_permissions_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("x"), dir.path().join("link"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::write(&path, "before").unwrap();
    let usual = mode(&path);
    symlink("x", &link).unwrap();
    replace_with(&link, b"after").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"after".to_vec(), usual));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    replace_with(&link, b"again").unwrap();
    assert_eq!(mode(&path), 0o640);
    replace_with(&dir.path().join("new"), b"").unwrap();
    assert_eq!(mode(&dir.path().join("new")), usual);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    let error = replace_with(&path, b"never").unwrap_err();
    assert!(error.to_string().contains("write-protected"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"again");
    symlink("loop", dir.path().join("loop")).unwrap();
    assert!(replace_with(&dir.path().join("loop"), b"").is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_written_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let error = replace_with(Path::new("/dev/full"), b"x").unwrap_err();
    let Error::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    replace_with(Path::new("/dev/null"), b"x").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    assert!(replace_with(&link, b"x").is_err());
    assert_eq!(names(dir.path()), ["link"]);

    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    replace_with(&pipe, b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    assert_eq!(names(dir.path()), ["link", "pipe"]);
}

#[test]
fn the_longest_names_have_locks_too() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["n".repeat(250), "\u{65e5}".repeat(80)] {
        let path = dir.path().join(&name);
        let output = Output::lock(&path).unwrap();
        assert!(Output::lock(&path).is_err());
        output.fill(Existing::Refuse, |x| replace_with(x, b"x")).unwrap();
        drop(output);
        fs::remove_file(path).unwrap();
        assert!(names(dir.path()).is_empty());
    }
}

#[test]
fn text_is_read_up_to_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, "12345").unwrap();
    assert_eq!(read_text(&path, 5).unwrap(), "12345");
    assert!(read_text(&path, 4).unwrap_err().to_string().contains("larger than 4"));
    fs::write(&path, [0xff]).unwrap();
    assert!(read_text(&path, 4).unwrap_err().hint().unwrap().contains("UTF-8"));
    assert!(read_text(dir.path(), 4).unwrap_err().hint().unwrap().contains("not a folder"));
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("tokenizer.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
        let error = read_text(path, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
