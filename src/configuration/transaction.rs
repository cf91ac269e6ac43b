//! Open transactions: their documents in memory, their logs on disk, their limits and their end.
//!
//! A transaction in memory is a clone of a document, which shares every section that it does not change.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::crash::{self, Step};
use super::disk::{self, Appender, Steps};
use super::frame::Hash;
use super::header;
use super::options::{Clock, Snapshot, StoreSettings};
use super::transaction_log::{self as log, End, Head, Status};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// How many failed and outdated transactions are kept to be looked at; the oldest go first.
const KEPT: usize = 100;

/// A transaction as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its id, a UUID.
    pub id: String,
    /// Version of the configuration that it began with.
    pub version: i64,
    /// Where it stands.
    pub status: Status,
    /// Why it failed or is outdated; empty otherwise.
    pub message: String,
    /// When it began, in milliseconds since 1970.
    pub created: u64,
}

/// One transaction.
pub(super) struct Entry {
    pub(super) head: Head,
    live: Mutex<Live>,
    /// Held while an edit or a commit is under way, so that edits have one order. `None` when the log is closed.
    pub(super) log: Arc<tokio::sync::Mutex<Option<Appender>>>,
}

struct Live {
    status: Status,
    message: String,
    view: Option<Arc<Snapshot>>,
    touched: u64,
}

impl Entry {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As callers see it.
    pub(super) fn describe(&self) -> Transaction {
        let live = self.live();
        Transaction {
            id: self.head.id.clone(),
            version: self.head.version,
            status: live.status,
            message: live.message.clone(),
            created: self.head.created,
        }
    }

    /// Its document, whatever its status; `None` for a change that failed without a transaction of its own.
    pub(super) fn view(&self) -> Option<Arc<Snapshot>> {
        self.live().view.clone()
    }

    /// Its document if it is open; otherwise the error that says why it is not.
    pub(super) fn open_view(&self, purpose: &str) -> Result<Arc<Snapshot>> {
        let live = self.live();
        let reason = match (live.status, &live.view) {
            (Status::InProgress, Some(view)) => return Ok(view.clone()),
            (Status::Failed, _) => Reason::TransactionFailed,
            (Status::Outdated, _) => Reason::TransactionOutdated,
            (Status::InProgress | Status::Success, _) => return Err(unknown(&self.head.id)),
        };
        let text = format!("transaction {} is {} and cannot be {purpose}", self.head.id, live.status.name());
        Err(Error::new(reason, text).with("transaction_id", &self.head.id))
    }
}

/// The error for a transaction that nobody knows.
pub(super) fn unknown(id: &str) -> Error {
    Error::new(Reason::TransactionNotFound, format!("transaction does not exist: {id}")).with("transaction_id", id)
}

/// All transactions of one configuration. Functions that touch the disk say so and block.
pub(super) struct Transactions {
    folder: PathBuf,
    durable: bool,
    limit: usize,
    clock: Clock,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    /// Number of the next one.
    next: AtomicU64,
    /// Taken while texts below transactions are saved or removed.
    bases: Mutex<()>,
}

impl Transactions {
    /// Reads the transactions of the last run. Blocks. `committed` ones are removed, `current` saves a parse.
    pub(super) fn load(settings: &StoreSettings, committed: &[String], current: &Snapshot) -> Result<Self> {
        let folder = settings.transactions();
        disk::create_folder(&folder)?;
        let table = Transactions {
            durable: settings.durable_transactions,
            limit: settings.max_open_transactions,
            clock: settings.clock.clone(),
            entries: Mutex::default(),
            next: AtomicU64::new(0),
            bases: Mutex::default(),
            folder,
        };
        let mut bases = HashMap::from([(current.hash, current.document.clone())]);
        let names = std::fs::read_dir(&table.folder).map_err(|error| disk::failed("read", &table.folder, &error))?;
        for name in names {
            let entry = name.map_err(|error| disk::failed("read", &table.folder, &error))?;
            // None of ours is a link: it would lead to the file of somebody else.
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let path = entry.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("log") => table.load_one(&path, committed, &mut bases)?,
                Some("backstay-tmp") => disk::remove(&path)?,
                _ => {}
            }
        }
        table.forget_old()?;
        table.remove_unused_bases()?;
        Ok(table)
    }

    fn load_one(
        &self,
        path: &std::path::Path,
        committed: &[String],
        bases: &mut HashMap<Hash, Document>,
    ) -> Result<()> {
        let read = disk::read(path)?.and_then(|bytes| log::decode(&bytes));
        // A log without a whole head was never answered.
        let Some(read) = read.filter(|log| !committed.contains(&log.head.id)) else { return disk::remove(path) };
        let (mut status, mut message) = match read.end {
            Some(end) => (end.status, end.message),
            None => (Status::InProgress, String::new()),
        };
        let document = self.replayed(&read.head, &read.edits, bases);
        if status == Status::InProgress
            && let Err(error) = &document
        {
            tracing::error!(id = read.head.id, context = error.context_text(), "cannot restore a transaction");
            (status, message) = (Status::Failed, error.to_string());
        }
        let appender = match status {
            Status::InProgress => Some(Appender::open(path, read.held as u64)?),
            Status::Failed | Status::Outdated | Status::Success => None,
        };
        let view = document
            .ok()
            .map(|document| Arc::new(Snapshot { document, version: read.head.version, hash: read.head.base }));
        self.insert(read.head, Live { status, message, view, touched: read.touched }, appender);
        Ok(())
    }

    fn replayed(&self, head: &Head, edits: &[Vec<u8>], bases: &mut HashMap<Hash, Document>) -> Result<Document> {
        let mut document = if let Some(document) = bases.get(&head.base) {
            document.clone()
        } else {
            let bytes = disk::read(&self.base(head.base))?.filter(|bytes| Hash::of(bytes) == head.base);
            let lost = || Error::new(Reason::TransactionFailed, "the text below the transaction is lost");
            bases.entry(head.base).or_insert(Document::parse(&bytes.ok_or_else(lost)?)).clone()
        };
        for edit in edits {
            header::apply_edit(&mut document, edit)?;
        }
        Ok(document)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self, hash: Hash) -> PathBuf {
        self.folder.join(format!("{}.base", hash.to_hex()))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    fn head(&self, id: &str, base: &Snapshot, created: u64) -> Head {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Head { id: id.to_owned(), number, version: base.version, base: base.hash, created }
    }

    fn insert(&self, head: Head, live: Live, appender: Option<Appender>) -> Arc<Entry> {
        let mut entries = self.entries();
        self.next.fetch_max(head.number + 1, Ordering::Relaxed);
        let log = Arc::new(tokio::sync::Mutex::new(appender));
        let entry = Arc::new(Entry { head, live: Mutex::new(live), log });
        entries.insert(entry.head.id.clone(), entry.clone());
        entry
    }

    /// A transaction by its id.
    pub(super) fn get(&self, id: &str) -> Result<Arc<Entry>> {
        self.entries().get(id).cloned().ok_or_else(|| unknown(id))
    }

    /// A transaction that is about to be read or changed: its idle time begins anew.
    pub(super) fn used(&self, id: &str) -> Result<Arc<Entry>> {
        let entry = self.get(id)?;
        entry.live().touched = (self.clock)();
        Ok(entry)
    }

    /// All of them, or those of one status, oldest first.
    pub(super) fn list(&self, status: Option<Status>) -> Vec<Transaction> {
        let mut entries: Vec<_> = self.entries().values().cloned().collect();
        entries.sort_by_key(|entry| entry.head.number);
        let all = entries.iter().map(|entry| entry.describe());
        all.filter(|transaction| status.is_none_or(|status| status == transaction.status)).collect()
    }

    /// Begins one on this state. Blocks.
    pub(super) fn begin(&self, base: &Arc<Snapshot>) -> Result<Transaction> {
        let now = (self.clock)();
        let id = uuid::Uuid::new_v4().to_string();
        let head = self.head(&id, base, now);
        let entry = {
            let mut entries = self.entries();
            let open = entries.values().filter(|entry| entry.live().status == Status::InProgress).count();
            if self.limit > 0 && open >= self.limit {
                let text = format!(
                    "cannot start a new transaction, reached the maximum amount of {} active transactions available",
                    self.limit
                );
                return Err(Error::new(Reason::TransactionLimit, text).with("limit", self.limit));
            }
            let live =
                Live { status: Status::InProgress, message: String::new(), view: Some(base.clone()), touched: now };
            let entry = Arc::new(Entry { head, live: Mutex::new(live), log: Arc::default() });
            // Counted from here on, so that two callers cannot both take the last place.
            entries.insert(id.clone(), entry.clone());
            entry
        };
        match self.begin_on_disk(base, &entry) {
            Ok(()) => Ok(entry.describe()),
            Err(error) => {
                self.entries().remove(&id);
                disk::remove(&self.path(&id))?;
                Err(error)
            }
        }
    }

    fn begin_on_disk(&self, base: &Snapshot, entry: &Entry) -> Result<()> {
        let _bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.base(base.hash);
        if disk::Identity::of(&text)?.is_none() {
            disk::replace(&text, &base.document.to_bytes(), 0o600, &Steps::NONE)?;
        }
        crash::at(Step::BaseWritten);
        let path = self.path(&entry.head.id);
        let mut appender = Appender::open(&path, 0)?;
        appender.append(&log::head(&entry.head)?, self.durable, (Some(Step::BeginWritten), None))?;
        if self.durable {
            disk::sync_folder_of(&path)?;
        }
        if let Ok(mut log) = entry.log.try_lock() {
            *log = Some(appender);
        }
        Ok(())
    }

    /// Adds an edit, on disk and then in memory. Blocks. `open` is the locked log of the entry.
    pub(super) fn edit(&self, entry: &Entry, open: &mut Option<Appender>, document: Document) -> Result<()> {
        // Read again under the lock of the log: the transaction may have ended while this edit waited.
        let before = entry.open_view("changed")?;
        let Some(appender) = open.as_mut() else { return Err(unknown(&entry.head.id)) };
        let now = (self.clock)();
        let edit = header::encode_edit(&before.document, &document);
        let steps = (Some(Step::EditWritten), Some(Step::EditSynced));
        appender.append(&log::edit(now, &edit)?, self.durable, steps)?;
        let mut live = entry.live();
        live.touched = now;
        live.view = Some(Arc::new(Snapshot { document, version: before.version, hash: before.hash }));
        Ok(())
    }

    /// Ends one that will not be committed; it stays to be looked at. Blocks.
    pub(super) fn end(&self, entry: &Entry, open: &mut Option<Appender>, status: Status, message: &str) {
        let end = End { status, message: message.to_owned(), at: (self.clock)() };
        entry.live().status = status;
        entry.live().message.clone_from(&end.message);
        // Not synced: a transaction that is open again after a power cut ends the same way at its next commit.
        let written = match open.take() {
            Some(mut appender) => log::end(&end).and_then(|bytes| appender.append(&bytes, false, (None, None))),
            None => Ok(()),
        };
        if let Err(error) = written.and_then(|()| self.forget_old()) {
            tracing::warn!(id = entry.head.id, context = error.context_text(), "cannot note the end of a transaction");
        }
    }

    /// Keeps a change that failed its check without a transaction of its own, so that it can be listed. Blocks.
    pub(super) fn note_failed(&self, id: &str, base: &Snapshot, message: &str) -> Result<()> {
        let now = (self.clock)();
        let head = self.head(id, base, now);
        let end = End { status: Status::Failed, message: message.to_owned(), at: now };
        let mut appender = Appender::open(&self.path(id), 0)?;
        let bytes = [log::head(&head)?, log::end(&end)?].concat();
        appender.append(&bytes, false, (None, None))?;
        let live = Live { status: Status::Failed, message: end.message, view: None, touched: now };
        self.insert(head, live, None);
        self.forget_old()
    }

    /// A commit is done: its log goes, and the others on the same version or an older one are outdated. Blocks.
    pub(super) fn committed(&self, id: &str, version: i64) -> Result<()> {
        self.entries().remove(id);
        disk::remove(&self.path(id))?;
        crash::at(Step::TransactionRemoved);
        let others: Vec<_> = self.entries().values().cloned().collect();
        for entry in others {
            let open = entry.live().status == Status::InProgress;
            if open && entry.head.version <= version {
                let message = format!("transaction {id} was committed on version {version}");
                // A log that is in use right now is not waited for: its owner may wait for us.
                match entry.log.clone().try_lock_owned() {
                    Ok(mut log) => self.end(&entry, &mut log, Status::Outdated, &message),
                    Err(_) => self.end(&entry, &mut None, Status::Outdated, &message),
                }
            }
        }
        self.remove_unused_bases()
    }

    /// Removes one. Blocks. `open` is the locked log of the entry.
    pub(super) fn remove(&self, entry: &Entry, open: &mut Option<Appender>) -> Result<()> {
        *open = None;
        let known = self.entries().remove(&entry.head.id).is_some();
        if !known {
            return Err(unknown(&entry.head.id));
        }
        disk::remove(&self.path(&entry.head.id))?;
        self.remove_unused_bases()
    }

    /// Those that are open and were not used since `before` (milliseconds since 1970).
    pub(super) fn idle_since(&self, before: u64) -> Vec<Arc<Entry>> {
        let idle = |entry: &&Arc<Entry>| {
            let live = entry.live();
            live.status == Status::InProgress && live.touched < before
        };
        self.entries().values().filter(idle).cloned().collect()
    }

    fn forget_old(&self) -> Result<()> {
        let mut ended: Vec<_> =
            self.entries().values().filter(|entry| entry.live().status != Status::InProgress).cloned().collect();
        ended.sort_by_key(|entry| (entry.live().touched, entry.head.number));
        let surplus = ended.len().saturating_sub(KEPT);
        for entry in ended.iter().take(surplus) {
            self.entries().remove(&entry.head.id);
            disk::remove(&self.path(&entry.head.id))?;
        }
        Ok(())
    }

    fn remove_unused_bases(&self) -> Result<()> {
        let _bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let used: Vec<_> = self.entries().values().map(|entry| self.base(entry.head.base)).collect();
        let names = std::fs::read_dir(&self.folder).map_err(|error| disk::failed("read", &self.folder, &error))?;
        for name in names {
            let path = name.map_err(|error| disk::failed("read", &self.folder, &error))?.path();
            if path.extension().is_some_and(|extension| extension == "base") && !used.contains(&path) {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }
}
