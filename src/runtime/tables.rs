//! Stick tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::attempts::unknown;
use super::client::Runtime;
use super::command::Command;
use super::lines::{Lines, Listing};
use super::parse::{
    DataType, DatumValue, Filter, TableEntry, TableInfo, TableType, parse_table_entry, parse_table_info,
};
use crate::error::{Error, Reason, Result};

/// Conditions that HAProxy takes, from 2.6 to 3.2.
const FILTERS: usize = 4;

impl Runtime {
    /// All stick tables.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let answer = self.short(Command::new("show table")).await?;
        Ok(answer.lines().filter_map(|line| parse_table_info(line.as_bytes())).collect())
    }

    /// One stick table. `OBJECT_NOT_FOUND`.
    pub async fn table(&self, name: &str) -> Result<TableInfo> {
        table_of(&self.short(Command::new("show table")).await?, name)
    }

    /// Entries of a table, read in pieces; with filters, those that meet all of them, at most four.
    ///
    /// The first item fails with `OBJECT_NOT_FOUND` when there is no such table, and with `RUNTIME_REJECTED` when a
    /// filter names data that the table does not store. Elements of arrays are no such data here.
    pub async fn table_entries(&self, table: &str, filters: &[Filter]) -> Result<Listing<TableEntry>> {
        self.listing(with_filters(Command::new("show table").arg("table", table)?, filters, false)?, parse_table_entry)
            .await
    }

    /// The same as lines, for readers of their own.
    pub async fn table_lines(&self, table: &str) -> Result<Lines> {
        self.lines(Command::new("show table").arg("table", table)?).await
    }

    /// The entry of a key, if there is one. `OBJECT_NOT_FOUND` without such a table, `RUNTIME_REJECTED` for binary tables:
    /// HAProxy does not look up their keys, only their listing has them.
    pub async fn table_entry(&self, table: &str, key: &str) -> Result<Option<TableEntry>> {
        let answer = self.short(show_key(table, key)?).await?;
        Ok(answer.lines().find_map(|line| parse_table_entry(line.as_bytes())))
    }

    /// Creates an entry or updates the given data of it.
    ///
    /// `OBJECT_NOT_FOUND` without such a table. `INVALID_VALUE` if the key does not fit the type of the table (some
    /// versions store another key instead), for numbers that the data type cannot hold, and for the key of a server.
    /// `RUNTIME_REJECTED` for data that the table does not store, and for elements of arrays before HAProxy 3.2; data
    /// in front of it are set then.
    pub async fn set_table_entry(&self, table: &str, key: &str, data: &[(DataType, DatumValue)]) -> Result<()> {
        let info = self.table(table).await?;
        check_table_key(info.kind, key)?;
        self.set_table_entry_checked(table, key, &check_table_data(data)?).await
    }

    /// The same for a key and data that have been checked.
    pub async fn set_table_entry_checked(&self, table: &str, key: &str, data: &[(DataType, u64)]) -> Result<()> {
        let whole = self.short(set(table, key, data, false)?).await.map(drop);
        match whole {
            Err(error)
                if error.reason() == Reason::RuntimeRejected && data.iter().any(|(kind, _)| kind.is_indexed()) => {}
            other => return other,
        }
        // Whether a counter is an element of an array is not known before: each is tried on its own, either way.
        for datum in data {
            let one = std::slice::from_ref(datum);
            let plain = self.short(set(table, key, one, false)?).await;
            if let Err(error) = plain {
                if !datum.0.is_indexed() {
                    return Err(error);
                }
                self.short(set(table, key, one, true)?).await?;
            }
        }
        Ok(())
    }

    /// Adds to counters of an entry, which is created if need be, and returns it as it is then. A negative amount is
    /// taken off. Counters stop at 0 and at the largest number that they can hold.
    ///
    /// HAProxy has no command for this, and works off nothing in one go that reads and writes: what it counts itself
    /// between our reading and our writing is lost. Additions to a table wait for each other.
    ///
    /// Errors as of [`Runtime::set_table_entry`], and `OUTCOME_UNKNOWN` when a reload came in between.
    pub async fn add_to_table_entry(&self, table: &str, key: &str, amounts: &[(DataType, i64)]) -> Result<TableEntry> {
        let _alone = self.adding(table).await;
        self.on_one(|one, _| async move {
            let [tables, known] = one.together([Command::new("show table"), show_key(table, key)?]).await?;
            check_table_key(table_of(&tables?, table)?.kind, key)?;
            let known = known?.lines().find_map(|line| parse_table_entry(line.as_bytes()));
            let sum = |(kind, amount): &(DataType, i64)| {
                let before = known.as_ref().and_then(|entry| entry.number(kind)).unwrap_or(0);
                (kind.clone(), before.saturating_add_signed(*amount).min(kind.largest()))
            };
            let sums: Vec<_> = amounts.iter().map(sum).collect();
            let set = one.set_table_entry_checked(table, key, &sums).await;
            // A worker that goes may have taught the next one what it counted, so nothing is added again from here on.
            match set {
                Ok(()) => {
                    let entry = one.table_entry(table, key).await.map_err(|error| counted(&error));
                    // It may have been cleared meanwhile.
                    Ok(entry.and_then(|entry| entry.ok_or_else(|| no_entry(table, key))))
                }
                Err(error) if error.reason() == Reason::OutcomeUnknown => Ok(Err(error)),
                Err(error) => Err(error),
            }
        })
        .await?
    }

    /// Removes the entry of a key. No error if there is none. HAProxy refuses while a session tracks it.
    pub async fn clear_table_entry(&self, table: &str, key: &str) -> Result<()> {
        let command = Command::new("clear table").arg("table", table)?.words("key").arg("key", key)?;
        self.short(command).await.map(drop)
    }

    /// Removes the entries that meet all filters; without filters, all. `INVALID_VALUE` for more than four filters.
    pub async fn clear_table(&self, table: &str, filters: &[Filter]) -> Result<()> {
        let command = || Command::new("clear table").arg("table", table);
        let plain = self.long(with_filters(command()?, filters, false)?).await;
        match plain {
            Err(error)
                if error.reason() == Reason::RuntimeRejected
                    && filters.iter().any(|filter| filter.kind.is_indexed()) =>
            {
                // What is refused has cleared nothing. The first refusal says more, if both forms are refused.
                let array = self.long(with_filters(command()?, filters, true)?).await;
                array.map(drop).map_err(|_| error)
            }
            other => other.map(drop),
        }
    }
}

fn show_key(table: &str, key: &str) -> Result<Command> {
    Command::new("show table").arg("table", table)?.words("key").arg("key", key)
}

/// The table of a name in the answer of `show table`.
fn table_of(answer: &str, name: &str) -> Result<TableInfo> {
    let found = answer.lines().filter_map(|line| parse_table_info(line.as_bytes())).find(|t| t.name == name);
    found.ok_or_else(|| no_table(name))
}

fn with_filters(mut command: Command, filters: &[Filter], array: bool) -> Result<Command> {
    if filters.len() > FILTERS {
        let message = format!("filter: haproxy takes at most {FILTERS} conditions, got {}", filters.len());
        return Err(Error::new(Reason::InvalidValue, message).with("field", "filter").with("limit", FILTERS));
    }
    for filter in filters {
        command = command.arg("data type", &format!("data.{}", filter.kind.spelled(array)))?;
        command = command.words(filter.operator.word()).number(filter.value);
    }
    Ok(command)
}

fn set(table: &str, key: &str, data: &[(DataType, u64)], array: bool) -> Result<Command> {
    let mut command = Command::new("set table").arg("table", table)?.words("key").arg("key", key)?;
    for (kind, number) in data {
        command = command.arg("data type", &format!("data.{}", kind.spelled(array)))?.number(*number);
    }
    Ok(command)
}

/// Numbers that HAProxy takes. It would cut larger ones without a word. `INVALID_VALUE`.
pub fn check_table_data(data: &[(DataType, DatumValue)]) -> Result<Vec<(DataType, u64)>> {
    let number = |(kind, value): &(DataType, DatumValue)| match value {
        DatumValue::Number(number) if *number <= kind.largest() => Ok((kind.clone(), *number)),
        DatumValue::Number(number) => {
            let message = format!("{kind}: expected a number up to {}, got {number}", kind.largest());
            Err(Error::new(Reason::InvalidValue, message).with("field", kind))
        }
        DatumValue::Text(_) => {
            Err(Error::new(Reason::InvalidValue, format!("{kind}: haproxy lets nobody set it")).with("field", kind))
        }
    };
    data.iter().map(number).collect()
}

/// An entry that cannot be read after it was added to.
fn counted(error: &Error) -> Error {
    match error.reason() {
        Reason::RuntimeUnavailable => unknown(error),
        _ => error.clone(),
    }
}

fn no_entry(table: &str, key: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("no entry with key '{key}' in table '{table}'"))
}

fn no_table(name: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("no stick table '{name}' in haproxy"))
}

/// HAProxy 2.6 takes `bad` for an address and stores some other key without a word. `INVALID_VALUE`.
pub fn check_table_key(kind: Option<TableType>, key: &str) -> Result<()> {
    let expected = match kind {
        Some(TableType::Ip) if key.parse::<Ipv4Addr>().is_err() => "an IPv4 address",
        Some(TableType::Ipv6) if key.parse::<Ipv6Addr>().is_err() && key.parse::<Ipv4Addr>().is_err() => {
            "an IPv6 address"
        }
        Some(TableType::Integer) if key.parse::<u32>().is_err() => "a number from 0 to 4294967295",
        Some(TableType::Binary) => "a table whose keys are not binary, which haproxy lets nobody set",
        _ if key.is_empty() => "at least one character",
        _ => return Ok(()),
    };
    Err(Error::new(Reason::InvalidValue, format!("key: expected {expected}, got '{key}'")).with("field", "key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_must_fit_the_type_of_the_table() {
        for (kind, good, bad) in [
            (TableType::Ip, "1.2.3.4", "::1"),
            (TableType::Ip, "1.2.3.4", "bad"),
            (TableType::Ipv6, "::1", "1.2.3"),
            (TableType::Integer, "42", "-1"),
        ] {
            assert!(check_table_key(Some(kind), good).is_ok());
            assert_eq!(check_table_key(Some(kind), bad).unwrap_err().reason(), Reason::InvalidValue);
        }
        assert!(check_table_key(Some(TableType::String), "any = thing").is_ok());
        assert!(check_table_key(None, "x").is_ok());
    }
}
