//! The modules of the crates depend on each other in one direction only.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which modules each module at the top of a crate uses, and a file that does.
type Uses = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// The module of the library's one error, which holds those of all modules and which they all return.
const ERROR: &str = "error";

#[test]
fn modules_use_those_below_them_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in [root.join("src"), root.join("../cli/src")].iter().filter(|dir| dir.is_dir()) {
        let is_library = source.join("lib.rs").is_file();
        let uses = uses(source, is_library.then_some(ERROR));
        assert!(uses.len() > 5 && uses.values().any(|below| below.len() > 2), "{uses:?}");
        if let Some(cycle) = cycle(&uses) {
            let edges = cycle.windows(2).map(|edge| {
                let file = uses[&edge[0]][&edge[1]].strip_prefix(source).unwrap();
                format!("  {} uses {} in {}\n", edge[0], edge[1], file.display())
            });
            panic!("modules of {} in a circle:\n{}", source.display(), edges.collect::<String>());
        }
    }
}

#[test]
fn circles_are_found() {
    let uses = |edges: &[(&str, &str)]| {
        let mut uses = Uses::new();
        for (from, to) in edges {
            uses.entry((*to).into()).or_default();
            uses.entry((*from).into()).or_default().insert((*to).into(), PathBuf::new());
        }
        uses
    };
    assert_eq!(cycle(&uses(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    let found = cycle(&uses(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).unwrap();
    assert_eq!(found, ["b", "c", "d", "b"]);
    let text = "use crate::{\n Result, a::{self, b::C},\n d,\n};\nfn f() { crate::e::g(); }";
    assert_eq!(named(text, "crate::"), ["Result", "a", "d", "e"]);
    assert_eq!(named("super::super::x::Y; super::z", "super::super::"), ["x"]);
    let root = "mod a;\npub use a::{B,\n c};\npub(crate) use d::e;\nuse std::fmt;";
    let taken = [("B", "a"), ("c", "a"), ("e", "d")].map(|(name, of)| (name.into(), of.into()));
    assert_eq!(taken_up(root), BTreeMap::from(taken));
    assert_eq!(plain("a\n // crate::b\n#[cfg(test)]\nmod tests {\n crate::c"), "a\n");
}

/// Of each module at the top of the crate in `source`, which others it names; but for `error`.
fn uses(source: &Path, error: Option<&str>) -> Uses {
    let entries = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let (roots, paths): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.partition(|path| ["lib", "main"].contains(&&*of(path)));
    let modules: BTreeSet<String> = paths.iter().map(of).collect();
    let taken_up = taken_up(&plain(&fs::read_to_string(&roots[0]).unwrap()));
    let mut uses = Uses::new();
    for path in paths.iter().filter(|path| Some(&*of(path)) != error) {
        let module = of(path);
        let below = uses.entry(module.clone()).or_default();
        for file in files(path) {
            let text = plain(&fs::read_to_string(&file).unwrap());
            // From here as many modules up to the root.
            let inside = file.strip_prefix(source).unwrap().with_extension("");
            let depth = inside.iter().filter(|part| *part != "mod").count();
            // Of a module within the file these are names of the file itself.
            let mut names = named(&text, &"super::".repeat(depth));
            names.retain(|name| modules.contains(name));
            names.extend(named(&text, "crate::"));
            for name in names {
                let name = taken_up.get(&name).unwrap_or(&name);
                assert!(modules.contains(name), "{} names crate::{name}", file.display());
                if *name != module && Some(name.as_str()) != error {
                    below.entry(name.clone()).or_insert_with(|| file.clone());
                }
            }
        }
    }
    uses
}

/// The names that the root of a crate takes up from its modules, each with the module.
fn taken_up(root: &str) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for (at, _) in root.match_indices("use ") {
        let (path, _) = root[at + 4..].split_once(';').unwrap();
        let (module, rest) = path.split_once("::").unwrap();
        let is_public = root[..at].ends_with("pub ") || root[..at].ends_with("pub(crate) ");
        for name in rest.trim_matches(['{', '}']).split(',').filter(|_| is_public) {
            names.insert(name.trim().to_owned(), module.to_owned());
        }
    }
    names.remove("");
    names
}

/// The files of a module, but those of its tests.
fn files(path: &Path) -> Vec<PathBuf> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    if name == "tests" || name.ends_with("_tests") {
        return Vec::new();
    }
    match path.is_dir() {
        true => fs::read_dir(path).unwrap().flat_map(|e| files(&e.unwrap().path())).collect(),
        false => vec![path.to_path_buf()],
    }
}

/// A source without comments and without the tests at its end.
fn plain(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let lines = source[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What stands after `prefix` in a path, or in the braces of a `use`.
fn named(text: &str, prefix: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let first = |path: &str| path.trim().split(|c| !is_part(c)).next().unwrap_or("").to_owned();
    let mut names = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        let rest = &text[at + prefix.len()..];
        if before.is_some_and(|c| is_part(c) || c == ':') || rest.starts_with("super::") {
            continue;
        }
        let Some(braced) = rest.strip_prefix('{') else {
            names.push(first(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in braced.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.push(first(&braced[start..i]));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Modules that use each other in a circle, the first of them at the end again.
fn cycle(uses: &Uses) -> Option<Vec<String>> {
    fn visit(at: &str, uses: &Uses, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(start) = path.iter().position(|module| module == at) {
            path.drain(..start);
            path.push(at.to_owned());
            return true;
        }
        if done.contains(at) {
            return false;
        }
        path.push(at.to_owned());
        if uses[at].keys().any(|below| visit(below, uses, path, done)) {
            return true;
        }
        done.extend(path.pop());
        false
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    uses.keys().any(|module| visit(module, uses, &mut path, &mut done)).then_some(path)
}
