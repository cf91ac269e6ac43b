//! What a peer says of a stick table before it sends entries of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Malformed;
use super::data::Column;
use super::varint::{put, put_counted, take, take_bytes, take_counted, take_u32};

/// Kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// Numbers of 32 bits.
    Integer,
    /// IPv4 addresses.
    Ip,
    /// IPv6 addresses.
    Ipv6,
    /// Texts.
    String,
    /// Bytes of a fixed length.
    Binary,
}

/// By their number on the wire.
const KEY_TYPES: [(u64, KeyType); 5] =
    [(2, KeyType::Integer), (4, KeyType::Ip), (5, KeyType::Ipv6), (6, KeyType::String), (7, KeyType::Binary)];

/// Longest key that HAProxy can be told to store, in bytes.
const KEY: u64 = 16_384;

/// A stick table as its sender describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The sender's number of it.
    pub id: u64,
    /// Its name: that of its section, or `/name` for a table of the peers section itself.
    pub name: String,
    /// Kind of its keys.
    pub key_type: KeyType,
    /// Longest key in bytes; for texts one more.
    pub key_length: usize,
    /// What it stores, in the order of the wire.
    pub columns: Vec<Column>,
    /// Milliseconds after which an entry that is not touched is gone; 0 for never.
    pub expire: u32,
    /// A data type that is not known here. Entries cannot be read then.
    pub unknown: Option<u32>,
}

impl Table {
    /// Reads the payload of a description. What stands behind the last known field is skipped.
    pub(super) fn take(mut bytes: &[u8]) -> Result<Table, Malformed> {
        let bytes = &mut bytes;
        let id = take(bytes)?;
        let name = String::from_utf8_lossy(take_counted(bytes)?).into_owned();
        let number = take(bytes)?;
        let key_type = KEY_TYPES.iter().find(|(known, _)| *known == number).ok_or(Malformed::OutOfRange)?.1;
        let key_length = take(bytes)?;
        if !(1..=KEY).contains(&key_length) {
            return Err(Malformed::OutOfRange);
        }
        let bits = take(bytes)?;
        // A sender of version 2.0 leaves out what follows.
        let expire = if bytes.is_empty() { 0 } else { take_u32(bytes)? };
        let (mut columns, mut unknown) = (Vec::new(), None);
        for bit in (0..u64::BITS).filter(|bit| bits & (1 << bit) != 0) {
            let Some(mut column) = Column::of(bit) else {
                unknown = Some(bit);
                break;
            };
            if !bytes.is_empty() {
                column.take_parameters(bytes)?;
            }
            columns.push(column);
        }
        Ok(Table { id, name, key_type, key_length: key_length as usize, columns, expire, unknown })
    }

    /// Appends the payload of its description.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put(self.id, out);
        put_counted(self.name.as_bytes(), out);
        let number = KEY_TYPES.iter().find(|(_, known)| *known == self.key_type).map_or(0, |(number, _)| *number);
        put(number, out);
        put(self.key_length as u64, out);
        put(self.columns.iter().fold(0_u64, |bits, column| bits | 1 << column.bit()), out);
        put(u64::from(self.expire), out);
        for column in &self.columns {
            column.put_parameters(out);
        }
    }

    /// Takes a key off the front of an update.
    pub(super) fn take_key<'a>(&self, bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
        match self.key_type {
            KeyType::String => take_counted(bytes),
            KeyType::Integer | KeyType::Ip => take_bytes(4, bytes),
            KeyType::Ipv6 => take_bytes(16, bytes),
            KeyType::Binary => take_bytes(self.key_length, bytes),
        }
    }

    /// Appends a key.
    pub fn put_key(&self, key: &[u8], out: &mut Vec<u8>) {
        match self.key_type {
            KeyType::String => put_counted(key, out),
            _ => out.extend_from_slice(key),
        }
    }

    /// Appends a key as HAProxy shows it, before escapes.
    pub fn show_key(&self, key: &[u8], out: &mut Vec<u8>) {
        use std::io::Write as _;
        // Writing to memory does not fail.
        let _written = match self.key_type {
            KeyType::Integer => key.first_chunk().map(|four| write!(out, "{}", u32::from_be_bytes(*four))),
            KeyType::Ip => key.first_chunk::<4>().map(|four| write!(out, "{}", Ipv4Addr::from(*four))),
            KeyType::Ipv6 => key.first_chunk::<16>().map(|all| write!(out, "{}", ShownIpv6(Ipv6Addr::from(*all)))),
            KeyType::String => {
                out.extend_from_slice(key);
                None
            }
            KeyType::Binary => {
                for byte in key {
                    let _hex = write!(out, "{byte:02X}");
                }
                None
            }
        };
    }

    /// The bytes on the wire of a key as HAProxy shows it; `None` when the table can have no such key.
    pub fn read_key(&self, shown: &str) -> Option<Vec<u8>> {
        match self.key_type {
            KeyType::Integer => shown.parse::<u32>().ok().map(|number| number.to_be_bytes().to_vec()),
            KeyType::Ip => shown.parse::<Ipv4Addr>().ok().map(|address| address.octets().to_vec()),
            KeyType::Ipv6 => shown.parse::<Ipv6Addr>().ok().map(|address| address.octets().to_vec()),
            KeyType::String => (shown.len() < self.key_length).then(|| shown.as_bytes().to_vec()),
            KeyType::Binary => {
                let digits = shown.as_bytes();
                if !digits.len().is_multiple_of(2) || digits.len() / 2 > self.key_length {
                    return None;
                }
                let pairs = digits.chunks_exact(2).map(|pair| std::str::from_utf8(pair).ok());
                let mut key: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>()?;
                key.resize(self.key_length, 0);
                Some(key)
            }
        }
    }
}

/// An address in the form of `inet_ntop`, which HAProxy uses: `::1.2.3.4` where the standard library has `::102:304`.
struct ShownIpv6(Ipv6Addr);

impl std::fmt::Display for ShownIpv6 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let segments = self.0.segments();
        if segments[..6] == [0; 6] && segments[6] != 0 {
            let [.., high, low] = segments;
            return write!(f, "::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
        }
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(key_type: KeyType, key_length: usize) -> Table {
        Table { id: 1, name: "t".into(), key_type, key_length, columns: Vec::new(), expire: 0, unknown: None }
    }

    #[test]
    fn keys_are_shown_as_haproxy_shows_them_and_read_back() {
        for (table, key, shown) in [
            (table(KeyType::Integer, 4), &[0xff, 0xff, 0xff, 0xfe][..], "4294967294"),
            (table(KeyType::Ip, 4), &[10, 1, 2, 3], "10.1.2.3"),
            (table(KeyType::Ipv6, 16), &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            (table(KeyType::Ipv6, 16), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], "::1.2.3.4"),
            (table(KeyType::Ipv6, 16), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "::1"),
            (table(KeyType::Ipv6, 16), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], "::ffff:1.2.3.4"),
            (table(KeyType::String, 33), b"a b=c", "a b=c"),
            (table(KeyType::Binary, 3), &[0xab, 1, 0], "AB0100"),
        ] {
            let mut out = Vec::new();
            table.show_key(key, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), shown);
            assert_eq!(table.read_key(shown).as_deref(), Some(key), "{shown}");
        }
        for (table, wrong) in [
            (table(KeyType::Integer, 4), "-1"),
            (table(KeyType::Ip, 4), "::1"),
            (table(KeyType::String, 4), "four"),
            (table(KeyType::Binary, 2), "ABC"),
            (table(KeyType::Binary, 2), "0x12"),
            (table(KeyType::Binary, 2), "é1"),
            (table(KeyType::Binary, 2), "010203"),
        ] {
            assert_eq!(table.read_key(wrong), None, "{wrong}");
        }
        assert_eq!(table(KeyType::Binary, 3).read_key("01"), Some(vec![1, 0, 0]));
    }
}
