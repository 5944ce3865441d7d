//! Every key of a recipe with its default and meaning, read off the types that a recipe is parsed
//! into, so that no list of them can go out of date.

use serde_json::{Map, Value as Json};
use toml::Table;

use super::{Block, Preference, Recipe, Reward, Sft};

/// One key of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// `section.key`.
    pub name: String,
    /// Its default as TOML; none where it depends on other keys, as the meaning then says.
    pub default: Option<String>,
    /// The values that it can have, if they are few.
    pub choices: Vec<String>,
    /// What it does, in Markdown.
    pub meaning: String,
}

impl Recipe {
    /// The JSON Schema of a recipe, by which editors complete and check one.
    pub fn schema() -> Json {
        schemars::schema_for!(Self).to_value()
    }

    /// All keys, section by section.
    pub fn keys() -> Vec<Key> {
        let schema = Self::schema();
        let recipe = Self {
            sft: Some(Sft::default()),
            preference: Some(Preference::default()),
            reward: Some(Reward::default()),
            block: Some(Block::default()),
            ..Self::default()
        };
        let defaults = Table::try_from(&recipe).unwrap_or_default();
        let mut keys = Vec::new();
        for (section, pointer) in properties(&schema) {
            for (key, property) in properties(resolve(&schema, pointer)) {
                let default = defaults.get(section).and_then(|table| table.get(key));
                keys.push(Key {
                    name: format!("{section}.{key}"),
                    default: default.map(ToString::to_string),
                    choices: choices(resolve(&schema, property)),
                    meaning: text(property).unwrap_or_default().replace('\n', " "),
                });
            }
        }
        keys
    }

    /// The keys as Markdown: a table for each section.
    pub fn reference() -> String {
        let schema = Self::schema();
        let keys = Self::keys();
        let mut page = String::from(
            "# Keys of a recipe\n\n`llada train --keys` prints this page. All keys have defaults; a \
             key that does not exist is an error. On the command line `section.key=value` goes \
             before the file.\n",
        );
        for (section, pointer) in properties(&schema) {
            let meaning = text(pointer).or_else(|| text(resolve(&schema, pointer)));
            page.push_str(&format!("\n## `[{section}]`\n\n{}\n\n", meaning.unwrap_or_default()));
            page.push_str("| key | default | meaning |\n|---|---|---|\n");
            let prefix = format!("{section}.");
            for key in &keys {
                let Some(name) = key.name.strip_prefix(&prefix) else { continue };
                let default = key.default.as_ref().map(|d| format!("`{d}`")).unwrap_or_default();
                let meaning = key.meaning.replace('|', "\\|");
                page.push_str(&format!("| `{name}` | {default} | {meaning}"));
                if !key.choices.is_empty() {
                    page.push_str(&format!(" One of `{}`.", key.choices.join("`, `")));
                }
                page.push_str(" |\n");
            }
        }
        page
    }
}

/// The properties of an object in a schema.
fn properties(schema: &Json) -> impl Iterator<Item = (&String, &Json)> {
    schema.get("properties").and_then(Json::as_object).into_iter().flat_map(Map::iter)
}

/// The schema that `schema` stands for: behind a reference, or the one that is not null.
fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
        let found = root.pointer(reference.trim_start_matches('#'));
        return found.map_or(schema, |found| resolve(root, found));
    }
    let either = schema.get("anyOf").and_then(Json::as_array);
    match either.and_then(|all| all.iter().find(|one| one.get("$ref").is_some())) {
        Some(one) => resolve(root, one),
        None => schema,
    }
}

fn text(schema: &Json) -> Option<&str> {
    schema.get("description").and_then(Json::as_str)
}

/// The constants that a schema lists.
fn choices(schema: &Json) -> Vec<String> {
    let list = |key: &str| schema.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    let constants = list("oneOf").into_iter().filter_map(|one| one.get("const").cloned());
    let all = constants.chain(list("enum"));
    all.filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpecialTokens;

    #[test]
    fn every_key_that_can_be_given_is_described() {
        let described: Vec<String> = Recipe::keys().into_iter().map(|key| key.name).collect();
        let known = Table::try_from(Recipe::every_key()).unwrap();
        let mut given = Vec::new();
        for (section, table) in &known {
            given.extend(table.as_table().unwrap().keys().map(|key| format!("{section}.{key}")));
        }
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        assert_eq!(sorted(described), sorted(given));
        assert!(Recipe::keys().iter().all(|key| !key.meaning.is_empty()));
    }

    #[test]
    fn defaults_and_choices_are_told() {
        let keys = Recipe::keys();
        let key = |name: &str| keys.iter().find(|key| key.name == name).unwrap();
        assert_eq!(key("optim.lr").default.as_deref(), Some("0.001"));
        assert_eq!(key("optim.schedule").choices, ["wsd", "constant"]);
        assert_eq!(key("sft.padding").choices, ["batch", "none", "block"]);
        assert_eq!(key("block.weighting").choices, ["1/t", "none"]);
        assert_eq!(key("train.objective").default.as_deref(), Some("\"diffusion\""));
        assert_eq!(key("model.n_kv_heads").default, None);
    }

    #[test]
    fn the_page_is_the_one_in_the_documentation() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference");
        let schema = serde_json::to_string_pretty(&Recipe::schema()).unwrap() + "\n";
        for (name, text) in [("recipe.md", Recipe::reference()), ("recipe.schema.json", schema)] {
            let path = format!("{folder}/{name}");
            if std::env::var_os("UPDATE_DOCS").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            let hint = "UPDATE_DOCS=1 cargo test -p llada --lib reference";
            assert!(found == text, "{name} is out of date: {hint}");
        }
    }

    #[test]
    fn the_recipes_that_ship_have_the_sizes_of_the_paper() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
        let none: [&str; 0] = [];
        let parameters = |name: &str, vocabulary: usize| {
            let text = std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
            let recipe = Recipe::parse(&text, &none).unwrap();
            recipe.model_config(vocabulary, SpecialTokens::default()).unwrap().parameters()
        };
        assert_eq!(parameters("8b.toml", 126_464), 8_015_581_184);
        let billions = parameters("1b.toml", 126_464) as f64 / 1e9;
        assert!((1.48..1.50).contains(&billions), "{billions}");
        assert!(parameters("pretrain-tiny.toml", 512) < 1_000_000);
    }
}
