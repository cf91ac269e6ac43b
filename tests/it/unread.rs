//! Lines of real configurations that no typed resource shows, counted by keyword.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay::configuration::address::Place;
use backstay::configuration::engine::Engine;
use backstay::document::Document;
use backstay::schema::Schema;
use backstay::schema::value::Object;

/// Lines that stay without a resource, by section and first words, with the reason.
const IGNORED: &[(&str, &str, &str)] = &[
    ("frontend", "unknown keyword line", "HAProxy has no such keyword"),
    ("frontend", "option unknown-option", "HAProxy has no such keyword"),
    ("backend", "server a\u{fffd} 127.0.0.1:1", "a name that is not UTF-8"),
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
    IGNORED.iter().find(fits).map(|(.., reason)| *reason)
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
