//! The texts of what a plain schema accepts, type by type.

use std::rc::Rc;

use serde_json::Value;

use super::{
    At, LONGEST, Reader,
    plain::{Elements, Members, Plain},
};
use crate::constraint::{
    ConstraintError,
    format::{self, Format},
    json,
    node::Node,
    pattern,
};

/// What an element or member may be of which nothing is said.
const ANY: &Value = &Value::Bool(true);

impl<'s> Reader<'s> {
    /// The texts of the values that `plain` accepts; `None` if there is none.
    pub(super) fn written(&self, plain: &Plain<'s>) -> Result<Option<Node>, ConstraintError> {
        let Some(values) = &plain.values else { return self.of_types(plain) };
        let allowed = values.iter().filter(|value| plain.types.allow(value));
        let texts: Vec<Node> = allowed.map(|value| Node::text(&json::written(value))).collect();
        if texts.is_empty() {
            return Ok(None);
        }
        let texts = Node::Or(texts);
        let others = Plain { values: None, types: Plain::default().types, ..plain.clone() };
        if others.says_nothing() {
            return Ok(Some(texts));
        }
        Ok(self.of_types(&others)?.map(|node| Node::All(vec![texts, node])))
    }

    /// The same for one that lists no values.
    fn of_types(&self, plain: &Plain<'s>) -> Result<Option<Node>, ConstraintError> {
        let types = plain.types;
        if plain.says_nothing() && types == Plain::default().types {
            let any = self.any.get_or_init(|| Rc::new(json::any(json::DEPTH)));
            return Ok(Some(Node::Repeat(Rc::clone(any), 1, Some(1))));
        }
        let mut nodes = Vec::new();
        if types.null {
            nodes.push(Node::text("null"));
        }
        if types.boolean {
            nodes.push(Node::Or(vec![Node::text("true"), Node::text("false")]));
        }
        if types.number {
            let numbers = match plain.bounds.is_open() {
                true => Some(json::number()),
                false => plain.bounds.numbers(),
            };
            let too_fine =
                || plain.refused("minimum", "its digits are more than can be told apart");
            nodes.push(numbers.ok_or_else(too_fine)?);
        } else if types.integer {
            nodes.push(match plain.bounds.is_open() {
                true => json::integer(),
                false => plain.bounds.integers(),
            });
        }
        if types.string {
            nodes.extend(string(plain)?);
        }
        if types.array {
            nodes.extend(self.array(plain)?);
        }
        if types.object {
            nodes.extend(self.object(plain)?);
        }
        Ok(match nodes.len() {
            0 | 1 => nodes.pop(),
            _ => Some(Node::Or(nodes)),
        })
    }

    fn array(&self, plain: &Plain<'s>) -> Result<Option<Node>, ConstraintError> {
        let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let (min, max) = (count(plain.item_count.0), plain.item_count.1.map(count));
        if max.is_some_and(|max| max < min) {
            return Ok(None);
        }
        let rest = |elements: &Elements<'s>| elements.rest.clone();
        let of_rest: Vec<At<'s>> = plain.elements.iter().filter_map(rest).collect();
        let listed = plain.elements.iter().map(|elements| elements.prefix.len()).max().unwrap_or(0);
        let listed = listed.min(max.unwrap_or(u32::MAX) as usize);
        let mut prefix = Vec::new();
        let mut is_cut = false;
        for i in 0..listed {
            let at = |elements: &Elements<'s>| {
                elements.prefix.get(i).cloned().or_else(|| rest(elements))
            };
            let schemas: Vec<At<'s>> = plain.elements.iter().filter_map(at).collect();
            match self.part(&schemas)? {
                Some(node) => prefix.push(node),
                None => {
                    is_cut = true;
                    break;
                }
            }
        }
        let takes_more = !is_cut && max.is_none_or(|max| max as usize > prefix.len());
        // What follows a tuple of which nothing more is said is left out.
        let is_told = prefix.is_empty() || !of_rest.is_empty() || min as usize > prefix.len();
        let item = if takes_more && is_told { self.part(&of_rest)? } else { None };
        if item.is_none() && min as usize > prefix.len() {
            return Ok(None);
        }
        let node = Node::Items { prefix, item: item.map(Rc::new), min, max };
        Ok(Some(node.between("[", "]")))
    }

    fn object(&self, plain: &Plain<'s>) -> Result<Option<Node>, ConstraintError> {
        let mut names: Vec<&'s str> = Vec::new();
        let named = plain.members.iter().flat_map(|members| &members.named).map(|(name, _)| *name);
        for name in named.chain(plain.required.iter().copied()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (min, max) = plain.member_count;
        let others = |members: &Members<'s>| members.others.clone();
        if names.is_empty() {
            let values: Vec<At<'s>> = plain.members.iter().filter_map(others).collect();
            if min > 1 {
                return Err(plain.refused("minProperties", "the keys of a map may repeat"));
            }
            let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            let is_empty = max == Some(0);
            let value = if is_empty { None } else { self.part(&values)? };
            return Ok(match value {
                Some(value) => Some(json::map(value, count(min), max.map(count))),
                None => (min == 0).then(|| Node::text("{}")),
            });
        }
        let mut fields = Vec::new();
        for name in names {
            let of = |members: &Members<'s>| {
                let own = members.named.iter().find(|(other, _)| *other == name);
                own.map(|(_, at)| at.clone()).or_else(|| others(members))
            };
            let schemas: Vec<At<'s>> = plain.members.iter().filter_map(of).collect();
            let is_required = plain.required.contains(&name);
            match self.part(&schemas)? {
                Some(value) => {
                    let key = format!("\"{}\": ", json::escaped(name));
                    fields.push((Node::Seq(vec![Node::text(&key), value]), is_required));
                }
                None if is_required => return Ok(None),
                None => {}
            }
        }
        let required = fields.iter().filter(|(_, is_required)| *is_required).count() as u64;
        let all = fields.len() as u64;
        if all < min || max.is_some_and(|max| max < required) {
            return Ok(None);
        }
        if required < min && all == min {
            fields.iter_mut().for_each(|(_, is_required)| *is_required = true);
        } else if required < min {
            return Err(
                plain.refused("minProperties", "members that may be missing are not counted")
            );
        }
        if max == Some(required) {
            fields.retain(|(_, is_required)| *is_required);
        } else if max.is_some_and(|max| max < all) {
            return Err(
                plain.refused("maxProperties", "members that may be missing are not counted")
            );
        }
        Ok(Some(Node::Fields(fields).between("{", "}")))
    }

    /// The texts of an element or member that all `schemas` accept.
    fn part(&self, schemas: &[At<'s>]) -> Result<Option<Node>, ConstraintError> {
        match schemas.is_empty() {
            true => {
                let pointer = "#".into();
                self.node(&[At { value: ANY, pointer, entered: None, depth: 0 }])
            }
            false => self.node(schemas),
        }
    }
}

impl<'s> Plain<'s> {
    /// Whether it says nothing but of types and values.
    fn says_nothing(&self) -> bool {
        self.bounds.is_open()
            && self.length == (0, None)
            && self.patterns.is_empty()
            && self.formats.is_empty()
            && self.elements.is_empty()
            && self.item_count == (0, None)
            && self.members.is_empty()
            && self.required.is_empty()
            && self.member_count == (0, None)
    }

    fn refused(&self, keyword: &str, why: &'static str) -> ConstraintError {
        let pointer = self.at.as_ref().map_or("#".into(), |at| at.pointer.to_string());
        ConstraintError::Keyword { pointer, keyword: keyword.into(), why }
    }
}

/// The texts of a string.
fn string(plain: &Plain<'_>) -> Result<Option<Node>, ConstraintError> {
    let mut all = Vec::new();
    for pattern in &plain.patterns {
        all.push(pattern::within_json(pattern)?);
    }
    for (name, at) in &plain.formats {
        match format::named(name)? {
            Format::Known(node) => all.push(node),
            Format::Unwritten => return Err(at.refused("format", "this one cannot be promised")),
            Format::Foreign => {}
        }
    }
    let (min, max) = plain.length;
    if max.is_some_and(|max| max < min) {
        return Ok(None);
    }
    if min > 0 || max.is_some() || all.is_empty() {
        let min = u32::try_from(min).unwrap_or(u32::MAX);
        // A shorter string satisfies the longer bound.
        let max = max.map(|max| u32::try_from(max).unwrap_or(u32::MAX).min(LONGEST.max(min)));
        all.push(json::character().times(min, max));
    }
    Ok(Some(Node::all(all).between("\"", "\"")))
}
