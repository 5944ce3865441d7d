//! What is known of an answer while its canvas fills: the sequence as its steps tell it, and of its text
//! what can no longer change.

use std::{cmp::Reverse, ops::Range};

use llada::{
    Codec, Result,
    diffusion::{Commit, Step},
};

/// Stands for a mask in a snapshot.
const MASK: char = '░';

/// A sequence that is followed by its steps, and the text of an answer in it.
#[derive(Debug)]
pub(crate) struct Progress {
    mask: Option<u32>,
    tokens: Vec<u32>,
    /// Where the answer is. Of a response that grows the end is open.
    place: Range<usize>,
    /// How many tokens it may have.
    cap: usize,
    /// How many of the first tokens can no longer change.
    stable: usize,
    stops: Vec<String>,
    /// The useful tokens that are stable.
    useful: usize,
    /// Whether an end of text follows them.
    ended: bool,
    /// Their text, up to a stop string.
    text: String,
    /// The stop string that ended it.
    stopped: Option<String>,
    /// Bytes of the text that were given out.
    given: usize,
    committed: usize,
    nfe: usize,
    /// Passes over canvases before this one.
    before: usize,
}

/// Why an answer ends where it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Its text ended, by itself or by this stop string.
    Stop(Option<String>),
    /// It has as many tokens as it may.
    Length,
}

impl Progress {
    /// Of a sequence whose response begins at `place.start`; `tokens` is the sequence as it begins.
    pub(crate) fn new(
        tokens: Vec<u32>,
        place: Range<usize>,
        mask: Option<u32>,
        cap: usize,
        stops: Vec<String>,
    ) -> Self {
        let (text, stopped) = (String::new(), None);
        let (stable, useful, given, committed, nfe, before) = (place.start, 0, 0, 0, 0, 0);
        let ended = false;
        Self {
            mask,
            tokens,
            place,
            cap,
            stable,
            stops,
            useful,
            ended,
            text,
            stopped,
            given,
            committed,
            nfe,
            before,
        }
    }

    /// The sequence as it is.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forward passes so far.
    pub(crate) fn nfe(&self) -> usize {
        self.nfe
    }

    /// Tokens that were committed.
    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// Tokens of the canvas.
    pub(crate) fn canvas_tokens(&self) -> usize {
        self.tokens.len().min(self.place.end).saturating_sub(self.place.start)
    }

    /// The useful tokens that can no longer change.
    pub(crate) fn useful(&self) -> &[u32] {
        &self.tokens[self.place.start..self.place.start + self.useful]
    }

    /// The text that can no longer change, up to a stop string.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Goes on with a canvas that begins with the sequence as it is.
    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        self.tokens = tokens.to_vec();
        self.before = self.nfe;
    }

    /// Takes a step.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub(crate) fn apply(&mut self, step: &Step, codec: &Codec) -> Result<()> {
        let Step { nfe, committed, remasked, inserted, stable, .. } = step;
        self.nfe = self.before + nfe;
        let mask = self.mask.unwrap_or_default();
        for &position in remasked {
            self.put(position, mask);
        }
        for &Commit { position, token, .. } in committed {
            self.put(position, token);
        }
        for &position in inserted {
            self.tokens.insert(position.min(self.tokens.len()), mask);
        }
        self.committed = (self.committed + committed.len()).saturating_sub(remasked.len());
        let has_grown = *stable > self.stable;
        self.stable = (*stable).max(self.stable);
        if has_grown { self.read(codec, false) } else { Ok(()) }
    }

    /// Takes all tokens as they are at the end of the canvas.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub(crate) fn settle(&mut self, tokens: &[u32], codec: &Codec) -> Result<()> {
        self.tokens = tokens.to_vec();
        let is_mask = |&token: &u32| Some(token) == self.mask;
        let first = self.tokens[self.place.start..].iter().position(is_mask);
        self.stable = first.map_or(self.tokens.len(), |first| self.place.start + first);
        self.read(codec, true)
    }

    /// How the answer ends; `None` while it may go on.
    pub(crate) fn finish(&self) -> Option<Finish> {
        match &self.stopped {
            Some(stop) => Some(Finish::Stop(Some(stop.clone()))),
            None if self.ended => Some(Finish::Stop(None)),
            None => (self.useful >= self.cap).then_some(Finish::Length),
        }
    }

    /// The next of the text that no later token can change. A part of a character, or of what may become
    /// a stop string, is held back until the answer `is_over`.
    pub(crate) fn take(&mut self, is_over: bool) -> Option<String> {
        let is_over = is_over || self.finish().is_some();
        let end = match is_over {
            true => self.text.len(),
            false => self.text.len() - held_back(&self.text, &self.stops),
        };
        let next = self.text.get(self.given..end).filter(|next| !next.is_empty())?.to_owned();
        self.given = end;
        Some(next)
    }

    /// The text as it stands, masks included.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub(crate) fn snapshot(&self, codec: &Codec) -> Result<String> {
        let all = &self.tokens[self.place.start..self.place.end.min(self.tokens.len())];
        let end = all.iter().position(|&token| ends(codec, token)).unwrap_or(all.len());
        let mut text = String::new();
        for part in all[..end].chunk_by(|a, b| (Some(*a) == self.mask) == (Some(*b) == self.mask)) {
            match part.first().copied() == self.mask {
                true => text.extend(std::iter::repeat_n(MASK, part.len())),
                false => text += &codec.tokenizer.decode(part, true)?,
            }
        }
        Ok(text)
    }

    /// A canvas may grow by what it commits.
    fn put(&mut self, position: usize, token: u32) {
        if position >= self.tokens.len() {
            self.tokens.resize(position + 1, self.mask.unwrap_or_default());
        }
        self.tokens[position] = token;
    }

    /// Reads the text of what is stable.
    fn read(&mut self, codec: &Codec, is_over: bool) -> Result<()> {
        if self.stopped.is_some() {
            return Ok(());
        }
        let end = self.stable.min(self.place.end).min(self.tokens.len()).max(self.place.start);
        let stable = &self.tokens[self.place.start..end];
        let end = stable.iter().position(|&token| ends(codec, token));
        self.useful = end.unwrap_or(stable.len()).min(self.cap);
        self.ended = end.is_some_and(|end| end <= self.cap);
        let mut text = codec.tokenizer.decode(&stable[..self.useful], true)?;
        if !is_over && self.finish().is_none() {
            // What follows may complete a character.
            text.truncate(text.trim_end_matches('\u{fffd}').len());
        }
        // A decoder may read a beginning otherwise than as a beginning of the whole.
        if !text.starts_with(&self.text[..self.given]) {
            return Ok(());
        }
        if let Some((at, stop)) = first_stop(&text, &self.stops) {
            self.stopped = Some(stop.clone());
            text.truncate(at);
        }
        self.text = text;
        Ok(())
    }
}

/// The stop string that a text has first, and where; of those that begin there the longest.
pub(super) fn first_stop<'a>(text: &str, stops: &'a [String]) -> Option<(usize, &'a String)> {
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
    found.min_by_key(|(at, stop)| (*at, Reverse(stop.len())))
}

/// Whether a token ends a text.
pub(crate) fn ends(codec: &Codec, token: u32) -> bool {
    [codec.special.eos, codec.special.eot].contains(&Some(token))
}

/// Bytes at the end of `text` that a stop string may begin with.
fn held_back(text: &str, stops: &[String]) -> usize {
    let longest = |stop: &String| {
        let lengths = (1..stop.len()).rev().filter(|&length| stop.is_char_boundary(length));
        lengths.into_iter().find(|&length| text.ends_with(&stop[..length]))
    };
    stops.iter().filter_map(longest).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        let stops = ["###".to_owned(), "\n\nQ:".into(), "é!".into()];
        for (text, held) in [
            ("a", 0),
            ("a#", 1),
            ("a##", 2),
            ("a\n", 1),
            ("a\n\n", 2),
            ("a\n\nQ", 3),
            ("\n#", 1),
            ("é", 2),
            ("", 0),
            ("#a", 0),
        ] {
            assert_eq!(held_back(text, &stops), held, "{text:?}");
        }
        assert_eq!(held_back("anything", &[]), 0);
    }
}
