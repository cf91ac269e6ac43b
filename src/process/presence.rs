//! Whether HAProxy runs, and which worker answers, as far as its sockets and a status command tell.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::process::Command;
use tokio::time::Instant;

use super::command::{self, Failure};
use super::master::MasterSocket;
use crate::runtime::Address;

/// How long one look at a socket may take.
const LOOK: Duration = Duration::from_secs(2);

/// How long a status command may take.
const STATUS: Duration = Duration::from_secs(10);

/// Answers to `show info` are short; more than this is not read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Where HAProxy listens for commands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// Stats sockets of the text that HAProxy is known to have loaded last.
    pub loaded: Vec<Address>,
    /// Stats sockets of the present text: some of them may only appear with the next reload.
    pub present: Vec<Address>,
}

impl Listening {
    fn all(&self) -> impl Iterator<Item = &Address> {
        self.loaded.iter().chain(self.present.iter().filter(|address| !self.loaded.contains(address)))
    }
}

/// Gives the stats sockets; asked for anew each time.
pub type StatsSockets = Arc<dyn Fn() -> Listening + Send + Sync>;

/// Whether HAProxy runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Up,
    /// It does not run. The text says how that is known.
    Down(String),
    /// Nothing that could be asked is known. The text says so.
    Unknown(String),
}

/// A worker that answers on a stats socket and is not about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Process id. After a restart in a container it may be that of the former one.
    pid: u32,
    /// Seconds since its start.
    uptime: u64,
}

/// Finds out whether an HAProxy runs.
#[derive(Clone, Default)]
pub struct Presence {
    /// The master socket, where there is one.
    pub master: Option<MasterSocket>,
    /// The stats sockets, where they are known.
    pub stats: Option<StatsSockets>,
    /// Exits with 0 when HAProxy runs.
    pub status_cmd: Option<Vec<String>>,
    /// The workers that answered last.
    pub answered: Arc<Mutex<Vec<Process>>>,
}

/// A process of this machine, told from a later one under its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    /// When it started, in the kernel's words.
    started: String,
}

impl Process {
    /// The process of that number; `None` when there is none that we can see.
    fn of(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; behind it the fields are numbered from 3, and the start is the 22nd.
        let (_, fields) = stat.rsplit_once(')')?;
        Some(Process { pid, started: fields.split_ascii_whitespace().nth(19)?.to_owned() })
    }

    fn lives(&self) -> bool {
        Process::of(self.pid).as_ref() == Some(self)
    }
}

impl Presence {
    /// Whether HAProxy runs: a socket connects, where it listened before or where it is to listen, or the status command
    /// says so.
    pub async fn standing(&self) -> Standing {
        let stats = self.listening();
        if let Some(master) = &self.master
            && master.connects().await
        {
            return Standing::Up;
        }
        for address in stats.all() {
            if connects(address).await {
                return Standing::Up;
            }
        }
        if let Some(words) = &self.status_cmd {
            return status(words).await;
        }
        // A process that was to take over and failed leaves the former one without its stats socket.
        if self.answered().iter().any(Process::lives) {
            return Standing::Up;
        }
        let mut silent: Vec<String> = stats.all().map(ToString::to_string).collect();
        if self.master.is_none() && stats.loaded.is_empty() {
            return Standing::Unknown(match &silent[..] {
                [] => "neither a master socket nor a stats socket nor a status command is there to ask".to_owned(),
                _ => format!("nothing listens on {}, which may only appear with a reload", silent.join(" and ")),
            });
        }
        silent.extend(self.master.iter().map(|master| master.path().display().to_string()));
        Standing::Down(format!("haproxy does not run: nothing listens on {}", silent.join(" and ")))
    }

    /// The workers that answer on stats sockets: none when nothing answers.
    pub async fn workers(&self) -> Vec<Worker> {
        let mut found = Vec::new();
        for address in self.listening().all() {
            if let Ok(answer) = limited(ask(address, "show info\n")).await
                && let Some(worker) = Worker::parse(&answer)
                && !found.contains(&worker)
            {
                found.push(worker);
            }
        }
        if !found.is_empty() {
            *self.answered() = found.iter().filter_map(|worker| Process::of(worker.pid)).collect();
        }
        found
    }

    fn answered(&self) -> MutexGuard<'_, Vec<Process>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker can be asked: it listens on a stats socket that we can reach.
    pub async fn can_ask_workers(&self) -> bool {
        for address in self.listening().all() {
            if connects(address).await {
                return true;
            }
        }
        false
    }

    /// Whether there is a stats socket at all.
    pub fn knows_workers(&self) -> bool {
        self.listening().all().next().is_some()
    }

    fn listening(&self) -> Listening {
        self.stats.as_ref().map(|sockets| sockets()).unwrap_or_default()
    }
}

impl Worker {
    /// Reads the answer to `show info`; `None` for one without a process id, and for a worker that is about to stop.
    fn parse(answer: &str) -> Option<Worker> {
        let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if field("Stopping").is_some_and(|value| value.trim() != "0") {
            return None;
        }
        let uptime = field("Uptime_sec").and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        Some(Worker { pid: field("Pid")?.trim().parse().ok()?, uptime })
    }

    /// Whether it started after those of `before` answered, which was `ago`.
    pub fn is_new(&self, before: &[Worker], ago: Duration) -> bool {
        if before.is_empty() {
            // Nothing answered: one that is older than the question was there all the time.
            return self.uptime <= ago.as_secs();
        }
        before.iter().all(|old| old.pid != self.pid || self.uptime < old.uptime)
    }
}

/// Runs a status command, which exits with 0 when HAProxy runs.
pub async fn status(words: &[String]) -> Standing {
    let shown = words.join(" ");
    match run(words, STATUS).await {
        Ok(done) if done.success() => Standing::Up,
        Ok(done) => Standing::Down(format!("haproxy does not run: {shown} ended with {}", done.shown_status())),
        Err(failure) => Standing::Unknown(format!("the status command has no result: {failure}")),
    }
}

/// Runs a command given as words.
pub(super) async fn run(words: &[String], limit: Duration) -> Result<command::Finished, Failure> {
    let mut command = Command::new(words.first().map(String::as_str).unwrap_or_default());
    command.args(words.iter().skip(1));
    command::run(command, limit).await
}

async fn connects(address: &Address) -> bool {
    limited(address.connect()).await.is_ok()
}

async fn ask(address: &Address, command: &str) -> io::Result<String> {
    let mut socket = address.connect().await?;
    socket.write_all(command.as_bytes()).await?;
    let mut answer = BytesMut::new();
    while answer.len() < ANSWER_LIMIT && socket.read(&mut answer).await? > 0 {}
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn limited<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LOOK, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Looks again and again until a worker answers that was not there before, or until `deadline`.
pub(super) async fn new_worker(presence: &Presence, before: &Seen, deadline: Instant, every: Duration) -> bool {
    loop {
        let ago = before.at.elapsed();
        if presence.workers().await.iter().any(|worker| worker.is_new(&before.workers, ago)) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(every).await;
    }
}

/// The workers that answered at a moment.
#[derive(Debug)]
pub(super) struct Seen {
    workers: Vec<Worker>,
    at: Instant,
}

impl Seen {
    /// Those that answer now.
    pub(super) async fn now(presence: &Presence) -> Seen {
        let at = Instant::now();
        Seen { workers: presence.workers().await, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_new_by_its_number_or_because_it_started_later() {
        let answer = |pid: u32, uptime: u64, stopping: &str| {
            format!("Name: HAProxy\nUptime: 0d\nUptime_sec: {uptime}\nPid: {pid}\n{stopping}\n")
        };
        let worker = |pid, uptime| Worker::parse(&answer(pid, uptime, "Stopping: 0")).unwrap();
        assert_eq!(Worker::parse(&answer(7, 1, "Stopping: 1")), None);
        assert_eq!(Worker::parse("Permission denied\n"), None);
        let before = [worker(7, 100)];
        let second = Duration::from_secs(1);
        assert!(!worker(7, 101).is_new(&before, second));
        assert!(worker(8, 500).is_new(&before, second));
        assert!(worker(7, 0).is_new(&before, second), "in a container numbers begin again");
        assert!(worker(8, 1).is_new(&[], second) && !worker(8, 60).is_new(&[], second));
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.lives());
        assert!(!Process { started: "1".to_owned(), ..own }.lives());
        assert_eq!(Process::of(4_194_303), None);
    }
}
