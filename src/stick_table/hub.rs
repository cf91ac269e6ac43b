//! All watched tables: starts a source with the first watcher of a table and stops it after the last.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::feed::{Feed, Source, SourceKind, Table};
use super::watch::{Watch, WatchOptions};
use crate::runtime::Filter;

/// The smallest interval that a watcher gets.
pub(super) const LEAST_INTERVAL: Duration = Duration::from_millis(50);
/// How long the mirror of a table that nobody watches is kept, so that a watcher that comes back can resume.
const LINGER: Duration = Duration::from_mins(1);
/// Changes that are remembered per table, at least.
const LOG_LIMIT: usize = 65_536;

/// What was cleared.
#[derive(Debug, Clone, Copy)]
pub enum Cleared<'a> {
    /// The entry of this key.
    Key(&'a str),
    /// All entries.
    All,
    /// Those that meet all these.
    Where(&'a [Filter]),
}

/// Gives out watches. Cheap to clone; all clones share sources and mirrors.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    source: Arc<dyn Source>,
    tables: Mutex<HashMap<String, Watched>>,
    epochs: Arc<AtomicU64>,
    zero: Instant,
}

/// A table with its watchers.
struct Watched {
    table: Arc<Table>,
    /// One for each watcher.
    intervals: Vec<Duration>,
    /// The poll, while somebody watches and HAProxy does not push.
    task: Option<AbortHandle>,
    /// HAProxy pushes: the mirror is kept up to date whether somebody watches or not.
    pushed: bool,
    /// Times that it lost its last watcher.
    idle: u64,
}

impl Hub {
    /// A hub on a source.
    pub fn new(source: impl Source) -> Self {
        // Epochs of an earlier process must not come again, or its resume tokens would be taken for ours.
        let first = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(1) << 10;
        Hub::with_epochs(source, first)
    }

    /// A hub whose epochs are counted from `first`.
    pub fn with_epochs(source: impl Source, first: u64) -> Self {
        let inner = Inner {
            source: Arc::new(source),
            tables: Mutex::default(),
            epochs: Arc::new(AtomicU64::new(first)),
            zero: Instant::now(),
        };
        Hub { inner: Arc::new(inner) }
    }

    /// Watches a table. Needs a Tokio runtime. Whether the table exists is told by the watch: it ends with
    /// `OBJECT_NOT_FOUND` if not.
    pub fn watch(&self, table: &str, options: WatchOptions) -> Watch {
        let interval = options.interval.max(LEAST_INTERVAL);
        let mut tables = self.tables();
        let inner = &self.inner;
        let watched = tables.entry(table.to_owned()).or_insert_with(|| inner.create(table, interval));
        if watched.table.ended().is_some() {
            *watched = inner.create(table, interval);
        }
        watched.intervals.push(interval);
        watched.set_interval();
        if watched.task.is_none() && !watched.pushed {
            watched.poll(&*inner.source);
        }
        Watch::new(self.clone(), watched.table.clone(), interval, options)
    }

    /// HAProxy pushes the changes of a table from now on. What is polled ends; watchers get a fresh snapshot when all
    /// entries have come.
    pub fn push(&self, table: &str) -> Feed {
        let mut tables = self.tables();
        let create = || self.inner.create(table, Duration::from_secs(1));
        let watched = tables.entry(table.to_owned()).or_insert_with(create);
        if watched.table.ended().is_some() {
            *watched = create();
        }
        if let Some(task) = watched.task.take() {
            task.abort();
        }
        watched.pushed = true;
        Feed::new(watched.table.clone(), SourceKind::Push)
    }

    /// A table that HAProxy pushes.
    pub(super) fn pushed(&self, table: &str) -> Option<Arc<Table>> {
        self.tables().get(table).filter(|watched| watched.pushed).map(|watched| watched.table.clone())
    }

    /// HAProxy pushes them no more: who watches is served by polls again.
    pub fn unpush(&self, table: &str) {
        let mut tables = self.tables();
        let Some(watched) = tables.get_mut(table).filter(|watched| watched.pushed) else { return };
        watched.pushed = false;
        if watched.intervals.is_empty() {
            tables.remove(table);
        } else {
            watched.table.lose();
            watched.poll(&*self.inner.source);
        }
    }

    /// Says that entries were cleared through this program, so that watchers hear of it at once and why.
    pub fn cleared(&self, table: &str, what: Cleared<'_>) {
        let Some(table) = self.tables().get(table).map(|watched| watched.table.clone()) else { return };
        match what {
            Cleared::Key(key) => table.write().cleared(key),
            Cleared::All => table.write().cleared_all(),
            Cleared::Where(filters) => {
                let now = table.now();
                table.write().cleared_where(filters, now);
            }
        }
        table.tick.send_replace(());
        table.hurry();
    }

    /// Says that entries were changed through this program: where the table is polled, it is looked at again at once.
    pub fn changed(&self, table: &str) {
        if let Some(watched) = self.tables().get(table).filter(|watched| !watched.pushed) {
            watched.table.hurry();
        }
    }

    /// Says that HAProxy was reloaded or replaced: every watcher gets a `resync` and a fresh snapshot.
    pub fn reloaded(&self) {
        // Who is pushed to finds out by itself, and resyncs.
        for watched in self.tables().values().filter(|watched| !watched.pushed) {
            watched.table.lose();
            watched.table.hurry();
        }
    }

    /// Names of the tables that are read now, with the number of their watchers.
    pub fn watched(&self) -> Vec<(String, usize)> {
        let tables = self.tables();
        let watched = tables.iter().filter(|(_, watched)| !watched.intervals.is_empty());
        watched.map(|(name, watched)| (name.clone(), watched.intervals.len())).collect()
    }

    /// A watcher is gone.
    pub(super) fn leave(&self, table: &Arc<Table>, interval: Duration) {
        let mut tables = self.tables();
        // A table that ended may have been replaced by another one of the same name.
        let Some(watched) = tables.get_mut(&table.name).filter(|watched| Arc::ptr_eq(&watched.table, table)) else {
            return;
        };
        if let Some(at) = watched.intervals.iter().position(|known| *known == interval) {
            watched.intervals.swap_remove(at);
        }
        watched.set_interval();
        if !watched.intervals.is_empty() || watched.pushed {
            return;
        }
        if let Some(task) = watched.task.take() {
            task.abort();
        }
        watched.idle += 1;
        let (idle, hub, name) = (watched.idle, self.clone(), table.name.clone());
        match Handle::try_current() {
            Ok(runtime) if table.ended().is_none() => {
                runtime.spawn(async move {
                    sleep(LINGER).await;
                    hub.forget(&name, idle);
                });
            }
            _ => drop(tables.remove(&table.name)),
        }
    }

    /// Frees the mirror of a table that nobody has watched since.
    fn forget(&self, name: &str, idle: u64) {
        let mut tables = self.tables();
        let unused = |watched: &Watched| watched.intervals.is_empty() && !watched.pushed && watched.idle == idle;
        if tables.get(name).is_some_and(unused) {
            tables.remove(name);
        }
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.inner.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn create(&self, table: &str, interval: Duration) -> Watched {
        let table = Table::new(table.to_owned(), self.epochs.clone(), self.zero, interval, LOG_LIMIT);
        Watched { table: Arc::new(table), intervals: Vec::new(), task: None, pushed: false, idle: 0 }
    }
}

impl Watched {
    /// Starts the poll.
    fn poll(&mut self, source: &dyn Source) {
        let feed = Feed::new(self.table.clone(), SourceKind::Poll);
        let (table, run) = (self.table.clone(), source.run(feed));
        let task = tokio::spawn(async move { table.end(run.await) });
        self.task = Some(task.abort_handle());
    }

    fn set_interval(&self) {
        if let Some(least) = self.intervals.iter().min() {
            self.table.interval.send_if_modified(|now| std::mem::replace(now, *least) != *least);
        }
    }
}
