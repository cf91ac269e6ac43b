//! What was written at run time and is to stay: records, and the state that they add up to.
//!
//! Pure: the same [`State::apply`] runs when a record is written and when the journal is read at start. The bytes of a
//! journal are frames with JSON inside, as those of the configuration's journal are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::configuration::frame;
use crate::error::{Error, Result};

/// How long an entry that is in its file is still known, in milliseconds: a worker that was loading when the file was
/// written takes over within this time.
const FILED: i64 = 10 * 60 * 1000;

/// A field of a server that can be written while HAProxy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerField {
    /// IP address with its port, as `address:port`, or without.
    Address,
    /// Weight, 0 to 256.
    Weight,
    /// Whether its agent is asked: `on` or `off`.
    AgentCheck,
    /// Address of the agent.
    AgentAddress,
    /// What is sent to the agent.
    AgentSend,
    /// What the operator wants of it: `ready`, `drain` or `maint`. The last one: no request meets a server that is half
    /// changed.
    State,
}

impl ServerField {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ServerField::Address => "address",
            ServerField::Weight => "weight",
            ServerField::AgentCheck => "agent_check",
            ServerField::AgentAddress => "agent_addr",
            ServerField::AgentSend => "agent_send",
            ServerField::State => "admin_state",
        }
    }
}

/// What is written: an object and its field. Their order is that in which they are brought to a worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Target {
    /// The limit of connections of a frontend.
    FrontendMaxconn {
        /// Its name.
        frontend: String,
    },
    /// A field of a server.
    Server {
        /// Its backend.
        backend: String,
        /// Its name.
        server: String,
        /// The field.
        field: ServerField,
    },
    /// All entries of a map: it was emptied.
    Map {
        /// The file, as HAProxy knows it.
        map: String,
    },
    /// An entry of a map.
    MapEntry {
        /// The file, as HAProxy knows it.
        map: String,
        /// The key.
        key: String,
    },
    /// A pattern of an ACL.
    AclEntry {
        /// The file, as HAProxy knows it.
        acl: String,
        /// The pattern.
        value: String,
    },
}

/// A value that was written at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Of what.
    pub target: Target,
    /// The value; `None` for what was removed.
    pub value: Option<String>,
    /// What the configuration or the file said when it was written first; `None` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// When it was written, in milliseconds since 1970.
    pub since: i64,
    /// Name of the user who wrote it; empty where nobody needs one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When the file got it, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filed: Option<i64>,
}

/// The worker that holds everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Its process id.
    pub(super) pid: i64,
    /// When it started, in seconds since 1970.
    pub(super) started: i64,
}

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// A value was written.
    Put(Override),
    /// A value is of no account any more.
    Drop {
        /// Of what.
        target: Target,
    },
    /// Files hold these now.
    Filed {
        /// Of what.
        targets: Vec<Target>,
        /// When, in milliseconds since 1970.
        at: i64,
    },
    /// A worker holds everything.
    Held(Holder),
}

/// What all records of a journal add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    overrides: BTreeMap<Target, Override>,
    holder: Option<Holder>,
}

impl State {
    /// Adds one record.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Put(put) => {
                if let Target::Map { map } = &put.target {
                    let of_map =
                        |target: &Target| matches!(target, Target::MapEntry { map: other, .. } if other == map);
                    self.overrides.retain(|target, _| !of_map(target));
                }
                self.overrides.insert(put.target.clone(), put);
            }
            Record::Drop { target } => drop(self.overrides.remove(&target)),
            Record::Filed { targets, at } => {
                for target in targets {
                    if let Some(found) = self.overrides.get_mut(&target) {
                        found.filed = Some(at);
                    }
                }
            }
            Record::Held(holder) => self.holder = Some(holder),
        }
    }

    /// Forgets what has been in its file for long.
    pub(super) fn expire(&mut self, now: i64) {
        self.overrides.retain(|_, found| found.filed.is_none_or(|at| now - at < FILED));
    }

    /// The value of a target.
    pub(super) fn get(&self, target: &Target) -> Option<&Override> {
        self.overrides.get(target)
    }

    /// All of them, in the order in which they are brought to a worker.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Override> {
        self.overrides.values()
    }

    /// The worker that holds them.
    pub(super) fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// A journal that says the same in as few records as can be.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for found in self.overrides.values() {
            encode(&Record::Put(found.clone()), &mut out)?;
        }
        if let Some(holder) = self.holder {
            encode(&Record::Held(holder), &mut out)?;
        }
        Ok(out)
    }
}

/// Appends the bytes of one record.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_vec(record).map_err(Error::internal)?;
    frame::write(&json, out);
    Ok(())
}

/// Adds up a journal. The number says how many bytes hold; what comes after them is a torn record.
pub(super) fn replay(file: &[u8]) -> (State, usize) {
    let (payloads, held) = frame::read(file);
    let (mut state, mut length) = (State::default(), 0);
    for payload in payloads {
        let Ok(record) = serde_json::from_slice::<Record>(payload) else { return (state, length) };
        state.apply(record);
        length = (length + frame::HEAD + payload.len()).min(held);
    }
    (state, length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> impl Strategy<Value = Target> {
        let name = "[a-c]";
        prop_oneof![
            (name, name).prop_map(|(map, key)| Target::MapEntry { map, key }),
            name.prop_map(|map| Target::Map { map }),
            (name, name).prop_map(|(acl, value)| Target::AclEntry { acl, value }),
            (name, prop_oneof![Just(ServerField::State), Just(ServerField::Weight)])
                .prop_map(|(server, field)| Target::Server { backend: "b".into(), server, field }),
        ]
    }

    fn record() -> impl Strategy<Value = Record> {
        let put = (target(), proptest::option::of("[\\PC]{0,4}"), proptest::option::of("x"), 0_i64..9).prop_map(
            |(target, value, base, since)| {
                Record::Put(Override { target, value, base, since, by: "admin".into(), filed: None })
            },
        );
        prop_oneof![
            4 => put,
            1 => target().prop_map(|target| Record::Drop { target }),
            1 => (proptest::collection::vec(target(), 0..3), 0_i64..9)
                .prop_map(|(targets, at)| Record::Filed { targets, at }),
            1 => (1_i64..9, 1_i64..9).prop_map(|(pid, started)| Record::Held(Holder { pid, started })),
        ]
    }

    fn sum(records: &[Record]) -> State {
        let mut state = State::default();
        for record in records {
            state.apply(record.clone());
        }
        state
    }

    proptest! {
        #[test]
        fn a_torn_tail_takes_only_what_was_being_written(
            records in proptest::collection::vec(record(), 0..12),
            cut in any::<prop::sample::Index>(),
            garbage in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let (mut file, mut ends) = (Vec::new(), vec![0]);
            for record in &records {
                encode(record, &mut file).unwrap();
                ends.push(file.len());
            }
            let at = cut.index(file.len() + 1);
            let whole = ends.iter().filter(|end| **end <= at).count() - 1;
            let mut torn = file[..at].to_vec();
            torn.extend(garbage);
            prop_assert_eq!(replay(&torn), (sum(&records[..whole]), ends[whole]));
        }

        #[test]
        fn a_compact_journal_says_the_same(records in proptest::collection::vec(record(), 0..20)) {
            let state = sum(&records);
            let file = state.encode().unwrap();
            prop_assert_eq!(replay(&file), (state.clone(), file.len()));
            let mut again = state.encode().unwrap();
            for record in &records {
                encode(record, &mut again).unwrap();
            }
            prop_assert_eq!(replay(&again).0.holder(), sum(&records).holder());
        }
    }

    #[test]
    fn an_emptied_map_forgets_its_entries_and_no_others() {
        let put = |target| {
            Record::Put(Override { target, value: None, base: None, since: 1, by: String::new(), filed: None })
        };
        let entry = |map: &str| Target::MapEntry { map: map.into(), key: "k".into() };
        let state = sum(&[put(entry("a")), put(entry("b")), put(Target::Map { map: "a".into() })]);
        assert_eq!(
            state.iter().map(|o| o.target.clone()).collect::<Vec<_>>(),
            [Target::Map { map: "a".into() }, entry("b")]
        );
    }

    #[test]
    fn what_is_in_its_file_is_known_for_ten_minutes() {
        let target = Target::MapEntry { map: "a".into(), key: "k".into() };
        let put =
            Override { target: target.clone(), value: None, base: None, since: 1, by: String::new(), filed: None };
        let mut state = sum(&[Record::Put(put), Record::Filed { targets: vec![target.clone()], at: 1000 }]);
        state.expire(FILED + 999);
        assert_eq!(state.get(&target).unwrap().filed, Some(1000));
        state.expire(FILED + 1000);
        assert_eq!(state.get(&target), None);
    }
}
