//! Answers that wait in memory until their clients read them: how many bytes of them there are is bounded, and so is the
//! time for which one is left untouched. Of a stream, what it has given and nobody has taken counts.
//!
//! Over HTTP/1 a stuck connection ends by itself. Over HTTP/2 a client may give an answer no window for ever, while its
//! connection is alive: then nobody asks the body for more, and only somebody else can give its memory back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;

use crate::error::Result;
use crate::grpc::memory::{Lease, Memory, full};

/// Bytes from which on an answer needs room.
const LARGE: u64 = 64 << 10;
/// Bytes from which on a part of a stream needs room.
const NOTICED: usize = 4 << 10;
/// Bytes of a piece. A piece is a copy: as long as a connection holds a part of the whole, it would hold all of it.
const PIECE: usize = 64 << 10;
/// Bytes of answers that nobody has read.
const ROOM: usize = 192 << 20;
/// Answers that wait for room at the same time. They are made already, and so take memory.
const WAITING: usize = 4;

/// The room for answers that wait for their clients.
#[derive(Clone)]
pub(super) struct Unread {
    memory: Memory,
    waiting: Arc<Semaphore>,
}

impl Default for Unread {
    fn default() -> Self {
        Unread { memory: Memory::new(ROOM), waiting: Arc::new(Semaphore::new(WAITING)) }
    }
}

impl Unread {
    /// Keeps an answer until its client has read it, or has read nothing of it for `patience`. Fails with `OVERLOADED` when
    /// there is no room for it.
    pub(super) async fn keep(&self, response: Response<Body>, patience: Option<Duration>) -> Result<Response<Body>> {
        let hint = response.body().size_hint();
        let size = hint.lower();
        let is_stream = size == 0 && hint.upper().is_none();
        if size < LARGE && !is_stream {
            return Ok(response);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let mut room = self.memory.lease();
        if !room.try_reach(size) {
            let _turn = self.waiting.try_acquire().map_err(|_| full())?;
            room.reach(size).await?;
        }
        Ok(response.map(|body| Body::new(Kept::new(body, size, room, patience))))
    }
}

/// An answer, until it is read or given up.
struct Kept {
    held: Arc<Mutex<Option<Held>>>,
    _watch: Option<AbortOnDropHandle<()>>,
}

struct Held {
    body: Body,
    /// What the body gave, less the pieces that were taken.
    rest: Bytes,
    /// When something was taken last.
    taken: Instant,
    /// The client has taken all there is.
    waits: bool,
    /// Bytes of the answer that are known beforehand.
    size: usize,
    room: Lease,
}

impl Held {
    /// Makes room for what the body gives, in the place of what it gave before.
    fn is_room_for(&mut self, bytes: usize) -> bool {
        let more = if bytes < NOTICED { 0 } else { bytes };
        self.room.shrink(self.size.max(more));
        self.room.try_reach(self.size.max(more))
    }
}

impl Kept {
    fn new(body: Body, size: usize, room: Lease, patience: Option<Duration>) -> Self {
        let held = Held { body, rest: Bytes::new(), taken: Instant::now(), waits: false, size, room };
        let held = Arc::new(Mutex::new(Some(held)));
        let watch = patience.map(|patience| AbortOnDropHandle::new(tokio::spawn(give_up(Arc::clone(&held), patience))));
        Kept { held, _watch: watch }
    }
}

/// Gives the memory of an answer back when nothing of it was taken for so long.
async fn give_up(held: Arc<Mutex<Option<Held>>>, patience: Duration) {
    loop {
        let now = Instant::now();
        let due = |held: &Held| if held.waits { now } else { held.taken } + patience;
        let Some(due) = lock(&held).as_ref().map(due) else { return };
        if due <= now {
            tracing::debug!("an answer is given up: its client has read nothing of it for too long");
            lock(&held).take();
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

fn lock(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut guard = lock(&self.held);
        let Some(held) = guard.as_mut() else {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("nothing of the answer was read for too long"))));
        };
        held.taken = Instant::now();
        if held.rest.is_empty() {
            let polled = Pin::new(&mut held.body).poll_frame(cx);
            held.waits = polled.is_pending();
            if held.waits {
                held.is_room_for(0);
            }
            match ready!(polled).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if held.is_room_for(data.len()) => held.rest = data,
                Some(Ok(Ok(_))) => {
                    guard.take();
                    return Poll::Ready(Some(Err(Status::resource_exhausted(full().message()))));
                }
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        if held.rest.len() <= PIECE && held.size == 0 {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut held.rest)))));
        }
        let length = held.rest.len().min(PIECE);
        let piece = Bytes::copy_from_slice(held.rest.get(..length).unwrap_or_default());
        held.rest.advance(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.held).as_ref().is_some_and(|held| held.rest.is_empty() && held.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let guard = lock(&self.held);
        let Some(held) = guard.as_ref() else { return SizeHint::default() };
        let (inner, rest) = (held.body.size_hint(), held.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio_stream::StreamExt as _;

    use super::*;

    fn answer(size: usize) -> Response<Body> {
        Response::new(Body::new(Full::new(Bytes::from(vec![b'x'; size]))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_comes_whole_and_in_pieces() {
        let unread = Unread::default();
        let size = 3 * PIECE + 7;
        let mut body = unread.keep(answer(size), Some(Duration::from_secs(30))).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(size as u64));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((first.len(), body.size_hint().exact()), (PIECE, Some((size - PIECE) as u64)));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), size - PIECE);
    }

    /// A stream that gives so many parts and then nothing more, without an end.
    fn stream(parts: usize, size: usize) -> Response<Body> {
        let part = move |_| Ok::<_, Status>(Frame::data(Bytes::from(vec![b'x'; size])));
        let all = tokio_stream::iter((0..parts).map(part)).chain(tokio_stream::pending());
        Response::new(Body::new(StreamBody::new(all)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_streams_have_given_and_nobody_has_taken_counts() {
        let unread = Unread::default();
        let limit = Some(Duration::from_secs(30));
        let size = 1 << 20;
        let mut streams = Vec::new();
        for _ in 0..ROOM / size {
            let mut body = unread.keep(stream(2, size), limit).await.unwrap().into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), PIECE);
            streams.push(body);
        }
        let mut more = unread.keep(stream(1, size), limit).await.unwrap().into_body();
        assert!(more.frame().await.unwrap().is_err(), "there is no room");
        // One that is read to where it waits, and so are small ones, takes no room.
        let mut first = streams.remove(0);
        for _ in 0..2 * size / PIECE - 1 {
            first.frame().await.unwrap().unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), first.frame()).await.is_err());
        let mut more = unread.keep(stream(1, size), limit).await.unwrap().into_body();
        more.frame().await.unwrap().unwrap();
        let mut small = unread.keep(stream(3, 100), limit).await.unwrap().into_body();
        small.frame().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_given_up_when_its_client_takes_nothing_and_not_when_there_is_nothing() {
        let unread = Unread::default();
        let limit = Some(Duration::from_secs(30));
        let mut left = unread.keep(stream(2, 10), limit).await.unwrap().into_body();
        left.frame().await.unwrap().unwrap();
        let mut waits = unread.keep(stream(1, 10), limit).await.unwrap().into_body();
        waits.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(Duration::from_mins(10), waits.frame()).await.is_err(), "it goes on");
        assert!(left.frame().await.unwrap().is_err(), "it was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_have_no_more_than_their_room_and_go_after_a_while() {
        let unread = Unread::default();
        let limit = Some(Duration::from_secs(30));
        let half = ROOM / 2;
        let first = unread.keep(answer(half), limit).await.unwrap();
        let mut second = unread.keep(answer(half), limit).await.unwrap().into_body();
        assert!(unread.keep(answer(half), limit).await.is_err(), "there is no room");
        assert!(unread.keep(answer(1000), limit).await.is_ok(), "small ones need none");
        tokio::time::sleep(Duration::from_secs(20)).await;
        second.frame().await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(first.into_body().collect().await.is_err(), "it was given up");
        let third = unread.keep(answer(half), limit).await.unwrap();
        assert_eq!(second.collect().await.unwrap().to_bytes().len(), half - PIECE);
        drop(third);
    }
}
