//! Tests of schemas as languages, against an independent validator.

use serde_json::{Value, json};

use crate::constraint::{ConstraintError, dfa::Dfa, nfa::Nfa};

fn dfa(schema: &Value) -> Result<Dfa, ConstraintError> {
    let dfa = Dfa::of(&Nfa::of(&super::node(schema)?)?)?;
    match dfa.start() {
        0 => Err(ConstraintError::Never { pointer: "#".into() }),
        _ => Ok(dfa),
    }
}

/// The schema accepts the first texts and not the others; the validator agrees on the first, and on those of the
/// others that it is asked about.
fn check(schema: &Value, yes: &[&str], no: &[&str]) {
    let dfa = dfa(schema).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    for text in yes {
        assert!(dfa.is_match(text.as_bytes()), "{schema} {text}");
        assert!(validator.is_valid(&serde_json::from_str(text).unwrap()), "{schema} {text}");
    }
    for text in no {
        assert!(!dfa.is_match(text.as_bytes()), "{schema} {text}");
    }
}

#[test]
fn every_type_is_written() {
    check(&json!({ "type": "null" }), &["null"], &["", "0"]);
    check(&json!({ "type": ["boolean", "integer"] }), &["true", "-12"], &["1.5", "null", "-0"]);
    check(&json!({ "type": "number" }), &["1.5", "-0.25e-7", "0"], &["1.", "01", "+1"]);
    check(&json!({ "type": "string" }), &["\"\"", "\"a\\n日\""], &["\"", "a", "\"\n\""]);
    check(&json!(true), &["{\"a\": [1]}", "[]", "null"], &["{\"a\":[1]}"]);
    check(&json!({}), &["[[[1]]]"], &["[[[[1]]]]"]);
    check(&json!({ "type": "array" }), &["[]", "[1, \"a\"]"], &["[1,2]", "[1, ]"]);
    check(&json!({ "type": "object" }), &["{}", "{\"a\": {\"b\": 1}}"], &["{\"a\"}"]);
}

#[test]
fn members_come_in_their_order() {
    let schema = json!({
        "type": "object",
        "properties": { "a": { "type": "integer" }, "b": { "type": "null" }, "c": { "const": "x" } },
        "required": ["b", "d"],
        "additionalProperties": { "type": "boolean" }
    });
    check(
        &schema,
        &["{\"b\": null, \"d\": true}", "{\"a\": 1, \"b\": null, \"c\": \"x\", \"d\": false}"],
        &[
            "{\"d\": true, \"b\": null}",
            "{\"b\": null}",
            "{\"b\": null, \"d\": 1}",
            "{\"a\": 1, \"a\": 1, \"b\": null, \"d\": true}",
        ],
    );
    let optional =
        json!({ "properties": { "a": { "const": 1 }, "b": { "const": 2 } }, "type": "object" });
    check(
        &optional,
        &["{}", "{\"a\": 1}", "{\"b\": 2}", "{\"a\": 1, \"b\": 2}"],
        &["{, \"b\": 2}"],
    );
    let map = json!({ "type": "object", "additionalProperties": { "type": "integer" }, "maxProperties": 2 });
    check(
        &map,
        &["{}", "{\"x\": 1, \"y\": 2}"],
        &["{\"x\": \"\"}", "{\"x\": 1, \"y\": 2, \"z\": 3}"],
    );
    let closed = json!({ "type": "object", "additionalProperties": false });
    check(&closed, &["{}"], &["{\"a\": 1}"]);
    let least = json!({ "type": "object", "minProperties": 2, "properties": { "a": { "const": 1 }, "b": { "const": 2 } } });
    check(&least, &["{\"a\": 1, \"b\": 2}"], &["{\"a\": 1}"]);
}

#[test]
fn elements_and_characters_are_counted() {
    let array = json!({ "type": "array", "prefixItems": [{ "const": "a" }, { "type": "integer" }], "items": { "type": "null" }, "minItems": 1, "maxItems": 3 });
    check(
        &array,
        &["[\"a\"]", "[\"a\", 1]", "[\"a\", 1, null]"],
        &["[]", "[1]", "[\"a\", 1, null, null]"],
    );
    let tuple = json!({ "type": "array", "prefixItems": [{ "const": 1 }], "items": false });
    check(&tuple, &["[]", "[1]"], &["[1, 1]"]);
    let old = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{ "const": 1 }], "additionalItems": { "const": 2 } });
    check(&old, &["[1, 2, 2]", "[1]"], &["[2]"]);
    let string = json!({ "type": "string", "minLength": 2, "maxLength": 3 });
    check(&string, &["\"日本\"", "\"\\n\\\"a\""], &["\"a\"", "\"abcd\""]);
    let both =
        json!({ "type": "string", "pattern": "^[a-z]+\\d?$", "maxLength": 4, "minLength": 3 });
    check(&both, &["\"abc\"", "\"abc1\""], &["\"ab\"", "\"abcd1\"", "\"ab11\""]);
    let long = dfa(&json!({ "type": "string", "maxLength": 4000 })).unwrap();
    assert!(long.is_match(format!("\"{}\"", "a".repeat(256)).as_bytes()));
    assert!(!long.is_match(format!("\"{}\"", "a".repeat(257)).as_bytes()));
    check(&json!({ "type": "string", "format": "date" }), &["\"2024-02-29\""], &["\"2023-02-29\""]);
    check(&json!({ "type": "string", "format": "int64" }), &["\"x\""], &[]);
}

#[test]
fn numbers_have_bounds_of_every_draft() {
    check(
        &json!({ "type": "integer", "minimum": -3, "maximum": 12.5 }),
        &["-3", "0", "12"],
        &["13", "-4"],
    );
    check(
        &json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        &["0.001", "1", "1.0"],
        &["0", "1.1", "-1"],
    );
    let old = json!({ "$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 1, "exclusiveMinimum": true });
    check(&old, &["2"], &["1"]);
    check(&json!({ "minimum": 3, "type": ["integer", "null"] }), &["3", "null"], &["2"]);
}

#[test]
fn schemas_are_combined() {
    let all = json!({ "allOf": [
        { "type": "object", "properties": { "a": { "type": "integer", "minimum": 2 } } },
        { "properties": { "a": { "maximum": 3 }, "b": { "type": "null" } }, "required": ["a", "b"] }
    ] });
    check(&all, &["{\"a\": 2, \"b\": null}"], &["{\"a\": 4, \"b\": null}", "{\"a\": 2}"]);
    let closed = json!({ "allOf": [
        { "type": "object", "properties": { "a": { "const": 1 } }, "additionalProperties": false },
        { "properties": { "b": { "const": 1 } } }
    ] });
    check(&closed, &["{}", "{\"a\": 1}"], &["{\"b\": 1}"]);
    let any = json!({ "type": "object", "properties": { "k": { "type": "string" } }, "anyOf": [
        { "properties": { "k": { "enum": ["a", "b"] } }, "required": ["k"] },
        { "properties": { "k": { "pattern": "^c" }, "n": { "type": "integer" } }, "required": ["k", "n"] }
    ] });
    check(&any, &["{\"k\": \"a\"}", "{\"k\": \"cx\", \"n\": 1}"], &["{\"k\": \"c\"}", "{}"]);
    let one = json!({ "oneOf": [
        { "type": "string" },
        { "type": "integer", "maximum": 3 },
        { "type": "number", "exclusiveMinimum": 3 },
        { "type": "object", "properties": { "t": { "const": "a" } }, "required": ["t"] },
        { "type": "object", "properties": { "t": { "const": "b" }, "x": {} }, "required": ["t", "x"] }
    ] });
    check(
        &one,
        &["\"\"", "3", "3.5", "{\"t\": \"a\"}", "{\"t\": \"b\", \"x\": null}"],
        &["2.5", "{\"t\": \"b\"}"],
    );
    let kept =
        json!({ "enum": [1, 2, "a", null, 1.0], "type": ["integer", "string"], "minimum": 2 });
    check(&kept, &["2", "\"a\""], &["1", "null"]);
    check(
        &json!({ "const": { "a": [1, { "b": "\"" }] } }),
        &["{\"a\": [1, {\"b\": \"\\\"\"}]}"],
        &["{}"],
    );
    let nullable = dfa(&json!({ "type": "integer", "nullable": true })).unwrap();
    assert!(nullable.is_match(b"null") && nullable.is_match(b"1"));
}

#[test]
fn references_are_followed_to_a_depth() {
    let tree = json!({
        "$ref": "#/$defs/tree",
        "$defs": { "tree": { "type": "object", "properties": {
            "v": { "$ref": "#/definitions/a~1b%20" },
            "children": { "type": "array", "items": { "$ref": "#/$defs/tree" } }
        }, "required": ["v"] } },
        "definitions": { "a/b ": { "enum": [1, 2] } }
    });
    let mut text = "{\"v\": 1}".to_owned();
    for _ in 0..3 {
        text = format!("{{\"v\": 1, \"children\": [{text}, {text}]}}");
    }
    check(&tree, &["{\"v\": 2, \"children\": []}", &text], &["{}"]);
    let list = json!({ "$ref": "#/$defs/l", "$defs": { "l": { "anyOf": [{ "type": "null" }, {
        "type": "object", "properties": { "next": { "$ref": "#/$defs/l" } }, "required": ["next"]
    }] } } });
    check(&list, &["null", "{\"next\": {\"next\": null}}"], &["{}"]);
    for never in [
        json!({ "$ref": "#" }),
        json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] }),
        json!({ "type": "string", "enum": [1] }),
        json!({ "type": "integer", "minimum": 3, "maximum": 2 }),
        json!({ "type": "array", "minItems": 2, "maxItems": 1 }),
        json!({ "type": "string", "minLength": 2, "maxLength": 1 }),
        json!(false),
    ] {
        let error = dfa(&never).err();
        assert!(matches!(error, Some(ConstraintError::Never { .. })), "{never} {error:?}");
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_place() {
    for (keyword, value) in [
        ("multipleOf", json!(2)),
        ("uniqueItems", json!(true)),
        ("not", json!({})),
        ("if", json!({})),
        ("patternProperties", json!({ "a": {} })),
        ("propertyNames", json!({})),
        ("dependentRequired", json!({})),
        ("contains", json!({})),
        ("unevaluatedProperties", json!(false)),
        ("format", json!("regex")),
        ("$ref", json!("https://example.org/schema")),
        ("oneOf", json!([{ "type": "integer" }, { "type": "number" }])),
        ("oneOf", json!([{ "required": ["a"] }, { "required": ["b"] }])),
        ("minProperties", json!(2)),
    ] {
        let mut part = json!({ "additionalProperties": { "type": "null" } });
        part[keyword] = value;
        let schema = json!({ "type": "object", "properties": { "a/b": { "items": part } } });
        let error = dfa(&schema).err().unwrap_or_else(|| panic!("{keyword}"));
        let ConstraintError::Keyword { pointer, keyword: found, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((pointer.as_str(), found.as_str()), ("#/properties/a~1b/items", keyword));
        assert!(error.hint().is_some());
    }
    for (schema, named) in [
        (json!({ "type": "text" }), "`type`"),
        (json!({ "required": 1 }), "`required`"),
        (json!({ "properties": [] }), "`properties`"),
        (json!({ "minLength": -1 }), "`minLength`"),
        (json!({ "minimum": "1" }), "`minimum`"),
        (json!({ "anyOf": [] }), "`anyOf`"),
        (json!({ "$ref": "#/$defs/none" }), "leads nowhere"),
        (json!({ "items": 3 }), "neither an object"),
        (json!([]), "neither an object"),
    ] {
        let error = dfa(&schema).err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(matches!(dfa(&json!({ "pattern": "(?=a)" })), Err(ConstraintError::Regex { .. })));
}

#[test]
fn what_is_referred_to_often_counts_as_often() {
    let many = |schema: Value| {
        let names = (0..10_000).map(|i| (format!("m{i}"), json!({ "$ref": "#/$defs/a" })));
        let members: serde_json::Map<String, Value> = names.collect();
        dfa(&json!({ "properties": members, "$defs": { "a": schema } })).map(|_| ())
    };
    let long = "x".repeat(10_000);
    for schema in [
        json!({ "enum": (0..100).collect::<Vec<_>>() }),
        json!({ "const": { "a": &long, "b": [[&long]] } }),
        json!({ "pattern": &long }),
        json!({ "required": (0..100).map(|i| i.to_string()).collect::<Vec<_>>() }),
        json!(true),
    ] {
        assert!(matches!(many(schema), Err(ConstraintError::TooLarge { .. })));
    }
}
