//! From what lies on disk to a running configuration.

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::disk::{self, FolderLock, Identity, Journal, Steps};
use super::frame::Hash;
use super::header;
use super::journal::{Mark, Record, State};
use super::options::{Snapshot, StoreSettings};
use super::ports::{Check, Reload};
use super::reloads::Listener;
use super::store::{Configuration, Recent, Shared, Writer, blocking};
use super::transaction::Transactions;
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// What was found on disk.
struct Found {
    folder: FolderLock,
    journal: Journal,
    identity: Option<Identity>,
    document: Document,
    bytes: Vec<u8>,
    hash: Hash,
    good: Option<Snapshot>,
}

impl Configuration {
    /// Reads the file, finishes or undoes what the last run was in the middle of, restores open transactions, hears of
    /// reloads from then on and asks for the one that is still to come.
    ///
    /// The file itself is not written. Fails when it cannot be read or the state folder cannot be used.
    pub async fn open(
        settings: StoreSettings,
        check: Arc<dyn Check>,
        reload: Arc<dyn Reload>,
    ) -> Result<Arc<Configuration>> {
        let found = {
            let settings = settings.clone();
            blocking(move || find(&settings)).await?
        };
        // A text that the journal does not know was written while nothing ran.
        let foreign = found.hash != found.journal.state().hash;
        let verdict = if foreign { check.check(&found.bytes, "candidate").await } else { Ok(()) };
        let wanted = found.journal.state().reload_wanted.is_some();
        let shared = blocking(move || assemble(settings, check, reload, found, verdict)).await?;

        shared.reload.listen(Arc::new(Listener(Arc::downgrade(&shared))));
        if wanted {
            let version = shared.current.load().version;
            let id = shared.reload.request(version);
            tracing::info!(version, id, "asked again for a reload that the last run did not get to");
        }
        Ok(Arc::new(Configuration { shared }))
    }
}

/// Reads everything and settles the last intent. Blocks.
fn find(settings: &StoreSettings) -> Result<Found> {
    disk::create_folder(&settings.state_dir)?;
    let folder = FolderLock::take(&settings.state_dir)?;
    if let Some(backups) = &settings.backups_dir {
        disk::create_folder(backups)?;
    }
    let file = disk::resolved(&settings.file);
    for path in [&file, &settings.journal(), &settings.last_good(), &settings.last_good_beside()] {
        disk::remove(&disk::temporary(path))?;
    }

    let identity = Identity::of(&file)?;
    let Some(bytes) = disk::read(&file)? else {
        let text = format!("configuration file {} does not exist", settings.file.display());
        return Err(Error::new(Reason::ObjectNotFound, text));
    };
    let document = Document::parse(&bytes);
    let hash = Hash::of(&bytes);
    let path = settings.journal();
    let mut journal = match Journal::load(&path)? {
        Some(journal) => journal,
        None => Journal::create(&path, State::fresh(header::version(&document), hash))?,
    };
    if let Some(open) = journal.state().open.clone() {
        let sequence = open.sequence;
        let finished = hash == open.new_hash;
        tracing::info!(version = open.new_version, finished, "the last run stopped in the middle of a change");
        journal.append(&if finished { Record::Done { sequence } } else { Record::Undone { sequence } }, true)?;
    }
    let good = read_good(settings, journal.state())?;
    Ok(Found { folder, journal, identity, document, bytes, hash, good })
}

fn read_good(settings: &StoreSettings, state: &State) -> Result<Option<Snapshot>> {
    let Some(mark) = state.good else { return Ok(None) };
    let Some(bytes) = disk::read(&settings.last_good())? else { return Ok(None) };
    let (document, hash) = (Document::parse(&bytes), Hash::of(&bytes));
    // Another hash: the run stopped between the file and the journal. HAProxy accepted that text all the same.
    let version = if hash == mark.hash { mark.version } else { header::version(&document) };
    Ok(Some(Snapshot { document, version, hash }))
}

/// Decides what is served. `verdict` is that of the check on a text that the journal does not know. Blocks.
fn assemble(
    settings: StoreSettings,
    check: Arc<dyn Check>,
    reload: Arc<dyn Reload>,
    found: Found,
    verdict: Result<()>,
) -> Result<Arc<Shared>> {
    let Found { folder, mut journal, mut identity, document, bytes: _, hash, good } = found;
    let state = journal.state().clone();
    let mut trouble = None;
    let mut refused = None;
    let mut current = Snapshot { document, version: state.version, hash };
    let mut adopted = false;
    if hash != state.hash {
        match verdict {
            Err(error) if error.reason() == Reason::ConfigurationRejected => {
                tracing::warn!(%error, "the file was changed while nothing ran, and HAProxy refuses it");
                trouble = Some(Arc::new(error));
                match &good {
                    Some(good) if good.hash == state.hash => {
                        current = Snapshot { version: state.version, ..good.clone() };
                        refused = identity.take();
                    }
                    // The text that belongs to the journal is lost: what is there is all there is.
                    _ => {
                        current.version = state.next_version();
                        journal.append(&Record::Adopted(Mark { version: current.version, hash }), true)?;
                    }
                }
            }
            verdict => {
                if let Err(error) = verdict {
                    tracing::warn!(%error, "the file was changed while nothing ran, and cannot be checked");
                }
                let own = header::version(&current.document);
                if settings.trust_file_version {
                    current.version = own;
                    let sequence = state.sequence;
                    journal = Journal::create(&settings.journal(), State { sequence, ..State::fresh(own, hash) })?;
                } else {
                    current.version = state.next_version().max(own);
                    journal.append(&Record::Adopted(Mark { version: current.version, hash }), true)?;
                }
                tracing::info!(version = current.version, "took over a file that was changed while nothing ran");
                adopted = true;
            }
        }
    }

    let transactions = Transactions::load(&settings, &state.committed, &current)?;
    let current = Arc::new(current);
    let loaded = good.clone().map_or_else(|| current.clone(), Arc::new);
    let known = good.filter(|_| !adopted).map(Arc::new);
    let is_known = known.is_some();
    // Without a known one, and for a text that someone put there for HAProxy to start with, this is what to go back to.
    let good = known.unwrap_or_else(|| current.clone());
    let mut writer = Writer { journal, identity, refused, good, _folder: folder };
    if !is_known && trouble.is_none() {
        writer.keep_good(&settings, &current)?;
    } else if settings.last_good_beside {
        let bytes = writer.good.document.to_bytes();
        disk::replace(&settings.last_good_beside(), &bytes, disk::mode_of(&settings.file), &Steps::NONE)?;
    }
    let (changes, _) = tokio::sync::watch::channel(current.version);
    let mut recent = Recent::default();
    recent.push(current.clone());
    Ok(Arc::new(Shared {
        settings,
        check,
        reload,
        apply: std::sync::OnceLock::new(),
        current: ArcSwap::new(current),
        loaded: ArcSwap::new(loaded),
        writer: Arc::new(tokio::sync::Mutex::new(writer)),
        transactions,
        recent: Mutex::new(recent),
        trouble: ArcSwapOption::new(trouble),
        changes,
    }))
}
