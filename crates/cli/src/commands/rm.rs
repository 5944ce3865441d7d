//! `llada rm`: what was fetched of a model, and nothing else, goes.

use std::{
    fs::{self, File},
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use llada::hub::{Cache, HubError, Reference};

use crate::{args::Rm, error::Failure, locate, term::Term, view::units};

/// The folders of a repository in a cache.
const PARTS: [&str; 4] = ["blobs", "refs", "snapshots", ".no_exist"];

/// Removes each model, after asking.
pub fn run(args: &Rm, term: &Term) -> Result<()> {
    let cache = Cache::from_env().map_err(llada::Error::from)?;
    let repos = args.models.iter().map(|model| check(&cache, model));
    for (reference, dir) in repos.collect::<Result<Vec<_>>>()? {
        let bytes = size(&dir);
        if !args.yes && !confirmed(&reference, bytes, term)? {
            term.note(&format!("{reference} is kept"));
            continue;
        }
        let locks = cache.dir().join(".locks").join(reference.repo().folder());
        let _held = lock(&locks, &reference)?;
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove `{}`", dir.display()))?;
        let _ = fs::remove_dir_all(&locks);
        term.note(&format!("removed {reference}: {}", units::bytes(bytes)));
    }
    Ok(())
}

/// The folder of a repository, which must be one.
fn check(cache: &Cache, model: &Path) -> Result<(Reference, PathBuf)> {
    let shown = model.display();
    let Some(reference) = locate::reference(model) else {
        let message = format!("`{shown}` is not ORG/REPO of the hub");
        return Err(Failure::usage(message, "`llada list` names what can be removed").into());
    };
    if reference.to_string() != reference.repo().to_string() {
        let hint = format!("`llada rm {}` removes all that was fetched of it", reference.repo());
        return Err(Failure::usage("only a whole repository is removed", hint).into());
    }
    let dir = cache.repo_dir(reference.repo());
    let Ok(data) = dir.symlink_metadata() else {
        let absent = HubError::NotCached(reference.into()).to_string();
        return Err(Failure::new(absent, "`llada list` names what is").into());
    };
    let odd = |what: &str| {
        let hint = "look into it, and remove it by hand";
        Failure::new(format!("`{}` {what}", dir.display()), hint)
    };
    if !data.is_dir() {
        return Err(odd("is a link or a file, and no folder of a model").into());
    }
    let entries = fs::read_dir(&dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let is_part = PARTS.iter().any(|part| name == *part);
        if !is_part || entry.file_type()?.is_symlink() {
            return Err(odd(&format!("holds `{}`, which is not of the hub", name.display())).into());
        }
    }
    Ok((reference, dir))
}

/// Asks whoever is at the terminal.
fn confirmed(reference: &Reference, bytes: u64, term: &Term) -> Result<bool> {
    if !io::stdin().is_terminal() || !term.interactive {
        let message = "nobody is here to be asked";
        return Err(Failure::usage(message, "`--yes` removes without asking").into());
    }
    term.draw(&format!("remove {reference}, {}? [y/N] ", units::bytes(bytes)));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Takes the locks of the repository's files, so that nothing is removed while it is fetched.
fn lock(dir: &Path, reference: &Reference) -> Result<Vec<File>> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let open = entries.filter_map(|entry| File::open(entry.path()).ok());
    let mut held = Vec::new();
    for file in open {
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            let message = format!("{reference} is being fetched");
            return Err(Failure::new(message, "wait until it is there, or stop that").into());
        }
        held.push(file);
    }
    Ok(held)
}

/// Bytes of the files below a folder; links count nothing.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |data| data.len()),
        _ => 0,
    };
    entries.map(one).sum()
}
