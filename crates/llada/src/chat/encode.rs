//! A conversation as tokens, such that nobody who writes a message can write a special token.

#[cfg(test)]
mod tests;

use std::ops::Range;

use serde_json::Value as Json;

use super::{ChatError, Conversation, Message, Template, message};
use crate::{
    Result,
    jinja::{GENERATION_END, GENERATION_START},
    tokenizer::Tokenizer,
};

/// A conversation as tokens, cut where its last answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What comes before the answer.
    pub prompt: Vec<u32>,
    /// The answer, and what the template ends it with.
    pub answer: Vec<u32>,
    /// Whether the prompt is another one than asks for the answer, because the template writes it
    /// otherwise once it is answered.
    pub rewritten: bool,
}

/// A part of a rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece<'a> {
    /// Text of the template, in which special tokens count.
    Template(&'a str),
    /// The content of the message with this number.
    Content(usize),
}

impl Template {
    /// The tokens of a conversation; with `add_generation_prompt` up to where the assistant's next
    /// message begins. The special tokens are those of the template alone: `<|eot_id|>` in a
    /// message is read as the characters that it consists of.
    ///
    /// The text is encoded as a whole, as `apply_chat_template` of `transformers` does, unless a
    /// message spells a special token. Then template and contents are encoded apart, which gives the
    /// same tokens wherever the tokenizer cuts at their borders anyway, as with LLaDA's template.
    ///
    /// # Errors
    /// When the template refuses the messages, the tokenizer the text, or a role spells a special
    /// token; or when a message does, and the template changes it (more than by trimming) so that
    /// it cannot be told apart.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        self.encode_with_tools(tokenizer, messages, None, add_generation_prompt)
    }

    /// As [`encode`](Self::encode), of a conversation in which the model may call `tools`, a list of
    /// JSON schemas.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and when a tool spells a special token.
    pub fn encode_with_tools(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>> {
        refuse_special(tokenizer, messages)?;
        if let Some(tools) = tools {
            refuse_special_in(tokenizer, message::texts(tools))?;
        }
        let Rendered { text, stencil } = self.rendered(messages, tools, add_generation_prompt)?;
        self.tokens(tokenizer, messages, &text, &stencil)
    }

    /// The tokens of a conversation that ends with an answer, cut where the answer begins.
    ///
    /// Where the template marks what the assistant says (`{% generation %}`), the answer is what it
    /// marks in the last message. Otherwise the prompt is what asks for the answer, as
    /// [`encode`](Self::encode) gives it, unless the template writes the prompt otherwise once it
    /// is answered: then the answer is all that differs from what asks for it.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); when a template that marks answers marks nothing in the last
    /// message; and when a template that writes the prompt otherwise also changes what is before
    /// the last message, so that what it adds cannot be told from it.
    pub fn encode_answered(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Answered> {
        refuse_special(tokenizer, messages)?;
        let before = &messages[..messages.len().saturating_sub(1)];
        if self.marks {
            return self.encode_marked(tokenizer, messages, before);
        }
        let asked = self.rendered(before, None, true)?;
        let answered = self.rendered(messages, None, false)?;
        self.check_answered(messages, &answered.stencil, |contents| self.render(contents, false))?;
        let prompt = self.tokens(tokenizer, before, &asked.text, &asked.stencil)?;
        let text = answered.text.strip_prefix(&asked.text);
        if let (Some(text), Some(stencil)) = (text, answered.stencil.strip_prefix(&asked.stencil)) {
            let answer = self.tokens(tokenizer, messages, text, stencil)?;
            return Ok(Answered { prompt, answer, rewritten: false });
        }
        let common = common_prefix(&asked.stencil, &answered.stencil);
        let added = pieces(&answered.stencil[common..], messages.len());
        let others = added.iter().any(|p| matches!(p, Piece::Content(i) if *i < before.len()));
        if others {
            return Err(ChatError::Rewritten { origin: self.origin.clone() }.into());
        }
        let mut all = self.tokens(tokenizer, messages, &answered.text, &answered.stencil)?;
        let same = prompt.iter().zip(&all).take_while(|(a, b)| a == b).count();
        let answer = all.split_off(same);
        Ok(Answered { prompt: all, answer, rewritten: true })
    }

    /// [`encode_answered`](Self::encode_answered) by the marks of the template.
    fn encode_marked(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        before: &[Message],
    ) -> Result<Answered> {
        let unmarked = || ChatError::Unmarked { origin: self.origin.clone() };
        let earlier = self.spans(before)?.1.len();
        let (text, spans) = self.spans(messages)?;
        let last = spans.get(earlier..).unwrap_or_default();
        let (Some(first), Some(last)) = (last.first(), last.last()) else {
            return Err(unmarked().into());
        };
        let contents: Vec<Message> = messages.iter().enumerate().map(stencil).collect();
        let (whole, places) = self.spans(&contents)?;
        if places.len() != spans.len() {
            return Err(unmarked().into());
        }
        let (start, end) = (places[earlier].start, places[places.len() - 1].end);
        self.check_answered(messages, &whole[start..end], |contents| {
            let (text, spans) = self.spans(contents)?;
            let spans = spans.get(earlier..).unwrap_or_default();
            Ok(spans.iter().map(|span| &text[span.clone()]).collect())
        })?;
        let encode = |text: &str, stencil: &str| self.tokens(tokenizer, messages, text, stencil);
        Ok(Answered {
            prompt: encode(&text[..first.start], &whole[..start])?,
            answer: encode(&text[first.start..last.end], &whole[start..end])?,
            rewritten: false,
        })
    }

    /// Refuses a template for which the last message, an answer, changes nothing; `stencil` is the part
    /// that should show it, and `part` makes it of other contents.
    fn check_answered(
        &self,
        messages: &[Message],
        stencil: &str,
        part: impl Fn(&[Message]) -> Result<String>,
    ) -> Result<()> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        if stencil.contains(&stand_in(last)) {
            return Ok(());
        }
        // What does something else with an answer than to show it still depends on it.
        let with = |answer: &str| {
            let mut contents: Vec<Message> =
                messages.iter().enumerate().map(self::stencil).collect();
            contents[last].content = answer.to_owned();
            part(&contents)
        };
        match with("a")? == with("Bc d")? {
            true => Err(ChatError::Unanswered { origin: self.origin.clone() }.into()),
            false => Ok(()),
        }
    }

    /// A conversation as text, and where in it the template says that the assistant speaks.
    fn spans(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>)> {
        let messages: Vec<_> = messages.iter().map(Message::json).collect();
        let conversation = Conversation { messages, tools: None, documents: None };
        let plain = self.render_conversation(&conversation, false)?;
        // A mark that nobody has written.
        let unused = |mark: &String| {
            !plain.contains(&format!("{GENERATION_START}{mark}{GENERATION_START}"))
                && !plain.contains(&format!("{GENERATION_END}{mark}{GENERATION_END}"))
        };
        let mark = (1..).map(|n: u64| n.to_string()).find(unused).unwrap_or_default();
        let marked = self.marked(&conversation, false, Some(&mark))?;
        let [open, close] =
            [GENERATION_START, GENERATION_END].map(|end| format!("{end}{mark}{end}"));
        let (mut text, mut spans, mut starts) = (String::new(), Vec::new(), Vec::new());
        let mut rest = marked.as_str();
        loop {
            let (opens, closes) = (rest.find(&open), rest.find(&close));
            let next = match (opens, closes) {
                (Some(at), closes) if closes.is_none_or(|close| at < close) => (at, &open),
                (_, Some(at)) => (at, &close),
                _ => break,
            };
            text.push_str(&rest[..next.0]);
            rest = &rest[next.0 + next.1.len()..];
            if *next.1 == open {
                starts.push(text.len());
            } else if let Some(start) = starts.pop()
                && starts.is_empty()
            {
                spans.push(start..text.len());
            }
        }
        text.push_str(rest);
        match text == plain {
            true => Ok((text, spans)),
            false => Err(ChatError::Unmarked { origin: self.origin.clone() }.into()),
        }
    }

    fn rendered(
        &self,
        messages: &[Message],
        tools: Option<&Json>,
        add_generation_prompt: bool,
    ) -> Result<Rendered> {
        let render = |messages: &[Message]| {
            let messages = messages.iter().map(Message::json).collect();
            let conversation = Conversation { messages, tools: tools.cloned(), documents: None };
            self.render_conversation(&conversation, add_generation_prompt)
        };
        let stencil: Vec<Message> = messages.iter().enumerate().map(stencil).collect();
        Ok(Rendered { text: render(messages)?, stencil: render(&stencil)? })
    }

    /// The tokens of `text`, which a rendered conversation ends with or consists of; `stencil` is
    /// the same part of its stencil.
    fn tokens(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        text: &str,
        stencil: &str,
    ) -> Result<Vec<u32>> {
        let whole = tokenizer.encode(text)?;
        let pieces = pieces(stencil, messages.len());
        let mut own = Vec::new();
        for piece in &pieces {
            if let Piece::Template(text) = piece {
                own.extend(tokenizer.encode(text)?);
            }
        }
        let special = |ids: &[u32]| -> Vec<u32> {
            ids.iter().copied().filter(|&id| tokenizer.is_special(id)).collect()
        };
        if special(&whole) == special(&own) {
            return Ok(whole);
        }

        let contents = contents(&pieces, text, messages)
            .ok_or_else(|| ChatError::Special { origin: self.origin.clone() })?;
        let mut contents = contents.into_iter();
        let mut ids = Vec::new();
        for piece in &pieces {
            ids.extend(match piece {
                Piece::Template(text) => tokenizer.encode(text)?,
                Piece::Content(_) => tokenizer.encode_plain(contents.next().unwrap_or(""))?,
            });
        }
        Ok(ids)
    }
}

/// A conversation as text.
struct Rendered {
    text: String,
    /// The same with stand-ins for the contents, which cannot touch what is rendered without
    /// them.
    stencil: String,
}

/// Refuses roles that spell special tokens, and other fields that do: only contents can be told
/// from what the template writes.
fn refuse_special(tokenizer: &Tokenizer, messages: &[Message]) -> Result<()> {
    for message in messages {
        if spells_special(tokenizer, &message.role)? {
            return Err(ChatError::Role { role: message.role.clone() }.into());
        }
        refuse_special_in(tokenizer, message.other_texts())?;
    }
    Ok(())
}

/// Refuses texts that spell special tokens and are no contents.
fn refuse_special_in(tokenizer: &Tokenizer, texts: Vec<&str>) -> Result<()> {
    for text in texts {
        if spells_special(tokenizer, text)? {
            return Err(ChatError::Field.into());
        }
    }
    Ok(())
}

fn spells_special(tokenizer: &Tokenizer, text: &str) -> Result<bool> {
    Ok(tokenizer.encode(text)?.iter().any(|&id| tokenizer.is_special(id)))
}

/// Message `i` with a stand-in for its content.
fn stencil((i, message): (usize, &Message)) -> Message {
    Message { content: stand_in(i), ..message.clone() }
}

/// The bytes that both texts begin with, whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(c, _)| c.len_utf8()).sum()
}

/// Stands for the content of message `i`: Unicode keeps these two characters for uses inside a
/// program, so that no template spells them, and trims or changes them.
fn stand_in(i: usize) -> String {
    format!("\u{fdd0}{i}\u{fdd1}")
}

/// Cuts a conversation of `messages` messages that was rendered with stand-ins.
fn pieces(mut stencil: &str, messages: usize) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = stencil.split_once('\u{fdd0}')
        && let Some((number, after)) = rest.split_once('\u{fdd1}')
        && let Some(i) = number.parse().ok().filter(|&i| i < messages)
    {
        pieces.extend([Piece::Template(before), Piece::Content(i)]);
        stencil = after;
    }
    pieces.push(Piece::Template(stencil));
    pieces
}

/// What stands in `text` for each content among `pieces`: the content itself, or trimmed. `None` if
/// the template does anything else with it.
fn contents<'a>(
    pieces: &[Piece<'_>],
    mut text: &str,
    messages: &'a [Message],
) -> Option<Vec<&'a str>> {
    let mut contents = Vec::new();
    let mut rest = pieces.iter();
    while let Some(piece) = rest.next() {
        match *piece {
            Piece::Template(own) => text = text.strip_prefix(own)?,
            Piece::Content(i) => {
                // A template text follows every content.
                let Some(Piece::Template(next)) = rest.next() else { return None };
                let said = messages[i].content.as_str();
                let forms = [said, said.trim(), said.trim_start(), said.trim_end()];
                let fits =
                    |form: &&str| text.strip_prefix(form).and_then(|t| t.strip_prefix(*next));
                let form = forms.into_iter().find(|form| fits(form).is_some())?;
                text = fits(&form)?;
                contents.push(form);
            }
        }
    }
    text.is_empty().then_some(contents)
}
