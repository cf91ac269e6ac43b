//! HTTP and HTTPS for the sources: one request, one answer, with a time limit and a size limit.

use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Largest answer in bytes.
const LARGEST: usize = 16 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer, besides what a question asks to wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer that a message shows.
const SHOWN: usize = 200;

/// Why an attempt failed, in one sentence without secrets. It is shown to callers and logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble(pub(super) String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a request has no answer that goes on.
#[derive(Debug)]
pub(crate) enum Unopened {
    /// The two do not agree on TLS: on a certificate, mostly. Another attempt leads to the same.
    Untrusted(Trouble),
    /// Nobody answers just now.
    Away(Trouble),
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The beginning of the body, on one line.
    pub(super) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]).into_owned();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// A client with connections that are kept open.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Legacy<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client. Certificates that the system trusts are read here, which fails only for `tls`.
    pub(crate) fn new(tls: bool) -> Result<Client, Trouble> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let failed = |error: &dyn fmt::Display| Trouble(format!("no trusted certificates: {error}"));
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let connector = if tls {
            let builder = builder.with_provider_and_native_roots(provider).map_err(|error| failed(&error))?;
            builder.https_or_http().enable_http1().wrap_connector(tcp)
        } else {
            let config = ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|error| failed(&error))?;
            let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            builder.with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp)
        };
        let inner = Legacy::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(8)
            .build(connector);
        Ok(Client { inner })
    }

    /// Sends a request; its answer may go on for ever.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unopened> {
        let target = shown(request.uri());
        self.inner.request(request).await.map_err(|error| {
            let trouble = Trouble(format!("{target}: {}", causes(&error)));
            if is_of_tls(&error) { Unopened::Untrusted(trouble) } else { Unopened::Away(trouble) }
        })
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>, limit: Duration) -> Result<Answer, Trouble> {
        let target = shown(request.uri());
        let answer = tokio::time::timeout(limit, self.exchange(request)).await;
        let answer = answer.map_err(|_| Trouble(format!("{target} does not answer within {} s", limit.as_secs())))?;
        answer.map_err(|words| Trouble(format!("{target}: {words}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let response = self.inner.request(request).await.map_err(|error| causes(&error))?;
        let (head, body) = response.into_parts();
        let mut body = std::pin::pin!(body);
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| causes(&error))?.into_data() else { continue };
            if read.len() + data.len() > LARGEST {
                return Err(format!("the answer has more than {LARGEST} bytes"));
            }
            read.extend_from_slice(&data);
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: read.freeze() })
    }
}

/// Address and path without the query.
fn shown(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("{authority}{}", uri.path())
}

/// Whether TLS itself is what failed, and not the connection below it.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An I/O error does not name what it wraps among its sources.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<tokio_rustls::rustls::Error>()
        || wrapped.is_some_and(|wrapped| is_of_tls(wrapped))
        || error.source().is_some_and(is_of_tls)
}

/// An error with what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        next = cause.source();
    }
    words
}
