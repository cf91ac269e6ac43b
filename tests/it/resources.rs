//! Every resource of the configuration through its whole life, over both transports, checked by a real HAProxy.
//!
//! One test for all: what differs stands in the schema and in `tests/data/resources.json`.

use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use backstay::error::Reason;
use backstay::schema::tables::{Kind, MessageType, Method, ResourceKind, Verb};

use crate::support::client::{Transport, short_name, tables};
use crate::support::haproxy::version;
use crate::support::world::{Expected, World, is_part, refused};

static SAMPLES: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/resources.json")).expect("samples"));

/// The methods of one service that works on a resource.
struct Service {
    noun: &'static str,
    methods: Vec<&'static Method>,
}

/// The generic services that name their objects; the singleton paths to the same objects are tested elsewhere.
fn services() -> Vec<Service> {
    let tables = tables();
    let generic = |id: &&usize| {
        let method = &tables.methods[**id];
        // SPOE files are not the configuration, and have tests of their own.
        method.verb != Verb::Custom && method.resource.is_some() && method.path.starts_with("/backstay.configuration.")
    };
    let mut services = Vec::new();
    for service in &tables.services {
        let methods: Vec<_> = service.methods.iter().filter(generic).map(|id| &tables.methods[*id]).collect();
        let Some(resource) = methods.first().and_then(|method| method.resource) else { continue };
        let message = &tables.messages[resource];
        // Trees and lines of sections are tested as such.
        if message
            .resource
            .as_ref()
            .is_some_and(|rules| matches!(rules.kind, ResourceKind::Tree | ResourceKind::AnyLine))
        {
            continue;
        }
        // The unnamed way to the first defaults section.
        if methods[0].singleton && !message.resource.as_ref().is_some_and(|rules| rules.singleton) {
            continue;
        }
        services.push(Service { noun: message.full_name.rsplit('.').next().unwrap(), methods });
    }
    services
}

/// Names of the methods that the test of this file calls.
pub(crate) fn covered() -> Vec<String> {
    services().iter().flat_map(|service| service.methods.iter().map(|method| short_name(method))).collect()
}

/// The field of a message that holds a resource, or a list of them.
fn holder(message: &'static MessageType, method: &Method) -> &'static str {
    let wanted = Kind::Message(method.resource.unwrap());
    &message.fields.iter().find(|field| field.kind == wanted).expect("a field of the resource").json
}

struct Life<'a> {
    world: &'a World,
    service: &'a Service,
    parent: Map<String, Json>,
}

impl Life<'_> {
    fn method(&self, verb: Verb) -> Option<&'static Method> {
        self.service.methods.iter().copied().find(|method| method.verb == verb)
    }

    /// A request to the method, with the parent, the key of `of` and more.
    fn request(&self, method: &Method, of: Option<&Json>, more: &Json) -> Json {
        let input = &tables().messages[method.input];
        let mut request = self.parent.clone();
        if let Some(object) = of {
            for key in ["name", "index", "username", "prefix"] {
                if input.by_json.contains_key(key) && !object[key].is_null() {
                    request.insert(key.to_owned(), object[key].clone());
                }
            }
        }
        request.extend(more.as_object().unwrap().clone());
        Json::Object(request)
    }

    async fn list(&self) -> Vec<Json> {
        let method = self.method(Verb::List).expect("a list");
        let answer = self.world.ok(&short_name(method), self.request(method, None, &json!({}))).await;
        let field = holder(&tables().messages[method.output], method);
        answer[field].as_array().cloned().unwrap_or_default()
    }

    async fn get(&self, object: &Json) -> Json {
        let method = self.method(Verb::Get).expect("a get");
        let answer = self.world.ok(&short_name(method), self.request(method, Some(object), &json!({}))).await;
        answer[holder(&tables().messages[method.output], method)].clone()
    }

    /// A call that takes an object, `key` naming the one that it changes.
    async fn put(&self, verb: Verb, key: Option<&Json>, object: &Json, more: Json) {
        let Some(method) = self.method(verb).filter(|method| self.world.client.has(&short_name(method))) else {
            return;
        };
        let body = holder(&tables().messages[method.input], method);
        let mut more = more;
        more[body] = object.clone();
        let answer = self.world.ok(&short_name(method), self.request(method, key, &more)).await;
        let echo = &answer[holder(&tables().messages[method.output], method)];
        assert!(is_part(object, echo), "{} echoes {echo} for {object}", short_name(method));
    }

    async fn refused(&self, verb: Verb, key: Option<&Json>, object: Option<&Json>, expected: Expected) {
        let Some(method) = self.method(verb).filter(|method| self.world.client.has(&short_name(method))) else {
            return;
        };
        let mut more = json!({});
        if let Some(object) = object {
            more[holder(&tables().messages[method.input], method)] = object.clone();
        }
        self.world.refused(&short_name(method), self.request(method, key, &more), expected).await;
    }
}

/// HTTP statuses of /v2 that are not those of the error table.
fn gone(noun: &str, verb: Verb) -> Expected {
    let status = match (noun, verb) {
        ("FcgiApp" | "HttpErrorsSection" | "LogForward" | "MailersSection" | "Program" | "Ring", Verb::Replace) => {
            Some(409)
        }
        _ => None,
    };
    Expected::Refused(Reason::ObjectNotFound, status, "")
}

fn number((major, minor): (&str, &str)) -> (u32, u32) {
    (major.parse().unwrap(), minor.parse().unwrap())
}

/// An HAProxy that does not know the section, yet or any longer: there is none, and none can be made. `version` is the
/// one where that changed.
async fn unknown(life: &Life<'_>, version: &str, object: &Json) {
    let noun = life.service.noun;
    let verb = if life.method(Verb::Create).is_some() { Verb::Create } else { Verb::Replace };
    let method = life.method(verb).unwrap();
    let request = json!({holder(&tables().messages[method.input], method): object});
    let expected = Expected::Refused(Reason::InvalidField, None, "haproxy ");
    let refusal = life.world.refused(&short_name(method), life.request(method, Some(object), &request), expected).await;
    assert!(refusal.text.contains(version), "{noun}: {refusal:?} does not name {version}");
    if life.method(Verb::List).is_none() {
        // There is always one.
        life.get(object).await;
        return;
    }
    // Nor is there a section of the kind that would hold it.
    let reason = if noun == "CrtLoad" { Reason::ParentNotFound } else { Reason::ObjectNotFound };
    if noun != "CrtLoad" || life.world.is_rest() {
        assert!(life.list().await.is_empty(), "{noun}");
    }
    for verb in [Verb::Get, Verb::Delete] {
        life.refused(verb, Some(object), None, refused(reason)).await;
    }
}

async fn live(world: &World, service: &Service) {
    let noun = service.noun;
    let text = SAMPLES["samples"][noun].to_string().replace("{dir}", &world.backstay.dir().display().to_string());
    let sample: Json = serde_json::from_str(&text).unwrap();
    assert!(sample.is_object(), "no sample of {noun}");
    let life = Life { world, service, parent: sample["in"].as_object().cloned().unwrap_or_default() };
    let object = &sample["object"];
    let bound = |name: &str| sample[name].as_str().map(|text| (text, number(text.split_once('.').unwrap())));
    let since = bound("since").filter(|(_, since)| *since > version());
    let removed = bound("removed").filter(|(_, removed)| *removed <= version());
    if let Some((text, _)) = since.or(removed) {
        return unknown(&life, text, if object.is_null() { &sample["other"] } else { object }).await;
    }
    // REST cannot replace sections that have no settings in /v2.
    let replaceable = life.method(Verb::Replace).is_some_and(|method| world.client.has(&short_name(method)));
    let mut other = if replaceable { sample["other"].clone() } else { object.clone() };
    if noun == "Global" && version() >= (3, 2) {
        // Other sections of this test need them.
        other["expose_experimental_directives"] = json!(true);
        if !world.is_rest() {
            other["expose_deprecated_directives"] = json!(true);
        }
    }
    let other = &other;
    if object.is_null() {
        // There is always one.
        life.get(other).await;
        life.put(Verb::Replace, None, other, json!({})).await;
    } else {
        let before = life.list().await;
        life.put(Verb::Create, None, object, json!({})).await;
        let read = life.get(object).await;
        assert!(is_part(object, &read), "{noun}: {object} became {read}");
        assert!(life.list().await.contains(&read), "{noun}: {read} is not listed");
        assert_eq!(life.list().await.len(), before.len() + 1, "{noun}");
        if object["index"].is_null() || noun == "FcgiApp" {
            life.refused(Verb::Create, None, Some(object), refused(Reason::ObjectExists)).await;
        }
        life.put(Verb::Replace, Some(object), other, json!({})).await;
    }
    let read = life.get(other).await;
    assert!(is_part(other, &read), "{noun}: {other} became {read}");
    if world.client.transport == Transport::Grpc {
        // The same again by a mask of all its fields.
        let fields: Vec<_> =
            other.as_object().unwrap().keys().filter(|key| *key != "index" || noun == "FcgiApp").collect();
        let mask = json!({"update_mask": {"paths": fields}});
        life.put(Verb::Update, Some(other), other, mask).await;
        assert_eq!(life.get(other).await, read, "{noun}");
    }
    let Some(delete) = life.method(Verb::Delete) else { return };
    let before = life.list().await.len();
    world.ok(&short_name(delete), life.request(delete, Some(other), &json!({}))).await;
    assert_eq!(life.list().await.len(), before - 1, "{noun}");
    let mut absent = other.clone();
    if !absent["index"].is_null() && noun != "FcgiApp" {
        absent["index"] = json!(before);
    }
    for verb in [Verb::Get, Verb::Delete, Verb::Replace] {
        let body = (verb == Verb::Replace).then_some(&absent);
        life.refused(verb, Some(&absent), body, gone(noun, verb)).await;
    }
}

async fn all(transport: Transport) {
    // No test of this looks at reloads, so that one at the end is enough.
    let world = World::start(transport, &["--reload-delay", "1h"]);
    std::fs::write(world.backstay.dir().join("error.http"), "HTTP/1.0 404 Gone\r\ncontent-length: 0\r\n\r\n").unwrap();
    std::fs::write(world.backstay.dir().join("site.pem"), include_str!("../data/sweep/site.pem")).unwrap();
    let mut text = format!("{}\n{}", world.backstay.text(), SAMPLES["prepared"].as_str().unwrap());
    if version() >= (3, 2) {
        // Since then haproxy takes `program` sections only when asked to, and knows `acme` as an experiment.
        let wanted = "\nglobal\n    expose-deprecated-directives\n    expose-experimental-directives\n";
        text = text.replace("\nglobal\n", wanted);
    }
    if version() >= (3, 0) {
        text.push_str("\ncrt-store cs\n");
    }
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text})).await;
    let before = world.backstay.text();
    for service in services() {
        live(&world, &service).await;
        assert!(!service.noun.is_empty());
    }
    let after = world.backstay.text();
    let body = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| !line.starts_with("# _version") && !line.trim().is_empty());
        lines
    };
    let (before, after) = (body(&before), body(&after));
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    // Only sections that cannot be deleted are others.
    let traces: &[&str] = if version() >= (3, 1) { &["traces", "    trace h1 sink stderr"] } else { &[] };
    assert_eq!(come, [&["    maxconn 300"], traces].concat(), "what is left behind");
    assert_eq!(lost, ["    stats timeout 2m", "    hard-stop-after 30s"], "what is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_resource_lives_over_grpc() {
    all(Transport::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_resource_lives_over_rest() {
    all(Transport::Rest).await;
}
