//! Does what a record says and compares what comes of it.

use serde_json::{Value, json};

use super::server::{Reply, Server, escaped};
use super::text;

/// Says what differs first.
type Outcome = Result<(), String>;

const CONFIGURATION: &str = "/services/haproxy/configuration";
const SPOE: &str = "/services/haproxy/spoe";

/// Lines that are found by their position.
const INDEXED: [&str; 15] = [
    "acl",
    "backend_switching_rule",
    "capture",
    "filter",
    "http_after_response_rule",
    "http_check",
    "http_error_rule",
    "http_request_rule",
    "http_response_rule",
    "log_target",
    "server_switching_rule",
    "stick_rule",
    "tcp_check",
    "tcp_request_rule",
    "tcp_response_rule",
];

/// Paths of the sections that records of reads are about.
const SECTIONS: [(&str, &str); 14] = [
    ("global", "global"),
    ("defaults", "named_defaults/d1"),
    ("frontend", "frontends/f1"),
    ("backend", "backends/b1"),
    ("peers", "peer_section/p1"),
    ("resolvers", "resolvers/r1"),
    ("mailers", "mailers_section/m1"),
    ("cache", "caches/c1"),
    ("ring", "rings/ring1"),
    ("log-forward", "log_forwards/lf1"),
    ("fcgi-app", "fcgi_apps/fa1"),
    ("userlist", "userlists/ul1"),
    ("program", "programs/pr1"),
    ("http-errors", "http_errors_sections/he1"),
];

fn text_of<'r>(record: &'r Value, key: &str) -> &'r str {
    record[key].as_str().unwrap_or_default()
}

/// The value without nulls. Lists of sections are told by name: their order means nothing.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(plain).collect();
            if items.iter().all(|item| item["name"].is_string() && item.get("index").is_none()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
            Value::Array(items)
        }
        other => other.clone(),
    }
}

fn same(what: &str, want: &Value, got: &Value) -> Outcome {
    let (want, got) = (plain(want), plain(got));
    if want == got { Ok(()) } else { Err(format!("{what}: expected {want}, got {got}")) }
}

fn same_status(what: &str, want: &Value, got: &Reply) -> Outcome {
    if *want == got.status { Ok(()) } else { Err(format!("{what}: expected {want}, got {} {}", got.status, got.body)) }
}

/// Status and `code` of an error; the words of its message are the server's own.
fn same_code(want: &Value, got: &Value) -> Outcome {
    if want["code"].is_null() { Ok(()) } else { same("code", &want["code"], &got["code"]) }
}

/// What an answer holds: `data` of an envelope, else all of it.
pub(super) fn data(reply: &Reply) -> Value {
    reply.body.get("data").filter(|_| reply.status == 200).unwrap_or(&reply.body).clone()
}

/// Replays a record.
pub(super) fn replay(server: &mut Server, record: &Value) -> Outcome {
    match text_of(record, "kind") {
        "steps" => steps(record),
        "get" | "auth" => get(server, record),
        kind if kind.starts_with("read") => read(server, record),
        _ => operation(server, record),
    }
}

fn get(server: &mut Server, record: &Value) -> Outcome {
    let mut headers = String::new();
    for (name, value) in record["request_headers"].as_object().into_iter().flatten() {
        headers = format!("{headers}{name}: {}\r\n", value.as_str().unwrap_or_default());
    }
    if record["kind"] == "get" {
        headers = format!("authorization: {}\r\n", super::server::CREDENTIALS);
    }
    let reply = server.send_with("GET", text_of(record, "path"), &Value::Null, &headers, b"");
    same_status("status", &record["status"], &reply)?;
    if record["kind"] == "auth" {
        let challenge = record["headers"]["www-authenticate"].as_str().unwrap_or_default();
        same("challenge", &challenge.to_lowercase().into(), &reply.challenge.to_lowercase().into())?;
        return same_code(&record["response"], &reply.body);
    }
    let urls = |list: &Value| {
        let urls = list.as_array().into_iter().flatten().filter_map(|item| item["url"].as_str().or(item.as_str()));
        let mut urls: Vec<String> = urls.map(str::to_owned).collect();
        urls.sort_unstable();
        json!(urls)
    };
    if record["response"].is_array() {
        return same("list", &urls(&record["response"]), &urls(&reply.body));
    }
    same("answer", &record["response"], &reply.body)
}

fn read(server: &mut Server, record: &Value) -> Outcome {
    let spoe = text_of(record, "resource").starts_with("spoe");
    if spoe {
        server.load_spoe(text_of(record, "config_in"));
    } else {
        let loaded = server.load(text_of(record, "config_in"));
        same_status("loading", &record["status"], &loaded)?;
    }
    for (target, want) in record["reads"].as_object().into_iter().flatten() {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: Value =
            query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k, json!(v))).collect();
        let path = if path.starts_with("/services") { path.to_owned() } else { format!("{CONFIGURATION}{path}") };
        let reply = server.get(&path, &query);
        if want.get("status").is_some() && want.get("body").is_some() {
            same_status(target, &want["status"], &reply)?;
        } else {
            same_status(target, &json!(200), &reply)?;
            same(target, want, &data(&reply))?;
        }
    }
    if record["read"].is_null() {
        return Ok(());
    }
    let reply = server.get(text_of(&record["read"], "path"), &record["read"]["query"]);
    same_status("status of the read", &record["read_status"], &reply)?;
    same("read", &record["read_back"], &data(&reply))?;
    let section = SECTIONS.iter().find(|(kind, _)| record["section"] == *kind);
    if let (Some((_, path)), want @ Value::Object(fields)) = (section, &record["section_read"])
        && !fields.contains_key("code")
    {
        return same("section", want, &data(&server.get(&format!("{CONFIGURATION}/{path}"), &Value::Null)));
    }
    Ok(())
}

/// The list that an item belongs to.
fn collection(record: &Value) -> String {
    let path = text_of(record, "path");
    let whole = matches!(text_of(record, "resource"), "global" | "defaults") || record["method"] == "POST";
    if whole { path.to_owned() } else { path.rsplit_once('/').map_or(path, |(list, _)| list).to_owned() }
}

/// Where the item that was written is read.
pub(super) fn item(record: &Value) -> Option<String> {
    let resource = text_of(record, "resource");
    if matches!(resource, "global" | "defaults") {
        return Some(text_of(record, "path").to_owned());
    }
    let key = match resource {
        "user" => "username",
        "server_template" => "prefix",
        _ if INDEXED.contains(&resource) => "index",
        _ => "name",
    };
    let request = &record["request"];
    let name = match if request.is_string() { request } else { &request[key] } {
        Value::String(name) => name.clone(),
        Value::Null => return None,
        other => other.to_string(),
    };
    (!name.is_empty()).then(|| format!("{}/{}", collection(record), escaped(&name)))
}

fn operation(server: &mut Server, record: &Value) -> Outcome {
    let spoe = text_of(record, "path").starts_with(SPOE);
    let before = text_of(record, "config_before");
    if spoe {
        server.load_spoe(before);
    } else {
        same_status("loading", &json!(201), &server.load(before))?;
    }
    let file = |server: &Server| if spoe { server.spoe_file() } else { server.file() };
    let untouched = file(server);
    let body = match (&record["request_raw"], &record["request"]) {
        (Value::String(raw), _) => raw.clone().into_bytes(),
        (_, Value::Null) => Vec::new(),
        (_, body) => body.to_string().into_bytes(),
    };
    let content_type = record["content_type"].as_str().unwrap_or("application/json");
    let reply = server.send(text_of(record, "method"), text_of(record, "path"), &record["query"], content_type, &body);
    same_status("status", &record["status"], &reply)?;
    let after = file(server);
    if reply.status >= 300 {
        same_code(&record["response"], &reply.body)?;
        return if after == untouched { Ok(()) } else { Err("refused, but the file changed".to_owned()) };
    }
    let want = if record["response"] == "=request" { &record["request"] } else { &record["response"] };
    if record["method"] == "GET" {
        let mut got = reply.body;
        if let (Value::Object(fields), false) = (&mut got, spoe) {
            fields.remove("_version");
        }
        let mut want = want.clone();
        if let Value::Object(fields) = &mut want {
            fields.remove("_version");
        }
        return same("answer", &want, &got);
    }
    // Nothing and an empty text are one.
    let empty = |value: &Value| if *value == "" { Value::Null } else { value.clone() };
    same("answer", &empty(want), &empty(&reply.body))?;
    if spoe {
        if let Some(want) = record["config_text"].as_str() {
            let difference = text::change(want, &after);
            if !difference.is_empty() {
                return Err(format!("file: {difference:?}"));
            }
        }
    } else {
        changed(record, before, &after)?;
    }
    read_again(server, record, spoe)
}

fn changed(record: &Value, before: &str, after: &str) -> Outcome {
    let expected = text::expected(record);
    let got = text::change(before, after);
    if !expected.is_empty() && !expected.contains(&got) {
        return Err(format!("change: expected {:?}, got {got:?}", expected[0]));
    }
    let want = text_of(record, "config_text");
    if record["method"] == "DELETE" || want.is_empty() {
        return Ok(());
    }
    text::order(want, after).map_or(Ok(()), Err)
}

/// Reads what was written, and the list that it is in.
fn read_again(server: &mut Server, record: &Value, spoe: bool) -> Outcome {
    let mut query = record["query"].clone();
    if let Value::Object(fields) = &mut query {
        fields.retain(|name, _| !matches!(&**name, "version" | "transaction_id" | "force_reload"));
    }
    if let (true, Some(path)) = (record.get("read_back").is_some() || record.get("read_status").is_some(), item(record))
    {
        let reply = server.get(&path, &query);
        if !record["read_back"].is_null() || record.get("read_status").is_none() {
            same_status("status of the read", &json!(200), &reply)?;
            same("read", &record["read_back"], &data(&reply))?;
        } else {
            same_status("status of the read", &record["read_status"], &reply)?;
        }
    }
    let Some(want) = record.get("list_after") else { return Ok(()) };
    let reply = server.get(&collection(record), &query);
    if want.get("status").is_some() && want.get("body").is_some() {
        return same_status("list", &want["status"], &reply);
    }
    let want = want.get("data").filter(|_| spoe).unwrap_or(want);
    same("list", want, &data(&reply))
}

/// Several requests, one after the other, to a server of their own.
fn steps(record: &Value) -> Outcome {
    let mut server = Server::start();
    same_status("loading", &json!(201), &server.load(text_of(record, "config_before")))?;
    let mut ids: Vec<String> = Vec::new();
    for (number, step) in record["steps"].as_array().into_iter().flatten().enumerate() {
        let filled = |text: &str| {
            ids.iter()
                .enumerate()
                .rev()
                .fold(text.to_owned(), |text, (at, id)| text.replace(&format!("$T{}", at + 1), id))
        };
        let query: Value = serde_json::from_str(&filled(&step["query"].to_string())).unwrap();
        let raw = text_of(step, "path").ends_with("/raw") && step["method"] == "POST";
        let (content_type, body) = match &step["request"] {
            Value::String(text) if raw => ("text/plain", text.clone().into_bytes()),
            Value::Null => ("application/json", Vec::new()),
            body => ("application/json", body.to_string().into_bytes()),
        };
        let method = text_of(step, "method");
        let mut reply = server.send(method, &filled(text_of(step, "path")), &query, content_type, &body);
        if method == "POST" && text_of(step, "path").ends_with("/transactions") {
            ids.extend(reply.body["id"].as_str().map(str::to_owned));
        }
        let shown = ids
            .iter()
            .enumerate()
            .fold(reply.body.to_string(), |text, (at, id)| text.replace(id, &format!("$T{}", at + 1)));
        reply.body = serde_json::from_str(&shown).unwrap();
        let what = format!("step {} {method} {}", number + 1, text_of(step, "path"));
        // A server error need not be copied.
        if step["status"].as_u64() < Some(500) || reply.status < 400 {
            same_status(&what, &step["status"], &reply)?;
            match step["response"].get("code") {
                Some(_) => same_code(&step["response"], &reply.body)?,
                None => same(&what, &said(&step["response"]), &said(&reply.body))?,
            }
        }
        let difference = text::change(text_of(step, "config_after"), &server.file());
        if !difference.is_empty() {
            return Err(format!("{what}: file: {difference:?}"));
        }
        let file = server.file();
        let versions: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("# _version=")).collect();
        same(&format!("{what}: version"), &step["version_line"], &json!(versions))?;
    }
    Ok(())
}

/// An answer with texts of configurations as sets of lines, and lists of transactions in order; ids that the record
/// does not know are alike.
fn said(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), said(value))).collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(said).collect();
            if items.iter().all(|item| item["id"].is_string()) {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        Value::String(text) if text.contains('\n') => json!(text::lines(text)),
        Value::String(text) if is_id(text) => "$OTHER".into(),
        other => other.clone(),
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
