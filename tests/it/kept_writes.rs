//! No acknowledged write is lost, and none comes back: writers write as fast as they can through reloads of each kind,
//! through the end of HAProxy and of both, and all that was acknowledged is compared with HAProxy and with the file.
//!
//! `BACKSTAY_FULL=1` makes ten rounds of each kind, and `--nocapture` prints what was lost, of how many.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::support::client::{Client, Transport};
use crate::support::world::World;

/// Each has objects of its own, so that its last acknowledged write is the one that holds.
const WRITERS: usize = 4;
/// Keys of a writer; it sets and deletes them in turn.
const KEYS: usize = 40;

/// What an object was told to hold; several values where the outcome of writes is not known.
#[derive(Debug, Default)]
struct Values {
    /// A write was acknowledged: what was told before does not count any more.
    settled: bool,
    each: Vec<Option<String>>,
}

type Told = BTreeMap<String, Values>;

/// How the worker ends.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Queued,
    Forced,
    Signal,
    Master,
    HaproxyKilled,
    BothKilled,
}

fn rounds() -> usize {
    if std::env::var_os("BACKSTAY_FULL").is_some() { 10 } else { 1 }
}

/// One write, as a call, with the object and what it holds then.
fn write(acl: &str, writer: usize, number: usize) -> (&'static str, Json, String, Option<String>) {
    let (turn, at) = (number / 3 / KEYS, number / 3 % KEYS);
    let value = format!("v{turn}");
    match number % 3 {
        0 => {
            let key = format!("/w{writer}k{at}/");
            let (name, request, held) = match turn % 3 {
                0 => ("CreateMapEntry", json!({"entry": {"key": key, "value": value}}), Some(value)),
                1 => ("ReplaceMapEntry", json!({"id": key, "entry": {"value": value}}), Some(value)),
                _ => ("DeleteMapEntry", json!({"id": key}), None),
            };
            let mut request = request;
            request["map"] = json!("paths.map");
            let name = match name {
                "CreateMapEntry" => "MapEntryService.CreateMapEntry",
                "ReplaceMapEntry" => "MapEntryService.ReplaceMapEntry",
                _ => "MapEntryService.DeleteMapEntry",
            };
            (name, request, format!("map {key}"), held)
        }
        1 => {
            let pattern = format!("/w{writer}p{at}");
            let object = format!("acl {pattern}");
            if turn.is_multiple_of(2) {
                let request = json!({"acl_id": acl, "entry": {"value": pattern}});
                ("AclFileEntryService.CreateAclFileEntry", request, object, Some(String::new()))
            } else {
                ("AclFileEntryService.DeleteAclFileEntry", json!({"acl_id": acl, "id": pattern}), object, None)
            }
        }
        _ => {
            let state = ["drain", "maint", "ready"][turn % 3];
            let request = json!({"backend": "live", "name": format!("s{writer}"), "server": {"admin_state": state}});
            ("RuntimeServerService.SetRuntimeServer", request, format!("server s{writer}"), Some(state.into()))
        }
    }
}

/// Writes from a number on until it is told to stop. Returns the next number and what was told.
async fn writer(
    client: Client,
    acl: String,
    at: usize,
    from: usize,
    stop: Arc<AtomicBool>,
) -> (usize, usize, Told, usize) {
    let (mut told, mut number, mut count) = (Told::new(), from, 0);
    while !stop.load(Ordering::Relaxed) {
        let (name, request, object, held) = write(&acl, at, number);
        match client.call(name, &request).await {
            Ok(_) => drop(told.insert(object, Values { settled: true, each: vec![held] })),
            // Whether it was made is not known.
            Err(_) => told.entry(object).or_default().each.push(held),
        }
        count += 1;
        number += 1;
    }
    (at, number, told, count)
}

struct Ground {
    world: World,
    acl: String,
    map: PathBuf,
    /// What objects may hold by all that was told so far.
    told: BTreeMap<String, Vec<Option<String>>>,
    /// The next number of each writer.
    numbers: Vec<usize>,
}

impl Ground {
    async fn new() -> Self {
        let flags = ["--reload-delay", "30ms", "--update-map-files-period", "1"];
        let world = World::start(Transport::Grpc, &flags);
        let acl = world.backstay.dir().join("blocked.lst");
        std::fs::write(&acl, "/none\n").unwrap();
        let acl = acl.display().to_string();
        let mut text = world.backstay.text();
        let rule = format!(
            "frontend kept\n    bind unix@{}/kept.sock\n    http-request deny if {{ path -f {acl} }}\n",
            world.backstay.dir().display()
        );
        writeln!(text, "\n{rule}\nbackend live").unwrap();
        for at in 0..WRITERS {
            writeln!(text, "    server s{at} 127.0.0.1:9").unwrap();
        }
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
        let map = world.backstay.folder().join("maps/paths.map");
        Ground { world, acl, map, told: BTreeMap::new(), numbers: vec![0; WRITERS] }
    }

    fn client(&self, at: usize) -> Client {
        let transport = if at.is_multiple_of(2) { Transport::Grpc } else { Transport::Rest };
        Client::new(transport, self.world.backstay.api, &self.world.backstay.password)
    }

    async fn end_worker(&mut self, kind: Kind, number: usize) {
        let backend = json!({"name": format!("b{number}"), "mode": "http"});
        match kind {
            Kind::Queued => drop(self.world.ok("BackendService.CreateBackend", json!({"backend": backend})).await),
            Kind::Forced => {
                let request = json!({"backend": backend, "force_reload": true});
                drop(self.world.ok("BackendService.CreateBackend", request).await);
            }
            Kind::Signal => kill_process(self.world.backstay.haproxy().expect("it runs"), Signal::USR2).unwrap(),
            Kind::Master => {
                use std::io::{Read as _, Write as _};
                let master = self.world.backstay.folder().join("master.sock");
                let mut socket = std::os::unix::net::UnixStream::connect(master).unwrap();
                socket.write_all(b"reload\n").unwrap();
                // The master begins anew with its connections.
                drop(socket.read_to_end(&mut Vec::new()));
            }
            Kind::HaproxyKilled => self.world.backstay.kill_haproxy(),
            Kind::BothKilled => {
                self.world.backstay.kill();
                self.world.backstay.kill_haproxy();
            }
        }
    }

    /// Writers write while the worker ends. Returns what was lost, of how many writes.
    async fn round(&mut self, kind: Kind, number: usize) -> (Vec<String>, usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for at in 0..WRITERS {
            let (client, acl, stop) = (self.client(at), self.acl.clone(), stop.clone());
            writers.spawn(writer(client, acl, at, self.numbers[at], stop));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.end_worker(kind, number).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        stop.store(true, Ordering::Relaxed);
        let mut count = 0;
        while let Some(done) = writers.join_next().await {
            let (at, next, told, written) = done.unwrap();
            self.numbers[at] = next;
            count += written;
            for (object, values) in told {
                let before = if object.starts_with("server") { Some("ready".to_owned()) } else { None };
                let known = self.told.entry(object).or_insert_with(|| vec![before]);
                if values.settled {
                    known.clear();
                }
                known.extend(values.each);
            }
        }
        if matches!(kind, Kind::BothKilled) {
            self.world.restart();
        }
        // An HAProxy that was killed again and again is started anew only after a wait of up to 30 s.
        let deadline = Instant::now() + Duration::from_secs(if rounds() > 1 { 60 } else { 15 });
        loop {
            let wrong = self.wrong();
            if wrong.is_empty() || Instant::now() > deadline {
                return (wrong, count);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Objects that hold something else than they were told.
    fn wrong(&self) -> Vec<String> {
        let Some(held) = self.held() else { return vec!["haproxy does not run".to_owned()] };
        let text = std::fs::read_to_string(&self.map).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("/w")).filter_map(|line| line.split_once(' '));
        let file: BTreeMap<String, String> =
            lines.map(|(key, value)| (format!("map {key}"), value.to_owned())).collect();
        let mut wrong = Vec::new();
        for (object, values) in &self.told {
            if !values.contains(&held.get(object).cloned()) {
                wrong.push(format!("{object} is {:?} in haproxy, not {values:?}", held.get(object)));
            }
            if object.starts_with("map ") && !values.contains(&file.get(object).cloned()) {
                wrong.push(format!("{object} is {:?} in the file, not {values:?}", file.get(object)));
            }
        }
        wrong
    }

    fn held(&self) -> Option<BTreeMap<String, String>> {
        let mut held = BTreeMap::new();
        for line in self.world.backstay.ask(&format!("show map {}", self.map.display())).ok()?.lines() {
            let mut words = line.split(' ').skip(1);
            if let (Some(key), Some(value)) = (words.next(), words.next()) {
                held.insert(format!("map {key}"), value.to_owned());
            }
        }
        for line in self.world.backstay.ask(&format!("show acl {}", self.acl)).ok()?.lines() {
            if let Some(pattern) = line.split(' ').nth(1) {
                held.insert(format!("acl {pattern}"), String::new());
            }
        }
        for line in self.world.backstay.ask("show servers state live").ok()?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if let [_, _, _, name, _, _, admin, ..] = words[..] {
                let admin: u32 = admin.parse().unwrap_or(0);
                let state = match admin {
                    _ if admin & 1 > 0 => "maint",
                    _ if admin & 8 > 0 => "drain",
                    _ => "ready",
                };
                held.insert(format!("server {name}"), state.to_owned());
            }
        }
        Some(held)
    }
}

#[allow(clippy::print_stderr, reason = "the figures are for who asks for them")]
fn report(kind: Kind, wrong: usize, of: usize) {
    eprintln!("{kind:?}: {wrong} objects wrong after {of} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_acknowledged_write_is_lost_and_none_comes_back() {
    let mut ground = Ground::new().await;
    let mut all = Vec::new();
    let kinds =
        [Kind::Queued, Kind::Forced, Kind::Signal, Kind::Master, Kind::HaproxyKilled, Kind::BothKilled, Kind::Queued];
    for (at, kind) in kinds.into_iter().enumerate() {
        let (mut wrong, mut of) = (Vec::new(), 0);
        for number in 0..rounds() {
            let (more, writes) = ground.round(kind, at * 100 + number).await;
            wrong.extend(more);
            of += writes;
        }
        report(kind, wrong.len(), of);
        all.extend(wrong.into_iter().map(|wrong| format!("{kind:?}: {wrong}")));
    }
    assert!(all.is_empty(), "{} wrong, the first ones: {:#?}", all.len(), &all[..all.len().min(8)]);
}
