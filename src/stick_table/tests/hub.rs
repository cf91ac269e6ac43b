use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Reason, Result};
use crate::stick_table::feed::SourceKind;
use crate::stick_table::hub::{Cleared, Hub};
use crate::stick_table::mirror::{RemovalReason, Revision};
use crate::stick_table::poll::{Block, Dump, Poll};
use crate::stick_table::view::Scope;
use crate::stick_table::watch::{Event, Update, Watch, WatchOptions};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) table: BTreeMap<String, u64>,
    dumps: u32,
    cost: Duration,
    fails: Option<Reason>,
    other_layout: bool,
}

/// A table in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

impl Fake {
    pub(super) fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn set(&self, key: &str, value: u64) {
        self.with(|state| {
            state.table.insert(key.to_owned(), value);
        });
    }

    fn dumps(&self) -> u32 {
        self.0.lock().unwrap().dumps
    }

    pub(super) fn hub(&self) -> Hub {
        Hub::with_epochs(Poll::new(self.clone()), 100)
    }
}

impl Dump for Fake {
    fn dump<'a>(&'a self, table: &'a str, block: &'a mut Block<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let cost = {
                let mut state = self.0.lock().unwrap();
                state.dumps += 1;
                state.cost
            };
            sleep(cost).await;
            let text = {
                let state = self.0.lock().unwrap();
                if let Some(reason) = state.fails {
                    return Err(Error::new(reason, "it fails"));
                }
                let more = if state.other_layout { " gpt0=0" } else { "" };
                let entries = state.table.iter();
                let lines = entries.map(|(key, value)| format!("0x1: key={key} use=0 exp=60000 gpc0={value}{more}\n"));
                format!("# table: {table}, type: string, size:100, used:1\n{}\n", lines.collect::<String>())
            };
            block(text.as_bytes())
        })
    }
}

pub(super) fn every(interval: u64) -> WatchOptions {
    WatchOptions { interval: Duration::from_millis(interval), ..WatchOptions::default() }
}

async fn next(watch: &mut Watch) -> Update {
    timeout(Duration::from_mins(1), watch.next()).await.expect("a message").expect("no end").unwrap()
}

fn keys(event: &Event) -> Vec<&str> {
    match event {
        Event::Snapshot { entries, .. } | Event::Changed(entries) => entries.iter().map(|e| e.key.as_str()).collect(),
        Event::Removed { keys, .. } => keys.iter().map(String::as_str).collect(),
        Event::Progress | Event::Resync => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_watchers_cost_one_dump_an_interval() {
    let fake = Fake::default();
    fake.set("a", 1);
    let hub = fake.hub();
    let mut watches: Vec<Watch> = (0..10).map(|n| hub.watch("t", every(if n == 5 { 100 } else { 1000 }))).collect();
    for watch in &mut watches {
        assert!(matches!(next(watch).await.event, Event::Snapshot { last: true, .. }));
    }
    assert_eq!(fake.dumps(), 1);
    sleep(Duration::from_millis(1050)).await;
    assert_eq!(fake.dumps(), 11);
    assert_eq!(hub.watched(), [("t".to_owned(), 10)]);
    // The one with the small interval leaves.
    drop(watches.remove(5));
    sleep(Duration::from_secs(10)).await;
    assert!((20..=22).contains(&fake.dumps()), "{}", fake.dumps());
    fake.set("b", 2);
    for watch in &mut watches {
        assert_eq!(keys(&next(watch).await.event), ["b"]);
    }
    drop(watches);
    let dumps = fake.dumps();
    sleep(Duration::from_mins(5)).await;
    assert_eq!(fake.dumps(), dumps, "nobody watches");
    assert!(hub.watched().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_dump_is_done_less_often() {
    let fake = Fake::default();
    fake.with(|state| state.cost = Duration::from_millis(200));
    let hub = fake.hub();
    let _watch = hub.watch("t", every(50));
    sleep(Duration::from_secs(20)).await;
    assert!((9..=11).contains(&fake.dumps()), "{}", fake.dumps());
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_with_growing_revisions() {
    let fake = Fake::default();
    fake.set("a", 1);
    fake.set("b", 1);
    let hub = fake.hub();
    let mut watch = hub.watch("t", every(100));
    let first = next(&mut watch).await;
    assert_eq!(keys(&first.event), ["a", "b"]);
    assert_eq!((first.revision, first.source), (Revision { epoch: 100, number: 2 }, SourceKind::Poll));
    fake.set("a", 2);
    let changed = next(&mut watch).await;
    assert_eq!(keys(&changed.event), ["a"]);
    assert_eq!(changed.revision.number, 3);
    fake.with(|state| state.table.clear());
    let removed = next(&mut watch).await;
    assert_eq!(removed.event, Event::Removed { keys: vec!["a".into(), "b".into()], reason: RemovalReason::Swept });
    assert_eq!(removed.revision.number, 5);
    fake.set("c", 1);
    assert_eq!(keys(&next(&mut watch).await.event), ["c"]);
    fake.with(|state| state.table.clear());
    hub.cleared("t", Cleared::Key("c"));
    let start = Instant::now();
    let removed = next(&mut watch).await;
    assert_eq!(removed.event, Event::Removed { keys: vec!["c".into()], reason: RemovalReason::Cleared });
    assert_eq!(start.elapsed(), Duration::ZERO);
    hub.cleared("other", Cleared::All);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_shows_that_it_is_alive() {
    let hub = Fake::default().hub();
    let mut watch = hub.watch("t", every(1000));
    let snapshot = next(&mut watch).await;
    assert_eq!(snapshot.event, Event::Snapshot { entries: Vec::new(), last: true });
    for _ in 0..3 {
        let start = Instant::now();
        let progress = next(&mut watch).await;
        assert_eq!(progress.event, Event::Progress);
        assert_eq!(progress.revision, snapshot.revision);
        assert_eq!(start.elapsed(), Duration::from_secs(15));
        assert!(progress.staleness <= Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_coalesced_and_then_resynced() {
    let fake = Fake::default();
    let hub = fake.hub();
    fake.set("a", 0);
    let mut watch = hub.watch("t", every(50));
    next(&mut watch).await;
    for n in 1..=20 {
        fake.set("a", n);
        sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(keys(&next(&mut watch).await.event), ["a"]);
    assert!(timeout(Duration::from_millis(200), watch.next()).await.is_err(), "told once");
    // More changes than the log remembers.
    for round in 0..30_u64 {
        for n in 0..3000 {
            fake.set(&format!("k{n}"), round + 1);
        }
        sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(next(&mut watch).await.event, Event::Resync);
    let snapshot = next(&mut watch).await;
    assert_eq!(keys(&snapshot.event).len(), 3001);
    assert!(timeout(Duration::from_millis(200), watch.next()).await.is_err(), "nothing more");
}

#[tokio::test(start_paused = true)]
async fn an_absent_haproxy_keeps_watches_open_and_then_resyncs() {
    let fake = Fake::default();
    fake.set("a", 1);
    let hub = fake.hub();
    let mut watch = hub.watch("t", every(100));
    let first = next(&mut watch).await;
    fake.with(|state| state.fails = Some(Reason::RuntimeUnavailable));
    let progress = next(&mut watch).await;
    assert_eq!(progress.event, Event::Progress);
    assert!(progress.staleness > Duration::from_secs(14), "{:?}", progress.staleness);
    fake.with(|state| state.fails = None);
    fake.set("b", 1);
    let resync = next(&mut watch).await;
    assert_eq!(resync.event, Event::Resync);
    let fresh = next(&mut watch).await;
    assert!(fresh.revision.epoch > first.revision.epoch);
    assert_eq!(keys(&fresh.event), ["a", "b"]);
    hub.reloaded();
    assert_eq!(next(&mut watch).await.event, Event::Resync);
    assert_eq!(keys(&next(&mut watch).await.event), ["a", "b"]);
    fake.with(|state| state.other_layout = true);
    assert_eq!(next(&mut watch).await.event, Event::Resync);
    assert_eq!(keys(&next(&mut watch).await.event), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_missing_table_ends_and_works_once_it_is_there() {
    let fake = Fake::default();
    let hub = fake.hub();
    fake.with(|state| state.fails = Some(Reason::ObjectNotFound));
    let mut watch = hub.watch("t", every(100));
    assert_eq!(watch.next().await.unwrap().unwrap_err().reason(), Reason::ObjectNotFound);
    assert!(watch.next().await.is_none());
    fake.with(|state| state.fails = None);
    let mut second = hub.watch("t", every(100));
    assert!(matches!(next(&mut second).await.event, Event::Snapshot { .. }));
    drop(watch);
    fake.set("a", 1);
    assert_eq!(keys(&next(&mut second).await.event), ["a"], "the old watch must not stop the new one");
    fake.with(|state| state.fails = Some(Reason::ObjectNotFound));
    assert_eq!(second.next().await.unwrap().unwrap_err().reason(), Reason::ObjectNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_filter_on_what_the_table_does_not_store_is_refused_as_soon_as_it_can_be_known() {
    let fake = Fake::default();
    let hub = fake.hub();
    let scope = Scope { filters: vec!["conn_cnt gt 1".parse().unwrap()], key_prefix: String::new() };
    let mut watch = hub.watch("t", WatchOptions { scope, ..every(100) });
    assert!(matches!(next(&mut watch).await.event, Event::Snapshot { last: true, .. }));
    fake.set("a", 1);
    let error = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").unwrap().unwrap_err();
    assert_eq!(
        (error.reason(), error.message()),
        (Reason::InvalidValue, "filter: the table does not store 'conn_cnt'")
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_where_it_was_or_starts_anew() {
    let fake = Fake::default();
    fake.set("a", 1);
    fake.set("b", 1);
    let hub = fake.hub();
    let mut watch = hub.watch("t", every(100));
    let seen = next(&mut watch).await.revision;
    drop(watch);
    sleep(Duration::from_secs(5)).await;
    fake.set("a", 2);
    let resume = |revision| WatchOptions { resume: Some(revision), ..every(100) };
    let mut again = hub.watch("t", resume(seen));
    let update = next(&mut again).await;
    assert_eq!(
        update.event,
        Event::Changed(vec![match update.event.clone() {
            Event::Changed(entries) => entries[0].clone(),
            other => panic!("{other:?}"),
        }])
    );
    assert_eq!(keys(&update.event), ["a"]);
    let older = Revision { epoch: 99, ..seen };
    let mut other = hub.watch("t", resume(older));
    assert_eq!(keys(&next(&mut other).await.event), ["a", "b"]);
    other = hub.watch("t", resume(Revision::default()));
    assert!(matches!(next(&mut other).await.event, Event::Snapshot { last: true, .. }));
    drop((again, other));
    sleep(Duration::from_secs(61)).await;
    let mut late = hub.watch("t", resume(update.revision));
    assert!(matches!(next(&mut late).await.event, Event::Snapshot { .. }), "the mirror is gone after a while");
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_an_empty_table_can_be_resumed() {
    let fake = Fake::default();
    let hub = fake.hub();
    let first = next(&mut hub.watch("t", every(100))).await;
    assert!(matches!(first.event, Event::Snapshot { last: true, .. }));
    assert_eq!(first.revision.number, 0);
    let mut again = hub.watch("t", WatchOptions { resume: Some(first.revision), ..every(100) });
    fake.set("a", 1);
    let told = next(&mut again).await;
    assert_eq!((keys(&told.event), told.revision.number), (vec!["a"], 1));
    assert!(matches!(told.event, Event::Changed(_)));
}

#[tokio::test(start_paused = true)]
async fn large_snapshots_come_in_parts_and_only_the_last_can_be_resumed_from() {
    let fake = Fake::default();
    for n in 0..40_000 {
        fake.set(&format!("a-rather-long-key-{n:06}"), n);
    }
    let hub = fake.hub();
    let mut watch = hub.watch("t", every(100));
    let (mut parts, mut count) = (0, 0);
    loop {
        let update = next(&mut watch).await;
        let Event::Snapshot { entries, last } = update.event else { panic!("a snapshot") };
        parts += 1;
        count += entries.len();
        assert_eq!(update.revision == Revision::default(), !last);
        if last {
            break;
        }
    }
    assert!(parts > 2);
    assert_eq!(count, 40_000);
    let scope = Scope { filters: vec!["gpc0 lt 3".parse().unwrap()], key_prefix: "a-r".into() };
    let mut few = hub.watch("t", WatchOptions { scope, ..every(100) });
    assert_eq!(keys(&next(&mut few).await.event).len(), 3);
    let mut none = hub.watch("t", WatchOptions { entries_in_snapshot: false, ..every(100) });
    assert_eq!(next(&mut none).await.event, Event::Snapshot { entries: Vec::new(), last: true });
    fake.set("a-rather-long-key-000001", 9);
    assert_eq!(keys(&next(&mut none).await.event), ["a-rather-long-key-000001"]);
    assert_eq!(
        next(&mut few).await.event,
        Event::Removed { keys: vec!["a-rather-long-key-000001".into()], reason: RemovalReason::Unknown }
    );
    let scope = Scope { filters: vec!["gpt0 lt 3".parse().unwrap()], ..Scope::default() };
    let mut wrong = hub.watch("t", WatchOptions { scope, ..every(100) });
    assert_eq!(wrong.next().await.unwrap().unwrap_err().reason(), Reason::InvalidValue);
}
