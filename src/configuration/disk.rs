//! Blocking file work: replace a file in one step, append and sync, tell one state of a file from another.
//!
//! Everything here blocks and is called from a blocking task only.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::crash::{self, Step};
use super::exchange::{self, Old};
use super::in_place;
use super::journal::{self, Record, State};
use super::lock::FileLock;
use crate::error::{Error, Result};

/// How the temporary name of a file ends.
const TEMPORARY: &str = ".backstay-tmp";

/// Size in bytes above which a journal is written anew, holding its sum only.
const JOURNAL_LIMIT: u64 = if cfg!(test) { 8 * 1024 } else { 256 * 1024 };

/// Size in bytes up to which files are read. A text that is larger comes over no interface of ours.
const LARGEST: u64 = 1 << 30;

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Identity {
    /// The present identity of a file; `None` when there is none.
    pub(super) fn of(path: &Path) -> Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(data) => Ok(Some(Identity::from(&data))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path, &error)),
        }
    }

    /// The present identity of an open file, whatever has its name by now.
    pub(super) fn of_open(file: &File) -> io::Result<Self> {
        file.metadata().map(|data| Identity::from(&data))
    }
}

impl From<&fs::Metadata> for Identity {
    fn from(data: &fs::Metadata) -> Self {
        Identity {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
        }
    }
}

/// The error of a file.
pub(super) fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::of_file(what, path, error)
}

/// The whole file; `None` when there is none. Fails with `FILE_UNUSABLE` for what is no regular file or too large: others
/// may make wait, or have no end.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_regular(path) {
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// The text of a file, and its identity before it was read.
fn read_regular(path: &Path) -> io::Result<(Identity, Vec<u8>)> {
    // First: some devices do something when they are opened.
    is_readable(&fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let data = file.metadata()?;
    is_readable(&data)?;
    let mut bytes = Vec::with_capacity(data.len() as usize);
    // Some files tell no size, and some grow.
    if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((Identity::from(&data), bytes))
}

fn is_readable(data: &fs::Metadata) -> io::Result<()> {
    if data.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !data.is_file() {
        return Err(io::ErrorKind::NotSeekable.into());
    }
    if data.len() > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

/// Where the bytes of a path really lie, links followed; the path itself when it does not exist yet.
pub(super) fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The temporary name beside a file. It is always the same one, so that leftovers are found at start.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    path.with_file_name(name)
}

/// Permission bits of a file, so that copies of it are no more open than it is; 0644 when there is none.
pub(super) fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).map_or(0o644, |data| data.mode() & 0o777)
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &error)),
        _ => Ok(()),
    }
}

/// How long a file has been as it is; nothing, when that cannot be told.
pub(super) fn at_rest(path: &Path) -> Duration {
    let Ok(data) = fs::metadata(path) else { return Duration::ZERO };
    // Not the time of its content, which who writes it may set.
    let changed = u64::try_from(data.ctime()).ok().zip(u32::try_from(data.ctime_nsec()).ok());
    let changed = changed.map(|(seconds, nanos)| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
    changed.and_then(|changed| changed.elapsed().ok()).unwrap_or_default()
}

/// Creates a folder with mode 0750, and those above it.
pub(super) fn create_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(|error| failed("create", path, &error))
}

/// Makes the names in a file's folder durable.
pub(super) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync the folder of", path, &error))
}

/// Steps of a replacement at which a test may stop the process.
pub(super) struct Steps {
    /// After the bytes are in the temporary file.
    pub(super) written: Option<Step>,
    /// After they are synced.
    pub(super) synced: Option<Step>,
    /// After the rename.
    pub(super) renamed: Option<Step>,
}

impl Steps {
    /// No stops.
    pub(super) const NONE: Steps = Steps { written: None, synced: None, renamed: None };
}

/// How a file is replaced that is not ours alone.
pub(super) struct Exchange<'a> {
    /// Mode of a new file.
    pub(super) mode: u32,
    /// What may be replaced.
    pub(super) old: Old,
    /// Stops.
    pub(super) steps: &'a Steps,
    /// Where old and new text are safe while a file that cannot be exchanged is written in place.
    pub(super) keep: Option<&'a Path>,
    /// Holds the new file as it holds the old one.
    pub(super) lock: Option<&'a mut FileLock>,
}

/// Puts `bytes` in place of a file in one step: readers see the old file or the new one, whole.
///
/// Mode and owner of the file that is there are kept; a new one gets `mode`. Links are followed. On an error the old
/// file is untouched; the folder is *not* synced yet.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32, steps: &Steps) -> Result<()> {
    exchange(path, bytes, Exchange { mode, old: Old::Any, steps, keep: None, lock: None }).map(drop)
}

/// As [`replace`]; but a file that cannot be exchanged is written in place, if there is a place to keep its text meanwhile.
/// Returns what the new file is known by; `None` when another file stands there than the one that may be replaced.
pub(super) fn exchange(path: &Path, bytes: &[u8], how: Exchange<'_>) -> Result<Option<Identity>> {
    let path = resolved(path);
    let temporary = temporary(&path);
    let outcome = write_temporary(&path, &temporary, bytes, &how).and_then(|file| {
        if let Some(lock) = how.lock {
            lock.add(&file)?;
        }
        // Before it has the name: what has the name later may be an edit.
        let identity = Identity::of_open(&file)?;
        Ok(exchange::put(&temporary, &path, how.old)?.then_some(identity))
    });
    if let Ok(Some(identity)) = outcome {
        how.steps.renamed.into_iter().for_each(crash::at);
        return Ok(Some(identity));
    }
    // In a folder that cannot be written there is none.
    drop(fs::remove_file(&temporary));
    let Err(error) = outcome else { return Ok(None) };
    match how.keep {
        Some(keep) if in_place::is_needed(&error) && path.is_file() => in_place::write(&path, bytes, how.old, keep),
        // What stands where the new file should come is what is in the way.
        _ => Err(failed("write", if temporary.try_exists().unwrap_or(false) { &temporary } else { &path }, &error)),
    }
}

/// As [`replace`], and the new file survives a power cut. For files besides the configuration. Blocks.
pub fn replace_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    replace(path, bytes, mode, &Steps::NONE)?;
    sync_folder_of(&resolved(path))
}

/// As [`replace_durably`]; but a file that cannot be exchanged is written in place, its text kept at `keep` in a folder of
/// ours meanwhile. Blocks.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32, keep: &Path) -> Result<()> {
    exchange(path, bytes, Exchange { mode, old: Old::Any, steps: &Steps::NONE, keep: Some(keep), lock: None })?;
    sync_folder_of(&resolved(path))
}

/// Ends what a kill cut off in [`write_durably`], and removes what it left. For the start. Blocks.
pub fn finish_write(path: &Path, keep: &Path) -> Result<()> {
    let path = resolved(path);
    in_place::finish(&path, keep)?;
    let leftover = temporary(&path);
    // In a folder that cannot be written, removing fails also where there is nothing.
    if leftover.try_exists().unwrap_or(false) { remove(&leftover) } else { Ok(()) }
}

/// Removes files that a kill has left behind in a folder, as far as we may.
pub(super) fn sweep(folder: &Path, is_leftover: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&is_leftover)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "what an earlier run left behind cannot be removed");
        }
    }
}

/// Whether a name is the temporary one of a file whose name begins like this.
pub(super) fn is_temporary(name: &str, of: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| rest.starts_with(of)) && name.ends_with(TEMPORARY)
}

fn write_temporary(path: &Path, temporary: &Path, bytes: &[u8], how: &Exchange<'_>) -> io::Result<File> {
    // Nobody else may open it before it has the owner and the mode of the file in whose place it comes.
    let new = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(temporary);
    let mut file = match new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(temporary)?;
            new()?
        }
        opened => opened?,
    };
    let old = fs::metadata(path).ok();
    if let Some(old) = &old {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            let owner = Some(rustix::fs::Uid::from_raw(old.uid()));
            let group = Some(rustix::fs::Gid::from_raw(old.gid()));
            if let Err(error) = rustix::fs::fchown(&file, owner, group) {
                // Only root may give files away; the file then belongs to us, as with any editor.
                tracing::debug!(path = %path.display(), %error, "cannot keep the owner of the file");
            }
        }
    }
    file.set_permissions(fs::Permissions::from_mode(old.map_or(how.mode, |old| old.mode() & 0o7777)))?;
    file.write_all(bytes)?;
    how.steps.written.into_iter().for_each(crash::at);
    file.sync_all()?;
    how.steps.synced.into_iter().for_each(crash::at);
    Ok(file)
}

/// A file that only grows, by whole records.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Appender {
    /// Opens a file to append after its first `length` bytes; what comes after them is cut off.
    pub(super) fn open(path: &Path, length: u64) -> Result<Self> {
        let fail = |error: &io::Error| failed("open", path, error);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|error| fail(&error))?;
        if file.metadata().map_err(|error| fail(&error))?.len() > length {
            file.set_len(length).map_err(|error| fail(&error))?;
        }
        Ok(Appender { file, path: path.to_owned(), length })
    }

    /// Appends bytes; after an error the file is as it was before.
    pub(super) fn append(&mut self, bytes: &[u8], sync: bool, steps: (Option<Step>, Option<Step>)) -> Result<()> {
        let mut outcome = self.file.write_all(bytes);
        if outcome.is_ok() {
            steps.0.into_iter().for_each(crash::at);
            if sync {
                outcome = self.file.sync_data();
                steps.1.into_iter().for_each(crash::at);
            }
        }
        match outcome {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                if let Err(error) = self.file.set_len(self.length) {
                    tracing::error!(path = %self.path.display(), %error, "cannot cut off a record that failed");
                }
                Err(failed("append to", &self.path, &error))
            }
        }
    }

    /// Bytes so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

/// The journal: its file and what it adds up to.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Appender,
    state: State,
    /// Records that the state has already, and the file not yet: there was no room for them.
    owed: Vec<u8>,
}

impl Journal {
    /// Reads a journal; `None` when there is none that says anything.
    pub(super) fn load(path: &Path) -> Result<Option<Self>> {
        let bytes = read(path)?.unwrap_or_default();
        let (state, held) = journal::replay(&bytes);
        let Some(state) = state else { return Ok(None) };
        if held < bytes.len() {
            tracing::warn!(path = %path.display(), lost = bytes.len() - held, "the journal ends in a torn record");
        }
        let file = Appender::open(path, held as u64)?;
        Ok(Some(Journal { path: path.to_owned(), file, state, owed: Vec::new() }))
    }

    /// Starts a journal with this state, in place of one that is there.
    pub(super) fn create(path: &Path, state: State) -> Result<Self> {
        let bytes = journal::encode(&Record::Checkpoint(Box::new(state.clone())))?;
        let steps = Steps { written: None, synced: Some(Step::CompactWritten), renamed: Some(Step::CompactRenamed) };
        replace(path, &bytes, 0o600, &steps)?;
        sync_folder_of(path)?;
        let file = Appender::open(path, bytes.len() as u64)?;
        Ok(Journal { path: path.to_owned(), file, state, owed: Vec::new() })
    }

    /// What it adds up to.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Appends a record. Without `sync` it becomes durable with the next one that is synced.
    pub(super) fn append(&mut self, record: &Record, sync: bool) -> Result<()> {
        let steps = match record {
            Record::Intent(_) => (Some(Step::IntentWritten), Some(Step::IntentSynced)),
            _ => (None, None),
        };
        let bytes = [self.owed.clone(), journal::encode(record)?].concat();
        let written = self.file.append(&bytes, sync, steps);
        // The end of an intent is a fact: the next start comes to the same result without its record.
        let is_end = matches!(record, Record::Done { .. } | Record::Undone { .. });
        if written.is_ok() || is_end {
            self.state.apply(record);
        }
        if written.is_ok() {
            self.owed.clear();
        } else if is_end {
            self.owed = bytes;
        }
        written
    }

    /// Writes the journal anew when it has grown long. `committed` transactions are forgotten: their logs are gone.
    pub(super) fn compact(&mut self) -> Result<()> {
        if self.file.length() < JOURNAL_LIMIT {
            return Ok(());
        }
        let mut state = self.state.clone();
        state.committed.clear();
        *self = Journal::create(&self.path, state)?;
        Ok(())
    }
}

/// Reads a file to its end if it stays the same meanwhile; `None` when it changes or is gone.
pub(super) fn read_stable(path: &Path) -> Result<Option<(Identity, Vec<u8>)>> {
    let (before, bytes) = match read_regular(path) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, &error)),
    };
    let after = Identity::of(path)?;
    Ok((after == Some(before) && bytes.len() as u64 == before.length).then_some((before, bytes)))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Hash;
    use super::super::journal::{Intent, Origin};
    use super::*;
    use crate::error::Reason;

    #[test]
    fn the_end_of_a_change_is_remembered_until_there_is_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let hash = |version: i64| Hash::of(&version.to_le_bytes());
        let intent = |sequence: u64, old: i64| {
            Record::Intent(Intent {
                sequence,
                origin: Origin::Change,
                old_version: old,
                new_version: old + 1,
                old_hash: hash(old),
                new_hash: hash(old + 1),
                reload: false,
                renumber: false,
                transaction: None,
            })
        };
        let mut journal = Journal::create(&path, State::fresh(1, hash(1))).unwrap();
        journal.append(&intent(1, 1), true).unwrap();
        let file = std::mem::replace(&mut journal.file, Appender::open(Path::new("/dev/full"), 0).unwrap());
        let error = journal.append(&Record::Done { sequence: 1, at: 0 }, false).unwrap_err();
        assert_eq!(error.reason(), Reason::DiskFull);
        assert_eq!((journal.state().version, journal.state().hash), (2, hash(2)), "the change is there all the same");
        journal.append(&intent(2, 2), true).unwrap_err();
        assert_eq!(journal.state().version, 2);
        journal.file = file;
        journal.append(&intent(2, 2), true).unwrap();
        journal.append(&Record::Undone { sequence: 2 }, true).unwrap();
        assert_eq!(Journal::load(&path).unwrap().unwrap().state(), journal.state());
        assert_eq!(journal.state().version, 2);
    }
}
