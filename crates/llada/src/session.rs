//! A model opened once, with all that belongs to it.

mod score;
#[cfg(test)]
mod tests;

use std::{
    ops::{ControlFlow, Deref, DerefMut},
    path::{Path, PathBuf},
    sync::Arc,
};

use llada_kernels::Cpu;

use crate::{
    Codec, Result,
    chat::Template,
    checkpoint::{self, Checkpoint, gguf},
    config::ModelConfig,
    diffusion::{
        Canvas, Sampler, Step,
        generate::{self, Summary},
        infill::{
            Frame,
            length::{self, Lengths, Search},
        },
    },
    files, hub,
    model::MaskPredictor,
    tokenizer::Tokenizer,
    train,
};

/// A model ready to be used: its [`Codec`], which makes prompts, samplers, canvases and texts and whose
/// methods are those of the session too, and its mask predictor. Both are open to whoever needs them apart.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use llada::{Session, diffusion::Settings};
///
/// # fn main() -> llada::Result<()> {
/// let model = "models/storyteller";
/// # let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model);
/// let mut session = Session::open(model)?;
/// let prompt = session.encode("Once upon a time")?;
/// let asked = Settings { gen_length: Some(16), seed: Some(1), ..Settings::default() };
/// let sampler = session.sampler(&asked, prompt.len())?;
/// let mut canvases = [session.canvas(prompt, &sampler)?];
/// session.generate(&mut canvases, &mut |_canvas, _step| ControlFlow::Continue(()))?;
/// let text = session.text(&canvases[0])?;
/// # assert!(text.len() > 10, "{text}");
///
/// let pairs = [" king", " refrigerator"].map(|answer| session.pair("There was once a", answer));
/// let pairs = pairs.into_iter().collect::<llada::Result<Vec<_>>>()?;
/// let estimates = session.score(&pairs, &Default::default())?;
/// assert!(estimates[0].log_likelihood > estimates[1].log_likelihood);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    /// Tokenizer, chat template, special tokens and proposed settings.
    pub codec: Arc<Codec>,
    /// The model on the processor.
    pub predictor: MaskPredictor,
}

impl Deref for Session {
    type Target = Codec;

    fn deref(&self) -> &Codec {
        &self.codec
    }
}

impl DerefMut for Session {
    /// What is changed is so for this session alone.
    fn deref_mut(&mut self) -> &mut Codec {
        Arc::make_mut(&mut self.codec)
    }
}

impl Session {
    /// Opens the model in `path`, on all cores: a folder, that of a run, whose newest checkpoint it is,
    /// or a GGUF file.
    ///
    /// # Errors
    /// If a file of it is missing or damaged, or they do not belong together.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(path, Cpu::new(0)?)
    }

    /// As [`Session::open`], on `cpu`.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn open_on(path: impl AsRef<Path>, cpu: Cpu) -> Result<Self> {
        let path = path.as_ref();
        files::restore(path);
        let newest = if has_config(path) { None } else { newest_checkpoint(path) };
        let path = newest.as_deref().unwrap_or(path);
        let checkpoint = Checkpoint::open(path)?;
        let tokenizer = checkpoint.tokenizer()?;
        let template = checkpoint.template()?;
        let proposed = checkpoint.generation()?;
        let model = checkpoint.load()?;
        tokenizer.check(&model.config)?;
        let predictor = MaskPredictor::new(model, cpu)?;
        let mut codec = Codec::new(tokenizer, template, &predictor.model().config);
        (codec.name, codec.proposed) = (name(path), proposed);
        Ok(Self::new(codec, predictor))
    }

    /// A model without a name that proposes nothing.
    pub fn of(tokenizer: Tokenizer, template: Template, predictor: MaskPredictor) -> Self {
        let codec = Codec::new(tokenizer, template, &predictor.model().config);
        Self::new(codec, predictor)
    }

    fn new(codec: Codec, mut predictor: MaskPredictor) -> Self {
        // The next turn of a conversation, or prompt of a list, begins as the one before.
        predictor.retain(1);
        Self { codec: Arc::new(codec), predictor }
    }

    /// Runs canvases until they are done, as [`generate::run`] does. For canvases that come and go there
    /// is [`Engine`](crate::engine::Engine).
    ///
    /// # Errors
    /// Those of [`generate::run`].
    pub fn generate(
        &mut self,
        canvases: &mut [Canvas],
        on_step: &mut dyn FnMut(usize, &Step) -> ControlFlow<()>,
    ) -> Result<Summary> {
        generate::run(&mut self.predictor, canvases, on_step)
    }

    /// Chooses lengths of up to `max_hole` tokens for the holes that were given none; `None` if `stop`
    /// said so, which is asked after every step.
    ///
    /// # Errors
    /// Those of [`length::search`].
    pub fn hole_lengths(
        &mut self,
        frame: &Frame,
        sampler: &Sampler,
        max_hole: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lengths>> {
        let ModelConfig { attention, max_sequence_length: limit, .. } = *self.config();
        let Self { codec, predictor } = self;
        let special = &codec.special;
        let search = Search { frame, sampler, special, attention, max_hole, limit };
        length::search(predictor, &search, stop)
    }
}

/// The newest checkpoint in the folder of a run.
pub fn newest_checkpoint(run: &Path) -> Option<PathBuf> {
    train::checkpoints(run).ok()?.into_iter().rfind(|path| has_config(path))
}

/// Whether `path` is a GGUF file or a folder that describes a model or an adapter.
pub fn has_config(path: &Path) -> bool {
    let is_file = gguf::is_gguf(path) && path.is_file();
    is_file || path.join("config.json").is_file() || checkpoint::is_adapter(path)
}

/// What the model at `path` is called: its name on the hub, or that of its folder or file.
pub fn name(path: &Path) -> String {
    if let Some(repo) = hub::repo_of(path) {
        let file = path.file_stem().filter(|_| path.is_file());
        return match file {
            Some(file) => format!("{repo}:{}", file.to_string_lossy()),
            None => repo.to_string(),
        };
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if path.is_file() { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned())
}
