//! Which folder or file the name of a model means, and where the model is when nobody names one.

use std::path::{Path, PathBuf};

use anyhow::Result;
use llada::{
    checkpoint,
    hub::{self, Cache, HubError, Reference},
    session::{has_config as is_model, newest_checkpoint},
};

use crate::failure::Failure;
pub use crate::shipped::Shipped;

/// Short names of models of the hub.
pub const SHORT_NAMES: [(&str, &str); 3] = [
    ("llada", "GSAI-ML/LLaDA-8B-Instruct"),
    ("llada-base", "GSAI-ML/LLaDA-8B-Base"),
    ("llada-1.5", "GSAI-ML/LLaDA-1.5"),
];

/// The folder or GGUF file of the model to use, with all of its files: `given` (from `--model` or
/// `LLADA_MODEL`), or else the one that ships for the purpose.
pub fn model(given: Option<&Path>, otherwise: Shipped) -> Result<PathBuf> {
    let Some(given) = given else { return otherwise.folder() };
    let path = described(given)?;
    match hub::repo_of(&path).and_then(|_| checkpoint::missing_file(&path)) {
        Some(missing) => match reference(given).map(Box::new) {
            Some(reference) => Err(llada::Error::from(HubError::Partial { reference, missing }))?,
            None => Ok(path),
        },
        None => Ok(path),
    }
}

/// The folder or file of a model of which the configuration may be all that there is.
pub fn described(given: &Path) -> Result<PathBuf> {
    llada::files::restore(given);
    if is_model(given) {
        return Ok(given.to_owned());
    }
    if let Some(newest) = newest_checkpoint(given) {
        return Ok(newest);
    }
    if given.is_dir() {
        return Err(Failure::new(
            format!("`{}` is not a model: it has no `config.json`", given.display()),
            "give the folder that holds `config.json`, `tokenizer.json` and the safetensors files",
        )
        .into());
    }
    if given.exists() {
        return Err(Failure::new(
            format!("`{}` is not a model: its name does not end in `.gguf`", given.display()),
            "give the folder of a checkpoint, or a GGUF file",
        )
        .into());
    }
    if let Some(shipped) = given.to_str().and_then(Shipped::named) {
        return shipped.folder();
    }
    let Some(reference) = reference(given) else {
        let hint = near(given).filter(|_| looks_like_path(given)).unwrap_or_else(|| {
            "give the folder of a checkpoint or of a run, a GGUF file, or ORG/REPO of the hub; \
             without `--model` the shipped model is used"
                .into()
        });
        let message = missing(given);
        return Err(Failure::new(message, hint).into());
    };
    let found = Cache::from_env().and_then(|cache| cache.find(&reference));
    match found.map_err(|error| (looks_like_path(given), error)) {
        Ok(found) => Ok(found.path),
        Err((true, HubError::NotCached(_))) => {
            let message = missing(given);
            let hint = near(given).unwrap_or_else(|| "check the spelling".into());
            let hint = format!("{hint}; if it is a model of the hub, `llada pull {reference}`");
            Err(Failure::new(message, hint).into())
        }
        Err((_, error)) => Err(llada::Error::from(error).into()),
    }
}

/// Whether a first argument can only be the name of a model: something that is one on this machine,
/// or the name of one of the hub that is no usual pair of words (`and/or`).
pub fn looks_like_model(text: &str) -> bool {
    let path = Path::new(text);
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        return !text.is_empty() && is_model(path);
    }
    if is_model(path) || newest_checkpoint(path).is_some() || text.ends_with(".gguf") {
        return true;
    }
    let Ok(reference) = text.parse::<Reference>() else { return false };
    let name = reference.repo().name();
    let is_cached = || Cache::from_env().is_ok_and(|cache| cache.find(&reference).is_ok());
    let has = |kind: fn(&char) -> bool| name.chars().any(|c| kind(&c));
    let is_versioned = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
    name.to_ascii_lowercase().contains("llada")
        || (is_versioned && name.contains('-'))
        || is_cached()
}

/// Says that a model's file or folder is not there.
fn missing(given: &Path) -> String {
    let what = if checkpoint::gguf::is_gguf(given) { "file" } else { "folder" };
    format!("there is no {what} `{}`", given.display())
}

/// Whether a word that names no model was meant to: it is spelt as the path of one.
pub fn is_like_path(word: &str) -> bool {
    let has_ending = [".gguf", ".safetensors"].iter().any(|ending| word.ends_with(ending));
    let is_step = word.strip_prefix("step-").is_some_and(|n| n.parse::<u64>().is_ok());
    !word.chars().any(char::is_whitespace) && (word.contains(['/', '\\']) || has_ending || is_step)
}

/// The failure of a word that was meant to be the path of a model.
pub fn no_model(word: &str) -> Failure {
    let hint = near(Path::new(word)).unwrap_or_else(|| match reference(Path::new(word)) {
        Some(_) => format!("`llada pull {word}` fetches it, if it is a model of the hub"),
        None => "check the spelling; a text of several words goes in quotes".into(),
    });
    Failure::usage(format!("there is no model `{word}`"), hint)
}

/// What there is in the place of a model that is not there: the models in the folder of its path
/// that exists, or those of a run there.
pub fn near(missing: &Path) -> Option<String> {
    const MOST: usize = 5;
    let folder = missing.ancestors().skip(1).find(|dir| dir.is_dir())?;
    let names = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let paths = entries.take(1000).map(|entry| entry.path());
        paths.filter(|path| is_model(path) || newest_checkpoint(path).is_some()).collect()
    };
    let mut found = [names(folder), names(&folder.join("checkpoints"))].concat();
    // Of checkpoints the newest first.
    let step = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix("step-")?;
        name.parse::<u64>().ok()
    };
    found.sort_by_key(|path| (std::cmp::Reverse(step(path)), path.clone()));
    let shown: Vec<_> =
        found.iter().take(MOST).map(|path| format!("`{}`", path.display())).collect();
    let more = if found.len() > MOST { ", …" } else { "" };
    (!shown.is_empty()).then(|| format!("there is {}{more}", shown.join(", ")))
}

/// The model of the hub that is meant, by a short name too.
pub fn reference(given: &Path) -> Option<Reference> {
    let text = given.to_str()?;
    let short = SHORT_NAMES.iter().find(|(short, _)| short.eq_ignore_ascii_case(text));
    short.map_or(text, |(_, full)| full).parse().ok()
}

/// Whether a name is rather that of a folder on this machine, whose parent is there.
fn looks_like_path(given: &Path) -> bool {
    given.parent().is_some_and(|parent| !parent.as_os_str().is_empty() && parent.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_told_from_words() {
        for text in [
            "GSAI-ML/LLaDA-8B-Instruct",
            "GSAI-ML/LLaDA-1.5@main",
            "someone/llada-tiny",
            "org/name-7B:Q4_K_M",
            "missing.gguf",
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller"),
        ] {
            assert!(looks_like_model(text), "{text}");
        }
        for text in [
            "",
            "and/or",
            "TCP/IP",
            "24/7",
            "he/she",
            "km/h",
            "Once upon a time",
            "a b/c-8B",
            ".",
            "/",
            "../x",
            "llada",
            "hello",
            "1/2",
            "a/b/c-7B",
            "Write GSAI-ML/LLaDA-8B-Base",
        ] {
            assert!(!looks_like_model(text), "{text}");
        }
    }

    #[test]
    fn a_run_stands_for_its_newest_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        for step in ["step-9", "step-10"] {
            let step = dir.path().join("checkpoints").join(step);
            std::fs::create_dir_all(&step).unwrap();
            std::fs::write(step.join("config.json"), "{}").unwrap();
        }
        assert!(described(dir.path()).unwrap().ends_with("checkpoints/step-10"));
        assert!(looks_like_model(dir.path().to_str().unwrap()));
    }

    #[test]
    fn what_is_near_a_missing_model_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for step in ["step-9", "step-10"] {
            let step = dir.path().join("run/checkpoints").join(step);
            std::fs::create_dir_all(&step).unwrap();
            std::fs::write(step.join("config.json"), "{}").unwrap();
        }
        for missing in ["run/checkpoints/step-11", "run/step-9", "run/checkpoint/step-9"] {
            let hint = near(&dir.path().join(missing)).unwrap();
            let (ten, nine) = (hint.find("step-10`").unwrap(), hint.find("step-9`").unwrap());
            assert!(ten < nine, "{missing}: {hint}");
        }
        assert!(near(&dir.path().join("rum/checkpoints")).unwrap().ends_with("run`"));
        assert_eq!(near(&dir.path().join("run/checkpoints/step-9/x")), None);
        for (word, expected) in [
            ("a/b", true),
            ("step-9", true),
            ("x.gguf", true),
            ("Once", false),
            ("one a/b", false),
            ("step-mother", false),
        ] {
            assert_eq!(is_like_path(word), expected, "{word}");
        }
    }

    #[test]
    fn short_names_stand_for_models_of_the_hub() {
        for (short, full) in SHORT_NAMES {
            assert_eq!(reference(Path::new(short)).unwrap().to_string(), full);
        }
        assert_eq!(reference(Path::new("LLaDA")).unwrap().repo().name(), "LLaDA-8B-Instruct");
        assert_eq!(reference(Path::new("storyteller")), None);
    }
}
