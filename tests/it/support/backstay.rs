//! Starts the real program with an HAProxy of its own, in a folder of its own, and stops both at the end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::haproxy::{binary, free_port};

/// A binary, given as `--haproxy-bin`, that checks configurations but does not start while [`Backstay::hinder`] is on.
pub(crate) const HINDERED: &str = "{dir}/haproxy";

/// Before `NAME=value` a flag is a variable of the environment.
const VARIABLE: &str = "env:";

fn hindered_haproxy(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("haproxy");
    let real = binary();
    let text = format!(
        "#!/bin/sh\nif [ -e {} ]; then case \" $* \" in *\" -c \"*) ;; *) exit 1 ;; esac; fi\nexec {} \"$@\"\n",
        dir.join("hindered").display(),
        real.display(),
    );
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a script");
}

/// A running backstay.
pub(crate) struct Backstay {
    dir: TempDir,
    child: Option<Child>,
    flags: Vec<String>,
    /// Where it serves.
    pub(crate) api: SocketAddr,
    /// Where the frontend `main` of its HAProxy listens.
    pub(crate) frontend: SocketAddr,
    /// Password of `admin`.
    pub(crate) password: String,
}

impl Backstay {
    /// Starts it on the embedded default. `{dir}` in a flag is the folder around its own.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Backstay::start_with(flags, |_| {})
    }

    /// Starts it after `prepare` has filled the folder.
    pub(crate) fn start_with(flags: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::Builder::new().prefix("bs").tempdir().expect("a folder");
        prepare(dir.path());
        if flags.contains(&HINDERED) {
            hindered_haproxy(dir.path());
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut backstay = Backstay {
            dir,
            child: None,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            api: nowhere,
            frontend: SocketAddr::from(([127, 0, 0, 1], free_port())),
            password: String::new(),
        };
        backstay.run();
        backstay
    }

    /// Starts it again after [`Backstay::kill`].
    pub(crate) fn run(&mut self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            self.spawn();
            match self.wait(deadline) {
                Ok(api) => {
                    self.api = api;
                    self.password = std::fs::read_to_string(self.folder().join("password")).unwrap_or_default();
                    self.password.truncate(self.password.trim_end().len());
                    return;
                }
                // Another test may have taken the port meanwhile.
                Err(log) if log.contains("already in use") && Instant::now() < deadline && self.fresh() => {
                    self.frontend.set_port(free_port());
                }
                Err(log) => panic!("backstay does not start:\n{log}"),
            }
        }
    }

    /// Throws away a folder that only holds what a failed start has written.
    fn fresh(&self) -> bool {
        self.password.is_empty() && std::fs::remove_dir_all(self.folder()).is_ok()
    }

    fn spawn(&mut self) {
        let log = |name: &str| std::fs::File::create(self.dir.path().join(name)).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.arg("serve").arg("--standalone").arg(self.folder()).args(["--port", "0"]);
        command.arg("--frontend-addr").arg(self.frontend.to_string());
        if !self.flags.iter().any(|flag| flag == "--haproxy-bin") {
            command.arg("--haproxy-bin").arg(binary());
        }
        // No test waits long for a reload.
        if !self.flags.iter().any(|flag| flag == "--reload-delay") {
            command.args(["--reload-delay", "20ms"]);
        }
        let dir = self.dir.path().display().to_string();
        for flag in &self.flags {
            match flag.strip_prefix(VARIABLE).and_then(|pair| pair.split_once('=')) {
                Some((name, value)) => command.env(name, value),
                None => command.arg(flag.replace("{dir}", &dir)),
            };
        }
        command.stdin(Stdio::null()).stdout(log("out")).stderr(log("log"));
        self.child = Some(command.spawn().expect("backstay"));
    }

    fn wait(&mut self, deadline: Instant) -> Result<SocketAddr, String> {
        loop {
            let out = std::fs::read_to_string(self.dir.path().join("out")).unwrap_or_default();
            let address = out.lines().find_map(|line| line.strip_prefix("backstay serves "));
            if let Some(address) = address.and_then(|rest| rest.rsplit(' ').next()) {
                return Ok(address.parse().expect("an address"));
            }
            let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                return Err(self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The folder around its own, for files of the test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The managed file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("haproxy.cfg")
    }

    /// The text of the managed file.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.config()).expect("the configuration")
    }

    /// One command to HAProxy over a connection of its own.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<String> {
        use std::io::{Read as _, Write as _};
        let mut socket = std::os::unix::net::UnixStream::connect(self.folder().join("stats.sock"))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Process id of HAProxy's master.
    pub(crate) fn haproxy(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder().join("haproxy.pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// Kills HAProxy with all its workers.
    pub(crate) fn kill_haproxy(&self) {
        let pid = self.haproxy().expect("haproxy runs");
        kill_process_group(pid, Signal::KILL).expect("haproxy runs");
    }

    /// Keeps HAProxy from starting, or no longer. The binary must be [`HINDERED`].
    pub(crate) fn hinder(&self, on: bool) {
        let mark = self.dir.path().join("hindered");
        if on { std::fs::write(mark, "") } else { std::fs::remove_file(mark) }.expect("a mark");
    }

    /// Kills it at once; HAProxy goes on.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Stops it in order and returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let _gone = kill_process(Pid::from_child(&child), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(15);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        self.kill();
        None
    }
}

impl Drop for Backstay {
    #[allow(clippy::print_stderr, reason = "a failed test shows what the program has logged")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("-- the end of backstay's log\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
        self.kill();
        if let Some(pid) = self.haproxy() {
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }
}
