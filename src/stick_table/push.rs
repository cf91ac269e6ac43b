//! Sessions with HAProxy as one of its peers: each keeps the mirrors of all tables of a peers section.
//!
//! A session that breaks is dialled again. Mirrors outlive that, and HAProxy's reloads: when all entries have come again,
//! what differs is told to watchers. Only when a session stays away are its tables left to the poll.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::feed::Feed;
use super::hub::Hub;
pub use super::nodes::Node;
use super::nodes::nodes;
use crate::document::Document;
use crate::peers::{Closed, Options, Phase, Session, Sink, Table, Update};

/// Time for a connection to open, and for HAProxy to take what we send.
const PATIENCE: Duration = Duration::from_secs(5);
/// A session that is away for so long leaves its tables to the poll.
const AWAY: Duration = Duration::from_secs(10);
/// Between two attempts: it doubles from the first to the last.
const BACKOFF: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(5);
/// How often all entries are asked for, which shows removals that HAProxy does not tell.
const RESYNC: Duration = Duration::from_mins(5);
/// The same where other nodes take part: at least this, and so many times as long as it takes.
const SHARED: (Duration, u32) = (Duration::from_secs(1), 20);
/// How often time passes for a session, and for entries that expire.
const TICK: Duration = Duration::from_millis(250);
/// Bytes that are read at a time: a few milliseconds of work.
const CHUNK: usize = 64 << 10;

/// How a session fares.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// All entries have come, and changes come as they happen.
    pub live: bool,
    /// Tables that are mirrored by it.
    pub tables: Vec<String>,
    /// Why it is not there, when it is not.
    pub error: String,
}

/// All sessions. They follow the configuration.
pub struct Push {
    hub: Hub,
    /// Our name in peers sections.
    local: String,
    host: String,
    sessions: Mutex<HashMap<Node, Running>>,
}

struct Running {
    task: AbortHandle,
    status: Arc<Mutex<Status>>,
}

impl Push {
    /// No session yet. `local` is our name as a peer, `host` the name of this machine.
    pub fn new(hub: Hub, local: String, host: String) -> Self {
        Push { hub, local, host, sessions: Mutex::default() }
    }

    /// Our name as a peer, and that of this machine.
    pub fn names(&self) -> (&str, &str) {
        (&self.local, &self.host)
    }

    /// Joins where the configuration names us, and leaves where it does not any more. Needs a Tokio runtime.
    pub fn follow(&self, document: &Document) {
        let wanted = nodes(document, &self.local, &self.host);
        let mut sessions = self.sessions();
        sessions.retain(|node, running| {
            let stays = wanted.contains(node);
            if !stays {
                running.task.abort();
                for table in &locked(&running.status).tables {
                    self.hub.unpush(table);
                }
            }
            stays
        });
        for node in wanted {
            let hub = &self.hub;
            sessions.entry(node).or_insert_with_key(|node| {
                let status = Arc::default();
                let options = Options { local: self.local.clone(), remote: String::new(), pid: std::process::id() };
                let keeper = Keeper::new(hub.clone(), node.clone(), options, Arc::clone(&status));
                Running { task: tokio::spawn(keeper.run()).abort_handle(), status }
            });
        }
    }

    /// Every session with its state, by section.
    pub fn statuses(&self) -> Vec<(Node, Status)> {
        let sessions = self.sessions();
        let mut all: Vec<_> =
            sessions.iter().map(|(node, running)| (node.clone(), locked(&running.status).clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.section.cmp(&other.section));
        all
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Node, Running>> {
        locked(&self.sessions)
    }
}

impl Drop for Push {
    fn drop(&mut self) {
        for running in self.sessions().values() {
            running.task.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the session of one section.
struct Keeper {
    node: Node,
    options: Options,
    tables: Tables,
    /// Zero of its clock.
    zero: Instant,
}

impl Keeper {
    fn new(hub: Hub, node: Node, options: Options, status: Arc<Mutex<Status>>) -> Self {
        let tables = Tables {
            hub,
            section: node.section.clone(),
            shared: node.shared,
            began: Instant::now(),
            took: Duration::ZERO,
            feeds: HashMap::new(),
            described: Vec::new(),
            touched: Vec::new(),
            resyncing: false,
            status,
        };
        Keeper { node, options, tables, zero: Instant::now() }
    }

    async fn run(mut self) {
        let (mut pause, mut since) = (BACKOFF.start, Instant::now());
        for attempt in 0_usize.. {
            let remotes = &self.node.remotes;
            self.options.remote.clone_from(&remotes[attempt % remotes.len()]);
            let ended = self.session().await;
            if locked(&self.tables.status).live {
                (pause, since) = (BACKOFF.start, Instant::now());
            }
            tracing::debug!(section = self.node.section, reason = %ended, "the session as a peer of haproxy ended");
            self.tables.pause(ended.to_string());
            if since.elapsed() >= AWAY {
                self.tables.leave();
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.end);
        }
    }

    /// One session, up to its end.
    async fn session(&mut self) -> Failure {
        match self.converse().await {
            Ok(never) => never,
            Err(failure) => failure,
        }
    }

    async fn converse(&mut self) -> Result<Failure, Failure> {
        let mut socket = timeout(PATIENCE, self.node.address.connect()).await.map_err(|_| Failure::Late)??;
        let mut session = Session::new(&self.options, self.now());
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Instant::now();
        loop {
            let output = session.output();
            if !output.is_empty() {
                timeout(PATIENCE, socket.write_all(&output)).await.map_err(|_| Failure::Late)??;
            }
            tokio::select! {
                read = socket.read(&mut buffer) => {
                    if read? == 0 {
                        return Err(Failure::Hangup);
                    }
                    session.receive(&buffer, self.now(), &mut self.tables)?;
                    buffer.clear();
                    self.tables.notify();
                }
                _ = ticks.tick() => {
                    session.tick(self.now())?;
                    self.tables.expire();
                    let often = if self.node.shared { SHARED.0.max(self.tables.took * SHARED.1) } else { RESYNC };
                    if session.phase() == Phase::Live && asked.elapsed() >= often {
                        asked = Instant::now();
                        session.resync(&mut self.tables);
                    }
                }
            }
        }
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }
}

/// Why a session ended.
enum Failure {
    Io(io::Error),
    Late,
    Hangup,
    Closed(Closed),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        Failure::Closed(closed)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Io(error) => error.fmt(f),
            Failure::Late => write!(f, "haproxy does not take anything for {PATIENCE:?}"),
            Failure::Hangup => f.write_str("haproxy closed the connection"),
            Failure::Closed(closed) => closed.fmt(f),
        }
    }
}

/// The feeds of the tables of a section, by their names on the wire.
struct Tables {
    hub: Hub,
    section: String,
    /// What other nodes change comes with the next resync only.
    shared: bool,
    /// When the resync began, and how long the last one took.
    began: Instant,
    took: Duration,
    feeds: HashMap<String, Feed>,
    /// Tables that were described since the resync began.
    described: Vec<String>,
    /// Tables with updates that watchers have not been told of.
    touched: Vec<String>,
    resyncing: bool,
    status: Arc<Mutex<Status>>,
}

impl Tables {
    /// The session is away, for a moment perhaps.
    fn pause(&mut self, error: String) {
        self.resyncing = false;
        for feed in self.feeds.values() {
            feed.abandon();
            feed.set_live(false);
        }
        let mut status = locked(&self.status);
        (status.live, status.error) = (false, error);
    }

    /// The session is away for long.
    fn leave(&mut self) {
        for feed in self.feeds.drain().map(|(_, feed)| feed) {
            self.hub.unpush(feed.table());
        }
        locked(&self.status).tables.clear();
    }

    fn expire(&self) {
        self.feeds.values().for_each(Feed::expire);
    }

    fn notify(&mut self) {
        for name in self.touched.drain(..) {
            if let Some(feed) = self.feeds.get(&name) {
                feed.notify();
            }
        }
    }

    /// Names on the wire as the Runtime API has them: a table of the peers section itself begins with a slash.
    fn shown(&self, name: &str) -> String {
        match name.strip_prefix('/') {
            Some(table) => format!("{}/{table}", self.section),
            None => name.to_owned(),
        }
    }

    fn drop_table(&mut self, name: &str) {
        if let Some(feed) = self.feeds.remove(name) {
            self.hub.unpush(feed.table());
        }
    }
}

impl Sink for Tables {
    fn resync(&mut self) {
        self.resyncing = true;
        self.began = Instant::now();
        self.described.clear();
        self.feeds.values().for_each(Feed::begin);
    }

    fn resynced(&mut self) {
        self.resyncing = false;
        self.took = self.began.elapsed();
        // All tables of the section are described, also the empty ones: another one is not there any more.
        let gone: Vec<String> = self.feeds.keys().filter(|name| !self.described.contains(name)).cloned().collect();
        for name in &gone {
            self.drop_table(name);
        }
        for feed in self.feeds.values() {
            feed.finish();
            feed.set_live(!self.shared);
        }
        let mut status = locked(&self.status);
        status.live = true;
        status.error.clear();
        status.tables = self.feeds.values().map(|feed| feed.table().to_owned()).collect();
        status.tables.sort();
    }

    fn table(&mut self, table: &Table) {
        self.described.push(table.name.clone());
        if let Some(bit) = table.unknown {
            tracing::warn!(
                table = table.name,
                bit,
                "a stick table stores data of a kind that is not known; it is polled"
            );
            self.drop_table(&table.name);
            return;
        }
        let shown = self.shown(&table.name);
        let feed = self.feeds.entry(table.name.clone()).or_insert_with(|| {
            let feed = self.hub.push(&shown);
            feed.begin();
            feed
        });
        feed.describe(table);
        if !self.resyncing {
            // It came up meanwhile, and holds nothing yet.
            feed.finish();
            feed.set_live(!self.shared);
        }
    }

    fn update(&mut self, table: &Table, update: Update<'_>) {
        let Some(feed) = self.feeds.get(&table.name) else { return };
        feed.update(table, update);
        if self.touched.last() != Some(&table.name) && !self.touched.contains(&table.name) {
            self.touched.push(table.name.clone());
        }
    }
}
