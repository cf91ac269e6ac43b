//! Writes runtime entries of maps back to their files.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::files::FileStore;
use super::map_text::{parse_line, print_line};
use crate::error::{Error, Reason, Result};
use crate::runtime::{MapRef, Runtime, parse_raw_entry};

/// A look at a map that is not known to have changed may take one part of this many of the time.
const DUTY: u32 = 20;
/// Bytes of lines that are written at once.
const BLOCK: usize = 64 * 1024;

/// What a look at a map led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// File and runtime hold the same entries; the file was not touched.
    Unchanged,
    /// The file was written anew with so many entries.
    Written(u64),
    /// The file is newer than what HAProxy runs with, which a reload will change: it was not touched.
    Held,
}

/// A file as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

#[derive(Debug, Default)]
struct State {
    dirty: bool,
    held: bool,
    /// The file after the last look; none before the first.
    seen: Option<Seen>,
    due: Option<Instant>,
}

/// Keeps the files of loaded maps up to date, as far as they lie in the folder of maps.
///
/// A map that was changed through this program is marked and written with the next round. All others are looked at as
/// well, since other programs may have changed them, but the larger they are the less often. Comments at the head of a
/// file stay; comments between entries are lost when it is written anew.
#[derive(Debug)]
pub struct MapSync {
    store: FileStore,
    period: Duration,
    states: Mutex<HashMap<String, State>>,
    /// Held while a file is written.
    writing: tokio::sync::Mutex<()>,
}

impl MapSync {
    /// Looks at each map every `period` at most, but for those that are marked.
    pub fn new(store: FileStore, period: Duration) -> Self {
        MapSync { store, period, states: Mutex::default(), writing: tokio::sync::Mutex::new(()) }
    }

    /// Says that the runtime entries of a map changed. `file` is the path under which HAProxy knows it.
    pub fn mark(&self, file: &str) {
        self.states().entry(file.to_owned()).or_default().dirty = true;
    }

    /// Says that a file was replaced and is waiting for a reload: until [`MapSync::reloaded`] it is not written.
    pub fn hold(&self, file: &str) {
        self.states().entry(file.to_owned()).or_default().held = true;
    }

    /// Says that HAProxy has loaded all files anew.
    pub fn reloaded(&self) {
        for state in self.states().values_mut() {
            *state = State::default();
        }
    }

    /// One round over all loaded maps that are marked or due. Returns those that were looked at.
    ///
    /// Fails only when HAProxy does not list its maps; a map that cannot be written is tried again with the next round.
    pub async fn round(&self, runtime: &Runtime) -> Result<Vec<(String, Result<Synced>)>> {
        let mut results = Vec::new();
        for file in runtime.maps().await?.into_iter().filter_map(|map| map.file) {
            let now = Instant::now();
            let wanted =
                self.states().get(&file).is_none_or(|state| state.dirty || state.due.is_none_or(|due| due <= now));
            if self.store.name_of(&file).is_none() || !wanted {
                continue;
            }
            let result = self.sync(runtime, &file).await;
            let mut states = self.states();
            let state = states.entry(file.clone()).or_default();
            state.due = Some(now + self.period.max(now.elapsed() * DUTY));
            if let Err(error) = &result {
                state.dirty = true;
                tracing::warn!(file, %error, "the entries of a map could not be written to its file");
            }
            drop(states);
            results.push((file, result));
        }
        Ok(results)
    }

    /// Brings the file of one map up to date at once.
    ///
    /// `OBJECT_NOT_FOUND` when no such map is loaded, `INVALID_VALUE` when the file does not lie in the folder of maps,
    /// `RUNTIME_UNAVAILABLE` when HAProxy is away; the file is then as it was.
    pub async fn sync(&self, runtime: &Runtime, file: &str) -> Result<Synced> {
        let name = self.store.name_of(file).ok_or_else(|| {
            let message = format!("map '{file}': its file does not lie in {}", self.store.folder().path().display());
            Error::new(Reason::InvalidValue, message).with("field", "map")
        })?;
        let _alone = self.writing.lock().await;
        let before = seen(file).await?;
        {
            let mut states = self.states();
            let state = states.entry(file.to_owned()).or_default();
            let replaced = state.seen.is_some_and(|last| Some(last) != before);
            if state.held || replaced {
                state.held = true;
                return Ok(Synced::Held);
            }
            // Before the entries are read: what changes from now on is marked again.
            state.dirty = false;
        }
        let result = self.write(runtime, file, name, before).await?;
        let after = seen(file).await?;
        self.states().entry(file.to_owned()).or_default().seen = after;
        Ok(result)
    }

    async fn write(&self, runtime: &Runtime, file: &str, name: &str, before: Option<Seen>) -> Result<Synced> {
        let mut lines = runtime.map_lines(&MapRef::new(file)?).await?;
        let mut stored = Stored::open(Path::new(file), before.is_some()).await?;
        let mut writer = self.store.folder().write(name, false, u64::MAX).await?;
        writer.push(&stored.head().await?).await?;
        let (mut entries, mut same, mut out) = (0, before.is_some(), Vec::with_capacity(BLOCK + 1024));
        while let Some(block) = lines.next_block().await? {
            for entry in block.split(|&byte| byte == b'\n').filter_map(parse_raw_entry) {
                if !print_line(&mut out, entry.key, entry.value) {
                    let key = String::from_utf8_lossy(entry.key);
                    tracing::warn!(file, %key, "an entry of a map cannot stand in a file and is left out");
                    continue;
                }
                entries += 1;
                same = same && stored.next().await? == Some((entry.key, entry.value));
                if out.len() >= BLOCK {
                    writer.push(&out).await?;
                    out.clear();
                }
            }
        }
        if same && stored.next().await?.is_none() {
            return Ok(Synced::Unchanged);
        }
        writer.push(&out).await?;
        if seen(file).await? != before {
            return Ok(Synced::Held);
        }
        writer.commit().await?;
        Ok(Synced::Written(entries))
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn seen(file: &str) -> Result<Option<Seen>> {
    match tokio::fs::metadata(file).await {
        Ok(metadata) => Ok(Some(Seen {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.len(),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::internal(format!("{file}: {error}"))),
    }
}

/// The entries of the file as it is, read line by line.
struct Stored {
    reader: Option<BufReader<File>>,
    line: Vec<u8>,
    /// The line is the first entry and has not been taken yet.
    pending: bool,
}

impl Stored {
    async fn open(path: &Path, exists: bool) -> Result<Self> {
        let reader = if exists {
            let file = File::open(path).await;
            let file = file.map_err(|error| Error::internal(format!("{}: {error}", path.display())))?;
            Some(BufReader::with_capacity(BLOCK, file))
        } else {
            None
        };
        Ok(Stored { reader, line: Vec::new(), pending: false })
    }

    /// Everything in front of the first entry.
    async fn head(&mut self) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        while self.read_line().await? {
            if parse_line(&self.line).is_some() {
                self.pending = true;
                break;
            }
            head.extend_from_slice(&self.line);
        }
        Ok(head)
    }

    async fn next(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if !std::mem::take(&mut self.pending) {
            loop {
                if !self.read_line().await? {
                    return Ok(None);
                }
                if parse_line(&self.line).is_some() {
                    break;
                }
            }
        }
        Ok(parse_line(&self.line))
    }

    async fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        let Some(reader) = &mut self.reader else { return Ok(false) };
        let read = reader.read_until(b'\n', &mut self.line).await.map_err(Error::internal)?;
        Ok(read > 0)
    }
}
