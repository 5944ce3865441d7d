//! Every command in the README and in `docs/` runs as it stands there.
//!
//! The `sh` blocks of a page run in order, in one scratch folder that has the repository's folders.
//! `cargo run` and `llada` are the program of this build;
//! for other programs that a page names (`cargo bench …`, `runs/…`) it is checked that they exist,
//! since running them takes hours. A block under `<!-- printed -->` is what the one before it prints.
//! Blocks under `<!-- slow -->` run with `--ignored` alone; of those
//! under `<!-- not run: reason -->`, which need the network or data, the verbs and flags are checked.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[cfg(feature = "hub")]
mod commands;
mod page;
mod settings;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use llada::diffusion::Settings;
use page::{Block, blocks};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The pages of the documentation, as paths in the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec!["README.md".into(), "CONTRIBUTING.md".into(), "benches/README.md".into()];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            match path.extension() {
                None if entry.path().is_dir() => folders.push(path),
                Some(end) if end == "md" => pages.push(path),
                _ => {}
            }
        }
    }
    pages.sort();
    pages
}

/// A folder in which the commands of a page can run.
fn scratch() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let root = root();
    for name in ["models", "configs", "benches", "crates", "fuzz", ".ci", "examples", "docs"] {
        symlink(root.join(name), dir.join(name)).unwrap();
    }
    fs::create_dir(dir.join("runs")).unwrap();
    for entry in fs::read_dir(root.join("runs")).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), dir.join("runs").join(entry.file_name())).unwrap();
    }
    let bin = dir.join(".bin");
    fs::create_dir(&bin).unwrap();
    symlink(assert_cmd::cargo::cargo_bin("llada"), bin.join("llada")).unwrap();
    fs::write(bin.join("cargo"), CARGO).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    scratch
}

/// Stands for cargo: `run` of the program is the program of this build; of everything else it is
/// checked that it is there to be built.
const CARGO: &str = r#"#!/usr/bin/env bash
set -euo pipefail
case "$1" in
  run)
    shift
    example=
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
      [ "$1" != --example ] || example=$2
      shift
    done
    [ $# -eq 0 ] || shift
    if [ -n "$example" ]; then
      compgen -G "crates/*/examples/$example.rs" > /dev/null
    else
      exec llada "$@"
    fi ;;
  bench) [ -f "benches/$3.rs" ] ;;
  test | doc | install | build | publish | deny | deb | package) ;;
  *) echo "cargo $1 is not known" >&2; exit 1 ;;
esac
"#;

/// Whether a line names a program of the repository that takes too long to run here.
fn is_program(line: &str) -> Option<&str> {
    let word = line.split_whitespace().find(|word| !word.contains('='))?;
    let ours = ["benches/", "runs/", "fuzz/", ".ci/"].iter().any(|folder| word.starts_with(folder));
    (ours && !word.contains("venv/")).then_some(word)
}

/// A command that checks the verb of a line and the flags on it, and does nothing.
fn parsed(line: &str) -> String {
    let command = line.split(" #").next().unwrap_or_default().trim();
    match command.strip_prefix("llada ") {
        Some(words) => format!("llada {words} --help > .help\n"),
        None => String::new(),
    }
}

/// Runs the blocks of a page, and says where the first failed.
fn run(page: &Path, blocks: &[Block]) -> Result<(), String> {
    if blocks.is_empty() {
        return Ok(());
    }
    let scratch = scratch();
    let dir = scratch.path();
    let path = format!("{}:{}", dir.join(".bin").display(), std::env::var("PATH").unwrap());
    for block in blocks {
        let mut script = String::from("set -euo pipefail\n");
        for line in &block.lines {
            match is_program(line) {
                Some(program) if root().join(program).exists() => {}
                Some(program) => return Err(format!("{}: no `{program}`", page.display())),
                None if line.contains("venv/bin/python") => {}
                None if block.is_left_out => script.push_str(&parsed(line)),
                None => {
                    script.push_str(line);
                    script.push('\n');
                }
            }
        }
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(dir)
            .env("PATH", &path)
            .env("HOME", dir)
            .env("LLADA_THREADS", "1")
            .env_remove("LLADA_MODEL")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(format!(
                "{}, line {}: {}\n{script}\n{}",
                page.display(),
                block.line,
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        if block.printed.as_ref().is_some_and(|said| *said != printed) {
            let place = format!("{}, line {}", page.display(), block.line);
            return Err(format!("{place}: it prints\n{printed}"));
        }
    }
    Ok(())
}

fn check(is_slow: bool) {
    let mut failures = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let all = blocks(&text);
        // Slow blocks need what the blocks before them made.
        let wanted = all.iter().any(|block| block.is_slow);
        let of_page: Vec<Block> = match is_slow {
            true if wanted => all,
            true => Vec::new(),
            false => all.into_iter().filter(|block| !block.is_slow).collect(),
        };
        count += of_page.len();
        failures.extend(run(&page, &of_page).err());
    }
    assert!(count > 0, "no page has commands");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_command_of_the_documentation_runs() {
    check(false);
}

#[test]
#[ignore = "trains for minutes"]
fn every_slow_command_of_the_documentation_runs() {
    check(true);
}

#[test]
#[cfg(feature = "hub")]
fn the_reference_of_the_commands_is_the_programs() {
    check_generated("docs/reference/commands.md", &commands::reference());
}

#[test]
fn the_reference_of_the_settings_is_the_table() {
    let page = settings::reference();
    check_generated("docs/reference/settings.md", &page);
    for key in Settings::KEYS {
        assert!(page.contains(&format!("\n| `{}` | {}", key.name, key.about())), "{}", key.name);
    }
}

/// Checks that a page is what the program says, or writes it where that is asked for.
fn check_generated(path: &str, page: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "run `UPDATE_DOCS=1 cargo test --workspace`");
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let folder = root().join(page.parent().unwrap());
        for target in page::links(&text) {
            if !folder.join(&target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
