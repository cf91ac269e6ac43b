//! What is kept of each entry, and how the values of several nodes become one. Pure.

use super::resource::Function;
use crate::peers::{Column, KeyType, Table};

/// How the values of a column become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// Numbers that are counted, up to the largest that HAProxy can hold.
    Count(u64),
    /// Tags: that of the node which touched the entry last.
    Last,
    /// Texts: the same.
    LastText,
    /// Rates, with their period in milliseconds. They take two cells.
    Rate(u32),
}

/// A column as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) column: Column,
    pub(super) merge: Merge,
    /// Its first cell.
    pub(super) at: usize,
}

impl Part {
    pub(super) fn cells(&self) -> usize {
        if matches!(self.merge, Merge::Rate(_)) { 2 } else { 1 }
    }
}

/// The columns of the source tables that are brought together. Each value of an entry is one cell, a rate two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) key_type: KeyType,
    pub(super) key_length: usize,
    pub(super) parts: Vec<Part>,
    pub(super) width: usize,
    pub(super) function: Function,
}

/// What the values of a table are for: the cell of each, if it has one.
pub(super) type Map = Vec<Option<usize>>;

impl Layout {
    /// The columns of a source table, of these types only if there are some.
    pub(super) fn new(table: &Table, types: &[String], function: Function) -> Layout {
        let (mut parts, mut width) = (Vec::new(), 0);
        for &column in &table.columns {
            if !types.is_empty() && !types.iter().any(|wanted| wanted == column.name()) {
                continue;
            }
            let merge = match (column.period(), column.name()) {
                (Some(period), _) => Merge::Rate(period),
                (None, "server_key") => Merge::LastText,
                (None, "server_id" | "gpt0" | "gpt") => Merge::Last,
                (None, "bytes_in_cnt" | "bytes_out_cnt") => Merge::Count(u64::MAX),
                (None, _) => Merge::Count(u64::from(u32::MAX)),
            };
            let part = Part { column, merge, at: width };
            width += part.cells() * usize::from(column.elements());
            parts.push(part);
        }
        Layout { key_type: table.key_type, key_length: table.key_length, parts, width, function }
    }

    /// Whether tags are among them.
    pub(super) fn has_tags(&self) -> bool {
        self.parts.iter().any(|part| matches!(part.merge, Merge::Last | Merge::LastText))
    }

    /// Where the values of a table go. An error says what does not fit.
    pub(super) fn map(&self, table: &Table) -> Result<Map, String> {
        if let Some(bit) = table.unknown {
            return Err(format!("it stores data of a kind that is not known ({bit})"));
        }
        if (table.key_type, table.key_length) != (self.key_type, self.key_length) {
            return Err("its keys are of another type or length than those of the source table".to_owned());
        }
        let mut map = Map::new();
        for &column in &table.columns {
            let part = self.parts.iter().find(|part| part.column.name() == column.name());
            if part.is_some_and(|part| part.column.period() != column.period()) {
                return Err(format!("{} has another period than in the source table", column.name()));
            }
            map.extend((0..usize::from(column.elements())).map(|element| {
                let part = part.filter(|part| element < usize::from(part.column.elements()))?;
                Some(part.at + element * part.cells())
            }));
        }
        if map.iter().all(Option::is_none) {
            return Err("it stores none of the data that is to be aggregated".to_owned());
        }
        Ok(map)
    }

    /// The part that a cell begins, with HAProxy's type of its values.
    pub(super) fn part(&self, cell: usize) -> Option<&Part> {
        self.parts.iter().rev().find(|part| part.at <= cell)
    }

    /// A target table as it is taught: the columns that are kept, no others.
    pub(super) fn taught(&self, table: &Table) -> Result<(Table, Vec<usize>), String> {
        let map = self.map(table)?;
        let known = |column: &Column| {
            let part = self.parts.iter().find(|part| part.column.name() == column.name());
            // An array is taught whole or not at all.
            part.is_some_and(|part| part.column.elements() >= column.elements())
        };
        let columns: Vec<Column> = table.columns.iter().copied().filter(known).collect();
        if columns.is_empty() {
            return Err("its arrays are longer than those of the source table".to_owned());
        }
        let (mut cells, mut at) = (Vec::new(), 0);
        for column in &table.columns {
            let elements = usize::from(column.elements());
            if known(column) {
                cells.extend(map.iter().skip(at).take(elements).copied().flatten());
            }
            at += elements;
        }
        Ok((Table { columns, ..table.clone() }, cells))
    }
}
