//! The diffusion process over tokens: the forward process that masks, the losses, and the reverse
//! process that generates.
//!
//! | paper | here |
//! |---|---|
//! | q(x_t given x_0), Eq. 7–8 | [`forward`] |
//! | Eq. 2, Eq. 3, Eq. 5 | [`loss`] |
//! | Eq. 6, Alg. 3: the likelihood of an answer or a text | [`likelihood`] |
//! | reverse process, Eq. 9–10 | [`reverse::Canvas`], looped by [`generate::run`] |
//! | *which* positions are unmasked, Alg. 4 and 5 | [`remasking`] |
//! | *how many* are unmasked | [`transfer`]: the schedule, or a rule that adds where the model is sure |
//! | *where*, Fig. 4 | [`blocks`] |
//! | how long the response is | [`variable`] |
//! | *what is forwarded* | [`cache`] |
//! | guidance, Eq. 16 | [`guidance`] |
//! | text with holes, filled from both sides | [`infill`] |
//! | learning from preferences and rewards | [`policy`] |

pub mod blocks;
pub mod cache;
mod confidence;
pub mod diffusers;
pub mod engine;
mod error;
mod fast_dllm;
pub mod footprint;
pub mod forward;
pub mod generate;
pub mod guidance;
pub mod infill;
pub mod likelihood;
pub mod loss;
pub mod policy;
pub mod predictor;
mod query;
pub mod remasking;
pub mod reverse;
pub mod sample;
mod sampler;
pub mod settings;
pub mod trace;
pub mod transfer;
pub mod variable;

pub use blocks::Blocks;
pub use cache::Cache;
pub use error::{SamplerError, Spelling};
pub use fast_dllm::FastDllm;
pub use predictor::{Logits, Predictor};
pub use query::{Outcome, Prompt, Query};
pub use remasking::Remasking;
pub use reverse::{Canvas, ReadSpec, Reading};
pub use sample::Precision;
pub use sampler::{Edit, Preset, Reference, Sampler};
pub use settings::{Range, Settings};
pub use trace::{Commit, Step};
pub use transfer::TransferRule;
