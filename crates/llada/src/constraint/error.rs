//! Why a constraint cannot be held to.

/// A constraint that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// A keyword of a JSON schema that is not supported there.
    #[error("the schema's `{keyword}` at `{pointer}` is not supported: {why}")]
    Keyword {
        /// Where its schema is, as a JSON pointer; `#` is the whole.
        pointer: String,
        /// The keyword.
        keyword: String,
        /// The reason.
        why: &'static str,
    },
    /// A JSON schema that is none.
    #[error("the schema at `{pointer}` is not one: {what}")]
    Schema {
        /// Where, as a JSON pointer.
        pointer: String,
        /// What is wrong.
        what: String,
    },
    /// A JSON schema that accepts no value, as far as values are nested.
    #[error("no value satisfies the schema at `{pointer}`")]
    Never {
        /// Where, as a JSON pointer.
        pointer: String,
    },
    /// A regular expression that is none, or not a regular one.
    #[error("the regular expression `{pattern}` cannot be used: {what}")]
    Regex {
        /// The beginning of the expression.
        pattern: String,
        /// What is wrong.
        what: String,
    },
    /// A constraint that takes more memory or time than is allowed.
    #[error("the constraint is too large: it has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A list without entries.
    #[error("there are no {0} to choose from")]
    Empty(&'static str),
    /// A tool that is none of those given.
    #[error("there is no tool `{name}`")]
    Tool {
        /// The name.
        name: String,
        /// The tools that there are.
        known: String,
    },
    /// Tokens that do not stand for the same bytes everywhere.
    #[error("this tokenizer's texts are not the texts of its tokens put together")]
    Tokenizer,
    /// No sequence of tokens spells an accepted text.
    #[error("no sequence of this model's tokens satisfies the constraint")]
    Unspeakable,
}

impl ConstraintError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Keyword { keyword, .. } if keyword == "oneOf" => {
                "use `anyOf`, or give the branches a required property with different constants"
                    .into()
            }
            Self::Keyword { keyword, .. } => format!("leave `{keyword}` out of the schema"),
            Self::Schema { .. } => "see https://json-schema.org for what a schema is".into(),
            Self::Never { .. } => "look for keywords that contradict each other there".into(),
            Self::Regex { .. } => {
                "write it without look-around, back-references and anchors within".into()
            }
            Self::TooLarge { .. } => {
                "bound fewer lengths and counts, or nest less: `maxLength`, `maxItems`, `{n,m}`"
                    .into()
            }
            Self::Empty(what) => format!("give at least one of the {what}"),
            Self::Tool { known, .. } => format!("use one of: {known}"),
            Self::Tokenizer | Self::Unspeakable => return None,
        })
    }
}
