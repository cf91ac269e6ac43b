//! The seam between transports and services: one call, one answer.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use tokio_stream::{Stream, StreamExt as _};

use super::memory::{Lease, Memory};
use crate::configuration::ports::Pending;
use crate::error::{Result, Violation};
use crate::schema::tables::{FieldIndex, MethodId};
use crate::schema::value::Object;

/// Which door a call came through. Only rules that `gateway/compat.rs` names may depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// gRPC or gRPC-web.
    Grpc,
    /// REST. Lists are answered whole, as a stream of response messages whose lists are joined.
    Rest,
}

/// A decoded call.
#[derive(Debug)]
pub struct Call {
    /// Row of the method table.
    pub method: MethodId,
    /// The request message.
    pub request: Object,
    /// Where it came from.
    pub transport: Transport,
    /// Name of the user who calls; `None` for a client that has shown a certificate instead.
    pub caller: Option<Box<str>>,
    /// A field of the request whose bytes are still to come.
    pub upload: Option<Upload>,
    /// Rules that the object of a Replace breaks. It is refused unless the object that it replaces breaks them too, with the
    /// same values.
    pub doubts: Vec<Violation>,
    /// The bytes of the request came as JSON, which cannot carry all of them.
    pub is_json: bool,
}

/// A list of a request goes on in pieces of so many bytes.
pub const PIECE: usize = 64 << 10;

/// Bytes that are read while they arrive.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// All of them. A single chunk is not copied.
pub async fn collect(chunks: Chunks) -> Result<Bytes> {
    collect_within(chunks, 0, &mut Memory::default().lease()).await
}

/// All of them, of which so many bytes are expected, once there is room for them. A single chunk is not copied.
pub async fn collect_within(mut chunks: Chunks, expected: usize, room: &mut Lease) -> Result<Bytes> {
    /// Room for what was not expected is found in pieces of so many bytes.
    const PIECE: usize = 256 << 10;
    room.reach(expected).await?;
    let first = chunks.next().await.transpose()?.unwrap_or_default();
    room.reach(first.len()).await?;
    let mut rest = BytesMut::new();
    while let Some(chunk) = chunks.next().await.transpose()? {
        let length = rest.len().max(first.len()) + chunk.len();
        if length > room.bytes() {
            room.reach(length.next_multiple_of(PIECE)).await?;
        }
        if rest.is_empty() {
            rest.reserve(expected.max(length));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&chunk);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// A field that is not in the request yet.
pub struct Upload {
    /// The field.
    pub field: FieldIndex,
    /// Its bytes; of a list of messages, pieces of the request message that hold nothing else, in the form of the wire.
    /// An error when they end early, are more than the limit, or are wrong.
    pub chunks: Chunks,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("field", &self.field).finish_non_exhaustive()
    }
}

/// Messages of a streamed answer. Dropping it ends the work behind it.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Object>> + Send>>;

/// What a call answers.
pub enum Answer {
    /// One response message.
    Message(Object),
    /// Several: a server-streaming method, or over REST a list in chunks.
    Stream(Messages),
    /// Messages in the form of the wire, one unless the method streams; over gRPC only.
    Written(Chunks),
}

/// Everything that can be called, behind both transports.
pub trait Api: Send + Sync {
    /// Carries out one call. Cancel-safe: a dropped call changes either everything or nothing.
    fn call(&self, call: Call) -> Pending<'_, Result<Answer>>;

    /// What every answer has to say as well, a sentence each; none when all is well.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
