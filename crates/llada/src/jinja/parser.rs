//! The tokens of a tag, read one after the other.

use super::{
    Mistake,
    lexer::{Token, quote},
};

/// Reads the tokens of a tag.
pub(super) struct Parser<'a> {
    pub(super) tokens: Vec<(Token<'a>, usize)>,
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) links: usize,
    /// Names that may not be read.
    pub(super) refused: Vec<&'static str>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(tokens: Vec<(Token<'a>, usize)>) -> Self {
        Self { tokens, at: 0, depth: 0, links: 0, refused: Vec::new() }
    }

    pub(super) fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    pub(super) fn look(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at + 1).map(|(token, _)| token)
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.tokens.len()
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Some(Token::Operator(found)) if *found == operator)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if *found == name)
    }

    /// Reads all that is left.
    pub(super) fn skip_all(&mut self) {
        self.at = self.tokens.len();
    }

    /// Whether the next token is `operator`, which is then read.
    pub(super) fn skip(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        self.at += usize::from(found);
        found
    }

    /// Whether the next token is the name `name`, which is then read.
    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn mistake<T>(&self, expected: &str) -> Result<T, Mistake> {
        let line = self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |(_, line)| *line);
        let found = match self.peek() {
            None => "the end of the tag".into(),
            Some(Token::Name(name)) => format!("`{name}`"),
            Some(Token::Text(text)) => format!("the string {}", quote(text)),
            Some(Token::Number(number)) => format!("`{number}`"),
            Some(Token::Operator(operator)) => format!("`{operator}`"),
        };
        Err(Mistake { line, what: format!("{found} where {expected} should stand") })
    }

    pub(super) fn expect(&mut self, operator: &str) -> Result<(), Mistake> {
        match self.skip(operator) {
            true => Ok(()),
            false => self.mistake(&format!("`{operator}`")),
        }
    }

    /// The variable `name`, which has been read.
    pub(super) fn variable(&self, name: &str) -> Result<String, Mistake> {
        match self.refused.contains(&name) {
            true => Err(Mistake {
                line: self.tokens.get(self.at - 1).map_or(0, |(_, line)| *line),
                what: format!(
                    "`{name}` is not given to macros, which need a parameter for each argument"
                ),
            }),
            false => Ok(name.to_owned()),
        }
    }

    pub(super) fn name(&mut self) -> Result<&'a str, Mistake> {
        match self.peek() {
            Some(&Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            _ => self.mistake("a name"),
        }
    }
}
