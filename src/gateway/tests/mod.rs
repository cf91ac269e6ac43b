//! The port as clients see it, over loopback sockets, with a service that is made up.

mod fake;
mod grpc;
mod odd;
mod rest;
mod schema;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::fake::Fake;
use super::listen::{Place, Sockets};
use super::server::{self, Bounds, Protocols, serve};
use super::{Cors, Foundation, Gateway, Names, Page, Settings, fixture};
use crate::auth::{Authenticator, Password, User, Wording};
use crate::grpc::health::Health;
use crate::grpc::server::GrpcServer;

/// A running port.
struct Port {
    address: SocketAddr,
    fake: Arc<Fake>,
    stop: CancellationToken,
    served: JoinHandle<()>,
    health: Health,
}

/// An answer over HTTP.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn start() -> Port {
    start_with(Settings::default(), Bounds::default())
}

/// The stop gives open requests 200 ms.
fn start_with(settings: Settings, bounds: Bounds) -> Port {
    let tables = Arc::new(fixture::tables());
    let fake = Arc::new(Fake::new(tables.clone()));
    let password = Password::plain("secret", |_| None).unwrap();
    let users = vec![User { name: "admin".into(), password }];
    let authenticator = Arc::new(Authenticator::new(users, Wording::Same));
    let health = Health::new();
    let descriptors = tonic_health::pb::FILE_DESCRIPTOR_SET;
    let stop = CancellationToken::new();
    let grpc = GrpcServer::new(tables.clone(), fake.clone(), authenticator.clone(), &health, descriptors, stop.clone());
    let gateway = Gateway::new(Foundation {
        tables,
        api: fake.clone(),
        authenticator,
        health: health.clone(),
        version: Arc::new(|transaction| match transaction {
            None => 7,
            Some("t1") => 8,
            Some(_) => 0,
        }),
        pages: vec![
            Page::new("/v2/docs", "text/html", true, || Bytes::from_static(b"<html>")),
            Page::new("/v2/specification", "application/json", false, || Bytes::from_static(b"{}")),
        ],
        settings,
        stop: stop.clone(),
    })
    .unwrap();
    let place = Place::Tcp("127.0.0.1:0".parse().unwrap());
    let socket = Sockets::default().open(&[place]).unwrap().remove(0);
    let address = socket.address().unwrap();
    let port = server::Port { socket, tls: None, bounds, names: Names::Loopback(Vec::new()) };
    let grace = Duration::from_millis(200);
    let served = tokio::spawn(serve(vec![port], Protocols::new(grpc, gateway), grace, stop.clone()));
    Port { address, fake, stop, served, health }
}

fn credentials() -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("admin:secret"))
}

impl Port {
    /// Sends a request with credentials; `head` is a method, a path, and headers by line.
    async fn send(&self, head: &str, body: impl Into<Bytes>) -> Reply {
        let with = format!("{head}\nauthorization: {}", credentials());
        self.send_bare(&with, body).await
    }

    /// Sends a request as it is, over HTTP/1.1.
    async fn send_bare(&self, head: &str, body: impl Into<Bytes>) -> Reply {
        self.send_version(head, body, false).await
    }

    async fn send_version(&self, head: &str, body: impl Into<Bytes>, http2: bool) -> Reply {
        let mut lines = head.lines();
        let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        if http2 {
            request = request.version(Version::HTTP_2);
        }
        let client: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let mut headers = parts.headers;
        headers.extend(collected.trailers().cloned().unwrap_or_default());
        Reply { status: parts.status, headers, body: collected.to_bytes() }
    }
}
