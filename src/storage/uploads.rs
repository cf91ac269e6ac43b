//! What arrives in pieces, each in a call of its own, and is seen by nobody before the last one.
//!
//! Pieces go to a file at once, so memory stays bounded. Who sends nothing for a while has given up, and what came so far
//! is removed; so are all uploads when the program starts again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::folder::{Contents, Folder, Writer};
use crate::error::{Error, Reason, Result};

/// Bounds of uploads.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Bytes of one.
    pub size: u64,
    /// Uploads at the same time.
    pub number: usize,
    /// One to which nothing is added for so long is given up.
    pub idle: Duration,
}

/// A part of an upload.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// What is uploaded: all pieces of an upload name the same.
    pub target: &'a str,
    /// The upload; empty for the first piece of a new one.
    pub upload: &'a str,
    /// Where the piece begins, counted as `count` is.
    pub offset: u64,
    /// How much it holds: bytes, or entries.
    pub count: u64,
    /// Whether it is the last one.
    pub last: bool,
}

/// What became of a piece.
#[derive(Debug)]
pub enum Progress {
    /// More are to come.
    Open {
        /// The upload.
        upload: String,
        /// Where the next piece begins.
        offset: u64,
    },
    /// All are there.
    Whole {
        /// What came in all.
        offset: u64,
        /// The bytes of all pieces.
        contents: Contents,
    },
}

/// All uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: Folder,
    limits: UploadLimits,
    open: Mutex<HashMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    target: String,
    offset: u64,
    touched: Instant,
    /// Away while a piece is written to it.
    writer: Option<Writer>,
}

impl Uploads {
    /// Uploads are kept in a folder of their own, see [`Folder::open`]. Blocks; for the start of the program.
    pub fn open(folder: impl AsRef<Path>, limits: UploadLimits) -> Result<Self> {
        let inner = Inner { folder: Folder::open(folder)?, limits, open: Mutex::default() };
        Ok(Uploads { inner: Arc::new(inner) })
    }

    /// Adds a piece. Needs a Tokio runtime.
    ///
    /// `UPLOAD_NOT_FOUND` for an upload that is not open, or is one of something else; `UPLOAD_OFFSET` for a piece that
    /// does not go on where the one before ended, which changes nothing; `UPLOAD_LIMIT` when too many are open;
    /// `TOO_LARGE` beyond the limit, which ends the upload.
    pub async fn put(&self, piece: Piece<'_>, bytes: &[u8]) -> Result<Progress> {
        let (upload, mut writer) = match piece.upload {
            "" => self.begin(&piece).await?,
            id => (id.to_owned(), self.take(id, &piece)?),
        };
        let offset = piece.offset + piece.count;
        // Dropped here, at an error or with a call that its caller gives up, the writer ends the upload.
        let mut guard = Taken { inner: &self.inner, upload: &upload, back: false };
        writer.push(bytes).await?;
        if piece.last {
            return Ok(Progress::Whole { offset, contents: writer.read_back().await? });
        }
        let mut open = self.inner.open();
        if let Some(entry) = open.get_mut(&upload) {
            (entry.writer, entry.offset, entry.touched) = (Some(writer), offset, Instant::now());
        }
        drop(open);
        guard.back = true;
        drop(guard);
        Ok(Progress::Open { upload, offset })
    }

    async fn begin(&self, piece: &Piece<'_>) -> Result<(String, Writer)> {
        if piece.offset != 0 {
            return Err(out_of_place(0, piece.offset));
        }
        let upload = uuid::Uuid::new_v4().to_string();
        let entry = Open { target: piece.target.to_owned(), offset: 0, touched: Instant::now(), writer: None };
        {
            let mut open = self.inner.open();
            if open.len() >= self.inner.limits.number {
                let message = format!("{} uploads are open, and no more are taken", open.len());
                return Err(Error::new(Reason::UploadLimit, message).with("limit", self.inner.limits.number));
            }
            open.insert(upload.clone(), entry);
        }
        let mut guard = Taken { inner: &self.inner, upload: &upload, back: false };
        let writer = self.inner.folder.write(&upload, true, self.inner.limits.size).await?;
        guard.back = true;
        drop(guard);
        if !piece.last {
            tokio::spawn(Self::expire(Arc::downgrade(&self.inner), upload.clone()));
        }
        Ok((upload, writer))
    }

    /// Takes an upload to add to it.
    fn take(&self, id: &str, piece: &Piece<'_>) -> Result<Writer> {
        let mut open = self.inner.open();
        let entry = open.get_mut(id).filter(|entry| entry.target == piece.target);
        let entry = entry.ok_or_else(|| {
            let message = format!("no upload '{id}' of this is open: it ended, or nothing came for too long");
            Error::new(Reason::UploadNotFound, message)
        })?;
        if entry.offset != piece.offset {
            return Err(out_of_place(entry.offset, piece.offset));
        }
        entry.writer.take().ok_or_else(|| {
            let message = format!("another piece is being added to upload '{id}' at {}", entry.offset);
            Error::new(Reason::UploadOffset, message).with("expected", entry.offset)
        })
    }

    /// Gives up an upload to which nothing is added.
    async fn expire(inner: std::sync::Weak<Inner>, id: String) {
        loop {
            let due = {
                let Some(inner) = inner.upgrade() else { return };
                let mut open = inner.open();
                let Some(entry) = open.get(&id) else { return };
                let due = entry.touched + inner.limits.idle;
                if due <= Instant::now() && entry.writer.is_some() {
                    open.remove(&id);
                    return;
                }
                due.max(Instant::now() + Duration::from_millis(10))
            };
            sleep_until(due).await;
        }
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends an upload, unless its writer is given back.
struct Taken<'a> {
    inner: &'a Inner,
    upload: &'a str,
    back: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.back {
            self.inner.open().remove(self.upload);
        }
    }
}

fn out_of_place(expected: u64, given: u64) -> Error {
    let message = format!("offset: expected {expected}, which is what has come so far, got {given}");
    Error::new(Reason::UploadOffset, message).with("expected", expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads(idle: Duration) -> (tempfile::TempDir, Uploads) {
        let dir = tempfile::tempdir().unwrap();
        let limits = UploadLimits { size: 10, number: 2, idle };
        let uploads = Uploads::open(dir.path().join("uploads"), limits).unwrap();
        (dir, uploads)
    }

    async fn put(uploads: &Uploads, upload: &str, offset: u64, bytes: &[u8], last: bool) -> Result<Progress> {
        let piece = Piece { target: "x", upload, offset, count: bytes.len() as u64, last };
        uploads.put(piece, bytes).await
    }

    fn opened(progress: Progress) -> (String, u64) {
        match progress {
            Progress::Open { upload, offset } => (upload, offset),
            Progress::Whole { .. } => panic!("whole"),
        }
    }

    async fn whole(progress: Progress) -> Vec<u8> {
        let Progress::Whole { mut contents, offset } = progress else { panic!("open") };
        let mut all = Vec::new();
        while let Some(bytes) = contents.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all.len() as u64, offset);
        all
    }

    fn files(dir: &tempfile::TempDir) -> usize {
        std::fs::read_dir(dir.path().join("uploads")).unwrap().count()
    }

    #[tokio::test]
    async fn pieces_become_a_whole_in_their_order_and_no_other() {
        let (dir, uploads) = uploads(Duration::from_mins(1));
        assert_eq!(whole(put(&uploads, "", 0, b"at once", true).await.unwrap()).await, b"at once");
        assert_eq!(whole(put(&uploads, "", 0, b"", true).await.unwrap()).await, b"");
        let (id, offset) = opened(put(&uploads, "", 0, b"abc", false).await.unwrap());
        assert_eq!(offset, 3);
        for wrong in [0, 2, 4] {
            let error = put(&uploads, &id, wrong, b"x", false).await.unwrap_err();
            assert_eq!(error.reason(), Reason::UploadOffset);
            assert!(error.message().contains("expected 3"), "{error}");
        }
        assert_eq!(put(&uploads, "", 1, b"x", false).await.unwrap_err().reason(), Reason::UploadOffset);
        let other = Piece { target: "y", upload: &id, offset: 3, count: 1, last: false };
        assert_eq!(uploads.put(other, b"x").await.unwrap_err().reason(), Reason::UploadNotFound);
        assert_eq!(opened(put(&uploads, &id, 3, b"de", false).await.unwrap()), (id.clone(), 5));
        assert_eq!(whole(put(&uploads, &id, 5, b"f", true).await.unwrap()).await, b"abcdef");
        assert_eq!(put(&uploads, &id, 6, b"", true).await.unwrap_err().reason(), Reason::UploadNotFound);
        assert_eq!(files(&dir), 0, "nothing is left behind");
    }

    #[tokio::test]
    async fn number_and_size_are_bounded() {
        let (dir, uploads) = uploads(Duration::from_mins(1));
        let (one, _) = opened(put(&uploads, "", 0, b"1234567890", false).await.unwrap());
        let (two, _) = opened(put(&uploads, "", 0, b"", false).await.unwrap());
        assert_eq!(put(&uploads, "", 0, b"x", true).await.unwrap_err().reason(), Reason::UploadLimit);
        assert_eq!(put(&uploads, &one, 10, b"x", true).await.unwrap_err().reason(), Reason::TooLarge);
        assert_eq!(put(&uploads, &one, 10, b"", true).await.unwrap_err().reason(), Reason::UploadNotFound);
        assert_eq!(whole(put(&uploads, "", 0, b"x", true).await.unwrap()).await, b"x");
        assert_eq!(files(&dir), 1);
        assert_eq!(whole(put(&uploads, &two, 0, b"y", true).await.unwrap()).await, b"y");
        assert_eq!(files(&dir), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_upload_is_given_up() {
        let (dir, uploads) = uploads(Duration::from_mins(10));
        let (id, _) = opened(put(&uploads, "", 0, b"ab", false).await.unwrap());
        tokio::time::sleep(Duration::from_mins(9)).await;
        assert_eq!(opened(put(&uploads, &id, 2, b"c", false).await.unwrap()).1, 3);
        tokio::time::sleep(Duration::from_mins(9)).await;
        assert_eq!(files(&dir), 1);
        tokio::time::sleep(Duration::from_mins(2)).await;
        assert_eq!(files(&dir), 0);
        assert_eq!(put(&uploads, &id, 3, b"d", false).await.unwrap_err().reason(), Reason::UploadNotFound);
    }
}
