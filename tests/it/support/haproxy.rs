//! Starts a real HAProxy for a test, in a folder of its own, and stops it at the end.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The binary to test with.
pub(crate) fn binary() -> OsString {
    std::env::var_os("HAPROXY_BIN").unwrap_or_else(|| "haproxy".into())
}

/// Another version, if there is one here; else the same.
pub(crate) fn other_binary() -> OsString {
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/haproxy/3.2/haproxy");
    if other.try_exists().is_ok_and(|there| there) { other.into() } else { binary() }
}

/// `(2, 6)` for HAProxy 2.6.12.
pub(crate) fn version() -> (u32, u32) {
    let output = Command::new(binary()).arg("-v").output().expect("haproxy must be installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let mut parts = number.expect("a version").split(['.', '-']).map(|part| part.parse().expect("a number"));
    (parts.next().expect("major"), parts.next().expect("minor"))
}

/// A free TCP port of the loopback. Nothing keeps others from taking it, but the system hands out others first.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Tries again until it holds or 10 seconds have passed.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with `haproxy.cfg` and a stats socket, and the HAProxy that runs on them.
#[derive(Debug)]
pub(crate) struct Haproxy {
    dir: TempDir,
    child: Option<Child>,
    binary: OsString,
}

impl Haproxy {
    /// A folder without a running HAProxy. `body` follows a `global` section with the stats socket and a `defaults`
    /// section; `{dir}` in it becomes the folder.
    pub(crate) fn prepare(body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let haproxy = Haproxy { dir, child: None, binary: binary() };
        haproxy.configure(body);
        haproxy
    }

    /// [`Haproxy::run`] of a certain binary.
    pub(crate) fn run_with(binary: OsString, body: &str) -> Self {
        let mut haproxy = Haproxy::prepare(body);
        haproxy.binary = binary;
        haproxy.start();
        haproxy
    }

    /// [`Haproxy::prepare`] and [`Haproxy::start`].
    pub(crate) fn run(body: &str) -> Self {
        let mut haproxy = Haproxy::prepare(body);
        haproxy.start();
        haproxy
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, body: &str) {
        let mut text = String::new();
        let socket = self.socket();
        writeln!(text, "global\n    stats socket {} mode 600 level admin", socket.display()).expect("text");
        text.push_str(
            "defaults\n    mode http\n    timeout connect 2s\n    timeout client 10s\n    timeout server 10s\n",
        );
        text.push_str(&body.replace("{dir}", &self.dir().display().to_string()));
        std::fs::write(self.config(), text).expect("the configuration");
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir().join("haproxy.cfg")
    }

    /// Its stats socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("stats.sock")
    }

    /// A file beside the configuration.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Starts HAProxy and waits until its stats socket answers.
    pub(crate) fn start(&mut self) {
        self.stop();
        self.child = Some(self.spawn(&[]));
        self.wait();
    }

    /// Starts a new process that tells the old one to finish (`-sf`), as a reload does, and waits until it serves.
    /// The old one is left alone: it ends when its last connection does.
    pub(crate) fn reload(&mut self) -> Child {
        self.reload_with(&[])
    }

    /// [`Haproxy::reload`] with more flags.
    pub(crate) fn reload_with(&mut self, flags: &[&str]) -> Child {
        let old = self.child.take().expect("a running haproxy");
        let new = self.spawn(&[flags, &["-sf", &old.id().to_string()]].concat());
        let pid = new.id();
        self.child = Some(new);
        eventually("the new process answers", || self.pid() == Some(pid));
        old
    }

    /// Kills it at once.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    fn spawn(&self, more: &[&str]) -> Child {
        let mut command = Command::new(&self.binary);
        command.arg("-db").arg("-f").arg(self.config()).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = std::fs::File::create(self.dir().join("haproxy.log")).expect("a log");
        command.stderr(log).spawn().expect("haproxy must be installed")
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.pid().is_none() {
            let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            let log = || std::fs::read_to_string(self.dir().join("haproxy.log")).unwrap_or_default();
            assert!(!ended && Instant::now() < deadline, "haproxy does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One command over a connection of its own; what a test uses to look from outside.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<String> {
        use std::io::{Read as _, Write as _};
        let mut socket = std::os::unix::net::UnixStream::connect(self.socket())?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn pid(&self) -> Option<u32> {
        let info = self.ask("show info").ok()?;
        info.lines().find_map(|line| line.strip_prefix("Pid: "))?.trim().parse().ok()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.stop();
    }
}
