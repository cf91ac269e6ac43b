//! The handle through which everything talks to HAProxy's stats socket.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::address::{Address, Socket};
use super::answer;
use super::command::Command;
use super::lane::Lane;
use super::lines::{Lines, Listing, Reader};
use crate::error::{Error, Reason, Result};

/// Bounds of the client. HAProxy accepts 10 connections to its stats sockets by default (`stats maxconn`), so the sum
/// of `lanes` and `streams` should leave some for others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Long-lived connections for short commands.
    pub lanes: usize,
    /// Listings and other long commands at the same time; further ones wait.
    pub streams: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time without any byte of the answer to a short command.
    pub command_timeout: Duration,
    /// Time without any byte of a listing or of the answer to a long command.
    pub stream_timeout: Duration,
    /// Bytes of an answer that is not read in pieces.
    pub max_answer: usize,
    /// Bytes of a command with its payload. HAProxy's `tune.bufsize` (16,384 by default) is the limit, and it drops the
    /// connection beyond.
    pub max_command: usize,
    /// Age at which a long-lived connection is replaced: the time for which a reload done by others may go unnoticed.
    pub connection_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            lanes: 4,
            streams: 4,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            stream_timeout: Duration::from_secs(30),
            max_answer: 16 << 20,
            max_command: 15 << 10,
            connection_age: Duration::from_secs(1),
        }
    }
}

/// Where to connect now.
#[derive(Debug, Default)]
pub(super) struct Target {
    addresses: ArcSwap<Vec<Address>>,
    generation: AtomicU64,
}

impl Target {
    /// Rises with each change and each reload: connections of an older one must not be used.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Connects to the first address that answers.
    pub(super) async fn connect(&self, limits: &Limits) -> Result<Socket> {
        let addresses = self.addresses.load_full();
        let mut failures = Vec::new();
        for address in addresses.iter() {
            match timeout(limits.connect_timeout, address.connect()).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => failures.push(format!("{address}: {}", plain(&error))),
                Err(_) => failures.push(format!("{address}: no connection within {:?}", limits.connect_timeout)),
            }
        }
        let message = if failures.is_empty() {
            "haproxy's runtime socket is not known: the global section has no usable 'stats socket' line".to_owned()
        } else {
            format!("haproxy's runtime socket does not answer: {}", failures.join("; "))
        };
        Err(Error::new(Reason::RuntimeUnavailable, message))
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.addresses.load().iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// A connection that broke.
    pub(super) fn lost(&self, error: &io::Error) -> Error {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "closed by haproxy".to_owned(),
            _ => plain(error),
        };
        let message = format!("the connection to haproxy's runtime socket {} was lost: {why}", self.names());
        Error::new(Reason::RuntimeUnavailable, message)
    }

    /// An answer that does not come.
    pub(super) fn late(&self, limit: Duration) -> Error {
        let message = format!("haproxy's runtime socket {} gave no answer within {limit:?}", self.names());
        Error::new(Reason::RuntimeUnavailable, message)
    }
}

fn plain(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::NotFound => "no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    };
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_lowercase().chain(chars).collect())
}

/// HAProxy's Runtime API. Cheap to clone; all clones share the connections.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    limits: Limits,
    lanes: Vec<Lane>,
    streams: Arc<Semaphore>,
    /// Held while a key is looked up and then added, so that two callers cannot add it twice. By hash of the key.
    adding: Vec<Mutex<()>>,
}

impl Runtime {
    /// A client for the given addresses, with default limits. Must be called within a Tokio runtime.
    pub fn new(addresses: Vec<Address>) -> Self {
        Runtime::with_limits(addresses, Limits::default())
    }

    /// A client with its own limits. Must be called within a Tokio runtime.
    pub fn with_limits(addresses: Vec<Address>, limits: Limits) -> Self {
        let target = Arc::new(Target { addresses: ArcSwap::from_pointee(addresses), generation: AtomicU64::new(0) });
        let lanes = (0..limits.lanes.max(1)).map(|_| Lane::start(target.clone(), limits)).collect();
        let streams = Arc::new(Semaphore::new(limits.streams.max(1)));
        let adding = (0..64).map(|_| Mutex::new(())).collect();
        Runtime { inner: Arc::new(Inner { target, limits, lanes, streams, adding }) }
    }

    /// Sets where to connect from now on: the first address that answers is used. An empty list means that there is no
    /// socket, and every call fails with `RUNTIME_UNAVAILABLE`.
    pub fn set_addresses(&self, addresses: Vec<Address>) {
        self.inner.target.addresses.store(Arc::new(addresses));
        self.reconnect();
    }

    /// [`Runtime::set_addresses`] with one or none.
    pub fn set_address(&self, address: Option<Address>) {
        self.set_addresses(address.into_iter().collect());
    }

    /// Where it connects.
    pub fn addresses(&self) -> Vec<Address> {
        self.inner.target.addresses.load().to_vec()
    }

    /// Gives up all idle connections. To be called after each reload: the old worker would still answer on them.
    pub fn reconnect(&self) {
        self.inner.target.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The limits in use.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Sends any command and returns its whole answer without severity. The answer may hold anything: it is read on a
    /// connection of its own, up to [`Limits::max_answer`].
    ///
    /// Fails as HAProxy's message says (`OBJECT_NOT_FOUND`, `OBJECT_EXISTS`, else `RUNTIME_REJECTED`, with the message
    /// in the detail), and with `RUNTIME_UNAVAILABLE` when HAProxy cannot be reached or goes away.
    pub async fn raw(&self, command: Command) -> Result<String> {
        let answer = self.open(&command).await?.whole().await?;
        answer::check(&answer, &command.text())
    }

    /// A short command on a shared connection. Only for commands whose answer has no line that starts with `> `.
    pub(super) async fn short(&self, command: Command) -> Result<String> {
        let answer = self.short_bytes(&command).await?;
        answer::check(&answer, &command.text())
    }

    async fn short_bytes(&self, command: &Command) -> Result<Bytes> {
        self.check_length(command)?;
        if command.has_payload() {
            return Err(Error::internal("a command with a payload cannot share a connection"));
        }
        // Ties go to the first one, so that a lone caller keeps one connection busy and not all of them.
        let lane = self.inner.lanes.iter().min_by_key(|lane| lane.waiting());
        let lane = lane.ok_or_else(|| Error::internal("a runtime client without lanes"))?;
        lane.call(command.clone()).await
    }

    /// A listing, read in pieces.
    pub(super) async fn listing<T: Send + 'static>(
        &self,
        command: Command,
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Listing<T>> {
        Ok(Listing::new(self.lines(command).await?, parse))
    }

    /// The lines of a listing, in blocks. For commands whose answer ends with an empty line, as all `show` commands do.
    pub async fn lines(&self, command: Command) -> Result<Lines> {
        Ok(Lines::new(self.open(&command).await?, &command))
    }

    async fn open(&self, command: &Command) -> Result<Reader> {
        self.check_length(command)?;
        let permit = self.inner.streams.clone().acquire_owned().await.map_err(Error::internal)?;
        Reader::open(self.inner.target.clone(), self.inner.limits, permit, command).await
    }

    fn check_length(&self, command: &Command) -> Result<()> {
        let (length, limit) = (command.len(), self.inner.limits.max_command);
        if length <= limit {
            return Ok(());
        }
        let message = format!("the command takes {length} bytes on the runtime socket, {limit} are allowed");
        Err(Error::new(Reason::InvalidValue, message).with("limit", limit))
    }

    /// The lock under which a key of a map is looked up and added.
    pub(super) fn adding(&self, key: &str) -> &Mutex<()> {
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        &self.inner.adding[hash % self.inner.adding.len()]
    }
}
