//! Quoted and escaped words, as HAProxy reads them.

use super::super::address::{Key, Place};
use super::super::engine::Engine;
use super::respelled;
use crate::document::Document;
use crate::schema::Schema;
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::MessageId;
use crate::schema::words::split;

const FILE: &str = r#"defaults
    mode "http"
    timeout connect "1s"
    timeout client '1s'
    "timeout" server 1\s
resolvers r
    nameserver dns "127.0.0.11:53"
frontend "fe"
    bind "127.0.0.1:6804" name "web"
    maxconn "100"
    default_backend "be"
    http-request set-header "X-A" "%[src] x" if { path "/a b" }
    http-request auth realm "My Realm"
backend be
    balance 'roundrobin'
    option httpchk "GET" "/x"
    "server" s\1 "127.0.0.1:80" "check" weight "10" # one
    server s2 127.0.0.1:80 cookie "a b" sni str("a b")
"#;

struct Case {
    engine: Engine,
    document: Document,
}

impl Case {
    fn new() -> Case {
        let engine = Engine::new(std::sync::Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
        Case { engine, document: Document::parse(FILE.replace("\\s", "s").replace("s\\1", "\"s\"1").as_bytes()) }
    }

    fn id(&self, name: &str) -> MessageId {
        self.engine.schema().tables.message_by_name[format!("backstay.configuration.v2.{name}").as_str()]
    }

    fn place(section: &str, name: &str) -> Place {
        Place { section: (!section.is_empty()).then(|| section.into()), name: name.to_owned() }
    }

    fn get(&self, resource: &str, place: &Place, key: &str) -> String {
        let object = self.engine.get(&self.document, self.id(resource), place, &Key::Name(key.to_owned())).unwrap();
        let mut out = Vec::new();
        json::write(&self.engine.schema().tables, self.id(resource), &object, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn replace(&self, resource: &str, place: &Place, key: Key, body: &str) -> String {
        let rules = JsonRules { drop_zero: true, only_v2: false };
        let read = json::read(&self.engine.schema().tables, self.id(resource), body.as_bytes(), rules).unwrap();
        let edited = self.engine.replace(&self.document, self.id(resource), place, &key, &read.object).unwrap();
        String::from_utf8(edited.document.to_bytes()).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.document.to_bytes()).unwrap()
    }
}

#[test]
fn words_in_quotes_are_the_words() {
    let case = Case::new();
    let (be, fe, none) = (Case::place("backend", "be"), Case::place("frontend", "fe"), Case::place("", ""));
    let shown = case.get("Defaults", &none, "unnamed_defaults_1");
    for part in
        [r#""mode":"http""#, r#""connect_timeout":1000"#, r#""client_timeout":1000"#, r#""server_timeout":1000"#]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(
        case.get("Nameserver", &Case::place("resolvers", "r"), "dns"),
        r#"{"address":"127.0.0.11","name":"dns","port":53}"#
    );
    assert_eq!(case.get("Frontend", &none, "fe"), r#"{"default_backend":"be","maxconn":100,"name":"fe"}"#);
    assert_eq!(case.get("Bind", &fe, "web"), r#"{"name":"web","address":"127.0.0.1","port":6804}"#);
    let shown = case.get("Backend", &none, "be");
    for part in [r#""balance":{"algorithm":"roundrobin"}"#, r#""method":"GET","uri":"/x""#] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let server = r#"{"check":"enabled","weight":10,"address":"127.0.0.1","name":"s1","port":80}"#;
    assert_eq!(case.get("Server", &be, "s1"), server);
}

#[test]
fn free_text_is_shown_as_it_is_written() {
    let case = Case::new();
    let rule = case.engine.list(&case.document, case.id("HttpRequestRule"), &Case::place("frontend", "fe")).unwrap();
    let mut out = Vec::new();
    json::write(&case.engine.schema().tables, case.id("HttpRequestRule"), &rule[0], &mut out);
    let shown = String::from_utf8(out).unwrap();
    assert!(shown.contains(r#""hdr_format":"\"%[src] x\"""#) && shown.contains(r#"{ path \"/a b\" }"#), "{shown}");
}

#[test]
fn what_is_shown_can_be_put_back_and_no_byte_changes() {
    let case = Case::new();
    let (be, none) = (Case::place("backend", "be"), Case::place("", ""));
    for (resource, place, key) in [
        ("Defaults", &none, "unnamed_defaults_1"),
        ("Frontend", &none, "fe"),
        ("Backend", &none, "be"),
        ("Server", &be, "s1"),
        ("Server", &be, "s2"),
        ("Bind", &Case::place("frontend", "fe"), "web"),
        ("Nameserver", &Case::place("resolvers", "r"), "dns"),
    ] {
        let shown = case.get(resource, place, key);
        assert_eq!(case.replace(resource, place, Key::Name(key.to_owned()), &shown), case.text(), "{resource} {key}");
    }
}

#[test]
fn words_that_stay_keep_their_quotes() {
    let case = Case::new();
    let be = Case::place("backend", "be");
    let wanted = case.get("Server", &be, "s1").replace("10", "11");
    let text = case.replace("Server", &be, Key::Name("s1".to_owned()), &wanted);
    let line = case.text().lines().find(|line| line.contains("# one")).unwrap().to_owned();
    assert_eq!(text, case.text().replace(&line, &line.replace("\"10\"", "11")));
    let none = Case::place("", "");
    let wanted = case.get("Backend", &none, "be").replace("/x", "/y");
    let text = case.replace("Backend", &none, Key::Name("be".to_owned()), &wanted);
    assert_eq!(text, case.text().replace("\"/x\"", "/y"));
}

#[test]
fn two_names_that_read_the_same_are_one() {
    let case = Case::new();
    let rules = JsonRules { drop_zero: true, only_v2: false };
    for (resource, place, body) in [
        ("Server", Case::place("backend", "be"), r#"{"name":"s1","address":"127.0.0.2"}"#),
        ("Frontend", Case::place("", ""), r#"{"name":"fe"}"#),
        ("Bind", Case::place("frontend", "fe"), r#"{"name":"web","address":"127.0.0.1","port":80}"#),
    ] {
        let read = json::read(&case.engine.schema().tables, case.id(resource), body.as_bytes(), rules).unwrap();
        let error = case.engine.create(&case.document, case.id(resource), &place, &read.object).unwrap_err();
        assert_eq!(error.reason(), crate::error::Reason::ObjectExists, "{resource}");
    }
}

#[test]
fn words_that_stay_keep_their_spelling() {
    let spell = |old: &str, new: &str| respelled(&split(old).words, old, new, |_| ());
    assert_eq!(
        spell(r#"server "s1" '1.2.3.4:80' "check""#, "server s1 1.2.3.4:80 check weight 5"),
        r#"server "s1" '1.2.3.4:80' "check" weight 5"#
    );
    assert_eq!(spell(r#""mode" http"#, "mode tcp"), r#""mode" tcp"#);
    assert_eq!(spell(r#"a "b" c"#, "a c"), "a c");
    assert_eq!(spell(r#"a "b c" "d""#, r#"a x "b c" d"#), r#"a x "b c" "d""#);
}

#[test]
fn a_spelling_that_would_say_something_else_is_left() {
    assert_eq!(respelled(&[r#""a""#], "a", "a", str::len), "a");
}

#[test]
fn arguments_stay_in_the_order_of_the_line() {
    let spell = |old: &str, printed: &str, new: &str| {
        respelled(&split(old).words, printed, new, |text| {
            let mut words = split(text).words.into_iter().map(str::to_owned).collect::<Vec<_>>();
            words.sort();
            words.join(" ").replace("1024", "1k")
        })
    };
    for (old, printed, new, expected) in [
        // The same, another value, one more argument, one less.
        ("r code 302 location /a", "r location /a code 302", "r location /b code 302", "r code 302 location /b"),
        ("t size 1k type ip", "t type ip size 1k", "t type ip size 1k nopurge", "t size 1k nopurge type ip"),
        ("t size 1k store a type ip", "t type ip size 1k store a", "t type ip store a", "t store a type ip"),
        ("s a rise 2 fall 2", "s a fall 2 rise 2", "s a fall 3 rise 2", "s a rise 2 fall 3"),
        // Its own order is ours.
        ("r location /a code 302", "r location /a code 302", "r location /a code 303", "r location /a code 303"),
        // A word that is the same is not written anew.
        ("t size 1k type ip", "t type ip size 1024", "t type ip size 1024 nopurge", "t size 1k nopurge type ip"),
        // Nothing is known of the old line.
        ("r code 302 location /a", "", "r location /b code 302", "r location /b code 302"),
    ] {
        assert_eq!(spell(old, printed, new), expected, "{old}");
    }
}

#[test]
fn a_negation_touches_its_word_as_in_the_old_line() {
    let spell = |old: &str, printed: &str, new: &str| respelled(&split(old).words, printed, new, |_| ());
    assert_eq!(spell("c expect !string a", "c expect ! string a", "c expect ! string b"), "c expect !string b");
    assert_eq!(spell("c expect ! string a", "c expect ! string a", "c expect ! string b"), "c expect ! string b");
    assert_eq!(spell("c expect string !a", "c expect string !a", "c expect string !b"), "c expect string !b");
}
