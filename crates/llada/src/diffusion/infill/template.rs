//! The notation of text with holes.

use std::{fmt, str::FromStr};

use super::{InfillError, MAX_HOLE};

/// A part of a text with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text that stays as it is.
    Text(String),
    /// Text that is wanted: of so many tokens, or of a length yet to be chosen.
    Hole(Option<usize>),
}

/// A text with holes: `{{hole:12}}` stands for 12 tokens, `{{hole}}` for as many as fit best.
///
/// All else is text, single braces too. Of more than two braces in a row the last two open the hole.
/// A backslash before two braces makes them text, `\{{`; two backslashes before them are one, and
/// backslashes elsewhere are themselves. [`fmt::Display`] writes the notation.
///
/// ```
/// use llada::diffusion::infill::{Part, Template};
///
/// let template: Template = "a {{hole:3}} \\{{b}}{{hole}}".parse()?;
/// assert_eq!(template.parts()[2], Part::Text(" {{b}}".into()));
/// assert_eq!(template.fill(&["x", "y"]), "a x {{b}}y");
/// # Ok::<(), llada::diffusion::infill::InfillError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl FromStr for Template {
    type Err = InfillError;

    fn from_str(source: &str) -> Result<Self, InfillError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(c) = rest.chars().next() {
            let slashes = rest.len() - rest.trim_start_matches('\\').len();
            if slashes > 0 {
                let after = &rest[slashes..];
                let opens = after.starts_with("{{");
                text.push_str(&rest[..if opens { slashes / 2 } else { slashes }]);
                let escaped = opens && slashes % 2 == 1;
                text.push_str(if escaped { "{{" } else { "" });
                rest = &after[if escaped { 2 } else { 0 }..];
            } else if rest.starts_with("{{") && !rest.starts_with("{{{") {
                let (hole, after) = hole(rest).map_err(|what| {
                    let (line, column) = place(source, rest);
                    InfillError::Syntax { line, column, what }
                })?;
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(hole);
                rest = after;
            } else {
                text.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        parts.push(Part::Text(text));
        Self::new(parts)
    }
}

impl Template {
    /// A template of these parts.
    ///
    /// # Errors
    /// If none of them is a hole.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Result<Self, InfillError> {
        let mut joined: Vec<Part> = Vec::new();
        for part in parts {
            match (part, joined.last_mut()) {
                (Part::Text(text), _) if text.is_empty() => {}
                (Part::Text(text), Some(Part::Text(before))) => before.push_str(&text),
                (part, _) => joined.push(part),
            }
        }
        match joined.iter().any(|part| matches!(part, Part::Hole(_))) {
            true => Ok(Self { parts: joined }),
            false => Err(InfillError::NoHole),
        }
    }

    /// The parts; no two texts follow each other, and none is empty.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text with its holes filled, in their order; holes beyond the fills stay empty.
    pub fn fill<S: AsRef<str>>(&self, fills: &[S]) -> String {
        let mut fills = fills.iter();
        let mut text = String::new();
        for part in &self.parts {
            text.push_str(match part {
                Part::Text(own) => own,
                Part::Hole(_) => fills.next().map_or("", AsRef::as_ref),
            });
        }
        text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Hole(None) => f.write_str("{{hole}}")?,
                Part::Hole(Some(length)) => write!(f, "{{{{hole:{length}}}}}")?,
                Part::Text(text) => escape(text, self.parts.get(i + 1).is_some(), f)?,
            }
        }
        Ok(())
    }
}

/// Writes a text, before a hole or at the end.
fn escape(text: &str, before_hole: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let slashes = rest.len() - rest.trim_start_matches('\\').len();
        let after = &rest[slashes..];
        let literal = after.starts_with("{{");
        let opens = literal || before_hole && matches!(after, "" | "{");
        let times = if opens { 2 * slashes } else { slashes };
        (0..times).try_for_each(|_| f.write_str("\\"))?;
        if literal {
            f.write_str("\\{{")?;
            rest = &after[2..];
        } else if slashes > 0 {
            rest = after;
        } else {
            write!(f, "{c}")?;
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(())
}

/// The hole that `source` begins with, and what follows it.
fn hole(source: &str) -> Result<(Part, &str), String> {
    let (inner, after) = source[2..].split_once("}}").ok_or("`{{` is never closed by `}}`")?;
    if inner == "hole" {
        return Ok((Part::Hole(None), after));
    }
    let shown: String = inner.chars().take(20).collect();
    let Some(length) = inner.strip_prefix("hole:") else {
        return Err(format!("`{{{{{shown}` is not a hole"));
    };
    let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    match length.parse() {
        Ok(0) => Err("a hole has at least 1 token".into()),
        Ok(length) if digits && length <= MAX_HOLE => Ok((Part::Hole(Some(length)), after)),
        _ => Err(format!("`{shown}` does not say a number of tokens up to {MAX_HOLE}")),
    }
}

/// Line and column, from 1, where `rest`, the end of `source`, begins.
fn place(source: &str, rest: &str) -> (usize, usize) {
    let before = &source[..source.len() - rest.len()];
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn parse(source: &str) -> Result<Vec<Part>, InfillError> {
        Ok(source.parse::<Template>()?.parts)
    }

    #[test]
    fn holes_and_escapes_are_read() {
        let (free, three) = (Part::Hole(None), Part::Hole(Some(3)));
        for (source, parts) in [
            ("{{hole}}", vec![free.clone()]),
            ("a {{hole:3}}{{hole}} b", vec![text("a "), three.clone(), free.clone(), text(" b")]),
            ("{ } }} \\ \\n{{hole}}", vec![text("{ } }} \\ \\n"), free.clone()]),
            ("{{{hole}}}", vec![text("{"), free.clone(), text("}")]),
            ("\\{{hole}} {{hole:3}}", vec![text("{{hole}} "), three.clone()]),
            ("\\\\{{hole}}", vec![text("\\"), free.clone()]),
            ("\\\\\\{{x{{hole}}", vec![text("\\{{x"), free.clone()]),
            ("\\{{\\{{{{hole}}", vec![text("{{{{"), free.clone()]),
            ("日{{hole:003}}本", vec![text("日"), three, text("本")]),
        ] {
            assert_eq!(parse(source).unwrap(), parts, "{source}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (source, message) in [
            ("", "the text has no hole"),
            ("a {hole} \\{{hole}}", "the text has no hole"),
            ("é\nab {{hole", "line 2, column 4: `{{` is never closed by `}}`"),
            ("{{name}} {{hole}}", "line 1, column 1: `{{name` is not a hole"),
            ("日{{hole:0}}", "line 1, column 2: a hole has at least 1 token"),
            (
                "{{hole:}}",
                "line 1, column 1: `hole:` does not say a number of tokens up to 1048576",
            ),
            (
                "{{hole:-1}}",
                "line 1, column 1: `hole:-1` does not say a number of tokens up to 1048576",
            ),
            (
                "{{hole:99999999999999999999}}",
                "line 1, column 1: `hole:999999999999999` does not say a number of tokens up to 1048576",
            ),
        ] {
            let error = parse(source).unwrap_err();
            assert_eq!(error.to_string(), message, "{source}");
            assert!(error.hint().is_some());
        }
        for source in ["{{hole:+3}}", "{{hole:3 }}", "{{ hole }}", "{{Hole}}", "{{}} {{hole}}"] {
            assert!(matches!(parse(source), Err(InfillError::Syntax { .. })), "{source}");
        }
    }

    #[test]
    fn fills_go_between_the_texts() {
        let template: Template = "{{hole}}a{{hole:2}}b".parse().unwrap();
        assert_eq!(template.fill(&["x", "{{hole}}"]), "xa{{hole}}b");
        assert_eq!(template.fill::<&str>(&[]), "ab");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            texts in prop::collection::vec("[a{}\\\\ \n日]{0,6}", 1..5),
            lengths in prop::collection::vec(prop::option::of(1usize..50), 1..5),
        ) {
            let mut parts = Vec::new();
            for (i, length) in lengths.into_iter().enumerate() {
                parts.extend(texts.get(i).filter(|t| !t.is_empty()).map(|t| text(t)));
                parts.push(Part::Hole(length));
            }
            let template = Template { parts };
            prop_assert_eq!(template.to_string().parse::<Template>(), Ok(template));
        }

        #[test]
        fn any_source_is_read_or_refused(source in "([a{}\\\\ ]|\\{\\{hole|:[0-9]|\\}\\}|日){0,12}") {
            if let Ok(template) = source.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse::<Template>(), Ok(template));
            }
        }
    }
}
