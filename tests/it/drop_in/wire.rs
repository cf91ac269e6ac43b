//! Requests over any stream: TCP, TLS, a unix socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::PASSWORD;
use crate::support::client::basic;

/// Any stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An authority for certificates, written to files in PEM.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `NAME.crt` and `NAME.key` into a folder.
    pub(crate) fn issue(&self, folder: &Path, name: &str) {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// How a client speaks TLS.
pub(crate) struct Tls<'a> {
    pub(crate) trusts: &'a Authority,
    /// Folder and name of the certificate that it shows.
    pub(crate) shows: Option<(&'a Path, &'a str)>,
    pub(crate) version: &'static SupportedProtocolVersion,
    pub(crate) protocol: &'static str,
}

impl Tls<'_> {
    pub(crate) async fn connect(&self, port: u16) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusts.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[self.version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.shows {
            None => builder.with_no_client_auth(),
            Some((folder, name)) => {
                let certificate = CertificateDer::from_pem_file(folder.join(format!("{name}.crt"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![self.protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(self.protocol.as_bytes()));
        Ok(stream)
    }
}

pub(crate) async fn unix(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.unwrap()
}

/// Sends `GET path` over HTTP/1.1 and returns the whole answer; an error when the stream breaks.
pub(crate) async fn get(mut stream: impl Stream, path: &str, password: bool) -> std::io::Result<String> {
    let credentials = if password { format!("authorization: {}\r\n", basic("admin", PASSWORD)) } else { String::new() };
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{credentials}\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an end")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Calls `InfoService.GetInfo` over HTTP/2 and returns the status of gRPC.
pub(crate) async fn grpc(stream: impl Stream + 'static, password: bool) -> Result<u32, hyper::Error> {
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post("http://localhost/backstay.runtime.v2.InfoService/GetInfo")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if password {
        request = request.header("authorization", basic("admin", PASSWORD));
    }
    let response = send.send_request(request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap()).await?;
    let (head, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let status = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status")).expect("a status").clone();
    connection.abort();
    Ok(status.to_str().unwrap().parse().unwrap())
}
