//! Watchers who ask for the same and have come equally far are told the same: changes are unpacked, and written as
//! messages, once for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use bytes::Bytes;

use super::feed::Table;
use super::locked;
use super::mirror::{Mirror, Revision};
use super::view::{Change, Scope, View};
use super::watch::{CHUNK, Event, Update};

/// Steps that are kept for those who come later; with each at most a chunk of messages.
const KEPT: usize = 8;

/// A message to one or more watchers.
#[derive(Debug)]
pub struct Told {
    /// What it says.
    pub update: Update,
    written: OnceLock<Bytes>,
}

impl Told {
    /// A message about a table as it is read now.
    pub(super) fn new(table: &Table, revision: Revision, event: Event) -> Arc<Self> {
        let update = Update { revision, source: table.kind(), staleness: table.staleness(), event };
        Arc::new(Told { update, written: OnceLock::new() })
    }

    /// The message as bytes, which only the first one who needs them writes.
    pub fn written(&self, write: impl FnOnce(&Update) -> Bytes) -> Bytes {
        self.written.get_or_init(|| write(&self.update)).clone()
    }
}

/// The messages for what a view found.
pub(super) fn messages(table: &Table, epoch: u64, changes: Vec<(u64, Change)>) -> impl Iterator<Item = Arc<Told>> {
    changes.into_iter().map(move |(number, change)| {
        let event = match change {
            Change::Changed(entries) => Event::Changed(entries),
            Change::Removed(keys, reason) => Event::Removed { keys, reason },
        };
        Told::new(table, Revision { epoch, number }, event)
    })
}

/// What was told between two revisions.
#[derive(Debug)]
struct Step {
    from: u64,
    to: u64,
    told: Vec<Arc<Told>>,
}

/// Watchers with one view.
#[derive(Debug)]
pub(super) struct Group {
    view: View,
    /// How far the first of them has come.
    place: Revision,
    recent: VecDeque<Step>,
}

/// What a member of a group gets.
pub(super) enum Next {
    /// Messages, and the revision that they lead to.
    Told(Vec<Arc<Told>>, u64),
    /// It is too far behind the others, and goes on with a view of its own.
    Alone(View),
    /// There is a gap.
    Lost,
}

/// The groups of a table, by what they ask for.
pub(super) type Groups = Mutex<Vec<(Scope, Weak<Mutex<Group>>)>>;

impl Group {
    /// The group of those who ask for the same; or a new one. The view must have seen everything up to `place`, the
    /// revision of the mirror.
    pub(super) fn join(table: &Table, mirror: &Mirror, scope: &Scope, view: View, place: Revision) -> Arc<Mutex<Self>> {
        let mut groups = locked(&table.groups);
        groups.retain(|(_, group)| group.strong_count() > 0);
        let at = groups.iter().position(|(same, _)| same == scope);
        if let Some(group) = at.and_then(|at| groups[at].1.upgrade())
            && locked(&group).follow(table, mirror, place)
        {
            return group;
        }
        let group = Arc::new(Mutex::new(Group { view, place, recent: VecDeque::new() }));
        if let Some(at) = at {
            groups.swap_remove(at);
        }
        groups.push((scope.clone(), Arc::downgrade(&group)));
        group
    }

    /// What comes after the revision `known`; kept for other members, if there are any.
    pub(super) fn next(&mut self, table: &Table, mirror: &Mirror, known: u64, others: bool) -> Next {
        if known != self.place.number {
            return match self.recent.iter().find(|step| step.from == known) {
                Some(step) => Next::Told(step.told.clone(), step.to),
                None => Next::Alone(self.view.fork(mirror)),
            };
        }
        let Some((changes, to)) = self.view.changes(mirror, known, table.now(), CHUNK) else { return Next::Lost };
        let told: Vec<_> = messages(table, self.place.epoch, changes).collect();
        self.place.number = to;
        if others && to != known {
            self.recent.push_back(Step { from: known, to, told: told.clone() });
        }
        while self.recent.len() > if others { KEPT } else { 0 } {
            self.recent.pop_front();
        }
        Next::Told(told, to)
    }

    /// Goes on to a revision. False if that is not possible.
    fn follow(&mut self, table: &Table, mirror: &Mirror, place: Revision) -> bool {
        while self.place.epoch == place.epoch && self.place.number < place.number {
            if !matches!(self.next(table, mirror, self.place.number, true), Next::Told(..)) {
                return false;
            }
        }
        self.place == place
    }
}
