//! Which files of a repository a model needs.

use anyhow::{Context, Result};
use llada::{
    config::ModelConfig,
    hub::{Reference, is_plain_path, quantised_file},
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

use super::Listing;
use crate::error::Failure;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER: &str = "adapter_model.safetensors";

/// The small files that say how a model is used; those that there are.
const SETTINGS: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder with weights in safetensors files.
    Folder,
    /// Low-rank adapters.
    Adapter,
    /// One GGUF file.
    Gguf,
}

/// What is fetched, in two parts: the first is small, and says what the second is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it will be.
    pub kind: Kind,
    /// Configuration and tokenizer.
    pub small: Vec<String>,
    /// Weights; of a folder in several files, only once its index is there.
    weights: Vec<String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Plan {
    /// What `reference` needs of the files that there are.
    pub fn new(reference: &Reference, listing: &Listing) -> Result<Self> {
        let has = |file: &str| listing.files.iter().any(|listed| listed == file);
        let settings = || SETTINGS.iter().filter(|file| has(file)).map(|file| (*file).to_owned());
        let gguf = |file: &str| Self {
            kind: Kind::Gguf,
            small: Vec::new(),
            weights: vec![file.to_owned()],
        };
        if reference.file().is_some() {
            return match quantised_file(&listing.files, reference.file()) {
                Ok(Some(file)) => Ok(gguf(file)),
                Ok(None) => Err(no_such_file(reference, listing).into()),
                Err(files) => Err(ambiguous(reference, &files).into()),
            };
        }
        if has(CONFIG) && (has(SINGLE) || has(INDEX)) {
            let index = (!has(SINGLE)).then(|| INDEX.to_owned());
            let single = has(SINGLE).then(|| SINGLE.to_owned());
            return Ok(Self {
                kind: Kind::Folder,
                small: [CONFIG.to_owned()].into_iter().chain(settings()).chain(index).collect(),
                weights: single.into_iter().collect(),
            });
        }
        if has(ADAPTER_CONFIG) && has(ADAPTER) {
            return Ok(Self {
                kind: Kind::Adapter,
                small: [ADAPTER_CONFIG.to_owned()].into_iter().chain(settings()).collect(),
                weights: vec![ADAPTER.to_owned()],
            });
        }
        match quantised_file(&listing.files, None) {
            Ok(Some(file)) => Ok(gguf(file)),
            Err(files) => Err(ambiguous(reference, &files).into()),
            Ok(None) => {
                let pickled =
                    listing.files.iter().any(|f| f.ends_with(".bin") || f.ends_with(".pt"));
                let hint = match pickled {
                    true => {
                        "its weights are pickled, which can run code: look for a conversion \
                             to safetensors or GGUF"
                    }
                    false => "a model has `config.json` with safetensors files, or is a GGUF file",
                };
                Err(Failure::new(format!("`{reference}` holds no model that can be read"), hint)
                    .into())
            }
        }
    }

    /// The weights, where `read` gives the text of a small file that was fetched.
    pub fn weights(&self, read: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
        if !self.weights.is_empty() {
            return Ok(self.weights.clone());
        }
        let index: Index = serde_json::from_str(&read(INDEX)?)
            .with_context(|| format!("`{INDEX}` of this repository cannot be read"))?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        match shards.iter().find(|file| !is_plain_path(file) || file.contains('/')) {
            Some(file) => {
                let message = format!("`{INDEX}` names `{file}`, which is no file of the folder");
                Err(Failure::new(message, "this repository is damaged: use another").into())
            }
            None => Ok(shards.into_iter().collect()),
        }
    }

    /// Checks that the program knows the architecture, before its weights are fetched.
    pub fn check(
        &self,
        reference: &Reference,
        read: impl Fn(&str) -> Result<String>,
    ) -> Result<Option<ModelConfig>> {
        if self.kind != Kind::Folder {
            return Ok(None);
        }
        let config = ModelConfig::from_json(&read(CONFIG)?).map_err(llada::Error::from);
        let failed = || format!("`{reference}` is no model that can be run here");
        Ok(Some(config.with_context(failed)?))
    }
}

fn no_such_file(reference: &Reference, listing: &Listing) -> Failure {
    let wanted = reference.file().unwrap_or_default();
    let message = format!("`{}` has no GGUF file `{wanted}`", reference.without_file());
    let mut there = listing.files.iter().filter(|f| f.to_ascii_lowercase().ends_with(".gguf"));
    match there.next() {
        None => Failure::new(message, format!("it has none: `llada pull {}`", reference.repo())),
        Some(first) => {
            let all: Vec<&str> = [first].into_iter().chain(there).map(String::as_str).collect();
            Failure::new(message, format!("it has {}", all.join(", ")))
        }
    }
}

fn ambiguous(reference: &Reference, files: &[String]) -> Failure {
    let first = files.first().map(String::as_str).unwrap_or_default();
    Failure::new(
        format!("`{reference}` has several models: {}", files.join(", ")),
        format!("name one, as in `{}:{first}`", reference.without_file()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(reference: &str, files: &[&str]) -> Result<Plan> {
        let files = files.iter().map(|file| (*file).to_owned()).collect();
        let listing = Listing { commit: "0".repeat(40), files };
        Plan::new(&reference.parse().unwrap(), &listing)
    }

    #[test]
    fn only_what_is_needed_is_fetched() {
        let files = [
            ".gitattributes",
            "README.md",
            "config.json",
            "modeling_llada.py",
            "tokenizer.json",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "model-00001-of-00002.safetensors",
            "consolidated.safetensors",
        ];
        let folder = plan("a/b", &files).unwrap();
        assert_eq!(folder.kind, Kind::Folder);
        let small = ["config.json", "tokenizer.json", "model.safetensors.index.json"];
        assert_eq!(folder.small, small);
        let index = |map: &str| format!(r#"{{"weight_map": {map}}}"#);
        let weights = |map: &str| folder.weights(|_| Ok(index(map)));
        let listed =
            weights(r#"{"x": "b.safetensors", "y": "a.safetensors", "z": "b.safetensors"}"#);
        assert_eq!(listed.unwrap(), ["a.safetensors", "b.safetensors"]);
        for bad in
            [r#"{"x": "../y"}"#, r#"{"x": "/y"}"#, r#"{"x": "C:\\y"}"#, r#"{"x": "d/y"}"#, "1"]
        {
            assert!(weights(bad).is_err(), "{bad}");
        }

        let single =
            plan("a/b", &["config.json", "model.safetensors", "model.safetensors.index.json"]);
        assert_eq!(single.unwrap().weights, ["model.safetensors"]);
        let adapter = plan("a/b", &["adapter_config.json", "adapter_model.safetensors"]).unwrap();
        assert_eq!((adapter.kind, adapter.weights.len()), (Kind::Adapter, 1));
    }

    #[test]
    fn a_gguf_file_is_chosen_by_name() {
        let files = ["config.json", "m-Q4_0.gguf", "m-Q8_0.gguf", "README.md"];
        assert_eq!(plan("a/b:q8_0", &files).unwrap().weights, ["m-Q8_0.gguf"]);
        let message = |reference: &str, files: &[&str]| {
            let error = plan(reference, files).unwrap_err();
            error.to_string()
        };
        assert!(message("a/b", &files).contains("several models: m-Q4_0.gguf, m-Q8_0.gguf"));
        assert!(message("a/b:Q5_0", &files).contains("no GGUF file `Q5_0`"));
        assert!(message("a/b", &["pytorch_model.bin", "config.json"]).contains("no model"));
        assert!(message("a/b", &[]).contains("no model"));
    }
}
