//! What a GET of /v2 has shown is written back as clients build their bodies, and nothing changes: neither the file, nor
//! what the next GET shows, nor is the answer to the PUT another one.
//!
//! The objects are those of the records: every field of every resource. Every thirtieth is tried, with `BACKSTAY_FULL` all.

use serde_json::{Map, Value, json};

use super::replay::{data, item};
use super::server::Server;
use super::{folder, records};
use crate::support::models;

/// Resources whose objects lie in no configuration or consist of others, and templates of servers, whose answer shows a
/// port 0 where they have none.
const OTHERS: [&str; 6] = ["discovery", "files", "server_template", "site", "transactions", "userlist"];

/// How clients build a body out of what they have read.
type Build = (&'static str, fn(&str, &Value) -> Value);

const BUILDS: [Build; 6] = [
    ("as it was read", |_, shown| shown.clone()),
    ("in another order", |_, shown| rebuilt(shown, &|fields| fields.into_iter().rev().collect(), &Value::clone)),
    ("with names in upper case", |_, shown| {
        let upper = |fields: Members| fields.into_iter().map(|(name, value)| (name.to_uppercase(), value)).collect();
        rebuilt(shown, &upper, &Value::clone)
    }),
    ("with numbers as 1.0", |_, shown| {
        let small = |value: &Value| i32::try_from(value.as_i64()?).ok();
        let real = |value: &Value| small(value).map_or_else(|| value.clone(), |number| json!(f64::from(number)));
        rebuilt(shown, &|fields| fields, &real)
    }),
    ("with nulls", |path, shown| models::padded(path, shown, &|_| Some(Value::Null))),
    ("with empty lists and texts", |path, shown| {
        models::padded(path, shown, &|schema| {
            // An empty text that may be null says something.
            let says_something = schema["nullable"] == true || schema["enum"].is_array();
            match schema["type"].as_str().filter(|_| !says_something)? {
                "array" => Some(json!([])),
                "string" => Some(json!("")),
                _ => None,
            }
        })
    }),
];

/// Members of an object in their order.
type Members = Vec<(String, Value)>;

/// A value built anew, with members and plain values as two functions want them.
fn rebuilt(value: &Value, members: &dyn Fn(Members) -> Members, plain: &dyn Fn(&Value) -> Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.clone(), rebuilt(value, members, plain)));
            Value::Object(members(fields.collect()).into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| rebuilt(item, members, plain)).collect(),
        value => plain(value),
    }
}

/// The file without its version.
fn body(server: &Server) -> Vec<String> {
    server.file().lines().filter(|line| !line.starts_with("# _")).map(str::to_owned).collect()
}

/// What goes wrong with the object of a record; `None` when it cannot be made or replaced.
fn faults(server: &mut Server, record: &Value) -> Option<Vec<String>> {
    let written = record["request"].is_object() && matches!(record["method"].as_str(), Some("POST" | "PUT"));
    let path = item(record).filter(|_| written && record["status"].as_i64() < Some(300))?;
    if server.load(record["config_before"].as_str()?).status >= 300 {
        return None;
    }
    let mut query = record["query"].as_object().cloned().unwrap_or_default();
    query.retain(|name, _| !matches!(&**name, "version" | "transaction_id" | "force_reload"));
    let asked = Value::Object(query.clone());
    query.insert("version".to_owned(), json!(1));
    let mut send = |server: &mut Server, method: &str, path: &str, body: &Value| {
        let reply =
            server.send(method, path, &Value::Object(query.clone()), "application/json", body.to_string().as_bytes());
        if reply.status < 300 {
            query["version"] = json!(query["version"].as_i64().expect("a number") + 1);
        }
        reply
    };
    let made = send(server, record["method"].as_str()?, record["path"].as_str()?, &record["request"]);
    let shown = server.get(&path, &asked);
    if made.status >= 300 || shown.status != 200 {
        return None;
    }
    let (shown, text) = (data(&shown), body(server));
    let mut found = Vec::new();
    for (how, build) in BUILDS {
        let reply = send(server, "PUT", &path, &build(&path, &shown));
        if reply.status == 405 {
            return None;
        }
        if reply.status >= 300 || reply.body != shown {
            found.push(format!("{how}: answers {} {} for {shown}", reply.status, reply.body));
        }
        if body(server) != text || data(&server.get(&path, &asked)) != shown {
            found.push(format!("{how}: {:?} became {:?}", text, body(server)));
            break;
        }
    }
    Some(found)
}

#[test]
fn what_was_read_is_written_back_without_a_difference() {
    let every = if std::env::var_os("BACKSTAY_FULL").is_some() { 1 } else { 30 };
    let records = records();
    let tried = records.iter().filter(|(resource, _)| !OTHERS.contains(&&**resource) && !resource.starts_with("spoe"));
    let mut server = Server::start();
    let (mut number, mut wrong) = (0, Vec::new());
    for (resource, record) in tried.step_by(every) {
        let Some(faults) = faults(&mut server, record) else { continue };
        number += 1;
        wrong.extend(faults.into_iter().map(|fault| format!("{resource} {}: {fault}", record["id"])));
    }
    assert!(number > 1200 / every, "only {number} objects of {} could be made", folder().display());
    assert!(wrong.is_empty(), "{} of {number}: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
}
