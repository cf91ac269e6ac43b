//! The examples of `tests/clients` follow watches through a reload of HAProxy: code that is generated from the protos
//! works for Go and in a browser, which calls by gRPC-web from another origin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::support::client::Transport;
use crate::support::examples::{Pages, Told, follow, go_client, go_command};
use crate::support::world::World;

/// Waits until something holds. Long enough for a browser on a busy machine.
async fn until(what: &str, told: &Told, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: {told:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A table `clients` that HAProxy pushes, and one `polled`.
async fn start(flags: &[&str]) -> World {
    let world = World::start(Transport::Grpc, flags);
    let table = json!({"type": "string", "keylen": 40, "size": 1000, "expire": 600_000, "store": "gpc0"});
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "polled", "stick_table": table}})).await;
    let peer = json!({"stick_table": "clients", "force_reload": true});
    world.ok("StickTableService.AddStickTablePeer", peer).await;
    world.settled().await;
    // HAProxy hands its tables on to the next process only once it has asked its peers for what they know: the two lowest
    // flags. The first process with peers waits 5 s for that.
    until("HAProxy can hand on its tables", &Told::default(), async || {
        let peers = world.backstay.ask("show peers").unwrap_or_default();
        let flags = peers.split_once(" flags=0x").and_then(|(_, rest)| rest.split(' ').next());
        flags.and_then(|flags| u64::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & 3 == 3)
    })
    .await;
    world
}

/// Key and counters of an entry, as HAProxy shows them.
fn shown(world: &World, table: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let text = world.backstay.ask(&format!("show table {table}")).unwrap_or_default();
    let entries = text.lines().filter(|line| line.starts_with("0x"));
    let entry = |line: &str| {
        let words: Vec<(&str, &str)> = line.split(' ').filter_map(|word| word.split_once('=')).collect();
        let key = words.iter().find(|(name, _)| *name == "key").expect("a key").1.to_owned();
        let counters = words.into_iter().filter(|(name, _)| COUNTERS.contains(name));
        (key, counters.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect())
    };
    entries.map(entry).collect()
}

/// The same as a client knows it.
fn known(told: &Told, table: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let counter = |(name, value): (&String, &Json)| {
        let value = value.as_str().filter(|_| COUNTERS.contains(&name.as_str()))?;
        Some((name.clone(), value.parse().expect("a number")))
    };
    let counters = |entry: &Json| entry.as_object().expect("an entry").iter().filter_map(counter).collect();
    told.entries(table).into_iter().map(|(key, entry)| (key, counters(&entry))).collect()
}

const COUNTERS: [&str; 3] = ["gpc0", "http_req_cnt", "conn_cnt"];

/// Changes both tables, and waits until the clients know of it and of nothing else.
async fn change(world: &World, told: &Told, round: u32) {
    world.visit("/").await;
    let set = |table: &str, key: &str| world.backstay.ask(&format!("set table {table} key {key} data.gpc0 {round}"));
    set("clients", &format!("10.0.0.{round}")).expect("haproxy answers");
    set("polled", &format!("key{round}")).expect("haproxy answers");
    for (table, key) in [("clients", format!("10.0.0.{round}")), ("polled", format!("key{round}"))] {
        until(&format!("round {round} of {table}"), told, async || {
            let shown = shown(world, table);
            shown.contains_key(&key) && known(told, table) == shown
        })
        .await;
    }
}

/// What the clients know stays what HAProxy shows, through a reload of HAProxy and a fresh start of backstay.
async fn followed(world: &World, told: &Told) {
    for (table, source) in [("clients", "WATCH_SOURCE_PUSH"), ("polled", "WATCH_SOURCE_POLL")] {
        let source = async || told.of(table).last().is_some_and(|event| event["source"] == source);
        until(table, told, source).await;
    }
    change(world, told, 1).await;

    let worker = world.worker();
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more"}, "force_reload": true})).await;
    assert_ne!(world.worker(), worker);
    change(world, told, 2).await;
    let kept = ["10.0.0.1", "10.0.0.2", "127.0.0.1"];
    until("a table that outlives the reload", told, async || known(told, "clients").into_keys().eq(kept)).await;

    // All streams end; the tokens resume them.
    let ends = |told: &Told| told.of("clients").iter().filter(|event| !event["snapshot"].is_null()).count();
    let before = ends(told);
    kill_process(Pid::from_raw(world.backstay.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    until("a watch that is resumed", told, async || ends(told) > before).await;
    change(world, told, 3).await;
    assert_eq!(told.of("clients").last().map(|event| event["source"].clone()), Some(json!("WATCH_SOURCE_PUSH")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_client_follows_tables_through_a_reload() {
    let client = go_client();
    let world = start(&[]).await;
    let told = Told::default();
    let command = |table: &str| go_command(&client, world.backstay.api, &world.backstay.password, table);
    let _running = ["clients", "polled"].map(|table| follow(command(table), table, &told));
    followed(&world, &told).await;

    let one = command("polled").args(["-events", "1"]).output().unwrap();
    let text = String::from_utf8_lossy(&one.stdout).into_owned();
    assert!(one.status.success() && text.lines().count() == 1, "{text}");
    let refused = command("absent").output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("OBJECT_NOT_FOUND"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_in_a_browser_follows_tables_through_a_reload() {
    let pages = Pages::bind().await;
    let world = start(&["--cors-origin", &pages.origin]).await;
    let told = Told::default();
    let tables = ["clients", "polled", "absent"];
    let _running = pages.open(world.backstay.api, &world.backstay.password, &tables, &told);
    followed(&world, &told).await;
    let refused = told.of("absent");
    assert!(refused.len() == 1 && refused[0]["error"] == "NotFound", "{refused:?}");
}
