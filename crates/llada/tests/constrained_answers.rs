//! Answers of the shipped model under schemas of growing difficulty: every one parses, and satisfies its schema in
//! the eyes of an independent validator, however unlikely such answers are to a model of children's stories.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{ops::ControlFlow, path::Path, sync::Arc};

use llada::{
    Codec, Session,
    constraint::{Automaton, Constraint, Tool, ToolChoice},
    diffusion::{Blocks, Cache, Sampler, TransferRule, cache::Refresh},
};
use llada_kernels::Cpu;
use serde_json::{Value, json};

fn session(threads: usize) -> Session {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller");
    Session::open_on(model, Cpu::new(threads).unwrap()).unwrap()
}

/// Schemas, from plain to hard.
fn schemas() -> Vec<Value> {
    let object = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    vec![
        json!({ "type": "boolean" }),
        json!({ "type": "string", "maxLength": 12 }),
        json!({ "enum": ["red", "green", "blå", 3, null] }),
        json!({ "type": "integer", "minimum": -20, "exclusiveMaximum": 137 }),
        json!({ "type": "number", "minimum": 0.5, "maximum": 12.25 }),
        json!({ "type": "string", "pattern": "^[A-Z][a-z]{2,6}( [a-z]+)?$", "maxLength": 14 }),
        json!({ "type": "string", "format": "date-time" }),
        json!({ "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 2, "maxItems": 5 }),
        object(json!({ "name": { "type": "string", "minLength": 1 } }), json!(["name"])),
        object(
            json!({ "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0, "maximum": 120 }, "friend": { "type": ["string", "null"] } }),
            json!(["name", "age"]),
        ),
        object(
            json!({ "a": { "type": "string", "maxLength": 5 }, "b": { "type": "number" }, "c": { "type": "boolean" } }),
            json!([]),
        ),
        object(
            json!({ "who": object(json!({ "first": { "type": "string" }, "last": { "type": "string" } }), json!(["first"])), "tags": { "type": "array", "items": { "enum": ["cat", "dog"] }, "maxItems": 3 } }),
            json!(["who", "tags"]),
        ),
        object(
            json!({ "straße \"1\"": { "type": "string", "pattern": "^[äöü日本]+$", "maxLength": 4 }, "é": { "const": "naïve" } }),
            json!(["é", "straße \"1\""]),
        ),
        object(json!({ "id": { "type": "string", "format": "uuid" } }), json!(["id"])),
        json!({ "anyOf": [{ "type": "null" }, object(json!({ "x": { "type": "integer" }, "y": { "type": "integer" } }), json!(["x", "y"])), { "type": "string", "minLength": 3 }] }),
        json!({ "oneOf": [
            object(json!({ "kind": { "const": "circle" }, "radius": { "type": "number", "exclusiveMinimum": 0 } }), json!(["kind", "radius"])),
            object(json!({ "kind": { "const": "square" }, "side": { "type": "integer", "minimum": 1 } }), json!(["kind", "side"])),
        ] }),
        json!({ "$ref": "#/$defs/node", "$defs": { "node": { "type": "object", "properties": {
            "value": { "type": "integer" }, "children": { "type": "array", "items": { "$ref": "#/$defs/node" }, "maxItems": 2 }
        }, "required": ["value", "children"], "additionalProperties": false } } }),
        json!({ "allOf": [
            { "type": "object", "properties": { "n": { "type": "integer", "minimum": 3 } }, "required": ["n"] },
            { "properties": { "n": { "maximum": 8 }, "ip": { "type": "string", "format": "ipv4" } }, "required": ["ip"] },
        ] }),
        json!({ "type": "object", "additionalProperties": { "type": "array", "prefixItems": [{ "type": "integer" }, { "type": "string" }], "items": false, "minItems": 2 }, "maxProperties": 3 }),
        object(
            json!({ "any": {}, "when": { "type": "string", "format": "date" }, "mail": { "type": "string", "format": "email" } }),
            json!(["any", "when"]),
        ),
    ]
}

/// Ways to sample, but for the seed.
fn samplers() -> Vec<Sampler> {
    let base = Sampler { gen_length: 96, steps: 48, temperature: 1.0, ..Sampler::default() };
    let blocks = Sampler { block_length: 32, ..base.clone() };
    vec![
        Sampler { steps: 32, ..base.clone() },
        Sampler { blocks: Blocks::SemiAutoregressive, ..blocks.clone() },
        Sampler {
            blocks: Blocks::SemiAutoregressive,
            transfer: TransferRule::Threshold(0.6),
            cache: Cache::Dual(Refresh { every: 4, ..Refresh::default() }),
            revise: Some(0.5),
            stop_at_eos: true,
            ..blocks.clone()
        },
        Sampler {
            blocks: Blocks::BlockDiffusion,
            cfg_scale: 0.5,
            top_p: Some(0.9),
            ..blocks.clone()
        },
        Sampler { blocks: Blocks::Autoregressive, temperature: 0.7, ..base },
    ]
}

/// What a run of answers came to.
#[derive(Default)]
struct Count {
    answers: usize,
    tokens: usize,
}

/// Answers to every schema, with every sampler and so many seeds, each of which must be valid.
fn answer(session: &mut Session, schemas: &[Value], seeds: u64) -> Count {
    let mut count = Count::default();
    for (number, schema) in schemas.iter().enumerate() {
        let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
        let automaton = session.automaton(&Constraint::JsonSchema(schema.clone())).unwrap();
        for text in answers(session, &automaton, seeds, &mut count) {
            let value: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("schema {number}: {error} in {text:?}"));
            if let Err(error) = validator.validate(&value) {
                panic!("schema {number}: {error} in {text}");
            }
        }
    }
    count
}

fn answers(
    session: &mut Session,
    automaton: &Arc<Automaton>,
    seeds: u64,
    count: &mut Count,
) -> Vec<String> {
    let prompt = session.encode("Once upon a time there was").unwrap();
    let mut canvases = Vec::new();
    for sampler in samplers() {
        for seed in 0..seeds {
            let sampler = Sampler { seed, ..sampler.clone() };
            let mut canvas = session.canvas(prompt.clone(), &sampler).unwrap();
            canvas.constrain(Arc::clone(automaton)).unwrap();
            canvases.push(canvas);
        }
    }
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    count.answers += canvases.len();
    count.tokens += canvases.iter().map(|canvas| canvas.useful().len()).sum::<usize>();
    canvases.iter().map(|canvas| session.text(canvas).unwrap()).collect()
}

#[test]
fn some_answers_are_valid() {
    let schemas = schemas();
    let some: Vec<Value> = [3, 9, 11, 12, 15, 16].map(|i| schemas[i].clone()).into();
    assert_eq!(answer(&mut session(1), &some, 1).answers, 30);
}

#[test]
#[ignore = "takes minutes"]
fn a_thousand_answers_are_valid() {
    let count = answer(&mut session(0), &schemas(), 10);
    println!("{} valid answers of {} tokens", count.answers, count.tokens);
    assert_eq!(count.answers, 1000);
}

#[test]
fn calls_of_tools_are_calls() {
    let parameters =
        json!({ "type": "object", "properties": { "n": { "enum": [1, 2] } }, "required": ["n"] });
    let tool = |name: &str| Tool { name: name.into(), parameters: parameters.clone() };
    let constraint = |choice| Constraint::Tools { tools: vec![tool("f"), tool("g")], choice };
    let mut session = session(1);
    let mut count = Count::default();
    let call = |text: &str, tools: &[&str]| {
        let inner =
            text.strip_prefix("<tool_call>\n").and_then(|t| t.strip_suffix("\n</tool_call>"));
        let call: Value = serde_json::from_str(inner.unwrap()).unwrap();
        assert!(tools.contains(&call["name"].as_str().unwrap()), "{text}");
        assert!([1, 2].contains(&call["arguments"]["n"].as_i64().unwrap()), "{text}");
    };
    let named = session.automaton(&constraint(ToolChoice::Named("g".into()))).unwrap();
    for text in answers(&mut session, &named, 1, &mut count) {
        call(&text, &["g"]);
    }
    let required = session.automaton(&constraint(ToolChoice::Required)).unwrap();
    for text in answers(&mut session, &required, 1, &mut count) {
        for part in text.split_inclusive("</tool_call>") {
            call(part.trim_start_matches('\n'), &["f", "g"]);
        }
    }
    let auto = session.automaton(&constraint(ToolChoice::Auto)).unwrap();
    for text in answers(&mut session, &auto, 1, &mut count) {
        // Whatever call there is comes after the text and is whole.
        if let Some(at) = text.find("<tool_call>") {
            for part in text[at..].split_inclusive("</tool_call>") {
                call(part.trim_start_matches('\n'), &["f", "g"]);
            }
        }
    }
}

#[test]
fn holes_are_filled_with_what_they_may_hold() {
    let mut session = session(1);
    let choices = ["big dog", "cat", "little girl", "x"].map(String::from);
    let automaton = session.automaton(&Constraint::Choices(choices.clone().into())).unwrap();
    // The same constraint is compiled once.
    let again = session.automaton(&Constraint::Choices(choices.clone().into())).unwrap();
    assert!(Arc::ptr_eq(&automaton, &again));
    let template = "The {{hole}} saw the {{hole:3}}.({{hole}})".parse().unwrap();
    let frame = session.frame(&template).unwrap().constrained(Arc::clone(&automaton));
    let asked =
        llada::diffusion::Settings { seed: Some(1), temperature: Some(0.5), ..Default::default() };
    let sampler = Codec::infill_sampler(&asked).unwrap();
    let found = session.hole_lengths(&frame, &sampler, 6, &mut || false).unwrap().unwrap();
    let mut canvases = [session.infill(&frame, &found.lengths, &sampler).unwrap()];
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let fills = frame.fills(&session.tokenizer, canvases[0].tokens(), &found.lengths).unwrap();
    assert!(fills.iter().all(|fill| choices.contains(fill)), "{fills:?}");
    let tokens = canvases[0].tokens();
    let text = session.tokenizer.decode(tokens, true).unwrap();
    assert_eq!(text, template.fill(&fills));

    let mut never = vec![1; 3];
    never[1] = 40;
    let error = session.infill(&frame, &never, &sampler).unwrap_err().to_string();
    assert!(error.contains("exactly"), "{error}");
    let long = session.automaton(&Constraint::Regex("(?:the cat and ){9}".into())).unwrap();
    let frame = frame.constrained(long);
    let error = session.hole_lengths(&frame, &sampler, 3, &mut || false).unwrap_err().to_string();
    assert!(error.contains("3 tokens or fewer"), "{error}");
}
