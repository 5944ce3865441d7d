//! `llada chat`: a conversation on the terminal, or one message on each line of stdin.

mod conversation;
mod history;
mod input;
mod local;
#[cfg(feature = "hub")]
mod remote;
mod settings;
mod typed;

use std::{ops::ControlFlow, path::Path, time::Duration};

use anyhow::{Context, Result};
use llada::{chat::Message, files};

use super::observer::Pace;
use crate::{
    args::{self, Talk},
    error::{self, Failure, Interrupted, StdoutClosed},
    interrupt::Flag,
    keys,
    term::{self, Term},
    view::units,
};
use conversation::Conversation;
use input::Input;
use local::Local;
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
    #[cfg(feature = "hub")]
    if let Some(url) = &args.server.url {
        let key = args.server.api_key.as_deref();
        let remote = remote::Remote::connect(url, key, args.model.named()?, &args.talk, term)?;
        return converse(Box::new(remote), None, &args.talk, term);
    }
    start(model, args.talk, term)
}

/// Whether a word in the place of a model can only be meant to be said.
fn is_message(word: &str) -> bool {
    word.trim().contains(char::is_whitespace) && !Path::new(word).exists()
}

/// Talks to `model`, or to the one that ships.
pub fn start(model: Option<&Path>, talk: Talk, term: &Term) -> Result<()> {
    let local = Local::open(model, &talk, term)?;
    let message = "stopping the answer; press Ctrl-C again to quit now";
    converse(Box::new(local), (!is_watched(&talk, term)).then_some(message), &talk, term)
}

/// Whether answers are drawn while they are unmasked.
fn is_watched(talk: &Talk, term: &Term) -> bool {
    !talk.no_watch && term.interactive
}

/// How long what is drawn stays.
fn pace(talk: &Talk) -> Pace {
    match talk.delay {
        None => Pace::Response(Duration::from_secs(1)),
        delay => Pace::of(delay),
    }
}

/// Who answers: a model of this machine, or a server.
trait Partner {
    /// Who it is, and what it can.
    fn greeting(&self) -> String;

    /// How much a sequence holds, where that is known.
    fn room(&self) -> Option<Room>;

    /// Tokens of `messages` as the model reads them; asked where there is a [`Room`].
    fn count(&self, messages: &[Message]) -> Result<usize>;

    /// Answers `messages`, prints the answer and gives its text: what there is of it once `stop` is set,
    /// and `None` if that was before it had a first word.
    fn answer(&mut self, messages: &[Message], stop: &Flag) -> Result<Option<String>>;

    /// Makes a setting.
    fn set(&mut self, key: &str, value: &str) -> Result<()>;

    /// The settings, one on each line.
    fn settings(&self) -> Vec<String>;
}

/// What a sequence holds.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Tokens of the longest sequence.
    longest: usize,
    /// Those that an answer takes.
    answer: usize,
}

impl Room {
    /// Tokens that an answer leaves to the conversation.
    fn left(self) -> usize {
        self.longest.saturating_sub(self.answer)
    }
}

/// Talks until the input ends; Ctrl-C during an answer says `stopping`.
fn converse(
    partner: Box<dyn Partner>,
    stopping: Option<&'static str>,
    talk: &Talk,
    term: &Term,
) -> Result<()> {
    let stop = Flag::listen(term, stopping)?;
    let conversation = Conversation::default();
    let mut chat = Chat { partner, conversation, dropped: 0, stop, term: *term };
    chat.conversation.set_system(talk.system.as_deref().unwrap_or(""));
    keys::remember();
    chat.converse(&mut Source::open(term, !talk.no_history)?)
}

/// A conversation under way.
struct Chat {
    partner: Box<dyn Partner>,
    conversation: Conversation,
    /// Turns that the last answer did not see.
    dropped: usize,
    stop: Flag,
    term: Term,
}

impl Chat {
    fn converse(&mut self, source: &mut Source) -> Result<()> {
        if source.is_typed() {
            let greeting = self.partner.greeting();
            self.term.note(&format!("{greeting}; /help lists commands, Ctrl-D ends"));
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
            Input::Set(key, value) => self.partner.set(key, value)?,
            Input::Show => self.show()?,
            Input::Quit => return Ok(ControlFlow::Break(())),
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Answers the last message. Where there is no answer the message is taken back.
    fn reply(&mut self) -> Result<()> {
        self.stop.set(false);
        let shown = self.window();
        let answer = shown.and_then(|messages| self.partner.answer(&messages, &self.stop));
        match &answer {
            Ok(Some(text)) => self.conversation.answer(text),
            Ok(None) | Err(_) => _ = self.conversation.undo(),
        }
        if answer?.is_none() {
            self.term.note("stopped before anything was certain; the message is taken back");
        }
        Ok(())
    }

    /// What of the conversation is shown to who answers.
    fn window(&mut self) -> Result<Vec<Message>> {
        let Some(room) = self.partner.room() else {
            return Ok(self.conversation.messages().to_vec());
        };
        let count = |messages: &[Message]| self.partner.count(messages);
        let window = self.conversation.window(room.left(), count)?.map_err(|needed| {
            let message = format!(
                "the message has {needed} tokens, with the system's if there is one; the model has \
                 room for {} beside an answer of {}",
                room.left(),
                room.answer
            );
            let hint = "say less, or make room with `/set gen_length N`";
            Failure::new(message, hint)
        })?;
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
        Ok(window.messages)
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

    fn show(&self) -> Result<()> {
        for line in self.partner.settings() {
            term::error_line(&line);
        }
        let messages = self.conversation.messages();
        let count = messages.len();
        term::error_line(&match self.partner.room() {
            Some(room) => {
                let used = self.partner.count(messages)?;
                let left = room.left();
                format!("{count} messages of {used} tokens; room for {left} beside an answer")
            }
            None => format!("{count} messages"),
        });
        Ok(())
    }
}
