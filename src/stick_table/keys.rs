//! Keys as a mirror stores them: those of a table that HAProxy pushes as on the wire, others as `show table` shows them.
//!
//! Each has a cell of equal width: a byte with its length, and its bytes. What is longer stands elsewhere.

use crate::peers::{KeyType, Table};
use crate::runtime::{escape_key, unescape};

/// Bytes of a key in a cell where keys may be of any length: an IPv4 address as a text fits.
const SHORT: usize = 15;
/// Bytes that a cell may have so that each key fits. A key that stands elsewhere takes more.
const WIDE: usize = 48;
/// Bytes that an allocation takes beside those that were asked for, about.
pub(super) const HEAP: usize = 16;
/// Instead of a length: the key stands elsewhere.
const ELSEWHERE: u8 = u8::MAX;

/// What keys look like.
#[derive(Debug, Default)]
pub(super) enum Keys {
    /// As `show table` shows them, with its escapes.
    #[default]
    Shown,
    /// As they are sent.
    Sent(Table),
}

/// What keys must begin with.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    text: String,
    escaped: Vec<u8>,
}

impl Prefix {
    pub(super) fn new(text: &str) -> Self {
        Prefix { text: text.to_owned(), escaped: escape_key(text) }
    }
}

impl Keys {
    /// Whether keys of a table are stored in this form.
    pub(super) fn fit(&self, table: &Table) -> bool {
        match self {
            Keys::Shown => false,
            Keys::Sent(known) => (known.key_type, known.key_length) == (table.key_type, table.key_length),
        }
    }

    /// Bytes of a key in its cell.
    pub(super) fn room(&self) -> usize {
        match self {
            Keys::Shown => SHORT,
            Keys::Sent(table) => match table.key_type {
                KeyType::Integer | KeyType::Ip => 4,
                KeyType::Ipv6 => 16,
                KeyType::String if table.key_length > WIDE + 1 => SHORT,
                KeyType::String => table.key_length - 1,
                KeyType::Binary if table.key_length > WIDE => 0,
                KeyType::Binary => table.key_length,
            },
        }
    }

    /// The stored form of a text; `None` when the table can have no such key.
    pub(super) fn stored(&self, shown: &str) -> Option<Vec<u8>> {
        match self {
            Keys::Shown => Some(escape_key(shown)),
            Keys::Sent(table) => table.read_key(shown),
        }
    }

    /// The text of a stored key, without escapes.
    pub(super) fn text(&self, key: &[u8]) -> String {
        match self {
            Keys::Shown => unescape(key),
            Keys::Sent(table) => {
                let mut text = Vec::with_capacity(self.size(key));
                table.show_key(key, &mut text);
                String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
            }
        }
    }

    /// About the bytes of its text.
    pub(super) fn size(&self, key: &[u8]) -> usize {
        match self {
            Keys::Sent(table) if table.key_type != KeyType::String => 3 * key.len() + 3,
            Keys::Shown | Keys::Sent(_) => key.len(),
        }
    }

    /// Whether the text of a stored key begins so.
    pub(super) fn begins(&self, key: &[u8], prefix: &Prefix) -> bool {
        match self {
            _ if prefix.text.is_empty() => true,
            Keys::Shown => key.starts_with(&prefix.escaped),
            Keys::Sent(table) if table.key_type == KeyType::String => key.starts_with(prefix.text.as_bytes()),
            Keys::Sent(_) => self.text(key).starts_with(&prefix.text),
        }
    }
}

/// Appends the cell of a key. Returns whether the key must be kept elsewhere.
pub(super) fn put_cell(key: &[u8], room: usize, out: &mut Vec<u8>) -> bool {
    let end = out.len() + 1 + room;
    let long = key.len() > room;
    out.push(if long { ELSEWHERE } else { key.len() as u8 });
    if !long {
        out.extend_from_slice(key);
    }
    out.resize(end, 0);
    long
}

/// The key in a cell that begins a row; `None` when it is kept elsewhere.
pub(super) fn in_cell(row: &[u8]) -> Option<&[u8]> {
    let (&length, bytes) = row.split_first()?;
    if length == ELSEWHERE { None } else { bytes.get(..usize::from(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_cells_and_from_their_texts() {
        let sent = |key_type, key_length| {
            let columns = Vec::new();
            Keys::Sent(Table { id: 1, name: "t".into(), key_type, key_length, columns, expire: 0, unknown: None })
        };
        let long = "x".repeat(60);
        for (keys, text, in_place) in [
            (Keys::Shown, "a b=c", true),
            (Keys::Shown, "255.255.255.255", true),
            (Keys::Shown, &long, false),
            (sent(KeyType::Ip, 4), "10.1.2.3", true),
            (sent(KeyType::Integer, 4), "4294967295", true),
            (sent(KeyType::Ipv6, 16), "2001:db8::1", true),
            (sent(KeyType::String, 33), "a b=c", true),
            (sent(KeyType::String, 256), "a b=c", true),
            (sent(KeyType::String, 256), &long, false),
            (sent(KeyType::Binary, 3), "AB0100", true),
            (sent(KeyType::Binary, 60), &"0A".repeat(60), false),
        ] {
            let (mut row, key) = (Vec::new(), keys.stored(text).unwrap());
            assert_eq!(put_cell(&key, keys.room(), &mut row), !in_place, "{text}");
            assert_eq!(row.len(), keys.room() + 1);
            row.extend(b"more");
            assert_eq!(in_cell(&row), in_place.then_some(&*key), "{text}");
            assert_eq!(keys.text(&key), text);
            for end in 0..text.len() {
                assert!(keys.begins(&key, &Prefix::new(&text[..end])));
                assert!(!keys.begins(&key, &Prefix::new(&format!("{}\u{1}", &text[..end]))));
            }
        }
    }
}
