//! What a server answers: the same as the library, in every interface, streamed or whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::ops::ControlFlow;

use common::{Server, model};
use llada::{
    Codec, Session,
    chat::Message,
    diffusion::{Settings, trace},
};
use llada_server::Options;
use serde_json::{Value, json};

fn server() -> Server {
    Server::start(Options::default())
}

/// What the library answers to a message.
fn answered(message: &str, settings: &Settings) -> String {
    let mut session = Session::open(model("storyteller-chat")).unwrap();
    let prompt = session.encode_chat(&[Message::new("user", message)]).unwrap();
    let sampler = session.chat_sampler(settings).unwrap();
    let mut canvases = [session.canvas(prompt, &sampler).unwrap()];
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    session.text(&canvases[0]).unwrap()
}

fn hello(extra: Value) -> Value {
    let mut body =
        json!({ "messages": [{ "role": "user", "content": "Tell me a story." }], "seed": 7 });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// The text that the chunks of a stream give together.
fn streamed(events: &[(String, Value)]) -> String {
    let deltas =
        events.iter().filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str());
    deltas.collect()
}

#[test]
fn a_conversation_is_answered_as_by_the_library() {
    let server = server();
    for temperature in [0.0, 0.7] {
        let settings =
            Settings { seed: Some(7), temperature: Some(temperature), ..Settings::default() };
        let expected = answered("Tell me a story.", &settings);
        let whole = server
            .post("/v1/chat/completions", &hello(json!({ "temperature": temperature })))
            .expect(200);
        let whole = whole.json();
        assert_eq!(whole["choices"][0]["message"]["content"], expected.as_str());
        assert_eq!(whole["object"], "chat.completion");
        let usage = &whole["usage"];
        let tokens = |name: &str| usage[name].as_u64().unwrap();
        assert_eq!(tokens("total_tokens"), tokens("prompt_tokens") + tokens("completion_tokens"));
        assert!(tokens("canvas_tokens") >= tokens("completion_tokens") && tokens("nfe") > 0);

        let body = hello(
            json!({ "temperature": temperature, "stream": true, "stream_options": { "include_usage": true } }),
        );
        let answer = server.post("/v1/chat/completions", &body).expect(200);
        assert_eq!(answer.headers["content-type"], "text/event-stream");
        assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
        let events = answer.events();
        assert_eq!(streamed(&events), expected);
        assert!(events.iter().all(|(name, _)| name.is_empty()), "no event that nobody asked for");
        assert_eq!(events[0].1["choices"][0]["delta"]["role"], "assistant");
        let last = &events[events.len() - 1].1;
        assert_eq!((&last["choices"], &last["usage"]["nfe"]), (&json!([]), &usage["nfe"]));
    }
}

#[test]
fn steps_are_told_as_a_trace_has_them() {
    let server = server();
    let body = hello(json!({ "stream": true, "stream_events": true }));
    let answer = server.post("/v1/chat/completions", &body).expect(200);
    let events = answer.events();
    let of = |name: &str| -> Vec<&Value> {
        events.iter().filter(|(n, _)| n == name).map(|(_, event)| event).collect()
    };
    let (canvas, done) = (of("llada.canvas")[0], of("llada.done")[0]);
    let mut lines = canvas["header"].to_string() + "\n";
    for step in of("llada.step") {
        lines += &(step.to_string() + "\n");
    }
    let reader = trace::Reader::new(lines.as_bytes()).unwrap();
    let header = reader.header().clone();
    let mut tokens = vec![None; header.length];
    for step in reader {
        for commit in step.unwrap().committed {
            tokens[commit.position] = commit.text;
        }
    }
    let bytes =
        tokens[header.prompt.len()..].iter().flatten().flat_map(|text| text.as_bytes().to_vec());
    let text = String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned();
    let told = done["text"].as_str().unwrap();
    assert!(text.starts_with(told) && !told.is_empty(), "{text:?} {told:?}");
    assert_eq!(done["usage"]["nfe"], of("llada.step").pop().unwrap()["nfe"]);
    assert_eq!(streamed(&events), told);
}

#[test]
fn snapshots_replace_each_other() {
    let server = server();
    let body = hello(json!({ "stream": true, "diffusing": true }));
    let events = server.post("/v1/chat/completions", &body).expect(200).events();
    let texts: Vec<&str> = events
        .iter()
        .filter_map(|(_, chunk)| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert!(texts.iter().any(|text| text.contains('░')));
    let whole = server.post("/v1/chat/completions", &hello(json!({}))).json();
    assert_eq!(texts.last().copied(), whole["choices"][0]["message"]["content"].as_str());
}

#[test]
fn stop_strings_end_an_answer_and_are_not_told() {
    let server = server();
    let full = server.post("/v1/chat/completions", &hello(json!({}))).json();
    let full = full["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let middle = full.char_indices().nth(full.chars().count() / 2).unwrap().0;
    let stop: String = full[middle..].chars().take(4).collect();
    let expected = full.split(&stop).next().unwrap();
    for stream in [false, true] {
        let body = hello(json!({ "stop": [stop, "never said"], "stream": stream }));
        let answer = server.post("/v1/chat/completions", &body).expect(200);
        let (text, reason) = match stream {
            false => {
                let choice = answer.json()["choices"][0].clone();
                (
                    choice["message"]["content"].as_str().unwrap().to_owned(),
                    choice["finish_reason"].clone(),
                )
            }
            true => {
                let events = answer.events();
                (
                    streamed(&events),
                    events[events.len() - 1].1["choices"][0]["finish_reason"].clone(),
                )
            }
        };
        assert_eq!((text.as_str(), reason), (expected, json!("stop")), "{stop:?}");
    }
}

#[test]
fn the_most_tokens_are_a_cap_and_no_canvas() {
    let server = server();
    for most in [1, 5, 17, 100_000] {
        let answer = server
            .post("/v1/chat/completions", &hello(json!({ "max_tokens": most })))
            .expect(200)
            .json();
        let tokens = answer["usage"]["completion_tokens"].as_u64().unwrap();
        assert!(tokens <= most, "{answer}");
        let is_cut = tokens == most;
        assert_eq!(answer["choices"][0]["finish_reason"], if is_cut { "length" } else { "stop" });
    }
    let exact =
        hello(json!({ "gen_length": 32, "block_length": 16, "blocks": "semi-autoregressive" }));
    let answer = server.post("/v1/chat/completions", &exact).expect(200).json();
    assert_eq!(answer["usage"]["canvas_tokens"], 32);
}

#[test]
fn several_answers_have_seeds_of_their_own() {
    let server = server();
    let body = hello(json!({ "n": 3, "temperature": 1.0 }));
    let answer = server.post("/v1/chat/completions", &body).expect(200).json();
    let texts: Vec<_> =
        (0..3).map(|i| answer["choices"][i]["message"]["content"].clone()).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2], "{texts:?}");
    let alone = server.post("/v1/chat/completions", &hello(json!({ "temperature": 1.0 }))).json();
    assert_eq!(alone["choices"][0]["message"]["content"], texts[0]);
}

#[test]
fn texts_are_continued_and_filled() {
    let server = Server::of(Options::default(), vec![("storyteller".into(), model("storyteller"))]);
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 24, "seed": 3 });
    let whole = server.post("/v1/completions", &body).expect(200).json();
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert!(!text.is_empty() && whole["object"] == "text_completion");
    let tokens =
        server.post("/tokenize", &json!({ "content": "Once upon a time" })).json()["tokens"]
            .clone();
    let of_tokens = server
        .post("/v1/completions", &json!({ "prompt": tokens, "max_tokens": 24, "seed": 3 }))
        .json();
    assert_eq!(of_tokens["choices"][0]["text"], text);
    let several = json!({ "prompt": ["Once upon a time", "The king"], "max_tokens": 24, "seed": 3, "echo": true });
    let several = server.post("/v1/completions", &several).expect(200).json();
    assert_eq!(several["choices"][0]["text"], format!("Once upon a time{text}"));
    assert!(several["choices"][1]["text"].as_str().unwrap().starts_with("The king"));
    let llama = json!({ "prompt": "Once upon a time", "n_predict": 24, "seed": 3 });
    let llama = server.post("/completion", &llama).expect(200).json();
    assert_eq!((llama["content"].as_str(), &llama["stop"]), (Some(text), &json!(true)));

    // The same hole in every interface.
    let hole = |path: &str, body: Value| server.post(path, &body).expect(200).json();
    let fill =
        hole("/v1/infill", json!({ "template": "The {{hole:1}} sat on the throne.", "seed": 1 }));
    let word = fill["fills"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(fill["text"], format!("The {word} sat on the throne."));
    let (prefix, suffix) = ("The ", " sat on the throne.");
    let fim = hole(
        "/v1/fim/completions",
        json!({ "prompt": prefix, "suffix": suffix, "hole_length": 1, "seed": 1 }),
    );
    assert_eq!(fim["choices"][0]["text"], word.as_str());
    let marked = format!("<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>");
    for body in [
        json!({ "prompt": prefix, "suffix": suffix, "hole_length": 1 }),
        json!({ "prompt": marked, "hole_length": 1 }),
    ] {
        assert_eq!(hole("/v1/completions", body)["choices"][0]["text"], word.as_str());
    }
    let llama = json!({ "input_prefix": prefix, "input_suffix": suffix, "hole_length": 1 });
    assert_eq!(hole("/infill", llama)["content"], word.as_str());
    // A hole whose length is chosen, as the library chooses it.
    let mut session = Session::open(model("storyteller")).unwrap();
    let frame = session.frame(&"The {{hole}} sat on the throne.".parse().unwrap()).unwrap();
    let sampler =
        Codec::infill_sampler(&Settings { seed: Some(1), ..Settings::default() }).unwrap();
    let lengths = session.hole_lengths(&frame, &sampler, 4, &mut || false).unwrap().unwrap();
    let open = json!({ "template": "The {{hole}} sat on the throne.", "max_hole": 4, "seed": 1 });
    assert_eq!(hole("/v1/infill", open)["fills"][0]["length"], lengths.lengths[0]);
}

#[test]
fn anthropic_clients_are_answered() {
    let server = server();
    let expected = answered("Tell me a story.", &Settings { seed: Some(7), ..Settings::default() });
    let body = json!({
        "model": "storyteller-chat", "max_tokens": 1000, "seed": 7,
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Tell me a story." }] }],
    });
    let whole = server.post("/v1/messages", &body).expect(200).json();
    assert!(whole["content"][0]["text"].as_str().unwrap().starts_with(&expected), "{whole}");
    assert_eq!((&whole["type"], &whole["role"]), (&json!("message"), &json!("assistant")));
    let mut stream = body.clone();
    stream["stream"] = true.into();
    let events = server.post("/v1/messages", &stream).expect(200).events();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.first(), Some(&"message_start"));
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let text: String =
        events.iter().filter_map(|(_, event)| event["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"][0]["text"], text.as_str());
    let count = server
        .post("/v1/messages/count_tokens", &json!({ "messages": body["messages"] }))
        .expect(200);
    assert_eq!(count.json()["input_tokens"], whole["usage"]["input_tokens"]);
    let wrong = server.post("/v1/messages", &json!({ "messages": [] })).expect(400).json();
    assert_eq!(
        (&wrong["type"], &wrong["error"]["type"]),
        (&json!("error"), &json!("invalid_request_error"))
    );
}

#[test]
fn answers_are_scored_as_by_the_library() {
    let server = Server::of(Options::default(), vec![("storyteller".into(), model("storyteller"))]);
    let mut session = Session::open(model("storyteller")).unwrap();
    let answers = [" king", " refrigerator"];
    let pairs = answers.map(|answer| session.pair("There was once a", answer).unwrap());
    let expected = session.score(&pairs, &Default::default()).unwrap();
    let body = json!({ "prompt": "There was once a", "answers": answers, "greedy": true });
    let scores = server.post("/v1/score", &body).expect(200).json()["scores"].clone();
    for (score, estimate) in scores.as_array().unwrap().iter().zip(&expected) {
        assert_eq!(score["log_likelihood"], estimate.log_likelihood);
        assert_eq!(score["tokens"], estimate.tokens);
        assert!(score["is_greedy"].is_boolean());
    }
}

#[test]
fn a_model_tells_what_it_is() {
    let server = server();
    let models = server.get("/v1/models").expect(200).json();
    assert_eq!(models["data"][0]["id"], "storyteller-chat");
    assert_eq!(server.get("/v1/models/storyteller-chat").expect(200).json()["object"], "model");
    server.get("/v1/models/other").expect(404);
    let props = server.get("/props").expect(200).json();
    let settings = props["settings"].as_array().unwrap();
    assert_eq!(settings.len(), Settings::KEYS.len());
    assert_eq!((&props["chat"], &props["infill"]), (&json!(true), &json!(true)));
    let slots = server.get("/slots").expect(200).json();
    assert_eq!(slots.as_array().unwrap().len(), Options::default().parallel);
    let rendered = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
    assert!(
        server.post("/apply-template", &rendered).expect(200).json()["prompt"]
            .as_str()
            .unwrap()
            .contains("Hi")
    );
    let tokens = server
        .post("/tokenize", &json!({ "content": "a king", "with_pieces": true }))
        .json()["tokens"]
        .clone();
    let pieces: String =
        tokens.as_array().unwrap().iter().map(|t| t["piece"].as_str().unwrap()).collect();
    assert_eq!(pieces, "a king");
    let ids: Vec<Value> = tokens.as_array().unwrap().iter().map(|t| t["id"].clone()).collect();
    assert_eq!(server.post("/detokenize", &json!({ "tokens": ids })).json()["content"], "a king");
    server.post("/v1/embeddings", &json!({ "input": "a" })).expect(501);
    server.post("/v1/chat/completions", &hello(json!({}))).expect(200);
    let metrics = server.get("/metrics").expect(200).text;
    for name in [
        "llada_forward_passes_total",
        "llada_generation_tokens_total",
        "llada_tokens_per_forward_bucket",
    ] {
        assert!(metrics.contains(name), "{metrics}");
    }
    let api = server.get("/openapi.json").expect(200).json();
    for path in ["/v1/chat/completions", "/v1/messages", "/completion", "/v1/score"] {
        assert!(api["paths"][path]["post"].is_object(), "{path}");
    }
    let page = server.get("/").expect(200);
    assert!(
        page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'self'")
    );
}
