//! Stick tables brought together over two HAProxys, of two versions where there are two.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstay::aggregation::{Aggregations, Joining, NodeStatus, Target};
use backstay::document::Document;
use backstay::error::Reason;
use backstay::proto::aggregation as pb;
use backstay::runtime::{Address, Runtime};
use backstay::schema::Schema;
use backstay::stick_table::{Hub, Poll, Push};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use crate::support::client::{Client, Transport};
use crate::support::haproxy::{Haproxy, binary, eventually, free_port, other_binary};
use crate::support::world::{World, done, holds, over_both, refused, refused_saying};

const BODY: &str = "
global
    localpeer {name}
peers fleet
    bind unix@{dir}/peers.sock mode 600
    server {name}
    server backstay 127.0.0.1:1
    server second 127.0.0.1:1
    table total type string len 40 size 100k expire 1m store http_req_cnt,http_req_rate(3s)
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-key) table here
    http-request deny deny_status 429 if { hdr(x-key),table_http_req_cnt(fleet/total) gt 50 }
    http-request return status 200
backend odd
    stick-table type ip size 1k expire 1m store http_req_cnt peers fleet
backend here
    stick-table type string len 40 size 100k expire 1m store http_req_cnt,http_req_rate(3s) peers fleet
";

/// An HAProxy that counts requests by their key, and refuses those of whom all nodes together had more than 50.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) haproxy: Haproxy,
    pub(crate) port: u16,
}

impl Node {
    fn run(name: &'static str, binary: OsString) -> Node {
        Node::run_with(name, binary, BODY)
    }

    /// One with another configuration, in which `{name}` becomes its name and `{port}` that of its frontend.
    pub(crate) fn run_with(name: &'static str, binary: OsString, body: &str) -> Node {
        let port = free_port();
        let body = body.replace("{name}", name).replace("{port}", &port.to_string());
        Node { name, haproxy: Haproxy::run_with(binary, &body), port }
    }

    fn pair() -> [Node; 2] {
        [Node::run("one", binary()), Node::run("two", other_binary())]
    }

    fn socket(&self) -> std::path::PathBuf {
        self.haproxy.dir().join("peers.sock")
    }

    /// So many requests of a key; their statuses.
    fn requests(&self, key: &str, count: usize) -> Vec<u16> {
        let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        let mut text = String::new();
        for at in 0..count {
            let close = if at + 1 == count { "connection: close\r\n" } else { "" };
            write!(text, "GET / HTTP/1.1\r\nhost: x\r\nx-key: {key}\r\n{close}\r\n").unwrap();
        }
        socket.write_all(text.as_bytes()).unwrap();
        let mut answers = String::new();
        socket.read_to_string(&mut answers).unwrap();
        let lines = answers.split("HTTP/1.1 ").skip(1);
        lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    /// A value of an entry, if there is one.
    pub(crate) fn shown(&self, table: &str, key: &str, data: &str) -> Option<u64> {
        let shown = self.haproxy.ask(&format!("show table {table} key {key}")).unwrap_or_default();
        let found = shown.split_whitespace().find_map(|word| word.strip_prefix(data)?.split_once('='));
        found.map(|(_, value)| value.parse().unwrap())
    }

    /// A value of an entry; 0 when there is none.
    pub(crate) fn value(&self, table: &str, key: &str, data: &str) -> u64 {
        self.shown(table, key, data).unwrap_or_default()
    }

    fn here(&self, key: &str) -> u64 {
        self.value("here", key, "http_req_cnt")
    }

    fn total(&self, key: &str) -> u64 {
        self.value("fleet/total", key, "http_req_cnt")
    }
}

pub(crate) fn aggregation<'a>(nodes: impl IntoIterator<Item = &'a Node>, more: Json) -> Json {
    let node = |node: &Node| json!({"name": node.name, "address": node.socket(), "local_peer": node.name});
    let mut all = json!({
        "name": "requests",
        "nodes": nodes.into_iter().map(node).collect::<Vec<_>>(),
        "source_table": "here",
        "target_table": "fleet/total",
        "node_timeout_ms": 2000,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

async fn status(world: &World) -> Json {
    world.ok("AggregationService.GetAggregationStatus", json!({"name": "requests"})).await["status"].clone()
}

/// Waits until the status is so.
async fn reaches(world: &World, what: &str, holds: impl Fn(&Json) -> bool) -> Json {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = status(world).await;
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn teaches(world: &World) -> Json {
    let connected = |node: &Json| node["connected"] == true;
    reaches(world, "all are connected", |status| {
        status["state"] == "teaching" && status["nodes"].as_array().unwrap().iter().all(connected)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_over_all_nodes_and_outages_heal_without_a_wrong_refusal() {
    let mut world = World::start(Transport::Grpc, &[]);
    let mut nodes = Node::pair();
    world.ok("AggregationService.CreateAggregation", json!({"aggregation": aggregation(&nodes, json!({}))})).await;
    let mut watch = world.stream("AggregationService.WatchAggregationStatus", json!({"name": "requests"})).await;
    teaches(&world).await;

    // The sum counts, where no node has reached the limit alone.
    assert!(nodes[0].requests("k", 30).iter().all(|status| *status == 200));
    assert!(nodes[1].requests("k", 25).iter().all(|status| *status == 200));
    eventually("both are taught the sum", || nodes.iter().all(|node| node.total("k") == 55));
    assert_eq!(nodes[1].requests("k", 1), [429]);
    assert!(nodes[1].here("k") <= 26);
    assert_eq!(nodes[0].requests("k", 1), [429]);
    assert_eq!(nodes[0].requests("other", 1), [200]);
    eventually("refused requests count too", || nodes.iter().all(|node| node.total("k") == 57));
    let shown = reaches(&world, "all is taken", |status| {
        status["nodes"].as_array().unwrap().iter().all(|node| node["target"] == "taken" && node["pending"].is_null())
    })
    .await;
    assert_eq!(
        (&shown["keys"], &shown["nodes"][0]["entries"], &shown["nodes"][1]["entries"]),
        (&json!(2), &json!(2), &json!(1))
    );

    // Rates fade as those of the nodes do.
    nodes[0].requests("rate", 20);
    nodes[1].requests("rate", 15);
    eventually("the rate is taught", || nodes[0].total("rate") == 35);
    let sum = |nodes: &[Node; 2]| nodes.iter().map(|node| node.value("here", "rate", "http_req_rate")).sum::<u64>();
    let mut seen = Vec::new();
    loop {
        let before = sum(&nodes);
        let total = nodes[1].value("fleet/total", "rate", "http_req_rate");
        let after = sum(&nodes);
        seen.push((before, total, after));
        // Without a request it only falls. Numbers are cut to whole ones, and on a busy machine it is taught later.
        assert!(total <= before + 6 && total + 6 >= after, "{seen:?}");
        if before + total == 0 {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(seen.len() > 20, "{seen:?}");

    // One node dies: its share ages out, and nobody else is refused.
    nodes[0].haproxy.stop();
    eventually("the share of the dead node ages out", || nodes[1].total("k") == nodes[1].here("k"));
    assert_eq!(nodes[1].requests("k", 1), [200]);
    assert_eq!(nodes[1].requests("other", 1), [200]);
    let mut gone = false;
    while !gone {
        let next = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end");
        let node = &next["status"]["nodes"][0];
        gone = node["connected"].is_null() && node["error"].as_str().is_some_and(|error| !error.is_empty());
    }
    nodes[0].haproxy.start();
    eventually("the new node is taught what there is", || nodes[0].total("k") == nodes[1].here("k"));
    loop {
        let next = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end");
        if next["status"]["nodes"][0]["connected"] == true {
            assert!(next["status"]["nodes"][0]["error"].is_null(), "{next}");
            break;
        }
    }
    assert_eq!(nodes[0].requests("k", 20), [200; 20]);
    let all = nodes[0].here("k") + nodes[1].here("k");
    eventually("it counts again", || nodes.iter().all(|node| node.total("k") == all));

    // Somebody takes the session away.
    let mut thief = UnixStream::connect(nodes[1].socket()).unwrap();
    thief.write_all(b"HAProxyS 2.1\ntwo\nbackstay 1 1\n").unwrap();
    nodes[0].requests("k", 1);
    nodes[1].requests("k", 1);
    eventually("it has come back", || nodes.iter().all(|node| node.total("k") == all + 2));
    drop(thief);

    // A reload keeps what was counted.
    let before = nodes[1].here("k");
    let mut old = nodes[1].haproxy.reload();
    eventually("the new process knows", || nodes[1].here("k") == before);
    nodes[1].requests("k", 1);
    eventually("it counts on", || nodes.iter().all(|node| node.total("k") == all + 3));
    old.kill().unwrap();
    old.wait().unwrap();
    let all = all + 1;

    // backstay dies and comes back: what it has taught stays, and is never made less.
    world.backstay.kill();
    nodes[0].requests("k", 2);
    let (ends, least) = (AtomicBool::new(false), all + 2);
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut lowest = u64::MAX;
            while !ends.load(Ordering::Relaxed) {
                lowest = nodes.iter().map(|node| node.total("k")).min().unwrap().min(lowest);
            }
            lowest
        });
        world.backstay.run();
        eventually("all is counted again", || {
            nodes.iter().all(|node| node.total("k") == all + 4 || node.total("k") == all + 2 && node.here("k") == 0)
        });
        ends.store(true, Ordering::Relaxed);
        assert!(look.join().unwrap() >= least);
    });
    assert_eq!(nodes[1].requests("other", 1), [200]);

    world.client = Client::new(Transport::Grpc, world.backstay.api, &world.backstay.password);

    // It begins anew in the same process, and its sessions do not meet those of before.
    teaches(&world).await;
    kill_process(Pid::from_raw(world.backstay.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    let begins = |log: &str| log.matches("serving gRPC").count();
    eventually("it begins anew", || begins(&world.backstay.log()) == 2);
    let before = teaches(&world).await;
    nodes[0].requests("k", 1);
    let all = nodes[0].here("k") + nodes[1].here("k");
    eventually("it counts on", || nodes.iter().all(|node| node.total("k") == all));
    let after = teaches(&world).await;
    for node in 0..2 {
        assert_eq!(before["nodes"][node]["last_error_time_ms"], after["nodes"][node]["last_error_time_ms"], "{after}");
    }
}

/// Aggregations in this process, in a folder of their own.
pub(crate) async fn in_process(folder: &Path, joining: Joining) -> Arc<Aggregations> {
    let tables = Schema::compile(backstay::proto::SCHEMA).unwrap().tables;
    Aggregations::open(folder, tables, joining, Arc::new(|| 1)).await.unwrap()
}

/// Waits until the state of the first node is so.
pub(crate) async fn node_is(all: &Aggregations, name: &str, holds: impl Fn(&NodeStatus) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = all.status(name).unwrap();
        if holds(&status.nodes[0]) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_and_aggregations_share_a_session_and_what_does_not_fit_is_told() {
    let node = Node::run("one", binary());
    let runtime = Runtime::new(vec![Address::Unix(node.haproxy.socket())]);
    let push = Push::new(Hub::new(Poll::new(runtime)), "backstay".into(), "somewhere".into());
    push.follow(&Document::parse(&std::fs::read(node.haproxy.config()).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let joining = Joining { lines: push.lines().clone(), peer_name: "backstay".into(), tls: None };
    let all = in_process(folder.path(), joining).await;
    let wanted = |name: &str, source: &str, target: &str| pb::Aggregation {
        name: Some(name.into()),
        nodes: vec![pb::AggregationNode {
            name: Some("one".into()),
            address: Some(node.socket().display().to_string()),
            local_peer: Some("one".into()),
            tls: None,
        }],
        source_table: Some(source.into()),
        target_table: Some(target.into()),
        ..pb::Aggregation::default()
    };
    all.create(wanted("fits", "here", "fleet/total")).await.unwrap();
    all.create(wanted("nowhere", "nothing", "fleet/nothing")).await.unwrap();
    all.create(wanted("keys", "here", "odd")).await.unwrap();
    let mut data = wanted("data", "here", "fleet/else");
    data.data_types.push("gpc0".into());
    all.create(data).await.unwrap();
    node.requests("k", 3);
    eventually("it is taught", || node.total("k") == 3);
    assert!(push.statuses().iter().all(|(_, status)| status.live), "{:?}", push.statuses());
    node_is(&all, "fits", |node| node.connected && node.target == Target::Taken && node.error.is_empty()).await;
    // Nobody has closed the session of anybody.
    assert_eq!(all.status("fits").unwrap().nodes[0].last_error, "");
    node_is(&all, "nowhere", |node| node.error == "nothing: no such table in the peers section that names us").await;
    node_is(&all, "keys", |node| node.error.starts_with("odd: its keys are of another type")).await;
    node_is(&all, "data", |node| node.error == "here: it does not store gpc0").await;
    let mut tls = wanted("tls", "here", "fleet/tls");
    tls.nodes[0].tls = Some(true);
    let refused = all.create(tls).await.unwrap_err();
    assert!(refused.message().starts_with("nodes[0].tls: "), "{refused}");
    // One leaves, the session stays.
    all.delete("fits").await.unwrap();
    assert!(push.statuses().iter().all(|(_, status)| status.live), "{:?}", push.statuses());
    assert_eq!(all.status("keys").unwrap().nodes[0].last_error_time, 1);
}

/// Two backstays teach the same at once. What they teach never exceeds what was counted, and is right at rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_do_not_fight() {
    let nodes = Arc::new(Node::pair());
    let (one, mut two) =
        (World::start(Transport::Grpc, &[]), World::start(Transport::Grpc, &["--peer-name", "second"]));
    for world in [&one, &two] {
        let request = json!({"aggregation": aggregation(&*nodes, json!({}))});
        world.ok("AggregationService.CreateAggregation", request).await;
        teaches(world).await;
    }
    let count = |key: &str| nodes.iter().map(|node| node.here(key)).sum::<u64>();
    let load = Arc::clone(&nodes);
    let load = std::thread::spawn(move || {
        for at in 0..40 {
            load[at % 2].requests("k", 1 + at % 3);
        }
    });
    while !load.is_finished() {
        for node in &*nodes {
            let total = node.total("k");
            let counted = count("k");
            assert!(total <= counted, "{total} of {counted}");
        }
    }
    load.join().unwrap();
    let all = count("k");
    assert_eq!(all, 79);
    eventually("both are right", || nodes.iter().all(|node| node.total("k") == all));
    // At rest nothing changes any more, whoever spoke last.
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert!(nodes.iter().all(|node| node.total("k") == all));
    }
    two.backstay.kill();
    nodes[0].requests("k", 1);
    eventually("the other one goes on at once", || nodes.iter().all(|node| node.total("k") == all + 1));
    drop(one);
}

/// A replica that is cut off from a node stands by while another one reaches all, and takes over when that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_cut_off_leaves_the_teaching_to_one_that_is_not() {
    let nodes = Node::pair();
    let (mut one, two) =
        (World::start(Transport::Grpc, &[]), World::start(Transport::Grpc, &["--peer-name", "second"]));
    let wanted = aggregation(&nodes, json!({"replicas": ["second", "backstay"]}));
    one.ok("AggregationService.CreateAggregation", json!({"aggregation": wanted})).await;
    teaches(&one).await;
    let mut cut = wanted.clone();
    cut["nodes"][0]["address"] = json!("unix@/nowhere/one.sock");
    two.ok("AggregationService.CreateAggregation", json!({"aggregation": cut})).await;
    // It waits for the node at first, and would teach without it then.
    reaches(&two, "it stands by", |status| status["state"] == "standby").await;
    nodes[0].requests("k", 7);
    for more in 1..=20 {
        nodes[1].requests("k", 1);
        eventually("all is taught", || nodes.iter().all(|node| node.total("k") == 7 + more));
    }
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(nodes.iter().all(|node| node.total("k") == 27));
    }
    assert_eq!(status(&two).await["state"], "standby");
    assert_eq!(status(&one).await["state"], "teaching");
    one.backstay.kill();
    eventually("what it reaches is taught", || nodes[1].total("k") == 20);
    assert_eq!(status(&two).await["state"], "teaching");
}

/// An aggregation of nodes that are not there.
fn plain(name: &str, more: Json) -> Json {
    let mut all = json!({
        "name": name,
        "nodes": [
            {"name": "a", "address": "127.0.0.1:1", "local_peer": "a"},
            {"name": "b", "address": "unix@/nowhere/b.sock", "local_peer": "b"},
        ],
        "source_table": format!("{name}_here"),
        "target_table": format!("{name}_total"),
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

over_both!(aggregations, covers [
    "AggregationService.ListAggregations",
    "AggregationService.GetAggregation",
    "AggregationService.CreateAggregation",
    "AggregationService.ReplaceAggregation",
    "AggregationService.UpdateAggregation",
    "AggregationService.DeleteAggregation",
    "AggregationService.GetAggregationStatus",
    "AggregationService.WatchAggregationStatus",
]);

async fn aggregations(world: &mut World) {
    let create = |more: Json| json!({"aggregation": plain("x", more)});
    world.cases([
        ("AggregationService.ListAggregations", json!({}), holds(json!({"aggregations": null}))),
        ("AggregationService.CreateAggregation", json!({"aggregation": plain("m", json!({}))}), holds(json!({
            "aggregation": plain("m", json!({"function": "sum", "node_timeout_ms": 30000, "peer_name": null})),
        }))),
        ("AggregationService.CreateAggregation", json!({"aggregation": plain("m", json!({}))}), refused(Reason::ObjectExists)),
        (
            "AggregationService.CreateAggregation",
            json!({"aggregation": plain("b", json!({"function": "max", "data_types": ["http_req_rate", "gpc"], "node_timeout_ms": 1000, "peer_name": "us"}))}),
            done(),
        ),
        ("AggregationService.CreateAggregation", create(json!({"target_table": "x_here"})), refused_saying(Reason::InvalidValue, "target_table")),
        ("AggregationService.CreateAggregation", create(json!({"target_table": "m_here"})), refused_saying(Reason::InvalidValue, "target_table")),
        ("AggregationService.CreateAggregation", create(json!({"source_table": "m_total"})), refused_saying(Reason::InvalidValue, "source_table")),
        ("AggregationService.CreateAggregation", create(json!({"data_types": ["gpc9"]})), refused_saying(Reason::InvalidValue, "data_types[0]")),
        ("AggregationService.CreateAggregation", create(json!({"replicas": ["other"]})), refused_saying(Reason::InvalidValue, "replicas")),
        ("AggregationService.CreateAggregation", create(json!({"nodes": null})), refused_saying(Reason::InvalidValue, "nodes")),
        ("AggregationService.CreateAggregation", create(json!({"nodes": [{"name": "a", "address": "nowhere", "local_peer": "a"}]})), refused_saying(Reason::InvalidValue, "nodes[0].address")),
        ("AggregationService.CreateAggregation", create(json!({"nodes": [{"name": "a", "address": "127.0.0.1:1"}]})), refused_saying(Reason::InvalidField, "local_peer")),
        ("AggregationService.CreateAggregation", create(json!({"node_timeout_ms": 999})), refused_saying(Reason::InvalidField, "node_timeout_ms")),
        ("AggregationService.CreateAggregation", create(json!({"source_table": null})), refused_saying(Reason::InvalidField, "source_table")),
        ("AggregationService.CreateAggregation", create(json!({"name": "a/b"})), refused_saying(Reason::InvalidField, "name")),
        ("AggregationService.GetAggregation", json!({"name": "x"}), refused(Reason::ObjectNotFound)),
        ("AggregationService.ReplaceAggregation", json!({"name": "x", "aggregation": plain("x", json!({}))}), refused(Reason::ObjectNotFound)),
        ("AggregationService.ReplaceAggregation", json!({"name": "m", "aggregation": plain("x", json!({}))}), refused_saying(Reason::InvalidValue, "name")),
        ("AggregationService.UpdateAggregation", json!({"name": "x", "aggregation": {"function": "max"}}), refused(Reason::ObjectNotFound)),
        ("AggregationService.DeleteAggregation", json!({"name": "x"}), refused(Reason::ObjectNotFound)),
        ("AggregationService.GetAggregationStatus", json!({"name": "x"}), refused(Reason::ObjectNotFound)),
        ("AggregationService.ReplaceAggregation", json!({"name": "m", "aggregation": plain("m", json!({"node_timeout_ms": 5000}))}), holds(json!({"aggregation": {"node_timeout_ms": 5000}}))),
        (
            "AggregationService.UpdateAggregation",
            json!({"name": "m", "aggregation": {"node_timeout_ms": 7}, "update_mask": {"paths": ["node_timeout_ms"]}}),
            refused_saying(Reason::InvalidField, "node_timeout_ms"),
        ),
        (
            "AggregationService.UpdateAggregation",
            json!({"name": "m", "aggregation": {"node_timeout_ms": 5000, "function": "max"}, "update_mask": {"paths": ["node_timeout_ms"]}}),
            holds(json!({"aggregation": {"node_timeout_ms": 5000, "function": "sum"}})),
        ),
    ])
    .await;

    // Two who change different fields at the same time both get what they want. REST has no updates.
    let both: &World = world;
    for n in 0..if world.is_rest() { 0 } else { 20 } {
        let update = |field: &'static str, value: Json| async move {
            let request = json!({"name": "m", "aggregation": {field: value}, "update_mask": {"paths": [field]}});
            both.ok("AggregationService.UpdateAggregation", request).await
        };
        let (time, table) = (5000 + n, format!("m_here_{n}"));
        tokio::join!(update("node_timeout_ms", json!(time)), update("source_table", json!(table)));
        let changed = holds(json!({"aggregation": {"node_timeout_ms": time, "source_table": table}}));
        world.cases([("AggregationService.GetAggregation", json!({"name": "m"}), changed)]).await;
    }

    // They are there after the program was killed.
    let before = world.ok("AggregationService.ListAggregations", json!({})).await;
    assert_eq!(before["aggregations"].as_array().unwrap().len(), 2);
    assert_eq!(before["aggregations"][0]["name"], "b");
    world.restart();
    assert_eq!(world.ok("AggregationService.ListAggregations", json!({})).await, before);

    let status = world.ok("AggregationService.GetAggregationStatus", json!({"name": "m"})).await["status"].clone();
    assert_eq!((&status["state"], &status["nodes"][1]["name"]), (&json!("starting"), &json!("b")));
    let mut watch = world.stream("AggregationService.WatchAggregationStatus", json!({"name": "m"})).await;
    loop {
        let next = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").expect("no end");
        let nodes = next["status"]["nodes"].as_array().unwrap();
        assert_eq!((nodes.len(), &nodes[0]["staleness_ms"]), (2, &json!(-1)));
        if nodes.iter().all(|node| !node["last_error_time_ms"].is_null()) {
            break;
        }
    }
    world.ok("AggregationService.DeleteAggregation", json!({"name": "m"})).await;
    let end = async { while watch.next().await.is_some() {} };
    timeout(Duration::from_secs(10), end).await.expect("the watch ends with it");
    world.ok("AggregationService.DeleteAggregation", json!({"name": "b"})).await;
    world.cases([("AggregationService.ListAggregations", json!({}), holds(json!({"aggregations": null})))]).await;
}
