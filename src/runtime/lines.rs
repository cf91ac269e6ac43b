//! Answers that are read in pieces, on a connection of their own that HAProxy closes at their end.
//!
//! Memory stays bounded: nothing is read before the piece before it has been taken, so a slow reader slows HAProxy
//! down instead of filling a buffer. A listing that HAProxy cuts off (it dies, or its timeout strikes) is an error,
//! never a short listing: HAProxy ends each one with an empty line.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::address::Socket;
use super::answer;
use super::client::{Limits, Target};
use super::command::Command;
use super::lane::too_large;
use crate::error::{Error, Reason, Result};

/// What is read at once, and so about the size of a block of lines.
const READ: usize = 64 * 1024;
/// No line of HAProxy's is longer than its buffer; this leaves room for a large `tune.bufsize`.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// The raw bytes of one answer, ended by the end of the connection.
#[derive(Debug)]
pub(super) struct Reader {
    socket: Socket,
    buffer: BytesMut,
    /// Line feeds still to come that answer the commands sent ahead of ours.
    preamble: usize,
    target: Arc<Target>,
    limits: Limits,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Connects and sends the command.
    pub(super) async fn open(
        target: Arc<Target>,
        limits: Limits,
        permit: OwnedSemaphorePermit,
        command: &Command,
    ) -> Result<Self> {
        let mut socket = target.connect(&limits).await?;
        // The second one keeps HAProxy from hanging up (after 10 s by default) on a reader that takes its time.
        let mut out = BytesMut::from(&b"set severity-output number;set timeout cli 600;"[..]);
        command.write_to(&mut out);
        match timeout(limits.stream_timeout, socket.write_all(&out)).await {
            Ok(written) => written.map_err(|error| target.lost(&error))?,
            Err(_) => return Err(target.late(limits.stream_timeout)),
        }
        Ok(Reader { socket, buffer: BytesMut::new(), preamble: 2, target, limits, _permit: permit })
    }

    /// Reads more into the buffer; false at the end.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.reserve(READ);
        let read = match timeout(self.limits.stream_timeout, self.socket.read(&mut self.buffer)).await {
            Ok(read) => read.map_err(|error| self.target.lost(&error))?,
            Err(_) => return Err(self.target.late(self.limits.stream_timeout)),
        };
        while self.preamble > 0 && self.buffer.first() == Some(&b'\n') {
            self.preamble -= 1;
            drop(self.buffer.split_to(1));
        }
        if !self.buffer.is_empty() {
            self.preamble = 0;
        }
        Ok(read > 0)
    }

    /// Reads to the end, at most `max_answer` bytes.
    pub(super) async fn whole(mut self) -> Result<Bytes> {
        while self.fill().await? {
            if self.buffer.len() > self.limits.max_answer {
                return Err(too_large(self.limits.max_answer));
            }
        }
        if self.preamble > 0 {
            return Err(self.target.lost(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(self.buffer.freeze())
    }
}

/// The lines of a listing, in blocks.
#[derive(Debug)]
pub struct Lines {
    reader: Reader,
    command: String,
    started: bool,
    /// The listing's last line feed so far, to tell an end from a cut.
    ended: bool,
    done: bool,
}

impl Lines {
    pub(super) fn new(reader: Reader, command: &Command) -> Self {
        Lines { reader, command: command.text(), started: false, ended: false, done: false }
    }

    /// The next block of whole lines, each ended by a line feed; `None` at the end. About 64 KiB at most.
    ///
    /// The first call also reports HAProxy's refusal, if any. After an error there is nothing more.
    pub async fn next_block(&mut self) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        let result = self.read_block().await;
        self.done = !matches!(result, Ok(Some(_)));
        result
    }

    async fn read_block(&mut self) -> Result<Option<Bytes>> {
        loop {
            let more = self.reader.fill().await?;
            let buffer = &mut self.reader.buffer;
            if let Some(last) = memchr::memrchr(b'\n', buffer) {
                let block = buffer.split_to(last + 1).freeze();
                if !std::mem::replace(&mut self.started, true) {
                    let line = block.split(|&byte| byte == b'\n').next().unwrap_or_default();
                    answer::check_first_line(line, &self.command)?;
                }
                self.ended = block.ends_with(b"\n\n") || block[..] == *b"\n";
                return Ok(Some(block));
            }
            if buffer.len() > MAX_LINE {
                let message = format!("a line of haproxy's answer is longer than {MAX_LINE} bytes");
                return Err(Error::new(Reason::TooLarge, message));
            }
            if !more {
                let whole = self.ended && buffer.is_empty();
                return if whole { Ok(None) } else { Err(self.cut()) };
            }
        }
    }

    fn cut(&self) -> Error {
        let error = self.reader.target.lost(&std::io::ErrorKind::UnexpectedEof.into());
        let message = format!("{}; the listing is not complete", error.message());
        error.message_replaced(message)
    }
}

/// Items read out of the lines of a listing.
#[derive(Debug)]
pub struct Listing<T> {
    lines: Lines,
    parse: fn(&[u8]) -> Option<T>,
}

impl<T: Send + 'static> Listing<T> {
    /// Lines for which `parse` returns nothing (headers, the last empty line) are left out.
    pub(super) fn new(lines: Lines, parse: fn(&[u8]) -> Option<T>) -> Self {
        Listing { lines, parse }
    }

    /// The next items, at least one; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>> {
        while let Some(block) = self.lines.next_block().await? {
            let items: Vec<T> = block.split(|&byte| byte == b'\n').filter_map(self.parse).collect();
            if !items.is_empty() {
                return Ok(Some(items));
            }
        }
        Ok(None)
    }

    /// Everything at once. Only for listings that are known to be short.
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(items) = self.next().await? {
            all.extend(items);
        }
        Ok(all)
    }

    /// The same as a stream of chunks; it ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Vec<T>>> + Send + 'static {
        stream::try_unfold(self, |mut listing| async move { Ok(listing.next().await?.map(|items| (items, listing))) })
    }
}
