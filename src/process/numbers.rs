//! Numbers of reloads, which are never used twice, also not by a later process.
//!
//! A file says which number nobody was given yet. It is written once for many numbers, ahead of their use: after a kill
//! some are left out, and none comes again.

use std::path::PathBuf;

use crate::configuration::replace_durably;

/// Numbers that are set aside at once.
const AHEAD: u64 = 64;

/// Gives out numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    file: Option<PathBuf>,
    next: u64,
    /// The first number that is not set aside.
    end: u64,
}

impl Numbers {
    /// Goes on behind the numbers that `file` says were set aside; from 0 when there is none. Without a file numbers are
    /// those of this process.
    pub fn open(file: Option<PathBuf>) -> Self {
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let next = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Numbers { file, next, end: next }
    }

    /// The next number.
    pub fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        if number >= self.end {
            self.end = number + AHEAD;
            let written = self.file.as_ref().map(|file| replace_durably(file, self.end.to_string().as_bytes(), 0o600));
            if let Some(Err(error)) = written {
                tracing::warn!(context = error.context_text(), "ids of reloads may come again after a restart");
            }
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice_whenever_the_process_ends() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Numbers::open(Some(folder.path().join("reloads")));
        let mut given = Vec::new();
        for run in [1, 63, 64, 65, 200] {
            let mut numbers = open();
            given.extend((0..run).map(|_| numbers.take()));
        }
        assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
        assert_eq!((given[0], Numbers::open(None).take()), (0, 0));
        std::fs::write(folder.path().join("reloads"), "odd").unwrap();
        assert_eq!(open().take(), 0);
    }
}
