//! JSON schemas (draft 2020-12, and what older drafts spell otherwise) as languages. Every text of the
//! language is a value that the schema accepts; not every such value has a text in it.
//!
//! What is written: the style is that of [`json`](super::json); the members of an object are those that the
//! schema names, in the order in which it does, whether others are allowed or not; an object of which
//! no member is named is a map, whose keys may repeat. A string of bounded length has at most
//! [`LONGEST`] characters, a value of which nothing is said is nested [`json::DEPTH`] deep, and a definition that
//! refers to itself is entered [`RECURSION`] times on the way from the root to a value.
//!
//! What cannot be promised is refused by its keyword and place. Keywords that the standard takes for
//! annotations, and those that it does not know, say nothing.

mod apart;
mod plain;
mod write;

use std::{
    cell::{Cell, OnceCell},
    rc::Rc,
};

use serde_json::Value;

use super::{ConstraintError, node::Node};
use plain::Plain;

/// Most characters of a string of bounded length.
pub(super) const LONGEST: u32 = 256;
/// How often a definition is entered that refers to itself.
const RECURSION: usize = 4;
/// How deep schemas are nested.
const NESTED: usize = 100;
/// Most schemas that are looked at, and values and names in them, each as often as it is referred to.
const MOST: usize = 20_000;

/// The texts of the values that `schema` accepts.
pub(super) fn node(schema: &Value) -> Result<Node, ConstraintError> {
    let reader = Reader { root: schema, looked_at: Cell::new(0), any: OnceCell::new() };
    let root = At { value: schema, pointer: "#".into(), entered: None, depth: 0 };
    let node = reader.node(&[root])?;
    node.ok_or(ConstraintError::Never { pointer: "#".into() })
}

/// Reads the parts of one schema.
struct Reader<'s> {
    root: &'s Value,
    looked_at: Cell<usize>,
    /// A value of which nothing is said, which every place for one shares.
    any: OnceCell<Rc<Node>>,
}

/// A schema within the whole.
#[derive(Clone)]
struct At<'s> {
    value: &'s Value,
    /// Where it is, as a JSON pointer.
    pointer: Rc<str>,
    /// The references on the way to it.
    entered: Option<Rc<Entered>>,
    /// How many schemas are around it.
    depth: usize,
}

/// A reference that was followed, and those before.
struct Entered {
    pointer: String,
    before: Option<Rc<Entered>>,
}

impl<'s> At<'s> {
    /// A part of it.
    fn part(&self, value: &'s Value, path: &[&str]) -> Self {
        let escape = |step: &&str| format!("/{}", step.replace('~', "~0").replace('/', "~1"));
        let path: String = path.iter().map(escape).collect();
        let pointer = format!("{}{path}", self.pointer).into();
        Self { value, pointer, entered: self.entered.clone(), depth: self.depth + 1 }
    }

    /// What is wrong with it.
    fn is_no_schema(&self, what: impl Into<String>) -> ConstraintError {
        ConstraintError::Schema { pointer: self.pointer.to_string(), what: what.into() }
    }

    /// A keyword of it that is not supported.
    fn refused(&self, keyword: &str, why: &'static str) -> ConstraintError {
        let pointer = self.pointer.to_string();
        ConstraintError::Keyword { pointer, keyword: keyword.into(), why }
    }

    /// How often a reference was followed on the way to it.
    fn times_entered(&self, pointer: &str) -> usize {
        let mut at = self.entered.as_deref();
        let mut times = 0;
        while let Some(entered) = at {
            times += usize::from(entered.pointer == pointer);
            at = entered.before.as_deref();
        }
        times
    }
}

impl<'s> Reader<'s> {
    /// The texts of the values that all `schemas` accept; `None` if there is none.
    fn node(&self, schemas: &[At<'s>]) -> Result<Option<Node>, ConstraintError> {
        let mut nodes = Vec::new();
        for plain in self.expanded(schemas)? {
            nodes.extend(self.written(&plain)?);
        }
        Ok(match nodes.len() {
            0 | 1 => nodes.pop(),
            _ => Some(Node::Or(nodes)),
        })
    }

    /// The same schemas without references and branches: a value must satisfy one of those that come out.
    fn expanded(&self, schemas: &[At<'s>]) -> Result<Vec<Plain<'s>>, ConstraintError> {
        let mut out = Vec::new();
        self.expand(Plain::default(), schemas.to_vec(), &mut out)?;
        Ok(out)
    }

    /// Adds to `out` what becomes of `plain` with all of `rest`, of which the last comes first.
    fn expand(
        &self,
        mut plain: Plain<'s>,
        mut rest: Vec<At<'s>>,
        out: &mut Vec<Plain<'s>>,
    ) -> Result<(), ConstraintError> {
        rest.reverse();
        let mut branches: Vec<(At<'s>, &'static str, Vec<At<'s>>)> = Vec::new();
        while let Some(at) = rest.pop() {
            self.look(1)?;
            if at.depth > NESTED {
                return Err(ConstraintError::TooLarge {
                    what: "schemas within each other",
                    limit: NESTED,
                });
            }
            let keywords = match at.value {
                Value::Bool(true) => continue,
                Value::Bool(false) => return Ok(()),
                Value::Object(keywords) => keywords,
                _ => return Err(at.is_no_schema("it is neither an object nor true or false")),
            };
            for (keyword, value) in keywords {
                match keyword.as_str() {
                    "$ref" => match self.followed(&at, value)? {
                        Some(target) => rest.push(target),
                        None => return Ok(()),
                    },
                    "allOf" | "anyOf" | "oneOf" => {
                        let parts = value.as_array().filter(|parts| !parts.is_empty());
                        let parts = parts.ok_or_else(|| {
                            at.is_no_schema(format!("`{keyword}` is no list of schemas"))
                        })?;
                        let parts = parts.iter().enumerate();
                        let parts = parts.map(|(i, v)| at.part(v, &[keyword, &i.to_string()]));
                        match keyword.as_str() {
                            "allOf" => rest.extend(parts.rev()),
                            "anyOf" => branches.push((at.clone(), "anyOf", parts.collect())),
                            _ => branches.push((at.clone(), "oneOf", parts.collect())),
                        }
                    }
                    "enum" | "const" | "required" | "pattern" => {
                        self.look(weight(value))?;
                        plain.apply(&at, keyword, value)?;
                    }
                    _ => plain.apply(&at, keyword, value)?,
                }
            }
        }
        if plain.is_never() {
            return Ok(());
        }
        // The cases so far, each with one branch of every choice.
        let mut cases = vec![plain];
        for (at, keyword, parts) in branches {
            if keyword == "oneOf" {
                self.check_apart(&at, &parts)?;
            }
            let mut next = Vec::new();
            for case in &cases {
                for part in &parts {
                    self.expand(case.clone(), vec![part.clone()], &mut next)?;
                }
            }
            cases = next;
        }
        out.extend(cases);
        Ok(())
    }

    /// Counts what is looked at.
    fn look(&self, count: usize) -> Result<(), ConstraintError> {
        self.looked_at.set(self.looked_at.get().saturating_add(count));
        match self.looked_at.get() > MOST {
            true => Err(ConstraintError::TooLarge { what: "schemas and values", limit: MOST }),
            false => Ok(()),
        }
    }

    /// What a reference refers to; `None` where it was followed too often.
    fn followed(&self, at: &At<'s>, to: &Value) -> Result<Option<At<'s>>, ConstraintError> {
        let Some(reference) = to.as_str() else {
            return Err(at.is_no_schema("`$ref` is no text"));
        };
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(at.refused("$ref", "only parts of the same schema can be referred to"));
        };
        let is_pointer = pointer.is_empty() || pointer.starts_with('/');
        let pointer = percent_decoded(pointer).filter(|_| is_pointer);
        let value = pointer.as_deref().and_then(|pointer| self.root.pointer(pointer));
        let Some(value) = value else {
            return Err(at.is_no_schema(format!("`$ref` leads nowhere: `{reference}`")));
        };
        if at.times_entered(reference) >= RECURSION {
            return Ok(None);
        }
        let before = at.entered.clone();
        let entered = Some(Rc::new(Entered { pointer: reference.into(), before }));
        Ok(Some(At { value, pointer: reference.into(), entered, depth: at.depth + 1 }))
    }
}

/// How many values a value holds, a long text for more than one.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / 64,
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => {
            members.iter().map(|(key, value)| key.len() / 64 + weight(value)).sum()
        }
        _ => 1,
    }
}

/// The text of a fragment of an address.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
