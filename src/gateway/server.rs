//! The ports: HTTP/1.1 and HTTP/2, with TLS or without, on TCP or a unix socket; gRPC and REST told apart by content type.

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::access::Noted;
use super::connection::{self, Impatient, Told};
use super::listen::Socket;
use super::origin;
use super::response::error_response;
use super::strangers::Strangers;
use super::tls::Identity;
use super::unread::Unread;
use super::{Gateway, Names};
use crate::auth::Visitor;
use crate::error::Error;
use crate::grpc::ending::Ending;
use crate::grpc::handler::refused;
use crate::grpc::memory::Memory;
use crate::grpc::server::{GrpcServer, is_grpc};

/// Bytes of heads whose senders have not logged in.
const BEFORE_LOGIN: usize = 16 << 20;
/// Bytes of heads and bodies of those who have: 256 MiB with the others.
const AFTER_LOGIN: usize = 240 << 20;

/// Bounds of the connections of one port.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at the same time, 1024 unless set. For one more the oldest that never logged in has to leave; where
    /// all have, more wait in the backlog.
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
    before_login: Memory,
    after_login: Memory,
    unread: Unread,
}

impl Protocols {
    /// Joins both.
    pub fn new(grpc: GrpcServer, gateway: Gateway) -> Self {
        let (before_login, after_login) = (Memory::new(BEFORE_LOGIN), Memory::new(AFTER_LOGIN));
        Protocols { grpc, gateway: Arc::new(gateway), before_login, after_login, unread: Unread::default() }
    }

    /// Where requests of a client find room.
    pub(super) fn memory(&self, visitor: &Visitor) -> &Memory {
        if visitor.is_admitted() { &self.after_login } else { &self.before_login }
    }

    /// Answers one request of any protocol. Of a large answer, nothing may be left untouched for longer than `patience`.
    pub(super) async fn serve(&self, mut request: Request<Body>, patience: Option<Duration>) -> Response<Body> {
        let cors = self.gateway.cors();
        let allowed = cors.headers(request.headers());
        let noted = Noted::of(&request);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let grpc = is_grpc(&request);
        let names = request.extensions().get::<Arc<Names>>().cloned().unwrap_or_default();
        let ending = Ending::default();
        request.extensions_mut().insert(ending.clone());
        // What comes after the credentials counts as theirs.
        request.extensions_mut().insert(self.after_login.clone());
        let answered = async {
            if let Err(error) = origin::judge(&request, cors, &names) {
                tracing::info!(%method, path, "{error}");
                return self.refuse(&request, &error);
            }
            match cors.preflight(&request) {
                Some(response) => response,
                None if grpc => self.grpc.serve(request).await,
                None => self.gateway.serve(request).await,
            }
        };
        let fault = |error: &Error| if grpc { refused(error) } else { error_response(&method, &path, error) };
        // A panic costs its own call, not the connection and the calls beside it.
        let response = AssertUnwindSafe(answered)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| fault(&Error::internal(format!("{method} {path} panicked"))));
        let mut response = self.unread.keep(response, patience).await.unwrap_or_else(|error| fault(&error));
        if let Some(allowed) = allowed {
            response.headers_mut().extend(allowed);
        }
        match noted {
            Some(noted) if grpc => noted.follow(response, ending),
            Some(noted) => {
                noted.answered(&response);
                response
            }
            None => response,
        }
    }

    /// The answer to a request that is refused before anything of it is looked at.
    pub(super) fn refuse<B>(&self, request: &Request<B>, error: &Error) -> Response<Body> {
        if is_grpc(request) { self.grpc.refuse(request, error) } else { self.gateway.refuse(request, error) }
    }
}

/// Accepts connections on all ports until `stop`, then lets open requests end within the grace time.
pub async fn serve(ports: Vec<Port>, protocols: Protocols, grace: Duration, stop: CancellationToken) {
    let hall = Hall {
        protocols,
        strangers: Arc::default(),
        tracker: TaskTracker::new(),
        stop,
        // Ends streams that would never end by themselves.
        abort: CancellationToken::new(),
    };
    let accepting = ports.into_iter().enumerate().map(|(number, port)| port.accept(number, &hall));
    futures_util::future::join_all(accepting).await;
    let Hall { tracker, abort, .. } = hall;
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
        abort.cancel();
        tracker.wait().await;
    }
}

/// Where the connections of all ports are.
struct Hall {
    protocols: Protocols,
    strangers: Arc<Strangers>,
    tracker: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Hall {
    /// A place for a connection that has come, by sending another one away if it must be. `None` at the stop, when nobody
    /// comes any more.
    async fn place(&self, port: usize, places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        self.strangers.send_one_away(Some(port));
        tokio::select! {
            place = places.clone().acquire_owned() => place.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    /// Out of file descriptors, most likely: somebody has to leave, or to end by itself.
    async fn make_room(&self, error: &io::Error) {
        let full = [Errno::MFILE, Errno::NFILE].iter().any(|full| error.raw_os_error() == Some(full.raw_os_error()));
        if full && self.strangers.send_one_away(None) {
            tracing::debug!(%error, "the oldest connection without a login has to leave");
            return tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tracing::warn!(%error, "connection not accepted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Port {
    async fn accept(self, number: usize, hall: &Hall) {
        let Port { socket, tls, bounds, names } = self;
        let names = Arc::new(names);
        let places = bounds.connections.unwrap_or(Semaphore::MAX_PERMITS).min(descriptors());
        let places = Arc::new(Semaphore::new(places));
        let acceptor = tls.map(|identity| TlsAcceptor::from(identity.0));
        loop {
            let accepted = tokio::select! {
                () = hall.stop.cancelled() => return,
                accepted = socket.accept(&bounds) => accepted,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    hall.make_room(&error).await;
                    continue;
                }
            };
            let place = hall.place(number, &places).await;
            let visitor = Arc::new(Visitor::new(client.map(|client| client.ip())));
            let presence = hall.strangers.enter(number, Arc::clone(&visitor));
            let stream = Impatient::new(stream, bounds.write);
            let told = Told { visitor, names: Arc::clone(&names), since: Instant::now() };
            let (protocols, bounds, acceptor) = (hall.protocols.clone(), bounds.clone(), acceptor.clone());
            let (stop, abort) = (hall.stop.clone(), hall.abort.clone());
            hall.tracker.spawn(async move {
                let served = async {
                    match acceptor {
                        None => connection::serve(stream, told, protocols, &bounds, stop).await,
                        Some(acceptor) => secure(stream, told, &acceptor, protocols, &bounds, stop).await,
                    }
                };
                tokio::select! {
                    () = served => {}
                    () = abort.cancelled() => {}
                    () = presence.sent_away() => {}
                }
                drop(place);
            });
        }
    }
}

/// File descriptors that connections may have, with some left for files and for HAProxy's sockets.
fn descriptors() -> usize {
    const SPARE: usize = 128;
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(Semaphore::MAX_PERMITS, |limit| limit.saturating_sub(SPARE).clamp(16, Semaphore::MAX_PERMITS))
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
        () = told.too_late(&stop) => return,
        shaken = tokio::time::timeout(limit, acceptor.accept(stream)) => shaken,
    };
    match shaken {
        Ok(Ok(stream)) => {
            // Only a certificate that was verified comes this far.
            if stream.get_ref().1.peer_certificates().is_some() {
                told.visitor.show_certificate();
            }
            connection::serve(stream, told, protocols, bounds, stop).await;
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
