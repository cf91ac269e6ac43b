//! A thousand edits of the files that ship with HAProxy: what is not edited keeps its bytes, and HAProxy thinks of the
//! result what it thought of the file.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use backstay::configuration::address::{Key, Place};
use backstay::configuration::engine::Engine;
use backstay::document::Document;
use backstay::schema::Schema;
use backstay::schema::json::{self, JsonRules};
use backstay::schema::tables::MessageId;
use backstay::schema::value::{Object, Value};

use crate::support::haproxy::binary;

/// Edits over all files together.
const EDITS: usize = 1000;
/// HAProxy is asked after so many edits of a file.
const ASK_EVERY: usize = 50;

/// What is created, replaced and deleted: section kind, resource, field that carries the mark, object. `@` is a number
/// of its own, and `bs_` marks what the test has written.
const LINES: [(&str, &str, &str); 13] = [
    ("backend", "Server", r#"{"name":"bs_@","address":"127.0.0.1","port":8@}"#),
    (
        "backend",
        "Server",
        r#"{"name":"bs_@","address":"10.0.0.@","port":80,"check":"enabled","inter":2000,"weight":@}"#,
    ),
    ("backend", "Server", r#"{"name":"bs_@","address":"::1","port":443,"backup":"enabled","maxconn":@}"#),
    ("frontend", "Bind", r#"{"name":"bs_@","address":"127.0.0.1","port":9@}"#),
    ("frontend", "Bind", r#"{"name":"bs_@","address":"/tmp/bs_@.sock"}"#),
    ("frontend", "Acl", r#"{"index":0,"acl_name":"bs_@","criterion":"src","value":"10.0.0.0/8 192.168.0.@"}"#),
    ("backend", "Acl", r#"{"index":0,"acl_name":"bs_@","criterion":"dst_port","value":"8@"}"#),
    (
        "frontend",
        "HttpRequestRule",
        r#"{"index":0,"type":"set-header","hdr_name":"X-bs_@","hdr_format":"\"%[src] #\""}"#,
    ),
    (
        "frontend",
        "HttpRequestRule",
        r#"{"index":0,"type":"set-var","var_scope":"txn","var_name":"bs_@","var_expr":"src"}"#,
    ),
    (
        "backend",
        "HttpRequestRule",
        r#"{"index":0,"type":"del-header","hdr_name":"X-bs_@","cond":"if","cond_test":"{ src 10.0.0.@ }"}"#,
    ),
    ("backend", "HttpResponseRule", r#"{"index":0,"type":"add-header","hdr_name":"X-bs_@","hdr_format":"a\\ b"}"#),
    (
        "frontend",
        "TcpRequestRule",
        r#"{"index":0,"type":"connection","action":"set-var","var_scope":"sess","var_name":"bs_@","expr":"src"}"#,
    ),
    ("frontend", "LogTarget", r#"{"index":0,"address":"/tmp/bs_@.log","facility":"local0","level":"notice"}"#),
];

/// Settings of sections: the kind, and a field with its value.
const SETTINGS: [(&str, &str); 14] = [
    ("Backend", r#"{"server_timeout":3@}"#),
    ("Backend", r#"{"connect_timeout":4@}"#),
    ("Backend", r#"{"balance":{"algorithm":"leastconn"}}"#),
    ("Backend", r#"{"balance":{"algorithm":"uri","uri_depth":3}}"#),
    ("Backend", r#"{"retries":@}"#),
    ("Backend", r#"{"fullconn":1@}"#),
    ("Frontend", r#"{"client_timeout":5@}"#),
    ("Frontend", r#"{"maxconn":1@}"#),
    ("Frontend", r#"{"backlog":1@}"#),
    ("Frontend", r#"{"dontlognull":"enabled"}"#),
    ("Defaults", r#"{"queue_timeout":6@}"#),
    ("Defaults", r#"{"retries":@}"#),
    ("Global", r#"{"maxconn":2@}"#),
    ("Global", r#"{"spread_checks":3}"#),
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % sides as u64) as usize
    }
}

struct Editor {
    engine: Engine,
    document: Document,
    dice: Dice,
}

enum Change {
    Added,
    Replaced,
    Removed,
    Set,
}

impl Editor {
    fn id(&self, name: &str) -> MessageId {
        self.engine.schema().tables.message_by_name[format!("backstay.configuration.v2.{name}").as_str()]
    }

    fn object(&mut self, resource: &str, text: &str) -> Object {
        let number = 10 + self.dice.roll(90);
        let text = text.replace('@', &number.to_string());
        let tables = &self.engine.schema().tables;
        let reading = json::read(tables, self.id(resource), text.as_bytes(), JsonRules::default()).expect("an object");
        assert!(reading.unknown.is_empty() && reading.refused.is_empty(), "{text}: {reading:?}");
        reading.object
    }

    /// One edit; nothing when the file has no place for it.
    fn edit(&mut self) -> Option<Change> {
        if self.dice.roll(3) == 0 {
            return self.set();
        }
        let (section, resource, text) = LINES[self.dice.roll(LINES.len())];
        let sections: Vec<String> =
            self.document.sections().iter().filter(|s| s.kind() == section).map(|s| s.name().to_owned()).collect();
        if sections.is_empty() {
            return None;
        }
        let name = sections[self.dice.roll(sections.len())].clone();
        let place = Place { section: Some(section.into()), name };
        let id = self.id(resource);
        let listed = self.engine.list(&self.document, id, &place).expect("a list");
        let indexed = self.engine.schema().tables.messages[id].field_named("index");
        let ours: Vec<usize> = (0..listed.len()).filter(|at| format!("{:?}", listed[*at]).contains("bs_")).collect();
        let mut object = self.object(resource, text);
        let (action, which) = (self.dice.roll(3), self.dice.roll(ours.len().max(1)));
        let key = |at: usize| match indexed {
            Some(_) => Key::Index(at as i64),
            None => Key::Name(self.name(id, &listed[at])),
        };
        match (action, ours.is_empty()) {
            (0, false) => {
                let key = key(ours[which]);
                self.document = self.engine.delete(&self.document, id, &place, &key).expect("deleted").document;
                Some(Change::Removed)
            }
            (1, false) => {
                let key = key(ours[which]);
                if let Key::Name(name) = &key {
                    let field = self.engine.schema().tables.messages[id].resource.as_ref().expect("rules");
                    match field.identity[..] {
                        [at] => object.set(at, Value::Str(name.as_str().into())),
                        [params, at] => object.object_mut(params).set(at, Value::Str(name.as_str().into())),
                        _ => {}
                    }
                }
                let edited = self.engine.replace(&self.document, id, &place, &key, &object).expect("replaced");
                self.document = edited.document;
                Some(Change::Replaced)
            }
            _ => {
                if let Some(index) = indexed {
                    object.set(index, Value::Int(self.dice.roll(listed.len() + 1) as i64));
                } else if listed.iter().any(|other| self.name(id, other) == self.name(id, &object)) {
                    return None;
                }
                let edited = self.engine.create(&self.document, id, &place, &object).expect("created");
                assert!(edited.unused.is_empty(), "{:?}", edited.unused);
                self.document = edited.document;
                Some(Change::Added)
            }
        }
    }

    fn name(&self, id: MessageId, object: &Object) -> String {
        let rules = self.engine.schema().tables.messages[id].resource.as_ref().expect("rules");
        let name = match rules.identity[..] {
            [at] => object.str(at),
            [params, at] => object.object(params).and_then(|params| params.str(at)),
            _ => None,
        };
        name.unwrap_or_default().to_owned()
    }

    fn set(&mut self) -> Option<Change> {
        let (resource, text) = SETTINGS[self.dice.roll(SETTINGS.len())];
        let id = self.id(resource);
        let listed = self.engine.list(&self.document, id, &Place::default()).expect("a list");
        if listed.is_empty() {
            return None;
        }
        let at = self.dice.roll(listed.len());
        let name = self.name(id, &listed[at]);
        let key = if name.is_empty() { Key::Singleton } else { Key::Name(name) };
        let mut object = self.engine.get(&self.document, id, &Place::default(), &key).expect("a section");
        let values = self.object(resource, text);
        for (field, value) in values.iter() {
            object.set(field, value.clone());
        }
        let edited = self.engine.replace(&self.document, id, &Place::default(), &key, &object).expect("replaced");
        assert!(edited.unused.is_empty(), "{:?}", edited.unused);
        self.document = edited.document;
        Some(Change::Set)
    }
}

/// How many lines were taken out of `old` and put in, where both differ.
fn changed(old: &[u8], new: &[u8]) -> (usize, usize) {
    let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (mut old, new) = (lines(old), lines(new));
    // A last line without an ending gets one when something comes behind it.
    if let Some(last) = old.last_mut()
        && !last.ends_with(b"\n")
        && !new.contains(last)
    {
        last.push(b'\n');
    }
    let start = old.iter().zip(&new).take_while(|(one, two)| one == two).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(one, two)| one == two).count();
    (old.len() - end - start, new.len() - end - start)
}

/// What HAProxy has against a text, without places.
fn complaints(dir: &Path, bytes: &[u8]) -> BTreeSet<String> {
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, bytes).expect("a file");
    // Some keywords make files, where they say no folder in the one that HAProxy is started in.
    let check = Command::new(binary()).args(["-c", "-f"]).arg(&file).current_dir(dir).output();
    let output = check.expect("haproxy must be installed");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let alerts = text.lines().filter(|line| line.starts_with("[ALERT]"));
    let plain = |line: &str| line.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    // The number of errors grows with nothing that an edit may change, but the lines that sum up carry places.
    alerts.map(plain).filter(|line| !line.contains("Error(s) found in configuration file")).collect()
}

/// The files of HAProxy's packages, when they are installed, and those of the tests.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let folders =
        ["tests/data/configs", "/usr/share/doc/haproxy/examples", "/usr/share/doc/haproxy-doc", "/etc/haproxy"];
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten()) {
        if entry.path().extension().is_some_and(|extension| extension == "cfg") {
            found.push((entry.path().display().to_string(), std::fs::read(entry.path()).expect("a file")));
        }
    }
    found.sort();
    found
}

#[test]
fn a_thousand_edits_leave_all_other_bytes_and_haproxys_opinion_alone() {
    let schema = Arc::new(Schema::compile(backstay::proto::SCHEMA).expect("a schema"));
    let dir = tempfile::tempdir().expect("a folder");
    let files = files();
    let mut count = 0;
    let (mut taken, mut asked) = (0, 0);
    for (number, (name, bytes)) in files.iter().enumerate() {
        let document = Document::parse(bytes);
        assert_eq!(document.to_bytes(), *bytes, "{name}");
        let mut before = complaints(dir.path(), bytes);
        // HAProxy may stop at a last line without its end, which the first new line completes: what it finds behind is
        // not the fault of the edit.
        let mut completed = bytes.clone();
        completed.push(b'\n');
        before.extend(complaints(dir.path(), &completed));
        let mut editor = Editor { engine: Engine::new(schema.clone()), document, dice: Dice(number as u64) };
        let share = EDITS.div_ceil(files.len());
        let (mut edits, mut tries) = (0, 0);
        while edits < share && tries < 4 * share {
            tries += 1;
            let old = editor.document.to_bytes();
            let Some(change) = editor.edit() else { continue };
            edits += 1;
            let new = editor.document.to_bytes();
            let lines = changed(&old, &new);
            let allowed = match change {
                Change::Added => lines == (0, 1),
                Change::Removed => lines == (1, 0),
                Change::Replaced => lines == (1, 1) || lines == (0, 0),
                // A setting that stands twice becomes one line.
                Change::Set => lines.0 <= 2 && lines.1 <= 1,
            };
            assert!(allowed, "{name}: {lines:?}\n{}", String::from_utf8_lossy(&new));
            assert_eq!(Document::parse(&new).to_bytes(), new, "{name}");
            if edits % ASK_EVERY == 0 || edits == share {
                asked += 1;
                taken += usize::from(before.is_empty());
                let after = complaints(dir.path(), &new);
                // A setting that stood twice has been one of the complaints.
                assert!(
                    after.is_subset(&before) && after.is_empty() == before.is_empty(),
                    "{after:?} {before:?} {name} after {edits} edits\n{}",
                    String::from_utf8_lossy(&new)
                );
            }
        }
        count += edits;
    }
    assert!(count > EDITS / 2, "{count} edits in {} files", files.len());
    assert!(taken > 1, "haproxy took {taken} of {asked} texts");
}
