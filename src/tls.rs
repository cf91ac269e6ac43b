//! Certificates, private keys and authorities out of PEM files. Each error names its file.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Reason, Result};

/// The algorithms in use everywhere.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A certificate with those of its authorities. `INVALID_VALUE`.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let found = read.map_err(|error| unreadable(file, "certificates", &error))?;
    if found.is_empty() {
        return Err(unreadable(file, "certificates", &pem::Error::NoItemsFound));
    }
    Ok(found)
}

/// A private key. `INVALID_VALUE`.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unreadable(file, "a private key", &error))
}

/// Authorities that are trusted. `INVALID_VALUE`.
pub fn authorities(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| unusable(file, &error))?;
    }
    Ok(roots)
}

/// Authorities that can be read but not trusted.
pub fn unusable(file: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(Reason::InvalidValue, format!("the authorities in {} cannot be used: {error}", file.display()))
}

/// A key that is not that of a certificate.
pub fn mismatch(certificate: &Path, key: &Path, error: &dyn std::fmt::Display) -> Error {
    let (certificate, key) = (certificate.display(), key.display());
    Error::new(Reason::InvalidValue, format!("the key {key} and the certificate {certificate}: {error}"))
}

fn unreadable(file: &Path, what: &str, error: &pem::Error) -> Error {
    Error::new(Reason::InvalidValue, format!("{} cannot be read as {what}: {error}", file.display()))
}
