//! Whether a worker of HAProxy runs the present text: because it began when that was in the file, or because it was given
//! the last change without a reload.
//!
//! A reload that others begin may have read the file just before a change, and its worker may answer long after: then it
//! lacks also what the worker before it was given at run time.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::journal::{Record, State};
use super::ports::Worker;
use super::store::{Configuration, blocking};
use crate::error::Result;

/// What is known of the last change that HAProxy is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    /// When its text was in the file, in milliseconds since 1970; `None` when nobody has noted it.
    #[serde(default)]
    pub(super) at: Option<u64>,
    /// The worker that was given it at run time.
    #[serde(default)]
    pub(super) live: Option<Worker>,
    /// The worker in whose place another one was asked for. A command that reloads nothing would be asked for ever.
    #[serde(default)]
    pub(super) asked: Option<Worker>,
}

impl Written {
    /// Whether nothing speaks against a worker running the text. A change of a later time than now says nothing: the clock
    /// was set back.
    pub(super) fn is_run_by(&self, worker: &Worker, now: u64) -> bool {
        let (Some(at), Some(began)) = (self.at.filter(|at| *at <= now), worker.began) else { return true };
        began >= at || self.live.as_ref() == Some(worker)
    }
}

impl State {
    /// Whether a worker lacks a change although no reload is to come, nor has one been asked for because of it.
    pub(super) fn is_behind(&self, worker: &Worker, now: u64) -> bool {
        let asked = self.written.asked.as_ref() == Some(worker);
        self.reload_wanted.is_none() && !asked && !self.written.is_run_by(worker, now)
    }
}

/// A time in milliseconds since 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Worker {
    /// A worker that began at a time; `None` when that is not known by the clock of this machine.
    pub fn new(pid: i64, began: Option<SystemTime>) -> Self {
        Worker { pid, began: began.map(milliseconds) }
    }
}

impl Configuration {
    /// Asks for a reload, and returns its id, when a worker that answers lacks a change although no reload is to come.
    ///
    /// Edits by hand do not count: who makes them decides when they are loaded.
    pub async fn met(&self, worker: Worker) -> Result<Option<String>> {
        let shared = self.shared.clone();
        let mut writer = self.shared.writer.clone().lock_owned().await;
        blocking(move || {
            let state = writer.journal.state();
            let version = state.version;
            if shared.settings.read_only || !state.is_behind(&worker, (shared.settings.clock)()) {
                return Ok(None);
            }
            writer.journal.append(&Record::Behind { version, worker: Some(worker) }, true)?;
            Ok(Some(shared.reload.request(version)))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_runs_what_was_there_when_it_began_and_what_it_was_given() {
        let worker = |pid, began| Worker { pid, began };
        let (old, new) = (worker(7, Some(90)), worker(8, Some(100)));
        let mut written = Written { at: Some(100), ..Written::default() };
        assert!(!written.is_run_by(&old, 200) && written.is_run_by(&new, 200));
        assert!(written.is_run_by(&worker(7, None), 200), "clocks of other machines tell nothing");
        assert!(written.is_run_by(&old, 99), "the clock was set back");
        written.live = Some(old.clone());
        assert!(written.is_run_by(&old, 200) && !written.is_run_by(&worker(9, Some(95)), 200));
        assert!(Written::default().is_run_by(&old, 200));
    }
}
