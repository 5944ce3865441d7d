//! Masked-diffusion language models of the LLaDA family.
#![recursion_limit = "256"]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod diffusion;
mod error;
pub mod model;
pub mod rng;
pub mod tokenizer;
pub mod train;

pub(crate) use error::io;
pub use error::{Error, Result, io_hint};
