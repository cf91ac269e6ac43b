//! Watching stick tables of a live HAProxy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstay::error::Reason;
use backstay::runtime::{Address, DataType, DatumValue, Runtime};
use backstay::stick_table::{Cleared, Event, Hub, Poll, RemovalReason, Scope, Watch, WatchOptions};
use tokio::time::timeout;

use crate::support::haproxy::Haproxy;

const BODY: &str = "
backend names
    stick-table type string len 40 size 100k expire 10m store gpc0,conn_rate(10s)
backend brief
    stick-table type string len 40 size 100k expire 300ms store gpc0
";

fn live() -> (Haproxy, Runtime, Hub) {
    let haproxy = Haproxy::run(BODY);
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let hub = Hub::new(Poll::new(runtime.clone()));
    (haproxy, runtime, hub)
}

fn quick() -> WatchOptions {
    WatchOptions { interval: Duration::from_millis(50), ..WatchOptions::default() }
}

async fn set(runtime: &Runtime, table: &str, key: &str, value: u64) {
    runtime.set_table_entry(table, key, &[(DataType::Gpc(0), DatumValue::Number(value))]).await.unwrap();
}

async fn next(watch: &mut Watch) -> Event {
    timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end").unwrap().event
}

/// Follows a watch until what it told is as expected.
async fn follow(watch: &mut Watch, known: &mut BTreeMap<String, u64>, expected: &BTreeMap<String, u64>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while known != expected {
        assert!(Instant::now() < deadline, "{known:?} instead of {expected:?}");
        let add = |known: &mut BTreeMap<String, u64>, entries: Vec<backstay::stick_table::Entry>| {
            for entry in entries {
                let Some(DatumValue::Number(value)) = entry.data.first().map(|datum| datum.value.clone()) else {
                    continue;
                };
                known.insert(entry.key, value);
            }
        };
        match next(watch).await {
            Event::Snapshot { entries, .. } | Event::Changed(entries) => add(known, entries),
            Event::Removed { keys, .. } => known.retain(|key, _| !keys.contains(key)),
            Event::Resync => known.clear(),
            Event::Progress => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_follows_the_table_through_clears_and_restarts() {
    let (mut haproxy, runtime, hub) = live();
    set(&runtime, "names", "a b=c", 1).await;
    let mut watch = hub.watch("names", quick());
    let mut large = hub.watch(
        "names",
        WatchOptions {
            scope: Scope { filters: vec!["gpc0 gt 5".parse().unwrap()], key_prefix: String::new() },
            ..quick()
        },
    );
    let (mut known, mut known_large) = (BTreeMap::new(), BTreeMap::new());
    let table =
        |entries: &[(&str, u64)]| entries.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<BTreeMap<_, _>>();
    follow(&mut watch, &mut known, &table(&[("a b=c", 1)])).await;
    set(&runtime, "names", "é", 9).await;
    follow(&mut watch, &mut known, &table(&[("a b=c", 1), ("é", 9)])).await;
    follow(&mut large, &mut known_large, &table(&[("é", 9)])).await;
    set(&runtime, "names", "é", 2).await;
    follow(&mut large, &mut known_large, &table(&[])).await;

    runtime.clear_table_entry("names", "a b=c").await.unwrap();
    hub.cleared("names", Cleared::Key("a b=c"));
    loop {
        match next(&mut watch).await {
            Event::Removed { keys, reason } => {
                assert_eq!((keys, reason), (vec!["a b=c".to_owned()], RemovalReason::Cleared));
                break;
            }
            Event::Changed(_) => {}
            other => panic!("{other:?}"),
        }
    }

    haproxy.stop();
    haproxy.start();
    set(&runtime, "names", "new", 3).await;
    // By a resync, or by removals if the restart was quicker than a poll.
    known.remove("a b=c");
    follow(&mut watch, &mut known, &table(&[("new", 3)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_expire_say_so() {
    let (_haproxy, runtime, hub) = live();
    let mut watch = hub.watch("brief", quick());
    assert!(matches!(next(&mut watch).await, Event::Snapshot { last: true, .. }));
    set(&runtime, "brief", "x", 1).await;
    assert!(matches!(next(&mut watch).await, Event::Changed(_)));
    let gone = next(&mut watch).await;
    assert_eq!(gone, Event::Removed { keys: vec!["x".into()], reason: RemovalReason::Expired });
    let mut missing = hub.watch("nope", quick());
    assert_eq!(missing.next().await.unwrap().unwrap_err().reason(), Reason::ObjectNotFound);
    assert!(missing.next().await.is_none());
}
