//! Lines of a map file, as HAProxy reads them.
//!
//! A line that starts with `#` is a comment. Otherwise blanks (spaces and tabs) in front are skipped, the key goes up to
//! the next blank, and the value is the rest without blanks at its ends.

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Key and value of a line; nothing for comments and empty lines. The line may still have its line end.
pub fn parse_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    // HAProxy ends a line at the first of these.
    let end = line.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)).unwrap_or(line.len());
    let line = &line[..end];
    if line.first() == Some(&b'#') {
        return None;
    }
    let start = line.iter().position(|byte| !is_blank(*byte))?;
    let line = &line[start..];
    let end = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let Some(start) = rest.iter().position(|byte| !is_blank(*byte)) else { return Some((key, b"")) };
    let end = rest.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1);
    Some((key, &rest[start..end]))
}

/// Appends the line of an entry; false, and nothing is appended, if it would not read back as it is.
pub fn print_line(out: &mut Vec<u8>, key: &[u8], value: &[u8]) -> bool {
    let start = out.len();
    // At the start of a line a `#` would make a comment.
    if key.first() == Some(&b'#') {
        out.push(b' ');
    }
    out.extend_from_slice(key);
    if !value.is_empty() {
        out.push(b' ');
        out.extend_from_slice(value);
    }
    if parse_line(&out[start..]) != Some((key, value)) {
        out.truncate(start);
        return false;
    }
    out.push(b'\n');
    true
}

/// Appends the line of an entry with another value; blanks, and what ends the line, stay. False, and nothing is
/// appended, if it would not read back as it is.
pub(super) fn with_value(out: &mut Vec<u8>, line: &[u8], value: &[u8]) -> bool {
    let Some((key, old)) = parse_line(line) else { return false };
    let start = out.len();
    let end = line.iter().position(|byte| matches!(byte, b'\n' | b'\r' | 0)).unwrap_or(line.len());
    let (text, line_end) = line.split_at(end);
    let lead = text.iter().position(|byte| !is_blank(*byte)).unwrap_or(0);
    let (named, rest) = text.split_at(lead + key.len());
    // An entry without a value may have blanks behind its key; the value goes behind them.
    let gap = rest.iter().position(|byte| !is_blank(*byte)).unwrap_or(rest.len());
    let (gap, rest) = rest.split_at(gap);
    out.extend_from_slice(named);
    out.extend_from_slice(if gap.is_empty() { b" " } else { gap });
    out.extend_from_slice(value);
    out.extend_from_slice(rest.get(old.len()..).unwrap_or_default());
    out.extend_from_slice(line_end);
    if parse_line(&out[start..]) != Some((key, value)) {
        out.truncate(start);
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{check_key, check_value};
    use proptest::prelude::*;

    #[test]
    fn lines_are_read_as_haproxy_reads_them() {
        for (line, expected) in [
            ("/api/ app\n", Some(("/api/", "app"))),
            ("/x y z w", Some(("/x", "y z w"))),
            ("  /lead\tv1   v2 \t \r\n", Some(("/lead", "v1   v2"))),
            ("key # no comment", Some(("key", "# no comment"))),
            (" #key v", Some(("#key", "v"))),
            ("keyonly  ", Some(("keyonly", ""))),
            ("# comment", None),
            ("#", None),
            (" \t ", None),
            ("\r\n", None),
            ("", None),
        ] {
            let read = parse_line(line.as_bytes());
            assert_eq!(read, expected.map(|(key, value)| (key.as_bytes(), value.as_bytes())), "{line:?}");
        }
    }

    #[test]
    fn another_value_leaves_the_rest_of_its_line() {
        for (line, value, expected) in [
            ("k\tv1  \n", "v2", Some("k\tv2  \n")),
            ("  k   v1 x\r\n", "v2", Some("  k   v2\r\n")),
            ("k\n", "v", Some("k v\n")),
            ("k  \n", "v", Some("k  v\n")),
            (" #k v", "w", Some(" #k w")),
            ("k v\n", "", Some("k \n")),
            ("k v\n", " w", None),
            ("# k v\n", "w", None),
        ] {
            let mut out = b"before\n".to_vec();
            assert_eq!(with_value(&mut out, line.as_bytes(), value.as_bytes()), expected.is_some(), "{line:?}");
            assert_eq!(String::from_utf8(out).unwrap(), format!("before\n{}", expected.unwrap_or_default()));
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(key in "[ #a\\\\\"=\té\n\r\0]{0,5}", value in "[ #a\\\\\"=\té\n\r\0]{0,5}") {
            let mut out = b"before v\n".to_vec();
            let printed = print_line(&mut out, key.as_bytes(), value.as_bytes());
            if check_key(&key).is_ok() && check_value(&value).is_ok() {
                prop_assert!(printed);
            }
            let lines: Vec<_> = out.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
            if printed {
                prop_assert_eq!(lines, vec![(&b"before"[..], &b"v"[..]), (key.as_bytes(), value.as_bytes())]);
            } else {
                prop_assert_eq!(out, b"before v\n");
            }
        }
    }
}
