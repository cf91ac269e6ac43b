//! Locks that keep two processes from working on the same files. The kernel frees them at the end of the process, however
//! that comes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, OFlags};

use super::disk::failed;
use crate::error::{Error, Reason, Result};

/// How often, and how long each time, a process that is on its way out is waited for: two seconds in all.
const TRIES: u32 = if cfg!(test) { 4 } else { 40 };
const PAUSE: Duration = Duration::from_millis(50);

/// The byte of the configuration file that is locked. No file is that long, so that nobody else locks it.
const BYTE: i64 = 1 << 62;

/// Holds a state folder for one process.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, waiting for a process that is on its way out.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("open", &path, &error))?;
        for _ in 0..TRIES {
            if exclusive(&file).map_err(|error| failed("lock", &path, &error))? {
                return Ok(FolderLock { _file: file });
            }
            std::thread::sleep(PAUSE);
        }
        let text = format!("another process uses the state folder {}", folder.display());
        Err(Error::new(Reason::FileUnusable, text))
    }
}

/// Holds the configuration file for one process that may change it.
///
/// The lock lies on the file itself, so that it holds through links and mounts, and needs nothing beside the file. A file
/// that takes the place of another one is locked before, or with [`FileLock::follow`] when someone else put it there.
#[derive(Debug)]
pub(super) struct FileLock {
    path: PathBuf,
    held: Vec<Held>,
}

/// A file that is locked, or cannot be.
#[derive(Debug)]
struct Held {
    _file: Option<File>,
    /// Device and number of the file.
    place: (u64, u64),
}

impl FileLock {
    /// Takes a file, waiting for a process that is on its way out. One that does not exist is taken when it does.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let mut lock = FileLock { path: path.to_owned(), held: Vec::new() };
        for _ in 0..TRIES {
            if lock.try_follow()? {
                return Ok(lock);
            }
            std::thread::sleep(PAUSE);
        }
        Err(lock.taken())
    }

    /// Holds also a new file that is about to take the place; nobody else knows it yet.
    pub(super) fn add(&mut self, file: &File) -> io::Result<()> {
        let file = file.try_clone()?;
        // Where there are no locks, that was told at the start.
        let locked = byte_of(&file).is_ok_and(|own| own);
        self.held.push(Held { place: place(&file.metadata()?), _file: locked.then_some(file) });
        Ok(())
    }

    /// Holds the file that has the name now, and no other. Fails when another process does.
    pub(super) fn follow(&mut self) -> Result<()> {
        if self.try_follow()? { Ok(()) } else { Err(self.taken()) }
    }

    fn try_follow(&mut self) -> Result<bool> {
        let present = match fs::metadata(&self.path) {
            Ok(data) => place(&data),
            // What is gone, or cannot be looked at, is for those to tell who read it.
            Err(_) => return Ok(true),
        };
        if self.held.iter().any(|held| held.place == present) {
            self.held.retain(|held| held.place == present);
            return Ok(true);
        }
        // First: what is no longer there need not be held, and a file system may have numbered the same file anew.
        self.held.clear();
        let Some(held) = hold(&self.path).map_err(|error| failed("lock", &self.path, &error))? else {
            return Ok(false);
        };
        self.held = vec![held];
        Ok(true)
    }

    fn taken(&self) -> Error {
        let text = format!("another backstay manages {}: one file has one server", self.path.display());
        Error::new(Reason::FileUnusable, text)
    }
}

/// Locks the file of a name; `None` when another process holds it.
fn hold(path: &Path) -> io::Result<Option<Held>> {
    let data = fs::metadata(path)?;
    if !data.is_file() {
        // A folder or a device: who reads it says so.
        return Ok(Some(Held { _file: None, place: place(&data) }));
    }
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let (file, locked) = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => {
            let locked = byte_of(&file);
            (file, locked)
        }
        // It can only be exchanged for another one, which is ours to write then.
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            let file = File::open(path)?;
            let locked = exclusive(&file);
            (file, locked)
        }
        // Who reads it says what is wrong with it.
        Err(_) => return Ok(Some(Held { _file: None, place: place(&data) })),
    };
    let place = place(&file.metadata()?);
    match locked {
        Ok(true) => Ok(Some(Held { _file: Some(file), place })),
        Ok(false) => Ok(None),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file system has no locks: nothing keeps a second \
                            server from the same file");
            Ok(Some(Held { _file: None, place }))
        }
    }
}

/// Locks our byte of a file that is open for writing; false when another process holds it.
///
/// Such a lock belongs to the open file, as that of `flock` does, but does not stand in the way of scripts that use that.
fn byte_of(file: &File) -> io::Result<bool> {
    let wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: BYTE,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&wanted)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Locks a whole file, however it is open; false when another process holds it.
fn exclusive(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn place(data: &fs::Metadata) -> (u64, u64) {
    (data.dev(), data.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(path: &Path) -> bool {
        FileLock { path: path.to_owned(), held: Vec::new() }.try_follow().unwrap()
    }

    #[test]
    fn a_file_has_one_holder_through_links_and_exchanges() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link, next) = (folder.path().join("f"), folder.path().join("link"), folder.path().join("next"));
        fs::write(&path, "a").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut lock = FileLock::take(&path).unwrap();
        assert!(!other(&path) && !other(&link));
        // Reading and closing the file, and a script with flock, change nothing.
        drop(fs::read(&path).unwrap());
        assert!(exclusive(&File::open(&path).unwrap()).unwrap());
        assert!(!other(&path));

        // Our own exchange: no moment without the lock.
        let new = File::create(&next).unwrap();
        lock.add(&new).unwrap();
        fs::rename(&next, &path).unwrap();
        assert!(!other(&path));
        lock.follow().unwrap();
        assert!(!other(&path) && lock.held.len() == 1);

        // Someone else's: locked when it is seen.
        fs::write(&next, "b").unwrap();
        fs::rename(&next, &path).unwrap();
        lock.follow().unwrap();
        assert!(!other(&link));
        fs::remove_file(&path).unwrap();
        lock.follow().unwrap();
        fs::write(&path, "c").unwrap();
        let thief = FileLock::take(&path).unwrap();
        assert!(lock.follow().unwrap_err().message().contains("another backstay"));
        drop(thief);
        lock.follow().unwrap();
        drop(lock);
        assert!(other(&path), "freed with its holder");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing lies about");
    }
}
