//! The one way that the file is written: intent, file, memory, reload, done.
//!
//! Each line of `Shared::write_file` leaves a state from which `recovery.rs` goes on, see the steps in `crash.rs`.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::change_log::Change;
use super::crash::{self, Step};
use super::disk::{self, Appender, Exchange, Steps};
use super::exchange::Old;
use super::frame::Hash;
use super::header;
use super::journal::{Intent, Mark, Origin, Record, State};
use super::options::{ChangeOptions, Outcome, Snapshot, StoreSettings};
use super::plan::Live;
use super::store::{Shared, Writer, blocking};
use crate::document::Document;
use crate::error::{Error, Result};

/// Which text of someone else may be overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// None.
    Nothing,
    /// Any; it is kept aside.
    Anything,
}

/// What happens after the file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    Request,
    Force,
    /// A reload only if it cannot be done without.
    Apply(Live),
}

/// A write to be done.
pub(super) struct Write {
    origin: Origin,
    document: Document,
    wish: Wish,
    over: Over,
    version: Option<i64>,
    transaction: Option<(String, i64)>,
}

impl Write {
    pub(super) fn new(origin: Origin, document: Document) -> Self {
        Write { origin, document, wish: Wish::Nothing, over: Over::Nothing, version: None, transaction: None }
    }

    pub(super) fn reloading(mut self, options: ChangeOptions) -> Self {
        self.wish = match (options.force_reload, options.skip_reload) {
            (true, _) => Wish::Force,
            (false, true) => Wish::Nothing,
            (false, false) if options.live != Live::Nothing => Wish::Apply(options.live),
            (false, false) => Wish::Request,
        };
        self
    }

    /// Commits a transaction that began on this version.
    pub(super) fn committing(mut self, id: String, began: i64) -> Self {
        self.transaction = Some((id, began));
        self
    }

    pub(super) fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    /// The version of the text itself, instead of the next one.
    pub(super) fn renumbered(mut self, version: i64) -> Self {
        self.version = Some(version);
        self
    }
}

impl Shared {
    /// Writes, and reloads when that was wished. Goes on to the end even if the caller stops waiting. `None` when
    /// someone else changed the file and nothing was done.
    pub(super) async fn write_and_reload(
        self: Arc<Self>,
        mut writer: OwnedMutexGuard<Writer>,
        mut write: Write,
        log: Option<OwnedMutexGuard<Option<Appender>>>,
    ) -> Result<Option<Outcome>> {
        if matches!(write.wish, Wish::Apply(_)) && self.trouble.load().is_some() {
            // HAProxy does not run what the change was made to.
            write.wish = Wish::Request;
        }
        let force = write.wish == Wish::Force;
        let live = if let Wish::Apply(live) = write.wish { live } else { Live::Nothing };
        let work = async move {
            let shared = self.clone();
            let before = (self.current.load_full(), writer.journal.state().clone());
            let written = blocking(move || {
                let written = shared.write_file(&mut writer, write);
                drop(log);
                Ok((written?, writer))
            });
            let (Some((snapshot, mut reload_id)), writer) = written.await? else { return Ok(None) };
            if live != Live::Nothing {
                reload_id = self.apply(writer, before, &snapshot, live).await;
                let reloaded = reload_id.is_none();
                return Ok(Some(Outcome { version: snapshot.version, reload_id, reloaded, ..Outcome::default() }));
            }
            drop(writer);
            if force {
                self.reload.force(snapshot.version).await?;
            }
            Ok(Some(Outcome { version: snapshot.version, reload_id, reloaded: force, ..Outcome::default() }))
        };
        tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
    }

    /// Lets the running HAProxy take over what was written; otherwise asks for a reload and returns its id.
    async fn apply(
        self: &Arc<Self>,
        mut writer: OwnedMutexGuard<Writer>,
        (before, known): (Arc<Snapshot>, State),
        after: &Arc<Snapshot>,
        live: Live,
    ) -> Option<String> {
        let applied = match self.apply.get() {
            // A reload that runs has read the file before, or not: nobody knows which.
            Some(apply) if !self.reload.under_way() => apply.apply(&before.document, &after.document, live).await,
            _ => None,
        };
        // One that lacks an earlier change has to read the file.
        let applied =
            applied.filter(|worker| !self.reload.under_way() && !known.is_behind(worker, (self.settings.clock)()));
        let Some(worker) = applied else { return Some(self.reload.request(after.version)) };
        let (shared, after) = (self.clone(), after.clone());
        let kept = blocking(move || {
            let unproven = &writer.journal.state().unproven;
            if unproven[..] == [after.version] {
                writer.journal.append(&Record::Live { worker }, false)?;
                return writer.keep_good(&shared.settings, &after);
            }
            // Should HAProxy refuse the others, this change stays.
            let Some(document) = super::carry::carried(&writer.good.document, &before.document, &after.document) else {
                tracing::warn!(version = after.version, "a change made at run time goes with those before it");
                return Ok(());
            };
            let version = writer.good.version;
            let (document, bytes) = header::stamped(&document, version, shared.settings.header);
            let good = Arc::new(Snapshot { document, version, hash: Hash::of(&bytes) });
            writer.keep_good(&shared.settings, &good)
        });
        if let Err(error) = kept.await {
            tracing::error!(context = error.context_text(), "cannot keep the last good configuration");
        }
        None
    }

    /// Blocks. Returns the new state and the id of the reload that was asked for; `None` when the file on disk was
    /// changed by someone else and may not be overwritten.
    pub(super) fn write_file(
        &self,
        writer: &mut Writer,
        write: Write,
    ) -> Result<Option<(Arc<Snapshot>, Option<String>)>> {
        if write.origin != Origin::External {
            self.settings.writable()?;
        }
        if !self.is_ours(writer, write.over)? {
            return Ok(None);
        }
        let state = writer.journal.state();
        let version = write.version.unwrap_or_else(|| state.next_version());
        let (document, bytes) = header::stamped(&write.document, version, self.settings.header);
        let hash = Hash::of(&bytes);
        let intent = Intent {
            sequence: state.sequence + 1,
            origin: write.origin,
            old_version: state.version,
            new_version: version,
            old_hash: state.hash,
            new_hash: hash,
            reload: write.wish != Wish::Nothing,
            renumber: version <= state.highest,
            transaction: write.transaction.as_ref().map(|(id, _)| id.clone()),
        };
        let sequence = intent.sequence;
        let before = self.current.load_full();
        let (from, to) = ((&before.document, before.hash), (&document, hash));
        writer.changes.append(&Change::between(from, to, version, write.origin, (self.settings.clock)())?)?;
        writer.journal.append(&Record::Intent(intent), true)?;
        let replaced = self.keep_backup().and_then(|()| self.replace_file(&bytes, writer));
        if !matches!(replaced, Ok(true)) {
            if let Err(error) = writer.journal.append(&Record::Undone { sequence }, true) {
                tracing::error!(context = error.context_text(), "cannot note that a change was not made");
            }
            return replaced.map(|_| None);
        }

        let snapshot = Arc::new(Snapshot { document, version, hash });
        if write.origin == Origin::External {
            self.refused_edit.store(None);
        }
        self.publish(snapshot.clone(), None);
        crash::at(Step::Published);
        let reload_id = (write.wish == Wish::Request).then(|| self.reload.request(version));
        crash::at(Step::ReloadRequested);
        // Not synced: without it the next start finds the new file and comes to the same result.
        self.tidy_up(writer, sequence, write.transaction);
        Ok(Some((snapshot, reload_id)))
    }

    /// Shows a new state to readers, and what is wrong with it.
    pub(super) fn publish(&self, snapshot: Arc<Snapshot>, trouble: Option<Arc<Error>>) {
        self.recent().push(snapshot.clone());
        let version = snapshot.version;
        self.current.store(snapshot);
        if self.trouble.swap(trouble.clone()).is_some() && trouble.is_none() {
            tracing::info!(version, "the configuration file is in order again");
        }
        self.changes.send_replace(version);
    }

    /// What follows a write that is safe already: its failures are logged and not the caller's.
    fn tidy_up(&self, writer: &mut Writer, sequence: u64, transaction: Option<(String, i64)>) {
        // The next millisecond: this one may have begun before the file was written.
        let at = (self.settings.clock)() + 1;
        let mut outcome = writer.journal.append(&Record::Done { sequence, at }, false);
        crash::at(Step::DoneWritten);
        if let Some((id, began)) = transaction {
            outcome = outcome.and(self.transactions.committed(&id, began));
        }
        outcome = outcome.and_then(|()| writer.journal.compact());
        if let Err(error) = outcome {
            tracing::error!(context = error.context_text(), "cannot tidy up after a change; the change itself is safe");
        }
    }

    pub(super) fn keep_backup(&self) -> Result<()> {
        let keep = i64::from(self.settings.backups_number);
        if keep == 0 {
            return Ok(());
        }
        let outgoing = self.current.load_full();
        let path = self.settings.backup(outgoing.version);
        let mode = disk::mode_of(&self.settings.file);
        disk::replace(&path, &outgoing.document.to_bytes(), mode, &Steps::NONE)?;
        crash::at(Step::BackupWritten);
        disk::remove(&self.settings.backup(outgoing.version.saturating_sub(keep)))
    }

    /// Exchanges the text of the file. False when it is not the file that the writer knows: then that one stays. Blocks.
    pub(super) fn replace_file(&self, bytes: &[u8], writer: &mut Writer) -> Result<bool> {
        let steps =
            Steps { written: Some(Step::TempWritten), synced: Some(Step::TempSynced), renamed: Some(Step::Renamed) };
        let old = match writer.identity {
            Some(identity) if writer.by_hand => Old::Theirs(identity),
            known => Old::Known(known),
        };
        let (keep, lock) = (self.settings.in_place(), writer.lock.as_mut());
        let how = Exchange { mode: 0o644, old, steps: &steps, keep: Some(&keep), lock };
        let Some(identity) = disk::exchange(&self.settings.file, bytes, how)? else { return Ok(false) };
        (writer.identity, writer.by_hand) = (Some(identity), false);
        if let Err(error) = disk::sync_folder_of(&disk::resolved(&self.settings.file)) {
            // The new file is there and cannot be taken back for sure: memory must follow it.
            tracing::error!(context = error.context_text(), "the change may not survive a power cut");
        }
        crash::at(Step::FolderSynced);
        Ok(true)
    }
}

impl Writer {
    /// Keeps a state as the last good one. Blocks.
    pub(super) fn keep_good(&mut self, settings: &StoreSettings, snapshot: &Arc<Snapshot>) -> Result<()> {
        let bytes = snapshot.document.to_bytes();
        let path = settings.last_good();
        disk::replace(&path, &bytes, 0o600, &Steps::NONE)?;
        disk::sync_folder_of(&path)?;
        crash::at(Step::GoodWritten);
        self.journal.append(&Record::Good(Mark { version: snapshot.version, hash: snapshot.hash }), true)?;
        crash::at(Step::GoodNoted);
        self.good = snapshot.clone();
        let state = self.journal.state();
        self.changes.compact(state.hash, &state.unproven)?;
        keep_beside(settings, &bytes);
        Ok(())
    }
}

/// Writes the last good text beside the file, where that is wished and possible.
pub(super) fn keep_beside(settings: &StoreSettings, bytes: &[u8]) {
    let path = settings.last_good_beside();
    if settings.last_good_beside
        && let Err(error) = disk::replace(&path, bytes, disk::mode_of(&settings.file), &Steps::NONE)
    {
        tracing::warn!(%error, "the last good configuration does not lie beside the file");
    }
}
