//! Lines of real configurations that no typed resource shows, counted by keyword.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backstay::configuration::address::Place;
use backstay::configuration::engine::Engine;
use backstay::document::Document;
use backstay::schema::Schema;
use backstay::schema::value::Object;

use crate::support::haproxy::{binary, version};

/// Lines that stay without a resource, by section and first words, with the reason.
const IGNORED: &[(&str, &str, &str)] = &[
    ("frontend", "unknown keyword line", "HAProxy has no such keyword"),
    ("frontend", "option unknown-option", "HAProxy has no such keyword"),
    ("frontend", "no option httplog", "HAProxy takes no `no` before this option"),
    ("backend", "\\x62ackend 'other'", "a header whose keyword is written with an escape"),
    ("*", "maxconn \"${MAXCONN-1000}\"", "a number out of a variable: `not_shown` names the field"),
    ("*", "maxconn \"${MAXCONN-2000}\"", "a number out of a variable: `not_shown` names the field"),
    ("*", "timeout queue \"${QUEUE-5s}\"", "a time out of a variable: `not_shown` names the field"),
];

/// A line that nobody reads.
struct Unread {
    section: String,
    text: String,
    file: String,
}

/// Configurations of the tests and of HAProxy's packages, when they are installed.
fn files() -> Vec<PathBuf> {
    let folders = ["tests/data/configs", "/usr/share/doc/haproxy/examples", "/etc/haproxy"];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "cfg"));
    files.sort();
    files
}

/// What `ListSectionLines` shows without `resource` and `field`, and how many lines say something at all.
fn unread(engine: &Engine, file: &Path, found: &mut Vec<Unread>) -> usize {
    let tables = &engine.schema().tables;
    let message = tables.message_by_name["backstay.configuration.v2.SectionLine"];
    let field = |name: &str| tables.messages[message].field_named(name).expect("a field");
    let (kind, text) = (field("kind"), field("text"));
    let is_read = |line: &Object| line.get(field("resource")).is_some() || line.get(field("field")).is_some();
    let document = Document::parse(&std::fs::read(file).expect("a file"));
    let mut count = 0;
    for section in document.sections() {
        let place = Place { section: Some(section.kind().into()), name: section.name().to_owned() };
        for line in engine.list(&document, message, &place).unwrap_or_default() {
            let content = line.enum_number(kind) == Some(1);
            count += usize::from(content);
            if content && !is_read(&line) {
                found.push(Unread {
                    section: section.kind().to_owned(),
                    text: line.str(text).unwrap_or_default().to_owned(),
                    file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                });
            }
        }
    }
    count
}

/// Why a line needs no resource.
fn reason(line: &Unread) -> Option<&'static str> {
    let fits = |(section, words, _): &&(&str, &str, &str)| {
        (*section == line.section || *section == "*")
            && (*words == "*"
                || line.text.strip_prefix(words).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
    };
    if line.text.contains('\u{fffd}') {
        return Some("words that are not UTF-8");
    }
    IGNORED.iter().find(fits).map(|(.., reason)| *reason)
}

/// What the configurations name.
const FILES: [(&str, &str); 6] = [
    ("site.pem", include_str!("../data/sweep/site.pem")),
    ("ca.pem", include_str!("../data/sweep/ca.pem")),
    ("crl.pem", include_str!("../data/sweep/ca.pem")),
    ("dh.pem", include_str!("../data/sweep/dh.pem")),
    ("spoe.conf", include_str!("../data/sweep/spoe.conf")),
    ("x.lua", include_str!("../data/sweep/x.lua")),
];
const LISTS: [(&str, &str); 12] = [
    ("list.crt", "site.pem\n"),
    ("err.http", "HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
    ("list.acl", "10.0.0.1\n"),
    ("redirect.map", "a b\n"),
    ("http.map", "a b\n"),
    ("sni.map", "a b\n"),
    ("tcp.map", "a b\n"),
    ("edge.map", "a b\n"),
    ("hosts.map", "a b\n"),
    ("server.state", ""),
    ("eab.id", "account-1\n"),
    ("eab.key", "bm8gc2VjcmV0IGF0IGFsbCwganVzdCBhIHRleHQgdGhhdCBpcyBsb25nIGVub3VnaA\n"),
];

/// The version that the first line of a configuration asks for: `# HAProxy 2.8 and later: ...`.
fn asked(text: &str) -> Option<(u32, u32)> {
    let (version, _) = text.strip_prefix("# HAProxy ")?.split_once(" and later")?;
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn haproxy_takes_the_configurations_that_are_made_for_its_version() {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in FILES.iter().chain(&LISTS) {
        std::fs::write(dir.path().join(name), text).expect("a file");
    }
    let mut taken = 0;
    for file in files() {
        let text = String::from_utf8_lossy(&std::fs::read(&file).expect("a file")).into_owned();
        if asked(&text).is_none_or(|asked| asked > version()) {
            continue;
        }
        std::fs::write(dir.path().join("haproxy.cfg"), &text).expect("a file");
        let check = Command::new(binary()).args(["-c", "-f", "haproxy.cfg"]).current_dir(dir.path()).output();
        let said = String::from_utf8_lossy(&check.expect("haproxy must be installed").stderr).into_owned();
        assert!(!said.contains("[ALERT]"), "{}: {said}", file.display());
        taken += 1;
    }
    assert!(taken >= 25, "{taken} configurations");
}

#[test]
fn no_line_of_a_real_configuration_is_without_a_reader() {
    let engine = Engine::new(Arc::new(Schema::compile(backstay::proto::SCHEMA).expect("a schema")));
    let mut found = Vec::new();
    let files = files();
    let count: usize = files.iter().map(|file| unread(&engine, file, &mut found)).sum();
    let mut table: BTreeMap<(String, String), Vec<&Unread>> = BTreeMap::new();
    for line in &found {
        let keyword = line.text.split(' ').next().unwrap_or_default().to_owned();
        table.entry((keyword, line.section.clone())).or_default().push(line);
    }
    let mut text = format!("{count} lines in {} files, {} of them without a reader\n", files.len(), found.len());
    for ((keyword, section), lines) in &table {
        let first = lines[0];
        let why = reason(first).unwrap_or("NO REASON");
        writeln!(text, "{:4} {keyword} ({section}): {why}; {}: {}", lines.len(), first.file, first.text)
            .expect("memory");
    }
    println!("{text}");
    let without: Vec<_> = found.iter().filter(|line| reason(line).is_none()).map(|line| &line.text).collect();
    assert!(without.is_empty(), "{text}\nwithout a reason: {without:#?}");
}
