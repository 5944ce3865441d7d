//! A model ready to be used: what every verb that runs one needs.

use std::{path::Path, time::Instant};

use anyhow::Result;
use llada::{
    chat::{Message, Template},
    checkpoint::{self, GENERATION_CONFIG},
    config::{ModelConfig, Objective, SpecialTokens},
    diffusion::{Canvas, Prompt, Sampler, Settings, blocks::AdaptiveBlocks},
    model::MaskPredictor,
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

use crate::{
    locate::{self, Shipped},
    term::Term,
    view::units,
};

/// A model with its tokenizer and chat template.
pub struct Session {
    /// Name of the model's folder or file.
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
}

impl Session {
    /// Loads the model in `model`, or the shipped one `otherwise`; 0 `threads` is one for each core.
    pub fn open(
        model: Option<&Path>,
        otherwise: Shipped,
        threads: usize,
        term: &Term,
    ) -> Result<Self> {
        let dir = locate::model(model, otherwise)?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let template = Template::from_dir(&dir)?;
        let proposed = checkpoint::load_generation_config(&dir)?;
        let begun = Instant::now();
        let model = checkpoint::load(&dir)?;
        tokenizer.check(&model.config)?;
        let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
        let cpu = Cpu::new(threads)?;
        term.detail(&format!(
            "{}: {} parameters, loaded in {}; kernels {}, {} threads",
            dir.display(),
            units::count(model.config.parameters() as u64),
            units::duration(begun.elapsed().as_secs_f64()),
            cpu.isa(),
            cpu.threads()
        ));
        if proposed != Settings::NONE {
            term.detail(&format!("{GENERATION_CONFIG}: {}", units::settings(&proposed)));
        }
        let name = locate::name(&dir);
        let mut predictor = MaskPredictor::new(model, cpu)?;
        // The next turn of a conversation, or prompt of a list, begins as the one before.
        predictor.retain(1);
        Ok(Self { name, tokenizer, template, special, proposed, predictor })
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
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match text.is_empty() {
            true => Ok(self.special.eos.into_iter().collect()),
            false => Ok(self.tokenizer.encode(text)?),
        }
    }

    /// The tokens of a conversation, up to where the assistant's next message begins. Special
    /// tokens that a message spells are text.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        Ok(self.template.encode(&self.tokenizer, messages, true)?)
    }

    /// Whether prompts are messages to this model: its files state a chat template, and its
    /// tokenizer has the marks that the template writes.
    pub fn is_for_chat(&self) -> Result<bool> {
        Ok(self.tokenizer.has_chat_template() && self.knows_marks()?)
    }

    /// Whether the marks of a conversation are tokens of this model, or its template writes none.
    fn knows_marks(&self) -> Result<bool> {
        let hello = [Message::new("user", "Hello")];
        let is_mark = |&id: &u32| self.tokenizer.is_special(id) && Some(id) != self.special.bos;
        Ok(self.encode_chat(&hello)?.iter().any(is_mark)
            || !self.template.render(&hello, true)?.contains("<|"))
    }

    /// Says so where the model cannot know the marks of a conversation: it was never fine-tuned.
    pub fn note_base_model(&self, term: &Term) -> Result<()> {
        if !self.knows_marks()? {
            term.note(&format!(
                "`{}` has no chat tokens: it is a base model, which continues text rather than \
                 answers; use `llada run`, or fine-tune it on conversations",
                self.name
            ));
        }
        Ok(())
    }

    /// The tokens at which adaptive blocks end.
    pub fn joints(&self) -> AdaptiveBlocks {
        AdaptiveBlocks::of(&self.tokenizer)
    }

    /// A canvas after `tokens`.
    pub fn canvas(&self, tokens: Vec<u32>, sampler: &Sampler) -> Result<Canvas> {
        let prompt = Prompt::from(tokens);
        let canvas = Canvas::new(prompt, sampler, &self.special, self.config().attention);
        Ok(canvas.map_err(llada::Error::from)?)
    }
}
