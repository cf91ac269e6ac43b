//! TLS of the API: certificate and key from files, and the authorities of client certificates.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::error::{Error, Result};
use crate::tls::{authorities, certificates, mismatch, private_key, provider, unusable};

/// Protocols offered in the handshake: gRPC needs HTTP/2, which `h2` stands for.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a TLS listener shows its clients, and asks of them. Made of files when it is loaded, and not looked at again.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<ServerConfig>);

impl Identity {
    /// Reads PEM files. With `ca` a client has to show a certificate of one of these authorities. `INVALID_VALUE` names
    /// the file that is at fault.
    pub fn load(certificate: &Path, key: &Path, ca: Option<&Path>) -> Result<Self> {
        let provider = provider();
        let chain = certificates(certificate)?;
        let private = private_key(key)?;
        let versions = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(Error::internal)?;
        let checked = match ca {
            None => versions.with_no_client_auth(),
            Some(ca) => versions.with_client_cert_verifier(verifier(ca, provider)?),
        };
        let mut config =
            checked.with_single_cert(chain, private).map_err(|error| mismatch(certificate, key, &error))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Identity(Arc::new(config)))
    }
}

fn verifier(file: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(file)?), provider).build();
    verifier.map_err(|error| unusable(file, &error))
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
