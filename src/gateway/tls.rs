//! TLS of the API: certificate and key from files, and the authorities of client certificates.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, Reason, Result};

/// Protocols offered in the handshake: gRPC needs HTTP/2, which `h2` stands for.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a TLS listener shows its clients, and asks of them. Made of files when it is loaded, and not looked at again.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<ServerConfig>);

impl Identity {
    /// Reads PEM files. With `ca` a client has to show a certificate of one of these authorities. `INVALID_VALUE` names
    /// the file that is at fault.
    pub fn load(certificate: &Path, key: &Path, ca: Option<&Path>) -> Result<Self> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(certificate)?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "a private key", &error))?;
        let versions = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(Error::internal)?;
        let checked = match ca {
            None => versions.with_no_client_auth(),
            Some(ca) => versions.with_client_cert_verifier(authorities(ca, provider)?),
        };
        let mut config = checked.with_single_cert(chain, private).map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            Error::new(Reason::InvalidValue, format!("the key {key} and the certificate {certificate}: {error}"))
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Identity(Arc::new(config)))
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = read.map_err(|error| unreadable(file, "certificates", &error))?;
    if found.is_empty() {
        return Err(unreadable(file, "certificates", &pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn authorities(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let refused = |error: &dyn std::fmt::Display| {
        Error::new(Reason::InvalidValue, format!("the authorities in {} cannot be used: {error}", file.display()))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| refused(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| refused(&error))
}

fn unreadable(file: &Path, what: &str, error: &pem::Error) -> Error {
    Error::new(Reason::InvalidValue, format!("{} cannot be read as {what}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = file("a.crt", &one.cert.pem());
        let key = file("a.key", &one.signing_key.serialize_pem());
        let foreign = file("b.key", &other.signing_key.serialize_pem());
        let empty = file("empty", "");
        assert!(Identity::load(&certificate, &key, None).is_ok());
        assert!(Identity::load(&certificate, &key, Some(&certificate)).is_ok());
        let fault = |certificate, key, ca| match Identity::load(certificate, key, ca) {
            Ok(_) => panic!("loaded"),
            Err(error) => error.message().to_owned(),
        };
        assert!(fault(&empty, &key, None).contains("empty cannot be read as certificates"));
        assert!(fault(&certificate, &empty, None).contains("empty cannot be read as a private key"));
        assert!(fault(&certificate, &foreign, None).contains("b.key and the certificate"));
        assert!(fault(&certificate, &key, Some(&empty)).contains("empty cannot be read as certificates"));
        assert!(fault(Path::new("/nowhere.crt"), &key, None).contains("/nowhere.crt"));
    }
}
