//! Stick tables.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::client::Runtime;
use super::command::Command;
use super::lines::{Lines, Listing};
use super::parse::{
    DataType, DatumValue, Filter, TableEntry, TableInfo, TableType, parse_table_entry, parse_table_info,
};
use crate::error::{Error, Reason, Result};

impl Runtime {
    /// All stick tables.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        let answer = self.short(Command::new("show table")).await?;
        Ok(answer.lines().filter_map(|line| parse_table_info(line.as_bytes())).collect())
    }

    /// One stick table. `OBJECT_NOT_FOUND`.
    pub async fn table(&self, name: &str) -> Result<TableInfo> {
        let answer = self.short(Command::new("show table")).await?;
        let found = answer.lines().filter_map(|line| parse_table_info(line.as_bytes())).find(|t| t.name == name);
        found.ok_or_else(|| no_table(name))
    }

    /// Entries of a table, read in pieces; with filters, those that meet all of them (HAProxy allows four).
    ///
    /// The first item fails with `OBJECT_NOT_FOUND` when there is no such table, and with `RUNTIME_REJECTED` when a
    /// filter names data that the table does not store. HAProxy cannot filter on elements of arrays.
    pub async fn table_entries(&self, table: &str, filters: &[Filter]) -> Result<Listing<TableEntry>> {
        self.listing(with_filters(Command::new("show table").arg("table", table)?, filters)?, parse_table_entry).await
    }

    /// The same as lines, for readers of their own.
    pub async fn table_lines(&self, table: &str) -> Result<Lines> {
        self.lines(Command::new("show table").arg("table", table)?).await
    }

    /// The entry of a key. `OBJECT_NOT_FOUND` without table or entry, `RUNTIME_REJECTED` for binary tables: HAProxy
    /// does not look up their keys, only their listing has them.
    pub async fn table_entry(&self, table: &str, key: &str) -> Result<TableEntry> {
        let command = Command::new("show table").arg("table", table)?.words("key").arg("key", key)?;
        let answer = self.short(command).await?;
        let found = answer.lines().find_map(|line| parse_table_entry(line.as_bytes()));
        found.ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("no entry with key '{key}' in table '{table}'")))
    }

    /// Creates an entry or updates the given data of it.
    ///
    /// `OBJECT_NOT_FOUND` without such a table. `INVALID_VALUE` if the key does not fit the type of the table: some
    /// versions store another key instead. `RUNTIME_REJECTED` for data that the table does not store.
    pub async fn set_table_entry(&self, table: &str, key: &str, data: &[(DataType, DatumValue)]) -> Result<()> {
        let info = self.table(table).await?;
        check_table_key(info.kind, key)?;
        let mut command = Command::new("set table").arg("table", table)?.words("key").arg("key", key)?;
        for (kind, value) in data {
            command = command.arg("data type", &format!("data.{kind}"))?;
            command = match value {
                DatumValue::Number(number) => command.number(*number),
                DatumValue::Text(text) => command.arg("data value", text)?,
            };
        }
        self.short(command.idempotent()).await.map(drop)
    }

    /// Removes the entry of a key. No error if there is none. HAProxy refuses while a session tracks it.
    pub async fn clear_table_entry(&self, table: &str, key: &str) -> Result<()> {
        let command = Command::new("clear table").arg("table", table)?.words("key").arg("key", key)?;
        self.short(command.idempotent()).await.map(drop)
    }

    /// Removes the entries that meet all filters; without filters, all.
    pub async fn clear_table(&self, table: &str, filters: &[Filter]) -> Result<()> {
        let command = with_filters(Command::new("clear table").arg("table", table)?, filters)?;
        self.raw(command.idempotent()).await.map(drop)
    }
}

fn with_filters(mut command: Command, filters: &[Filter]) -> Result<Command> {
    for filter in filters {
        command = command.arg("data type", &format!("data.{}", filter.kind))?;
        command = command.words(filter.operator.word()).number(filter.value);
    }
    Ok(command)
}

fn no_table(name: &str) -> Error {
    Error::new(Reason::ObjectNotFound, format!("no stick table '{name}' in haproxy"))
}

/// HAProxy 2.6 takes `bad` for an address and stores some other key without a word.
fn check_table_key(kind: Option<TableType>, key: &str) -> Result<()> {
    let expected = match kind {
        Some(TableType::Ip) if key.parse::<Ipv4Addr>().is_err() => "an IPv4 address",
        Some(TableType::Ipv6) if key.parse::<Ipv6Addr>().is_err() && key.parse::<Ipv4Addr>().is_err() => {
            "an IPv6 address"
        }
        Some(TableType::Integer) if key.parse::<u32>().is_err() => "a number from 0 to 4294967295",
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
