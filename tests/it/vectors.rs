//! Replays observed requests and answers of /v2 over REST: status, answer, changed lines of the file, and what is read
//! afterwards.
//!
//! A record is one line of JSON: `before` is loaded first, then `method`, `path`, `query` and `body` (or `raw` with
//! `content_type`) are sent; `status`, `code` of an error, `answer`, `change` (signed lines, any of the lists) and `read`
//! say what has to come of it. Nulls count as absent. `BACKSTAY_VECTORS` names another folder of such files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::haproxy::{eventually, free_port};

/// Servers that work at the same time, each on its own files.
const WORKERS: usize = 4;

/// Where backstay answers otherwise on purpose: records, and why.
const DEVIATIONS: [(&[&str], &str); 6] = [
    (
        &["27fa32a354b37f03", "39bb4c47572d9429", "7d58a458144e7bb4", "c056f16b41a5476f", "e4dac8d3925e18d6"],
        "the line before is none that HAProxy takes, so it has no index",
    ),
    (
        &[
            "14ff5d30f12aa4ab",
            "56dec931798b25c1",
            "64ab309bb4a466af",
            "6a480cc4a2d58fb8",
            "aeaa546d0354f8df",
            "b324ca97a68e75cc",
            "ed7cb489947601f8",
        ],
        "lines that cannot be read, such as `errorfile 0`, stay where they are",
    ),
    (&["2dde870256ba219e", "b5873995b7e09448"], "the operand of sc-add-gpc is shown"),
    (&["fd141e476afd8638"], "no-verifyhost is shown"),
    (&["e04889ae04ba8c8f"], "`stats http-request` is shown in frontends too"),
    (&["3b94b111d9e9fd20"], "`stats scope` is unknown there, so it makes no empty stats_options"),
];

/// Lines whose parameters may stand in any order.
const ANY_ORDER: [&str; 4] = ["bind", "default-server", "server", "server-template"];

/// HAProxy that accepts everything, as when the records were made.
const STUB: &str = "#!/bin/sh\ncase \"$1\" in -v|-vv) echo 'HAProxy version 2.9.0-stub 2023/12/05';; esac\nexit 0\n";

struct Server {
    dir: TempDir,
    port: u16,
    child: Child,
    connection: Option<BufReader<TcpStream>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("haproxy.cfg"), "# _version=1\n\nglobal\n  daemon\n").unwrap();
        std::fs::write(at("users.cfg"), "userlist controller\n  user admin insecure-password pw\n").unwrap();
        std::fs::write(at("haproxy"), STUB).unwrap();
        std::fs::set_permissions(at("haproxy"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let d = dir.path().display();
        let yaml = format!(
            "dataplaneapi:\n  host: 127.0.0.1\n  port: {port}\n  scheme: [http]\n  userlist:\n    userlist_file: {d}/users.cfg\n  \
             resources:\n    maps_dir: {d}/maps\n    ssl_certs_dir: {d}/ssl\n    general_storage_dir: {d}/general\n    \
             spoe_dir: {d}/spoe\n    spoe_transaction_dir: {d}/spoe-transactions\n  transaction:\n    \
             transaction_dir: {d}/transactions\nhaproxy:\n  config_file: {d}/haproxy.cfg\n  haproxy_bin: {d}/haproxy\n  \
             reload:\n    reload_delay: 3600\n    reload_cmd: \"true\"\n    restart_cmd: \"true\"\n    status_cmd: \"true\"\n    \
             reload_strategy: custom\n"
        );
        std::fs::write(at("backstay.yaml"), yaml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_backstay"))
            .args(["serve", "-f"])
            .arg(at("backstay.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Server { dir, port, child, connection: None };
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("haproxy.cfg")).unwrap()
    }

    fn get(&mut self, path: &str, query: &Value) -> (u16, Value) {
        self.send("GET", path, query, "application/json", b"")
    }

    fn load(&mut self, text: &str) -> u16 {
        let query = serde_json::json!({"skip_version": "true", "skip_reload": "true"});
        let text = format!("# _version=1\n{text}");
        self.send("POST", "/services/haproxy/configuration/raw", &query, "text/plain", text.as_bytes()).0
    }

    fn send(&mut self, method: &str, path: &str, query: &Value, content_type: &str, body: &[u8]) -> (u16, Value) {
        let mut target = format!("/v2{path}");
        for (number, (name, value)) in query.as_object().into_iter().flatten().enumerate() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mark = if number == 0 { '?' } else { '&' };
            write!(target, "{mark}{name}={}", escaped(&value)).unwrap();
        }
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Basic YWRtaW46cHc=\r\ncontent-type: {content_type}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let port = self.port;
        let connection =
            self.connection.get_or_insert_with(|| BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
        connection.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            connection.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer).unwrap();
        (status, serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
        out
    })
}

/// The value without nulls; lists of sections by name, as their order means nothing.
fn plain(value: &Value, sorted: bool) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), plain(value, false)))
            .collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| plain(item, false)).collect();
            if sorted {
                items.sort_by_key(|item| item["name"].to_string());
            }
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// What an answer holds: `data` of an envelope, else all of it.
fn data(answer: Value, sorted: bool) -> Value {
    let inner = answer.get("data").cloned().unwrap_or(answer);
    plain(&inner, sorted)
}

/// Lines that say something, with one blank between words, and how often each stands there.
fn lines(text: &str) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        // A bare number is in milliseconds wherever the unit is written.
        let mut words: Vec<&str> = line.split_whitespace().map(bare_milliseconds).collect();
        if words.first().is_some_and(|first| ANY_ORDER.contains(first)) {
            words[1..].sort_unstable();
        }
        let line = words.join(" ");
        // A section that holds only defaults may as well be absent.
        if !line.is_empty() && !line.starts_with('#') && line != "global" && line != "defaults" {
            *found.entry(line).or_default() += 1;
        }
    }
    found
}

fn bare_milliseconds(word: &str) -> &str {
    word.strip_suffix("ms").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit())).unwrap_or(word)
}

/// Lines that came and went, signed and sorted.
fn change(before: &str, after: &str) -> Vec<String> {
    let mut count = lines(after);
    for (line, times) in lines(before) {
        *count.entry(line).or_default() -= times;
    }
    let mut out = Vec::new();
    for (line, times) in count {
        let sign = if times > 0 { '+' } else { '-' };
        out.extend((0..times.abs()).map(|_| format!("{sign} {line}")));
    }
    out.sort_unstable();
    out
}

/// Signed lines of a record, as [`change`] gives them.
fn signed(lines_of_record: &Value) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for line in lines_of_record.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (sign, line) = line.split_at(1);
        out.extend(lines(line).into_keys().map(|line| format!("{sign} {line}")));
    }
    out.sort_unstable();
    out
}

/// Replays a record. `Err` says what differs first.
fn replay(server: &mut Server, record: &Value) -> Result<(), String> {
    let text = |key: &str| record[key].as_str().unwrap_or_default();
    let sorted = record["sorted"] == true;
    let same = |what: &str, want: &Value, got: &Value| {
        if want == got { Ok(()) } else { Err(format!("{what}: expected {want}, got {got}")) }
    };
    let loaded = server.load(text("before"));
    if loaded != 201 {
        return Err(format!("loading answers {loaded}"));
    }
    let Some(path) = record["path"].as_str() else { return read(server, record, sorted) };
    let before = server.file();
    let body = match (&record["raw"], &record["body"]) {
        (Value::String(raw), _) => raw.clone().into_bytes(),
        (_, Value::Null) => Vec::new(),
        (_, body) => body.to_string().into_bytes(),
    };
    let content_type = record["content_type"].as_str().unwrap_or("application/json");
    let (status, answer) = server.send(text("method"), path, &record["query"], content_type, &body);
    same("status", &record["status"], &status.into()).map_err(|text| format!("{text} {answer}"))?;
    if status >= 300 {
        if !record["code"].is_null() {
            same("code", &record["code"], &answer["code"])?;
        }
        return if server.file() == before { Ok(()) } else { Err("refused, but the file changed".to_owned()) };
    }
    if let Some(want) = record.get("answer") {
        let envelope = text("method") == "GET";
        let got = if envelope { data(answer, sorted) } else { plain(&answer, false) };
        let want = if envelope { data(want.clone(), sorted) } else { plain(want, false) };
        same("answer", &want, &got)?;
    }
    if let Some(alternatives) = record["change"].as_array() {
        let got = change(text("before"), &server.file());
        if !alternatives.iter().any(|want| signed(want) == got) {
            return Err(format!("change: expected {}, got {got:?}", alternatives[0]));
        }
    }
    read(server, record, sorted)
}

fn read(server: &mut Server, record: &Value, sorted: bool) -> Result<(), String> {
    for read in record["read"].as_array().into_iter().flatten() {
        let path = read["path"].as_str().unwrap_or_default();
        let (status, answer) = server.get(path, &read["query"]);
        let (want, got) = (plain(&read["value"], sorted), data(answer, sorted));
        if status != 200 || want != got {
            return Err(format!("read {path}: expected {want}, got {status} {got}"));
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors");
    std::env::var_os("BACKSTAY_VECTORS").map_or_else(own, PathBuf::from)
}

#[test]
fn every_observed_record_is_answered_alike() {
    let mut records: Vec<(String, Value)> = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let resource = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        records.extend(text.lines().map(|line| (resource.clone(), serde_json::from_str(line).unwrap())));
    }
    assert!(records.len() > 1000, "the folder holds only {} records", records.len());
    let next = AtomicUsize::new(0);
    let score: Mutex<BTreeMap<&str, (usize, usize)>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut server = Server::start();
                while let Some((resource, record)) = records.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let id = record["id"].as_str().unwrap_or_default();
                    let known = DEVIATIONS.iter().any(|(known, _)| known.contains(&id));
                    let result = replay(&mut server, record);
                    let mut score = score.lock().unwrap();
                    let (passed, total) = score.entry(resource).or_default();
                    if known {
                        continue;
                    }
                    *total += 1;
                    match result {
                        Ok(()) => *passed += 1,
                        Err(text) => failures
                            .lock()
                            .unwrap()
                            .push(format!("{resource} {} {id} {}: {text}", record["kind"], record["case"])),
                    }
                }
            });
        }
    });
    for (resource, (passed, total)) in score.into_inner().unwrap() {
        println!("{resource:26} {passed:5} of {total:5}");
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} records differ:\n{}", failures.len(), failures.join("\n"));
}
