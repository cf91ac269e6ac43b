//! The lines in front of the configuration that the store itself owns, and edits as bytes.

use std::num::IntErrorKind;

use md5::{Digest, Md5};

use super::options::HeaderPolicy;
use crate::document::{Document, Patch};
use crate::error::{Error, Reason, Result};

/// Key of the line with the version.
const VERSION: &str = "_version";
/// Key of the line with the checksum of all that follows it.
pub(super) const CHECKSUM: &str = "_md5hash";

/// The highest version. Above it JSON numbers are not exact, so that clients could not give a version back.
pub(super) const HIGHEST: i64 = (1 << 53) - 1;

/// The version that a text says it has; `None` when it says none, or no number above 0. `INVALID_VALUE` for one that no
/// version can be.
pub fn own_version(document: &Document) -> Result<Option<i64>> {
    let Some(words) = document.header(VERSION) else { return Ok(None) };
    let beyond = match words.parse::<i64>() {
        Ok(version) => version > HIGHEST,
        Err(error) => *error.kind() == IntErrorKind::PosOverflow,
    };
    if beyond {
        let text = format!("{VERSION}: expected at most {HIGHEST}, got {words}");
        return Err(Error::new(Reason::InvalidValue, text).with("field", VERSION));
    }
    Ok(document.version().filter(|version| *version > 0))
}

/// The version that a text written by hand says it has, if numbers can go on from there.
pub fn counted_version(document: &Document) -> Option<i64> {
    own_version(document).ok().flatten().filter(|version| *version < HIGHEST)
}

/// Version of a text that nobody knows; one that says none that can be counted on from has 1.
pub(super) fn version(document: &Document) -> i64 {
    counted_version(document).unwrap_or(1)
}

/// The document with its header lines brought up to date and its last line whole, and its bytes.
pub(super) fn stamped(document: &Document, version: i64, policy: HeaderPolicy) -> (Document, Vec<u8>) {
    let mut document = document.clone();
    document.complete();
    if policy == HeaderPolicy::Outside {
        let bytes = document.to_bytes();
        return (document, bytes);
    }
    document.set_version(version);
    if policy == HeaderPolicy::VersionAndChecksum || document.header(CHECKSUM).is_some() {
        // The line first, then its value: the value does not move what it covers.
        document.set_header(CHECKSUM, &"0".repeat(32));
        let bytes = document.to_bytes();
        let covered = document.header_end(CHECKSUM).and_then(|end| bytes.get(end..)).unwrap_or_default();
        document.set_header(CHECKSUM, &checksum(covered));
    }
    let bytes = document.to_bytes();
    (document, bytes)
}

fn checksum(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Md5::digest(bytes).iter().fold(String::with_capacity(32), |mut hex, byte| {
        // Writing to a string cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The text without its version lines, wherever they stand.
pub(super) fn without_version(text: &[u8]) -> Vec<u8> {
    let is_version = |line: &&[u8]| {
        let rest = line.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
        rest.and_then(|rest| rest.strip_prefix(VERSION.as_bytes())).is_some_and(|rest| rest.starts_with(b"="))
    };
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_version(line)).flatten().copied().collect()
}

/// What an edit changed, as bytes for the log of a transaction.
pub(super) fn encode_edit(old: &Document, new: &Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    for patch in Document::diff(old, new) {
        patch.encode(&mut bytes);
    }
    bytes
}

/// Does such an edit again.
pub(super) fn apply_edit(document: &mut Document, mut edit: &[u8]) -> Result<()> {
    while !edit.is_empty() {
        let (patch, rest) = Patch::decode(edit)?;
        document.apply(&patch)?;
        edit = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(text: &str, version: i64, policy: HeaderPolicy) -> String {
        let (document, bytes) = stamped(&Document::parse(text.as_bytes()), version, policy);
        assert_eq!(document.to_bytes(), bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_header_lines_change() {
        let text = "# mine\r\nglobal\r\n\tdaemon\r\n";
        assert_eq!(stamp(text, 2, HeaderPolicy::Version), format!("# _version=2\r\n{text}"));
        assert_eq!(stamp(text, 2, HeaderPolicy::Outside), text);
        let once = stamp(text, 2, HeaderPolicy::Version);
        assert_eq!(stamp(&once, 12, HeaderPolicy::Version), format!("# _version=12\r\n{text}"));
    }

    #[test]
    fn the_last_line_is_completed_in_the_style_of_the_file() {
        for policy in [HeaderPolicy::Outside, HeaderPolicy::Version, HeaderPolicy::VersionAndChecksum] {
            for (text, ending) in [("global\n  daemon", "\n"), ("global\r\n  daemon", "\r\n"), ("# mine", "\n")] {
                let stamped = stamp(text, 2, policy);
                assert!(stamped.ends_with(&format!("{text}{ending}")), "{stamped:?}");
                assert_eq!(stamp(&stamped, 2, policy), stamped, "once is enough");
            }
        }
        assert_eq!(stamp("", 2, HeaderPolicy::Outside), "");
    }

    #[test]
    fn versions_end_where_json_numbers_are_no_longer_exact() {
        let of = |words: &str| Document::parse(format!("# _version={words}\nglobal\n").as_bytes());
        for (words, own) in [
            ("7", Some(7)),
            ("9007199254740991", Some(HIGHEST)),
            ("0", None),
            ("-1", None),
            ("-99999999999999999999", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(own_version(&of(words)).unwrap(), own, "{words}");
        }
        for words in ["9007199254740992", "9223372036854775807", "9223372036854775808", "99999999999999999999"] {
            assert_eq!(own_version(&of(words)).unwrap_err().reason(), Reason::InvalidValue, "{words}");
            assert_eq!(version(&of(words)), 1, "{words}");
        }
        assert_eq!((version(&of("9007199254740991")), version(&of("9007199254740990"))), (1, HIGHEST - 1));
    }

    #[test]
    fn the_checksum_covers_every_byte_after_its_line() {
        let expected = "# _md5hash=93b55c6570f6ac0490b6343cc1b7e939\n# _version=2\n\nglobal\n  maxconn 5\n";
        let body = "\nglobal\n  maxconn 5\n";
        assert_eq!(stamp(body, 2, HeaderPolicy::VersionAndChecksum), expected);
        assert_eq!(stamp(&format!("# _md5hash=old\n# _version=1\n{body}"), 2, HeaderPolicy::Version), expected);
    }

    #[test]
    fn version_lines_are_dropped_wherever_they_stand() {
        let text = b"# _version=7\nglobal\n#_version=8\n  # _version=9\n  daemon # _version=1\n";
        assert_eq!(without_version(text), b"global\n  daemon # _version=1\n");
    }

    #[test]
    fn an_edit_is_done_again_from_its_bytes() {
        let old = Document::parse(b"global\n  daemon\n\nbackend b\n  mode http\n");
        let new = Document::parse(b"global\n  daemon\n\nbackend b\n  mode tcp\n\nbackend c\n");
        let mut again = old.clone();
        apply_edit(&mut again, &encode_edit(&old, &new)).unwrap();
        assert_eq!(again.to_bytes(), new.to_bytes());
        assert!(apply_edit(&mut again, b"x").is_err());
    }
}
