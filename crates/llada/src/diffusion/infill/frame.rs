//! Text with holes as tokens.

use std::{ops::Range, sync::Arc};

use super::{Part, Template};
use crate::{Result, constraint::Automaton, tokenizer::Tokenizer};

/// A part of a [`Frame`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Tokens that stay as they are.
    Tokens(Vec<u32>),
    /// Tokens that are wanted.
    Hole {
        /// How many; `None` if that is yet to be chosen.
        length: Option<usize>,
        /// Whether the first of them begins with the space that ends the text before the hole.
        spaced: bool,
    },
}

/// A text with holes, in tokens. The texts are encoded apart, so that tokens end where holes begin,
/// and special tokens written in them are text.
///
/// Where the tokenizer joins a space to the word after it, a text that ends with one space before
/// a hole gives it up to the hole: the model knows ` cat`, and hardly ever saw ` ` alone. The hole's
/// first token is then chosen among those that begin with a space, so that the text comes out as it
/// went in.
#[derive(Debug, Clone)]
pub struct Frame {
    pieces: Vec<Piece>,
    choices: Arc<Choices>,
    constraint: Option<Arc<Automaton>>,
}

/// Which tokens a hole may take.
#[derive(Debug)]
pub(in crate::diffusion) struct Choices {
    /// By id, whether a token is text: neither special nor unknown.
    text: Vec<bool>,
    /// By id, whether it is text that begins with a space.
    spaced: Vec<bool>,
}

/// The holes of a [`Canvas`](crate::diffusion::Canvas).
#[derive(Debug)]
pub(in crate::diffusion) struct Holes {
    /// Where each block ends, in ascending order.
    pub(in crate::diffusion) block_ends: Vec<usize>,
    /// Where each hole is.
    pub(in crate::diffusion) places: Vec<Range<usize>>,
    /// Positions of tokens that begin with a space.
    pub(in crate::diffusion) spaced: Vec<usize>,
    pub(in crate::diffusion) choices: Arc<Choices>,
}

impl Choices {
    fn new(tokenizer: &Tokenizer) -> Self {
        let texts: Vec<Option<String>> =
            (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.plain(id)).collect();
        Self {
            text: texts.iter().map(Option::is_some).collect(),
            spaced: texts.iter().map(|text| text.as_deref().is_some_and(joins_space)).collect(),
        }
    }

    /// Rules out what a position may not take.
    pub(in crate::diffusion) fn restrict(&self, logits: &mut [f32], spaced: bool) {
        let allowed = if spaced { &self.spaced } else { &self.text };
        for (id, logit) in logits.iter_mut().enumerate() {
            if !allowed.get(id).copied().unwrap_or(false) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// Whether a token is one space and what is joined to it.
fn joins_space(token: &str) -> bool {
    token.strip_prefix(' ').is_some_and(|rest| !rest.is_empty() && !rest.starts_with(' '))
}

/// Which tokens of a tokenizer holes may take, shared by the frames of its texts.
#[derive(Debug, Clone)]
pub(crate) struct SharedChoices(Arc<Choices>);

impl SharedChoices {
    /// Looks at every token of the vocabulary.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        Self(Arc::new(Choices::new(tokenizer)))
    }
}

/// Makes frames of templates.
#[derive(Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    choices: SharedChoices,
}

impl<'a> Encoder<'a> {
    /// Looks at every token of a vocabulary, once.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self::with(tokenizer, SharedChoices::new(tokenizer))
    }

    /// With the choices of that tokenizer.
    pub(crate) fn with(tokenizer: &'a Tokenizer, choices: SharedChoices) -> Self {
        Self { tokenizer, choices }
    }

    /// Encodes a template.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn frame(&self, template: &Template) -> Result<Frame> {
        let joins = self.choices.0.spaced.contains(&true);
        let mut pieces = Vec::new();
        let mut spaced = false;
        for (i, part) in template.parts().iter().enumerate() {
            match part {
                &Part::Hole(length) => pieces.push(Piece::Hole { length, spaced }),
                Part::Text(text) => {
                    let before_hole = joins && i + 1 < template.parts().len();
                    let given_up = text.strip_suffix(' ').filter(|_| before_hole);
                    let tokens = self.tokenizer.encode_plain(given_up.unwrap_or(text))?;
                    pieces.push(Piece::Tokens(tokens));
                    spaced = given_up.is_some();
                    continue;
                }
            }
            spaced = false;
        }
        Ok(Frame { pieces, choices: Arc::clone(&self.choices.0), constraint: None })
    }
}

impl Frame {
    /// The frame of a text that is whole: `eos`, an end of text, follows it. Fine-tuning shows answers
    /// with their end, so that a model takes a text without one for a text that goes on.
    pub fn ended(mut self, eos: u32) -> Self {
        self.pieces.push(Piece::Tokens(vec![eos]));
        self
    }

    /// The frame whose holes are each filled with a text that `automaton` accepts, which must be of the same
    /// tokenizer.
    pub fn constrained(mut self, automaton: Arc<Automaton>) -> Self {
        self.constraint = Some(automaton);
        self
    }

    /// What the text of every hole must be.
    pub(super) fn constraint(&self) -> Option<&Arc<Automaton>> {
        self.constraint.as_ref()
    }

    /// Whether `hole` can be filled with so many tokens.
    pub(super) fn fits(&self, hole: usize, length: usize) -> bool {
        let is_spaced = self.spaced().nth(hole).unwrap_or(false);
        let fits = |automaton: &Arc<Automaton>| {
            automaton.endings(length)[automaton.start(is_spaced) as usize]
        };
        self.constraint.as_ref().is_none_or(fits)
    }

    /// The parts, in their order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How many holes there are.
    pub fn hole_count(&self) -> usize {
        self.lengths().len()
    }

    /// The length of each hole; `None` where it is yet to be chosen.
    pub fn lengths(&self) -> Vec<Option<usize>> {
        let length = |piece: &Piece| match piece {
            Piece::Hole { length, .. } => Some(*length),
            Piece::Tokens(_) => None,
        };
        self.pieces.iter().filter_map(length).collect()
    }

    /// Whether the first token of each hole begins with the space before it.
    fn spaced(&self) -> impl Iterator<Item = bool> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Hole { spaced, .. } => Some(*spaced),
            Piece::Tokens(_) => None,
        })
    }

    /// How many tokens stand around the holes.
    pub fn given(&self) -> usize {
        let length = |piece: &Piece| match piece {
            Piece::Tokens(tokens) => tokens.len(),
            Piece::Hole { .. } => 0,
        };
        self.pieces.iter().map(length).sum()
    }

    /// Where the holes are in a sequence, by their `lengths`.
    pub fn places(&self, lengths: &[usize]) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        let mut end = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Tokens(tokens) => end += tokens.len(),
                Piece::Hole { .. } => {
                    let start = end;
                    end += lengths.get(places.len()).copied().unwrap_or(0);
                    places.push(start..end);
                }
            }
        }
        places
    }

    /// What each hole holds, as text, from the `tokens` of a sequence with these `lengths`; without the
    /// space that belongs to the text before it.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn fills(
        &self,
        tokenizer: &Tokenizer,
        tokens: &[u32],
        lengths: &[usize],
    ) -> Result<Vec<String>> {
        let fill = |(place, spaced): (Range<usize>, bool)| -> Result<String> {
            let text = tokenizer.decode(tokens.get(place).unwrap_or_default(), true)?;
            Ok(match text.strip_prefix(' ').filter(|_| spaced) {
                Some(rest) => rest.to_owned(),
                None => text,
            })
        };
        self.places(lengths).into_iter().zip(self.spaced()).map(fill).collect()
    }

    /// The sequence with all holes masked, and where its blocks of `block_length` masks end.
    pub(super) fn sequence(
        &self,
        lengths: &[usize],
        mask: u32,
        block_length: usize,
    ) -> (Vec<u32>, Holes) {
        let mut sequence = Vec::new();
        let mut spaced_at = Vec::new();
        let given = lengths;
        let mut lengths = given.iter();
        for piece in &self.pieces {
            match piece {
                Piece::Tokens(tokens) => sequence.extend_from_slice(tokens),
                Piece::Hole { spaced, .. } => {
                    spaced_at.extend(spaced.then_some(sequence.len()));
                    sequence.resize(sequence.len() + lengths.next().copied().unwrap_or(0), mask);
                }
            }
        }
        let masks: Vec<usize> = (0..sequence.len()).filter(|&i| sequence[i] == mask).collect();
        let block_ends =
            masks.chunks(block_length.max(1)).filter_map(|block| block.last()).map(|&i| i + 1);
        let holes = Holes {
            block_ends: block_ends.collect(),
            places: self.places(given),
            spaced: spaced_at,
            choices: Arc::clone(&self.choices),
        };
        (sequence, holes)
    }
}
