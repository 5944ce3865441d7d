//! Masked-diffusion language models of the LLaDA family: train them, and generate from them.
//!
//! LLaDA (arXiv 2502.09992) does not write left to right. It starts from a canvas of mask tokens,
//! predicts all of them at once with a transformer that has no causal mask, unmasks those that it is
//! surest of, and repeats.
//!
//! # The paper, in code
//!
//! | paper | here |
//! |---|---|
//! | mask predictor p_θ(·\|x_t), time-free (Eq. 11) | [`model::MaskPredictor`] |
//! | forward process q(x_t\|x_0) (Eq. 7–8) | [`diffusion::forward::noise`] |
//! | pre-training loss (Eq. 3; Alg. 1) | [`diffusion::loss::pretrain_weights`] |
//! | fine-tuning loss (Eq. 5; Alg. 2) | [`diffusion::loss::sft_weights`] |
//! | its data: prompts, responses, turns (Section 2.3; Fig. 2b) | [`data::Conversations`] |
//! | autoregressive baseline (Eq. 2) | [`diffusion::loss::autoregressive`] |
//! | reverse process (Eq. 9–10) | [`diffusion::Canvas`]: `plan`, then `commit` |
//! | random and low-confidence remasking (Alg. 4, 5) | [`diffusion::Remasking`] |
//! | classifier-free guidance (Eq. 16) | [`diffusion::guidance`] |
//! | autoregressive, block diffusion, semi-autoregressive and pure sampling (Fig. 4) | [`diffusion::Blocks`] |
//! | likelihood of an answer or a text (Eq. 6; Alg. 3) | [`diffusion::likelihood`] |
//!
//! # From a folder to text
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use llada::{Session, diffusion::Settings};
//!
//! # fn main() -> llada::Result<()> {
//! let model = "models/storyteller";
//! # let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model);
//! let mut session = Session::open(model)?;
//! let prompt = session.encode("Once upon a time")?;
//! let asked = Settings { gen_length: Some(32), ..Settings::default() };
//! let sampler = session.sampler(&asked, prompt.len())?;
//! let mut canvases = [session.canvas(prompt, &sampler)?];
//! session.generate(&mut canvases, &mut |_canvas, _step| ControlFlow::Continue(()))?;
//! let text = session.text(&canvases[0])?;
//! # assert!(text.len() > 40, "{text}");
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//!
//! The library knows no terminal, no socket and no clock, prints nothing, and does not panic on its
//! input: every function that can fail returns an [`Error`] that says what, where and how to mend
//! it. The same seed gives the same bits whatever the batch and the number of threads.
#![recursion_limit = "256"]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod chat;
pub mod checkpoint;
mod codec;
mod compute;
pub mod config;
pub mod constraint;
mod content;
pub mod data;
pub mod diffusion;
mod error;
pub mod eval;
pub mod files;
#[cfg(test)]
#[path = "../../../tests/golden.rs"]
mod golden;
pub mod hub;
mod jinja;
mod json;
pub mod model;
pub mod ranks;
mod recycle;
pub mod rng;
pub mod session;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod verify;

pub use codec::Codec;
pub use compute::Compute;
pub use diffusion::engine;
pub(crate) use error::io;
pub use error::{Error, Result, io_hint};
pub use session::Session;
