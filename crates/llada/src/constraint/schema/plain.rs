//! A schema without references and branches: what its keywords say, and those of all that go with it.

use serde_json::Value;

use super::At;
use crate::constraint::{
    ConstraintError,
    number::{Bound, Bounds},
};

/// Types of values, and whether each is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Types {
    pub(super) null: bool,
    pub(super) boolean: bool,
    pub(super) integer: bool,
    /// Numbers that are not whole too.
    pub(super) number: bool,
    pub(super) string: bool,
    pub(super) array: bool,
    pub(super) object: bool,
}

impl Types {
    const NONE: Self = Self {
        null: false,
        boolean: false,
        integer: false,
        number: false,
        string: false,
        array: false,
        object: false,
    };
    const ALL: Self = Self {
        null: true,
        boolean: true,
        integer: true,
        number: true,
        string: true,
        array: true,
        object: true,
    };

    fn add(&mut self, name: &str) -> Option<()> {
        match name {
            "null" => self.null = true,
            "boolean" => self.boolean = true,
            "integer" => self.integer = true,
            "number" => (self.integer, self.number) = (true, true),
            "string" => self.string = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => return None,
        }
        Some(())
    }

    /// Those that both allow.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            null: self.null && other.null,
            boolean: self.boolean && other.boolean,
            integer: self.integer && other.integer,
            number: self.number && other.number,
            string: self.string && other.string,
            array: self.array && other.array,
            object: self.object && other.object,
        }
    }

    /// Whether they allow a value, as far as its type goes.
    pub(super) fn allow(self, value: &Value) -> bool {
        match value {
            Value::Null => self.null,
            Value::Bool(_) => self.boolean,
            Value::Number(n) => {
                self.number || self.integer && n.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            Value::String(_) => self.string,
            Value::Array(_) => self.array,
            Value::Object(_) => self.object,
        }
    }
}

/// What schemas say of the elements of an array.
#[derive(Clone, Default)]
pub(super) struct Elements<'s> {
    pub(super) prefix: Vec<At<'s>>,
    pub(super) rest: Option<At<'s>>,
}

/// What schemas say of the members of an object.
#[derive(Clone, Default)]
pub(super) struct Members<'s> {
    pub(super) named: Vec<(&'s str, At<'s>)>,
    pub(super) others: Option<At<'s>>,
}

/// What a value must be.
#[derive(Clone)]
pub(super) struct Plain<'s> {
    /// Where the first of its schemas is, to be named in errors.
    pub(super) at: Option<At<'s>>,
    pub(super) types: Types,
    /// One of these, where there is a list.
    pub(super) values: Option<Vec<&'s Value>>,
    pub(super) bounds: Bounds,
    /// Characters of a string.
    pub(super) length: (u64, Option<u64>),
    pub(super) patterns: Vec<&'s str>,
    pub(super) formats: Vec<(&'s str, At<'s>)>,
    /// Of every schema what it says of elements.
    pub(super) elements: Vec<Elements<'s>>,
    pub(super) item_count: (u64, Option<u64>),
    /// Of every schema what it says of members.
    pub(super) members: Vec<Members<'s>>,
    pub(super) required: Vec<&'s str>,
    pub(super) member_count: (u64, Option<u64>),
}

impl Default for Plain<'_> {
    fn default() -> Self {
        Self {
            at: None,
            types: Types::ALL,
            values: None,
            bounds: Bounds::default(),
            length: (0, None),
            patterns: Vec::new(),
            formats: Vec::new(),
            elements: Vec::new(),
            item_count: (0, None),
            members: Vec::new(),
            required: Vec::new(),
            member_count: (0, None),
        }
    }
}

/// Keywords that would have to be kept and are not.
const REFUSED: [(&str, &str); 20] = [
    ("multipleOf", "multiples are not counted"),
    ("not", "there is no complement of a schema"),
    ("if", "conditions are not followed"),
    ("then", "conditions are not followed"),
    ("else", "conditions are not followed"),
    ("contains", "elements are not counted by what they are"),
    ("minContains", "elements are not counted by what they are"),
    ("maxContains", "elements are not counted by what they are"),
    ("patternProperties", "members are those that `properties` names"),
    ("propertyNames", "members are those that `properties` names"),
    ("dependentRequired", "members do not depend on each other"),
    ("dependentSchemas", "members do not depend on each other"),
    ("dependencies", "members do not depend on each other"),
    ("unevaluatedItems", "use `items`"),
    ("unevaluatedProperties", "use `additionalProperties`"),
    ("$dynamicRef", "use `$ref`"),
    ("$recursiveRef", "use `$ref`"),
    ("extends", "use `allOf`"),
    ("disallow", "there is no complement of a schema"),
    ("divisibleBy", "multiples are not counted"),
];

impl<'s> Plain<'s> {
    /// Whether its types or values leave nothing.
    pub(super) fn is_never(&self) -> bool {
        self.types == Types::NONE || self.values.as_ref().is_some_and(Vec::is_empty)
    }

    /// Takes in a keyword of the schema `at`, which is no reference and no choice.
    pub(super) fn apply(
        &mut self,
        at: &At<'s>,
        keyword: &'s str,
        value: &'s Value,
    ) -> Result<(), ConstraintError> {
        self.at.get_or_insert_with(|| at.clone());
        let wrong = |what: &str| at.is_no_schema(format!("`{keyword}` is no {what}"));
        let count = || whole(value).ok_or_else(|| wrong("whole number"));
        match keyword {
            "type" => {
                let mut types = Types::NONE;
                let names = match value {
                    Value::Array(names) => names.as_slice(),
                    name => std::slice::from_ref(name),
                };
                for name in names {
                    let known = name.as_str().and_then(|name| types.add(name));
                    known.ok_or_else(|| wrong("type"))?;
                }
                let other = at.value.get("nullable");
                types.null |= other.and_then(Value::as_bool).unwrap_or(false);
                self.types = self.types.and(types);
            }
            "enum" => self.keep(value.as_array().ok_or_else(|| wrong("list"))?),
            "const" => self.keep(std::slice::from_ref(value)),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                self.bound(at, keyword, value)?;
            }
            "minLength" => self.length.0 = self.length.0.max(count()?),
            "maxLength" => self.length.1 = least(self.length.1, count()?),
            "pattern" => self.patterns.push(value.as_str().ok_or_else(|| wrong("text"))?),
            "format" => {
                self.formats.push((value.as_str().ok_or_else(|| wrong("text"))?, at.clone()))
            }
            "items" | "prefixItems" | "additionalItems" => {
                self.take_elements(at, keyword, value)?
            }
            "minItems" => self.item_count.0 = self.item_count.0.max(count()?),
            "maxItems" => self.item_count.1 = least(self.item_count.1, count()?),
            "uniqueItems" if value == &Value::Bool(false) => {}
            "uniqueItems" => return Err(at.refused(keyword, "elements are not compared")),
            "properties" | "additionalProperties" => self.take_members(at, keyword, value)?,
            "required" => {
                let names = value.as_array().ok_or_else(|| wrong("list of names"))?;
                for name in names {
                    let name = name.as_str().ok_or_else(|| wrong("list of names"))?;
                    if !self.required.contains(&name) {
                        self.required.push(name);
                    }
                }
            }
            "minProperties" => self.member_count.0 = self.member_count.0.max(count()?),
            "maxProperties" => self.member_count.1 = least(self.member_count.1, count()?),
            _ => {
                if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == keyword) {
                    return Err(at.refused(keyword, why));
                }
            }
        }
        Ok(())
    }

    /// Leaves those of the values that are among `values`.
    fn keep(&mut self, values: &'s [Value]) {
        match &mut self.values {
            Some(kept) => kept.retain(|kept| values.iter().any(|value| is_equal(kept, value))),
            None => self.values = Some(values.iter().collect()),
        }
    }

    fn bound(&mut self, at: &At<'s>, keyword: &str, value: &Value) -> Result<(), ConstraintError> {
        // In draft 4 a switch beside the bound.
        let switch = |name| at.value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let is_exclusive = match keyword {
            "minimum" => switch("exclusiveMinimum"),
            "maximum" => switch("exclusiveMaximum"),
            _ if value.is_boolean() => return Ok(()),
            _ => true,
        };
        let bound = value.as_number().and_then(|number| Bound::new(number, is_exclusive));
        let bound = bound.ok_or_else(|| at.is_no_schema(format!("`{keyword}` is no number")))?;
        match keyword {
            "minimum" | "exclusiveMinimum" => self.bounds.raise(bound),
            _ => self.bounds.lower(bound),
        }
        Ok(())
    }

    /// What one schema says of elements is taken in at the first of its keywords that does.
    fn take_elements(
        &mut self,
        at: &At<'s>,
        keyword: &'s str,
        value: &'s Value,
    ) -> Result<(), ConstraintError> {
        let list = |name: &'s str, value: &'s Value| -> Result<Vec<At<'s>>, ConstraintError> {
            let wrong = || at.is_no_schema(format!("`{name}` is no list of schemas"));
            let parts = value.as_array().ok_or_else(wrong)?.iter().enumerate();
            Ok(parts.map(|(i, v)| at.part(v, &[name, &i.to_string()])).collect())
        };
        // Older drafts have lists under `items`, and what follows them under `additionalItems`.
        let given = |name: &'static str| at.value.get(name);
        let is_old = given("items").is_some_and(Value::is_array);
        let elements = match keyword {
            "items" if is_old => Elements {
                prefix: list("items", value)?,
                rest: given("additionalItems").map(|v| at.part(v, &["additionalItems"])),
            },
            "items" => Elements {
                prefix: given("prefixItems").map_or(Ok(Vec::new()), |v| list("prefixItems", v))?,
                rest: Some(at.part(value, &["items"])),
            },
            "prefixItems" if given("items").is_none() => {
                Elements { prefix: list("prefixItems", value)?, rest: None }
            }
            _ => return Ok(()),
        };
        self.elements.push(elements);
        Ok(())
    }

    fn take_members(
        &mut self,
        at: &At<'s>,
        keyword: &'s str,
        value: &'s Value,
    ) -> Result<(), ConstraintError> {
        let others = at.value.get("additionalProperties");
        let mut members = Members {
            named: Vec::new(),
            others: others.map(|value| at.part(value, &["additionalProperties"])),
        };
        match keyword {
            "properties" => {
                let named = value
                    .as_object()
                    .ok_or_else(|| at.is_no_schema("`properties` is no object of schemas"))?;
                let part = |(name, value): (&'s String, &'s Value)| {
                    (name.as_str(), at.part(value, &["properties", name]))
                };
                members.named.extend(named.iter().map(part));
            }
            _ if at.value.get("properties").is_some() => return Ok(()),
            _ => {}
        }
        self.members.push(members);
        Ok(())
    }
}

fn least(old: Option<u64>, new: u64) -> Option<u64> {
    Some(old.map_or(new, |old| old.min(new)))
}

/// A count, which may be written with a fraction of 0.
fn whole(value: &Value) -> Option<u64> {
    let real = || value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..1e15).contains(x));
    value.as_u64().or_else(|| real().map(|x| x as u64))
}

/// Whether two values are the same to JSON Schema, which knows one kind of number.
pub(super) fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let has =
                |(key, value): (&String, &Value)| b.get(key).is_some_and(|b| is_equal(value, b));
            a.len() == b.len() && a.iter().all(has)
        }
        _ => a == b,
    }
}
