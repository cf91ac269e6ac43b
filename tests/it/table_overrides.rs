//! Entries of stick tables that are to stay: over reloads, restarts and kills, for as long as HAProxy would keep them.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::Transport;
use crate::support::world::{World, done, refused, refused_saying, until};

const SET: &str = "StickTableEntryService.SetStickTableEntry";
const CLEAR: &str = "StickTableService.ClearStickTable";

fn set(table: &str, key: &str, data: Json, persistence: &str) -> Json {
    let mut request = json!({"stick_table": table, "key": key, "data_type": data});
    if !persistence.is_empty() {
        request["persistence"] = json!(persistence);
    }
    request
}

/// What HAProxy holds of an entry: `gpc0` and for how many milliseconds, if it is there.
fn held(world: &World, table: &str, key: &str) -> Option<(u64, u64)> {
    let shown = world.backstay.ask(&format!("show table {table} key {key}")).unwrap_or_default();
    let line = shown.lines().find(|line| line.contains("key="))?;
    let number = |name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_default()
    };
    Some((number("gpc0"), number("exp")))
}

async fn is_held(world: &World, key: &str, wanted: Option<u64>) {
    let what = format!("{key} holds {wanted:?}");
    until(&what, async || held(world, "clients", key).map(|(gpc0, _)| gpc0) == wanted).await;
}

/// How many runtime overrides there are of the table.
async fn listed(world: &World) -> Vec<Json> {
    let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
    listed["overrides"].as_array().cloned().unwrap_or_default()
}

/// Waits until another worker answers.
async fn another_worker(world: &World, before: u32) {
    let pid =
        || world.backstay.ask("show info").ok()?.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok());
    until("another worker", async || pid().is_some_and(|pid: u32| pid != before)).await;
}

async fn reload(world: &World, name: &str) {
    let before = world.worker();
    let backend = json!({"backend": {"name": name, "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", backend).await;
    another_worker(world, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_stay() {
    let mut world = World::start(Transport::Grpc, &[]);
    world
        .cases([
            (SET, set("clients", "10.0.0.1", json!({"gpc0": 5, "conn_cnt": 3}), "durable"), done()),
            (SET, set("clients", "10.0.0.2", json!({"gpc0": 6}), "worker"), done()),
            (SET, set("clients", "10.0.0.3", json!({"gpc0": 7}), ""), done()),
        ])
        .await;
    let all = listed(&world).await;
    let text = |found: &Json, name: &str| found[name].as_str().unwrap_or_default().to_owned();
    let texts = |found: &Json| ["stick_table", "key", "field", "value"].map(|name| text(found, name));
    let shown: Vec<_> = all.iter().map(texts).collect();
    let wanted = [["clients", "10.0.0.1", "conn_cnt", "3"], ["clients", "10.0.0.1", "gpc0", "5"]];
    assert_eq!(shown, wanted.map(|texts| texts.map(str::to_owned)));

    reload(&world, "one").await;
    is_held(&world, "10.0.0.1", Some(5)).await;
    for key in ["10.0.0.2", "10.0.0.3"] {
        assert_eq!(held(&world, "clients", key), None, "{key} goes with its worker");
    }
    let whole = world.backstay.ask("show table clients key 10.0.0.1").unwrap();
    assert!(whole.contains("conn_cnt=3"), "{whole}");

    let before = world.worker();
    kill_process(world.backstay.haproxy().unwrap(), Signal::USR2).unwrap();
    another_worker(&world, before).await;
    is_held(&world, "10.0.0.1", Some(5)).await;

    world.ok(SET, set("clients", "10.0.0.1", json!({"gpc0": 9}), "durable")).await;
    world.backstay.kill_haproxy();
    is_held(&world, "10.0.0.1", Some(9)).await;
    world.ok(SET, set("clients", "10.0.0.4", json!({"gpc0": 4}), "durable")).await;
    world.backstay.kill_haproxy();
    world.restart();
    is_held(&world, "10.0.0.1", Some(9)).await;
    is_held(&world, "10.0.0.4", Some(4)).await;

    cleared_and_dropped(&world).await;
}

async fn cleared_and_dropped(world: &World) {
    // What is cleared does not come back, alone, by a filter, and with all others.
    world.ok(CLEAR, json!({"stick_table": "clients", "key": "10.0.0.1"})).await;
    world.ok(SET, set("clients", "10.0.0.5", json!({"gpc0": 50}), "durable")).await;
    world.ok(CLEAR, json!({"stick_table": "clients", "filter": "gpc0 gt 10"})).await;
    assert_eq!(listed(world).await.iter().map(|found| &found["key"]).collect::<Vec<_>>(), ["10.0.0.4"]);
    reload(world, "two").await;
    is_held(world, "10.0.0.4", Some(4)).await;
    assert_eq!((held(world, "clients", "10.0.0.1"), held(world, "clients", "10.0.0.5")), (None, None));

    // What is dropped stays until the next reload.
    let drop = json!({"stick_table": "clients", "key": "10.0.0.4"});
    let dropped = world.ok("RuntimeOverrideService.DropRuntimeOverrides", drop).await;
    assert_eq!(dropped["until_reload"][0]["key"], "10.0.0.4", "{dropped}");
    assert_eq!(held(world, "clients", "10.0.0.4").map(|(gpc0, _)| gpc0), Some(4));
    world.ok(SET, set("clients", "10.0.0.6", json!({"gpc0": 6}), "durable")).await;
    reload(world, "three").await;
    is_held(world, "10.0.0.6", Some(6)).await;
    assert_eq!(held(world, "clients", "10.0.0.4"), None);
    world.ok(CLEAR, json!({"stick_table": "clients"})).await;
    assert_eq!(listed(world).await, Vec::<Json>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_stay_is_refused() {
    let world = World::start(Transport::Grpc, &[]);
    let rate = set("clients", "10.0.0.1", json!({"http_req_rate": 5, "gpc0": 1}), "durable");
    world
        .cases([
            (SET, rate, refused_saying(Reason::NotDurable, "http_req_rate")),
            (SET, set("clients", "bad", json!({"gpc0": 1}), "durable"), refused(Reason::InvalidValue)),
            (SET, set("nope", "10.0.0.1", json!({"gpc0": 1}), "durable"), refused(Reason::ObjectNotFound)),
            (SET, set("clients", "10.0.0.1", json!({"gpc1": 1}), "durable"), refused(Reason::InvalidField)),
        ])
        .await;
    assert_eq!((held(&world, "clients", "10.0.0.1"), listed(&world).await), (None, Vec::new()), "nothing was done");
    world.ok(SET, set("clients", "10.0.0.2", json!({"gpc0": 2}), "durable")).await;
    let before = world.worker();
    world.ok("StickTableService.AddStickTablePeer", json!({"stick_table": "clients", "force_reload": true})).await;
    let durable = set("clients", "10.0.0.1", json!({"gpc0": 1}), "durable");
    world.refused(SET, durable, refused_saying(Reason::NotDurable, "peers")).await;
    world.ok(SET, set("clients", "10.0.0.1", json!({"gpc0": 1}), "worker")).await;
    another_worker(&world, before).await;
    until("what was kept is left to the peers", async || listed(&world).await.is_empty()).await;
}

/// HAProxy begins the expiry of an entry that is brought to a worker anew; it ends when it would have ended all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_brought_ends_in_its_time() {
    const EXPIRE: u64 = 20_000;
    let world = World::start(Transport::Grpc, &[]);
    let table = json!({"type": "ip", "size": 1024, "expire": EXPIRE, "store": "gpc0"});
    let backend = json!({"backend": {"name": "short", "stick_table": table}, "force_reload": true});
    world.ok("BackendService.CreateBackend", backend).await;
    world.settled().await;
    for key in ["10.0.0.1", "10.0.0.2"] {
        world.ok(SET, set("short", key, json!({"gpc0": 1}), "durable")).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    reload(&world, "more").await;
    until("it is brought", async || held(&world, "short", "10.0.0.2").is_some()).await;
    // Somebody touches one of them.
    world.ok(SET, set("short", "10.0.0.2", json!({"gpc0": 2}), "worker")).await;
    let deadline = Instant::now() + Duration::from_millis(2 * EXPIRE);
    let mut last = None;
    while let Some((_, left)) = held(&world, "short", "10.0.0.1") {
        assert!(Instant::now() < deadline, "{left} ms are left");
        last = Some(left);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A busy machine may have missed it.
    assert!(last.is_none_or(|left| left > 200), "it goes before haproxy would end it: {last:?}");
    assert_eq!(held(&world, "short", "10.0.0.2").map(|(gpc0, _)| gpc0), Some(2), "it lives on");
    let keys = async || listed(&world).await.into_iter().map(|found| found["key"].clone()).collect::<Vec<_>>();
    until("its record goes", async || keys().await == ["10.0.0.2"]).await;
}
