//! `llada chat`: a conversation on the terminal, or one message on each line of stdin.

mod conversation;
mod history;
mod input;
mod settings;
mod typed;

use std::{ops::ControlFlow, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use llada::{
    Session,
    constraint::Automaton,
    diffusion::{Canvas, Sampler, Settings, Spelling, generate},
    files,
    rng::nth_seed,
};

use super::{
    constraint,
    observer::{Look, Observer, Pace},
};
use crate::{
    args::{self, Talk},
    error::{self, Failure, Interrupted, StdoutClosed},
    interrupt::Flag,
    keys,
    locate::Shipped,
    session,
    term::{self, Term},
    view::units,
};
use conversation::{Conversation, Window};
use input::Input;
use typed::{Source, Typed};

/// Largest conversation that is read.
const MAX_CONVERSATION: u64 = 64 << 20;

/// Reads messages and answers them until the input ends.
pub fn run(args: args::Chat, term: &Term) -> Result<()> {
    let model = args.model.get()?;
    if let Some(text) = model.and_then(Path::to_str).filter(|text| is_message(text)) {
        let message = format!("`{text}` is no model, and a message is not an argument of a chat");
        let hint = "`llada run MODEL \"TEXT\"` answers one message; `llada chat [MODEL]` reads them from \
                    the terminal, or one from each line of stdin";
        return Err(Failure::usage(message, hint).into());
    }
    start(model, args.talk, term)
}

/// Whether a word in the place of a model can only be meant to be said.
fn is_message(word: &str) -> bool {
    word.trim().contains(char::is_whitespace) && !Path::new(word).exists()
}

/// Talks to `model`, or to the one that ships.
pub fn start(model: Option<&Path>, talk: Talk, term: &Term) -> Result<()> {
    let constraint = constraint::read(&talk.constraint)?;
    let session = session::open(model, Shipped::Tuned, talk.threads.threads.into(), term)?;
    session::note_base_model(&session, term)?;
    let asked = talk.sampler.settings.clone();
    let sampler = session.chat_sampler(&asked);
    let sampler = sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))?;
    let automaton = constraint.map(|c| session.automaton(&c)).transpose()?;
    let is_watched = !talk.no_watch && term.interactive;
    let message = "stopping the answer; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, (!is_watched).then_some(message))?;
    let pace = match talk.delay {
        None => Pace::Response(Duration::from_secs(1)),
        delay => Pace::of(delay),
    };
    let mut chat = Chat {
        session,
        conversation: Conversation::default(),
        settings: Settings { seed: Some(sampler.seed), ..asked },
        sampler,
        automaton,
        answers: 0,
        dropped: 0,
        is_watched,
        pace,
        stop,
        term: *term,
    };
    chat.conversation.set_system(talk.system.as_deref().unwrap_or(""));
    keys::remember();
    chat.converse(&mut Source::open(term, !talk.no_history)?)
}

/// A conversation under way.
struct Chat {
    session: Session,
    conversation: Conversation,
    /// What was asked of the sampler, by flags or `/set`.
    settings: Settings,
    sampler: Sampler,
    /// What every answer must be.
    automaton: Option<Arc<Automaton>>,
    /// Answers begun. Each has a seed of its own, so that the same lines with the same seed give the
    /// same conversation.
    answers: u64,
    /// Turns that the last answer did not see.
    dropped: usize,
    is_watched: bool,
    pace: Pace,
    stop: Flag,
    term: Term,
}

impl Chat {
    fn converse(&mut self, source: &mut Source) -> Result<()> {
        if source.is_typed() {
            self.term.note(&format!(
                "{}: sequences of {} tokens, answers of up to {}; /help lists commands, Ctrl-D ends",
                self.session.name,
                self.session.config().max_sequence_length,
                self.sampler.gen_length
            ));
        }
        let mut failures = 0;
        let mut was_interrupted = false;
        loop {
            // Between answers Ctrl-C ends the program, unless a line editor takes it.
            self.stop.set(true);
            let reaction = match source.next(&self.term) {
                Ok(Typed::End) => break,
                Ok(Typed::Interrupt) if was_interrupted => return Err(Interrupted.into()),
                Ok(Typed::Interrupt) => {
                    self.term.note("press Ctrl-C again to end, or Ctrl-D");
                    was_interrupted = true;
                    continue;
                }
                Ok(Typed::Text(text)) => self.react(&text),
                Err(failure) if failure.is::<Failure>() => Err(failure),
                Err(failure) => return Err(failure),
            };
            was_interrupted = false;
            match reaction {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(failure) if failure.is::<StdoutClosed>() => return Err(failure),
                Err(failure) => {
                    failures += 1;
                    error::report(&failure);
                }
            }
        }
        match failures {
            0 => Ok(()),
            // Whoever types has seen them; a script learns of them by the exit code.
            _ if source.is_typed() => Ok(()),
            n => {
                let message = format!("{n} of the lines failed");
                Err(Failure::new(message, "see the errors above").into())
            }
        }
    }

    /// Does what a line asks for.
    fn react(&mut self, line: &str) -> Result<ControlFlow<()>> {
        match Input::parse(line)? {
            Input::Empty => {}
            Input::Say(text) => {
                self.conversation.say(text);
                self.reply()?;
            }
            Input::Help => term::error_line(input::HELP),
            Input::System(text) => self.conversation.set_system(text),
            Input::Reset => self.conversation.reset(),
            Input::Undo if self.conversation.undo() => {}
            Input::Retry if self.conversation.unanswer() => self.reply()?,
            Input::Undo | Input::Retry => {
                return Err(Failure::new("nothing was said yet", "write a message").into());
            }
            Input::Save(file) => self.save(Path::new(file))?,
            Input::Load(file) => self.load(Path::new(file))?,
            Input::Set(key, value) => self.set(key, value)?,
            Input::Show => self.show()?,
            Input::Quit => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers the last message. Where there is no answer the message is taken back.
    fn reply(&mut self) -> Result<()> {
        let answer = self.answer();
        match &answer {
            Ok(Some(text)) => self.conversation.answer(text),
            Ok(None) | Err(_) => _ = self.conversation.undo(),
        }
        match answer? {
            Some(text) => term::answer(&text),
            None => {
                self.term.note("stopped before anything was certain; the message is taken back");
                Ok(())
            }
        }
    }

    /// The answer to the last message; `None` if it was stopped before it had a first word.
    fn answer(&mut self) -> Result<Option<String>> {
        let window = self.window()?;
        if window.dropped != self.dropped && window.dropped > 0 {
            let turns = match window.dropped {
                1 => "its first turn is".to_owned(),
                n => format!("its first {n} turns are"),
            };
            self.term.note(&format!(
                "the conversation is longer than the model's longest sequence: {turns} left out"
            ));
        }
        self.dropped = window.dropped;
        let seed = nth_seed(self.sampler.seed, self.answers);
        let sampler = Sampler { seed, ..self.sampler.clone() };
        let mut canvas = self.session.canvas(window.tokens, &sampler)?;
        if let Some(automaton) = &self.automaton {
            canvas.constrain(Arc::clone(automaton)).map_err(llada::Error::from)?;
        }
        self.answers += 1;
        self.stop.set(false);
        let (canvas, summary) = self.generate(canvas)?;
        self.term.detail(&format!(
            "{} NFE · {} tokens after {} · {} left for the conversation",
            summary.nfe,
            summary.useful_tokens,
            canvas.prompt().tokens.len(),
            self.room()
        ));
        let text = self.session.text_so_far(&canvas)?.trim().to_owned();
        Ok((!summary.interrupted || !text.is_empty()).then_some(text))
    }

    fn generate(&mut self, canvas: Canvas) -> Result<(Canvas, generate::Summary)> {
        let mut canvases = [canvas];
        let Session { predictor, codec } = &mut self.session;
        let look =
            Look { watch: self.is_watched, response_only: true, pace: self.pace, trace: None };
        let mut observer =
            Observer::new(look, &canvases, &codec.tokenizer, &codec.name, &self.term);
        let summary = observer.follow(predictor, &mut canvases, &self.stop, |_| {});
        observer.erase()?;
        let [canvas] = canvases;
        Ok((canvas, summary?))
    }

    /// Tokens of a sequence that an answer leaves to the conversation.
    fn room(&self) -> usize {
        self.session.config().max_sequence_length - self.sampler.gen_length
    }

    fn window(&self) -> Result<Window> {
        let room = self.room();
        let encode = |messages: &[_]| Ok(self.session.encode_chat(messages)?);
        self.conversation.window(room, encode)?.map_err(|needed| {
            let message = format!(
                "the message has {needed} tokens, with the system's if there is one; the model has \
                 room for {room} beside an answer of {}",
                self.sampler.gen_length
            );
            let hint = "say less, or make room with `/set gen_length N`";
            Failure::new(message, hint).into()
        })
    }

    /// Writes the conversation, whole or not at all.
    fn save(&self, file: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.conversation.to_json());
        files::write(file, text.as_bytes())?;
        self.term.note(&format!("wrote {}", file.display()));
        Ok(())
    }

    fn load(&mut self, file: &Path) -> Result<()> {
        let failed = || format!("cannot read `{}`", file.display());
        let text = files::read_text(file, MAX_CONVERSATION)?;
        self.conversation = Conversation::from_json(&text).with_context(failed)?;
        let count = self.conversation.messages().len();
        self.term.note(&format!("read {} messages", units::thousands(count as u64)));
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let mut settings = self.settings.clone();
        let refuse = |error| Failure::sampler(error, Spelling::Command);
        settings.set(key, value).map_err(refuse)?;
        self.sampler = self.session.chat_sampler(&settings).map_err(refuse)?;
        if key == "seed" {
            self.answers = 0;
        }
        self.settings = Settings { seed: Some(self.sampler.seed), ..settings };
        Ok(())
    }

    fn show(&self) -> Result<()> {
        for line in settings::list(&self.sampler) {
            term::error_line(&line);
        }
        let used = self.session.encode_chat(self.conversation.messages())?.len();
        let messages = self.conversation.messages().len();
        term::error_line(&format!(
            "{messages} messages of {used} tokens; room for {} beside an answer",
            self.room()
        ));
        Ok(())
    }
}
