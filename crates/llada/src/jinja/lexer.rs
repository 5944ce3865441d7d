//! Tokens of what stands between `{{` and `}}` or `{%` and `%}`, as jinja2 cuts them.

use super::Mistake;

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    /// A string literal, its escapes resolved.
    Text(String),
    /// A number, as minijinja writes it.
    Number(String),
    Operator(&'static str),
}

/// Longer ones go before those that they begin with.
const OPERATORS: [&str; 25] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// Tokens, each with its line counted from the start of the tag.
pub(super) struct Lexed<'a> {
    pub(super) tokens: Vec<(Token<'a>, usize)>,
    /// Bytes up to the end of the tag, the end marker not included.
    pub(super) len: usize,
    /// Sign before the end marker: `-`, `+` or none.
    pub(super) sign: &'static str,
    pub(super) newlines: usize,
}

/// Cuts `source` up to `end`, which is `}}` or `%}`.
pub(super) fn lex<'a>(source: &'a str, end: &str) -> Result<Lexed<'a>, Mistake> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 0);
    let mut open: Vec<&str> = Vec::new();
    let mistake = |line, what: String| Err(Mistake { line, what });
    loop {
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else {
            return mistake(line, format!("the tag is not closed with `{end}`"));
        };
        if open.is_empty() {
            for sign in ["-", "+", ""] {
                let closes = sign != "+" || end == "%}";
                if closes && rest.strip_prefix(sign).is_some_and(|rest| rest.starts_with(end)) {
                    return Ok(Lexed { tokens, len: at, sign, newlines: line });
                }
            }
        }
        if first.is_whitespace() {
            line += usize::from(first == '\n');
            at += first.len_utf8();
        } else if first.is_ascii_digit() {
            // After a dot stands the number of an item.
            let item = matches!(tokens.last(), Some((Token::Operator("."), _)));
            let (len, number) = number(rest, item).map_err(|what| Mistake { line, what })?;
            tokens.push((Token::Number(number), line));
            at += len;
        } else if first == '_' || first.is_alphabetic() {
            let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
            let name = &rest[..end.unwrap_or(rest.len())];
            tokens.push((Token::Name(name), line));
            at += name.len();
        } else if first == '\'' || first == '"' {
            let (len, text) = text(rest, first).map_err(|what| Mistake { line, what })?;
            tokens.push((Token::Text(text), line));
            line += rest[..len].matches('\n').count();
            at += len;
        } else if let Some(operator) = OPERATORS.into_iter().find(|o| rest.starts_with(o)) {
            match operator {
                "(" | "[" | "{" => open.push(operator),
                ")" | "]" | "}" => {
                    let matches = matches!(
                        (open.pop(), operator),
                        (Some("("), ")") | (Some("["), "]") | (Some("{"), "}")
                    );
                    if !matches {
                        return mistake(line, format!("unexpected `{operator}`"));
                    }
                }
                _ => {}
            }
            tokens.push((Token::Operator(operator), line));
            at += operator.len();
        } else {
            return mistake(line, format!("unexpected `{first}`"));
        }
    }
}

/// Length and value of the number that `source` begins with; no float if it is of an item.
fn number(source: &str, item: bool) -> Result<(usize, String), String> {
    let digits = |from: usize, radix: u32| {
        let rest = source[from..].bytes();
        from + rest.take_while(|&b| b == b'_' || (b as char).is_digit(radix)).count()
    };
    let radix = match source.as_bytes() {
        [b'0', b'x' | b'X', ..] => 16,
        [b'0', b'o' | b'O', ..] => 8,
        [b'0', b'b' | b'B', ..] => 2,
        _ => 10,
    };
    if radix != 10 {
        let end = digits(2, radix);
        let value = i128::from_str_radix(&source[2..end].replace('_', ""), radix);
        return match value {
            Ok(value) => Ok((end, value.to_string())),
            Err(_) => Err("a number without digits, or too large a one".into()),
        };
    }
    let bytes = source.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = digits(0, 10);
    while bytes[end - 1] == b'_' {
        end -= 1;
    }
    let mut float = false;
    if !item && bytes.get(end) == Some(&b'.') && is_digit(end + 1) {
        (float, end) = (true, digits(end + 1, 10));
    }
    if !item && matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = matches!(bytes.get(end + 1), Some(b'+' | b'-'));
        let start = end + 1 + usize::from(signed);
        if is_digit(start) {
            (float, end) = (true, digits(start, 10));
        }
    }
    if !float && bytes[0] == b'0' {
        end = bytes.iter().take_while(|b| matches!(b, b'0' | b'_')).count();
    }
    let plain = source[..end].replace('_', "");
    if !float {
        return match plain.parse::<u128>() {
            Ok(value) => Ok((end, value.to_string())),
            Err(_) => Err("a number that is too large".into()),
        };
    }
    let value: f64 = plain.parse().map_err(|_| format!("`{plain}` is no number"))?;
    if !value.is_finite() {
        return Ok((end, "(\"inf\" | float)".into()));
    }
    // Without an exponent, which minijinja reads otherwise.
    let mut written = format!("{value}");
    if !written.contains('.') {
        written.push_str(".0");
    }
    Ok((end, written))
}

/// Length and value of the string literal that `source` begins with; escapes as in Python.
fn text(source: &str, quote: char) -> Result<(usize, String), String> {
    let mut text = String::new();
    let mut chars = source.char_indices().skip(1);
    let unclosed = || "a string that is not closed".to_owned();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((at + c.len_utf8(), text));
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        let (at, escape) = chars.next().ok_or_else(unclosed)?;
        let plain = match escape {
            '\n' => continue,
            '\\' | '\'' | '"' => escape,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            'x' | 'u' | 'U' | '0'..='7' => {
                let (from, least, most, radix) = match escape {
                    'x' => (at + 1, 2, 2, 16),
                    'u' => (at + 1, 4, 4, 16),
                    'U' => (at + 1, 8, 8, 16),
                    _ => (at, 1, 3, 8),
                };
                let digits: String =
                    source[from..].chars().take(most).take_while(|c| c.is_digit(radix)).collect();
                let code = u32::from_str_radix(&digits, radix).ok();
                let found = code.filter(|_| digits.len() >= least).and_then(char::from_u32);
                let read = digits.len() - usize::from(from == at);
                (0..read).for_each(|_| _ = chars.next());
                found.ok_or_else(|| format!("the escape `\\{escape}{digits}` is no character"))?
            }
            'N' => return Err("the escape `\\N` cannot be used".into()),
            other => {
                text.push('\\');
                other
            }
        };
        text.push(plain);
    }
    Err(unclosed())
}

/// A string as a literal that minijinja reads.
pub(super) fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        match c {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            c => literal.push(c),
        }
    }
    literal.push('"');
    literal
}
