//! The schema has all fields and methods of the configuration of /v2.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::gateway::compat::canonical;
use backstay::schema::Schema;
use backstay::schema::tables::{Kind, MessageId, Tables};

use crate::support::client::{Transport, request};
use crate::support::world::World;

/// Fields of each model, nested ones with dots, with the words that they take.
const MODELS: &str = include_str!("../data/v2-models.json");
/// HTTP method, path, name and query parameters of each operation.
const OPERATIONS: &str = include_str!("../data/v2-operations.json");

/// Fields and words that are not in the schema, with the reason.
const NO_FIELD: [(&str, &str); 1] =
    [("global.httpclient_ssl_verify=", "the empty word is a file's missing one, which an unset field says")];

/// Operations that the gateway answers by itself: lists of child paths, and documents.
const NO_METHOD: [&str; 11] = [
    "/",
    "/services",
    "/services/haproxy",
    "/services/haproxy/configuration",
    "/services/haproxy/runtime",
    "/services/haproxy/spoe",
    "/services/haproxy/stats",
    "/services/haproxy/storage",
    "/specification",
    "/specification_openapiv3",
    "/docs",
];

fn tables() -> Arc<Tables> {
    Schema::compile(backstay::proto::SCHEMA).expect("a schema").tables
}

/// Name of the message of a model: `fcgiApp` is `FcgiApp`, `http_check` is `HttpCheck`.
fn message_name(model: &str) -> String {
    let words = model.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    format!("backstay.configuration.v2.{}", words.collect::<String>())
}

fn fields(tables: &Tables, message: MessageId, path: &str, depth: usize, into: &mut BTreeMap<String, Vec<String>>) {
    if depth > 5 {
        return;
    }
    for field in &tables.messages[message].fields {
        let name = if path.is_empty() { field.json.to_string() } else { format!("{path}.{}", field.json) };
        match field.kind {
            Kind::Message(inner) if field.flatten => fields(tables, inner, path, depth + 1, into),
            Kind::Message(inner) => fields(tables, inner, &name, depth + 1, into),
            Kind::Enum(id) => {
                let tokens = tables.enums[id].values.iter().map(|value| value.token.to_string()).collect();
                into.insert(name, tokens);
            }
            _ => drop(into.insert(name, field.numbers.iter().map(ToString::to_string).collect())),
        }
    }
}

#[test]
fn every_field_of_v2_has_a_field() {
    let tables = tables();
    let models: BTreeMap<String, BTreeMap<String, Option<Vec<serde_json::Value>>>> =
        serde_json::from_str(MODELS).expect("models");
    let (mut missing, mut seen) = (Vec::new(), 0);
    for (model, wanted) in models {
        let Some(id) = tables.message_by_name.get(message_name(&model).as_str()) else {
            missing.push(format!("{model}: no message"));
            continue;
        };
        let mut known = BTreeMap::new();
        fields(&tables, *id, "", 0, &mut known);
        for (path, words) in wanted {
            seen += 1;
            let name = format!("{model}.{path}");
            let Some(tokens) = known.get(&path) else {
                missing.push(name);
                continue;
            };
            for word in words.into_iter().flatten() {
                let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
                if !tokens.contains(&word) {
                    missing.push(format!("{name}={word}"));
                }
            }
        }
    }
    assert!(seen > 1800, "{seen} fields");
    missing.retain(|name| !NO_FIELD.iter().any(|(exception, _)| exception == name));
    assert!(missing.is_empty(), "{missing:#?}");
}

/// HTTP method, path, name and query parameters of each operation.
fn operations() -> Vec<(String, String, String, Vec<String>)> {
    let operations: Vec<_> = serde_json::from_str(OPERATIONS).expect("operations");
    assert_eq!(operations.len(), 305);
    operations
}

fn shape(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn every_operation_of_v2_has_a_method_with_all_its_parameters() {
    let tables = tables();
    let bound: Vec<_> = tables
        .methods
        .iter()
        .flat_map(|method| method.http.iter().map(move |rule| (method, rule)))
        .map(|(method, rule)| (method, &*rule.method, shape(rule.path.trim_start_matches("/v2"))))
        .collect();
    let mut missing = Vec::new();
    for (verb, path, name, parameters) in operations() {
        if NO_METHOD.contains(&&*path) {
            continue;
        }
        let Some((method, ..)) = bound.iter().find(|(_, http, at)| *http == verb && *at == shape(&path)) else {
            missing.push(format!("{name}: no method for {verb} {path}"));
            continue;
        };
        let fields = &tables.messages[method.input].fields;
        for parameter in parameters {
            let known = canonical(&parameter);
            if !fields.iter().any(|field| &*field.json == known || &*field.name == known) {
                missing.push(format!("{name}: no parameter {parameter}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_of_v2_is_answered() {
    let world = World::start(Transport::Rest, &[]);
    let mut strange = Vec::new();
    for (verb, path, name, _) in operations() {
        let at = format!("/v2{}", path.replace('{', "x").replace('}', ""));
        let answer = world.client.send(request(&verb, &at, "application/json", "")).await;
        let text = answer.text();
        // A certificate that cannot be read, and anything about SPOE files, is 500 in /v2 too.
        let failed = answer.status >= 500 && !at.contains("/spoe/") && !at.ends_with("/ssl_certificates");
        if answer.status == 405 || failed || text.contains("was not found") {
            strange.push(format!("{name}: {verb} {at} answers {} {text}", answer.status));
        }
    }
    assert!(strange.is_empty(), "{strange:#?}");
}
