//! What a bundle of certificates in PEM says about itself.

use std::net::IpAddr;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;

use crate::error::{Error, Reason, Result};

/// Facts of a bundle: at least one certificate, and one private key, which is not looked into.
///
/// Certificates of authorities count for the issuers and the dates only. A bundle that has expired is as good as another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// When the first of them ends, in seconds since 1970.
    pub not_after: i64,
    /// When the last of them begins, in seconds since 1970.
    pub not_before: i64,
    /// Common names of the issuers, each once.
    pub issuers: Vec<String>,
    /// Host names they are for, each once; the common name when they list none.
    pub domains: Vec<String>,
    /// Addresses they are for, each once.
    pub ip_addresses: Vec<String>,
    /// Kind and size of the key of the first that is no authority, as `RSA2048` or `EC256`.
    pub algorithm: String,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// Its subject, as `/C=SE/CN=example.com`.
    pub subject: String,
    /// SHA-1 of its DER form, in hexadecimal digits.
    pub sha1: String,
    /// SHA-256 of its DER form, in hexadecimal digits.
    pub sha256: String,
}

impl Certificates {
    /// Reads a bundle. `CERTIFICATE_REJECTED` when it does not hold both a certificate and a private key, or what it
    /// holds cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Certificates> {
        let (mut authorities, mut others, mut key) = (Vec::new(), Vec::new(), false);
        for block in Pem::iter_from_buffer(bytes) {
            let block = block.map_err(|error| refused(&error.to_string()))?;
            if block.label.ends_with("PRIVATE KEY") {
                key = true;
            } else if matches!(&*block.label, "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") {
                let (_, parsed) =
                    X509Certificate::from_der(&block.contents).map_err(|error| refused(&error.to_string()))?;
                let authority = parsed.is_ca();
                drop(parsed);
                if authority { &mut authorities } else { &mut others }.push(block.contents);
            }
        }
        if !key || (authorities.is_empty() && others.is_empty()) {
            let message = "file should contain both certificate and private key";
            return Err(Error::new(Reason::CertificateRejected, message));
        }
        let mut found = Certificates { not_after: i64::MAX, not_before: i64::MIN, ..Certificates::default() };
        for (at, der) in others.iter().chain(&authorities).enumerate() {
            let (_, parsed) = X509Certificate::from_der(der).map_err(|error| refused(&error.to_string()))?;
            found.dates_and_issuer(&parsed);
            if at == 0 {
                found.describe(&parsed, der);
            }
            if at < others.len() {
                found.names(&parsed);
            }
        }
        Ok(found)
    }

    fn dates_and_issuer(&mut self, certificate: &X509Certificate<'_>) {
        let validity = certificate.validity();
        self.not_after = self.not_after.min(validity.not_after.timestamp());
        self.not_before = self.not_before.max(validity.not_before.timestamp());
        for name in certificate.issuer().iter_common_name().filter_map(|name| name.as_str().ok()) {
            once(&mut self.issuers, name);
        }
    }

    fn names(&mut self, certificate: &X509Certificate<'_>) {
        let mut listed = false;
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => {
                        listed = true;
                        once(&mut self.domains, name);
                    }
                    GeneralName::IPAddress(bytes) => {
                        if let Some(address) = address(bytes) {
                            listed = true;
                            once(&mut self.ip_addresses, &address.to_string());
                        }
                    }
                    _ => {}
                }
            }
        }
        if !listed {
            for name in certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()) {
                once(&mut self.domains, name);
            }
        }
    }

    fn describe(&mut self, certificate: &X509Certificate<'_>, der: &[u8]) {
        self.algorithm = match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) => format!("RSA{}", key.key_size()),
            Ok(PublicKey::EC(point)) => format!("EC{}", point.key_size()),
            Ok(PublicKey::DSA(_)) => "DSA".to_owned(),
            _ => String::new(),
        };
        self.serial = hex(certificate.raw_serial());
        for attribute in certificate.subject().iter_attributes() {
            let registry = x509_parser::objects::oid_registry();
            let short = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry);
            if let (Ok(short), Ok(value)) = (short, attribute.as_str()) {
                self.subject.extend(["/", short, "=", value]);
            }
        }
        self.sha1 = hex(&Sha1::digest(der));
        self.sha256 = hex(&Sha256::digest(der));
    }
}

fn refused(why: &str) -> Error {
    Error::new(Reason::CertificateRejected, format!("failed to parse certificate: {why}"))
}

fn once(list: &mut Vec<String>, item: &str) {
    if !list.iter().any(|known| known == item) {
        list.push(item.to_owned());
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &[u8] = include_bytes!("../../tests/data/certificates/chain.pem");

    fn blocks() -> Vec<String> {
        let text = String::from_utf8(CHAIN.to_vec()).unwrap();
        text.split_inclusive("-----\n").collect::<Vec<_>>().chunks(2).map(<[&str]>::concat).collect()
    }

    #[test]
    fn the_facts_of_a_bundle_are_those_of_its_certificates() {
        let found = Certificates::parse(CHAIN).unwrap();
        assert_eq!(found.issuers, ["Example Root"]);
        assert_eq!(found.domains, ["example.com", "www.example.com"]);
        assert_eq!(found.ip_addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(found.algorithm, "EC256");
        assert_eq!(found.subject, "/CN=example.com");
        assert_eq!((found.sha1.len(), found.sha256.len()), (40, 64));
        assert!(found.not_before < found.not_after);
        // Order does not matter, and neither do the lines around the blocks.
        let mut blocks = blocks();
        blocks.reverse();
        let turned = Certificates::parse(format!("a note\n{}", blocks.join("another\n")).as_bytes()).unwrap();
        assert_eq!(turned, found);
    }

    #[test]
    fn both_a_certificate_and_a_key_are_needed() {
        let blocks = blocks();
        let is_key = |block: &String| block.contains("PRIVATE KEY");
        let keys: String = blocks.iter().filter(|block| is_key(block)).cloned().collect();
        let certificates: String = blocks.iter().filter(|block| !is_key(block)).cloned().collect();
        for text in [&keys, &certificates, "", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(
                Certificates::parse(text.as_bytes()).unwrap_err().reason(),
                Reason::CertificateRejected,
                "{text}"
            );
        }
        assert!(Certificates::parse(format!("{keys}{certificates}").as_bytes()).is_ok());
        let cut = &CHAIN[..CHAIN.len() - 40];
        assert_eq!(Certificates::parse(cut).unwrap_err().reason(), Reason::CertificateRejected);
    }
}
