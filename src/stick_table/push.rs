//! Sessions with HAProxy as one of its peers: each keeps the mirrors of all tables of a peers section.
//!
//! A session that breaks is dialled again. Mirrors outlive that, and HAProxy's reloads: when all entries have come again,
//! what differs is told to watchers. Only when a session stays away are its tables left to the poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::dial::{Follower, Lines, Peer, Seat};
use super::feed::Feed;
use super::hub::Hub;
pub use super::nodes::Node;
use super::nodes::nodes;
use super::tls::Tls;
use crate::document::Document;
use crate::peers::{Sink, Table, Update};

/// A session that is away for so long leaves its tables to the poll.
const AWAY: Duration = Duration::from_secs(10);
/// How often all entries are asked for, which shows removals that HAProxy does not tell.
const RESYNC: Duration = Duration::from_mins(5);
/// The same where other nodes take part: at least this, and so many times as long as it takes.
const SHARED: (Duration, u32) = (Duration::from_secs(1), 20);

/// What is said of a section that cannot be joined without settings.
const NO_TLS: &str =
    "haproxy listens with TLS there, and peer-tls-ca is not set: stick tables of the section are polled";

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
    tls: Option<Tls>,
    lines: Lines,
    sessions: Mutex<HashMap<Node, Running>>,
}

struct Running {
    /// None where we cannot take one.
    seat: Option<Seat>,
    status: Arc<Mutex<Status>>,
}

impl Push {
    /// No session yet. `local` is our name as a peer, `host` the name of this machine.
    pub fn new(hub: Hub, local: String, host: String) -> Self {
        Push { hub, local, host, tls: None, lines: Lines::default(), sessions: Mutex::default() }
    }

    /// The same with sessions over TLS where HAProxy listens so.
    #[must_use]
    pub fn over_tls(self, tls: Option<Tls>) -> Self {
        Push { tls, ..self }
    }

    /// Our name as a peer, and that of this machine.
    pub fn names(&self) -> (&str, &str) {
        (&self.local, &self.host)
    }

    /// The sessions, for others who need the same ones.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Joins where the configuration names us, and leaves where it does not any more. Needs a Tokio runtime.
    pub fn follow(&self, document: &Document) {
        let wanted = nodes(document, &self.local, &self.host);
        let mut sessions = self.sessions();
        let gone: Vec<Node> = sessions.keys().filter(|node| !wanted.contains(node)).cloned().collect();
        for running in gone.iter().filter_map(|node| sessions.remove(node)) {
            // From here on nothing comes any more.
            drop(running.seat);
            for table in &locked(&running.status).tables {
                self.hub.unpush(table);
            }
        }
        for node in wanted {
            sessions.entry(node).or_insert_with_key(|node| {
                let status: Arc<Mutex<Status>> = Arc::default();
                let Node { section, address, remotes, tls, .. } = node.clone();
                if tls && self.tls.is_none() {
                    tracing::warn!(section, setting = "peer-tls-ca", "{NO_TLS}");
                    NO_TLS.clone_into(&mut locked(&status).error);
                    return Running { seat: None, status };
                }
                let tables = Tables::new(self.hub.clone(), node, Arc::clone(&status));
                let peer = Peer { address, local: self.local.clone(), remotes };
                let tls = self.tls.clone().filter(|_| tls);
                Running { seat: Some(self.lines.join_over(tls, peer, Box::new(tables))), status }
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Entries were cleared through us, and may have changed at the same time: HAProxy knows better.
    hurried: bool,
    status: Arc<Mutex<Status>>,
}

impl Tables {
    fn new(hub: Hub, node: &Node, status: Arc<Mutex<Status>>) -> Self {
        Tables {
            hub,
            section: node.section.clone(),
            shared: node.shared,
            began: Instant::now(),
            took: Duration::ZERO,
            feeds: HashMap::new(),
            described: Vec::new(),
            touched: Vec::new(),
            resyncing: false,
            hurried: false,
            status,
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

impl Follower for Tables {
    fn told(&mut self) {
        for name in self.touched.drain(..) {
            if let Some(feed) = self.feeds.get(&name) {
                feed.notify();
            }
        }
    }

    fn tick(&mut self) {
        self.feeds.values().for_each(Feed::expire);
        // Each is asked, so that none is still waiting afterwards.
        self.hurried |= self.feeds.values().filter(|feed| feed.hurried()).count() > 0;
    }

    fn resync_after(&self) -> Duration {
        if self.shared || self.hurried { SHARED.0.max(self.took * SHARED.1) } else { RESYNC }
    }

    fn ended(&mut self, reason: &str, away: Duration) {
        self.resyncing = false;
        for feed in self.feeds.values() {
            feed.abandon();
            feed.set_live(false);
        }
        let mut status = locked(&self.status);
        status.live = false;
        reason.clone_into(&mut status.error);
        if away >= AWAY {
            status.tables.clear();
            drop(status);
            for feed in self.feeds.drain().map(|(_, feed)| feed) {
                self.hub.unpush(feed.table());
            }
        }
    }
}

impl Sink for Tables {
    fn resync(&mut self) {
        (self.resyncing, self.hurried) = (true, false);
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
