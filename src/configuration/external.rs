//! Changes of the file that others make: seen, checked, and taken over when they are complete.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::disk::{self, Identity};
use super::frame::Hash;
use super::header;
use super::journal::Origin;
use super::look::looks;
use super::store::{Configuration, blocking, mismatch};
use super::write::{Over, Write};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// Idle transactions are looked for each so many looks at the file.
const EXPIRY: u32 = 20;

/// What came of looking at the file.
#[derive(Debug, Clone)]
pub enum External {
    /// The file is the one that is served.
    Unchanged,
    /// Someone else's text is served now, under this version.
    Taken(i64),
    /// The file is still changing, gone, or cannot be checked right now; look again.
    Unsettled,
    /// HAProxy refuses the text in the file, or it is empty; what was served before stays.
    Refused(Arc<Error>),
}

impl Configuration {
    /// Looks at the file, and takes over what someone else wrote when it has settled and HAProxy accepts it.
    ///
    /// The file is written back with its new version line. No reload follows: who edits a file by hand decides when.
    pub async fn external_change(&self) -> Result<External> {
        let Some((identity, bytes)) = self.settled().await? else { return Ok(External::Unsettled) };
        let hash = Hash::of(&bytes);
        {
            let mut writer = self.shared.writer.lock().await;
            if writer.journal.state().hash == hash {
                writer.identity = Some(identity);
                self.shared.trouble.store(None);
                return Ok(External::Unchanged);
            }
            if writer.refused == Some(identity)
                && let Some(error) = self.trouble()
            {
                return Ok(External::Refused(error));
            }
        }
        let verdict = if bytes.is_empty() {
            // What an editor leaves when it stops half-way. No check is asked: some would let it pass.
            Err(Error::new(Reason::ConfigurationRejected, "the configuration file is empty"))
        } else {
            self.shared.check.check(&bytes, "candidate").await
        };
        match verdict {
            Ok(()) => {}
            Err(error) if error.reason() == Reason::ConfigurationRejected => {
                tracing::warn!(%error, "the file was changed by someone else, and HAProxy refuses it");
                let error = Arc::new(error);
                self.shared.writer.lock().await.refused = Some(identity);
                self.shared.trouble.store(Some(error.clone()));
                return Ok(External::Refused(error));
            }
            Err(error) => {
                tracing::warn!(%error, "the file was changed by someone else, and cannot be checked");
                return Ok(External::Unsettled);
            }
        }
        let document = Document::parse(&bytes);
        let own = header::version(&document);
        let write = Write::new(Origin::External, document).over(Over::Text(hash)).above(own);
        let writer = self.shared.writer.clone().lock_owned().await;
        if writer.journal.state().hash == hash {
            return Ok(External::Unchanged);
        }
        let Some(outcome) = self.shared.clone().write_and_reload(writer, write, None).await? else {
            return Ok(External::Unsettled);
        };
        tracing::info!(version = outcome.version, "took over a change of the file made by someone else");
        Ok(External::Taken(outcome.version))
    }

    /// The file, if it stays the same for the time in the settings.
    async fn settled(&self) -> Result<Option<(Identity, Vec<u8>)>> {
        let file = self.shared.settings.file.clone();
        let before = blocking({
            let file = file.clone();
            move || Identity::of(&file)
        });
        let Some(before) = before.await? else { return Ok(None) };
        tokio::time::sleep(self.shared.settings.settle).await;
        let read = blocking(move || disk::read_stable(&file)).await?;
        Ok(read.filter(|(after, _)| *after == before))
    }

    /// The error for a change that found the file changed by someone else.
    pub(super) fn meddled(&self, given: i64, found: External) -> Error {
        match found {
            External::Taken(version) => mismatch(version, given),
            External::Refused(error) => {
                let text = "the configuration file was changed by someone else and HAProxy refuses it: repair it, or \
                            replace it as raw configuration";
                Error::clone(&error).message_replaced(text).with("source", "external change")
            }
            External::Unchanged | External::Unsettled => {
                let text = "the configuration file is being changed by someone else, retry";
                Error::new(Reason::VersionMismatch, text).with("expected", given).with("actual", self.current().version)
            }
        }
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
        let mut expiry = tokio::time::interval(every * EXPIRY);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = false;
        loop {
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                _ = expiry.tick() => self.expire().await.map(|_| again),
                Ok(()) = changes.changed() => self.look_at_file().await,
                () = tokio::time::sleep(every), if again => self.look_at_file().await,
            };
            again = looked.unwrap_or_else(|error| {
                tracing::warn!(context = error.context_text(), "cannot look after the configuration file");
                settings.watch
            });
        }
    }

    /// Takes over what others made of the file. Whether it is to be looked at again.
    async fn look_at_file(&self) -> Result<bool> {
        let file = self.shared.settings.file.clone();
        let present = blocking(move || Identity::of(&file)).await?;
        let known = {
            let writer = self.shared.writer.lock().await;
            // A file that is gone is not taken over; the next change writes it again.
            present.is_none() || present == writer.identity || present == writer.refused
        };
        Ok(!known && matches!(self.external_change().await?, External::Unsettled))
    }
}
