use proptest::prelude::*;

use crate::peers::{Column, KeyType, Rate, Table, Update, Value};
use crate::runtime::DatumValue;
use crate::stick_table::mirror::{Mirror, RemovalReason};
use crate::stick_table::view::{Change, Scope, View};

fn table(key_type: KeyType, key_length: usize, expire: u32) -> Table {
    let columns = [("gpc0", None), ("http_req_cnt", None), ("http_req_rate", Some(10_000))];
    let columns = columns.iter().map(|(name, period)| Column::named(name, 1, *period).unwrap()).collect();
    Table { id: 1, name: "t".into(), key_type, key_length, columns, expire, unknown: None }
}

fn update(mirror: &mut Mirror, table: &Table, key: &[u8], count: u64, now: u64) {
    let rate = Rate { age: 5, current: count as u32, previous: 1 };
    let values = [Value::Number(count), Value::Number(7), Value::Rate(rate)];
    mirror.updates(table, [Update { key, number: count as u32, expires_in: None, values: &values }].into_iter(), now);
}

/// An eighth of a million has the same share of the index as a million.
#[test]
fn an_address_with_three_counters_takes_less_than_96_bytes() {
    const ENTRIES: u32 = 125_000;
    let table = table(KeyType::Ip, 4, 3_600_000);
    let mut mirror = Mirror::new(1, 1000);
    mirror.describe(&table);
    mirror.begin();
    let each = |mirror: &Mirror| mirror.memory() / mirror.len();
    for n in 0..ENTRIES {
        update(&mut mirror, &table, &n.to_be_bytes(), 1, u64::from(n / 100));
        // Also where a part or the index has just grown.
        if n > 10_000 && n % 100 == 0 {
            assert!(each(&mirror) < 96, "{} at {n}", each(&mirror));
        }
    }
    mirror.finish(2_000);
    assert_eq!(mirror.len(), ENTRIES as usize);
    assert!(each(&mirror) < 80, "{}", each(&mirror));
    // With a full log, half of it removals.
    for round in 2..4 {
        for n in 0..ENTRIES {
            let at = mirror.find(&n.to_be_bytes()).slot.unwrap();
            if round == 3 {
                mirror.remove(at, RemovalReason::Expired);
            }
            update(&mut mirror, &table, &n.to_be_bytes(), round, 2_000);
        }
    }
    assert!(mirror.revision().number - mirror.log.floor() >= 2 * u64::from(ENTRIES) - 2);
    assert!(each(&mirror) < 100, "{}", each(&mirror));
}

#[test]
fn keys_of_all_kinds_are_told_as_haproxy_shows_them() {
    for (key_type, key_length, key, shown) in [
        (KeyType::Integer, 4, &[0, 0, 1, 2][..], "258"),
        (KeyType::Ipv6, 16, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
        (KeyType::String, 33, b"a b=c", "a b=c"),
        (KeyType::String, 256, &[b'x'; 100], &"x".repeat(100)),
        (KeyType::Binary, 3, &[0xab, 1, 0], "AB0100"),
        (KeyType::Binary, 80, &[0xab; 80], &"AB".repeat(80)),
    ] {
        let table = table(key_type, key_length, 1_000);
        let mut mirror = Mirror::new(1, 100);
        mirror.describe(&table);
        assert!(mirror.describes(&table));
        assert!(!mirror.describes(&self::table(key_type, key_length + 1, 1_000)), "keys of another length");
        mirror.begin();
        mirror.finish(0);
        update(&mut mirror, &table, key, 3, 10);
        let entry = mirror.get(shown, 10).unwrap();
        assert_eq!((&*entry.key, entry.expires_in), (shown, Some(1_000)));
        assert_eq!(
            entry.data.iter().map(|datum| &datum.value).collect::<Vec<_>>(),
            [&DatumValue::Number(3), &DatumValue::Number(7), &DatumValue::Number(3),]
        );
        let scope = |prefix: &str| Scope { key_prefix: prefix.into(), ..Scope::default() };
        let (mut view, mut other) = (View::new(&scope(&shown[..2])), View::new(&scope("no")));
        assert_eq!(view.snapshot(&mirror, 0, 10, usize::MAX).0, [entry]);
        assert_eq!(other.snapshot(&mirror, 0, 10, usize::MAX).0, []);
        let cursor = mirror.revision().number;
        mirror.expire(3_000);
        let gone = Change::Removed(vec![shown.to_owned()], RemovalReason::Expired);
        assert_eq!(view.changes(&mirror, cursor, 3_000, usize::MAX).unwrap().0, [(cursor + 1, gone)]);
        assert_eq!(other.changes(&mirror, cursor, 3_000, usize::MAX).unwrap().0, []);
        // Another one takes its place.
        let mut next = key.to_vec();
        next[1] ^= 1;
        update(&mut mirror, &table, &next, 4, 3_000);
        mirror.cleared(shown);
        assert_eq!((mirror.len(), mirror.all().len()), (1, 1));
        mirror.expire(6_000);
        assert!(mirror.is_empty());
    }
}

/// A slot that is taken again while somebody is still to look at it is looked at in time, and not more often.
#[test]
fn an_entry_expires_in_a_slot_of_another_one() {
    let table = table(KeyType::Ip, 4, 10_000);
    let mut mirror = Mirror::new(1, 100);
    mirror.describe(&table);
    update(&mut mirror, &table, &[1, 1, 1, 1], 1, 0);
    let before = mirror.timers.memory();
    for n in 0..100 {
        mirror.cleared("1.1.1.1");
        update(&mut mirror, &table, &[1, 1, 1, 1], n, 5_000);
    }
    assert_eq!(mirror.timers.memory(), before);
    mirror.expire(14_000);
    assert_eq!(mirror.len(), 1, "it was looked at in second 11");
    mirror.expire(16_000);
    assert!(mirror.is_empty());
}

#[test]
fn changes_of_other_nodes_last_through_a_resync_that_is_older() {
    let table = table(KeyType::String, 33, 1_000);
    let mut mirror = Mirror::new(1, 100);
    mirror.describe(&table);
    let values = |count| {
        let rate = Rate { age: 5, current: 0, previous: 0 };
        [Value::Number(count), Value::Number(7), Value::Rate(rate)]
    };
    let gpc0 = |mirror: &Mirror, key: &str| mirror.get(key, 0).map(|entry| entry.data[0].value.clone());
    let timed = |mirror: &mut Mirror, key: &[u8], count| {
        let update = Update { key, number: 1, expires_in: Some(500), values: &values(count) };
        mirror.updates(&table, [update].into_iter(), 0);
    };
    mirror.begin();
    timed(&mut mirror, b"a", 1);
    mirror.finish(0);
    // While all entries come, another node changes some of them: one that has come, one that has not, one that is new.
    mirror.begin();
    timed(&mut mirror, b"a", 1);
    for key in [&b"a"[..], b"b", b"c"] {
        mirror.merge(&table, Update { key, number: 1, expires_in: None, values: &values(9) }, 0);
    }
    timed(&mut mirror, b"a", 1);
    timed(&mut mirror, b"b", 1);
    mirror.finish(0);
    for key in ["a", "b", "c"] {
        assert_eq!(gpc0(&mirror, key), Some(DatumValue::Number(9)), "{key}");
    }
    // Numbers are those of our own node: it has sent this one before, and it says nothing of the expiry.
    let replayed = Update { key: b"a", number: 1, expires_in: None, values: &values(9) };
    mirror.updates(&table, [replayed].into_iter(), 600);
    assert_eq!(mirror.get("a", 600).unwrap().expires_in, Some(400));
    // The next resync counts again.
    mirror.begin();
    timed(&mut mirror, b"a", 10);
    mirror.finish(0);
    assert_eq!(gpc0(&mirror, "a"), Some(DatumValue::Number(10)));
    assert_eq!((gpc0(&mirror, "b"), mirror.len()), (None, 1));
}

/// HAProxy sends 0 ms with entries of a table without `expire` when it sends all of them.
#[test]
fn entries_of_a_table_without_expiry_stay_whatever_time_is_sent_with_them() {
    let table = table(KeyType::Ip, 4, 0);
    let mut mirror = Mirror::new(1, 100);
    mirror.describe(&table);
    let values = [Value::Number(1), Value::Number(7), Value::Rate(Rate::default())];
    let again = Update { key: &[1, 1, 1, 1], number: 1, expires_in: Some(0), values: &values };
    mirror.updates(&table, [again].into_iter(), 10);
    mirror.expire(100_000);
    assert_eq!(mirror.get("1.1.1.1", 100_000).unwrap().expires_in, None);
}

proptest! {
    /// Keys are looked for before any of their updates is written; some come twice, some are new.
    #[test]
    fn what_comes_together_is_what_comes_one_by_one(keys in prop::collection::vec(0..40_u8, 1..120), before in 0..40_usize) {
        let table = table(KeyType::Ip, 4, 1_000);
        let values: Vec<_> = (0..keys.len() as u64)
            .map(|count| [Value::Number(count), Value::Number(7), Value::Rate(Rate::default())])
            .collect();
        let keys: Vec<[u8; 4]> = keys.iter().map(|key| [0, 0, 0, *key]).collect();
        let updates: Vec<_> = keys
            .iter()
            .zip(&values)
            .map(|(key, values)| Update { key, number: 1, expires_in: None, values })
            .collect();
        let (first, second) = updates.split_at(before.min(updates.len()));
        let [together, one_by_one] = [true, false].map(|together| {
            let mut mirror = Mirror::new(1, 1_000);
            mirror.describe(&table);
            mirror.updates(&table, first.iter().copied(), 0);
            if together {
                mirror.updates(&table, second.iter().copied(), 5);
            } else {
                for update in second {
                    mirror.updates(&table, [*update].into_iter(), 5);
                }
            }
            let entries = View::new(&Scope::default()).snapshot(&mirror, 0, 9, usize::MAX).0;
            (mirror.revision(), mirror.len(), entries)
        });
        prop_assert_eq!(together, one_by_one);
    }
}
