//! The port: HTTP/1.1 and HTTP/2 without TLS on one listener, gRPC and REST told apart by content type.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::Gateway;
use super::response::error_response;
use crate::error::Error;
use crate::grpc::handler::refused;
use crate::grpc::server::{GrpcServer, is_grpc};

/// Bytes of the HTTP/2 preface: with so many the version is known.
const PREFACE: usize = 24;

/// Bounds of connections.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at the same time, 1024 unless set; more wait in the backlog.
    pub connections: usize,
    /// Time for the head of a request, and for the rest between two on one connection; 60 s unless set.
    pub header: Duration,
    /// Silence after which an HTTP/2 connection is probed, 60 s unless set.
    pub keepalive: Duration,
    /// Time that open requests have to end after the stop, 15 s unless set.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 1024,
            header: Duration::from_mins(1),
            keepalive: Duration::from_mins(1),
            grace: Duration::from_secs(15),
        }
    }
}

/// All protocols of one port.
#[derive(Clone)]
pub struct Protocols {
    grpc: GrpcServer,
    gateway: Arc<Gateway>,
}

impl Protocols {
    /// Joins both.
    pub fn new(grpc: GrpcServer, gateway: Gateway) -> Self {
        Protocols { grpc, gateway: Arc::new(gateway) }
    }

    /// Answers one request of any protocol.
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let cors = self.gateway.cors();
        if let Some(response) = cors.preflight(&request) {
            return response;
        }
        let allowed = cors.headers(request.headers());
        let began = Instant::now();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let grpc = is_grpc(&request);
        let answered = async { if grpc { self.grpc.serve(request).await } else { self.gateway.serve(request).await } };
        // A panic costs its own call, not the connection and the calls beside it.
        let mut response = AssertUnwindSafe(answered).catch_unwind().await.unwrap_or_else(|_| {
            let error = Error::internal(format!("{method} {path} panicked"));
            if grpc { refused(&error) } else { error_response(&method, &path, &error) }
        });
        tracing::debug!(%method, path, status = response.status().as_u16(), elapsed = ?began.elapsed(), "answered");
        if let Some(allowed) = allowed {
            response.headers_mut().extend(allowed);
        }
        response
    }
}

/// Opens the port. The error names the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::AddrInUse => "the port is taken by another process".to_owned(),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {what}"))
    })
}

/// Accepts connections until `stop`, then lets open requests end within the grace time.
pub async fn serve(listener: TcpListener, protocols: Protocols, bounds: Bounds, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let tracker = TaskTracker::new();
    // Ends streams that would never end by themselves.
    let abort = CancellationToken::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give the others time to end.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (protocols, bounds) = (protocols.clone(), bounds.clone());
        let (stop, abort) = (stop.clone(), abort.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = connection(stream, protocols, bounds, stop) => {}
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(bounds.grace, tracker.wait()).await.is_err() {
        abort.cancel();
        tracker.wait().await;
    }
}

async fn connection(stream: TcpStream, protocols: Protocols, bounds: Bounds, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay not set");
    }
    let received = Arc::new(AtomicUsize::new(0));
    let io = TokioIo::new(Counted { stream, received: received.clone() });
    // Scripts that grep for `Reload-Id` find it as they are used to.
    let mut builder = auto::Builder::new(TokioExecutor::new()).title_case_headers(true);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(256)
        .max_header_list_size(64 << 10)
        .adaptive_window(true)
        .keep_alive_interval(bounds.keepalive)
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request: Request<Incoming>| {
        let protocols = protocols.clone();
        // HTTP/2 has its own probes, and streams of requests that may rest.
        let patience = (request.version() != Version::HTTP_2).then_some(bounds.header);
        let request = request.map(|body| match patience {
            Some(patience) => Body::new(Patient { body, patience, silence: None }),
            None => Body::new(body),
        });
        async move { Ok::<_, Infallible>(protocols.serve(request).await) }
    });
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    // The builder waits for ever for the bytes that tell the version; after them its own timers run.
    let mut silence = std::pin::pin!(tokio::time::sleep(bounds.header));
    let (mut listening, mut stopping) = (true, false);
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "connection ended");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            () = silence.as_mut(), if listening => {
                if received.load(Ordering::Relaxed) < PREFACE {
                    return;
                }
                listening = false;
            }
        }
    }
}

/// A request body that is given up when nothing comes for a while.
struct Patient {
    body: Incoming,
    patience: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Patient {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        silence.as_mut().poll(cx).map(|()| Some(Err(format!("nothing came for {patience:?}").into())))
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
    received: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
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
