//! Streams that would never end by themselves end with the server.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::error::{Error, Reason, Result};

type Many<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

struct UntilStopped<T> {
    messages: Option<Many<T>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The messages until `stop` is cancelled; then one error that tells callers to come back.
pub fn until_stopped<T: 'static>(messages: Many<T>, stop: &CancellationToken) -> Many<T> {
    Box::pin(UntilStopped { messages: Some(messages), stopped: Box::pin(stop.clone().cancelled_owned()) })
}

impl<T> Stream for UntilStopped<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(messages) = &mut self.messages else { return Poll::Ready(None) };
        if let Poll::Ready(item) = messages.as_mut().poll_next(cx) {
            return Poll::Ready(item);
        }
        if self.stopped.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.messages = None;
        Poll::Ready(Some(Err(Error::new(Reason::Stopping, "the server is stopping, call again in a moment"))))
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
        let mut stream = until_stopped(Box::pin(two.chain(tokio_stream::pending())), &stop);
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(stream.next().await.unwrap().unwrap_err().reason(), Reason::Stopping);
        assert!(stream.next().await.is_none());
    }
}
