//! Rules of the source tree that no lint knows: order of the rooms, size of files, no hidden state, no traces of a machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;

/// Rooms from the ground up. A room uses only rooms of earlier floors; rooms of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["error", "proto"],
    &["settings", "schema", "tls"],
    &["document"],
    &["configuration"],
    &["runtime"],
    &["storage", "process"],
    &["overrides", "peers"],
    &["stick_table", "spoe", "auth", "discovery"],
    &["aggregation"],
    &["grpc"],
    &["gateway"],
    &["cli"],
    &["lib", "main"],
];

/// The lowest room that may name crates of inbound transport.
const TRANSPORT: &str = "grpc";
const TRANSPORT_CRATES: [&str; 9] =
    ["tonic", "tonic_web", "tonic_reflection", "tonic_health", "tonic_types", "hyper", "hyper_util", "tower", "http"];

/// Rooms below that floor which call others over HTTP. Nothing reaches them by it.
const CALLERS: [&str; 1] = ["discovery"];

const LONGEST: usize = 600;
/// Files above the limit, with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Items with a lifetime of the whole process, with the reason.
const STATICS: &[(&str, &str)] = &[
    ("src/configuration/laws/mod.rs", "the engine of the law tests, made once"),
    ("src/schema/sample.rs", "the compiled sample schema of unit tests"),
    ("src/schema/wire_tests.rs", "the compiled sample schema of unit tests"),
    ("src/configuration/laws/mod.rs", "the engine of the property tests"),
    ("tests/it/resources.rs", "sample objects, read once"),
    ("tests/it/support/client.rs", "the compiled schema, by which requests are made"),
    ("tests/it/support/models.rs", "the models of /v2, by which answers are judged"),
];

/// Hosts that texts and tests may name. None of them is ever called.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "localhost",
    "a",
    "example.com",
    "a.example",
    "b.example",
    "dash.example",
    "old",
    "haproxy.org",
    "www.apache.org",
];

/// Folders that the client examples make where they stand; git ignores them.
const GENERATED: &[&str] = &["tests/clients/go/gen", "tests/clients/web/gen", "tests/clients/web/node_modules"];

struct Source {
    /// From the root of the project.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|ext| ext == "rs")
    }

    /// Lines with their numbers, without those that are only a comment.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn room(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?;
        Some(inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs"))
    }
}

/// All text files of the project but the lock file, whose lines a tool writes.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if ["src", "tests", "proto", "deploy", ".ci"].contains(&name.as_str()) {
            walk(&entry.path(), &name, &mut found);
        } else if entry.path().is_file() && !["Cargo.lock", ".git"].contains(&name.as_str()) {
            take(&entry.path(), name, &mut found);
        }
    }
    assert!(found.iter().filter(|s| s.is_rust()).count() > 100, "the walk over the tree misses files");
    found
}

fn walk(folder: &Path, name: &str, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{name}/{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            if !GENERATED.contains(&path.as_str()) {
                walk(&entry.path(), &path, found);
            }
        } else {
            take(&entry.path(), path, found);
        }
    }
}

fn take(file: &Path, path: String, found: &mut Vec<Source>) {
    if let Ok(text) = String::from_utf8(std::fs::read(file).unwrap()) {
        found.push(Source { path, text });
    }
}

#[track_caller]
fn none(faults: BTreeSet<String>) {
    let mut text = String::new();
    for fault in &faults {
        writeln!(text, "  {fault}").unwrap();
    }
    assert!(faults.is_empty(), "\n{text}");
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let uses = Regex::new(r"\bcrate::([a-z_]+|\{)").unwrap();
    let transport = Regex::new(&format!(r"(^|[^A-Za-z0-9_:.])({})::", TRANSPORT_CRATES.join("|"))).unwrap();
    let lowest = floor(TRANSPORT).unwrap();
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|s| s.is_rust()) {
        let Some(room) = source.room() else { continue };
        let Some(own) = floor(room) else {
            faults.insert(format!("{}: the room {room} has no floor", source.path));
            continue;
        };
        for (number, line) in source.code() {
            for used in uses.captures_iter(line) {
                let used = &used[1];
                match floor(used) {
                    _ if used == room => {}
                    Some(its) if its < own => {}
                    Some(_) => drop(faults.insert(format!("{}:{number}: {room} must not know {used}", source.path))),
                    None => drop(faults.insert(format!("{}:{number}: name the room: {}", source.path, line.trim()))),
                }
            }
            if own < lowest && !CALLERS.contains(&room) && transport.is_match(line) {
                faults.insert(format!("{}:{number}: transport below grpc: {}", source.path, line.trim()));
            }
        }
    }
    none(faults);
}

#[test]
fn files_are_short() {
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|s| s.is_rust()) {
        let lines = source.text.lines().count();
        if lines >= LONGEST && !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
            faults.insert(format!("{}: {lines} lines, the limit is {LONGEST}: split it", source.path));
        }
    }
    none(faults);
}

#[test]
fn nothing_is_global_unsafe_or_unfinished() {
    let statics = Regex::new(r"^\s*(pub(\([a-z]+\))?\s+)?static\s+(mut\s+)?[A-Z_0-9]+\s*:").unwrap();
    let unfinished = Regex::new(r"\b(todo|unimplemented|dbg)!\s*\(").unwrap();
    let word = Regex::new(r"\bunsafe\s*(\{|fn|impl|extern)").unwrap();
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|s| s.is_rust()) {
        for (number, line) in source.code() {
            let place = format!("{}:{number}", source.path);
            let global = statics.is_match(line) || line.trim_start().starts_with("thread_local!");
            if global && !STATICS.iter().any(|(path, _)| *path == source.path) {
                faults.insert(format!("{place}: state of the whole process: {}", line.trim()));
            }
            if unfinished.is_match(line) {
                faults.insert(format!("{place}: unfinished: {}", line.trim()));
            }
            if word.is_match(line) {
                faults.insert(format!("{place}: unsafe code: {}", line.trim()));
            }
            if line.trim() == "#[ignore]" {
                faults.insert(format!("{place}: an ignored test says why: #[ignore = \"...\"]"));
            }
        }
    }
    none(faults);
}

#[test]
fn every_allowed_lint_has_its_reason() {
    // Attributes may span lines; they hold no bracket but their own.
    let attribute = Regex::new(r"(?m)^\s*#!?\[(allow|expect)\(([^\]]*)\)\]").unwrap();
    let mut faults = BTreeSet::new();
    let mut seen = 0;
    for source in sources().iter().filter(|s| s.is_rust()) {
        for found in attribute.captures_iter(&source.text) {
            seen += 1;
            if !found[2].contains("reason = \"") {
                faults.insert(format!("{}: without a reason: {}", source.path, found[0].trim()));
            }
        }
    }
    assert!(seen > 0, "the tree allows lints, the search misses them");
    none(faults);
}

#[test]
fn the_tree_tells_nothing_of_the_machine_it_was_made_on() {
    let host = Regex::new(r"[a-z]+://([A-Za-z0-9][A-Za-z0-9.-]*)").unwrap();
    // Other places of a system (/etc, /var, /run, /usr) are where programs keep things everywhere.
    let home = Regex::new(r#"(^|[\s"'=(`])/(home|root|work|Users|mnt|workspace)/"#).unwrap();
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|s| !s.path.starts_with("tests/data/")) {
        for (at, line) in source.text.lines().enumerate() {
            let place = format!("{}:{}", source.path, at + 1);
            for found in host.captures_iter(line) {
                let name = found[1].split("\\n").next().unwrap_or_default().trim_end_matches('.');
                if !HOSTS.contains(&name) {
                    faults.insert(format!("{place}: the host {name}"));
                }
            }
            if home.is_match(line) {
                faults.insert(format!("{place}: a path of one machine: {}", line.trim()));
            }
        }
    }
    none(faults);
}
