//! Whatever is asked goes to the worker that runs: writers write as fast as they can through reloads of each kind, and
//! what was acknowledged is compared with the HAProxy that runs then.
//!
//! `BACKSTAY_FULL=1` makes twenty reloads of each kind, and `--nocapture` prints what was lost, of how many.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::drop_in::Bench;
use crate::support::client::{Client, Transport};
use crate::support::haproxy::free_port;
use crate::support::world::World;

/// Every object has its own writer, so that the last acknowledged value is the one that holds.
const WRITERS: usize = 3;

/// An acknowledged write, or one that was refused.
#[derive(Debug)]
struct Written {
    begun: Instant,
    key: String,
    value: String,
    refused: Option<String>,
}

/// How HAProxy is made to reload.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Forced,
    Queued,
    Signal,
    Master,
}

fn rounds() -> usize {
    if std::env::var_os("BACKSTAY_FULL").is_some() { 20 } else { 3 }
}

fn ask(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The worker that answers, unless it is stopping.
fn worker(socket: &Path) -> Option<u32> {
    let info = ask(socket, "show info").ok()?;
    let number = |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    (number("Stopping: ")? == 0).then(|| number("Pid: "))?
}

/// Writers over both transports on a map, a stick table and a server each, for as long as they are not told to stop.
struct Writers {
    tasks: JoinSet<Vec<Written>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    fn start(clients: &[Client], numbers: &Arc<AtomicU64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (at, client) in clients.iter().enumerate() {
            for kind in ["map", "table", "server"] {
                let (client, stop, numbers) = (client.clone(), stop.clone(), numbers.clone());
                tasks.spawn(async move {
                    let mut all = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let (name, request, key, value) = write(kind, at, number);
                        let begun = Instant::now();
                        let refused = client.call(name, &request).await.err().map(|refusal| format!("{refusal:?}"));
                        all.push(Written { begun, key, value, refused });
                    }
                    all
                });
            }
        }
        Writers { tasks, stop }
    }

    async fn stop(mut self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(written) = self.tasks.join_next().await {
            all.extend(written.unwrap());
        }
        all
    }
}

/// A write with a number, as a call; with what has to be found afterwards.
fn write(kind: &str, writer: usize, number: u64) -> (&'static str, Json, String, String) {
    match kind {
        "map" => {
            let entry = json!({"key": format!("/k{number}/"), "value": "hello"});
            let request = json!({"map": "paths.map", "entry": entry});
            ("MapEntryService.CreateMapEntry", request, format!("map /k{number}/"), "hello".into())
        }
        "table" => {
            let key = format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255);
            let request = json!({"stick_table": "clients", "process": 1, "key": key, "data_type": {"gpc0": 7}});
            ("StickTableEntryService.SetStickTableEntry", request, format!("table {key}"), "7".into())
        }
        _ => {
            let state = if number.is_multiple_of(2) { "drain" } else { "maint" };
            let request = json!({"backend": "live", "name": format!("s{writer}"), "server": {"admin_state": state}});
            ("RuntimeServerService.SetRuntimeServer", request, format!("server s{writer}"), state.into())
        }
    }
}

/// What HAProxy holds, named as [`write`] names it.
fn held(socket: &Path, map: &Path) -> BTreeMap<String, String> {
    let mut held = BTreeMap::new();
    for line in ask(socket, &format!("show map {}", map.display())).unwrap().lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(key), Some(value)) = (words.next(), words.next()) {
            held.insert(format!("map {key}"), value.to_owned());
        }
    }
    for line in ask(socket, "show table clients").unwrap().lines() {
        let word = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        if let (Some(key), Some(value)) = (word("key="), word("gpc0=")) {
            held.insert(format!("table {key}"), value);
        }
    }
    for line in ask(socket, "show servers state live").unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [_, _, _, name, _, _, admin, ..] = words[..] {
            let admin: u32 = admin.parse().unwrap_or(0);
            // The bits of maintenance and drain that were set over the socket.
            let state = if admin & 1 > 0 {
                "maint"
            } else if admin & 8 > 0 {
                "drain"
            } else {
                "ready"
            };
            held.insert(format!("server {name}"), state.to_owned());
        }
    }
    held
}

/// What was lost of the writes that were begun after the new worker had answered, and how many those were.
fn lost(written: &[Written], answered: Instant, held: &BTreeMap<String, String>) -> (Vec<String>, usize) {
    let after: Vec<&Written> = written.iter().filter(|written| written.begun > answered).collect();
    let mut last: BTreeMap<&str, &Written> = BTreeMap::new();
    for written in after.iter().filter(|written| written.refused.is_none()) {
        let latest = last.entry(&written.key).or_insert(written);
        if latest.begun < written.begun {
            *latest = written;
        }
    }
    let wrong = last.values().filter(|written| held.get(&written.key) != Some(&written.value));
    let wrong = wrong.map(|written| format!("{} is {:?}, not {}", written.key, held.get(&written.key), written.value));
    let refused = after.iter().filter_map(|written| written.refused.clone());
    (wrong.chain(refused).collect(), after.len())
}

/// One reload while writers write: what was lost, of how many writes.
async fn round(
    clients: &[Client],
    numbers: &Arc<AtomicU64>,
    (socket, map): (&Path, &Path),
    reload: impl AsyncFnOnce(),
) -> (Vec<String>, usize) {
    let old = worker(socket).expect("a worker");
    let writers = Writers::start(clients, numbers);
    let watched = socket.to_owned();
    let answered = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match worker(&watched) {
                Some(pid) if pid != old => return (pid, Instant::now()),
                _ => assert!(Instant::now() < deadline, "no new worker"),
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    reload().await;
    let (new, answered) = answered.await.unwrap();
    // Readers as well: what is begun from here on is answered by the new one.
    let mut stale = Vec::new();
    for client in clients {
        let info = client.call("InfoService.GetProcessInfo", &json!({})).await.unwrap().message.to_string();
        if !info.contains(&format!("\"pid\":{new}")) {
            stale.push(format!("stale: {info}"));
        }
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    let written = writers.stop().await;
    let (mut wrong, of) = lost(&written, answered, &held(socket, map));
    wrong.extend(stale);
    (wrong, of)
}

async fn master_reload(world: &World, kind: Kind, number: usize) {
    let backend = json!({"name": format!("b{number}"), "mode": "http"});
    match kind {
        Kind::Forced => {
            drop(world.ok("BackendService.CreateBackend", json!({"backend": backend, "force_reload": true})).await);
        }
        Kind::Queued => drop(world.ok("BackendService.CreateBackend", json!({"backend": backend})).await),
        Kind::Signal => kill_process(world.backstay.haproxy().expect("it runs"), Signal::USR2).expect("it runs"),
        Kind::Master => {
            let master = world.backstay.folder().join("master.sock");
            // The master begins anew with its connections.
            drop(ask(&master, "reload"));
        }
    }
}

/// Reloads of each kind of a HAProxy with a master, with listeners handed over or not.
async fn through_the_master(hand_over: bool) {
    let world = World::start(Transport::Grpc, &["--reload-delay", "30ms"]);
    let mut text = world.backstay.text();
    if hand_over {
        text = text.replace("level admin", "level admin expose-fd listeners");
    }
    text.push_str("\nbackend live\n");
    for writer in 0..WRITERS {
        writeln!(text, "    server s{writer} 127.0.0.1:9").unwrap();
    }
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
    let client = |transport| Client::new(transport, world.backstay.api, &world.backstay.password);
    let clients = [client(Transport::Grpc), client(Transport::Rest), client(Transport::Grpc)];
    let socket = world.backstay.folder().join("stats.sock");
    let map = world.backstay.folder().join("maps/paths.map");
    let numbers = Arc::default();
    let mut all = Vec::new();
    for (at, kind) in [Kind::Forced, Kind::Queued, Kind::Signal, Kind::Master].into_iter().enumerate() {
        let (mut wrong, mut of) = (Vec::new(), 0);
        for number in 0..rounds() {
            let reload = async || master_reload(&world, kind, at * 100 + number).await;
            let (more, writes) = round(&clients, &numbers, (&socket, &map), reload).await;
            wrong.extend(more);
            of += writes;
        }
        report(&format!("{kind:?}, listeners handed over: {hand_over}"), &wrong, of);
        all.extend(wrong);
    }
    assert!(all.is_empty(), "{} wrong, the first ones: {:#?}", all.len(), &all[..all.len().min(5)]);
}

#[allow(clippy::print_stderr, reason = "the figures are for who asks for them")]
fn report(kind: &str, wrong: &[String], of: usize) {
    eprintln!("{kind}: {} of {of} writes lost, stale or refused", wrong.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn through_the_master_on_a_new_socket() {
    through_the_master(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn through_the_master_on_the_same_socket() {
    through_the_master(true).await;
}

const ALONE: &str = "
userlist controller
    user admin insecure-password adminpwd
frontend fe
    bind unix@{dir}/fe.sock
    use_backend %[path,map_beg({dir}/maps/paths.map,live)]
backend live
    server s0 127.0.0.1:9
    server s1 127.0.0.1:9
    server s2 127.0.0.1:9
backend clients
    stick-table type ip size 100k expire 10m store gpc0
";

/// The stats socket of a process without a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listens {
    /// A new one for each process.
    Anew,
    /// The same, which a process hands over to the next.
    HandedOver,
    /// A TCP address, on which both listen for a moment.
    OverTcp,
}

/// A process without a master, replaced by hand with `-sf`.
async fn replaced_by_hand(listens: Listens) {
    let mut bench = Bench::new();
    bench.haproxy.configure(ALONE);
    std::fs::create_dir_all(bench.path("maps")).unwrap();
    bench.haproxy.file("maps/paths.map", "/a/ live\n");
    let text = std::fs::read_to_string(bench.haproxy.config()).unwrap();
    let text = match listens {
        Listens::Anew => text,
        Listens::HandedOver => text.replace("level admin", "level admin expose-fd listeners"),
        Listens::OverTcp => {
            let first = format!("global\n    stats socket ipv4@127.0.0.1:{} level admin\n", free_port());
            text.replace("global\n", &first)
        }
    };
    std::fs::write(bench.haproxy.config(), text).unwrap();
    bench.haproxy.start();
    bench.start(&[]);
    let client = |transport| Client::new(transport, bench.api, "adminpwd");
    let clients = [client(Transport::Rest), client(Transport::Rest), client(Transport::Rest)];
    let (socket, map): (PathBuf, PathBuf) = (bench.haproxy.socket(), bench.path("maps/paths.map"));
    let numbers = Arc::default();
    let (mut wrong, mut of, mut ended) = (Vec::new(), 0, Vec::new());
    for _ in 0..rounds() {
        let shown = socket.display().to_string();
        let flags: &[&str] = if listens == Listens::HandedOver { &["-x", &shown] } else { &[] };
        let reload = async || ended.push(tokio::task::block_in_place(|| bench.haproxy.reload_with(flags)));
        let (more, writes) = round(&clients, &numbers, (&socket, &map), reload).await;
        wrong.extend(more);
        of += writes;
    }
    report(&format!("-sf by hand, {listens:?}"), &wrong, of);
    assert!(wrong.is_empty(), "{} wrong, the first ones: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    // Nothing of ours keeps the processes alive that were replaced.
    let deadline = Instant::now() + Duration::from_secs(20);
    for mut child in ended {
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "an old process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replaced_by_hand_on_a_new_socket() {
    replaced_by_hand(Listens::Anew).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replaced_by_hand_on_the_same_socket() {
    replaced_by_hand(Listens::HandedOver).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replaced_by_hand_over_tcp() {
    replaced_by_hand(Listens::OverTcp).await;
}
