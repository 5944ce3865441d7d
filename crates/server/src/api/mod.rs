//! The interfaces: one folder or file for each, all over [`answer`](crate::answer).

pub(crate) mod anthropic;
pub(crate) mod body;
pub(crate) mod infill;
pub(crate) mod llama;
pub(crate) mod message;
pub(crate) mod openai;
pub(crate) mod score;
pub(crate) mod structure;
pub(crate) mod tools;
pub(crate) mod types;
