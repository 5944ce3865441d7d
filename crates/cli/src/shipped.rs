//! The models that come with the program: where they are on this machine.
//!
//! They are in the program itself. Since a model is a folder, they are written once into the user's
//! cache, where every later run of this version finds and compares them; where nothing can be kept,
//! into a folder that goes when the program ends.

use std::path::PathBuf;

/// The models that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shipped {
    /// Continues text.
    Base,
    /// Answers.
    Tuned,
}

impl Shipped {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "storyteller",
            Self::Tuned => "storyteller-chat",
        }
    }

    /// The one that a conversation needs, or the one that it does not.
    pub fn for_chat(chat: bool) -> Self {
        if chat { Self::Tuned } else { Self::Base }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Base, Self::Tuned].into_iter().find(|shipped| shipped.name() == name)
    }

    /// Where it can be loaded from.
    pub fn folder(self) -> anyhow::Result<PathBuf> {
        folder(self)
    }
}

#[cfg(feature = "models")]
use unpacked::folder;
#[cfg(feature = "models")]
pub use unpacked::remove_temporary;

#[cfg(feature = "models")]
mod unpacked {
    use std::{
        fs,
        io::{self, Write},
        path::{Path, PathBuf},
        sync::{Mutex, PoisonError},
    };

    use anyhow::Result;
    use llada::hub;
    use llada_models::{File, Model, STORYTELLER, STORYTELLER_CHAT};
    use tempfile::{NamedTempFile, TempDir};

    use super::Shipped;
    use crate::failure::Failure;

    /// Folders that go when the program ends, with the models in them.
    static TEMPORARY: Mutex<Vec<(&'static str, TempDir)>> = Mutex::new(Vec::new());

    /// The folder with the files of a model.
    pub(super) fn folder(shipped: Shipped) -> Result<PathBuf> {
        let model = match shipped {
            Shipped::Base => &STORYTELLER,
            Shipped::Tuned => &STORYTELLER_CHAT,
        };
        if let Some(cache) = cache() {
            let dir = cache.join("llada").join(env!("CARGO_PKG_VERSION")).join(model.name);
            if unpack(model, &dir).is_ok() {
                return Ok(dir);
            }
        }
        let mut temporary = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, dir)) = temporary.iter().find(|(name, _)| *name == model.name) {
            return Ok(dir.path().join(model.name));
        }
        let mut failed = io::Error::other("there is no folder for temporary files");
        for place in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
            // A name that nobody can guess, in a folder that nobody else can enter.
            let made = tempfile::Builder::new().prefix("llada-").tempdir_in(place);
            match made.and_then(|dir| unpack(model, &dir.path().join(model.name)).map(|()| dir)) {
                Ok(dir) => {
                    let folder = dir.path().join(model.name);
                    temporary.push((model.name, dir));
                    return Ok(folder);
                }
                Err(error) => failed = error,
            }
        }
        Err(Failure::new(
            format!("the model that comes with the program cannot be unpacked: {failed}"),
            "set XDG_CACHE_HOME or TMPDIR to a folder that can be written, with 20 MB free",
        )
        .into())
    }

    /// Removes what was unpacked for this run alone.
    pub fn remove_temporary() {
        // Whoever holds the lock unpacks; what is there then goes with the system's own cleaning.
        if let Ok(mut temporary) = TEMPORARY.try_lock() {
            temporary.clear();
        }
    }

    /// The folder for what can be made again.
    fn cache() -> Option<PathBuf> {
        let named = hub::set("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let home = || std::env::home_dir().filter(|home| home.is_absolute());
        named.or_else(|| match () {
            () if cfg!(windows) => hub::set("LOCALAPPDATA").map(PathBuf::from),
            () if cfg!(target_os = "macos") => Some(home()?.join("Library/Caches")),
            () => Some(home()?.join(".cache")),
        })
    }

    /// Writes the files that are not there as they should be. Each appears whole, so that programs
    /// that do this at the same time do not meet half a file.
    fn unpack(model: &Model, dir: &Path) -> io::Result<()> {
        for file in model.files {
            if !is_there(file, dir) {
                fs::create_dir_all(dir)?;
                let mut whole = NamedTempFile::new_in(dir)?;
                whole.write_all(file.bytes)?;
                whole.persist(dir.join(file.name)).map_err(|e| e.error)?;
            }
        }
        Ok(())
    }

    fn is_there(file: &File, dir: &Path) -> bool {
        let path = dir.join(file.name);
        let length = path.symlink_metadata().map(|data| (data.is_file(), data.len())).ok();
        let as_long = length == Some((true, file.bytes.len() as u64));
        as_long && fs::read(path).is_ok_and(|bytes| bytes == file.bytes)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn damage_is_mended_and_the_rest_left_alone() {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join("a/b");
            unpack(&STORYTELLER, &place).unwrap();
            let weights = place.join("model.safetensors");
            let modified = weights.metadata().unwrap().modified().unwrap();
            let config = fs::read(place.join("config.json")).unwrap();
            let mut damaged = config.clone();
            damaged[0] ^= 1;
            fs::write(place.join("config.json"), damaged).unwrap();
            fs::write(place.join("tokenizer.json"), "").unwrap();
            unpack(&STORYTELLER, &place).unwrap();
            assert_eq!(fs::read(place.join("config.json")).unwrap(), config);
            assert_eq!(weights.metadata().unwrap().modified().unwrap(), modified);
            assert!(STORYTELLER.files.iter().all(|file| is_there(file, &place)));
            assert_eq!(fs::read_dir(&place).unwrap().count(), STORYTELLER.files.len());
        }

        #[test]
        fn the_names_are_those_of_the_models() {
            assert_eq!(Shipped::Base.name(), STORYTELLER.name);
            assert_eq!(Shipped::Tuned.name(), STORYTELLER_CHAT.name);
        }
    }
}

#[cfg(not(feature = "models"))]
mod installed {
    use std::path::PathBuf;

    use super::Shipped;
    use crate::failure::Failure;

    /// The folder of the model above the executable, or where packages put it.
    pub(super) fn folder(shipped: Shipped) -> anyhow::Result<PathBuf> {
        let program = std::env::current_exe().ok();
        let above = program.iter().flat_map(|program| program.ancestors().skip(1));
        let places = above.flat_map(|dir| [dir.join("models"), dir.join("share/llada/models")]);
        let found = places.map(|dir| dir.join(shipped.name())).find(|dir| dir.is_dir());
        found.ok_or_else(|| {
            Failure::new(
                format!("this program was built without the model `{}`", shipped.name()),
                "name a model with `--model`, or build with the feature `models`",
            )
            .into()
        })
    }

    /// Nothing was unpacked.
    pub fn remove_temporary() {}
}

#[cfg(not(feature = "models"))]
use installed::folder;
#[cfg(not(feature = "models"))]
pub use installed::remove_temporary;
