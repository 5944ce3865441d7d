//! A model that is opened once: its configuration, weights, tokenizer, chat template and settings are
//! all taken from the same reading of its files.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde_json::{Map, Value};

use super::{Merged, adapter, generation, gguf, shards};
use crate::{
    Result,
    chat::Template,
    config::ModelConfig,
    diffusion::Settings,
    files,
    hub::folder::{self, ADAPTER_CONFIG, CONFIG, GENERATION_CONFIG},
    model::{Adapter, Layout, Model},
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// A real `config.json` has 2 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// The folder or the GGUF file of a model, opened. Whatever is asked of it is read once, when it is
/// first asked for; the header of a GGUF file is parsed once and stays mapped. A folder of low-rank
/// adapters stands for the model that they make of another.
///
/// ```
/// # use std::path::Path;
/// # fn main() -> llada::Result<()> {
/// # let path = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller");
/// let checkpoint = llada::checkpoint::Checkpoint::open(path)?;
/// let (model, tokenizer) = (checkpoint.load()?, checkpoint.tokenizer()?);
/// assert_eq!(&model.config, checkpoint.config()?);
/// tokenizer.check(&model.config)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    form: Form,
    config: Once<ModelConfig>,
    /// What `adapter_config.json` says.
    adapter: Once<Map<String, Value>>,
    files: Once<TokenizerFiles>,
}

/// What a model is stored as.
#[derive(Debug)]
enum Form {
    Folder,
    File(gguf::File),
    /// Adapters of the model that their configuration names.
    Adapter(Once<Box<Checkpoint>>),
}

/// A value that is made when it is first asked for.
#[derive(Debug)]
struct Once<T>(OnceLock<T>);

impl<T> Once<T> {
    fn new() -> Self {
        Self(OnceLock::new())
    }

    fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        if let Some(made) = self.0.get() {
            return Ok(made);
        }
        let made = make()?;
        Ok(self.0.get_or_init(|| made))
    }
}

impl Checkpoint {
    /// Opens the model at `path`: maps a GGUF file and parses its header. Of a folder nothing is read
    /// yet, and it need not have all files of a model.
    ///
    /// # Errors
    /// As [`gguf::File::open`].
    pub fn open(path: &Path) -> Result<Self> {
        let form = if folder::is_gguf(path) {
            Form::File(gguf::File::open(path)?)
        } else if folder::is_adapter(path) {
            Form::Adapter(Once::new())
        } else {
            Form::Folder
        };
        let (config, adapter, files) = (Once::new(), Once::new(), Once::new());
        Ok(Self { path: path.to_path_buf(), form, config, adapter, files })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF file, if it is one.
    pub fn file(&self) -> Option<&gguf::File> {
        match &self.form {
            Form::File(file) => Some(file),
            Form::Folder | Form::Adapter(_) => None,
        }
    }

    /// The model that it adapts, if it is adapters.
    ///
    /// # Errors
    /// When there is no such model, or it is adapters itself.
    pub fn base(&self) -> Result<Option<&Self>> {
        let Form::Adapter(base) = &self.form else { return Ok(None) };
        let open = || Self::open(&adapter::base(&self.path, self.adapter_config()?)?).map(Box::new);
        Ok(Some(base.get(open)?))
    }

    /// Sizes and options: `config.json`, of adapters that of their model, of a GGUF file what stands
    /// for it.
    ///
    /// # Errors
    /// When it cannot be read or is damaged, or as [`ModelConfig::from_json`].
    pub fn config(&self) -> Result<&ModelConfig> {
        if let Some(base) = self.base()? {
            return base.config();
        }
        self.config.get(|| match self.file() {
            Some(file) => gguf::config(file),
            None => {
                let text = files::read_text(&self.path.join(CONFIG), MAX_CONFIG)?;
                Ok(ModelConfig::from_json(&text)?)
            }
        })
    }

    /// The model. Weights stay in the mapped files, in their storage type; every one is checked to be
    /// finite. Tensors that carry nothing of their own (rotary tables, a head stored although it is
    /// tied) are passed over. Adapters are merged.
    ///
    /// # Errors
    /// When the architecture is unknown, and when a tensor is missing, misshapen, not finite, of
    /// another type, stored twice, or not part of the model: the error names tensor and file.
    pub fn load(&self) -> Result<Model> {
        match self.base()? {
            Some(base) => Ok(self.merge(base)?.model),
            None => self.load_whole(),
        }
    }

    /// `base` with the adapters that are here, whichever model they name.
    ///
    /// # Errors
    /// As [`Checkpoint::load`] and [`Checkpoint::adapter`].
    pub fn merge(&self, base: &Self) -> Result<Merged> {
        adapter::merge(&self.path, self.adapter_config()?, base.load_whole()?)
    }

    /// The adapters that are here, of a model with this layout.
    ///
    /// # Errors
    /// When there are none, PEFT would make more of them than W₀ + s·B·A, or they do not fit the
    /// model.
    pub fn adapter(&self, layout: &Layout) -> Result<Adapter> {
        Ok(adapter::read(&self.path, self.adapter_config()?, layout)?.0)
    }

    /// The weights that are here.
    fn load_whole(&self) -> Result<Model> {
        let config = self.config()?;
        match self.file() {
            Some(file) => gguf::load(file, config),
            None => shards::load(&self.path, config),
        }
    }

    /// The files of its tokenizer, none where it has no tokenizer: those of the folder, or those that
    /// a GGUF file carries or that its vocabulary makes. Adapters without a tokenizer have that of
    /// their model, and propose what they themselves state.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn tokenizer_files(&self) -> Result<&TokenizerFiles> {
        self.files.get(|| match (&self.form, self.lender()?) {
            (Form::File(file), _) => gguf::tokenizer_files(file),
            (_, None) => TokenizerFiles::in_folder(&self.path),
            (_, Some(base)) => {
                let mut files = base.tokenizer_files()?.clone();
                files.add(TokenizerFiles::some_of(&self.path, &[GENERATION_CONFIG])?);
                Ok(files)
            }
        })
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// When it has none, or one of the files cannot be used.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        self.tokenizer_files()?.needed(self.lender()?.unwrap_or(self).path())
    }

    /// Its chat template, as [`Template::of`].
    ///
    /// # Errors
    /// When a file cannot be read or the template is not valid.
    pub fn template(&self) -> Result<Template> {
        Template::of(self.tokenizer_files()?, self.lender()?.unwrap_or(self).path())
    }

    /// What it proposes to be sampled with: nothing where it has no `generation_config.json`. Adapters
    /// without one have that of their model.
    ///
    /// # Errors
    /// When the file is damaged, or a value is none that its setting can have: the error names file,
    /// key and range.
    pub fn generation(&self) -> Result<Settings> {
        let file = self.path.join(GENERATION_CONFIG);
        if let Some(base) = self.base()?.filter(|_| !file.exists()) {
            return base.generation();
        }
        match self.tokenizer_files()?.text(GENERATION_CONFIG, &self.path)? {
            Some(text) => generation::parse(text, &file),
            None => Ok(Settings::default()),
        }
    }

    /// The model that lends its tokenizer to adapters that have none.
    fn lender(&self) -> Result<Option<&Self>> {
        let has_own = self.path.join(TokenizerFiles::JSON).exists();
        if has_own { Ok(None) } else { self.base() }
    }

    fn adapter_config(&self) -> Result<&Map<String, Value>> {
        self.adapter.get(|| adapter::read_config(&self.path.join(ADAPTER_CONFIG)))
    }
}

impl TokenizerFiles {
    /// [`Checkpoint::tokenizer_files`] of who needs nothing else of a model's folder or file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Checkpoint::tokenizer_files`].
    pub fn read(dir: &Path) -> Result<Self> {
        Checkpoint::open(dir)?.tokenizer_files().cloned()
    }
}

impl Tokenizer {
    /// [`Checkpoint::tokenizer`] of who needs nothing else of a model's folder or file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Checkpoint::tokenizer`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Checkpoint::open(dir)?.tokenizer()
    }
}

impl Template {
    /// [`Checkpoint::template`] of who needs nothing else of a model's folder or file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Checkpoint::template`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Checkpoint::open(dir)?.template()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use llada_kernels::Cpu;

    use super::*;
    use crate::chat::Message;

    fn storyteller() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller")
    }

    /// All that can be asked of a model, with `forget` called between the questions.
    fn all_of(checkpoint: &Checkpoint, forget: &dyn Fn()) -> (Vec<Vec<f32>>, Vec<u32>, Settings) {
        let config = checkpoint.config().unwrap().clone();
        let files = checkpoint.tokenizer_files().unwrap().clone();
        if checkpoint.file().is_some() {
            forget();
        }
        let model = checkpoint.load().unwrap();
        forget();
        assert_eq!((&model.config, checkpoint.config().unwrap()), (&config, &config));
        assert_eq!(checkpoint.tokenizer_files().unwrap(), &files);
        let messages = [Message::new("user", "Hi!")];
        let tokenizer = checkpoint.tokenizer().unwrap();
        let ids = checkpoint.template().unwrap().encode(&tokenizer, &messages, true).unwrap();
        let weights = model.tensors.iter().map(|tensor| tensor.to_f32()).collect();
        (weights, ids, checkpoint.generation().unwrap())
    }

    /// Whatever is asked of a model, its files are gone by then: nothing is opened, parsed or read a
    /// second time. Mapped files can be removed on Unix only.
    #[test]
    #[cfg(unix)]
    fn a_model_is_opened_once_for_all_that_is_asked_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path().join("model"), dir.path().join("model.gguf"));
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(storyteller()).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let source = Checkpoint::open(&folder).unwrap();
        let (model, files) = (source.load().unwrap(), source.tokenizer_files().unwrap());
        let formats = gguf::Formats::all(model.tensors.get(0).dtype());
        gguf::save(&model, files, &path, &formats, &Cpu::new(1).unwrap()).unwrap();

        let file = Checkpoint::open(&path).unwrap();
        let of_file = all_of(&file, &|| drop(fs::remove_file(&path)));
        assert!(!path.exists());
        assert_eq!(file.file().unwrap().is_intact(), Some(true));
        let of_folder =
            all_of(&Checkpoint::open(&folder).unwrap(), &|| drop(fs::remove_dir_all(&folder)));
        assert!(!folder.exists());
        assert!(of_file == of_folder);
        assert_ne!(of_file.2, Settings::default());
    }

    #[test]
    fn a_folder_need_not_hold_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let name = TokenizerFiles::JSON;
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert!(checkpoint.tokenizer().is_err() && checkpoint.config().is_err());
        fs::copy(storyteller().join(name), dir.path().join(name)).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.tokenizer().unwrap().vocab_size(), 2048);
        assert_eq!(checkpoint.generation().unwrap(), Settings::default());
        assert!(checkpoint.load().is_err());
        // What could not be read is not remembered.
        for name in [CONFIG, "model.safetensors"] {
            fs::copy(storyteller().join(name), dir.path().join(name)).unwrap();
        }
        assert!(checkpoint.load().is_ok());
    }
}
