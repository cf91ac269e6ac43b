//! The half of a session that teaches HAProxy entries.
//!
//! HAProxy takes over what it is taught and adds nothing up. It says nothing of what it does not take (a table that it
//! does not have, other keys than its own): that acknowledgements come is the only sign that it does.

use super::data::{Value, put_values};
use super::message::Message;
use super::table::Table;

/// Every text gets the number 1 anew: receivers must not be sent a number above 128, and need not be sent a text by
/// number alone.
const TEXT: u64 = 1;

/// What HAProxy thinks of what it is taught of a table in this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nothing was taught of which a word must come.
    Unknown,
    /// The last entries are not acknowledged yet.
    Waiting,
    /// It took everything.
    All,
}

#[derive(Debug)]
struct Taught {
    /// With our own number of it.
    table: Table,
    /// Number of the last update.
    last: u32,
    /// The last one that must be acknowledged. From version 3.3 on HAProxy does not do it when it had asked for all.
    due: u32,
    acknowledged: u32,
}

#[derive(Debug, Default)]
pub(super) struct Teacher {
    tables: Vec<Taught>,
    /// The table that was described last.
    current: Option<usize>,
}

impl Teacher {
    /// Appends an entry, and in front of it what HAProxy must know to read it. `asked`: it wants all.
    pub(super) fn put(&mut self, asked: bool, table: &Table, entry: Lesson<'_>, out: &mut Vec<u8>) {
        let found = self.tables.iter().position(|taught| taught.table.name == table.name);
        let at = found.unwrap_or_else(|| {
            let table = Table { id: self.tables.len() as u64 + 1, ..table.clone() };
            self.tables.push(Taught { table, last: 0, due: 0, acknowledged: 0 });
            self.tables.len() - 1
        });
        let Some(taught) = self.tables.get_mut(at) else { return };
        let same = Table { id: table.id, ..taught.table.clone() } == *table;
        if self.current != Some(at) || !same {
            if !same {
                taught.table = Table { id: taught.table.id, ..table.clone() };
            }
            Message::Define(taught.table.clone()).put(out);
            self.current = Some(at);
        }
        // Versions from 3.3 on acknowledge updates without a number in a way that cannot be understood.
        taught.last = taught.last.wrapping_add(1);
        if !asked {
            taught.due = taught.last;
        }
        let mut body = Vec::with_capacity(entry.key.len() + 32);
        table.put_key(entry.key, &mut body);
        for value in entry.values {
            match value {
                Value::Text(_, text) => put_values(&[Value::Text(TEXT, text)], &mut body),
                Value::Known(_) => put_values(&[Value::Nothing], &mut body),
                other => put_values(std::slice::from_ref(other), &mut body),
            }
        }
        // HAProxy below 3.2 would keep an entry for longer than its table allows. One of a table where nothing expires
        // cannot be told to.
        let expires_in = entry.expires_in.filter(|_| table.expire > 0).map(|left| left.min(table.expire));
        Message::Update { number: Some(taught.last), expires_in, body: &body }.put(out);
    }

    /// HAProxy has taken updates of one of our tables.
    pub(super) fn acknowledged(&mut self, id: u64, update: u32) {
        if let Some(taught) = self.tables.iter_mut().find(|taught| taught.table.id == id) {
            taught.acknowledged = update;
        }
    }

    pub(super) fn taken(&self, name: &str) -> Taken {
        match self.tables.iter().find(|taught| taught.table.name == name) {
            // Numbers go round.
            Some(taught) if taught.due.wrapping_sub(taught.acknowledged).cast_signed() > 0 => Taken::Waiting,
            Some(taught) if taught.acknowledged != 0 => Taken::All,
            _ => Taken::Unknown,
        }
    }
}

/// An entry to teach.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// Key as on the wire.
    pub key: &'a [u8],
    /// Milliseconds until it expires, at most what its table allows; `None`: as if it were touched now.
    pub expires_in: Option<u32>,
    /// Values in the order of the table's columns.
    pub values: &'a [Value<'a>],
}
