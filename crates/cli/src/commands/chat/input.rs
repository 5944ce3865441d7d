//! What a line of the user means.

use llada::diffusion::settings::Key;

use crate::error::Failure;

/// The commands, as `/help` lists them.
pub const HELP: &str = "\
/system TEXT     what the model is told before the conversation; nothing takes it away
/reset, /new     forget the conversation, but not the system's message
/undo            take back the last message and its answer
/retry           answer the last message again, with other random draws
/save FILE       write the conversation as JSON, in the shape of OpenAI's messages
/load FILE       go on with a saved one
/set KEY VALUE   change how answers are sampled, such as `temperature 0.5`; `default` as VALUE
                 goes back; keys are those that /show lists
/show            list the settings and how much of the longest sequence is used
/quit            end, as Ctrl-D does
/help            this list
//TEXT           say a text that begins with a slash
\"\"\"TEXT\"\"\"       say a text of several lines; a pasted one needs no quotes
Alt-Enter        begin a new line
Ctrl-C           clear the line; on an empty one, twice, end
                 during an answer: stop it; what is certain of it stays
Tab, arrows      complete a command; edit the line, and recall earlier ones";

/// The commands, as they are completed.
pub const COMMANDS: [&str; 12] = [
    "/help", "/system", "/reset", "/new", "/undo", "/retry", "/save", "/load", "/set", "/show",
    "/quit", "/exit",
];

/// What stands around a text of several lines.
pub const QUOTES: &str = "\"\"\"";

/// Whether a text begins with quotes that are not closed.
pub fn is_open(text: &str) -> bool {
    quoted(text).is_some_and(|(_, is_closed)| !is_closed)
}

/// What stands between quotes, and whether they are closed; `None` of a text that does not begin with
/// them.
fn quoted(text: &str) -> Option<(&str, bool)> {
    let inner = text.trim().strip_prefix(QUOTES)?;
    Some(match inner.strip_suffix(QUOTES) {
        Some(inner) => (inner, true),
        None => (inner, false),
    })
}

/// A text without what keys send that are no characters (arrows, for one), and without other control
/// characters than line ends and tabs.
pub fn without_keys(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                Some('[') => skip_control_sequence(&mut chars),
                Some('O') => _ = chars.next(),
                // Strings to the terminal, up to their end: BEL, or ESC and a backslash.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\x07' || c == '\x1b' && chars.next_if_eq(&'\\').is_some() {
                            break;
                        }
                    }
                }
                _ => {}
            },
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\n' | '\t' => kept.push(c),
            c if c.is_control() => {}
            c => kept.push(c),
        }
    }
    kept
}

/// Skips the parameters of a control sequence and the letter that ends it.
fn skip_control_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|c| matches!(c, '\x20'..='\x3f')).is_some() {}
    chars.next_if(|c| matches!(c, '\x40'..='\x7e'));
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// Nothing.
    Empty,
    /// A message to the model.
    Say(&'a str),
    Help,
    /// The system's message.
    System(&'a str),
    Reset,
    Undo,
    Retry,
    /// Into this file.
    Save(&'a str),
    /// From this file.
    Load(&'a str),
    /// A setting and its value.
    Set(&'a str, &'a str),
    Show,
    Quit,
}

impl<'a> Input<'a> {
    /// Reads a line.
    pub fn parse(line: &'a str) -> Result<Self, Failure> {
        let line = line.trim();
        if let Some((text, _)) = quoted(line) {
            let text = text.trim();
            return Ok(if text.is_empty() { Self::Empty } else { Self::Say(text) });
        }
        let Some(command) = line.strip_prefix('/') else {
            return Ok(if line.is_empty() { Self::Empty } else { Self::Say(line) });
        };
        if command.starts_with('/') {
            return Ok(Self::Say(command));
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let alone = |input| match rest {
            "" => Ok(input),
            _ => Err(Failure::new(format!("`/{name}` takes nothing after it"), "leave it out")),
        };
        let needs = |what: &str| Failure::new(format!("`/{name}` needs {what}"), "see `/help`");
        match name {
            "help" | "?" => alone(Self::Help),
            "system" => Ok(Self::System(rest)),
            "reset" | "new" => alone(Self::Reset),
            "undo" => alone(Self::Undo),
            "retry" => alone(Self::Retry),
            "save" if !rest.is_empty() => Ok(Self::Save(rest)),
            "load" if !rest.is_empty() => Ok(Self::Load(rest)),
            "save" | "load" => Err(needs("a file")),
            "set" => match rest.split_once(|c: char| c.is_whitespace() || c == '=') {
                Some((key, value)) if !value.trim().is_empty() => Ok(Self::Set(key, value.trim())),
                _ => Err(Failure::new(
                    "`/set` needs a key and a value, such as `/set temperature 0.5`",
                    described(rest),
                )),
            },
            "show" => alone(Self::Show),
            "quit" | "exit" | "bye" => alone(Self::Quit),
            _ => {
                let hint = format!("`/help` lists the commands; `//{name}` says `/{name}`");
                Err(Failure::new(format!("there is no command `/{name}`"), hint))
            }
        }
    }
}

/// What a setting is and may be, where a key was typed.
fn described(key: &str) -> String {
    match Key::named(key) {
        Ok(key) => format!("`{}`: {}; {}", key.name, key.about(), key.kind.values()),
        Err(_) => "see `/help`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_or_commands() {
        for (line, expected) in [
            ("  \n", Input::Empty),
            (" Hi, /help me \r\n", Input::Say("Hi, /help me")),
            ("//quit now", Input::Say("/quit now")),
            ("/help", Input::Help),
            ("/system be kind ", Input::System("be kind")),
            ("/system", Input::System("")),
            ("/new", Input::Reset),
            ("/save a b.json", Input::Save("a b.json")),
            ("/set steps=4", Input::Set("steps", "4")),
            ("/set\tsteps  4", Input::Set("steps", "4")),
            ("/quit", Input::Quit),
        ] {
            assert_eq!(Input::parse(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_explained() {
        for line in ["/fly", "/save", "/load ", "/set", "/set steps", "/undo 3", "/", "/Help"] {
            assert!(Input::parse(line).is_err(), "{line}");
        }
        let error = Input::parse("/fly").unwrap_err();
        assert_eq!(error.to_string(), "there is no command `/fly`");
        let hint = described("top-p");
        assert!(hint.starts_with("`top_p`: Draw") && hint.ends_with("up to 1"), "{hint}");
    }

    #[test]
    fn quotes_hold_texts_of_several_lines() {
        for (text, expected) in [
            ("\"\"\"a\n/quit\"\"\"", Input::Say("a\n/quit")),
            ("\"\"\"\n/set x\n\"\"\"\n", Input::Say("/set x")),
            ("\"\"\"\"\"\"", Input::Empty),
            ("say \"\"\" this", Input::Say("say \"\"\" this")),
        ] {
            assert!(!is_open(text), "{text}");
            assert_eq!(Input::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["\"\"\"", " \"\"\"a\n", "\"\"\"a\"\"\"\nb", "\"\"\"\"\""] {
            assert!(is_open(text), "{text}");
        }
    }

    #[test]
    fn keys_are_no_text() {
        for (typed, text) in [
            ("\x1b[A\x1b[Bhi\x1b[D\x1b[1;5C", "hi"),
            ("\x1bOAup\x1bOP", "up"),
            ("\x1b[200~a\nb\x1b[201~", "a\nb"),
            ("\x1b]0;title\x07x\x1b]8;;u\x1b\\y", "xy"),
            ("\u{9b}31mred\u{9b}0m\x08\x7f\0", "red"),
            ("\x1b[", ""),
            ("\x1b", ""),
            ("Größe 王\t\u{1f600}", "Größe 王\t\u{1f600}"),
        ] {
            assert_eq!(without_keys(typed), text, "{typed:?}");
        }
    }

    #[test]
    fn every_command_is_listed_and_understood() {
        for command in COMMANDS {
            let is_known = |line: String| match Input::parse(&line) {
                Ok(_) => true,
                Err(error) => !error.to_string().contains("there is no command"),
            };
            assert!(is_known(command.to_owned()), "{command}");
            assert!(HELP.contains(command) || command == "/exit", "{command}");
        }
    }
}
