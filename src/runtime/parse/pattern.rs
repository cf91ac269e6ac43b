//! Maps and ACLs: `show map`, `show acl`, `get map`, and what an entry may hold.

use super::text;
use crate::error::{Error, Reason, Result};
use crate::runtime::command::refuse_line_breaks;

/// A loaded map or ACL, as `show map` and `show acl` list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternInfo {
    /// Number that HAProxy gave it; changes with reloads. Commands take it as `#id`.
    pub id: String,
    /// File it was loaded from; none for patterns that stand in the configuration itself.
    pub file: Option<String>,
    /// HAProxy's description, with the places that use it.
    pub description: String,
    /// Entries of the current version, as far as HAProxy says so (since 2.4).
    pub entries: Option<u64>,
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MapEntry {
    /// HAProxy's pointer such as `0x55f0a0`; only listings tell it, and it dies with the entry.
    pub id: Option<String>,
    /// Key. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub key: String,
    /// Value, likewise.
    pub value: String,
}

/// An entry of an ACL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PatternEntry {
    /// HAProxy's pointer such as `0x55f0a0`; it dies with the entry.
    pub id: String,
    /// The pattern, which may hold blanks.
    pub value: String,
}

/// An entry of a map as it stands in a listing, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry<'a> {
    /// HAProxy's pointer.
    pub id: &'a [u8],
    /// Key: everything up to the first blank.
    pub key: &'a [u8],
    /// Everything behind it.
    pub value: &'a [u8],
}

/// Reads a line of `show map` or `show acl`; nothing for the header and the empty line at the end.
pub(crate) fn parse_info(line: &[u8]) -> Option<PatternInfo> {
    let line = std::str::from_utf8(line).map_or_else(|_| text(line), str::to_owned);
    let (id, rest) = line.split_once(" (")?;
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    // A path may hold parentheses; the description never starts inside of one.
    let (file, description) = rest.split_once(") ")?;
    let entries = description.rsplit_once("entry_cnt=").and_then(|(_, count)| count.trim().parse().ok());
    let description = description.rsplit_once(". curr_ver=").map_or(description, |(start, _)| start);
    Some(PatternInfo {
        id: id.to_owned(),
        file: (!file.is_empty()).then(|| file.to_owned()),
        description: description.to_owned(),
        entries,
    })
}

/// Reads a line of `show map <map>`.
pub fn parse_raw_entry(line: &[u8]) -> Option<RawEntry<'_>> {
    let (id, rest) = split_id(line)?;
    let at = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    Some(RawEntry { id, key: &rest[..at], value: rest.get(at + 1..).unwrap_or_default() })
}

/// Reads a line of `show map <map>` as text.
pub fn parse_entry(line: &[u8]) -> Option<MapEntry> {
    let raw = parse_raw_entry(line)?;
    Some(MapEntry { id: Some(text(raw.id)), key: text(raw.key), value: text(raw.value) })
}

/// Reads a line of `show acl <acl>`.
pub(crate) fn parse_acl_entry(line: &[u8]) -> Option<PatternEntry> {
    let (id, value) = split_id(line)?;
    Some(PatternEntry { id: text(id), value: text(value) })
}

fn split_id(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', line)?;
    line.starts_with(b"0x").then(|| (&line[..at], &line[at + 1..]))
}

/// What `get map` says about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// The map holds exactly this key.
    Found(String),
    /// It does not.
    Absent,
    /// The map matches in a way that does not tell: only its listing does.
    Unknown,
}

/// Reads the answer of `get map <map> <key>`, one line for each place that uses the map.
pub(crate) fn parse_lookup(answer: &str, key: &str) -> Lookup {
    let found = format!(", key=\"{key}\", value=\"");
    let mut absent = false;
    for line in answer.lines() {
        if let Some((_, rest)) = line.split_once(&found)
            && let Some((value, _)) = rest.rsplit_once("\", type=\"")
        {
            return Lookup::Found(value.to_owned());
        }
        // A key is the longest prefix of itself, so these two would have found it.
        absent |= line.starts_with("type=str, case=sensitive,") || line.starts_with("type=beg, case=sensitive,");
    }
    if absent { Lookup::Absent } else { Lookup::Unknown }
}

/// Blanks at which HAProxy ends words of a map file.
const BLANKS: &[char] = &[' ', '\t'];

/// Refuses a key that would not survive the way through the socket and the map file.
///
/// `INVALID_VALUE` naming `key`: it is empty, holds a blank (HAProxy ends the key there), a line break or a NUL.
pub fn check_key(key: &str) -> Result<()> {
    refuse_line_breaks("key", key)?;
    let why = if key.is_empty() {
        "must not be empty"
    } else if key.contains(BLANKS) {
        "must not hold a blank: haproxy ends the key there"
    } else {
        return Ok(());
    };
    Err(Error::new(Reason::InvalidValue, format!("key: {why}")).with("field", "key"))
}

/// Refuses a value that would not survive the way through the socket and the map file.
///
/// `INVALID_VALUE` naming `value`: it is empty, starts or ends with a blank (HAProxy strips it), or holds a line break
/// or a NUL. Blanks inside are fine.
pub fn check_value(value: &str) -> Result<()> {
    refuse_line_breaks("value", value)?;
    let why = if value.is_empty() {
        "must not be empty: the runtime socket cannot send it"
    } else if value.starts_with(BLANKS) || value.ends_with(BLANKS) {
        "must not start or end with a blank: haproxy strips it"
    } else {
        return Ok(());
    };
    Err(Error::new(Reason::InvalidValue, format!("value: {why}")).with("field", "value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_maps_and_acls_are_read() {
        let maps: Vec<_> = include_bytes!("../../../tests/data/runtime/show_map.txt")
            .split(|&byte| byte == b'\n')
            .filter_map(parse_info)
            .collect();
        assert_eq!(
            maps,
            [PatternInfo {
                id: "1".into(),
                file: Some("/etc/haproxy/m.map".into()),
                description: "pattern loaded from file '/etc/haproxy/m.map' used by map at file 'h.cfg' line 14".into(),
                entries: Some(4),
            }]
        );
        let acls: Vec<_> = include_bytes!("../../../tests/data/runtime/show_acl.txt")
            .split(|&byte| byte == b'\n')
            .filter_map(parse_info)
            .collect();
        assert_eq!(acls.len(), 6);
        assert_eq!((acls[0].id.as_str(), &acls[0].file), ("0", &None));
        assert_eq!(acls[2].file.as_deref(), Some("/etc/haproxy/a.acl"));
        let before_2_4 = parse_info(b"-1 (/a (b).map) pattern loaded from file").unwrap();
        assert_eq!((before_2_4.file.as_deref(), before_2_4.entries), (Some("/a (b).map"), None));
    }

    #[test]
    fn entries_keep_blanks_of_their_values() {
        let entry = |line: &str| {
            let entry = parse_entry(line.as_bytes()).unwrap();
            (entry.key, entry.value)
        };
        assert_eq!(entry("0x55 /x y z w"), ("/x".into(), "y z w".into()));
        assert_eq!(entry("0x55 keyonly "), ("keyonly".into(), String::new()));
        assert_eq!(entry("0x55  k9   v9  "), (String::new(), "k9   v9  ".into()));
        assert_eq!(parse_entry(b"# id (file) description"), None);
        assert_eq!(parse_entry(b""), None);
        assert_eq!(parse_acl_entry(b"0x55 a b").unwrap().value, "a b");
    }

    #[test]
    fn a_lookup_is_definite_only_where_the_match_is() {
        let beg =
            "type=beg, case=sensitive, found=yes, idx=tree, key=\"/api/\", value=\"b\", type=\"x\", type=\"str\"\n";
        assert_eq!(parse_lookup(beg, "/api/"), Lookup::Found("b\", type=\"x".into()));
        assert_eq!(parse_lookup(beg, "/api/x"), Lookup::Absent);
        assert_eq!(parse_lookup("type=beg, case=sensitive, found=no", "a"), Lookup::Absent);
        for unsure in [
            "type=beg, case=insensitive, found=no",
            "type=reg, case=sensitive, found=no",
            "type=ip, case=sensitive, found=yes, idx=tree, key=\"10.0.0.0/8\", value=\"b\", type=\"str\"",
            "",
        ] {
            assert_eq!(parse_lookup(unsure, "10.0.0.1"), Lookup::Unknown, "{unsure}");
        }
        let two = format!("type=reg, case=sensitive, found=no\n{beg}");
        assert!(matches!(parse_lookup(&two, "/api/"), Lookup::Found(_)));
    }

    #[test]
    fn only_what_survives_socket_and_file_is_accepted() {
        for key in ["/api/", "a#b", "a&b=c", "\"q'", "a\\b", "ключ", "<<", ";", "#a"] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        for key in ["", "a b", "a\tb", "a\nb", "a\rb", "a\0b", " a"] {
            let error = check_key(key).unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue, "{key}");
            assert!(error.message().starts_with("key: "));
        }
        assert!(check_value("a  b # c ; \\ \"").is_ok());
        for value in ["", " a", "a ", "a\t", "a\nb", "a\rb"] {
            assert!(check_value(value).unwrap_err().message().starts_with("value: "), "{value:?}");
        }
    }
}
