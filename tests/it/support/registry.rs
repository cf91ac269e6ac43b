//! A server that imitates registries of services: a Consul agent.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An instance of a service: port, and the states of its checks.
pub(crate) type Instance = (u16, &'static [&'static str]);

/// A running agent; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Consul {
    pub(crate) address: SocketAddr,
    content: Arc<watch::Sender<Content>>,
    questions: Arc<Mutex<Vec<Question>>>,
}

#[derive(Clone, Default)]
struct Content {
    index: u64,
    services: BTreeMap<String, Vec<Instance>>,
    /// Addresses of services that are not here.
    elsewhere: BTreeMap<String, String>,
    /// Services of which it says nothing but an error.
    secret: BTreeSet<String>,
    broken: bool,
}

/// What the agent was asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) token: String,
}

impl Consul {
    pub(crate) async fn start() -> Self {
        Consul::start_with(None).await
    }

    /// Starts one that speaks TLS with the certificate and key of that name in a folder.
    pub(crate) async fn start_tls(folder: &Path, name: &str) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate with its key");
        Consul::start_with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let consul = Consul {
            address: listener.local_addr().expect("an address"),
            content: Arc::new(watch::Sender::new(Content { index: 1, ..Content::default() })),
            questions: Arc::default(),
        };
        let server = consul.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                let service = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let (tls, http) = (tls.clone(), hyper::server::conn::http1::Builder::new());
                tokio::spawn(async move {
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        consul
    }

    /// From now on a service has these instances.
    pub(crate) fn set(&self, name: &str, instances: &[Instance]) {
        self.change(|content| drop(content.services.insert(name.to_owned(), instances.to_vec())));
    }

    /// From now on the instances of a service have this address.
    pub(crate) fn place(&self, name: &str, address: &str) {
        self.change(|content| drop(content.elsewhere.insert(name.to_owned(), address.to_owned())));
    }

    /// Whether questions for a service are answered with an error.
    pub(crate) fn hide(&self, name: &str, on: bool) {
        self.change(|content| {
            if on {
                content.secret.insert(name.to_owned());
            } else {
                content.secret.remove(name);
            }
        });
    }

    /// A service is gone.
    pub(crate) fn remove(&self, name: &str) {
        self.change(|content| drop(content.services.remove(name)));
    }

    /// Whether every question is answered with an error.
    pub(crate) fn break_down(&self, broken: bool) {
        self.change(|content| content.broken = broken);
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        self.content.send_modify(|content| {
            content.index += 1;
            change(content);
        });
    }

    /// What it was asked until now.
    pub(crate) fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let query: BTreeMap<String, String> = query.map(|(name, value)| (name.to_owned(), decoded(value))).collect();
        let path = decoded(request.uri().path());
        let token = request.headers().get("x-consul-token").map_or("", |value| value.to_str().unwrap_or_default());
        let question = Question { path: path.clone(), query: query.clone(), token: token.to_owned() };
        self.questions.lock().unwrap().push(question);
        let mut contents = self.content.subscribe();
        // A question that names the index is kept open until something changes.
        if let Some(known) = query.get("index").and_then(|index| index.parse::<u64>().ok()) {
            let wait = query.get("wait").and_then(|wait| wait.strip_suffix('s')?.parse().ok()).unwrap_or(300);
            let changed = contents.wait_for(|content| content.index != known);
            drop(tokio::time::timeout(Duration::from_secs(wait), changed).await);
        }
        let content = contents.borrow().clone();
        let service = path.strip_prefix("/v1/health/service/");
        if content.broken || service.is_some_and(|name| content.secret.contains(name)) {
            let mut response = Response::new(Full::from(format!("no leader for {token}")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return response;
        }
        let body = match service {
            Some(name) => {
                let address = content.elsewhere.get(name).map_or("", String::as_str);
                let instances = content.services.get(name).into_iter().flatten();
                Json::Array(instances.map(|instance| entry(instance, address)).collect())
            }
            None if path == "/v1/catalog/services" => {
                let names = content.services.keys().cloned().chain(["consul".to_owned()]);
                Json::Object(names.map(|name| (name, json!([]))).collect())
            }
            None => panic!("the agent is asked for {path}"),
        };
        Response::builder()
            .header("x-consul-index", content.index)
            .body(Full::from(body.to_string()))
            .expect("an answer")
    }
}

fn entry((port, checks): &Instance, address: &str) -> Json {
    let checks: Vec<Json> = checks.iter().map(|status| json!({"Status": status, "CheckID": "c"})).collect();
    json!({
        "Node": {"Node": "n1", "Address": "127.0.0.1"},
        "Service": {"ID": format!("i{port}"), "Address": address, "Port": port, "Tags": []},
        "Checks": checks,
    })
}
