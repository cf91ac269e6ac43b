//! Which records have to be met, and of which HAProxy's manual or a better answer decides.

use std::collections::HashSet;

use serde_json::Value;

use super::text::{self, Line};

/// Why a record is no example to follow: faults and choices of the server it was made with.
///
/// Resource (empty: any), kind (empty: any), a part of the case, and the reason.
const NO_EXAMPLE: [(&str, &str, &[&str], &str); 16] = [
    ("", "crud", &["insert at -1 "], "an index of -1 appends"),
    ("", "crud", &["replace 1, body index 2"], "the index in the body is ignored"),
    ("", "crud", &["replace, other name in body", "replace, name of the second in body"], "another name in the body"),
    ("spoe_", "crud", &["put other name"], "another name in the body"),
    ("spoe_file", "read", &[""], "spoe files are written anew when they are read"),
    ("spoe_agent", "read", &[""], "options of agents are always shown as enabled"),
    ("spoe_scope", "", &["no brackets", "space"], "odd names of scopes are taken"),
    ("files", "read-file", &["continuation.cfg", "defaults2.cfg", "dup.cfg"], "text is lost when it is loaded"),
    ("tcp_request_rule", "read", &["session reject"], "another action is read"),
    ("", "read", &["stats refresh ", "tune.ssl.lifetime "], "seconds, not milliseconds"),
    ("global", "read-group", &["group0"], "seconds, not milliseconds"),
    ("", "read", &["-check set-var-fmt"], "read into another field"),
    ("http_request_rule", "read", &["tarpit content-type"], "the content of a tarpit is lost"),
    ("", "", &["stats_auths.user=\"u 2\""], "a bare blank in a one-word field"),
    ("frontend", "read", &["mode log"], "a mode that no frontend has"),
    ("transactions", "steps", &["delete a defaults in use"], "a dangling reference is taken"),
];

/// Kinds of writes that have to come back as they were sent.
const WRITES: [&str; 5] = ["write", "write-combo", "write-all-fields", "replace", "crud"];

/// Lines of rings that only stand there because many records were made in one transaction.
const LEFT_OVER: [&str; 4] = ["format", "size", "timeout connect", "timeout server"];

/// Lines that the recorded server does not read, or not whole: a group that holds one is no example.
pub(super) type Faults = HashSet<(String, Line)>;

/// Collects the faulty lines of all records that are about one line.
pub(super) fn faults<'a>(records: impl Iterator<Item = &'a Value>) -> Faults {
    let mut out = Faults::new();
    for record in records.filter(|record| record["kind"] == "read") {
        let Some(section) = record["section"].as_str() else { continue };
        if record["status"] != 201 || record["read_status"] != 200 || lossy(record) || reads_nothing(record) {
            let lines = text::body(record["config_in"].as_str().unwrap_or_default());
            out.extend(lines.into_iter().map(|line| (section.to_owned(), line)));
        }
    }
    out
}

/// Why a record is no example; nothing when it has to be met.
pub(super) fn no_example(record: &Value, faults: &Faults) -> Option<&'static str> {
    let of = |key: &str| record[key].as_str().unwrap_or_default();
    let (resource, kind, case) = (of("resource"), of("kind"), of("case"));
    let named = NO_EXAMPLE.iter().find(|(of, kinds, parts, _)| {
        (of.is_empty() || *of == resource || of.ends_with('_') && resource.starts_with(of))
            && (kinds.is_empty() || kind.starts_with(kinds))
            && parts.iter().any(|part| case.contains(part))
    });
    if let Some((.., why)) = named {
        return Some(why);
    }
    let status = record["status"].as_u64().unwrap_or_default();
    match kind {
        "auth" | "get" | "steps" => None,
        _ if kind.starts_with("read") => read(record, kind, status, faults),
        _ if has_line_feed(&record["request"]) => Some("a line feed in a value"),
        _ if !record["note"].is_null() => Some("written although refused"),
        _ if status >= 500 => Some("an error of the server"),
        "invalid" if status >= 400 => None,
        "invalid" => Some("invalid input is taken"),
        "write-edge" => Some("values at the edge"),
        "write-escape" => Some("values that need quotes"),
        _ if !WRITES.contains(&kind) => Some("unknown kind"),
        "crud" if status >= 400 => None,
        _ if resource == "ring" && of("config_text").lines().any(|line| LEFT_OVER.contains(&line.trim())) => {
            Some("keywords of the record before it")
        }
        _ if status >= 400 => Some("a good value is refused"),
        _ if matches!(of("method"), "GET" | "DELETE") => None,
        _ if !round_trip(record) => Some("another value comes back"),
        _ if record["haproxy_accepts"] == false => Some("haproxy refuses what is written"),
        _ => {
            let dangling = |line: &str| matches!(line.split_whitespace().last(), Some("if" | "unless"));
            of("config_before").lines().any(dangling).then_some("faulty text before")
        }
    }
}

fn read(record: &Value, kind: &str, status: u64, faults: &Faults) -> Option<&'static str> {
    if status != 201 {
        return Some("the text is not loaded");
    }
    if kind == "read-file" {
        return lossy(record).then_some("text is lost when it is loaded");
    }
    if record["read_status"] != 200 {
        return Some("cannot be read");
    }
    if reads_nothing(record) {
        return Some("the line is not read");
    }
    if record.get("config_text").is_some() && lossy(record) {
        return Some("text is lost when it is loaded");
    }
    let section = record["section"].as_str().unwrap_or_default();
    let lines = text::body(record["config_in"].as_str().unwrap_or_default());
    let faulty = kind == "read-group" && lines.into_iter().any(|line| faults.contains(&(section.to_owned(), line)));
    faulty.then_some("a line of the group is not read")
}

/// The value that was sent came back after the text was loaded again.
fn round_trip(record: &Value) -> bool {
    let scope = record["resource"] == "spoe_scope" && record["roundtrip"].is_null();
    record["roundtrip"] == "same"
        || scope && record["reparsed"] == "=read_back" && record["read_back"] == record["request"]
}

/// The recorded server wrote the loaded text out with other words.
fn lossy(record: &Value) -> bool {
    let section = record["section"].as_str();
    let words = |key: &str| text::word_bag(record[key].as_str().unwrap_or_default(), section);
    words("config_in") != words("config_text")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn reads_nothing(record: &Value) -> bool {
    match &record["read_back"] {
        Value::Object(fields) if fields.contains_key("status") && fields.contains_key("body") => true,
        Value::Object(fields) => !fields.iter().any(|(key, value)| key != "name" && key != "from" && !is_empty(value)),
        Value::Array(list) if !list.is_empty() => list.iter().any(|item| item["type"] == "" || item["action"] == ""),
        _ => true,
    }
}

pub(super) fn has_line_feed(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(has_line_feed),
        Value::Array(items) => items.iter().any(has_line_feed),
        Value::String(text) => text.contains(['\n', '\r']),
        _ => false,
    }
}
