//! How a conversation becomes sequences: the prompt as it would be asked, then the response.

use crate::{
    chat::{Answered, Message, Template},
    tokenizer::Tokenizer,
};

/// What is wrong with a conversation, to stand after its place.
type Reason = String;

/// A prompt and its response. The response ends with one end of sequence, which is part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    ids: Vec<u32>,
    prompt: usize,
    bytes: usize,
}

impl Pair {
    /// The tokens of the prompt and then those of the response.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of the prompt.
    pub fn prompt_len(&self) -> usize {
        self.prompt
    }

    /// Tokens of the response, its end of sequence included.
    pub fn answer_len(&self) -> usize {
        self.ids.len() - self.prompt
    }

    /// Bytes of the response's text.
    pub fn answer_bytes(&self) -> usize {
        self.bytes
    }
}

/// A conversation as sequences.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) pairs: Vec<Pair>,
    /// Later turns left out because they are too long.
    pub(super) long_turns: u64,
    /// Whether the template writes a prompt otherwise once it is answered.
    pub(super) rewritten: bool,
}

/// What makes sequences out of conversations.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The model's chat template; without one, contents follow each other directly.
    pub template: Option<&'a Template>,
    /// End of sequence.
    pub eos: u32,
    /// End of a turn, where the tokenizer has one.
    pub eot: Option<u32>,
    /// Most tokens of a sequence, end of sequence included.
    pub longest: usize,
}

impl Encoder<'_> {
    /// The pairs of a dialogue that `row::messages` has checked, one for each turn of the
    /// assistant.
    pub(super) fn dialogue(&self, messages: &[Message]) -> Result<Laid, Reason> {
        let mut laid = Laid::default();
        for (at, answer) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let answered = match self.template {
                Some(template) => self.chat(template, &messages[..=at])?,
                None => self.plain(&messages[..=at])?,
            };
            let (mut ids, response) = (answered.prompt, answered.answer);
            let prompt = ids.len();
            ids.extend(response);
            ids.push(self.eos);
            // Sequences only grow with the turns.
            if ids.len() > self.longest {
                if laid.pairs.is_empty() {
                    let (found, most) = (ids.len(), self.longest);
                    return Err(format!(
                        "{found} tokens, longer than `data.sequence_length`, {most}"
                    ));
                }
                let left_out = messages[at..].iter().filter(|m| m.role == "assistant").count();
                laid.long_turns = left_out as u64;
                break;
            }
            laid.rewritten |= answered.rewritten;
            laid.pairs.push(Pair { ids, prompt, bytes: answer.content.len() });
        }
        Ok(laid)
    }

    /// Prompt and response of the last message by the chat template, the prompt with the very
    /// tokens that it has when an answer is asked for wherever the template allows it.
    fn chat(&self, template: &Template, messages: &[Message]) -> Result<Answered, Reason> {
        let encoded = template.encode_answered(self.tokenizer, messages);
        let mut answered = encoded.map_err(|e| e.to_string())?;
        let response = &mut answered.answer;
        // Some templates go on with the header of a next turn.
        if let Some(end) = response.iter().position(|&id| Some(id) == self.eot) {
            response.truncate(end + 1);
        }
        while response.last() == Some(&self.eos) {
            response.pop();
        }
        Ok(answered)
    }

    fn plain(&self, messages: &[Message]) -> Result<Answered, Reason> {
        let encode = |text: &str| self.tokenizer.encode_plain(text).map_err(|e| e.to_string());
        let (answer, before) = messages.split_last().ok_or("no message")?;
        let prompt: String = before.iter().map(|m| m.content.as_str()).collect();
        let (prompt, answer) = (encode(&prompt)?, encode(&answer.content)?);
        Ok(Answered { prompt, answer, rewritten: false })
    }
}
