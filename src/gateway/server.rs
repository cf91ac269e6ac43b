//! The ports: HTTP/1.1 and HTTP/2, with TLS or without, on TCP or a unix socket; gRPC and REST told apart by content type.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, HeaderName, REFERER, USER_AGENT};
use http::{Method, Request, Response, Version};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::connection::{self, Impatient, Told};
use super::listen::Socket;
use super::origin;
use super::response::error_response;
use super::tls::Identity;
use super::{Gateway, Names};
use crate::auth::{self, Certified};
use crate::error::Error;
use crate::grpc::handler::refused;
use crate::grpc::server::{GrpcServer, is_grpc};

/// Target of the log events of requests.
pub const ACCESS: &str = "access";

/// The address of a client, beside its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) SocketAddr);

/// Bounds of the connections of one port.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at the same time, 1024 unless set; more wait in the backlog.
    pub connections: Option<usize>,
    /// Time for the head of a request, and for a body that hardly comes; 30 s unless set.
    pub read: Option<Duration>,
    /// How long a client may take nothing of an answer, 30 s unless set.
    pub write: Option<Duration>,
    /// Silence after which a connection is probed, 3 min unless set. With `None` each connection has one request.
    pub keep_alive: Option<Duration>,
    /// How long a connection may be without a request, 60 s unless set.
    pub idle: Option<Duration>,
    /// Bytes of the head of a request, 1 MiB unless set; at least 8 KiB.
    pub max_header: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: Some(1024),
            read: Some(Duration::from_secs(30)),
            write: Some(Duration::from_secs(30)),
            keep_alive: Some(Duration::from_mins(3)),
            idle: Some(Duration::from_mins(1)),
            max_header: 1 << 20,
        }
    }
}

/// A socket and how it is served.
pub struct Port {
    /// Where connections come in.
    pub socket: Socket,
    /// With it, TLS.
    pub tls: Option<Identity>,
    /// Its bounds.
    pub bounds: Bounds,
    /// By which names browsers may call it.
    pub names: Names,
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
        let allowed = cors.headers(request.headers());
        let noted = tracing::enabled!(target: ACCESS, tracing::Level::INFO).then(|| Noted::of(&request));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let grpc = is_grpc(&request);
        let names = request.extensions().get::<Arc<Names>>().cloned().unwrap_or_default();
        let answered = async {
            if let Err(error) = origin::judge(&request, cors, &names) {
                tracing::info!(%method, path, "{error}");
                return if grpc { self.grpc.refuse(&request, &error) } else { self.gateway.refuse(&request, &error) };
            }
            match cors.preflight(&request) {
                Some(response) => response,
                None if grpc => self.grpc.serve(request).await,
                None => self.gateway.serve(request).await,
            }
        };
        // A panic costs its own call, not the connection and the calls beside it.
        let mut response = AssertUnwindSafe(answered).catch_unwind().await.unwrap_or_else(|_| {
            let error = Error::internal(format!("{method} {path} panicked"));
            if grpc { refused(&error) } else { error_response(&method, &path, &error) }
        });
        if let Some(noted) = noted {
            noted.log(&response);
        }
        if let Some(allowed) = allowed {
            response.headers_mut().extend(allowed);
        }
        response
    }
}

/// What is told of a request once it is answered.
struct Noted {
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
    fn of(request: &Request<Body>) -> Self {
        let header = |name: HeaderName| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let client = request.extensions().get::<Client>();
        Noted {
            began: Instant::now(),
            client: client.map(|Client(address)| address.ip().to_string()).unwrap_or_default(),
            user: auth::claimed_name(header(AUTHORIZATION).as_bytes()).unwrap_or_default(),
            method: request.method().clone(),
            target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            version: request.version(),
            agent: header(USER_AGENT),
            referer: header(REFERER),
        }
    }

    fn log(self, response: &Response<Body>) {
        let Noted { began, client, user, method, target, version, agent, referer } = self;
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bytes = http_body::Body::size_hint(response.body()).exact().map(|bytes| bytes.to_string());
        let (status, bytes) = (response.status().as_u16(), bytes.unwrap_or_default());
        tracing::info!(
            target: ACCESS,
            client, user, %method, target, ?version, status, bytes, micros, agent, referer,
            "answered"
        );
    }
}

/// Accepts connections on all ports until `stop`, then lets open requests end within the grace time.
pub async fn serve(ports: Vec<Port>, protocols: Protocols, grace: Duration, stop: CancellationToken) {
    let tracker = TaskTracker::new();
    // Ends streams that would never end by themselves.
    let abort = CancellationToken::new();
    let mut accepting = Vec::with_capacity(ports.len());
    for port in ports {
        let protocols = protocols.clone();
        let (tracker, stop, abort) = (tracker.clone(), stop.clone(), abort.clone());
        accepting.push(port.accept(protocols, tracker, stop, abort));
    }
    futures_util::future::join_all(accepting).await;
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
        abort.cancel();
        tracker.wait().await;
    }
}

impl Port {
    async fn accept(
        self,
        protocols: Protocols,
        tracker: TaskTracker,
        stop: CancellationToken,
        abort: CancellationToken,
    ) {
        let Port { socket, tls, bounds, names } = self;
        let names = Arc::new(names);
        let places = Arc::new(Semaphore::new(bounds.connections.unwrap_or(Semaphore::MAX_PERMITS)));
        let acceptor = tls.map(|identity| TlsAcceptor::from(identity.0));
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await.ok()?;
                Some((socket.accept(&bounds).await, place))
            };
            let (accepted, place) = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accepted => match accepted {
                    Some(accepted) => accepted,
                    None => return,
                },
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: give the others time to end.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let stream = Impatient::new(stream, bounds.write);
            let told = Told { client: client.map(Client), certified: None, names: names.clone() };
            let (protocols, bounds, acceptor) = (protocols.clone(), bounds.clone(), acceptor.clone());
            let (stop, abort) = (stop.clone(), abort.clone());
            tracker.spawn(async move {
                let served = async {
                    match acceptor {
                        None => connection::serve(stream, told, protocols, &bounds, stop).await,
                        Some(acceptor) => secure(stream, told, &acceptor, protocols, &bounds, stop).await,
                    }
                };
                tokio::select! {
                    () = served => {}
                    () = abort.cancelled() => {}
                }
                drop(place);
            });
        }
    }
}

/// Shakes hands, then serves.
async fn secure(
    stream: Impatient<Stream>,
    told: Told,
    acceptor: &TlsAcceptor,
    protocols: Protocols,
    bounds: &Bounds,
    stop: CancellationToken,
) {
    let limit = bounds.read.unwrap_or(Duration::from_mins(1));
    let shaken = tokio::select! {
        () = stop.cancelled() => return,
        shaken = tokio::time::timeout(limit, acceptor.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            // Only a certificate that was verified comes this far.
            let certified = stream.get_ref().1.peer_certificates().map(|_| Certified);
            connection::serve(stream, Told { certified, ..told }, protocols, bounds, stop).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client"),
        Err(_) => tracing::debug!("a client was too slow to begin TLS"),
    }
}

/// A stream of bytes to a client.
trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for S {}
type Stream = Box<dyn Bytestream>;

impl Socket {
    async fn accept(&self, bounds: &Bounds) -> io::Result<(Stream, Option<SocketAddr>)> {
        Ok(match self {
            Socket::Tcp(listener) => {
                let (stream, client) = listener.accept().await?;
                if let Err(error) = tune(&stream, bounds.keep_alive) {
                    tracing::debug!(%error, "options of a connection not set");
                }
                (Box::new(stream), Some(client))
            }
            Socket::Unix(listener) => (Box::new(listener.accept().await?.0), None),
        })
    }
}

/// Small answers go at once, and a client whose machine is gone is noticed.
fn tune(stream: &TcpStream, keep_alive: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(silence) = keep_alive {
        let silence = silence.max(Duration::from_secs(1));
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, silence)?;
        sockopt::set_tcp_keepintvl(stream, silence)?;
    }
    Ok(())
}
