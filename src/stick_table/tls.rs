//! Sessions with HAProxy over TLS: whom we trust, and what we show.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

use crate::error::{Error, Reason, Result};
use crate::runtime::Address;
use crate::tls::{authorities, certificates, mismatch, private_key, provider, unusable};

/// What a certificate of HAProxy must be of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// The address that was dialled. A unix socket has none, and any will do.
    Address,
    Name(ServerName<'static>),
    Any,
}

/// What is needed for a session over TLS. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// The same for certificates of any name.
    nameless: Arc<ClientConfig>,
    named: Named,
}

impl Tls {
    /// Reads PEM files, which are not looked at again: the authorities of HAProxy's certificate, and the certificate with
    /// its key that is shown to it. `name` is what its certificate must have: unset, the address; `*`, any.
    ///
    /// `INVALID_VALUE` names the file, or the name, that is at fault.
    pub fn load(ca: &Path, identity: Option<(&Path, &Path)>, name: Option<&str>) -> Result<Self> {
        let named = match name {
            None => Named::Address,
            Some("*") => Named::Any,
            Some(name) => Named::Name(ServerName::try_from(name.to_owned()).map_err(|_| {
                let message = format!("peer-tls-name '{name}': expected a host name, an address, or *");
                Error::new(Reason::InvalidValue, message)
            })?),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(authorities(ca)?), provider());
        let verifier = verifier.build().map_err(|error| unusable(ca, &error))?;
        let config = |verifier: Arc<dyn ServerCertVerifier>| -> Result<Arc<ClientConfig>> {
            let versions = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&TLS13, &TLS12])
                .map_err(Error::internal)?;
            let builder = versions.dangerous().with_custom_certificate_verifier(verifier);
            let Some((certificate, key)) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
            let config = builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?);
            config.map(Arc::new).map_err(|error| mismatch(certificate, key, &error))
        };
        let nameless = config(Arc::new(Nameless(Arc::clone(&verifier) as _)))?;
        Ok(Tls { config: config(verifier)?, nameless, named })
    }

    /// Shakes hands.
    pub(super) async fn connect<S>(&self, socket: S, address: &Address) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let none = || ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let (config, name) = match (&self.named, address) {
            (Named::Name(name), _) => (&self.config, name.clone()),
            (Named::Address, Address::Tcp(address)) => (&self.config, ServerName::IpAddress(address.ip().into())),
            (Named::Any, _) | (Named::Address, Address::Unix(_)) => (&self.nameless, none()),
        };
        TlsConnector::from(Arc::clone(config)).connect(name, socket).await
    }
}

/// Trusts a certificate of the authorities whatever its name is: this is looked at last.
#[derive(Debug)]
struct Nameless(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
