use super::{lines, raw};
use crate::error::Reason;
use crate::runtime::{DataType, DatumValue, RawTableEntry};
use crate::stick_table::mirror::{LayoutChanged, Mirror, Revision};
use crate::stick_table::view::{Change, Scope, View};

fn apply(mirror: &mut Mirror, entries: &[(&str, u64, u64)], now: u64) -> u64 {
    let range = mirror.apply_dump(raw(&lines(entries)), now).unwrap();
    range.end - range.start
}

/// `+key=gpc0` and `-key(reason)` behind a cursor, for a watcher that has seen everything before.
fn since(mirror: &Mirror, view: &mut View, cursor: u64) -> Vec<String> {
    let (changes, _) = view.changes(mirror, cursor, 0, usize::MAX).unwrap();
    let texts = changes.into_iter().flat_map(|(_, change)| match change {
        Change::Changed(entries) => entries
            .into_iter()
            .map(|entry| match &entry.data[0].value {
                DatumValue::Number(number) => format!("+{}={number}", entry.key),
                DatumValue::Text(text) => format!("+{}={text}", entry.key),
            })
            .collect::<Vec<_>>(),
        Change::Removed(keys, reason) => keys.into_iter().map(|key| format!("-{key}({reason:?})")).collect(),
    });
    texts.collect()
}

fn whole(mirror: &Mirror, scope: &Scope) -> View {
    let mut view = View::new(scope);
    let (_, rest) = view.snapshot(mirror, 0, 0, usize::MAX);
    assert_eq!(rest, None);
    view
}

#[test]
fn a_dump_changes_adds_and_sweeps() {
    let mut mirror = Mirror::new(7, 100);
    assert_eq!(apply(&mut mirror, &[("a", 1, 0), ("b", 2, 0), ("c", 3, 0)], 0), 3);
    assert_eq!(mirror.revision(), Revision { epoch: 7, number: 3 });
    let mut view = whole(&mirror, &Scope::default());
    assert_eq!(apply(&mut mirror, &[("a", 1, 0), ("b", 9, 0), ("d", 4, 0)], 500), 3);
    assert_eq!(since(&mirror, &mut view, 3), ["+b=9", "+d=4", "-c(Swept)"]);
    assert_eq!(apply(&mut mirror, &[("a", 1, 0)], 1600), 2);
    assert_eq!(since(&mirror, &mut view, 6), ["-b(Expired)", "-d(Expired)"]);
    assert_eq!(mirror.len(), 1);
    assert_eq!(mirror.get("a", 1700).unwrap().expires_in, Some(900));
    assert!(mirror.get("b", 1700).is_none());
}

#[test]
fn a_refresh_of_expiry_and_use_is_no_change() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("a", 1, 0)], 0);
    let line = b"0x1: key=a use=5 exp=999999 shard=0 gpc0=1 conn_rate(10000)=0";
    assert_eq!(mirror.apply_dump(RawTableEntry::parse(line), 10).unwrap(), 1..1);
    let entry = mirror.get("a", 10).unwrap();
    assert_eq!((entry.uses, entry.expires_in), (5, Some(999_999)));
    assert_eq!(entry.data[1].kind, DataType::ConnRate);
    assert_eq!(entry.data[1].period, Some(10_000));
}

#[test]
fn a_dump_that_broke_off_sweeps_nothing() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("a", 1, 0), ("b", 1, 0)], 0);
    mirror.begin();
    mirror.observe(&raw(&lines(&[("a", 2, 0)]))[0], 5).unwrap();
    mirror.abandon();
    assert_eq!((mirror.len(), mirror.revision().number), (2, 3));
}

#[test]
fn a_clear_is_told_at_once_and_an_older_dump_does_not_undo_it() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("a b", 1, 0)], 0);
    assert_eq!(mirror.len(), 1, "a key needs its escapes");
    let entries = [("a\\ b", 1, 0), ("c", 1, 0)];
    apply(&mut mirror, &entries, 0);
    let mut view = whole(&mirror, &Scope::default());
    let cursor = mirror.revision().number;
    mirror.begin();
    mirror.cleared("a b");
    mirror.cleared("never there");
    for entry in raw(&lines(&entries)) {
        mirror.observe(&entry, 1).unwrap();
    }
    mirror.finish(1);
    assert_eq!(since(&mirror, &mut view, cursor), ["-a b(Cleared)"]);

    mirror.begin();
    mirror.cleared_all();
    mirror.observe(&raw(&lines(&entries))[1], 1).unwrap();
    mirror.finish(1);
    assert!(mirror.is_empty());
    apply(&mut mirror, &entries, 2);
    assert_eq!(mirror.len(), 2);
}

#[test]
fn entries_that_store_other_data_are_another_table() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("a", 1, 0)], 0);
    for line in ["0x1: key=a use=0 exp=1 gpc0=1", "0x1: key=a use=0 exp=1 gpc0=1 conn_rate(5)=1 gpt0=1"] {
        let entry = RawTableEntry::parse(line.as_bytes()).unwrap();
        assert_eq!(mirror.apply_dump([entry], 0), Err(LayoutChanged));
    }
    mirror.reset(2);
    assert!(!mirror.is_complete());
    let line = b"0x1: key=a use=0 exp=0 server_id=3 server_key=s1";
    mirror.apply_dump(RawTableEntry::parse(line), 0).unwrap();
    let entry = mirror.get("a", 0).unwrap();
    assert_eq!(entry.expires_in, None);
    assert_eq!(entry.data[1].value, DatumValue::Text("s1".into()));
    assert_eq!(mirror.revision(), Revision { epoch: 2, number: 2 });
}

#[test]
fn an_entry_that_leaves_the_filter_is_removed_from_the_view_only() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("x1", 9, 0), ("x2", 1, 0), ("y", 9, 0)], 0);
    let scope = Scope { filters: vec!["gpc0 gt 5".parse().unwrap()], key_prefix: "x".into() };
    let mut view = View::new(&scope);
    let (entries, _) = view.snapshot(&mirror, 0, 0, usize::MAX);
    assert_eq!(entries.len(), 1);
    let cursor = mirror.revision().number;
    apply(&mut mirror, &[("x1", 2, 0), ("x2", 7, 0), ("y", 7, 0)], 0);
    assert_eq!(since(&mirror, &mut view, cursor), ["-x1(Unknown)", "+x2=7"]);
    let cursor = mirror.revision().number;
    apply(&mut mirror, &[("x1", 3, 0), ("x2", 7, 0)], 0);
    // Neither the change of x1 nor the end of y concerns this watcher.
    assert!(since(&mirror, &mut view, cursor).is_empty());
    let wrong = Scope { filters: vec!["gpt0 gt 5".parse().unwrap()], ..Scope::default() };
    let error = View::new(&wrong).check(&mirror).unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidValue);
    assert!(View::new(&wrong).check(&Mirror::new(1, 1)).is_ok());
}

#[test]
fn a_slow_reader_gets_the_latest_state_once_or_learns_of_the_gap() {
    let mut mirror = Mirror::new(1, 10);
    apply(&mut mirror, &[("a", 0, 0)], 0);
    let mut view = whole(&mirror, &Scope::default());
    for n in 1..=5 {
        apply(&mut mirror, &[("a", n, 0)], 0);
    }
    assert_eq!(since(&mirror, &mut view, 1), ["+a=5"]);
    for n in 6..=50 {
        apply(&mut mirror, &[("a", n, 0)], 0);
    }
    assert!(view.changes(&mirror, 1, 0, usize::MAX).is_none());
    assert!(!view.resume(&mirror, 1, 0));
    assert!(view.resume(&mirror, 45, 0));
}

#[test]
fn an_entry_that_came_back_is_removed_first() {
    let mut mirror = Mirror::new(1, 100);
    apply(&mut mirror, &[("a", 1, 0), ("b", 1, 0)], 0);
    let mut view = whole(&mirror, &Scope::default());
    mirror.cleared_all();
    apply(&mut mirror, &[("b", 2, 0), ("c", 3, 0)], 0);
    assert_eq!(since(&mirror, &mut view, 2), ["-a(Cleared)", "-b(Cleared)", "+b=2", "+c=3"]);
}
