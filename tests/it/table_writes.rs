//! Stick tables that are written to while a live HAProxy counts in them, and what watchers hear of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backstay::document::Document;
use backstay::error::Reason;
use backstay::runtime::{Address, DataType, DatumValue, Runtime};
use backstay::stick_table::{Cleared, Event, Hub, Poll, Push, Query, RemovalReason, Scope, Watch, WatchOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::haproxy::{Haproxy, free_port};

const BODY: &str = "
global
    localpeer hap1
peers p
    bind unix@{dir}/peers.sock mode 600
    server hap1
    server backstay 127.0.0.1:1
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-key) table pushed
    http-request return status 200
backend pushed
    stick-table type string len 40 size 100k expire 1h store gpc0,http_req_cnt peers p
backend polled
    stick-table type string len 40 size 100k expire 1h store gpc0
backend arrays
    stick-table type string len 40 size 100k expire 1h store gpc(3),gpt(2)
";

struct Live {
    port: u16,
    runtime: Runtime,
    hub: Hub,
    _push: Push,
    _haproxy: Haproxy,
}

async fn live() -> Live {
    let port = free_port();
    let haproxy = Haproxy::run(&BODY.replace("{port}", &port.to_string()));
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let hub = Hub::new(Poll::new(runtime.clone()));
    let push = Push::new(hub.clone(), "backstay".into(), "somewhere".into());
    push.follow(&Document::parse(&std::fs::read(haproxy.config()).unwrap()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !push.statuses().iter().all(|(_, status)| status.live) {
        assert!(Instant::now() < deadline, "{:?}", push.statuses());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Live { port, runtime, hub, _push: push, _haproxy: haproxy }
}

async fn request(port: u16, key: &str, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let text = format!("GET / HTTP/1.1\r\nhost: x\r\nx-key: {key}\r\n\r\n");
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        socket.write_all(text.as_bytes()).await.unwrap();
        sent.fetch_add(1, Ordering::Relaxed);
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let read = socket.read(&mut buffer).await.unwrap();
            assert!(read > 0, "closed");
            seen.extend_from_slice(&buffer[..read]);
        }
    }
}

/// Also while HAProxy counts: in other counters and other entries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_at_the_same_time_add_up() {
    let live = live().await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn(request(live.port, "busy", Arc::clone(&stop), Arc::clone(&sent)));
    let many = async |key: &'static str, kind: DataType| {
        for _ in 0..100 {
            live.runtime.add_to_table_entry("pushed", key, &[(kind.clone(), 1000)]).await.unwrap();
        }
    };
    let (gpc0, requests) = (DataType::Gpc(0), DataType::HttpReqCnt);
    tokio::join!(many("busy", gpc0.clone()), many("busy", gpc0.clone()), many("idle", gpc0), many("idle", requests));
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    let counts = async |key| {
        let entry = live.runtime.table_entry("pushed", key).await.unwrap().unwrap();
        [&DataType::Gpc(0), &DataType::HttpReqCnt].map(|kind| entry.number(kind).unwrap())
    };
    assert_eq!(counts("busy").await, [200_000, sent.load(Ordering::Relaxed)]);
    assert_eq!(counts("idle").await, [100_000, 100_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn additions_stop_at_the_ends_and_reach_arrays_where_haproxy_can() {
    let live = live().await;
    let add = async |table: &str, kind, amount| {
        let entry = live.runtime.add_to_table_entry(table, "x", &[(kind, amount)]).await;
        entry.map(|entry| entry.data.iter().map(|datum| (datum.kind.clone(), datum.value.clone())).collect::<Vec<_>>())
    };
    let gpc0 = |number| vec![(DataType::Gpc(0), DatumValue::Number(number))];
    assert_eq!(add("polled", DataType::Gpc(0), 3).await.unwrap(), gpc0(3));
    assert_eq!(add("polled", DataType::Gpc(0), i64::MAX).await.unwrap(), gpc0(u32::MAX.into()));
    assert_eq!(add("polled", DataType::Gpc(0), i64::MIN).await.unwrap(), gpc0(0));
    let missing = add("nope", DataType::Gpc(0), 1).await.unwrap_err();
    assert_eq!(missing.reason(), Reason::ObjectNotFound);
    match add("arrays", DataType::Gpc(2), 4).await {
        Ok(data) => {
            assert!(data.contains(&(DataType::Gpc(2), DatumValue::Number(4))), "{data:?}");
            let set = [(DataType::Gpt(1), DatumValue::Number(9)), (DataType::Gpc(0), DatumValue::Number(8))];
            live.runtime.set_table_entry("arrays", "x", &set).await.unwrap();
            let entry = live.runtime.table_entry("arrays", "x").await.unwrap().unwrap();
            assert_eq!(entry.number(&DataType::Gpt(1)), Some(9));
            assert_eq!(entry.number(&DataType::Gpc(0)), Some(8));
            live.runtime.clear_table("arrays", &["gpc2 gt 3".parse().unwrap()]).await.unwrap();
            assert_eq!(live.runtime.table("arrays").await.unwrap().used, 0);
        }
        // Before HAProxy 3.2.
        Err(error) => assert_eq!(error.reason(), Reason::RuntimeRejected, "{error}"),
    }
}

async fn next(watch: &mut Watch) -> Event {
    timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end").unwrap().event
}

/// Follows a watch until the counters are as wanted, and returns why entries went.
async fn follow(watch: &mut Watch, known: &mut BTreeMap<String, u64>, wanted: &[(&str, u64)]) -> Vec<RemovalReason> {
    let wanted: BTreeMap<String, u64> = wanted.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect();
    let mut reasons = Vec::new();
    while *known != wanted {
        match next(watch).await {
            Event::Snapshot { entries, .. } | Event::Changed(entries) => {
                known.extend(entries.into_iter().filter_map(|entry| match entry.data[0].value {
                    DatumValue::Number(number) => Some((entry.key, number)),
                    DatumValue::Text(_) => None,
                }));
            }
            Event::Removed { keys, reason } => {
                known.retain(|key, _| !keys.contains(key));
                reasons.push(reason);
            }
            Event::Progress => panic!("still {known:?}, not {wanted:?}"),
            Event::Resync => known.clear(),
        }
    }
    reasons
}

/// Also where the table is polled seldom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_hear_at_once_of_what_is_written_and_cleared() {
    let live = live().await;
    for table in ["pushed", "polled"] {
        let seldom = WatchOptions { interval: Duration::from_hours(1), ..WatchOptions::default() };
        let (mut watch, mut known) = (live.hub.watch(table, seldom), BTreeMap::new());
        assert!(matches!(next(&mut watch).await, Event::Snapshot { last: true, .. }));
        let add = async |key: &str, amount| {
            let amounts = [(DataType::Gpc(0), amount)];
            live.runtime.add_to_table_entry(table, key, &amounts).await.unwrap();
            live.hub.changed(table);
        };
        for (key, amount) in [("a", 1), ("b", 6), ("c", 9)] {
            add(key, amount).await;
        }
        follow(&mut watch, &mut known, &[("a", 1), ("b", 6), ("c", 9)]).await;
        let filters = ["gpc0 gt 5".parse().unwrap(), "gpc0 lt 9".parse().unwrap()];
        live.runtime.clear_table(table, &filters).await.unwrap();
        live.hub.cleared(table, Cleared::Where(&filters));
        let reasons = follow(&mut watch, &mut known, &[("a", 1), ("c", 9)]).await;
        assert_eq!(reasons, [RemovalReason::Cleared], "{table}");
        // HAProxy has not cleared what we only said: that is found out soon.
        let filters = ["gpc0 gt 5".parse().unwrap()];
        live.hub.cleared(table, Cleared::Where(&filters));
        follow(&mut watch, &mut known, &[("a", 1)]).await;
        follow(&mut watch, &mut known, &[("a", 1), ("c", 9)]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_exported_whole_while_it_changes() {
    let live = live().await;
    let set = async |n: u64| {
        let data = [(DataType::Gpc(0), DatumValue::Number(n))];
        live.runtime.set_table_entry("pushed", &format!("k{n}"), &data).await.unwrap();
    };
    futures_util::future::join_all((0..6000).map(set)).await;
    let scope = Scope::default();
    assert!(live.hub.export("polled", &scope).unwrap().is_none());
    let count = || live.hub.list("pushed", &Query { limit: 1, ..Query::default() }).unwrap().unwrap().total;
    let deadline = Instant::now() + Duration::from_secs(10);
    while count() < 6000 {
        assert!(Instant::now() < deadline, "{}", count());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut export = live.hub.export("pushed", &scope).unwrap().unwrap();
    let (mut seen, mut pieces) = (BTreeMap::new(), 0);
    while let Some(entries) = export.piece().unwrap() {
        for entry in entries {
            assert_eq!(seen.insert(entry.key, entry.data).map(|_| "twice"), None);
        }
        pieces += 1;
        set(pieces).await;
    }
    assert!(pieces > 1 && seen.len() == 6000, "{} in {pieces} pieces", seen.len());
    let scope = Scope { filters: vec!["gpt0 gt 1".parse().unwrap()], key_prefix: String::new() };
    assert_eq!(live.hub.export("pushed", &scope).map(drop).unwrap_err().reason(), Reason::InvalidValue);
}
