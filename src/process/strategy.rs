//! How HAProxy is made to load its file, and how it is known whether it did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::Instant;

use super::child::LogTail;
use super::command::{self, Failure};
use super::master::{MasterSocket, Processes};
use super::report;
use crate::configuration::ports::Pending;

/// Time between two looks at a master that is loading.
const POLL: Duration = Duration::from_millis(40);

/// How long a reload command that has ended may leave the master untouched before its exit code alone counts.
const COMMAND_GRACE: Duration = Duration::from_secs(1);

/// What became of an attempt to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// HAProxy runs the file as it is. The text is what it or the command printed.
    Done(String),
    /// HAProxy does not run the file. The text says why.
    Refused(String),
    /// Nothing runs that could reload, or it cannot be reached: the reload is still to be done.
    Unreachable(String),
}

/// Something that can make HAProxy reload.
pub trait Reloader: Send + Sync {
    /// Reloads and waits for the result.
    fn reload(&self) -> Pending<'_, Outcome>;
}

/// Addresses of stats sockets as haproxy.cfg has them: a path, `unix@path`, `ipv4@host:port` or `host:port`.
pub type StatsAddresses = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Finds out whether an HAProxy runs.
#[derive(Clone, Default)]
pub struct Presence {
    /// The master socket, where there is one.
    pub master: Option<MasterSocket>,
    /// The stats sockets, asked for anew each time.
    pub stats: Option<StatsAddresses>,
    /// Exits with 0 when HAProxy runs.
    pub status_cmd: Option<Vec<String>>,
}

impl Presence {
    /// Whether HAProxy runs: a socket connects or the status command says so. With neither at hand it counts as running.
    pub async fn running(&self) -> bool {
        let stats = self.stats.as_ref().map(|addresses| addresses()).unwrap_or_default();
        if self.master.is_none() && stats.is_empty() && self.status_cmd.is_none() {
            return true;
        }
        if let Some(master) = &self.master
            && master.connects().await
        {
            return true;
        }
        for address in &stats {
            if connects(address).await {
                return true;
            }
        }
        match &self.status_cmd {
            Some(words) => self::status(words).await,
            None => false,
        }
    }
}

/// Runs a status command: whether it exits with 0.
pub async fn status(words: &[String]) -> bool {
    match run(words, Duration::from_secs(10)).await {
        Ok(done) => done.success(),
        Err(failure) => {
            tracing::warn!(%failure, "the status command has no result");
            false
        }
    }
}

async fn connects(address: &str) -> bool {
    let work = async {
        let bare = address.split_once('@').map_or(address, |(_, bare)| bare);
        if bare.starts_with('/') || address.starts_with("unix@") {
            UnixStream::connect(bare).await.is_ok()
        } else {
            TcpStream::connect(bare).await.is_ok()
        }
    };
    tokio::time::timeout(Duration::from_secs(2), work).await.unwrap_or(false)
}

async fn run(words: &[String], limit: Duration) -> Result<command::Finished, Failure> {
    let mut command = Command::new(words.first().map(String::as_str).unwrap_or_default());
    command.args(words.iter().skip(1));
    command::run(command, limit).await
}

/// The way to reload.
#[derive(Clone)]
pub enum How {
    /// A command, run without a shell. With a master socket in `Presence` the result is looked up there too.
    Command(Vec<String>),
    /// `reload` on the master socket; its answer says the result from 2.7 on, `show proc` before.
    Master(MasterSocket),
    /// SIGUSR2 to the supervised master, result from `show proc`, words from its log: for 2.6.
    Signal {
        /// Process id of the master; `None` while it is down.
        pid: watch::Receiver<Option<u32>>,
        /// Its socket.
        master: MasterSocket,
        /// Its last log lines.
        log: Arc<LogTail>,
    },
}

/// A way to reload, with the means to see whether HAProxy runs.
#[derive(Clone)]
pub struct Strategy {
    /// The way.
    pub how: How,
    /// Whether HAProxy runs.
    pub presence: Presence,
    /// How long a reload may take, 120 s by default.
    pub limit: Duration,
}

impl Strategy {
    /// With the default time limit.
    pub fn new(how: How, presence: Presence) -> Self {
        Strategy { how, presence, limit: Duration::from_mins(2) }
    }

    async fn attempt(&self) -> Outcome {
        if !self.presence.running().await {
            return Outcome::Unreachable("haproxy does not run".to_owned());
        }
        let deadline = Instant::now() + self.limit;
        let outcome = match &self.how {
            How::Command(words) => self.by_command(words, deadline).await,
            How::Master(master) => by_master(master, deadline).await,
            How::Signal { pid, master, log } => {
                let pid = *pid.borrow();
                by_signal(pid, master, log, deadline).await
            }
        };
        match outcome {
            // It may have gone while it was asked.
            Outcome::Refused(message) if !self.presence.running().await => Outcome::Unreachable(message),
            outcome => outcome,
        }
    }

    async fn by_command(&self, words: &[String], deadline: Instant) -> Outcome {
        let before = match &self.presence.master {
            Some(master) => master.processes(POLL * 50).await.ok().map(|before| (master, before)),
            None => None,
        };
        let done = match run(words, deadline - Instant::now()).await {
            Ok(done) => done,
            Err(failure) => return Outcome::Unreachable(format!("reload-cmd: {failure}")),
        };
        if !done.success() {
            let shown = words.join(" ");
            let status = done.status.code().map_or_else(|| done.status.to_string(), |c| format!("exit status {c}"));
            let said = if done.stderr.trim().is_empty() { done.stdout } else { done.stderr };
            return Outcome::Refused(report::cap(&format!("executing {shown} failed: {status}, {}", said.trim())));
        }
        let Some((master, before)) = before else { return Outcome::Done(report::cap(done.stdout.trim())) };
        // The command may only have sent a signal: its exit code then says nothing about the new configuration.
        let grace = Instant::now() + COMMAND_GRACE;
        loop {
            match master.processes(POLL * 50).await {
                Ok(now) if now.reloads == before.reloads && now.master == before.master => {}
                _ => break,
            }
            if Instant::now() >= grace {
                return Outcome::Done(report::cap(done.stdout.trim()));
            }
            tokio::time::sleep(POLL).await;
        }
        match settled(master, &before, deadline).await {
            Outcome::Done(_) => Outcome::Done(report::cap(done.stdout.trim())),
            outcome => outcome,
        }
    }
}

impl Reloader for Strategy {
    fn reload(&self) -> Pending<'_, Outcome> {
        Box::pin(self.attempt())
    }
}

async fn by_master(master: &MasterSocket, deadline: Instant) -> Outcome {
    loop {
        let Ok(before) = master.processes(POLL * 50).await else {
            return Outcome::Unreachable("the master socket does not answer".to_owned());
        };
        let answer = match master.send("reload", deadline - Instant::now()).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                return Outcome::Unreachable("the reload did not end in time".to_owned());
            }
            Err(_) => String::new(),
        };
        let Some((result, logs)) = answer.strip_prefix("Success=").and_then(|rest| rest.split_once('\n')) else {
            return settled(master, &before, deadline).await;
        };
        let logs = logs.strip_prefix("--\n").unwrap_or(logs).trim();
        if result.trim() == "1" {
            return Outcome::Done(report::cap(logs));
        }
        if !logs.contains("reload is still in progress") {
            return Outcome::Refused(report::detail(logs, "", ""));
        }
        if Instant::now() >= deadline {
            return Outcome::Unreachable("another reload did not end in time".to_owned());
        }
        tokio::time::sleep(POLL * 5).await;
    }
}

async fn by_signal(pid: Option<u32>, master: &MasterSocket, log: &LogTail, deadline: Instant) -> Outcome {
    let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
        return Outcome::Unreachable("haproxy does not run".to_owned());
    };
    let Ok(before) = master.processes(POLL * 50).await else {
        return Outcome::Unreachable("the master socket does not answer".to_owned());
    };
    let mark = log.position();
    if let Err(error) = kill_process(pid, Signal::USR2) {
        return Outcome::Unreachable(format!("the master cannot be sent a signal: {error}"));
    }
    match settled(master, &before, deadline).await {
        Outcome::Done(_) => Outcome::Done(report::cap(&log.since(mark))),
        Outcome::Refused(fallback) => {
            // The lines come through a pipe and may be a moment behind the socket.
            let patience = Instant::now() + Duration::from_secs(1);
            while !log.since(mark).contains("[ALERT]") && Instant::now() < patience {
                tokio::time::sleep(POLL).await;
            }
            let said = log.since(mark);
            Outcome::Refused(if said.contains("[ALERT]") { report::detail(&said, "", "") } else { fallback })
        }
        unreachable @ Outcome::Unreachable(_) => unreachable,
    }
}

/// Waits until a master that is loading has either a fresh worker or one more failure.
async fn settled(master: &MasterSocket, before: &Processes, deadline: Instant) -> Outcome {
    loop {
        // While the master loads, its socket refuses, resets or does not answer.
        if let Ok(now) = master.processes(POLL * 50).await
            && (now.reloads > before.reloads || now.master != before.master)
            && let Some(outcome) = judge(master, before, &now).await
        {
            return outcome;
        }
        if Instant::now() >= deadline {
            return Outcome::Unreachable("the reload did not end in time".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn judge(master: &MasterSocket, before: &Processes, now: &Processes) -> Option<Outcome> {
    let fresh = now.has_fresh_worker(before);
    let logs = if now.version.as_ref().is_some_and(|v| v.at_least(2, 7)) {
        master.send("show startup-logs", POLL * 50).await.unwrap_or_default()
    } else {
        String::new()
    };
    // From 3.1 on a worker is listed while it still loads: only the log tells that it is done.
    let loading = fresh && now.version.as_ref().is_some_and(|v| v.at_least(3, 1)) && !logs.contains("Loading success");
    if fresh && !loading {
        return Some(Outcome::Done(report::cap(logs.trim())));
    }
    let failed = now.failed > before.failed || (now.failed > 0 && now.reloads > before.reloads && !fresh);
    if failed || logs.contains("Loading failure") || logs.contains("Failed to load worker") {
        let said = report::detail(&logs, "", "");
        return Some(Outcome::Refused(if said.is_empty() {
            "haproxy kept its former worker: the new configuration could not be loaded".to_owned()
        } else {
            said
        }));
    }
    None
}

/// The file a socket address of `stats socket` names, if it is a file.
pub fn unix_path(address: &str) -> Option<PathBuf> {
    let bare = address.strip_prefix("unix@").unwrap_or(address);
    if bare.starts_with('/') || address.starts_with("unix@") { Some(Path::new(bare).to_owned()) } else { None }
}
