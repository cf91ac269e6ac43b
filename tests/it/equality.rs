//! The mirror of pushed tables is what HAProxy shows, key by key, over 100,000 keys and through whatever happens to
//! either side. Rates are left out: they fade between two looks.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay::document::Document;
use backstay::runtime::{Address, DataType, Datum, DatumValue, Runtime};
use backstay::stick_table::{Cleared, Hub, Poll, Push, Query};
use serde_json::{Value as Json, json};

use crate::support::client::{Client, Transport};
use crate::support::haproxy::{Haproxy, binary, eventually, free_port};

const KEYS: u32 = 100_000;

/// A table of each type of key, with numbers of 32 and of 64 bits, arrays and rates.
const BODY: &str = "
global
    localpeer hap1
userlist users
    user admin insecure-password secret
peers p
    bind unix@{dir}/peers.sock mode 600
    server hap1
    server backstay 127.0.0.1:1
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-name) table names if { req.hdr(x-name) -m found }
    http-request track-sc1 hdr_ip(x-ip) table ips if { req.hdr(x-ip) -m found }
    http-request track-sc2 hdr(x-number) table numbers if { req.hdr(x-number) -m found }
    http-request track-sc0 hdr_ip(x-six) table sixes if { req.hdr(x-six) -m found }
    http-request track-sc1 hdr(x-bytes),sha1 table digests if { req.hdr(x-bytes) -m found }
    http-request track-sc2 hdr_ip(x-brief) table briefs if { req.hdr(x-brief) -m found }
    http-request sc-inc-gpc0(0) if { hdr(x-name) -m end 7 }
    http-request sc-inc-gpc(2,1) if { hdr(x-ip) -m end 3 }
    http-request sc-set-gpt(1,1) 4000000000 if { hdr(x-ip) -m end 5 }
    http-request return status 200
backend names
    stick-table type string len 40 size 1m expire 1h store gpc0,http_req_cnt,http_req_rate(10s) peers p
backend ips
    stick-table type ip size 1m expire 1h store gpt(2),gpc(3),gpc_rate(3,10s),http_req_cnt peers p
backend numbers
    stick-table type integer size 1m expire 1h store conn_cnt,bytes_in_cnt,bytes_out_cnt,http_req_cnt peers p
backend sixes
    stick-table type ipv6 size 1m store gpc0,sess_cnt,http_req_cnt,http_err_cnt peers p
backend digests
    stick-table type binary len 20 size 1m expire 1h store http_req_cnt,http_req_rate(1m) peers p
backend briefs
    stick-table type ip size 1m expire 3s store http_req_cnt peers p
";
const TABLES: [&str; 6] = ["names", "ips", "numbers", "sixes", "digests", "briefs"];

type Known = HashMap<String, Vec<(DataType, DatumValue)>>;

struct Live {
    haproxy: Haproxy,
    port: u16,
    runtime: Runtime,
    hub: Hub,
    push: Push,
}

fn haproxy(threads: u32) -> (Haproxy, u16) {
    let port = free_port();
    let mut haproxy = Haproxy::prepare(&BODY.replace("{port}", &port.to_string()));
    let text = std::fs::read_to_string(haproxy.config()).unwrap();
    // Only the first global section may say this.
    let text = text.replacen("global\n", &format!("global\n    nbthread {threads}\n"), 1);
    std::fs::write(haproxy.config(), text).unwrap();
    haproxy.start();
    (haproxy, port)
}

fn headers(wide: bool, n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    if wide {
        let mixed = n.wrapping_mul(2_654_435_761);
        return format!("x-name: key {} = {n}\r\nx-ip: 10.{b}.{c}.{d}\r\nx-number: {mixed}\r\n", n % 10);
    }
    format!("x-six: 2001:db8::{b:x}:{:x}\r\nx-bytes: {n}\r\nx-brief: 10.{b}.{c}.{d}\r\n", n & 0xffff)
}

/// Requests one after the other over two connections at a time.
fn requests(port: u16, wide: bool, numbers: std::ops::Range<u32>) {
    let half = |odd: u32| {
        let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let all: Vec<u32> = numbers.clone().filter(|n| n % 2 == odd).collect();
        let mut buffer = vec![0; 1 << 16];
        for some in all.chunks(100) {
            let mut text = String::new();
            for n in some {
                write!(text, "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", headers(wide, *n)).unwrap();
            }
            socket.write_all(text.as_bytes()).unwrap();
            let mut answers = Vec::new();
            while memchr::memmem::find_iter(&answers, b"\r\n\r\n").count() < some.len() {
                let read = socket.read(&mut buffer).unwrap();
                assert!(read > 0, "haproxy closed the connection");
                answers.extend_from_slice(&buffer[..read]);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| half(0));
        scope.spawn(|| half(1));
    });
}

fn steady(data: Vec<Datum>) -> Vec<(DataType, DatumValue)> {
    data.into_iter().filter(|datum| datum.period.is_none()).map(|datum| (datum.kind, datum.value)).collect()
}

async fn shown(runtime: &Runtime, table: &str) -> Known {
    let mut entries = runtime.table_entries(table, &[]).await.unwrap();
    let mut all = HashMap::new();
    while let Some(some) = entries.next().await.unwrap() {
        all.extend(some.into_iter().map(|entry| (entry.key, steady(entry.data))));
    }
    all
}

/// How two views differ, in few words; empty if they do not.
fn difference(mirrored: &Known, shown: &Known) -> String {
    if mirrored == shown {
        return String::new();
    }
    let differ = shown.iter().filter(|(key, data)| mirrored.get(*key).is_some_and(|known| known != *data));
    let differ: Vec<_> = differ.map(|(key, data)| (key, data, &mirrored[key])).take(2).collect();
    let missing: Vec<_> = shown.keys().filter(|key| !mirrored.contains_key(*key)).take(2).collect();
    let more: Vec<_> = mirrored.keys().filter(|key| !shown.contains_key(*key)).take(2).collect();
    let (here, there) = (mirrored.len(), shown.len());
    format!("{here} entries instead of {there}; {differ:?} differ, {missing:?} miss, {more:?} are too much")
}

impl Live {
    fn start(threads: u32) -> Self {
        let (haproxy, port) = haproxy(threads);
        let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
        let hub = Hub::new(Poll::new(runtime.clone()));
        let push = Push::new(hub.clone(), "backstay".into(), "somewhere".into());
        push.follow(&Document::parse(&std::fs::read(haproxy.config()).unwrap()));
        Live { haproxy, port, runtime, hub, push }
    }

    async fn synced(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.push.statuses().iter().all(|(_, status)| status.live) {
            assert!(Instant::now() < deadline, "{:?}", self.push.statuses());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn mirrored(&self, table: &str) -> Known {
        let listing = self.hub.list(table, &Query { limit: usize::MAX, ..Query::default() }).unwrap();
        let listing = listing.unwrap_or_else(|| panic!("no mirror of {table}: {:?}", self.push.statuses()));
        listing.entries.into_iter().map(|entry| (entry.key, steady(entry.data))).collect()
    }

    /// Waits until the mirror is what HAProxy shows, and returns the entries of each table.
    async fn same(&self, why: &str) -> [usize; TABLES.len()] {
        // A resync is asked for after some times as long as the last one took, which is long on a busy machine.
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut counts = [0; TABLES.len()];
        for (table, count) in TABLES.iter().zip(&mut counts) {
            loop {
                let (mirrored, shown) = (self.mirrored(table), shown(&self.runtime, table).await);
                let difference = difference(&mirrored, &shown);
                *count = shown.len();
                if difference.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "{why}: {table}: {difference}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        counts
    }
}

async fn through_everything(threads: u32) {
    let mut live = Live::start(threads);
    live.synced().await;
    requests(live.port, true, 0..KEYS);
    requests(live.port, false, 0..10_000);
    // Some of them again, and not only once.
    requests(live.port, true, 7_000..12_000);
    requests(live.port, true, 7_000..8_000);
    let all = KEYS as usize;
    assert_eq!(live.same("after load").await[..5], [all, all, all, 10_000, 10_000]);

    // Nobody tells of what others clear, nor of what expires; all entries come again and show it.
    live.haproxy.ask("clear table numbers").unwrap();
    live.haproxy.ask("clear table names key key\\ 7\\ =\\ 17").unwrap();
    live.haproxy.ask("clear table ips data.gpt0 ge 1").unwrap();
    live.haproxy.ask("set table names key \"a b\" data.gpc0 5").unwrap();
    live.hub.cleared("names", Cleared::Key("never there"));
    let [names, ips, numbers, sixes, digests, briefs] = live.same("after clears").await;
    assert_eq!((names, numbers, sixes, digests, briefs), (all, 0, 10_000, 10_000, 0));
    assert!(ips <= all, "{ips}");

    let mut old = live.haproxy.reload();
    requests(live.port, true, KEYS..KEYS + 1_000);
    let [names, ..] = live.same("after a reload").await;
    // HAProxy teaches itself over a reload.
    assert_eq!(names, all + 1_000);

    live.haproxy.stop();
    old.kill().unwrap();
    old.wait().unwrap();
    live.haproxy.start();
    requests(live.port, true, 0..1_000);
    requests(live.port, false, 0..1_000);
    live.synced().await;
    assert_eq!(live.same("after a kill").await[..5], [1_000; 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_thread_through_load_clears_expiry_reload_and_kill() {
    through_everything(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_threads_through_load_clears_expiry_reload_and_kill() {
    through_everything(2).await;
}

/// The real program, on an HAProxy that it did not start.
struct Program {
    child: Child,
    client: Client,
}

impl Program {
    fn start(haproxy: &Haproxy) -> Self {
        let api = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.arg("serve").arg("--config-file").arg(haproxy.config());
        command.arg("--state-dir").arg(haproxy.dir().join("state")).arg("--haproxy-bin").arg(binary());
        command.args(["--userlist", "users", "--reload-cmd", "true", "--port", &api.port().to_string()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("backstay answers", || TcpStream::connect(api).is_ok());
        Program { child, client: Client::new(Transport::Grpc, api, "secret") }
    }

    /// What a new watcher is told of a table that is pushed.
    async fn told(&self, table: &str) -> HashMap<String, Json> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let request = json!({"stick_table": table});
            let mut messages =
                self.client.stream("StickTableService.WatchStickTable", &request).await.expect("a watch");
            let mut known = HashMap::new();
            loop {
                let mut message = messages.next().await.expect("a message");
                if message["source"] != "push" {
                    assert!(Instant::now() < deadline, "haproxy does not push: {message}");
                    break;
                }
                if let Some(entries) = message["snapshot"]["entries"].as_array_mut() {
                    let entries = entries.iter_mut().map(Json::take);
                    known.extend(entries.map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry)));
                }
                if message["snapshot"]["last"] == true {
                    return known;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_is_killed_and_knows_everything_again() {
    let (haproxy, port) = haproxy(2);
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let program = Program::start(&haproxy);
    assert_eq!(program.told("names").await.len(), 0);
    requests(port, true, 0..KEYS / 2);
    // At once, with some of it untold and unacknowledged.
    drop(program);
    requests(port, true, KEYS / 2..KEYS);
    requests(port, true, 0..1_000);
    haproxy.ask("clear table names key key\\ 7\\ =\\ 17").unwrap();
    let program = Program::start(&haproxy);
    let (told, shown) = (program.told("names").await, shown(&runtime, "names").await);
    assert_eq!((told.len(), shown.len()), (KEYS as usize - 1, KEYS as usize - 1));
    for (key, data) in shown {
        let field = |name: &str| told[&key][name].as_i64().or_else(|| told[&key][name].as_str()?.parse().ok());
        for (kind, value) in data {
            let DatumValue::Number(number) = value else { panic!("a number") };
            assert_eq!(field(&kind.to_string()).unwrap_or(0), number.cast_signed(), "{key} {kind}");
        }
    }
}
