//! Stick tables that a live HAProxy pushes by the peers protocol, against what it shows itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use backstay::document::Document;
use backstay::runtime::{Address, DataType, DatumValue, Runtime};
use backstay::stick_table::{
    Cleared, Event, Hub, Poll, Push, Query, RemovalReason, Scope, SourceKind, Watch, WatchOptions,
};
use tokio::time::timeout;

use crate::support::client::Transport;
use crate::support::haproxy::{Haproxy, free_port};
use crate::support::world::World;

const BODY: &str = "
global
    localpeer hap1
peers p
    bind unix@{dir}/peers.sock mode 600
    server hap1
    server backstay 127.0.0.1:1
    table own type string len 32 size 1k expire 1h store gpc0
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-key) table names
    http-request track-sc1 hdr(x-number) table numbers
    http-request sc-inc-gpc0(0) if { hdr(x-key) -m end 7 }
    http-request return status 200
backend names
    stick-table type string len 40 size 1m expire 1h store gpc0,http_req_cnt,http_req_rate(10s) peers p
backend numbers
    stick-table type integer size 1m expire 1h store conn_cnt,bytes_in_cnt,http_req_cnt peers p
backend brief
    stick-table type ip size 1k expire 2s store gpc0,gpc0_rate(1s) peers p
backend apart
    stick-table type ipv6 size 1k expire 1h store gpt0
";

pub(crate) struct Live {
    pub(crate) haproxy: Haproxy,
    pub(crate) port: u16,
    pub(crate) runtime: Runtime,
    pub(crate) hub: Hub,
    pub(crate) push: Push,
}

fn live() -> Live {
    let port = free_port();
    let haproxy = Haproxy::run(&BODY.replace("{port}", &port.to_string()));
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let hub = Hub::new(Poll::new(runtime.clone()));
    let push = Push::new(hub.clone(), "backstay".into(), "somewhere".into());
    push.follow(&Document::parse(&std::fs::read(haproxy.config()).unwrap()));
    Live { haproxy, port, runtime, hub, push }
}

impl Live {
    pub(crate) async fn synced(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.push.statuses().iter().all(|(_, status)| status.live) {
            assert!(Instant::now() < deadline, "{:?}", self.push.statuses());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Requests that follow each other on one connection, with a key and a number each.
    fn requests(&self, requests: impl Iterator<Item = (String, u32)>) {
        let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        let all: Vec<_> = requests.collect();
        for some in all.chunks(200) {
            let mut text = String::new();
            for (key, number) in some {
                write!(text, "GET / HTTP/1.1\r\nhost: x\r\nx-key: {key}\r\nx-number: {number}\r\n\r\n").unwrap();
            }
            socket.write_all(text.as_bytes()).unwrap();
            let (mut seen, mut buffer, mut answers) = (0, vec![0; 65536], Vec::new());
            while seen < some.len() {
                let read = socket.read(&mut buffer).unwrap();
                assert!(read > 0, "closed after {seen} answers");
                answers.extend_from_slice(&buffer[..read]);
                seen = memchr::memmem::find_iter(&answers, b"\r\n\r\n").count();
            }
        }
    }

    /// Keys with everything but rates, as HAProxy shows them.
    pub(crate) async fn shown(&self, table: &str) -> BTreeMap<String, Vec<(String, DatumValue)>> {
        let mut entries = self.runtime.table_entries(table, &[]).await.unwrap();
        let mut all = BTreeMap::new();
        while let Some(some) = entries.next().await.unwrap() {
            all.extend(some.into_iter().map(|entry| (entry.key, steady(&entry.data))));
        }
        all
    }

    fn mirrored(&self, table: &str) -> BTreeMap<String, Vec<(String, DatumValue)>> {
        let query = Query { limit: usize::MAX, ..Query::default() };
        let listing = self.hub.list(table, &query).unwrap();
        let listing = listing.unwrap_or_else(|| panic!("no mirror of {table}: {:?}", self.push.statuses()));
        assert_eq!(listing.total, listing.entries.len());
        listing.entries.into_iter().map(|entry| (entry.key, steady(&entry.data))).collect()
    }

    /// Waits until the mirror is what HAProxy shows.
    pub(crate) async fn same(&self, table: &str, why: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (mirrored, shown) = (self.mirrored(table), self.shown(table).await);
            if mirrored == shown {
                return;
            }
            if Instant::now() > deadline {
                let differ: Vec<_> =
                    shown.iter().filter(|(key, data)| mirrored.get(*key) != Some(data)).take(3).collect();
                let more: Vec<_> = mirrored.keys().filter(|key| !shown.contains_key(*key)).take(3).collect();
                panic!("{why}: {} of {} in {table}; {differ:?}; {more:?}", mirrored.len(), shown.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn steady(data: &[backstay::runtime::Datum]) -> Vec<(String, DatumValue)> {
    let steady = data.iter().filter(|datum| datum.period.is_none());
    steady.map(|datum| (datum.kind.to_string(), datum.value.clone())).collect()
}

pub(crate) async fn next(watch: &mut Watch) -> (Event, SourceKind) {
    let update = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end").unwrap();
    (update.event, update.source)
}

pub(crate) async fn set(runtime: &Runtime, table: &str, key: &str, value: u64) {
    runtime.set_table_entry(table, key, &[(DataType::Gpc(0), DatumValue::Number(value))]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mirror_is_what_haproxy_shows_through_load_clears_reloads_and_kills() {
    let mut live = live();
    live.synced().await;
    let (_, status) = live.push.statuses().remove(0);
    assert_eq!(status.tables, ["brief", "names", "numbers", "p/own"]);
    live.requests((0..20_000).map(|n: u32| (format!("key {} = {n}", n % 10), n.wrapping_mul(2_654_435_761))));
    live.requests((0..10_000).map(|n: u32| (format!("key {} = {n}", n % 10), n % 50)));
    for table in ["names", "numbers"] {
        live.same(table, "after load").await;
        assert!(live.mirrored(table).len() >= 20_000, "{table}");
    }

    // The next resync finds what nothing tells of.
    live.haproxy.ask("clear table numbers").unwrap();
    live.haproxy.ask("set table names key \"a b\" data.gpc0 5").unwrap();
    live.haproxy.ask("clear table names key key\\ 7\\ =\\ 17").unwrap();
    let mut old = live.haproxy.reload();
    live.requests((0..100).map(|n| (format!("later {n}"), n)));
    for table in ["names", "numbers"] {
        live.same(table, "after a reload").await;
    }
    // HAProxy teaches itself over a reload, so this is no trivial comparison.
    assert!(live.mirrored("names").len() > 20_000, "{}", live.mirrored("names").len());

    live.haproxy.stop();
    old.kill().unwrap();
    old.wait().unwrap();
    live.haproxy.start();
    live.requests((0..100).map(|n| (format!("last {n}"), n)));
    for table in ["names", "numbers"] {
        live.same(table, "after a kill").await;
    }
    assert!(live.mirrored("names").len() <= 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_hear_of_changes_at_once_and_why_entries_are_gone() {
    let live = live();
    live.synced().await;
    let quick = WatchOptions { interval: Duration::from_millis(50), ..WatchOptions::default() };
    let mut watch = live.hub.watch("names", quick.clone());
    let mut brief = live.hub.watch("brief", quick.clone());
    assert!(matches!(next(&mut watch).await, (Event::Snapshot { last: true, .. }, SourceKind::Push)));
    assert!(matches!(next(&mut brief).await.0, Event::Snapshot { .. }));

    set(&live.runtime, "names", "a b=c", 7).await;
    let (Event::Changed(entries), _) = next(&mut watch).await else { panic!("a change") };
    assert_eq!((&*entries[0].key, &entries[0].data[0].value), ("a b=c", &DatumValue::Number(7)));
    live.runtime.clear_table_entry("names", "a b=c").await.unwrap();
    live.hub.cleared("names", Cleared::Key("a b=c"));
    let gone = Event::Removed { keys: vec!["a b=c".into()], reason: RemovalReason::Cleared };
    assert_eq!(next(&mut watch).await.0, gone);

    // An entry that is not touched expires by our own clock, at about the time of HAProxy's.
    let began = Instant::now();
    set(&live.runtime, "brief", "10.1.2.3", 1).await;
    assert!(matches!(next(&mut brief).await.0, Event::Changed(_)));
    let gone = Event::Removed { keys: vec!["10.1.2.3".into()], reason: RemovalReason::Expired };
    assert_eq!(next(&mut brief).await.0, gone);
    let elapsed = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(5)).contains(&elapsed), "{elapsed:?}");

    // A rate fades below a filter without a word of HAProxy.
    let filter = "http_req_rate gt 2".parse().unwrap();
    let scope = Scope { filters: vec![filter], key_prefix: "fad".into() };
    let mut fading = live.hub.watch("names", WatchOptions { scope, ..quick });
    assert!(matches!(next(&mut fading).await.0, Event::Snapshot { .. }));
    live.requests((0..3).map(|n| ("fading".into(), n)));
    assert!(matches!(next(&mut fading).await.0, Event::Changed(_)));
    let update = timeout(Duration::from_secs(25), fading.next()).await.expect("in time").unwrap().unwrap();
    assert_eq!(update.event, Event::Removed { keys: vec!["fading".into()], reason: RemovalReason::Unknown });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_peers_and_one_whose_session_is_gone_are_polled() {
    let mut live = live();
    live.synced().await;
    let quick = WatchOptions { interval: Duration::from_millis(50), ..WatchOptions::default() };
    let mut apart = live.hub.watch("apart", quick.clone());
    assert!(matches!(next(&mut apart).await, (Event::Snapshot { .. }, SourceKind::Poll)));
    let mut watch = live.hub.watch("names", quick);
    assert!(matches!(next(&mut watch).await, (Event::Snapshot { .. }, SourceKind::Push)));

    // The line is taken away: the watch goes on by polling, with a fresh snapshot.
    let with = std::fs::read_to_string(live.haproxy.config()).unwrap();
    let without = with.replace("    server backstay 127.0.0.1:1\n", "");
    live.push.follow(&Document::parse(without.as_bytes()));
    assert!(live.hub.list("names", &Query::default()).unwrap().is_none());
    loop {
        match next(&mut watch).await {
            (Event::Snapshot { .. }, source) => {
                assert_eq!(source, SourceKind::Poll);
                break;
            }
            (event, _) => assert!(matches!(event, Event::Resync | Event::Progress), "{event:?}"),
        }
    }
    // And comes back by itself.
    live.push.follow(&Document::parse(with.as_bytes()));
    live.synced().await;
    set(&live.runtime, "names", "back", 1).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < deadline);
        let (event, source) = next(&mut watch).await;
        let told = |entries: &[backstay::stick_table::Entry]| entries.iter().any(|entry| entry.key == "back");
        match event {
            Event::Changed(entries) | Event::Snapshot { entries, .. } if told(&entries) => {
                assert_eq!(source, SourceKind::Push);
                break;
            }
            _ => {}
        }
    }
    live.haproxy.stop();
}

/// `backstay watch` prints what a watch tells, one message a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_follows_a_table() {
    use std::io::BufRead as _;
    let world = World::start(Transport::Rest, &[]);
    let watch = |password: &str, more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.args(["watch", "clients"]).args(more);
        if !more.contains(&"--server") {
            command.args(["--server", &format!("http://{}", world.client.api)]);
        }
        command.env("BACKSTAY_PASSWORD", password).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let mut child = watch(&world.backstay.password, &["--key-prefix", "127."]);
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["snapshot"]["last"], true);
    world.visit("/").await;
    let changed = next();
    assert_eq!(changed["changed"]["entries"][0]["key"], "127.0.0.1", "{changed}");
    child.kill().unwrap();
    child.wait().unwrap();

    let refused = watch("wrong", &[]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("401"), "{said}");
    let refused = watch(&world.backstay.password, &["--filter", "gpc0 above 3"]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("filter"), "{said}");
    for (flags, words) in [
        (["--sort", "gcp0"], "such as http_req_rate"),
        (["--top", "0"], "--top"),
        (["--server", "ftp://localhost"], "such as http://"),
    ] {
        let refused = watch("", &flags).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(words), "{flags:?}: {said}");
    }

    // Whoever has seen enough ends it without a word.
    let mut child = watch(&world.backstay.password, &[]);
    drop(child.stdout.take());
    world.visit("/").await;
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_from_the_mirror_with_the_most_first() {
    let live = live();
    live.synced().await;
    live.requests((0..60).map(|n| (format!("k{}", n % 10 * (n % 10) / 10), n)));
    live.same("names", "after some requests").await;
    let query = |order: Option<DataType>, start, limit| Query { order_by: order, start, limit, ..Query::default() };
    let of = |query: &Query| live.hub.list("names", query).unwrap().unwrap();
    let all = of(&query(Some(DataType::HttpReqCnt), 0, 100));
    let counts: Vec<_> = all.entries.iter().map(|entry| entry.data[1].value.clone()).collect();
    let mut sorted: Vec<u64> =
        counts.iter().map(|value| if let DatumValue::Number(number) = value { *number } else { 0 }).collect();
    assert_eq!(sorted.iter().sum::<u64>(), 60);
    sorted.sort_by(|one, other| other.cmp(one));
    assert_eq!(counts, sorted.into_iter().map(DatumValue::Number).collect::<Vec<_>>());
    let first = of(&query(Some(DataType::HttpReqCnt), 0, 2));
    let second = of(&query(Some(DataType::HttpReqCnt), 2, 2));
    // All but when they expire, which comes nearer from one list to the next.
    let told = |entries: &[backstay::stick_table::Entry]| {
        entries.iter().map(|entry| (entry.key.clone(), steady(&entry.data))).collect::<Vec<_>>()
    };
    assert_eq!(told(&[first.entries, second.entries].concat()), told(&all.entries[..4]));
    let wrong = live.hub.list("names", &query(Some(DataType::ConnCnt), 0, 1)).unwrap_err();
    assert!(wrong.message().contains("conn_cnt"), "{wrong}");
}
