//! Messages of a session, and their frames: a class, a kind, and for most a length with so many bytes.

use super::Malformed;
use super::table::Table;
use super::varint::{self, put, put_counted, take, take_be};

/// Largest payload that is taken. HAProxy's own is limited by its `tune.bufsize`, 16384 unless set.
pub const MAX_PAYLOAD: usize = 1 << 20;

const CONTROL: u8 = 0;
const ERROR: u8 = 1;
const TABLES: u8 = 10;
/// Not a class: whoever sends it speaks something else.
const RESERVED: u8 = 255;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Asks for all entries of all tables.
    ResyncRequest,
    /// All have been sent.
    ResyncFinished,
    /// All that the sender has, which may not be all that there are.
    ResyncPartial,
    /// The answer to one of these.
    ResyncConfirm,
    /// Sign of life.
    Heartbeat,
    /// The session ends: 0 for a breach of the protocol, 1 for a message that is too large.
    Error(u8),
    /// What follows is of this table.
    Define(Table),
    /// What follows is of the table with this number.
    Switch(u64),
    /// All updates of a table up to one have been taken.
    Ack {
        /// The number that the receiver of this message gave the table.
        table: u64,
        /// Number of the update.
        update: u32,
    },
    /// An entry.
    Update {
        /// Its number; `None` for the one after the last of the table.
        number: Option<u32>,
        /// Milliseconds until it expires; `None`: it was touched just now.
        expires_in: Option<u32>,
        /// Key and values, to be read with the description of the table.
        body: &'a [u8],
    },
    /// A message that is not known and may be ignored.
    Other,
}

impl<'a> Message<'a> {
    fn read(class: u8, kind: u8, mut payload: &'a [u8]) -> Result<Message<'a>, Malformed> {
        Ok(match (class, kind) {
            (CONTROL, 0) => Message::ResyncRequest,
            (CONTROL, 1) => Message::ResyncFinished,
            (CONTROL, 2) => Message::ResyncPartial,
            (CONTROL, 3) => Message::ResyncConfirm,
            (CONTROL, 4) => Message::Heartbeat,
            (ERROR, kind) => Message::Error(kind),
            (TABLES, 0x80 | 0x81 | 0x85 | 0x86) => {
                let bytes = &mut payload;
                let number = if matches!(kind, 0x80 | 0x85) { Some(take_be(bytes)?) } else { None };
                let expires_in = if matches!(kind, 0x85 | 0x86) { Some(take_be(bytes)?) } else { None };
                Message::Update { number, expires_in, body: payload }
            }
            (TABLES, 0x82) => Message::Define(Table::take(payload)?),
            (TABLES, 0x83) => Message::Switch(take(&mut payload)?),
            (TABLES, 0x84) => Message::Ack { table: take(&mut payload)?, update: take_be(&mut payload)? },
            (RESERVED, _) => return Err(Malformed::Unexpected),
            _ => Message::Other,
        })
    }

    /// Appends the frame. `Other` has none.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let (class, kind) = match self {
            Message::ResyncRequest => (CONTROL, 0),
            Message::ResyncFinished => (CONTROL, 1),
            Message::ResyncPartial => (CONTROL, 2),
            Message::ResyncConfirm => (CONTROL, 3),
            Message::Heartbeat => (CONTROL, 4),
            Message::Error(kind) => (ERROR, *kind),
            Message::Define(table) => {
                table.put(&mut payload);
                (TABLES, 0x82)
            }
            Message::Switch(table) => {
                put(*table, &mut payload);
                (TABLES, 0x83)
            }
            Message::Ack { table, update } => {
                put(*table, &mut payload);
                payload.extend(update.to_be_bytes());
                (TABLES, 0x84)
            }
            Message::Update { number, expires_in, body } => {
                let parts = [*number, *expires_in].into_iter().flatten();
                payload.extend(parts.flat_map(u32::to_be_bytes));
                payload.extend_from_slice(body);
                let kind = match (number, expires_in) {
                    (Some(_), None) => 0x80,
                    (None, None) => 0x81,
                    (Some(_), Some(_)) => 0x85,
                    (None, Some(_)) => 0x86,
                };
                (TABLES, kind)
            }
            Message::Other => return,
        };
        out.extend([class, kind]);
        if kind & 0x80 != 0 {
            put_counted(&payload, out);
        }
    }
}

/// Cuts received bytes into messages. Holds no more than one message that has not arrived whole, and one read.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes of the buffer that have been handed out.
    used: usize,
}

impl Frames {
    /// Takes received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// A line up to its end, as in the handshake.
    pub(super) fn line(&mut self, limit: usize) -> Result<Option<&[u8]>, Malformed> {
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        match memchr::memchr(b'\n', rest) {
            Some(length) => {
                let start = self.used;
                self.used += length + 1;
                Ok(self.buffer.get(start..start + length))
            }
            None if rest.len() > limit => Err(Malformed::TooLarge),
            None => Ok(None),
        }
    }

    /// The messages that have arrived whole.
    pub(super) fn messages(&mut self) -> Messages<'_> {
        Messages { buffer: &self.buffer, used: &mut self.used }
    }
}

/// Messages of one buffer, handed out one by one.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    buffer: &'a [u8],
    used: &'a mut usize,
}

impl<'a> Messages<'a> {
    pub(super) fn next_message(&mut self) -> Result<Option<Message<'a>>, Malformed> {
        let rest = self.buffer.get(*self.used..).unwrap_or_default();
        let [class, kind, payload @ ..] = rest else { return Ok(None) };
        let (class, kind) = (*class, *kind);
        if kind & 0x80 == 0 {
            *self.used += 2;
            return Message::read(class, kind, &[]).map(Some);
        }
        let mut body = payload;
        let length = match take(&mut body) {
            Ok(length) => length,
            Err(Malformed::Truncated) if payload.len() < varint::LONGEST => return Ok(None),
            Err(malformed) => return Err(malformed),
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PAYLOAD).ok_or(Malformed::TooLarge)?;
        let Some(payload) = body.get(..length) else { return Ok(None) };
        *self.used += rest.len() - body.len() + length;
        Message::read(class, kind, payload).map(Some)
    }
}
