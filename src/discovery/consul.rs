//! Consul agents: which questions are asked, and what their answers mean.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderValue, Request};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value as Json;

use super::client::{Answer, Client, PATIENCE, Trouble};
use super::instance::Values;
use super::plan::{Endpoint, Service};
use crate::proto::fields::discovery::consul;
use crate::proto::values::discovery::{consul_mode, health_check_policy};
use crate::schema::tables::FieldIndex;
use crate::settings::Secret;

/// Consul itself is a service of every catalog.
const ITSELF: &str = "consul";
/// Questions that are under way at once.
const PARALLEL: usize = 8;
/// Longest time in seconds for which an agent keeps a question open.
const LONGEST_WATCH: u64 = 300;

/// What stands as it is in a path or a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Which instances take traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    None,
    Any,
    All,
    /// With at least so many passing checks.
    Min(usize),
}

/// An agent, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agent {
    address: String,
    port: i64,
    pub(super) tls: bool,
    namespace: String,
    regexp: String,
    token: Secret,
    allowed: Vec<String>,
    denied: Vec<String>,
    policy: Policy,
}

/// What the agent said last.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// `X-Consul-Index` of the list of services.
    index: Option<u64>,
}

impl Agent {
    pub(super) fn new(values: &Values<'_>) -> Agent {
        let both = |one: FieldIndex, other: FieldIndex| [values.texts(one), values.texts(other)].concat();
        let least = usize::try_from(values.int(consul::HEALTH_CHECK_POLICY_MIN).unwrap_or(1)).unwrap_or(1);
        Agent {
            address: values.text(consul::ADDRESS).to_owned(),
            port: values.int(consul::PORT).unwrap_or_default(),
            tls: values.word(consul::MODE) == Some(consul_mode::HTTPS),
            namespace: values.text(consul::NAMESPACE).to_owned(),
            regexp: values.text(consul::SERVICE_NAME_REGEXP).to_owned(),
            token: Secret::new(values.text(consul::TOKEN).to_owned()),
            allowed: both(consul::SERVICE_ALLOWLIST, consul::SERVICE_WHITELIST),
            denied: both(consul::SERVICE_DENYLIST, consul::SERVICE_BLACKLIST),
            policy: match values.word(consul::HEALTH_CHECK_POLICY) {
                Some(health_check_policy::ANY) => Policy::Any,
                Some(health_check_policy::ALL) => Policy::All,
                Some(health_check_policy::MIN) => Policy::Min(least),
                _ => Policy::None,
            },
        }
    }

    /// What the names of its backends begin with.
    pub(super) fn prefix(&self) -> String {
        format!("consul-backend-{}-{}-", self.address, self.port)
    }

    /// All services that are wanted, with the instances that take traffic. One that the agent does not tell of is left out,
    /// unless it tells of none.
    pub(super) async fn ask(&self, client: &Client, memory: &mut Memory) -> Result<Vec<Service>, Trouble> {
        let answer = self.get(client, &self.catalog(), PATIENCE).await?;
        let names = self.wanted(&answer.body)?;
        memory.index = index(&answer);
        let services = stream::iter(names).map(|name| self.service(client, name)).buffered(PARALLEL);
        let services: Vec<Service> = services.collect().await;
        match services.first().and_then(|first| first.left_out.clone()) {
            Some(why) if services.iter().all(|service| service.left_out.is_some()) => Err(Trouble(why)),
            _ => Ok(services),
        }
    }

    async fn service(&self, client: &Client, name: String) -> Service {
        let path = format!("/v1/health/service/{}", encoded(&name));
        let answer = self.get(client, &self.question(&path, &[]), PATIENCE).await;
        match answer.and_then(|answer| self.healthy(&answer.body)) {
            Ok(endpoints) => Service { name, endpoints, left_out: None },
            Err(trouble) => Service { name, left_out: Some(trouble.0), ..Service::default() },
        }
    }

    /// Waits until the list of services changes or the time is over, whichever is first. Agents that do not keep questions open
    /// are waited for without a question.
    pub(super) async fn wait(&self, client: &Client, memory: &mut Memory, time: Duration) {
        let over = tokio::time::Instant::now() + time;
        let seconds = time.as_secs().min(LONGEST_WATCH);
        if let Some(known) = memory.index.filter(|index| *index > 0 && seconds > 0) {
            let question = self.question(
                "/v1/catalog/services",
                &[("index", &known.to_string()), ("wait", &format!("{seconds}s")), ("filter", &self.filter())],
            );
            // An agent adds up to a sixteenth of the time, so that not all clients come back at once.
            let limit = (time + time / 16).min(Duration::from_secs(LONGEST_WATCH + LONGEST_WATCH / 16)) + PATIENCE;
            let asked = tokio::time::timeout_at(over, self.get(client, &question, limit)).await;
            if let Ok(Ok(answer)) = asked
                && index(&answer).is_some_and(|index| index != known)
            {
                return;
            }
        }
        tokio::time::sleep_until(over).await;
    }

    fn catalog(&self) -> String {
        self.question("/v1/catalog/services", &[("filter", &self.filter())])
    }

    /// The expression that Consul selects services by, empty for all.
    fn filter(&self) -> String {
        if self.regexp.is_empty() {
            return String::new();
        }
        let quoted = self.regexp.replace('\\', "\\\\").replace('"', "\\\"");
        format!("ServiceName matches \"{quoted}\"")
    }

    /// A path with those parameters that are not empty.
    fn question(&self, path: &str, parameters: &[(&str, &str)]) -> String {
        let mut text = path.to_owned();
        let mut joint = '?';
        for (name, value) in [("ns", self.namespace.as_str())].iter().chain(parameters) {
            if !value.is_empty() {
                text = format!("{text}{joint}{name}={}", encoded(value));
                joint = '&';
            }
        }
        text
    }

    async fn get(&self, client: &Client, question: &str, limit: Duration) -> Result<Answer, Trouble> {
        let scheme = if self.tls { "https" } else { "http" };
        let host = if self.address.contains(':') && !self.address.starts_with('[') {
            format!("[{}]", self.address)
        } else {
            self.address.clone()
        };
        let uri = http::Uri::builder().scheme(scheme).authority(format!("{host}:{}", self.port));
        let uri = uri.path_and_query(question).build();
        let uri = uri.map_err(|_| Trouble(format!("{}:{} is no address", self.address, self.port)))?;
        let mut request = Request::get(uri);
        if !self.token.expose().is_empty() {
            let mut value = HeaderValue::from_str(self.token.expose())
                .map_err(|_| Trouble("token: expected printable characters".to_owned()))?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        let request = request.body(Full::new(Bytes::new())).map_err(|error| Trouble(error.to_string()))?;
        let answer = client.send(request, limit).await?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let path = question.split('?').next().unwrap_or_default();
        Err(Trouble(format!("{host}:{}{path} answers {}: {}", self.port, answer.status, self.clean(answer.shown()))))
    }

    /// A text without the token, should the agent have repeated it.
    fn clean(&self, text: String) -> String {
        match self.token.expose() {
            "" => text,
            token => text.replace(token, "***"),
        }
    }

    /// Names of the services that are wanted, out of the answer of the catalog.
    fn wanted(&self, body: &[u8]) -> Result<Vec<String>, Trouble> {
        let services: BTreeMap<String, Json> = parse(body, "list of services")?;
        let wanted = |name: &String| {
            if self.allowed.is_empty() { !self.denied.contains(name) } else { self.allowed.contains(name) }
        };
        Ok(services.into_keys().filter(|name| name != ITSELF && wanted(name)).collect())
    }

    /// Instances that take traffic, out of the answer about the health of a service.
    fn healthy(&self, body: &[u8]) -> Result<Vec<Endpoint>, Trouble> {
        let entries: Vec<Entry> = parse(body, "health of a service")?;
        Ok(entries.into_iter().filter(|entry| self.takes(entry)).map(Entry::endpoint).collect())
    }

    fn takes(&self, entry: &Entry) -> bool {
        let checks = entry.checks.as_deref().unwrap_or_default();
        let passing = checks.iter().filter(|check| check.status == "passing").count();
        match self.policy {
            Policy::None => true,
            Policy::Any => passing > 0,
            Policy::All => passing > 0 && passing == checks.len(),
            Policy::Min(least) => passing >= least,
        }
    }
}

/// An instance of a service.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    node: Node,
    service: Instance,
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    status: String,
}

impl Entry {
    fn endpoint(self) -> Endpoint {
        let address = if self.service.address.is_empty() { self.node.address } else { self.service.address };
        Endpoint { address, port: self.service.port }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, Trouble> {
    serde_json::from_slice(body).map_err(|error| Trouble(format!("the {what} cannot be read: {error}")))
}

fn index(answer: &Answer) -> Option<u64> {
    answer.headers.get("x-consul-index")?.to_str().ok()?.parse().ok()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        Agent {
            address: "10.0.0.1".into(),
            port: 8500,
            tls: false,
            namespace: String::new(),
            regexp: String::new(),
            token: Secret::new(String::new()),
            allowed: Vec::new(),
            denied: Vec::new(),
            policy: Policy::None,
        }
    }

    #[test]
    fn the_lists_of_names_decide_which_services_are_taken() {
        let body = br#"{"consul":[],"web":["v1"],"db":[],"cache":null}"#;
        let names = |allowed: &[&str], denied: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            Agent { allowed: list(allowed), denied: list(denied), ..agent() }.wanted(body).unwrap().join(" ")
        };
        assert_eq!(names(&[], &[]), "cache db web");
        assert_eq!(names(&[], &["db"]), "cache web");
        assert_eq!(names(&["db", "consul"], &[]), "db");
        assert_eq!(names(&["web", "db"], &["db"]), "db web", "the list of allowed names wins");
        assert!(agent().wanted(b"[]").unwrap_err().0.contains("list of services"));
    }

    #[test]
    fn the_policy_decides_which_instances_take_traffic() {
        let entry = |port: u16, checks: &str| {
            let checks: Vec<String> =
                checks.split_whitespace().map(|word| format!(r#"{{"Status":"{word}"}}"#)).collect();
            format!(
                r#"{{"Node":{{"Address":"10.1.1.1"}},"Service":{{"Address":"","Port":{port},"ID":"x"}},"Checks":[{}]}}"#,
                checks.join(",")
            )
        };
        let entries = [
            entry(1, ""),
            entry(2, "critical"),
            entry(3, "passing critical"),
            entry(4, "passing"),
            entry(5, "passing passing"),
        ];
        let body = format!("[{}]", entries.join(","));
        let ports = |policy| -> Vec<i64> {
            let endpoints = Agent { policy, ..agent() }.healthy(body.as_bytes()).unwrap();
            endpoints.iter().map(|endpoint| endpoint.port).collect()
        };
        assert_eq!(ports(Policy::None), [1, 2, 3, 4, 5]);
        assert_eq!(ports(Policy::Any), [3, 4, 5]);
        assert_eq!(ports(Policy::All), [4, 5]);
        assert_eq!(ports(Policy::Min(1)), [3, 4, 5]);
        assert_eq!(ports(Policy::Min(2)), [5]);
    }

    #[test]
    fn the_address_of_the_service_comes_before_that_of_its_node() {
        let body = br#"[{"Node":{"Address":"10.1.1.1"},"Service":{"Address":"10.2.2.2","Port":80},"Checks":null},
            {"Node":{"Address":"10.1.1.1"},"Service":{"Port":81}}]"#;
        let endpoints = agent().healthy(body).unwrap();
        let shown: Vec<String> = endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect();
        assert_eq!(shown, ["10.2.2.2:80", "10.1.1.1:81"]);
    }

    #[test]
    fn questions_carry_namespace_and_expression() {
        let agent = Agent { namespace: "a b".into(), regexp: r#"^w\."x"#.into(), ..agent() };
        assert_eq!(agent.filter(), r#"ServiceName matches "^w\\.\"x""#);
        assert!(agent.catalog().starts_with("/v1/catalog/services?ns=a%20b&filter=ServiceName%20matches%20%22%5Ew"));
        assert_eq!(super::tests::agent().catalog(), "/v1/catalog/services");
        assert_eq!(agent.prefix(), "consul-backend-10.0.0.1-8500-");
    }

    #[test]
    fn the_token_is_in_no_message() {
        let agent = Agent { token: Secret::new("s3cret".into()), ..agent() };
        assert!(!format!("{agent:?}").contains("s3cret"));
        assert_eq!(agent.clean("no rights for s3cret".into()), "no rights for ***");
    }
}
