//! How replicas know of each other: entries of the target table with keys of their own. Pure.
//!
//! A replica that reaches all nodes teaches its entry again and again, with a short life. HAProxy does not pass on what it is
//! taught, but in a resync; so a replica that does not reach all nodes asks for those.

use std::time::Duration;

use crate::peers::{Column, KeyType, Rate, Table, Value};

/// Between two beats.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// Milliseconds that one lives.
pub(super) const LIFE: u32 = 3_000;
/// Replicas that there can be.
pub(super) const REPLICAS: usize = 8;

/// The key of the entry of a replica, by its place among all.
pub(super) fn key(table: &Table, place: usize) -> Vec<u8> {
    let number = place as u8;
    match table.key_type {
        KeyType::Integer => (u32::MAX - u32::from(number)).to_be_bytes().to_vec(),
        KeyType::Ip => vec![0, 0, 0, number + 1],
        KeyType::Ipv6 => [&[1][..], &[0; 14], &[number + 1]].concat(),
        KeyType::String => vec![127, b'1' + number],
        KeyType::Binary => {
            let mut key = vec![u8::MAX; table.key_length];
            if let Some(last) = key.last_mut() {
                *last -= number;
            }
            key
        }
    }
}

/// The place of the replica whose key it is.
pub(super) fn place(table: &Table, key: &[u8]) -> Option<usize> {
    let place = match (table.key_type, key) {
        (KeyType::Integer, key) => u32::MAX - u32::from_be_bytes(key.try_into().ok()?),
        (KeyType::Ip, [0, 0, 0, number]) => u32::from(*number).checked_sub(1)?,
        (KeyType::Ipv6, [1, rest @ .., number]) if rest.iter().all(|byte| *byte == 0) => {
            u32::from(*number).checked_sub(1)?
        }
        (KeyType::String, [127, number]) => u32::from(number.checked_sub(b'1')?),
        (KeyType::Binary, [rest @ .., last]) if rest.iter().all(|byte| *byte == u8::MAX) => u32::from(u8::MAX - last),
        _ => return None,
    };
    usize::try_from(place).ok().filter(|place| *place < REPLICAS)
}

/// What it stores.
pub(super) fn values(table: &Table) -> Vec<Value<'static>> {
    let zero = |column: &Column| match (column.period(), column.name()) {
        (Some(_), _) => Value::Rate(Rate::default()),
        (None, "server_key") => Value::Nothing,
        (None, _) => Value::Number(0),
    };
    table.columns.iter().flat_map(|column| std::iter::repeat_n(zero(column), usize::from(column.elements()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_replica_has_a_key_of_its_own_in_any_table() {
        for (key_type, key_length, second) in [
            (KeyType::Integer, 4, "4294967294"),
            (KeyType::Ip, 4, "0.0.0.2"),
            (KeyType::Ipv6, 16, "100::2"),
            (KeyType::String, 9, "\u{7f}2"),
            (KeyType::Binary, 3, "FFFFFE"),
        ] {
            let columns = vec![
                Column::named("server_key", 1, None).unwrap(),
                Column::named("gpc", 2, None).unwrap(),
                Column::named("gpc_rate", 2, Some(5)).unwrap(),
            ];
            let table = Table { id: 1, name: "t".into(), key_type, key_length, columns, expire: 9, unknown: None };
            let mut shown = Vec::new();
            table.show_key(&key(&table, 1), &mut shown);
            assert_eq!(String::from_utf8(shown).unwrap(), second);
            let all: std::collections::HashSet<_> = (0..REPLICAS).map(|place| key(&table, place)).collect();
            assert_eq!((all.len(), values(&table).len()), (REPLICAS, 5));
            assert!((0..REPLICAS).all(|at| place(&table, &key(&table, at)) == Some(at)));
            assert_eq!((place(&table, b"a"), place(&table, &[9; 4]), place(&table, &[0; 16])), (None, None, None));
        }
    }
}
