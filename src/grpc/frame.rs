//! Length-prefixed messages of gRPC on HTTP bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;
use tokio_stream::StreamExt as _;
use tonic::Status;

use super::call::{Chunks, Messages};
use super::memory::Lease;
use super::status::status;
use crate::error::{Error, Reason, Result};
use crate::schema::tables::{MessageId, Tables};
use crate::schema::value::Object;
use crate::schema::wire;

/// Largest message in bytes, in both directions: 16 MiB.
pub const LARGEST: usize = 16 << 20;
/// Flag byte and length in front of each message.
const PREFIX: usize = 5;
/// Messages of a stream that are ready are sent together up to this many bytes.
const BATCH: usize = 16 << 10;

/// Reads the one message of a unary or server-streaming request, once there is room for it.
pub async fn read_message<B>(body: B, room: &mut Lease) -> Result<Bytes>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| malformed(format!("request ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        // One frame is the common case and needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
        let prefix = if rest.is_empty() { &first[..] } else { &rest[..] };
        if prefix.len() > LARGEST + PREFIX {
            return Err(malformed("more than one message in the request"));
        }
        if prefix.len() >= PREFIX {
            let length = length(prefix);
            if length > LARGEST {
                return Err(too_large("request message", length));
            }
            room.reach(length).await?;
            if !rest.is_empty() {
                rest.reserve((length + PREFIX).saturating_sub(rest.len()));
            }
        }
    }
    let mut message = if rest.is_empty() { first } else { rest.freeze() };
    if message.len() < PREFIX {
        return Err(malformed("request has no message"));
    }
    if message[0] != 0 {
        return Err(Error::new(
            Reason::Unsupported,
            "compressed messages are not supported, send grpc-encoding identity",
        ));
    }
    let expected = length(&message);
    message.advance(PREFIX);
    match message.len().cmp(&expected) {
        std::cmp::Ordering::Less => Err(malformed("request message is cut off")),
        std::cmp::Ordering::Equal => Ok(message),
        std::cmp::Ordering::Greater => Err(malformed("more than one message in the request")),
    }
}

fn length(prefix: &[u8]) -> usize {
    u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Reason::MalformedRequest, message)
}

fn too_large(what: &str, length: usize) -> Error {
    Error::new(Reason::TooLarge, format!("{what} has {length} bytes, the limit is {LARGEST}"))
        .with("length", length)
        .with("limit", LARGEST)
}

/// Appends one message with its prefix.
pub fn append(tables: &Tables, id: MessageId, object: &Object, out: &mut Vec<u8>) -> Result<()> {
    prefixed(out, |out| wire::encode(tables, id, object, out))
}

/// A message with its prefix that comes in pieces, in the form of the wire.
pub async fn whole(mut message: Chunks) -> Result<Vec<u8>> {
    let mut out = vec![0; PREFIX];
    while let Some(piece) = message.next().await.transpose()? {
        out.extend_from_slice(&piece);
        if out.len() > LARGEST + PREFIX {
            break;
        }
    }
    put_length(&mut out, 0)?;
    Ok(out)
}

fn prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    write(out);
    put_length(out, start)
}

/// Writes the length of a message into the prefix that begins at `start`.
fn put_length(out: &mut Vec<u8>, start: usize) -> Result<()> {
    let length = out.len() - start - PREFIX;
    if length > LARGEST {
        out.truncate(start);
        return Err(too_large("answer", length));
    }
    out[start + 1..start + PREFIX].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(())
}

/// Trailers of an ended call.
pub fn trailers(result: Result<(), &Error>) -> HeaderMap {
    let status = match result {
        Ok(()) => Status::ok(""),
        Err(error) => status(error),
    };
    let mut headers = HeaderMap::with_capacity(3);
    if status.add_header(&mut headers).is_err() {
        headers.insert("grpc-status", http::HeaderValue::from_static("13"));
    }
    headers
}

/// Body of a unary answer: one message and the trailers.
pub struct Single {
    message: Option<Bytes>,
    ended: bool,
}

impl Single {
    /// A body with an encoded, prefixed message.
    pub fn new(message: Bytes) -> Self {
        Single { message: Some(message), ended: false }
    }
}

impl Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers(Ok(()))))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// Not exact: a length in the head is for answers without trailers.
    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.message.as_ref().map_or(0, |message| message.len() as u64));
        hint
    }
}

/// The messages of a streamed answer.
pub enum Source {
    /// As objects.
    Objects(Messages),
    /// In the form of the wire.
    Written(Chunks),
}

impl Source {
    /// Appends the next message with its prefix.
    fn poll_append(
        &mut self,
        cx: &mut Context<'_>,
        tables: &Tables,
        id: MessageId,
        out: &mut Vec<u8>,
    ) -> Poll<Option<Result<()>>> {
        match self {
            Source::Objects(messages) => {
                let item = std::task::ready!(messages.as_mut().poll_next(cx));
                Poll::Ready(item.map(|item| item.and_then(|object| append(tables, id, &object, out))))
            }
            Source::Written(messages) => {
                let item = std::task::ready!(messages.as_mut().poll_next(cx));
                let append = |bytes: Bytes| prefixed(out, |out| out.extend_from_slice(&bytes));
                Poll::Ready(item.map(|item| item.and_then(append)))
            }
        }
    }
}

/// Body of a streamed answer. It holds at most one batch, so a slow reader stops the source instead of filling memory.
pub struct Streamed {
    tables: Arc<Tables>,
    output: MessageId,
    messages: Option<Source>,
    deadline: Option<Pin<Box<Sleep>>>,
    failure: Option<Error>,
    ended: bool,
}

impl Streamed {
    /// A body of messages of one type, cut off with `DEADLINE_EXCEEDED` when the deadline passes.
    pub fn new(tables: Arc<Tables>, output: MessageId, messages: Source, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        Streamed { tables, output, messages: Some(messages), deadline, failure: None, ended: false }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(deadline) = &mut this.deadline
            && this.messages.is_some()
            && deadline.as_mut().poll(cx).is_ready()
        {
            this.failure = Some(deadline_exceeded());
            this.messages = None;
        }
        let mut batch = Vec::new();
        while let Some(messages) = &mut this.messages {
            match messages.poll_append(cx, &this.tables, this.output, &mut batch) {
                Poll::Ready(Some(appended)) => {
                    if let Err(error) = appended {
                        this.failure = Some(error);
                        this.messages = None;
                    }
                    if batch.len() >= BATCH {
                        break;
                    }
                }
                Poll::Ready(None) => this.messages = None,
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !batch.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(batch.into()))));
        }
        this.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(this.failure.as_ref().map_or(Ok(()), Err))))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The error of a passed deadline.
pub fn deadline_exceeded() -> Error {
    Error::new(Reason::DeadlineExceeded, "the deadline of the call passed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::memory::Memory;
    use http_body_util::{Full, StreamBody};

    fn chunks(list: Vec<Vec<u8>>) -> impl Body<Data = Bytes, Error = Error> {
        StreamBody::new(tokio_stream::iter(list.into_iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk))))))
    }

    async fn read<B: Body<Data = Bytes>>(body: B) -> Result<Bytes>
    where
        B::Error: std::fmt::Display,
    {
        read_message(body, &mut Memory::default().lease()).await
    }

    async fn reason(bytes: &[u8]) -> Reason {
        read(Full::new(Bytes::copy_from_slice(bytes))).await.unwrap_err().reason()
    }

    #[tokio::test]
    async fn a_message_may_come_in_any_pieces() {
        let whole = [0, 0, 0, 0, 3, b'a', b'b', b'c'];
        for size in 1..=whole.len() {
            let body = chunks(whole.chunks(size).map(<[u8]>::to_vec).collect());
            assert_eq!(&read(body).await.unwrap()[..], b"abc", "pieces of {size}");
        }
        assert!(read(Full::new(Bytes::from_static(&[0, 0, 0, 0, 0]))).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn faulty_framing_is_refused() {
        assert_eq!(reason(b"").await, Reason::MalformedRequest);
        assert_eq!(reason(&[0, 0, 0, 0, 3, b'a']).await, Reason::MalformedRequest);
        assert_eq!(reason(&[0, 0, 0, 0, 1, b'a', b'b']).await, Reason::MalformedRequest);
        assert_eq!(reason(&[1, 0, 0, 0, 1, b'a']).await, Reason::Unsupported);
    }

    #[tokio::test]
    async fn a_message_beyond_the_limit_is_refused_by_its_length_alone() {
        let error = read(chunks(vec![vec![0, 2, 0, 0, 0], vec![0; 10]])).await.unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
        assert_eq!(error.to_string(), "request message has 33554432 bytes, the limit is 16777216");
    }
}
