use std::sync::Arc;

use crate::configuration::address::{Key, Place};
use crate::configuration::engine::Engine;
use crate::document::Document;
use crate::error::Reason;
use crate::schema::Schema;
use crate::schema::json::{self, JsonRules};
use crate::schema::tables::MessageId;
use crate::schema::value::Object;

fn engine() -> Engine {
    Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()))
}

fn id(engine: &Engine, name: &str) -> MessageId {
    engine.schema().tables.message_by_name[format!("backstay.configuration.v2.{name}").as_str()]
}

fn object(engine: &Engine, name: &str, text: &str, only_v2: bool) -> Object {
    let rules = JsonRules { drop_zero: true, only_v2 };
    json::read(&engine.schema().tables, id(engine, name), text.as_bytes(), rules).unwrap().object
}

fn text(engine: &Engine, name: &str, object: &Object) -> String {
    let mut out = Vec::new();
    json::write(&engine.schema().tables, id(engine, name), object, &mut out);
    String::from_utf8(out).unwrap()
}

fn get(engine: &Engine, file: &str, name: &str, key: &Key) -> String {
    let document = Document::parse(file.as_bytes());
    text(engine, name, &engine.get(&document, id(engine, name), &Place::default(), key).unwrap())
}

fn backend() -> Key {
    Key::Name("b".to_owned())
}

#[test]
fn what_v2_cannot_say_is_said_over_grpc_and_hidden_over_rest() {
    let all = engine();
    let v2 = all.for_v2();
    let file = "backend b\n  balance url_param id check_post max_wait 20\n";
    assert_eq!(
        get(&all, file, "Backend", &backend()),
        r#"{"balance":{"algorithm":"url_param","url_param":"id","url_param_in_body":true,"url_param_max_wait":20},"name":"b"}"#
    );
    assert_eq!(
        get(&v2, file, "Backend", &backend()),
        r#"{"balance":{"algorithm":"url_param","url_param":"id","url_param_max_wait":20},"name":"b"}"#
    );
    let file = "global\n  master-worker no-exit-on-failure\n  external-check preserve-env\n  tune.lua.maxmem 10\n";
    let global = get(&all, file, "Global", &Key::Singleton);
    assert!(global.contains(r#""external_check_preserve_env":true"#), "{global}");
    assert!(global.contains(r#""master_worker_no_exit_on_failure":true"#), "{global}");
    assert!(global.contains(r#""lua_maxmem_megabytes":10"#), "{global}");
    assert_eq!(
        get(&v2, file, "Global", &Key::Singleton),
        r#"{"external_check":true,"master-worker":true,"tune_options":{"lua_maxmem":true}}"#
    );
}

#[test]
fn an_object_is_there_over_rest_although_nothing_of_it_is_shown() {
    let (all, file) = (engine(), "backend b\n  stats scope .\n");
    let shown = |engine: &Engine| get(engine, file, "Backend", &backend());
    assert_eq!(shown(&all), r#"{"name":"b","stats_options":{"stats_scopes":[{"proxy":"."}]}}"#);
    assert_eq!(shown(&all.for_v2()), r#"{"name":"b","stats_options":{}}"#);
}

#[test]
fn a_line_that_its_section_does_not_take_is_left_alone() {
    let file = "defaults d\n  stats admin if TRUE\n  retries 5\n";
    let (all, key) = (engine(), Key::Name("d".to_owned()));
    let document = Document::parse(file.as_bytes());
    let wanted = object(&all, "Defaults", r#"{"name":"d","retries":6}"#, false);
    let edited = all.replace(&document, id(&all, "Defaults"), &Place::default(), &key, &wanted).unwrap();
    assert_eq!(String::from_utf8(edited.document.to_bytes()).unwrap(), file.replace('5', "6"));
    assert_eq!(get(&all, file, "Defaults", &key), r#"{"name":"d","retries":5}"#);
}

#[test]
fn what_v2_cannot_see_survives_a_replacement_over_rest() {
    let v2 = engine().for_v2();
    let file = "global\n  master-worker no-exit-on-failure\n  tune.lua.maxmem 10\n  maxconn 5\n";
    let document = Document::parse(file.as_bytes());
    let wanted = object(
        &v2,
        "Global",
        r#"{"master-worker":true,"master_worker_no_exit_on_failure":false,"tune_options":{"lua_maxmem":true},"maxconn":6}"#,
        true,
    );
    let edited = v2.replace(&document, id(&v2, "Global"), &Place::default(), &Key::Singleton, &wanted).unwrap();
    assert_eq!(String::from_utf8(edited.document.to_bytes()).unwrap(), file.replace("maxconn 5", "maxconn 6"));
    let wanted = object(&v2, "Global", r#"{"maxconn":5}"#, true);
    let edited = v2.replace(&document, id(&v2, "Global"), &Place::default(), &Key::Singleton, &wanted).unwrap();
    assert_eq!(String::from_utf8(edited.document.to_bytes()).unwrap(), "global\n  maxconn 5\n");
}

#[test]
fn counters_of_sc_set_gpt_have_their_own_names_over_grpc() {
    let all = engine();
    let v2 = all.for_v2();
    let document = Document::parse(b"frontend f\n  http-request sc-set-gpt(1,2) 5\n");
    let place = Place { section: Some("frontend".into()), name: "f".to_owned() };
    let name = "HttpRequestRule";
    let read = |engine: &Engine| {
        let rule = engine.get(&document, id(engine, name), &place, &Key::Index(0)).unwrap();
        text(engine, name, &rule)
    };
    assert_eq!(read(&all), r#"{"gpt_idx":1,"gpt_sc_id":2,"index":0,"sc_int":5,"type":"sc-set-gpt"}"#);
    assert_eq!(read(&v2), r#"{"index":0,"sc_id":1,"sc_idx":2,"sc_int":5,"type":"sc-set-gpt"}"#);
    let replaced = |engine: &Engine, json: &str, only_v2: bool| {
        let rule = object(engine, name, json, only_v2);
        let edited = engine.replace(&document, id(engine, name), &place, &Key::Index(0), &rule).unwrap();
        assert!(edited.unused.is_empty(), "{:?}", edited.unused);
        String::from_utf8(edited.document.to_bytes()).unwrap()
    };
    let v2_rule = r#"{"index":0,"sc_id":3,"sc_idx":4,"sc_int":5,"type":"sc-set-gpt"}"#;
    assert!(replaced(&v2, v2_rule, true).contains("sc-set-gpt(3,4) 5"));
    let rule = r#"{"index":0,"gpt_idx":6,"gpt_sc_id":0,"sc_int":5,"type":"sc-set-gpt"}"#;
    assert!(replaced(&all, rule, false).contains("sc-set-gpt(6,0) 5"));
}

#[test]
fn listen_sections_are_their_own_and_parts_of_v2_only_when_wanted() {
    let all = engine();
    let file =
        "frontend f\n\nlisten l\n  bind :80\n  mode http\n  retries 3\n  monitor-uri /x\n  server s1 127.0.0.1\n";
    let key = Key::Name("l".to_owned());
    assert_eq!(get(&all, file, "Listen", &key), r#"{"mode":"http","monitor_uri":"/x","name":"l","retries":3}"#);
    let document = Document::parse(file.as_bytes());
    let names =
        |engine: &Engine, name: &str| engine.list(&document, id(engine, name), &Place::default()).unwrap().len();
    let hidden = all.for_v2();
    assert_eq!((names(&hidden, "Frontend"), names(&hidden, "Backend")), (1, 0));
    let shown = all.for_v2().showing_listens(true);
    assert_eq!((names(&shown, "Frontend"), names(&shown, "Backend")), (2, 1));
    assert_eq!(get(&shown, file, "Frontend", &key), r#"{"mode":"http","monitor_uri":"/x","name":"l"}"#);
    assert_eq!(get(&shown, file, "Backend", &key), r#"{"mode":"http","name":"l","retries":3}"#);
    let place = Place { section: Some("backend".into()), name: "l".to_owned() };
    assert_eq!(shown.list(&document, id(&shown, "Server"), &place).unwrap().len(), 1);
    // Written as a frontend, the lines of the backend stay.
    let wanted = object(&shown, "Frontend", r#"{"name":"l","mode":"tcp"}"#, true);
    let edited = shown.replace(&document, id(&shown, "Frontend"), &Place::default(), &key, &wanted).unwrap();
    let text = String::from_utf8(edited.document.to_bytes()).unwrap();
    assert_eq!(text, file.replace("mode http", "mode tcp").replace("  monitor-uri /x\n", ""));
}

#[test]
fn fields_without_a_line_are_reported() {
    let all = engine();
    let name = "TcpRequestRule";
    let rule = object(
        &all,
        name,
        r#"{"index":0,"type":"content","action":"do-resolve","var_name":"ip","resolve_var":"x","resolve_resolvers":"r","expr":"src"}"#,
        false,
    );
    let place = Place { section: Some("frontend".into()), name: "f".to_owned() };
    let edited = all.create(&Document::parse(b"frontend f\n"), id(&all, name), &place, &rule).unwrap();
    assert_eq!(edited.unused, ["resolve_var"]);
}

#[test]
fn what_needs_a_later_haproxy_is_refused() {
    let old = engine().for_version((2, 6));
    let rule = object(&old, "HttpAfterResponseRule", r#"{"index":0,"type":"sc-inc-gpc1","sc_id":1}"#, false);
    let place = Place { section: Some("frontend".into()), name: "f".to_owned() };
    let document = Document::parse(b"frontend f\n");
    let error = old.create(&document, id(&old, "HttpAfterResponseRule"), &place, &rule).unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidField);
    assert_eq!(error.message(), "type in body `sc-inc-gpc1` needs haproxy 2.8 or later, this is 2.6");
    let new = old.for_version((2, 8));
    assert!(new.create(&document, id(&new, "HttpAfterResponseRule"), &place, &rule).is_ok());
}

#[test]
fn what_a_later_haproxy_has_removed_is_refused_and_still_read() {
    let new = engine().for_version((3, 3));
    let program = object(&new, "Program", r#"{"name":"p","command":"/bin/true"}"#, false);
    let error = new.create(&Document::parse(b""), id(&new, "Program"), &Place::default(), &program).unwrap_err();
    assert_eq!(error.reason(), Reason::InvalidField);
    assert_eq!(
        error.message(),
        "name in body the keyword is gone from haproxy 3.3 on, the last that has it is 3.2, this is 3.3"
    );
    let old = engine().for_version((3, 2));
    assert!(old.create(&Document::parse(b""), id(&old, "Program"), &Place::default(), &program).is_ok());
    let file = "program p\n  command /bin/true\n";
    let shown = get(&new, file, "Program", &Key::Name("p".to_owned()));
    assert_eq!(shown, r#"{"command":"/bin/true","name":"p"}"#);
}
