//! `llada tokenizer render`: what a chat template makes of messages.

use std::{
    fs::File,
    io::{Read, stdin},
    path::Path,
};

use anyhow::Result;
use llada::chat::{Conversation, Template};
use serde_json::Value;

use crate::{args::Render, error::Failure, term};

/// Most bytes of messages.
const MOST: u64 = 64 << 20;

/// Prints the text of a conversation.
pub fn run(args: &Render) -> Result<()> {
    let template = Template::from_dir(&args.model)?;
    let conversation = conversation(&read(args.messages.as_deref())?)?;
    term::answer(&template.render_conversation(&conversation, !args.no_generation_prompt)?)
}

fn read(path: Option<&Path>) -> Result<String> {
    let file = path.filter(|path| path.as_os_str() != "-");
    let name = file.map_or("stdin".into(), |path| path.display().to_string());
    let mut text = String::new();
    let read = match file {
        Some(path) => File::open(path).and_then(|f| f.take(MOST).read_to_string(&mut text)),
        None => stdin().lock().take(MOST).read_to_string(&mut text),
    };
    match read {
        Ok(_) if (text.len() as u64) < MOST => Ok(text),
        Ok(_) => Err(invalid(format!("{name} has {MOST} bytes or more")).into()),
        Err(e) => Err(invalid(format!("cannot read {name}: {e}")).into()),
    }
}

/// A conversation out of JSON.
fn conversation(text: &str) -> Result<Conversation> {
    let json: Value = serde_json::from_str(text)
        .map_err(|e| invalid(format!("the messages are no JSON ({e})")))?;
    let (messages, tools, documents) = match json {
        Value::Object(mut fields) => (
            fields.remove("messages").unwrap_or_default(),
            fields.remove("tools"),
            fields.remove("documents"),
        ),
        messages => (messages, None, None),
    };
    match messages {
        Value::Array(messages) if messages.iter().all(Value::is_object) => {
            let given = |json: Option<Value>| json.filter(|json| !json.is_null());
            Ok(Conversation { messages, tools: given(tools), documents: given(documents) })
        }
        _ => Err(invalid("the messages are not a list of objects".into()).into()),
    }
}

fn invalid(what: String) -> Failure {
    Failure::usage(what, r#"give a list such as `[{"role": "user", "content": "Hi"}]`"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_conversation_are_read_and_others_refused() {
        let list = conversation(r#"[{"role": "user", "content": null}]"#).unwrap();
        assert_eq!((list.messages.len(), &list.tools), (1, &None));
        let object = conversation(r#"{"messages": [], "tools": [{"a": 1}], "documents": null}"#);
        let object = object.unwrap();
        assert_eq!((object.tools.is_some(), object.documents.is_some()), (true, false));
        for wrong in ["", "{", "3", "{}", "[1]", r#"{"messages": {}}"#] {
            assert!(conversation(wrong).is_err(), "{wrong}");
        }
    }
}
