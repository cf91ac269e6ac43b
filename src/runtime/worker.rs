//! Which worker process of HAProxy runs, learnt from the answers themselves.
//!
//! A worker that a reload has replaced keeps answering on connections that it has accepted, with its own, dead state.
//! `show info` tells: of a worker that is going it says `Stopping: 1`, and it says so before the next worker answers for
//! the first time. So each batch of commands ends with it, each listing begins with it, and what met a worker that is
//! going, or one that another has followed, is done again ([`super::connection`], [`super::client`]).

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::client::Runtime;

/// A worker process. In containers one process id comes again and again, so the time of its start belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Process id, as `show info` says it.
    pub pid: i64,
    /// Its start, in seconds since 1970.
    pub started: i64,
}

/// What `show info` says of the worker that answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) worker: Worker,
    /// It finishes what it has and is asked for nothing new.
    pub(super) stopping: bool,
}

impl Sign {
    /// Reads the answer of `show info`, without building it up: this is done once for each batch of commands.
    pub(super) fn read(answer: &[u8]) -> Option<Self> {
        let worker = Worker { pid: number(answer, b"\nPid: ")?, started: number(answer, b"\nStart_time_sec: ")? };
        Some(Sign { worker, stopping: number(answer, b"\nStopping: ")? != 0 })
    }
}

fn number(answer: &[u8], name: &[u8]) -> Option<i64> {
    let rest = &answer[memchr::memmem::find(answer, name)? + name.len()..];
    let end = memchr::memchr2(b'\n', b'.', rest).unwrap_or(rest.len());
    std::str::from_utf8(&rest[..end]).ok()?.trim().parse().ok()
}

/// When the program that gave this answer to `show info float` began.
pub(super) fn began(answer: &[u8]) -> Option<SystemTime> {
    let since = std::str::from_utf8(answer).ok()?.lines().find_map(|line| line.strip_prefix("Start_time_sec: "))?;
    Some(SystemTime::UNIX_EPOCH + Duration::try_from_secs_f64(since.trim().parse().ok()?).ok()?)
}

/// Hears of workers. The first one that answers after the start of this program is a new one as well.
pub trait WorkerListener: Send + Sync {
    /// Another worker runs. Called before its first answer, of any kind, is handed out: what was known of the one before
    /// is to be forgotten. Must neither wait nor call HAProxy.
    fn changed(&self, worker: Worker) {
        let _ = worker;
    }

    /// Brings the worker to what it should hold. Until it is done ordinary writes wait, while reads are answered.
    ///
    /// Commands of `runtime` do not wait, and go to this worker only: when another one follows meanwhile they fail with
    /// `RUNTIME_UNAVAILABLE` or `OUTCOME_UNKNOWN`, and this is called for that one after it has returned.
    fn prepare<'a>(&'a self, worker: Worker, runtime: &'a Runtime) -> BoxFuture<'a, ()> {
        let _ = (worker, runtime);
        Box::pin(async {})
    }
}

/// What is known of the worker that runs.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    current: Option<Worker>,
    /// Rises with each worker and each change of the address: a connection of an older one is not used.
    serial: u64,
    /// It takes ordinary writes.
    open: bool,
}

/// What to make of a worker that answers on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the one that runs. Connections to it are good for as long as the serial is this one.
    Runs(u64),
    /// One that started later has answered already.
    Followed,
}

/// The worker that runs, and who wants to know.
#[derive(Default)]
pub(super) struct Workers {
    state: watch::Sender<State>,
    listeners: RwLock<Vec<Arc<dyn WorkerListener>>>,
    /// Held while listeners are told, so that no answer of a new worker overtakes them.
    telling: Mutex<()>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.state.borrow().fmt(f)
    }
}

impl Workers {
    pub(super) fn current(&self) -> Option<Worker> {
        self.state.borrow().current
    }

    pub(super) fn serial(&self) -> u64 {
        self.state.borrow().serial
    }

    /// The address changed: whatever answers there is a new worker, and no connection is used any more.
    pub(super) fn forget(&self) {
        self.state.send_modify(|state| *state = State { serial: state.serial + 1, ..State::default() });
    }

    pub(super) fn listen(&self, listener: Arc<dyn WorkerListener>) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    pub(super) fn listeners(&self) -> Vec<Arc<dyn WorkerListener>> {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A worker answered on a connection that was opened when the serial was `ticket`, and it is not stopping.
    ///
    /// One that started before the one that runs is believed only when `insisting`: it may take connections for a while
    /// without saying that it stops (`grace`), but it may also be the one that is left.
    pub(super) fn judge(&self, ticket: u64, worker: Worker, insisting: bool) -> Verdict {
        let known = |state: &State| match state.current {
            Some(current) if current == worker => Some(Verdict::Runs(state.serial)),
            Some(_) if state.serial != ticket => Some(Verdict::Followed),
            Some(current) if worker.started < current.started && !insisting => Some(Verdict::Followed),
            _ => None,
        };
        if let Some(verdict) = known(&self.state.borrow()) {
            return verdict;
        }
        let _alone = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = known(&self.state.borrow()) {
            return verdict;
        }
        let listeners = self.listeners();
        for listener in &listeners {
            listener.changed(worker);
        }
        let serial = self.serial() + 1;
        self.state.send_replace(State { current: Some(worker), serial, open: listeners.is_empty() });
        tracing::info!(pid = worker.pid, "a worker of haproxy answers that is new");
        Verdict::Runs(serial)
    }

    /// Whether ordinary writes may go to this worker.
    pub(super) fn is_open(&self, worker: Worker) -> bool {
        let state = self.state.borrow();
        state.open && state.current == Some(worker)
    }

    /// Waits while a new worker is being prepared.
    pub(super) async fn opened(&self) {
        if self.is_waiting() {
            // The sender is `self`, so it is there.
            drop(self.state.subscribe().wait_for(|state| state.open || state.current.is_none()).await);
        }
    }

    fn is_waiting(&self) -> bool {
        let state = self.state.borrow();
        state.current.is_some() && !state.open
    }

    /// Waits for a worker that is to be prepared; with its serial.
    pub(super) async fn unprepared(&self) -> Option<(Worker, u64)> {
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| state.current.is_some() && !state.open).await.ok()?;
        state.current.map(|worker| (worker, state.serial))
    }

    /// The worker has been prepared, unless another one has followed.
    pub(super) fn prepared(&self, serial: u64) {
        self.state.send_if_modified(|state| {
            let same = state.serial == serial;
            state.open |= same;
            same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    const OLD: Worker = Worker { pid: 7, started: 100 };
    const NEW: Worker = Worker { pid: 8, started: 105 };

    #[derive(Default)]
    struct Last(AtomicI64);

    impl WorkerListener for Last {
        fn changed(&self, worker: Worker) {
            self.0.store(worker.pid, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_sign_is_in_the_answer_to_show_info() {
        let sign = Sign::read(include_bytes!("../../tests/data/runtime/show_info.txt")).unwrap();
        assert!(sign.worker.pid > 0 && sign.worker.started > 1_000_000_000 && !sign.stopping);
        let going = Sign::read(b"Name: HAProxy\nPid: 5\nStopping: 1\nStart_time_sec: 9\n").unwrap();
        assert_eq!(going, Sign { worker: Worker { pid: 5, started: 9 }, stopping: true });
        assert_eq!(Sign::read(b"Unknown command"), None);
        let exact = b"Name: HAProxy\nPid: 5\nStopping: 0\nStart_time_sec: 9.25\n";
        assert_eq!(Sign::read(exact).unwrap().worker, Worker { pid: 5, started: 9 });
        assert_eq!(began(exact), Some(SystemTime::UNIX_EPOCH + Duration::from_millis(9250)));
        assert_eq!(began(b"Unknown command"), None);
    }

    #[test]
    fn only_a_younger_worker_follows_and_listeners_hear_of_it_first() {
        let (workers, last) = (Workers::default(), Arc::new(Last::default()));
        workers.listen(last.clone());
        let Verdict::Runs(first) = workers.judge(0, OLD, false) else { panic!("it is the first one") };
        assert_eq!((workers.current(), last.0.load(Ordering::Relaxed)), (Some(OLD), 7));
        let Verdict::Runs(second) = workers.judge(first, NEW, false) else { panic!("it started later") };
        assert!(second > first && last.0.load(Ordering::Relaxed) == 8);
        // The old one still takes a connection: before the new one answered, and after.
        assert_eq!(workers.judge(first, OLD, true), Verdict::Followed);
        assert_eq!(workers.judge(second, OLD, false), Verdict::Followed);
        assert_eq!(workers.judge(first, NEW, false), Verdict::Runs(second));
        // It is the one that is left.
        assert!(matches!(workers.judge(second, OLD, true), Verdict::Runs(serial) if serial > second));
    }

    #[tokio::test]
    async fn writes_wait_for_the_one_that_listens() {
        let workers = Workers::default();
        workers.judge(0, OLD, false);
        assert!(workers.is_open(OLD));
        workers.listen(Arc::new(Last::default()));
        workers.judge(workers.serial(), NEW, false);
        assert!(!workers.is_open(NEW) && !workers.is_open(OLD));
        let (worker, serial) = workers.unprepared().await.unwrap();
        workers.prepared(serial - 1);
        assert!(worker == NEW && !workers.is_open(NEW));
        workers.prepared(serial);
        workers.opened().await;
        assert!(workers.is_open(NEW));
    }
}
