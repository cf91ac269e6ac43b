//! Looking at a file again and again, on a thread of its own: a task that waits for a blocking call wakes several threads
//! for each look.
//!
//! The system tells when something happens in the folder of the file, so that nothing is done while nothing does. It does
//! not tell everything (a folder of another machine, a folder that takes the place of another one), so that the file is
//! looked at from time to time as well.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::disk::{Identity, resolved};

/// Without a word of the system, a file is looked at after so many times the interval.
const SELDOM: u32 = 20;

/// Tells whenever a file is another one than before, and at first, but not more often than each `every`. Tells nothing
/// without a file.
pub(crate) fn looks(
    file: Option<PathBuf>,
    every: Duration,
    stop: CancellationToken,
) -> io::Result<watch::Receiver<()>> {
    let (tell, told) = watch::channel(());
    let Some(file) = file else { return Ok(told) };
    let look = move || {
        let folders = folders(&file).inspect_err(|error| {
            tracing::debug!(%error, "the system does not watch the folder of the configuration file");
        });
        let mut before = None;
        while !stop.is_cancelled() && !tell.is_closed() {
            // What cannot be looked at is told of by who reads it.
            let present = Identity::of(&file).ok();
            if before.replace(present) != Some(present) {
                tell.send_replace(());
            }
            std::thread::sleep(every);
            if let Ok(folders) = &folders {
                wait(folders, every * SELDOM);
            }
        }
    };
    std::thread::Builder::new().name("file-watch".to_owned()).spawn(look)?;
    Ok(told)
}

/// What happens in the folder of a file, and in that of the file that it is a link to.
fn folders(file: &Path) -> Result<OwnedFd, Errno> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CREATE | WatchFlags::MODIFY | WatchFlags::MOVE | WatchFlags::DELETE;
    for path in [file, &resolved(file)] {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        inotify::add_watch(&events, folder, what)?;
    }
    Ok(events)
}

/// Waits until something happens, but not for longer than `limit`.
fn wait(events: &OwnedFd, limit: Duration) {
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    // When it cannot be waited for, it was waited for the interval.
    let _ready = poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&limit));
    let mut what = [0; 4096];
    while rustix::io::read(events, &mut what).is_ok_and(|read| read > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(changes: &mut watch::Receiver<()>) -> bool {
        tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.is_ok_and(|told| told.is_ok())
    }

    #[tokio::test]
    async fn changes_are_told_at_once_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, link) = (dir.path().join("inner"), dir.path().join("link"));
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("file");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let stop = CancellationToken::new();
        // Looks of its own would come far too late.
        let every = Duration::from_millis(500);
        let mut changes = looks(Some(link), every, stop.clone()).unwrap();
        assert!(told(&mut changes).await, "at first");
        for text in ["a", "ab", "abc"] {
            tokio::time::sleep(2 * every).await;
            assert!(!changes.has_changed().unwrap());
            let other = inner.join("other");
            std::fs::write(&other, text).unwrap();
            std::fs::rename(&other, &file).unwrap();
            assert!(told(&mut changes).await, "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(told(&mut changes).await);
        stop.cancel();
        assert!(looks(None, every, stop).unwrap().changed().await.is_err());
    }
}
