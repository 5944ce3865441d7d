//! What a line of the user means.

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
/show            list the settings and how full the model's row is
/quit            end, as Ctrl-D does
//TEXT           say a text that begins with a slash
Ctrl-C           stop an answer; what is certain of it is kept";

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
                _ => Err(needs("a key and a value, such as `/set temperature 0.5`")),
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
    }
}
