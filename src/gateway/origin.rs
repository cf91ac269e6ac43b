//! Which web pages may call. A browser adds the credentials that it knows to what any page sends, so where a page comes
//! from is judged before its credentials and its body are looked at.
//!
//! Callers that are no browsers send none of these headers, and are not concerned.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, HOST, ORIGIN, REFERER};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::cors::Cors;
use crate::error::{Error, Reason, Result};

/// Names by which browsers may call a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Names {
    /// Any name.
    #[default]
    Any,
    /// Those of loopback, and these. Whoever owns another name can let it lead to loopback, and its pages then count as
    /// ours.
    Loopback(Vec<String>),
}

impl Names {
    fn hold(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (Names::Any, _) => true,
            (Names::Loopback(_), None) => false,
            (Names::Loopback(more), Some(host)) => {
                let host = host.strip_suffix('.').unwrap_or(host);
                is_loopback(host) || more.iter().any(|name| name.eq_ignore_ascii_case(host))
            }
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    host.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// Scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// An origin as a browser sends it; not `null`, which is nobody's.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let uri = Uri::try_from(text).ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let authority = uri.authority()?;
        let port = authority.port_u16().or_else(|| default_port(&scheme))?;
        (uri.path() == "/" && uri.query().is_none()).then(|| Origin {
            host: authority.host().to_ascii_lowercase(),
            port,
            scheme,
        })
    }

    /// Whether it is that of a page which was asked for at this host: only a proxy may have changed the scheme.
    fn is_at(&self, host: &Authority) -> bool {
        let port = host.port_u16().or_else(|| default_port(&self.scheme));
        self.host.eq_ignore_ascii_case(host.host()) && port == Some(self.port)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Refuses with `FOREIGN_ORIGIN` what a page of another origin makes a browser send.
pub(super) fn judge<B>(request: &Request<B>, cors: &Cors, names: &Names) -> Result<()> {
    let headers = request.headers();
    let host = host(request);
    let called = host.as_ref().map(Authority::host);
    if comes_from_a_page(headers) && !names.hold(called) {
        let called = called.unwrap_or_default();
        return Err(foreign(format!("a page calls this loopback address by the name {called:?}, see --allowed-host")));
    }
    // What a page cannot send before it has asked is refused when it asks, unless any origin is allowed.
    let allowed = cors.any && !needs_no_preflight(request);
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
        if changes && !allowed && is_cross_site(headers) {
            return Err(foreign("a page of another site may not do this"));
        }
        return Ok(());
    }
    let ours = |origin: &HeaderValue| {
        let (Some(origin), Some(host)) = (Origin::read(origin.as_bytes()), &host) else { return false };
        origin.is_at(host)
    };
    match origins.find(|origin| !allowed && !ours(origin) && !cors.lists(origin)) {
        None => Ok(()),
        Some(origin) => {
            let shown = String::from_utf8_lossy(origin.as_bytes());
            Err(foreign(format!("pages of origin {shown} may not do this, see --cors-origin")))
        }
    }
}

fn foreign(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Reason::ForeignOrigin, message)
}

/// The host that was called, as the client says. What a proxy says of it is no proof: a page can say it, too.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = Authority::try_from(hosts.next()?.as_bytes()).ok();
    host.filter(|_| hosts.next().is_none())
}

fn comes_from_a_page(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == ORIGIN || *name == REFERER || name.as_str().starts_with("sec-fetch-"))
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let sites = headers.get_all("sec-fetch-site").iter().map(|value| value.as_bytes().trim_ascii());
    sites
        .into_iter()
        .any(|site| [&b"cross-site"[..], b"same-site"].iter().any(|other| site.eq_ignore_ascii_case(other)))
}

/// Whether a page may send it without asking before: the rules of fetch for methods and content types, of which other
/// headers, that would make it ask, are left out, for a browser adds some by itself.
fn needs_no_preflight<B>(request: &Request<B>) -> bool {
    const TYPES: [&[u8]; 4] = [b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"];
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    *request.method() == Method::POST && TYPES.iter().any(|simple| essence.eq_ignore_ascii_case(simple))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "host: a.example:5555\norigin: http://a.example:5555";

    /// Whether a request is let through: a method, a target, and headers by line.
    fn passes(head: &str, cors: &Cors, names: &Names) -> bool {
        let mut lines = head.lines();
        let (method, target) = lines.next().unwrap().split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(target);
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(": "), ""));
            request = request.header(name, value);
        }
        let judged = judge(&request.body(()).unwrap(), cors, names);
        assert!(judged.as_ref().err().is_none_or(|error| error.reason() == Reason::ForeignOrigin));
        judged.is_ok()
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors::of(&origins.iter().map(|origin| (*origin).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn only_our_own_pages_and_those_that_are_listed_may_call() {
        let listed = cors(&["https://dash.example", "null"]);
        for (headers, none, some) in [
            ("", true, true),
            (OURS, true, true),
            ("host: A.EXAMPLE:5555\norigin: HTTP://A.Example:5555", true, true),
            ("host: a.example\norigin: http://a.example", true, true),
            ("host: a.example:80\norigin: http://a.example", true, true),
            ("host: a.example\norigin: http://a.example:80", true, true),
            ("host: a.example:443\norigin: https://a.example", true, true),
            ("host: [::1]:5555\norigin: http://[::1]:5555", true, true),
            ("host: a.example:5555\norigin: https://dash.example", false, true),
            ("host: a.example:5555\norigin: https://dash.example:443", false, true),
            ("host: a.example:5555\norigin: https://dash.example:8443", false, false),
            ("host: a.example:5555\norigin: http://dash.example", false, false),
            ("host: a.example:5555\norigin: null", false, true),
            ("host: a.example:5555\norigin: ", false, false),
            ("host: a.example:5555\norigin: http://a.example", false, false),
            ("host: a.example:443\norigin: http://a.example", false, false),
            ("host: a.example:5555\norigin: http://a.example:5555/x", false, false),
            ("host: a.example:5555\norigin: http://a.example:5555.b.example", false, false),
            ("host: a.example:5555\norigin: http://b.example\norigin: http://a.example:5555", false, false),
            ("host: b.example\nhost: a.example:5555\norigin: http://b.example", false, false),
            ("host: a.example:5555\nx-forwarded-host: b.example\norigin: http://b.example", false, false),
            ("forwarded: host=b.example\norigin: http://b.example", false, false),
        ] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
                let head = format!("{method} /v2/info\n{headers}");
                assert_eq!(passes(&head, &Cors::default(), &Names::Any), none, "{head}");
                assert_eq!(passes(&head, &listed, &Names::Any), some, "{head}");
            }
        }
        // Over HTTP/2 the host is part of the target.
        assert!(passes("POST http://a.example/x\norigin: http://a.example", &Cors::default(), &Names::Any));
        assert!(!passes(
            "POST http://a.example/x\nhost: b.example\norigin: http://b.example",
            &Cors::default(),
            &Names::Any
        ));
    }

    #[test]
    fn without_an_origin_the_site_tells_who_changes_something() {
        for (site, passed) in [
            ("cross-site", false),
            ("Same-Site", false),
            ("same-origin", true),
            ("none", true),
            ("cross-site\norigin: http://a", true),
            ("cross-site\norigin: http://b.example", false),
        ] {
            for (method, reads) in [("GET", true), ("HEAD", true), ("POST", false), ("DELETE", false), ("PUT", false)] {
                let head = format!("{method} /\nhost: a\nsec-fetch-site: {site}");
                let foreign = site.contains("b.example");
                assert_eq!(passes(&head, &Cors::default(), &Names::Any), passed || (reads && !foreign), "{head}");
            }
        }
    }

    #[test]
    fn where_any_origin_may_call_it_has_to_ask_before_it_changes_something() {
        let (any, named) = (cors(&["*"]), cors(&["*", "https://b.example"]));
        for (line, passed) in [
            ("GET", true),
            ("HEAD", true),
            ("DELETE", true),
            ("PUT\ncontent-type: text/plain", true),
            ("OPTIONS", true),
            ("POST", false),
            ("POST\ncontent-type: ", false),
            ("POST\ncontent-type: Text/Plain; charset=utf-8", false),
            ("POST\ncontent-type: text/plain;application/json", false),
            ("POST\ncontent-type: multipart/form-data; boundary=B", false),
            ("POST\ncontent-type: application/x-www-form-urlencoded", false),
            ("POST\ncontent-type: application/json", true),
            ("POST\ncontent-type: application/grpc-web+proto", true),
        ] {
            let (method, headers) = line.split_once('\n').unwrap_or((line, "x: y"));
            for mark in ["origin: https://b.example", "origin: null", "sec-fetch-site: cross-site"] {
                let head = format!("{method} /\nhost: a\n{headers}\n{mark}");
                assert_eq!(passes(&head, &any, &Names::Any), passed, "{head}");
                assert_eq!(passes(&head, &named, &Names::Any), passed || mark.contains("b.example"), "{head}");
            }
            let head = format!("{method} /\nhost: a\n{headers}\norigin: http://a");
            assert!(passes(&head, &any, &Names::Any), "{head}");
        }
    }

    #[test]
    fn browsers_call_loopback_by_its_own_names_only() {
        let names = Names::Loopback(vec!["Backstay.internal".into()]);
        for (host, passed) in [
            ("localhost", true),
            ("LOCALHOST:5555", true),
            ("localhost.:5555", true),
            ("api.localhost:5555", true),
            ("127.0.0.1:5555", true),
            ("127.9.9.9", true),
            ("[::1]:5555", true),
            ("[::ffff:127.0.0.1]:5555", true),
            ("backstay.INTERNAL:5555", true),
            ("b.example:5555", false),
            ("localhost.b.example", false),
            ("evillocalhost", false),
            ("127.0.0.1.b.example", false),
            ("0.0.0.0:5555", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("x.backstay.internal", false),
        ] {
            for mark in ["referer: http://a/", "sec-fetch-mode: no-cors", "sec-fetch-site: same-origin"] {
                let head = format!("GET /v2/info\nhost: {host}\n{mark}");
                assert_eq!(passes(&head, &Cors::default(), &names), passed, "{head}");
                assert!(passes(&head, &Cors::default(), &Names::Any), "{head}");
            }
            let origin = format!("POST /v2/info\nhost: {host}\norigin: http://{host}");
            assert_eq!(passes(&origin, &Cors::default(), &names), passed, "{origin}");
            assert!(passes(&format!("POST /v2/info\nhost: {host}"), &Cors::default(), &names), "no browser");
        }
        assert!(!passes("GET /\nreferer: http://a/", &Cors::default(), &names));
    }
}
