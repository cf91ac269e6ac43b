//! SPOE files: what HAProxy's stream processing offload filter reads besides haproxy.cfg.
//!
//! `file` cuts a file into scopes, each a [`crate::document::Document`] of its own; `store` keeps the folder and
//! the versions, `transactions` what is not committed yet.

mod file;
mod store;
mod transactions;

pub use file::SpoeFile;
pub use store::SpoeStore;
pub use transactions::SpoeTransaction;
