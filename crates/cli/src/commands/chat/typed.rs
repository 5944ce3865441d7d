//! What a person types: lines that are edited in place, or lines of any other stream.

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result};
use rustyline::{
    Behavior, Cmd, CompletionType, ConditionalEventHandler, Config, Editor, Event, EventContext,
    EventHandler, Helper, KeyCode, KeyEvent, Modifiers, Movement, RepeatCount,
    completion::{Completer, FilenameCompleter, Pair},
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::{
    history::{self, Store},
    input::{self, COMMANDS},
};
use crate::{error::Failure, term::Term};
use llada::diffusion::Settings;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// A message or a command, perhaps of several lines.
    Text(String),
    /// Ctrl-C on an empty line.
    Interrupt,
    /// The end: Ctrl-D.
    End,
}

/// Where messages come from.
pub enum Source {
    /// A terminal, with everything that a line editor offers.
    Editor(Box<Editor<Words, FileHistory>>, Store),
    /// Any other stream, and terminals that cannot move their cursor.
    Lines {
        /// Whether somebody waits for a prompt.
        prompts: bool,
    },
}

const PROMPT: &str = "> ";

impl Source {
    /// Reads stdin; messages are saved for later chats where they are `remembered`.
    pub fn open(term: &Term, remembered: bool) -> Result<Self> {
        if !(io::stdin().is_terminal() && term.interactive) {
            let prompts = io::stdin().is_terminal() && io::stderr().is_terminal();
            return Ok(Self::Lines { prompts });
        }
        let config = Config::builder()
            .auto_add_history(false)
            .behavior(Behavior::PreferTerm)
            .bracketed_paste(true)
            .completion_type(CompletionType::List)
            .max_history_size(history::MOST)
            .and_then(|config| config.history_ignore_dups(true))
            .context("cannot set up the line editor")?
            .build();
        let history = FileHistory::with_config(&config);
        let mut editor =
            Editor::with_history(config, history).context("cannot open the terminal")?;
        editor.set_helper(Some(Words(FilenameCompleter::new())));
        let control = |c| KeyEvent(KeyCode::Char(c), Modifiers::CTRL);
        editor.bind_sequence(control('C'), EventHandler::Conditional(Box::new(ClearFirst)));
        // A new line without sending what is there.
        editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
        let store = Store::open(remembered);
        store.load(editor.history_mut());
        Ok(Self::Editor(Box::new(editor), store))
    }

    /// Whether a person types here.
    pub fn is_typed(&self) -> bool {
        !matches!(self, Self::Lines { prompts: false })
    }

    /// The next text. Keys that are no text, such as arrows, are not in it.
    pub fn next(&mut self, term: &Term) -> Result<Typed> {
        let text = match self {
            Self::Editor(editor, store) => match editor.readline(PROMPT) {
                Ok(text) => {
                    if !text.trim().is_empty() {
                        store.add(editor.history_mut(), &text);
                    }
                    text
                }
                Err(ReadlineError::Interrupted) => return Ok(Typed::Interrupt),
                Err(ReadlineError::Eof) => return Ok(Typed::End),
                // The line is lost, and what was read with it; the next one is not.
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(not_utf8().into());
                }
                Err(error) => return Err(error).context("cannot read from the terminal"),
            },
            Self::Lines { prompts } => {
                if *prompts {
                    term.draw(PROMPT);
                }
                match text_of(&mut io::stdin().lock())? {
                    Some(text) => text,
                    None => return Ok(Typed::End),
                }
            }
        };
        Ok(Typed::Text(input::without_keys(&text)))
    }
}

/// The next line, or all lines of a quoted text.
fn text_of(stream: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        stream.read_until(b'\n', &mut bytes).context("cannot read stdin")?;
        let text = String::from_utf8_lossy(&bytes);
        let is_over = bytes.len() == before;
        match (is_over, input::is_open(&text)) {
            (true, true) => {
                let message = format!("a text that begins with {} has no end", input::QUOTES);
                let hint = format!("end it with {}", input::QUOTES);
                return Err(Failure::new(message, hint).into());
            }
            (true, false) if bytes.is_empty() => return Ok(None),
            (_, false) => {
                return Ok(Some(String::from_utf8(bytes).map_err(|_| not_utf8())?));
            }
            (false, true) => {}
        }
    }
}

fn not_utf8() -> Failure {
    Failure::new("this line is not UTF-8 text", "set the terminal to UTF-8")
}

/// Ctrl-C clears a line that has something in it.
struct ClearFirst;

impl ConditionalEventHandler for ClearFirst {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        Some(match context.line().is_empty() {
            true => Cmd::Interrupt,
            false => Cmd::Kill(Movement::WholeBuffer),
        })
    }
}

/// Completes commands, settings and files, and knows when a quoted text goes on.
pub struct Words(FilenameCompleter);

impl Completer for Words {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        context: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        if ["/save ", "/load "].iter().any(|command| typed.starts_with(command)) {
            return self.0.complete(line, pos, context);
        }
        let (start, known): (usize, Vec<&str>) = match typed.strip_prefix("/set ") {
            Some(key) if !key.contains(char::is_whitespace) => (5, Settings::names().collect()),
            Some(_) => return Ok((pos, Vec::new())),
            None => (0, COMMANDS.into()),
        };
        Ok((start, candidates(&typed[start..], &known)))
    }
}

/// Those of the `known` words that begin as what was `typed`; of commands, only once a slash was.
fn candidates(typed: &str, known: &[&str]) -> Vec<Pair> {
    let is_command = known.first().is_some_and(|word| word.starts_with('/'));
    let fits = |word: &&&str| word.starts_with(typed) && (!is_command || !typed.is_empty());
    let pair = |word: &&str| Pair { display: (*word).to_owned(), replacement: format!("{word} ") };
    known.iter().filter(fits).map(pair).collect()
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match input::is_open(context.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_one_by_one_and_quoted_texts_as_a_whole() {
        let mut stream = "one\n\n\"\"\"two\nlines\"\"\"\n\"\"\"\nthree\n\"\"\"\nlast".as_bytes();
        let mut read = || text_of(&mut stream).unwrap();
        assert_eq!(read().unwrap(), "one\n");
        assert_eq!(read().unwrap(), "\n");
        assert_eq!(read().unwrap(), "\"\"\"two\nlines\"\"\"\n");
        assert_eq!(read().unwrap(), "\"\"\"\nthree\n\"\"\"\n");
        assert_eq!(read().unwrap(), "last");
        assert_eq!((read(), read()), (None, None));
        let mut open = "\"\"\"two\nlines".as_bytes();
        let error = text_of(&mut open).unwrap_err();
        assert!(error.to_string().contains("has no end"), "{error}");
        assert_eq!(text_of(&mut open).unwrap(), None);
    }

    #[test]
    fn commands_and_settings_are_completed() {
        let words = |typed, known: &[&str]| {
            candidates(typed, known).into_iter().map(|pair| pair.replacement).collect::<Vec<_>>()
        };
        assert_eq!(words("/re", &COMMANDS), ["/reset ", "/retry "]);
        assert!(words("", &COMMANDS).is_empty() && words("hello", &COMMANDS).is_empty());
        let names: Vec<_> = Settings::names().collect();
        assert_eq!(words("temp", &names), ["temperature "]);
        assert_eq!(words("", &names).len(), names.len());
    }
}
