//! SPOE files: what HAProxy's stream processing offload filter reads besides haproxy.cfg.
//!
//! `file` cuts a file into scopes, each a [`crate::document::Document`] of its own; `store` keeps the folder, the
//! versions and the transactions.

mod file;
mod store;

pub use file::SpoeFile;
pub use store::{SpoeStore, SpoeTransaction};
