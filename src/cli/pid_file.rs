//! The file with the id of the process.

use std::io;
use std::path::{Path, PathBuf};

/// A file with our id. Removed when dropped, if it still holds that and we may.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the file. One that says so already is left alone: by now we may not be allowed to write it.
    pub(super) fn write(path: &Path) -> io::Result<Self> {
        if !holds(path) {
            std::fs::write(path, format!("{}\n", std::process::id()))?;
        }
        Ok(PidFile(path.to_owned()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

fn holds(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string())
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if holds(&self.0)
            && let Err(error) = std::fs::remove_file(&self.0)
        {
            tracing::debug!(path = %self.0.display(), %error, "pid file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_removed_unless_another_process_has_taken_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.try_exists().unwrap());
        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        assert!(PidFile::write(Path::new("/nowhere/pid")).is_err());
    }
}
