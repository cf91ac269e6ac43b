//! HAProxy has refused to load: finds the guilty change by real loads of texts without some of the changes, takes back that
//! one, and keeps all others.
//!
//! Meanwhile the file holds a text on trial, readers see the present one, and nobody else writes. The present text is kept
//! beside it and the journal says so: a start after a kill in the middle puts it back.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::aside;
use super::change_log::Change;
use super::crash::{self, Step};
use super::disk::{self, Exchange, Identity, Journal, Steps};
use super::frame::Hash;
use super::header;
use super::journal::{Origin, Record};
use super::lock::FileLock;
use super::options::{Snapshot, StoreSettings};
use super::ports::{Blame, Load, Refusal, Verdict};
use super::search::Texts;
use super::store::{Shared, Writer, blocking};
use super::write::{Over, Write};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// Changes, by their places in the list of suspects.
type Changes = BTreeSet<usize>;

/// A text that was really loaded, or not.
struct Tried {
    text: Document,
    /// What it lacks: the changes to be tried, and those that cannot stand without them.
    out: Changes,
    verdict: Verdict,
}

/// What a search came to.
enum Found {
    /// HAProxy runs `text`, which lacks the guilty changes and those that cannot stand without them.
    Guilty { guilty: Changes, text: Document, out: Changes },
    /// No change is to blame, or it could not be found out. Says why.
    Nobody(String),
}

struct Search<'a> {
    shared: Arc<Shared>,
    writer: Option<OwnedMutexGuard<Writer>>,
    texts: Arc<Texts>,
    current: Arc<Snapshot>,
    loads: &'a dyn Load,
}

impl Shared {
    /// Takes back the change that makes HAProxy refuse `version`.
    pub(super) async fn blame(self: Arc<Self>, version: i64, refusal: Refusal, loads: &dyn Load) -> Result<Blame> {
        let writer = self.writer.clone().lock_owned().await;
        let unproven = writer.journal.state().unproven.clone();
        if !unproven.contains(&version) {
            return Ok(Blame::default());
        }
        let current = self.current.load_full();
        let (shared, snapshot) = (self.clone(), current.clone());
        let (writer, texts) = blocking(move || {
            let changes = writer.changes.leading_to(snapshot.hash, &unproven)?;
            let texts = Texts::new(&snapshot.document, &changes, &writer.good.document, &unproven)?;
            let bytes = snapshot.document.to_bytes();
            aside::keep(&shared.settings, "refused", &bytes)?;
            disk::replace_durably(&shared.settings.on_trial(), &bytes, 0o600)?;
            Ok((writer, Arc::new(texts)))
        })
        .await?;
        let mut search = Search { shared: self, writer: Some(writer), texts, current, loads };
        let message = refusal.message.clone();
        let found = match search.find(version, refusal).await {
            Ok(found) => found,
            Err(error) => {
                let words = format!("{message} (and the guilty change cannot be found: {error})");
                tracing::error!(context = error.context_text(), %error, "cannot search for the change that HAProxy refuses");
                Found::Nobody(words)
            }
        };
        search.end(found, &message).await
    }
}

impl Search<'_> {
    /// Suspects by HAProxy's words first, then by halves.
    async fn find(&mut self, version: i64, refusal: Refusal) -> Result<Found> {
        let texts = self.texts.clone();
        let count = texts.suspects().len();
        let mut guilty = Changes::new();
        // What was refused: the text after so many changes, but the guilty ones.
        let mut until =
            texts.suspects().iter().rposition(|suspect| suspect.version == version).map_or(count, |at| at + 1);
        let mut text = texts.after(until).clone();
        let mut refusal = refusal;
        loop {
            let rest: Vec<usize> = (0..count).filter(|at| !guilty.contains(at)).collect();
            let refused = rest.iter().take_while(|at| **at < until).count();
            if refused == 0 {
                return Ok(Found::Nobody(innocent(&refusal)));
            }
            until = count;
            let named = texts.named(&text, &refusal.places, &rest[..refused]);
            if !named.is_empty() {
                let tried = self.attempt(&guilty | &named).await?;
                match tried.verdict {
                    Verdict::Loaded => {
                        return Ok(Found::Guilty { guilty: &guilty | &named, text: tried.text, out: tried.out });
                    }
                    Verdict::Refused(again) if tried.out.len() == count => return Ok(Found::Nobody(innocent(&again))),
                    // Other complaints are about other changes.
                    Verdict::Refused(again) if is_another(&refusal, &again) => {
                        guilty.extend(named);
                        (refusal, text) = (again, tried.text);
                        continue;
                    }
                    Verdict::Refused(_) => {}
                    Verdict::Unknown(why) => return Ok(Found::Nobody(why)),
                }
            }
            let (mut taken, mut left) = (0, refused);
            while left - taken > 1 {
                let middle = taken.midpoint(left);
                let without = guilty.iter().chain(&rest[middle..]).copied().collect();
                match self.attempt(without).await?.verdict {
                    Verdict::Loaded => taken = middle,
                    Verdict::Refused(_) => left = middle,
                    Verdict::Unknown(why) => return Ok(Found::Nobody(why)),
                }
            }
            guilty.insert(rest[left - 1]);
            let tried = self.attempt(guilty.clone()).await?;
            match tried.verdict {
                Verdict::Loaded => return Ok(Found::Guilty { guilty, text: tried.text, out: tried.out }),
                Verdict::Unknown(why) => return Ok(Found::Nobody(why)),
                Verdict::Refused(again) if tried.out.len() == count => return Ok(Found::Nobody(innocent(&again))),
                Verdict::Refused(again) => (refusal, text) = (again, tried.text),
            }
            // Nothing has loaded so far: the text before all changes may be refused as well.
            if taken == 0
                && let Verdict::Refused(again) = self.attempt((0..count).collect()).await?.verdict
            {
                return Ok(Found::Nobody(innocent(&again)));
            }
        }
    }

    /// Puts the text without these changes into the file, and loads it.
    async fn attempt(&mut self, out: Changes) -> Result<Tried> {
        let (text, out) = self.standing(out).await;
        let (stamped, bytes) = header::stamped(&text, self.current.version, self.shared.settings.header);
        self.put(Record::OnTrial { hash: Hash::of(&bytes) }, bytes).await?;
        let verdict = self.loads.load().await;
        let lacking: Vec<i64> = out.iter().map(|at| self.texts.suspects()[*at].version).collect();
        tracing::info!(
            ?lacking,
            loaded = matches!(verdict, Verdict::Loaded),
            "tried the configuration without some versions"
        );
        Ok(Tried { text: stamped, out, verdict })
    }

    /// The text without these changes and without what HAProxy's check finds wrong then.
    async fn standing(&self, out: Changes) -> (Document, Changes) {
        let (mut text, mut out) = self.texts.without(&out);
        while !self.passes(&text).await {
            let first = out.first().copied().unwrap_or(0);
            let rest: Vec<usize> = (first..self.texts.suspects().len()).filter(|at| !out.contains(at)).collect();
            let (mut good, mut bad) = (0, rest.len());
            if bad == 0 {
                break;
            }
            while bad - good > 1 {
                let middle = good.midpoint(bad);
                let without = out.iter().chain(&rest[middle..]).copied().collect();
                if self.passes(&self.texts.without(&without).0).await { good = middle } else { bad = middle }
            }
            out.insert(rest[bad - 1]);
            (text, out) = self.texts.without(&out);
        }
        (text, out)
    }

    async fn passes(&self, text: &Document) -> bool {
        let (_, bytes) = header::stamped(text, self.current.version, self.shared.settings.header);
        let checked = self.shared.check.check(&bytes, "candidate").await;
        !matches!(checked, Err(error) if error.reason() == Reason::ConfigurationRejected)
    }

    /// Writes the file without showing it to readers, unless somebody has edited it meanwhile.
    async fn put(&mut self, record: Record, bytes: Vec<u8>) -> Result<()> {
        let shared = self.shared.clone();
        self.with_writer(move |writer| {
            let file = &shared.settings.file;
            if Identity::of(file)? != writer.identity {
                return Err(Error::new(Reason::VersionMismatch, "the configuration file was edited by someone else"));
            }
            writer.journal.append(&record, true)?;
            shared.replace_file(&bytes, writer)?;
            writer.identity = Identity::of(file)?;
            crash::at(Step::OnTrial);
            Ok(())
        })
        .await
    }

    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut writer) = self.writer.take() else { return Err(Error::internal("the writer is gone")) };
        let (writer, done) = blocking(move || {
            let done = work(&mut writer);
            Ok((writer, done))
        })
        .await?;
        self.writer = Some(writer);
        done
    }

    async fn end(mut self, found: Found, message: &str) -> Result<Blame> {
        let (guilty, text, out) = match found {
            Found::Guilty { guilty, text, out } => (guilty, text, out),
            Found::Nobody(why) => {
                self.restore().await?;
                return Ok(Blame { pending: Some(why), ..Blame::default() });
            }
        };
        let texts = self.texts.clone();
        let suspects = texts.suspects();
        let versions = |changes: &Changes| changes.iter().map(|at| suspects[*at].version).collect::<Vec<_>>();
        let by_hand = |changes: &Changes| changes.iter().rev().find(|at| suspects[**at].by_hand).copied();
        let Some(edit) = by_hand(&out).map(|at| suspects[at].version) else {
            let taken_back = versions(&out);
            let now = self.take_over(text).await?;
            tracing::error!(
                version = now,
                ?taken_back,
                message,
                "HAProxy refused to load: these versions are taken back"
            );
            return Ok(Blame { taken_back, loaded: true, ..Blame::default() });
        };
        // An edit by hand is never dropped, nor what it needs.
        let dropped: Changes = guilty.iter().filter(|at| !suspects[**at].by_hand).copied().collect();
        let (mut kept, mut lacking) = (self.current.document.clone(), Changes::new());
        if !dropped.is_empty() {
            let (without, all) = self.standing(dropped).await;
            if by_hand(&all).is_none() {
                (kept, lacking) = (without, all);
            }
        }
        let taken_back = versions(&lacking);
        let left = versions(&out.difference(&lacking).copied().collect());
        self.leave(kept, text, !lacking.is_empty()).await?;
        let words = message.lines().next().unwrap_or_default();
        let told =
            format!("haproxy refuses the edit of the configuration file by hand that is version {edit}: {words}");
        tracing::error!(edit, ?taken_back, message, "HAProxy refuses an edit by hand: the file stays as it is");
        self.shared.refused_edit.store(Some(Arc::new(told)));
        Ok(Blame { taken_back, loaded: true, edit: Some(edit), left, pending: None })
    }

    /// The text that HAProxy has loaded becomes the configuration, under a new version.
    async fn take_over(&mut self, text: Document) -> Result<i64> {
        let shared = self.shared.clone();
        self.with_writer(move |writer| {
            let write = Write::new(Origin::Rollback, text).over(Over::Anything);
            let Some((snapshot, _)) = shared.write_file(writer, write)? else {
                return Err(Error::internal("the way back was not written"));
            };
            writer.keep_good(&shared.settings, &snapshot)?;
            shared.loaded.store(snapshot.clone());
            Ok(snapshot.version)
        })
        .await
    }

    /// Leaves a text in the file that HAProxy does not take, with all that differs from the loaded one as one edit by hand.
    async fn leave(&mut self, kept: Document, loaded: Document, changed: bool) -> Result<()> {
        if !changed {
            self.restore().await?;
        }
        let (shared, current) = (self.shared.clone(), self.current.clone());
        self.with_writer(move |writer| {
            let good = Hash::of(&loaded.to_bytes());
            let mut now = current;
            if changed {
                let write = Write::new(Origin::External, kept).over(Over::Anything);
                now = shared.write_file(writer, write)?.map_or(now, |(snapshot, _)| snapshot);
            }
            let loaded = Arc::new(Snapshot { document: loaded, version: writer.good.version, hash: good });
            let from = (&loaded.document, good);
            let at = (shared.settings.clock)();
            let edit = Change::between(from, (&now.document, now.hash), now.version, Origin::External, at)?;
            writer.changes.restart(&[edit])?;
            writer.journal.append(&Record::Left { version: now.version }, true)?;
            writer.keep_good(&shared.settings, &loaded)?;
            shared.loaded.store(loaded);
            Ok(())
        })
        .await
    }

    /// Puts the present text back into the file, as it was.
    async fn restore(&mut self) -> Result<()> {
        let bytes = self.current.document.to_bytes();
        let hash = self.current.hash;
        self.put(Record::OnTrial { hash }, bytes).await?;
        self.with_writer(|writer| writer.journal.append(&Record::TrialsOver, true)).await
    }
}

/// Whether HAProxy complains about other places than before.
fn is_another(before: &Refusal, now: &Refusal) -> bool {
    !now.places.is_empty() && now.places.iter().all(|place| !before.places.contains(place))
}

/// Not even the text without all changes is loaded: something else has changed.
fn innocent(refusal: &Refusal) -> String {
    format!("haproxy refuses also the configuration that it loaded before: {}", refusal.message)
}

/// After a kill while a text was on trial: puts the configuration back into the file, unless somebody has edited that
/// since. Returns what the file holds then. Blocks.
pub(super) fn recover(
    settings: &StoreSettings,
    journal: &mut Journal,
    lock: Option<&mut FileLock>,
    found: (Identity, Vec<u8>),
) -> Result<(Identity, Vec<u8>)> {
    if journal.state().on_trial.is_empty() {
        return Ok(found);
    }
    let mut now = found;
    if journal.state().on_trial.contains(&Hash::of(&now.1))
        && let Some(kept) = disk::read(&settings.on_trial())?
        && Hash::of(&kept) == journal.state().hash
    {
        tracing::info!("the last run stopped while a text was on trial: the configuration is put back");
        let keep = settings.in_place();
        let how = Exchange { mode: 0o644, steps: &Steps::NONE, keep: Some(&keep), lock };
        disk::exchange(&settings.file, &kept, how)?;
        disk::sync_folder_of(&disk::resolved(&settings.file))?;
        now = (Identity::of(&settings.file)?.unwrap_or(now.0), kept);
    }
    journal.append(&Record::TrialsOver, true)?;
    Ok(now)
}
