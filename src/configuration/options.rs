//! Settings of the store, and what a caller says and learns with each change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::frame::Hash;
use super::plan::Live;
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// Gives the time in milliseconds since 1970. Injected, so that tests decide what time it is.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Which header lines the file carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderPolicy {
    /// `# _version=N` is the first line; a checksum line is kept up to date where there is one.
    #[default]
    Version,
    /// As `Version`, and `# _md5hash=` is added too.
    VersionAndChecksum,
    /// The file carries none; the version lives in the state folder only.
    Outside,
}

/// Where the configuration lives and how careful the store is.
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone)]
pub struct StoreSettings {
    /// The configuration file of HAProxy. May be a symbolic link; the link stays.
    pub file: PathBuf,
    /// Folder of journal, transactions and the last good text; created with mode 0750. One process at a time holds it,
    /// and it belongs to one configuration file.
    pub state_dir: PathBuf,
    /// Header lines.
    pub header: HeaderPolicy,
    /// Refuses every change and never writes the file. Default false.
    pub read_only: bool,
    /// The version in a file that was replaced while nothing ran counts, even if it is lower than before.
    /// Default false: version numbers are never used twice.
    pub trust_file_version: bool,
    /// Edits of transactions are on disk before they are answered. Default true.
    pub durable_transactions: bool,
    /// Transactions that may be open at once; 0 is no limit. Default 20.
    pub max_open_transactions: usize,
    /// Whether a change outside of transactions that HAProxy refuses is listed as a failed transaction. Default false.
    pub list_refused: bool,
    /// Open transactions that nobody used for this long are dropped; `None` keeps them. Default 24 h.
    pub transaction_expiry: Option<Duration>,
    /// How many outgoing files are kept as `<base>.<version>`; 0 keeps none. Default 0.
    pub backups_number: u32,
    /// Where they are kept; beside the file by default.
    pub backups_dir: Option<PathBuf>,
    /// Whether the last good text is also kept as `<file>.lkg`. Default false.
    pub last_good_beside: bool,
    /// Whether the file is looked at again and again for changes made by others. Default true; without it they are seen
    /// when asked for, and before each write.
    pub watch: bool,
    /// How often at most. Default 500 ms.
    pub watch_interval: Duration,
    /// How long a changed file must stay the same before it is taken over. Default 100 ms.
    pub settle: Duration,
    /// How long a file that does not stay the same, is empty or has no line feed at its end counts as one that is being
    /// written. Default 5 s.
    pub unfinished: Duration,
    /// The time.
    pub clock: Clock,
}

impl StoreSettings {
    /// The defaults for a file and a state folder.
    pub fn new(file: impl Into<PathBuf>, state_dir: impl Into<PathBuf>) -> Self {
        StoreSettings {
            file: file.into(),
            state_dir: state_dir.into(),
            header: HeaderPolicy::default(),
            read_only: false,
            trust_file_version: false,
            durable_transactions: true,
            max_open_transactions: 20,
            list_refused: false,
            transaction_expiry: Some(Duration::from_hours(24)),
            backups_number: 0,
            backups_dir: None,
            last_good_beside: false,
            watch: true,
            watch_interval: Duration::from_millis(500),
            settle: Duration::from_millis(100),
            unfinished: Duration::from_secs(5),
            clock: Arc::new(|| u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)),
        }
    }

    /// Fails with `UNSUPPORTED` when changes are refused.
    pub(super) fn writable(&self) -> Result<()> {
        if self.read_only {
            let text = "the configuration is read-only: the server was started with read-only";
            return Err(Error::new(Reason::Unsupported, text).with("setting", "read_only"));
        }
        Ok(())
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.state_dir.join("journal")
    }

    /// Where old and new text are safe while the file is written in place.
    pub(super) fn in_place(&self) -> PathBuf {
        self.state_dir.join("in-place")
    }

    pub(super) fn last_good(&self) -> PathBuf {
        self.state_dir.join("last-good.cfg")
    }

    /// Where texts go that are taken out of use without their authors knowing.
    pub(super) fn aside(&self) -> PathBuf {
        self.state_dir.join("aside")
    }

    /// The changes one by one.
    pub(super) fn changes(&self) -> PathBuf {
        self.state_dir.join("changes")
    }

    /// The texts on trial that the file may hold, the last two.
    pub(super) fn trials(&self) -> PathBuf {
        self.state_dir.join("trials")
    }

    /// The configuration, while the file holds a text on trial.
    pub(super) fn on_trial(&self) -> PathBuf {
        self.state_dir.join("on-trial.cfg")
    }

    pub(super) fn transactions(&self) -> PathBuf {
        self.state_dir.join("transactions")
    }

    pub(super) fn last_good_beside(&self) -> PathBuf {
        self.beside("lkg")
    }

    pub(super) fn backup(&self, version: i64) -> PathBuf {
        self.beside(&version.to_string())
    }

    /// `<base>.<suffix>` in the folder of backups.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(suffix);
        match &self.backups_dir {
            Some(folder) => folder.join(name),
            None => self.file.with_file_name(name),
        }
    }
}

/// One state of the configuration. Immutable: it stays as it is while newer ones come.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The text.
    pub document: Document,
    /// Its version; for a transaction the version it began with.
    pub version: i64,
    /// Hash of the file with this text.
    pub(super) hash: Hash,
}

/// What a change applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// The configuration, if it still has this version.
    Version(i64),
    /// A transaction, by its id.
    Transaction(&'a str),
}

/// How a change is carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Reload now and wait for the result, instead of within the reload delay. Not for transactions.
    pub force_reload: bool,
    /// Everything but the write: the check runs, nothing changes.
    pub validate_only: bool,
    /// Write, but do not ask for a reload.
    pub skip_reload: bool,
    /// What may be changed in the running HAProxy instead of by a reload. Without effect with the others.
    pub live: Live,
}

/// What a change led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Version of the configuration after the change; in a transaction the version it began with.
    pub version: i64,
    /// The reload that was asked for and will follow.
    pub reload_id: Option<String>,
    /// Whether HAProxy already runs the change.
    pub reloaded: bool,
    /// What HAProxy warns of since the change, a sentence each. Nothing in a transaction, which is checked as a whole.
    pub warnings: Vec<String>,
}
