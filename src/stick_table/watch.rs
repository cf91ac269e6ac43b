//! One watcher of a table.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::feed::{SourceKind, Table};
use super::hub::Hub;
use super::locked;
use super::mirror::{Entry, RemovalReason, Revision};
use super::share::{Group, Next, Told, messages};
use super::view::{Scope, View};
use crate::error::Result;

/// A watcher hears something at least this often.
const PROGRESS: Duration = Duration::from_secs(15);
/// Bytes of a chunk by estimate, well below the 1 MiB that it may take on the wire.
pub(super) const CHUNK: usize = 512 * 1024;
/// After some changes a watcher rests for up to so long with each watcher of the table, and is then told all that came
/// meanwhile. The first change after a rest is told at once.
const REST: Duration = Duration::from_micros(750);
/// A rest that is too short is none, and none is longer than this.
const RESTS: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_millis(100);

/// What a watcher asks for.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Which entries.
    pub scope: Scope,
    /// How often the table is read, if it is polled; 50 ms at least. The smallest interval of all watchers counts.
    pub interval: Duration,
    /// The last revision that the watcher has seen. Too old, or of another epoch: it gets a snapshot.
    pub resume: Option<Revision>,
    /// Whether the first snapshot shows its entries. Later ones, after a resync, always do.
    pub entries_in_snapshot: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        WatchOptions {
            scope: Scope::default(),
            interval: Duration::from_secs(1),
            resume: None,
            entries_in_snapshot: true,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A part of all entries; they replace everything that was known before. The revision of all but the last part is
    /// zero: one cannot resume from there.
    Snapshot {
        /// The entries of this part.
        entries: Vec<Entry>,
        /// Whether it is the last part.
        last: bool,
    },
    /// Entries that are new or store other data. An entry that changed several times may appear once.
    Changed(Vec<Entry>),
    /// Entries that are gone.
    Removed {
        /// Their keys.
        keys: Vec<String>,
        /// Why.
        reason: RemovalReason,
    },
    /// Nothing; the watch is alive.
    Progress,
    /// Changes may have been missed: a snapshot follows.
    Resync,
}

/// A message to a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Everything up to here has been told.
    pub revision: Revision,
    /// How the table is read.
    pub source: SourceKind,
    /// How old the newest information is.
    pub staleness: Duration,
    /// What happened.
    pub event: Event,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Before the first message, or after a resync.
    Start { resume: Option<Revision>, entries: bool },
    /// Within a snapshot that began at revision `base`.
    Snapshot { base: Revision, from: u32 },
    /// Everything up to here has been told.
    Live(Revision),
    /// Nothing will follow.
    Ended,
}

/// A running watch. It holds at most one chunk of messages; dropping it ends the watch.
pub struct Watch {
    hub: Hub,
    table: Arc<Table>,
    interval: Duration,
    scope: Scope,
    view: View,
    /// Those whose view it shares instead.
    group: Option<Arc<Mutex<Group>>>,
    place: Place,
    queue: VecDeque<Arc<Told>>,
    /// Until then it is told of no more changes.
    rests: Option<Instant>,
    tick: watch::Receiver<()>,
    progress_at: Instant,
    /// When to look for entries whose rate has faded below the filter, if it is on one.
    fade_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(hub: Hub, table: Arc<Table>, interval: Duration, options: WatchOptions) -> Self {
        Watch {
            hub,
            tick: table.tick.subscribe(),
            table,
            interval,
            view: View::new(&options.scope),
            scope: options.scope,
            group: None,
            rests: None,
            place: Place::Start { resume: options.resume, entries: options.entries_in_snapshot },
            queue: VecDeque::new(),
            progress_at: Instant::now() + PROGRESS,
            fade_at: None,
        }
    }

    /// The next message; after an error, nothing more. May be dropped and called again without losing anything.
    ///
    /// Errors: `OBJECT_NOT_FOUND` when the table is gone, `INVALID_VALUE` when the filter names data that the table
    /// does not store. HAProxy being away is no error.
    pub async fn next(&mut self) -> Option<Result<Update>> {
        let told = self.told().await?;
        Some(told.map(|told| Arc::try_unwrap(told).map_or_else(|told| told.update.clone(), |told| told.update)))
    }

    /// The same, shared with all who are told it.
    pub async fn told(&mut self) -> Option<Result<Arc<Told>>> {
        loop {
            if let Some(told) = self.queue.pop_front() {
                self.progress_at = Instant::now() + PROGRESS;
                return Some(Ok(told));
            }
            if matches!(self.place, Place::Ended) {
                return None;
            }
            if let Some(until) = self.rests {
                sleep_until(until).await;
                self.rests = None;
            }
            self.tick.borrow_and_update();
            if let Err(error) = self.step() {
                self.place = Place::Ended;
                return Some(Err(error));
            }
            if !self.queue.is_empty() {
                let rest = REST * self.table.tick.receiver_count() as u32;
                let live = matches!(self.place, Place::Live(_)) && rest >= RESTS.start;
                self.rests = live.then(|| self.table.next(rest.min(RESTS.end)));
                continue;
            }
            let fade_at = self.fade_at;
            tokio::select! {
                changed = self.tick.changed() => if changed.is_err() { self.place = Place::Ended },
                () = sleep_until(self.progress_at) => self.progress(),
                () = sleep_until(fade_at.unwrap_or(self.progress_at)), if fade_at.is_some() => self.fade(),
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Arc<Told>>> + Send + 'static {
        stream::unfold(self, |mut watch| async move { watch.told().await.map(|told| (told, watch)) })
    }

    /// Looks at the mirror and queues what there is to tell, at most one chunk.
    fn step(&mut self) -> Result<()> {
        let table = self.table.clone();
        if let Some(error) = table.ended() {
            return Err(error);
        }
        let now = table.now();
        let mirror = table.read();
        let current = mirror.revision();
        loop {
            match self.place {
                Place::Ended => return Ok(()),
                Place::Snapshot { base: known, .. } | Place::Live(known) if known.epoch != current.epoch => {
                    self.resync();
                    return Ok(());
                }
                Place::Start { .. } if !mirror.is_complete() => return Ok(()),
                Place::Start { resume, entries } => {
                    self.view.check(&mirror)?;
                    let known = resume.filter(|known| known.epoch == current.epoch);
                    if let Some(known) = known.filter(|known| self.view.resume(&mirror, known.number, now)) {
                        self.place = Place::Live(known);
                    } else if entries {
                        self.view.restart();
                        self.place = Place::Snapshot { base: current, from: 0 };
                    } else {
                        self.view.skip_snapshot(&mirror, now);
                        self.place = Place::Live(current);
                        self.push(current, Event::Snapshot { entries: Vec::new(), last: true });
                        return Ok(());
                    }
                }
                Place::Snapshot { base, from } => {
                    let (entries, next) = self.view.snapshot(&mirror, from, now, CHUNK);
                    let revision = if next.is_none() { base } else { Revision::default() };
                    self.place = match next {
                        Some(from) => Place::Snapshot { base, from },
                        None => Place::Live(base),
                    };
                    self.push(revision, Event::Snapshot { entries, last: next.is_none() });
                    return Ok(());
                }
                Place::Live(known) => {
                    // What an empty table stores is not known before.
                    self.view.check(&mirror)?;
                    if let Some(group) = &self.group {
                        let others = Arc::strong_count(group) > 1;
                        let next = locked(group).next(&table, &mirror, known.number, others);
                        match next {
                            Next::Told(told, number) => {
                                self.queue.extend(told);
                                self.place = Place::Live(Revision { number, ..known });
                                return Ok(());
                            }
                            Next::Alone(view) => (self.group, self.view) = (None, view),
                            Next::Lost => {
                                self.resync();
                                return Ok(());
                            }
                        }
                    }
                    let Some((changes, number)) = self.view.changes(&mirror, known.number, now, CHUNK) else {
                        self.resync();
                        return Ok(());
                    };
                    self.queue.extend(messages(&table, known.epoch, changes));
                    self.place = Place::Live(Revision { number, ..known });
                    let fades = table.kind() == SourceKind::Push && self.view.fades(&mirror);
                    self.fade_at = fades.then(|| self.fade_at.unwrap_or_else(|| Instant::now() + self.interval));
                    // What fades depends on when a watcher looks.
                    if number == current.number && self.view.is_sure(number) && !fades {
                        let view = std::mem::replace(&mut self.view, View::new(&self.scope));
                        self.group = Some(Group::join(&table, &mirror, &self.scope, view, current));
                    }
                    return Ok(());
                }
            }
        }
    }

    fn resync(&mut self) {
        self.group = None;
        self.push(Revision::default(), Event::Resync);
        self.place = Place::Start { resume: None, entries: true };
    }

    /// Rates fade without an update: tells what does not meet the filter any more.
    fn fade(&mut self) {
        self.fade_at = None;
        let Place::Live(revision) = self.place else { return };
        let table = self.table.clone();
        let mirror = table.read();
        let keys = self.view.faded(&mirror, table.now());
        drop(mirror);
        if !keys.is_empty() {
            self.push(revision, Event::Removed { keys, reason: RemovalReason::Unknown });
        }
    }

    fn progress(&mut self) {
        let revision = match self.place {
            Place::Live(revision) => revision,
            Place::Snapshot { .. } | Place::Start { .. } | Place::Ended => Revision::default(),
        };
        self.push(revision, Event::Progress);
    }

    fn push(&mut self, revision: Revision, event: Event) {
        self.queue.push_back(Told::new(&self.table, revision, event));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.hub.leave(&self.table, self.interval);
    }
}
