//! The changes one by one, each with what it takes to undo it: from the present text every former one can be made.
//!
//! Pure but for [`ChangeLog`]. The bytes are frames (`frame.rs`): for each change a line of JSON, then its edits. Nothing is
//! synced: after a power cut the newest changes may be known only as a whole, and nothing of the text itself is lost.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::{self, Appender, Steps};
use super::frame::{self, Hash};
use super::journal::Origin;
use crate::document::{Document, Patch, Section};
use crate::error::{Error, Result};

/// Length in bytes from which a log is cut down to the changes that no reload has accepted yet.
const LIMIT: u64 = 4 * 1024 * 1024;

/// One change of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// The version that it made.
    pub(super) version: i64,
    /// Why.
    pub(super) origin: Origin,
    /// When, in milliseconds since 1970.
    pub(super) at: u64,
    /// Hash of the text before.
    pub(super) before: Hash,
    /// Hash of the text after.
    pub(super) after: Hash,
    #[serde(skip)]
    edits: Vec<Edit>,
}

/// One step of a change, with what was there before it. Positions are those of the text that the earlier steps made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edit {
    /// The text before the first section.
    Preamble { old: Vec<u8>, new: Vec<u8> },
    /// Bytes of the section at a position, from `from` on.
    Inside { at: usize, from: usize, old: Vec<u8>, new: Vec<u8> },
    /// A section that is new at a position.
    Insert { at: usize, text: Vec<u8> },
    /// A section that is gone from a position.
    Remove { at: usize, text: Vec<u8> },
}

impl Change {
    /// The change from one text to another, whose hashes are given.
    pub(super) fn between(
        (old, before): (&Document, Hash),
        (new, after): (&Document, Hash),
        version: i64,
        origin: Origin,
        at: u64,
    ) -> Result<Self> {
        let mut text = old.clone();
        let mut edits = Vec::new();
        for patch in Document::diff(old, new) {
            edits.push(Edit::of(&text, &patch)?);
            text.apply(&patch)?;
        }
        Ok(Change { version, origin, at, before, after, edits })
    }

    /// The text before the change, made of the one after it.
    pub(super) fn undone(&self, after: &Document) -> Result<Document> {
        let mut text = after.clone();
        for edit in self.edits.iter().rev() {
            text.apply(&edit.reversed(&text)?)?;
        }
        if Hash::of(&text.to_bytes()) != self.before {
            return Err(Error::internal(format!("the change to version {} cannot be undone", self.version)));
        }
        Ok(text)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let head = serde_json::to_vec(self).map_err(Error::internal)?;
        let mut payload = (head.len() as u64).to_le_bytes().to_vec();
        payload.extend_from_slice(&head);
        self.edits.iter().for_each(|edit| edit.encode(&mut payload));
        let mut out = Vec::new();
        frame::write(&payload, &mut out);
        Ok(out)
    }

    fn decode(payload: &[u8]) -> Option<Change> {
        let (length, rest) = payload.split_first_chunk::<8>()?;
        let (head, mut rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let mut change: Change = serde_json::from_slice(head).ok()?;
        while !rest.is_empty() {
            let (edit, behind) = Edit::decode(rest)?;
            change.edits.push(edit);
            rest = behind;
        }
        Some(change)
    }
}

impl Edit {
    fn of(text: &Document, patch: &Patch) -> Result<Edit> {
        Ok(match patch {
            Patch::Preamble(new) => Edit::Preamble { old: text.preamble().to_vec(), new: new.clone() },
            Patch::Insert(at, new) => Edit::Insert { at: *at, text: new.clone() },
            Patch::Remove(at) => Edit::Remove { at: *at, text: section(text, *at)?.text().to_vec() },
            Patch::Replace(at, new) => {
                let old = section(text, *at)?.text();
                let from = old.iter().zip(new).take_while(|(a, b)| a == b).count();
                let rest = old[from..].iter().rev().zip(new[from..].iter().rev());
                let tail = rest.take_while(|(a, b)| a == b).count();
                let inner = |text: &[u8]| text[from..text.len() - tail].to_vec();
                Edit::Inside { at: *at, from, old: inner(old), new: inner(new) }
            }
        })
    }

    /// The step back, in the text after it.
    fn reversed(&self, text: &Document) -> Result<Patch> {
        Ok(match self {
            Edit::Preamble { old, .. } => Patch::Preamble(old.clone()),
            Edit::Insert { at, .. } => Patch::Remove(*at),
            Edit::Remove { at, text } => Patch::Insert(*at, text.clone()),
            Edit::Inside { at, from, old, new } => {
                let now = section(text, *at)?.text();
                let (head, tail) = (now.get(..*from), now.get(from + new.len()..));
                let (Some(head), Some(tail)) = (head, tail) else {
                    return Err(Error::internal("a change reaches beyond its section"));
                };
                Patch::Replace(*at, [head, old.as_slice(), tail].concat())
            }
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let none: &[u8] = &[];
        let (tag, at, from, old, new): (u8, usize, usize, &[u8], &[u8]) = match self {
            Edit::Preamble { old, new } => (1, 0, 0, old, new),
            Edit::Inside { at, from, old, new } => (2, *at, *from, old, new),
            Edit::Insert { at, text } => (3, *at, 0, none, text),
            Edit::Remove { at, text } => (4, *at, 0, text, none),
        };
        out.push(tag);
        for number in [at, from, old.len(), new.len()] {
            out.extend_from_slice(&(number as u64).to_le_bytes());
        }
        out.extend_from_slice(old);
        out.extend_from_slice(new);
    }

    fn decode(bytes: &[u8]) -> Option<(Edit, &[u8])> {
        let (tag, mut rest) = bytes.split_first()?;
        let mut numbers = [0_usize; 4];
        for number in &mut numbers {
            let (read, behind) = rest.split_first_chunk::<8>()?;
            *number = usize::try_from(u64::from_le_bytes(*read)).ok()?;
            rest = behind;
        }
        let [at, from, old, new] = numbers;
        let (old, rest) = rest.split_at_checked(old)?;
        let (new, rest) = rest.split_at_checked(new)?;
        let (old, new) = (old.to_vec(), new.to_vec());
        let edit = match tag {
            1 => Edit::Preamble { old, new },
            2 => Edit::Inside { at, from, old, new },
            3 => Edit::Insert { at, text: new },
            4 => Edit::Remove { at, text: old },
            _ => return None,
        };
        Some((edit, rest))
    }
}

fn section(text: &Document, at: usize) -> Result<&Section> {
    let found = text.section(at).map(AsRef::as_ref);
    found.ok_or_else(|| Error::internal(format!("a change names section {at}, which is not there")))
}

/// All whole changes of a log, oldest first, and how many bytes of it hold: what comes after them is torn.
fn replay(file: &[u8]) -> (Vec<Change>, usize) {
    let (payloads, held) = frame::read(file);
    (payloads.into_iter().filter_map(Change::decode).collect(), held)
}

/// The last changes that lead to the text with this hash without a gap, as long as `wanted` says so, oldest first.
fn chain(changes: Vec<Change>, to: Hash, wanted: impl Fn(&Change) -> bool) -> Vec<Change> {
    let mut chain = Vec::new();
    let mut next = to;
    for change in changes.into_iter().rev() {
        // Others are of writes that were not done.
        if change.after != next || !wanted(&change) {
            continue;
        }
        next = change.before;
        chain.push(change);
    }
    chain.reverse();
    chain
}

/// The log in the state folder.
#[derive(Debug)]
pub(super) struct ChangeLog {
    path: PathBuf,
    file: Appender,
}

impl ChangeLog {
    /// Opens the log, or makes an empty one. Blocks.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (_, held) = replay(&disk::read(path)?.unwrap_or_default());
        Ok(ChangeLog { path: path.to_owned(), file: Appender::open(path, held as u64)? })
    }

    /// Adds a change that is about to be made. One that is not made then is left out by its hashes.
    pub(super) fn append(&mut self, change: &Change) -> Result<()> {
        self.file.append(&change.encode()?, false, (None, None))
    }

    /// The changes of these versions that lead to the text with this hash. Blocks.
    pub(super) fn leading_to(&self, hash: Hash, versions: &[i64]) -> Result<Vec<Change>> {
        let (changes, _) = replay(&disk::read(&self.path)?.unwrap_or_default());
        Ok(chain(changes, hash, |change| versions.contains(&change.version)))
    }

    /// Writes the log anew with nothing but these changes. Blocks.
    pub(super) fn restart(&mut self, changes: &[Change]) -> Result<()> {
        let mut bytes = Vec::new();
        for change in changes {
            bytes.extend(change.encode()?);
        }
        disk::replace(&self.path, &bytes, 0o600, &Steps::NONE)?;
        self.file = Appender::open(&self.path, bytes.len() as u64)?;
        Ok(())
    }

    /// Leaves out all but the changes of these versions, when the log has grown long. Blocks.
    pub(super) fn compact(&mut self, hash: Hash, versions: &[i64]) -> Result<()> {
        if self.file.length() < LIMIT {
            return Ok(());
        }
        let changes = self.leading_to(hash, versions)?;
        self.restart(&changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> (Document, Hash) {
        (Document::parse(text.as_bytes()), Hash::of(text.as_bytes()))
    }

    fn change(old: &str, new: &str, version: i64) -> Change {
        let ((old, before), (new, after)) = (document(old), document(new));
        Change::between((&old, before), (&new, after), version, Origin::Change, 7).unwrap()
    }

    const TEXTS: [&str; 6] = [
        "# _version=1\nglobal\n  daemon\n\nbackend a\n  server s 1\n",
        "# _version=2\nglobal\n  daemon\n\nbackend a\n  server s 2\n  server t 1\n",
        "# _version=3\nglobal\n  daemon\n\nbackend b\n\nbackend a\n  server s 2\n  server t 1\n",
        "# _version=4\nglobal\n  daemon\n\nbackend a\n  server t 1\n\nbackend c\n",
        "# _version=4\n",
        "\n# x\nbackend c\n  server s 1",
    ];

    #[test]
    fn every_former_text_is_made_of_the_present_one() {
        for old in TEXTS {
            for new in TEXTS {
                let change = change(old, new, 2);
                let again = Change::decode(&change.encode().unwrap()[12..]).unwrap();
                assert_eq!(again, change);
                assert_eq!(again.undone(&document(new).0).unwrap().to_bytes(), old.as_bytes(), "{new}");
            }
        }
    }

    #[test]
    fn a_torn_tail_hides_nothing_before_it_and_undone_writes_are_left_out() {
        let made: Vec<Change> = (1..4).map(|at| change(TEXTS[at - 1], TEXTS[at], at as i64 + 1)).collect();
        let not_made = change(TEXTS[2], TEXTS[5], 4);
        let all = [&made[0], &made[1], &not_made, &made[2]];
        let mut file = Vec::new();
        let mut ends = vec![0];
        for change in all {
            file.extend(change.encode().unwrap());
            ends.push(file.len());
        }
        for cut in 0..=file.len() {
            let (changes, held) = replay(&file[..cut]);
            let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
            assert_eq!((changes.len(), held), (whole, ends[whole]), "cut at {cut}");
        }
        let hash = document(TEXTS[3]).1;
        assert_eq!(chain(replay(&file).0, hash, |_| true), made);
        assert_eq!(chain(replay(&file).0, hash, |change| change.version > 2), made[1..]);
        // Without the last one nothing leads there.
        assert!(chain(replay(&file[..ends[3]]).0, hash, |_| true).is_empty());
    }

    #[test]
    fn the_log_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changes");
        let mut log = ChangeLog::open(&path).unwrap();
        log.append(&change(TEXTS[0], TEXTS[1], 2)).unwrap();
        std::fs::write(&path, [std::fs::read(&path).unwrap(), vec![9; 40]].concat()).unwrap();
        let mut log = ChangeLog::open(&path).unwrap();
        log.append(&change(TEXTS[1], TEXTS[2], 3)).unwrap();
        let hash = document(TEXTS[2]).1;
        let versions = |changes: Vec<Change>| changes.iter().map(|change| change.version).collect::<Vec<_>>();
        assert_eq!(versions(log.leading_to(hash, &[2, 3]).unwrap()), [2, 3]);
        log.restart(&[change(TEXTS[1], TEXTS[2], 3)]).unwrap();
        assert_eq!(versions(log.leading_to(hash, &[2, 3]).unwrap()), [3]);
    }
}
