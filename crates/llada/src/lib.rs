//! Masked-diffusion language models of the LLaDA family: train them, and generate from them.
//!
//! LLaDA (arXiv 2502.09992) does not write left to right. It starts from a canvas of mask tokens,
//! predicts all of them at once with a transformer that has no causal mask, keeps the predictions
//! it is surest of, and repeats.
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
//! use std::{ops::ControlFlow, path::Path};
//!
//! use llada::{checkpoint, diffusion, model::MaskPredictor, tokenizer::Tokenizer};
//!
//! # fn main() -> llada::Result<()> {
//! let dir = Path::new("models/storyteller");
//! # let dir = &Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(dir);
//! let tokenizer = Tokenizer::from_dir(dir)?;
//! let model = checkpoint::load(dir)?;
//! let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
//! let attention = model.config.attention;
//! let sampler = diffusion::Sampler { gen_length: 32, steps: 32, ..Default::default() };
//! let prompt = tokenizer.encode("Once upon a time")?.into();
//! let mut canvas = [diffusion::Canvas::new(prompt, &sampler, &special, attention)?];
//! let mut predictor = MaskPredictor::new(model, llada_kernels::Cpu::new(0)?)?;
//! diffusion::generate::run(&mut predictor, &mut canvas, &mut |_, _| ControlFlow::Continue(()))?;
//! let text = tokenizer.decode(canvas[0].tokens(), true)?;
//! # assert!(text.starts_with("Once upon a time") && text.len() > 60, "{text}");
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
pub mod config;
mod content;
pub mod data;
pub mod diffusion;
mod error;
pub mod eval;
pub mod files;
pub mod hub;
mod jinja;
mod json;
pub mod model;
mod recycle;
pub mod rng;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod verify;

pub use diffusion::engine;
pub(crate) use error::io;
pub use error::{Error, Result, io_hint};
