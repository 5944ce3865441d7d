//! Fetching from the Hugging Face hub into the cache that other programs share with it.
//!
//! `http` sends requests and tries again, `api` asks the hub what there is, `plan` chooses what a
//! model needs, and `download` puts files into the cache, each whole and checked or not at all.

mod api;
mod checksum;
mod download;
mod http;
mod plan;

pub use api::{Listing, Remote};
pub use checksum::Checksum;
pub use download::{Download, Event};
pub use http::{Client, Settings, is_offline};
pub use plan::{Kind, Plan};
