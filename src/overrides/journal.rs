//! The journal of overrides on disk, mode 0600: every record is in it before its writer gets an answer.
//!
//! A record that was appended survives the end of this process, whatever ends it. A power cut may take the last 100 ms:
//! one sync for each write would cost more than the write.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::state::{self, Begun, Record, State};
use crate::configuration::replace_durably;
use crate::error::{Error, Reason, Result};

/// Bytes that a journal may have beyond twice its shortest form.
const SLACK: u64 = if cfg!(test) { 4 * 1024 } else { 256 * 1024 };

/// Values of writes whose outcome is not known yet. While HAProxy is away, each call that fails may leave some.
const IN_DOUBT: usize = if cfg!(test) { 4 } else { 200_000 };

/// The journal and what it adds up to.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Its length when it was written anew.
    shortest: u64,
    unsynced: bool,
    state: State,
}

impl Journal {
    /// Opens a journal, or makes one. A torn record at its end is cut off. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", path, &error)),
        };
        let (state, held) = state::replay(&bytes);
        if held < bytes.len() {
            tracing::warn!(path = %path.display(), lost = bytes.len() - held, "the journal ends in a torn record");
        }
        let file = append_to(path)?;
        file.set_len(held as u64).map_err(|error| failed("cut", path, &error))?;
        let shortest = state.encode()?.len() as u64;
        Ok(Journal { path: path.to_owned(), file, length: held as u64, shortest, unsynced: false, state })
    }

    /// What it adds up to.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Appends records, all or none.
    pub(super) fn append(&mut self, records: Vec<Record>) -> Result<()> {
        let mut bytes = Vec::new();
        for record in &records {
            state::encode(record, &mut bytes)?;
        }
        if let Err(error) = self.file.write_all(&bytes) {
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!(path = %self.path.display(), %error, "cannot cut off a record that failed");
            }
            return Err(failed("append to", &self.path, &error));
        }
        self.length += bytes.len() as u64;
        self.unsynced = true;
        for record in records {
            self.state.apply(record);
        }
        Ok(())
    }

    /// Appends that a write begins. Returns its number. `OVERLOADED` when the outcome of very many is not known yet.
    pub(super) fn begin(&mut self, write: Begun) -> Result<u64> {
        let in_doubt: usize = self.state.begun().values().map(|begun| begun.left.len().max(1)).sum();
        if in_doubt >= IN_DOUBT {
            let message = "too many changes wait for haproxy to say whether it made them; call again when it answers";
            return Err(Error::new(Reason::Overloaded, message).with("waiting", in_doubt));
        }
        let number = self.state.begun().last_key_value().map_or(1, |(last, _)| last + 1);
        self.append(vec![Record::Begun { number, write }])?;
        Ok(number)
    }

    /// Forgets what has been in its file for long, and writes the journal anew when most of it is of no account. Returns
    /// the file if it is still to be synced, which needs no lock on the journal. Blocks when it is written anew.
    pub(super) fn tidy(&mut self, now: i64) -> Result<Option<File>> {
        if !std::mem::take(&mut self.unsynced) {
            return Ok(None);
        }
        self.state.expire(now);
        if self.length <= 2 * self.shortest + SLACK {
            return self.file.try_clone().map(Some).map_err(|error| failed("sync", &self.path, &error));
        }
        let bytes = self.state.encode()?;
        replace_durably(&self.path, &bytes, 0o600)?;
        self.file = append_to(&self.path)?;
        (self.length, self.shortest) = (bytes.len() as u64, bytes.len() as u64);
        Ok(None)
    }
}

fn append_to(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| failed("open", path, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::state::{Override, Target};
    use super::*;

    fn put(key: &str, value: &str) -> Record {
        Record::Put(Override {
            target: Target::MapEntry { map: "m".into(), key: key.into() },
            value: Some(value.into()),
            base: None,
            since: 1,
            by: "admin".into(),
            filed: None,
        })
    }

    #[test]
    fn records_survive_and_a_torn_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overrides");
        let mut journal = Journal::open(&path).unwrap();
        journal.append(vec![put("a", "1"), put("b", "2")]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let state = journal.state().clone();
        let whole = std::fs::metadata(&path).unwrap().len();
        journal.append(vec![put("c", "3")]).unwrap();
        drop(journal);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole + 5).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.state(), std::fs::metadata(&path).unwrap().len()), (&state, whole));
        journal.append(vec![put("d", "4")]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().state(), journal.state());
    }

    #[test]
    fn no_more_is_in_doubt_than_there_is_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overrides");
        let mut journal = Journal::open(&path).unwrap();
        let Record::Put(found) = put("a", "1") else { panic!("a value") };
        let three = || Begun { left: vec![found.clone(); 3], ours: false, batch: None };
        let first = journal.begin(three()).unwrap();
        journal.begin(three()).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(journal.begin(three()).unwrap_err().reason(), Reason::Overloaded);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length, "nothing is written for it");
        journal.append(vec![Record::Ended { number: first, made: false }]).unwrap();
        journal.begin(three()).unwrap();
    }

    #[test]
    fn it_stays_short_however_often_the_same_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overrides");
        let mut journal = Journal::open(&path).unwrap();
        for n in 0..1000 {
            journal.append(vec![put("a", &n.to_string())]).unwrap();
            journal.tidy(2).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() < 2 * SLACK);
        }
        let again = Journal::open(&path).unwrap();
        assert_eq!(again.state(), journal.state());
        assert_eq!(again.state().iter().count(), 1);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(journal.tidy(2).unwrap().is_none(), "nothing to sync");
    }
}
