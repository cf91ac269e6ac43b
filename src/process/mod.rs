//! HAProxy as a process: its version, the check of a candidate, reloads, and the supervised one of the embedded default.
//!
//! `check` and `reload` implement the seams of `configuration::ports`. `timeline` and the parsers of `report`, `master`
//! and `version` are pure; the other files run commands, send signals and open the master socket.

pub mod check;
pub mod child;
pub mod command;
pub mod master;
pub mod reload;
pub mod report;
pub mod standalone;
pub mod strategy;
pub mod timeline;
pub mod version;

#[cfg(test)]
mod live;
