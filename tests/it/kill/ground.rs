//! The processes that are killed: an HAProxy with its master, and a backstay beside it.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::WRITERS;
use super::writer::NAMES;
use crate::support::client::{Client, Transport};
use crate::support::haproxy::{binary, eventually};

/// Things that no writer touches, around those that they write.
const CONFIGURATION: &str = "
global
    stats socket {dir}/stats.sock mode 600 level admin
    hard-stop-after 5s
defaults
    mode http
    timeout connect 2s
    timeout client 10s
    timeout server 10s
userlist controller
    user admin insecure-password adminpwd
frontend web
    bind unix@{dir}/web.sock
    http-request deny if { path,map({dir}/maps/live.map) -m str never }
    http-request return status 200
backend app
    balance roundrobin
backend raw
    balance roundrobin
backend live
";

/// How backstay reloads HAProxy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reloading {
    /// Through the master's socket.
    Master,
    /// By a command, with the master's socket to see what became of it.
    CommandSeen,
    /// By a command, with the stats socket only.
    Command,
}

/// A folder with everything in it.
pub(super) struct Ground {
    dir: TempDir,
    master: Option<Child>,
    backstay: Option<Child>,
    /// Where backstay serves.
    api: SocketAddr,
    /// How often backstay was started.
    starts: usize,
}

impl Ground {
    /// A folder in which nothing runs.
    pub(super) fn new() -> Self {
        let mut dir = tempfile::Builder::new().prefix("kill").tempdir().expect("a folder");
        dir.disable_cleanup(std::env::var_os("BACKSTAY_KILL_KEEP").is_some());
        let ground = Ground { dir, master: None, backstay: None, api: ([127, 0, 0, 1], 0).into(), starts: 0 };
        // Servers whose states are written, for each writer.
        let names = (0..WRITERS).flat_map(|writer| (0..NAMES).map(move |at| format!("w{writer}n{at}")));
        let servers = names.fold(String::new(), |text, name| text + &format!("    server {name} 127.0.0.1:1\n"));
        ground.write("haproxy.cfg", &(ground.filled(CONFIGURATION) + &servers));
        std::fs::create_dir(ground.path("maps")).expect("a folder");
        ground.write("maps/live.map", "/never never\n");
        std::fs::create_dir(ground.path("spoe")).expect("a folder");
        ground.write("spoe/kill.cfg", "[kill]\nspoe-message m\n    args ip=src\n    event on-client-session\n");
        ground
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{dir}", &self.dir().display().to_string())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Starts HAProxy and waits until it serves.
    pub(super) fn start_haproxy(&mut self) {
        let mut command = Command::new(binary());
        command.arg("-W").arg("-S").arg(self.path("master.sock")).arg("-f").arg(self.path("haproxy.cfg"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("haproxy.log")).expect("a log");
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let master = command.spawn().expect("haproxy must be installed");
        self.write("master.pid", &master.id().to_string());
        self.master = Some(master);
        eventually("haproxy serves", || self.worker().is_some());
    }

    /// Starts backstay, and waits until it serves.
    pub(super) fn start_backstay(&mut self, reloading: Reloading) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.arg("serve").args(["--port", "0", "--reload-delay", "20ms"]).arg("-b").arg(binary());
        for (flag, name) in [
            ("-c", "haproxy.cfg"),
            ("--state-dir", "state"),
            ("-p", "maps"),
            ("--ssl-certs-dir", "ssl"),
            ("--general-storage-dir", "general"),
            ("--spoe-dir", "spoe"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        if !matches!(reloading, Reloading::Command) {
            command.arg("-m").arg(self.path("master.sock"));
        }
        if !matches!(reloading, Reloading::Master) {
            let reload = self.filled("#!/bin/sh\nkill -USR2 $(cat {dir}/master.pid)\n");
            self.write("reload.sh", &reload);
            command.arg("-r").arg(self.filled("sh {dir}/reload.sh"));
        }
        self.starts += 1;
        let name = format!("log.{}", self.starts);
        let log = std::fs::File::create(self.path(&name)).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.backstay = Some(command.spawn().expect("backstay"));
        let deadline = Instant::now() + Duration::from_secs(30);
        self.api = loop {
            let log = std::fs::read_to_string(self.path(&name)).unwrap_or_default();
            let address = log.split_once("serving gRPC and REST address=\"").and_then(|(_, rest)| rest.split_once('"'));
            if let Some(address) = address.and_then(|(address, _)| address.parse().ok()) {
                break address;
            }
            assert!(self.backstay_runs() && Instant::now() < deadline, "backstay does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
    }

    /// The last lines that backstay has logged since its last start, and HAProxy at all.
    pub(super) fn log(&self) -> String {
        let last = |name: &str| {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("-- {name}\n{}\n", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        let before = last(&format!("log.{}", self.starts.saturating_sub(1)));
        before + &last(&format!("log.{}", self.starts)) + &last("haproxy.log")
    }

    /// A caller.
    pub(super) fn client(&self, transport: Transport) -> Client {
        Client::new(transport, self.api, "adminpwd")
    }

    /// One command to HAProxy's worker over a connection of its own; empty when nobody answers.
    pub(super) fn ask(&self, command: &str) -> String {
        answer(&self.path("stats.sock"), &format!("{command}\n"))
    }

    /// The answer of HAProxy's frontend to a request.
    pub(super) fn visit(&self) -> String {
        answer(&self.path("web.sock"), "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    }

    /// Process of HAProxy's worker.
    pub(super) fn worker(&self) -> Option<Pid> {
        let info = self.ask("show info");
        Pid::from_raw(info.lines().find_map(|line| line.strip_prefix("Pid: "))?.trim().parse().ok()?)
    }

    /// Another's reload by a signal.
    pub(super) fn reload_by_signal(&self) {
        if let Some(master) = &self.master {
            let _gone = kill_process(Pid::from_child(master), Signal::USR2);
        }
    }

    /// Another's reload through the master's socket.
    pub(super) fn reload_by_master(&self) {
        answer(&self.path("master.sock"), "reload\n");
    }

    pub(super) fn kill_backstay(&mut self) {
        end(self.backstay.take());
    }

    /// Kills the worker. Its master ends by itself then.
    pub(super) fn kill_worker(&mut self) {
        if let Some(worker) = self.worker() {
            let _gone = kill_process(worker, Signal::KILL);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && self.haproxy_runs() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill_haproxy();
    }

    /// Kills the master only. Workers end by themselves then.
    pub(super) fn kill_master(&mut self) {
        if let Some(mut master) = self.master.take() {
            drop(master.kill());
            drop(master.wait());
            eventually("workers end", || self.worker().is_none());
            let _gone = kill_process_group(Pid::from_child(&master), Signal::KILL);
        }
    }

    /// Kills all processes of HAProxy.
    pub(super) fn kill_haproxy(&mut self) {
        if let Some(master) = &self.master {
            let _gone = kill_process_group(Pid::from_child(master), Signal::KILL);
        }
        end(self.master.take());
    }

    pub(super) fn haproxy_runs(&mut self) -> bool {
        self.master.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(super) fn backstay_runs(&mut self) -> bool {
        self.backstay.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.kill_backstay();
        self.kill_haproxy();
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        drop(child.kill());
        drop(child.wait());
    }
}

fn answer(socket: &Path, question: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_default()
}
