//! One long-lived connection that serves short commands of many callers.
//!
//! A lane is a task with a queue. Whatever waits in the queue when the connection is free is written at once, and the
//! answers come back in that order; `show info` behind them tells whether they are worth anything. Only commands whose
//! answers cannot hold a line that starts with HAProxy's prompt may take a lane: all others get a connection of their
//! own ([`super::lines`]), whose answer ends with the connection.
//!
//! An idle connection is closed after [`Limits::connection_idle`], so that it keeps no worker alive that is going.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

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
    /// The lane that short commands take, so that those which start together are written together, in their order.
    pub(super) lane: Option<usize>,
}

impl Access {
    /// Whether the command may be sent to the worker now.
    pub(super) fn allows(self, command: &Command, worker: Worker, target: &Target) -> bool {
        self.only.is_none_or(|only| only == worker)
            && (self.ahead || command.is_read() || target.workers.is_open(worker))
    }
}

/// Why a command has no answer that counts.
#[derive(Debug)]
pub(super) enum Miss {
    /// It was not sent: the worker that runs is not the wanted one, or takes no ordinary writes yet.
    Barred,
    /// It was sent to a worker that is going, or the connection broke; with the answer, if there was one.
    Gone(Option<Bytes>, Error),
    /// Nothing more can be done.
    Failed(Error),
}

/// A command on its way, with the place where its answer goes.
struct Job {
    command: Command,
    access: Access,
    deadline: Instant,
    reply: oneshot::Sender<std::result::Result<Bytes, Miss>>,
}

impl Job {
    fn finish(self, result: std::result::Result<Bytes, Miss>) {
        // The caller may have gone: its answer is of no use to anybody else.
        drop(self.reply.send(result));
    }
}

/// The handle of a lane. The task ends when the handle is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    queue: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
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
        tokio::spawn(Serving { jobs, target, connection: None, patient: false }.run());
        Lane { queue, waiting: Arc::new(AtomicUsize::new(0)) }
    }

    /// Callers that wait for an answer of this lane.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its whole answer, prompt removed.
    pub(super) async fn call(
        &self,
        target: &Target,
        command: Command,
        access: Access,
        deadline: Instant,
    ) -> std::result::Result<Bytes, Miss> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let (reply, answer) = oneshot::channel();
        let gone = || Miss::Failed(Error::internal("the task of a runtime connection has ended"));
        let job = Job { command, access, deadline, reply };
        match timeout_at(deadline, self.queue.send(job)).await {
            Err(_) => return Err(Miss::Failed(target.late())),
            Ok(sent) => sent.map_err(|_| gone())?,
        }
        answer.await.map_err(|_| gone())?
    }
}

/// The task of a lane.
struct Serving {
    jobs: mpsc::Receiver<Job>,
    target: Arc<Target>,
    connection: Option<Connection>,
    /// A worker that is going was met last.
    patient: bool,
}

impl Serving {
    async fn run(mut self) {
        while let Some(first) = self.next_job().await {
            let mut batch = VecDeque::from([first]);
            let mut bytes = batch.front().map_or(0, |job| job.command.len());
            while batch.len() < BATCH_COMMANDS && bytes < BATCH_BYTES {
                let Ok(job) = self.jobs.try_recv() else { break };
                bytes += job.command.len();
                batch.push_back(job);
            }
            batch.retain(|job| !job.reply.is_closed());
            if let Some(deadline) = batch.iter().map(|job| job.deadline).min() {
                self.serve(batch, deadline).await;
            }
        }
    }

    /// Waits for a command; a connection that is idle for long is closed.
    async fn next_job(&mut self) -> Option<Job> {
        if self.connection.is_some() {
            match timeout(self.target.limits.connection_idle, self.jobs.recv()).await {
                Ok(job) => return job,
                Err(_) => self.connection = None,
            }
        }
        self.jobs.recv().await
    }

    /// Hands an answer, or a miss, to every command of the batch.
    async fn serve(&mut self, mut batch: VecDeque<Job>, deadline: Instant) {
        let mut connection = match self.connect(deadline).await {
            Ok(connection) => connection,
            Err(error) => return batch.into_iter().for_each(|job| job.finish(Err(Miss::Failed(error.clone())))),
        };
        let worker = connection.worker();
        for job in std::mem::take(&mut batch) {
            if job.access.allows(&job.command, worker, &self.target) {
                batch.push_back(job);
            } else {
                job.finish(Err(Miss::Barred));
            }
        }
        if batch.is_empty() {
            self.connection = Some(connection);
            return;
        }
        let commands: Vec<&Command> = batch.iter().map(|job| &job.command).collect();
        let (answers, end) = connection.exchange(&self.target, &commands, deadline).await;
        self.patient = matches!(end, End::Going);
        if matches!(end, End::Runs) {
            self.connection = Some(connection);
        }
        self.hand_out(batch, answers, &end);
    }

    async fn connect(&mut self, deadline: Instant) -> Result<Connection> {
        match self.connection.take().filter(|connection| connection.is_usable(&self.target)) {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.target, deadline, self.patient).await,
        }
    }

    fn hand_out(&self, batch: VecDeque<Job>, answers: Vec<Bytes>, end: &End) {
        let limit = self.target.limits.max_answer;
        let mut first_without = true;
        let mut answers = answers.into_iter();
        for job in batch {
            let answer = answers.next();
            let missing = answer.is_none() && std::mem::take(&mut first_without);
            let result = match (answer, end) {
                (Some(answer), End::Runs) if answer.len() > limit => Err(Miss::Failed(too_large(limit))),
                (Some(answer), End::Runs) => Ok(answer),
                (None, End::TooLarge) if missing => Err(Miss::Failed(too_large(limit))),
                (answer, End::Lost(error)) => Err(Miss::Gone(answer, error.clone())),
                (answer, _) => Err(Miss::Gone(answer, self.target.lost(&std::io::ErrorKind::UnexpectedEof.into()))),
            };
            job.finish(result);
        }
    }
}

/// An answer beyond the limit.
pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("haproxy's answer is larger than {limit} bytes")).with("limit", limit)
}
