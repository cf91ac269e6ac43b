//! The seam between transports and services: one call, one answer.

use std::pin::Pin;

use tokio_stream::Stream;

use crate::configuration::ports::Pending;
use crate::error::Result;
use crate::schema::tables::MethodId;
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
}

/// Messages of a streamed answer. Dropping it ends the work behind it.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Object>> + Send>>;

/// What a call answers.
pub enum Answer {
    /// One response message.
    Message(Object),
    /// Several: a server-streaming method, or over REST a list in chunks.
    Stream(Messages),
}

/// Everything that can be called, behind both transports.
pub trait Api: Send + Sync {
    /// Carries out one call. Cancel-safe: a dropped call changes either everything or nothing.
    fn call(&self, call: Call) -> Pending<'_, Result<Answer>>;
}
