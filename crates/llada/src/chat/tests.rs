use std::fs;

use super::*;
use crate::Error;

fn conversation() -> Vec<Message> {
    vec![
        Message::new("user", "  Hi!\n"),
        Message::new("assistant", "Hello."),
        Message::new("user", "What is 2+2?"),
    ]
}

const RENDERED: &str = "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>\
    <|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>\
    <|start_header_id|>user<|end_header_id|>\n\nWhat is 2+2?<|eot_id|>";
const REPLY: &str = "<|start_header_id|>assistant<|end_header_id|>\n\n";

/// The template of LLaDA-8B-Base, word for word.
const VERBATIM: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";

/// Renders the conversation with a template that lies in a folder.
fn render_with(template: &str) -> Result<String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let tokens = r#"{"bos_token": "<|startoftext|>"}"#;
    fs::write(dir.path().join("tokenizer_config.json"), tokens).unwrap();
    Template::from_dir(dir.path())?.render(&conversation(), true)
}

fn from_config(config: serde_json::Value) -> Result<Template> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Template::from_dir(dir.path())
}

#[test]
fn llada_s_template_renders_as_the_original() {
    let template = Template::llada().unwrap();
    assert_eq!(template.render(&conversation(), false).unwrap(), RENDERED);
    let prompt = template.render(&conversation(), true).unwrap();
    assert_eq!(prompt, format!("{RENDERED}{REPLY}"));
    assert_eq!(prompt, render_with(VERBATIM).unwrap());
    assert_eq!(template.render(&[], true).unwrap(), REPLY);
}

#[test]
fn content_is_never_read_as_a_template() {
    let text = "{{ bos_token }} {% raw %} <b>&amp;</b>";
    let out = Template::llada().unwrap().render(&[Message::new("user", text)], false).unwrap();
    assert!(out.contains(text), "{out}");
}

#[test]
fn a_folder_s_settings_are_used() {
    let config = serde_json::json!({
        "bos_token": { "content": "<s>", "lstrip": false },
        "chat_template": "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% endfor %}",
    });
    let template = from_config(config).unwrap();
    assert_eq!(template.render(&conversation(), true).unwrap(), "<s>[user][assistant][user]");
    let several = serde_json::json!({ "chat_template": [
        { "name": "tools", "template": "tools" },
        { "name": "default", "template": "plain" },
    ]});
    assert_eq!(from_config(several).unwrap().render(&[], true).unwrap(), "plain");
    let named = serde_json::json!({ "chat_template": {"default": "plain", "x": "x"} });
    assert_eq!(from_config(named).unwrap().render(&[], true).unwrap(), "plain");
    let none = from_config(serde_json::json!({ "bos_token": "<s>" })).unwrap();
    assert!(none.render(&conversation(), false).unwrap().starts_with("<s><|start_header_id|>"));
    let empty = tempfile::tempdir().unwrap();
    let default = Template::from_dir(empty.path()).unwrap();
    assert_eq!(default.render(&conversation(), false).unwrap(), RENDERED);
}

#[test]
fn templates_with_names_are_chosen_as_transformers_does() {
    let tools = serde_json::json!({ "chat_template": [
        { "name": "tool_use", "template": "tools" }, { "name": "rag", "template": "rag" },
    ]});
    for unnamed in [tools, serde_json::json!({ "chat_template": [] })] {
        let template = from_config(unnamed).unwrap();
        let error = template.render(&[], true).unwrap_err();
        assert!(matches!(error, Error::Chat(ChatError::NoDefault { .. })), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let further = dir.path().join("additional_chat_templates");
    fs::create_dir(&further).unwrap();
    let render = |tools: Option<Json>| {
        let conversation = Conversation { messages: Vec::new(), tools, documents: None };
        let template = Template::from_dir(dir.path()).unwrap();
        template.render_conversation(&conversation, true).map_err(|e| e.to_string())
    };
    fs::write(further.join("rag.jinja"), "rag").unwrap();
    assert!(render(None).unwrap_err().contains("`rag`"));
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    fs::write(further.join("tool_use.jinja"), "tools").unwrap();
    assert_eq!(render(None).unwrap(), "file");
    assert_eq!(render(Some(serde_json::json!([]))).unwrap(), "tools");
    fs::write(further.join("default.jinja"), "further").unwrap();
    assert_eq!(render(None).unwrap(), "further");
}

#[test]
fn special_tokens_are_read_where_transformers_reads_them() {
    let shown = "{{ bos_token }}|{{ eos_token }}|{{ image_token }}|{{ boi }}|{{ mask_token }}";
    let map = r#"{"bos_token": {"content": "<m>"}, "eos_token": "<e>"}"#;
    for (config, expected) in [
        // Nothing of LLaDA's is put into the template of another model.
        (None, "<m>|<e>|||"),
        (Some(r#"{"bos_token": null, "mask_token": "<k>"}"#), "<m>|<e>|||<k>"),
        (
            Some(r#"{"bos_token": "<b>", "image_token": "<i>", "add_bos_token": true}"#),
            "<m>|<e>|<i>||",
        ),
        (Some(r#"{"bos_token": "<b>", "added_tokens_decoder": {}}"#), "<b>||||"),
        (Some(r#"{"extra_special_tokens": {"boi": "<boi>"}}"#), "<m>|<e>||<boi>|"),
        (Some(r#"{"model_specific_special_tokens": {"boi": "<2>"}}"#), "<m>|<e>||<2>|"),
        (Some(r#"{"extra_special_tokens": ["<a>"]}"#), "<m>|<e>|||"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("chat_template.jinja"), shown).unwrap();
        fs::write(dir.path().join("special_tokens_map.json"), map).unwrap();
        if let Some(config) = config {
            fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        }
        let template = Template::from_dir(dir.path()).unwrap();
        assert_eq!(template.render(&[], true).unwrap(), expected, "{config:?}");
    }
}

#[test]
fn a_template_file_goes_before_the_key() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"chat_template": "key"}"#).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
    let template = Template::from_dir(dir.path()).unwrap();
    assert_eq!(template.render(&[], true).unwrap(), "file");
}

#[test]
fn python_s_methods_work() {
    for (template, expected) in [
        ("{{ messages[0].content.strip() }}", "Hi!"),
        ("{{ messages[0]['content'].lstrip() | trim }}", "Hi!"),
        ("{{ 'xxaxx'.strip('x') }}{{ 'ab'.rstrip('b') }}", "aa"),
        ("{{ 'a,b'.split(',')[1] }}{{ ' a  b '.split() | length }}", "b2"),
        ("{{ 'abc'.startswith('ab') and 'abc'.endswith('bc') }}", "True"),
        ("{{ 'a'.upper() + 'B'.lower() + 'x'.replace('x', 'y') }}", "Aby"),
        ("{{ messages[0].get('role') }}{{ messages[0].get('no', 'd') }}", "userd"),
        (
            "{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=assistant;content=Hello.;",
        ),
        ("{% if messages[-1].role == 'user' %}\n  yes\n{% endif %}", "  yes\n"),
        ("{{ messages[1] | tojson }}", r#"{"role": "assistant", "content": "Hello."}"#),
        (
            "{%- set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}\
          {% endfor %}{{ ns.n }}",
            "3",
        ),
        ("{{ messages[1:] | length }}{{ tools is none }}{{ documents is none }}", "2TrueTrue"),
    ] {
        assert_eq!(render_with(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn errors_name_the_template_and_the_line() {
    let error = render_with("one\n{% for %}").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Chat(ChatError::Syntax { line: 2, .. })), "{text}");
    assert!(text.contains("chat template of `") && error.hint().is_some(), "{text}");
    let error = render_with("\n\n{{ raise_exception('no system role') }}").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Chat(ChatError::Render { line: 3, .. })), "{text}");
    assert!(text.contains("no system role") && error.hint().is_some(), "{text}");
    for template in ["{{ 'a'.unknown() }}", "{{ nothing.role }}", "{{ 'a'.split('') }}"] {
        assert!(render_with(template).is_err(), "{template}");
    }
}

#[test]
fn settings_that_are_not_settings_are_errors() {
    for content in ["", "[]", "{\"a\":", &"[".repeat(100_000)] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), content).unwrap();
        let error = Template::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json"), "{error}");
    }
    assert!(from_config(serde_json::json!({ "chat_template": 3, "bos_token": [] })).is_ok());
}

#[test]
fn a_token_that_is_null_or_not_stated_is_none() {
    let template = "{{ bos_token }}[{{ eos_token is defined }}]{{ sep_token }}";
    let render = |config: serde_json::Value| from_config(config)?.render(&conversation(), true);
    for config in [
        serde_json::json!({ "bos_token": null, "sep_token": "|", "chat_template": template }),
        serde_json::json!({ "sep_token": { "content": "|" }, "chat_template": template }),
    ] {
        assert_eq!(render(config).unwrap(), "[False]|");
    }
    let fallback = render(serde_json::json!({ "bos_token": null })).unwrap();
    assert!(fallback.starts_with("<|start_header_id|>user"), "{fallback}");
}

#[test]
fn whatever_a_template_reads_reaches_it() {
    let template = from_config(serde_json::json!({ "chat_template":
        "{% for m in messages %}{{ m | tojson }}{% endfor %}{{ tools | tojson }}{{ documents }}"
    }));
    let conversation = Conversation {
        messages: vec![
            serde_json::json!({"role": "user", "name": "Al", "content": [{"type": "image"}]}),
            serde_json::json!({"content": null, "role": "assistant", "reasoning": "Hm"}),
        ],
        tools: Some(serde_json::json!([{ "b": 1, "a": "<é>" }])),
        documents: None,
    };
    // As `apply_chat_template` does: no field that is null, and thoughts under all their names.
    let expected = r#"{"role": "user", "name": "Al", "content": [{"type": "image"}]}"#.to_owned()
        + r#"{"thinking": "Hm", "role": "assistant", "reasoning": "Hm", "reasoning_content": "Hm"}"#
        + r#"[{"b": 1, "a": "<é>"}]None"#;
    assert_eq!(template.unwrap().render_conversation(&conversation, true).unwrap(), expected);
}

#[test]
fn templates_cannot_take_all_memory_or_time() {
    for template in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}\
         {% endfor %}",
    ] {
        let error = render_with(template).unwrap_err();
        assert!(error.to_string().contains("too many steps"), "{error}");
        assert!(error.hint().is_some());
    }
}
