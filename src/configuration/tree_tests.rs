use std::sync::Arc;

use super::*;
use crate::schema::Schema;
use crate::schema::json::{self, JsonRules};

struct Case {
    engine: Engine,
    document: Document,
}

const FILE: &str = "global\n\tdaemon\n\nfrontend f\n  bind :80\n\nbackend b # of shop\n  mode http\n  # rules\n  http-request deny if { path /x } # no x\n  http-request brandnew x\n  http-request   allow\n  # first\n  server s1 127.0.0.1:1   check odd # one\n  server s2 127.0.0.1:2\n  server s3 127.0.0.1:3\n\nbackend c\n";

impl Case {
    fn new(text: &str) -> Case {
        let schema = Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap());
        Case { engine: Engine::new(schema), document: Document::parse(text.as_bytes()) }
    }

    fn id(&self, name: &str) -> MessageId {
        self.engine.schema.tables.message_by_name[format!("backstay.configuration.v2.{name}").as_str()]
    }

    fn object(&self, name: &str, text: &str) -> Object {
        let rules = JsonRules { drop_zero: true, only_v2: false };
        json::read(&self.engine.schema.tables, self.id(name), text.as_bytes(), rules).unwrap().object
    }

    fn tree(&self, key: &str) -> Object {
        self.engine.get(&self.document, self.id("BackendTree"), &Place::default(), &Key::Name(key.into())).unwrap()
    }

    fn json(&self, object: &Object) -> String {
        let mut out = Vec::new();
        json::write(&self.engine.schema.tables, self.id("BackendTree"), object, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn replace(&mut self, key: &str, object: &Object) -> Result<()> {
        let tree = self.id("BackendTree");
        let edited = self.engine.replace(&self.document, tree, &Place::default(), &Key::Name(key.into()), object)?;
        self.document = edited.document;
        if edited.unused.is_empty() { Ok(()) } else { Err(Error::internal(edited.unused.join(","))) }
    }

    fn text(&self) -> String {
        String::from_utf8(self.document.to_bytes()).unwrap()
    }
}

#[test]
fn a_tree_is_a_section_with_all_its_lines() {
    let case = Case::new(FILE);
    assert_eq!(
        case.json(&case.tree("b")),
        r#"{"backend":{"mode":"http","name":"b"},"http_request_rules":[{"cond":"if","cond_test":"{ path /x }","index":0,"type":"deny"},{"index":1,"type":"allow"}],"servers":[{"check":"enabled","address":"127.0.0.1","name":"s1","port":1},{"address":"127.0.0.1","name":"s2","port":2},{"address":"127.0.0.1","name":"s3","port":3}]}"#
    );
    let list = case.engine.list(&case.document, case.id("BackendTree"), &Place::default()).unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(case.json(&list[1]), r#"{"backend":{"name":"c"}}"#);
}

#[test]
fn writing_back_what_was_read_changes_no_byte() {
    let mut case = Case::new(FILE);
    let tree = case.tree("b");
    case.replace("b", &tree).unwrap();
    assert_eq!(case.text(), FILE);
}

#[test]
fn only_lines_that_differ_are_touched() {
    let mut case = Case::new(FILE);
    let wanted = r#"{"backend":{"name":"b","mode":"http","balance":{"algorithm":"roundrobin"}},
        "http_request_rules":[{"type":"allow"},{"type":"reject"}],
        "servers":[{"name":"s4","address":"10.0.0.4"},{"name":"s1","address":"127.0.0.1","port":9},
            {"name":"s3","address":"127.0.0.1","port":3}]}"#;
    let wanted = case.object("BackendTree", wanted);
    case.replace("b", &wanted).unwrap();
    let expected = "global\n\tdaemon\n\nfrontend f\n  bind :80\n\nbackend b # of shop\n  mode http\n  balance roundrobin\n  # rules\n  http-request brandnew x\n  http-request   allow\n  http-request reject\n  server s4 10.0.0.4\n  # first\n  server s1 127.0.0.1:9 odd # one\n  server s3 127.0.0.1:3\n\nbackend c\n";
    assert_eq!(case.text(), expected);
    // What is read is what was written, with the positions that follow from it.
    let read = case.json(&case.tree("b"));
    assert!(
        read.contains(r#""http_request_rules":[{"index":0,"type":"allow"},{"index":1,"type":"reject"}]"#),
        "{read}"
    );
    let again = case.tree("b");
    case.replace("b", &again).unwrap();
    assert_eq!(case.text(), expected);
}

#[test]
fn order_follows_the_list_and_the_fewest_lines_move() {
    let mut case = Case::new(FILE);
    let wanted = r#"{"backend":{"name":"b","mode":"http"},
        "servers":[{"name":"s3","address":"127.0.0.1","port":3},{"name":"s1","address":"127.0.0.1","port":1,"check":"enabled"},
            {"name":"s2","address":"127.0.0.1","port":2}]}"#;
    let wanted = case.object("BackendTree", wanted);
    case.replace("b", &wanted).unwrap();
    let servers: Vec<String> = case.text().lines().filter(|line| line.contains("server ")).map(str::to_owned).collect();
    assert_eq!(
        servers,
        ["  server s3 127.0.0.1:3", "  server s1 127.0.0.1:1   check odd # one", "  server s2 127.0.0.1:2"]
    );
    assert!(!case.text().contains("deny") && case.text().contains("brandnew"), "{}", case.text());
}

#[test]
fn trees_are_created_and_refused_whole() {
    let mut case = Case::new(FILE);
    let tree = case.id("BackendTree");
    let new = case.object(
        "BackendTree",
        r#"{"backend":{"name":"n"},"servers":[{"name":"a","address":"::1","port":1}],"acls":[{"acl_name":"x","criterion":"src","value":"::1"}]}"#,
    );
    let made = case.engine.create(&case.document, tree, &Place::default(), &new).unwrap();
    let text = String::from_utf8(made.document.to_bytes()).unwrap();
    assert!(text.ends_with("backend c\n\nbackend n\n  acl x src ::1\n  server a [::1]:1\n"), "{text}");
    let error = case.engine.create(&made.document, tree, &Place::default(), &new).unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectExists);
    let twice = r#"{"backend":{"name":"b"},"servers":[{"name":"a","address":"h"},{"name":"a","address":"g"}]}"#;
    let twice = case.object("BackendTree", twice);
    let error = case.replace("b", &twice).unwrap_err();
    assert_eq!(
        (error.reason(), error.message()),
        (Reason::ObjectExists, "servers[1]: a is the name of servers[0] too")
    );
    let bad = case.object("BackendTree", r#"{"backend":{"name":"b"},"servers":[{"name":"a","address":"h\nglobal"}]}"#);
    let error = case.replace("b", &bad).unwrap_err();
    assert_eq!(error.violations()[0].field, "servers[0].address");
    let error = case.replace("zz", &new).unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectNotFound);
    assert_eq!(case.text(), FILE);
}

#[test]
fn many_servers_are_replaced_in_one_pass() {
    let server = |number: usize, port: usize| format!("  server s{number} 127.0.0.1:{port}\n");
    let before: String = (0..5000).map(|number| server(number, 1)).collect();
    let mut case = Case::new(&format!("backend b\n{before}"));
    let items: Vec<String> = (0..5000)
        .map(|number| {
            let port = if number % 2 == 0 { 1 } else { 2 };
            format!(r#"{{"name":"s{}","address":"127.0.0.1","port":{port}}}"#, number + 10)
        })
        .collect();
    let wanted = format!(r#"{{"backend":{{"name":"b"}},"servers":[{}]}}"#, items.join(","));
    let wanted = case.object("BackendTree", &wanted);
    case.replace("b", &wanted).unwrap();
    let after: String = (0..5000).map(|number| server(number + 10, if number % 2 == 0 { 1 } else { 2 })).collect();
    assert_eq!(case.text(), format!("backend b\n{after}"));
}

#[test]
fn the_longest_rising_part_stays() {
    let of = |places: &[i64]| {
        let places: Vec<Option<usize>> = places.iter().map(|place| usize::try_from(*place).ok()).collect();
        longest_rising(&places)
    };
    assert_eq!(of(&[0, 1, 2]), [0, 1, 2]);
    assert_eq!(of(&[2, 0, 1]), [1, 2]);
    assert_eq!(of(&[-1, 3, -1, 1, 2, 0]), [3, 4]);
    assert_eq!(of(&[-1]), [0usize; 0]);
}
