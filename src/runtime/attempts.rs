//! One command, sent again until a worker that runs has answered it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::answer;
use super::client::{Runtime, Target};
use super::command::Command;
use super::connection::{Connection, End};
use super::lane::{Lane, Miss, too_large};
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
    /// The answer without severity; an error if HAProxy refused.
    pub(super) fn text(self) -> Result<String> {
        match answer::check(&self.bytes, &self.command.text()) {
            Err(error) if self.again && self.command.is_settled_by(error.reason()) => Ok(String::new()),
            other => other,
        }
    }
}

/// A command on its way to the worker that runs.
pub(super) struct Attempts<'a> {
    runtime: &'a Runtime,
    target: &'a Target,
    command: Command,
    deadline: Instant,
    /// An attempt met a worker that is going, or a connection that broke, and may have been carried out.
    again: bool,
    lost: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(runtime: &'a Runtime, command: Command, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Attempts { runtime, target: runtime.target(), command, deadline, again: false, lost: 0 }
    }

    /// Waits until the worker that runs takes the command.
    pub(super) async fn permit(&self) -> Result<()> {
        if self.command.is_read() {
            return Ok(());
        }
        self.runtime.opened(self.deadline).await.map_err(|error| self.unless_done(error))
    }

    /// An attempt on a shared connection.
    pub(super) async fn on(&self, lane: &Lane) -> Result<Bytes, Miss> {
        lane.call(self.target, self.command.clone(), self.runtime.access(), self.deadline).await
    }

    /// An attempt on a connection of its own.
    pub(super) async fn alone(&self) -> Result<Bytes, Miss> {
        let opened = Connection::open(self.target, self.deadline, self.again).await;
        let mut connection = opened.map_err(Miss::Failed)?;
        if !self.runtime.access().allows(&self.command, connection.worker(), self.target) {
            return Err(Miss::Barred);
        }
        exchange(&mut connection, self.target, &self.command, self.deadline).await
    }

    /// The answer, if it counts; nothing when the command is to be sent again.
    pub(super) async fn settle(&mut self, result: Result<Bytes, Miss>) -> Result<Option<Answer>> {
        let error = match result {
            Ok(bytes) => return Ok(Some(Answer { bytes, command: self.command.clone(), again: self.again })),
            Err(Miss::Failed(error)) => return Err(self.unless_done(error)),
            Err(Miss::Barred) => Error::new(Reason::RuntimeUnavailable, "another worker of haproxy has followed"),
            Err(Miss::Gone(answer, error)) => {
                self.lost += u32::from(answer.is_none());
                let refused = |answer: Bytes| answer::check(&answer, "").is_err();
                self.again |= !self.command.is_read() && !answer.is_some_and(refused);
                // Lines of a payload would stand twice in the map.
                let once = self.command.has_payload() && self.again && self.lost > 0;
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

/// Sends one command over a connection.
pub(super) async fn exchange(
    connection: &mut Connection,
    target: &Target,
    command: &Command,
    deadline: Instant,
) -> Result<Bytes, Miss> {
    let (mut answers, end) = connection.exchange(target, &[command], deadline).await;
    let answer = answers.pop().map(|answer| without_prompts(answer, command));
    let limit = target.limits.max_answer;
    match (answer, end) {
        (Some(answer), End::Runs) if answer.len() <= limit => Ok(answer),
        (Some(_), End::Runs) | (None, End::TooLarge) => Err(Miss::Failed(too_large(limit))),
        (answer, End::Lost(error)) => Err(Miss::Gone(answer, error)),
        (answer, _) => Err(Miss::Gone(answer, target.lost(&std::io::ErrorKind::UnexpectedEof.into()))),
    }
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
