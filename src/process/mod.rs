//! HAProxy as a process: its version, the check of a candidate, reloads, and the supervised one of the embedded default.
//!
//! `check` and `reload` implement the seams of `configuration::ports`. A check has its `turns`, its folder (`scratch`),
//! its `environment`, and runs `confine`d. `timeline`, `redirect` and the parsers of `report`, `master` and `version` are
//! pure; the other files run commands, send signals and open the master socket.

pub mod check;
pub mod child;
pub mod command;
pub mod confine;
pub mod environment;
pub mod master;
pub mod numbers;
pub mod presence;
pub mod redirect;
pub mod reload;
pub mod report;
mod scratch;
pub mod standalone;
pub mod strategy;
pub mod systemd;
pub mod timeline;
mod turns;
pub mod version;

#[cfg(test)]
mod live;
