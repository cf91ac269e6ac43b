//! Replays observed requests and answers of /v2 over REST: status, answer, changed lines of the file, and what is read
//! afterwards.
//!
//! A record is one line of JSON, a file holds the records of one resource. `BACKSTAY_VECTORS` names another folder of
//! such files than `tests/data/vectors`, as in `make vectors VECTORS=folder`. Records that show a fault of the server
//! that they were made with are no examples (`class` says which, and why); of these only one thing is asked: that no
//! value brings a line of its own into the file.

mod class;
mod faults;
mod laws;
mod replay;
mod server;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use self::replay::replay;
use self::server::Server;

/// Servers that work at the same time, each on its own files.
const WORKERS: usize = 4;

/// Where the answer is another one on purpose: resource (empty: any), what the text that is loaded first holds or the
/// name of the case, and the reason.
const DEVIATIONS: [(&str, &str, &str); 12] = [
    ("http_check", " comment a comment", "HAProxy takes no such line, so it has no index and cannot be replaced by it"),
    ("tcp_check", " comment a comment", "HAProxy takes no such line, so it has no index and cannot be replaced by it"),
    (
        "tcp_request_rule",
        "set-dst-port  if",
        "HAProxy takes no such line, so it has no index and cannot be replaced by it",
    ),
    ("http_errors_section", "errorfile 0", "a section is listed, whatever its lines say"),
    ("", "sc-add-gpc(", "the operand is shown: without it the rule could not be put back"),
    ("", "no-verifyhost", "the keyword is shown"),
    ("", "stats http-request", "the rule is shown in every section that has it"),
    ("", " profile ", "a log line with a profile is a log line, so it is shown and has an index"),
    ("http_request_rule", "parent_type defaults", "rules of defaults are objects too"),
    ("server_template", "out of range port minimum", "0 is shown where there is no port, and may be put back"),
    ("http_response_rule", "parent_type defaults", "rules of defaults are objects too"),
    ("", "127.0.0.1:+", "a port that is an offset is not the port of that number"),
];

/// What became of the records of one resource.
#[derive(Default)]
struct Score {
    passed: usize,
    total: usize,
    deviating: usize,
    no_example: usize,
}

fn deviation(record: &Value) -> Option<&'static str> {
    let text = record["config_in"].as_str().or(record["config_before"].as_str()).unwrap_or_default();
    let fits = |part: &str| text.contains(part) || record["case"] == part;
    let row = DEVIATIONS
        .iter()
        .find(|(resource, part, _)| (resource.is_empty() || record["resource"] == *resource) && fits(part));
    row.map(|(.., why)| *why)
}

fn folder() -> PathBuf {
    let own = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors");
    std::env::var_os("BACKSTAY_VECTORS").map_or_else(own, PathBuf::from)
}

fn records() -> Vec<(String, Value)> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let resource = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            records.extend(text.lines().map(|line| (resource.clone(), serde_json::from_str(line).unwrap())));
        }
    }
    records
}

/// Of a record that is no example: a value with a line feed is refused, or what is behind it stays a value.
fn keeps_to_its_line(server: &mut Server, record: &Value) -> Result<(), String> {
    // Whatever differs here may differ.
    drop(replay(server, record));
    let file = format!("{}\n{}", server.file(), server.spoe_file());
    match file.lines().find(|line| line.trim() == "b") {
        Some(line) => Err(format!("a value became the line {line:?}")),
        None => Ok(()),
    }
}

#[test]
fn every_observed_record_is_answered_alike() {
    let records = records();
    assert!(records.len() > 1000, "the folder holds only {} records", records.len());
    let faults = class::faults(records.iter().map(|(_, record)| record));
    let next = AtomicUsize::new(0);
    let scores: Mutex<BTreeMap<&str, Score>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let reasons: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut server = Server::start();
                while let Some((resource, record)) = records.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let no_example = class::no_example(record, &faults);
                    let result = match no_example {
                        None => replay(&mut server, record),
                        Some(_) if class::has_line_feed(&record["request"]) => keeps_to_its_line(&mut server, record),
                        Some(_) => Ok(()),
                    };
                    let mut scores = scores.lock().unwrap();
                    let score = scores.entry(resource).or_default();
                    let deviation = deviation(record).filter(|_| result.is_err());
                    if let Some(why) = no_example.or(deviation) {
                        *reasons.lock().unwrap().entry(why).or_default() += 1;
                    }
                    match (result, no_example, deviation) {
                        (Err(_), None, Some(_)) => score.deviating += 1,
                        (Ok(()), Some(_), _) => score.no_example += 1,
                        (Ok(()), None, _) => (score.passed, score.total) = (score.passed + 1, score.total + 1),
                        (Err(text), ..) => {
                            score.total += 1;
                            let (kind, case, id) = (&record["kind"], &record["case"], &record["id"]);
                            failures.lock().unwrap().push(format!("{resource} {kind} {id} {case}: {text}"));
                        }
                    }
                }
            });
        }
    });
    let mut all = Score::default();
    for (resource, score) in scores.into_inner().unwrap() {
        println!("{resource:26} {:5} of {:5}", score.passed, score.total);
        all.passed += score.passed;
        all.total += score.total;
        all.deviating += score.deviating;
        all.no_example += score.no_example;
    }
    println!("{:26} {:5} of {:5}", "all", all.passed, all.total);
    println!("{} answered otherwise on purpose, {} no examples:", all.deviating, all.no_example);
    for (why, count) in reasons.into_inner().unwrap() {
        println!("{count:7} {why}");
    }
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} records differ:\n{}", failures.len(), failures.join("\n"));
}
