//! One long-lived interactive connection that serves short commands of many callers.
//!
//! A lane is a task with a queue. Whatever waits in the queue when the connection is free is written at once, and the
//! answers come back in that order. Every answer ends in HAProxy's prompt at the start of a line. Only commands whose
//! answers cannot hold a line that starts with the prompt may take a lane: all others get a connection of their own
//! ([`super::lines`]), whose answer ends with the connection.
//!
//! A worker that has been replaced by a reload keeps answering on connections that it has accepted, with its own, dead
//! state. A connection is therefore given up after [`Limits::connection_age`], and at once when the target changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::address::Socket;
use super::client::{Limits, Target};
use super::command::Command;
use crate::error::{Error, Reason, Result};

const PROMPT: &[u8] = b"\n> ";
const GREETING: &[u8] = b"prompt\nset severity-output number\n";
const GREETING_ANSWERS: usize = 2;
/// A batch is written without reading, so it must fit into the socket buffers of any system.
const BATCH_BYTES: usize = 32 * 1024;
const BATCH_COMMANDS: usize = 64;

/// A command on its way, with the place where its answer goes.
struct Job {
    command: Command,
    retried: bool,
    reply: oneshot::Sender<Result<Bytes>>,
}

impl Job {
    fn finish(self, result: Result<Bytes>) {
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
    pub(super) fn start(target: Arc<Target>, limits: Limits) -> Self {
        let (queue, jobs) = mpsc::channel(256);
        let worker = Worker { jobs, target, limits, connection: None };
        tokio::spawn(worker.run());
        Lane { queue, waiting: Arc::new(AtomicUsize::new(0)) }
    }

    /// Callers that wait for an answer of this lane.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Sends a command and waits for its whole answer, prompt removed.
    pub(super) async fn call(&self, command: Command) -> Result<Bytes> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let (reply, answer) = oneshot::channel();
        let gone = || Error::internal("the task of a runtime connection has ended");
        self.queue.send(Job { command, retried: false, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

struct Connection {
    socket: Socket,
    buffer: BytesMut,
    /// Answers to the greeting that are still to come.
    greeting: usize,
    born: Instant,
    generation: u64,
}

struct Worker {
    jobs: mpsc::Receiver<Job>,
    target: Arc<Target>,
    limits: Limits,
    connection: Option<Connection>,
}

/// Why an exchange stopped before all answers were there.
enum Stop {
    /// The connection broke; `started` tells whether a part of the current answer had arrived.
    Broken { error: Error, started: bool },
    /// The current answer is larger than allowed.
    TooLarge,
    /// HAProxy takes too long.
    Late,
}

impl Worker {
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
            self.serve(batch).await;
        }
    }

    /// Waits for a command; an idle connection is closed when it is old, so that it keeps no old worker alive.
    async fn next_job(&mut self) -> Option<Job> {
        if let Some(connection) = &self.connection {
            let rest = self.limits.connection_age.saturating_sub(connection.born.elapsed());
            match timeout(rest, self.jobs.recv()).await {
                Ok(job) => return job,
                Err(_) => self.connection = None,
            }
        }
        self.jobs.recv().await
    }

    async fn serve(&mut self, mut batch: VecDeque<Job>) {
        while !batch.is_empty() {
            let Err(stop) = self.exchange(&mut batch).await else { return };
            self.connection = None;
            let (error, retry_current) = match stop {
                Stop::Broken { error, started } => (error, !started),
                Stop::TooLarge => (too_large(self.limits.max_answer), false),
                Stop::Late => (self.late(), false),
            };
            if !retry_current && let Some(current) = batch.pop_front() {
                current.finish(Err(error.clone()));
            }
            // Whether the rest was carried out is unknown: only what may be sent twice is sent again, and only once.
            for mut job in std::mem::take(&mut batch) {
                if job.command.is_idempotent() && !job.retried {
                    job.retried = true;
                    batch.push_back(job);
                } else {
                    let error = if job.command.is_idempotent() { error.clone() } else { unknown(&error) };
                    job.finish(Err(error));
                }
            }
        }
    }

    /// Writes the batch and hands out answers until it is empty.
    async fn exchange(&mut self, batch: &mut VecDeque<Job>) -> std::result::Result<(), Stop> {
        let usable = self.connection.as_ref().is_some_and(|connection| {
            connection.generation == self.target.generation()
                && connection.born.elapsed() < self.limits.connection_age
                && connection.socket.is_quiet()
        });
        let mut out = BytesMut::with_capacity(256);
        if !usable {
            self.connection = None;
            let generation = self.target.generation();
            let socket = match self.target.connect(&self.limits).await {
                Ok(socket) => socket,
                Err(error) => {
                    // Nothing has been sent, so nothing is unknown.
                    for job in batch.drain(..) {
                        job.finish(Err(error.clone()));
                    }
                    return Ok(());
                }
            };
            out.extend_from_slice(GREETING);
            let buffer = BytesMut::with_capacity(16 * 1024);
            let connection =
                Connection { socket, buffer, greeting: GREETING_ANSWERS, born: Instant::now(), generation };
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        for job in batch.iter() {
            job.command.write_to(&mut out);
        }
        let limits = &self.limits;
        let target = &self.target;
        let broken = |error: std::io::Error, started| Stop::Broken { error: target.lost(&error), started };
        match timeout(limits.command_timeout, connection.socket.write_all(&out)).await {
            Ok(written) => written.map_err(|error| broken(error, false))?,
            Err(_) => return Err(Stop::Late),
        }
        let mut searched = 0;
        while !batch.is_empty() {
            if let Some(at) = memchr::memmem::find(&connection.buffer[searched..], PROMPT) {
                let end = searched + at;
                let answer = connection.buffer.split_to(end + PROMPT.len()).freeze().slice(..end);
                searched = 0;
                if connection.greeting > 0 {
                    connection.greeting -= 1;
                } else if let Some(job) = batch.pop_front() {
                    let fits = answer.len() <= limits.max_answer;
                    job.finish(if fits { Ok(answer) } else { Err(too_large(limits.max_answer)) });
                }
                continue;
            }
            if connection.buffer.len() > limits.max_answer {
                return Err(Stop::TooLarge);
            }
            searched = connection.buffer.len().saturating_sub(PROMPT.len() - 1);
            connection.buffer.reserve(4096);
            let started = !connection.buffer.is_empty();
            let read = connection.socket.read(&mut connection.buffer);
            match timeout(limits.command_timeout, read).await {
                Err(_) => return Err(Stop::Late),
                Ok(Err(error)) => return Err(broken(error, started)),
                Ok(Ok(0)) => return Err(broken(std::io::ErrorKind::UnexpectedEof.into(), started)),
                Ok(Ok(_)) => {}
            }
        }
        Ok(())
    }

    fn late(&self) -> Error {
        self.target.late(self.limits.command_timeout)
    }
}

/// An answer beyond the limit.
pub(super) fn too_large(limit: usize) -> Error {
    Error::new(Reason::TooLarge, format!("haproxy's answer is larger than {limit} bytes")).with("limit", limit)
}

/// A command that may or may not have been carried out.
fn unknown(error: &Error) -> Error {
    let message = format!("{}; whether the command was carried out is unknown", error.message());
    error.clone().message_replaced(message)
}
