//! Watching stick tables: one source of updates per table, a mirror of its entries, and any number of watchers.
//!
//! A [`Source`] feeds the [`Mirror`] of a table by polling it while somebody watches; where HAProxy knows us as a peer, a
//! session of the peers protocol does instead, all the time ([`Push`]). The mirror numbers every change; a log of bounded
//! length remembers which entry each number was about. A watcher is a cursor into that log, so a slow one costs no memory:
//! it finds the latest state of each entry once, and a fresh snapshot when its cursor has dropped out of the log.
//!
//! `mirror`, `log` and `view` are pure: they take bytes and a clock.

mod column;
mod dial;
mod export;
mod feed;
mod hub;
mod join;
mod keys;
mod list;
mod log;
mod mirror;
mod nodes;
mod others;
mod poll;
mod push;
mod pushed;
mod rows;
mod share;
mod tls;
mod view;
mod watch;
mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use dial::{Follower, Lines, Peer, Seat};
pub use export::Export;
pub use feed::{Feed, Source, SourceKind};
pub use hub::{Cleared, Hub};
pub use join::{Joiner, join};
pub use list::{Listing, Query};
pub use mirror::{Entry, Mirror, RemovalReason, Revision};
pub use poll::{Block, Dump, Poll};
pub use push::{Another, Node, Push, Status};
pub use share::Told;
pub use tls::Tls;
pub use view::{Change, Scope, View};
pub use watch::{Event, Update, Watch, WatchOptions};

/// Locks what is whole also after a panic elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
