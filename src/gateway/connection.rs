//! One connection: HTTP/1.1 or HTTP/2 over any stream, and the limits of patience with its client.
//!
//! What is limited is only what a client does not do: send a request it began, take an answer, or anything at all. A
//! call may take its time, and a stream of answers has no end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::header::EXPECT;
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::Names;
use super::heads::{Heads, SMALL};
use super::server::{Bounds, Protocols};
use super::wakes::Wakes;
use crate::auth::Visitor;
use crate::error::Result;
use crate::grpc::memory::{Lease, Memory, full};
use crate::grpc::server::is_grpc;

/// Bytes of the HTTP/2 preface: with so many the version is known.
const PREFACE: usize = 24;
/// What stands for no limit.
const FAR: Duration = Duration::from_hours(24 * 365);
/// Bytes a second that a body has to come with once the time for it is over.
const TRICKLE: u64 = 4096;
/// Requests at the same time on one connection of HTTP/2.
const STREAMS: u32 = 256;
/// How long after its beginning a connection may still begin its first request though the server stops.
const YOUNG: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// How long a body that nobody wants is taken and thrown away, so that its client reads the answer.
const FAREWELL: Duration = Duration::from_secs(30);

/// What is known of the client of a connection, and told with each of its requests.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// Who it is.
    pub(super) visitor: Arc<Visitor>,
    /// By which names browsers may call.
    pub(super) names: Arc<Names>,
    /// When it came.
    pub(super) since: Instant,
}

impl Told {
    /// Returns when the server stops, but not before the client had time to begin.
    pub(super) async fn too_late(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        tokio::time::sleep_until(self.since + YOUNG).await;
    }
}

/// Serves a connection until it ends, is idle for too long, or `stop` lets its open requests end.
pub(super) async fn serve<S>(stream: S, told: Told, protocols: Protocols, bounds: &Bounds, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Arc::new(Activity::new(protocols.clone(), Arc::clone(&told.visitor)));
    let io = TokioIo::new(Heads::new(stream, activity.clone()));
    let builder = builder(bounds);
    let since = told.since;
    let desk = Desk { told, protocols, activity: activity.clone(), read: bounds.read, write: bounds.write };
    let service = service_fn(move |request| desk.answer(request));
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    // The builder waits for ever for the bytes that tell the version; after them its own timers run.
    let mut silence = std::pin::pin!(tokio::time::sleep(bounds.read.unwrap_or(FAR)));
    let idle_after = bounds.idle.unwrap_or(FAR);
    let mut idle = std::pin::pin!(tokio::time::sleep(idle_after));
    let (mut listening, mut stopping, mut closing) = (true, false, false);
    let wakes = Wakes::new();
    loop {
        tokio::select! {
            // What has come is read before anything is closed.
            biased;
            ended = std::future::poll_fn(|cx| wakes.poll(cx, served.as_mut())) => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => stopping = true,
            () = tokio::time::sleep(LOOK), if stopping && !closing => {}
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
        // A client that has just come is not sent away unheard.
        if stopping && !closing && (activity.has_begun() || since.elapsed() >= YOUNG) {
            closing = true;
            served.as_mut().graceful_shutdown();
        }
    }
}

/// Where the requests of a connection are taken.
struct Desk {
    told: Told,
    protocols: Protocols,
    activity: Arc<Activity>,
    read: Option<Duration>,
    write: Option<Duration>,
}

impl Desk {
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Answering>, Infallible>> + Send + use<> {
        let call = self.activity.begin();
        let head = self.activity.take_lease();
        let Told { visitor, names, .. } = &self.told;
        request.extensions_mut().insert(Arc::clone(visitor));
        request.extensions_mut().insert(Arc::clone(names));
        // Streams of health and reflection may rest; their connection is probed.
        let two = request.version() == Version::HTTP_2;
        let rests = two && is_grpc(&request) && request.uri().path().starts_with("/grpc.");
        // Over HTTP/2 a body can be refused by itself, and whoever asks before sending one does not send it.
        let unwanted = (!two && !request.headers().contains_key(EXPECT)).then(Unwanted::default);
        let (limit, kept) = (self.read.filter(|_| !rests).unwrap_or(FAR), unwanted.clone());
        let size = head_size(&request);
        let request = request.map(|body| Patient::new(body, limit, kept));
        let (protocols, activity, write) = (self.protocols.clone(), Arc::clone(&self.activity), self.write);
        async move {
            let response = match activity.room_for(size, head).await {
                Ok(_room) => protocols.serve(request.map(Body::new), write).await,
                Err(error) => protocols.refuse(&request, &error),
            };
            if let Some(body) = unwanted.and_then(|unwanted| unwanted.take()) {
                tokio::spawn(throw_away(body, Arc::clone(&activity).begin()));
            }
            Ok(response.map(|body| Answering { body, _call: call }))
        }
    }
}

/// What a head that has come takes of memory, as far as it has to find room now.
fn head_size<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    (headers.sum::<usize>() + path).min(SMALL)
}

/// Takes a body so that its client is not cut off while it sends, and would not read the answer.
async fn throw_away(mut body: Incoming, _call: InFlight) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ended = tokio::time::timeout(FAREWELL, all).await;
}

/// A body that was not read to its end.
#[derive(Debug, Clone, Default)]
struct Unwanted(Arc<Mutex<Option<Incoming>>>);

impl Unwanted {
    fn keep(&self, body: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
pub(super) struct Activity {
    zero: Instant,
    /// Bytes.
    received: AtomicUsize,
    /// Bytes of the head that has begun, of HTTP/1.1.
    head: AtomicUsize,
    /// Room that was found for it.
    room: Mutex<Option<Lease>>,
    /// For the request that waits for room.
    waiting: Semaphore,
    /// Requests whose answers have not ended.
    calls: AtomicUsize,
    /// There was one.
    begun: AtomicBool,
    /// When the last of them had ended, in milliseconds after `zero`, and what was received by then.
    quiet: AtomicU64,
    mark: AtomicUsize,
    protocols: Protocols,
    visitor: Arc<Visitor>,
}

impl Activity {
    fn new(protocols: Protocols, visitor: Arc<Visitor>) -> Self {
        Activity {
            zero: Instant::now(),
            received: AtomicUsize::new(0),
            head: AtomicUsize::new(0),
            room: Mutex::new(None),
            waiting: Semaphore::new(1),
            calls: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            quiet: AtomicU64::new(0),
            mark: AtomicUsize::new(0),
            protocols,
            visitor,
        }
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn receive(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        // Over HTTP/1.1 nothing but heads comes between requests.
        if self.calls.load(Ordering::Relaxed) == 0 {
            self.head.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Bytes of the head that has begun, of HTTP/1.1.
    pub(super) fn open_head(&self) -> usize {
        self.head.load(Ordering::Relaxed)
    }

    fn memory(&self) -> &Memory {
        self.protocols.memory(&self.visitor)
    }

    /// The room that was found for the head that comes.
    pub(super) fn take_lease(&self) -> Lease {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        room.take().unwrap_or_else(|| self.memory().lease())
    }

    pub(super) fn put_lease(&self, lease: Lease) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
    }

    /// Room for the head of a request that has come. The first one of a connection has it, and a large one found it while
    /// it came; of many at the same time, which HTTP/2 allows, one may wait.
    async fn room_for(&self, size: usize, head: Lease) -> Result<Lease> {
        if head.bytes() > 0 || self.calls.load(Ordering::Relaxed) <= 1 {
            return Ok(head);
        }
        let mut room = self.memory().lease();
        if !room.try_reach(size) {
            let _turn = self.waiting.try_acquire().map_err(|_| full())?;
            room.reach(size).await?;
        }
        Ok(room)
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        InFlight(self.clone())
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
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
    /// There until it is dropped.
    body: Option<Incoming>,
    limit: Duration,
    received: u64,
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Where it is put when it was not read to its end.
    unwanted: Option<Unwanted>,
}

impl Patient {
    fn new(body: Incoming, limit: Duration, unwanted: Option<Unwanted>) -> Self {
        Patient { body: Some(body), limit, received: 0, waited: Duration::ZERO, waiting: None, unwanted }
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        let left = self.body.take().filter(|body| !http_body::Body::is_end_stream(body));
        if let (Some(body), Some(unwanted)) = (left, &self.unwanted) {
            unwanted.keep(body);
        }
    }
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
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
        alarm.as_mut().poll(cx).map(|()| {
            // Nobody waits for the rest either.
            self.unwanted = None;
            Some(Err("the body of the request comes too slowly".into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
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
