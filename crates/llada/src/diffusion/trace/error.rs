//! What is wrong with a trace.

use std::io;

use super::{
    VERSION,
    reader::{MAX_LENGTH, MAX_LINE, MAX_TRACE},
    text::MAX_TEXT,
};

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The input fails.
    #[error("line {line}: {source}")]
    Io {
        /// Line number from 1.
        line: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is too long to be one of a trace.
    #[error("line {line} is longer than {MAX_LINE} bytes")]
    LineTooLong {
        /// Line number from 1.
        line: usize,
    },
    /// The trace is too long to be one.
    #[error("the trace is longer than {MAX_TRACE} bytes")]
    TooLong,
    /// The text of a token is too long to be one.
    #[error(
        "line {line}: the text of token {token} has {found} bytes; at most {MAX_TEXT} are read"
    )]
    Text {
        /// Line number from 1.
        line: usize,
        /// The token.
        token: u32,
        /// Bytes of its text.
        found: usize,
    },
    /// The steps put more masks into the sequence than it has room for, or into a long sequence too
    /// often.
    #[error("line {line}: a sequence of up to {length} tokens is lengthened too often")]
    Insertions {
        /// Line number from 1.
        line: usize,
        /// Length of the sequence.
        length: usize,
    },
    /// A line is not what the format says.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The trace is of a format that this version does not read.
    #[error("the trace has format version {found}; this program reads version {VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
    /// The sequence is too long, or shorter than its own prompt.
    #[error(
        "the header gives a sequence of {length} tokens for a prompt of {prompt}; it has all of its \
         prompt, and at most {MAX_LENGTH} tokens are read"
    )]
    Length {
        /// Length found.
        length: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// A step speaks of a position that the sequence does not have.
    #[error("line {line}: position {position} is outside the sequence of {length} tokens")]
    Position {
        /// Line number from 1.
        line: usize,
        /// The position.
        position: usize,
        /// Length of the sequence.
        length: usize,
    },
}

impl TraceError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Version { .. } => "replay it with the version that wrote it".into(),
            Self::Syntax { line: 1, .. } => "give a file written with --trace".into(),
            _ => return None,
        })
    }
}
