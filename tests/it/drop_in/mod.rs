//! The program called as `dataplaneapi`: its flags, YAML and environment, its listeners, signals and exit codes.

mod edits;
mod listeners;
mod logs;
mod process;
mod settings;
pub(crate) mod wire;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::client::{Client, Transport};
use crate::support::haproxy::{Haproxy, binary, eventually, free_port};

/// A configuration with users and something to manage.
const BODY: &str = "
userlist controller
    user admin insecure-password adminpwd
frontend fe
    bind unix@{dir}/fe.sock
    default_backend be
backend be
    server s1 127.0.0.1:9 weight 5
";
const PASSWORD: &str = "adminpwd";

/// A folder with an HAProxy, and the program under its other name.
pub(crate) struct Bench {
    pub(crate) haproxy: Haproxy,
    child: Option<Child>,
    /// Where it listens, with the flag `--port`.
    pub(crate) api: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Bench {
    /// Without a running HAProxy.
    pub(crate) fn new() -> Self {
        let haproxy = Haproxy::prepare(BODY);
        let link = haproxy.dir().join("dataplaneapi");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_backstay"), link).expect("a link");
        let api = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Bench { haproxy, child: None, api, environment: Vec::new() }
    }

    /// With a running HAProxy.
    pub(crate) fn running() -> Self {
        let mut bench = Bench::new();
        bench.haproxy.start();
        bench
    }

    /// Sets a variable of the environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), self.filled(value)));
    }

    pub(crate) fn dir(&self) -> &Path {
        self.haproxy.dir()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// A script of the folder, to be found in the path.
    pub(crate) fn script(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path("bin")).expect("a folder");
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{}\n", self.filled(text))).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
    }

    pub(crate) fn filled(&self, text: &str) -> String {
        text.replace("{dir}", &self.dir().display().to_string()).replace("{port}", &self.api.port().to_string())
    }

    /// Flags that every start needs: nothing outside of the folder is touched.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags: Vec<String> = ["--port", &self.api.port().to_string()].map(ToOwned::to_owned).into();
        let binary = binary().into_string().expect("a path");
        for (flag, value) in [
            ("-f", "{dir}/d.yaml"),
            ("-c", "{dir}/haproxy.cfg"),
            ("-b", &*binary),
            ("-t", "{dir}/tr"),
            ("-p", "{dir}/maps"),
            ("--ssl-certs-dir", "{dir}/ssl"),
            ("--general-storage-dir", "{dir}/general"),
            ("--spoe-dir", "{dir}/spoe"),
            ("-r", "touch {dir}/reloaded"),
            ("-s", "touch {dir}/restarted"),
            ("--log-level", "info"),
        ] {
            flags.extend([flag.to_owned(), self.filled(value)]);
        }
        flags
    }

    /// Starts it with the usual flags and these, and waits until it answers on its TCP port.
    pub(crate) fn start(&mut self, more: &[&str]) {
        let mut flags = self.flags();
        flags.extend(more.iter().map(|flag| self.filled(flag)));
        self.start_bare(&flags);
    }

    /// Starts it with nothing but these flags.
    pub(crate) fn start_bare(&mut self, flags: &[String]) {
        self.spawn(flags);
        self.wait();
    }

    /// Waits until it answers.
    pub(crate) fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !answers(self.api) {
            assert!(self.lives() && Instant::now() < deadline, "it does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn spawn(&mut self, flags: &[String]) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new(self.path("dataplaneapi"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.args(flags).env("PATH", path).current_dir(self.dir());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("the program"));
    }

    /// Starts it with the usual flags and these, and returns its exit code: it is expected to end by itself.
    pub(crate) fn fails(&mut self, more: &[&str]) -> Option<i32> {
        let mut flags = self.flags();
        flags.extend(more.iter().map(|flag| self.filled(flag)));
        self.fails_bare(&flags)
    }

    pub(crate) fn fails_bare(&mut self, flags: &[String]) -> Option<i32> {
        self.spawn(flags);
        eventually("it ends", || !self.lives());
        self.child.take()?.wait().expect("an end").code()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until it has logged something.
    pub(crate) fn logged(&self, words: &str) {
        eventually(words, || self.log().contains(words));
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Sends a signal and returns the exit code.
    pub(crate) fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        eventually("it ends", || !self.lives());
        self.child.take()?.wait().expect("an end").code()
    }

    /// A caller of the TCP port with the right password.
    pub(crate) fn client(&self, transport: Transport) -> Client {
        Client::new(transport, self.api, PASSWORD)
    }

    /// The text of the managed file.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.path("haproxy.cfg")).expect("the configuration")
    }
}

impl Drop for Bench {
    #[allow(clippy::print_stderr, reason = "a failed test shows what the program has logged")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- log\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn answers(api: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(api) else { return false };
    let asked = stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    asked.is_ok() && std::io::Read::read_to_string(&mut stream, &mut answer).is_ok() && answer.contains(" 200 ")
}
