//! Models of the Hugging Face hub: how they are named, and where they lie on this machine.
//!
//! The cache has the layout that the hub publishes for every program to share:
//! `models--ORG--REPO/` holds `blobs/` (the files, named by their checksums), `snapshots/COMMIT/`
//! (the files of a commit by their names, as links to blobs) and `refs/` (the commit of each
//! branch). Nothing here uses the network; the program's `llada pull` fills the cache.

mod cache;
mod error;
pub(crate) mod folder;
mod reference;

pub use cache::{Cache, Found, quantised_file, repo_of, set};
pub use error::HubError;
pub use reference::{Reference, Repo, is_plain_path};
