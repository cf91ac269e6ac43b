//! Heads of requests while they come. A small one is nobody's business; what is beyond has to find room in the memory
//! that all requests share, else it is not read on.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::connection::Activity;
use crate::error::Result;
use crate::grpc::memory::Lease;

/// Bytes of a head for which no room has to be found.
pub(super) const SMALL: usize = 16 << 10;
/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room is found in pieces of so many bytes.
const PIECE: usize = 64 << 10;
/// How long what a refused client still sends is taken, so that it reads why.
const FAREWELL: Duration = Duration::from_secs(2);
/// What it is told over HTTP/1.1. Over HTTP/2 its connection ends.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 91\r\n\
    Connection: close\r\n\r\n\
    {\"code\":503,\"message\":\"the memory for requests is taken by others, call again in a moment\"}";

type Waiting = Pin<Box<dyn Future<Output = Result<Lease>> + Send>>;

/// The stream of a connection, which counts what it received.
pub(super) struct Heads<S> {
    stream: S,
    activity: Arc<Activity>,
    version: Version,
    /// For room, beyond what is there.
    waiting: Option<Waiting>,
    /// There was none.
    refused: Option<Pin<Box<Sleep>>>,
}

/// Of HTTP, told by the first bytes.
enum Version {
    /// Not yet: so many bytes of the preface of HTTP/2 have come.
    Unknown(usize),
    One,
    Two(Frames),
}

impl<S> Heads<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Heads { stream, activity, version: Version::Unknown(0), waiting: None, refused: None }
    }

    /// Bytes of the head that has begun and not ended.
    fn open(&self) -> usize {
        match &self.version {
            Version::Unknown(_) => 0,
            Version::One => self.activity.open_head(),
            Version::Two(frames) => frames.head,
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.activity.receive(bytes.len());
        let mut rest = bytes;
        if let Version::Unknown(come) = self.version {
            let (begun, behind) = bytes.split_at(bytes.len().min(PREFACE.len() - come));
            let reached = come + begun.len();
            rest = behind;
            self.version = if begun != &PREFACE[come..reached] {
                Version::One
            } else if reached < PREFACE.len() {
                Version::Unknown(reached)
            } else {
                Version::Two(Frames::new())
            };
        }
        if let Version::Two(frames) = &mut self.version {
            frames.feed(rest);
        }
    }

    /// Waits until there is room for so many bytes more.
    fn poll_room(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<Result<()>> {
        let open = self.open();
        let needed = (open + more).saturating_sub(SMALL);
        if open == 0 || needed == 0 {
            return Poll::Ready(Ok(()));
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut lease = self.activity.take_lease();
            Box::pin(async move {
                if lease.bytes() < needed {
                    lease.reach(needed.next_multiple_of(PIECE)).await?;
                }
                Ok(lease)
            })
        });
        let lease = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(lease.map(|lease| self.activity.put_lease(lease)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Heads<S> {
    /// Says so, and waits until the client has heard it.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = || Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        if self.refused.is_none() {
            self.refused = Some(Box::pin(tokio::time::sleep(FAREWELL)));
            let one = matches!(self.version, Version::One);
            if !one || Pin::new(&mut self.stream).poll_write(cx, BUSY).is_pending() {
                return ended();
            }
        }
        let mut scrap = [0; 8192];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut self.stream).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {}
                Poll::Ready(_) => return ended(),
                Poll::Pending => break,
            }
        }
        match &mut self.refused {
            Some(limit) => limit.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            None => ended(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refused.is_some() {
            return this.poll_refuse(cx);
        }
        if ready!(this.poll_room(cx, buffer.remaining())).is_err() {
            return this.poll_refuse(cx);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.note(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Frames of HTTP/2, as far as heads go: one may come in several, and nothing comes between them.
#[derive(Debug)]
struct Frames {
    /// Beginning of a frame: length, type, flags, stream.
    begun: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: usize,
    /// Bytes of the head that has begun.
    head: usize,
    /// The payload belongs to it, and is the last of it.
    part: Option<bool>,
}

impl Frames {
    const BEGINNING: usize = 9;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;

    fn new() -> Self {
        Frames { begun: Vec::with_capacity(Self::BEGINNING), payload: 0, head: 0, part: None }
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let piece = self.payload.min(bytes.len());
                self.payload -= piece;
                self.head += if self.part.is_some() { piece } else { 0 };
                bytes = &bytes[piece..];
            } else {
                let piece = (Self::BEGINNING - self.begun.len()).min(bytes.len());
                self.begun.extend_from_slice(&bytes[..piece]);
                bytes = &bytes[piece..];
                self.begin();
            }
            if self.payload == 0 && self.part == Some(true) {
                (self.head, self.part) = (0, None);
            }
        }
    }

    /// Reads the beginning of a frame once it is all there.
    fn begin(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.begun[..] else { return };
        if self.begun.len() < Self::BEGINNING {
            return;
        }
        self.begun.clear();
        self.payload = u32::from_be_bytes([0, high, middle, low]) as usize;
        let head = matches!(kind, Self::HEADERS | Self::CONTINUATION);
        self.part = head.then_some(flags & Self::END_HEADERS != 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + length, 0);
        bytes
    }

    #[test]
    fn only_heads_that_have_not_ended_are_counted_however_the_bytes_come() {
        let mut bytes = Vec::new();
        for (kind, flags, length) in [(4, 0, 18), (8, 0, 4), (1, 4, 30), (0, 0, 5000), (1, 0, 100), (9, 0, 200)] {
            bytes.extend(frame(kind, flags, length));
        }
        for size in [1, 7, 100, bytes.len()] {
            let mut frames = Frames::new();
            for piece in bytes.chunks(size) {
                frames.feed(piece);
            }
            assert_eq!(frames.head, 300, "pieces of {size}");
            frames.feed(&frame(9, 4, 50));
            assert_eq!(frames.head, 0);
            frames.feed(&frame(1, 4, 0));
            frames.feed(&frame(0, 1, 77)[..40]);
            assert_eq!(frames.head, 0);
        }
    }

    #[test]
    fn the_refusal_is_as_long_as_it_says() {
        let text = std::str::from_utf8(BUSY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (body["code"].as_u64(), body["message"].as_str()),
            (Some(503), Some(crate::grpc::memory::full().message()))
        );
    }
}
