//! Calls of tools, as the templates of this family of models write them (Hermes):
//!
//! ```text
//! <tool_call>
//! {"name": "weather", "arguments": {"city": "Oslo"}}
//! </tool_call>
//! ```

use std::rc::Rc;

use super::{ConstraintError, Tool, ToolChoice, json, node::Node, schema};

/// What begins a call.
const BEGIN: &str = "<tool_call>";
/// What ends it.
const END: &str = "</tool_call>";

/// The answers of a model that may call `tools`, as `choice` says.
pub(super) fn node(tools: &[Tool], choice: &ToolChoice) -> Result<Node, ConstraintError> {
    if tools.is_empty() {
        return Err(ConstraintError::Empty("tools"));
    }
    if let ToolChoice::Named(name) = choice {
        let tool = tools.iter().find(|tool| tool.name == *name).ok_or_else(|| {
            let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            ConstraintError::Tool { name: name.clone(), known: names.join(", ") }
        })?;
        return call(tool);
    }
    let call = Node::Or(tools.iter().map(call).collect::<Result<_, _>>()?);
    let calls = Node::List(Rc::new(call), "\n");
    Ok(match choice {
        ToolChoice::Auto => Node::Seq(vec![text_without_calls(), calls.optional()]),
        _ => calls,
    })
}

/// One call.
fn call(tool: &Tool) -> Result<Node, ConstraintError> {
    let arguments = schema::node(&tool.parameters)?;
    let before = format!("{BEGIN}\n{{\"name\": \"{}\", \"arguments\": ", json::escaped(&tool.name));
    Ok(arguments.between(&before, &format!("}}\n{END}")))
}

/// Texts in which no call begins: after so much of its beginning comes something else, the beginning again,
/// or nothing.
fn text_without_calls() -> Node {
    let parts = || (1..BEGIN.len()).map(|n| &BEGIN[..n]);
    let begun = Rc::new(Node::Or(parts().map(Node::text).collect()));
    let begun = || Node::Repeat(Rc::clone(&begun), 0, None);
    let departs = parts()
        .zip(BEGIN.chars().skip(1))
        .map(|(part, next)| Node::Seq(vec![Node::text(part), other_than(&['<', next])]));
    let departs = Node::Seq(vec![begun(), Node::Or(departs.collect())]);
    let any = Node::Or(vec![other_than(&['<']), departs]);
    Node::Seq(vec![any.times(0, None), begun()])
}

/// Any character but these.
fn other_than(but: &[char]) -> Node {
    let mut but = but.to_vec();
    but.sort_unstable();
    let (mut ranges, mut first) = (Vec::new(), '\0');
    for c in but {
        if let (Some(last), Some(after)) =
            (char::from_u32((c as u32).wrapping_sub(1)), char::from_u32(c as u32 + 1))
        {
            if first <= last {
                ranges.push((first, last));
            }
            first = after;
        }
    }
    ranges.push((first, char::MAX));
    Node::Class(ranges)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{dfa::Dfa, nfa::Nfa},
        *,
    };

    #[test]
    fn calls_are_made_as_often_as_they_may_be() {
        let tool = |name: &str| Tool {
            name: name.into(),
            parameters: json!({ "properties": { "n": { "type": "integer" } }, "required": ["n"], "type": "object" }),
        };
        let tools = [tool("f"), tool("g")];
        let call = |name: &str, n: i32| {
            format!(
                "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"n\": {n}}}}}\n</tool_call>"
            )
        };
        let (one, two) = (call("f", 1), call("f", 1) + "\n" + &call("g", 20));
        let texts = [
            one.clone(),
            two,
            String::new(),
            "Hello, a < b <tool <<tool_call".into(),
            format!("Let me see.\n{one}"),
            "<tool_call>".into(),
            "a <tool_call>\nb".into(),
            format!("{one}\n"),
            call("h", 1),
        ];
        for (choice, accepted) in [
            (ToolChoice::Auto, [true, true, true, true, true, false, false, false, false]),
            (ToolChoice::Required, [true, true, false, false, false, false, false, false, false]),
            (
                ToolChoice::Named("f".into()),
                [true, false, false, false, false, false, false, false, false],
            ),
        ] {
            let dfa = Dfa::of(&Nfa::of(&node(&tools, &choice).unwrap()).unwrap()).unwrap();
            for (text, accepted) in texts.iter().zip(accepted) {
                assert_eq!(dfa.is_match(text.as_bytes()), accepted, "{choice:?} {text}");
            }
        }
        let unknown = node(&tools, &ToolChoice::Named("h".into())).unwrap_err();
        assert_eq!(unknown.hint().unwrap(), "use one of: f, g");
        assert!(node(&[], &ToolChoice::Auto).is_err());
    }
}
