//! Answers that are read in pieces, on a connection of their own that HAProxy closes at their end.
//!
//! Memory stays bounded: nothing is read before the piece before it has been taken, so a slow reader slows HAProxy
//! down instead of filling a buffer. A listing that HAProxy cuts off (it dies, or its timeout strikes) is an error,
//! never a short listing: HAProxy ends each one with an empty line.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::address::Socket;
use super::answer;
use super::client::Target;
use super::command::Command;
use super::connection::Search;
use super::lane::{Access, too_large};
use super::slots::{Slot, Slots};
use super::worker::{Sign, Worker};
use crate::error::{Error, Reason, Result};

/// What is read at once, and so about the size of a block of lines.
const READ: usize = 64 * 1024;
/// Bytes of a listing that HAProxy has to send within [`super::Limits::stream_timeout`], not counting the time that its
/// reader takes.
pub(super) const PROGRESS: usize = 1024 * 1024;
/// No line of HAProxy's is longer than its buffer; this leaves room for a large `tune.bufsize`.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// The raw bytes of one answer, ended by the end of the connection.
#[derive(Debug)]
pub(super) struct Reader {
    socket: Socket,
    buffer: BytesMut,
    target: Arc<Target>,
    worker: Worker,
    /// Time left for HAProxy to bring what is missing of the next [`PROGRESS`] bytes.
    left: Duration,
    missing: usize,
    _slot: Slot,
}

impl Reader {
    /// Connects to the worker that runs and sends the command.
    pub(super) async fn open(target: Arc<Target>, slot: Slot, command: &Command, access: Access) -> Result<Self> {
        let left = target.limits.stream_timeout;
        let deadline = Instant::now() + left;
        let searched = target.clone();
        let mut search = Search::new(&searched, deadline, false);
        loop {
            let mut socket = search.connect().await?;
            let mut buffer = BytesMut::new();
            let asked = timeout_at(deadline, ask(&mut socket, &mut buffer, command)).await;
            match asked.map_err(|_| target.late())? {
                Ok(sign) if search.found(sign).await?.is_some() => {
                    let worker = sign.worker;
                    if !access.allows(std::slice::from_ref(command), worker, &target) {
                        let message = "another worker of haproxy has followed";
                        return Err(Error::new(Reason::RuntimeUnavailable, message));
                    }
                    return Ok(Reader { socket, buffer, target, worker, left, missing: PROGRESS, _slot: slot });
                }
                Ok(_) => {}
                Err(error) => search.broke(&error).await?,
            }
        }
    }

    /// Reads more into the buffer; false at the end.
    async fn fill(&mut self) -> Result<bool> {
        self.buffer.reserve(READ);
        let begun = Instant::now();
        let read = match timeout(self.left, self.socket.read(&mut self.buffer)).await {
            Ok(read) => read.map_err(|error| self.target.lost(&error))?,
            Err(_) => return Err(self.target.late()),
        };
        self.left = self.left.saturating_sub(begun.elapsed());
        self.missing = self.missing.saturating_sub(read);
        if self.missing == 0 {
            (self.left, self.missing) = (self.target.limits.stream_timeout, PROGRESS);
        }
        Ok(read > 0)
    }

    /// Reads to the end, at most `max_answer` bytes.
    pub(super) async fn whole(mut self) -> Result<Bytes> {
        let limit = self.target.limits.max_answer;
        // Some of it, or all, came with the answer to `show info`.
        while self.buffer.len() <= limit && self.fill().await? {}
        if self.buffer.len() > limit {
            return Err(too_large(limit));
        }
        // Every answer ends with a line feed.
        if self.buffer.is_empty() {
            return Err(self.target.lost(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(self.buffer.freeze())
    }
}

/// Sends the command behind the question which worker answers, and reads the answer to that.
async fn ask(socket: &mut Socket, buffer: &mut BytesMut, command: &Command) -> io::Result<Sign> {
    // The timeout keeps HAProxy from hanging up (after 10 s by default) on a reader that takes its time.
    let mut out = BytesMut::from(&b"set severity-output number;set timeout cli 600;show info;"[..]);
    command.write_to(&mut out);
    socket.write_all(&out).await?;
    loop {
        let start = buffer.iter().position(|&byte| byte != b'\n').unwrap_or(buffer.len());
        if let Some(end) = memchr::memmem::find(&buffer[start..], b"\n\n") {
            let info = buffer.split_to(start + end + 2);
            return Sign::read(&info).ok_or_else(|| io::Error::other("unexpected answer to show info"));
        }
        buffer.reserve(READ);
        if socket.read(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Cuts an answer into blocks of whole lines.
#[derive(Debug)]
pub(super) struct Blocks {
    reader: Reader,
    command: String,
    started: bool,
    /// The listing's last line feed so far, to tell an end from a cut.
    ended: bool,
}

impl Blocks {
    pub(super) fn new(reader: Reader, command: &Command) -> Self {
        Blocks { reader, command: command.text(), started: false, ended: false }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        // What came with the answer to `show info` is whole lines, perhaps.
        let mut more = true;
        loop {
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
            more = self.reader.fill().await?;
        }
    }

    fn cut(&self) -> Error {
        let error = self.reader.target.lost(&io::ErrorKind::UnexpectedEof.into());
        let message = format!("{}; the listing is not complete", error.message());
        error.message_replaced(message)
    }

    /// Reads one block ahead of who takes them, and gives up the slot of one who takes next to nothing while others wait.
    async fn pump(mut self, blocks: mpsc::Sender<Result<Option<Bytes>>>, slots: Arc<Slots>) {
        let limit = self.reader.target.limits.stream_timeout;
        let (mut begun, mut taken) = (Instant::now(), 0);
        loop {
            let block = self.next().await;
            let length = match &block {
                Ok(Some(block)) => block.len(),
                _ => 0,
            };
            let slow = async {
                sleep_until(begun + limit).await;
                slots.wanted().await;
            };
            tokio::select! {
                biased;
                free = blocks.reserve() => match free {
                    Ok(free) => free.send(block),
                    // Who took them is gone.
                    Err(_) => return,
                },
                () = slow => {
                    drop(self);
                    let message = format!("less than {PROGRESS} bytes were taken in {limit:?} while others waited");
                    drop(blocks.send(Err(Error::new(Reason::DeadlineExceeded, message))).await);
                    return;
                }
            }
            if length == 0 {
                return;
            }
            taken += length;
            if taken >= PROGRESS {
                (begun, taken) = (Instant::now(), 0);
            }
        }
    }
}

/// The lines of a listing, in blocks.
#[derive(Debug)]
pub struct Lines {
    worker: Worker,
    from: From,
    done: bool,
}

/// Where blocks come from.
#[derive(Debug)]
enum From {
    /// What this program takes as fast as it comes.
    Answer(Box<Blocks>),
    /// What a caller takes at its own speed.
    Pump(mpsc::Receiver<Result<Option<Bytes>>>),
}

impl Lines {
    /// For what this program takes as fast as it comes.
    pub(super) fn quick(blocks: Blocks) -> Self {
        Lines { worker: blocks.reader.worker, from: From::Answer(Box::new(blocks)), done: false }
    }

    /// For what a caller takes at its own speed. Needs a Tokio runtime.
    pub(super) fn slow(blocks: Blocks, slots: Arc<Slots>) -> Self {
        let worker = blocks.reader.worker;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(blocks.pump(sender, slots));
        Lines { worker, from: From::Pump(receiver), done: false }
    }

    /// The worker that answers.
    pub fn worker(&self) -> Worker {
        self.worker
    }

    /// The next block of whole lines, each ended by a line feed; `None` at the end. About 64 KiB at most.
    ///
    /// The first call also reports HAProxy's refusal, if any. After an error there is nothing more.
    pub async fn next_block(&mut self) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        let result = match &mut self.from {
            From::Answer(blocks) => blocks.next().await,
            From::Pump(receiver) => {
                receiver.recv().await.unwrap_or_else(|| Err(Error::internal("the task of a listing has ended")))
            }
        };
        self.done = !matches!(result, Ok(Some(_)));
        result
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
