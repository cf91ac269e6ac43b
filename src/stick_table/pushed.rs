//! A mirror that HAProxy's updates are written to as they come, by the peers protocol. Pure.
//!
//! The protocol tells of no removal. What expires is told by our own timers; what is gone for another reason is found
//! when all entries come again and it is not among them.

use std::collections::BTreeMap;

use super::column::{put_rate, sent};
use super::keys::{Keys, put_cell};
use super::mirror::{Found, Mirror, RemovalReason};
use crate::peers::{Table, Update, Value};

/// Which slots to look at in which second. An entry that was touched meanwhile is looked at again later, so that a touch
/// costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Timers {
    seconds: BTreeMap<u32, Vec<u32>>,
}

impl Timers {
    /// Bytes that they take, about.
    pub(super) fn memory(&self) -> usize {
        self.seconds.values().map(|slots| slots.capacity() * 4 + size_of::<(u32, Vec<u32>)>()).sum()
    }

    fn add(&mut self, second: u32, slot: u32) {
        self.seconds.entry(second).or_default().push(slot);
    }

    /// Slots of a second that has passed.
    fn due(&mut self, second: u32) -> Option<(u32, Vec<u32>)> {
        let first = self.seconds.first_entry()?;
        (*first.key() <= second).then(|| first.remove_entry())
    }
}

/// The second in which an entry has certainly expired; never 0.
fn second(expires_at: u64) -> u32 {
    u32::try_from(expires_at / 1000 + 1).unwrap_or(u32::MAX)
}

impl Mirror {
    /// Whether the mirror has the keys and columns of a table.
    pub fn describes(&self, table: &Table) -> bool {
        self.keys.fit(table) && self.columns == sent(table, self.keys.room() + 1).0
    }

    /// Takes over the keys and columns of a table; the mirror must be empty.
    pub fn describe(&mut self, table: &Table) {
        let keys = Keys::Sent(table.clone());
        let (columns, width) = sent(table, keys.room() + 1);
        self.lay_out(keys, columns, width);
    }

    /// Entries of a table that the mirror describes. `now` is the time in milliseconds of a clock that never goes back.
    pub fn updates<'a>(&mut self, table: &Table, updates: impl Iterator<Item = Update<'a>> + Clone, now: u64) {
        let mut found = std::mem::take(&mut self.found);
        self.find_all(updates.clone().map(|update| update.key), &mut found);
        for (update, found) in updates.zip(&mut found) {
            if update.expires_in.is_some() && self.doubts(update.key) {
                continue;
            }
            if found.slot.is_none() {
                // It may have come twice.
                *found = self.find_again(*found, update.key);
            }
            self.write(table, update, *found, now, true);
        }
        self.found = found;
    }

    /// The same for an entry that another node has changed, whose numbers are of its own.
    pub fn merge(&mut self, table: &Table, update: Update<'_>, now: u64) {
        self.doubt(update.key);
        self.write(table, update, self.find(update.key), now, false);
    }

    fn write(&mut self, table: &Table, update: Update<'_>, found: Found, now: u64, own: bool) {
        if update.values.len() != self.columns.len() {
            return;
        }
        let mut row = std::mem::take(&mut self.scratch);
        row.clear();
        put_cell(update.key, self.keys.room(), &mut row);
        for (value, column) in update.values.iter().zip(&self.columns) {
            match value {
                Value::Number(number) => column.form.put(*number, &mut row),
                Value::Rate(rate) => put_rate(rate, now, &mut row),
                Value::Nothing | Value::Known(_) => column.form.put(self.texts.number("-"), &mut row),
                Value::Text(_, text) => {
                    column.form.put(self.texts.number(&String::from_utf8_lossy(text)), &mut row);
                }
            }
        }
        let known = found.slot.map(|at| self.slot(at));
        // After all entries have come, those that we never acknowledged come again as if they were touched now.
        let number = if own { update.number } else { known.map_or(0, |slot| slot.update) };
        let replayed = known.filter(|slot| own && update.expires_in.is_none() && slot.update == number);
        let expires_at = match (update.expires_in, replayed) {
            // Such a table says of entries that come again that nothing is left to them.
            _ if table.expire == 0 => 0,
            (Some(left), _) => now + u64::from(left),
            (None, Some(slot)) => slot.expires_at,
            (None, None) => now + u64::from(table.expire),
        };
        let at = self.put(found, update.key, &row, 0, expires_at);
        self.schedule(at, number, expires_at);
        self.scratch = row;
    }

    fn schedule(&mut self, at: u32, number: u32, expires_at: u64) {
        let slot = self.slot_mut(at);
        slot.update = number;
        if expires_at == 0 {
            return;
        }
        let second = second(expires_at);
        if slot.timer == 0 || slot.timer > second {
            slot.timer = second;
            self.timers.add(second, at);
        }
    }

    /// Removes what has expired.
    pub fn expire(&mut self, now: u64) {
        let this = u32::try_from(now / 1000).unwrap_or(u32::MAX);
        while let Some((looked, slots)) = self.timers.due(this) {
            for at in slots {
                let slot = self.slot_mut(at);
                // It is to be looked at in another second.
                if slot.timer != looked {
                    continue;
                }
                slot.timer = 0;
                let (free, expires_at) = (slot.revision == 0, slot.expires_at);
                if free || expires_at == 0 {
                    continue;
                }
                if expires_at <= now {
                    self.remove(at, RemovalReason::Expired);
                } else {
                    let later = second(expires_at);
                    slot.timer = later;
                    self.timers.add(later, at);
                }
            }
        }
    }
}
