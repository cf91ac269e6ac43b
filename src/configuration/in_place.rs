//! Writing a file that cannot be exchanged for a new one: a single file that is mounted into a container, or a file whose
//! folder may not be written.
//!
//! Old and new text are safe in the state folder before the first byte changes, so that the next start finishes what a kill
//! cut off. Blocks.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::crash::{self, Step};
use super::disk::{self, Identity, failed};
use super::exchange::Old;
use super::frame;
use crate::error::Result;

/// Whether an exchange that failed like this may still be a write in place.
pub(super) fn is_needed(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ResourceBusy | Kind::PermissionDenied | Kind::ReadOnlyFilesystem)
}

/// Writes `new` into a file that exists. Both texts lie at `keep` meanwhile. On an error the file is as it was. Returns what
/// the file is known by then; `None` when it is another one than may be written.
pub(super) fn write(path: &Path, new: &[u8], may: Old, keep: &Path) -> Result<Option<Identity>> {
    let old = fs::read(path).map_err(|error| failed("read", path, &error))?;
    let file = OpenOptions::new().write(true).open(path).map_err(|error| failed("write", path, &error))?;
    let identity = || Identity::of_open(&file).map_err(|error| failed("read", path, &error));
    if !may.is(identity()?) {
        return Ok(None);
    }
    reserve(&file, new.len()).map_err(|error| failed("write", path, &error))?;
    let reserved = identity()?;
    let mut both = Vec::with_capacity(old.len() + new.len() + 32);
    frame::write(&old, &mut both);
    frame::write(new, &mut both);
    disk::replace(keep, &both, 0o600, &disk::Steps::NONE)?;
    disk::sync_folder_of(keep)?;
    crash::at(Step::KeptAside);
    // As late as can be: a file that is written in place cannot be put back in one step.
    if identity()? != reserved {
        disk::remove(keep)?;
        return Ok(None);
    }
    if let Err(error) = overwrite(&file, new) {
        if let Err(again) = overwrite(&file, &old) {
            // It stays kept, so that the next start finishes it.
            tracing::error!(path = %path.display(), error = %again, "a file is half written and cannot be put back");
            return Err(failed("write", path, &error));
        }
        disk::remove(keep)?;
        return Err(failed("write", path, &error));
    }
    let now = identity()?;
    crash::at(Step::Overwritten);
    disk::remove(keep)?;
    Ok(Some(now))
}

/// Finishes a write that was cut off. A file that someone else wrote since then stays as it is.
pub(super) fn finish(path: &Path, keep: &Path) -> Result<()> {
    let Some(both) = disk::read(keep)? else { return Ok(()) };
    if let ([old, new], Some(present)) = (&frame::read(&both).0[..], disk::read(path)?)
        && is_cut_off(&present, old, new)
    {
        let file = OpenOptions::new().write(true).open(path).map_err(|error| failed("write", path, &error))?;
        overwrite(&file, new).map_err(|error| failed("write", path, &error))?;
        tracing::info!(path = %path.display(), "finished a write of the last run");
    }
    disk::remove(keep)
}

/// Whether a text is what a write leaves that was cut off: each byte is that of the old text or of the new one.
fn is_cut_off(present: &[u8], old: &[u8], new: &[u8]) -> bool {
    let lengths = old.len().min(new.len())..=old.len().max(new.len());
    present != old
        && present != new
        && lengths.contains(&present.len())
        && present.iter().enumerate().all(|(at, byte)| new.get(at) == Some(byte) || old.get(at) == Some(byte))
}

/// Makes sure that there is room, as far as the file system can tell.
fn reserve(file: &File, length: usize) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length as u64) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn overwrite(file: &File, text: &[u8]) -> io::Result<()> {
    // In two parts, so that a test can stop between them.
    let (head, tail) = text.split_at(text.len() / 2);
    file.write_all_at(head, 0)?;
    crash::at(Step::HalfOverwritten);
    file.write_all_at(tail, head.len() as u64)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_finished_and_what_others_wrote_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (path, keep) = (folder.path().join("f"), folder.path().join("keep"));
        let (old, new) = ("global\n  maxconn 5\n", "global\n  daemon\n  maxconn 10\n");
        let mut both = Vec::new();
        frame::write(old.as_bytes(), &mut both);
        frame::write(new.as_bytes(), &mut both);
        let half = format!("{}{}", &new[..12], &old[12..]);
        for (present, after) in [
            (half.as_str(), new),
            (&format!("{}{}", &new[..old.len()], ""), new),
            (old, old),
            (new, new),
            ("", ""),
            ("global\n  maxconn 6\n", "global\n  maxconn 6\n"),
            ("global\n  daemon\n", "global\n  daemon\n"),
        ] {
            fs::write(&path, present).unwrap();
            fs::write(&keep, &both).unwrap();
            finish(&path, &keep).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after, "{present:?}");
            assert!(!keep.try_exists().unwrap());
        }
        // Half of what is kept says nothing.
        fs::write(&path, &half).unwrap();
        fs::write(&keep, &both[..both.len() - 1]).unwrap();
        finish(&path, &keep).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), half);
    }

    #[test]
    fn a_file_is_written_where_it_is() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, keep) = (folder.path().join("f"), folder.path().join("keep"));
        fs::write(&path, "old and long").unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        for text in ["new", "longer than before it was", ""] {
            assert!(write(&path, text.as_bytes(), Old::Any, &keep).unwrap().is_some());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let known = Identity::of(&path).unwrap();
        fs::write(&path, "an edit").unwrap();
        assert!(write(&path, b"new", Old::Known(known), &keep).unwrap().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "an edit");
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
        assert!(!keep.try_exists().unwrap());
    }
}
