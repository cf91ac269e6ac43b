//! All entries of the mirror of a table that HAProxy pushes, in pieces.

use std::sync::Arc;

use super::feed::Table;
use super::hub::Hub;
use super::mirror::Entry;
use super::view::{Scope, View};
use crate::error::{Error, Reason, Result};

/// Bytes of a piece by estimate.
const CHUNK: usize = 64 * 1024;

/// Reads a mirror from one end to the other. An entry that is there all the time comes once, as it is at some moment
/// meanwhile; of those that come and go meanwhile, some. Holds nothing but a place and a bit for each entry.
pub struct Export {
    table: Arc<Table>,
    view: View,
    epoch: u64,
    /// The slot to go on with; none at the end.
    from: Option<u32>,
}

impl Hub {
    /// Reads the mirror; `None` when HAProxy does not push the table, or not all entries have come.
    ///
    /// `INVALID_VALUE` for a filter on data that the table does not store.
    pub fn export(&self, table: &str, scope: &Scope) -> Result<Option<Export>> {
        let Some(table) = self.pushed(table) else { return Ok(None) };
        let view = View::new(scope);
        let epoch = {
            let mirror = table.read();
            if !mirror.is_complete() {
                return Ok(None);
            }
            view.check(&mirror)?;
            mirror.revision().epoch
        };
        Ok(Some(Export { table, view, epoch, from: Some(0) }))
    }
}

impl Export {
    /// The next entries; nothing at the end. `RUNTIME_UNAVAILABLE` when the table has become another one: begin again.
    pub fn piece(&mut self) -> Result<Option<Vec<Entry>>> {
        let Some(from) = self.from else { return Ok(None) };
        let now = self.table.now();
        let mirror = self.table.read();
        if mirror.revision().epoch != self.epoch {
            let message = format!("table '{}' became another one while it was read", self.table.name);
            return Err(Error::new(Reason::RuntimeUnavailable, message));
        }
        let (entries, next) = self.view.snapshot(&mirror, from, now, CHUNK);
        self.from = next;
        Ok(Some(entries))
    }
}
