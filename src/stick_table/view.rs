//! What one watcher sees of a mirror: which entries, and which of them it has been told about.

use super::column::Form;
use super::keys::Prefix;
use super::log::Item;
use super::mirror::{Entry, Mirror, RemovalReason};
use crate::error::{Error, Reason, Result};
use crate::runtime::Filter;

/// Which entries a watcher wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Conditions on stored data; all must hold.
    pub filters: Vec<Filter>,
    /// What keys must begin with; empty for all.
    pub key_prefix: String,
}

/// Consecutive changes of one kind, at most about as large as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Entries that are new or store other data.
    Changed(Vec<Entry>),
    /// Keys that are gone, all for the same reason.
    Removed(Vec<String>, RemovalReason),
}

/// A watcher's place in a mirror.
#[derive(Debug, Clone)]
pub struct View {
    filters: Vec<Filter>,
    prefix: Prefix,
    /// Slots whose entry the watcher knows. One bit for each.
    known: Vec<u64>,
    /// Up to this revision it is not certain what the watcher knows: it resumed, or a snapshot showed it some slots at a
    /// later time than others. It is then told of every removal, and knows what its slots hold now.
    unsure_until: u64,
}

impl View {
    /// A view of a watcher that knows nothing.
    pub fn new(scope: &Scope) -> Self {
        View {
            filters: scope.filters.clone(),
            prefix: Prefix::new(&scope.key_prefix),
            known: Vec::new(),
            unsure_until: 0,
        }
    }

    /// Refuses filters on data that the table does not store. Says nothing as long as the table is empty.
    pub fn check(&self, mirror: &Mirror) -> Result<()> {
        for filter in &self.filters {
            let columns = mirror.columns();
            if !columns.is_empty() && !columns.iter().any(|column| column.kind == filter.kind) {
                let message = format!("filter: the table does not store '{}'", filter.kind);
                return Err(Error::new(Reason::InvalidValue, message).with("field", "filter"));
            }
        }
        Ok(())
    }

    /// Starts again with nothing known.
    pub fn restart(&mut self) {
        self.known.clear();
        self.unsure_until = 0;
    }

    /// Goes on behind `cursor`, a revision that the watcher has seen; false if there is a gap.
    pub fn resume(&mut self, mirror: &Mirror, cursor: u64, now: u64) -> bool {
        if mirror.log.since(cursor).is_none() {
            return false;
        }
        self.known.clear();
        for at in mirror.all() {
            let revision = mirror.slot(at).revision;
            // The watcher may know a former state of what changed later.
            if revision != 0 && (revision > cursor || self.matches(mirror, at, now)) {
                self.set_known(at, true);
            }
        }
        self.unsure_until = mirror.log.head();
        true
    }

    /// A view of a watcher that has seen less, and knows nothing of what came since.
    pub(super) fn fork(&self, mirror: &Mirror) -> Self {
        View { unsure_until: mirror.log.head(), ..self.clone() }
    }

    /// Whether it is certain what the watcher knows, once it has seen this revision.
    pub(super) fn is_sure(&self, seen: u64) -> bool {
        self.unsure_until <= seen
    }

    /// Entries in the slots from `from` on, about `limit` bytes of them, and the slot to go on with; none at the end.
    pub fn snapshot(&mut self, mirror: &Mirror, from: u32, now: u64, limit: usize) -> (Vec<Entry>, Option<u32>) {
        let (mut entries, mut size) = (Vec::new(), 0);
        self.unsure_until = mirror.log.head();
        for at in from..mirror.all().end {
            if mirror.slot(at).revision == 0 || !self.matches(mirror, at, now) {
                continue;
            }
            if size >= limit {
                return (entries, Some(at));
            }
            self.set_known(at, true);
            size += size_of(mirror, at);
            entries.push(mirror.entry(at, now));
        }
        (entries, None)
    }

    /// Marks what a snapshot would show as known without showing it.
    pub fn skip_snapshot(&mut self, mirror: &Mirror, now: u64) {
        for at in mirror.all() {
            let shown = mirror.slot(at).revision != 0 && self.matches(mirror, at, now);
            self.set_known(at, shown);
        }
    }

    /// Changes behind `cursor`, each with the revision up to which it is complete, and the new cursor; nothing if the
    /// log no longer reaches back so far. An entry that changed several times appears once, as it is now.
    pub fn changes(
        &mut self,
        mirror: &Mirror,
        cursor: u64,
        now: u64,
        limit: usize,
    ) -> Option<(Vec<(u64, Change)>, u64)> {
        let mut all: Vec<(u64, Change)> = Vec::new();
        let (mut size, mut last) = (0, cursor);
        for (revision, item) in mirror.log.since(cursor)? {
            if size >= limit {
                break;
            }
            last = revision;
            let unsure = revision <= self.unsure_until;
            match item {
                Item::Changed { slot } => {
                    if mirror.slot(slot).revision != revision {
                        continue;
                    }
                    if self.matches(mirror, slot, now) {
                        self.set_known(slot, true);
                        size += size_of(mirror, slot);
                        append_changed(&mut all, revision, mirror.entry(slot, now));
                    } else if self.set_known(slot, false) || unsure {
                        let key = mirror.key_text(slot);
                        size += key.len() + 4;
                        append_removed(&mut all, revision, key, RemovalReason::Unknown);
                    }
                }
                Item::Removed { slot, key, reason } => {
                    let known = unsure || self.set_known(slot, false);
                    if known && mirror.keys.begins(key, &self.prefix) {
                        let key = mirror.keys.text(key);
                        size += key.len() + 4;
                        append_removed(&mut all, revision, key, reason);
                    }
                }
            }
        }
        // Changes that this watcher does not see belong to the last one it does see.
        if let Some((revision, _)) = all.last_mut() {
            *revision = last;
        }
        Some((all, last))
    }

    /// Known entries that no longer meet the filter although nothing was told of them: rates fade by themselves.
    pub fn faded(&mut self, mirror: &Mirror, now: u64) -> Vec<String> {
        if !self.fades(mirror) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        for at in mirror.all() {
            let (word, bit) = (at as usize / 64, 1_u64 << (at % 64));
            let known = self.known.get(word).is_some_and(|known| known & bit != 0);
            if known && mirror.slot(at).revision != 0 && !self.matches(mirror, at, now) {
                self.set_known(at, false);
                keys.push(mirror.key_text(at));
            }
        }
        keys
    }

    /// Whether the filter is on what changes without being told.
    pub fn fades(&self, mirror: &Mirror) -> bool {
        let fading = |filter: &Filter| {
            let column = mirror.columns().iter().find(|column| column.kind == filter.kind);
            column.is_some_and(|column| matches!(column.form, Form::Rate(_)))
        };
        self.filters.iter().any(fading)
    }

    /// Whether the entry in a slot is wanted.
    pub(super) fn matches(&self, mirror: &Mirror, at: u32, now: u64) -> bool {
        if !mirror.begins(at, &self.prefix) {
            return false;
        }
        self.filters.iter().all(|filter| {
            let column = mirror.columns().iter().find(|column| column.kind == filter.kind);
            column.is_some_and(|column| filter.operator.holds(mirror.number(at, column, now), filter.value))
        })
    }

    /// Sets whether the entry in a slot is known; returns whether it was.
    fn set_known(&mut self, slot: u32, known: bool) -> bool {
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        if word >= self.known.len() {
            if !known {
                return false;
            }
            self.known.resize(word + 1, 0);
        }
        let was = self.known[word] & bit != 0;
        if known {
            self.known[word] |= bit;
        } else {
            self.known[word] &= !bit;
        }
        was
    }
}

/// About the bytes of an entry on the wire.
fn size_of(mirror: &Mirror, at: u32) -> usize {
    mirror.keys.size(mirror.key(at)) + 16 + 10 * mirror.columns().len()
}

fn append_changed(all: &mut Vec<(u64, Change)>, revision: u64, entry: Entry) {
    if let Some((last, Change::Changed(entries))) = all.last_mut() {
        *last = revision;
        entries.push(entry);
    } else {
        all.push((revision, Change::Changed(vec![entry])));
    }
}

fn append_removed(all: &mut Vec<(u64, Change)>, revision: u64, key: String, reason: RemovalReason) {
    match all.last_mut() {
        Some((last, Change::Removed(keys, same))) if *same == reason => {
            *last = revision;
            keys.push(key);
        }
        _ => all.push((revision, Change::Removed(vec![key], reason))),
    }
}

impl Mirror {
    /// The entries that meet all filters were cleared through this program.
    pub fn cleared_where(&mut self, filters: &[Filter], now: u64) {
        let view = View::new(&Scope { filters: filters.to_vec(), key_prefix: String::new() });
        let hit = |at: &u32| self.slot(*at).revision != 0 && view.matches(self, *at, now);
        let hits: Vec<u32> = self.all().filter(hit).collect();
        for at in hits {
            self.clear_slot(at);
        }
    }
}
