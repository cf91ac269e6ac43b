//! Many entries of a map on their way: the lines of a file of their own, so that no memory ever holds all of them.

use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};

use super::map_text::{parse_line, print_line};
use crate::error::{Error, Result};
use crate::runtime::{check_key, check_value};

/// Bytes that are read or written at once.
const BLOCK: usize = 64 * 1024;

/// Entries of a map in their order. Their file, of mode 0600, goes with this unless it is kept.
#[derive(Debug)]
pub struct MapBatch {
    path: PathBuf,
    /// Whether the file is there after this.
    pub kept: bool,
}

impl MapBatch {
    /// Begins a batch in a file that is not there yet.
    pub async fn create(path: PathBuf) -> Result<MapBatchWriter> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).await;
        let file = opened.map_err(|error| Error::of_file("write", &path, &error))?;
        let batch = MapBatch { path, kept: false };
        Ok(MapBatchWriter { batch, file: BufWriter::with_capacity(BLOCK, file), line: Vec::new() })
    }

    /// One that was kept.
    pub fn kept_in(path: PathBuf) -> Self {
        MapBatch { path, kept: true }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it from the beginning.
    pub async fn read(&self) -> Result<MapBatchReader> {
        let opened = File::open(&self.path).await;
        let file = opened.map_err(|error| Error::of_file("read", &self.path, &error))?;
        let (path, line) = (self.path.clone(), String::new());
        Ok(MapBatchReader { path, file: BufReader::with_capacity(BLOCK, file), line })
    }
}

impl Drop for MapBatch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file could not be removed");
        }
    }
}

/// A batch that is being written.
#[derive(Debug)]
pub struct MapBatchWriter {
    batch: MapBatch,
    file: BufWriter<File>,
    line: Vec<u8>,
}

impl MapBatchWriter {
    /// Adds an entry. `INVALID_VALUE` if key or value would not survive the way through the socket or the file.
    pub async fn push(&mut self, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        self.line.clear();
        // Whatever these let through can stand in a file.
        print_line(&mut self.line, key.as_bytes(), value.as_bytes());
        self.file.write_all(&self.line).await.map_err(|error| Error::of_file("write", &self.batch.path, &error))
    }

    /// No more are added.
    pub async fn finish(mut self) -> Result<MapBatch> {
        let flushed = self.file.flush().await;
        flushed.map_err(|error| Error::of_file("write", &self.batch.path, &error))?;
        Ok(self.batch)
    }
}

/// A batch that is being read.
#[derive(Debug)]
pub struct MapBatchReader {
    path: PathBuf,
    file: BufReader<File>,
    line: String,
}

impl MapBatchReader {
    /// The next entry, key and value.
    pub async fn next(&mut self) -> Result<Option<(&str, &str)>> {
        self.line.clear();
        let read = self.file.read_line(&mut self.line).await;
        read.map_err(|error| Error::of_file("read", &self.path, &error))?;
        // A line that was cut off by the end of an earlier run was never sent.
        Ok(if self.line.ends_with('\n') { parse_text(&self.line) } else { None })
    }
}

fn parse_text(line: &str) -> Option<(&str, &str)> {
    let (key, value) = parse_line(line.as_bytes())?;
    Some((std::str::from_utf8(key).ok()?, std::str::from_utf8(value).ok()?))
}

/// A batch beside a list that may hold it: what is met there in its order need not be added.
pub(super) struct Beside {
    reader: Option<MapBatchReader>,
    next: Option<(String, String)>,
}

impl Beside {
    /// Nothing, or a batch.
    pub(super) async fn new(batch: Option<&MapBatch>) -> Result<Self> {
        let reader = match batch {
            Some(batch) => Some(batch.read().await?),
            None => None,
        };
        let mut beside = Beside { reader, next: None };
        beside.step().await?;
        Ok(beside)
    }

    async fn step(&mut self) -> Result<()> {
        if let Some(reader) = &mut self.reader {
            self.next = reader.next().await?.map(|(key, value)| (key.to_owned(), value.to_owned()));
        }
        Ok(())
    }

    /// The list holds this.
    pub(super) async fn meet(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.next.as_ref().is_some_and(|(next, its)| next.as_bytes() == key && its.as_bytes() == value) {
            self.step().await?;
        }
        Ok(())
    }

    /// The next one that the list, which has ended, does not hold.
    pub(super) async fn rest(&mut self) -> Result<Option<(String, String)>> {
        let next = self.next.take();
        self.step().await?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn batch(path: &Path, all: &[(&str, &str)]) -> MapBatch {
        let mut writer = MapBatch::create(path.to_owned()).await.unwrap();
        for (key, value) in all {
            writer.push(key, value).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    async fn read(batch: &MapBatch) -> Vec<(String, String)> {
        let (mut reader, mut all) = (batch.read().await.unwrap(), Vec::new());
        while let Some((key, value)) = reader.next().await.unwrap() {
            all.push((key.to_owned(), value.to_owned()));
        }
        all
    }

    #[tokio::test]
    async fn entries_come_back_as_they_were_and_the_file_goes_unless_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch");
        let all = [("#k", "v  1 #x"), ("k", "é"), ("k", "é"), ("k", "2")];
        let mut one = batch(&path, &all).await;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        assert_eq!(read(&one).await, all.iter().map(owned).collect::<Vec<_>>());
        one.kept = true;
        drop(one);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .map(|mut file| {
                use std::io::Write as _;
                file.write_all(b"torn li").unwrap();
            })
            .unwrap();
        let mut again = MapBatch::kept_in(path.clone());
        assert_eq!(read(&again).await.len(), all.len());
        again.kept = false;
        drop(again);
        assert!(!path.try_exists().unwrap());
    }

    #[tokio::test]
    async fn what_would_not_survive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch");
        let mut writer = MapBatch::create(path.clone()).await.unwrap();
        for (key, value) in [("", "v"), ("a b", "v"), ("a", "v\nw")] {
            let error = writer.push(key, value).await.unwrap_err();
            assert_eq!(error.reason(), crate::error::Reason::InvalidValue, "{key:?}");
        }
        drop(writer);
        assert!(!path.try_exists().unwrap());
    }

    #[tokio::test]
    async fn what_a_list_holds_already_is_not_added_again() {
        let folder = tempfile::tempdir().unwrap();
        let one = batch(&folder.path().join("batch"), &[("a", "1"), ("b", "1"), ("a", "2")]).await;
        for (list, rest) in [
            (&[("a", "1"), ("x", "1"), ("b", "1"), ("a", "2"), ("a", "2")][..], &[][..]),
            (&[("a", "2"), ("a", "1")], &[("b", "1"), ("a", "2")]),
            (&[], &[("a", "1"), ("b", "1"), ("a", "2")]),
        ] {
            let mut beside = Beside::new(Some(&one)).await.unwrap();
            for (key, value) in list {
                beside.meet(key.as_bytes(), value.as_bytes()).await.unwrap();
            }
            let mut left = Vec::new();
            while let Some(line) = beside.rest().await.unwrap() {
                left.push(line);
            }
            let left: Vec<(&str, &str)> = left.iter().map(|(key, value)| (&**key, &**value)).collect();
            assert_eq!(left, rest);
        }
        assert_eq!(Beside::new(None).await.unwrap().rest().await.unwrap(), None);
    }
}
