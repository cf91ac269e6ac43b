//! Runtime overrides: what was written at run time and is to stay over reloads, restarts and kills.
//!
//! A write that is to stay is in the journal before its answer goes out. Whatever worker HAProxy starts gets everything
//! that it does not have yet before it takes an ordinary write ([`WorkerListener::prepare`]). For a map whose file lies
//! in our folder the file is the store: the journal holds what the file does not have yet, and for a while what a worker
//! may lack that was loading when the file was written. For all else the journal is the store, and the configuration
//! wins when its value changes after the write.
//!
//! An entry of a stick table stays as long as HAProxy would keep it, and only where no peers teach the new worker.
//!
//! That holds for ACLs wherever their files lie: /v2 has no call that syncs them, and its clients take the files for what
//! was uploaded.

mod batch;
mod doubts;
mod file_says;
mod journal;
mod list;
mod lives;
mod prepare;
mod state;
mod tables;
mod write;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::journal::Journal;
use self::state::Record;
use self::write::Left;
use crate::configuration::engine::Engine;
use crate::configuration::{Clock, Configuration};
use crate::error::{Error, Reason, Result};
use crate::runtime::{Runtime, ServerState, Worker, WorkerListener};
use crate::storage::{MapEdit, MapSync};

pub use file_says::Overruling;
pub use list::Dropped;
pub use state::{Override, ServerField, Target};
pub use write::{AclRef, Write};

/// How long records wait for the disk, all together.
const SYNC: Duration = Duration::from_millis(100);
/// Writes of different keys that do not wait for each other, at least on average.
const LOCKS: usize = 64;
/// Overrides that were dropped and are still told of.
const DROPPED: usize = 100;

/// Who writes, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// It stays until it is dropped; else it goes with the worker that takes it.
    pub durable: bool,
    /// The file of a map gets it at once.
    pub force_sync: bool,
    /// Name of the user; empty where nobody needs one.
    pub by: String,
}

/// What overrides work on.
pub struct Rooms {
    /// HAProxy.
    pub runtime: Runtime,
    /// Map files.
    pub maps: Arc<MapSync>,
    /// Reads documents.
    pub engine: Engine,
    /// The configuration.
    pub configuration: Arc<Configuration>,
    /// The time of day.
    pub clock: Clock,
}

/// All writes at run time, and those that stay.
pub struct Overrides {
    rooms: Rooms,
    journal: Mutex<Journal>,
    dropped: Mutex<VecDeque<Dropped>>,
    /// Held from a write to its record, so that the last record of a target is of its last write. By hash of the target.
    locks: Vec<tokio::sync::Mutex<()>>,
    appended: Notify,
    /// A write was begun, and what became of it is not known.
    doubted: Notify,
    /// Where batches lie.
    folder: PathBuf,
    /// Batches that were begun.
    batches: AtomicU64,
    /// A record was appended while entries of stick tables are kept.
    lived: Notify,
}

impl Overrides {
    /// Opens the journal in the state folder, and hands map files what they do not have yet. Blocks; for the start of
    /// the program.
    pub fn open(state_dir: &Path, rooms: Rooms) -> Result<Arc<Self>> {
        let overrides = Arc::new(Overrides {
            rooms,
            journal: Mutex::new(Journal::open(&state_dir.join("overrides"))?),
            dropped: Mutex::default(),
            locks: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            appended: Notify::new(),
            doubted: Notify::new(),
            folder: state_dir.to_owned(),
            batches: AtomicU64::new(0),
            lived: Notify::new(),
        });
        batch::sweep(
            state_dir,
            &overrides.journal().state().begun().values().filter_map(|begun| begun.batch.as_ref()).collect::<Vec<_>>(),
        );
        for (map, edits) in overrides.unfiled() {
            overrides.rooms.maps.changed(&map, edits);
        }
        let listener = Arc::downgrade(&overrides);
        overrides.rooms.maps.tell(Arc::new(move |file, edits| {
            if let Some(overrides) = listener.upgrade() {
                overrides.filed(file, edits);
            }
        }));
        Ok(overrides)
    }

    /// Makes a write in HAProxy. When it returns, a durable one is kept, whatever worker there is. After a write of a
    /// server's state it tells how the server is.
    ///
    /// Fails as the commands of the socket do; `INVALID_VALUE` with `force_sync` for a map outside of our folder.
    pub async fn write(&self, write: Write, writer: &Writer) -> Result<Option<ServerState>> {
        let left = write.left();
        let map = map_of(&left).map(str::to_owned);
        let ours = map.as_deref().is_some_and(|map| self.rooms.maps.check(map).is_ok());
        if let Some(map) = map.as_deref().filter(|_| writer.force_sync) {
            self.rooms.maps.check(map)?;
        }
        // The file is the store of what it is to hold, however long the writer wants it to stay.
        let filed = ours && (writer.force_sync || self.rooms.maps.is_looking());
        if left.is_empty() || !(writer.durable || filed) {
            return write.carry_out(&self.rooms.runtime).await;
        }
        if let Write::TableSet(table, key, data) = &write {
            self.check_lasting(table, key, data).await?;
        }
        let _alone = self.alone(&left).await;
        let bases = if ours { vec![None; left.len()] } else { self.bases(&write, &left).await? };
        let before = self.rooms.runtime.worker();
        let begun = self.begin(&left, bases, ours, writer)?;
        let (made, server) = match write.carry_out(&self.rooms.runtime).await {
            Ok(server) => (Ok(()), server),
            Err(error) => (Err(error), None),
        };
        begun.end(made)?;
        self.follow(before, &left).await?;
        if let Some(entry) = left.first().and_then(|(target, _)| target.entry()) {
            self.note_life(entry).await;
        }
        if let Some(map) = map.filter(|_| ours) {
            let edits: Vec<MapEdit> = left.iter().filter_map(edit).collect();
            self.rooms.maps.changed(&map, edits.iter().cloned());
            if writer.force_sync {
                self.rooms.maps.put(&self.rooms.runtime, &map, edits).await?;
            }
        }
        Ok(server)
    }

    /// Makes sure that a worker has what was written which has followed meanwhile: it may have been prepared before the
    /// record was there.
    async fn follow(&self, before: Option<Worker>, left: &[Left]) -> Result<()> {
        let mut known = before;
        while self.rooms.runtime.worker() != known {
            known = self.rooms.runtime.worker();
            self.rooms.runtime.prepared().await;
            for (target, value) in left {
                write::ensure(&self.rooms.runtime, target, value.as_deref()).await?;
            }
        }
        Ok(())
    }

    async fn alone(&self, left: &[Left]) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        match left {
            // All that is written to an entry belongs together.
            [(Target::TableEntry { table, key, .. }, _), ..] => (table, key).hash(&mut hasher),
            [(Target::Map { .. } | Target::MapLine { .. }, _)] | [_, _, ..] => return self.all_alone().await,
            [(target, _)] => target.hash(&mut hasher),
            [] => return Vec::new(),
        }
        let at = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or_default();
        match self.locks.get(at) {
            Some(lock) => vec![lock.lock().await],
            None => Vec::new(),
        }
    }

    async fn all_alone(&self) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
        let mut guards = Vec::with_capacity(LOCKS);
        for lock in &self.locks {
            guards.push(lock.lock().await);
        }
        guards
    }

    /// What the targets were before they are written for the first time.
    async fn bases(&self, write: &Write, left: &[Left]) -> Result<Vec<Option<String>>> {
        let mut bases = Vec::new();
        for (target, _) in left {
            if matches!(target, Target::Server { .. } | Target::FrontendMaxconn { .. }) {
                // A later change of the configuration wins, an earlier one does not.
                bases.push(self.file_says(target));
                continue;
            }
            let known = self.journal().state().get(target).map(|found| found.base.clone());
            bases.push(match (known, write, target) {
                (Some(base), ..) => base,
                // It is added, so there was none.
                (None, Write::MapAdd(..) | Write::MapAppend(..) | Write::AclCreate(..) | Write::AclAdd(..), _) => None,
                (None, Write::AclDelete(..), Target::AclEntry { value, .. }) => Some(value.clone()),
                (None, _, Target::MapEntry { map, key }) => {
                    self.value_in_haproxy(&crate::runtime::MapRef::new(map)?, key).await?
                }
                (None, ..) => None,
            });
        }
        Ok(bases)
    }

    async fn value_in_haproxy(&self, map: &crate::runtime::MapRef, key: &str) -> Result<Option<String>> {
        match self.rooms.runtime.map_entry(map, key).await {
            Ok(entry) => Ok(Some(entry.value)),
            Err(error) if error.reason() == Reason::ObjectNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn append(&self, records: Vec<Record>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal();
        journal.append(records)?;
        self.appended.notify_one();
        if journal.state().lives().next().is_some() {
            self.lived.notify_one();
        }
        Ok(())
    }

    /// Files have these entries now, unless they were changed again meanwhile.
    fn filed(&self, map: &str, edits: &[MapEdit]) {
        let targets = {
            let journal = self.journal();
            let same = |edit: &MapEdit| {
                let (target, value) = target_of(map, edit);
                journal.state().get(&target).is_some_and(|found| found.value == value).then_some(target)
            };
            edits.iter().filter_map(same).collect::<Vec<_>>()
        };
        if targets.is_empty() {
            return;
        }
        if let Err(error) = self.append(vec![Record::Filed { targets, at: self.now() }]) {
            tracing::warn!(map, %error, "the journal of overrides cannot be written");
        }
    }

    /// What files of maps do not have yet.
    fn unfiled(&self) -> Vec<(String, Vec<MapEdit>)> {
        let mut maps: Vec<(String, Vec<MapEdit>)> = Vec::new();
        for found in self.journal().state().as_written().into_iter().filter(|found| found.filed.is_none()) {
            let left = (found.target.clone(), found.value.clone());
            let (Some(map), Some(edit)) = (map_of(std::slice::from_ref(&left)), edit(&left)) else { continue };
            match maps.iter_mut().find(|(other, _)| other == map) {
                Some((_, edits)) => edits.push(edit),
                None => maps.push((map.to_owned(), vec![edit])),
            }
        }
        maps
    }

    /// Brings records to the disk, and finds out what became of writes that nobody got an answer to, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(
            self.keep_up(&stop),
            stop.run_until_cancelled(self.settle_doubts()),
            stop.run_until_cancelled(self.keep_lives())
        );
    }

    async fn keep_up(self: &Arc<Self>, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.appended.notified() => {
                    tokio::time::sleep(SYNC).await;
                    self.sync().await;
                }
            }
        }
        self.sync().await;
    }

    async fn sync(self: &Arc<Self>) {
        let overrides = Arc::clone(self);
        let now = self.now();
        let synced = tokio::task::spawn_blocking(move || -> Result<()> {
            let file = overrides.journal().tidy(now)?;
            file.map_or(Ok(()), |file| file.sync_data().map_err(Error::internal))
        });
        if let Err(error) = synced.await.map_err(Error::internal).and_then(|done| done) {
            tracing::warn!(%error, "the journal of overrides cannot be written");
        }
    }

    fn now(&self) -> i64 {
        i64::try_from((self.rooms.clock)()).unwrap_or(i64::MAX)
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings overrides to each new worker. It does not keep them: they hold HAProxy's client, which holds this.
pub struct Bringer(Weak<Overrides>);

impl Bringer {
    /// For as long as they are there.
    pub fn new(overrides: &Arc<Overrides>) -> Self {
        Bringer(Arc::downgrade(overrides))
    }
}

impl WorkerListener for Bringer {
    fn prepare<'a>(&'a self, worker: Worker, runtime: &'a Runtime) -> futures_util::future::BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(overrides) = self.0.upgrade() {
                overrides.bring(worker, runtime).await;
            }
        })
    }
}

/// The map that a write changes.
fn map_of(left: &[Left]) -> Option<&str> {
    left.iter().find_map(|(target, _)| match target {
        Target::Map { map } | Target::MapEntry { map, .. } | Target::MapLine { map, .. } => Some(map.as_str()),
        _ => None,
    })
}

fn edit((target, value): &Left) -> Option<MapEdit> {
    match target {
        Target::Map { .. } => Some(MapEdit::Cleared),
        Target::MapEntry { key, .. } => Some(MapEdit::Entry(key.clone(), value.clone())),
        Target::MapLine { key, value, .. } => Some(MapEdit::Line(key.clone(), value.clone())),
        _ => None,
    }
}

fn target_of(map: &str, edit: &MapEdit) -> Left {
    let map = map.to_owned();
    match edit {
        MapEdit::Cleared => (Target::Map { map }, None),
        MapEdit::Entry(key, value) => (Target::MapEntry { map, key: key.clone() }, value.clone()),
        MapEdit::Line(key, value) => {
            (Target::MapLine { map, key: key.clone(), value: value.clone() }, Some(value.clone()))
        }
    }
}
