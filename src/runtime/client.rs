//! The handle through which everything talks to HAProxy's stats socket.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::address::{Address, Socket};
use super::answer;
use super::attempts::{Answer, Attempts};
use super::command::Command;
use super::lane::{Access, Lane};
use super::lines::{Blocks, Lines, Listing, Reader};
use super::slots::{Slot, Slots};
use super::worker::{Sign, Worker, WorkerListener, Workers, began};
use crate::error::{Error, Reason, Result};

/// Bounds of the client. HAProxy accepts 10 connections to its stats sockets by default (`stats maxconn`), so the sum
/// of `lanes` and `streams` should leave some for others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Long-lived connections for short commands.
    pub lanes: usize,
    /// Listings and other long commands at the same time; further ones wait. One of them stays for short ones.
    pub streams: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for a short command, with everything that it waits for.
    pub command_timeout: Duration,
    /// Time for a long command, and for HAProxy to send the next [`PROGRESS`] bytes of a listing.
    pub stream_timeout: Duration,
    /// Bytes of an answer that is not read in pieces.
    pub max_answer: usize,
    /// Bytes of a command with its payload. HAProxy's `tune.bufsize` (16,384 by default) is the limit, and it drops the
    /// connection beyond.
    pub max_command: usize,
    /// Time after which an idle connection is closed, so that it keeps no worker alive that has been replaced.
    pub connection_idle: Duration,
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
            connection_idle: Duration::from_secs(1),
        }
    }
}

/// Where to connect now, and who answers there.
#[derive(Debug)]
pub(super) struct Target {
    addresses: ArcSwap<Vec<Address>>,
    pub(super) workers: Workers,
    pub(super) limits: Limits,
}

impl Target {
    /// Connects to the first address that answers.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Socket> {
        let limits = &self.limits;
        let addresses = self.addresses.load_full();
        let mut failures = Vec::new();
        for address in addresses.iter() {
            let until = deadline.min(Instant::now() + limits.connect_timeout);
            match timeout_at(until, address.connect()).await {
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

    pub(super) fn names(&self) -> String {
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
    pub(super) fn late(&self) -> Error {
        let message = format!("haproxy's runtime socket {} gave no answer in time", self.names());
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
///
/// What is asked goes to the worker that runs: neither a read nor a write that is begun after the first answer of a new
/// worker is answered by the one before.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
    access: Access,
}

#[derive(Debug)]
struct Inner {
    target: Arc<Target>,
    lanes: Vec<Lane>,
    slots: Arc<Slots>,
    /// Held while a key is looked up and then added, so that two callers cannot add it twice. By hash of the key.
    adding: Vec<Mutex<()>>,
    _preparing: AbortOnDropHandle<()>,
}

impl Runtime {
    /// A client for the given addresses, with default limits. Must be called within a Tokio runtime.
    pub fn new(addresses: Vec<Address>) -> Self {
        Runtime::with_limits(addresses, Limits::default())
    }

    /// A client with its own limits. Must be called within a Tokio runtime.
    pub fn with_limits(addresses: Vec<Address>, limits: Limits) -> Self {
        let addresses = ArcSwap::from_pointee(addresses);
        let target = Arc::new(Target { addresses, workers: Workers::default(), limits });
        let lanes = (0..limits.lanes.max(1)).map(|_| Lane::start(target.clone())).collect();
        let slots = Arc::new(Slots::new(limits.streams));
        let adding = (0..64).map(|_| Mutex::new(())).collect();
        let inner = Arc::new_cyclic(|client| {
            let preparing = AbortOnDropHandle::new(tokio::spawn(prepare_workers(target.clone(), client.clone())));
            Inner { target, lanes, slots, adding, _preparing: preparing }
        });
        Runtime { inner, access: Access::default() }
    }

    /// Sets where to connect from now on: the first address that answers is used. An empty list means that there is no
    /// socket, and every call fails with `RUNTIME_UNAVAILABLE`.
    pub fn set_addresses(&self, addresses: Vec<Address>) {
        self.inner.target.addresses.store(Arc::new(addresses));
        self.inner.target.workers.forget();
    }

    /// [`Runtime::set_addresses`] with one or none.
    pub fn set_address(&self, address: Option<Address>) {
        self.set_addresses(address.into_iter().collect());
    }

    /// Where it connects.
    pub fn addresses(&self) -> Vec<Address> {
        self.inner.target.addresses.load().to_vec()
    }

    pub(super) fn target(&self) -> &Target {
        &self.inner.target
    }

    pub(super) fn access(&self) -> Access {
        self.access
    }

    /// The limits in use.
    pub fn limits(&self) -> &Limits {
        &self.inner.target.limits
    }

    /// Tells `listener` of every worker from now on, behind those that listen already.
    pub fn listen(&self, listener: Arc<dyn WorkerListener>) {
        self.inner.target.workers.listen(listener);
    }

    /// The worker that it talks to: of [`Runtime::one`] that one, else the one that answered last; none before the first
    /// answer.
    pub fn worker(&self) -> Option<Worker> {
        self.access.only.or_else(|| self.inner.target.workers.current())
    }

    /// Asks which worker runs. If it is a new one, listeners have heard of it when this returns, and it is being prepared.
    ///
    /// `RUNTIME_UNAVAILABLE` when none answers.
    pub async fn look(&self) -> Result<Worker> {
        let answer = self.call_one(Command::new("show info")).await?;
        let sign = Sign::read(&answer.bytes).ok_or_else(|| Error::internal("unexpected answer to show info"))?;
        Ok(sign.worker)
    }

    /// The worker that runs, and when its program began, before it read the configuration; `None` by the clock of another
    /// machine.
    pub async fn began(&self) -> Result<(Worker, Option<SystemTime>)> {
        let answer = self.call_one(Command::new("show info float")).await?;
        let sign = Sign::read(&answer.bytes).ok_or_else(|| Error::internal("unexpected answer to show info"))?;
        let local = self.inner.target.addresses.load().iter().all(Address::is_local);
        Ok((sign.worker, began(&answer.bytes).filter(|_| local)))
    }

    /// The same client for this worker only: its commands fail, with `RUNTIME_UNAVAILABLE` or `OUTCOME_UNKNOWN`, when
    /// another one follows.
    #[must_use]
    pub fn one(&self, worker: Worker) -> Runtime {
        Runtime { inner: self.inner.clone(), access: Access { only: Some(worker), ..self.access } }
    }

    /// Waits while a new worker is being prepared: what it is given then is there afterwards.
    pub async fn prepared(&self) {
        self.inner.target.workers.opened().await;
    }

    /// Whether another worker has followed the only one that this client talks to.
    pub(super) fn is_replaced(&self) -> bool {
        self.access.only.is_some() && self.access.only != self.inner.target.workers.current()
    }

    /// Carries out steps that have to meet one and the same worker. When another one follows in between, they begin
    /// again with that one (the second argument says so), unless the outcome of what was begun must not be guessed: then
    /// they return it as a value.
    pub async fn on_one<T, F>(&self, steps: impl Fn(Runtime, bool) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        if self.access.only.is_some() {
            return steps(self.clone(), false).await;
        }
        let mut again = false;
        loop {
            let worker = match self.worker() {
                Some(worker) => worker,
                None => self.look().await?,
            };
            let one = self.one(worker);
            match steps(one.clone(), again).await {
                Err(_) if one.is_replaced() => again = true,
                result => return result,
            }
        }
    }

    /// Waits until the worker takes changes. `RUNTIME_UNAVAILABLE` at the deadline.
    pub(super) async fn opened(&self, deadline: Instant) -> Result<()> {
        if self.access.ahead {
            return Ok(());
        }
        let opened = timeout_at(deadline, self.inner.target.workers.opened()).await;
        opened.map_err(|_| {
            let message = "haproxy's new worker is still being given what was written to the one before";
            Error::new(Reason::RuntimeUnavailable, message)
        })
    }

    /// Sends any command and returns its whole answer without severity. The answer may hold anything: it is read on a
    /// connection of its own, up to [`Limits::max_answer`].
    ///
    /// Fails as HAProxy's message says (`OBJECT_NOT_FOUND`, `OBJECT_EXISTS`, else `RUNTIME_REJECTED`, with the message
    /// in the detail), with `RUNTIME_UNAVAILABLE` when HAProxy cannot be reached or goes away, and with
    /// `OUTCOME_UNKNOWN` when it goes away for good while it changes something.
    pub async fn raw(&self, command: Command) -> Result<String> {
        if !command.is_read() {
            return self.long(command).await;
        }
        let slot = self.inner.slots.short(self.listing_deadline()).await?;
        let answer = self.open(&command, slot).await?.whole().await?;
        answer::check(&answer, &command.text())
    }

    /// A short command on a shared connection. Only for commands whose answer has no line that starts with `> `.
    pub(super) async fn short(&self, command: Command) -> Result<String> {
        self.check_length(&command)?;
        if command.has_payload() {
            return Err(Error::internal("a command with a payload cannot share a connection"));
        }
        self.call_one(command).await?.text()
    }

    /// Short commands that are sent together: one worker carries them out in their order. A read among changes finds them
    /// made.
    pub(super) async fn together<const N: usize>(&self, commands: [Command; N]) -> Result<[Result<String>; N]> {
        commands.iter().try_for_each(|command| self.check_length(command))?;
        let answers = self.call(commands.into()).await?;
        let texts: Vec<Result<String>> = answers.into_iter().map(Answer::text).collect();
        texts.try_into().map_err(|_| Error::internal("not as many answers as commands"))
    }

    /// The same for a change that a question stands in front of; also says whether an earlier attempt may have made it.
    pub(super) async fn guarded(&self, command: Command) -> Result<(String, bool)> {
        self.check_length(&command)?;
        let answer = self.call_one(command).await?;
        let again = answer.is_repeated();
        Ok((answer.text()?, again))
    }

    /// A change that may take its time, on a connection of its own.
    pub(super) async fn long(&self, command: Command) -> Result<String> {
        self.check_length(&command)?;
        let mut attempts = Attempts::new(self, vec![command], self.limits().stream_timeout);
        let _slot = self.inner.slots.short(self.listing_deadline()).await?;
        loop {
            attempts.permit().await?;
            let result = attempts.alone().await;
            if let Some(answers) = attempts.settle(result).await? {
                return only(answers)?.text();
            }
        }
    }

    async fn call_one(&self, command: Command) -> Result<Answer> {
        only(self.call(vec![command]).await?)
    }

    async fn call(&self, commands: Vec<Command>) -> Result<Vec<Answer>> {
        let mut attempts = Attempts::new(self, commands, self.limits().command_timeout);
        loop {
            attempts.permit().await?;
            let lane = self.quietest_lane().ok_or_else(|| Error::internal("a runtime client without lanes"))?;
            let result = attempts.on(lane).await;
            if let Some(answers) = attempts.settle(result).await? {
                return Ok(answers);
            }
        }
    }

    /// Ties go to the first one, so that a lone caller keeps one connection busy and not all of them.
    fn quietest_lane(&self) -> Option<&Lane> {
        self.inner.lanes.iter().min_by_key(|lane| lane.waiting())
    }

    /// A listing, read in pieces.
    pub(super) async fn listing<T: Send + 'static>(
        &self,
        command: Command,
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Listing<T>> {
        Ok(Listing::new(self.lines(command).await?, parse))
    }

    /// The lines of a listing, in blocks, for who takes them at its own speed. For commands whose answer ends with an
    /// empty line, as all `show` commands do.
    ///
    /// Whoever takes less than 1 MiB within [`Limits::stream_timeout`] while others wait gets `DEADLINE_EXCEEDED`.
    pub async fn lines(&self, command: Command) -> Result<Lines> {
        let slot = self.inner.slots.long(self.listing_deadline()).await?;
        let blocks = Blocks::new(self.open(&command, slot).await?, &command);
        Ok(Lines::slow(blocks, self.inner.slots.clone()))
    }

    /// The same for what is taken as fast as it comes.
    pub(super) async fn quick_lines(&self, command: Command) -> Result<Lines> {
        let slot = self.inner.slots.short(self.listing_deadline()).await?;
        Ok(Lines::quick(Blocks::new(self.open(&command, slot).await?, &command)))
    }

    /// Until when a listing waits for its turn: whoever is too slow has been cut off by then.
    fn listing_deadline(&self) -> Instant {
        Instant::now() + self.limits().stream_timeout + self.limits().command_timeout
    }

    async fn open(&self, command: &Command, slot: Slot) -> Result<Reader> {
        self.check_length(command)?;
        Reader::open(self.inner.target.clone(), slot, command, self.access).await
    }

    fn check_length(&self, command: &Command) -> Result<()> {
        let (length, limit) = (command.len(), self.limits().max_command);
        if length <= limit {
            return Ok(());
        }
        let message = format!("the command takes {length} bytes on the runtime socket, {limit} are allowed");
        Err(Error::new(Reason::InvalidValue, message).with("limit", limit))
    }

    /// Waits until nobody else looks up and adds this key. Nobody does while a worker is being prepared, and those who
    /// hold the key then wait for just that.
    pub(super) async fn adding(&self, key: &str) -> Option<MutexGuard<'_, ()>> {
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let lock = self.inner.adding.get(hash % self.inner.adding.len()).filter(|_| !self.access.ahead)?;
        Some(lock.lock().await)
    }
}

/// The answer to a single command.
fn only(answers: Vec<Answer>) -> Result<Answer> {
    answers.into_iter().next().ok_or_else(|| Error::internal("a command without an answer"))
}

/// Has every new worker prepared by those that listen, for as long as the client is there.
async fn prepare_workers(target: Arc<Target>, client: Weak<Inner>) {
    while let Some((worker, serial)) = target.workers.unprepared().await {
        let Some(inner) = client.upgrade() else { return };
        let runtime = Runtime { inner, access: Access { only: Some(worker), ahead: true } };
        for listener in target.workers.listeners() {
            listener.prepare(worker, &runtime).await;
        }
        target.workers.prepared(serial);
    }
}
