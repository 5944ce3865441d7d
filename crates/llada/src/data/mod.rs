//! From text to training sequences. For pre-training `corpus` reads documents, `prepare` turns them
//! into shards of token ids, which `meta` describes; `shards` maps them into memory and checks
//! them, `windows` cuts them into sequences in a seeded order, and `mixture` takes these from several
//! folders. For fine-tuning `conversations`
//! reads dialogues and lays them out as sequences. `running` is the short way, for text that is
//! only scored.

pub mod conversations;
mod corpus;
mod error;
mod lines;
mod merge;
mod meta;
mod mixture;
#[cfg(feature = "parquet")]
mod parquet;
mod prepare;
mod rows;
mod running;
mod shards;
mod windows;

pub use conversations::{Conversations, Preferences};
pub use corpus::{Format, Separator};
pub use error::{DataError, ParquetCause};
pub use merge::merge;
pub use meta::{IdType, Meta, Part, PrepareOptions, ShardMeta, SplitMeta, TokenizerMeta};
pub use mixture::{Mixture, Place};
pub use prepare::{PrepareProgress, prepare};
pub use running::RunningText;
pub use shards::{Shards, Split};
pub use windows::Windows;
pub(crate) use windows::shuffled;

pub use crate::json::parse as parse_json;
pub(crate) use meta::{META, marks};
#[cfg(feature = "parquet")]
pub(crate) use parquet::all as parquet_rows;
