//! How probable the model of a session finds texts.

use std::ops::ControlFlow;

use super::Session;
use crate::{
    Codec, Result,
    chat::Message,
    diffusion::likelihood::{
        self, Alike, Draws, Estimate, Event, Evidence, EvidenceSettings, Pair, Settings, Window,
        encode_pair,
    },
};

impl Codec {
    /// The tokens of a text and of what may follow it, for [`Session::score`].
    ///
    /// # Errors
    /// If the tokenizer refuses a text, or the pair cannot be scored.
    pub fn pair(&self, prompt: &str, answer: &str) -> Result<Pair> {
        self.checked(encode_pair(&self.tokenizer, prompt, answer)?)
    }

    /// The tokens of a conversation and of an answer of the assistant.
    ///
    /// # Errors
    /// If the template or the tokenizer refuses a text, or the pair cannot be scored.
    pub fn chat_pair(&self, messages: &[Message], answer: &str) -> Result<Pair> {
        let prompt = self.encode_chat(messages)?;
        self.checked(Pair { prompt, answer: self.tokenizer.encode(answer)? })
    }

    fn checked(&self, pair: Pair) -> Result<Pair> {
        likelihood::check(self.config(), &self.special, &pair).map(|()| pair)
    }
}

impl Session {
    /// The log-likelihood of each pair, the same alone and in any company.
    ///
    /// # Errors
    /// Those of [`likelihood::score`].
    pub fn score(&mut self, pairs: &[Pair], settings: &Settings) -> Result<Vec<Estimate>> {
        let mut draws = Alike { seed: settings.seed };
        self.score_with(pairs, settings, &mut draws, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Session::score`], with noise from `draws`, and told of every forward pass.
    ///
    /// # Errors
    /// Those of [`likelihood::score`].
    pub fn score_with(
        &mut self,
        pairs: &[Pair],
        settings: &Settings,
        draws: &mut dyn Draws,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Vec<Estimate>> {
        let Self { predictor, codec } = self;
        likelihood::score_with(predictor, &codec.special, pairs, settings, draws, on_event)
    }

    /// Whether greedy decoding after the prompt gives exactly the answer.
    ///
    /// # Errors
    /// Those of [`likelihood::is_greedy`].
    pub fn is_greedy(&mut self, pair: &Pair, cfg_scale: f32) -> Result<bool> {
        likelihood::is_greedy(&mut self.predictor, &self.codec.special, pair, cfg_scale)
    }

    /// Plans to measure how well the model predicts running text.
    ///
    /// # Errors
    /// Those of [`Evidence::new`].
    pub fn evidence(&self, windows: Vec<Window>, settings: EvidenceSettings) -> Result<Evidence> {
        Evidence::new(self.config(), self.special.mask, windows, settings)
    }
}
