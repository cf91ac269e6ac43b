//! Sessions with the other nodes of a peers section.
//!
//! HAProxy tells us of what it changes itself, and of what other nodes change only when it is asked for all entries. So we
//! are a peer of the other nodes as well, and what they change goes into the mirrors that the session with our own HAProxy
//! keeps. That one alone says which entries there are: of the others only changes count, as they happen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::dial::Follower;
use super::feed::{Feed, Fit};
use super::locked;
use super::push::Status;
use crate::peers::{Sink, Table, Update, Updates};

/// Numbers of what a node has learned from others begin here.
const LEARNED: u32 = 1 << 31;
/// A session that ends so soon was pushed out by another one of our name.
const SOON: Duration = Duration::from_secs(10);
/// So often in a row, and we leave the place to it for so long.
const PUSHED_OUT: (u32, Duration) = (2, Duration::from_mins(10));

/// What the sessions with the nodes of a section share.
pub(super) struct Others {
    count: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    /// By their names on the wire.
    feeds: HashMap<String, Feed>,
    /// Nodes whose changes do not come.
    missing: usize,
    /// A node has come: what it changed before is known after the next resync.
    came: bool,
}

impl Others {
    /// For so many nodes, all of which are missing.
    pub(super) fn new(missing: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner { feeds: HashMap::new(), missing, came: false });
        Arc::new(Others { count: missing, inner })
    }

    /// Whether there is no other node.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }

    /// Whether all changes come as they happen.
    pub(super) fn whole(&self) -> bool {
        self.inner().missing == 0
    }

    /// Whether a node has come since.
    pub(super) fn came(&self) -> bool {
        std::mem::take(&mut self.inner().came)
    }

    pub(super) fn add(&self, name: &str, feed: Feed) {
        self.inner().feeds.insert(name.to_owned(), feed);
    }

    pub(super) fn remove(&self, name: &str) {
        self.inner().feeds.remove(name);
    }

    fn come(&self) {
        let mut inner = self.inner();
        inner.missing -= 1;
        inner.came = true;
    }

    fn go(&self) {
        let mut inner = self.inner();
        inner.missing += 1;
        inner.feeds.values().for_each(|feed| feed.set_live(false));
    }
}

/// What one other node changes.
pub(super) struct Other {
    others: Arc<Others>,
    status: Arc<Mutex<Status>>,
    /// Whether its changes come.
    live: Option<Instant>,
    resyncing: bool,
    tables: HashMap<String, Seen>,
    /// Tables with changes that watchers have not been told of.
    touched: Vec<String>,
    /// How often in a row it was pushed out.
    pushed_out: u32,
}

#[derive(Default)]
struct Seen {
    /// The last change that came with all entries. It may come again.
    last: u32,
    /// The mirror that it fits.
    fit: Option<Fit>,
}

impl Other {
    pub(super) fn new(others: Arc<Others>, status: Arc<Mutex<Status>>) -> Self {
        let (tables, touched) = (HashMap::new(), Vec::new());
        Other { others, status, live: None, resyncing: false, tables, touched, pushed_out: 0 }
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        locked(&self.status)
    }

    fn gone(&mut self, reason: &str) {
        if self.live.take().is_some() {
            self.others.go();
        }
        let mut status = self.status();
        status.live = false;
        reason.clone_into(&mut status.error);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.gone("");
    }
}

impl Follower for Other {
    fn told(&mut self) {
        let inner = self.others.inner();
        for name in self.touched.drain(..) {
            if let Some(feed) = inner.feeds.get(&name) {
                feed.notify();
            }
        }
    }

    /// Only what comes by itself counts.
    fn resync_after(&self) -> Duration {
        Duration::MAX
    }

    fn ended(&mut self, reason: &str, _: Duration) {
        let soon = self.live.is_some_and(|since| since.elapsed() < SOON);
        self.pushed_out = if soon { self.pushed_out + 1 } else { 0 };
        self.gone(reason);
    }

    fn rest(&mut self) -> Option<Duration> {
        let (often, rest) = PUSHED_OUT;
        if self.pushed_out < often {
            return None;
        }
        self.pushed_out = 0;
        let reason = "another program is a peer of this node under our name: give each its own peer-name";
        tracing::warn!("{reason}; changes of other nodes come late");
        reason.clone_into(&mut self.status().error);
        Some(rest)
    }
}

impl Sink for Other {
    fn resync(&mut self) {
        self.resyncing = true;
        self.tables.clear();
    }

    fn resynced(&mut self) {
        self.resyncing = false;
        if self.live.is_none() {
            self.live = Some(Instant::now());
            self.others.come();
        } else {
            // Somebody else asked for it. What was changed meanwhile came with it, and is to come from our own node.
            self.others.inner().came = true;
        }
        let mut status = self.status();
        status.live = true;
        status.error.clear();
    }

    fn table(&mut self, table: &Table) {
        self.tables.entry(table.name.clone()).or_default().fit = None;
    }

    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        updates.iter().for_each(|update| self.update(table, update));
    }
}

impl Other {
    fn update(&mut self, table: &Table, update: Update<'_>) {
        let Some(seen) = self.tables.get_mut(&table.name) else { return };
        if self.resyncing {
            if update.number < LEARNED {
                seen.last = seen.last.max(update.number);
            }
            return;
        }
        // What came with all entries comes once more, as if it had been changed now.
        if update.number <= seen.last || update.number >= LEARNED {
            return;
        }
        let fits = match self.others.inner().feeds.get(&table.name) {
            Some(feed) => feed.merge(table, update, &mut seen.fit),
            None => return,
        };
        if !fits {
            self.gone(&format!("table '{}' is stored in another way there", table.name));
        } else if self.touched.last() != Some(&table.name) && !self.touched.contains(&table.name) {
            self.touched.push(table.name.clone());
        }
    }
}
