//! Answers that must match something, over HTTP: whatever the model thinks, they do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, Server, longer};
use llada_server::Options;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn ask(extra: Value) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": "Who was it?" }], "seed": 7, "max_tokens": 96 });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn content(answer: &Answer) -> String {
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn answers_have_the_form_that_was_asked_for() {
    let server = Server::start(Options::default());
    for temperature in [0.0, 1.0] {
        let post = |mut extra: Value| {
            extra["temperature"] = temperature.into();
            content(&server.post(CHAT, &ask(extra)).expect(200))
        };
        assert!(
            ["king", "queen"].contains(&post(json!({ "choices": ["king", "queen"] })).as_str())
        );
        let date = post(json!({ "regex": "[0-9]{4}-[0-9]{2}" }));
        assert!(date.len() == 7 && date.as_bytes()[4] == b'-', "{date}");
        let schema = json!({
            "type": "object",
            "properties": { "name": { "enum": ["a", "b"] }, "age": { "type": "integer", "minimum": 0, "maximum": 120 } },
            "required": ["name", "age"], "additionalProperties": false,
        });
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "who", "schema": schema } });
        for extra in [json!({ "response_format": format }), json!({ "json_schema": schema })] {
            let text = post(extra);
            let value: Value = serde_json::from_str(&text).expect(&text);
            assert!(["a", "b"].contains(&value["name"].as_str().unwrap()), "{value}");
            assert!(value["age"].as_i64().is_some_and(|age| (0..=120).contains(&age)), "{value}");
        }
        let any = post(json!({ "response_format": { "type": "json_object" }, "max_tokens": 48 }));
        assert!(serde_json::from_str::<Value>(&any).expect(&any).is_object());
    }
    // Nothing is cut off by a cap that blocks do not divide, and without one there is room enough.
    let long = json!({ "regex": "[a-z]{20}( [a-z]{20}){3}" });
    for most in [None, Some(84), Some(90), Some(97), Some(100)] {
        let mut body = ask(long.clone());
        body["max_tokens"] = most.into();
        let answer = server.post(CHAT, &body);
        let Some(least) = most.filter(|_| answer.status == 400) else {
            let text = content(&answer.expect(200));
            assert!(text.len() == 83 && text.split(' ').all(|word| word.len() == 20), "{text}");
            continue;
        };
        assert!(answer.text.contains("max_tokens") && least < 90, "{}", answer.text);
    }
    // Characters that take several tokens come whole.
    let words = ["der Größte 王子 😀", "né"];
    let body =
        ask(json!({ "choices": words, "stream": true, "temperature": 1.0, "gen_length": 48 }));
    let events = server.post(CHAT, &body).expect(200).events();
    let deltas: Vec<&str> = events
        .iter()
        .filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert!(words.contains(&deltas.concat().as_str()), "{deltas:?}");
    assert!(deltas.iter().all(|delta| !delta.contains('\u{fffd}')), "{deltas:?}");
    let hole = json!({ "template": "The {{hole}} was {{hole:1}}.", "choices": [" king", " queen", "king", "queen"], "max_hole": 3 });
    let filled = server.post("/v1/infill", &hole).expect(200).json();
    for fill in filled["fills"].as_array().unwrap() {
        assert!(["king", "queen"].contains(&fill["text"].as_str().unwrap().trim()), "{filled}");
    }
}

#[test]
fn forms_that_cannot_be_are_refused_before_the_model_is_asked() {
    let server = Server::start(Options::default());
    let passes = |server: &Server| {
        let metrics = server.get("/metrics").text;
        let line =
            metrics.lines().find(|line| line.starts_with("llada_forward_passes_total")).unwrap();
        line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()
    };
    let deep = (0..2000)
        .fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", "items": inner }));
    let wide: serde_json::Map<String, Value> = (0..5000)
        .map(|i| (format!("field{i}"), json!({ "type": "string", "maxLength": 1000 })))
        .collect();
    for extra in [
        json!({ "choices": [] }),
        json!({ "choices": ["king"], "regex": "a" }),
        json!({ "regex": "(" }),
        json!({ "regex": "(?=a)b" }),
        json!({ "regex": "((a{1,1000}){1,1000}){1,1000}" }),
        json!({ "regex": "[0-9]{90}", "max_tokens": 4 }),
        json!({ "json_schema": { "type": "object", "patternProperties": {} } }),
        json!({ "json_schema": { "$ref": "#/nowhere" } }),
        json!({ "json_schema": { "$ref": "http://evil.example/schema" } }),
        json!({ "json_schema": { "properties": wide, "type": "object" } }),
        json!({ "json_schema": 7 }),
        json!({ "response_format": { "type": "json_schema" } }),
    ] {
        let text: String = extra.to_string().chars().take(100).collect();
        let answer = server.post(CHAT, &ask(extra));
        assert_eq!(answer.status, 400, "{text}: {}", answer.text);
    }
    // Deeper than JSON is read.
    let answer =
        server.post_with(CHAT, &json!({ "messages": [], "json_schema": deep }).to_string(), &[]);
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(passes(&server), 0);
}

/// A tool of two kinds of arguments.
fn tools() -> Value {
    json!([
        { "type": "function", "function": {
            "name": "find", "description": "Finds",
            "parameters": { "type": "object", "properties": { "what": { "enum": ["gold", "bread"] } }, "required": ["what"] },
        } },
        { "type": "function", "function": { "name": "go", "parameters": { "type": "object", "properties": {} } } },
    ])
}

#[test]
fn tools_are_called() {
    let (_dir, model) = longer();
    let server = Server::of(Options::default(), vec![("long".into(), model)]);
    let named = json!({ "type": "function", "function": { "name": "find" } });
    for (choice, names) in [(json!("required"), &["find", "go"][..]), (named, &["find"])] {
        let body = ask(json!({ "tools": tools(), "tool_choice": choice }));
        let whole = server.post(CHAT, &body).expect(200).json();
        let choice = &whole["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{whole}");
        let call = &choice["message"]["tool_calls"][0]["function"];
        assert!(names.contains(&call["name"].as_str().unwrap()), "{whole}");
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert!(
            call["name"] != "find"
                || ["gold", "bread"].contains(&arguments["what"].as_str().unwrap())
        );
        let mut stream = body;
        stream["stream"] = true.into();
        let events = server.post(CHAT, &stream).expect(200).events();
        let calls = events
            .iter()
            .filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["tool_calls"].as_array());
        let calls: Vec<&Value> = calls.flatten().collect();
        assert_eq!(calls[0]["function"], *call);
        let text =
            events.iter().filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(text.collect::<String>(), "");
    }
    // What a model says of its own will is text, or calls after it; the results of calls can be shown to it.
    let auto = server.post(CHAT, &ask(json!({ "tools": tools() }))).expect(200).json();
    let message = &auto["choices"][0]["message"];
    assert!(message["content"].is_string() || message["tool_calls"].is_array(), "{auto}");
    let none = server
        .post(CHAT, &ask(json!({ "tools": tools(), "tool_choice": "none" })))
        .expect(200)
        .json();
    assert!(none["choices"][0]["message"]["tool_calls"].is_null());
    let call = json!({ "id": "1", "type": "function", "function": { "name": "find", "arguments": "{\"what\": \"gold\"}" } });
    let messages = json!([
        { "role": "user", "content": "Find gold." },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "1", "content": "in the well" },
    ]);
    server.post(CHAT, &ask(json!({ "messages": messages, "tools": tools() }))).expect(200);

    let tools = json!([{ "name": "find", "input_schema": { "type": "object", "properties": { "what": { "const": "gold" } }, "required": ["what"] } }]);
    let body = json!({
        "max_tokens": 96, "tools": tools, "tool_choice": { "type": "any" },
        "messages": [{ "role": "user", "content": "Find gold." }],
    });
    let whole = server.post("/v1/messages", &body).expect(200).json();
    assert_eq!(
        (&whole["stop_reason"], &whole["content"][0]["type"]),
        (&json!("tool_use"), &json!("tool_use")),
        "{whole}"
    );
    assert_eq!(whole["content"][0]["input"], json!({ "what": "gold" }));
    let mut stream = body;
    stream["stream"] = true.into();
    let events = server.post("/v1/messages", &stream).expect(200).events();
    let partial: String =
        events.iter().filter_map(|(_, event)| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&partial).unwrap(), json!({ "what": "gold" }));
}

#[test]
fn code_is_edited_in_a_fence() {
    let (_dir, model) = longer();
    let server = Server::of(Options::default(), vec![("long".into(), model)]);
    for (path, message) in [
        (
            "/v1/edit/completions",
            "<|current_file_content|>\n<|code_to_edit|>\na = 1<|cursor|>\n<|/code_to_edit|>\n<|/current_file_content|>",
        ),
        (
            "/v1/apply/completions",
            "<|original_code|>\na = 1\n<|/original_code|>\n<|update_snippet|>\na = 2\n<|/update_snippet|>",
        ),
    ] {
        let body =
            json!({ "messages": [{ "role": "user", "content": message }], "max_tokens": 32 });
        let text = content(&server.post(path, &body).expect(200));
        assert!(text.starts_with("```") && text.ends_with("\n```"), "{text}");
        let other = json!({ "messages": [{ "role": "user", "content": "hello" }] });
        server.post(path, &other).expect(400);
    }
}
