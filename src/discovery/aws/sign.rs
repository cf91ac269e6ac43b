//! Signatures of AWS, version 4. Pure.
//!
//! The one call that is made needs one form of them: a library brings dozens of packages for all the others.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A request that is to be signed.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Encoded and sorted.
    pub(super) query: &'a str,
    /// In lower case and sorted.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
    /// As `20150830T123600Z`, which is also the header `x-amz-date`.
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

impl Signed<'_> {
    /// The header `authorization`.
    pub(super) fn authorization(&self, credentials: &Credentials) -> String {
        let day = self.date.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let headers: String = self.headers.iter().flat_map(|(name, value)| [name, ":", value.trim(), "\n"]).collect();
        let body = hex(&Sha256::digest(self.body));
        let request = format!("{}\n{}\n{}\n{headers}\n{names}\n{body}", self.method, self.path, self.query);
        let text = format!("{ALGORITHM}\n{}\n{scope}\n{}", self.date, hex(&Sha256::digest(&request)));
        let mut key = mac(format!("AWS4{}", credentials.key.expose()).as_bytes(), day.as_bytes());
        for part in [self.region, self.service, "aws4_request"] {
            key = mac(&key, part.as_bytes());
        }
        let signature = hex(&mac(&key, text.as_bytes()));
        format!("{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", credentials.id)
    }
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    /// The example of the documentation of AWS.
    #[test]
    fn a_known_request_has_the_known_signature() {
        let date = "20150830T123600Z";
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", date),
        ];
        let signed = Signed {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &headers,
            body: b"",
            date,
            region: "us-east-1",
            service: "iam",
        };
        let key = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned());
        let credentials = Credentials { id: "AKIDEXAMPLE".to_owned(), key, token: None };
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
            SignedHeaders=content-type;host;x-amz-date, \
            Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert_eq!(signed.authorization(&credentials), expected);
    }
}
