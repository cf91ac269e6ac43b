//! The managed configuration: objects in, objects out, a lossless file underneath.
//!
//! `engine` turns a document and a request into the next document. `store` serves reads and takes changes, `write` is
//! the one way to the file (`exchange`, or `in_place` where it cannot be exchanged), `recovery` comes back from any kill in
//! the middle of it, `lock` keeps others out, `transaction` holds changes that are not committed yet, `raw` handles the
//! whole text, `look` sees what others write and `external` takes it over, `reloads` hears of results, and `worker` knows
//! whether HAProxy runs the text; `blame` finds the change that HAProxy refuses among those of `change_log`, with `search`
//! and `carry`, and takes it back; `rescue` keeps what somebody edits meanwhile. `journal`, `transaction_log` and `frame`
//! are pure: they say what the bytes in the state folder mean.

pub mod address;
mod any_line;
mod aside;
pub mod audience;
mod blame;
mod carry;
mod change_log;
pub mod crash;
mod disk;
pub mod engine;
mod exchange;
mod external;
mod files;
pub mod frame;
mod header;
mod in_place;
mod joined;
mod journal;
#[cfg(test)]
mod laws;
pub mod layout;
mod lock;
pub(crate) mod look;
mod not_shown;
mod options;
mod placing;
pub mod plan;
pub mod ports;
mod raw;
mod recovery;
mod refusals;
mod reloads;
mod rescue;
mod running;
mod search;
mod section_edit;
mod site;
mod spelling;
mod store;
mod transaction;
mod transaction_log;
mod tree;
mod warned;
mod worker;
mod write;

pub use disk::{finish_write, replace_durably, write_durably};
pub use external::External;
pub use header::{counted_version, own_version};
pub use options::{ChangeOptions, Clock, HeaderPolicy, Outcome, Snapshot, StoreSettings, Target};
pub use raw::{RawOptions, RawSource, RawText};
pub use recovery::Claim;
pub use store::Configuration;
pub use transaction::Transaction;
pub use transaction_log::Status;

#[cfg(test)]
mod tests;
