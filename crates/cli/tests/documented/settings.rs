//! The reference of the sampler's settings: the library's table, as a page.

use std::fmt::Write;

use llada::diffusion::{
    Sampler, Settings,
    settings::{Group, Key},
};

const HEAD: &str = "\
# Settings of the sampler

<!-- Generated from the program; `UPDATE_DOCS=1 cargo test --workspace` writes it anew. -->

Each setting has one name, one range and one default, wherever it is made:

| where | how |
|---|---|
| command line | `--gen-length 64`: as the name, with `-` for `_`; a switch alone is `true` |
| a chat | `/set gen_length 64`; `/set gen_length default` takes it back, `/show` lists them |
| a task file, `[generate.sampling]` | `gen_length = 64` |
| a model's [`generation_config.json`](generation-config.md) | `\"gen_length\": 64` |

What is said on the command line or in a chat goes before what a task or a model proposes, and that before the
preset (`--preset`). A name that is none of these and a number outside its range are refused. The defaults are those of
the preset `balanced` for a model of LLaDA's kind; a dash is off.
";

/// What an open setting becomes.
fn default(key: &Key) -> String {
    let balanced = Settings::of(&Sampler::balanced());
    let made = balanced.list().into_iter().find(|(name, _)| *name == key.name);
    match (key.default, made) {
        (Some(default), _) => default.to_owned(),
        (None, Some((_, value))) if value != "false" => format!("`{value}`"),
        (None, _) if key.name == "preset" => "`balanced`".into(),
        (None, _) => "–".into(),
    }
}

/// The page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for group in Group::ALL {
        write!(page, "\n## {}\n\n", group.title()).unwrap();
        page.push_str("| name | what it is | values | default | from |\n|---|---|---|---|---|\n");
        for key in Settings::KEYS.iter().filter(|key| key.group == group) {
            let (name, about, source) = (key.name, key.about(), key.source);
            let (values, default) = (key.kind.values(), default(key));
            writeln!(page, "| `{name}` | {about} | {values} | {default} | {source} |").unwrap();
        }
    }
    page
}
