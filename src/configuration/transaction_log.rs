//! The log of one transaction: a head, edits, and how it ended. Pure bytes in, bytes out.
//!
//! A log is a row of frames. Edits are differences of lines, so that an edit costs what it changes and not the size of
//! the file; the text below them is saved once per version in use (`transaction.rs`).

use serde::{Deserialize, Serialize};

use super::frame::{self, Hash};
use crate::error::{Error, Result};

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Open for changes.
    InProgress,
    /// HAProxy refused it; it cannot be committed.
    Failed,
    /// The configuration moved on; it cannot be committed.
    Outdated,
    /// Committed. Only the answer of the commit shows it.
    Success,
}

impl Status {
    /// The name in answers: `in_progress`, `failed`, `outdated`, `success`.
    pub fn name(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Failed => "failed",
            Status::Outdated => "outdated",
            Status::Success => "success",
        }
    }
}

/// How a transaction began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Its id.
    pub(super) id: String,
    /// Its place among all of them, in the order in which they began.
    pub(super) number: u64,
    /// Version of the configuration below it.
    pub(super) version: i64,
    /// Hash of the text below it.
    pub(super) base: Hash,
    /// Milliseconds since 1970.
    pub(super) created: u64,
}

/// How a transaction ended, other than by a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    /// `Failed` or `Outdated`.
    pub(super) status: Status,
    /// Why, for people.
    pub(super) message: String,
    /// Milliseconds since 1970.
    pub(super) at: u64,
}

/// A log as read from disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Log {
    /// How it began.
    pub(super) head: Head,
    /// Its edits, oldest first, as given to `edit`.
    pub(super) edits: Vec<Vec<u8>>,
    /// How it ended.
    pub(super) end: Option<End>,
    /// When something last happened to it, in milliseconds since 1970.
    pub(super) touched: u64,
    /// Bytes of whole records; a torn one may come after them.
    pub(super) held: usize,
}

/// The frame that begins a log.
pub(super) fn head(head: &Head) -> Result<Vec<u8>> {
    framed(b'H', &serde_json::to_vec(head).map_err(Error::internal)?)
}

/// The frame of one edit; `patches` is opaque here.
pub(super) fn edit(at: u64, patches: &[u8]) -> Result<Vec<u8>> {
    let mut body = at.to_le_bytes().to_vec();
    body.extend_from_slice(patches);
    framed(b'E', &body)
}

/// The frame that ends a log.
pub(super) fn end(end: &End) -> Result<Vec<u8>> {
    framed(b'S', &serde_json::to_vec(end).map_err(Error::internal)?)
}

fn framed(tag: u8, body: &[u8]) -> Result<Vec<u8>> {
    if body.len() >= frame::LARGEST {
        return Err(Error::internal("an edit is too large for the log of its transaction"));
    }
    let mut payload = Vec::with_capacity(body.len() + 1);
    payload.push(tag);
    payload.extend_from_slice(body);
    let mut out = Vec::new();
    frame::write(&payload, &mut out);
    Ok(out)
}

/// Reads a log; `None` when not even its head is whole.
pub(super) fn decode(file: &[u8]) -> Option<Log> {
    let (payloads, held) = frame::read(file);
    let mut payloads = payloads.into_iter();
    let (b'H', head) = payloads.next()?.split_first()? else { return None };
    let head: Head = serde_json::from_slice(head).ok()?;
    let mut log = Log { touched: head.created, head, edits: Vec::new(), end: None, held };
    for payload in payloads {
        match payload.split_first()? {
            (b'E', body) => {
                let (at, patches) = body.split_at_checked(8)?;
                log.touched = u64::from_le_bytes(at.try_into().ok()?);
                log.edits.push(patches.to_vec());
            }
            (b'S', body) => {
                let end: End = serde_json::from_slice(body).ok()?;
                log.touched = end.at;
                log.end = Some(end);
            }
            _ => return None,
        }
    }
    Some(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_head() -> Head {
        Head { id: "a".into(), number: 2, version: 3, base: Hash::of(b"x"), created: 5 }
    }

    #[test]
    fn a_log_is_read_back_edit_by_edit_however_it_is_cut() {
        let mut file = head(&some_head()).unwrap();
        let after_head = file.len();
        file.extend(edit(6, b"first").unwrap());
        let after_first = file.len();
        file.extend(edit(7, b"").unwrap());
        let after_second = file.len();
        let ended = End { status: Status::Failed, message: "no".into(), at: 9 };
        file.extend(end(&ended).unwrap());
        for cut in 0..=file.len() {
            let Some(log) = decode(&file[..cut]) else {
                assert!(cut < after_head, "{cut}");
                continue;
            };
            assert_eq!(log.head, some_head());
            let edits = usize::from(cut >= after_first) + usize::from(cut >= after_second);
            assert_eq!(log.edits.len(), edits, "{cut}");
            assert_eq!(log.end.is_some(), cut == file.len());
            assert_eq!(log.touched, if log.end.is_some() { 9 } else { [5, 6, 7][edits] });
        }
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&edit(1, b"edit without head").unwrap()), None);
    }
}
