//! JSON texts as languages, in one style: `{"a": 1, "b": [1, 2]}`, as `json.dumps` of Python writes them.

use std::rc::Rc;

use serde_json::Value;

use super::node::Node;

/// How deep arrays and objects are nested in a value of which nothing is said.
pub(super) const DEPTH: usize = 3;
/// The same in an answer that may be any JSON object, itself included.
pub(super) const WHOLE_DEPTH: usize = 5;
/// Most digits of a number, before and after its point: fewer than are exact in `f64`.
pub(super) const DIGITS: u32 = 15;

/// The characters that a string holds as they are.
const PLAIN: [(char, char); 3] = [(' ', '!'), ('#', '['), (']', char::MAX)];
/// Those that are written with a backslash and a letter.
const ESCAPES: [(char, &str); 7] = [
    ('"', "\\\""),
    ('\\', "\\\\"),
    ('\n', "\\n"),
    ('\t', "\\t"),
    ('\r', "\\r"),
    ('\u{8}', "\\b"),
    ('\u{c}', "\\f"),
];

/// One character of a string, in the one spelling that it has here: as itself, or with a backslash and a
/// letter. Other control characters are not written.
pub(super) fn character() -> Node {
    let mut letters: Vec<(char, char)> = ESCAPES
        .iter()
        .filter_map(|(_, text)| text.chars().nth(1).map(|letter| (letter, letter)))
        .collect();
    letters.sort_unstable();
    let escape = Node::Seq(vec![Node::text("\\"), Node::Class(letters)]);
    Node::Or(vec![Node::Class(PLAIN.into()), escape])
}

/// A character of these `ranges` within a string.
pub(super) fn class(ranges: Vec<(char, char)>) -> Node {
    let has = |c: char| ranges.iter().any(|&(first, last)| (first..=last).contains(&c));
    let mut nodes: Vec<Node> = ('\0'..=' ')
        .chain(['"', '\\'])
        .filter(|&c| c != ' ' && has(c))
        .map(|c| Node::text(&escaped(c.encode_utf8(&mut [0; 4]))))
        .collect();
    let mut plain = Vec::new();
    for &(first, last) in &ranges {
        for (low, high) in PLAIN {
            if first.max(low) <= last.min(high) {
                plain.push((first.max(low), last.min(high)));
            }
        }
    }
    if !plain.is_empty() {
        nodes.push(Node::Class(plain));
    }
    Node::Or(nodes)
}

/// A text as the inside of a string.
pub(super) fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A string of so many characters.
pub(super) fn string(min: u32, max: Option<u32>) -> Node {
    character().times(min, max).between("\"", "\"")
}

/// A whole number.
pub(super) fn integer() -> Node {
    let digits = Node::range('0', '9').times(0, Some(DIGITS - 1));
    let positive = Node::Seq(vec![Node::range('1', '9'), digits]);
    Node::Or(vec![Node::text("0"), Node::Seq(vec![Node::text("-").optional(), positive])])
}

/// A number.
pub(super) fn number() -> Node {
    let digit = || Node::range('0', '9');
    let whole = Node::Or(vec![
        Node::text("0"),
        Node::Seq(vec![Node::range('1', '9'), digit().times(0, Some(DIGITS - 1))]),
    ]);
    let fraction = Node::Seq(vec![Node::text("."), digit().times(1, Some(DIGITS))]);
    let sign = Node::Class(vec![('+', '+'), ('-', '-')]).optional();
    let e = Node::Class(vec![('E', 'E'), ('e', 'e')]);
    let exponent = Node::Seq(vec![e, sign, digit().times(1, Some(2))]);
    Node::Seq(vec![Node::text("-").optional(), whole, fraction.optional(), exponent.optional()])
}

/// Any value, nested so deep.
pub(super) fn any(depth: usize) -> Node {
    let mut nodes =
        vec![string(0, None), number(), literal("null"), literal("true"), literal("false")];
    if depth > 0 {
        nodes.push(array(any(depth - 1)));
        nodes.push(object(depth));
    }
    Node::Or(nodes)
}

fn literal(text: &str) -> Node {
    Node::text(text)
}

/// An array of any length.
pub(super) fn array(item: Node) -> Node {
    let item = Some(Rc::new(item));
    Node::Items { prefix: Vec::new(), item, min: 0, max: None }.between("[", "]")
}

/// An object with any keys and values, nested so deep itself.
pub(super) fn object(depth: usize) -> Node {
    map(any(depth.saturating_sub(1)), 0, None)
}

/// An object with any keys and such values, of which there are `min` to `max`. A key may repeat.
pub(super) fn map(value: Node, min: u32, max: Option<u32>) -> Node {
    let member = Node::Seq(vec![string(0, None), Node::text(": "), value]);
    Node::Items { prefix: Vec::new(), item: Some(Rc::new(member)), min, max }.between("{", "}")
}

/// This value.
pub(super) fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| {
                format!("\"{}\": {}", escaped(key), written(value))
            };
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{{}}}", members.join(", "))
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{dfa::Dfa, nfa::Nfa},
        *,
    };

    #[test]
    fn any_object_is_accepted_in_one_style_and_to_a_depth() {
        let dfa = Dfa::of(&Nfa::of(&object(3)).unwrap()).unwrap();
        for text in [
            "{}",
            r#"{"a": 1}"#,
            r#"{"a": [1, -2.5e+10, null], "ü\n\"": {"b": {}}}"#,
            r#"{"": "日本", "a": true, "b": []}"#,
        ] {
            assert!(dfa.is_match(text.as_bytes()), "{text}");
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(written(&value).parse::<Value>().unwrap(), value);
        }
        for text in [
            "",
            "1",
            r#"{"a":1}"#,
            r#"{"a": 01}"#,
            r#"{"a": 1,}"#,
            r#"{"a": [[[[]]]]}"#,
            "{\"a\": \"\n\"}",
            r#"{"a": "\x"}"#,
            r#"{"a": "\ud800"}"#,
            "{\"a\": \"\u{1}\"}",
        ] {
            assert!(!dfa.is_match(text.as_bytes()), "{text}");
        }
        assert!(!dfa.is_match(b"{\"a\": \"\xff\"}"));
    }

    #[test]
    fn arrays_have_the_elements_that_they_may_have() {
        let one = || Some(Rc::new(Node::text("1")));
        let two = || vec![Node::text("a"), Node::text("b")];
        for (prefix, item, min, max, accepted) in [
            (vec![], one(), 0, None, "0 1 2 3 4 5"),
            (vec![], one(), 1, None, "1 2 3 4 5"),
            (vec![], one(), 3, None, "3 4 5"),
            (vec![], one(), 0, Some(2), "0 1 2"),
            (vec![], one(), 2, Some(4), "2 3 4"),
            (vec![], one(), 0, Some(0), "0"),
            (two(), one(), 0, None, "0 1 2 3 4 5"),
            (two(), one(), 1, Some(3), "1 2 3"),
            (two(), None, 0, None, "0 1 2"),
            (two(), None, 2, Some(9), "2"),
            (two(), one(), 4, None, "4 5"),
            (vec![], None, 0, None, "0"),
            (vec![], None, 1, None, ""),
        ] {
            let names: Vec<&str> = match prefix.is_empty() {
                true => vec!["1"; 5],
                false => vec!["a", "b", "1", "1", "1"],
            };
            let node = Node::Items { prefix, item, min, max };
            let dfa = Dfa::of(&Nfa::of(&node).unwrap()).unwrap();
            let counts = (0..=5).filter(|&n| dfa.is_match(names[..n].join(", ").as_bytes()));
            let counts: Vec<String> = counts.map(|n| n.to_string()).collect();
            assert_eq!(counts.join(" "), accepted, "{node:?}");
        }
    }
}
