//! Stick tables that count real requests, read, watched, and shared with another HAProxy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use backstay::error::Reason;

use crate::support::client::Messages;
use crate::support::haproxy::{Haproxy, eventually, free_port};
use crate::support::world::{World, done, holds, over_both, refused, refused_saying, until};

over_both!(
    stick_tables,
    covers [
        "BackendService.CreateBackend",
        "BackendService.GetBackend",
        "HttpRequestRuleService.CreateHttpRequestRule",
        "HttpRequestRuleService.GetHttpRequestRule",
        "StickTableService.ListStickTables",
        "StickTableService.GetStickTable",
        "StickTableService.ClearStickTable",
        "StickTableService.WatchStickTable",
        "StickTableEntryService.ListStickTableEntries",
        "StickTableEntryService.SetStickTableEntry",
        "StickTableEntryService.IncrementStickTableEntry"
    ]
);

const TABLE: &str = "login_requests";

/// The backend of the announcement, and the rule that tracks clients in it.
async fn tracked(world: &World, more: Json) {
    let mut table = json!({
        "type": "ip", "size": 102_400, "expire": 600_000, "store": "http_req_cnt,http_req_rate(10s),gpc0",
    });
    table.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let backend = json!({"name": TABLE, "mode": "http", "stick_table": table});
    let rule = json!({"index": 0, "type": "track-sc0", "track-sc0-key": "src", "track-sc0-table": TABLE});
    let parent = json!({"parent_type": "frontend", "parent_name": "main"});
    let mut create = parent.clone();
    create["http_request_rule"] = rule;
    let mut get = parent;
    get["index"] = json!(0);
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": backend}), holds(json!({"backend": backend}))),
            ("BackendService.GetBackend", json!({"name": TABLE}), holds(json!({"backend": backend}))),
            ("HttpRequestRuleService.CreateHttpRequestRule", create, done()),
            (
                "HttpRequestRuleService.GetHttpRequestRule",
                get,
                holds(json!({"http_request_rule": {
                    "type": "track-sc", "track_sc_stick_counter": 0, "track_sc_key": "src", "track_sc_table": TABLE,
                }})),
            ),
        ])
        .await;
    world.settled().await;
    world.visit_until("/hello", "Hello").await;
}

/// Requests that the table has counted for this machine.
async fn counted(world: &World) -> i64 {
    let request = json!({"stick_table": TABLE, "process": 1, "key": "127.0.0.1"});
    let answer = world.ok("StickTableEntryService.ListStickTableEntries", request).await;
    answer["entries"][0]["http_req_cnt"].as_i64().unwrap_or(0)
}

/// Requests of this machine, as far as a watch has told.
fn requests(known: &BTreeMap<String, Json>) -> Option<i64> {
    known.get("127.0.0.1")?["http_req_cnt"].as_i64()
}

/// Follows a watch until its entries are as wanted; its entries so far are kept in `known`.
async fn follow(
    watch: &mut Messages,
    known: &mut BTreeMap<String, Json>,
    wanted: impl Fn(&BTreeMap<String, Json>) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !wanted(known) {
        let left = deadline.saturating_duration_since(Instant::now());
        let message = tokio::time::timeout(left, watch.next()).await.unwrap_or_else(|_| panic!("still {known:?}"));
        let message = message.expect("a watch does not end");
        assert_eq!(message["source"], "poll", "{message}");
        assert!(message["changed"].is_null() || message["resume_token"].is_string(), "{message}");
        if message["resync"].is_object() {
            known.clear();
        }
        for kind in ["snapshot", "changed"] {
            for entry in message[kind]["entries"].as_array().into_iter().flatten() {
                known.insert(entry["key"].as_str().unwrap().to_owned(), entry.clone());
            }
        }
        for gone in message["removed"]["entries"].as_array().into_iter().flatten() {
            known.remove(gone["key"].as_str().unwrap());
        }
    }
}

async fn stick_tables(world: &mut World) {
    // A watch can be taken up again also where nothing has changed yet.
    let mut empty = world.stream("StickTableService.WatchStickTable", json!({"stick_table": "clients"})).await;
    let first = empty.next().await.unwrap();
    assert!(first["snapshot"]["entries"].is_null() && first["resume_token"].is_string(), "{first}");
    drop(empty);
    tracked(world, json!({})).await;
    let names = world.ok("StickTableService.ListStickTables", json!({})).await;
    let names: Vec<_> =
        names["stick_tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert!(names.contains(&TABLE) && names.contains(&"clients"), "{names:?}");
    let fields = json!([
        {"field": "http_req_cnt", "type": "counter"},
        {"field": "http_req_rate", "type": "rate", "period": 10_000},
        {"field": "gpc0", "type": "counter"},
    ]);
    world
        .cases([
            (
                "StickTableService.GetStickTable",
                json!({"name": TABLE, "process": 1}),
                holds(json!({"stick_table": {"name": TABLE, "type": "ip", "size": 102_400, "process": 1, "used": 1,
                    "fields": fields, "expire": 600_000}})),
            ),
            ("StickTableService.GetStickTable", json!({"name": "nope", "process": 1}), refused(Reason::ObjectNotFound)),
        ])
        .await;

    let mut watches = Vec::new();
    let request = json!({"stick_table": TABLE, "interval_ms": 50});
    watches.push(world.stream("StickTableService.WatchStickTable", request.clone()).await);
    if world.is_rest() {
        let name = "StickTableService.WatchStickTable";
        watches.push(world.client.stream_as(name, &request, "text/event-stream").await.unwrap());
    }
    let mut known = vec![BTreeMap::new(); watches.len()];
    let before = counted(world).await;
    for (watch, known) in watches.iter_mut().zip(&mut known) {
        follow(watch, known, |known| requests(known) == Some(before)).await;
    }
    for _ in 0..3 {
        assert_eq!(world.visit("/hello").await.status, 200);
    }
    assert_eq!(counted(world).await, before + 3, "every request counts");
    for (watch, known) in watches.iter_mut().zip(&mut known) {
        follow(watch, known, |known| requests(known) == Some(before + 3)).await;
        assert!(known["127.0.0.1"]["http_req_rate"].as_i64().unwrap() >= 3, "{known:?}");
    }

    // A watch that is taken up again hears of what changed since, and of nothing else.
    let mut watch = world.stream("StickTableService.WatchStickTable", request.clone()).await;
    let first = watch.next().await.unwrap();
    assert_eq!(first["snapshot"]["last"], true, "{first}");
    drop(watch);
    world.visit("/hello").await;
    let mut resumed = request.clone();
    resumed["resume_token"] = first["resume_token"].clone();
    let mut watch = world.stream("StickTableService.WatchStickTable", resumed).await;
    let next = watch.next().await.unwrap();
    assert_eq!(next["changed"]["entries"][0]["key"], "127.0.0.1", "{next}");
    drop(watch);

    // As HAProxy shows it.
    let held = json!([{"field": "gpc0"}, {"field": "http_req_cnt"}, {"field": "http_req_rate", "period": 10_000}]);
    assert_eq!(first["snapshot"]["fields"].as_array().map(Vec::len), Some(3), "{first}");
    let entry = |key: &str, data: Json| json!({"stick_table": TABLE, "process": 1, "key": key, "data_type": data});
    let list = |more: Json| {
        let mut request = json!({"stick_table": TABLE, "process": 1});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let entries = |json: Json| holds(json!({"entries": json}));
    world
        .cases([
            ("StickTableEntryService.SetStickTableEntry", entry("10.0.0.1", json!({"gpc0": 7})), done()),
            ("StickTableEntryService.SetStickTableEntry", entry("10.0.0.2", json!({"gpc0": 1})), done()),
            (
                "StickTableEntryService.ListStickTableEntries",
                list(json!({"filter": "gpc0 gt 5"})),
                entries(json!([{"key": "10.0.0.1", "gpc0": 7}])),
            ),
            (
                "StickTableEntryService.ListStickTableEntries",
                list(json!({"filter": "data.gpc0 gt 0, gpc0 lt 5,data.http_req_cnt ge 0"})),
                entries(json!([{"key": "10.0.0.2", "gpc0": 1}])),
            ),
            (
                "StickTableEntryService.ListStickTableEntries",
                list(json!({"key": "10.0.0.1"})),
                if world.is_rest() { done() } else { holds(json!({"fields": held})) },
            ),
            ("StickTableEntryService.ListStickTableEntries", list(json!({"key": "10.9.9.9"})), entries(Json::Null)),
            (
                "StickTableEntryService.ListStickTableEntries",
                list(json!({"count": 1, "offset": 1})),
                entries(json!([{}])),
            ),
            (
                "StickTableEntryService.ListStickTableEntries",
                json!({"stick_table": "nope", "process": 1}),
                refused(Reason::ObjectNotFound),
            ),
            ("StickTableService.ClearStickTable", json!({"stick_table": TABLE, "key": "127.0.0.1"}), done()),
        ])
        .await;
    changed(world).await;
    for (watch, known) in watches.iter_mut().zip(&mut known) {
        follow(watch, known, |known| known.keys().eq(["10.0.0.1", "10.0.0.2"])).await;
    }
    world.cases([("StickTableService.ClearStickTable", json!({"stick_table": TABLE}), done())]).await;
    assert_eq!(world.ok("StickTableEntryService.ListStickTableEntries", list(json!({}))).await["entries"], Json::Null);
    let missing = world.client.stream("StickTableService.WatchStickTable", &json!({"stick_table": "nope"})).await;
    match missing {
        Err(refusal) => assert!(refusal.status == 404 || refusal.reason == "OBJECT_NOT_FOUND", "{refusal:?}"),
        Ok(_) => panic!("a table that is not there is watched"),
    }
}

/// Counters that are added to, entries that are cleared by what they hold, and what is refused before HAProxy hears of it.
async fn changed(world: &World) {
    let add = |key: &str, amounts: Json| json!({"stick_table": TABLE, "key": key, "amounts": amounts});
    let set = |data: Json| json!({"stick_table": TABLE, "process": 1, "key": "10.0.0.3", "data_type": data});
    let increment = "StickTableEntryService.IncrementStickTableEntry";
    let saying = |words| refused_saying(Reason::InvalidField, words);
    world
        .cases([
            (increment, add("10.0.0.2", json!({"gpc0": 5})), holds(json!({"entry": {"key": "10.0.0.2", "gpc0": 6}}))),
            (
                increment,
                add("10.0.0.3", json!({"gpc0": 9, "http_req_cnt": 2})),
                holds(json!({"entry": {"gpc0": 9, "http_req_cnt": 2}})),
            ),
            (increment, add("10.0.0.3", json!({"gpc0": -100})), holds(json!({"entry": {"gpc0": 0, "http_req_cnt": 2}}))),
            (increment, add("10.0.0.3", json!({"gpc1": 1})), saying("amounts.gpc1")),
            (increment, add("10.0.0.3", json!({"http_req_rate": 1})), saying("no counter")),
            (increment, add("10.0.0.3", json!({})), saying("at least one")),
            (increment, add("10.0.0", json!({"gpc0": 1})), refused_saying(Reason::InvalidValue, "IPv4")),
            (
                "StickTableEntryService.SetStickTableEntry",
                set(json!({"gpc0": 5_000_000_000_i64})),
                refused_saying(Reason::InvalidValue, "4294967295"),
            ),
            ("StickTableEntryService.SetStickTableEntry", set(json!({"gpc0": 3, "gpt0": 1})), saying("data_type.gpt0")),
            ("StickTableEntryService.SetStickTableEntry", set(json!({"gpc0": -1})), saying("0 or more")),
            ("StickTableEntryService.SetStickTableEntry", set(json!({"server_key": "x"})), saying("cannot be set")),
            (
                "StickTableService.ClearStickTable",
                json!({"stick_table": TABLE, "filter": "gpc0 gt 1 AND gpc0 gt 2 AND gpc0 gt 3 AND gpc0 gt 4 AND gpc0 gt 5"}),
                refused_saying(Reason::InvalidValue, "at most 4"),
            ),
            (
                "StickTableService.ClearStickTable",
                json!({"stick_table": TABLE, "filter": "gpt0 gt 1"}),
                refused(Reason::RuntimeRejected),
            ),
            (
                "StickTableService.ClearStickTable",
                json!({"stick_table": TABLE, "filter": "gpc0 lt 1 AND http_req_cnt eq 2"}),
                done(),
            ),
            (
                "StickTableEntryService.ListStickTableEntries",
                json!({"stick_table": TABLE, "process": 1, "key": "10.0.0.3"}),
                holds(json!({"entries": null})),
            ),
            (
                "StickTableEntryService.ListStickTableEntries",
                json!({"stick_table": TABLE, "process": 1, "key": "10.0.0.2"}),
                holds(json!({"entries": [{"gpc0": 6}]})),
            ),
        ])
        .await;
}

over_both!(
    many_watchers,
    flags ["--stats-socket", "{dir}/counted.sock"],
    covers ["StickTableService.WatchStickTable"]
);

/// A stats socket that counts the dumps of a table on their way to the real one.
fn counting_socket(world: &World, dumps: Arc<AtomicUsize>) {
    let listener = UnixListener::bind(world.backstay.dir().join("counted.sock")).unwrap();
    let real = world.backstay.folder().join("stats.sock");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&real).await else { continue };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let dumps = Arc::clone(&dumps);
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    dumps.fetch_add(text.matches("show table clients").count(), Ordering::SeqCst);
                    if to_server.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

async fn many_watchers(world: &mut World) {
    let dumps = Arc::new(AtomicUsize::new(0));
    counting_socket(world, Arc::clone(&dumps));
    let request = json!({"stick_table": "clients", "interval_ms": 200});
    let mut watches = Vec::new();
    let start = Instant::now();
    for _ in 0..10 {
        watches.push(world.stream("StickTableService.WatchStickTable", request.clone()).await);
    }
    for round in 1..=5 {
        assert_eq!(world.visit("/hello").await.status, 200);
        for watch in &mut watches {
            let mut known = BTreeMap::new();
            follow(watch, &mut known, |known| requests(known) == Some(round)).await;
        }
    }
    let (seen, intervals) = (dumps.load(Ordering::SeqCst), start.elapsed().as_millis() / 200);
    assert!(seen >= 4, "the table is read again and again: {seen}");
    assert!(seen as u128 <= intervals + 2, "{seen} dumps in {intervals} intervals");
    drop(watches);
    until("nobody watches and nothing is read", async || {
        let before = dumps.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(600)).await;
        dumps.load(Ordering::SeqCst) == before
    })
    .await;
}

over_both!(
    peers,
    covers [
        "PeerSectionService.CreatePeerSection",
        "PeerSectionService.ListPeerSections",
        "PeerSectionService.GetPeerSection",
        "PeerEntryService.CreatePeerEntry",
        "PeerEntryService.ReplacePeerEntry",
        "PeerEntryService.GetPeerEntry",
        "PeerEntryService.ListPeerEntries",
        "PeerEntryService.DeletePeerEntry",
        "BackendService.ReplaceBackend"
    ]
);

async fn peers(world: &mut World) {
    let this = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (own_port, other_port) = (free_port(), free_port());
    let entry = |name: &str, port: u16| json!({"name": name, "address": "127.0.0.1", "port": port});
    let parent = |more: Json| {
        let mut request = json!({"peer_section": "lb_cluster"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let (own, other) = (entry(&this, own_port), entry("other", other_port));
    world
        .cases([
            (
                "PeerSectionService.CreatePeerSection",
                json!({"peer_section": {"name": "lb_cluster"}}),
                holds(json!({"peer_section": {"name": "lb_cluster"}})),
            ),
            (
                "PeerSectionService.CreatePeerSection",
                json!({"peer_section": {"name": "lb_cluster"}}),
                refused(Reason::ObjectExists),
            ),
            (
                "PeerSectionService.ListPeerSections",
                json!({}),
                holds(json!({"peer_sections": [{"name": "lb_cluster"}]})),
            ),
            (
                "PeerSectionService.GetPeerSection",
                json!({"name": "lb_cluster"}),
                holds(json!({"peer_section": {"name": "lb_cluster"}})),
            ),
            ("PeerEntryService.CreatePeerEntry", parent(json!({"peer_entry": own})), holds(json!({"peer_entry": own}))),
            ("PeerEntryService.CreatePeerEntry", parent(json!({"peer_entry": entry("other", 1)})), done()),
            ("PeerEntryService.CreatePeerEntry", parent(json!({"peer_entry": other})), refused(Reason::ObjectExists)),
            (
                "PeerEntryService.ReplacePeerEntry",
                parent(json!({"name": "other", "peer_entry": other})),
                holds(json!({"peer_entry": other})),
            ),
            (
                "PeerEntryService.ReplacePeerEntry",
                parent(json!({"name": "third", "peer_entry": entry("third", 1)})),
                refused(Reason::ObjectNotFound),
            ),
            ("PeerEntryService.GetPeerEntry", parent(json!({"name": "other"})), holds(json!({"peer_entry": other}))),
            ("PeerEntryService.CreatePeerEntry", parent(json!({"peer_entry": entry("third", 1)})), done()),
            ("PeerEntryService.DeletePeerEntry", parent(json!({"name": "third"})), done()),
            ("PeerEntryService.DeletePeerEntry", parent(json!({"name": "third"})), refused(Reason::ObjectNotFound)),
            ("PeerEntryService.ListPeerEntries", parent(json!({})), holds(json!({"peer_entries": [own, other]}))),
        ])
        .await;
    let node = Haproxy::run(&format!(
        "global\n    localpeer other\npeers lb_cluster\n    peer {this} 127.0.0.1:{own_port}\n    \
         peer other 127.0.0.1:{other_port}\nbackend {TABLE}\n    \
         stick-table type ip size 100k expire 10m store http_req_cnt,http_req_rate(10s),gpc0 peers lb_cluster\n"
    ));

    tracked(world, json!({})).await;
    let table = json!({
        "type": "ip", "size": 102_400, "expire": 600_000, "store": "http_req_cnt,http_req_rate(10s),gpc0",
        "peers": "lb_cluster",
    });
    let backend = json!({"name": TABLE, "mode": "http", "stick_table": table});
    world
        .cases([(
            "BackendService.ReplaceBackend",
            json!({"name": TABLE, "backend": backend}),
            holds(json!({"backend": {"stick_table": {"peers": "lb_cluster"}}})),
        )])
        .await;
    world.settled().await;

    world.visit_until("/hello", "Hello").await;
    let count = counted(world).await;
    assert!(count >= 1);
    eventually("the other node learns what this one counted", || {
        let table = node.ask(&format!("show table {TABLE}")).unwrap();
        table.lines().any(|line| line.contains("key=127.0.0.1") && !line.contains("http_req_cnt=0"))
    });
    let set = format!("set table {TABLE} key 10.1.2.3 data.gpc0 42");
    assert_eq!(node.ask(&set).unwrap().trim(), "");
    let request = json!({"stick_table": TABLE, "process": 1, "key": "10.1.2.3"});
    until("this node learns what the other one counted", async || {
        let answer = world.ok("StickTableEntryService.ListStickTableEntries", request.clone()).await;
        answer["entries"][0]["gpc0"] == 42
    })
    .await;
}
