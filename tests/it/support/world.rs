//! What a scenario works on: a running backstay, a caller, and tables of cases that hold over gRPC and over REST.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as Legacy;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value as Json, json};

use backstay::error::Reason;

use super::backstay::Backstay;
use super::client::{Client, Http, Messages, Refusal, Success, Transport, method, tables};

/// What a case expects.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// A response message that holds at least this; `null` stands for an absent field.
    Holds(Json),
    /// A refusal, with the HTTP status when it is not the one of the error table, and words that it says.
    Refused(Reason, Option<u16>, &'static str),
}

/// A call and what it answers.
pub(crate) type Case = (&'static str, Json, Expected);

/// An answer that holds at least this.
pub(crate) fn holds(json: Json) -> Expected {
    Expected::Holds(json)
}

/// An answer, whatever it says.
pub(crate) fn done() -> Expected {
    Expected::Holds(json!({}))
}

/// A refusal.
pub(crate) fn refused(reason: Reason) -> Expected {
    Expected::Refused(reason, None, "")
}

/// A refusal whose HTTP status /v2 wants to be another than that of the error table.
pub(crate) fn refused_with(reason: Reason, status: u16) -> Expected {
    Expected::Refused(reason, Some(status), "")
}

/// A refusal that says so.
pub(crate) fn refused_saying(reason: Reason, words: &'static str) -> Expected {
    Expected::Refused(reason, None, words)
}

/// Defines the tests of a scenario, one over each transport, and which methods it covers: `NAME::COVERS`.
macro_rules! over_both {
    ($name:ident, flags $flags:expr, covers $covers:expr) => {
        pub(crate) mod $name {
            use $crate::support::client::Transport;
            use $crate::support::world::run;

            pub(crate) const COVERS: &[&str] = &$covers;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_grpc() {
                run(Transport::Grpc, &$flags, COVERS, super::$name).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_rest() {
                run(Transport::Rest, &$flags, COVERS, super::$name).await;
            }
        }
    };
    ($name:ident, covers $covers:expr) => {
        over_both!($name, flags [], covers $covers);
    };
}
pub(crate) use over_both;

/// Runs a scenario, and checks that it made every call that it claims to cover.
pub(crate) async fn run(transport: Transport, flags: &[&str], covers: &[&str], scenario: impl AsyncFnOnce(&mut World)) {
    let mut world = World::start(transport, flags);
    scenario(&mut world).await;
    let used = world.used.lock().unwrap().clone();
    for name in covers.iter().filter(|name| world.client.has(name)) {
        assert!(used.contains(*name), "claims to cover {name}");
    }
}

/// A running backstay and a caller.
pub(crate) struct World {
    pub(crate) backstay: Backstay,
    pub(crate) client: Client,
    used: Mutex<BTreeSet<String>>,
}

impl World {
    pub(crate) fn start(transport: Transport, flags: &[&str]) -> Self {
        let backstay = Backstay::start(flags);
        let client = Client::new(transport, backstay.api, &backstay.password);
        World { backstay, client, used: Mutex::default() }
    }

    /// Kills the program at once and starts it again.
    pub(crate) fn restart(&mut self) {
        self.backstay.kill();
        self.backstay.run();
        self.client = Client::new(self.client.transport, self.backstay.api, &self.backstay.password);
    }

    pub(crate) fn is_rest(&self) -> bool {
        self.client.transport == Transport::Rest
    }

    /// The version of the configuration.
    pub(crate) async fn version(&self) -> i64 {
        let answer = self.client.call("RawConfigurationService.GetVersion", &json!({})).await.expect("a version");
        answer.message["version"].as_i64().expect("a version")
    }

    /// Makes a call. A change without a target is made to the current version; `"version": null` leaves it out.
    pub(crate) async fn call(&self, name: &str, request: Json) -> Result<Success, Refusal> {
        self.note(name);
        let request = self.targeted(name, request).await;
        self.client.call(name, &request).await
    }

    async fn targeted(&self, name: &str, mut request: Json) -> Json {
        let input = &tables().messages[method(name).input];
        let reads = ["Get", "List"].iter().any(|verb| name.split('.').nth(1).is_some_and(|m| m.starts_with(verb)));
        let fields = request.as_object_mut().expect("an object");
        if !reads
            && input.field_named("version").is_some()
            && !fields.contains_key("version")
            && !fields.contains_key("transaction_id")
        {
            fields.insert("version".to_owned(), json!(self.version().await));
        }
        request
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, name: &str, request: Json) -> Messages {
        self.note(name);
        self.client.stream(name, &request).await.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"))
    }

    /// Notes a call that a scenario makes by other means.
    pub(crate) fn note(&self, name: &str) {
        self.used.lock().unwrap().insert(name.to_owned());
    }

    /// Makes a call that succeeds and returns its message.
    pub(crate) async fn ok(&self, name: &str, request: Json) -> Json {
        let shown = request.to_string();
        match self.call(name, request).await {
            Ok(success) => success.message,
            Err(refusal) => panic!("{name} {shown}: {refusal:?}"),
        }
    }

    /// Makes a call that is refused.
    pub(crate) async fn refused(&self, name: &str, request: Json, expected: Expected) -> Refusal {
        let shown = request.to_string();
        match self.call(name, request).await {
            Ok(success) => panic!("{name} {shown} is not refused: {success:?}"),
            Err(refusal) => {
                let Expected::Refused(reason, status, words) = expected else { panic!("{name} expects no refusal") };
                let row = reason.row();
                let status = status.unwrap_or(row.status);
                let fits = if self.is_rest() {
                    refusal.status == status
                } else {
                    refusal.code == row.code as i64 && refusal.reason == row.name
                };
                assert!(fits && refusal.text.contains(words), "{name} {shown}: {refusal:?}, not {row:?}");
                assert!(!refusal.text.is_empty() || self.is_rest(), "{name} {shown} says nothing");
                refusal
            }
        }
    }

    /// Goes through a table. Methods that the transport does not have are left out.
    pub(crate) async fn cases(&self, cases: impl IntoIterator<Item = Case>) {
        for (name, request, expected) in cases {
            if !self.client.has(name) {
                continue;
            }
            match expected {
                Expected::Holds(wanted) => {
                    let shown = request.to_string();
                    let message = self.ok(name, request).await;
                    assert!(is_part(&wanted, &message), "{name} {shown}:\n{message}\ndoes not hold\n{wanted}");
                }
                expected @ Expected::Refused(..) => {
                    self.refused(name, request, expected).await;
                }
            }
        }
    }

    /// Waits until no reload is pending, and returns how often HAProxy was reloaded.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.client.call("ReloadService.ListReloads", &json!({})).await.expect("reloads").message;
            let reloads = answer["reloads"].as_array().cloned().unwrap_or_default();
            let status = |wanted: &str| reloads.iter().any(|reload| reload["status"] == wanted);
            assert!(!status("failed"), "{reloads:?}");
            if !status("in_progress") {
                return;
            }
            assert!(Instant::now() < deadline, "{reloads:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A request to the frontend of HAProxy.
    pub(crate) async fn visit(&self, path: &str) -> Http {
        visit(self.backstay.frontend, path).await.expect("an answer of haproxy")
    }

    /// Visits until the answer is as wanted.
    pub(crate) async fn visit_until(&self, path: &str, wanted: &str) {
        let frontend = self.backstay.frontend;
        let mut last = String::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Ok(answer) = visit(frontend, path).await {
                last = answer.text();
                if last.contains(wanted) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} answers {last:?}, not {wanted:?}");
    }

    /// Number of the worker of HAProxy: it is another one after a reload.
    pub(crate) fn worker(&self) -> u32 {
        let info = self.backstay.ask("show info").expect("haproxy runs");
        let pid = info.lines().find_map(|line| line.strip_prefix("Pid: ")).expect("a pid");
        pid.trim().parse().expect("a number")
    }
}

/// A GET over a connection of its own.
pub(crate) async fn visit(address: SocketAddr, path: &str) -> Result<Http, String> {
    let client = Legacy::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http::<Full<Bytes>>();
    let uri = format!("http://{address}{path}").parse().expect("an address");
    let response = client.get(uri).await.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Http { status: head.status.as_u16(), headers: head.headers, body })
}

/// Whether a value holds at least what is wanted: fields of objects, all items of lists.
pub(crate) fn is_part(wanted: &Json, given: &Json) -> bool {
    match (wanted, given) {
        (Json::Object(wanted), Json::Object(given)) => wanted.iter().all(|(name, value)| match given.get(name) {
            Some(given) => is_part(value, given),
            None => value.is_null(),
        }),
        (Json::Array(wanted), Json::Array(given)) => {
            wanted.len() == given.len() && wanted.iter().zip(given).all(|(wanted, given)| is_part(wanted, given))
        }
        _ => wanted == given,
    }
}

/// Waits until it holds or 10 seconds have passed.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
