//! How an aggregation goes.

use std::time::Duration;

use tokio::time::Instant;

/// Whether a node takes what it is taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Target {
    /// Nothing was taught yet.
    #[default]
    Unknown,
    /// Not all is acknowledged.
    Waiting,
    /// All is.
    Taken,
    /// Nothing has been for some time.
    Ignored,
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// It has told all its entries, and the session lasts.
    pub connected: bool,
    /// When it was connected last, if it is not.
    pub(super) seen: Option<Instant>,
    /// Entries that count.
    pub entries: usize,
    /// Entries that it is to be taught.
    pub pending: usize,
    /// Whether it takes what it is taught.
    pub target: Target,
    /// What keeps it from taking part.
    pub error: String,
    /// The last that went wrong.
    pub last_error: String,
    /// When, in milliseconds since 1970.
    pub last_error_time: u64,
}

impl NodeStatus {
    /// How old what is known of it may be. Nothing: nothing is known.
    pub fn staleness(&self) -> Option<Duration> {
        if self.connected { Some(Duration::ZERO) } else { self.seen.map(|seen| seen.elapsed()) }
    }
}

/// How an aggregation goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// It teaches.
    pub teaches: bool,
    /// It does not, because another replica does.
    pub stands_by: bool,
    /// Keys that any node has.
    pub keys: usize,
    /// The nodes, in their order.
    pub nodes: Vec<NodeStatus>,
}
