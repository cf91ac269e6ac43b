//! The configuration that is served: reads from memory, changes one at a time.
//!
//! Reads take the current snapshot and never wait. A change is computed and checked on a snapshot without any lock,
//! then written under the writer lock if that snapshot is still the current one (`write.rs`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{OwnedMutexGuard, watch};

use super::aside;
use super::change_log::ChangeLog;
use super::crash::{self, Step};
use super::disk::{self, Appender, Identity, Journal};
use super::frame::Hash;
use super::header;
use super::journal::Origin;
use super::lock::{FileLock, FolderLock};
use super::options::{ChangeOptions, Outcome, Snapshot, StoreSettings, Target};
use super::ports::{Apply, Check, Reload, Warning};
use super::transaction::{Transaction, Transactions};
use super::transaction_log::Status;
use super::warned::Warned;
use super::write::{Over, Write};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// The configuration of one HAProxy: its text, its version, its transactions.
///
/// All methods may be called from any task at the same time.
pub struct Configuration {
    pub(super) shared: Arc<Shared>,
    /// Who works with it; empty for nobody.
    pub(super) user: Box<str>,
}

/// What the methods, and the tasks that outlive a caller, have in common.
pub(super) struct Shared {
    pub(super) settings: StoreSettings,
    pub(super) check: Arc<dyn Check>,
    pub(super) reload: Arc<dyn Reload>,
    pub(super) apply: OnceLock<Arc<dyn Apply>>,
    pub(super) current: ArcSwap<Snapshot>,
    /// What HAProxy is known to have loaded last.
    pub(super) loaded: ArcSwap<Snapshot>,
    pub(super) writer: Arc<tokio::sync::Mutex<Writer>>,
    pub(super) transactions: Transactions,
    pub(super) recent: Mutex<Recent>,
    pub(super) trouble: ArcSwapOption<Error>,
    /// Since when the file is being written by someone else.
    pub(super) unfinished: Mutex<Option<Instant>>,
    /// Whether HAProxy was asked at the start what it says to the file.
    pub(super) checked: bool,
    pub(super) refused_edit: ArcSwapOption<String>,
    /// What HAProxy warned of last.
    pub(super) warned: ArcSwapOption<Warned>,
    pub(super) changes: watch::Sender<i64>,
}

/// What only the one who writes may touch.
pub(super) struct Writer {
    pub(super) journal: Journal,
    pub(super) changes: ChangeLog,
    /// The file as we know it; `None` when there is none.
    pub(super) identity: Option<Identity>,
    /// Others wrote it, and may go on.
    pub(super) by_hand: bool,
    /// The last state that a reload accepted.
    pub(super) good: Arc<Snapshot>,
    /// Nobody else writes the file; `None` when we do not either.
    pub(super) lock: Option<FileLock>,
    pub(super) _folder: FolderLock,
}

impl Writer {
    /// Holds the lock of the file that stands there now. Fails when another process has it.
    pub(super) fn follow(&mut self) -> Result<()> {
        self.lock.as_mut().map_or(Ok(()), FileLock::follow)
    }

    /// Knows a file that others have written.
    pub(super) fn knows_theirs(&mut self, identity: Option<Identity>) {
        (self.identity, self.by_hand) = (identity, true);
    }
}

/// Snapshots that a reload under way may have loaded. Bounded.
#[derive(Default)]
pub(super) struct Recent {
    snapshots: VecDeque<Arc<Snapshot>>,
    loading: Option<Arc<Snapshot>>,
}

impl Recent {
    /// How many snapshots are kept besides the one that is being loaded.
    const KEPT: usize = 16;

    pub(super) fn push(&mut self, snapshot: Arc<Snapshot>) {
        if self.snapshots.len() == Self::KEPT {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back(snapshot);
    }

    pub(super) fn pin(&mut self, snapshot: Arc<Snapshot>) {
        self.loading = Some(snapshot);
    }

    pub(super) fn find(&self, version: i64) -> Option<Arc<Snapshot>> {
        self.loading.iter().chain(self.snapshots.iter().rev()).find(|known| known.version == version).cloned()
    }
}

/// Runs work that blocks beside the tasks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}

/// The error for a change that was made for another version.
pub(super) fn mismatch(actual: i64, given: i64) -> Error {
    let text = format!("version mismatch: version in configuration file is {actual}, given version is {given}");
    Error::new(Reason::VersionMismatch, text).with("expected", given).with("actual", actual)
}

/// Clients of /v2 read another sentence where the transaction is the object of the call and not its target.
fn unknown_itself(error: Error, id: &str) -> Error {
    error.message_replaced(format!("transaction does not exist: transaction {id} does not exist"))
}

impl Configuration {
    /// The same configuration for a user, who takes turns with others where something has to be waited for.
    #[must_use]
    pub fn used_by(&self, user: &str) -> Arc<Self> {
        Arc::new(Configuration { shared: Arc::clone(&self.shared), user: user.into() })
    }

    /// Lets HAProxy check a text.
    pub(super) async fn check(&self, text: &[u8], label: &str) -> Result<Vec<Warning>> {
        self.shared.check.check(text, label, &self.user).await
    }

    /// Sets what changes the running HAProxy. Without it, and before, every change is followed by a reload.
    pub fn apply_with(&self, apply: Arc<dyn Apply>) {
        if self.shared.apply.set(apply).is_err() {
            tracing::error!("the configuration has a way to the running haproxy already");
        }
    }

    /// Fails with `UNSUPPORTED` when the managed file and stored files may not be changed.
    pub fn writable(&self) -> Result<()> {
        self.shared.settings.writable()
    }

    /// The configuration as it is now. Never waits.
    pub fn current(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// The text that HAProxy is known to have loaded last: where it listens now stands there, not in the present one.
    pub fn loaded(&self) -> Arc<Snapshot> {
        self.shared.loaded.load_full()
    }

    /// The text that stands in the file at this moment: another one while a change that HAProxy refuses is searched for.
    /// Blocks.
    pub fn on_disk(&self) -> Result<Document> {
        let bytes = super::disk::read(&self.shared.settings.file)?.unwrap_or_default();
        Ok(Document::parse(&bytes))
    }

    /// What a read sees: the configuration, or a transaction by its id (`TRANSACTION_NOT_FOUND` when there is none).
    pub fn view(&self, transaction_id: Option<&str>) -> Result<Arc<Snapshot>> {
        let Some(id) = transaction_id else { return Ok(self.current()) };
        let entry = self.shared.transactions.used(id)?;
        entry.view().ok_or_else(|| super::transaction::unknown(id))
    }

    /// The version that an answer names: of the configuration, or the one that a transaction began with; 0 for an
    /// unknown transaction.
    pub fn version_of(&self, transaction_id: Option<&str>) -> i64 {
        match transaction_id {
            None => self.current().version,
            Some(id) => self.shared.transactions.get(id).map_or(0, |entry| entry.head.version),
        }
    }

    /// Sees the version whenever the configuration changes, whoever changed it.
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.shared.changes.subscribe()
    }

    /// What is wrong with the file on disk: HAProxy refuses what someone wrote there, or it cannot be read, written or
    /// checked. `None` when all is well.
    pub fn trouble(&self) -> Option<Arc<Error>> {
        self.shared.trouble.load_full()
    }

    /// That HAProxy refuses to load an edit by hand, which stays in the file all the same. `None` when all is well.
    pub fn refused_edit(&self) -> Option<String> {
        self.shared.refused_edit.load_full().map(|told| String::clone(&told))
    }

    /// Changes the configuration or a transaction: `edit` makes a new document of the present one, and may refuse.
    ///
    /// For a version the result is checked by HAProxy, written and followed by a reload. When it returns, the change
    /// is on disk. Fails with `VERSION_MISMATCH` when another change came first and `CONFIGURATION_REJECTED` when
    /// HAProxy refuses it; then nothing has changed. `RELOAD_FAILED` with `force_reload`: with metadata `pending` the
    /// change stays and HAProxy gets it when it is back, otherwise the change was taken back.
    pub async fn change<T: Send>(
        &self,
        target: Target<'_>,
        options: ChangeOptions,
        edit: impl FnOnce(&Document) -> Result<(Document, T)> + Send,
    ) -> Result<(T, Outcome)> {
        match target {
            Target::Version(version) => self.change_version(version, options, edit).await,
            Target::Transaction(id) => self.change_transaction(id, options, edit).await,
        }
    }

    async fn change_version<T: Send>(
        &self,
        version: i64,
        options: ChangeOptions,
        edit: impl FnOnce(&Document) -> Result<(Document, T)> + Send,
    ) -> Result<(T, Outcome)> {
        self.shared.settings.writable()?;
        let base = self.current();
        if base.version != version {
            return Err(mismatch(base.version, version));
        }
        let (document, value) = edit(&base.document)?;
        let all = self.check_change(&base, &document, !options.validate_only).await?;
        let warnings = self.brought(&base, &all).await;
        if options.validate_only {
            return Ok((value, Outcome { version: base.version, warnings, ..Outcome::default() }));
        }
        let write = Write::new(Origin::Change, document).reloading(options);
        let outcome = self.write_on(&base, write).await?;
        self.remember(outcome.version, all);
        Ok((value, Outcome { warnings, ..outcome }))
    }

    async fn change_transaction<T: Send>(
        &self,
        id: &str,
        options: ChangeOptions,
        edit: impl FnOnce(&Document) -> Result<(Document, T)> + Send,
    ) -> Result<(T, Outcome)> {
        if options.force_reload {
            let text = "Both force_reload and transaction specified, specify only one";
            return Err(Error::new(Reason::TargetAmbiguous, text));
        }
        self.shared.settings.writable()?;
        let entry = self.shared.transactions.used(id)?;
        let mut log = entry.log.clone().lock_owned().await;
        let base = entry.open_view("changed")?;
        let (document, value) = edit(&base.document)?;
        let outcome = Outcome { version: base.version, ..Outcome::default() };
        if !options.validate_only {
            let shared = self.shared.clone();
            blocking(move || shared.transactions.edit(&entry, &mut log, document)).await?;
        }
        Ok((value, outcome))
    }

    /// Lets HAProxy check a candidate, and returns what it warns of. One that it refuses may be listed as a failed
    /// transaction when `note` is set.
    pub(super) async fn check_change(
        &self,
        base: &Arc<Snapshot>,
        document: &Document,
        note: bool,
    ) -> Result<Vec<Warning>> {
        let id = uuid::Uuid::new_v4().to_string();
        let (_, bytes) = header::stamped(document, base.version, self.shared.settings.header);
        match self.check(&bytes, &id).await {
            Ok(warnings) => {
                crash::at(Step::Checked);
                Ok(warnings)
            }
            Err(error) => {
                let error = self.blamed(error);
                let note = note && self.shared.settings.list_refused;
                if note && error.reason() == Reason::ConfigurationRejected {
                    let (shared, base, message) = (self.shared.clone(), base.clone(), error.to_string());
                    let noted = blocking(move || shared.transactions.note_failed(&id, &base, &message)).await;
                    if let Err(error) = noted {
                        tracing::warn!(context = error.context_text(), "cannot note a failed change");
                    }
                }
                Err(error)
            }
        }
    }

    /// Writes if `base` is still the current state.
    pub(super) async fn write_on(&self, base: &Arc<Snapshot>, write: Write) -> Result<Outcome> {
        let writer = self.shared.writer.clone().lock_owned().await;
        crash::at(Step::Locked);
        let current = self.current();
        if !Arc::ptr_eq(&current, base) {
            return Err(mismatch(current.version, base.version));
        }
        self.write(writer, write, None).await
    }

    /// Writes; when someone else changed the file meanwhile, deals with that first and refuses the change.
    pub(super) async fn write(
        &self,
        writer: OwnedMutexGuard<Writer>,
        write: Write,
        log: Option<OwnedMutexGuard<Option<Appender>>>,
    ) -> Result<Outcome> {
        let given = self.current().version;
        match self.shared.clone().write_and_reload(writer, write, log).await? {
            Some(outcome) => Ok(outcome),
            None => Err(self.meddled(given, self.external_change().await?)),
        }
    }

    /// Begins a transaction on the present state, which must have this version.
    pub async fn begin(&self, version: i64) -> Result<Transaction> {
        self.shared.settings.writable()?;
        let base = self.current();
        if base.version != version {
            return Err(mismatch(base.version, version));
        }
        let shared = self.shared.clone();
        blocking(move || shared.transactions.begin(&base)).await
    }

    /// All transactions, or those with a status; oldest first. Committed ones are gone.
    pub fn transactions(&self, status: Option<Status>) -> Vec<Transaction> {
        self.shared.transactions.list(status)
    }

    /// One transaction.
    pub fn transaction(&self, id: &str) -> Result<Transaction> {
        Ok(self.shared.transactions.get(id).map_err(|error| unknown_itself(error, id))?.describe())
    }

    /// Drops a transaction, whatever its status.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let entry = self.shared.transactions.get(id).map_err(|error| unknown_itself(error, id))?;
        let mut log = entry.log.clone().lock_owned().await;
        let shared = self.shared.clone();
        blocking(move || shared.transactions.remove(&entry, &mut log)).await
    }

    /// Makes a transaction the configuration. The answer has status `Success` and the version that it began with; the
    /// outcome has the new one.
    ///
    /// `VERSION_MISMATCH` when the configuration moved on: the transaction is outdated from then on, and further
    /// commits fail with `TRANSACTION_OUTDATED`. `CONFIGURATION_REJECTED` when HAProxy refuses it: it is failed from
    /// then on. Others that began on the same version or an older one become outdated by a commit.
    pub async fn commit(&self, id: &str, force_reload: bool) -> Result<(Transaction, Outcome)> {
        self.shared.settings.writable()?;
        let entry = self.shared.transactions.used(id).map_err(|error| unknown_itself(error, id))?;
        let mut log = entry.log.clone().lock_owned().await;
        let view = entry.open_view("committed")?;
        let base = self.current();
        let moved = |current: &Snapshot| {
            let text = format!(
                "version mismatch: version mismatch, transaction version: {}, configured version: {}",
                view.version, current.version
            );
            Error::new(Reason::VersionMismatch, text).with("expected", view.version).with("actual", current.version)
        };
        let failure = if (base.version, base.hash) == (view.version, view.hash) {
            let (_, bytes) = header::stamped(&view.document, view.version, self.shared.settings.header);
            match self.check(&bytes, id).await {
                Ok(all) => {
                    crash::at(Step::Checked);
                    let warnings = self.brought(&base, &all).await;
                    let writer = self.shared.writer.clone().lock_owned().await;
                    crash::at(Step::Locked);
                    let current = self.current();
                    if Arc::ptr_eq(&current, &base) {
                        let options = ChangeOptions { force_reload, ..ChangeOptions::default() };
                        let write = Write::new(Origin::Commit, view.document.clone())
                            .reloading(options)
                            .committing(id.to_owned(), view.version);
                        let outcome = self.write(writer, write, Some(log)).await?;
                        self.remember(outcome.version, all);
                        let transaction =
                            Transaction { status: Status::Success, message: String::new(), ..entry.describe() };
                        return Ok((transaction, Outcome { warnings, ..outcome }));
                    }
                    moved(&current)
                }
                Err(error) if error.reason() == Reason::ConfigurationRejected => self.blamed(error),
                // No verdict: the transaction stays as it is.
                Err(error) => return Err(error),
            }
        } else {
            moved(&base)
        };
        let status = match failure.reason() {
            Reason::VersionMismatch => Status::Outdated,
            _ => Status::Failed,
        };
        let (shared, message) = (self.shared.clone(), failure.to_string());
        blocking(move || {
            shared.transactions.end(&entry, &mut log, status, &message);
            Ok(())
        })
        .await?;
        Err(failure)
    }

    /// Drops the open transactions that nobody used for the time in the settings. Returns how many.
    pub async fn expire(&self) -> Result<usize> {
        let Some(after) = self.shared.settings.transaction_expiry else { return Ok(0) };
        let now = (self.shared.settings.clock)();
        let before = now.saturating_sub(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let mut dropped = 0;
        for entry in self.shared.transactions.idle_since(before) {
            // One that is in use is not idle.
            let Ok(mut log) = entry.log.clone().try_lock_owned() else { continue };
            let shared = self.shared.clone();
            let id = entry.head.id.clone();
            blocking(move || shared.transactions.remove(&entry, &mut log)).await?;
            tracing::info!(id, "dropped an abandoned transaction");
            dropped += 1;
        }
        Ok(dropped)
    }
}

impl Shared {
    pub(super) fn unfinished(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a file that someone else wrote may be overwritten: never, but by those who mean to. The writer then knows
    /// which file that is.
    pub(super) fn is_ours(&self, writer: &mut Writer, over: Over) -> Result<bool> {
        writer.follow()?;
        let present = Identity::of(&self.settings.file)?;
        if present.is_some() && present == writer.identity {
            return Ok(true);
        }
        let text = disk::read(&self.settings.file)?;
        // A file that is gone holds nothing that could be lost.
        let known = text.as_ref().is_none_or(|text| Hash::of(text) == writer.journal.state().hash);
        match (over, text) {
            (Over::Anything, Some(text)) if !known => {
                let aside = aside::keep(&self.settings, "overwritten", &text)?;
                tracing::warn!(kept = %aside.display(), "the file was changed by someone else and is overwritten");
            }
            _ if known => {}
            _ => return Ok(false),
        }
        writer.knows_theirs(present);
        Ok(true)
    }
}
