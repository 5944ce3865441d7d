//! How a conversation becomes rows: the prompt as it would be asked, then the response.

use crate::{
    chat::{Message, Template},
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

/// What makes rows out of conversations.
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
    /// Most tokens of a row, end of sequence included.
    pub longest: usize,
}

impl Encoder<'_> {
    /// The pairs of a dialogue that `row::messages` has checked, one for each turn of the
    /// assistant, and how many later ones are left out because they are too long.
    pub(super) fn dialogue(&self, messages: &[Message]) -> Result<(Vec<Pair>, u64), Reason> {
        let mut pairs = Vec::new();
        for (at, answer) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let (mut ids, response) = match self.template {
                Some(template) => self.chat(template, &messages[..=at])?,
                None => self.plain(&messages[..=at])?,
            };
            let prompt = ids.len();
            ids.extend(response);
            ids.push(self.eos);
            // Rows only grow with the turns.
            if ids.len() > self.longest {
                let left_out = messages[at..].iter().filter(|m| m.role == "assistant").count();
                return match pairs.is_empty() {
                    true => {
                        let (found, most) = (ids.len(), self.longest);
                        Err(format!("{found} tokens, longer than `data.sequence_length`, {most}"))
                    }
                    false => Ok((pairs, left_out as u64)),
                };
            }
            pairs.push(Pair { ids, prompt, bytes: answer.content.len() });
        }
        Ok((pairs, 0))
    }

    /// Prompt and response of the last message by the chat template, the prompt with the very tokens
    /// that it has when an answer is asked for.
    fn chat(
        &self,
        template: &Template,
        messages: &[Message],
    ) -> Result<(Vec<u32>, Vec<u32>), Reason> {
        let encoded = template.encode_answered(self.tokenizer, messages);
        let (prompt, mut response) = encoded.map_err(|e| e.to_string())?;
        // Some templates go on with the header of a next turn.
        if let Some(end) = response.iter().position(|&id| Some(id) == self.eot) {
            response.truncate(end + 1);
        }
        while response.last() == Some(&self.eos) {
            response.pop();
        }
        Ok((prompt, response))
    }

    fn plain(&self, messages: &[Message]) -> Result<(Vec<u32>, Vec<u32>), Reason> {
        let encode = |text: &str| self.tokenizer.encode_plain(text).map_err(|e| e.to_string());
        let (answer, before) = messages.split_last().ok_or("no message")?;
        let prompt: String = before.iter().map(|m| m.content.as_str()).collect();
        Ok((encode(&prompt)?, encode(&answer.content)?))
    }
}
