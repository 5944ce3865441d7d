//! Regular expressions as languages: of texts, and of JSON strings that hold such texts.

use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind, Look, Repetition},
};

use super::{ConstraintError, json, node::Node};

/// How deep groups are nested.
const NEST_LIMIT: u32 = 100;

/// The texts that `pattern` matches from their first to their last character, in the syntax of the
/// crate `regex`.
pub(super) fn whole(pattern: &str) -> Result<Node, ConstraintError> {
    Reader { pattern, is_json: false }.read(pattern, false)
}

/// The insides of JSON strings whose text has a part that `pattern` matches, in the dialect of JSON Schema
/// (ECMA-262).
pub(super) fn within_json(pattern: &str) -> Result<Node, ConstraintError> {
    let reader = Reader { pattern, is_json: true };
    let translated = ecma(pattern).map_err(|what| reader.error(what))?;
    reader.read(&translated, true)
}

struct Reader<'a> {
    pattern: &'a str,
    /// Whether the text is written as in a JSON string.
    is_json: bool,
}

impl Reader<'_> {
    fn error(&self, what: impl Into<String>) -> ConstraintError {
        let pattern = self.pattern.chars().take(80).collect();
        ConstraintError::Regex { pattern, what: what.into() }
    }

    fn read(&self, pattern: &str, is_search: bool) -> Result<Node, ConstraintError> {
        let mut parser = ParserBuilder::new().nest_limit(NEST_LIMIT).build();
        let hir = parser.parse(pattern).map_err(|error| {
            // The parser draws the place, a line below the expression.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            self.error(last.trim_start_matches("error: "))
        })?;
        let branches = match hir.kind() {
            HirKind::Alternation(branches) => branches.as_slice(),
            _ => std::slice::from_ref(&hir),
        };
        let branches = branches.iter().map(|branch| self.branch(branch, is_search));
        Ok(Node::Or(branches.collect::<Result<_, _>>()?))
    }

    /// A branch, anchored or to be searched for.
    fn branch(&self, hir: &Hir, is_search: bool) -> Result<Node, ConstraintError> {
        let mut parts = match hir.kind() {
            HirKind::Concat(parts) => parts.as_slice(),
            _ => std::slice::from_ref(hir),
        };
        let is_look =
            |hir: &Hir, look| matches!(hir.kind(), HirKind::Look(found) if *found == look);
        let (mut starts, mut ends) = (false, false);
        while let Some((_, rest)) =
            parts.split_first().filter(|(first, _)| is_look(first, Look::Start))
        {
            (parts, starts) = (rest, true);
        }
        while let Some((_, rest)) = parts.split_last().filter(|(last, _)| is_look(last, Look::End))
        {
            (parts, ends) = (rest, true);
        }
        let any = || json::character().times(0, None);
        let mut nodes = Vec::new();
        if is_search && !starts {
            nodes.push(any());
        }
        for part in parts {
            nodes.push(self.node(part)?);
        }
        if is_search && !ends {
            nodes.push(any());
        }
        Ok(Node::Seq(nodes))
    }

    fn node(&self, hir: &Hir) -> Result<Node, ConstraintError> {
        let all =
            |hirs: &[Hir]| hirs.iter().map(|hir| self.node(hir)).collect::<Result<Vec<_>, _>>();
        Ok(match hir.kind() {
            HirKind::Empty => Node::empty(),
            HirKind::Literal(literal) => {
                let text = str::from_utf8(&literal.0).map_err(|_| self.error("it is not UTF-8"))?;
                match self.is_json {
                    true => Node::text(&json::escaped(text)),
                    false => Node::text(text),
                }
            }
            HirKind::Class(class) => {
                let ranges = match class {
                    Class::Unicode(class) => {
                        class.iter().map(|range| (range.start(), range.end())).collect()
                    }
                    Class::Bytes(class) => {
                        let range = |r: &regex_syntax::hir::ClassBytesRange| {
                            (char::from(r.start()), char::from(r.end()))
                        };
                        class.iter().map(range).collect()
                    }
                };
                match self.is_json {
                    true => json::class(ranges),
                    false => Node::Class(ranges),
                }
            }
            HirKind::Look(look) => {
                let written = match look {
                    Look::Start | Look::StartLF | Look::StartCRLF => "^",
                    Look::End | Look::EndLF | Look::EndCRLF => "$",
                    _ => return Err(self.error("`\\b`, the boundary of a word, is not supported")),
                };
                return Err(self.error(format!(
                    "`{written}` stands where it is neither the first nor the last, or is for each line"
                )));
            }
            HirKind::Repetition(Repetition { min, max, sub, .. }) => {
                self.node(sub)?.times(*min, *max)
            }
            HirKind::Capture(capture) => self.node(&capture.sub)?,
            HirKind::Concat(parts) => Node::Seq(all(parts)?),
            HirKind::Alternation(branches) => Node::Or(all(branches)?),
        })
    }
}

/// White space of ECMA-262.
const SPACES: &str =
    r"\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff";

/// A pattern of ECMA-262 in the syntax of the crate `regex`: classes by letter are of ASCII, and within
/// brackets an opening bracket is a character.
fn ecma(pattern: &str) -> Result<String, &'static str> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut is_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().ok_or("it ends with a backslash")?;
                let (set, negated) = match escaped {
                    'd' | 'D' => ("0-9", escaped == 'D'),
                    'w' | 'W' => ("0-9A-Za-z_", escaped == 'W'),
                    's' | 'S' => (SPACES, escaped == 'S'),
                    '/' => {
                        out.push('/');
                        continue;
                    }
                    'b' if is_class => return Err("a backspace in a class"),
                    _ => {
                        out.extend(['\\', escaped]);
                        continue;
                    }
                };
                out.push_str(if negated { "[^" } else { "[" });
                out.push_str(set);
                out.push(']');
            }
            '[' if is_class => out.push_str(r"\["),
            '[' => {
                is_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if chars.peek() == Some(&']') {
                    return Err("an empty class");
                }
            }
            ']' => {
                is_class = false;
                out.push(']');
            }
            '&' | '~' if is_class => out.extend(['\\', c]),
            '-' if is_class && chars.peek() == Some(&'-') => return Err("`--` in a class"),
            '.' if !is_class => out.push_str(r"[^\n\r\u2028\u2029]"),
            '(' if !is_class && chars.peek() == Some(&'?') => {
                out.push('(');
                let rest: String = chars.clone().take(3).collect();
                if ["?=", "?!", "?<=", "?<!"].iter().any(|look| rest.starts_with(look)) {
                    return Err("look-around is not supported");
                }
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dfa::Dfa, nfa::Nfa},
        *,
    };

    fn accepts(node: &Node, text: &str) -> bool {
        Dfa::of(&Nfa::of(node).unwrap()).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn a_text_must_match_from_end_to_end() {
        for (pattern, yes, no) in [
            ("a|bc+", &["a", "bc", "bccc"][..], &["", "ab", "bc "][..]),
            ("^(?:a|b)$", &["a", "b"], &["ab"]),
            ("[^x]{2,3}", &["日本", "abc"], &["x", "日", "axb", "abcd"]),
            (r"\d+(\.\d+)?", &["1", "12.5", "٣"], &["1.", ".5"]),
            ("(?i)yes", &["YES", "yes", "yEs"], &["yess"]),
            ("", &[""], &["a"]),
        ] {
            let node = whole(pattern).unwrap();
            assert!(yes.iter().all(|text| accepts(&node, text)), "{pattern}");
            assert!(no.iter().all(|text| !accepts(&node, text)), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_of_a_schema_is_searched_for_in_the_text_that_a_string_means() {
        for (pattern, yes, no) in [
            ("b", &["b", "abc", r#"\"b"#][..], &["", "a"][..]),
            ("^a", &["a", "ab"], &["ba"]),
            ("a$", &["a", "ba"], &["ab"]),
            ("^a|b$", &["ac", "cb"], &["ca", "bc"]),
            (r"^\d$", &["1"], &["٣", "11"]),
            ("^[\"\\\\\n]$", &[r#"\""#, r"\\", r"\n"], &["\"", "\\", "\n", "n"]),
            ("^.$", &["é", r"\t"], &[r"\n", ""]),
            ("^[[a]$", &["[", "a"], &["b"]),
            (r"^\/\s$", &["/ ", r"/\t"], &["/a"]),
        ] {
            let node = within_json(pattern).unwrap();
            for text in yes {
                assert!(accepts(&node, text), "{pattern} {text}");
            }
            for text in no {
                assert!(!accepts(&node, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn what_is_not_regular_is_refused_by_name() {
        for (pattern, named) in [
            ("(?=a)b", "look-around"),
            (r"(a)\1", "backreferences"),
            (r"a\b", r"`\b`"),
            ("a$b", "`$`"),
            ("a^b", "`^`"),
            ("(", "unclosed group"),
            ("[]a]", "empty class"),
        ] {
            let error = within_json(pattern).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert!(error.hint().is_some());
        }
        let deep = "(".repeat(200) + &")".repeat(200);
        assert!(whole(&deep).is_err());
    }
}
