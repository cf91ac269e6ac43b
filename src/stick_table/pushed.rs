//! A mirror that HAProxy's updates are written to as they come, by the peers protocol. Pure.
//!
//! The protocol tells of no removal. What expires is told by our own timers; what is gone for another reason is found
//! when all entries come again and it is not among them.

use std::collections::BTreeMap;

use super::mirror::{Column, Form, Mirror, RemovalReason};
use crate::peers::{Table, Update, Value};
use crate::runtime::{DataType, escape_bytes};

/// Which slots to look at in which second. An entry that was touched meanwhile is looked at again later, so that a touch
/// costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Timers {
    seconds: BTreeMap<u32, Vec<u32>>,
}

impl Timers {
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
    /// Whether the mirror has the columns of a table.
    pub fn describes(&self, table: &Table) -> bool {
        self.columns == columns(table)
    }

    /// Takes over the columns of a table; the mirror must be empty.
    pub fn describe(&mut self, table: &Table) {
        self.columns = columns(table);
        self.width = self.columns.last().map_or(0, |last| last.at + last.form.cells());
    }

    /// An entry of a table that the mirror describes. `now` is the time in milliseconds of a clock that never goes back.
    pub fn update(&mut self, table: &Table, update: Update<'_>, now: u64) {
        let mut cells = std::mem::take(&mut self.scratch);
        cells.clear();
        for value in update.values {
            match value {
                Value::Number(number) => cells.push(*number),
                Value::Rate(rate) => {
                    let counts = u64::from(rate.current) << 32 | u64::from(rate.previous);
                    // One that was never used has an age that means nothing.
                    let began = if counts == 0 { 0 } else { now.cast_signed() - i64::from(rate.age) };
                    cells.extend([counts, began.cast_unsigned()]);
                }
                Value::Nothing | Value::Known(_) => cells.push(self.intern("-")),
                Value::Text(_, text) => cells.push(self.intern(&String::from_utf8_lossy(text))),
            }
        }
        let mut shown = Vec::with_capacity(update.key.len() + 16);
        table.show_key(update.key, &mut shown);
        let key = if table.key_type == crate::peers::KeyType::String { escape_bytes(&shown) } else { shown };
        let known = self.find(&key).map(|at| &self.slots()[at as usize]);
        // After all entries have come, those that we never acknowledged come again as if they were touched now.
        let replayed = known.filter(|slot| update.expires_in.is_none() && slot.update == update.number);
        let expires_at = match (update.expires_in, replayed) {
            (Some(left), _) => now + u64::from(left),
            (None, Some(slot)) => slot.expires_at,
            (None, None) if table.expire == 0 => 0,
            (None, None) => now + u64::from(table.expire),
        };
        if cells.len() == self.width {
            let at = self.put(&key, &cells, 0, expires_at);
            self.schedule(at, update.number, expires_at);
        }
        self.scratch = cells;
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
                // Another entry has the slot, or it is to be looked at in another second.
                if slot.revision == 0 || slot.timer != looked {
                    continue;
                }
                if slot.expires_at == 0 {
                    slot.timer = 0;
                } else if slot.expires_at <= now {
                    self.remove(at, RemovalReason::Expired);
                } else {
                    let later = second(slot.expires_at);
                    slot.timer = later;
                    self.timers.add(later, at);
                }
            }
        }
    }
}

impl Form {
    fn cells(self) -> usize {
        match self {
            Form::Number | Form::Text => 1,
            Form::Rate(_) => 2,
        }
    }
}

/// The columns of a table, under the names of a dump.
fn columns(table: &Table) -> Vec<Column> {
    let mut columns = Vec::with_capacity(table.columns.len());
    let mut at = 0;
    for column in &table.columns {
        for kind in column.types() {
            let form = match (column.period(), &kind) {
                (Some(period), _) => Form::Rate(period),
                (None, DataType::ServerKey) => Form::Text,
                (None, _) => Form::Number,
            };
            let name = match column.period() {
                Some(period) => format!("{kind}({period})"),
                None => kind.to_string(),
            };
            columns.push(Column { name: name.into_bytes().into(), kind, period: column.period(), form, at });
            at += form.cells();
        }
    }
    columns
}
