//! Lists from the mirror of a table that HAProxy pushes.

use std::cmp::Reverse;

use super::hub::Hub;
use super::mirror::{Entry, Mirror};
use super::view::{Scope, View};
use crate::error::{Error, Reason, Result};
use crate::runtime::DataType;

/// Which entries, and in which order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Which entries.
    pub scope: Scope,
    /// Those with the most of this first; in no special order if unset.
    pub order_by: Option<DataType>,
    /// Entries to leave out at the beginning.
    pub start: usize,
    /// Most entries.
    pub limit: usize,
}

/// Entries, and how many there are with those that were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Entries that meet the scope.
    pub total: usize,
}

impl Hub {
    /// Lists from the mirror; `None` when HAProxy does not push the table, or not all entries have come.
    ///
    /// `INVALID_VALUE` for data that the table does not store.
    pub fn list(&self, table: &str, query: &Query) -> Result<Option<Listing>> {
        let Some(table) = self.pushed(table) else { return Ok(None) };
        let now = table.now();
        let mirror = table.read();
        if mirror.is_complete() { mirror.list(query, now).map(Some) } else { Ok(None) }
    }
}

impl Mirror {
    fn list(&self, query: &Query, now: u64) -> Result<Listing> {
        let view = View::new(&query.scope);
        view.check(self)?;
        let shown = |at: &u32| self.slot(*at).revision != 0 && view.matches(self, *at, now);
        let mut slots: Vec<u32> = self.all().filter(shown).collect();
        let total = slots.len();
        let end = query.start.saturating_add(query.limit).min(total);
        if let Some(kind) = &query.order_by {
            let column = self.columns().iter().find(|column| column.kind == *kind).ok_or_else(|| {
                let message = format!("order_by: the table does not store '{kind}'");
                Error::new(Reason::InvalidValue, message).with("field", "order_by")
            })?;
            // The key breaks ties, so that pages do not overlap.
            let rank = |at: &u32| (Reverse(self.number(*at, column, now)), self.key(*at));
            if end < total {
                slots.select_nth_unstable_by(end, |one, other| rank(one).cmp(&rank(other)));
                slots.truncate(end);
            }
            slots.sort_unstable_by(|one, other| rank(one).cmp(&rank(other)));
        }
        let page = slots.get(query.start.min(end)..end).unwrap_or_default();
        Ok(Listing { entries: page.iter().map(|at| self.entry(*at, now)).collect(), total })
    }
}
