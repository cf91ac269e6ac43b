//! HAProxy and backstay for the bench, the load, and the watchers.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay::proto::runtime as pb;
use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tonic::codec::Streaming;
use tonic::transport::Channel;

#[path = "../../it/support/raw.rs"]
mod raw;

use crate::support::{HEAD, STORE, ask, eventually, free_port, haproxy, random, started};
use raw::Raw;

const CONFIG: &str = "\
peers p
    bind unix@{dir}/peers.sock mode 600
    server hap1
    server backstay 127.0.0.1:1
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr_ip(x-a) table many if { req.hdr(x-a) -m found }
    http-request track-sc1 hdr_ip(x-b) table more if { req.hdr(x-b) -m found }
    http-request track-sc2 hdr_ip(x-c) table most if { req.hdr(x-c) -m found }
    http-request track-sc2 hdr_ip(x-d) table probe if { req.hdr(x-d) -m found }
    http-request track-sc2 hdr_ip(x-e) table ten if { req.hdr(x-e) -m found }
    http-request return status 200
";

/// A folder, an HAProxy in it, and perhaps a backstay.
pub(crate) struct Rig {
    dir: TempDir,
    haproxy: Child,
    backstay: Option<Child>,
    pub(crate) port: u16,
    api: SocketAddr,
}

impl Rig {
    /// HAProxy with these tables.
    pub(crate) fn start(tables: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let mut text = format!("{HEAD}{CONFIG}")
            .replace("{dir}", &dir.path().display().to_string())
            .replace("{port}", &port.to_string());
        for table in tables {
            writeln!(text, "backend {table}\n    stick-table type ip size 2m expire 1h store {STORE} peers p")
                .expect("text");
        }
        for missing in ["many", "more", "most", "probe", "ten"].iter().filter(|name| !tables.contains(name)) {
            text = text
                .lines()
                .filter(|line| !line.contains(&format!("table {missing} ")))
                .fold(String::new(), |text, line| text + line + "\n");
        }
        std::fs::write(dir.path().join("haproxy.cfg"), text).expect("a file");
        let haproxy = started(Command::new(haproxy()).arg("-db").arg("-f").arg(dir.path().join("haproxy.cfg")));
        let api = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let rig = Rig { dir, haproxy, backstay: None, port, api };
        eventually("haproxy answers", || rig.ask("show info").ok());
        rig
    }

    pub(crate) fn haproxy(&self) -> u32 {
        self.haproxy.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts backstay on it and returns its process.
    pub(crate) fn serve(&mut self) -> u32 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command
            .arg("serve")
            .arg("--config-file")
            .arg(self.path("haproxy.cfg"))
            .arg("--state-dir")
            .arg(self.path("state"));
        command.args(["--userlist", "users", "--reload-cmd", "true", "--port", &self.api.port().to_string()]);
        command.arg("--haproxy-bin").arg(haproxy());
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("backstay");
        let pid = child.id();
        self.backstay = Some(child);
        eventually("backstay answers", || TcpStream::connect(self.api).ok());
        pid
    }

    pub(crate) fn stop_serving(&mut self) {
        if let Some(mut child) = self.backstay.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// One command of the Runtime API; the bytes of the answer.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<Vec<u8>> {
        ask(&self.path("stats.sock"), command)
    }

    /// Follows a table over gRPC, on a connection of its own.
    pub(crate) async fn watch(&self, table: &str, changes_only: bool) -> Streaming<Bytes> {
        let channel = Channel::from_shared(format!("http://{}", self.api)).expect("an address").connect_lazy();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("a connection");
        let request = pb::WatchStickTableRequest {
            stick_table: table.into(),
            changes_only,
            ..pb::WatchStickTableRequest::default()
        };
        let mut request = tonic::Request::new(request.encode_to_vec());
        request.metadata_mut().insert("authorization", "Basic YWRtaW46YmVuY2g=".parse().expect("a header"));
        let path = "/backstay.runtime.v2.StickTableService/WatchStickTable".parse().expect("a path");
        client.server_streaming(request, path, Raw).await.expect("a watch").into_inner()
    }

    /// Changes of a table so far.
    pub(crate) async fn revision(&self, table: &str) -> i64 {
        let mut watch = self.watch(table, true).await;
        let first = watch.message().await.expect("a message").expect("a message");
        let first = pb::WatchStickTableResponse::decode(first).expect("a message");
        assert_eq!(first.source, i32::from(pb::WatchSource::Push), "haproxy must push");
        first.revision
    }

    /// Waits until HAProxy pushes a table.
    pub(crate) async fn pushed(&self, table: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let first = self.watch(table, true).await.message().await.expect("a message").expect("a message");
            if pb::WatchStickTableResponse::decode(first).expect("a message").source == i32::from(pb::WatchSource::Push)
            {
                return;
            }
            assert!(Instant::now() < deadline, "haproxy does not push {table}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop_serving();
        drop(self.haproxy.kill());
        drop(self.haproxy.wait());
    }
}

/// One connection for requests.
pub(crate) struct Requests {
    socket: TcpStream,
    text: String,
    answers: Vec<u8>,
}

impl Requests {
    pub(crate) fn open(port: u16) -> Self {
        let socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("haproxy");
        socket.set_nodelay(true).expect("an option");
        Requests { socket, text: String::new(), answers: vec![0; 1 << 16] }
    }

    /// Adds a request with these headers.
    pub(crate) fn add(&mut self, headers: &[(char, u32)]) {
        self.text.push_str("GET / HTTP/1.1\r\nhost: x\r\n");
        for (name, key) in headers {
            let [a, b, c, d] = key.to_be_bytes();
            write!(self.text, "x-{name}: {a}.{b}.{c}.{d}\r\n").expect("text");
        }
        self.text.push_str("\r\n");
    }

    /// Sends what was added, and reads so many answers.
    pub(crate) fn send(&mut self, count: usize) {
        self.socket.write_all(self.text.as_bytes()).expect("haproxy takes requests");
        self.text.clear();
        // An answer ends with an empty line and has no other one.
        let (mut seen, mut matched) = (0, 0);
        while seen < count {
            let read = self.socket.read(&mut self.answers).expect("an answer");
            assert!(read > 0, "haproxy closed the connection");
            for byte in &self.answers[..read] {
                matched = match (matched, byte) {
                    (0 | 2, b'\r') | (1 | 3, b'\n') => matched + 1,
                    (_, b'\r') => 1,
                    _ => 0,
                };
                if matched == 4 {
                    (seen, matched) = (seen + 1, 0);
                }
            }
        }
    }
}

/// Requests for `time` over so many connections, each with a key of each header out of `keys`, at most so many a second
/// in all. Returns how many there were.
pub(crate) fn load(port: u16, connections: u64, headers: &str, keys: u32, most: f64, time: Duration) -> u64 {
    const BATCH: u32 = 32;
    let begin = Instant::now();
    let worker = |number: u64| {
        let mut requests = Requests::open(port);
        let (mut seed, mut sent) = (number + 1, 0);
        while begin.elapsed() < time {
            let batch = BATCH.min((most / 50.0).ceil() as u32).max(1);
            for _ in 0..batch {
                let headers: Vec<_> = headers.chars().map(|name| (name, random(&mut seed) % keys)).collect();
                requests.add(&headers);
            }
            requests.send(batch as usize);
            sent += u64::from(batch);
            let due = begin + Duration::from_secs_f64(sent as f64 * connections as f64 / most);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections).map(|number| scope.spawn(move || worker(number))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    })
}
