//! A map file beside the entries that it should hold: line by line, so that what need not change stays as it is.
//!
//! Comments, blank lines, the order of entries and the blanks within a line stay. Both sides are read in pieces; nothing
//! is written as long as they agree.

use std::path::Path;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::folder::{Folder, Writer};
use super::map_text::{parse_line, print_line, with_value};
use crate::error::{Error, Result};

/// Bytes that are read or written at once.
const BLOCK: usize = 64 * 1024;

/// A file while it is compared and, from the first difference on, written anew.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    folder: &'a Folder,
    name: &'a str,
    path: &'a Path,
    reader: Option<BufReader<File>>,
    /// The line that was read last and whether it still has to be dealt with.
    line: Vec<u8>,
    pending: bool,
    /// Bytes at the head of the file that stay.
    same: u64,
    /// The last byte kept ends a line.
    ended: bool,
    writer: Option<Writer>,
    out: Vec<u8>,
    entries: u64,
}

impl<'a> Merge<'a> {
    /// Opens the file `name` of the folder; one that is not there is empty.
    pub(super) async fn open(folder: &'a Folder, name: &'a str, path: &'a Path) -> Result<Self> {
        let reader = folder.open_file(name).await?.map(|file| BufReader::with_capacity(BLOCK, file));
        let writer = match reader {
            Some(_) => None,
            None => Some(folder.write(name, false, u64::MAX).await?),
        };
        let (line, out) = (Vec::new(), Vec::new());
        Ok(Merge { folder, name, path, reader, line, pending: false, same: 0, ended: true, writer, out, entries: 0 })
    }

    /// The next entry of the file, whose line waits for [`Merge::keep`], [`Merge::change`] or [`Merge::drop_line`].
    /// Lines in between stay.
    pub(super) async fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        while !self.pending {
            self.line.clear();
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let read = reader.read_until(b'\n', &mut self.line).await;
            if read.map_err(|error| failed(self.path, &error))? == 0 {
                return Ok(None);
            }
            self.pending = true;
            if parse_line(&self.line).is_none() {
                self.keep_line().await?;
            }
        }
        Ok(parse_line(&self.line))
    }

    /// The entry stays as it is.
    pub(super) async fn keep(&mut self) -> Result<()> {
        self.entries += 1;
        self.keep_line().await
    }

    async fn keep_line(&mut self) -> Result<()> {
        self.pending = false;
        self.ended = self.line.ends_with(b"\n");
        if self.writer.is_none() {
            self.same += self.line.len() as u64;
            return Ok(());
        }
        self.out.extend_from_slice(&self.line);
        self.flush(BLOCK).await
    }

    /// The entry gets another value.
    pub(super) async fn change(&mut self, value: &[u8]) -> Result<()> {
        self.begin().await?;
        self.pending = false;
        if with_value(&mut self.out, &self.line, value) {
            self.entries += 1;
            self.ended = self.line.ends_with(b"\n");
        } else {
            self.unwritable(parse_line(&self.line).unwrap_or_default().0);
        }
        self.flush(BLOCK).await
    }

    /// The entry goes.
    pub(super) async fn drop_line(&mut self) -> Result<()> {
        self.pending = false;
        self.begin().await
    }

    /// Adds an entry behind what has been read.
    pub(super) async fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.begin().await?;
        if !self.ended {
            self.out.push(b'\n');
            self.ended = true;
        }
        if print_line(&mut self.out, key, value) {
            self.entries += 1;
        } else {
            self.unwritable(key);
        }
        self.flush(BLOCK).await
    }

    fn unwritable(&self, key: &[u8]) {
        let key = String::from_utf8_lossy(key);
        tracing::warn!(file = %self.path.display(), %key, "an entry of a map cannot stand in a file and is left out");
    }

    /// The file as it should be, with its number of entries; nothing when it is so already.
    pub(super) async fn finish(mut self) -> Result<Option<(Writer, u64)>> {
        self.flush(0).await?;
        Ok(self.writer.map(|writer| (writer, self.entries)))
    }

    /// The first difference: what came before it is copied.
    async fn begin(&mut self) -> Result<()> {
        if self.writer.is_some() {
            return Ok(());
        }
        let mut writer = self.folder.write(self.name, false, u64::MAX).await?;
        let file = File::open(self.path).await.map_err(|error| failed(self.path, &error))?;
        let mut head = file.take(self.same);
        let mut buffer = vec![0; BLOCK];
        let mut copied = 0;
        loop {
            let read = head.read(&mut buffer).await.map_err(|error| failed(self.path, &error))?;
            if read == 0 {
                break;
            }
            copied += read as u64;
            writer.push(buffer.get(..read).unwrap_or_default()).await?;
        }
        if copied != self.same {
            return Err(Error::internal(format!("{}: was cut while it was read", self.path.display())));
        }
        self.writer = Some(writer);
        Ok(())
    }

    async fn flush(&mut self, limit: usize) -> Result<()> {
        if let Some(writer) = &mut self.writer
            && self.out.len() > limit
        {
            writer.push(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::internal(format!("{}: {error}", path.display()))
}
