//! llama-server's interface.

pub(crate) mod completion;
pub(crate) mod state;
pub(crate) mod tokens;
