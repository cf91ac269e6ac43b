//! Streams that would never end by themselves end with the server, and with the user who began them.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use super::frame::trailers;
use crate::auth::Session;
use crate::error::{Error, Reason, Result};

type Many<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;
type Cancelled = Pin<Box<WaitForCancellationFutureOwned>>;

fn cancelled(token: &CancellationToken) -> Cancelled {
    Box::pin(token.clone().cancelled_owned())
}

struct UntilEnded<T> {
    messages: Option<Many<T>>,
    stopped: Cancelled,
    over: Cancelled,
}

/// The messages until `stop` is cancelled, then one error that tells callers to come back; or until the session is over,
/// then one error that says so.
pub fn until_ended<T: 'static>(messages: Many<T>, stop: &CancellationToken, session: &Session) -> Many<T> {
    Box::pin(UntilEnded { messages: Some(messages), stopped: cancelled(stop), over: cancelled(session.ended()) })
}

impl<T> Stream for UntilEnded<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(messages) = &mut this.messages else { return Poll::Ready(None) };
        // Who may no longer call gets nothing more, though it may be ready.
        if this.over.as_mut().poll(cx).is_ready() {
            this.messages = None;
            return Poll::Ready(Some(Err(Session::over())));
        }
        if let Poll::Ready(item) = messages.as_mut().poll_next(cx) {
            return Poll::Ready(item);
        }
        if this.stopped.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        this.messages = None;
        Poll::Ready(Some(Err(Error::new(Reason::Stopping, "the server is stopping, call again in a moment"))))
    }
}

/// The body of an answer of gRPC that another one writes, until the session is over.
pub(super) struct WithSession {
    body: Option<Body>,
    over: Cancelled,
}

impl WithSession {
    pub(super) fn new(body: Body, session: &Session) -> Self {
        WithSession { body: Some(body), over: cancelled(session.ended()) }
    }
}

impl http_body::Body for WithSession {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.over.as_mut().poll(cx).is_ready() {
            this.body = None;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(Err(&Session::over()))))));
        }
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::value::Object;
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn a_stop_ends_a_silent_stream_but_loses_nothing_that_is_ready() {
        let stop = CancellationToken::new();
        stop.cancel();
        let two = tokio_stream::iter([Ok(Object::new()), Ok(Object::new())]);
        let mut stream = until_ended(Box::pin(two.chain(tokio_stream::pending())), &stop, &Session::default());
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(stream.next().await.unwrap().unwrap_err().reason(), Reason::Stopping);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_a_stream_that_never_rests() {
        let session = Session::default();
        let endless = tokio_stream::iter(std::iter::repeat_with(|| Ok(Object::new())));
        let mut stream = until_ended(Box::pin(endless), &CancellationToken::new(), &session);
        assert!(stream.next().await.unwrap().is_ok());
        session.ended().cancel();
        assert_eq!(stream.next().await.unwrap().unwrap_err().reason(), Reason::Unauthenticated);
        assert!(stream.next().await.is_none());
    }
}
