//! HAProxy has refused to load: finds the guilty change by real loads of texts without some of the changes, takes back that
//! one, and keeps all others.
//!
//! Meanwhile the file holds a text on trial, readers see the present one, and nobody else writes. The present text is kept
//! beside it and the journal says so: a start after a kill in the middle puts it back. An edit by hand meanwhile ends the
//! search, and is made in the present text (`rescue.rs`): then the reload is tried again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::aside;
use super::change_log::Change;
use super::crash::{self, Step};
use super::disk;
use super::external::verdict;
use super::frame::Hash;
use super::header;
use super::journal::{Origin, Record};
use super::options::Snapshot;
use super::ports::{Blame, Load, Refusal, Verdict};
use super::recovery;
use super::rescue::{self, edited};
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
    /// What we have put into the file last.
    in_file: Arc<Vec<u8>>,
    loads: &'a dyn Load,
}

/// How often an edit that falls into the way back is waited for.
const ROUNDS: u32 = 10;

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
        let (writer, texts, bytes) = blocking(move || {
            let changes = writer.changes.leading_to(snapshot.hash, &unproven)?;
            let texts = Texts::new(&snapshot.document, &changes, &writer.good.document, &unproven)?;
            let bytes = snapshot.document.to_bytes();
            aside::keep(&shared.settings, "refused", &bytes)?;
            disk::replace_durably(&shared.settings.on_trial(), &bytes, 0o600)?;
            Ok((writer, Arc::new(texts), Arc::new(bytes)))
        })
        .await?;
        let mut search = Search { shared: self, writer: Some(writer), texts, current, in_file: bytes, loads };
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
        if !self.put(bytes).await? {
            return Err(edited());
        }
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
        let checked = self.shared.check.check(&bytes, "candidate", "").await;
        !matches!(checked, Err(error) if error.reason() == Reason::ConfigurationRejected)
    }

    /// Writes the file without showing it to readers. False when somebody has edited it meanwhile: then it stays so.
    async fn put(&mut self, bytes: Vec<u8>) -> Result<bool> {
        let (shared, before, bytes) = (self.shared.clone(), self.in_file.clone(), Arc::new(bytes));
        let text = bytes.clone();
        let done = self.with_writer(move |writer| {
            if !shared.is_ours(writer, Over::Nothing)? {
                return Ok(false);
            }
            rescue::keep_trials(&shared.settings, [&before, &text])?;
            writer.journal.append(&Record::OnTrial { hash: Hash::of(&text) }, true)?;
            let done = shared.replace_file(&text, writer)?;
            crash::at(Step::OnTrial);
            Ok(done)
        });
        if !done.await? {
            return Ok(false);
        }
        self.in_file = bytes;
        Ok(true)
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
        let why = match found {
            Found::Guilty { guilty, text, out } => match self.conclude(guilty, text, out, message).await {
                // Somebody's edit came first: the search begins anew, with that.
                Err(error) if error.reason() == Reason::VersionMismatch => format!("{message} ({error})"),
                concluded => return concluded,
            },
            Found::Nobody(why) => why,
        };
        self.restore().await?;
        Ok(Blame { pending: Some(why), ..Blame::default() })
    }

    async fn conclude(&mut self, guilty: Changes, text: Document, out: Changes, message: &str) -> Result<Blame> {
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
        let words = message.lines().next().unwrap_or_default();
        let told =
            format!("haproxy refuses the edit of the configuration file by hand that is version {edit}: {words}");
        self.leave((kept, !lacking.is_empty()), text, told).await?;
        Ok(Blame { taken_back, loaded: true, edit: Some(edit), left, pending: None })
    }

    /// The text that HAProxy has loaded becomes the configuration, under a new version.
    async fn take_over(&mut self, text: Document) -> Result<i64> {
        let shared = self.shared.clone();
        self.with_writer(move |writer| {
            let (snapshot, _) = shared.write_file(writer, Write::new(Origin::Rollback, text))?.ok_or_else(edited)?;
            shared.refused_edit.store(None);
            writer.keep_good(&shared.settings, &snapshot)?;
            shared.loaded.store(snapshot.clone());
            Ok(snapshot.version)
        })
        .await
    }

    /// Leaves a text in the file that HAProxy does not take, with all that differs from the loaded one as one edit by hand,
    /// of which `told` says what HAProxy says to it.
    async fn leave(&mut self, (kept, changed): (Document, bool), loaded: Document, told: String) -> Result<()> {
        if !changed && !self.restore().await? {
            return Err(edited());
        }
        let (shared, current) = (self.shared.clone(), self.current.clone());
        self.with_writer(move |writer| {
            let good = Hash::of(&loaded.to_bytes());
            let mut now = current;
            if changed {
                let write = Write::new(Origin::External, kept);
                (now, _) = shared.write_file(writer, write)?.ok_or_else(edited)?;
            }
            let loaded = Arc::new(Snapshot { document: loaded, version: writer.good.version, hash: good });
            let from = (&loaded.document, good);
            let at = (shared.settings.clock)();
            let edit = Change::between(from, (&now.document, now.hash), now.version, Origin::External, at)?;
            writer.changes.restart(&[edit])?;
            tracing::error!("{told}: the file stays as it is");
            writer.journal.append(&Record::Left { version: now.version, words: told.clone() }, true)?;
            shared.refused_edit.store(Some(Arc::new(told)));
            writer.keep_good(&shared.settings, &loaded)?;
            shared.loaded.store(loaded);
            Ok(())
        })
        .await
    }

    /// Puts the present text back into the file. False when somebody has edited that meanwhile: then the present text is the
    /// one with the edit.
    async fn restore(&mut self) -> Result<bool> {
        for _ in 0..ROUNDS {
            let before = self.current.version;
            if self.put(self.current.document.to_bytes()).await? {
                self.with_writer(|writer| writer.journal.append(&Record::TrialsOver, true)).await?;
                return Ok(true);
            }
            self.take_edit().await?;
            if self.current.version != before {
                return Ok(false);
            }
        }
        Err(edited())
    }

    /// Makes in the present text what somebody has done to the text on trial, once that is complete.
    async fn take_edit(&mut self) -> Result<()> {
        let (shared, current, in_file) = (self.shared.clone(), self.current.clone(), self.in_file.clone());
        let found = self.with_writer(move |writer| {
            let file = disk::resolved(&shared.settings.file);
            let (identity, text) = recovery::complete(&shared.settings, &file, |_| false)?;
            // From here on it may be written over.
            writer.knows_theirs(Some(identity));
            if text == *in_file {
                return Ok(None);
            }
            let (on_trial, edited) = (Document::parse(&in_file), Document::parse(&text));
            let carried = rescue::onto(&current.document, &[on_trial], &edited);
            if carried.is_none() {
                let told = rescue::keep_unfit(&shared.settings, &text)?;
                shared.refused_edit.store(Some(Arc::new(told)));
            }
            Ok(carried)
        });
        let Some(text) = found.await? else { return Ok(()) };
        let (_, bytes) = header::stamped(&text, self.current.version, self.shared.settings.header);
        let trouble = verdict(&*self.shared.check, &bytes).await.err();
        let shared = self.shared.clone();
        let written = self.with_writer(move |writer| {
            let written = shared.write_file(writer, Write::new(Origin::External, text))?;
            if written.is_some() {
                shared.trouble.store(trouble.map(Arc::new));
            }
            Ok(written)
        });
        if let Some((snapshot, _)) = written.await? {
            tracing::warn!(
                version = snapshot.version,
                "the text on trial was edited by hand: the edit is made in the configuration"
            );
            self.in_file = Arc::new(snapshot.document.to_bytes());
            self.current = snapshot;
        }
        Ok(())
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
