//! The models in the program, on machines that have nothing else.
#![cfg(feature = "models")]

use std::{fs, path::Path};

use assert_cmd::Command;

use crate::{llada, outcome};

/// `llada` in an empty folder, with a home of its own.
fn alone(home: &Path, line: &[&str]) -> Command {
    let mut command = llada(home, line);
    command.env_remove("XDG_CACHE_HOME").env("HOME", home).env("LOCALAPPDATA", home);
    command
}

const STORY: [&str; 6] = ["run", "Once upon a time", "-n", "4", "--seed", "1"];

/// The text of a run that must succeed.
fn text(command: &mut Command) -> String {
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, 0, "{stderr}");
    stdout
}

#[test]
fn an_empty_home_is_enough() {
    let home = tempfile::tempdir().unwrap();
    let first = text(&mut alone(home.path(), &STORY));
    assert!(!first.trim().is_empty());
    assert_eq!(text(&mut alone(home.path(), &STORY)), first);
    assert_eq!(text(alone(home.path(), &STORY).args(["-m", "storyteller"])), first);
    let answer = text(alone(home.path(), &["chat", "-n", "8"]).write_stdin("Hello\n"));
    assert!(!answer.trim().is_empty());
    let shown = text(&mut alone(home.path(), &["show", "storyteller-chat"]));
    assert!(shown.contains("storyteller-chat"), "{shown}");
}

#[test]
fn what_was_damaged_in_the_cache_is_mended() {
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("cache");
    let run = || text(alone(home.path(), &STORY).env("XDG_CACHE_HOME", &cache));
    let first = run();
    let model = cache.join("llada").join(env!("CARGO_PKG_VERSION")).join("storyteller");
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let whole = bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    fs::remove_file(model.join("config.json")).unwrap();
    assert_eq!(run(), first);
    assert!(fs::read(&weights).unwrap() == whole);
}

#[test]
fn a_home_that_cannot_be_written_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    // Below a file nothing can be made, by nobody.
    let run = |temporary: &Path| {
        let mut command = alone(home.path(), &STORY);
        command.env("XDG_CACHE_HOME", file.join("below"));
        for key in ["TMPDIR", "TMP", "TEMP"] {
            command.env(key, temporary);
        }
        command
    };
    let usual = text(&mut alone(home.path(), &STORY));
    assert_eq!(text(&mut run(&temporary)), usual);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_folder_of_the_same_name_is_not_taken_for_it() {
    let home = tempfile::tempdir().unwrap();
    let other = home.path().join("models/storyteller");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("config.json"), "{}").unwrap();
    assert!(!text(&mut alone(home.path(), &STORY)).trim().is_empty());
}
