//! What a resumed run may have otherwise than it was started with.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{Recipe, keys};

/// The keys of a recipe that may change when a run is resumed. All others decide what the weights
/// become, and so make another run: a branch.
const MAY_CHANGE: &[&str] = &[
    // How long it goes on; the decay of the learning rate moves with it.
    "train.steps",
    // What is measured and written.
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_best",
    "train.max_skipped",
    "eval.every",
    "eval.sequences",
    "eval.draws",
    "eval.tasks",
    "eval.task_data",
    "eval.task_rows",
    "eval.task_every",
    "log.every",
    "log.sample_every",
    "log.tensorboard",
    // Memory against time, the same bits either way.
    "train.recompute",
    // Where something lies. What lies there is compared with what the run was trained on.
    "data.path",
    "data.validation",
    "model.init_from",
];

/// A setting that differs from that of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value in the run.
    pub run: String,
    /// The value that is asked for.
    pub asked: String,
}

impl Change {
    /// Whether a run may change it when it is resumed.
    pub fn is_allowed(&self) -> bool {
        MAY_CHANGE.contains(&self.key.as_str())
    }
}

/// Where `asked` differs from the recipe of the run, in the order of the keys.
pub(super) fn changes(run: &Recipe, asked: &Recipe) -> Vec<Change> {
    let [run, asked] = [run, asked].map(|recipe| {
        let mut values = BTreeMap::new();
        flatten(&keys::known(&recipe.settled()), "", &mut values);
        values
    });
    let all: BTreeSet<&String> = run.keys().chain(asked.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("not set".into(), Value::to_string);
    all.into_iter()
        .filter(|key| run.get(*key) != asked.get(*key))
        .map(|key| Change {
            key: key.clone(),
            run: shown(run.get(key)),
            asked: shown(asked.get(key)),
        })
        .collect()
}

fn flatten(table: &Table, prefix: &str, out: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) => flatten(inner, &format!("{key}."), out),
            // The one item of a list may stand for the list.
            Value::Array(items) if items.len() == 1 => drop(out.insert(key, items[0].clone())),
            value => drop(out.insert(key, value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(run: &str, asked: &str) -> Vec<String> {
        let none: [&str; 0] = [];
        let [run, asked] = [run, asked].map(|text| Recipe::parse(text, &none).unwrap());
        let shown = |c: Change| format!("{} {} {} {}", c.key, c.run, c.asked, c.is_allowed());
        changes(&run, &asked).into_iter().map(shown).collect()
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        assert!(of("", "").is_empty());
        assert_eq!(
            of("[optim]\nlr = 1e-2\n[train]\nsteps = 9", "[train]\nsteps = 12"),
            ["optim.lr 0.01 0.001 false", "train.steps 9 12 true"]
        );
        assert_eq!(of("[model]\ninit_from = \"a\"", ""), ["model.init_from \"a\" not set true"]);
        assert_eq!(of("", "[sft]").last().unwrap(), "sft.template not set \"chat\" false");
    }

    #[test]
    fn a_default_spelled_out_is_no_change() {
        let spelled = "[model]\nn_kv_heads = 4\nmlp_hidden_size = 688\nmax_sequence_length = 256";
        assert!(of("", spelled).is_empty());
        assert!(of("[sft]", "[sft]\npadding = \"batch\"").is_empty());
        assert!(of("[data]\npath = \"a\"", "[data]\npath = [\"a\"]").is_empty());
        assert_eq!(of("", "[model]\nn_kv_heads = 2"), ["model.n_kv_heads 4 2 false"]);
    }

    #[test]
    fn the_keys_that_may_change_exist() {
        let mut known = BTreeMap::new();
        flatten(&keys::known(&Recipe::every_key()), "", &mut known);
        assert!(MAY_CHANGE.iter().all(|key| known.contains_key(*key)));
    }
}
