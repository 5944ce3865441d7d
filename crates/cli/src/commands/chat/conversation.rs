//! What was said, and how much of it the model is shown.

use anyhow::Result;
use llada::chat::Message;
use serde_json::{Value, json};

use crate::error::Failure;

const SYSTEM: &str = "system";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// The messages of a conversation; that of the system, if there is one, is the first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Message>,
}

/// The part of a conversation that the model is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Its messages.
    pub messages: Vec<Message>,
    /// Turns before it that are left out.
    pub dropped: usize,
}

impl Conversation {
    /// All messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Changes what the model is told before the conversation; an empty text takes it away.
    pub fn set_system(&mut self, text: &str) {
        let system = (!text.is_empty()).then(|| Message::new(SYSTEM, text));
        self.messages.splice(..self.opening(), system);
    }

    /// Takes in a message of the user.
    pub fn say(&mut self, text: &str) {
        self.messages.push(Message::new(USER, text));
    }

    /// Takes in the model's answer.
    pub fn answer(&mut self, text: &str) {
        self.messages.push(Message::new(ASSISTANT, text));
    }

    /// Forgets all but the system's message.
    pub fn reset(&mut self) {
        self.messages.truncate(self.opening());
    }

    /// Takes back the last turn: the user's last message and what follows it. `false` if there is
    /// none.
    pub fn undo(&mut self) -> bool {
        let last = self.turns().last().copied();
        self.messages.truncate(last.unwrap_or(self.messages.len()));
        last.is_some()
    }

    /// Takes back what follows the user's last message. `false` if there is none.
    pub fn unanswer(&mut self) -> bool {
        let last = self.turns().last().copied();
        self.messages.truncate(last.map_or(self.messages.len(), |turn| turn + 1));
        last.is_some()
    }

    /// Where each turn begins: at a message of the user.
    fn turns(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|&i| self.messages[i].role == USER).collect()
    }

    /// How many messages come before the conversation: that of the system, or none.
    fn opening(&self) -> usize {
        usize::from(self.messages.first().is_some_and(|m| m.role == SYSTEM))
    }

    /// As many of the last turns as fit into `room` tokens, after the system's message. Turns are
    /// left out whole, the oldest first. The tokens of the last turn alone if even they do not fit.
    pub fn window(
        &self,
        room: usize,
        count: impl Fn(&[Message]) -> Result<usize>,
    ) -> Result<Result<Window, usize>> {
        let turns = self.turns();
        let (system, all) = self.messages.split_at(self.opening());
        let mut messages = self.messages.clone();
        let mut dropped = 0;
        loop {
            let tokens = count(&messages)?;
            if tokens <= room {
                return Ok(Ok(Window { messages, dropped }));
            }
            dropped += 1;
            let Some(&start) = turns.get(dropped) else { return Ok(Err(tokens)) };
            messages = [system, &all[start - system.len()..]].concat();
        }
    }

    /// The conversation as OpenAI's API shapes it.
    pub fn to_json(&self) -> Value {
        json!({ "messages": self.messages })
    }

    /// Reads what [`Conversation::to_json`] wrote, or the list of messages alone.
    pub fn from_json(text: &str) -> Result<Self, Failure> {
        let refuse = |what: String| {
            let hint = r#"give `{"messages": [{"role": "user", "content": "…"}, …]}`"#;
            Failure::new(format!("this is no conversation: {what}"), hint)
        };
        let mut json: Value = serde_json::from_str(text).map_err(|e| refuse(e.to_string()))?;
        if let Some(messages) = json.get_mut("messages") {
            json = messages.take();
        }
        let messages: Vec<Message> =
            serde_json::from_value(json).map_err(|e| refuse(e.to_string()))?;
        for (i, Message { role, .. }) in messages.iter().enumerate() {
            match role.as_str() {
                SYSTEM if i > 0 => {
                    return Err(refuse(format!("message {} is of the system", i + 1)));
                }
                SYSTEM | USER | ASSISTANT => {}
                _ => return Err(refuse(format!("message {} is of the role `{role}`", i + 1))),
            }
        }
        Ok(Self { messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(turns: &[&str]) -> Conversation {
        let mut conversation = Conversation::default();
        for (i, text) in turns.iter().enumerate() {
            if i % 2 == 0 { conversation.say(text) } else { conversation.answer(text) }
        }
        conversation
    }

    fn shown(messages: &[Message]) -> String {
        messages.iter().map(|m| format!("{}|", m.content)).collect()
    }

    /// One token for each letter, and one for each message.
    fn letters(messages: &[Message]) -> Result<usize> {
        Ok(shown(messages).chars().count())
    }

    #[test]
    fn turns_can_be_taken_back() {
        let mut conversation = said(&["a", "b", "c", "d"]);
        assert!(conversation.unanswer());
        assert_eq!(conversation, said(&["a", "b", "c"]));
        assert!(conversation.undo());
        assert_eq!(conversation, said(&["a", "b"]));
        assert!(conversation.undo() && !conversation.undo() && !conversation.unanswer());
        conversation.set_system("be kind");
        conversation.say("a");
        conversation.set_system("be short");
        conversation.reset();
        assert_eq!(conversation.messages(), [Message::new("system", "be short")]);
        conversation.set_system("");
        assert_eq!(conversation, Conversation::default());
    }

    #[test]
    fn the_oldest_turns_are_left_out_whole() {
        let mut conversation = said(&["aaa", "bbb", "cc", "dd", "e"]);
        let at = |c: &Conversation, room| {
            c.window(room, letters).unwrap().map(|w| (w.dropped, shown(&w.messages)))
        };
        assert_eq!(at(&conversation, 99), Ok((0, "aaa|bbb|cc|dd|e|".into())));
        assert_eq!(at(&conversation, 15), Ok((1, "cc|dd|e|".into())));
        assert_eq!(at(&conversation, 7), Ok((2, "e|".into())));
        assert_eq!(at(&conversation, 1), Err(2));
        conversation.set_system("s");
        assert_eq!(at(&conversation, 10), Ok((1, "s|cc|dd|e|".into())));
        assert_eq!(at(&conversation, 9), Ok((2, "s|e|".into())));
        assert_eq!(at(&conversation, 3), Err(4));
        assert_eq!(at(&Conversation::default(), 0), Ok((0, String::new())));
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let mut conversation = said(&["a\n\"b\"", "c"]);
        conversation.set_system("s");
        let json = conversation.to_json();
        assert_eq!(json["messages"][1]["role"], "user");
        assert_eq!(Conversation::from_json(&json.to_string()).unwrap(), conversation);
        assert_eq!(Conversation::from_json(&json["messages"].to_string()).unwrap(), conversation);
        for wrong in [
            "",
            "{}",
            r#"{"messages": 3}"#,
            r#"[{"role": "user"}]"#,
            r#"[{"role": "tool", "content": ""}]"#,
            r#"[{"role": "user", "content": ""}, {"role": "system", "content": ""}]"#,
        ] {
            assert!(Conversation::from_json(wrong).is_err(), "{wrong}");
        }
    }
}
