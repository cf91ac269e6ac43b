//! Writes runtime entries of maps back to their files.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::files::FileStore;
use super::folder::Writer;
use super::map_batch::{Beside, MapBatch};
use super::map_edits::{Made, MapEdit, MapEdits};
use super::map_merge::Merge;
use crate::error::{Error, Reason, Result};
use crate::runtime::{LoadMode, MapRef, Runtime, parse_raw_entry};

/// A look at a map that is not known to have changed may take one part of this many of the time.
const DUTY: u32 = 20;
/// How long a reload waits until the files of maps are written.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a file is written anew that others change at the same time.
const ATTEMPTS: usize = 5;

/// What a look at a map led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// File and runtime hold the same entries; the file was not touched.
    Unchanged,
    /// The file was written anew with so many entries.
    Written(u64),
    /// The file is newer than what HAProxy runs with, which a reload will change: only edits that are known were put
    /// into it, if there are any.
    Held,
}

/// A file as it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    modified: (i64, i64),
    size: u64,
    /// Seconds since 1970 of the last change; nobody can set it back, as they can `modified`.
    changed: i64,
}

/// A worker process: its number and when it started, in seconds since 1970. It reads its files after that.
type Worker = (i64, i64);

/// A file beside the worker whose entries it was compared with.
type Compared = (Option<Seen>, Worker);

/// What the file of a map is to have at once.
#[derive(Default)]
struct Own<'a> {
    edits: MapEdits,
    /// Entries behind all others.
    batch: Option<&'a MapBatch>,
    /// It is to have all that HAProxy runs with.
    whole: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Changes that are not in the file yet.
    edits: MapEdits,
    /// How often the map was marked: entries changed in ways that nobody told.
    marks: u64,
    /// Marks whose changes are in the file.
    written: u64,
    /// When file and worker were last found, or made, the same.
    same: Option<Compared>,
    /// When the file was last found to be another, newer one.
    newer: Option<Compared>,
    due: Option<Instant>,
}

impl State {
    fn is_changed(&self) -> bool {
        self.marks > self.written || !self.edits.is_empty()
    }
}

/// Keeps the files of loaded maps up to date, as far as they lie in the folder of maps.
///
/// A map that was changed through this program is written with the next round, and before a reload of ours. All others
/// are looked at as well, since other programs may have changed them, but the larger they are the less often.
///
/// A file may be newer than the entries that HAProxy runs with: someone replaced it, or the worker was loading while it
/// was written. What it holds is never lost then: known changes are put into it, line by line, and nothing else.
pub struct MapSync {
    store: FileStore,
    period: Duration,
    /// Whether others may have changed maps: files get all that HAProxy runs with, and not only known changes.
    looking: bool,
    states: Mutex<HashMap<String, State>>,
    listener: OnceLock<Arc<Listener>>,
    /// Held while a file is written, and while HAProxy reloads.
    writing: tokio::sync::Mutex<()>,
}

/// Hears which changes are in the file of a map now.
pub type Listener = dyn Fn(&str, &[MapEdit]) + Send + Sync;

impl std::fmt::Debug for MapSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapSync").field("store", &self.store).field("states", &self.states()).finish_non_exhaustive()
    }
}

/// No file of a map is written while this lives.
#[derive(Debug)]
pub struct Paused<'a>(#[allow(dead_code, reason = "it only has to live")] tokio::sync::MutexGuard<'a, ()>);

impl MapSync {
    /// Looks at each map every `period` at most, but for those that are marked.
    pub fn new(store: FileStore, period: Duration) -> Self {
        let (states, listener, writing) = (Mutex::default(), OnceLock::new(), tokio::sync::Mutex::new(()));
        MapSync { store, period, looking: true, states, listener, writing }
    }

    /// Whether maps are looked at that nobody told of, so that files get what other programs change.
    #[must_use]
    pub fn looking(self, looking: bool) -> Self {
        MapSync { looking, ..self }
    }

    /// Whether maps are looked at that nobody told of.
    pub fn is_looking(&self) -> bool {
        self.looking
    }

    /// Tells `listener` of all changes that files get from now on. Only the first one hears.
    pub fn tell(&self, listener: Arc<Listener>) {
        drop(self.listener.set(listener));
    }

    /// The entries that the file of a map holds for some keys, in their order.
    pub async fn read(&self, file: &str, keys: &HashSet<Vec<u8>>) -> Result<Vec<(String, String)>> {
        let name = self.name(file)?;
        let mut merge = Merge::open(self.store.folder(), name, Path::new(file)).await?;
        let mut entries = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        while let Some((key, value)) = merge.next().await? {
            if keys.contains(key) {
                entries.push((text(key), text(value)));
            }
            merge.keep().await?;
        }
        Ok(entries)
    }

    /// Says that the runtime entries of a map changed in some way. `file` is the path under which HAProxy knows it.
    pub fn mark(&self, file: &str) {
        self.states().entry(file.to_owned()).or_default().marks += 1;
    }

    /// Says what changed in a map.
    pub fn changed(&self, file: &str, edits: impl IntoIterator<Item = MapEdit>) {
        if self.check(file).is_err() {
            return;
        }
        let mut states = self.states();
        let state = states.entry(file.to_owned()).or_default();
        edits.into_iter().for_each(|edit| state.edits.push(edit));
    }

    /// Says that a file was replaced as a whole: what was changed before does not count any more.
    pub fn replaced(&self, file: &str) {
        if let Some(state) = self.states().get_mut(file) {
            state.edits.forget(state.edits.last());
            state.written = state.marks;
        }
    }

    /// Says that the entries of a map with this key are as in the file: what was changed before does not count any more.
    pub fn unchanged(&self, file: &str, key: &str) {
        if let Some(state) = self.states().get_mut(file) {
            state.edits.forget_key(key.as_bytes());
        }
    }

    /// `INVALID_VALUE` when the file does not lie in the folder of maps, `UNSUPPORTED` when nothing there can be written.
    pub fn check(&self, file: &str) -> Result<()> {
        self.name(file)?;
        self.store.folder().writable()
    }

    fn name<'f>(&self, file: &'f str) -> Result<&'f str> {
        self.store.name_of(file).ok_or_else(|| {
            let message = format!("map '{file}': its file does not lie in {}", self.store.folder().path().display());
            Error::new(Reason::InvalidValue, message).with("field", "map")
        })
    }

    /// One round over all loaded maps that are changed or due. Returns those that were looked at.
    ///
    /// Fails only when HAProxy does not list its maps; a map that cannot be written is tried again with the next round.
    pub async fn round(&self, runtime: &Runtime) -> Result<Vec<(String, Result<Synced>)>> {
        let mut results = Vec::new();
        if !self.looking {
            for file in self.waiting() {
                let result = self.sync(runtime, &file).await;
                results.push((file, result));
            }
            return Ok(results);
        }
        for file in runtime.maps().await?.into_iter().filter_map(|map| map.file) {
            let now = Instant::now();
            let due = |state: &State| state.is_changed() || state.due.is_none_or(|due| due <= now);
            let wanted = self.states().get(&file).is_none_or(due);
            if self.store.name_of(&file).is_none() || !wanted {
                continue;
            }
            let result = self.sync(runtime, &file).await;
            self.states().entry(file.clone()).or_default().due = Some(now + self.period.max(now.elapsed() * DUTY));
            results.push((file, result));
        }
        Ok(results)
    }

    /// Writes what has changed, and then keeps all files as they are for as long as the answer lives: a worker that loads
    /// meanwhile finds all there is. What cannot be written within [`PATIENCE`] stays for later.
    pub async fn pause(&self, runtime: &Runtime) -> Paused<'_> {
        let alone = self.writing.lock().await;
        let files = self.waiting();
        let nothing = Own::default();
        let written = async {
            for file in &files {
                // What went wrong is in the log.
                drop(self.sync_alone(runtime, file, &nothing).await);
            }
        };
        if tokio::time::timeout(PATIENCE, written).await.is_err() {
            tracing::warn!(?PATIENCE, "the entries of maps could not be written to their files before the reload");
        }
        Paused(alone)
    }

    /// Files that do not have all known changes.
    fn waiting(&self) -> Vec<String> {
        let changed = |(file, state): (&String, &State)| state.is_changed().then(|| file.clone());
        self.states().iter().filter_map(changed).collect()
    }

    /// Brings the file of one map up to date at once.
    ///
    /// `OBJECT_NOT_FOUND` when no such map is loaded, `INVALID_VALUE` when the file does not lie in the folder of maps,
    /// `RUNTIME_UNAVAILABLE` when HAProxy is away; the file is then as it was.
    pub async fn sync(&self, runtime: &Runtime, file: &str) -> Result<Synced> {
        let _alone = self.writing.lock().await;
        self.sync_alone(runtime, file, &Own::default()).await
    }

    /// The same, and whatever HAProxy runs with and whatever the file held before, it holds these changes afterwards.
    pub async fn put(&self, runtime: &Runtime, file: &str, edits: impl IntoIterator<Item = MapEdit>) -> Result<Synced> {
        let mut own = Own { whole: true, ..Own::default() };
        edits.into_iter().for_each(|edit| own.edits.push(edit));
        let _alone = self.writing.lock().await;
        self.sync_alone(runtime, file, &own).await
    }

    /// The same for entries that are added behind all others, so many that nothing else holds them for long. With `whole`
    /// the file gets what others changed as well.
    pub async fn put_batch(&self, runtime: &Runtime, file: &str, batch: &MapBatch, whole: bool) -> Result<Synced> {
        let own = Own { batch: Some(batch), whole, ..Own::default() };
        let _alone = self.writing.lock().await;
        self.sync_alone(runtime, file, &own).await
    }

    /// Lets a loaded map have just the entries that its file has, in their order, all at once.
    pub async fn load(&self, runtime: &Runtime, file: &str) -> Result<()> {
        let name = self.name(file)?;
        let mut load = runtime.map_load(&MapRef::new(file)?, LoadMode::Replace).await?;
        let mut merge = Merge::open(self.store.folder(), name, Path::new(file)).await?;
        while let Some((key, value)) = merge.next().await? {
            load.push(&String::from_utf8_lossy(key), &String::from_utf8_lossy(value)).await?;
            merge.keep().await?;
        }
        load.commit().await.map(drop)
    }

    /// Called with `writing` held. Given up in the middle, everything stays to be done.
    async fn sync_alone(&self, runtime: &Runtime, file: &str, own: &Own<'_>) -> Result<Synced> {
        let name = self.name(file)?;
        // Before the entries are read: what changes from now on is for the next time.
        let (marks, mut edits) = {
            let mut states = self.states();
            let state = states.entry(file.to_owned()).or_default();
            (state.marks, state.edits.clone())
        };
        let last = edits.last();
        edits.append(&own.edits);
        for _ in 0..ATTEMPTS {
            let done = if self.looking || own.whole {
                self.attempt(runtime, file, name, &edits, own.batch).await
            } else {
                self.attempt_edits(file, name, &edits, own.batch).await
            };
            let done = done.inspect_err(|error| {
                self.mark(file);
                tracing::warn!(file, %error, "the entries of a map could not be written to its file");
            })?;
            if let Some(synced) = done {
                let mut states = self.states();
                let state = states.entry(file.to_owned()).or_default();
                state.edits.forget(last);
                state.written = marks;
                drop(states);
                if let Some(listener) = self.listener.get() {
                    listener(file, &edits.all());
                }
                return Ok(synced);
            }
        }
        self.mark(file);
        Err(Error::new(Reason::RuntimeUnavailable, format!("map '{file}': others keep changing its file")))
    }

    /// Nothing when someone else changed the file meanwhile.
    async fn attempt(
        &self,
        runtime: &Runtime,
        file: &str,
        name: &str,
        edits: &MapEdits,
        batch: Option<&MapBatch>,
    ) -> Result<Option<Synced>> {
        let before = seen(file).await?;
        let worker = worker(runtime).await?;
        let (same, newer) = {
            let states = self.states();
            let state = states.get(file);
            (state.and_then(|state| state.same), state.and_then(|state| state.newer))
        };
        // A file of before the worker was loaded by it.
        let loaded = before.is_none_or(|file| file.changed < worker.1) || same == Some((before, worker));
        let known_newer = newer == Some((before, worker));
        let hold = !loaded && (known_newer || !self.agree(runtime, file, name).await?);
        let entries = if hold {
            self.merge_edits(file, name, edits, batch).await?
        } else {
            self.merge_entries(runtime, file, name, edits, batch).await?
        };
        let Some((writer, count)) = entries else {
            self.note(file, (before, worker), hold);
            return Ok(Some(if hold { Synced::Held } else { Synced::Unchanged }));
        };
        if seen(file).await? != before {
            return Ok(None);
        }
        writer.commit().await?;
        self.note(file, (seen(file).await?, worker), hold);
        Ok(Some(if hold { Synced::Held } else { Synced::Written(count) }))
    }

    /// Puts known changes into the file and nothing else. Nothing when someone else changed it meanwhile.
    async fn attempt_edits(
        &self,
        file: &str,
        name: &str,
        edits: &MapEdits,
        batch: Option<&MapBatch>,
    ) -> Result<Option<Synced>> {
        let before = seen(file).await?;
        let Some((writer, count)) = self.merge_edits(file, name, edits, batch).await? else {
            return Ok(Some(Synced::Unchanged));
        };
        if seen(file).await? != before {
            return Ok(None);
        }
        writer.commit().await?;
        Ok(Some(Synced::Written(count)))
    }

    fn note(&self, file: &str, compared: Compared, newer: bool) {
        let mut states = self.states();
        let state = states.entry(file.to_owned()).or_default();
        (state.same, state.newer) = if newer { (None, Some(compared)) } else { (Some(compared), None) };
    }

    /// Whether the file holds just the entries that HAProxy runs with.
    async fn agree(&self, runtime: &Runtime, file: &str, name: &str) -> Result<bool> {
        let mut lines = runtime.map_lines(&MapRef::new(file)?).await?;
        let mut merge = Merge::open(self.store.folder(), name, Path::new(file)).await?;
        while let Some(block) = lines.next_block().await? {
            for entry in block.split(|&byte| byte == b'\n').filter_map(parse_raw_entry) {
                if merge.next().await? != Some((entry.key, entry.value)) {
                    return Ok(false);
                }
                merge.keep().await?;
            }
        }
        Ok(merge.next().await?.is_none())
    }

    /// The file with the entries that HAProxy runs with, edits on top: it may be another worker than took them.
    async fn merge_entries(
        &self,
        runtime: &Runtime,
        file: &str,
        name: &str,
        edits: &MapEdits,
        batch: Option<&MapBatch>,
    ) -> Result<Option<(Writer, u64)>> {
        let mut lines = runtime.map_lines(&MapRef::new(file)?).await?;
        let mut merge = Merge::open(self.store.folder(), name, Path::new(file)).await?;
        let (mut found, mut beside) = (Found::default(), Beside::new(batch).await?);
        while let Some(block) = lines.next_block().await? {
            for entry in block.split(|&byte| byte == b'\n').filter_map(parse_raw_entry) {
                beside.meet(entry.key, entry.value).await?;
                let Some(value) = edits.value(entry.key, entry.value) else { continue };
                if edits.has(entry.key) {
                    found.add(entry.key, value);
                }
                place(&mut merge, entry.key, value).await?;
            }
        }
        for made in edits.made().into_iter().filter(|made| !found.has(made)) {
            place(&mut merge, made.key, made.value).await?;
        }
        while let Some((key, value)) = beside.rest().await? {
            place(&mut merge, key.as_bytes(), value.as_bytes()).await?;
        }
        while merge.next().await?.is_some() {
            merge.drop_line().await?;
        }
        merge.finish().await
    }

    /// The file as it stands, with the edits.
    async fn merge_edits(
        &self,
        file: &str,
        name: &str,
        edits: &MapEdits,
        batch: Option<&MapBatch>,
    ) -> Result<Option<(Writer, u64)>> {
        let mut merge = Merge::open(self.store.folder(), name, Path::new(file)).await?;
        let (mut found, mut beside) = (Found::default(), Beside::new(batch).await?);
        while let Some((key, value)) = merge.next().await? {
            let (key, value) = (key.to_vec(), value.to_vec());
            beside.meet(&key, &value).await?;
            let new = edits.value(&key, &value).filter(|_| !edits.is_anew(&key));
            match new {
                None => merge.drop_line().await?,
                Some(new) if new == value => merge.keep().await?,
                Some(new) => merge.change(new).await?,
            }
            if let Some(new) = new.filter(|_| edits.has(&key)) {
                found.add(&key, new);
            }
        }
        for made in edits.made().into_iter().filter(|made| !found.has(made)) {
            merge.append(made.key, made.value).await?;
        }
        while let Some((key, value)) = beside.rest().await? {
            merge.append(key.as_bytes(), value.as_bytes()).await?;
        }
        merge.finish().await
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that edits name and that were there.
#[derive(Default)]
struct Found(HashMap<Vec<u8>, HashSet<Vec<u8>>>);

impl Found {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0.entry(key.to_vec()).or_default().insert(value.to_vec());
    }

    fn has(&self, made: &Made<'_>) -> bool {
        self.0.get(made.key).is_some_and(|values| !made.beside || values.contains(made.value))
    }
}

/// Goes on to the line of this key and gives it its value. HAProxy lists entries in the order of the file and new ones
/// behind them, so what stands in between is gone.
async fn place(merge: &mut Merge<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    loop {
        match merge.next().await? {
            None => return merge.append(key, value).await,
            Some((found, old)) if found == key => {
                return if old == value { merge.keep().await } else { merge.change(value).await };
            }
            Some(_) => merge.drop_line().await?,
        }
    }
}

async fn worker(runtime: &Runtime) -> Result<Worker> {
    let info = runtime.info().await?;
    let unread = || Error::internal("show info without Pid and Start_time_sec");
    info.pid().zip(info.int("Start_time_sec")).ok_or_else(unread)
}

async fn seen(file: &str) -> Result<Option<Seen>> {
    match tokio::fs::metadata(file).await {
        Ok(metadata) => Ok(Some(Seen {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.len(),
            changed: metadata.ctime().max(metadata.mtime()),
        })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::internal(format!("{file}: {error}"))),
    }
}
