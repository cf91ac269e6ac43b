//! HAProxy and backstay, each in processes of its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http::Client;
use crate::support::{HEAD, ask, eventually, free_port, haproxy, memory, started};

/// The REST API.
pub(crate) const API: &str = "/v2/services/haproxy";

/// `crypt` is a user whose password takes milliseconds to verify.
const CONFIG: &str = "\
    user crypt password {hash}
frontend web
    bind unix@{dir}/web.sock mode 600
    default_backend b0
";

/// Processor time of the children of a process that have ended, in steps of 10 ms.
pub(crate) fn reaped(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[13..15].iter().map(|field| field.parse::<u64>().expect("ticks")).sum::<u64>();
    Duration::from_millis(10 * ticks)
}

/// A folder with a configuration, perhaps an HAProxy that runs on it, and perhaps a backstay.
pub(crate) struct Rig {
    dir: TempDir,
    master: Option<Child>,
    backstay: Option<Child>,
    pub(crate) port: u16,
}

impl Rig {
    /// So many backends with two servers each, and more sections, in which `{dir}` becomes the folder. No server is ever
    /// connected to.
    pub(crate) fn new(backends: usize, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let hash = pwhash::sha512_crypt::hash("bench").expect("a hash");
        let mut text = format!("{HEAD}{CONFIG}{more}\n").replace("{hash}", &hash);
        for n in 0..backends {
            let (high, low) = (n / 250, n % 250 + 1);
            write!(
                text,
                "backend b{n}\n    balance roundrobin\n    server s1 127.1.{high}.{low}:80 weight 10 maxconn 100\n    \
                 server s2 127.2.{high}.{low}:80 check inter 100s weight 10 maxconn 100 disabled\n"
            )
            .expect("text");
        }
        let rig = Rig { dir, master: None, backstay: None, port: free_port() };
        std::fs::create_dir(rig.path("maps")).expect("a folder");
        std::fs::write(rig.path("haproxy.cfg"), text.replace("{dir}", &rig.dir.path().display().to_string()))
            .expect("a file");
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts HAProxy as a master with a worker.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(haproxy());
        command.arg("-W").arg("-db").arg("-f").arg(self.path("haproxy.cfg")).arg("-S").arg(self.path("master.sock"));
        self.master = Some(started(&mut command));
        eventually("haproxy answers", || self.worker());
    }

    /// The process of HAProxy that answers.
    pub(crate) fn worker(&self) -> Option<u32> {
        let info = self.ask("show info").ok()?;
        String::from_utf8_lossy(&info).lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok())
    }

    /// Lets the master reload, without backstay.
    pub(crate) fn reload(&self) {
        let mut socket = UnixStream::connect(self.path("master.sock")).expect("the master");
        socket.write_all(b"reload\n").expect("the master takes commands");
    }

    /// Waits until another process of HAProxy answers.
    pub(crate) fn replaced(&self, worker: u32) {
        eventually("haproxy has reloaded", || self.worker().filter(|other| *other != worker));
    }

    /// Starts backstay and returns its process, the time until its first answer, and the connection that had it.
    pub(crate) fn serve(&mut self, flags: &[&str]) -> (u32, Duration, Client) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.args(["serve", "--userlist", "users", "--port", &self.port.to_string()]);
        let paths = [
            ("--config-file", "haproxy.cfg"),
            ("--state-dir", "state"),
            ("--maps-dir", "maps"),
            ("--ssl-certs-dir", "certificates"),
            ("--general-storage-dir", "general"),
            ("--spoe-dir", "spoe"),
            ("--master-runtime", "master.sock"),
        ];
        for (flag, name) in paths {
            command.arg(flag).arg(self.path(name));
        }
        command.arg("--haproxy-bin").arg(haproxy()).args(flags);
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let begin = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("backstay");
        let pid = child.id();
        self.backstay = Some(child);
        let mut client = eventually("backstay listens", || self.client().ok());
        client.get(&format!("{API}/configuration/version"));
        (pid, begin.elapsed(), client)
    }

    pub(crate) fn client(&self) -> std::io::Result<Client> {
        Client::open(self.port, "admin")
    }

    /// One command of the Runtime API; the bytes of the answer.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<Vec<u8>> {
        ask(&self.path("stats.sock"), command)
    }

    /// Time and processor time of a check of the file.
    pub(crate) fn check(&self) -> (Duration, Duration) {
        let (begin, before) = (Instant::now(), reaped(std::process::id()));
        let mut command = Command::new(haproxy());
        command.arg("-W").arg("-c").arg("-f").arg(self.path("haproxy.cfg"));
        let done = started(&mut command).wait();
        assert!(done.expect("haproxy").success(), "haproxy refuses the file");
        (begin.elapsed(), reaped(std::process::id()).saturating_sub(before))
    }

    /// Ends backstay; its state stays.
    pub(crate) fn stop_serving(&mut self) {
        if let Some(mut child) = self.backstay.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop_serving();
        if let Some(mut master) = self.master.take() {
            // Its workers end with it.
            if kill_process(Pid::from_child(&master), Signal::TERM).is_err() {
                drop(master.kill());
            }
            drop(master.wait());
        }
    }
}

/// By how much the memory of a process grows at most while something is done.
pub(crate) fn growth(pid: u32, work: impl FnOnce()) -> usize {
    // 5 makes the highest point so far the present one.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the process is ours");
    let before = memory(pid, "VmRSS");
    work();
    memory(pid, "VmHWM").saturating_sub(before)
}

/// A server to add.
pub(crate) fn server(name: &str) -> String {
    format!(r#"{{"name":"{name}","address":"127.9.9.9","port":80}}"#)
}
