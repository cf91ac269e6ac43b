//! A running aggregation: what sessions tell goes into the core, what the core says goes to sessions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::beat;
use super::core::{Core, Seen};
use super::layout::Layout;
use super::resource::{NodeSpec, Spec, wire_name};
use super::status::{NodeStatus, Status, Target};
use crate::configuration::Clock;
use crate::peers::{Lesson, Session, Sink, Table, Taken, Update, Updates};
use crate::stick_table::{Follower, Lines, Peer, Seat, Tls};

/// Changes of so long are taught together.
const PACE: Duration = Duration::from_millis(20);
/// Between two statuses.
const STATUS: Duration = Duration::from_millis(250);
/// How often all entries are asked for, which shows those that were cleared.
const RESYNC: Duration = Duration::from_mins(5);
/// The same while a node is still learning what its earlier process had.
const PARTIAL: Duration = Duration::from_secs(1);
/// The same while it must be known whether another replica teaches: at least this, and so many times as long as it takes.
const DOUBT: (Duration, u32) = (Duration::from_secs(1), 20);
/// What is not acknowledged for so long is not taken. For so long nothing is taught when it is not known who else does.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the sessions of an aggregation share.
pub(super) struct Shared {
    spec: Spec,
    source: String,
    target: String,
    /// Zero of the core's clock.
    zero: Instant,
    clock: Clock,
    state: Mutex<State>,
    /// Something is to be taught or told.
    changed: Notify,
}

struct State {
    core: Core,
    nodes: Vec<Node>,
    /// Since when not all nodes are reached, where that matters.
    incomplete: Option<Instant>,
    /// When our own sign of life was last due.
    beat: Option<Instant>,
}

/// What is known of a node.
#[derive(Default)]
struct Node {
    source: Option<Table>,
    target: Option<Table>,
    /// The target as it is taught.
    taught: Option<Table>,
    /// What of its tables does not fit.
    fault: Option<String>,
    resync: Resync,
    /// Whether another replica that reaches all nodes was among its entries; nothing: not asked since it matters.
    others: Option<bool>,
    /// It is to be taught our own sign of life.
    beat: bool,
    /// Since when it has not acknowledged what it was taught.
    waiting: Option<Instant>,
    status: NodeStatus,
}

/// How a node tells all its entries.
#[derive(Default)]
struct Resync {
    /// It is to do so again.
    again: bool,
    /// It may not have had all the last time.
    partial: bool,
    /// When it began, and how long it took last.
    began: Option<Instant>,
    took: Duration,
    /// Whether source and target were described since.
    described: (bool, bool),
    /// Whether a sign of life of another replica has come since.
    heard: bool,
}

impl Shared {
    /// Nothing yet.
    pub(super) fn new(spec: Spec, clock: Clock) -> Shared {
        let zero = Instant::now();
        let nodes = spec.nodes.iter().map(|node| Node {
            status: NodeStatus { name: node.name.clone(), error: "no session yet".to_owned(), ..NodeStatus::default() },
            ..Node::default()
        });
        let core = Core::new(spec.nodes.len(), u64::from(spec.node_timeout_ms), 0);
        let state = State { core, nodes: nodes.collect(), incomplete: None, beat: None };
        Shared {
            source: wire_name(&spec.source_table),
            target: wire_name(&spec.target_table),
            spec,
            zero,
            clock,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place at the session with each node.
    pub(super) fn join(self: &Arc<Self>, lines: &Lines, tls: Option<&Tls>) -> Vec<Seat> {
        let peer = |node: &NodeSpec| {
            let remotes = vec![node.local_peer.clone()];
            Some(Peer { address: node.parsed().ok()?, local: self.spec.peer_name.clone(), remotes })
        };
        let join = |(at, node): (usize, &NodeSpec)| {
            let follower = NodeFollower { shared: Arc::clone(self), node: at };
            Some(lines.join_over(tls.filter(|_| node.tls).cloned(), peer(node)?, Box::new(follower)))
        };
        self.spec.nodes.iter().enumerate().filter_map(join).collect()
    }

    /// Teaches and tells, until it is dropped.
    pub(super) async fn run(self: Arc<Self>, seats: Vec<Seat>, statuses: watch::Sender<Status>) {
        let mut told: Option<Instant> = None;
        loop {
            let (due, waiting) = {
                let mut state = self.state();
                state.core.advance(self.now());
                state.look_at_replicas(&self.spec);
                let state = &*state;
                let node = |at: usize| state.nodes.get(at).is_some_and(|node| node.waiting.is_some() || node.beat);
                let wakes = |at: &usize| node(*at) || state.core.pending(*at) > 0 && !state.core.stands_by();
                let woken: Vec<usize> = (0..seats.len()).filter(wakes).collect();
                woken.iter().filter_map(|at| seats.get(*at)).for_each(Seat::wake);
                (state.core.due(), !woken.is_empty())
            };
            if told.is_none_or(|told| told.elapsed() >= STATUS) {
                told = Some(Instant::now());
                let status = self.status();
                statuses.send_if_modified(|known| {
                    let changed = *known != status;
                    if changed {
                        *known = status;
                    }
                    changed
                });
            }
            let mut next = due.map(|due| self.zero + Duration::from_millis(due));
            let fresh = *statuses.borrow() == self.status();
            let replicas = !self.spec.replicas.is_empty();
            if waiting || !fresh || replicas {
                let later = told.unwrap_or_else(Instant::now) + STATUS;
                next = Some(next.map_or(later, |next| next.min(later)));
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            sleep(PACE).await;
        }
    }

    /// Whether a key is that of a replica's sign of life, and then whether it is of another one.
    fn replica(&self, table: &Table, key: &[u8]) -> Option<bool> {
        let name = self.spec.replicas.get(beat::place(table, key)?)?;
        Some(*name != self.spec.peer_name)
    }

    /// How it goes now.
    pub(super) fn status(&self) -> Status {
        let state = self.state();
        let nodes = state.nodes.iter().enumerate().map(|(at, node)| {
            let target = match node.waiting {
                Some(since) if since.elapsed() >= PATIENCE => Target::Ignored,
                _ => node.status.target,
            };
            let entries = state.core.entries(at);
            let pending = state.core.pending(at);
            let error = node.fault.clone().filter(|_| node.status.connected);
            let error = error.unwrap_or_else(|| node.status.error.clone());
            NodeStatus { entries, pending, target, error, ..node.status.clone() }
        });
        let (teaches, stands_by) = (state.core.teaches(), state.core.stands_by());
        Status { teaches, stands_by, keys: state.core.keys(), nodes: nodes.collect() }
    }
}

impl State {
    /// Teaches or stands by, where there are replicas, and says so to them.
    fn look_at_replicas(&mut self, spec: &Spec) {
        if spec.replicas.is_empty() {
            return;
        }
        if self.nodes.iter().all(|node| node.status.connected) {
            self.incomplete = None;
            self.core.stand_by(false);
            if self.core.teaches() && self.beat.is_none_or(|beat| beat.elapsed() >= beat::PERIOD) {
                self.beat = Some(Instant::now());
                self.nodes.iter_mut().for_each(|node| node.beat = true);
            }
            return;
        }
        if self.incomplete.is_none() {
            for node in &mut self.nodes {
                (node.others, node.beat, node.resync.again) = (None, false, true);
            }
        }
        let since = *self.incomplete.get_or_insert_with(Instant::now);
        let mut heard =
            self.nodes.iter().filter(|node| node.status.connected).filter_map(|node| node.others).peekable();
        let unknown = heard.peek().is_none();
        self.core.stand_by(if unknown { since.elapsed() < PATIENCE } else { heard.any(|others| others) });
    }

    /// Looks again at what fits together. `node`: the one that has described a table.
    fn fit(&mut self, node: usize, spec: &Spec, now: u64) {
        let first = self.nodes.iter().filter_map(|node| node.source.as_ref()).find(|table| table.unknown.is_none());
        let wanted = first.map(|table| Layout::new(table, &spec.data_types, spec.function));
        if let Some(wanted) = wanted.filter(|wanted| self.core.layout() != Some(wanted)) {
            self.core.reset(wanted, now);
            for (at, other) in self.nodes.iter_mut().enumerate() {
                // Entries of a table come behind its description: this node has told none yet.
                other.resync.again = at != node;
            }
            self.core.begin(node);
            (0..self.nodes.len()).for_each(|at| self.fit_node(at, spec));
        } else {
            self.fit_node(node, spec);
        }
    }

    fn fit_node(&mut self, at: usize, spec: &Spec) {
        let (Some(layout), Some(node)) = (self.core.layout(), self.nodes.get_mut(at)) else { return };
        let lacks = |table: &Table| {
            let lacks = |kind: &&String| !table.columns.iter().any(|column| column.name() == kind.as_str());
            spec.data_types.iter().find(lacks).map(|kind| format!("it does not store {kind}"))
        };
        let say = |table: &str, words: String| format!("{table}: {words}");
        node.fault = None;
        let (mut map, mut expire) = (Vec::new(), 0);
        if let Some(source) = &node.source {
            match lacks(source).map_or_else(|| layout.map(source), Err) {
                Ok(fits) => (map, expire) = (fits, source.expire),
                Err(words) => node.fault = Some(say(&spec.source_table, words)),
            }
        }
        (node.taught, node.status.target) = (None, Target::Unknown);
        let mut target = None;
        if let Some(table) = &node.target {
            let taught = lacks(table).map_or_else(|| layout.taught(table), Err);
            match taught.and_then(|taught| Ok((layout.map(table)?, taught))) {
                Ok((map, (taught, cells))) => {
                    target = Some((map, cells, taught.expire));
                    node.taught = Some(taught);
                }
                Err(words) => node.fault = node.fault.take().or_else(|| Some(say(&spec.target_table, words))),
            }
        }
        self.core.source(at, map, expire);
        self.core.target(at, target);
    }
}

/// What one session tells.
struct NodeFollower {
    shared: Arc<Shared>,
    node: usize,
}

impl NodeFollower {
    fn with<T: Default>(&self, work: impl FnOnce(&mut Core, &mut Node) -> T) -> T {
        let mut state = self.shared.state();
        let State { core, nodes, .. } = &mut *state;
        nodes.get_mut(self.node).map(|node| work(core, node)).unwrap_or_default()
    }

    fn finish(&self, all: bool) {
        let shared = &self.shared;
        let mut state = shared.state();
        let State { core, nodes, .. } = &mut *state;
        let Some(node) = nodes.get_mut(self.node) else { return };
        node.resync.partial = !all;
        node.resync.took = node.resync.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        node.others = Some(std::mem::take(&mut node.resync.heard));
        let missing = |table: &str| format!("{table}: no such table in the peers section that names us");
        if !node.resync.described.0 {
            node.source = None;
            core.source(self.node, Vec::new(), 0);
            node.fault = Some(missing(&shared.spec.source_table));
        }
        if !node.resync.described.1 {
            (node.target, node.taught) = (None, None);
            core.target(self.node, None);
            node.fault.get_or_insert_with(|| missing(&shared.spec.target_table));
        }
        core.finish(self.node, all);
        if !node.status.connected {
            node.status.connected = true;
            node.status.error.clear();
            core.mark_all(self.node);
        }
        if let Some(fault) = &node.fault {
            node.status.last_error.clone_from(fault);
            node.status.last_error_time = (shared.clock)();
        }
        drop(state);
        shared.changed.notify_one();
    }
}

impl Sink for NodeFollower {
    fn resync(&mut self) {
        let node = self.node;
        self.with(|core, known| {
            core.begin(node);
            let resync = &mut known.resync;
            (resync.described, resync.again, resync.heard) = ((false, false), false, false);
            resync.began = Some(Instant::now());
        });
    }

    fn resynced(&mut self) {
        self.finish(true);
    }

    fn resynced_partly(&mut self) {
        self.finish(false);
    }

    fn table(&mut self, table: &Table) {
        let shared = &self.shared;
        let mut state = shared.state();
        let Some(node) = state.nodes.get_mut(self.node) else { return };
        let (place, described) = if table.name == shared.source {
            (&mut node.source, &mut node.resync.described.0)
        } else if table.name == shared.target {
            (&mut node.target, &mut node.resync.described.1)
        } else {
            return;
        };
        *described = true;
        if place.as_ref() != Some(table) {
            *place = Some(table.clone());
            state.fit(self.node, &shared.spec, shared.now());
        }
    }

    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        updates.iter().for_each(|update| self.update(table, update));
    }

    fn asked(&mut self) {
        let node = self.node;
        self.with(|core, _| core.mark_all(node));
    }
}

impl NodeFollower {
    fn update(&mut self, table: &Table, update: Update<'_>) {
        let (shared, node) = (&self.shared, self.node);
        let Update { key, number, expires_in, values } = update;
        let seen = Seen { key, number, expires_in, values };
        if table.name == shared.source {
            shared.state().core.update(node, seen, shared.now());
        } else if table.name == shared.target {
            if let Some(other) = shared.replica(table, key) {
                if other && expires_in.is_some_and(|left| left > 0) && table.expire > 0 {
                    self.with(|_, node| node.resync.heard = true);
                }
                return;
            }
            shared.state().core.seen_in_target(node, seen, shared.now());
        }
    }
}

impl Follower for NodeFollower {
    fn told(&mut self) {
        self.shared.changed.notify_one();
    }

    fn resync_after(&self) -> Duration {
        let state = self.shared.state();
        let doubt = state.incomplete.is_some();
        state.nodes.get(self.node).map_or(RESYNC, |node| match (node.resync.again, node.resync.partial) {
            (true, _) => Duration::ZERO,
            (false, true) => PARTIAL,
            (false, false) if doubt => DOUBT.0.max(node.resync.took * DOUBT.1),
            (false, false) => RESYNC,
        })
    }

    fn teach(&mut self, session: &mut Session) -> bool {
        let (at, shared) = (self.node, &self.shared);
        self.with(|core, node| {
            let before = (node.status.target, node.waiting.is_some());
            let Some(taught) = &node.taught else { return false };
            if std::mem::take(&mut node.beat)
                && let Some(place) = shared.spec.replicas.iter().position(|name| *name == shared.spec.peer_name)
            {
                let (key, values) = (beat::key(taught, place), beat::values(taught));
                session.teach(taught, Lesson { key: &key, expires_in: Some(beat::LIFE), values: &values });
            }
            while session.has_room() {
                let Some(row) = core.next(at, shared.now()) else { break };
                session.teach(taught, Lesson { key: &row.key, expires_in: row.expires_in, values: &row.values });
            }
            node.status.target = match session.taken(&shared.target) {
                Taken::Unknown => Target::Unknown,
                Taken::Waiting => Target::Waiting,
                Taken::All => Target::Taken,
            };
            node.waiting = match node.status.target {
                Target::Waiting => node.waiting.or_else(|| Some(Instant::now())),
                _ => None,
            };
            if before != (node.status.target, node.waiting.is_some()) {
                shared.changed.notify_one();
            }
            core.pending(at) > 0 && !core.stands_by()
        })
    }

    fn ended(&mut self, reason: &str, _: Duration) {
        let (at, shared) = (self.node, &self.shared);
        self.with(|core, node| {
            core.lost(at, shared.now());
            if node.status.connected {
                node.status.seen = Some(Instant::now());
            }
            node.status.connected = false;
            (node.waiting, node.status.target) = (None, Target::Unknown);
            for words in [&mut node.status.error, &mut node.status.last_error] {
                reason.clone_into(words);
            }
            node.status.last_error_time = (shared.clock)();
        });
        shared.changed.notify_one();
    }
}
