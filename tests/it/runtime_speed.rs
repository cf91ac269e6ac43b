//! Figures of the Runtime API client. Run with `--ignored --nocapture`, optimised, on a quiet machine.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::runtime::{Address, Command, Limits, LoadMode, MapRef, RawTableEntry, Runtime};
use backstay::stick_table::Mirror;
use tokio::sync::Mutex;

use crate::support::haproxy::{Haproxy, free_port};

fn live() -> (Haproxy, Runtime, MapRef) {
    let body = format!(
        "frontend web\n    bind 127.0.0.1:{}\n    use_backend %[path,map_beg({{dir}}/paths.map,app)]\nbackend app\n",
        free_port()
    );
    let mut haproxy = Haproxy::prepare(&body);
    let map = haproxy.file("paths.map", "/static/ app\n");
    haproxy.start();
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    (haproxy, runtime, MapRef::new(map.display().to_string()).unwrap())
}

/// Calls a second of 8 callers.
async fn rate<F: Future<Output = ()> + Send>(call: impl Fn() -> F + Clone + Send + 'static) -> f64 {
    const CALLS: u32 = 2_000;
    let start = Instant::now();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    call().await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    f64::from(8 * CALLS) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn short_commands() {
    let (_haproxy, runtime, map) = live();
    let mut least = Duration::MAX;
    for _ in 0..2_000 {
        let start = Instant::now();
        runtime.map_entry(&map, "/static/").await.unwrap();
        least = least.min(start.elapsed());
    }
    println!("least latency of a command: {least:?}");

    let name = map.to_string();
    let (one_by_one, lock) = (runtime.clone(), Arc::new(Mutex::new(())));
    let each = rate(move || {
        let (runtime, lock, name) = (one_by_one.clone(), lock.clone(), name.clone());
        async move {
            let command = Command::new("get map").arg("map", &name).unwrap().arg("key", "/static/").unwrap();
            let _alone = lock.lock().await;
            runtime.raw(command).await.unwrap();
        }
    })
    .await;
    println!("8 callers: {each:.0}/s, a connection for each command");
    for lanes in [1, 2, 4] {
        let runtime = Runtime::with_limits(runtime.addresses(), Limits { lanes, ..Limits::default() });
        let map = map.clone();
        let pooled = rate(move || {
            let (runtime, map) = (runtime.clone(), map.clone());
            async move { drop(runtime.map_entry(&map, "/static/").await.unwrap()) }
        })
        .await;
        println!("8 callers: {pooled:.0}/s, {:.1} times, {lanes} lanes", pooled / each);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn a_million_map_entries() {
    let (_haproxy, runtime, map) = live();
    let start = Instant::now();
    let mut load = runtime.map_load(&map, LoadMode::Replace).await.unwrap();
    for n in 0..1_000_000 {
        load.push(&format!("/some/path/{n:07}/"), "app").await.unwrap();
    }
    println!("pushed after {:?}", start.elapsed());
    load.commit().await.unwrap();
    println!("committed after {:?}, memory {}", start.elapsed(), memory());
    let start = Instant::now();
    let mut entries = runtime.map_entries(&map).await.unwrap();
    let mut count = 0;
    while let Some(items) = entries.next().await.unwrap() {
        count += items.len();
    }
    println!("listed {count} in {:?}, memory {}", start.elapsed(), memory());
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned()
}

#[test]
#[ignore = "measures"]
fn a_million_mirrored_entries() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let mut mirror = Mirror::new(1, 1000);
    let before = resident();
    for round in 0..2_u64 {
        let start = Instant::now();
        mirror.begin();
        for n in 0..1_000_000_u32 {
            let key = Ipv4Addr::from(n + (10 << 24));
            let rate = u64::from(n) + round;
            let line = format!("0x55e9d0935380: key={key} use=0 exp=599999 gpc0=1 conn_cnt=2 conn_rate(10000)={rate}");
            mirror.observe(&RawTableEntry::parse(line.as_bytes()).unwrap(), 0).unwrap();
        }
        mirror.finish(0);
        let bytes = (resident() - before) / 1_000_000;
        println!("dump {round}: {:?} with making the lines, {bytes} bytes an entry with the log", start.elapsed());
    }
}
