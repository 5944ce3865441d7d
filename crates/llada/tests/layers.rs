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

/// Of a module, a file that uses one above it, since the two are of one piece: a canvas holds the holes
/// that an infill makes it of, and a trace is of its steps; the table of settings has transfer rules and
/// samplers for values, and bounds their numbers.
const OF_ONE_PIECE: [(&str, [&str; 2]); 9] = [
    // An intersection is one of automata that are made deterministic first.
    ("constraint", ["nfa", "dfa"]),
    ("diffusion", ["reverse", "infill"]),
    ("diffusion", ["trace", "reverse"]),
    ("diffusion", ["sampler", "settings"]),
    ("diffusion", ["transfer", "settings"]),
    ("diffusion/engine", ["cached", "batch"]),
    ("diffusion/settings", ["key", "table"]),
    ("diffusion/settings", ["range", "key"]),
    ("diffusion/settings", ["range", "table"]),
];

#[test]
fn modules_use_those_below_them_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in [root.join("src"), root.join("../cli/src")].iter().filter(|dir| dir.is_dir()) {
        let is_library = source.join("lib.rs").is_file();
        let root = source.join(if is_library { "lib.rs" } else { "main.rs" });
        let uses = uses(source, &root, "crate::", is_library.then_some(ERROR));
        assert!(uses.len() > 5 && uses.values().any(|below| below.len() > 2), "{uses:?}");
        refuse_circles(source, &uses);
    }
}

#[test]
fn files_of_a_module_use_those_below_them_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["src", "../cli/src", "../kernels/src"].map(|source| root.join(source));
    let mut edges = 0;
    for source in sources.iter().filter(|dir| dir.is_dir()) {
        for folder in folders(source) {
            let inside = folder.join("mod.rs");
            let root = if inside.is_file() { inside } else { folder.with_extension("rs") };
            if !root.is_file() {
                continue;
            }
            let path = folder.strip_prefix(source).unwrap();
            let parts = path.iter().map(|part| format!("{}::", part.to_str().unwrap()));
            let prefix = format!("crate::{}", parts.collect::<String>());
            let mut uses = uses(&folder, &root, &prefix, Some(ERROR));
            edges += uses.values().map(BTreeMap::len).sum::<usize>();
            for (_, [from, to]) in OF_ONE_PIECE.iter().filter(|(of, _)| path == Path::new(of)) {
                uses.get_mut(*from).unwrap().remove(*to).unwrap();
            }
            refuse_circles(source, &uses);
        }
    }
    assert!(edges > 100, "{edges}");
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
    assert_eq!(named(&plain(text), "crate::"), ["Result", "a", "a", "d", "e"]);
    assert_eq!(named(&plain(text), "crate::a::"), ["self", "b"]);
    assert_eq!(named("super::super::x::Y; super::z", "super::super::"), ["x"]);
    let root = "mod a;\npub use a::{B,\n c};\npub(crate) use d::e;\nuse std::fmt;";
    let taken = [("B", "a"), ("c", "a"), ("e", "d"), ("fmt", "std")]
        .map(|(name, of)| (name.into(), of.into()));
    assert_eq!(taken_up(&plain(root)), BTreeMap::from(taken));
    assert_eq!(plain("a\n // crate::b\n#[cfg(test)]\nmod tests {\n crate::c"), "a\n");
}

fn refuse_circles(source: &Path, uses: &Uses) {
    if let Some(cycle) = cycle(uses) {
        let edges = cycle.windows(2).map(|edge| {
            let file = uses[&edge[0]][&edge[1]].strip_prefix(source).unwrap();
            format!("  {} uses {} in {}\n", edge[0], edge[1], file.display())
        });
        panic!("modules of {} in a circle:\n{}", source.display(), edges.collect::<String>());
    }
}

/// The folders of modules below `source`.
fn folders(source: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path());
    let inner = entries.filter(|path| path.is_dir() && !is_of_tests(path));
    inner.flat_map(|dir| [vec![dir.clone()], folders(&dir)].concat()).collect()
}

/// Of each module in the folder of the module `root`, whose path is `prefix`, which others in there it
/// names; but for `error`.
fn uses(folder: &Path, root: &Path, prefix: &str, error: Option<&str>) -> Uses {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let is_source = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "rs");
    let paths: Vec<_> = entries.filter(|path| path != root && is_source(path)).collect();
    let modules: BTreeSet<String> = paths.iter().map(of).collect();
    let taken_up = taken_up(&plain(&fs::read_to_string(root).unwrap()));
    let is_crate = prefix == "crate::";
    let mut uses = Uses::new();
    for path in paths.iter().filter(|path| Some(&*of(path)) != error) {
        let module = of(path);
        let below = uses.entry(module.clone()).or_default();
        for file in files(path) {
            let text = plain(&fs::read_to_string(&file).unwrap());
            // From here as many modules up to the root.
            let inside = file.strip_prefix(folder).unwrap().with_extension("");
            let depth = inside.iter().filter(|part| *part != "mod").count();
            // Of a module within the file these are names of the file itself.
            let mut names = named(&text, &"super::".repeat(depth));
            if is_crate {
                names.retain(|name| modules.contains(name));
            }
            names.extend(named(&text, prefix));
            for name in names {
                let name =
                    taken_up.get(&name).filter(|from| modules.contains(*from)).unwrap_or(&name);
                let is_module = modules.contains(name);
                assert!(is_module || !is_crate, "{} names crate::{name}", file.display());
                if is_module && *name != module && Some(name.as_str()) != error {
                    below.entry(name.clone()).or_insert_with(|| file.clone());
                }
            }
        }
    }
    uses
}

/// The names that a module takes from those in it, each with where it is from.
fn taken_up(root: &str) -> BTreeMap<String, String> {
    let uses = root.lines().filter_map(|line| line.strip_prefix("use ")?.strip_suffix(';'));
    let paths = uses.filter_map(|path| path.split_once("::"));
    paths.map(|(module, path)| (last(path).to_owned(), module.to_owned())).collect()
}

/// What a path is called where it is used.
fn last(path: &str) -> &str {
    path.rsplit([':', ' ']).next().unwrap_or(path)
}

/// The files of a module, but those of its tests.
fn files(path: &Path) -> Vec<PathBuf> {
    if is_of_tests(path) {
        return Vec::new();
    }
    match path.is_dir() {
        true => fs::read_dir(path).unwrap().flat_map(|e| files(&e.unwrap().path())).collect(),
        false => vec![path.to_path_buf()],
    }
}

fn is_of_tests(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    name == "tests" || name.ends_with("_tests")
}

/// A source without comments and without the tests at its end, every name of a `use` in a line of its
/// own.
fn plain(source: &str) -> String {
    let end = source.find("#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let lines = source[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once("use ") {
        let (lines, visibility) = before.rsplit_once('\n').unwrap_or(("", before));
        let visibility = visibility.trim();
        match after
            .split_once(';')
            .filter(|_| visibility.is_empty() || visibility.starts_with("pub"))
        {
            Some((tree, next)) => {
                out.extend([lines, "\n"]);
                out.extend(spelled_out(tree.trim()).iter().map(|path| format!("use {path};\n")));
                rest = next;
            }
            None => {
                out.extend([before, "use "]);
                rest = after;
            }
        }
    }
    out + rest
}

/// The paths of what a `use` names.
fn spelled_out(tree: &str) -> Vec<String> {
    let Some((prefix, list)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let list = list.trim_end().strip_suffix('}').unwrap_or(list);
    let mut depth = 0;
    let parts = list.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(spelled_out).map(|part| format!("{prefix}{part}")).collect()
}

/// What stands after `prefix` in a path.
fn named(text: &str, prefix: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let starts = text.match_indices(prefix).filter(|(at, _)| {
        !text[..*at].ends_with(|c| is_part(c) || c == ':')
            && !text[at + prefix.len()..].starts_with("super::")
    });
    let names =
        starts.filter_map(|(at, _)| text[at + prefix.len()..].split(|c| !is_part(c)).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
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
