//! Connections to the worker that runs.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Socket;
use super::client::Target;
use super::command::Command;
use super::worker::{Sign, Verdict, Worker};
use crate::error::{Error, Reason, Result};

const PROMPT: &[u8] = b"\n> ";
const LOOK: &[u8] = b"show info\n";
const GREETING: &[u8] = b"prompt\nset severity-output number\nshow info\n";
const GREETING_ANSWERS: usize = 3;
/// Bytes of `show info`, at most.
const SIGN: usize = 64 * 1024;
/// Pauses between looks for the next worker: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));
/// Connections that may break before anything was asked on them.
const BROKEN: u32 = 3;

/// The search for the worker that runs: connections are opened until one reaches it.
pub(super) struct Search<'a> {
    target: &'a Target,
    deadline: Instant,
    ticket: u64,
    pause: Duration,
    /// A worker that is going was met, so the next one is on its way.
    patient: bool,
    /// When the older one of two is taken for the one that is left.
    insist: Instant,
    broken: u32,
}

impl<'a> Search<'a> {
    /// `patient` when a worker that is going has been met before.
    pub(super) fn new(target: &'a Target, deadline: Instant, patient: bool) -> Self {
        let insist = Instant::now() + target.limits.connect_timeout;
        Search { target, deadline, ticket: 0, pause: PAUSES.0, patient, insist, broken: 0 }
    }

    /// The next connection to try.
    pub(super) async fn connect(&mut self) -> Result<Socket> {
        loop {
            self.ticket = self.target.workers.serial();
            match self.target.connect(self.deadline).await {
                Ok(socket) => return Ok(socket),
                // Between two workers there may be a moment in which nobody listens.
                Err(_) if self.patient && Instant::now() < self.insist => self.rest().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the worker that answered `show info` is the one that runs; if so, with the serial of its connections.
    pub(super) async fn found(&mut self, sign: Sign) -> Result<Option<u64>> {
        if !sign.stopping {
            let insisting = Instant::now() >= self.insist;
            if let Verdict::Runs(serial) = self.target.workers.judge(self.ticket, sign.worker, insisting) {
                return Ok(Some(serial));
            }
        }
        self.patient = true;
        self.rest().await?;
        Ok(None)
    }

    /// A connection broke before it was of any use, as those that wait for a worker that ends do.
    pub(super) async fn broke(&mut self, error: &io::Error) -> Result<()> {
        self.broken += 1;
        if self.broken > BROKEN && !self.patient {
            return Err(self.target.lost(error));
        }
        self.rest().await
    }

    async fn rest(&mut self) -> Result<()> {
        let until = Instant::now() + self.pause;
        if until >= self.deadline {
            let message =
                format!("the worker of haproxy is stopping, and no other one answers on {}", self.target.names());
            return Err(Error::new(Reason::RuntimeUnavailable, message));
        }
        self.pause = (self.pause * 2).min(PAUSES.1);
        sleep_until(until).await;
        Ok(())
    }
}

/// An interactive connection to one worker. Every answer ends in HAProxy's prompt at the start of a line.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    buffer: BytesMut,
    worker: Worker,
    serial: u64,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum End {
    /// The worker still ran behind the last answer.
    Runs,
    /// It is going, or another one has followed: the answers are not worth anything.
    Going,
    /// The connection broke, or HAProxy took too long; answers to the commands behind those that came are missing.
    Lost(Error),
    /// The next answer is larger than allowed.
    TooLarge,
}

impl Connection {
    /// Connects to the worker that runs.
    pub(super) async fn open(target: &Target, deadline: Instant, patient: bool) -> Result<Self> {
        let mut search = Search::new(target, deadline, patient);
        loop {
            let mut socket = search.connect().await?;
            let mut buffer = BytesMut::with_capacity(16 * 1024);
            let greeted = timeout_at(deadline, greet(&mut socket, &mut buffer)).await;
            match greeted.map_err(|_| target.late())? {
                Ok(sign) => {
                    if let Some(serial) = search.found(sign).await? {
                        return Ok(Connection { socket, buffer, worker: sign.worker, serial });
                    }
                }
                Err(error) => search.broke(&error).await?,
            }
        }
    }

    pub(super) fn worker(&self) -> Worker {
        self.worker
    }

    /// Whether it may be used again: no other worker has followed, and the other end is quiet.
    pub(super) fn is_usable(&self, target: &Target) -> bool {
        self.serial == target.workers.serial() && self.socket.is_quiet()
    }

    /// Sends commands and, behind them, the question whether the worker still runs. Returns the answers that came, in
    /// their order, and what they are worth.
    pub(super) async fn exchange(
        &mut self,
        target: &Target,
        commands: &[&Command],
        deadline: Instant,
    ) -> (Vec<Bytes>, End) {
        let mut answers = Vec::with_capacity(commands.len() + 1);
        let read = self.converse(commands, &mut answers, target.limits.max_answer);
        let end = match timeout_at(deadline, read).await {
            Err(_) => End::Lost(target.late()),
            Ok(Err(error)) => End::Lost(target.lost(&error)),
            Ok(Ok(false)) => End::TooLarge,
            Ok(Ok(true)) => match answers.last().and_then(|last| Sign::read(last)) {
                Some(sign) if !sign.stopping && self.serial == target.workers.serial() => End::Runs,
                Some(_) => End::Going,
                None => End::Lost(Error::internal("unexpected answer to show info")),
            },
        };
        answers.truncate(commands.len());
        (answers, end)
    }

    /// Writes commands and reads their answers; false when one is larger than `limit`. The last answer tells which worker
    /// answers.
    async fn converse(&mut self, commands: &[&Command], answers: &mut Vec<Bytes>, limit: usize) -> io::Result<bool> {
        let Some(mut withheld) = self.question(commands, limit).await? else { return Ok(false) };
        let mut out = BytesMut::with_capacity(256);
        for (at, command) in commands.iter().enumerate() {
            if !withheld.contains_key(&at) {
                command.write_to(&mut out);
            }
        }
        // An answer of `show info` itself says what is asked behind all others.
        let asked = commands.last().is_some_and(|last| last.is_look());
        if !asked {
            out.extend_from_slice(LOOK);
        }
        self.socket.write_all(&out).await?;
        let expected = commands.len() + usize::from(!asked);
        while answers.len() < expected {
            if let Some(answer) = withheld.remove(&answers.len()) {
                answers.push(answer);
                continue;
            }
            // What tells which worker answers has to pass.
            let limit = if answers.len() + 1 == expected { limit.max(SIGN) } else { limit };
            match next_answer(&mut self.socket, &mut self.buffer, limit).await? {
                Some(answer) => answers.push(answer),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Asks what stands in front of commands. Returns the answers that do not let theirs be sent, by the position of the
    /// command; nothing when one is larger than `limit`.
    async fn question(&mut self, commands: &[&Command], limit: usize) -> io::Result<Option<HashMap<usize, Bytes>>> {
        let mut withheld = HashMap::new();
        let questions =
            || commands.iter().enumerate().filter_map(|(at, command)| Some((at, command, command.question()?)));
        let mut out = BytesMut::new();
        questions().for_each(|(.., question)| question.write_to(&mut out));
        if out.is_empty() {
            return Ok(Some(withheld));
        }
        self.socket.write_all(&out).await?;
        for (at, command, _) in questions() {
            let Some(answer) = next_answer(&mut self.socket, &mut self.buffer, limit).await? else { return Ok(None) };
            if !command.is_let(&answer) {
                withheld.insert(at, answer);
            }
        }
        Ok(Some(withheld))
    }
}

async fn greet(socket: &mut Socket, buffer: &mut BytesMut) -> io::Result<Sign> {
    socket.write_all(GREETING).await?;
    let mut last = Bytes::new();
    for _ in 0..GREETING_ANSWERS {
        last = next_answer(socket, buffer, SIGN).await?.ok_or(io::ErrorKind::InvalidData)?;
    }
    Sign::read(&last).ok_or_else(|| io::Error::other("unexpected answer to show info"))
}

/// The next answer without the prompt behind it; nothing when it is larger than `limit`.
async fn next_answer(socket: &mut Socket, buffer: &mut BytesMut, limit: usize) -> io::Result<Option<Bytes>> {
    let mut searched = 0;
    loop {
        if let Some(at) = memchr::memmem::find(&buffer[searched..], PROMPT) {
            let end = searched + at;
            let answer = buffer.split_to(end + PROMPT.len()).freeze().slice(..end);
            return Ok((end <= limit).then_some(answer));
        }
        if buffer.len() > limit {
            return Ok(None);
        }
        searched = buffer.len().saturating_sub(PROMPT.len() - 1);
        buffer.reserve(4096);
        if socket.read(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
