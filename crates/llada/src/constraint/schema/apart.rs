//! Whether the branches of a `oneOf` can be told apart: whether no value satisfies two of them.
//!
//! That no text is written for two of them would not be enough: what is written for one may satisfy the
//! other, which allows members that it does not name.

use serde_json::Value;

use super::{
    At, Reader,
    plain::{Plain, is_equal},
};
use crate::constraint::ConstraintError;

/// How deep members are looked into.
const DEPTH: usize = 4;

impl<'s> Reader<'s> {
    /// Refuses the `oneOf` of the schema `at` if two of its branches may accept the same value.
    pub(super) fn check_apart(&self, at: &At<'s>, parts: &[At<'s>]) -> Result<(), ConstraintError> {
        let branches = parts.iter().map(|part| self.expanded(std::slice::from_ref(part)));
        let branches = branches.collect::<Result<Vec<_>, _>>()?;
        for (i, a) in branches.iter().enumerate() {
            for b in &branches[i + 1..] {
                if !self.are_apart(a, b, DEPTH)? {
                    return Err(
                        at.refused("oneOf", "two of its branches may accept the same value")
                    );
                }
            }
        }
        Ok(())
    }

    fn are_apart(
        &self,
        a: &[Plain<'s>],
        b: &[Plain<'s>],
        depth: usize,
    ) -> Result<bool, ConstraintError> {
        for a in a {
            for b in b {
                if !self.is_apart(a, b, depth)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Whether it is certain that no value satisfies both.
    fn is_apart(
        &self,
        a: &Plain<'s>,
        b: &Plain<'s>,
        depth: usize,
    ) -> Result<bool, ConstraintError> {
        let types = a.types.and(b.types);
        if let Some(values) = a.values.as_ref().or(b.values.as_ref()) {
            let accepts = |plain: &Plain<'s>, value: &Value| {
                let is_listed = |values: &Vec<&Value>| values.iter().any(|v| is_equal(v, value));
                plain.types.allow(value) && plain.values.as_ref().is_none_or(is_listed)
            };
            return Ok(!values.iter().any(|value| accepts(a, value) && accepts(b, value)));
        }
        if types.null || types.boolean || types.string || types.array {
            return Ok(false);
        }
        if types.integer && !a.bounds.is_apart(&b.bounds) {
            return Ok(false);
        }
        match types.object {
            true => self.objects_are_apart(a, b, depth),
            false => Ok(true),
        }
    }

    /// Whether a member that one needs is forbidden by the other, or one that both need cannot be both.
    fn objects_are_apart(
        &self,
        a: &Plain<'s>,
        b: &Plain<'s>,
        depth: usize,
    ) -> Result<bool, ConstraintError> {
        if depth == 0 {
            return Ok(false);
        }
        for (one, other) in [(a, b), (b, a)] {
            for name in &one.required {
                let (mine, theirs) = (self.member(one, name)?, self.member(other, name)?);
                let is_forbidden = theirs.is_empty();
                let needed_by_both = other.required.contains(name);
                if is_forbidden || (needed_by_both && self.are_apart(&mine, &theirs, depth - 1)?) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What a member must be; nothing where it is forbidden.
    fn member(&self, plain: &Plain<'s>, name: &str) -> Result<Vec<Plain<'s>>, ConstraintError> {
        let schemas = plain.members.iter().filter_map(|members| {
            let own = members.named.iter().find(|(other, _)| *other == name);
            own.map(|(_, at)| at.clone()).or_else(|| members.others.clone())
        });
        self.expanded(&schemas.collect::<Vec<_>>())
    }
}
