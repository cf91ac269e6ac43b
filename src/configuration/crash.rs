//! Places where a test may kill the process, to prove that the next start recovers.
//!
//! With debug assertions, or the feature `crash-points`, the environment variable `BACKSTAY_CRASH_AT` names one step
//! and the process kills itself there with SIGKILL. Other builds contain none of this.

macro_rules! steps {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A moment between two effects on disk or on HAProxy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step { $($(#[doc = $doc])+ $variant,)+ }

        impl Step {
            /// Every step, in the order of the write path.
            pub const ALL: &'static [Step] = &[$(Step::$variant,)+];

            /// The name that `BACKSTAY_CRASH_AT` gives.
            pub fn name(self) -> &'static str {
                match self { $(Step::$variant => $name,)+ }
            }
        }
    };
}

steps! {
    /// A change passed its check; nothing is written.
    Checked = "checked",
    /// The writer lock is held and the version compared.
    Locked = "locked",
    /// The intent is in the journal, not yet synced.
    IntentWritten = "intent-written",
    /// The intent is synced.
    IntentSynced = "intent-synced",
    /// The outgoing file is kept as a backup.
    BackupWritten = "backup-written",
    /// The temporary file is written, not yet synced.
    TempWritten = "temp-written",
    /// The temporary file is synced.
    TempSynced = "temp-synced",
    /// The new file has its name, the old one the temporary name; which one that was is not looked at yet.
    Exchanged = "exchanged",
    /// The new file has its name, the folder is not yet synced.
    Renamed = "renamed",
    /// The folder is synced: from here the change must survive.
    FolderSynced = "folder-synced",
    /// Old and new text of a file that is written in place are kept aside.
    KeptAside = "kept-aside",
    /// Half of a file is written in place.
    HalfOverwritten = "half-overwritten",
    /// A file is written in place; its texts are still kept.
    Overwritten = "overwritten",
    /// Readers see the change.
    Published = "published",
    /// The reload is requested.
    ReloadRequested = "reload-requested",
    /// The intent is marked done.
    DoneWritten = "done-written",
    /// The log of a committed transaction is removed.
    TransactionRemoved = "transaction-removed",
    /// A fresh journal is written beside the old one.
    CompactWritten = "compact-written",
    /// A fresh journal has replaced the old one.
    CompactRenamed = "compact-renamed",
    /// The text below a transaction is saved.
    BaseWritten = "base-written",
    /// The log of a transaction has its head.
    BeginWritten = "begin-written",
    /// An edit is in the log of its transaction, not yet synced.
    EditWritten = "edit-written",
    /// An edit is synced.
    EditSynced = "edit-synced",
    /// A text is in the file only to be tried.
    OnTrial = "on-trial",
    /// The last good file is replaced, the journal does not say so yet.
    GoodWritten = "good-written",
    /// The journal names the new last good version.
    GoodNoted = "good-noted",
}

/// Kills the process when `BACKSTAY_CRASH_AT` names this step.
#[cfg(any(test, debug_assertions, feature = "crash-points"))]
pub fn at(step: Step) {
    if std::env::var_os("BACKSTAY_CRASH_AT").is_some_and(|name| name == step.name()) {
        let own = rustix::process::getpid();
        if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
            tracing::error!(%error, step = step.name(), "cannot stop at the crash point");
        }
    }
}

/// Does nothing in this build.
#[cfg(not(any(test, debug_assertions, feature = "crash-points")))]
#[inline(always)]
pub fn at(_: Step) {}
