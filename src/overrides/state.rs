//! What was written at run time and is to stay: records, and the state that they add up to.
//!
//! Pure: the same [`State::apply`] runs when a record is written and when the journal is read at start. The bytes of a
//! journal are frames with JSON inside, as those of the configuration's journal are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::batch::BatchOf;
use super::file_says::is_as_in_file;
use super::lives::{Entry, Life};
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

/// What is written: an object and its field.
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
    /// All entries of a map: it was emptied, or, when its file has got it, is as the file says.
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
    /// An entry of a map that was added without a look at others with its key: it stands beside them.
    MapLine {
        /// The file, as HAProxy knows it.
        map: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A pattern of an ACL.
    AclEntry {
        /// The file, as HAProxy knows it.
        acl: String,
        /// The pattern.
        value: String,
    },
    /// What an entry of a stick table holds of one data type.
    TableEntry {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The data type, such as `gpc0`.
        field: String,
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

/// A write before its outcome is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// What it leaves behind.
    pub(super) left: Vec<Override>,
    /// Its store is a file of ours: what is as in the configuration is an override all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ours: bool,
    /// Entries of a map that are added instead, which lie elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) batch: Option<BatchOf>,
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
    /// How long an entry of a stick table stays.
    Lives {
        /// Which one.
        entry: Entry,
        /// How long.
        life: Life,
    },
    /// An entry of a stick table is no more.
    Gone {
        /// Which one.
        entry: Entry,
    },
    /// A worker holds everything.
    Held(Holder),
    /// A write begins. Without an end, nobody knows what became of it.
    Begun {
        /// Tells it from others that have not ended.
        number: u64,
        /// The write.
        write: Begun,
    },
    /// A write has ended.
    Ended {
        /// Its number.
        number: u64,
        /// HAProxy made it; else nothing changed, or other records say what did.
        made: bool,
    },
}

/// An override, with its place among all.
#[derive(Debug, Clone)]
struct Kept {
    place: u64,
    found: Override,
}

/// What all records of a journal add up to.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    overrides: BTreeMap<Target, Kept>,
    /// How long entries of stick tables stay, of all that are among the overrides.
    lives: BTreeMap<Entry, Life>,
    /// The last place that was given.
    last: u64,
    holder: Option<Holder>,
    begun: BTreeMap<u64, Begun>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let rest = |state: &State| (state.holder, state.begun.clone());
        rest(self) == rest(other) && self.as_written() == other.as_written() && self.lives == other.lives
    }
}

impl State {
    /// Adds one record.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Put(put) => self.put(put),
            Record::Drop { target } => {
                self.overrides.remove(&target);
                if let Some(entry) = target.entry().filter(|entry| self.of_entry(entry).is_empty()) {
                    self.lives.remove(&entry);
                }
            }
            Record::Lives { entry, life } => {
                if let Some(known) = self.lives.get_mut(&entry) {
                    *known = life;
                }
            }
            Record::Gone { entry } => {
                for found in self.of_entry(&entry) {
                    self.overrides.remove(&found.target);
                }
                self.lives.remove(&entry);
            }
            Record::Filed { targets, at } => {
                for target in targets {
                    if let Some(kept) = self.overrides.get_mut(&target) {
                        kept.found.filed = Some(at);
                    }
                }
            }
            Record::Held(holder) => self.holder = Some(holder),
            Record::Begun { number, write } => drop(self.begun.insert(number, write)),
            Record::Ended { number, made } => {
                if let Some(begun) = self.begun.remove(&number).filter(|_| made) {
                    for record in begun.records(begun.left.clone()) {
                        self.apply(record);
                    }
                }
            }
        }
    }

    fn put(&mut self, put: Override) {
        match &put.target {
            Target::Map { map } => self.overrides.retain(|target, _| !is_entry_of(target, map)),
            Target::MapEntry { map, key } => {
                let lines = Target::lines(map, key);
                let beside: Vec<Target> = self.overrides.range(lines).map(|(target, _)| target.clone()).collect();
                for target in beside {
                    self.overrides.remove(&target);
                }
            }
            Target::TableEntry { table, key, .. } => {
                // HAProxy begins its `expire` anew.
                self.lives.insert(Entry { table: table.clone(), key: key.clone() }, Life::default());
            }
            _ => {}
        }
        // What is there keeps its place among the entries of a map.
        let stays = |kept: &&Kept| kept.found.value.is_some() && put.value.is_some();
        let place = self.overrides.get(&put.target).filter(stays).map(|kept| kept.place);
        let place = place.unwrap_or_else(|| {
            self.last += 1;
            self.last
        });
        self.overrides.insert(put.target.clone(), Kept { place, found: put });
    }

    /// Forgets what has been in its file for long.
    pub(super) fn expire(&mut self, now: i64) {
        self.overrides.retain(|_, kept| kept.found.filed.is_none_or(|at| now - at < FILED));
    }

    /// The value of a target.
    pub(super) fn get(&self, target: &Target) -> Option<&Override> {
        self.overrides.get(target).map(|kept| &kept.found)
    }

    /// All of them, in the order of their targets.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Override> {
        self.overrides.values().map(|kept| &kept.found)
    }

    /// All of them, in the order in which they were written: that of the entries of a map may matter.
    pub(super) fn as_written(&self) -> Vec<&Override> {
        let mut all: Vec<&Kept> = self.overrides.values().collect();
        all.sort_unstable_by_key(|kept| kept.place);
        all.into_iter().map(|kept| &kept.found).collect()
    }

    /// All of an entry of a stick table.
    pub(super) fn of_entry(&self, entry: &Entry) -> Vec<Override> {
        let from = |key: String| Target::TableEntry { table: entry.table.clone(), key, field: String::new() };
        let all = self.overrides.range(from(entry.key.clone())..from(format!("{}\0", entry.key)));
        all.map(|(_, kept)| kept.found.clone()).collect()
    }

    /// Entries of stick tables, and how long they stay.
    pub(super) fn lives(&self) -> impl Iterator<Item = (&Entry, Life)> {
        self.lives.iter().map(|(entry, life)| (entry, *life))
    }

    /// How long an entry stays.
    pub(super) fn life(&self, entry: &Entry) -> Life {
        self.lives.get(entry).copied().unwrap_or_default()
    }

    /// The entries of a table.
    pub(super) fn entries_of(&self, table: &str) -> Vec<Entry> {
        let from = Entry { table: table.to_owned(), key: String::new() };
        self.lives.range(from..).map(|(entry, _)| entry.clone()).take_while(|entry| entry.table == table).collect()
    }

    /// Whether there is any entry of a table.
    pub(super) fn has_table(&self, table: &str) -> bool {
        let from = Entry { table: table.to_owned(), key: String::new() };
        self.lives.range(from..).next().is_some_and(|(entry, _)| entry.table == table)
    }

    /// The worker that holds them.
    pub(super) fn holder(&self) -> Option<Holder> {
        self.holder
    }

    /// Writes that have not ended, by number.
    pub(super) fn begun(&self) -> &BTreeMap<u64, Begun> {
        &self.begun
    }

    /// A journal that says the same in as few records as can be.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for found in self.as_written() {
            encode(&Record::Put(found.clone()), &mut out)?;
        }
        for (entry, life) in self.lives().filter(|(_, life)| *life != Life::default()) {
            encode(&Record::Lives { entry: entry.clone(), life }, &mut out)?;
        }
        for (number, write) in &self.begun {
            encode(&Record::Begun { number: *number, write: write.clone() }, &mut out)?;
        }
        if let Some(holder) = self.holder {
            encode(&Record::Held(holder), &mut out)?;
        }
        Ok(out)
    }
}

impl Begun {
    /// What the journal is to say when these were made.
    pub(super) fn records(&self, made: Vec<Override>) -> impl Iterator<Item = Record> {
        let ours = self.ours;
        made.into_iter().map(move |found| {
            if !ours && is_as_in_file(&found.target, found.value.as_deref(), found.base.as_deref()) {
                return Record::Drop { target: found.target };
            }
            Record::Put(found)
        })
    }
}

impl Target {
    /// Key of the entry of a map, or the pattern of an ACL.
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Target::MapEntry { key, .. } | Target::MapLine { key, .. } => Some(key),
            Target::AclEntry { value, .. } => Some(value),
            _ => None,
        }
    }

    /// The entry of a stick table.
    pub(super) fn entry(&self) -> Option<Entry> {
        match self {
            Target::TableEntry { table, key, .. } => Some(Entry { table: table.clone(), key: key.clone() }),
            _ => None,
        }
    }

    /// All lines of a map with a key, as a range.
    fn lines(map: &str, key: &str) -> std::ops::Range<Target> {
        let (map, from) = (map.to_owned(), key.to_owned());
        let until = format!("{key}\0");
        Target::MapLine { map: map.clone(), key: from, value: String::new() }..Target::MapLine {
            map,
            key: until,
            value: String::new(),
        }
    }
}

fn is_entry_of(target: &Target, of: &str) -> bool {
    matches!(target, Target::MapEntry { map, .. } | Target::MapLine { map, .. } if map == of)
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
            (name, name, name).prop_map(|(map, key, value)| Target::MapLine { map, key, value }),
            name.prop_map(|map| Target::Map { map }),
            (name, name).prop_map(|(acl, value)| Target::AclEntry { acl, value }),
            (name, name, "gpc[01]").prop_map(|(table, key, field)| Target::TableEntry { table, key, field }),
            (name, prop_oneof![Just(ServerField::State), Just(ServerField::Weight)])
                .prop_map(|(server, field)| Target::Server { backend: "b".into(), server, field }),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        ("[a-c]", "[a-c]").prop_map(|(table, key)| Entry { table, key })
    }

    fn record() -> impl Strategy<Value = Record> {
        let found = || {
            let parts = (target(), proptest::option::of("[\\PC]{0,4}"), proptest::option::of("x"), 0_i64..9);
            parts.prop_map(|(target, value, base, since)| Override {
                target,
                value,
                base,
                since,
                by: "admin".into(),
                filed: None,
            })
        };
        let begun = (0_u64..3, proptest::collection::vec(found(), 0..3), any::<bool>());
        prop_oneof![
            4 => found().prop_map(Record::Put),
            2 => begun.prop_map(|(number, left, ours)| Record::Begun { number, write: Begun { left, ours, batch: None } }),
            2 => (0_u64..3, any::<bool>()).prop_map(|(number, made)| Record::Ended { number, made }),
            1 => target().prop_map(|target| Record::Drop { target }),
            1 => (proptest::collection::vec(target(), 0..3), 0_i64..9)
                .prop_map(|(targets, at)| Record::Filed { targets, at }),
            1 => (entry(), 0_i64..9, any::<bool>()).prop_map(|(entry, until, endless)| Record::Lives {
                entry,
                life: Life { until, endless, brought: None },
            }),
            1 => entry().prop_map(|entry| Record::Gone { entry }),
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

    fn found(target: Target, value: Option<&str>) -> Override {
        let value = value.map(str::to_owned);
        Override { target, value, base: None, since: 1, by: String::new(), filed: None }
    }

    #[test]
    fn entries_keep_the_order_in_which_they_were_added() {
        let entry = |key: &str| Target::MapEntry { map: "a".into(), key: key.into() };
        let line = |key: &str, value: &str| Target::MapLine { map: "a".into(), key: key.into(), value: value.into() };
        let put = |target: Target, value: Option<&str>| Record::Put(found(target, value));
        let mut records = vec![
            put(entry("z"), Some("1")),
            put(entry("b"), Some("1")),
            put(line("y", "2"), Some("2")),
            put(line("y", "1"), Some("1")),
            put(entry("z"), Some("2")),
            put(entry("b"), None),
            put(entry("b"), Some("3")),
        ];
        let order = |records: &[Record]| -> Vec<Target> {
            replay(&sum(records).encode().unwrap()).0.as_written().iter().map(|found| found.target.clone()).collect()
        };
        assert_eq!(order(&records), [entry("z"), line("y", "2"), line("y", "1"), entry("b")]);
        records.push(put(entry("y"), None));
        assert_eq!(order(&records), [entry("z"), entry("b"), entry("y")], "all with the key are gone");
    }

    #[test]
    fn a_write_counts_when_it_has_ended() {
        let target = Target::MapEntry { map: "a".into(), key: "k".into() };
        let begun = |number| Record::Begun {
            number,
            write: Begun { left: vec![found(target.clone(), Some("v"))], ours: true, batch: None },
        };
        let state = sum(&[begun(1)]);
        assert_eq!((state.get(&target), state.begun().len()), (None, 1));
        let state = sum(&[begun(1), Record::Ended { number: 1, made: false }]);
        assert_eq!((state.get(&target), state.begun().len()), (None, 0));
        let state = sum(&[begun(1), Record::Ended { number: 1, made: true }]);
        assert_eq!((state.get(&target), state.begun().len()), (Some(&found(target.clone(), Some("v"))), 0));
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
