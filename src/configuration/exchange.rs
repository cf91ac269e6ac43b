//! A new file takes the place of an old one, but never that of a file that nobody has looked at. Blocks.
//!
//! Where the file system can, both change places in one step, and what came out is looked at: an edit by hand that fell
//! into the write is put back. Elsewhere the old file is looked at right before.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::crash::{self, Step};
use super::disk::Identity;

/// A process that begins shows for a moment what its parent has open.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(10);

/// Which file may be replaced.
#[derive(Debug, Clone, Copy)]
pub(super) enum Old {
    /// Any, or none.
    Any,
    /// This one, or only none.
    Known(Option<Identity>),
    /// This one, which others wrote, if they are done with it.
    Theirs(Identity),
}

impl Old {
    /// Whether a file of this identity may be replaced.
    pub(super) fn is(self, present: Identity) -> bool {
        match self {
            Old::Any => true,
            Old::Known(known) => known == Some(present),
            Old::Theirs(known) => known == present,
        }
    }
}

/// Gives the new file its name. False when another file has it than the one that may be replaced: then that one has it
/// still, or again.
pub(super) fn put(new: &Path, path: &Path, old: Old) -> io::Result<bool> {
    let (known, theirs) = match old {
        Old::Any => return fs::rename(new, path).map(|()| true),
        Old::Known(known) => (known, false),
        Old::Theirs(known) => (Some(known), true),
    };
    let Some(known) = known else { return put_where_none_is(new, path) };
    let ours = identity(new)?;
    match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // A file that is gone holds nothing that could be lost.
        Err(Errno::NOENT) => return put_where_none_is(new, path),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if identity(path)? != Some(known) || (theirs && is_open_for_writing(path)) {
                return Ok(false);
            }
            return fs::rename(new, path).map(|()| true);
        }
        Err(error) => return Err(error.into()),
    }
    crash::at(Step::Exchanged);
    // Who has it open first: what was written before it was closed is seen then.
    let free = !(theirs && is_open_for_writing(new));
    if free && identity(new)? == Some(known) {
        return fs::remove_file(new).map(|()| true);
    }
    renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE)?;
    if identity(new)? != ours {
        // Edited once more in this moment: the newest edit stays.
        fs::rename(new, path)?;
    }
    Ok(false)
}

fn put_where_none_is(new: &Path, path: &Path) -> io::Result<bool> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(new, path).map(|()| true),
            _ => Ok(false),
        },
        Err(error) => Err(error.into()),
    }
}

fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match fs::metadata(path) {
        Ok(data) => Ok(Some(Identity::from(&data))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether another process has a file open for writing, as far as the system shows us: who writes it goes on in a file that
/// has no name any more once it is replaced.
fn is_open_for_writing(path: &Path) -> bool {
    let Ok(data) = fs::metadata(path) else { return false };
    let place = (data.dev(), data.ino());
    for again in 0..TRIES {
        if again > 0 {
            std::thread::sleep(PAUSE);
        }
        if !has_writer(place) {
            return false;
        }
    }
    true
}

fn has_writer(place: (u64, u64)) -> bool {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let is_other = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit()) && name != own;
    processes.flatten().filter(|process| process.file_name().to_str().is_some_and(is_other)).any(|process| {
        // Those of other users cannot be looked at.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { return false };
        files.flatten().map(|file| file.path()).any(|file| {
            // The link says how the file is open, what it leads to which file it is.
            fs::symlink_metadata(&file).is_ok_and(|link| link.mode() & 0o200 != 0)
                && fs::metadata(&file).is_ok_and(|data| (data.dev(), data.ino()) == place)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    struct Files {
        _folder: tempfile::TempDir,
        new: std::path::PathBuf,
        path: std::path::PathBuf,
    }

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (new, path) = (folder.path().join("new"), folder.path().join("f"));
            fs::write(&new, "new").unwrap();
            fs::write(&path, "old").unwrap();
            Files { _folder: folder, new, path }
        }

        fn known(&self) -> Identity {
            identity(&self.path).unwrap().unwrap()
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap()
        }
    }

    #[test]
    fn only_the_file_that_is_known_is_replaced() {
        let files = Files::new();
        let known = files.known();
        assert!(!put(&files.new, &files.path, Old::Known(None)).unwrap());
        assert_eq!(files.text(), "old");
        // By another file, and in the same one.
        let beside = files.path.with_extension("edit");
        fs::write(&beside, "edit").unwrap();
        fs::rename(&beside, &files.path).unwrap();
        for edit in ["edit", "longer edit"] {
            fs::write(&files.path, edit).unwrap();
            assert!(!put(&files.new, &files.path, Old::Known(Some(known))).unwrap());
            assert_eq!((files.text().as_str(), fs::read_to_string(&files.new).unwrap().as_str()), (edit, "new"));
        }
        assert!(put(&files.new, &files.path, Old::Known(Some(files.known()))).unwrap());
        assert_eq!((files.text().as_str(), files.new.try_exists().unwrap()), ("new", false));
    }

    #[test]
    fn a_file_that_is_gone_is_written_again_and_one_that_came_is_kept() {
        let files = Files::new();
        let known = files.known();
        fs::remove_file(&files.path).unwrap();
        assert!(put(&files.new, &files.path, Old::Known(Some(known))).unwrap());
        assert_eq!(files.text(), "new");
        fs::write(&files.new, "newer").unwrap();
        assert!(!put(&files.new, &files.path, Old::Known(None)).unwrap());
        assert!(put(&files.new, &files.path, Old::Any).unwrap());
        assert_eq!(files.text(), "newer");
    }

    #[test]
    fn a_file_that_somebody_is_writing_is_left_to_them() {
        let files = Files::new();
        let mut writer = Command::new("sh")
            .args(["-c", "exec 3>>\"$0\"; echo open; read line"])
            .arg(&files.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = std::io::BufReader::new(writer.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut told, &mut String::new()).unwrap();
        assert!(!put(&files.new, &files.path, Old::Theirs(files.known())).unwrap());
        assert_eq!(files.text(), "old");
        writer.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(writer.wait().unwrap().success());
        assert!(put(&files.new, &files.path, Old::Theirs(files.known())).unwrap());
        assert_eq!(files.text(), "new");
    }
}
