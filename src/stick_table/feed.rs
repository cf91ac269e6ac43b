//! Between a source of updates and the mirror of a table.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::mirror::{LayoutChanged, Mirror};
use super::share::Groups;
use crate::error::Error;
use crate::peers;
use crate::runtime::RawTableEntry;

/// How updates come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// The table is read again and again.
    Poll,
    /// HAProxy sends each update.
    Push,
}

/// Where updates of tables come from.
pub trait Source: Send + Sync + 'static {
    /// Feeds a table for as long as the future is polled; it is dropped when nobody watches any more.
    ///
    /// Ends only when the table can no longer be watched, with the reason: every watcher ends with it. HAProxy being
    /// away is none: the source says [`Feed::lost`] and tries again.
    fn run(&self, feed: Feed) -> BoxFuture<'static, Error>;
}

/// A table that is watched: its mirror, and what source and watchers tell each other.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Whether HAProxy sends each update.
    pushed: AtomicBool,
    /// Number of the feed that may write; an earlier one may still be ending.
    writer: AtomicU64,
    mirror: RwLock<Mirror>,
    /// Numbers for new epochs, shared by all tables.
    epochs: Arc<AtomicU64>,
    /// Zero of the mirror's clock.
    zero: Instant,
    /// Tells watchers that there is something to look at.
    pub(super) tick: watch::Sender<()>,
    /// Watchers who are told the same.
    pub(super) groups: Groups,
    /// The smallest interval that a watcher wants.
    pub(super) interval: watch::Sender<Duration>,
    /// Asks the source to look at once.
    hurry: Notify,
    status: Mutex<Status>,
}

#[derive(Debug, Default)]
struct Status {
    ended: Option<Error>,
    lost: bool,
    /// Updates come as they happen.
    live: bool,
    /// When the state that watchers see was true.
    taken: Option<Instant>,
    /// When the dump in progress began.
    began: Option<Instant>,
    /// Whether nothing of it has come yet.
    first: bool,
}

impl Table {
    pub(super) fn new(
        name: String,
        epochs: Arc<AtomicU64>,
        zero: Instant,
        interval: Duration,
        log_limit: usize,
    ) -> Self {
        let mirror = Mirror::new(epochs.fetch_add(1, Ordering::Relaxed), log_limit);
        Table {
            name,
            pushed: AtomicBool::new(false),
            writer: AtomicU64::new(0),
            mirror: RwLock::new(mirror),
            epochs,
            zero,
            tick: watch::Sender::new(()),
            groups: Groups::default(),
            interval: watch::Sender::new(interval),
            hurry: Notify::new(),
            status: Mutex::default(),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Mirror> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Mirror> {
        self.mirror.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How updates come.
    pub(super) fn kind(&self) -> SourceKind {
        if self.pushed.load(Ordering::Relaxed) { SourceKind::Push } else { SourceKind::Poll }
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mirror's clock.
    pub(super) fn now(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }

    /// The next end of a period. All who ask before it are told the same, so that they go on together.
    pub(super) fn next(&self, period: Duration) -> Instant {
        let period = period.as_nanos().max(1);
        let left = period - self.zero.elapsed().as_nanos() % period;
        Instant::now() + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// How old the state is that watchers see.
    pub(super) fn staleness(&self) -> Duration {
        let status = self.status();
        if status.live {
            return Duration::ZERO;
        }
        status.taken.map_or(Duration::ZERO, |taken| taken.elapsed())
    }

    /// Why the table can no longer be watched.
    pub(super) fn ended(&self) -> Option<Error> {
        self.status().ended.clone()
    }

    pub(super) fn end(&self, error: Error) {
        self.status().ended = Some(error);
        self.tick.send_replace(());
    }

    /// The next dump starts a new epoch.
    pub(super) fn lose(&self) {
        self.status().lost = true;
    }

    /// Asks the source to look at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// A mirror that a table was found to be as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    number: u64,
    epoch: u64,
}

/// What a source writes to.
#[derive(Debug, Clone)]
pub struct Feed {
    table: Arc<Table>,
    /// It writes as long as the table has this number.
    number: u64,
}

impl Feed {
    /// A feed of another kind; earlier ones of the table have no effect any more.
    pub(super) fn new(table: Arc<Table>, kind: SourceKind) -> Self {
        // With the lock held nobody is writing.
        let lock = table.write();
        let number = table.writer.fetch_add(1, Ordering::Relaxed) + 1;
        table.pushed.store(kind == SourceKind::Push, Ordering::Relaxed);
        drop(lock);
        table.status().live = false;
        Feed { table, number }
    }

    /// The mirror, if it is still this feed that may write.
    fn mirror(&self) -> Option<RwLockWriteGuard<'_, Mirror>> {
        let mirror = self.table.write();
        (self.table.writer.load(Ordering::Relaxed) == self.number).then_some(mirror)
    }

    /// What HAProxy says of the table. Another layout than before starts a new epoch.
    pub fn describe(&self, table: &peers::Table) {
        let Some(mut mirror) = self.mirror() else { return };
        if !mirror.describes(table) {
            mirror.reset(self.table.epochs.fetch_add(1, Ordering::Relaxed));
            mirror.describe(table);
            mirror.begin();
        }
    }

    /// Entries that HAProxy has sent. Watchers hear of them with [`Feed::notify`].
    pub fn updates(&self, table: &peers::Table, updates: peers::Updates<'_>) {
        let now = self.table.now();
        if let Some(mut mirror) = self.mirror() {
            mirror.updates(table, updates.iter(), now);
        }
    }

    /// What another node has changed. False if its table is not that of the mirror; `fit` is where this is remembered.
    pub(super) fn merge(&self, table: &peers::Table, update: peers::Update<'_>, fit: &mut Option<Fit>) -> bool {
        let now = self.table.now();
        let Some(mut mirror) = self.mirror() else { return true };
        // Not described yet: all that there is comes then.
        if mirror.columns().is_empty() {
            return true;
        }
        let this = Fit { number: self.number, epoch: mirror.revision().epoch };
        if *fit != Some(this) {
            if !mirror.describes(table) {
                return false;
            }
            *fit = Some(this);
        }
        mirror.merge(table, update, now);
        true
    }

    /// Removes what has expired.
    pub fn expire(&self) {
        let now = self.table.now();
        let Some(mut mirror) = self.mirror() else { return };
        let before = mirror.revision();
        mirror.expire(now);
        if mirror.revision() != before {
            drop(mirror);
            self.notify();
        }
    }

    /// Whether updates come as they happen from now on.
    pub fn set_live(&self, live: bool) {
        let mut status = self.table.status();
        if status.live && !live {
            status.taken = Some(Instant::now());
        }
        status.live = live;
    }

    /// Tells watchers that there is something to look at.
    pub fn notify(&self) {
        self.table.tick.send_replace(());
    }

    /// Name of the table.
    pub fn table(&self) -> &str {
        &self.table.name
    }

    /// A dump begins.
    pub fn begin(&self) {
        {
            let mut status = self.table.status();
            status.began = Some(Instant::now());
            status.first = true;
        }
        if let Some(mut mirror) = self.mirror() {
            mirror.begin();
        }
    }

    /// Whole lines of the dump.
    pub fn observe(&self, block: &[u8]) -> Result<(), LayoutChanged> {
        self.arrived();
        let now = self.table.now();
        let Some(mut mirror) = self.mirror() else { return Ok(()) };
        block
            .split(|&byte| byte == b'\n')
            .filter_map(RawTableEntry::parse)
            .try_for_each(|entry| mirror.observe(&entry, now))
    }

    /// The dump is complete.
    pub fn finish(&self) {
        self.arrived();
        let now = self.table.now();
        if let Some(mut mirror) = self.mirror() {
            mirror.finish(now);
        }
        {
            let mut status = self.table.status();
            status.taken = status.began.take();
        }
        self.table.tick.send_replace(());
    }

    /// With the first that comes of a dump a new epoch begins, if one is due: not before, since HAProxy may still be
    /// away, and not later, since one dump must not be spread over two epochs.
    fn arrived(&self) {
        let due = {
            let mut status = self.table.status();
            std::mem::take(&mut status.first) && std::mem::take(&mut status.lost)
        };
        if due {
            let Some(mut mirror) = self.mirror() else { return };
            mirror.reset(self.table.epochs.fetch_add(1, Ordering::Relaxed));
            mirror.begin();
            drop(mirror);
            self.table.tick.send_replace(());
        }
    }

    /// The dump broke off.
    pub fn abandon(&self) {
        if let Some(mut mirror) = self.mirror() {
            mirror.abandon();
        }
    }

    /// Updates may have been missed: with the next dump watchers get a `resync` and a fresh snapshot.
    pub fn lost(&self) {
        self.table.lose();
    }

    /// Whether somebody has asked since to look at once.
    pub(super) fn hurried(&self) -> bool {
        self.table.hurry.notified().now_or_never().is_some()
    }

    /// Waits until the next dump is due: the interval that watchers want after `start`, but at least `pause`; at once
    /// after `pause` if somebody asks.
    pub async fn wait(&self, start: Instant, pause: Duration) {
        let mut interval = self.table.interval.subscribe();
        let mut hurried = false;
        loop {
            let wanted = *interval.borrow_and_update();
            let due = start + if hurried { pause } else { wanted.max(pause) };
            tokio::select! {
                () = sleep_until(due) => return,
                () = self.table.hurry.notified(), if !hurried => hurried = true,
                changed = interval.changed() => if changed.is_err() { return },
            }
        }
    }
}
