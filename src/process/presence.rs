//! Whether HAProxy runs, and which worker answers, as far as its sockets and a status command tell.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use super::command::{self, Failure};
use super::master::MasterSocket;
use crate::runtime::Address;

/// How long one look at a socket may take.
const LOOK: Duration = Duration::from_secs(2);

/// How long a status command may take.
const STATUS: Duration = Duration::from_secs(10);

/// How long the worker of our reload may be behind one that another's reload has brought.
const BEHIND: Duration = Duration::from_secs(1);

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
    /// When its program began, before it read the configuration; `None` by the clock of another machine.
    began: Option<SystemTime>,
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
    pub answered: Answered,
}

/// The workers that answered last. A later process of ours knows them as well, when there is a file to keep them.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    workers: Arc<Mutex<Vec<Process>>>,
    file: Option<PathBuf>,
}

impl Answered {
    /// Those that a file keeps, and will.
    pub fn kept(file: PathBuf) -> Self {
        let known = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Answered { workers: Arc::new(Mutex::new(known.unwrap_or_default())), file: Some(file) }
    }

    fn live(&self) -> bool {
        self.known().iter().any(Process::lives)
    }

    async fn note(&self, workers: Vec<Process>) {
        if *self.known() == workers {
            return;
        }
        self.known().clone_from(&workers);
        let (Some(file), Ok(text)) = (&self.file, serde_json::to_vec(&workers)) else { return };
        if let Err(error) = tokio::fs::write(file, text).await {
            tracing::debug!(%error, "the workers that answer are not noted");
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Process>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process of this machine, told from a later one under its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
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
        if self.answered.live() {
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
            if let Ok(answer) = limited(ask(address, "show info float\n")).await
                && let Some(worker) = Worker::parse(&answer, address.is_local())
                && !found.contains(&worker)
            {
                found.push(worker);
            }
        }
        if !found.is_empty() {
            self.answered.note(found.iter().filter_map(|worker| Process::of(worker.pid)).collect()).await;
        }
        found
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
    /// Reads the answer to `show info float`; `None` for one without a process id, and for a worker that is about to
    /// stop. Its clock is ours where it is `local`.
    fn parse(answer: &str, local: bool) -> Option<Worker> {
        let field = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if field("Stopping").is_some_and(|value| value.trim() != "0") {
            return None;
        }
        let seconds = |name: &str| Duration::try_from_secs_f64(field(name)?.trim().parse().ok()?).ok();
        let uptime = seconds("Uptime_sec").unwrap_or_default().as_secs();
        let began = seconds("Start_time_sec").filter(|_| local).map(|since| SystemTime::UNIX_EPOCH + since);
        Some(Worker { pid: field("Pid")?.trim().parse().ok()?, uptime, began })
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

/// Whose reload has brought a new worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Met {
    /// There is none.
    Nobody,
    /// One began before the moment that was asked for: it may have read an older text.
    Others,
    /// It began after that moment, so that it has read what was there then.
    Ours,
}

/// Looks again and again until a worker answers that began after a moment, for as long as `patience` says. For a shorter
/// time when there is one that another's reload has brought, which ours may have been lost in.
pub(super) async fn new_worker(presence: &Presence, before: &Seen, patience: Duration, every: Duration) -> Met {
    let (begun, mut met) = (Instant::now(), Met::Nobody);
    loop {
        met = presence.workers().await.iter().map(|worker| before.met(worker)).fold(met, Met::max);
        let waited = begun.elapsed();
        if met == Met::Ours || waited >= patience || (met == Met::Others && waited >= BEHIND) {
            return met;
        }
        tokio::time::sleep(every).await;
    }
}

/// The workers that answered at a moment.
#[derive(Debug)]
pub(super) struct Seen {
    workers: Vec<Worker>,
    at: Instant,
    /// The same moment by the clock of this machine.
    when: SystemTime,
}

impl Seen {
    /// Those that answer now.
    pub(super) async fn now(presence: &Presence) -> Seen {
        let at = Instant::now();
        let since = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0);
        let when = SystemTime::UNIX_EPOCH + Duration::from_nanos(since);
        Seen { workers: presence.workers().await, at, when }
    }

    /// What a worker that answers later says of the reloads since.
    fn met(&self, worker: &Worker) -> Met {
        match worker.began {
            Some(began) if began >= self.when => Met::Ours,
            _ if !worker.is_new(&self.workers, self.at.elapsed()) => Met::Nobody,
            Some(_) => Met::Others,
            // Nobody knows better.
            None => Met::Ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_new_by_its_number_or_because_it_started_later() {
        let answer = |pid: u32, uptime: u64, stopping: &str| {
            format!("Name: HAProxy\nUptime: 0d\nUptime_sec: {uptime}.25\nPid: {pid}\n{stopping}\n")
        };
        let worker = |pid, uptime| Worker::parse(&answer(pid, uptime, "Stopping: 0"), true).unwrap();
        assert_eq!(Worker::parse(&answer(7, 1, "Stopping: 1"), true), None);
        assert_eq!(Worker::parse("Permission denied\n", true), None);
        let before = [worker(7, 100)];
        let second = Duration::from_secs(1);
        assert!(!worker(7, 101).is_new(&before, second));
        assert!(worker(8, 500).is_new(&before, second));
        assert!(worker(7, 0).is_new(&before, second), "in a container numbers begin again");
        assert!(worker(8, 1).is_new(&[], second) && !worker(8, 60).is_new(&[], second));
    }

    #[test]
    fn only_a_worker_that_began_later_proves_that_what_was_there_is_loaded() {
        let worker = |pid: u32, began: &str, local| {
            Worker::parse(&format!("Pid: {pid}\nUptime_sec: 1.5\nStopping: 0\nStart_time_sec: {began}\n"), local)
                .unwrap()
        };
        let when = SystemTime::UNIX_EPOCH + Duration::from_millis(100_500);
        let seen = Seen { workers: vec![worker(7, "90", true)], at: Instant::now(), when };
        assert_eq!(seen.met(&worker(7, "90", true)), Met::Nobody);
        assert_eq!(seen.met(&worker(8, "100.499", true)), Met::Others, "it may have read what was there before");
        assert_eq!(seen.met(&worker(8, "100.501", true)), Met::Ours);
        assert_eq!(seen.met(&worker(8, "90", false)), Met::Ours, "clocks of other machines tell nothing");
        assert_eq!(seen.met(&worker(7, "200", false)), Met::Nobody);
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.lives());
        assert!(!Process { started: "1".to_owned(), ..own }.lives());
        assert_eq!(Process::of(4_194_303), None);
    }

    #[tokio::test]
    async fn a_worker_that_answered_is_known_to_the_next_process_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("workers");
        assert!(!Answered::kept(file.clone()).live());
        Answered::kept(file.clone()).note(Process::of(std::process::id()).into_iter().collect()).await;
        assert!(Answered::kept(file.clone()).live());
        std::fs::write(&file, "odd").unwrap();
        assert!(!Answered::kept(file).live());
    }
}
