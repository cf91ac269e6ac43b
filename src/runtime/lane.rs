//! One long-lived connection that serves short commands of many callers.
//!
//! Whoever finds the connection free talks over it: to hand the work to a task and to be woken again would cost more than
//! the work. Who finds it taken waits in the queue of the lane's task; whatever waits there when the connection is free
//! is written at once, and the answers come back in that order. `show info` behind them tells whether they are worth
//! anything. Only commands whose answers cannot hold a line that starts with HAProxy's prompt may take a lane: all others
//! get a connection of their own ([`super::lines`]), whose answer ends with the connection.
//!
//! An idle connection is closed after [`Limits::connection_idle`], so that it keeps no worker alive that is going.
//!
//! [`Limits::connection_idle`]: super::client::Limits::connection_idle

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::Target;
use super::command::Command;
use super::connection::{Connection, End};
use super::worker::Worker;
use crate::error::{Error, Reason, Result};

/// A batch is written without reading, so it must fit into the socket buffers of any system.
const BATCH_BYTES: usize = 32 * 1024;
const BATCH_COMMANDS: usize = 64;

/// Which workers a command may be sent to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Access {
    /// This one only; else the one that runs.
    pub(super) only: Option<Worker>,
    /// A write may be sent to a worker that is being prepared.
    pub(super) ahead: bool,
}

impl Access {
    /// Whether the commands may be sent to the worker now.
    pub(super) fn allows(self, commands: &[Command], worker: Worker, target: &Target) -> bool {
        self.only.is_none_or(|only| only == worker)
            && (self.ahead || commands.iter().all(Command::is_read) || target.workers.is_open(worker))
    }
}

/// Why commands have no answers that count.
#[derive(Debug)]
pub(super) enum Miss {
    /// They were not sent: the worker that runs is not the wanted one, or takes no ordinary writes yet.
    Barred,
    /// They were sent to a worker that is going, or the connection broke; with the answers that came.
    Gone(Vec<Bytes>, Error),
    /// Nothing more can be done.
    Failed(Error),
}

type Answers = std::result::Result<Vec<Bytes>, Miss>;

/// Commands on their way, one behind the other, with the place where their answers go.
struct Job {
    commands: Vec<Command>,
    access: Access,
    deadline: Instant,
    reply: oneshot::Sender<Answers>,
}

impl Job {
    fn finish(self, answers: Answers) {
        // The caller may have gone: its answers are of no use to anybody else.
        drop(self.reply.send(answers));
    }

    fn bytes(&self) -> usize {
        self.commands.iter().map(Command::len).sum()
    }
}

/// The handle of a lane. The task ends when the handle is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    line: Arc<Line>,
    queue: mpsc::Sender<Job>,
    waiting: AtomicUsize,
}

/// Counts a caller as waiting for as long as it lives, also when the caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lane {
    /// Starts the task. Needs a Tokio runtime.
    pub(super) fn start(target: Arc<Target>) -> Self {
        let (queue, jobs) = mpsc::channel(256);
        let line = Arc::new(Line { target, seat: Mutex::new(Seat::new()), opened: Notify::new() });
        tokio::spawn(Serving { jobs, line: line.clone(), open: false }.run());
        Lane { line, queue, waiting: AtomicUsize::new(0) }
    }

    /// Callers that wait for an answer of this lane.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Sends commands together and waits for their whole answers, prompts removed.
    pub(super) async fn call(&self, commands: &[Command], access: Access, deadline: Instant) -> Answers {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        // Those who wait already are served before.
        if let Ok(mut seat) = self.line.seat.try_lock() {
            return self.line.talk(&mut seat, commands, access, deadline).await;
        }
        let (reply, answers) = oneshot::channel();
        let gone = || Miss::Failed(Error::internal("the task of a runtime connection has ended"));
        let job = Job { commands: commands.to_vec(), access, deadline, reply };
        match timeout_at(deadline, self.queue.send(job)).await {
            Err(_) => return Err(Miss::Failed(self.line.target.late())),
            Ok(sent) => sent.map_err(|_| gone())?,
        }
        answers.await.map_err(|_| gone())?
    }
}

/// What the callers of a lane and its task share.
#[derive(Debug)]
struct Line {
    target: Arc<Target>,
    seat: Mutex<Seat>,
    /// Told of each new connection.
    opened: Notify,
}

/// The connection of a lane, for one at a time. Who gives up in the middle takes it along.
#[derive(Debug)]
struct Seat {
    connection: Option<Connection>,
    /// A worker that is going was met last.
    patient: bool,
    used: Instant,
}

impl Seat {
    fn new() -> Self {
        Seat { connection: None, patient: false, used: Instant::now() }
    }

    /// Puts a connection back, if it may be used again.
    fn leave(&mut self, connection: Connection, end: &End) {
        self.patient = matches!(end, End::Going);
        if matches!(end, End::Runs) {
            (self.connection, self.used) = (Some(connection), Instant::now());
        }
    }
}

impl Line {
    async fn connect(&self, seat: &mut Seat, deadline: Instant) -> Result<Connection> {
        if let Some(connection) = seat.connection.take().filter(|connection| connection.is_usable(&self.target)) {
            return Ok(connection);
        }
        let opened = Connection::open(&self.target, deadline, seat.patient).await?;
        self.opened.notify_one();
        Ok(opened)
    }

    /// The commands of one caller.
    async fn talk(&self, seat: &mut Seat, commands: &[Command], access: Access, deadline: Instant) -> Answers {
        let mut connection = self.connect(seat, deadline).await.map_err(Miss::Failed)?;
        if !access.allows(commands, connection.worker(), &self.target) {
            seat.connection = Some(connection);
            return Err(Miss::Barred);
        }
        let sent: Vec<&Command> = commands.iter().collect();
        let (answers, end) = connection.exchange(&self.target, &sent, deadline).await;
        seat.leave(connection, &end);
        worth(&self.target, commands.len(), answers, &end, true)
    }

    /// Hands answers, or a miss, to every job of the batch.
    async fn serve(&self, seat: &mut Seat, batch: VecDeque<Job>, deadline: Instant) {
        let mut connection = match self.connect(seat, deadline).await {
            Ok(connection) => connection,
            Err(error) => return batch.into_iter().for_each(|job| job.finish(Err(Miss::Failed(error.clone())))),
        };
        let worker = connection.worker();
        let allowed = |job: &Job| job.access.allows(&job.commands, worker, &self.target);
        let (batch, barred): (VecDeque<Job>, VecDeque<Job>) = batch.into_iter().partition(allowed);
        for job in barred {
            job.finish(Err(Miss::Barred));
        }
        if batch.is_empty() {
            seat.connection = Some(connection);
            return;
        }
        let commands: Vec<&Command> = batch.iter().flat_map(|job| &job.commands).collect();
        let (answers, end) = connection.exchange(&self.target, &commands, deadline).await;
        seat.leave(connection, &end);
        let (mut answers, mut first_without) = (answers.into_iter(), true);
        for job in batch {
            let expected = job.commands.len();
            let own: Vec<Bytes> = answers.by_ref().take(expected).collect();
            let blamed = own.len() < expected && std::mem::take(&mut first_without);
            let worth = worth(&self.target, expected, own, &end, blamed);
            job.finish(worth);
        }
    }
}

/// What answers are worth that came for so many commands. `blamed`: where the next one is too large, it is one of theirs.
pub(super) fn worth(target: &Target, expected: usize, answers: Vec<Bytes>, end: &End, blamed: bool) -> Answers {
    let limit = target.limits.max_answer;
    match end {
        End::Runs if answers.iter().any(|answer| answer.len() > limit) => Err(Miss::Failed(too_large(limit))),
        End::Runs => Ok(answers),
        End::TooLarge if blamed && answers.len() < expected => Err(Miss::Failed(too_large(limit))),
        End::Lost(error) => Err(Miss::Gone(answers, error.clone())),
        End::TooLarge | End::Going => Err(Miss::Gone(answers, target.lost(&std::io::ErrorKind::UnexpectedEof.into()))),
    }
}

/// The task of a lane.
struct Serving {
    jobs: mpsc::Receiver<Job>,
    line: Arc<Line>,
    /// There may be a connection.
    open: bool,
}

impl Serving {
    async fn run(mut self) {
        loop {
            let job = tokio::select! {
                job = self.jobs.recv() => job,
                () = rest(&self.line, &mut self.open) => continue,
            };
            let Some(first) = job else { return };
            let mut seat = self.line.seat.lock().await;
            let mut bytes = first.bytes();
            let mut batch = VecDeque::from([first]);
            while batch.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
                let Ok(job) = self.jobs.try_recv() else { break };
                bytes += job.bytes();
                batch.push_back(job);
            }
            batch.retain(|job| !job.reply.is_closed());
            if let Some(deadline) = batch.iter().map(|job| job.deadline).min() {
                self.line.serve(&mut seat, batch, deadline).await;
            }
        }
    }
}

/// Waits for a connection, and closes it once it is idle for long.
async fn rest(line: &Line, open: &mut bool) {
    if !*open {
        line.opened.notified().await;
        *open = true;
    }
    loop {
        let (now, limit) = (Instant::now(), line.target.limits.connection_idle);
        let mut due = now + limit;
        if let Ok(mut seat) = line.seat.try_lock() {
            due = seat.used + limit;
            if seat.connection.is_none() || due <= now {
                (seat.connection, *open) = (None, false);
                return;
            }
        }
        sleep_until(due).await;
    }
}

/// An answer beyond the limit.
pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("haproxy's answer is larger than {limit} bytes")).with("limit", limit)
}
