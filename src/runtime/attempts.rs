//! Commands, sent again until a worker that runs has answered them.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::answer;
use super::client::{Runtime, Target};
use super::command::Command;
use super::connection::Connection;
use super::lane::{Lane, Miss, worth};
use crate::error::{Error, Reason, Result};

/// Connections that may break under a command. It might be the command that breaks them.
const LOST: u32 = 2;

/// The answer of the worker that runs.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) bytes: Bytes,
    command: Command,
    /// An earlier attempt may have been carried out.
    again: bool,
}

impl Answer {
    /// Whether an earlier attempt may have been carried out.
    pub(super) fn is_repeated(&self) -> bool {
        self.again
    }

    /// The answer without severity; an error if HAProxy refused.
    pub(super) fn text(self) -> Result<String> {
        match answer::check(&self.bytes, &self.command.text()) {
            Err(error) if self.again && self.command.is_settled_by(error.reason()) => Ok(String::new()),
            other => other,
        }
    }
}

/// Commands on their way to the worker that runs, one behind the other.
pub(super) struct Attempts<'a> {
    runtime: &'a Runtime,
    target: &'a Target,
    commands: Vec<Command>,
    deadline: Instant,
    /// An attempt met a worker that is going, or a connection that broke, and may have been carried out.
    again: bool,
    lost: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(runtime: &'a Runtime, commands: Vec<Command>, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Attempts { runtime, target: runtime.target(), commands, deadline, again: false, lost: 0 }
    }

    /// Waits until the worker that runs takes the commands.
    pub(super) async fn permit(&self) -> Result<()> {
        if self.commands.iter().all(Command::is_read) {
            return Ok(());
        }
        self.runtime.opened(self.deadline).await.map_err(|error| self.unless_done(error))
    }

    /// An attempt on a shared connection.
    pub(super) async fn on(&self, lane: &Lane) -> Result<Vec<Bytes>, Miss> {
        lane.call(&self.commands, self.runtime.access(), self.deadline).await
    }

    /// An attempt on a connection of its own.
    pub(super) async fn alone(&self) -> Result<Vec<Bytes>, Miss> {
        let opened = Connection::open(self.target, self.deadline, self.again).await;
        let mut connection = opened.map_err(Miss::Failed)?;
        if !self.runtime.access().allows(&self.commands, connection.worker(), self.target) {
            return Err(Miss::Barred);
        }
        exchange(&mut connection, self.target, &self.commands, self.deadline).await
    }

    /// The answers, if they count; nothing when the commands are to be sent again.
    pub(super) async fn settle(&mut self, result: Result<Vec<Bytes>, Miss>) -> Result<Option<Vec<Answer>>> {
        let error = match result {
            Ok(answers) => {
                let (commands, again) = (std::mem::take(&mut self.commands), self.again);
                let answered = answers.into_iter().zip(commands);
                return Ok(Some(answered.map(|(bytes, command)| Answer { bytes, command, again }).collect()));
            }
            Err(Miss::Failed(error)) => return Err(self.unless_done(error)),
            Err(Miss::Barred) => Error::new(Reason::RuntimeUnavailable, "another worker of haproxy has followed"),
            Err(Miss::Gone(answers, error)) => {
                self.lost += u32::from(answers.len() < self.commands.len());
                let refused = |at: usize| answers.get(at).is_some_and(|answer| answer::check(answer, "").is_err());
                let made = |(at, command): (usize, &Command)| !command.is_read() && !refused(at);
                self.again |= self.commands.iter().enumerate().any(made);
                // Lines of a payload would stand twice in the map.
                let once = self.commands.iter().any(Command::has_payload) && self.again && self.lost > 0;
                if once || self.lost > LOST || Instant::now() >= self.deadline {
                    return Err(self.unless_done(error));
                }
                error
            }
        };
        if self.runtime.access().only.is_none() {
            return Ok(None);
        }
        // Whether it is still there; the search tells everybody who follows.
        Connection::open(self.target, self.deadline, true).await.map_err(|error| self.unless_done(error))?;
        if self.runtime.is_replaced() { Err(self.unless_done(error)) } else { Ok(None) }
    }

    /// The error, or that nobody knows, when an attempt may have been carried out.
    fn unless_done(&self, error: Error) -> Error {
        if self.again { unknown(&error) } else { error }
    }
}

/// Sends commands over a connection.
async fn exchange(
    connection: &mut Connection,
    target: &Target,
    commands: &[Command],
    deadline: Instant,
) -> Result<Vec<Bytes>, Miss> {
    let sent: Vec<&Command> = commands.iter().collect();
    let (answers, end) = connection.exchange(target, &sent, deadline).await;
    let plain = answers.into_iter().zip(commands).map(|(answer, command)| without_prompts(answer, command));
    worth(target, commands.len(), plain.collect(), &end, true)
}

/// HAProxy prompts for each line of a payload, before 3.1.
fn without_prompts(mut answer: Bytes, command: &Command) -> Bytes {
    while command.has_payload() && answer.starts_with(b"+ ") {
        answer = answer.slice(2..);
    }
    answer
}

/// A change that may or may not have been carried out.
pub(super) fn unknown(error: &Error) -> Error {
    let message = format!("{}; whether the change was carried out is unknown", error.message());
    Error::new(Reason::OutcomeUnknown, message)
}
