use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The messages of a row.
fn of_json(row: &[u8]) -> Result<Vec<Message>, Reason> {
    messages(&columns(row)?)
}

/// The reason for which a row is refused.
fn reason(row: &str) -> String {
    of_json(row.as_bytes()).unwrap_err()
}

#[test]
fn both_forms_of_a_row_are_read() {
    let pair = of_json(br#"{"prompt":"p","response":"r","id":7}"#).unwrap();
    assert_eq!(pair, [Message::new("user", "p"), Message::new("assistant", "r")]);
    let system = of_json(br#"{"system":"s","prompt":"p","response":"r"}"#).unwrap();
    assert_eq!(system[0], Message::new("system", "s"));
    let parts = json!({"prompt": "not this", "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "r"},
    ]});
    let messages = of_json(parts.to_string().as_bytes()).unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[1].content, "ab");
}

#[test]
fn rows_as_tables_and_other_programs_have_them_are_read() {
    let expected = [Message::new("user", "p"), Message::new("assistant", "r")];
    let messages = json!([{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]);
    let share = json!([{"from": "human", "value": "p"}, {"from": "gpt", "value": "r"}]);
    let unified = json!([
        {"role": null, "content": null, "from": "human", "value": "p", "weight": 0.5},
        {"role": "assistant", "content": "r", "from": null, "value": null, "tool_calls": null},
    ]);
    let (p, r) = (json!("p"), json!("r"));
    for row in [
        json!({"prompt": p, "response": r, "messages": null}),
        json!({"prompt": p, "response": r, "messages": [], "system": null}),
        json!({"prompt": null, "response": null, "messages": messages}),
        json!({"messages": null, "conversations": share}),
        json!({"messages": [], "conversations": share, "prompt": "not this"}),
        json!({"conversation": messages}),
        json!({ "conversations": unified }),
        json!({"messages": {"role": ["user", "assistant"], "content": ["p", "r"]}}),
        json!({"conversations": {"from": ["human", "gpt"], "value": ["p", "r"], "x": null}}),
        json!({"prompt": p, "response": r, "big": 1e300, "date": [{}]}),
        json!({"messages": messages.to_string(), "prompt": "not this"}),
        json!({"conversations": share.to_string()}),
        json!({"messages": "[]", "conversation": null, "prompt": p, "response": r}),
    ] {
        assert_eq!(of_json(row.to_string().as_bytes()).unwrap(), expected, "{row}");
    }
    let with = |system: serde_json::Value| {
        let row = json!({"conversations": share, "system": system}).to_string();
        of_json(row.as_bytes()).unwrap()
    };
    assert_eq!(with(json!("s")), [&[Message::new("system", "s")], &expected[..]].concat());
    assert_eq!((with(json!("")), with(json!(null))), (expected.to_vec(), expected.to_vec()));
    let own = json!({"system": "not this", "messages": [
        {"role": "system", "content": "s"}, messages[0], messages[1]]});
    assert_eq!(of_json(own.to_string().as_bytes()).unwrap(), with(json!("s")));
    let row = br#"{"prompt": "p", "response": "r", "messages": NaN, "score": -Infinity}"#;
    assert_eq!(of_json(row).unwrap(), expected);
    assert_eq!(reason(r#"{"prompt": "p", "response": NaN}"#), "no field `response`");
    assert!(reason(r#"{"messages": [null]}"#).contains("message 1 has no `role`"));
    assert!(reason(r#"{"messages": {"role": "user"}}"#).contains("`messages` is not a list"));
    assert!(reason(r#"{"messages": {"role": ["user"]}}"#).contains("message 1 has no `content`"));
    assert!(reason(r#"{"conversations": "hi"}"#).contains("`conversations` is not a list"));
    assert!(reason(r#"{"messages": "7"}"#).contains("`messages` is not a list"));
    assert!(reason(r#"{"messages": "[{]"}"#).contains("`messages` is not a list"));
    assert!(reason(r#"{"messages": "[7]"}"#).contains("message 1 has no `role`"));
}

#[test]
fn prompts_and_completions_are_texts_or_messages() {
    let (p, r) = (Message::new("user", "p"), Message::new("assistant", "r"));
    let read = |row: serde_json::Value| of_json(row.to_string().as_bytes());
    let user = json!([{"role": "user", "content": "p"}]);
    let assistant = json!([{"role": "assistant", "content": "r"}]);
    for row in [
        json!({"prompt": "p", "completion": "r"}),
        json!({"prompt": user, "completion": assistant}),
        json!({"prompt": user, "completion": "r", "response": null}),
        json!({"prompt": {"role": ["user"], "content": ["p"]}, "response": assistant}),
        json!({"prompt": "p", "response": "r", "completion": "not this"}),
    ] {
        assert_eq!(read(row.clone()).unwrap(), [p.clone(), r.clone()], "{row}");
    }
    let long = json!([
        {"role": "system", "content": "s"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "p"},
    ]);
    let found = read(json!({"prompt": long, "completion": assistant})).unwrap();
    assert_eq!((found.len(), &found[0].role, &found[3]), (5, &"system".to_owned(), &p));
    // What looks like a list is a text that looks so.
    let found = read(json!({"prompt": user.to_string(), "completion": "[]"})).unwrap();
    assert_eq!(found[0].content, user.to_string());
    for (row, expected) in [
        (json!({"prompt": 1, "completion": "r"}), "`prompt` is not a string, nor a list"),
        (json!({"prompt": "p", "completion": 1}), "`completion` is not a string, nor a list"),
        (json!({"prompt": user, "completion": user}), "message 2 is of `user`"),
        (json!({"prompt": [], "completion": assistant}), "message 1 is of `assistant`"),
        (json!({"prompt": "p", "completion": []}), "last message is not of `assistant`"),
        (json!({"prompt": "p", "completion": ""}), "the response is empty"),
    ] {
        let found = read(row).unwrap_err();
        assert!(found.contains(expected), "{found} | {expected}");
    }
}

#[test]
fn instructions_have_inputs_and_earlier_turns() {
    let read = |row: serde_json::Value| -> std::result::Result<Vec<String>, String> {
        let messages = of_json(row.to_string().as_bytes())?;
        Ok(messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect())
    };
    let plain = ["user: i", "assistant: o"];
    let whole = ["system: s", "user: a", "assistant: b", "user: i\nx", "assistant: o"];
    let history = json!([["a", "b"]]);
    for (row, expected) in [
        (json!({"instruction": "i", "output": "o"}), &plain[..]),
        (json!({"instruction": "i", "input": "", "output": "o", "system": ""}), &plain),
        (json!({"instruction": "", "input": "i", "output": "o", "history": []}), &plain),
        (
            json!({"instruction": "i", "input": null, "output": "o", "history": null, "text": "…"}),
            &plain,
        ),
        (json!({"instruction": "i", "input": "x", "output": "o"}), &["user: i\nx", "assistant: o"]),
        (
            json!({"instruction": "i", "input": "x", "output": "o", "system": "s", "history": history}),
            &whole,
        ),
        (
            json!({"instruction": "i", "input": "x", "output": "o", "system": "s",
                   "history": history.to_string()}),
            &whole,
        ),
        (json!({"prompt": "i\nx", "response": "o", "system": "s", "history": history}), &whole),
        (json!({"prompt": "i", "response": "o", "history": "", "tools": []}), &plain),
        (json!({"prompt": "i", "response": "o", "messages": "", "tools": "[]"}), &plain),
        // Of two layouts the first, if it is whole.
        (json!({"instruction": "i", "output": "o", "prompt": "the text of both"}), &plain),
        (
            json!({"instruction": "i", "output": "o", "prompt": "p", "completion": "c"}),
            &["user: p", "assistant: c"],
        ),
        (
            json!({"instruction": "i", "output": "o", "messages": [
                {"role": "user", "content": "m"}, {"role": "assistant", "content": "n"}]}),
            &["user: m", "assistant: n"],
        ),
        (json!({"instruction": "i", "output": "o", "messages": []}), &plain),
    ] {
        assert_eq!(read(row.clone()).unwrap(), expected, "{row}");
    }
    for (row, expected) in [
        (json!({"prompt": "i", "response": "o", "history": [["a"]]}), "`history` is not a list"),
        (json!({"prompt": "i", "response": "o", "tools": [{"name": "f"}]}), "it has `tools`"),
        (json!({"messages": [], "tools": "[{\"name\": \"f\"}]"}), "it has `tools`"),
        (json!({"messages": ""}), "no field `messages`"),
        (json!({"instruction": "i"}), "no field `output`"),
        (json!({"instruction": "i", "output": null, "prompt": "p"}), "no field `response`"),
        (json!({"input": "x", "output": "o"}), "or `instruction` either"),
        (json!({"instruction": 1, "output": "o"}), "`instruction` is not a string"),
        (json!({"instruction": "i", "input": [], "output": "o"}), "`input` is not a string"),
        (json!({"instruction": "i", "output": "o", "history": "x"}), "`history` is not a list of"),
        (json!({"instruction": "i", "output": "o", "history": [["a"]]}), "`history` is not a list"),
    ] {
        let found = read(row).unwrap_err();
        assert!(found.contains(expected), "{found} | {expected}");
    }
}

#[test]
fn what_is_wrong_with_a_row_is_said() {
    let messages = |list: serde_json::Value| reason(&json!({ "messages": list }).to_string());
    let say = |role: &str, content: &str| json!({"role": role, "content": content});
    for (found, expected) in [
        (reason("{"), "not JSON"),
        (reason("[]"), "not a JSON object"),
        (reason("{}"), "no field `messages`, and no `prompt`"),
        (reason(r#"{"prompt":"p"}"#), "no field `response`"),
        (reason(r#"{"prompt":1,"response":"r"}"#), "`prompt` is not a string"),
        (reason(r#"{"prompt":"p","response":" \n"}"#), "the response is empty"),
        (reason(r#"{"messages":"hi"}"#), "`messages` is not a list"),
        (messages(json!([])), "no message of `user`"),
        (messages(json!([say("user", "u")])), "last message is not of `assistant`"),
        (messages(json!([say("tool", "u")])), "message 1 has the unknown role `tool`"),
        (messages(json!([{"content": "u"}])), "message 1 has no `role`"),
        (messages(json!([{"role": "user"}])), "message 1 has no `content`"),
        (messages(json!([{"role": "user", "content": null}])), "neither a string nor"),
        (
            messages(json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            "type `image_url`",
        ),
        (
            messages(json!([say("assistant", "a"), say("user", "u")])),
            "message 1 is of `assistant` where `user`",
        ),
        (
            messages(json!([say("user", "u"), say("system", "s")])),
            "message 2 is of `system` where `assistant`",
        ),
        (
            messages(json!([
                say("user", "u"),
                say("assistant", ""),
                say("user", "u"),
                say("assistant", "a")
            ])),
            "message 2 is an empty response",
        ),
    ] {
        assert!(found.contains(expected), "{found} | {expected}");
    }
}

proptest! {
    #[test]
    fn no_row_makes_the_reader_panic(line in "\\PC{0,60}", bytes: Vec<u8>) {
        let _ = of_json(line.as_bytes());
        let _ = of_json(&bytes);
        let wrapped = format!("{{\"messages\": [{line}], \"prompt\": \"{line}\"}}");
        let _ = of_json(wrapped.as_bytes());
    }
}

#[test]
fn what_python_reads_refuses_no_row() {
    let read = |row: &str| of_json(row.as_bytes());
    let row = r#"{"prompt": "a\ud83d", "response": "b", "id": "\udc00", "p": [1e999, -Infinity]}"#;
    let messages = read(row).unwrap();
    let texts: Vec<&str> = messages.iter().map(|message| &*message.content).collect();
    assert_eq!(texts, ["a\u{fffd}", "b"]);
    let (open, close) = ("[".repeat(500), "]".repeat(500));
    let deep = format!(r#"{{"prompt": "a", "response": "b", "x": {open}1{close}}}"#);
    let error = read(&deep).unwrap_err();
    assert_eq!(error, "not JSON (arrays and objects are nested more than 127 deep)");
}

#[test]
fn preferences_are_pairs_with_one_prompt() {
    let read = |row: serde_json::Value| preference(row.as_object().unwrap());
    let of = |answer: &str| vec![Message::new("user", "q"), Message::new("assistant", answer)];
    let say = |role: &str, text: &str| json!({"role": role, "content": text});
    let whole = |answer: &str| json!([say("user", "q"), say("assistant", answer)]);
    for row in [
        json!({"prompt": "q", "chosen": "a", "rejected": "b"}),
        json!({"prompt": [say("user", "q")], "chosen": [say("assistant", "a")],
               "rejected": [say("assistant", "b")]}),
        json!({"chosen": whole("a"), "rejected": whole("b"), "score": 3}),
        json!({"chosen": whole("a").to_string(), "rejected": whole("b").to_string()}),
    ] {
        assert_eq!(read(row.clone()).unwrap(), [of("a"), of("b")], "{row}");
    }
    let system = json!({"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"});
    assert_eq!(read(system).unwrap()[1][0], Message::new("system", "s"));
    for (row, reason) in [
        (json!({"prompt": "q", "chosen": "a"}), "no field `rejected`"),
        (json!({"chosen": "a", "rejected": "b"}), "no field `prompt`"),
        (json!({"prompt": "q", "chosen": "a", "rejected": "a"}), "are the same"),
        (
            json!({"prompt": "q", "chosen": "a", "rejected": " "}),
            "`rejected`: the response is empty",
        ),
        (
            json!({"chosen": whole("a"), "rejected": [say("user", "r"), say("assistant", "b")]}),
            "do not answer the same",
        ),
        (json!({"chosen": [say("user", "q")], "rejected": whole("b")}), "not of `assistant`"),
    ] {
        let found = read(row.clone()).unwrap_err();
        assert!(found.contains(reason), "{row}: {found}");
    }
}
