//! Changes of the file that others make: seen, checked, and served once they are complete.
//!
//! The file on disk is the configuration, and stays as others wrote it: they may not be done. Its new version is in the
//! journal only; our line in it is renewed by the next change. What HAProxy refuses is served as well, and the trouble with
//! it is told until a change or an edit repairs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::change_log::Change;
use super::disk::{self, Identity};
use super::frame::Hash;
use super::header;
use super::journal::{Mark, Origin, Record};
use super::look::looks;
use super::options::Snapshot;
use super::ports::Check;
use super::store::{Configuration, blocking, mismatch};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// Idle transactions are looked for each so many looks at the file.
const EXPIRY: u32 = 20;
/// HAProxy is asked again what it says to a file in trouble: what that names may be there by now.
const RECHECK: Duration = Duration::from_secs(30);

/// What came of looking at the file.
#[derive(Debug, Clone)]
pub enum External {
    /// The file is the one that is served.
    Unchanged,
    /// Someone else's text is served now, under this version.
    Taken(i64),
    /// Someone else's text is served now, under this version, and there is trouble with it.
    Troubled(i64, Arc<Error>),
    /// The file is still changing, gone, or cut off; look again.
    Unsettled,
}

/// What HAProxy says to a text that someone else wrote.
pub(super) async fn verdict(check: &dyn Check, text: &[u8]) -> Result<()> {
    if text.is_empty() {
        // Some would let it pass.
        return Err(Error::new(Reason::ConfigurationRejected, "the configuration file is empty"));
    }
    check.check(text, "candidate", "").await.map(drop)
}

/// Whether a text has an end. HAProxy refuses one that has none.
pub(super) fn is_whole(text: &[u8]) -> bool {
    text.ends_with(b"\n")
}

impl Configuration {
    /// Looks at the file, and serves what someone else wrote when it is complete.
    ///
    /// The file stays as it is. No reload follows: who edits a file by hand decides when.
    pub async fn external_change(&self) -> Result<External> {
        self.follow().await?;
        let Some((identity, text)) = self.complete().await? else { return Ok(External::Unsettled) };
        let hash = Hash::of(&text);
        if self.knows(identity, hash).await {
            if self.trouble().is_some() {
                self.recheck().await;
            }
            return Ok(External::Unchanged);
        }
        let trouble = verdict(&*self.shared.check, &text).await.err();
        self.stand(identity, hash, Document::parse(&text), trouble).await
    }

    /// Locks the file that stands there, whatever it holds: it has one server also while it is edited.
    async fn follow(&self) -> Result<()> {
        let mut writer = self.shared.writer.clone().lock_owned().await;
        blocking(move || writer.follow()).await
    }

    /// Whether the file is the one that is served.
    async fn knows(&self, identity: Identity, hash: Hash) -> bool {
        let mut writer = self.shared.writer.lock().await;
        let known = writer.journal.state().hash == hash;
        if known && writer.identity != Some(identity) {
            writer.knows_theirs(Some(identity));
        }
        known
    }

    /// Serves a text as it stands in the file.
    async fn stand(
        &self,
        identity: Identity,
        hash: Hash,
        document: Document,
        trouble: Option<Error>,
    ) -> Result<External> {
        let shared = self.shared.clone();
        let mut writer = self.shared.writer.clone().lock_owned().await;
        blocking(move || {
            let state = writer.journal.state();
            if state.hash == hash || Identity::of(&shared.settings.file)? != Some(identity) {
                return Ok(External::Unsettled);
            }
            let version = state.next_from(header::counted_version(&document));
            if !shared.settings.read_only
                && let Err(error) = shared.keep_backup()
            {
                tracing::warn!(%error, "the text before a change by hand is not kept");
            }
            let before = shared.current.load_full();
            let (from, to) = ((&before.document, before.hash), (&document, hash));
            let at = (shared.settings.clock)();
            writer.changes.append(&Change::between(from, to, version, Origin::External, at)?)?;
            writer.journal.append(&Record::Adopted(Mark { version, hash }), true)?;
            writer.knows_theirs(Some(identity));
            shared.refused_edit.store(None);
            let trouble = trouble.map(Arc::new);
            shared.publish(Arc::new(Snapshot { document, version, hash }), trouble.clone());
            let Some(error) = trouble else {
                tracing::info!(version, "took over a change of the file made by someone else");
                return Ok(External::Taken(version));
            };
            tracing::warn!(version, %error, "the file was changed by someone else, and is served as it stands");
            Ok(External::Troubled(version, error))
        })
        .await
    }

    /// The file as it stands, unless someone is just writing it.
    async fn complete(&self) -> Result<Option<(Identity, Vec<u8>)>> {
        let settings = &self.shared.settings;
        let file = settings.file.clone();
        let before = blocking({
            let file = file.clone();
            move || Identity::of(&file)
        });
        let Some(before) = before.await? else { return Ok(None) };
        tokio::time::sleep(settings.settle).await;
        let Some((after, text)) = blocking(move || disk::read_stable(&file)).await? else {
            // It changes while it is read: there is nothing to serve, however long that goes on.
            self.waited();
            return Ok(None);
        };
        let known = self.shared.writer.lock().await.journal.state().hash == Hash::of(&text);
        let complete = known || (after == before && is_whole(&text)) || self.waited();
        if complete {
            *self.shared.unfinished() = None;
        }
        Ok(complete.then_some((after, text)))
    }

    /// Whether the file has not been complete for longer than anybody takes to write it.
    fn waited(&self) -> bool {
        let mut since = self.shared.unfinished();
        since.get_or_insert_with(Instant::now).elapsed() >= self.shared.settings.unfinished
    }

    /// Lets HAProxy check once more what is served.
    async fn recheck(&self) {
        let current = self.current();
        let verdict = verdict(&*self.shared.check, &current.document.to_bytes()).await;
        let _no_change = self.shared.writer.lock().await;
        if !Arc::ptr_eq(&current, &self.current()) {
            return;
        }
        match verdict {
            Ok(()) if self.shared.trouble.swap(None).is_some() => {
                tracing::info!(version = current.version, "the configuration file is in order again");
            }
            Ok(()) => {}
            Err(error) => self.note_trouble(error),
        }
    }

    /// Tells what is wrong with the file, and logs it once.
    fn note_trouble(&self, error: Error) {
        if self.trouble().is_none_or(|known| known.message() != error.message()) {
            tracing::warn!(%error, context = error.context_text(), "there is trouble with the configuration file");
        }
        self.shared.trouble.store(Some(Arc::new(error)));
    }

    /// The error for a change that found the file changed by someone else.
    pub(super) fn meddled(&self, given: i64, found: External) -> Error {
        match found {
            External::Taken(version) => mismatch(version, given),
            External::Troubled(version, error) => {
                let mismatch = mismatch(version, given);
                let text = format!("{mismatch}; the file was changed by someone else: {error}");
                mismatch.message_replaced(text).with("source", "external change")
            }
            External::Unchanged | External::Unsettled => {
                let text = "the configuration file is being changed by someone else, retry";
                Error::new(Reason::VersionMismatch, text).with("expected", given).with("actual", self.current().version)
            }
        }
    }

    /// A refusal of a candidate, which says so when the file itself is refused already.
    pub(super) fn blamed(&self, error: Error) -> Error {
        let Some(trouble) = self.trouble().filter(|trouble| trouble.reason() == error.reason()) else { return error };
        // Lines move with changes.
        let words = |error: &Error| error.message().replace(|c: char| c.is_ascii_digit(), "");
        let text = if words(&error) == words(&trouble) {
            format!("the configuration file as it stands is refused, and the change does not repair it: {error}")
        } else {
            format!("{error}; the configuration file as it stands is refused as well: {trouble}")
        };
        error.message_replaced(text).with("source", "external change")
    }

    /// Looks at the file and at idle transactions until it is stopped. To be spawned once.
    ///
    /// A look is one `stat` call; the file is only read when that shows a change.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let settings = &self.shared.settings;
        let every = settings.watch_interval;
        let wanted = settings.watch.then(|| settings.file.clone());
        let mut changes = match looks(wanted, every, stop.clone()) {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "the configuration file is not watched");
                return;
            }
        };
        if !self.shared.checked {
            self.recheck().await;
        }
        let timer = |period| {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        };
        let (mut expiry, mut recheck) = (timer(every * EXPIRY), timer(RECHECK));
        let mut again = false;
        loop {
            again = tokio::select! {
                () = stop.cancelled() => return,
                _ = expiry.tick() => {
                    if let Err(error) = self.expire().await {
                        tracing::warn!(%error, context = error.context_text(), "idle transactions cannot be dropped");
                    }
                    again
                }
                Ok(()) = changes.changed() => self.look_at_file().await,
                () = tokio::time::sleep(every), if again => self.look_at_file().await,
                _ = recheck.tick(), if settings.watch && self.trouble().is_some() => self.look_at_file().await,
            };
        }
    }

    /// Serves what others made of the file. Whether it is to be looked at again.
    async fn look_at_file(&self) -> bool {
        match self.look().await {
            Ok(again) => again,
            Err(error) => {
                self.note_trouble(error);
                true
            }
        }
    }

    async fn look(&self) -> Result<bool> {
        let file = self.shared.settings.file.clone();
        let present = blocking(move || Identity::of(&file)).await?;
        if present.is_none() {
            return Ok(self.is_gone());
        }
        let known = present == self.shared.writer.lock().await.identity && self.trouble().is_none();
        if known {
            *self.shared.unfinished() = None;
        }
        Ok(!known && matches!(self.external_change().await?, External::Unsettled))
    }

    /// The file is gone, perhaps for a moment only. Whether it is to be looked for again.
    fn is_gone(&self) -> bool {
        if !self.waited() {
            return true;
        }
        // Nothing that could be served stands there.
        let file = self.shared.settings.file.display();
        let text = format!("the configuration file {file} is gone: the next change writes it again");
        self.note_trouble(Error::new(Reason::FileUnusable, text));
        false
    }
}
