//! Sessions with HAProxy as one of its peers: each keeps the mirrors of all tables of a peers section.
//!
//! A session that breaks is dialled again. Mirrors outlive that, and HAProxy's reloads: when all entries have come again,
//! what differs is told to watchers. Only when a session stays away are its tables left to the poll.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::dial::{Follower, Lines, Peer, Seat};
use super::feed::Feed;
use super::hub::Hub;
use super::locked;
use super::nodes::nodes;
pub use super::nodes::{Another, Node};
use super::others::{Other, Others};
use super::tls::Tls;
use crate::document::Document;
use crate::peers::{Sink, Table, Updates};
use crate::runtime::Address;

/// A session that is away for so long leaves its tables to the poll.
const AWAY: Duration = Duration::from_secs(10);
/// How often all entries are asked for where other nodes take part whose changes do not come to us: at least this, and so
/// many times as long as it takes.
const SHARED: (Duration, u32) = (Duration::from_secs(1), 20);
/// The same where all changes come, once there was one. It heals what HAProxy never sends: changes of other nodes that
/// cross ours, and with several threads the last change of an entry that was made while it was sent.
const WHOLE: (Duration, u32) = (Duration::from_secs(30), 100);
/// The same where nothing has changed. It shows what others cleared.
const QUIET: (Duration, u32) = (WHOLE.0, 500);

/// What is said of a section that cannot be joined without settings.
const NO_TLS: &str =
    "haproxy listens with TLS there, and peer-tls-ca is not set: stick tables of the section are polled";

/// What is said of a node that we do not know how to reach.
const NO_ADDRESS: &str = "its address is not known: what it changes comes late";

/// After a clear through us, and while HAProxy says that it does not have all entries itself, all are asked for after so
/// many times as long as it takes.
const SOON: u32 = 4;

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
    /// At the session with our own HAProxy and at those with other nodes, where we can take one.
    seats: Vec<Seat>,
    status: Arc<Mutex<Status>>,
    /// How the sessions with other nodes fare.
    others: Vec<Arc<Mutex<Status>>>,
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
            drop(running.seats);
            for table in &locked(&running.status).tables {
                self.hub.unpush(table);
            }
        }
        for node in wanted {
            sessions.entry(node).or_insert_with_key(|node| self.join(node));
        }
    }

    fn join(&self, node: &Node) -> Running {
        let status: Arc<Mutex<Status>> = Arc::default();
        let others = Others::new(node.others.len());
        let tables = Box::new(Tables::new(self.hub.clone(), node, Arc::clone(&others), Arc::clone(&status)));
        let own = self.seat(&node.section, node.tls, Some(&node.address), &node.remotes, tables, &status);
        let mut running = Running { seats: own.into_iter().collect(), status, others: Vec::new() };
        for other in &node.others {
            let status: Arc<Mutex<Status>> = Arc::default();
            let follower = Box::new(Other::new(Arc::clone(&others), Arc::clone(&status)));
            let names = std::slice::from_ref(&other.name);
            // Where there is no session with our own HAProxy there is no mirror to keep.
            if !running.seats.is_empty() {
                let seat = self.seat(&node.section, other.tls, other.address.as_ref(), names, follower, &status);
                running.seats.extend(seat);
            }
            running.others.push(status);
        }
        running
    }

    /// Takes a place at a session, if we can have one; else its status says why not.
    fn seat(
        &self,
        section: &str,
        tls: bool,
        address: Option<&Address>,
        remotes: &[String],
        follower: Box<dyn Follower>,
        status: &Mutex<Status>,
    ) -> Option<Seat> {
        if tls && self.tls.is_none() {
            tracing::warn!(section, setting = "peer-tls-ca", "{NO_TLS}");
        }
        let reason = match address {
            _ if tls && self.tls.is_none() => NO_TLS,
            None => NO_ADDRESS,
            Some(address) => {
                let peer = Peer { address: address.clone(), local: self.local.clone(), remotes: remotes.to_vec() };
                return Some(self.lines.join_over(self.tls.clone().filter(|_| tls), peer, follower));
            }
        };
        drop(follower);
        reason.clone_into(&mut locked(status).error);
        None
    }

    /// Every session with its state, by section.
    pub fn statuses(&self) -> Vec<(Node, Status)> {
        let sessions = self.sessions();
        let mut all: Vec<_> =
            sessions.iter().map(|(node, running)| (node.clone(), locked(&running.status).clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.section.cmp(&other.section));
        all
    }

    /// Every session with another node, by section.
    pub fn others(&self) -> Vec<(Node, Another, Status)> {
        let sessions = self.sessions();
        let each = sessions.iter().flat_map(|(node, running)| {
            let pairs = node.others.iter().zip(&running.others);
            pairs.map(|(other, status)| (node.clone(), other.clone(), locked(status).clone()))
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by(|one, other| (&one.0.section, &one.1.name).cmp(&(&other.0.section, &other.1.name)));
        all
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Node, Running>> {
        locked(&self.sessions)
    }
}

/// The feeds of the tables of a section, by their names on the wire.
struct Tables {
    hub: Hub,
    section: String,
    /// Sessions with the other nodes that share the tables, if there are any.
    others: Arc<Others>,
    /// Whether all of them were there when the resync began.
    whole: bool,
    /// When the resync began, and how long the last one took.
    began: Instant,
    took: Duration,
    feeds: HashMap<String, Feed>,
    /// Tables that were described since the resync began.
    described: Vec<String>,
    /// Tables with updates that watchers have not been told of.
    touched: Vec<String>,
    resyncing: bool,
    /// Something has changed since then.
    changed: bool,
    /// All entries are asked for after so many times as long as it takes: some were cleared through us, and may have
    /// changed at the same time; or HAProxy was still learning some, which it would never tell by itself.
    hurried: Option<u32>,
    status: Arc<Mutex<Status>>,
}

impl Tables {
    fn new(hub: Hub, node: &Node, others: Arc<Others>, status: Arc<Mutex<Status>>) -> Self {
        Tables {
            hub,
            section: node.section.clone(),
            others,
            whole: false,
            began: Instant::now(),
            took: Duration::ZERO,
            feeds: HashMap::new(),
            described: Vec::new(),
            touched: Vec::new(),
            resyncing: false,
            changed: false,
            hurried: None,
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
            self.others.remove(name);
            self.hub.unpush(feed.table());
        }
    }

    /// Whether all changes come as they happen, and what was changed before is known.
    fn live(&self) -> bool {
        self.others.is_empty() || self.whole && self.others.whole()
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
        let hurried = self.feeds.values().filter(|feed| feed.hurried()).count() > 0;
        let came = self.others.came();
        if hurried {
            self.hurried = Some(SOON);
        } else if came {
            self.hurried = self.hurried.or(Some(SHARED.1));
        }
    }

    fn resync_after(&self) -> Duration {
        let after = |(least, times)| self.took.saturating_mul(times).max(least);
        match self.hurried {
            Some(times) => after((SHARED.0, times)),
            None if !self.others.whole() => after(SHARED),
            None if self.changed => after(WHOLE),
            None => after(QUIET),
        }
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
            for (name, feed) in self.feeds.drain() {
                self.others.remove(&name);
                self.hub.unpush(feed.table());
            }
        }
    }
}

impl Sink for Tables {
    fn resync(&mut self) {
        (self.resyncing, self.changed, self.hurried) = (true, false, None);
        self.others.came();
        self.whole = self.others.whole();
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
        let live = self.live();
        for feed in self.feeds.values() {
            feed.finish();
            feed.set_live(live);
        }
        let mut status = locked(&self.status);
        status.live = true;
        status.error.clear();
        status.tables = self.feeds.values().map(|feed| feed.table().to_owned()).collect();
        status.tables.sort();
    }

    fn resynced_partly(&mut self) {
        self.resynced();
        self.hurried = Some(SOON);
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
        let (shown, live) = (self.shown(&table.name), self.live());
        let feed = self.feeds.entry(table.name.clone()).or_insert_with(|| {
            let feed = self.hub.push(&shown);
            self.others.add(&table.name, feed.clone());
            feed.begin();
            feed
        });
        feed.describe(table);
        if !self.resyncing {
            // It came up meanwhile, and holds nothing yet.
            feed.finish();
            feed.set_live(live);
        }
    }

    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        let Some(feed) = self.feeds.get(&table.name) else { return };
        // What comes because it was asked for says how long it has to live.
        self.changed |= updates.iter().any(|update| update.expires_in.is_none());
        feed.updates(table, updates);
        if self.touched.last() != Some(&table.name) && !self.touched.contains(&table.name) {
            self.touched.push(table.name.clone());
        }
    }
}
