//! What benches of whole processes share: processor time and memory of a process, commands of the Runtime API, entries for
//! HAProxy's stick tables, and the printed table.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstay::peers::{Column, KeyType, Message, Rate, Table, Value, put_values};
use nix::time::ClockId;
use nix::unistd::Pid;

/// Where the configuration of a bench begins; `{dir}` is its folder. Its user is `admin` with the password `bench`.
pub(crate) const HEAD: &str = "
global
    stats socket {dir}/stats.sock mode 600 level admin
    localpeer hap1
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
userlist users
    user admin insecure-password bench
";

/// The HAProxy that is measured: `HAPROXY_BIN`, or the one from the path.
pub(crate) fn haproxy() -> OsString {
    std::env::var_os("HAPROXY_BIN").unwrap_or_else(|| "haproxy".into())
}

/// Starts a program that reads nothing and says nothing.
pub(crate) fn started(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("haproxy, from the path or HAPROXY_BIN")
}

/// Counters of each table, as in the targets.
pub(crate) const STORE: &str = "gpc0,http_req_cnt,http_req_rate(10s)";

/// The printed table.
#[derive(Default)]
pub(crate) struct Report(Vec<[String; 4]>);

impl Report {
    pub(crate) fn row(&mut self, what: impl Into<String>, found: String, target: &str, beside: String) {
        let row = [what.into(), found, target.to_owned(), beside];
        println!("{}", row.join(" | "));
        self.0.push(row);
    }

    pub(crate) fn print(&self) {
        let head = ["what", "measured", "target", "beside"].map(String::from);
        let rows: Vec<_> = std::iter::once(&head).chain(&self.0).collect();
        let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        println!();
        for row in &rows {
            println!(
                "{:w0$}  {:w1$}  {:w2$}  {}",
                row[0],
                row[1],
                row[2],
                row[3],
                w0 = width(0),
                w1 = width(1),
                w2 = width(2)
            );
        }
    }
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A free TCP port of the loopback.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Tries again until there is something, for a minute.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The processor time that a process has spent with all its threads, also those that have ended.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).expect("a process");
    clock.now().expect("a process").into()
}

/// The processor time that a process spends from now on.
pub(crate) struct Cpu {
    pid: u32,
    before: Duration,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        Cpu { pid, before: cpu_time(pid) }
    }

    /// What it spent so far.
    pub(crate) fn spent(&self) -> Duration {
        cpu_time(self.pid).saturating_sub(self.before)
    }
}

/// A line of the status of a process in bytes, such as `VmRSS`.
pub(crate) fn memory(pid: u32, line: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
    let value = text.lines().find_map(|all| all.strip_prefix(line)?.strip_prefix(':')).expect("the line");
    value.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

/// One command of the Runtime API over a connection of its own; the bytes of the answer.
pub(crate) fn ask(socket: &Path, command: &str) -> std::io::Result<Vec<u8>> {
    let mut socket = UnixStream::connect(socket)?;
    socket.write_all(format!("{command}\n").as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A mixed sequence of numbers, the same each time.
pub(crate) fn random(seed: &mut u64) -> u32 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as u32
}

/// A table with the counters of [`STORE`].
pub(crate) fn described(id: u64, name: &str) -> Table {
    let columns = [("gpc0", None), ("http_req_cnt", None), ("http_req_rate", Some(10_000))];
    let columns = columns.iter().map(|(name, period)| Column::named(name, 1, *period).unwrap()).collect();
    Table { id, name: name.into(), key_type: KeyType::Ip, key_length: 4, columns, expire: 3_600_000, unknown: None }
}

/// Appends an update of a key.
pub(crate) fn put_update(number: u32, key: u32, count: u32, body: &mut Vec<u8>, out: &mut Vec<u8>) {
    body.clear();
    body.extend(key.to_be_bytes());
    let rate = Rate { age: 5, current: count, previous: 1 };
    put_values(&[Value::Number(u64::from(count)), Value::Number(7), Value::Rate(rate)], body);
    Message::Update { number: Some(number), expires_in: None, body }.put(out);
}

/// Teaches HAProxy entries at the socket of a peers section, as this peer there, and waits until the stats socket tells
/// that it has them.
pub(crate) fn teach(peers: &Path, peer: &str, stats: &Path, table: &str, entries: u32) {
    let mut socket = UnixStream::connect(peers).unwrap();
    socket.write_all(format!("HAProxyS 2.1\nhap1\n{peer} 1 1\n").as_bytes()).unwrap();
    let mut status = [0; 4];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"200\n");
    let mut reader = socket.try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let (mut out, mut body) = (Vec::new(), Vec::new());
    Message::Heartbeat.put(&mut out);
    Message::ResyncFinished.put(&mut out);
    Message::Define(described(1, table)).put(&mut out);
    for n in 0..entries {
        put_update(n + 1, n, 1, &mut body, &mut out);
        if out.len() > 1 << 16 {
            socket.write_all(&out).unwrap();
            out.clear();
        }
    }
    socket.write_all(&out).unwrap();
    let (named, used) = (format!("# table: {table},"), format!(" used:{entries}"));
    eventually("haproxy has learned all entries", || {
        let shown = ask(stats, "show table").unwrap();
        let has = |line: &str| line.starts_with(&named) && line.ends_with(&used);
        String::from_utf8_lossy(&shown).lines().any(has).then_some(())
    });
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    drain.join().unwrap();
}
