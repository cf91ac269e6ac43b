//! Calls from pages of other origins, off until a setting names them.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;

use super::origin::Origin;

/// Which other origins may call; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// All may, as in the Data Plane API. What a page can send unasked is left to those that are listed.
    pub any: bool,
    /// These, spelled as browsers send them (`https://dash.example`).
    pub listed: Vec<String>,
}

const METHODS: HeaderValue = HeaderValue::from_static("HEAD, GET, POST, PUT, PATCH, DELETE");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Reload-ID, Configuration-Version, grpc-status, grpc-message, grpc-status-details-bin");

impl Cors {
    /// The rules of a setting: origins, `*` for any.
    pub fn of(origins: &[String]) -> Self {
        let (any, listed): (Vec<_>, Vec<_>) = origins.iter().cloned().partition(|origin| origin == "*");
        Cors { any: !any.is_empty(), listed }
    }

    /// Whether an origin is named by the setting.
    pub(super) fn lists(&self, origin: &HeaderValue) -> bool {
        let same = |known: &String| {
            known.as_bytes() == origin.as_bytes()
                || Origin::read(known.as_bytes()).is_some_and(|known| Some(known) == Origin::read(origin.as_bytes()))
        };
        self.listed.iter().any(same)
    }

    fn allows<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        headers.get(ORIGIN).filter(|origin| self.any || self.lists(origin))
    }

    /// The answer to a preflight request of an allowed origin, which has no credentials.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let origin = self.allows(headers)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(VARY, HeaderValue::from_static("Origin"));
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        Some(response)
    }

    /// The headers that an answer to an allowed origin carries.
    pub fn headers(&self, request: &HeaderMap) -> Option<HeaderMap> {
        let origin = self.allows(request)?;
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight(origins: &[&str], origin: &str) -> Option<HeaderMap> {
        let request = Request::options("/v2/info")
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "PUT")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "authorization, x-grpc-web")
            .body(())
            .unwrap();
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Cors::of(&origins).preflight(&request).map(|response| response.headers().clone())
    }

    #[test]
    fn only_allowed_origins_get_an_answer() {
        assert!(preflight(&[], "https://a.example").is_none());
        assert!(preflight(&["https://a.example"], "https://b.example").is_none());
        assert!(preflight(&["https://a.example"], "http://a.example").is_none());
        for origins in [&["https://a.example"][..], &["HTTPS://A.example:443"], &["*"], &["*", "https://b.example"]] {
            let headers = preflight(origins, "https://a.example").unwrap();
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
            assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "authorization, x-grpc-web");
        }
    }
}
