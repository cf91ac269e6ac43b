//! Where the API listens, when it begins to, and how patient it is with its clients.

use std::path::PathBuf;
use std::time::Duration;

use super::rows::Kind;
use super::{DelayedStart, Origin, PeerTls, Profile, Reading, rows, values};

/// All listeners of the API, and what they have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners {
    /// At least one.
    pub each: Vec<Listener>,
    /// Bytes of the head of a request. Default 1 MiB, at least 8 KiB.
    pub max_header: usize,
    /// A connection without a request is closed after this; `None` for never. Default 60 s; called as
    /// `dataplaneapi`: 10 s.
    pub idle: Option<Duration>,
    /// Time that open requests have to end after the stop. Default 15 s.
    pub grace: Duration,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its place.
    pub at: At,
    /// Certificate and key, for TLS.
    pub tls: Option<Tls>,
    /// Its limits.
    pub limits: Limits,
}

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// A name or an IP, and a port; 0 takes a free one.
    Tcp(String, u16),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// Files for TLS, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate of the API with those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates: with them a client has to show one, and then needs no password.
    pub ca: Option<PathBuf>,
}

/// Limits of the connections of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time; `None` for no limit. Default 1024, called as `dataplaneapi` none.
    pub connections: Option<usize>,
    /// How often a silent connection is probed; `None` for never, and one request for each connection. Default 3 min.
    pub keep_alive: Option<Duration>,
    /// Time for the head of a request, and for its body unless it keeps coming. Default 30 s.
    pub read: Option<Duration>,
    /// How long a client may leave an answer untouched. Default 30 s.
    pub write: Option<Duration>,
}

/// Words of `scheme`.
const SCHEMES: [&str; 3] = ["http", "https", "unix"];

impl Reading {
    pub(super) fn listeners(&mut self) -> Listeners {
        let drop_in = self.profile == Profile::DropIn;
        let limits = Limits {
            connections: self.count("dataplaneapi.listen_limit", if drop_in { 0 } else { 1024 }),
            keep_alive: self.span("dataplaneapi.keep_alive", Duration::from_mins(3)),
            read: self.span("dataplaneapi.read_timeout", Duration::from_secs(30)),
            write: self.span("dataplaneapi.write_timeout", Duration::from_secs(30)),
        };
        let host = self.text("dataplaneapi.host");
        let host = host.unwrap_or_else(|| if drop_in { "localhost" } else { "127.0.0.1" }.to_owned());
        let port = self.port("dataplaneapi.port", if drop_in { 0 } else { 5555 });
        let mut each: Vec<Listener> = Vec::new();
        for scheme in self.schemes() {
            let listener = match scheme {
                "https" => self.tls_listener(&host, &limits),
                "unix" => {
                    let path = self.path("dataplaneapi.socket_path");
                    let at = At::Unix(path.unwrap_or_else(|| "/var/run/data-plane.sock".into()));
                    Some(Listener { at, tls: None, limits: limits.clone() })
                }
                _ => Some(Listener { at: At::Tcp(host.clone(), port), tls: None, limits: limits.clone() }),
            };
            each.extend(listener);
        }
        let max_header = self.get("dataplaneapi.max_header_size", values::size).unwrap_or(1 << 20);
        Listeners {
            each,
            max_header: usize::try_from(max_header).unwrap_or(usize::MAX).clamp(8 << 10, 1 << 30),
            // Simple clients do not notice that a connection was closed while they had a rest.
            idle: self.span("dataplaneapi.cleanup_timeout", Duration::from_secs(if drop_in { 10 } else { 60 })),
            grace: self.time("dataplaneapi.graceful_timeout", Duration::from_secs(15)),
        }
    }

    /// Only when asked for, with either of its two settings.
    pub(super) fn delayed_start(&mut self) -> Option<DelayedStart> {
        const MAX: &str = "haproxy.delayed_start_max";
        const TICK: &str = "haproxy.delayed_start_tick";
        let asked = self.given.contains_key(MAX) || self.given.contains_key(TICK);
        let max = self.span(MAX, Duration::from_secs(30))?;
        let tick = self.time(TICK, Duration::from_millis(500)).max(Duration::from_millis(10));
        asked.then_some(DelayedStart { max, tick })
    }

    /// The schemes asked for, each once.
    fn schemes(&mut self) -> Vec<&'static str> {
        const KEY: &str = "dataplaneapi.scheme";
        let (values, origin) = match self.given.get(KEY) {
            Some(given) => (given.values.clone(), given.origin.clone()),
            None => (Vec::new(), Origin::Flag),
        };
        let mut found = Vec::new();
        for text in &values {
            match SCHEMES.into_iter().find(|scheme| scheme == text) {
                Some(scheme) if !found.contains(&scheme) => found.push(scheme),
                Some(_) => {}
                None => self.wrong(KEY, &origin, &format!("expected http, https or unix, got {text:?}")),
            }
        }
        if found.is_empty() { vec!["http"] } else { found }
    }

    /// What is not set for TLS alone is as without it.
    fn tls_listener(&mut self, host: &str, plain: &Limits) -> Option<Listener> {
        let host = self.text("dataplaneapi.tls.tls_host").unwrap_or_else(|| host.to_owned());
        let port = self.port("dataplaneapi.tls.tls_port", if self.profile == Profile::DropIn { 0 } else { 5556 });
        let limits = Limits {
            connections: self.count("dataplaneapi.tls.tls_listen_limit", plain.connections.unwrap_or(0) as u64),
            keep_alive: self.span("dataplaneapi.tls.tls_keep_alive", plain.keep_alive.unwrap_or_default()),
            read: self.span("dataplaneapi.tls.tls_read_timeout", plain.read.unwrap_or_default()),
            write: self.span("dataplaneapi.tls.tls_write_timeout", plain.write.unwrap_or_default()),
        };
        let mut file = |key: &'static str| {
            let path = self.path(key);
            if path.is_none() {
                let flag = rows::by_key(key).map(|row| row.flag).unwrap_or_default();
                self.problems.push(format!("--{flag} or {key}: needed for the scheme https"));
            }
            path
        };
        let (certificate, key) = (file("dataplaneapi.tls.tls_certificate"), file("dataplaneapi.tls.tls_key"));
        let tls = Tls { certificate: certificate?, key: key?, ca: self.path("dataplaneapi.tls.tls_ca") };
        Some(Listener { at: At::Tcp(host, port), tls: Some(tls), limits })
    }

    /// Sessions with HAProxy over TLS, when an authority is given.
    pub(super) fn peer_tls(&mut self) -> Option<PeerTls> {
        let mut file = |key: &'static str| (key, self.path(key));
        let (ca, certificate, private) =
            (file("backstay.peer_tls.ca"), file("backstay.peer_tls.certificate"), file("backstay.peer_tls.key"));
        let name = self.text("backstay.peer_tls.name");
        let mut needs = |given: bool, other: &(&'static str, Option<PathBuf>), what: &str| {
            if given && other.1.is_none() {
                let flag = rows::by_key(other.0).map(|row| row.flag).unwrap_or_default();
                self.problems.push(format!("--{flag} or {}: needed for {what}", other.0));
            }
        };
        needs(certificate.1.is_some(), &private, "peer-tls-certificate");
        needs(private.1.is_some(), &certificate, "peer-tls-key");
        needs(certificate.1.is_some() || private.1.is_some() || name.is_some(), &ca, "sessions with haproxy over TLS");
        Some(PeerTls { ca: ca.1?, identity: certificate.1.zip(private.1), name })
    }

    fn port(&mut self, key: &str, default: u16) -> u16 {
        u16::try_from(self.whole(key, u64::from(default))).unwrap_or(default)
    }

    /// A number, of which 0 means none.
    fn count(&mut self, key: &str, default: u64) -> Option<usize> {
        usize::try_from(self.whole(key, default)).ok().filter(|count| *count > 0)
    }

    /// A time, of which 0 means never.
    pub(super) fn span(&mut self, key: &str, default: Duration) -> Option<Duration> {
        debug_assert!(rows::by_key(key).is_some_and(|row| matches!(row.kind, Kind::Time(_))));
        Some(self.time(key, default)).filter(|time| !time.is_zero())
    }
}
