//! Edits by hand while a text on trial is in the file (`blame.rs`): what the hand did is the difference between the two, and
//! is made in the configuration. Also after a kill in the middle.

use std::fs;
use std::path::Path;

use super::aside;
use super::carry::carried;
use super::change_log::{Change, ChangeLog};
use super::disk::{self, Exchange, Identity, Journal, Steps};
use super::exchange::Old;
use super::frame::{self, Hash};
use super::header;
use super::journal::{Mark, Origin, Record, State};
use super::lock::FileLock;
use super::options::StoreSettings;
use crate::document::Document;
use crate::error::{Error, Reason, Result};

/// The error of a write that somebody's edit came before.
pub(super) fn edited() -> Error {
    Error::new(Reason::VersionMismatch, "the configuration file was edited by someone else")
}

/// Keeps the texts that the file may hold while it holds no configuration. Blocks.
pub(super) fn keep_trials(settings: &StoreSettings, texts: [&[u8]; 2]) -> Result<()> {
    let mut bytes = Vec::new();
    for text in texts {
        frame::write(text, &mut bytes);
    }
    disk::replace_durably(&settings.trials(), &bytes, 0o600)
}

/// Makes in `present` what was done to a text on trial, the nearest of these, to become `edited`. `None` when it does not fit.
pub(super) fn onto(present: &Document, trials: &[Document], edited: &Document) -> Option<Document> {
    let nearest = trials.iter().min_by_key(|trial| header::encode_edit(trial, edited).len())?;
    carried(present, nearest, edited)
}

/// Keeps an edit that does not fit the configuration. Says what became of it. Blocks.
pub(super) fn keep_unfit(settings: &StoreSettings, text: &[u8]) -> Result<String> {
    let kept = aside::keep(settings, "edited", text)?;
    let told = format!(
        "an edit of the configuration file by hand, made while another text was on trial in it, does not fit the \
         configuration and is not in it: it is kept as {}",
        kept.display()
    );
    tracing::error!("{told}");
    Ok(told)
}

/// After a kill right behind an exchange: an edit that came out of the place of the file, and that nobody has looked at,
/// gets its name back. What took its place was not answered yet. Blocks.
pub(super) fn put_back(file: &Path, state: &State) -> Result<()> {
    let outgoing = disk::temporary(file);
    if !outgoing.try_exists().unwrap_or(false) {
        return Ok(());
    }
    let (Some(out), Some(present)) = (disk::read(&outgoing)?, disk::read(file)?) else { return Ok(()) };
    let (out, present) = (Hash::of(&out), Hash::of(&present));
    let exchanged =
        state.open.as_ref().is_some_and(|open| open.new_hash == present) || state.on_trial.contains(&present);
    let known = out == state.hash || state.on_trial.contains(&out);
    if exchanged && !known {
        fs::rename(&outgoing, file).map_err(|error| disk::failed("write", file, &error))?;
        tracing::warn!(path = %file.display(), "an edit by hand fell into the end of the last run: it is put back");
    }
    Ok(())
}

/// After a kill while a text was on trial: puts the configuration back into the file, with what somebody has done to that
/// text since. Returns what the file holds then. Blocks.
pub(super) fn recover(
    settings: &StoreSettings,
    journal: &mut Journal,
    lock: Option<&mut FileLock>,
    found: (Identity, Vec<u8>),
) -> Result<(Identity, Vec<u8>)> {
    let state = journal.state();
    if state.on_trial.is_empty() {
        return Ok(found);
    }
    let hash = Hash::of(&found.1);
    let kept = disk::read(&settings.on_trial())?.filter(|kept| Hash::of(kept) == state.hash);
    let now = match kept {
        Some(kept) if state.on_trial.contains(&hash) => {
            tracing::info!("the last run stopped while a text was on trial: the configuration is put back");
            let identity = write(settings, lock, &kept, Old::Known(Some(found.0)))?;
            (identity, kept)
        }
        Some(kept) if state.hash != hash => recover_edit(settings, journal, lock, (found, kept))?,
        _ => found,
    };
    journal.append(&Record::TrialsOver, true)?;
    Ok(now)
}

fn recover_edit(
    settings: &StoreSettings,
    journal: &mut Journal,
    lock: Option<&mut FileLock>,
    ((identity, edited), kept): ((Identity, Vec<u8>), Vec<u8>),
) -> Result<(Identity, Vec<u8>)> {
    let trials = disk::read(&settings.trials())?.unwrap_or_default();
    let trials: Vec<Document> = frame::read(&trials).0.into_iter().map(Document::parse).collect();
    let present = Document::parse(&kept);
    let state = journal.state();
    let Some(text) = onto(&present, &trials, &Document::parse(&edited)) else {
        keep_unfit(settings, &edited)?;
        let identity = write(settings, lock, &kept, Old::Theirs(identity))?;
        return Ok((identity, kept));
    };
    let version = state.next_version();
    let (document, bytes) = header::stamped(&text, version, settings.header);
    let hash = Hash::of(&bytes);
    let change =
        Change::between((&present, state.hash), (&document, hash), version, Origin::External, (settings.clock)())?;
    ChangeLog::open(&settings.changes())?.append(&change)?;
    let identity = write(settings, lock, &bytes, Old::Theirs(identity))?;
    // Only now: should it not come to this, the next start finds the same.
    journal.append(&Record::Adopted(Mark { version, hash }), true)?;
    tracing::warn!(version, "the text that was on trial was edited by hand: the edit is made in the configuration");
    Ok((identity, bytes))
}

fn write(settings: &StoreSettings, lock: Option<&mut FileLock>, text: &[u8], old: Old) -> Result<Identity> {
    let keep = settings.in_place();
    let how = Exchange { mode: 0o644, old, steps: &Steps::NONE, keep: Some(&keep), lock };
    let being_edited = || {
        let text = format!("{} is being edited by someone else: start again", settings.file.display());
        Error::new(Reason::FileUnusable, text)
    };
    let identity = disk::exchange(&settings.file, text, how)?.ok_or_else(being_edited)?;
    disk::sync_folder_of(&disk::resolved(&settings.file))?;
    Ok(identity)
}
