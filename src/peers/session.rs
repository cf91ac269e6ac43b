//! One conversation with a peer, from the greeting to its end. Pure: it takes bytes and a clock, and gives bytes and
//! events.
//!
//! We are the side that dials. HAProxy answers the greeting with a status; then both sides send what they like. We ask
//! for all entries at once, since HAProxy by itself sends only what changes from now on, and never what it has learned
//! from others. A sign of life follows at once as well: after a collision of two sessions HAProxy waits less than a
//! second for one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Malformed;
use super::batch::{Batch, Texts, Updates};
use super::data::Value;
use super::message::{Frames, Message};
use super::table::Table;
use super::teach::{Lesson, Taken, Teacher};

/// We say something at least this often, in milliseconds; HAProxy gives up after five seconds.
const SPEAK: u64 = 2_000;
/// A peer that is silent for so long is gone, in milliseconds; HAProxy says something every three seconds.
const SILENCE: u64 = 10_000;
/// Between two acknowledgements, in milliseconds.
const ACKNOWLEDGE: u64 = 20;
/// Longest status line.
const STATUS: usize = 64;
/// Bytes that wait to be sent, above which nothing more is to be taught for now.
const ROOM: usize = 64 << 10;

/// Who talks to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Our name, as the peers section has it.
    pub local: String,
    /// The name that HAProxy has in that section.
    pub remote: String,
    /// Our process id.
    pub pid: u32,
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The peer does not want it: its status. 503 when it has another name, 504 when it does not know ours.
    Refused(u16),
    /// The answer to the greeting is no status.
    NoPeer,
    /// It sent what cannot be read.
    Malformed(Malformed),
    /// It says that we did.
    Complains(u8),
    /// Nothing came for too long.
    Silent,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Closed::Refused(503) => f.write_str("haproxy's local peer has another name"),
            Closed::Refused(504) => f.write_str("the peers section does not name us"),
            Closed::Refused(status) => write!(f, "haproxy refuses the session with status {status}"),
            Closed::NoPeer => f.write_str("what answers does not speak the peers protocol"),
            Closed::Malformed(malformed) => malformed.fmt(f),
            Closed::Complains(1) => f.write_str("haproxy says that a message was too large"),
            Closed::Complains(_) => f.write_str("haproxy says that a message was wrong"),
            Closed::Silent => f.write_str("haproxy is silent"),
        }
    }
}

impl std::error::Error for Closed {}

impl From<Malformed> for Closed {
    fn from(malformed: Malformed) -> Self {
        Closed::Malformed(malformed)
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The status has not come.
    Greeting,
    /// Entries that were there before are coming, mixed with changes.
    Resync,
    /// All that there was has come; changes come as they happen.
    Live,
}

/// An entry as it came.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// Key as on the wire.
    pub key: &'a [u8],
    /// Its number. One that came before and comes again without `expires_in` says nothing new.
    pub number: u32,
    /// Milliseconds until it expires; `None`: it was touched just now.
    pub expires_in: Option<u32>,
    /// Values in the order of the table's columns. Texts are never `Known`.
    pub values: &'a [Value<'a>],
}

/// Takes what a session tells.
pub trait Sink {
    /// From now on all entries come, in an order of their own; what does not come until [`Sink::resynced`] is gone.
    fn resync(&mut self);
    /// All have come.
    fn resynced(&mut self);
    /// All have come that HAProxy has, but it may still learn some from the process that it replaces or from other
    /// nodes.
    fn resynced_partly(&mut self) {
        self.resynced();
    }
    /// A table: after each [`Sink::resync`], and when it is stored in another way than before.
    fn table(&mut self, table: &Table);
    /// Entries that came together. Not called for tables with unknown data.
    fn updates(&mut self, table: &Table, updates: Updates<'_>);
    /// HAProxy wants to be taught everything anew, and waits for the end of it.
    fn asked(&mut self) {}
}

#[derive(Debug)]
struct Known {
    table: Table,
    /// Number of the last update.
    last: u32,
    /// Whether it is to be acknowledged.
    moved: bool,
    /// Whether it was told since all entries were asked for.
    told: bool,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    frames: Frames,
    tables: HashMap<u64, Known>,
    current: Option<u64>,
    texts: Texts,
    teacher: Teacher,
    /// HAProxy waits for the end of what it is taught.
    asked: bool,
    out: Vec<u8>,
    /// When something was last sent and received, in milliseconds.
    sent: u64,
    received: u64,
    /// When updates were last acknowledged.
    acknowledged: Option<u64>,
}

impl Session {
    /// A session that greets at time `now`, in milliseconds of a clock that never goes back.
    pub fn new(options: &Options, now: u64) -> Self {
        let Options { local, remote, pid } = options;
        let out = format!("HAProxyS 2.1\n{remote}\n{local} {pid} 1\n").into_bytes();
        Session {
            phase: Phase::Greeting,
            frames: Frames::default(),
            tables: HashMap::new(),
            current: None,
            texts: HashMap::new(),
            teacher: Teacher::default(),
            asked: false,
            out,
            sent: now,
            received: now,
            acknowledged: None,
        }
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Bytes to send. The greeting must leave in one piece.
    pub fn output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether more may be taught now: HAProxy has answered the greeting, and not too much waits to be sent.
    pub fn has_room(&self) -> bool {
        self.phase != Phase::Greeting && self.out.len() < ROOM
    }

    /// Teaches HAProxy an entry. `table` must have HAProxy's own name, kind and length of keys, and any of its columns;
    /// its number does not matter.
    pub fn teach(&mut self, table: &Table, entry: Lesson<'_>) {
        if self.phase != Phase::Greeting {
            self.teacher.put(self.asked, table, entry, &mut self.out);
        }
    }

    /// Whether HAProxy takes what it is taught of a table.
    pub fn taken(&self, table: &str) -> Taken {
        self.teacher.taken(table)
    }

    /// Whether HAProxy waits for the end of what it is taught. Until then it sends neither changes nor signs of life.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// All has been taught that HAProxy asked for.
    pub fn finish(&mut self) {
        if std::mem::take(&mut self.asked) {
            Message::ResyncFinished.put(&mut self.out);
        }
    }

    /// Asks for all entries again.
    pub fn resync(&mut self, sink: &mut dyn Sink) {
        if self.phase == Phase::Live {
            self.phase = Phase::Resync;
            Message::ResyncRequest.put(&mut self.out);
            for known in self.tables.values_mut() {
                known.told = false;
            }
            sink.resync();
            // The table that was spoken of last is not described again before another one was.
            if let Some(known) = self.current.and_then(|id| self.tables.get_mut(&id)) {
                known.told = true;
                sink.table(&known.table);
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: u64) -> Result<(), Closed> {
        if now.saturating_sub(self.received) >= SILENCE {
            return Err(Closed::Silent);
        }
        if self.phase != Phase::Greeting && now.saturating_sub(self.sent) >= SPEAK {
            Message::Heartbeat.put(&mut self.out);
            self.sent = now;
        }
        self.acknowledge(now);
        Ok(())
    }

    /// Acknowledges what has come, not after each read: nobody waits for it.
    fn acknowledge(&mut self, now: u64) {
        if self.acknowledged.is_some_and(|at| now.saturating_sub(at) < ACKNOWLEDGE) {
            return;
        }
        for (id, known) in self.tables.iter_mut().filter(|(_, known)| known.moved) {
            known.moved = false;
            Message::Ack { table: *id, update: known.last }.put(&mut self.out);
            self.acknowledged = Some(now);
        }
    }

    /// Bytes have come.
    pub fn receive(&mut self, bytes: &[u8], now: u64, sink: &mut dyn Sink) -> Result<(), Closed> {
        self.received = now;
        self.frames.push(bytes);
        if self.phase == Phase::Greeting {
            let Some(status) = self.frames.line(STATUS).map_err(|_| Closed::NoPeer)? else { return Ok(()) };
            let status = std::str::from_utf8(status).ok().and_then(|status| status.trim_end().parse().ok());
            match status.ok_or(Closed::NoPeer)? {
                200 => {}
                other => return Err(Closed::Refused(other)),
            }
            self.phase = Phase::Resync;
            Message::Heartbeat.put(&mut self.out);
            Message::ResyncRequest.put(&mut self.out);
            self.sent = now;
            sink.resync();
        }
        let before = self.out.len();
        let read = self.read(sink);
        self.acknowledge(now);
        if self.out.len() > before {
            self.sent = now;
        }
        read
    }

    fn read(&mut self, sink: &mut dyn Sink) -> Result<(), Closed> {
        let mut frames = std::mem::take(&mut self.frames);
        let (mut messages, mut batch) = (frames.messages(), Batch::default());
        let read = loop {
            match messages.next_message() {
                Ok(Some(message)) => {
                    if let Err(closed) = self.take(message, &mut batch, sink) {
                        break Err(closed);
                    }
                }
                Ok(None) => break Ok(()),
                Err(malformed) => break Err(malformed.into()),
            }
        };
        self.tell(&mut batch, sink);
        self.frames = frames;
        read
    }

    /// Tells the updates that were gathered.
    fn tell(&self, batch: &mut Batch<'_>, sink: &mut dyn Sink) {
        if let Some(known) = self.current.and_then(|id| self.tables.get(&id)) {
            batch.tell(&self.texts, |updates| sink.updates(&known.table, updates));
        }
    }

    fn take<'a>(&mut self, message: Message<'a>, batch: &mut Batch<'a>, sink: &mut dyn Sink) -> Result<(), Closed> {
        if let Message::Update { number, expires_in, body } = message {
            let known = self.current.and_then(|id| self.tables.get_mut(&id)).ok_or(Malformed::UnknownTable)?;
            known.last = number.unwrap_or_else(|| known.last.wrapping_add(1));
            known.moved = true;
            if known.table.unknown.is_none() {
                let tell = |updates: Updates<'_>| sink.updates(&known.table, updates);
                batch.take(&known.table, (known.last, expires_in), body, &mut self.texts, tell)?;
            }
            return Ok(());
        }
        self.tell(batch, sink);
        let Session { phase, tables, current, out, teacher, asked, .. } = self;
        match message {
            Message::ResyncRequest => {
                *asked = true;
                sink.asked();
            }
            end @ (Message::ResyncFinished | Message::ResyncPartial) => {
                if *phase == Phase::Resync {
                    *phase = Phase::Live;
                    Message::ResyncConfirm.put(out);
                    if end == Message::ResyncPartial { sink.resynced_partly() } else { sink.resynced() }
                }
            }
            Message::Ack { table, update } => teacher.acknowledged(table, update),
            Message::Error(kind) => return Err(Closed::Complains(kind)),
            Message::Switch(id) => {
                *current = Some(tables.get(&id).map(|_| id).ok_or(Malformed::UnknownTable)?);
            }
            Message::Define(table) => {
                *current = Some(table.id);
                match tables.entry(table.id) {
                    Entry::Occupied(mut known) => {
                        let known = known.get_mut();
                        if !known.told || known.table != table {
                            sink.table(&table);
                            (known.table, known.told) = (table, true);
                        }
                    }
                    Entry::Vacant(free) => {
                        sink.table(&table);
                        free.insert(Known { table, last: 0, moved: false, told: true });
                    }
                }
            }
            Message::ResyncConfirm | Message::Heartbeat | Message::Update { .. } | Message::Other => {}
        }
        Ok(())
    }
}
