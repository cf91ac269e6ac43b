//! How a search goes.

/// Where a search stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Switched off.
    Disabled,
    /// No attempt has ended yet.
    #[default]
    Starting,
    /// The last attempt was a success.
    Running,
    /// The last attempt failed.
    Failing,
}

/// A service that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// Its name.
    pub name: String,
    /// Its backend.
    pub backend: String,
    /// Instances that take traffic.
    pub instances: usize,
    /// Servers that instances are put into.
    pub slots: usize,
}

/// How a search goes. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub state: State,
    /// Why the last failed attempt failed.
    pub last_error: String,
    /// When.
    pub last_error_time: Option<u64>,
    /// The last success.
    pub last_success_time: Option<u64>,
    /// When the next attempt is due at the latest.
    pub next_attempt_time: Option<u64>,
    /// Failed attempts since the last success.
    pub failures: u32,
    /// Services of the last success.
    pub services: Vec<Discovered>,
    /// What it left out, and why.
    pub problems: Vec<String>,
}

impl Status {
    /// Of a search that has not asked yet, or that never will.
    pub(super) fn before_the_first_attempt(enabled: bool) -> Status {
        let state = if enabled { State::Starting } else { State::Disabled };
        Status { state, ..Status::default() }
    }
}
