//! Sessions with HAProxy as one of its peers: dialled, kept, and shared by all who want something of them.
//!
//! HAProxy takes one session for each of our names in a peers section, and a second one closes the first. So there is
//! one for an address and a name, and everybody who wants it gets a seat at it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::locked;
use super::tls::Tls;
use super::wire::{Moved, Plain, Wire, exchange};
use crate::peers::{Closed, Options, Phase, Session, Sink, Table, Updates};
use crate::runtime::Address;

/// Time for a connection to open, and for HAProxy to take what we send.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts: it doubles from the first to the last.
const BACKOFF: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(5);
/// A session that lasts for so long is dialled again at once. A shorter one may have been pushed out by one of our name,
/// which would come back as soon.
const SETTLED: Duration = Duration::from_secs(2);
/// How often time passes for a session and for its followers.
const TICK: Duration = Duration::from_millis(250);
/// Small reads that follow each other sooner are taken together: each costs more than what it brings.
const GATHER: Duration = Duration::from_millis(1);
/// Between such reads nothing is read: up to the next millisecond, which is as fine as timers are.
const REST: Duration = Duration::from_micros(100);
/// Bytes that are read at a time: a few milliseconds of work.
const CHUNK: usize = 64 << 10;
/// A read of so many bytes is no small one.
const MUCH: usize = CHUNK / 2;

/// An HAProxy as we reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens for peers.
    pub address: Address,
    /// Our name in its peers section.
    pub local: String,
    /// Names that it may have there, the most likely one first.
    pub remotes: Vec<String>,
}

/// Who wants something of a session.
pub trait Follower: Sink + Send + 'static {
    /// What has come so far was told.
    fn told(&mut self) {}
    /// Time passes.
    fn tick(&mut self) {}
    /// How long after one resync the next one begins, which shows removals that HAProxy does not tell.
    fn resync_after(&self) -> Duration;
    /// Teaches HAProxy, as long as the session has room, and says whether there is more. Called after [`Seat::wake`], and when
    /// HAProxy asks for everything.
    fn teach(&mut self, _: &mut Session) -> bool {
        false
    }
    /// The session has ended, or could not begin, and was not there for so long. It is dialled again.
    fn ended(&mut self, reason: &str, away: Duration);
    /// It is not to be dialled again before so long a time, if nobody else wants it. Called after [`Follower::ended`].
    fn rest(&mut self) -> Option<Duration> {
        None
    }
}

/// All sessions. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct Lines {
    lines: Arc<Mutex<HashMap<Key, Running>>>,
}

/// Where a session goes, our name in it, and whether it is over TLS.
type Key = (Address, String, bool);

struct Running {
    task: AbortHandle,
    line: Arc<Line>,
}

/// What the keeper of a session shares with its followers.
#[derive(Default)]
struct Line {
    members: Mutex<Vec<Member>>,
    next: AtomicU64,
    /// Somebody has come.
    joined: Notify,
    /// Somebody has something to teach.
    wake: Notify,
}

struct Member {
    id: u64,
    remotes: Vec<String>,
    /// No resync has begun since it came, so that it must not be told of anything.
    fresh: bool,
    follower: Box<dyn Follower>,
}

/// A place at a session, which ends with its last one.
pub struct Seat {
    lines: Lines,
    line: Arc<Line>,
    key: Key,
    id: u64,
}

/// An address of this machine as that of its loopback: of an HAProxy that listens on all of them, one may know one and one
/// the other. Nothing is sent.
fn at_home(address: &Address) -> Address {
    let Address::Tcp(address) = address else { return address.clone() };
    let any = if address.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0_u16; 8], 0)) };
    // The system reaches its own addresses from themselves.
    let own = UdpSocket::bind(any).and_then(|socket| socket.connect(address).and_then(|()| socket.local_addr()));
    match own {
        Ok(own) if own.ip() == address.ip() && !own.ip().is_loopback() => {
            Address::Tcp(SocketAddr::from(([127, 0, 0, 1], address.port())))
        }
        _ => Address::Tcp(*address),
    }
}

impl Lines {
    /// Takes a place at the session with a peer. Its follower begins with a resync. Needs a Tokio runtime.
    pub fn join(&self, peer: Peer, follower: Box<dyn Follower>) -> Seat {
        self.join_over(None, peer, follower)
    }

    /// The same over TLS.
    pub fn join_over(&self, tls: Option<Tls>, peer: Peer, follower: Box<dyn Follower>) -> Seat {
        let key = (at_home(&peer.address), peer.local, tls.is_some());
        let mut lines = locked(&self.lines);
        let entry = lines.entry(key.clone());
        let line = match &entry {
            Entry::Occupied(running) => Arc::clone(&running.get().line),
            Entry::Vacant(_) => Arc::default(),
        };
        let id = line.next.fetch_add(1, Ordering::Relaxed);
        locked(&line.members).push(Member { id, remotes: peer.remotes, fresh: true, follower });
        line.joined.notify_one();
        entry.or_insert_with_key(|(_, local, _)| {
            let keeper = Keeper { address: peer.address, tls, local: local.clone(), line: Arc::clone(&line) };
            Running { task: tokio::spawn(keeper.run()).abort_handle(), line: Arc::clone(&line) }
        });
        Seat { lines: self.clone(), line, key, id }
    }
}

impl Seat {
    /// There is something to teach.
    pub fn wake(&self) {
        self.line.wake.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lines = locked(&self.lines.lines);
        let mut members = locked(&self.line.members);
        let at = members.iter().position(|member| member.id == self.id);
        let gone = at.map(|at| members.remove(at));
        let last = members.is_empty();
        drop(members);
        if last && let Some(running) = lines.remove(&self.key) {
            running.task.abort();
        }
        drop(lines);
        drop(gone);
    }
}

/// Keeps one session.
struct Keeper {
    address: Address,
    tls: Option<Tls>,
    local: String,
    line: Arc<Line>,
}

impl Keeper {
    async fn run(self) {
        let zero = Instant::now();
        let (mut pause, mut since) = (BACKOFF.start, zero);
        for attempt in 0_usize.. {
            let (mut live, began) = (false, Instant::now());
            let reason = match self.converse(self.remote(attempt), zero, &mut live).await {
                Ok(never) => match never {},
                Err(failure) => failure.to_string(),
            };
            if live {
                since = Instant::now();
            }
            if live && began.elapsed() >= SETTLED {
                pause = BACKOFF.start;
            }
            tracing::debug!(address = %self.address, reason, "the session as a peer of haproxy ended");
            let mut rest = Some(Duration::MAX);
            for member in &mut *self.members() {
                member.follower.ended(&reason, since.elapsed());
                rest = rest.min(member.follower.rest());
            }
            let rest = rest.filter(|rest| *rest < Duration::MAX);
            tokio::select! {
                () = sleep(rest.unwrap_or(pause)) => pause = (pause * 2).min(BACKOFF.end),
                () = self.line.joined.notified() => pause = BACKOFF.start,
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        locked(&self.line.members)
    }

    /// The name to try: those that followers know, in turn.
    fn remote(&self, attempt: usize) -> String {
        let mut remotes: Vec<String> = Vec::new();
        for remote in self.members().iter().flat_map(|member| &member.remotes) {
            if !remotes.contains(remote) {
                remotes.push(remote.clone());
            }
        }
        if remotes.is_empty() { String::new() } else { remotes.swap_remove(attempt % remotes.len()) }
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, Failure> {
        let connect = async {
            let plain = Plain::from(self.address.connect().await?);
            let Some(tls) = &self.tls else { return Ok(Box::new(plain) as Box<dyn Wire>) };
            let wire = tls.connect(plain, &self.address).await.map_err(Failure::Tls)?;
            Ok(Box::new(wire) as Box<dyn Wire>)
        };
        timeout(PATIENCE, connect).await.map_err(|_| Failure::Late)?
    }

    /// One session, up to its end.
    async fn converse(
        &self,
        remote: String,
        zero: Instant,
        live: &mut bool,
    ) -> Result<std::convert::Infallible, Failure> {
        let now = || zero.elapsed().as_millis() as u64;
        let mut wire = self.connect().await?;
        let options = Options { local: self.local.clone(), remote, pid: std::process::id() };
        let mut session = Session::new(&options, now());
        let (mut input, mut output) = (BytesMut::with_capacity(CHUNK), BytesMut::new());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When all entries were last asked for, and when HAProxy last took all or some of what we send.
        let (mut asked, mut taken) = (Instant::now(), Instant::now());
        let (mut teaching, mut turn) = (false, false);
        // Since when we wait for something to come, and until when the wire is left alone.
        let (mut waits, mut rests) = (asked, None);
        loop {
            // Only when all was sent: what changes meanwhile is taught once.
            if output.is_empty() && (teaching || session.is_asked()) && session.phase() != Phase::Greeting {
                let mut members = self.members();
                teaching = false;
                for member in &mut *members {
                    teaching |= member.follower.teach(&mut session);
                }
                // The first one may have taken all the room.
                if let Some(first) = (!members.is_empty()).then(|| members.remove(0)) {
                    members.push(first);
                }
                if !teaching {
                    session.finish();
                }
            }
            if output.is_empty() {
                taken = Instant::now();
            }
            output.extend_from_slice(&session.output());
            tokio::select! {
                () = sleep_until(rests.unwrap_or(waits)), if rests.is_some() => (waits, rests) = (Instant::now(), None),
                moved = exchange(&mut *wire, &mut input, &mut output, &mut turn), if rests.is_none() => match moved? {
                    Moved::In(0) | Moved::Out(0) => return Err(Failure::Hangup),
                    Moved::In(count) => {
                        let small = session.phase() == Phase::Live && count < MUCH && output.is_empty();
                        let soon = waits.elapsed() < GATHER;
                        waits = Instant::now();
                        if small && soon {
                            wire.rest()?;
                            rests = Some(waits + REST);
                        }
                        let mut all = All { members: self.members() };
                        session.receive(&input, now(), &mut all)?;
                        input.clear();
                        all.members.iter_mut().for_each(|member| member.follower.told());
                    }
                    Moved::Out(_) => {
                        taken = Instant::now();
                        if output.is_empty() {
                            timeout(PATIENCE, wire.flush()).await.map_err(|_| Failure::Late)??;
                        }
                    }
                },
                () = self.line.joined.notified() => {}
                () = self.line.wake.notified() => teaching = true,
                _ = ticks.tick() => {
                    session.tick(now())?;
                    self.members().iter_mut().for_each(|member| member.follower.tick());
                    if taken.elapsed() >= PATIENCE {
                        return Err(Failure::Late);
                    }
                }
            }
            if session.phase() == Phase::Live {
                *live = true;
                let mut all = All { members: self.members() };
                let due = |member: &Member| member.fresh || asked.elapsed() >= member.follower.resync_after();
                if all.members.iter().any(due) {
                    asked = Instant::now();
                    session.resync(&mut all);
                }
            }
        }
    }
}

/// Why a session ended.
enum Failure {
    Io(io::Error),
    Tls(io::Error),
    Late,
    Hangup,
    Closed(Closed),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Io(error)
    }
}

impl From<Closed> for Failure {
    fn from(closed: Closed) -> Self {
        Failure::Closed(closed)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Io(error) => error.fmt(f),
            Failure::Tls(error) => write!(f, "TLS with haproxy: {error}"),
            Failure::Late => write!(f, "haproxy does not take anything for {PATIENCE:?}"),
            Failure::Hangup => f.write_str("haproxy closed the connection"),
            Failure::Closed(closed) => closed.fmt(f),
        }
    }
}

/// Tells all followers but those who wait for a resync.
struct All<'a> {
    members: MutexGuard<'a, Vec<Member>>,
}

impl All<'_> {
    fn each(&mut self, tell: impl FnMut(&mut Box<dyn Follower>)) {
        let settled = self.members.iter_mut().filter(|member| !member.fresh);
        settled.map(|member| &mut member.follower).for_each(tell);
    }
}

impl Sink for All<'_> {
    fn resync(&mut self) {
        self.members.iter_mut().for_each(|member| member.fresh = false);
        self.each(|follower| follower.resync());
    }

    fn resynced(&mut self) {
        self.each(|follower| follower.resynced());
    }

    fn resynced_partly(&mut self) {
        self.each(|follower| follower.resynced_partly());
    }

    fn table(&mut self, table: &Table) {
        self.each(|follower| follower.table(table));
    }

    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        self.each(|follower| follower.updates(table, updates));
    }

    fn asked(&mut self) {
        self.each(|follower| follower.asked());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_one() {
        let at = |text: &str| at_home(&text.parse().unwrap()).to_string();
        // No machine has this one.
        for other in ["192.0.2.1:1024", "127.0.0.1:1024", "127.0.0.2:1024", "[::1]:1024", "/run/p.sock"] {
            assert_eq!(at(other), other.parse::<Address>().unwrap().to_string());
        }
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A machine without a network has no other address.
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert_eq!(at(&format!("{own}:1024")), "ipv4@127.0.0.1:1024");
        }
    }
}
