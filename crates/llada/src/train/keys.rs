//! The keys of a recipe, so that an error can name the key and an override take its type.

use serde::Serialize;
use toml::{Table, Value};

use super::TrainError;

type Result<T> = std::result::Result<T, TrainError>;

/// The keys of `recipe` with values of their types.
pub(super) fn known(recipe: &impl Serialize) -> Table {
    Table::try_from(recipe).unwrap_or_default()
}

/// Checks that every key of `table` is in `known`, with a value of that type.
pub(super) fn check(table: &Table, known: &Table, prefix: &str) -> Result<()> {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match (known.get(name), value) {
            (Some(Value::Table(known)), Value::Table(inner)) => {
                check(inner, known, &format!("{key}."))?;
            }
            (Some(pattern), value) if fits(pattern, value) => {}
            (Some(pattern), value) => return Err(wrong(&key, &value.to_string(), pattern)),
            (None, _) => return Err(unknown(&key, known, prefix)),
        }
    }
    Ok(())
}

/// Sets `section.key=value` in `table`. The value is read as the type of that key, so that text
/// needs no quotes, `1e4` may stand for a whole number, and `1` for a fraction; the items of a list are
/// separated by commas.
pub(super) fn assign(table: &mut Table, known: &Table, assignment: &str) -> Result<()> {
    let Some((key, text)) = assignment.split_once('=') else {
        return Err(TrainError::Override(assignment.into()));
    };
    let (key, text) = (key.trim(), text.trim());
    let Some((section, name)) = key.split_once('.') else {
        return Err(unknown(key, known, ""));
    };
    let Some(Value::Table(inner)) = known.get(section) else {
        return Err(unknown(key, known, ""));
    };
    let Some(pattern) = inner.get(name) else {
        return Err(unknown(key, inner, &format!("{section}.")));
    };
    let value = read(text, pattern).ok_or_else(|| wrong(key, text, pattern))?;
    let target = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(target) = target {
        target.insert(name.into(), value);
    }
    Ok(())
}

fn read(text: &str, pattern: &Value) -> Option<Value> {
    let value = match pattern {
        Value::String(_) => Value::String(text.trim_matches('"').into()),
        Value::Boolean(_) => Value::Boolean(text.parse().ok()?),
        Value::Float(_) => Value::Float(text.replace('_', "").parse().ok()?),
        Value::Integer(_) => {
            let text = text.replace('_', "");
            let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
            Value::Integer(text.parse().ok().or_else(|| whole(text.parse().ok()?))?)
        }
        Value::Array(_) => {
            let items = text.trim_matches(['[', ']']).split(',').map(str::trim);
            let items = items.map(|item| item.trim_matches('"')).filter(|item| !item.is_empty());
            let mut items: Vec<_> =
                items.map(|text| read(text, &item(pattern))).collect::<Option<_>>()?;
            if items.len() == 1 { items.remove(0) } else { Value::Array(items) }
        }
        _ => return None,
    };
    fits(pattern, &value).then_some(value)
}

fn fits(pattern: &Value, value: &Value) -> bool {
    match (pattern, value) {
        (Value::Integer(_), Value::Integer(n)) => *n >= 0,
        (Value::Float(_), Value::Float(x)) => x.is_finite(),
        (Value::Float(_), Value::Integer(_)) => true,
        (Value::Array(_), Value::Array(items)) => {
            items.iter().all(|value| fits(&item(pattern), value))
        }
        // The one item of a list may stand for the list.
        (Value::Array(_), value) => fits(&item(pattern), value),
        _ => pattern.same_type(value),
    }
}

/// What the items of a list are like: its first, or strings.
fn item(list: &Value) -> Value {
    let first = list.as_array().and_then(|items| items.first()).cloned();
    first.unwrap_or_else(|| Value::String(String::new()))
}

fn wrong(key: &str, found: &str, pattern: &Value) -> TrainError {
    let expected = match pattern {
        Value::String(_) => "a string",
        Value::Boolean(_) => "`true` or `false`",
        Value::Float(_) => "a number",
        Value::Integer(_) => "a whole number",
        Value::Array(_) => match item(pattern) {
            Value::String(_) => "a string or a list of strings",
            _ => "a number or a list of numbers",
        },
        _ => "a section",
    };
    TrainError::Value { key: key.into(), found: found.into(), expected: expected.into() }
}

fn unknown(key: &str, siblings: &Table, prefix: &str) -> TrainError {
    let name = key.strip_prefix(prefix).unwrap_or(key);
    let name = if prefix.is_empty() { name.split('.').next().unwrap_or(name) } else { name };
    let nearest = siblings.keys().map(|k| (distance(name, k), k)).min();
    let near = nearest.filter(|(d, k)| *d <= 2 || *d * 3 <= k.len()).map(|(_, k)| k);
    let suggestion = near.map(|near| format!("{prefix}{near}"));
    let known = siblings.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    TrainError::UnknownKey { key: key.into(), suggestion, known }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use crate::{Error, config::Objective, train::Recipe};

    fn refuse(text: &str, overrides: &[&str]) -> (String, String) {
        let error: Error = Recipe::parse(text, overrides).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn an_empty_recipe_is_the_default_and_resolves_to_itself() {
        let none: [&str; 0] = [];
        assert_eq!(Recipe::parse("", &none).unwrap(), Recipe::default());
        let text = Recipe::default().to_toml();
        assert_eq!(Recipe::parse(&text, &none).unwrap(), Recipe::default());
    }

    #[test]
    fn overrides_take_the_type_of_their_key() {
        let recipe = Recipe::parse(
            "[optim]\nlr = 1\n",
            &[
                "optim.lr=3e-4",
                "optim.weight_decay=0",
                "train.steps=1e4",
                "train.recompute=true",
                "data.path=12/shards",
                "model.n_kv_heads=2",
                "train.objective=autoregressive",
            ],
        )
        .unwrap();
        assert_eq!((recipe.optim.lr, recipe.optim.weight_decay), (3e-4, 0.0));
        assert_eq!((recipe.train.steps, recipe.train.recompute), (10_000, true));
        assert_eq!(recipe.data.path.as_slice(), [std::path::Path::new("12/shards")]);
        assert_eq!(recipe.model.n_kv_heads, Some(2));
        assert_eq!(recipe.train.objective, Objective::Autoregressive);
    }

    #[test]
    fn a_list_may_be_one_item_and_an_override_has_commas() {
        let none: [&str; 0] = [];
        let read = |text: &str, overrides: &[&str]| Recipe::parse_sft(text, overrides).unwrap();
        let targets = |recipe: Recipe| recipe.lora.targets.as_slice().to_vec();
        assert_eq!(targets(read("[lora]\ntargets = \"q_proj\"", &none)), ["q_proj"]);
        assert_eq!(targets(read("[lora]\ntargets = [\"a\", \"b\"]", &none)), ["a", "b"]);
        assert_eq!(targets(read("", &["lora.targets=a, b"])), ["a", "b"]);
        assert_eq!(targets(read("", &["lora.targets=[\"a\",\"b\"]"])), ["a", "b"]);
        let recipe = read("[data]\npath = [\"x\", \"y\"]", &["data.validation=z"]);
        assert_eq!(recipe.data.path.as_slice().len(), 2);
        assert_eq!(recipe.data.validation.unwrap().as_slice().len(), 1);
        let (message, _) = refuse("[data]\npath = [1]", &[]);
        assert_eq!(message, "`data.path` is `[1]`, expected a string or a list of strings");
    }

    #[test]
    fn a_recipe_of_fine_tuning_resolves_to_itself() {
        let none: [&str; 0] = [];
        let recipe = Recipe::parse_sft("[train]\nbatch_size = 4", &["sft.padding=none"]).unwrap();
        assert_eq!((recipe.data.random_length, recipe.train.batch_size), (0.0, 4));
        assert_eq!(Recipe::parse(&recipe.to_toml(), &none).unwrap(), recipe);
        let recipe = Recipe::parse_sft("[sft]\nepochs = 3", &none).unwrap();
        assert_eq!(Recipe::parse(&recipe.to_toml(), &none).unwrap(), recipe);
        assert!(Recipe::parse("[train]\nsteps = 3", &none).unwrap().sft.is_none());
    }

    #[test]
    fn a_key_without_effect_is_refused() {
        for (text, key) in [
            ("[sft]\nepochs = 2\n[train]\nsteps = 5", "train.steps"),
            ("[sft]\n[data]\nrandom_length = 0.1", "data.random_length"),
            ("[sft]\n[data]\nunique_tokens = 10", "data.unique_tokens"),
            ("[sft]\n[data]\nsplit_documents = true", "data.split_documents"),
            (
                "[data]\nsplit_documents = true\n[train]\nobjective = \"autoregressive\"",
                "data.split_documents",
            ),
            ("[sft]\ncomplementary_masks = true\n[train]\nbatch_size = 3", "train.batch_size"),
            (
                "[sft]\ncomplementary_masks = true\n[train]\nobjective = \"autoregressive\"",
                "sft.complementary_masks",
            ),
            ("[sft]\nheld_out = 1.0", "sft.held_out"),
            ("[data]\nvalidation = \"v.jsonl\"", "data.validation"),
            ("[lora]\nrank = 4", "lora.rank"),
        ] {
            assert!(refuse(text, &[]).0.starts_with(&format!("`{key}` is ")), "{text}");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_remedy() {
        let (message, hint) = refuse("[optim]\nlrr = 1e-3", &[]);
        assert_eq!(message, "unknown key `optim.lrr`");
        assert!(hint.contains("`optim.lr`"), "{hint}");
        let (message, hint) = refuse("", &["trian.steps=3"]);
        assert_eq!(message, "unknown key `trian.steps`");
        assert!(hint.contains("`train`"), "{hint}");
        let (message, hint) = refuse("", &["optim.zzzzzzzz=3"]);
        assert_eq!(message, "unknown key `optim.zzzzzzzz`");
        assert!(hint.contains("weight_decay"), "{hint}");
        let (message, _) = refuse("", &["optim.lr=fast"]);
        assert_eq!(message, "`optim.lr` is `fast`, expected a number");
        let (message, _) = refuse("[train]\nsteps = 1.5", &[]);
        assert_eq!(message, "`train.steps` is `1.5`, expected a whole number");
        let (message, _) = refuse("", &["train.steps=-1"]);
        assert_eq!(message, "`train.steps` is `-1`, expected a whole number");
        let (message, _) = refuse("", &["optim.lr=0"]);
        assert_eq!(message, "`optim.lr` is `0`, expected above 0");
        let (message, _) = refuse("", &["train.objective=gan"]);
        assert!(message.contains("objective") && message.contains("autoregressive"), "{message}");
        let (message, _) = refuse("train = 3", &[]);
        assert_eq!(message, "`train` is `3`, expected a section");
        assert!(refuse("", &["steps"]).0.contains("steps"));
        assert!(refuse("[optim\n", &[]).0.contains("line 1"));
    }
}
