//! REST answers against the models of /v2: clients out of generated code decode each of them, or fail.

use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use super::client::Http;

/// Models, and for each operation the model of each of its successes.
const ANSWERS: &str = include_str!("../../data/v2-answers.json");

/// Members of runtime objects and of health that /v2 does not know: readers of its models pass over them.
const BESIDE: [&str; 5] = ["detail", "expire", "gpc_array", "weight", "why"];

/// Members whose words are HAProxy's own, more than the models list: a frontend is `OPEN`, a server `DOWN 1/2`, a check
/// that runs `* L4OK`.
const WORDS_OF_HAPROXY: [&str; 3] = [".agent_status", ".check_status", ".stats.status"];

/// What /v2 says of its answers.
struct Contract {
    models: Map<String, Json>,
    /// HTTP method, segments of the path below /v2, models by status.
    operations: Vec<(String, Vec<String>, Json)>,
}

fn contract() -> &'static Contract {
    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
        let mut read: Json = serde_json::from_str(ANSWERS).expect("the answers of /v2");
        let operations: Vec<(String, String, Json)> = serde_json::from_value(read["answers"].take()).expect("answers");
        let operations = operations.into_iter().map(|(method, path, by_status)| (method, segments(&path), by_status));
        let models = read["models"].as_object().expect("models").clone();
        Contract { models, operations: operations.collect() }
    });
    &CONTRACT
}

fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// The models of an operation by status; `None` for what /v2 does not have. `path` stands below /v2.
fn operation(method: &str, path: &[String]) -> Option<&'static Json> {
    let fits = |template: &[String]| {
        template.len() == path.len() && template.iter().zip(path).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let known = contract().operations.iter().filter(|(verb, template, _)| verb == method && fits(template));
    known.min_by_key(|(_, template, _)| holes(template)).map(|(_, _, by_status)| by_status)
}

/// What in an answer no client of /v2 could decode, each with its path. Nothing for operations that /v2 has not.
pub(crate) fn faults(method: &str, path: &str, answer: &Http) -> Vec<String> {
    let path = segments(path.split('?').next().unwrap_or_default());
    let Some((first, path)) = path.split_first().filter(|(first, _)| *first == "v2") else { return Vec::new() };
    let Some(by_status) = operation(method, path) else { return Vec::new() };
    let status = answer.status.to_string();
    let fault = |what: String| vec![format!("{method} {first}/{}: {status}: {what}", path.join("/"))];
    let schema = match by_status.get(&status) {
        Some(schema) => schema.clone(),
        // An error may leave its body out.
        None if answer.status >= 400 && answer.body.is_empty() => Json::Null,
        None if answer.status >= 400 => json!({"ref": "error"}),
        None => Json::Null,
    };
    if schema.is_null() || schema["type"] == "file" || answer.body.is_empty() {
        return Vec::new();
    }
    let Ok(body) = serde_json::from_slice(&answer.body) else { return fault(format!("no JSON: {}", answer.text())) };
    let mut found = Vec::new();
    compare(&schema, &body, "", &mut found);
    if found.is_empty() { found } else { fault(found.join("; ")) }
}

fn holes(template: &[String]) -> usize {
    template.iter().filter(|segment| segment.starts_with('{')).count()
}

/// The members of a model, those of the models it consists of included, and the names of the required ones.
fn members(schema: &Json) -> (Map<String, Json>, Vec<String>) {
    let schema = schema["ref"].as_str().map_or(schema, |name| &contract().models[name]);
    let mut fields = schema["fields"].as_object().cloned().unwrap_or_default();
    let names = schema["required"].as_array().into_iter().flatten();
    let mut required: Vec<String> = names.map(|name| name.as_str().expect("a name").to_owned()).collect();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        let (more, needed) = members(part);
        fields.extend(more);
        required.extend(needed);
    }
    (fields, required)
}

/// The object that a GET shows, with members that it does not show but its model has, as `fill` says for the model of each.
pub(crate) fn padded(path: &str, shown: &Json, fill: &dyn Fn(&Json) -> Option<Json>) -> Json {
    let by_status = operation("GET", &segments(path)).expect("a path of /v2");
    pad(&by_status["200"]["fields"]["data"], shown, fill)
}

fn pad(schema: &Json, value: &Json, fill: &dyn Fn(&Json) -> Option<Json>) -> Json {
    let schema = schema["ref"].as_str().map_or(schema, |name| &contract().models[name]);
    match value {
        Json::Array(items) => items.iter().map(|item| pad(&schema["items"], item, fill)).collect(),
        Json::Object(shown) => {
            let (fields, _) = members(schema);
            let mut out = shown.clone();
            for (name, schema) in &fields {
                match shown.get(name) {
                    Some(value) => drop(out.insert(name.clone(), pad(schema, value, fill))),
                    None => out.extend(fill(schema).map(|value| (name.clone(), value))),
                }
            }
            Json::Object(out)
        }
        value => value.clone(),
    }
}

fn compare(schema: &Json, value: &Json, path: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["ref"].as_str() {
        return compare(&contract().models[name], value, path, found);
    }
    let typed = match (schema["type"].as_str(), value) {
        // Lists without items are `null` in some answers of /v2.
        (Some("array"), Json::Null) => return,
        (Some("array"), Json::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                compare(&schema["items"], item, &format!("{path}[{at}]"), found);
            }
            true
        }
        (Some("object") | None, Json::Object(_)) => {
            if schema.get("fields").or(schema.get("allOf")).is_some() {
                compare_members(schema, value, path, found);
            }
            true
        }
        (Some("integer"), Json::Number(number)) => number.is_i64(),
        (Some("boolean"), Json::Bool(_))
        | (Some("number"), Json::Number(_))
        | (Some("string"), Json::String(_))
        | (None, _) => true,
        _ => false,
    };
    if !typed {
        found.push(format!("{path}: no {}: {value}", schema["type"]));
        return;
    }
    let mut must = |holds: bool, what: &Json| {
        if !holds {
            found.push(format!("{path}: not {what}: {value}"));
        }
    };
    let free = WORDS_OF_HAPROXY.iter().any(|end| path.ends_with(end));
    if let Some(words) = schema["enum"].as_array().filter(|_| !free) {
        must(words.contains(value), &schema["enum"]);
    }
    // Patterns and ranges are for what clients send: a file may hold whatever HAProxy takes, and it is shown.
    if let Some(text) = value.as_str() {
        must(has_format(schema["format"].as_str().unwrap_or_default(), text), &schema["format"]);
    }
}

fn compare_members(schema: &Json, value: &Json, path: &str, found: &mut Vec<String>) {
    let (fields, required) = members(schema);
    for name in required.iter().filter(|name| value.get(name).is_none()) {
        found.push(format!("{path}.{name} is missing"));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match fields.get(name) {
            Some(schema) => compare(schema, value, &format!("{path}.{name}"), found),
            None if BESIDE.contains(&&**name) && !path.contains("data") => {}
            None => found.push(format!("{path}.{name} is not in the model")),
        }
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date" => text.parse::<jiff::civil::Date>().is_ok() && text.len() == "2026-10-17".len() && !text.contains('/'),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => true,
    }
}

#[test]
fn what_no_client_could_decode_is_found() {
    let of = |path: &str, status: u16, body: Json| {
        let body = body.to_string().into();
        faults("GET", path, &Http { status, headers: http::HeaderMap::new(), body })
    };
    let info = |item: Json| of("/v2/services/haproxy/runtime/info", 200, json!([{"info": item}]));
    assert_eq!(info(json!({"release_date": "2026-10-17", "uptime": 0, "node": ""})), Vec::<String>::new());
    for wrong in [json!({"release_date": "2026/10/17"}), json!({"uptime": "0d"}), json!({"strange": 1})] {
        assert_eq!(info(wrong).len(), 1);
    }
    let backends = "/v2/services/haproxy/configuration/backends?x=y";
    let backend = |backend: Json| of(backends, 200, json!({"_version": 1, "data": [backend]}));
    assert_eq!(backend(json!({"name": "b", "mode": "http"})), Vec::<String>::new());
    for wrong in [json!({}), json!({"name": "b", "mode": "x"}), json!({"name": null})] {
        assert_eq!(backend(wrong).len(), 1);
    }
    let servers = "/v2//services/haproxy/configuration/servers/";
    let server = |port: Json| json!({"data": [{"name": "s", "address": "::1", "check": "enabled", "port": port}]});
    assert_eq!(of(servers, 200, server(json!(80))), Vec::<String>::new());
    assert_eq!(of(servers, 200, server(json!("80"))).len(), 1);
    assert_eq!(of(servers, 404, json!({"code": "404"})).len(), 1);
}
