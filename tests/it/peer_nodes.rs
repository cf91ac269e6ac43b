//! Several nodes that share stick tables: what any of them changes reaches watchers.

use std::time::{Duration, Instant};

use backstay::document::Document;
use backstay::runtime::{Address, Runtime};
use backstay::stick_table::{Event, Hub, Poll, Push, SourceKind, WatchOptions};
use tokio::time::timeout;

use crate::push::{Live, next, set};
use crate::support::haproxy::{Haproxy, free_port};

/// A node with the lines of its peers section.
fn node(local: &str, lines: &str) -> Haproxy {
    Haproxy::run(&format!(
        "
global
    localpeer {local}
peers p
{lines}
backend names
    stick-table type string len 40 size 1m expire 1h store gpc0,http_req_cnt,http_req_rate(10s) peers p
"
    ))
}

/// Follows a node.
fn live(haproxy: Haproxy) -> Live {
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let hub = Hub::new(Poll::new(runtime.clone()));
    let push = Push::new(hub.clone(), "backstay".into(), "somewhere".into());
    push.follow(&Document::parse(&std::fs::read(haproxy.config()).unwrap()));
    Live { haproxy, port: 0, runtime, hub, push }
}

const US: &str = "    server backstay 127.0.0.1:1\n";

/// Lines of a peers section with two nodes.
fn two(ports: [u16; 2]) -> String {
    format!("    peer one 127.0.0.1:{}\n    peer two 127.0.0.1:{}\n", ports[0], ports[1])
}

async fn eventually(what: &str, live: &Live, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: {:?} {:?}", live.push.statuses(), live.push.others());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn joined(live: &Live) -> bool {
    live.push.others().iter().all(|(_, _, status)| status.live)
}

fn runtime(haproxy: &Haproxy) -> Runtime {
    Runtime::new(vec![Address::Unix(haproxy.socket())])
}

/// The nodes do not know each other, so that nothing comes by way of ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_changes_comes_from_it() {
    let ports = [free_port(), free_port()];
    let far = node("two", &format!("    peer two 127.0.0.1:{}\n    peer uno 127.0.0.1:1\n{US}", ports[1]));
    // Old entries of the other node are not its changes.
    set(&runtime(&far), "names", "old", 1).await;
    let live = live(node("one", &format!("{}{US}", two(ports))));
    live.synced().await;
    let (_, other, _) = live.push.others().remove(0);
    assert_eq!((other.name.as_str(), live.push.others().len()), ("two", 1));
    eventually("a session with the other node", &live, async || joined(&live)).await;
    let mut watch = live.hub.watch("names", WatchOptions::default());
    let (Event::Snapshot { entries, .. }, SourceKind::Push) = next(&mut watch).await else { panic!("a snapshot") };
    assert!(entries.is_empty(), "{entries:?}");
    for n in 1..4 {
        set(&runtime(&far), "names", &format!("far {n}"), n).await;
        let key = loop {
            // A resync with our own node, which knows nothing of it, may come in between.
            match next(&mut watch).await.0 {
                Event::Changed(entries) => break entries[0].key.clone(),
                Event::Removed { .. } | Event::Progress => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(key, format!("far {n}"));
    }
    assert!(live.shown("names").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_together_are_followed_without_delay_while_they_are_there() {
    let ports = [free_port(), free_port()];
    let lines = format!("{}{US}", two(ports));
    let mut far = node("two", &lines);
    let live = live(node("one", &lines));
    live.synced().await;
    eventually("a session with the other node", &live, async || joined(&live)).await;
    let mut watch = live.hub.watch("names", WatchOptions::default());
    let (mut n, mut told) = (0, false);
    // Once our node has been asked for what the other one changed before, nothing can be stale.
    eventually("nothing is stale", &live, async || {
        n += 1;
        set(&runtime(&far), "names", "far", n).await;
        let update = timeout(Duration::from_secs(10), watch.next()).await.expect("in time").unwrap().unwrap();
        told |= matches!(update.event, Event::Changed(_));
        told && update.staleness.is_zero()
    })
    .await;
    // The nodes find each other after some seconds.
    eventually("the nodes know each other", &live, async || !live.shown("names").await.is_empty()).await;
    for n in 0..50 {
        // Each has its own keys: what both change at once they may settle among themselves in either way.
        set(&live.runtime, "names", &format!("one {}", n % 7), n).await;
        set(&runtime(&far), "names", &format!("two {}", n % 7), n).await;
    }
    live.same("names", "after changes of both").await;

    far.stop();
    eventually("the other node is missed", &live, async || !joined(&live)).await;
    set(&live.runtime, "names", "alone", 1).await;
    live.same("names", "while the other node is away").await;
    far.start();
    eventually("the other node is back", &live, async || joined(&live)).await;
    set(&runtime(&far), "names", "again", 2).await;
    eventually("its change is known", &live, async || live.shown("names").await.contains_key("again")).await;
    live.same("names", "with both again").await;
}

/// HAProxy does not pass on what it learns from another node, so it is asked again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_changes_that_does_not_know_us_comes_soon() {
    let ports = [free_port(), free_port()];
    let far = node("two", &two(ports));
    let live = live(node("one", &format!("{}{US}", two(ports))));
    live.synced().await;
    let mut watch = live.hub.watch("names", WatchOptions::default());
    assert!(matches!(next(&mut watch).await, (Event::Snapshot { .. }, SourceKind::Push)));
    set(&runtime(&far), "names", "far", 9).await;
    eventually("the nodes know each other", &live, async || !live.shown("names").await.is_empty()).await;
    live.same("names", "what the other node set").await;
    let (Event::Changed(entries), _) = next(&mut watch).await else { panic!("a change") };
    assert_eq!(entries[0].key, "far");
    let (_, _, status) = live.push.others().remove(0);
    assert!(status.error.contains("does not name us"), "{status:?}");
}

/// HAProxy takes one session for a name: who is at home keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_of_the_same_name_at_two_nodes_leave_each_other_alone() {
    let ports = [free_port(), free_port()];
    let lines = format!("{}{US}", two(ports));
    let near = live(node("one", &lines));
    let far = live(node("two", &lines));
    let quarrel = |live: &Live| live.push.others()[0].2.error.contains("peer-name");
    eventually("one gives way", &near, async || quarrel(&near) || quarrel(&far)).await;
    near.synced().await;
    far.synced().await;
    for live in [&near, &far] {
        set(&live.runtime, "names", "x", 1).await;
    }
    near.same("names", "at one").await;
    far.same("names", "at two").await;
}
