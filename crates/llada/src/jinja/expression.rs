//! Expressions of jinja2 as expressions of minijinja: the grammar is jinja2's, and what the two
//! engines compute differently becomes a call of a function of [`operators`](super::operators).

use super::{
    Mistake,
    collections::DICT_METHODS,
    lexer::{Token, quote},
    parser::Parser,
};

/// How deep expressions may be nested.
const DEEPEST: usize = 140;
/// Operators, attributes, calls and filters that a tag may have: minijinja nests them.
const MOST_LINKS: usize = 800;

type Text = Result<String, Mistake>;

/// One operand as it is, several as arguments of `function`, which takes them from left to right.
fn folded(function: &str, operands: &[String]) -> String {
    match operands {
        [one] => one.clone(),
        several => format!("{function}({})", several.join(", ")),
    }
}

impl Parser<'_> {
    /// What a value is assigned to: names, which may be of a namespace if `dotted`.
    pub(super) fn target(&mut self, dotted: bool) -> Text {
        self.descend()?;
        let mut items = Vec::new();
        let mut tuple = false;
        while items.is_empty() || self.skip(",") {
            if !items.is_empty() {
                tuple = true;
                if !(matches!(self.peek(), Some(Token::Name(_))) || self.is_operator("("))
                    || self.is_name("in")
                {
                    break;
                }
            }
            items.push(if self.skip("(") {
                let inner = self.target(dotted)?;
                self.expect(")")?;
                format!("({inner})")
            } else {
                let name = self.name()?;
                match dotted && self.skip(".") {
                    true if matches!(self.peek(), Some(Token::Name(n)) if n.starts_with('_')) => {
                        return self.mistake("a name that does not begin with `_`");
                    }
                    true => format!("{name}.{}", self.name()?),
                    false => name.to_owned(),
                }
            });
        }
        self.depth -= 1;
        Ok(items.join(", ") + if tuple && items.len() == 1 { "," } else { "" })
    }

    /// An expression, or a tuple of expressions without parentheses.
    pub(super) fn tuple(&mut self, conditional: bool) -> Text {
        let first = self.choice(conditional)?;
        if !self.is_operator(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip(",") {
            if self.is_done() || self.is_operator(")") || self.is_name("recursive") {
                break;
            }
            items.push(self.choice(conditional)?);
        }
        Ok(format!("({},)", items.join(", ")))
    }

    pub(super) fn expression(&mut self) -> Text {
        self.choice(true)
    }

    /// Goes one level deeper.
    fn descend(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        match self.depth > DEEPEST {
            true => self.mistake("an expression that is less deeply nested"),
            false => Ok(()),
        }
    }

    /// `text`, which has one link more than before.
    fn link(&mut self, text: String) -> Text {
        self.links += 1;
        match self.links > MOST_LINKS {
            true => self.mistake("the end of an expression that is too long"),
            false => Ok(text),
        }
    }

    fn choice(&mut self, conditional: bool) -> Text {
        self.descend()?;
        let mut expression = self.either()?;
        while conditional && self.skip_name("if") {
            let condition = self.either()?;
            expression = match self.skip_name("else") {
                true => format!("{expression} if {condition} else {}", self.choice(true)?),
                false => format!("{expression} if {condition}"),
            };
            expression = self.link(expression)?;
        }
        self.depth -= 1;
        Ok(expression)
    }

    fn either(&mut self) -> Text {
        self.joined("or", |parser| parser.joined("and", Self::negation))
    }

    /// Operands with the word `operator` between them.
    fn joined(&mut self, operator: &str, operand: impl Fn(&mut Self) -> Text) -> Text {
        let mut left = operand(self)?;
        while self.skip_name(operator) {
            let right = operand(self)?;
            left = self.link(format!("{left} {operator} {right}"))?;
        }
        Ok(left)
    }

    fn negation(&mut self) -> Text {
        let mut times = 0;
        while self.skip_name("not") {
            times += 1;
        }
        let operand = self.comparison()?;
        Ok(match times {
            0 => operand,
            n if n % 2 == 1 => format!("not {operand}"),
            _ => format!("not not {operand}"),
        })
    }

    fn comparison(&mut self) -> Text {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let operator = match (self.peek(), self.look()) {
                (Some(&Token::Operator(o @ ("==" | "!=" | "<" | "<=" | ">" | ">="))), _) => o,
                (Some(Token::Name("in")), _) => "in",
                (Some(Token::Name("not")), Some(Token::Name("in"))) => {
                    self.at += 1;
                    "not in"
                }
                _ => break,
            };
            self.at += 1;
            let right = self.sum()?;
            rest.push((operator, self.link(right)?));
        }
        Ok(match rest.as_slice() {
            [] => first,
            [(operator @ ("==" | "!="), right)] => format!("{first} {operator} {right}"),
            _ => {
                let rest: Vec<String> = rest
                    .iter()
                    .map(|(operator, right)| format!("{}, {right}", quote(operator)))
                    .collect();
                format!("__compare__({first}, {})", rest.join(", "))
            }
        })
    }

    fn sum(&mut self) -> Text {
        let mut terms = vec![self.concatenation()?];
        while let Some(&Token::Operator(operator @ ("+" | "-"))) = self.peek() {
            self.at += 1;
            let right = self.concatenation()?;
            match operator {
                "+" => terms.push(self.link(right)?),
                _ => terms = vec![self.link(format!("{} - {right}", folded("__add__", &terms)))?],
            }
        }
        Ok(folded("__add__", &terms))
    }

    fn concatenation(&mut self) -> Text {
        let first = self.product()?;
        if !self.is_operator("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip("~") {
            parts.push(self.product()?);
        }
        Ok(format!("__concat__({})", parts.join(", ")))
    }

    fn product(&mut self) -> Text {
        let mut factors = vec![self.power()?];
        while let Some(&Token::Operator(operator @ ("*" | "/" | "//" | "%"))) = self.peek() {
            self.at += 1;
            let right = self.power()?;
            let left = || folded("__multiply__", &factors);
            match operator {
                "*" => factors.push(self.link(right)?),
                "%" => {
                    factors = vec![self.link(folded("__modulo__", &[left(), right]))?];
                }
                _ => factors = vec![self.link(format!("{} {operator} {right}", left()))?],
            }
        }
        Ok(folded("__multiply__", &factors))
    }

    fn power(&mut self) -> Text {
        let mut operands = vec![self.unary(true)?];
        while self.skip("**") {
            let right = self.unary(true)?;
            operands.push(self.link(right)?);
        }
        Ok(folded("__power__", &operands))
    }

    fn unary(&mut self, filters: bool) -> Text {
        self.descend()?;
        let mut node = if self.skip("-") {
            format!("-{}", self.unary(false)?)
        } else if self.skip("+") {
            format!("(0 + {})", self.unary(false)?)
        } else {
            let primary = self.primary()?;
            self.postfix(primary)?
        };
        if filters {
            node = self.filters_and_tests(node)?;
        }
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Text {
        let Some(token) = self.peek().cloned() else { return self.mistake("an expression") };
        self.at += 1;
        match token {
            Token::Name(name) => self.variable(name),
            Token::Number(number) => Ok(number),
            Token::Text(mut text) => {
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Ok(quote(&text))
            }
            Token::Operator("(") => {
                if self.skip(")") {
                    return Ok("()".into());
                }
                let first = self.expression()?;
                if self.skip(")") {
                    return Ok(format!("({first})"));
                }
                self.expect(",")?;
                let rest = self.list(")", Self::expression)?;
                Ok(format!("({first}, {rest})"))
            }
            Token::Operator("[") => {
                let items = self.list("]", Self::expression)?;
                Ok(format!("[{items}]"))
            }
            Token::Operator("{") => {
                let pairs = self.list("}", |parser| {
                    let is_constant = matches!(parser.peek(), Some(Token::Text(_)));
                    let key = parser.expression()?;
                    let key = if is_constant { key } else { format!("__key__({key})") };
                    parser.expect(":")?;
                    Ok(format!("{key}: {}", parser.expression()?))
                })?;
                Ok(format!("{{ {pairs} }}"))
            }
            Token::Operator(_) => {
                self.at -= 1;
                self.mistake("an expression")
            }
        }
    }

    /// Items with commas between them, up to `end`, which is read.
    fn list(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Text) -> Text {
        let mut items = Vec::new();
        while !self.skip(end) {
            if !items.is_empty() {
                self.expect(",")?;
                if self.skip(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items.join(", "))
    }

    fn postfix(&mut self, mut node: String) -> Text {
        loop {
            if self.skip(".") {
                node = match self.peek().cloned() {
                    Some(Token::Name(name)) => {
                        self.at += 1;
                        self.attribute(&node, name)?
                    }
                    Some(Token::Number(index)) => {
                        self.at += 1;
                        format!("{node}[{index}]")
                    }
                    _ => return self.mistake("a name or a number"),
                };
            } else if self.skip("[") {
                node = self.subscript(&node)?;
            } else if self.is_operator("(") {
                node = match node.as_str() {
                    "loop" => format!("loop(__each__({}))", self.arguments()?),
                    _ => format!("{node}({})", self.arguments()?),
                };
            } else {
                return Ok(node);
            }
            node = self.link(node)?;
        }
    }

    fn attribute(&mut self, node: &str, name: &str) -> Text {
        let special = DICT_METHODS.contains(&name);
        if !self.is_operator("(") {
            return Ok(match special {
                true => format!("__item__({node}, {}, true)", quote(name)),
                false => format!("{node}.{name}"),
            });
        }
        let arguments = self.arguments()?;
        let comma = if arguments.is_empty() { "" } else { ", " };
        Ok(match name {
            "cycle" => format!("__cycle__({node}{comma}{arguments})"),
            _ if special => format!("__method__({node}, {}{comma}{arguments})", quote(name)),
            _ => format!("{node}.{name}({arguments})"),
        })
    }

    fn subscript(&mut self, node: &str) -> Text {
        if let (Some(Token::Text(key)), Some(Token::Operator("]"))) = (self.peek(), self.look())
            && !DICT_METHODS.contains(&key.as_str())
        {
            let key = quote(key);
            self.at += 2;
            return Ok(format!("{node}[{key}]"));
        }
        let mut items = Vec::new();
        while !self.skip("]") {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.subscribed()?);
        }
        Ok(match items.as_slice() {
            [] => return self.mistake("a subscript before this"),
            [(slice, true)] => format!("__slice__({node}, {slice})"),
            [(key, false)] => format!("__item__({node}, {key}, false)"),
            several => {
                let several: Vec<&str> = several.iter().map(|(item, _)| item.as_str()).collect();
                format!("__item__({node}, ({},), false)", several.join(", "))
            }
        })
    }

    /// A key, or the three bounds of a slice and true.
    fn subscribed(&mut self) -> Result<(String, bool), Mistake> {
        let start = match self.is_operator(":") {
            true => "none".into(),
            false => self.expression()?,
        };
        if !self.skip(":") {
            return Ok((start, false));
        }
        let bound = |parser: &mut Self| -> Text {
            match [":", "]", ","].iter().any(|end| parser.is_operator(end)) {
                true => Ok("none".into()),
                false => parser.expression(),
            }
        };
        let stop = bound(self)?;
        let step = if self.skip(":") { bound(self)? } else { "none".into() };
        Ok((format!("{start}, {stop}, {step}"), true))
    }

    /// The arguments of a call, with its parentheses read.
    fn arguments(&mut self) -> Text {
        self.expect("(")?;
        self.list(")", |parser| {
            if parser.skip("**") {
                return Ok(format!("**{}", parser.expression()?));
            }
            if parser.skip("*") {
                return Ok(format!("*{}", parser.expression()?));
            }
            match (parser.peek(), parser.look()) {
                (Some(&Token::Name(name)), Some(Token::Operator("="))) => {
                    parser.at += 2;
                    Ok(format!("{name}={}", parser.expression()?))
                }
                _ => parser.expression(),
            }
        })
    }

    fn filters_and_tests(&mut self, mut node: String) -> Text {
        loop {
            if self.skip("|") {
                node = format!("{node} | {}", self.filter()?);
            } else if self.skip_name("is") {
                node = self.test(&node)?;
            } else if self.is_operator("(") {
                node = format!("({node})({})", self.arguments()?);
            } else {
                return Ok(node);
            }
            node = self.link(node)?;
        }
    }

    fn filter(&mut self) -> Text {
        let name = self.name()?;
        Ok(match self.is_operator("(") {
            true => format!("{name}({})", self.arguments()?),
            false => name.to_owned(),
        })
    }

    /// The filters of a block, the first without its bar.
    pub(super) fn filters(&mut self) -> Text {
        let mut filters = self.filter()?;
        while self.skip("|") {
            let next = self.filter()?;
            filters = self.link(format!("{filters} | {next}"))?;
        }
        Ok(filters)
    }

    fn test(&mut self, node: &str) -> Text {
        let not = if self.skip_name("not") { "not " } else { "" };
        let name = self.name()?;
        let argument = match self.peek() {
            Some(Token::Operator("(")) => self.arguments()?,
            Some(Token::Name("else" | "or" | "and")) => String::new(),
            Some(Token::Name("is")) => return self.mistake("another test, joined by `and`,"),
            Some(
                Token::Name(_) | Token::Text(_) | Token::Number(_) | Token::Operator("[" | "{"),
            ) => {
                let primary = self.primary()?;
                self.postfix(primary)?
            }
            _ => String::new(),
        };
        let argument = match argument.as_str() {
            "" => argument,
            _ => format!("({argument})"),
        };
        Ok(format!("{node} is {not}{name}{argument}"))
    }

    /// The parameters of a macro, with their parentheses.
    pub(super) fn parameters(&mut self) -> Text {
        self.expect("(")?;
        let begin = self.at;
        let mut names = Vec::new();
        let mut defaults = Vec::new();
        let parameters = self.list(")", |parser| {
            let name = parser.name()?.to_owned();
            names.push(name.clone());
            Ok(match parser.skip("=") {
                true => {
                    let begin = parser.at;
                    let default = parser.expression()?;
                    defaults.extend((begin..parser.at).map(|at| (at, name.clone())));
                    format!("{name}={default}")
                }
                false => name,
            })
        })?;
        // Python's defaults see the parameters, these do not.
        let reads = |(at, own): &(usize, String)| match self.tokens.get(*at) {
            Some((Token::Name(read), _)) => read != own && names.iter().any(|name| name == read),
            _ => false,
        };
        match defaults.iter().any(reads) {
            true => {
                self.at = begin;
                self.mistake("defaults that read no other parameter")
            }
            false => Ok(format!("({parameters})")),
        }
    }
}
