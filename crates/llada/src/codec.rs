//! What goes into a model and comes out of it: texts, messages and settings on the one side, tokens,
//! samplers and canvases on the other. It knows the model's files but not its weights, so that many may
//! use it while the model is at work.

use std::sync::{Arc, OnceLock};

use crate::{
    Result,
    chat::{Message, Template},
    checkpoint,
    config::{ModelConfig, Objective, SpecialTokens},
    constraint::{Automata, Automaton, Constraint},
    diffusion::{
        Blocks, Canvas, Prompt, Sampler, SamplerError, Settings,
        blocks::AdaptiveBlocks,
        infill::{self, Encoder, Frame},
        settings::Request,
    },
    rng::drawn_seed,
    tokenizer::Tokenizer,
};

/// Tokenizer, chat template and special tokens of a model, and how it proposes to be sampled.
#[derive(Debug, Clone)]
pub struct Codec {
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
    config: ModelConfig,
    /// Which tokens holes may take, once that was asked.
    choices: OnceLock<infill::SharedChoices>,
    /// Constraints over its tokens.
    automata: Arc<Automata>,
}

impl Codec {
    /// That of a model without a name that proposes nothing.
    pub fn new(tokenizer: Tokenizer, template: Template, config: &ModelConfig) -> Self {
        let special = checkpoint::special_tokens(config, Some(&tokenizer));
        let (name, proposed, choices) = (String::new(), Settings::NONE, OnceLock::new());
        let (config, automata) = (config.clone(), Arc::default());
        Self { name, tokenizer, template, special, proposed, config, choices, automata }
    }

    /// Sizes and options of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
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

    /// As [`Codec::sampler`] for answers in a conversation, which end where their text does.
    ///
    /// # Errors
    /// Those of [`Codec::sampler`].
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

    /// A canvas for holes of these lengths.
    ///
    /// # Errors
    /// If the sampler or the lengths do not fit the model or the text.
    pub fn infill(&self, frame: &Frame, lengths: &[usize], sampler: &Sampler) -> Result<Canvas> {
        let attention = self.config().attention;
        Ok(Canvas::infill(frame, lengths, sampler, &self.special, attention)?)
    }
}
