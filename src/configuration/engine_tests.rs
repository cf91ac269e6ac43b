use super::*;
use crate::schema::json::{self, JsonRules};

fn engine() -> Engine {
    Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()))
}

struct Case {
    engine: Engine,
    document: Document,
}

impl Case {
    fn new(text: &str) -> Case {
        Case { engine: engine(), document: Document::parse(text.as_bytes()) }
    }

    fn id(&self, name: &str) -> MessageId {
        self.engine.schema.tables.message_by_name[format!("backstay.configuration.v2.{name}").as_str()]
    }

    fn faults(&self, resource: &str, text: &str) -> String {
        let object = self.object(resource, text);
        let found = crate::schema::check::check(&self.engine.schema.tables, self.id(resource), &object, "body");
        found.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect::<Vec<_>>().join("; ")
    }

    fn object(&self, resource: &str, text: &str) -> Object {
        let rules = JsonRules { drop_zero: true, only_v2: false };
        json::read(&self.engine.schema.tables, self.id(resource), text.as_bytes(), rules).unwrap().object
    }

    fn text(&self) -> String {
        String::from_utf8(self.document.to_bytes()).unwrap()
    }

    fn json(&self, resource: &str, object: &Object) -> String {
        let mut out = Vec::new();
        json::write(&self.engine.schema.tables, self.id(resource), object, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn list(&self, resource: &str, place: &Place) -> Vec<String> {
        let objects = self.engine.list(&self.document, self.id(resource), place).unwrap();
        objects.iter().map(|o| self.json(resource, o)).collect()
    }

    fn create(&mut self, resource: &str, place: &Place, text: &str) -> Result<()> {
        let object = self.object(resource, text);
        self.document = self.engine.create(&self.document, self.id(resource), place, &object)?.document;
        Ok(())
    }

    fn replace(&mut self, resource: &str, place: &Place, key: &Key, text: &str) -> Result<()> {
        let object = self.object(resource, text);
        self.document = self.engine.replace(&self.document, self.id(resource), place, key, &object)?.document;
        Ok(())
    }

    fn delete(&mut self, resource: &str, place: &Place, key: &Key) -> Result<()> {
        self.document = self.engine.delete(&self.document, self.id(resource), place, key)?.document;
        Ok(())
    }
}

fn inside(section: &str, name: &str) -> Place {
    Place { section: Some(section.into()), name: name.to_owned() }
}

fn named(name: &str) -> Key {
    Key::Name(name.to_owned())
}

const FILE: &str = "# mine\nglobal\n\tdaemon # yes\n\ndefaults\n  mode http\n\nfrontend f\n  bind :80\n  # why\n  http-request deny if { path /x }\n  http-request brandnew-action x\n  http-request allow\n  default_backend b\n\nbackend b\n  mode http # kept\n  server s1 127.0.0.1:1 check brandnew abc # one\n  server s2 127.0.0.1:2\n";

#[test]
fn servers_are_created_replaced_and_deleted_without_touching_other_bytes() {
    let mut case = Case::new(FILE);
    let place = inside("backend", "b");
    case.create("Server", &place, r#"{"name":"s3","address":"10.0.0.3","port":80,"weight":5}"#).unwrap();
    assert_eq!(case.text(), format!("{FILE}  server s3 10.0.0.3:80 weight 5\n"));
    case.delete("Server", &place, &named("s3")).unwrap();
    assert_eq!(case.text(), FILE);
    let same = r#"{"name":"s1","address":"127.0.0.1","port":1,"check":"enabled"}"#;
    case.replace("Server", &place, &named("s1"), same).unwrap();
    assert_eq!(case.text(), FILE, "replacing an object with itself changes nothing");
    case.replace("Server", &place, &named("s1"), r#"{"name":"s1","address":"127.0.0.1","port":9}"#).unwrap();
    assert_eq!(case.text(), FILE.replace("127.0.0.1:1 check brandnew abc # one", "127.0.0.1:9 brandnew abc # one"));
}

#[test]
fn names_are_unique_and_parents_must_exist() {
    let mut case = Case::new(FILE);
    let server = r#"{"name":"s2","address":"127.0.0.1"}"#;
    let error = case.create("Server", &inside("backend", "b"), server).unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectExists);
    let error = case.create("Server", &inside("backend", "zz"), server).unwrap_err();
    assert_eq!(error.reason(), Reason::ParentNotFound);
    let error = case.delete("Server", &inside("backend", "b"), &named("zz")).unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectNotFound);
    let unknown = case.engine.list(&case.document, case.id("Server"), &inside("backend", "zz")).unwrap_err();
    assert_eq!(unknown.reason(), Reason::ParentNotFound);
    assert_eq!(case.text(), FILE);
}

#[test]
fn unreadable_rules_keep_their_place_and_have_no_index() {
    let mut case = Case::new(FILE);
    let place = inside("frontend", "f");
    assert_eq!(case.list("HttpRequestRule", &place).len(), 2);
    case.create("HttpRequestRule", &place, r#"{"index":2,"type":"reject"}"#).unwrap();
    case.create("HttpRequestRule", &place, r#"{"index":0,"type":"wait-for-handshake"}"#).unwrap();
    case.create("HttpRequestRule", &place, r#"{"index":2,"type":"set-path","path_fmt":"/y"}"#).unwrap();
    let rules: Vec<_> = case.text().lines().filter(|l| l.contains("http-request")).map(str::to_owned).collect();
    assert_eq!(
        rules,
        [
            "  http-request wait-for-handshake",
            "  http-request deny if { path /x }",
            "  http-request brandnew-action x",
            "  http-request set-path /y",
            "  http-request allow",
            "  http-request reject",
        ]
    );
    assert!(case.text().contains("  # why\n  http-request deny"), "a comment stays above its line");
    let error = case.create("HttpRequestRule", &place, r#"{"index":9,"type":"reject"}"#).unwrap_err();
    assert_eq!(error.reason(), Reason::IndexOutOfRange);
    case.delete("HttpRequestRule", &place, &Key::Index(1)).unwrap();
    assert!(!case.text().contains("http-request deny"));
    assert_eq!(case.list("HttpRequestRule", &place).len(), 4);
}

#[test]
fn an_acl_goes_before_the_rules_that_may_use_it() {
    let mut case = Case::new(FILE);
    case.create("Acl", &inside("frontend", "f"), r#"{"index":0,"acl_name":"a","criterion":"path","value":"/a"}"#)
        .unwrap();
    let text = case.text();
    assert!(text.find("acl a path /a").unwrap() < text.find("http-request deny").unwrap(), "{text}");
}

#[test]
fn sections_change_only_the_lines_that_differ() {
    let mut case = Case::new(FILE);
    let id = case.id("Backend");
    let read = case.engine.get(&case.document, id, &Place::default(), &named("b")).unwrap();
    assert_eq!(case.json("Backend", &read), r#"{"mode":"http","name":"b"}"#);
    case.document = case.engine.replace(&case.document, id, &Place::default(), &named("b"), &read).unwrap().document;
    assert_eq!(case.text(), FILE);
    let wanted = r#"{"name":"b","mode":"http","balance":{"algorithm":"leastconn"},"server_timeout":5000}"#;
    case.replace("Backend", &Place::default(), &named("b"), wanted).unwrap();
    let expected =
        FILE.replace("  mode http # kept\n", "  mode http # kept\n  balance leastconn\n  timeout server 5000\n");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&case.text()), sorted(&expected));
    case.replace("Backend", &Place::default(), &named("b"), r#"{"name":"b","mode":"http"}"#).unwrap();
    assert_eq!(case.text(), FILE, "removing the fields again gives the bytes back");
}

#[test]
fn lines_of_a_list_stay_as_they_are_written_when_others_come_and_go() {
    let mut case = Case::new("global\n    stats socket /a  mode 600 level admin # ours\n    stats socket /b\n");
    let global = r#"{"runtime_apis":[{"address":"/a","level":"admin","mode":"600"},{"address":"/c"}]}"#;
    case.replace("Global", &Place::default(), &Key::Singleton, global).unwrap();
    assert_eq!(case.text(), "global\n    stats socket /a  mode 600 level admin # ours\n    stats socket /c\n");
}

#[test]
fn a_created_section_can_be_deleted_without_a_trace() {
    let mut case = Case::new(FILE);
    case.create("Backend", &Place::default(), r#"{"name":"c","mode":"tcp"}"#).unwrap();
    assert!(case.text().ends_with("\nbackend c\n  mode tcp\n"), "{}", case.text());
    case.delete("Backend", &Place::default(), &named("c")).unwrap();
    assert_eq!(case.text(), FILE);
}

#[test]
fn unnamed_defaults_have_a_name_that_is_never_written() {
    let mut case = Case::new(FILE);
    assert_eq!(case.list("Defaults", &Place::default()), [r#"{"mode":"http","name":"unnamed_defaults_1"}"#]);
    let wanted = r#"{"name":"unnamed_defaults_1","mode":"tcp"}"#;
    case.replace("Defaults", &Place::default(), &named("unnamed_defaults_1"), wanted).unwrap();
    assert_eq!(case.text(), FILE.replace("defaults\n  mode http\n", "defaults\n  mode tcp\n"));
}

#[test]
fn any_section_without_a_name_is_found_by_its_number() {
    let text = "crt-store\n  load crt a.pem alias a\n\ncrt-store web\n  crt-base /etc/ssl\n";
    let mut case = Case::new(text);
    let stores = [r#"{"name":"unnamed_crt_store_1"}"#, r#"{"crt_base":"/etc/ssl","name":"web"}"#];
    assert_eq!(case.list("CrtStore", &Place::default()), stores);
    let place = inside("crt-store", "unnamed_crt_store_1");
    assert_eq!(case.list("CrtLoad", &place), [r#"{"alias":"a","name":"a.pem"}"#]);
    case.create("CrtLoad", &place, r#"{"name":"b.pem","ocsp_update":"enabled"}"#).unwrap();
    let wanted = r#"{"name":"unnamed_crt_store_1","key_base":"/keys"}"#;
    case.replace("CrtStore", &Place::default(), &named("unnamed_crt_store_1"), wanted).unwrap();
    assert!(case.text().starts_with("crt-store\n"), "{}", case.text());
    assert!(case.text().contains("  load crt b.pem ocsp-update on\n") && case.text().contains("  key-base /keys\n"));
    case.delete("CrtStore", &Place::default(), &named("unnamed_crt_store_1")).unwrap();
    assert!(case.text().starts_with("crt-store web\n"), "{}", case.text());
}

#[test]
fn only_the_first_of_all_sections_goes_to_the_start() {
    let mut case = Case::new("frontend f\n  mode http\n");
    case.replace("Traces", &Place::default(), &Key::Singleton, r#"{"traces":[{"source":"h1","args":"sink r"}]}"#)
        .unwrap();
    case.replace("Global", &Place::default(), &Key::Singleton, r#"{"maxconn":9}"#).unwrap();
    let kinds: Vec<String> = case
        .text()
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && !line.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(kinds, ["global", "frontend f", "traces"]);
}

#[test]
fn lines_in_conditional_blocks_are_read_and_stay_where_they_are() {
    let text = "frontend f\n  bind :80\n.if feature(QUIC)\n  bind :443 name quic\n.endif\n  mode http\n";
    let mut case = Case::new(text);
    let place = inside("frontend", "f");
    assert_eq!(case.list("Bind", &place).len(), 2);
    case.create("Bind", &place, r#"{"name":"x","port":81}"#).unwrap();
    assert_eq!(case.text(), text.replace(".endif\n", ".endif\n  bind :81 name x\n"));
}

#[test]
fn a_bind_without_a_name_is_found_by_its_address() {
    let mut case = Case::new(FILE);
    let place = inside("frontend", "f");
    assert_eq!(case.list("Bind", &place), [r#"{"name":":80","port":80}"#]);
    case.replace("Bind", &place, &named(":80"), r#"{"name":":80","port":80}"#).unwrap();
    assert_eq!(case.text(), FILE);
    case.delete("Bind", &place, &named(":80")).unwrap();
    assert!(!case.text().contains("bind"));
}

#[test]
fn hostile_values_never_become_lines() {
    let mut case = Case::new(FILE);
    for value in ["a\\nb", "a b", "x#y", "a\\u0000"] {
        let body = format!(r#"{{"name":"s9","address":"{value}"}}"#);
        let error = case.create("Server", &inside("backend", "b"), &body).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidValue, "{value}");
    }
    assert_eq!(case.text(), FILE);
}

#[test]
fn a_name_that_reads_the_same_is_the_same_object() {
    let file = "backend \"b\"\n  server s1 h:80\n  server \"a b\" h:81\n  server \"${A}\" h:82\n\nresolvers a\\ r\n";
    let mut case = Case::new(file);
    let place = inside("backend", "b");
    for name in [r#"\"s1\""#, r"s\\x31", r"a\\ b", "'a b'", r#"\"${A}\""#] {
        let error = case.create("Server", &place, &format!(r#"{{"name":"{name}","address":"h"}}"#)).unwrap_err();
        assert_eq!(error.reason(), Reason::ObjectExists, "{name}");
    }
    for (resource, name) in [("Backend", "'b'"), ("Backend", r"\\x62"), ("Resolver", r#"\"a r\""#)] {
        let error = case.create(resource, &Place::default(), &format!(r#"{{"name":"{name}"}}"#)).unwrap_err();
        assert_eq!(error.reason(), Reason::ObjectExists, "{name}");
    }
    assert_eq!(case.text(), file);
    case.create("Server", &place, r#"{"name":"\"${B}\"","address":"h"}"#).unwrap();
}

#[test]
fn a_last_rule_goes_behind_lines_that_begin_with_no() {
    let mut case = Case::new("frontend f\n  log global\n  no log\n  bind :80\n");
    let place = inside("frontend", "f");
    case.create("LogTarget", &place, r#"{"index":2,"global":true}"#).unwrap();
    assert_eq!(case.text(), "frontend f\n  log global\n  no log\n  log global\n  bind :80\n");
}

#[test]
fn a_value_that_is_set_replaces_what_nobody_could_read_in_its_place() {
    let file = "fcgi-app a\n  docroot /srv/a b # mine\n  index x\n\nhttp-errors e\n  errorfile 407\n  errorfile 503 /a\n  errorfile 0 /b\n  errorfile 599 /c\n\nbackend b\n  option foo x\n  timeout connect never\n  stats foo\n";
    let mut case = Case::new(file);
    let nowhere = Place::default();
    case.replace("FcgiApp", &nowhere, &named("a"), r#"{"name":"a","docroot":"/srv/www","index":"x"}"#).unwrap();
    let list = r#"{"name":"e","error_files":[{"code":503,"file":"/a"},{"code":404,"file":"/d"}]}"#;
    case.replace("HttpErrorsSection", &nowhere, &named("e"), list).unwrap();
    case.replace("Backend", &nowhere, &named("b"), r#"{"name":"b","connect_timeout":5,"adv_check":"httpchk"}"#)
        .unwrap();
    assert_eq!(
        case.text(),
        "fcgi-app a\n  docroot /srv/www # mine\n  index x\n\nhttp-errors e\n  errorfile 503 /a\n  errorfile 404 /d\n  errorfile 599 /c\n\nbackend b\n  option httpchk\n  option foo x\n  timeout connect 5\n  stats foo\n"
    );

    // What is not set, or says what is wanted already, touches nothing.
    let mut case = Case::new(file);
    case.replace("FcgiApp", &nowhere, &named("a"), r#"{"name":"a","index":"x"}"#).unwrap();
    case.replace(
        "HttpErrorsSection",
        &nowhere,
        &named("e"),
        r#"{"name":"e","error_files":[{"code":503,"file":"/a"}]}"#,
    )
    .unwrap();
    case.replace("Backend", &nowhere, &named("b"), r#"{"name":"b"}"#).unwrap();
    assert_eq!(case.text(), file);
}

#[test]
fn a_condition_comes_whole_or_not_at_all() {
    let case = Case::new("");
    let faults = |resource: &str, text: &str| case.faults(resource, text);
    for (resource, mut json) in [
        ("BackendSwitchingRule", serde_json::json!({"index": 0, "name": "b"})),
        ("HttpRequestRule", serde_json::json!({"index": 0, "type": "deny"})),
        ("HttpResponseRule", serde_json::json!({"index": 0, "type": "deny"})),
        ("HttpAfterResponseRule", serde_json::json!({"index": 0, "type": "allow"})),
        ("TcpRequestRule", serde_json::json!({"index": 0, "type": "content", "action": "reject"})),
        ("TcpResponseRule", serde_json::json!({"index": 0, "type": "content", "action": "reject"})),
        ("StickRule", serde_json::json!({"index": 0, "type": "on", "pattern": "src"})),
        ("ServerSwitchingRule", serde_json::json!({"index": 0, "target_server": "s"})),
    ] {
        assert_eq!(faults(resource, &json.to_string()), "", "{resource}");
        json["cond"] = "unless".into();
        assert_eq!(faults(resource, &json.to_string()), "cond: needs cond_test to be set too", "{resource}");
        json["cond_test"] = "".into();
        assert_eq!(faults(resource, &json.to_string()), "cond: needs cond_test to be set too", "{resource}");
        json["cond_test"] = "TRUE".into();
        assert_eq!(faults(resource, &json.to_string()), "", "{resource}");
        json.as_object_mut().unwrap().remove("cond");
        assert_eq!(faults(resource, &json.to_string()), "cond_test: needs cond to be set too", "{resource}");
    }
    let stats = r#"{"name":"b","stats_options":{"stats_admin":true,"stats_admin_cond":"if"}}"#;
    assert_eq!(faults("Backend", stats), "stats_options.stats_admin_cond: needs stats_admin_cond_test to be set too");
}

#[test]
fn a_keyword_is_refused_and_not_read_in_sections_that_do_not_take_it() {
    let body = r#"{"name":"d","stats_options":{"stats_admin":true,"stats_http_requests":[{"type":"allow"}]}}"#;
    let case = Case::new("");
    assert_eq!(case.faults("Backend", body), "");
    assert_eq!(
        case.faults("Defaults", body),
        "stats_options.stats_admin: haproxy does not take it in defaults sections; \
         stats_options.stats_http_requests: haproxy does not take it in defaults sections"
    );
}

#[test]
fn stats_sockets_are_read_as_haproxy_reads_them_and_those_of_admins_come_first() {
    let text = r#"global
    stats socket /run/user.sock mode 666 level user
    setenv DIR /run/mine
    presetenv DIR /run/other
    presetenv HOST 127.0.0.1
    stats socket "${DIR}/admin.sock" mode 600 level admin
    stats socket "${HOME}/plain.sock"
global
    stats socket /run/a\ b.sock level admin
    stats socket abns@edge
    stats socket "${HOST}:9999" level operator
"#;
    let environment = |name: &str| (name == "HOME").then(|| "/run/home".to_owned());
    assert_eq!(
        engine().stats_sockets(&Document::parse(text.as_bytes()), &environment),
        [
            "/run/mine/admin.sock",
            "/run/a b.sock",
            "/run/user.sock",
            "/run/home/plain.sock",
            "abns@edge",
            "127.0.0.1:9999"
        ]
    );
}

#[test]
fn several_global_sections_are_read_as_one_and_edited_where_their_lines_stand() {
    let text = "global\n    nbthread 1\n\n# More.\nfrontend fe\n    mode http\n\n# Limits.\nglobal\n    maxconn 500\n    log 127.0.0.1 local0\n";
    let mut case = Case::new(text);
    let object = case.engine.get(&case.document, case.id("Global"), &Place::default(), &Key::Singleton).unwrap();
    let mut shown = Vec::new();
    json::write(&case.engine.schema.tables, case.id("Global"), &object, &mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains(r#""maxconn":500"#) && shown.contains(r#""nbthread":1"#), "{shown}");
    let global = Place { section: Some("global".into()), name: String::new() };
    assert_eq!(case.engine.list(&case.document, case.id("LogTarget"), &global).unwrap().len(), 1);
    case.replace("Global", &Place::default(), &Key::Singleton, r#"{"nbthread":1,"maxconn":600}"#).unwrap();
    assert_eq!(case.text(), text.replace("500", "600"));
    case.replace("Global", &Place::default(), &Key::Singleton, r#"{"nbthread":2,"maxconn":600,"maxpipes":3}"#).unwrap();
    assert_eq!(case.text(), text.replace("500", "600").replace("nbthread 1\n", "nbthread 2\n    maxpipes 3\n"));
    case.engine.delete(&case.document, case.id("LogTarget"), &global, &Key::Index(0)).unwrap();
}
