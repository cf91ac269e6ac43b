//! One connection: HTTP/1.1 or HTTP/2 over any stream, and the limits of patience with its client.
//!
//! What is limited is only what a client does not do: send a request it began, take an answer, or anything at all. A
//! call may take its time, and a stream of answers has no end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::Names;
use super::server::{Bounds, Client, Protocols};
use crate::auth::Certified;
use crate::grpc::server::is_grpc;

/// Bytes of the HTTP/2 preface: with so many the version is known.
const PREFACE: usize = 24;
/// What stands for no limit.
const FAR: Duration = Duration::from_hours(24 * 365);
/// Bytes a second that a body has to come with once the time for it is over.
const TRICKLE: u64 = 4096;
/// Requests at the same time on one connection of HTTP/2.
const STREAMS: u32 = 256;

/// What is known of the client of a connection, and told with each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Its address.
    pub(super) client: Option<Client>,
    /// It has shown a certificate.
    pub(super) certified: Option<Certified>,
    /// By which names browsers may call.
    pub(super) names: Arc<Names>,
}

/// Serves a connection until it ends, is idle for too long, or `stop` lets its open requests end.
pub(super) async fn serve<S>(stream: S, told: Told, protocols: Protocols, bounds: &Bounds, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Counted { stream, activity: activity.clone() });
    let builder = builder(bounds);
    let (calls, read) = (activity.clone(), bounds.read);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let protocols = protocols.clone();
        let call = calls.begin();
        // A stream of gRPC may rest; its connection is probed.
        let patience = read.filter(|_| request.version() != Version::HTTP_2 || !is_grpc(&request));
        if let Some(certified) = told.certified {
            request.extensions_mut().insert(certified);
        }
        if let Some(client) = told.client {
            request.extensions_mut().insert(client);
        }
        request.extensions_mut().insert(told.names.clone());
        let request = request.map(|body| match patience {
            Some(limit) => Body::new(Patient { body, limit, received: 0, waited: Duration::ZERO, waiting: None }),
            None => Body::new(body),
        });
        async move {
            let response = protocols.serve(request).await;
            Ok::<_, Infallible>(response.map(|body| Answering { body, _call: call }))
        }
    });
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    // The builder waits for ever for the bytes that tell the version; after them its own timers run.
    let mut silence = std::pin::pin!(tokio::time::sleep(bounds.read.unwrap_or(FAR)));
    let idle_after = bounds.idle.unwrap_or(FAR);
    let mut idle = std::pin::pin!(tokio::time::sleep(idle_after));
    let (mut listening, mut closing) = (true, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !closing => {
                closing = true;
                served.as_mut().graceful_shutdown();
            }
            () = silence.as_mut(), if listening => {
                if activity.received() < PREFACE {
                    return;
                }
                listening = false;
            }
            () = idle.as_mut(), if !closing => {
                if let Some(later) = activity.idle_at(idle_after) {
                    idle.as_mut().reset(later);
                } else {
                    closing = true;
                    served.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn builder(bounds: &Bounds) -> auto::Builder<TokioExecutor> {
    // Scripts that grep for `Reload-Id` find it as they are used to.
    let mut builder = auto::Builder::new(TokioExecutor::new()).title_case_headers(true);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.read)
        .max_buf_size(bounds.max_header)
        .keep_alive(bounds.keep_alive.is_some());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(bounds.max_header).unwrap_or(u32::MAX))
        .adaptive_window(true)
        .keep_alive_interval(bounds.keep_alive)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What goes on on a connection. Requests only write to it: whoever woke the connection for each would do so once more
/// than needed.
struct Activity {
    zero: Instant,
    /// Bytes.
    received: AtomicUsize,
    /// Requests whose answers have not ended.
    calls: AtomicUsize,
    /// When the last of them had ended, in milliseconds after `zero`, and what was received by then.
    quiet: AtomicU64,
    mark: AtomicUsize,
}

impl Activity {
    fn new() -> Self {
        let (received, calls, mark) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Activity { zero: Instant::now(), received, calls, quiet: AtomicU64::new(0), mark }
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.calls.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }

    fn rest(&self) {
        self.quiet.store(self.zero.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.mark.store(self.received(), Ordering::Relaxed);
    }

    /// When to look again whether there was nothing for `limit`; nothing when that is so now.
    fn idle_at(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        if self.calls.load(Ordering::Relaxed) > 0 {
            return Some(now + limit);
        }
        let due = self.zero + Duration::from_millis(self.quiet.load(Ordering::Relaxed)) + limit;
        if now < due {
            return Some(due);
        }
        if self.received() == self.mark.load(Ordering::Relaxed) {
            return None;
        }
        // Something comes: the head of a request, which has a limit of its own, or a probe.
        self.rest();
        Some(now + limit)
    }
}

/// One request until its answer has ended.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.rest();
        }
    }
}

/// The body of an answer that is under way.
struct Answering {
    body: Body,
    _call: InFlight,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request body that is given up when its client is too slow. Only the time counts in which we waited for it.
struct Patient {
    body: Incoming,
    limit: Duration,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.received += data.remaining() as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let allowed = self.limit + Duration::from_millis(self.received * 1000 / TRICKLE);
        let left = allowed.saturating_sub(self.waited);
        let (_, alarm) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(left))));
        alarm.as_mut().poll(cx).map(|()| Some(Err("the body of the request comes too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that counts what it received.
struct Counted<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.activity.received.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
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

/// A stream that fails when its client takes nothing for too long.
pub(super) struct Impatient<S> {
    stream: S,
    limit: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    /// With the limit, if there is one.
    pub(super) fn new(stream: S, limit: Option<Duration>) -> Self {
        Impatient { stream, limit: limit.unwrap_or(FAR), stuck: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stuck = None;
            return polled;
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stuck.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, polled)
    }
}
