//! Watching stick tables: one source of updates per table, a mirror of its entries, and any number of watchers.
//!
//! A [`Source`] feeds the [`Mirror`] of a table: today by polling, later by the peers protocol. The mirror numbers every
//! change; a log of bounded length remembers which entry each number was about. A watcher is a cursor into that log, so
//! a slow one costs no memory: it finds the latest state of each entry once, and a fresh snapshot when its cursor has
//! dropped out of the log.
//!
//! `mirror`, `log` and `view` are pure: they take bytes and a clock.

mod feed;
mod hub;
mod log;
mod mirror;
mod poll;
mod view;
mod watch;

pub use feed::{Feed, Source, SourceKind};
pub use hub::{Cleared, Hub};
pub use mirror::{Entry, Mirror, RemovalReason, Revision};
pub use poll::{Block, Dump, Poll};
pub use view::{Change, Scope, View};
pub use watch::{Event, Update, Watch, WatchOptions};

#[cfg(test)]
mod tests;
