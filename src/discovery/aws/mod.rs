//! Regions of AWS: which instances are asked for, and what their tags say.

mod credentials;
mod sign;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub(super) use credentials::{Credentials, Memory};

use super::client::{Answer, Client, PATIENCE, Trouble};
use super::instance::Values;
use super::plan::{Endpoint, Service};
use super::surroundings::Surroundings;
use crate::proto::fields::discovery::{aws_filter, aws_region};
use crate::proto::values::discovery::aws_ipv4_address;
use crate::schema::tables::FieldIndex;
use crate::settings::Secret;

/// Tags that say what an instance serves.
const SERVICE_NAME: &str = "HAProxy:Service:Name";
const SERVICE_PORT: &str = "HAProxy:Service:Port";
const INSTANCE_PORT: &str = "HAProxy:Instance:Port";
/// Version of the API.
const VERSION: &str = "2016-11-15";
/// Instances in an answer.
const PAGE: &str = "1000";
/// Answers that are read for one question.
const PAGES: usize = 1_000;
/// What a form holds as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Values by the name of their filter: one of them has to fit.
type Filters = BTreeMap<String, Vec<String>>;

/// A region, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    name: String,
    /// As AWS calls it.
    code: String,
    key_id: String,
    key: Secret,
    public: bool,
    allowed: Filters,
    denied: Filters,
}

/// An instance that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instance {
    id: String,
    private: String,
    public: String,
    tags: BTreeMap<String, String>,
}

impl Region {
    pub(super) fn new(values: &Values<'_>) -> Region {
        let filters = |field: FieldIndex| {
            let mut filters = Filters::new();
            for filter in values.objects(field) {
                let (key, value) = (filter.text(aws_filter::KEY), filter.text(aws_filter::VALUE));
                filters.entry(key.to_owned()).or_default().push(value.to_owned());
            }
            filters
        };
        Region {
            name: values.text(aws_region::NAME).to_owned(),
            code: values.text(aws_region::REGION).to_owned(),
            key_id: values.text(aws_region::ACCESS_KEY_ID).to_owned(),
            key: Secret::new(values.text(aws_region::SECRET_ACCESS_KEY).to_owned()),
            public: values.word(aws_region::IPV4_ADDRESS) == Some(aws_ipv4_address::PUBLIC),
            allowed: filters(aws_region::ALLOWLIST),
            denied: filters(aws_region::DENYLIST),
        }
    }

    /// What the names of its backends begin with.
    pub(super) fn prefix(&self) -> String {
        format!("aws-{}-{}-", self.code, self.name)
    }

    /// Where the API is.
    pub(super) fn endpoint(&self, around: &Surroundings) -> Result<Uri, Trouble> {
        let set = ["AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL"].iter().find_map(|name| around.variable(name));
        let plain = self.code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain {
            return Err(Trouble(format!("region: {:?} is no region", self.code)));
        }
        let text = set.unwrap_or_else(|| {
            let end = if self.code.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("{}://ec2.{}.{end}", "https", self.code)
        });
        let uri: Option<Uri> = text.trim_end_matches('/').parse().ok();
        uri.filter(|uri| uri.authority().is_some())
            .ok_or_else(|| Trouble(format!("the endpoint of AWS is no address: {text}")))
    }

    /// All services that are wanted, with their running instances.
    pub(super) async fn ask(
        &self,
        client: &Client,
        around: &Surroundings,
        memory: &mut Memory,
    ) -> Result<Vec<Service>, Trouble> {
        let credentials = memory.credentials(self.given(), client, around).await?;
        let endpoint = self.endpoint(around)?;
        let call = Call { region: self, client, around, endpoint: &endpoint, credentials: &credentials };
        let mut instances = call.instances(&self.allowed).await?;
        let mut left_out = HashSet::new();
        for (key, values) in &self.denied {
            let found = call.instances(&Filters::from([(key.clone(), values.clone())])).await?;
            left_out.extend(found.into_iter().map(|instance| instance.id));
        }
        instances.retain(|instance| !left_out.contains(&instance.id));
        Ok(self.services(&instances))
    }

    fn given(&self) -> Option<Credentials> {
        let both = !self.key_id.is_empty() && !self.key.expose().is_empty();
        both.then(|| Credentials { id: self.key_id.clone(), key: self.key.clone(), token: None })
    }

    /// Services by what the tags of their instances say.
    fn services(&self, instances: &[Instance]) -> Vec<Service> {
        let mut services: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
        for instance in instances {
            let tag = |name: &str| instance.tags.get(name).filter(|value| !value.is_empty());
            let address = if self.public { &instance.public } else { &instance.private };
            let (Some(name), Some(port), false) = (tag(SERVICE_NAME), tag(SERVICE_PORT), address.is_empty()) else {
                continue;
            };
            let own = tag(INSTANCE_PORT).unwrap_or(port);
            let endpoint = Endpoint { address: address.clone(), port: own.parse().unwrap_or_default() };
            services.entry(format!("{name}-{port}")).or_default().push(endpoint);
        }
        services.into_iter().map(|(name, endpoints)| Service { name, endpoints, left_out: None }).collect()
    }
}

/// Questions of one attempt.
struct Call<'a> {
    region: &'a Region,
    client: &'a Client,
    around: &'a Surroundings,
    endpoint: &'a Uri,
    credentials: &'a Credentials,
}

impl Call<'_> {
    /// All running instances of services that fit the filters.
    async fn instances(&self, filters: &Filters) -> Result<Vec<Instance>, Trouble> {
        let mut instances = Vec::new();
        let mut token = String::new();
        for _ in 0..PAGES {
            let answer = self.send(form(filters, &token)).await?;
            let page = page(&answer.body)?;
            instances.extend(page.0);
            token = page.1;
            if token.is_empty() {
                return Ok(instances);
            }
        }
        Err(Trouble(format!("the list of instances has more than {PAGES} pages")))
    }

    async fn send(&self, form: String) -> Result<Answer, Trouble> {
        let host = self.endpoint.authority().map_or("", http::uri::Authority::as_str);
        let date = self.around.date()?;
        let mut headers = vec![("content-type", FORM), ("host", host), ("x-amz-date", date.as_str())];
        if let Some(token) = &self.credentials.token {
            headers.push(("x-amz-security-token", token.expose()));
        }
        let signed = sign::Signed {
            method: "POST",
            path: "/",
            query: "",
            headers: &headers,
            body: form.as_bytes(),
            date: &date,
            region: &self.region.code,
            service: "ec2",
        };
        let authorization = signed.authorization(self.credentials);
        let uri = format!("{}/", self.endpoint.to_string().trim_end_matches('/'));
        let mut request = Request::post(uri);
        headers.push(("authorization", &authorization));
        for (name, value) in &headers {
            let mut value = HeaderValue::from_str(value)
                .map_err(|_| Trouble("the credentials hold characters that no header takes".to_owned()))?;
            value.set_sensitive(!matches!(*name, "content-type" | "host" | "x-amz-date"));
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(form))).map_err(|error| Trouble(error.to_string()))?;
        let answer = self.client.send(request, PATIENCE).await?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let words = fault(&answer.body).unwrap_or_else(|| answer.shown());
        let words = self.credentials.hidden(words);
        Err(Trouble(format!("{host} answers {}: {words}", answer.status)))
    }
}

/// The question for running instances of services.
fn form(filters: &Filters, token: &str) -> String {
    let mut pairs = vec![
        ("Action".to_owned(), "DescribeInstances"),
        ("MaxResults".to_owned(), PAGE),
        ("Version".to_owned(), VERSION),
    ];
    let (running, service) = (vec!["running".to_owned()], vec![SERVICE_NAME.to_owned()]);
    let ours = [("instance-state-name", &running), ("tag-key", &service)];
    let wanted = filters.iter().map(|(name, values)| (name.as_str(), values));
    let all: Vec<_> = ours.into_iter().chain(wanted).collect();
    for (number, (name, values)) in (1..).zip(&all) {
        pairs.push((format!("Filter.{number}.Name"), name));
        pairs.extend((1..).zip(*values).map(|(at, value)| (format!("Filter.{number}.Value.{at}"), value.as_str())));
    }
    if !token.is_empty() {
        pairs.push(("NextToken".to_owned(), token));
    }
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, PLAIN))).collect();
    pairs.join("&")
}

type Node<'a> = roxmltree::Node<'a, 'a>;

fn child<'a>(node: Node<'a>, name: &str) -> Option<Node<'a>> {
    node.children().find(|child| child.tag_name().name() == name)
}

fn said(node: Node<'_>, name: &str) -> String {
    child(node, name).and_then(|child| child.text()).unwrap_or_default().trim().to_owned()
}

fn children<'a>(node: Node<'a>, list: &str) -> impl Iterator<Item = Node<'a>> + use<'a> {
    let items = child(node, list).into_iter().flat_map(|list| list.children());
    items.filter(|item| item.tag_name().name() == "item")
}

/// Running instances of an answer, and the token of the next one.
fn page(body: &[u8]) -> Result<(Vec<Instance>, String), Trouble> {
    let text = String::from_utf8_lossy(body);
    let document = roxmltree::Document::parse(&text)
        .map_err(|error| Trouble(format!("the list of instances cannot be read: {error}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "DescribeInstancesResponse" {
        return Err(Trouble(format!("the answer is a {}, no list of instances", root.tag_name().name())));
    }
    let instances = children(root, "reservationSet").flat_map(|reservation| children(reservation, "instancesSet"));
    let running = instances.filter(|instance| {
        let state = child(*instance, "instanceState");
        state.is_none_or(|state| said(state, "name") == "running")
    });
    let instances = running.map(|instance| Instance {
        id: said(instance, "instanceId"),
        private: said(instance, "privateIpAddress"),
        public: said(instance, "ipAddress"),
        tags: children(instance, "tagSet").map(|tag| (said(tag, "key"), said(tag, "value"))).collect(),
    });
    Ok((instances.collect(), said(root, "nextToken")))
}

/// Code and message of a refusal.
fn fault(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let document = roxmltree::Document::parse(text).ok()?;
    let error = document.descendants().find(|node| node.tag_name().name() == "Error")?;
    Some(format!("{}: {}", said(error, "Code"), said(error, "Message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region {
            name: "main".into(),
            code: "us-east-1".into(),
            key_id: "AKID".into(),
            key: Secret::new("s3cret".into()),
            public: false,
            allowed: Filters::new(),
            denied: Filters::new(),
        }
    }

    fn instance(id: &str, tags: &[(&str, &str)]) -> Instance {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Instance { id: id.into(), private: format!("10.0.0.{id}"), public: format!("192.0.2.{id}"), tags }
    }

    #[test]
    fn tags_say_what_an_instance_serves() {
        let web = [(SERVICE_NAME, "web"), (SERVICE_PORT, "80")];
        let own = [(SERVICE_NAME, "web"), (SERVICE_PORT, "80"), (INSTANCE_PORT, "8080")];
        let other = [(SERVICE_NAME, "web"), (SERVICE_PORT, "81")];
        let mut nowhere = instance("9", &web);
        nowhere.private.clear();
        let instances =
            [instance("1", &web), instance("2", &own), instance("3", &other), instance("4", &web[..1]), nowhere];
        let shown = |region: &Region| {
            let services = region.services(&instances);
            let lines = services.iter().map(|service| {
                let ends = service.endpoints.iter().map(|e| format!("{}:{}", e.address, e.port));
                format!("{} {}", service.name, ends.collect::<Vec<_>>().join(" "))
            });
            lines.collect::<Vec<_>>()
        };
        assert_eq!(shown(&region()), ["web-80 10.0.0.1:80 10.0.0.2:8080", "web-81 10.0.0.3:81"]);
        let public = Region { public: true, ..region() };
        assert_eq!(shown(&public), ["web-80 192.0.2.1:80 192.0.2.2:8080 192.0.2.9:80", "web-81 192.0.2.3:81"]);
        assert_eq!(region().prefix(), "aws-us-east-1-main-");
    }

    #[test]
    fn the_question_names_all_filters() {
        let filters = Filters::from([("tag:Stage".to_owned(), vec!["a b".to_owned(), "c&d".to_owned()])]);
        assert_eq!(
            form(&filters, "t="),
            "Action=DescribeInstances&MaxResults=1000&Version=2016-11-15&Filter.1.Name=instance-state-name&\
             Filter.1.Value.1=running&Filter.2.Name=tag-key&Filter.2.Value.1=HAProxy%3AService%3AName&\
             Filter.3.Name=tag%3AStage&Filter.3.Value.1=a%20b&Filter.3.Value.2=c%26d&NextToken=t%3D"
        );
    }

    #[test]
    fn answers_are_read_and_refusals_named() {
        let body = r#"<?xml version="1.0"?>
            <DescribeInstancesResponse xmlns="urn:ec2"><reservationSet>
            <item><groupSet/><instancesSet>
              <item><instanceId>i-1</instanceId><instanceState><code>16</code><name>running</name></instanceState>
                <privateIpAddress>10.0.0.1</privateIpAddress><tagSet><item><key>a&amp;b</key><value> c </value></item></tagSet></item>
              <item><instanceId>i-2</instanceId><instanceState><name>stopped</name></instanceState></item>
            </instancesSet></item>
            <item><instancesSet><item><instanceId>i-3</instanceId><ipAddress>192.0.2.3</ipAddress></item></instancesSet></item>
            </reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>"#;
        let (instances, token) = page(body.as_bytes()).unwrap();
        let ids: Vec<&str> = instances.iter().map(|instance| instance.id.as_str()).collect();
        assert_eq!((ids, token.as_str()), (vec!["i-1", "i-3"], "more"));
        assert_eq!(instances[0].tags["a&b"], "c");
        assert_eq!((instances[1].public.as_str(), instances[1].private.as_str()), ("192.0.2.3", ""));
        for odd in ["", "<a", "<html/>"] {
            assert!(page(odd.as_bytes()).is_err(), "{odd}");
        }
        let refusal =
            b"<Response><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors></Response>";
        assert_eq!(fault(refusal).unwrap(), "AuthFailure: no");
        assert_eq!(fault(b"not found"), None);
    }

    #[test]
    fn the_endpoint_follows_from_the_region_or_is_given() {
        let with = |list: &'static [(&str, &str)]| Surroundings {
            clock: std::sync::Arc::new(|| 0),
            environment: std::sync::Arc::new(move |name| {
                list.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            }),
        };
        let of = |code: &str, list| {
            let endpoint = Region { code: code.into(), ..region() }.endpoint(&with(list));
            endpoint.map(|uri| uri.authority().unwrap().to_string())
        };
        assert_eq!(of("us-east-1", &[]).unwrap(), "ec2.us-east-1.amazonaws.com");
        assert_eq!(of("cn-north-1", &[]).unwrap(), "ec2.cn-north-1.amazonaws.com.cn");
        assert_eq!(of("x", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9/")]).unwrap(), "127.0.0.1:9");
        assert!(of("a/b", &[]).unwrap_err().0.contains("no region"));
        assert!(of("x", &[("AWS_ENDPOINT_URL", "/path")]).is_err());
        assert!(!format!("{:?}", region()).contains("s3cret"));
    }
}
