//! The filter `wordwrap`: lines as `textwrap.wrap` of Python breaks them.

use std::collections::VecDeque;

use minijinja::{Error, State, Value};

use super::{
    arguments::{bind, strictly, string, whole},
    characters::{is_decimal, is_word},
    charge, fail,
    methods::lines,
};
use crate::text::is_space;

/// The filter.
pub(super) fn word_wrap(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [value, width, long, newline, hyphens] = bind(args, 1, names)?;
    let text = strictly(value)?;
    let width = width.as_ref().map(whole).transpose()?.unwrap_or(79);
    let Some(width) = usize::try_from(width).ok().filter(|width| *width > 0) else {
        return fail("a width that is not positive");
    };
    let newline = newline.filter(|n| !n.is_none()).unwrap_or(Value::from("\n"));
    let newline = string(&newline)?;
    let hyphens = hyphens.is_none_or(|h| h.is_true());
    let long = long.is_none_or(|l| l.is_true());
    charge(state, text.len().saturating_mul(32))?;
    let mut wrapped = Vec::new();
    for line in lines(&text, false) {
        let line: Vec<char> = line.chars().collect();
        let parts = wrap(&line, width, long, hyphens);
        charge(state, parts.len().saturating_mul(newline.len()))?;
        wrapped.push(parts.join(newline));
    }
    charge(state, wrapped.len().saturating_mul(newline.len()))?;
    Ok(Value::from(wrapped.join(newline)))
}

/// The lines of `width` characters that a line becomes.
fn wrap(line: &[char], width: usize, long: bool, hyphens: bool) -> Vec<String> {
    let is_blank = |chunk: &[char]| chunk.iter().all(|c| is_space(*c));
    let mut chunks = chunks(line, hyphens);
    let mut lines: Vec<String> = Vec::new();
    while let Some(first) = chunks.front() {
        if is_blank(first) && !lines.is_empty() {
            chunks.pop_front();
        }
        let (mut now, mut used) = (Vec::new(), 0);
        while let Some(chunk) = chunks.front().filter(|chunk| used + chunk.len() <= width) {
            used += chunk.len();
            now.push(*chunk);
            chunks.pop_front();
        }
        if let Some(chunk) = chunks.front_mut().filter(|chunk| chunk.len() > width) {
            if long {
                let room = width - used;
                let hyphen = chunk[..room].iter().rposition(|c| hyphens && *c == '-');
                let hyphen = hyphen.filter(|at| chunk[..*at].iter().any(|c| *c != '-'));
                let (start, rest) = chunk.split_at(hyphen.map_or(room, |at| at + 1));
                now.push(start);
                *chunk = rest;
            } else if now.is_empty() {
                now.push(*chunk);
                chunks.pop_front();
            }
        }
        now.pop_if(|chunk| is_blank(chunk));
        if !now.is_empty() {
            lines.push(now.into_iter().flatten().collect());
        }
    }
    lines
}

/// The parts of a line between which it may be broken: white space, words, and parts of words that end
/// with hyphens.
fn chunks(line: &[char], hyphens: bool) -> VecDeque<&[char]> {
    let is_gap = |c: &char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let mut chunks = VecDeque::new();
    let mut start = 0;
    while let Some(first) = line.get(start) {
        let rest = &line[start..];
        let len = match is_gap(first) {
            true => rest.iter().position(|c| !is_gap(c)),
            false if !hyphens => rest.iter().position(is_gap),
            false => match dash(line, start) {
                Some(len) => Some(len),
                None => (1..rest.len()).find(|len| {
                    let at = start + len;
                    is_gap(&line[at]) || ends_at_hyphen(line, at) || dash(line, at).is_some()
                }),
            },
        };
        // The hyphen at which a part of a word ends belongs to it.
        let len = match len {
            Some(len) if !is_gap(first) && hyphens && ends_at_hyphen(line, start + len) => len + 1,
            len => len.unwrap_or(rest.len()),
        };
        chunks.push_back(&rest[..len]);
        start += len;
    }
    chunks
}

/// The length of the dash of several hyphens that stands between words at `at`.
fn dash(line: &[char], at: usize) -> Option<usize> {
    let before = line[..at].last()?;
    if line[at] != '-' || !(is_word(*before) || "!\"'&.,?".contains(*before)) {
        return None;
    }
    let len = line[at..].iter().position(|c| *c != '-')?;
    (len > 1 && is_word(line[at + len])).then_some(len)
}

/// Whether a word may be broken after the hyphen at `at`: there are two letters before and after it,
/// with a hyphen between them or without.
fn ends_at_hyphen(line: &[char], at: usize) -> bool {
    let is_letter = |at: Option<usize>| {
        at.and_then(|at| line.get(at)).is_some_and(|c| is_word(*c) && !is_decimal(*c))
    };
    let is_hyphen = |at: Option<usize>| at.and_then(|at| line.get(at)) == Some(&'-');
    let steps: [fn(usize, usize) -> Option<usize>; 2] = [usize::checked_sub, usize::checked_add];
    is_hyphen(Some(at))
        && steps.iter().all(|step| {
            is_letter(step(at, 1))
                && (is_letter(step(at, 2)) || (is_hyphen(step(at, 2)) && is_letter(step(at, 3))))
        })
}
