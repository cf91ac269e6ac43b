//! The schema has all fields and methods of the configuration of /v2.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay::schema::Schema;
use backstay::schema::tables::{Kind, MessageId, Tables};

/// Fields of each model, nested ones with dots, with the words that they take.
const MODELS: &str = include_str!("../data/v2-models.json");
/// HTTP method, path and name of each operation.
const OPERATIONS: &str = include_str!("../data/v2-operations.json");

/// Fields and words that are not in the schema, with the reason.
const NO_FIELD: [(&str, &str); 1] =
    [("global.httpclient_ssl_verify=", "the empty word is a file's missing one, which an unset field says")];

/// Operations without a method, by the beginning of their path, with the reason.
const NO_METHOD: [(&str, &str); 1] = [("/services/haproxy/sites", "the composite view is made of other resources")];

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

#[test]
fn every_operation_of_v2_has_a_method() {
    let tables = tables();
    let operations: Vec<(String, String, String)> = serde_json::from_str(OPERATIONS).expect("operations");
    assert!(operations.len() > 190);
    let shape = |path: &str| -> String {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
        parts.collect::<Vec<_>>().join("/")
    };
    let bound: Vec<(String, String)> = tables
        .methods
        .iter()
        .flat_map(|method| &method.http)
        .map(|rule| (rule.method.to_string(), shape(rule.path.trim_start_matches("/v2"))))
        .collect();
    let missing: Vec<_> = operations
        .iter()
        .filter(|(method, path, _)| !bound.contains(&(method.clone(), shape(path))))
        .filter(|(_, path, _)| !NO_METHOD.iter().any(|(exception, _)| path.starts_with(exception)))
        // The discovery of paths is the gateway's own.
        .filter(|(_, path, _)| path != "/services/haproxy/configuration")
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
