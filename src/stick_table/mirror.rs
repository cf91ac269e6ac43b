//! The entries of one stick table as last seen, packed, with a revision for each change.
//!
//! Only stored data count as a change. When an entry expires and how many sessions use it is kept up to date, but a mere
//! refresh of these tells watchers nothing: every request that touches an entry would be one.
//!
//! An entry is a slot and a row: the cell of its key, and cells of its data. Both stand in parts that never move, so
//! growth takes no second copy. For a table of addresses with three counters all that is less than 96 bytes an entry.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::column::{Column, Form, shown};
use super::keys::{HEAP, Keys, Prefix, in_cell, put_cell};
use super::log::Log;
use super::pushed::Timers;
use super::rows::Rows;
use crate::runtime::{Datum, DatumValue, RawTableEntry, number, unescape};

/// Where in the history of a table something is. Numbers grow strictly within an epoch; an epoch ends when continuity
/// is lost (HAProxy was away, the table stores other data, this process was restarted). By default it is none: nothing can
/// be resumed from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Revision {
    /// Differs for each stretch of unbroken history; 0 for none.
    pub epoch: u64,
    /// Number of the last change that is included; 0 before the first one.
    pub number: u64,
}

/// Why an entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalReason {
    /// Its time was over.
    Expired,
    /// It was cleared through this program.
    Cleared,
    /// It was found gone before its time: cleared by others, or pushed out of a full table.
    Swept,
    /// It no longer meets the filter of the watcher, or the cause is not known.
    Unknown,
}

/// An entry, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key, unescaped. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub key: String,
    /// Sessions that tracked it when it was last seen.
    pub uses: u32,
    /// Milliseconds until it expires, if it does.
    pub expires_in: Option<u64>,
    /// Stored data in HAProxy's order.
    pub data: Vec<Datum>,
}

/// An entry of another table than before: it stores other data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutChanged;

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Revision of its last change; 0 for a free slot.
    pub(super) revision: u64,
    /// Time of the mirror's clock in milliseconds; 0 if it does not expire.
    pub(super) expires_at: u64,
    uses: u32,
    /// Dump in which it was last seen.
    seen: u32,
    /// Number that the sender gave the last update; for a free slot the next free one.
    pub(super) update: u32,
    /// Second in which to look whether it has expired, also while it is free; 0 when nobody looks.
    pub(super) timer: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// A dump in progress.
#[derive(Debug, Default)]
struct Dumping {
    /// Keys that were cleared, or changed by other nodes, after the dump began: what it says of them may be older than that.
    cleared: HashSet<Box<[u8]>>,
    /// Everything was.
    void: bool,
}

/// Texts that entries hold by number. They are names of servers: few, and so never freed within an epoch.
#[derive(Debug, Default)]
pub(super) struct Texts {
    all: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Texts {
    /// Number of a text.
    pub(super) fn number(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.all.len() as u64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// Where a key is, or is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    hash: u64,
    pub(super) slot: Option<u32>,
}

/// Last known entries of a table.
#[derive(Debug)]
pub struct Mirror {
    epoch: u64,
    pub(super) log: Log,
    log_limit: usize,
    pub(super) columns: Vec<Column>,
    pub(super) keys: Keys,
    index: HashTable<u32>,
    hasher: RandomState,
    slots: Rows<Slot>,
    /// For each slot the cell of its key, and those of its data.
    rows: Rows<u8>,
    /// Keys that do not fit into their cells, by slot.
    long: HashMap<u32, Box<[u8]>>,
    /// The first free slot.
    free: u32,
    pub(super) texts: Texts,
    mark: u32,
    dumping: Option<Dumping>,
    complete: bool,
    pub(super) scratch: Vec<u8>,
    pub(super) found: Vec<Found>,
    pub(super) timers: Timers,
}

impl Mirror {
    /// An empty mirror. The log remembers `log_limit` changes, or twice the entries if that is more.
    pub fn new(epoch: u64, log_limit: usize) -> Self {
        Mirror {
            epoch,
            log: Log::new(0, Keys::Shown.room()),
            log_limit,
            columns: Vec::new(),
            keys: Keys::Shown,
            index: HashTable::new(),
            hasher: RandomState::new(),
            slots: Rows::new(1),
            rows: Rows::new(1),
            long: HashMap::new(),
            free: NONE,
            texts: Texts::default(),
            mark: 0,
            dumping: None,
            complete: false,
            scratch: Vec::new(),
            found: Vec::new(),
            timers: Timers::default(),
        }
    }

    /// The current revision.
    pub fn revision(&self) -> Revision {
        Revision { epoch: self.epoch, number: self.log.head() }
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it holds no entry.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether a whole dump has been seen in this epoch.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        let long: usize = self.long.values().map(|key| key.len() + HEAP).sum();
        let long = long + self.long.capacity() * size_of::<(u32, Box<[u8]>)>();
        let parts = [self.slots.memory(), self.rows.memory(), self.log.memory(), self.timers.memory(), long];
        parts.iter().sum::<usize>() + self.index.allocation_size()
    }

    /// Forgets everything: the next dump starts a new epoch.
    pub fn reset(&mut self, epoch: u64) {
        let (mark, mut log) = (self.mark, std::mem::take(&mut self.log));
        log.set_room(Keys::Shown.room());
        *self = Mirror { log, mark, ..Mirror::new(epoch, self.log_limit) };
    }

    /// What entries store. There must be none.
    pub(super) fn lay_out(&mut self, keys: Keys, columns: Vec<Column>, width: usize) {
        self.log.set_room(keys.room());
        self.rows = Rows::new(width);
        (self.keys, self.columns) = (keys, columns);
    }

    /// A dump begins.
    pub fn begin(&mut self) {
        self.mark = self.mark.wrapping_add(1);
        self.dumping = Some(Dumping::default());
    }

    /// An entry of the dump. `now` is the time in milliseconds of a clock that never goes back.
    pub fn observe(&mut self, raw: &RawTableEntry<'_>, now: u64) -> Result<(), LayoutChanged> {
        if self.dumping.as_ref().is_some_and(|dump| dump.void || dump.cleared.contains(raw.key)) {
            return Ok(());
        }
        let stored = || raw.fields().filter(|(name, _)| !matches!(*name, b"use" | b"exp" | b"shard"));
        if self.slots.len() == 0 && matches!(self.keys, Keys::Shown) {
            let (columns, width) = shown(stored().map(|(name, _)| name), Keys::Shown.room() + 1);
            self.lay_out(Keys::Shown, columns, width);
        }
        let same = stored().map(|(name, _)| name).eq(self.columns.iter().map(|column| &*column.name));
        if !same || !matches!(self.keys, Keys::Shown) {
            return Err(LayoutChanged);
        }
        let mut row = std::mem::take(&mut self.scratch);
        row.clear();
        put_cell(raw.key, self.keys.room(), &mut row);
        let (mut uses, mut expires_at, mut columns) = (0, 0, self.columns.iter());
        for (name, value) in raw.fields() {
            match name {
                b"use" => uses = number(value).unwrap_or(0) as u32,
                b"exp" => expires_at = number(value).filter(|left| *left > 0).map_or(0, |left| now + left),
                b"shard" => {}
                _ => {
                    let Some(Column { form, .. }) = columns.next() else { continue };
                    let number = match form {
                        Form::Text => self.texts.number(&unescape(value)),
                        _ => number(value).unwrap_or(0),
                    };
                    form.put(number, &mut row);
                }
            }
        }
        let found = self.find(raw.key);
        self.put(found, raw.key, &row, uses, expires_at);
        self.scratch = row;
        Ok(())
    }

    /// The dump is complete: entries that it did not show are gone.
    pub fn finish(&mut self, now: u64) {
        let void = self.dumping.take().is_some_and(|dump| dump.void);
        if void {
            return;
        }
        for at in self.all() {
            let slot = self.slot(at);
            if slot.revision != 0 && slot.seen != self.mark {
                let expired = slot.expires_at != 0 && slot.expires_at <= now;
                let reason = if expired { RemovalReason::Expired } else { RemovalReason::Swept };
                self.remove(at, reason);
            }
        }
        if !std::mem::replace(&mut self.complete, true) {
            // Nobody has seen anything of this epoch before: all start with a snapshot.
            self.log.clear();
        }
    }

    /// The dump broke off: what it showed is true, what it did not show is not known.
    pub fn abandon(&mut self) {
        self.dumping = None;
    }

    /// A whole dump at once. Returns the revisions before and after.
    pub fn apply_dump<'a>(
        &mut self,
        entries: impl IntoIterator<Item = RawTableEntry<'a>>,
        now: u64,
    ) -> Result<std::ops::Range<u64>, LayoutChanged> {
        let before = self.log.head();
        self.begin();
        for entry in entries {
            self.observe(&entry, now)?;
        }
        self.finish(now);
        Ok(before..self.log.head())
    }

    /// An entry was cleared through this program.
    pub fn cleared(&mut self, key: &str) {
        let Some(key) = self.keys.stored(key) else { return };
        if let Some(slot) = self.find(&key).slot {
            self.remove(slot, RemovalReason::Cleared);
        }
        if let Some(dump) = &mut self.dumping {
            dump.cleared.insert(key.into());
        }
    }

    /// The entry in a slot was.
    pub(super) fn clear_slot(&mut self, at: u32) {
        let key = self.dumping.is_some().then(|| self.key(at).into());
        self.remove(at, RemovalReason::Cleared);
        if let (Some(dump), Some(key)) = (&mut self.dumping, key) {
            dump.cleared.insert(key);
        }
    }

    /// What the dump in progress says of a key may be older than what is known by now.
    pub(super) fn doubt(&mut self, key: &[u8]) {
        if let Some(dump) = &mut self.dumping {
            dump.cleared.insert(key.into());
        }
    }

    /// Whether it is.
    pub(super) fn doubts(&self, key: &[u8]) -> bool {
        self.dumping.as_ref().is_some_and(|dump| dump.cleared.contains(key))
    }

    /// All entries were.
    pub fn cleared_all(&mut self) {
        for at in self.all() {
            if self.slot(at).revision != 0 {
                self.remove(at, RemovalReason::Cleared);
            }
        }
        if let Some(dump) = &mut self.dumping {
            dump.void = true;
        }
    }

    /// The entry of a key.
    pub fn get(&self, key: &str, now: u64) -> Option<Entry> {
        self.find(&self.keys.stored(key)?).slot.map(|slot| self.entry(slot, now))
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Numbers of all slots, free ones included.
    pub(super) fn all(&self) -> std::ops::Range<u32> {
        0..self.slots.len() as u32
    }

    pub(super) fn slot(&self, at: u32) -> &Slot {
        &self.slots.row(at as usize)[0]
    }

    pub(super) fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots.row_mut(at as usize)[0]
    }

    /// The key in a slot, as it is stored.
    pub(super) fn key(&self, at: u32) -> &[u8] {
        let elsewhere = || self.long.get(&at).map(|key| &**key);
        in_cell(self.rows.row(at as usize)).or_else(elsewhere).unwrap_or_default()
    }

    /// The key in a slot as text.
    pub(super) fn key_text(&self, at: u32) -> String {
        self.keys.text(self.key(at))
    }

    /// Whether the key in a slot begins so.
    pub(super) fn begins(&self, at: u32, prefix: &Prefix) -> bool {
        self.keys.begins(self.key(at), prefix)
    }

    /// The number that a slot holds in a column now.
    pub(super) fn number(&self, slot: u32, column: &Column, now: u64) -> u64 {
        column.number(self.rows.row(slot as usize), now)
    }

    /// Unpacks the entry in a slot.
    pub(super) fn entry(&self, at: u32, now: u64) -> Entry {
        let slot = self.slot(at);
        let data = self.columns.iter().map(|column| {
            let number = self.number(at, column, now);
            let value = match column.form {
                Form::Text => DatumValue::Text(self.texts.all.get(number as usize).cloned().unwrap_or_default()),
                _ => DatumValue::Number(number),
            };
            Datum { kind: column.kind.clone(), period: column.period, value }
        });
        Entry {
            key: self.key_text(at),
            uses: slot.uses,
            expires_in: (slot.expires_at != 0).then(|| slot.expires_at.saturating_sub(now)),
            data: data.collect(),
        }
    }

    /// Puts an entry in where its key was found, and returns its slot.
    pub(super) fn put(&mut self, found: Found, key: &[u8], row: &[u8], uses: u32, expires_at: u64) -> u32 {
        let at = if let Some(at) = found.slot {
            let old = self.rows.row_mut(at as usize);
            let same = old == row || self.columns.iter().all(|column| column.same(old, row));
            old.copy_from_slice(row);
            if same {
                let mark = self.mark;
                let slot = self.slot_mut(at);
                (slot.uses, slot.expires_at, slot.seen) = (uses, expires_at, mark);
                return at;
            }
            at
        } else {
            self.add(found.hash, key, row)
        };
        let limit = self.log_limit.max(2 * self.index.len());
        let (revision, mark) = (self.log.changed(at, limit), self.mark);
        let slot = self.slot_mut(at);
        (slot.revision, slot.uses, slot.expires_at, slot.seen) = (revision, uses, expires_at, mark);
        at
    }

    /// Takes a slot for a new key.
    fn add(&mut self, hash: u64, key: &[u8], row: &[u8]) -> u32 {
        let at = if self.free == NONE {
            self.slots.push(&[Slot { revision: 0, expires_at: 0, uses: 0, seen: 0, update: 0, timer: 0 }]);
            self.rows.push(row);
            (self.slots.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = std::mem::take(&mut self.slot_mut(at).update);
            self.rows.row_mut(at as usize).copy_from_slice(row);
            at
        };
        if in_cell(row).is_none() {
            self.long.insert(at, key.into());
        }
        // The index is out of the way while it may grow, which looks at the keys of all slots.
        let mut index = std::mem::take(&mut self.index);
        index.insert_unique(hash, at, |slot| self.hasher.hash_one(self.key(*slot)));
        self.index = index;
        at
    }

    pub(super) fn remove(&mut self, at: u32, reason: RemovalReason) {
        let mut index = std::mem::take(&mut self.index);
        if let Ok(entry) = index.find_entry(self.hasher.hash_one(self.key(at)), |slot| *slot == at) {
            entry.remove();
        }
        self.index = index;
        let limit = self.log_limit.max(2 * self.index.len());
        let long = self.long.remove(&at);
        let key = in_cell(self.rows.row(at as usize)).or(long.as_deref()).unwrap_or_default();
        self.log.removed(at, key.into(), reason, limit);
        let free = std::mem::replace(&mut self.free, at);
        let slot = self.slot_mut(at);
        (slot.revision, slot.update) = (0, free);
    }

    /// Looks for a stored key.
    pub(super) fn find(&self, key: &[u8]) -> Found {
        self.find_again(Found { hash: self.hasher.hash_one(key), slot: None }, key)
    }

    /// Looks once more for a key.
    pub(super) fn find_again(&self, Found { hash, .. }: Found, key: &[u8]) -> Found {
        Found { hash, slot: self.index.find(hash, |slot| self.key(*slot) == key).copied() }
    }

    /// Looks for many, in steps that do not wait for each other: of a large table nothing is in the processor's cache, and
    /// it fetches for several keys at the same time.
    pub(super) fn find_all<'a>(&self, keys: impl Iterator<Item = &'a [u8]> + Clone, found: &mut Vec<Found>) {
        found.clear();
        found.extend(keys.clone().map(|key| Found { hash: self.hasher.hash_one(key), slot: None }));
        for (found, key) in found.iter_mut().zip(keys) {
            *found = self.find_again(*found, key);
        }
        for at in found.iter().filter_map(|found| found.slot) {
            std::hint::black_box(self.slot(at).update);
        }
    }
}
