//! What the configuration needs from the rooms above it: a check of a candidate, and reloads.
//!
//! `process` implements them and `main` joins them, so that nothing here knows a process or a socket.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::plan::Live;
use crate::document::Document;
use crate::error::Result;

/// A boxed future, so that the traits below can be used as objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Says whether HAProxy would accept a configuration.
pub trait Check: Send + Sync {
    /// Checks the whole text of a candidate. `label` names it in messages (a transaction id, or `candidate`), `user` who
    /// waits for it: users take turns. Empty for nobody. Returns what HAProxy warns of when it accepts it.
    ///
    /// Fails with `CONFIGURATION_REJECTED`, whose detail is what HAProxy printed and whose metadata names `line` and
    /// `section` where known. Runs outside any lock.
    fn check<'a>(&'a self, candidate: &'a [u8], label: &'a str, user: &'a str) -> Pending<'a, Result<Vec<Warning>>>;
}

/// What HAProxy warns of in a configuration that it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Line of the text, from 1, where it names one.
    pub line: Option<usize>,
    /// The section that holds the line, such as `frontend fe`.
    pub section: Option<String>,
    /// The line itself, without blanks around it.
    pub text: Option<String>,
    /// Its words, in one line, without numbers of lines.
    pub words: String,
}

/// Says whether HAProxy would accept another file in the place of one that the configuration names.
pub trait CheckFile: Send + Sync {
    /// Checks the configuration with `candidate` in the place of `file`, both whole paths.
    ///
    /// Nothing is asked when no line names `file`. Fails with `CONFIGURATION_REJECTED`, whose messages name `file`,
    /// never the candidate.
    fn check_file<'a>(&'a self, file: &'a Path, candidate: &'a Path) -> Pending<'a, Result<()>>;
}

/// Makes changes in the running HAProxy.
pub trait Apply: Send + Sync {
    /// Makes HAProxy, which runs `old`, run `new` without a reload. Returns the worker that does; `None` when none does,
    /// or not all of it: then a reload has to follow. Called by one at a time.
    fn apply<'a>(&'a self, old: &'a Document, new: &'a Document, live: Live) -> Pending<'a, Option<Worker>>;
}

/// A worker of HAProxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Process id.
    pub(super) pid: i64,
    /// When its program began, before it read the configuration, in milliseconds since 1970; `None` when that is not known
    /// by the clock of this machine.
    pub(super) began: Option<u64>,
}

/// Makes HAProxy load the file that has just been written.
pub trait Reload: Send + Sync {
    /// Asks for a reload within the reload delay and returns its id; joins the one that is pending already.
    fn request(&self, version: i64) -> String;

    /// Reloads at once, together with a pending one, and waits for the result.
    ///
    /// `RELOAD_FAILED` when HAProxy refused this version or, with metadata `pending`, when the reload was not done: the
    /// change stays, and the reload is tried again. Where it refused others only, and runs this one, that is no error.
    fn force(&self, version: i64) -> Pending<'_, Result<()>>;

    /// Whether a reload runs at this moment, which may have read the file already.
    fn under_way(&self) -> bool {
        false
    }

    /// Sets who is told of results. Called once, before the first request.
    fn listen(&self, listener: Arc<dyn ReloadListener>);
}

/// Told by the reload queue what became of a reload.
pub trait ReloadListener: Send + Sync {
    /// The version of the file that a reload starting now would load.
    fn version(&self) -> i64;

    /// HAProxy runs `version`: it becomes the last good one.
    fn accepted(&self, version: i64) -> Pending<'_, ()>;

    /// What HAProxy's check says against the text of `version`, for a reload that was not done; `None` when it has
    /// nothing against it, or cannot be asked.
    fn refusal(&self, version: i64) -> Pending<'_, Option<String>>;

    /// HAProxy refused `version`: the guilty change is found by real loads and taken back, all others stay, under a new
    /// version.
    fn refused<'a>(&'a self, version: i64, refusal: Refusal, loads: &'a dyn Load) -> Pending<'a, Blame>;
}

/// What HAProxy says when it refuses to load.
#[derive(Debug, Clone, Default)]
pub struct Refusal {
    /// Its words.
    pub message: String,
    /// What they point at.
    pub places: Vec<Place>,
}

/// A place in the configuration that HAProxy complains about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line of the file, from 1.
    pub line: Option<usize>,
    /// Name of a section.
    pub section: Option<String>,
}

/// Makes HAProxy load the file as it is, and waits for the result.
pub trait Load: Send + Sync {
    /// Loads it.
    fn load(&self) -> Pending<'_, Verdict>;
}

/// What HAProxy makes of a file.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It runs it.
    Loaded,
    /// It refuses it.
    Refused(Refusal),
    /// It did not load it, for other reasons.
    Unknown(String),
}

/// What was done about a configuration that HAProxy refused to load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blame {
    /// Versions that were taken back: the guilty one, and those that could not stand without it.
    pub taken_back: Vec<i64>,
    /// HAProxy runs all that was not refused.
    pub loaded: bool,
    /// An edit by hand that is guilty: it stays in the file.
    pub edit: Option<i64>,
    /// Versions that stay in the file, though HAProxy does not run them: that edit, and what cannot stand without it.
    pub left: Vec<i64>,
    /// Why nothing was taken back: no change is to blame. The reload is to be tried again.
    pub pending: Option<String>,
}
