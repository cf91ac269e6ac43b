//! What the journal says: records, and the state that they add up to.
//!
//! Pure: the same `State::apply` runs when a record is written and when the journal is read at start, so memory and
//! disk cannot drift apart. The bytes of a journal are frames (`frame.rs`) with JSON inside, so that a human can read it.

use serde::{Deserialize, Serialize};

use super::frame::{self, Hash};
use super::header::HIGHEST;
use super::ports::Worker;
use super::worker::Written;
use crate::error::{Error, Result};

/// Longest list of versions that no reload has accepted yet; the oldest are forgotten beyond it.
const UNPROVEN: usize = 4096;

/// Why a file is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A change made for a version.
    Change,
    /// The commit of a transaction.
    Commit,
    /// The whole text was replaced through the API.
    Raw,
    /// Someone else changed the file; it is written back with its new version.
    External,
    /// HAProxy refused to load; back to the last good text.
    Rollback,
}

/// What is about to happen to the file. Written and synced before the file is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Number of the intent; grows by one for each, never reused.
    pub(super) sequence: u64,
    /// Why.
    pub(super) origin: Origin,
    /// Version before.
    pub(super) old_version: i64,
    /// Version after.
    pub(super) new_version: i64,
    /// Hash of the file before.
    pub(super) old_hash: Hash,
    /// Hash of the file after.
    pub(super) new_hash: Hash,
    /// A reload is to follow.
    pub(super) reload: bool,
    /// The text carried its own version, which may be lower than the present one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) renumber: bool,
    /// The transaction that this commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<String>,
}

/// A version with the hash of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The version.
    pub(super) version: i64,
    /// Hash of its text.
    pub(super) hash: Hash,
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// Everything so far; the first record of each journal.
    Checkpoint(Box<State>),
    /// A file is about to be written.
    Intent(Intent),
    /// The file of this intent is written and its actions are done.
    Done {
        /// Number of the intent.
        sequence: u64,
        /// When the file was written for sure, in milliseconds since 1970; 0 when nobody has noted it.
        #[serde(default)]
        at: u64,
    },
    /// The file of this intent was not written.
    Undone {
        /// Number of the intent.
        sequence: u64,
    },
    /// A text that someone else wrote counts as this version from now on, as it stands.
    Adopted(Mark),
    /// A reload loaded this version.
    Good(Mark),
    /// The file is about to hold a text that is only tried, or the configuration again.
    OnTrial {
        /// Hash of that text.
        hash: Hash,
    },
    /// The file holds the configuration again.
    TrialsOver,
    /// This worker was given the last change at run time.
    Live {
        /// The worker.
        worker: Worker,
    },
    /// A worker answers that lacks a change of this version or an earlier one: a reload is to follow.
    Behind {
        /// The version.
        version: i64,
        /// The worker.
        #[serde(default)]
        worker: Option<Worker>,
    },
    /// HAProxy runs all but what this version, which stays in the file, brought.
    Left {
        /// The version.
        version: i64,
        /// What HAProxy says to it.
        #[serde(default)]
        words: String,
    },
}

/// What all records of a journal add up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Number of the last intent.
    pub(super) sequence: u64,
    /// Version of the file.
    pub(super) version: i64,
    /// Highest version ever announced in an intent; new versions are above it.
    pub(super) highest: i64,
    /// Hash of the file.
    pub(super) hash: Hash,
    /// The last version that a reload accepted.
    #[serde(default)]
    pub(super) good: Option<Mark>,
    /// Versions after the last good one, oldest first.
    #[serde(default)]
    pub(super) unproven: Vec<i64>,
    /// The newest version whose reload has not happened yet.
    #[serde(default)]
    pub(super) reload_wanted: Option<i64>,
    /// The last change that HAProxy is to run.
    #[serde(default)]
    pub(super) written: Box<Written>,
    /// Transactions whose commit is done; their logs may still lie about.
    #[serde(default)]
    pub(super) committed: Vec<String>,
    /// An intent that is neither done nor undone.
    #[serde(default)]
    pub(super) open: Option<Intent>,
    /// Hashes of the texts on trial that the file may hold instead of the configuration: the last two.
    #[serde(default)]
    pub(super) on_trial: Vec<Hash>,
    /// What HAProxy says to an edit by hand that it does not load, and that stays in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused_edit: Option<String>,
}

impl State {
    /// The state of a file that no journal knows.
    pub(super) fn fresh(version: i64, hash: Hash) -> Self {
        State {
            sequence: 0,
            version,
            highest: version,
            hash,
            good: None,
            unproven: Vec::new(),
            reload_wanted: None,
            written: Box::default(),
            committed: Vec::new(),
            open: None,
            on_trial: Vec::new(),
            refused_edit: None,
        }
    }

    /// The version of the next write. Behind the highest number that there is, they begin anew.
    pub(super) fn next_version(&self) -> i64 {
        let last = self.highest.max(self.version);
        if last < HIGHEST { last + 1 } else { 1 }
    }

    /// The version of a text that someone else wrote and that stays as it is: the one that it says it has, if that is new.
    pub(super) fn next_from(&self, own: Option<i64>) -> i64 {
        self.next_version().max(own.unwrap_or(0))
    }

    /// Adds one record. Records that do not fit (a `Done` without its intent) change nothing.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Checkpoint(state) => *self = (**state).clone(),
            Record::Intent(intent) => {
                self.sequence = intent.sequence;
                self.highest = self.highest.max(intent.new_version);
                self.open = Some(intent.clone());
            }
            Record::Done { sequence, at } => {
                if let Some(intent) = self.open.take_if(|open| open.sequence == *sequence) {
                    self.finish(intent, *at);
                }
            }
            Record::Undone { sequence } => {
                self.open.take_if(|open| open.sequence == *sequence);
            }
            Record::Adopted(mark) => {
                self.open = None;
                self.hash = mark.hash;
                // A lower number begins anew.
                self.highest = if mark.version > self.version { self.highest.max(mark.version) } else { mark.version };
                self.version = mark.version;
                self.refused_edit = None;
                self.note_unproven(mark.version);
            }
            Record::Good(mark) => {
                self.good = Some(*mark);
                // By place, not by number: a text with its own version may have gone back in numbers.
                if let Some(at) = self.unproven.iter().rposition(|version| *version == mark.version) {
                    self.unproven.drain(..=at);
                } else if mark.version == self.version {
                    self.unproven.clear();
                }
                if self.reload_wanted.is_some_and(|wanted| !self.unproven.contains(&wanted)) {
                    self.reload_wanted = None;
                }
                if self.unproven.is_empty() {
                    self.refused_edit = None;
                }
            }
            Record::OnTrial { hash } => {
                let kept = self.on_trial.len().saturating_sub(1);
                self.on_trial.drain(..kept);
                self.on_trial.push(*hash);
            }
            Record::TrialsOver => self.on_trial.clear(),
            Record::Live { worker } => self.written.live = Some(worker.clone()),
            Record::Behind { version, worker } => {
                self.written.asked.clone_from(worker);
                if !self.unproven.contains(version) {
                    self.note_unproven(*version);
                }
                self.reload_wanted = Some(*version);
            }
            Record::Left { version, words } => {
                self.on_trial.clear();
                self.unproven = vec![*version];
                self.reload_wanted = Some(*version);
                self.refused_edit = Some(words.clone());
            }
        }
    }

    fn finish(&mut self, intent: Intent, at: u64) {
        self.version = intent.new_version;
        self.hash = intent.new_hash;
        self.on_trial.clear();
        if intent.renumber {
            self.highest = intent.new_version;
        }
        if matches!(intent.origin, Origin::Rollback | Origin::External) {
            self.refused_edit = None;
        }
        if intent.origin == Origin::Rollback {
            self.good = Some(Mark { version: intent.new_version, hash: intent.new_hash });
            self.unproven.clear();
            self.reload_wanted = None;
        } else {
            self.note_unproven(intent.new_version);
            if intent.reload {
                self.reload_wanted = Some(intent.new_version);
                *self.written = Written { at: (at > 0).then_some(at), live: None, asked: None };
            }
        }
        self.committed.extend(intent.transaction);
    }

    fn note_unproven(&mut self, version: i64) {
        if self.unproven.len() >= UNPROVEN {
            self.unproven.remove(0);
        }
        self.unproven.push(version);
    }
}

/// The bytes of one record.
pub(super) fn encode(record: &Record) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(record).map_err(Error::internal)?;
    let mut out = Vec::new();
    frame::write(&json, &mut out);
    Ok(out)
}

/// Adds up a journal. The state is `None` for one without a checkpoint; the number says how many bytes hold, what
/// comes after them is a torn record.
pub(super) fn replay(file: &[u8]) -> (Option<State>, usize) {
    let (payloads, held) = frame::read(file);
    let mut state: Option<State> = None;
    let mut length = 0;
    for payload in payloads {
        let Ok(record) = serde_json::from_slice::<Record>(payload) else { return (state, length) };
        match (&mut state, record) {
            (Some(state), record) => state.apply(&record),
            (None, Record::Checkpoint(first)) => state = Some(*first),
            (None, _) => return (None, 0),
        }
        length = (length + payload.len() + 12).min(held);
    }
    (state, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(sequence: u64, old: i64, new: i64) -> Intent {
        Intent {
            sequence,
            origin: Origin::Change,
            old_version: old,
            new_version: new,
            old_hash: Hash::of(&old.to_le_bytes()),
            new_hash: Hash::of(&new.to_le_bytes()),
            reload: true,
            renumber: false,
            transaction: None,
        }
    }

    fn state_after(records: &[Record]) -> State {
        let mut file = encode(&Record::Checkpoint(Box::new(State::fresh(1, Hash::of(b"1"))))).unwrap();
        for record in records {
            file.extend(encode(record).unwrap());
        }
        let (state, held) = replay(&file);
        assert_eq!(held, file.len());
        state.unwrap()
    }

    #[test]
    fn an_undone_intent_still_uses_up_its_version() {
        let state = state_after(&[Record::Intent(intent(1, 1, 2)), Record::Undone { sequence: 1 }]);
        assert_eq!((state.version, state.next_version(), state.open), (1, 3, None));
    }

    #[test]
    fn a_done_intent_moves_the_version_and_wants_its_reload() {
        let state = state_after(&[Record::Intent(intent(1, 1, 2)), Record::Done { sequence: 1, at: 0 }]);
        assert_eq!((state.version, state.next_version(), state.reload_wanted), (2, 3, Some(2)));
        assert_eq!((state.unproven, state.hash), (vec![2], Hash::of(&2_i64.to_le_bytes())));
    }

    #[test]
    fn an_intent_without_end_stays_open_until_recovery_decides() {
        let state = state_after(&[Record::Intent(intent(1, 1, 2))]);
        assert_eq!((state.version, state.open.map(|open| open.new_version)), (1, Some(2)));
    }

    #[test]
    fn a_good_version_clears_the_reloads_before_it_and_not_those_after() {
        let changes =
            |sequence, old, new| [Record::Intent(intent(sequence, old, new)), Record::Done { sequence, at: 0 }];
        let mut records = [changes(1, 1, 2), changes(2, 2, 3), changes(3, 3, 4)].concat();
        records.push(Record::Good(Mark { version: 3, hash: Hash::of(b"3") }));
        let state = state_after(&records);
        assert_eq!((state.unproven.clone(), state.reload_wanted), (vec![4], Some(4)));
        records.push(Record::Good(Mark { version: 4, hash: Hash::of(b"4") }));
        let state = state_after(&records);
        assert_eq!((state.unproven, state.reload_wanted), (vec![], None));
    }

    #[test]
    fn a_rollback_is_good_by_itself_and_takes_a_new_version() {
        let mut back = intent(2, 2, 3);
        back.origin = Origin::Rollback;
        let state = state_after(&[
            Record::Intent(intent(1, 1, 2)),
            Record::Done { sequence: 1, at: 0 },
            Record::Intent(back),
            Record::Done { sequence: 2, at: 0 },
        ]);
        assert_eq!(state.good.map(|good| good.version), Some(3));
        assert_eq!((state.next_version(), state.unproven, state.reload_wanted), (4, vec![], None));
    }

    #[test]
    fn a_text_with_its_own_version_restarts_the_numbering() {
        let mut raw = intent(1, 42, 7);
        (raw.origin, raw.renumber) = (Origin::Raw, true);
        let state = state_after(&[
            Record::Adopted(Mark { version: 42, hash: Hash::of(b"42") }),
            Record::Intent(raw),
            Record::Done { sequence: 1, at: 0 },
        ]);
        assert_eq!((state.version, state.next_version()), (7, 8));
    }

    #[test]
    fn numbers_begin_anew_behind_the_highest_one() {
        let mut raw = intent(1, 1, HIGHEST);
        raw.renumber = true;
        let mut next = intent(2, HIGHEST, 1);
        next.renumber = true;
        let records = [Record::Intent(raw), Record::Done { sequence: 1, at: 0 }];
        assert_eq!(state_after(&records).next_version(), 1);
        let state = state_after(&[&records[..], &[Record::Intent(next), Record::Done { sequence: 2, at: 0 }]].concat());
        assert_eq!((state.version, state.next_version()), (1, 2));
        // A journal that holds a number beyond it already is no longer stuck.
        let stuck = State::fresh(i64::MAX, Hash::of(b""));
        assert_eq!(stuck.next_version(), 1);
        assert_eq!(State::fresh(3, Hash::of(b"")).next_from(Some(7)), 7);
    }

    #[test]
    fn a_journal_without_checkpoint_says_nothing() {
        let file = encode(&Record::Done { sequence: 1, at: 0 }).unwrap();
        assert_eq!(replay(&file), (None, 0));
        assert_eq!(replay(b"garbage of some length"), (None, 0));
    }
}
