//! A model opened once, with all that belongs to it: tokenizer, chat template, special tokens, and how it
//! proposes to be sampled.

mod score;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use llada_kernels::Cpu;

use crate::{
    Result,
    chat::{Message, Template},
    checkpoint::{self, Checkpoint, gguf},
    config::{ModelConfig, Objective, SpecialTokens},
    constraint::{Automata, Automaton, Constraint},
    diffusion::{
        Blocks, Canvas, Prompt, Sampler, SamplerError, Settings, Step,
        blocks::AdaptiveBlocks,
        generate::{self, Summary},
        infill::{
            self, Encoder, Frame,
            length::{self, Lengths, Search},
        },
        settings::Request,
    },
    files, hub,
    model::MaskPredictor,
    rng::drawn_seed,
    tokenizer::Tokenizer,
    train,
};

/// A model ready to be used. Its parts are open to whoever needs them apart; together they make
/// prompts, samplers, canvases and texts.
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
    /// The model's name on the hub, or that of its folder or file.
    pub name: String,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, or LLaDA's where it has none.
    pub template: Template,
    /// Its special tokens.
    pub special: SpecialTokens,
    /// How the model proposes to be sampled.
    pub proposed: Settings,
    /// The model on the processor.
    pub predictor: MaskPredictor,
    /// Which tokens holes may take, once that was asked.
    choices: OnceLock<infill::SharedChoices>,
    /// Constraints over its tokens.
    automata: Automata,
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
        let parts = Self::of(tokenizer, template, predictor);
        Ok(Self { name: name(path), proposed, ..parts })
    }

    /// A model without a name that proposes nothing.
    pub fn of(tokenizer: Tokenizer, template: Template, mut predictor: MaskPredictor) -> Self {
        let special = checkpoint::special_tokens(&predictor.model().config, Some(&tokenizer));
        // The next turn of a conversation, or prompt of a list, begins as the one before.
        predictor.retain(1);
        let (name, proposed, choices) = (String::new(), Settings::NONE, OnceLock::new());
        let automata = Automata::default();
        Self { name, tokenizer, template, special, proposed, predictor, choices, automata }
    }

    /// Sizes and options of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.predictor.model().config
    }

    /// What the model was trained to do.
    pub fn objective(&self) -> Objective {
        self.config().objective
    }

    /// The tokens of a text that is to be continued as it is; an empty text is the beginning of a
    /// document, where training has an end of text.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match text.is_empty() {
            true => Ok(self.special.eos.into_iter().collect()),
            false => self.tokenizer.encode(text),
        }
    }

    /// The tokens of a conversation, up to where the assistant's next message begins. Special
    /// tokens that a message spells are text.
    ///
    /// # Errors
    /// If the template or the tokenizer refuses the messages.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.template.encode(&self.tokenizer, messages, true)
    }

    /// Whether prompts are messages to this model: its files state a chat template, and its
    /// tokenizer has the marks that the template writes.
    ///
    /// # Errors
    /// If the template cannot be applied.
    pub fn is_for_chat(&self) -> Result<bool> {
        Ok(self.tokenizer.has_chat_template() && self.knows_chat_marks()?)
    }

    /// Whether the marks of a conversation are tokens of this model, or its template writes none: one
    /// that lacks them was never fine-tuned.
    ///
    /// # Errors
    /// If the template cannot be applied.
    pub fn knows_chat_marks(&self) -> Result<bool> {
        let hello = [Message::new("user", "Hello")];
        let is_mark = |&id: &u32| self.tokenizer.is_special(id) && Some(id) != self.special.bos;
        Ok(self.encode_chat(&hello)?.iter().any(is_mark)
            || !self.template.render(&hello, true)?.contains("<|"))
    }

    /// The sampler for prompts of which the longest has so many tokens: what was `asked` for, then what
    /// the model proposes, then what a preset chooses. Without a seed one is drawn.
    ///
    /// # Errors
    /// If what was asked for contradicts itself, the model or the prompts, or what the model proposes
    /// contradicts itself.
    pub fn sampler(
        &self,
        asked: &Settings,
        longest: usize,
    ) -> std::result::Result<Sampler, SamplerError> {
        self.request(asked, &|| self.delimiters()).sampler(self.config(), longest)
    }

    /// As [`Session::sampler`] for answers in a conversation, which end where their text does.
    ///
    /// # Errors
    /// Those of [`Session::sampler`].
    pub fn chat_sampler(&self, asked: &Settings) -> std::result::Result<Sampler, SamplerError> {
        let delimiters = || self.delimiters();
        let request = Request { is_chat: true, ..self.request(asked, &delimiters) };
        request.sampler(self.config(), 0)
    }

    /// The sampler for the holes of a text, by what was `asked` for alone: without steps each of the
    /// tokens has one of its own. Without a seed one is drawn.
    ///
    /// # Errors
    /// If a setting needs another that is not made.
    pub fn infill_sampler(asked: &Settings) -> std::result::Result<Sampler, SamplerError> {
        let blocks = match asked.block_length.or(asked.suffix_window) {
            Some(_) => Blocks::SemiAutoregressive,
            None => Blocks::Pure,
        };
        let (steps, seed) = (usize::MAX, drawn_seed());
        asked.apply(Sampler { steps, gen_length: 0, blocks, seed, ..Sampler::default() })
    }

    /// What is asked of this model.
    fn request<'a>(
        &'a self,
        asked: &'a Settings,
        delimiters: &'a dyn Fn() -> AdaptiveBlocks,
    ) -> Request<'a> {
        Request { proposed: &self.proposed, ..Request::new(asked, delimiters) }
    }

    /// The tokens at which adaptive blocks end.
    pub fn delimiters(&self) -> AdaptiveBlocks {
        AdaptiveBlocks::of(&self.tokenizer)
    }

    /// A canvas for the response to `prompt`.
    ///
    /// # Errors
    /// If the sampler does not fit the model or the prompt.
    pub fn canvas(&self, prompt: Vec<u32>, sampler: &Sampler) -> Result<Canvas> {
        let prompt = Prompt::from(prompt);
        Ok(Canvas::new(prompt, sampler, &self.special, self.config().attention)?)
    }

    /// What an answer must be, compiled for this tokenizer, for
    /// [`Canvas::constrain`](crate::diffusion::Canvas::constrain). The last ones are kept.
    ///
    /// # Errors
    /// If the constraint is none, has parts that are not supported, or takes too much.
    pub fn automaton(&self, constraint: &Constraint) -> Result<Arc<Automaton>> {
        Ok(self.automata.of(constraint, &self.tokenizer, &self.special)?)
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

    /// The text of a response up to its end. A prompt with masks in it is a template to fill: the text
    /// is then the whole of it.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn text(&self, canvas: &Canvas) -> Result<String> {
        let prompt = &canvas.prompt().tokens;
        let is_template = prompt.iter().any(|&token| Some(token) == canvas.mask_token());
        let filled = if is_template { &canvas.tokens()[..prompt.len()] } else { &[] };
        let tokens: Vec<u32> = filled.iter().chain(canvas.useful()).copied().collect();
        self.tokenizer.decode(&tokens, true)
    }

    /// The text of a response that may not be done: what stands before its first mask.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn text_so_far(&self, canvas: &Canvas) -> Result<String> {
        let tokens = canvas.useful().iter().copied();
        let certain: Vec<u32> = tokens.take_while(|&t| Some(t) != canvas.mask_token()).collect();
        self.tokenizer.decode(&certain, true)
    }

    /// A text with holes, in tokens.
    ///
    /// # Errors
    /// If the tokenizer refuses the text.
    pub fn frame(&self, template: &infill::Template) -> Result<Frame> {
        let choices = self.choices.get_or_init(|| infill::SharedChoices::new(&self.tokenizer));
        Encoder::with(&self.tokenizer, choices.clone()).frame(template)
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
        let search = Search { frame, sampler, special: &self.special, attention, max_hole, limit };
        length::search(&mut self.predictor, &search, stop)
    }

    /// A canvas for holes of these lengths.
    ///
    /// # Errors
    /// If the sampler or the lengths do not fit the model or the text.
    pub fn infill(&self, frame: &Frame, lengths: &[usize], sampler: &Sampler) -> Result<Canvas> {
        let attention = self.config().attention;
        Ok(Canvas::infill(frame, lengths, sampler, &self.special, attention)?)
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
