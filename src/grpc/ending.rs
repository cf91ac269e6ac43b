//! How a call of gRPC ended, which only the trailers of its answer say.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

/// Travels with a request, and is told the status of its answer.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<OnceLock<Code>>);

impl Ending {
    /// The status, once it is known.
    pub fn code(&self) -> Option<Code> {
        self.0.get().copied()
    }

    /// Looks for it in headers or trailers.
    pub fn look_in(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.0.get_or_init(|| Code::from_bytes(status.as_bytes()));
        }
    }

    /// Looks for it wherever it may come.
    pub(super) fn follow(self, response: Response<Body>) -> Response<Body> {
        self.look_in(response.headers());
        if self.code().is_some() {
            return response;
        }
        response.map(|body| Body::new(Followed { body, ending: self }))
    }
}

struct Followed {
    body: Body,
    ending: Ending,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.ending.look_in(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
