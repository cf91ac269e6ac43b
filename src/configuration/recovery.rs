//! From what lies on disk to a running configuration.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::change_log::ChangeLog;
use super::disk::{self, Identity, Journal};
use super::external::{is_whole, verdict};
use super::frame::Hash;
use super::header;
use super::in_place;
use super::journal::{Mark, Record, State};
use super::lock::{FileLock, FolderLock};
use super::options::{Snapshot, StoreSettings};
use super::ports::{Check, Reload};
use super::reloads::Listener;
use super::rescue;
use super::store::{Configuration, Recent, Shared, Writer, blocking};
use super::transaction::Transactions;
use super::write::keep_beside;
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// A configuration file that is there, can be read, and is served by nobody else. Nothing has been made or written for it.
pub struct Claim {
    settings: StoreSettings,
    lock: Option<FileLock>,
    document: Document,
}

impl Claim {
    /// Looks at the file and takes its lock, unless it will never be written.
    ///
    /// `OBJECT_NOT_FOUND` when it does not exist; `FILE_UNUSABLE` when it cannot be read, or another process serves it.
    pub async fn take(settings: StoreSettings) -> Result<Self> {
        blocking(move || {
            let text = disk::read(&settings.file)?.ok_or_else(|| missing(&settings.file))?;
            let lock = if settings.read_only { None } else { Some(FileLock::take(&settings.file)?) };
            Ok(Claim { settings, lock, document: Document::parse(&text) })
        })
        .await
    }

    /// The text, as it was when it was claimed.
    pub fn document(&self) -> &Document {
        &self.document
    }
}

fn missing(file: &Path) -> Error {
    Error::new(Reason::ObjectNotFound, format!("configuration file {} does not exist", file.display()))
}

/// What was found on disk.
struct Found {
    folder: FolderLock,
    lock: Option<FileLock>,
    journal: Journal,
    identity: Option<Identity>,
    document: Document,
    bytes: Vec<u8>,
    hash: Hash,
    good: Option<Snapshot>,
}

impl Configuration {
    /// As [`Configuration::open_claimed`], with a claim of its own.
    pub async fn open(
        settings: StoreSettings,
        check: Arc<dyn Check>,
        reload: Arc<dyn Reload>,
    ) -> Result<Arc<Configuration>> {
        Configuration::open_claimed(Claim::take(settings).await?, check, reload).await
    }

    /// Reads the file, finishes or undoes what the last run was in the middle of, restores open transactions, hears of
    /// reloads from then on and asks for the one that is still to come.
    ///
    /// What stands in the file is served, also when HAProxy refuses it: see [`Configuration::trouble`]. The file itself is
    /// not written, unless half of it is ours. Fails when it cannot be read or the state folder cannot be used.
    pub async fn open_claimed(
        claim: Claim,
        check: Arc<dyn Check>,
        reload: Arc<dyn Reload>,
    ) -> Result<Arc<Configuration>> {
        let settings = claim.settings.clone();
        let found = blocking(move || find(claim)).await?;
        // A text that no reload has accepted may be anybody's.
        let proven = found.good.as_ref().is_some_and(|good| good.hash == found.hash);
        let verdict = if proven { Ok(()) } else { verdict(&*check, &found.bytes).await };
        let wanted = found.journal.state().reload_wanted.is_some() && verdict.is_ok();
        let shared = blocking(move || assemble(settings, check, reload, found, verdict, !proven)).await?;

        shared.reload.listen(Arc::new(Listener(Arc::downgrade(&shared))));
        if wanted {
            let version = shared.current.load().version;
            let id = shared.reload.request(version);
            tracing::info!(version, id, "asked again for a reload that the last run did not get to");
        }
        Ok(Arc::new(Configuration { shared, user: "".into() }))
    }
}

/// Reads everything and settles the last intent. Blocks.
fn find(claim: Claim) -> Result<Found> {
    let Claim { settings, mut lock, .. } = claim;
    disk::create_folder(&settings.state_dir)?;
    let folder = FolderLock::take(&settings.state_dir)?;
    if let Some(backups) = &settings.backups_dir {
        disk::create_folder(backups)?;
    }
    let file = disk::resolved(&settings.file);
    let path = settings.journal();
    let mut journal = Journal::load(&path)?;
    if let (Some(journal), true) = (&journal, lock.is_some()) {
        rescue::put_back(&file, journal.state())?;
    }
    sweep(&settings, &file, lock.is_some());
    if lock.is_some()
        && let Err(error) = in_place::finish(&file, &settings.in_place())
    {
        tracing::error!(%error, "a write of the last run cannot be finished: the file is served as it stands");
    }

    let known = journal.as_ref().map(|journal| journal.state().clone());
    let is_known = |hash: Hash| {
        known.as_ref().is_some_and(|state| {
            state.hash == hash
                || state.open.as_ref().is_some_and(|open| open.new_hash == hash)
                || state.on_trial.contains(&hash)
        })
    };
    let (identity, bytes) = complete(&settings, &file, is_known)?;
    let mut journal = match journal.take() {
        Some(journal) => journal,
        None => Journal::create(&path, State::fresh(header::version(&Document::parse(&bytes)), Hash::of(&bytes)))?,
    };
    let (open, found) = (journal.state().open.clone(), Hash::of(&bytes));
    if let Some(open) = open {
        let sequence = open.sequence;
        let finished = found == open.new_hash;
        tracing::info!(version = open.new_version, finished, "the last run stopped in the middle of a change");
        let (done, undone) = (Record::Done { sequence, at: (settings.clock)() }, Record::Undone { sequence });
        journal.append(if finished { &done } else { &undone }, true)?;
    }
    let (identity, bytes) = rescue::recover(&settings, &mut journal, lock.as_mut(), (identity, bytes))?;
    let (document, hash) = (Document::parse(&bytes), Hash::of(&bytes));
    let good = read_good(&settings, journal.state())?;
    Ok(Found { folder, lock, journal, identity: Some(identity), document, bytes, hash, good })
}

/// Removes what a kill has left behind: in our folder, and beside the file if nobody else may write there. Blocks.
fn sweep(settings: &StoreSettings, file: &Path, alone: bool) {
    disk::sweep(&settings.state_dir, |name| disk::is_temporary(name, ""));
    if !alone {
        return;
    }
    // The names of backups and of the last good text begin like that of the file.
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = [name(&settings.file), name(file)];
    let folders = [settings.file.parent(), file.parent(), settings.backups_dir.as_deref()];
    for folder in folders.into_iter().flatten() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        disk::sweep(folder, |found| names.iter().any(|name| disk::is_temporary(found, name)));
    }
}

/// The file once nobody writes it any more. One that is known is not waited for. Blocks.
pub(super) fn complete(
    settings: &StoreSettings,
    file: &Path,
    is_known: impl Fn(Hash) -> bool,
) -> Result<(Identity, Vec<u8>)> {
    let begin = Instant::now();
    loop {
        let read = disk::read_stable(file)?;
        let late = begin.elapsed() >= settings.unfinished;
        match read {
            Some((identity, text)) if is_known(Hash::of(&text)) => return Ok((identity, text)),
            Some((identity, text)) => {
                std::thread::sleep(settings.settle.saturating_sub(disk::at_rest(file)));
                if late || (is_whole(&text) && Identity::of(file)? == Some(identity)) {
                    return Ok((identity, text));
                }
            }
            None if late && Identity::of(file)?.is_none() => return Err(missing(&settings.file)),
            None => std::thread::sleep(settings.settle),
        }
    }
}

fn read_good(settings: &StoreSettings, state: &State) -> Result<Option<Snapshot>> {
    let Some(mark) = state.good else { return Ok(None) };
    let Some(bytes) = disk::read(&settings.last_good())? else { return Ok(None) };
    let (document, hash) = (Document::parse(&bytes), Hash::of(&bytes));
    // Another hash: the run stopped between the file and the journal. HAProxy accepted that text all the same.
    let version = if hash == mark.hash { mark.version } else { header::version(&document) };
    Ok(Some(Snapshot { document, version, hash }))
}

/// Decides what is served. `verdict` is that of HAProxy on the file, if it was `checked`. Blocks.
fn assemble(
    settings: StoreSettings,
    check: Arc<dyn Check>,
    reload: Arc<dyn Reload>,
    found: Found,
    verdict: Result<()>,
    checked: bool,
) -> Result<Arc<Shared>> {
    let Found { folder, lock, mut journal, identity, document, bytes: _, hash, good } = found;
    let state = journal.state().clone();
    let accepted = verdict.is_ok();
    let trouble = verdict.err().map(|error| {
        tracing::warn!(%error, detail = error.detail_text(), "there is trouble with the configuration file, which is \
                       served as it stands");
        Arc::new(error)
    });
    let mut current = Snapshot { document, version: state.version, hash };
    let foreign = hash != state.hash;
    if foreign {
        // What a text that was written while nothing ran says of itself may count.
        let own = header::own_version(&current.document);
        let counted = header::counted_version(&current.document);
        if settings.trust_file_version && accepted && own.is_ok() {
            current.version = counted.unwrap_or(1);
            let sequence = state.sequence;
            let fresh = State { sequence, ..State::fresh(current.version, hash) };
            journal = Journal::create(&settings.journal(), fresh)?;
        } else {
            current.version = state.next_from(counted);
            journal.append(&Record::Adopted(Mark { version: current.version, hash }), true)?;
        }
        tracing::info!(version = current.version, "took over a file that was changed while nothing ran");
    }

    let transactions = Transactions::load(&settings, &state.committed, &current)?;
    let current = Arc::new(current);
    let loaded = good.clone().map_or_else(|| current.clone(), Arc::new);
    let known = good.filter(|_| !(foreign && accepted)).map(Arc::new);
    let is_known = known.is_some();
    // Without a known one, and for a text that someone put there for HAProxy to start with, this is what to go back to.
    let good = known.unwrap_or_else(|| current.clone());
    let changes = ChangeLog::open(&settings.changes())?;
    let mut writer = Writer { journal, changes, identity, by_hand: true, good, lock, _folder: folder };
    if !is_known && accepted {
        writer.keep_good(&settings, &current)?;
    } else {
        keep_beside(&settings, &writer.good.document.to_bytes());
    }
    let refused_edit = writer.journal.state().refused_edit.clone();
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
        warned: ArcSwapOption::empty(),
        unfinished: Mutex::default(),
        checked,
        refused_edit: ArcSwapOption::from(refused_edit.map(Arc::new)),
        changes,
    }))
}
