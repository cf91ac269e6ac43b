//! The entries of one stick table as last seen, packed, with a revision for each change.
//!
//! Only stored data count as a change. When an entry expires and how many sessions use it is kept up to date, but a mere
//! refresh of these tells watchers nothing: every request that touches an entry would be one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::log::Log;
use super::pushed::Timers;
use crate::peers::Rate;
use crate::runtime::{DataType, Datum, DatumValue, RawTableEntry, escape_key, number, split_period, unescape};

/// Where in the history of a table something is. Numbers grow strictly within an epoch; an epoch ends when continuity
/// is lost (HAProxy was away, the table stores other data, this process was restarted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Revision {
    /// Differs for each stretch of unbroken history.
    pub epoch: u64,
    /// Number of the last change that is included; 0 when nothing can be resumed from here.
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

/// What the cells of a column mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One cell: the number.
    Number,
    /// One cell: the number of a text.
    Text,
    /// Two cells: events of the running window in the upper half and of the one before in the lower half; then when the
    /// running window began, by the mirror's clock, as a signed number. Over so many milliseconds.
    Rate(u32),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Box<[u8]>,
    pub(super) kind: DataType,
    pub(super) period: Option<u32>,
    pub(super) form: Form,
    /// Its first cell among those of an entry.
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Escaped key.
    pub(super) key: Box<[u8]>,
    /// Revision of its last change; 0 for a free slot.
    pub(super) revision: u64,
    /// Time of the mirror's clock in milliseconds; 0 if it does not expire.
    pub(super) expires_at: u64,
    uses: u32,
    /// Dump in which it was last seen.
    seen: u32,
    /// Number that the sender gave the last update.
    pub(super) update: u32,
    /// Second in which to look whether it has expired; 0 when nobody looks.
    pub(super) timer: u32,
}

/// A dump in progress.
#[derive(Debug, Default)]
struct Dumping {
    /// Keys that were cleared after the dump began: what it says of them may be older than that.
    cleared: HashSet<Box<[u8]>>,
    /// Everything was.
    void: bool,
}

/// Last known entries of a table.
#[derive(Debug)]
pub struct Mirror {
    epoch: u64,
    pub(super) log: Log,
    log_limit: usize,
    pub(super) columns: Vec<Column>,
    /// Cells of an entry.
    pub(super) width: usize,
    index: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Slot>,
    values: Vec<u64>,
    free: Vec<u32>,
    texts: Vec<String>,
    text_index: HashMap<String, u64>,
    mark: u32,
    dumping: Option<Dumping>,
    complete: bool,
    pub(super) scratch: Vec<u64>,
    pub(super) timers: Timers,
}

impl Mirror {
    /// An empty mirror. The log remembers `log_limit` changes, or twice the entries if that is more.
    pub fn new(epoch: u64, log_limit: usize) -> Self {
        Mirror {
            epoch,
            log: Log::default(),
            log_limit,
            columns: Vec::new(),
            width: 0,
            index: HashTable::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            values: Vec::new(),
            free: Vec::new(),
            texts: Vec::new(),
            text_index: HashMap::new(),
            mark: 0,
            dumping: None,
            complete: false,
            scratch: Vec::new(),
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

    /// Forgets everything: the next dump starts a new epoch.
    pub fn reset(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.log.clear();
        self.columns.clear();
        self.width = 0;
        self.timers = Timers::default();
        self.index.clear();
        self.slots = Vec::new();
        self.values = Vec::new();
        self.free = Vec::new();
        self.texts.clear();
        self.text_index.clear();
        self.dumping = None;
        self.complete = false;
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
        let (mut uses, mut expires_at, mut column) = (0, 0, 0);
        let defining = self.columns.is_empty() && self.index.is_empty();
        let mut values = std::mem::take(&mut self.scratch);
        values.clear();
        for (name, value) in raw.fields() {
            match name {
                b"use" => uses = number(value).unwrap_or(0) as u32,
                b"exp" => expires_at = number(value).filter(|left| *left > 0).map_or(0, |left| now + left),
                b"shard" => {}
                _ => {
                    if defining {
                        self.columns.push(Column::shown(name, column));
                        self.width = column + 1;
                    }
                    let known = self.columns.get(column).filter(|known| *known.name == *name);
                    let Some(known) = known else {
                        self.scratch = values;
                        return Err(LayoutChanged);
                    };
                    let packed = match known.form {
                        Form::Text => self.intern(&unescape(value)),
                        Form::Number | Form::Rate(_) => number(value).unwrap_or(0),
                    };
                    values.push(packed);
                    column += 1;
                }
            }
        }
        if column != self.columns.len() {
            self.scratch = values;
            return Err(LayoutChanged);
        }
        self.put(raw.key, &values, uses, expires_at);
        self.scratch = values;
        Ok(())
    }

    /// The dump is complete: entries that it did not show are gone.
    pub fn finish(&mut self, now: u64) {
        let void = self.dumping.take().is_some_and(|dump| dump.void);
        if void {
            return;
        }
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.revision != 0 && slot.seen != self.mark {
                let expired = slot.expires_at != 0 && slot.expires_at <= now;
                let reason = if expired { RemovalReason::Expired } else { RemovalReason::Swept };
                self.remove(at as u32, reason);
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
        let key = escape_key(key);
        if let Some(slot) = self.find(&key) {
            self.remove(slot, RemovalReason::Cleared);
        }
        if let Some(dump) = &mut self.dumping {
            dump.cleared.insert(key.into());
        }
    }

    /// All entries were.
    pub fn cleared_all(&mut self) {
        for at in 0..self.slots.len() {
            if self.slots[at].revision != 0 {
                self.remove(at as u32, RemovalReason::Cleared);
            }
        }
        if let Some(dump) = &mut self.dumping {
            dump.void = true;
        }
    }

    /// The entry of a key.
    pub fn get(&self, key: &str, now: u64) -> Option<Entry> {
        self.find(&escape_key(key)).map(|slot| self.entry(slot, now))
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn slot_mut(&mut self, at: u32) -> &mut Slot {
        &mut self.slots[at as usize]
    }

    /// Cells of a slot, in the order of the columns.
    fn cells(&self, slot: u32) -> &[u64] {
        let start = slot as usize * self.width;
        self.values.get(start..start + self.width).unwrap_or_default()
    }

    /// The number that a slot holds in a column now.
    pub(super) fn number(&self, slot: u32, column: &Column, now: u64) -> u64 {
        column.number(self.cells(slot), now)
    }

    /// Unpacks the entry in a slot.
    pub(super) fn entry(&self, at: u32, now: u64) -> Entry {
        let slot = &self.slots[at as usize];
        let data = self.columns.iter().map(|column| {
            let number = self.number(at, column, now);
            let value = match column.form {
                Form::Text => DatumValue::Text(self.texts.get(number as usize).cloned().unwrap_or_default()),
                Form::Number | Form::Rate(_) => DatumValue::Number(number),
            };
            Datum { kind: column.kind.clone(), period: column.period, value }
        });
        Entry {
            key: unescape(&slot.key),
            uses: slot.uses,
            expires_in: (slot.expires_at != 0).then(|| slot.expires_at.saturating_sub(now)),
            data: data.collect(),
        }
    }

    /// Puts an entry in, and returns its slot.
    pub(super) fn put(&mut self, key: &[u8], values: &[u64], uses: u32, expires_at: u64) -> u32 {
        let hash = self.hasher.hash_one(key);
        let width = values.len();
        let slots = &self.slots;
        let found = self.index.find(hash, |slot| *slots[*slot as usize].key == *key).copied();
        let at = if let Some(at) = found {
            let start = at as usize * width;
            let old = &mut self.values[start..start + width];
            let same = old == values || self.columns.iter().all(|column| column.same(old, values));
            old.copy_from_slice(values);
            if same {
                let slot = &mut self.slots[at as usize];
                (slot.uses, slot.expires_at, slot.seen) = (uses, expires_at, self.mark);
                return at;
            }
            at
        } else {
            let empty = Slot { key: Box::default(), revision: 0, expires_at: 0, uses: 0, seen: 0, update: 0, timer: 0 };
            let at = self.free.pop().unwrap_or_else(|| {
                self.slots.push(empty);
                self.values.resize(self.slots.len() * width, 0);
                (self.slots.len() - 1) as u32
            });
            self.slots[at as usize].key = key.into();
            let start = at as usize * width;
            self.values[start..start + width].copy_from_slice(values);
            let (slots, hasher) = (&self.slots, &self.hasher);
            self.index.insert_unique(hash, at, |slot| hasher.hash_one(&*slots[*slot as usize].key));
            at
        };
        let limit = self.log_limit.max(2 * self.index.len());
        let revision = self.log.changed(at, limit);
        let slot = &mut self.slots[at as usize];
        (slot.revision, slot.uses, slot.expires_at, slot.seen) = (revision, uses, expires_at, self.mark);
        at
    }

    pub(super) fn remove(&mut self, at: u32, reason: RemovalReason) {
        let key = std::mem::take(&mut self.slots[at as usize].key);
        self.slots[at as usize].revision = 0;
        self.slots[at as usize].timer = 0;
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(&*key), |slot| *slot == at) {
            entry.remove();
        }
        self.free.push(at);
        let limit = self.log_limit.max(2 * self.index.len());
        self.log.removed(at, key, reason, limit);
    }

    /// The slot of an escaped key.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hasher.hash_one(key), |slot| *self.slots[*slot as usize].key == *key).copied()
    }

    /// Number of a text value. Texts are names of servers: few, and so never freed within an epoch.
    pub(super) fn intern(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.text_index.get(text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.text_index.insert(text.to_owned(), number);
        number
    }
}

impl Column {
    /// A column as a dump shows it: rates are numbers there.
    fn shown(name: &[u8], at: usize) -> Self {
        let (kind, period) = split_period(name);
        let kind = DataType::parse(&String::from_utf8_lossy(kind));
        let form = if kind == DataType::ServerKey { Form::Text } else { Form::Number };
        Column { name: name.into(), kind, period, form, at }
    }

    fn number(&self, cells: &[u64], now: u64) -> u64 {
        let cell = |at: usize| cells.get(self.at + at).copied().unwrap_or(0);
        match self.form {
            Form::Number | Form::Text => cell(0),
            Form::Rate(period) => {
                let (counts, began) = (cell(0), cell(1).cast_signed());
                let later = now.cast_signed().saturating_sub(began).max(0).cast_unsigned();
                Rate { age: 0, current: (counts >> 32) as u32, previous: counts as u32 }.value(period, later)
            }
        }
    }

    /// Whether two entries say the same here. When the window of a rate began is known as well as the messages are
    /// fast, and no better.
    fn same(&self, old: &[u64], new: &[u64]) -> bool {
        const JITTER: u64 = 200;
        match self.form {
            Form::Number | Form::Text => old[self.at] == new[self.at],
            Form::Rate(_) => {
                let apart = old[self.at + 1].cast_signed().abs_diff(new[self.at + 1].cast_signed());
                old[self.at] == new[self.at] && apart <= JITTER
            }
        }
    }
}
