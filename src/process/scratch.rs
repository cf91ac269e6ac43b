//! The folder of one check.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Reason, Result};

/// What names of the folders begin with, and of candidates that lie beside the managed file.
const FOLDER: &str = ".check-";
const BESIDE: &str = ".candidate-";

/// A private folder that goes with all that is in it when it is dropped, also when the check is cancelled.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Absolute.
    path: PathBuf,
    file: PathBuf,
}

impl Scratch {
    /// Makes the folder in `folder`. The candidate is to lie in it, or in `beside`.
    pub(super) fn make(folder: &Path, beside: Option<&Path>) -> Result<Scratch> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let path = whole(folder.join(format!("{FOLDER}{id}")));
        let file = match beside {
            Some(beside) => whole(beside.join(format!("{BESIDE}{id}"))),
            None => path.join("haproxy.cfg"),
        };
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed(&path, &error))?;
        Ok(Scratch { path, file })
    }

    /// Writes the candidate.
    pub(super) fn write(&self, candidate: &[u8]) -> Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        file.and_then(|mut file| file.write_all(candidate)).map_err(|error| failed(&self.file, &error))
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The candidate.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Removes what checks left behind that were killed with their process.
    pub(super) fn sweep(folder: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let (name, is_folder) = (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let name = name.to_string_lossy();
            if is_folder && name.starts_with(FOLDER) {
                remove_folder(&entry.path());
            } else if !is_folder && name.starts_with(BESIDE) {
                remove_file(&entry.path());
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.file.starts_with(&self.path) {
            remove_file(&self.file);
        }
        remove_folder(&self.path);
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let told = Error::of_file("write the candidate for its check,", path, error);
    if told.reason() == Reason::Internal {
        return told.message_replaced(format!("the candidate cannot be written for its check: {error}"));
    }
    told
}

fn remove_folder(path: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, folder = %path.display(), "the folder of a check cannot be removed");
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %path.display(), "a checked candidate cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let left = || std::fs::read_dir(folder.path()).unwrap().count();
        for beside in [None, Some(folder.path())] {
            let scratch = Scratch::make(folder.path(), beside).unwrap();
            scratch.write(b"x").unwrap();
            assert_eq!(std::fs::read(scratch.file()).unwrap(), b"x");
            std::fs::write(scratch.path().join("more"), "y").unwrap();
            drop(scratch);
            assert_eq!(left(), 0);
            let scratch = Scratch::make(folder.path(), beside).unwrap();
            scratch.write(b"y").unwrap();
            std::mem::forget(scratch);
            Scratch::sweep(folder.path());
            assert_eq!(left(), 0);
        }
        std::fs::write(folder.path().join(".other"), "z").unwrap();
        Scratch::sweep(folder.path());
        assert_eq!(left(), 1);
    }
}
