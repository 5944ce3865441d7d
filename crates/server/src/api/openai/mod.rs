//! OpenAI's interface, and what Mercury has beside it.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod edits;
mod envelope;
pub(crate) mod models;
pub(crate) mod stream;
