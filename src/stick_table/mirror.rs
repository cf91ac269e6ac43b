//! The entries of one stick table as last seen, packed, with a revision for each change.
//!
//! Only stored data count as a change. When an entry expires and how many sessions use it is kept up to date, but a mere
//! refresh of these tells watchers nothing: every request that touches an entry would be one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::log::Log;
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

#[derive(Debug)]
pub(super) struct Column {
    name: Box<[u8]>,
    pub(super) kind: DataType,
    period: Option<u32>,
    text: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    /// Escaped key.
    pub(super) key: Box<[u8]>,
    /// Revision of its last change; 0 for a free slot.
    pub(super) revision: u64,
    /// Time of the mirror's clock in milliseconds; 0 if it does not expire.
    expires_at: u64,
    uses: u32,
    /// Dump in which it was last seen.
    seen: u32,
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
    columns: Vec<Column>,
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
    scratch: Vec<u64>,
}

impl Mirror {
    /// An empty mirror. The log remembers `log_limit` changes, or twice the entries if that is more.
    pub fn new(epoch: u64, log_limit: usize) -> Self {
        Mirror {
            epoch,
            log: Log::default(),
            log_limit,
            columns: Vec::new(),
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
                        self.columns.push(Column::new(name));
                    }
                    let known = self.columns.get(column).filter(|known| *known.name == *name);
                    let Some(known) = known else {
                        self.scratch = values;
                        return Err(LayoutChanged);
                    };
                    let packed = if known.text { self.intern(value) } else { number(value).unwrap_or(0) };
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

    /// Packed data of a slot, in the order of the columns.
    pub(super) fn values(&self, slot: u32) -> &[u64] {
        let width = self.columns.len();
        let start = slot as usize * width;
        self.values.get(start..start + width).unwrap_or_default()
    }

    /// Unpacks the entry in a slot.
    pub(super) fn entry(&self, at: u32, now: u64) -> Entry {
        let slot = &self.slots[at as usize];
        let data = self.columns.iter().zip(self.values(at)).map(|(column, &value)| Datum {
            kind: column.kind.clone(),
            period: column.period,
            value: if column.text {
                DatumValue::Text(self.texts.get(value as usize).cloned().unwrap_or_default())
            } else {
                DatumValue::Number(value)
            },
        });
        Entry {
            key: unescape(&slot.key),
            uses: slot.uses,
            expires_in: (slot.expires_at != 0).then(|| slot.expires_at.saturating_sub(now)),
            data: data.collect(),
        }
    }

    fn put(&mut self, key: &[u8], values: &[u64], uses: u32, expires_at: u64) {
        let hash = self.hasher.hash_one(key);
        let width = values.len();
        let slots = &self.slots;
        let found = self.index.find(hash, |slot| *slots[*slot as usize].key == *key).copied();
        let at = if let Some(at) = found {
            let start = at as usize * width;
            let old = &mut self.values[start..start + width];
            if old == values {
                let slot = &mut self.slots[at as usize];
                (slot.uses, slot.expires_at, slot.seen) = (uses, expires_at, self.mark);
                return;
            }
            old.copy_from_slice(values);
            at
        } else {
            let empty = Slot { key: Box::default(), revision: 0, expires_at: 0, uses: 0, seen: 0 };
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
    }

    fn remove(&mut self, at: u32, reason: RemovalReason) {
        let key = std::mem::take(&mut self.slots[at as usize].key);
        self.slots[at as usize].revision = 0;
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(&*key), |slot| *slot == at) {
            entry.remove();
        }
        self.free.push(at);
        let limit = self.log_limit.max(2 * self.index.len());
        self.log.removed(at, key, reason, limit);
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        self.index.find(self.hasher.hash_one(key), |slot| *self.slots[*slot as usize].key == *key).copied()
    }

    /// Number of a text value. Texts are names of servers: few, and so never freed within an epoch.
    fn intern(&mut self, value: &[u8]) -> u64 {
        let text = unescape(value);
        if let Some(&number) = self.text_index.get(&text) {
            return number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.clone());
        self.text_index.insert(text, number);
        number
    }
}

impl Column {
    fn new(name: &[u8]) -> Self {
        let (kind, period) = split_period(name);
        let kind = DataType::parse(&String::from_utf8_lossy(kind));
        let text = kind == DataType::ServerKey;
        Column { name: name.into(), kind, period, text }
    }
}
