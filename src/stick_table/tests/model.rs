//! Whatever happens, a watcher that applies what it is told knows the entries it asked for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{lines, raw};
use crate::runtime::{DataType, DatumValue};
use crate::stick_table::mirror::{Entry, Mirror};
use crate::stick_table::view::{Change, Scope, View};

#[derive(Debug, Clone)]
enum Step {
    /// A dump with these entries replaces the table.
    Dump(BTreeMap<u8, u8>),
    /// A dump that breaks off.
    Broken(BTreeMap<u8, u8>),
    Clear(u8),
    ClearAll,
    /// The watcher takes a chunk of this size.
    Read(usize),
    /// The watcher reconnects with what it knows.
    Resume,
}

fn step() -> impl Strategy<Value = Step> {
    let table = || prop::collection::btree_map(0..12_u8, 0..10_u8, 0..10);
    prop_oneof![
        4 => table().prop_map(Step::Dump),
        1 => table().prop_map(Step::Broken),
        1 => (0..12_u8).prop_map(Step::Clear),
        1 => Just(Step::ClearAll),
        6 => (1..400_usize).prop_map(Step::Read),
        1 => Just(Step::Resume),
    ]
}

struct Client {
    scope: Scope,
    view: View,
    known: BTreeMap<String, u64>,
    /// Slot to go on with in a snapshot that began at the revision.
    snapshot: Option<u32>,
    cursor: u64,
}

impl Client {
    fn add(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let value = entry.data.iter().find(|datum| datum.kind == DataType::Gpc(0)).unwrap();
            let DatumValue::Number(value) = value.value else { panic!("gpc0 is a number") };
            self.known.insert(entry.key, value);
        }
    }

    fn restart(&mut self, mirror: &Mirror) {
        self.view.restart();
        self.known.clear();
        (self.snapshot, self.cursor) = (Some(0), mirror.revision().number);
    }

    /// Returns whether everything has been told.
    fn read(&mut self, mirror: &Mirror, limit: usize) -> bool {
        if let Some(from) = self.snapshot {
            let (entries, next) = self.view.snapshot(mirror, from, 0, limit);
            self.snapshot = next;
            self.add(entries);
            return false;
        }
        match self.view.changes(mirror, self.cursor, 0, limit) {
            None => self.restart(mirror),
            Some((changes, cursor)) => {
                let mut last = self.cursor;
                for (revision, change) in changes {
                    assert!(revision > last, "revisions grow");
                    last = revision;
                    match change {
                        Change::Changed(entries) => self.add(entries),
                        Change::Removed(keys, _) => {
                            for key in keys {
                                self.known.remove(&key);
                            }
                        }
                    }
                }
                assert!(last <= cursor);
                self.cursor = cursor;
            }
        }
        self.snapshot.is_none() && self.cursor == mirror.revision().number
    }
}

fn run(steps: Vec<Step>, scope: Scope, log_limit: usize) {
    let mut mirror = Mirror::new(1, log_limit);
    let mut table: BTreeMap<u8, u8> = BTreeMap::new();
    let mut client = Client { view: View::new(&scope), scope, known: BTreeMap::new(), snapshot: Some(0), cursor: 0 };
    let texts = |table: &BTreeMap<u8, u8>| {
        let keys: Vec<String> =
            table.keys().map(|key| format!("{}{key}", if key.is_multiple_of(2) { "even" } else { "odd" })).collect();
        let entries: Vec<_> =
            keys.iter().zip(table.values()).map(|(key, value)| (key.as_str(), u64::from(*value), 0)).collect();
        lines(&entries)
    };
    let name = |key: u8| format!("{}{key}", if key.is_multiple_of(2) { "even" } else { "odd" });
    for step in steps {
        match step {
            Step::Dump(entries) => {
                mirror.apply_dump(raw(&texts(&entries)), 0).unwrap();
                table = entries;
            }
            Step::Broken(entries) => {
                mirror.begin();
                for entry in raw(&texts(&entries)) {
                    mirror.observe(&entry, 0).unwrap();
                }
                mirror.abandon();
                table.extend(entries);
            }
            Step::Clear(key) => {
                mirror.cleared(&name(key));
                table.remove(&key);
            }
            Step::ClearAll => {
                mirror.cleared_all();
                table.clear();
            }
            Step::Read(limit) => drop(client.read(&mirror, limit)),
            Step::Resume if client.snapshot.is_none() => {
                client.view = View::new(&client.scope);
                let cursor = client.cursor;
                if !client.view.resume(&mirror, cursor, 0) {
                    client.restart(&mirror);
                }
            }
            Step::Resume => client.restart(&mirror),
        }
        assert_eq!(mirror.len(), table.len());
    }
    for _ in 0..1000 {
        if client.read(&mirror, 50) {
            break;
        }
    }
    let expected: BTreeMap<String, u64> = table
        .iter()
        .map(|(key, value)| (name(*key), u64::from(*value)))
        .filter(|(key, _)| key.starts_with(&client.scope.key_prefix))
        .filter(|(_, value)| client.scope.filters.iter().all(|filter| filter.operator.holds(*value, filter.value)))
        .collect();
    assert_eq!(client.known, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_watcher_ends_up_with_what_it_asked_for(
        steps in prop::collection::vec(step(), 0..60),
        filtered in any::<bool>(),
        prefixed in any::<bool>(),
        log_limit in 0..40_usize,
    ) {
        let filters = if filtered { vec!["gpc0 ge 5".parse().unwrap()] } else { Vec::new() };
        let key_prefix = if prefixed { "even".to_owned() } else { String::new() };
        run(steps, Scope { filters, key_prefix }, log_limit);
    }
}
