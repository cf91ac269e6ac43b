//! What a table stores with each key, and how it stands in the row of an entry.

use crate::peers::{Rate, Table};
use crate::runtime::{DataType, split_period};

/// What the cells of a column mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A number of 32 bits, as HAProxy stores most counters.
    Number,
    /// One of 64 bits.
    Wide,
    /// The number of a text.
    Text,
    /// Events of the running window, those of the one before, and when the running window began: the lower 32 bits of
    /// the mirror's clock, as HAProxy has it. Over so many milliseconds.
    Rate(u32),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Box<[u8]>,
    pub(super) kind: DataType,
    pub(super) period: Option<u32>,
    pub(super) form: Form,
    /// Its first byte in a row.
    at: usize,
}

/// When the running window of two rates began is known as well as the messages are fast, and no better; milliseconds.
const JITTER: u32 = 200;

impl Form {
    fn bytes(self) -> usize {
        match self {
            Form::Number | Form::Text => 4,
            Form::Wide => 8,
            Form::Rate(_) => 12,
        }
    }

    /// Appends the cell of a number. One that is too large loses its upper bits, as in HAProxy.
    pub(super) fn put(self, number: u64, row: &mut Vec<u8>) {
        match self {
            Form::Wide => row.extend(number.to_ne_bytes()),
            Form::Number | Form::Text | Form::Rate(_) => row.extend((number as u32).to_ne_bytes()),
        }
    }
}

/// Appends the cells of a rate that was sent at this time.
pub(super) fn put_rate(rate: &Rate, now: u64, row: &mut Vec<u8>) {
    // One that was never used has an age that means nothing.
    let used = rate.current != 0 || rate.previous != 0;
    let began = if used { (now as u32).wrapping_sub(rate.age) } else { 0 };
    for cell in [rate.current, rate.previous, began] {
        row.extend(cell.to_ne_bytes());
    }
}

/// A number of a row; 0 where there is none.
fn cell(row: &[u8], at: usize) -> u32 {
    row.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_ne_bytes(*four))
}

impl Column {
    /// Its number in a row, now.
    pub(super) fn number(&self, row: &[u8], now: u64) -> u64 {
        match self.form {
            Form::Number | Form::Text => u64::from(cell(row, self.at)),
            Form::Wide => {
                row.get(self.at..).and_then(|rest| rest.first_chunk()).map_or(0, |eight| u64::from_ne_bytes(*eight))
            }
            Form::Rate(period) => {
                let [current, previous, began] = [0, 4, 8].map(|next| cell(row, self.at + next));
                Rate { age: (now as u32).wrapping_sub(began), current, previous }.value(period, 0)
            }
        }
    }

    /// Whether two rows say the same here.
    pub(super) fn same(&self, old: &[u8], new: &[u8]) -> bool {
        let part = |row, length| <[u8]>::get(row, self.at..self.at + length);
        match self.form {
            Form::Rate(_) => {
                let apart = cell(old, self.at + 8).wrapping_sub(cell(new, self.at + 8)).cast_signed();
                part(old, 8) == part(new, 8) && apart.unsigned_abs() <= JITTER
            }
            form => part(old, form.bytes()) == part(new, form.bytes()),
        }
    }
}

/// Columns beside each other, behind a cell of so many bytes, and the width of a row.
fn beside(all: impl Iterator<Item = (DataType, Option<u32>, Form, Box<[u8]>)>, mut at: usize) -> (Vec<Column>, usize) {
    let mut columns = Vec::new();
    for (kind, period, form, name) in all {
        columns.push(Column { name, kind, period, form, at });
        at += form.bytes();
    }
    (columns, at)
}

/// Which numbers may need 64 bits.
fn number(kind: &DataType) -> Form {
    match kind {
        DataType::BytesInCnt
        | DataType::BytesOutCnt
        | DataType::BytesInRate
        | DataType::BytesOutRate
        | DataType::ServerId
        | DataType::Other(_) => Form::Wide,
        DataType::ServerKey => Form::Text,
        _ => Form::Number,
    }
}

/// The columns of a line of a dump, where rates are numbers.
pub(super) fn shown<'a>(names: impl Iterator<Item = &'a [u8]>, at: usize) -> (Vec<Column>, usize) {
    let column = |name: &'a [u8]| {
        let (kind, period) = split_period(name);
        let kind = DataType::parse(&String::from_utf8_lossy(kind));
        let form = number(&kind);
        (kind, period, form, name.into())
    };
    beside(names.map(column), at)
}

/// The columns of a table that is pushed, under the names of a dump.
pub(super) fn sent(table: &Table, at: usize) -> (Vec<Column>, usize) {
    let types = table.columns.iter().flat_map(|column| column.types().map(|kind| (kind, column.period())));
    let column = |(kind, period): (DataType, Option<u32>)| {
        let (form, name) = match period {
            Some(period) => (Form::Rate(period), format!("{kind}({period})")),
            None => (number(&kind), kind.to_string()),
        };
        (kind, period, form, name.into_bytes().into())
    };
    beside(types.map(column), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_their_cells() {
        let names: [&[u8]; 5] = [b"gpc0", b"bytes_in_cnt", b"conn_rate(1000)", b"server_key", b"odd"];
        let (columns, width) = shown(names.into_iter(), 3);
        let mut row = vec![1, 2, 3];
        for (column, number) in columns.iter().zip([1 << 32 | 7, 1 << 40, 9, 4, u64::MAX]) {
            column.form.put(number, &mut row);
        }
        assert_eq!(row.len(), width);
        let numbers: Vec<u64> = columns.iter().map(|column| column.number(&row, 0)).collect();
        assert_eq!(numbers, [7, 1 << 40, 9, 4, u64::MAX]);
        let mut other = row.clone();
        other[width - 1] = 0;
        let same: Vec<bool> = columns.iter().map(|column| column.same(&row, &other)).collect();
        assert_eq!(same, [true, true, true, true, false]);
        // A row that is not there holds nothing.
        assert_eq!(columns[0].number(&[], 0), 0);
    }

    #[test]
    fn a_rate_fades_by_a_clock_of_32_bits() {
        let column = Column {
            name: Box::default(),
            kind: DataType::ConnRate,
            period: Some(1000),
            form: Form::Rate(1000),
            at: 0,
        };
        for now in [0, 5_000, (1 << 32) - 3, 7 << 33] {
            let row = |age, current| {
                let mut row = Vec::new();
                put_rate(&Rate { age, current, previous: 10 }, now, &mut row);
                row
            };
            assert_eq!(column.number(&row(400, 5), now), 11);
            assert_eq!(column.number(&row(400, 5), now + 100), 10);
            assert_eq!(column.number(&row(400, 5), now + 1_600), 0);
            assert!(column.same(&row(400, 5), &row(500, 5)) && !column.same(&row(400, 5), &row(601, 5)));
            assert!(!column.same(&row(400, 5), &row(400, 6)));
        }
        let mut never = Vec::new();
        put_rate(&Rate { age: 4_294_954_868, ..Rate::default() }, 50, &mut never);
        assert_eq!((column.number(&never, 50), cell(&never, 8)), (0, 0));
    }
}
