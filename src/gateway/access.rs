//! One event of the log for each request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::auth::{self, Visitor};
use crate::grpc::ending::Ending;

/// Target of the log events of requests.
pub const ACCESS: &str = "access";

/// What is told of a request once it is answered.
pub(super) struct Noted {
    began: Instant,
    client: String,
    user: String,
    method: Method,
    target: String,
    version: Version,
    agent: String,
    referer: String,
}

impl Noted {
    /// The facts of a request, if anybody wants to know.
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
            return None;
        }
        let header = |name: HeaderName| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let visitor = request.extensions().get::<Arc<Visitor>>();
        Some(Noted {
            began: Instant::now(),
            client: visitor.and_then(|visitor| visitor.address()).map(|ip| ip.to_string()).unwrap_or_default(),
            user: auth::claimed_name(header(AUTHORIZATION).as_bytes()).unwrap_or_default(),
            method: request.method().clone(),
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: request.version(),
            agent: header(USER_AGENT),
            referer: header(REFERER),
        })
    }

    /// Logs an answer of REST.
    pub(super) fn answered(self, response: &Response<Body>) {
        let bytes = http_body::Body::size_hint(response.body()).exact();
        self.log(response.status(), bytes, None);
    }

    /// Logs an answer of gRPC when it ends: before, nobody knows how.
    pub(super) fn follow(self, response: Response<Body>, ending: Ending) -> Response<Body> {
        ending.look_in(response.headers());
        let status = response.status();
        response.map(|body| Body::new(Logged { body, noted: Some(self), status, ending, bytes: 0 }))
    }

    fn log(self, status: StatusCode, bytes: Option<u64>, grpc: Option<Code>) {
        let Noted { began, client, user, method, target, version, agent, referer } = self;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (status, bytes) = (status.as_u16(), bytes.map(|bytes| bytes.to_string()).unwrap_or_default());
        let grpc = grpc.map(tracing::field::debug);
        tracing::info!(
            target: ACCESS,
            client, user, %method, target, ?version, status, grpc, bytes, micros, agent, referer,
            "answered"
        );
    }
}

/// The body of an answer of gRPC.
struct Logged {
    body: Body,
    noted: Option<Noted>,
    status: StatusCode,
    ending: Ending,
    bytes: u64,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
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

impl Drop for Logged {
    fn drop(&mut self) {
        let Some(noted) = self.noted.take() else { return };
        if !self.status.is_success() {
            return noted.log(self.status, Some(self.bytes), None);
        }
        // Without a status its client went away.
        let code = self.ending.code().unwrap_or(Code::Cancelled);
        noted.log(http_status(code), Some(self.bytes), Some(code));
    }
}

/// The status of HTTP that says the same, as readers of access logs expect it.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
