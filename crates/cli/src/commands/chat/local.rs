//! A model of this machine that answers.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use llada::{
    Session,
    chat::Message,
    constraint::Automaton,
    diffusion::{Canvas, Sampler, Settings, Spelling, generate},
    rng::nth_seed,
};

use super::{Partner, Room, is_watched, pace, settings};
use crate::{
    args::Talk,
    commands::{
        constraint,
        observer::{Look, Observer},
    },
    error::Failure,
    interrupt::Flag,
    locate::Shipped,
    session,
    term::{self, Term},
};

/// A model, and how it is asked.
pub struct Local {
    session: Session,
    /// What was asked of the sampler, by flags or `/set`.
    asked: Settings,
    sampler: Sampler,
    /// What every answer must be.
    automaton: Option<Arc<Automaton>>,
    /// Answers begun. Each has a seed of its own, so that the same lines with the same seed give the
    /// same conversation.
    answers: u64,
    look: Look<'static>,
    term: Term,
}

impl Local {
    /// Opens `model`, or the one that ships.
    pub fn open(model: Option<&Path>, talk: &Talk, term: &Term) -> Result<Self> {
        let constraint = constraint::read(&talk.constraint)?;
        let session = session::open(
            model,
            Shipped::Tuned,
            &talk.machine.sampling(&talk.sampler.settings),
            term,
        )?;
        session::note_base_model(&session, term)?;
        let asked = talk.sampler.settings.clone();
        let sampler = session.chat_sampler(&asked);
        let sampler = sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))?;
        let automaton = constraint.map(|c| session.automaton(&c)).transpose()?;
        let asked = Settings { seed: Some(sampler.seed), ..asked };
        let (watch, pace) = (is_watched(talk, term), pace(talk));
        let look = Look { watch, response_only: true, pace, trace: None };
        Ok(Self { session, asked, sampler, automaton, answers: 0, look, term: *term })
    }

    fn generate(&mut self, canvas: Canvas, stop: &Flag) -> Result<(Canvas, generate::Summary)> {
        let mut canvases = [canvas];
        let Session { predictor, codec } = &mut self.session;
        let mut observer =
            Observer::new(self.look, &canvases, &codec.tokenizer, &codec.name, &self.term);
        let summary = observer.follow(predictor, &mut canvases, stop, |_| {});
        observer.erase()?;
        let [canvas] = canvases;
        Ok((canvas, summary?))
    }

    fn space(&self) -> Room {
        let longest = self.session.config().max_sequence_length;
        Room { longest, answer: self.sampler.gen_length }
    }
}

impl Partner for Local {
    fn greeting(&self) -> String {
        let Room { longest, answer } = self.space();
        format!("{}: sequences of {longest} tokens, answers of up to {answer}", self.session.name)
    }

    fn room(&self) -> Option<Room> {
        Some(self.space())
    }

    fn count(&self, messages: &[Message]) -> Result<usize> {
        Ok(self.session.encode_chat(messages)?.len())
    }

    fn answer(&mut self, messages: &[Message], stop: &Flag) -> Result<Option<String>> {
        let tokens = self.session.encode_chat(messages)?;
        let seed = nth_seed(self.sampler.seed, self.answers);
        let mut canvas = self.session.canvas(tokens, &Sampler { seed, ..self.sampler.clone() })?;
        if let Some(automaton) = &self.automaton {
            canvas.constrain(Arc::clone(automaton)).map_err(llada::Error::from)?;
        }
        self.answers += 1;
        let (canvas, summary) = self.generate(canvas, stop)?;
        self.term.detail(&format!(
            "{} NFE · {} tokens after {} · {} left for the conversation",
            summary.nfe,
            summary.useful_tokens,
            canvas.prompt().tokens.len(),
            self.space().left()
        ));
        let text = self.session.text_so_far(&canvas)?.trim().to_owned();
        if summary.interrupted && text.is_empty() {
            return Ok(None);
        }
        term::answer(&text)?;
        Ok(Some(text))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let mut asked = self.asked.clone();
        let refuse = |error| Failure::sampler(error, Spelling::Command);
        asked.set(key, value).map_err(refuse)?;
        self.sampler = self.session.chat_sampler(&asked).map_err(refuse)?;
        if key == "seed" {
            self.answers = 0;
        }
        self.asked = Settings { seed: Some(self.sampler.seed), ..asked };
        Ok(())
    }

    fn settings(&self) -> Vec<String> {
        settings::list(&Settings::of(&self.sampler))
    }
}
