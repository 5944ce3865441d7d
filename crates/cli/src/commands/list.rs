//! `llada list`: the models on this machine.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Result;
use llada::{
    checkpoint,
    hub::{Cache, Repo},
};
use serde_json::json;

use crate::{
    args::List,
    locate::Shipped,
    term::{self, Term},
    view::units,
};

/// A model that can be named.
struct Row {
    name: String,
    /// `llada`, `illada`, `adapters`; what is missing where it is not whole.
    kind: String,
    bytes: u64,
    commit: String,
    fetched: Option<SystemTime>,
    path: PathBuf,
}

/// Prints the models of the cache that can be run, and those that ship.
pub fn run(args: &List, term: &Term) -> Result<()> {
    let cache = Cache::from_env().map_err(llada::Error::from)?;
    let mut rows = Vec::new();
    let mut others = 0;
    for repo in cache.repos() {
        let found = of_repo(&cache, &repo);
        others += u64::from(found.is_empty());
        rows.extend(found);
    }
    if args.json {
        return rows.iter().try_for_each(|row| term::answer(&row.json().to_string()));
    }
    let mut table = vec![["NAME", "KIND", "SIZE", "REVISION", "FETCHED"].map(str::to_owned)];
    table.extend(rows.iter().map(Row::cells));
    for shipped in [Shipped::Base, Shipped::Tuned] {
        let cells = [shipped.name(), "llada", "", "", "comes with the program"];
        table.push(cells.map(str::to_owned));
    }
    term::answer(&units::columns(&table))?;
    if others > 0 {
        let dir = cache.dir().display();
        term.detail(&format!("repositories in {dir} without a model that runs here: {others}"));
    }
    Ok(())
}

/// The models in a repository: folders, and each GGUF file.
fn of_repo(cache: &Cache, repo: &Repo) -> Vec<Row> {
    let main = cache.commit(&repo.clone().into());
    let mut rows = Vec::new();
    for commit in cache.commits(repo) {
        let snapshot = cache.snapshot(repo, &commit);
        let short = &commit[..7];
        let named = match main.as_ref() == Some(&commit) {
            true => repo.to_string(),
            false => format!("{repo}@{short}"),
        };
        let files = files(&snapshot);
        let bytes = files.iter().map(|path| path.metadata().map_or(0, |data| data.len())).sum();
        let fetched = snapshot.metadata().and_then(|data| data.modified()).ok();
        let row = |name, kind, bytes, path| Row {
            name,
            kind,
            bytes,
            commit: commit.clone(),
            fetched,
            path,
        };
        if let Some(kind) = kind(&snapshot) {
            rows.push(row(named.clone(), kind, bytes, snapshot.clone()));
        }
        for path in files {
            let is_file = checkpoint::gguf::is_gguf(&path);
            let Some(kind) = is_file.then(|| kind(&path)).flatten() else { continue };
            let Ok(file) = path.strip_prefix(&snapshot) else { continue };
            let bytes = path.metadata().map_or(0, |data| data.len());
            rows.push(row(format!("{named}:{}", file.display()), kind, bytes, path.clone()));
        }
    }
    rows
}

/// What kind of model a folder or a file is; none where it is none that can be run.
fn kind(path: &Path) -> Option<String> {
    let missing = if path.is_dir() { checkpoint::missing_file(path) } else { None };
    let kind = if checkpoint::is_adapter(path) {
        "adapters"
    } else {
        checkpoint::load_config(path).ok()?.family.word()
    };
    match missing {
        Some(file) => Some(format!("{kind}, without {}", term::visible_controls(&file))),
        None => Some(kind.to_owned()),
    }
}

/// The files of a snapshot, also those one folder down.
fn files(snapshot: &Path) -> Vec<PathBuf> {
    let in_dir = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let below = |path: PathBuf| if path.is_dir() { in_dir(&path) } else { vec![path] };
    let mut files: Vec<PathBuf> = in_dir(snapshot).into_iter().flat_map(below).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let seconds = self.fetched.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        json!({
            "name": self.name,
            "kind": self.kind,
            "bytes": self.bytes,
            "revision": self.commit,
            "fetched": seconds.map(|seconds| seconds.as_secs()),
            "path": self.path,
        })
    }

    fn cells(&self) -> [String; 5] {
        let ago = self.fetched.and_then(|t| SystemTime::now().duration_since(t).ok());
        let ago = ago.map(|ago| format!("{} ago", units::duration(ago.as_secs_f64())));
        [
            term::visible_controls(&self.name),
            self.kind.clone(),
            units::bytes(self.bytes),
            self.commit[..7].to_owned(),
            ago.unwrap_or_default(),
        ]
    }
}
