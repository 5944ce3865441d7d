//! Templates of jinja2 as templates of minijinja: tags and text stay as they are, line by line, and
//! the expressions in them are written as [`expression`](super::expression) says.

use super::{
    Mistake,
    lexer::{self, Token},
    parser::Parser,
};

/// Branches that all conditions of a template may have: minijinja nests them.
const MOST_BRANCHES: usize = 300;
/// Where a macro of jinja2 finds the arguments that it has no parameters for.
const EXTRA: [&str; 2] = ["varargs", "kwargs"];

/// The template `source` for minijinja, which takes out line breaks after tags if `trim_blocks`.
/// Line breaks become `\n`, as jinja2 reads them.
pub(super) fn template(source: &str, trim_blocks: bool) -> Result<String, Mistake> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() * 2);
    let (mut branches, mut line, mut macros) = (0, 1, Vec::new());
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        line += text.matches('\n').count();
        let here = line;
        let at = |mistake: Mistake| Mistake { line: mistake.line + here, ..mistake };
        let open = &tag[..2];
        if open == "{#" {
            let len = tag.find("#}").ok_or_else(|| at(Mistake::new("a comment is not closed")))?;
            line += tag[..len].matches('\n').count();
            out.push_str(&tag[..len + 2]);
            rest = &tag[len + 2..];
            continue;
        }
        if open == "{%"
            && let Some(len) = raw(tag).map_err(at)?
        {
            line += tag[..len].matches('\n').count();
            // jinja2 keeps the line break after `raw`.
            let begin = tag.find("%}").map_or(len, |at| at + 2);
            out.push_str(&tag[..begin]);
            if trim_blocks && tag[begin..].starts_with('\n') && !tag[..begin].ends_with("-%}") {
                out.push('\n');
            }
            out.push_str(&tag[begin..len]);
            rest = &tag[len..];
            continue;
        }
        let sign = ["-", "+"].into_iter().find(|sign| tag[2..].starts_with(sign)).unwrap_or("");
        let (inside, close) = (&tag[2 + sign.len()..], if open == "{{" { "}}" } else { "%}" });
        let lexed = lexer::lex(inside, close).map_err(at)?;
        let (len, newlines, end) = (lexed.len, lexed.newlines, lexed.sign);
        branches += usize::from(matches!(lexed.tokens.first(), Some((Token::Name("elif"), _))));
        if branches > MOST_BRANCHES {
            return Err(at(Mistake::new(format!("more than {MOST_BRANCHES} times `elif`"))));
        }
        let mut parser = Parser::new(lexed.tokens);
        parser.refused = macros.last().cloned().unwrap_or_default();
        let body = match open {
            "{{" => parser.tuple(true),
            _ => statement(&mut parser),
        };
        let body = body.and_then(|body| match parser.is_done() {
            true => Ok(body),
            false => parser.mistake(&format!("`{close}`")),
        });
        let sign = if open == "{{" && sign == "+" { "" } else { sign };
        out.extend([open, sign, " ", &body.map_err(at)?, " "]);
        if open == "{%" {
            enter(&parser.tokens, &mut macros);
        }
        out.extend(std::iter::repeat_n('\n', newlines));
        line += newlines;
        out.extend([end, close]);
        rest = &inside[len + end.len() + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Enters the macro that a tag begins, or leaves the one that it ends. Of each that is open `macros`
/// has the names of [`EXTRA`] that it has not assigned.
fn enter(tag: &[(Token<'_>, usize)], macros: &mut Vec<Vec<&'static str>>) {
    let Some((Token::Name(keyword), _)) = tag.first() else { return };
    match *keyword {
        "macro" | "call" | "generation" => macros.push(EXTRA.into()),
        "endmacro" | "endcall" | "endgeneration" => _ = macros.pop(),
        "set" | "for" | "with" => {}
        _ => return,
    }
    // Had one of the names been read, the tag would have been refused.
    let is_assigned = |name: &str| tag.iter().any(|(token, _)| *token == Token::Name(name));
    if let Some(names) = macros.last_mut() {
        names.retain(|name| !is_assigned(name));
    }
}

/// Where the next tag or comment begins.
fn next_tag(source: &str) -> Option<usize> {
    let open = |at: &usize| matches!(source.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#'));
    source.match_indices('{').map(|(at, _)| at).find(open)
}

/// The expression `source` for minijinja.
pub(super) fn expression(source: &str) -> Result<String, Mistake> {
    let closed = format!("{source}}}}}");
    let lexed = lexer::lex(&closed, "}}")?;
    if lexed.len + lexed.sign.len() != source.len() || !lexed.sign.is_empty() {
        return Err(Mistake::new("`}}` in an expression"));
    }
    let mut parser = Parser::new(lexed.tokens);
    let body = parser.tuple(true)?;
    match parser.is_done() {
        true => Ok(body),
        false => parser.mistake("the end of the expression"),
    }
}

/// The length of the raw block that `tag` begins with.
fn raw(tag: &str) -> Result<Option<usize>, Mistake> {
    fn block<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
        let inside = tag.strip_prefix("{%")?;
        let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
        let after = inside.trim_start().strip_prefix(name)?.trim_start();
        after.strip_prefix(['-', '+']).unwrap_or(after).strip_prefix("%}")
    }
    let Some(mut rest) = block(tag, "raw") else { return Ok(None) };
    while let Some(start) = rest.find("{%") {
        match block(&rest[start..], "endraw") {
            Some(after) => return Ok(Some(tag.len() - after.len())),
            None => rest = &rest[start + 2..],
        }
    }
    Err(Mistake::new("`raw` is not closed with `endraw`"))
}

fn statement(parser: &mut Parser<'_>) -> Result<String, Mistake> {
    let keyword = parser.name()?;
    Ok(match keyword {
        "for" => {
            let target = parser.target(false)?;
            if !parser.skip_name("in") {
                return parser.mistake("`in`");
            }
            let items = parser.tuple(false)?;
            let condition = match parser.skip_name("if") {
                true => format!(" if {}", parser.expression()?),
                false => String::new(),
            };
            let recursive = if parser.skip_name("recursive") { " recursive" } else { "" };
            format!("for {target} in __each__({items}){condition}{recursive}")
        }
        "if" | "elif" => format!("{keyword} {}", parser.tuple(false)?),
        "set" => {
            let target = parser.target(true)?;
            if parser.skip("=") {
                // A macro holds the variables that it reads, so it also reads its namespaces.
                let namespace = target.split_once('.').map(|(name, _)| format!(", {name}"));
                let value = parser.tuple(true)?;
                format!("set {target} = __bounded__({value}{})", namespace.unwrap_or_default())
            } else if parser.skip("|") {
                format!("set {target} | {}", parser.filters()?)
            } else {
                format!("set {target}")
            }
        }
        "macro" => format!("macro {}{}", parser.name()?, parser.parameters()?),
        "call" => {
            let parameters = if parser.is_operator("(") { parser.parameters()? } else { "".into() };
            format!("call{parameters} {}", parser.expression()?)
        }
        "filter" => format!("filter {}", parser.filters()?),
        "with" => {
            let (mut targets, mut values) = (Vec::new(), Vec::new());
            while !parser.is_done() && (values.is_empty() || parser.skip(",")) {
                targets.push(parser.name()?);
                parser.expect("=")?;
                values.push(parser.expression()?);
            }
            // No value sees the names before it.
            match values.is_empty() {
                true => "with".into(),
                false => format!("with ({},) = ({},)", targets.join(", "), values.join(", ")),
            }
        }
        "autoescape" => format!("autoescape {}", parser.expression()?),
        // `transformers` marks what the assistant says: a block whose text is handed to a function.
        "generation" => "call __generation__()".into(),
        "endgeneration" => "endcall".into(),
        "block" | "endblock" => {
            let mut words = vec![keyword];
            while !parser.is_done() {
                words.push(parser.name()?);
            }
            words.join(" ")
        }
        "else" | "endif" | "endfor" | "endset" | "endmacro" | "endcall" | "endfilter"
        | "endwith" | "endautoescape" | "break" | "continue" => keyword.into(),
        "extends" | "include" | "import" | "from" => {
            parser.skip_all();
            format!("set __none__ = __missing__({})", lexer::quote(keyword))
        }
        _ => return Err(Mistake::new(format!("the tag `{keyword}` is unknown"))),
    })
}
