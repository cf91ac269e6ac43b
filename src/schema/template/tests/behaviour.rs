//! What callers rely on beyond the cases: residue, merging, faults and their texts.

use serde_json::json;

use super::super::{Grammar, Keyword, PrintFault};
use super::{models, tables};
use crate::schema::tables::{EnumType, EnumValue, Field, Kind, MessageId, MessageType, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words;

struct Models {
    tables: Tables,
    grammar: Grammar,
}

impl Models {
    fn new() -> Self {
        let (tables, grammar) = models();
        Models { tables, grammar }
    }

    fn id(&self, model: &str) -> MessageId {
        self.tables.message_by_name[model]
    }

    fn object(&self, model: &str, json: &serde_json::Value) -> Object {
        tables::object(&self.tables, self.id(model), json)
    }

    fn read(&self, model: &str, line: &str) -> Option<Object> {
        self.grammar.parse_line(self.id(model), &words::split(line).words)
    }

    fn text(&self, model: &str, object: &Object) -> String {
        let printed = self.grammar.print_line(self.id(model), object).unwrap();
        assert_eq!(printed.unused, [""; 0]);
        printed.text
    }

    fn fault(&self, model: &str, json: &serde_json::Value) -> PrintFault {
        self.grammar.print_line(self.id(model), &self.object(model, json)).unwrap_err()
    }

    fn read_section(&self, model: &str, lines: &[&str]) -> Object {
        let section = self.grammar.section(self.id(model)).unwrap();
        let mut object = Object::new();
        for line in lines {
            section.read(&words::split(line).words, &mut object).unwrap_or_else(|| panic!("{line}"));
        }
        object
    }

    fn lines(&self, model: &str, object: &Object) -> Vec<String> {
        let printed = self.grammar.section(self.id(model)).unwrap().print(object).unwrap();
        assert_eq!(printed.unused, [""; 0]);
        printed.lines.into_iter().map(|(_, line)| line).collect()
    }
}

#[test]
fn a_repeated_parameter_keeps_all_its_words() {
    let models = Models::new();
    let read = models.read("bind", "bind :443 crt a newopt x crt b ssl crt c").unwrap();
    let expected =
        json!({"port": 443, "ssl": true, "ssl_certificate": "c", "_residue": ["newopt", "x", "crt", "a", "crt", "b"]});
    assert_eq!(read, models.object("bind", &expected));
    let text = models.text("bind", &read);
    assert_eq!(text, "bind :443 crt a crt b crt c ssl newopt x");
    assert_eq!(models.read("bind", &text), Some(read), "and so it stays");
}

#[test]
fn unknown_words_are_not_taken_by_a_parameter_that_goes_on() {
    let models = Models::new();
    let read = models.read("server", "server s h:1 newopt x source a usesrc b source c").unwrap();
    let text = models.text("server", &read);
    assert_eq!(text, "server s h:1 newopt x source a usesrc b source c");
    assert_eq!(models.read("server", &text), Some(read));
}

#[test]
fn a_value_that_no_field_can_hold_stays_on_its_line_until_the_field_is_set() {
    let models = Models::new();
    for words in ["weight x", "weight \"${W}\"", "weight"] {
        let line = format!("server s h:1 {words}");
        let read = models.read("server", &line).unwrap();
        assert_eq!(models.text("server", &read), line);
    }
    assert!(models.read("server", "server s h:1 weight 5").is_some_and(|read| read.residue().is_empty()));
}

#[test]
fn print_only_elements_print_and_read_as_their_successors() {
    let models = Models::new();
    let old = models
        .object("http_request_rule", &json!({"type": "track-sc0", "track-sc0-key": "src", "track-sc0-table": "t"}));
    let text = models.text("http_request_rule", &old);
    assert_eq!(text, "http-request track-sc0 src table t");
    let new = json!({"type": "track-sc", "track_sc_stick_counter": 0, "track_sc_key": "src", "track_sc_table": "t"});
    assert_eq!(models.read("http_request_rule", &text), Some(models.object("http_request_rule", &new)));
    // The read-back rule holds for them as well.
    let fault = models.fault("http_request_rule", &json!({"type": "set-query", "query-fmt": "a if b"}));
    assert_eq!(fault.path, "query-fmt");
    let server = models
        .object("server", &json!({"name": "s", "address": "h", "no_tlsv10": "enabled", "force_tlsv11": "disabled"}));
    assert_eq!(models.text("server", &server), "server s h no-tlsv11 no-tlsv10");
}

#[test]
fn faults_name_the_path_and_what_would_work() {
    let models = Models::new();
    let fault = models.fault(
        "http_request_rule",
        &json!({"type": "return", "return_hdrs": [{"name": "a", "fmt": "b"}, {"name": "c d", "fmt": "e"}]}),
    );
    assert_eq!(fault.to_string(), "return_hdrs[1].name must be one word of the file: write it as 'c d'");
    let fault = models.fault("server", &json!({"name": "s", "address": "h", "crl_file": "it's $x"}));
    assert_eq!(fault.to_string(), "crl_file must be one word of the file: write it as \"it's \\$x\"");
    assert_eq!(fault.steps.len(), 2, "the flattened message is a step");
    let fault = models.fault("http_request_rule", &json!({"type": "add-header", "hdr_name": "a"}));
    assert_eq!(fault.to_string(), "hdr_format is needed by what else is set");
    let fault = models.fault("http_request_rule", &json!({"type": "set-path", "path_fmt": "a\0b"}));
    assert_eq!(fault.to_string(), "path_fmt must be words of one line, without line breaks and NUL");
    let fault = models.fault("log_target", &json!({"address": "h"}));
    assert_eq!(fault.path, "facility");
    let fault = models.fault("http_request_rule", &json!({"type": "set-path", "path_fmt": "if x"}));
    assert_eq!(fault.path, "path_fmt");
}

#[test]
fn values_that_no_part_uses_are_reported() {
    let models = Models::new();
    let id = models.id("http_request_rule");
    let object = models.object("http_request_rule", &json!({"type": "deny", "hdr_name": "x", "cond": "if"}));
    let printed = models.grammar.print_line(id, &object).unwrap();
    assert_eq!(
        (printed.text.as_str(), printed.unused),
        ("http-request deny", vec!["cond".to_owned(), "hdr_name".to_owned()])
    );
    let backend = models.id("backend");
    let json = json!({"forwardfor": {"enabled": "disabled", "except": "a"}, "httpchk_params": {"uri": "/"}, "description": "d"});
    let printed = models.grammar.section(backend).unwrap().print(&models.object("backend", &json)).unwrap();
    assert_eq!(printed.lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>(), ["description d"]);
    assert_eq!(printed.unused, ["forwardfor.except", "httpchk_params"]);
}

#[test]
fn a_value_without_a_text_is_no_line() {
    let models = Models::new();
    let off = models
        .object("backend", &json!({"forwardfor": {"enabled": "disabled"}, "stats_options": {"stats_enable": false}}));
    assert_eq!(models.lines("backend", &off), [""; 0]);
}

#[test]
fn a_later_line_replaces_lists_grow_and_free_parameters_merge() {
    let models = Models::new();
    let read = models
        .read_section("backend", &["balance uri depth 3", "stats admin if x", "balance roundrobin", "stats admin"]);
    assert_eq!(
        read,
        models.object(
            "backend",
            &json!({"balance": {"algorithm": "roundrobin"}, "stats_options": {"stats_admin": true}})
        )
    );
    let read = models
        .read_section("backend", &["default-server check weight 5 new", "default-server weight 6 inter 2s other"]);
    let expected =
        json!({"default_server": {"check": "enabled", "weight": 6, "inter": 2000, "_residue": ["new", "other"]}});
    assert_eq!(read, models.object("backend", &expected));
    assert_eq!(models.lines("backend", &read), ["default-server check inter 2000 weight 6 new other"]);
    let read = models.read_section(
        "frontend",
        &["compression algo gzip", "errorfile 400 /a", "compression algo deflate", "errorfile 500 /b c"],
    );
    let expected = json!({"compression": {"algorithms": ["gzip", "deflate"]}, "error_files": [{"code": 400, "file": "/a"}, {"code": 500, "file": "/b c"}]});
    assert_eq!(read, models.object("frontend", &expected));
    assert_eq!(
        models.lines("frontend", &read),
        ["compression algo gzip deflate", "errorfile 400 /a", "errorfile 500 /b c"]
    );
    assert_eq!(models.read_section("backend", &["default-server"]), Object::new());
}

#[test]
fn a_bare_keyword_is_present_and_empty() {
    let models = Models::new();
    let read = models.read_section("global", &["httpclient.ssl.verify"]);
    assert!(!read.is_empty());
    assert_eq!(models.lines("global", &read), ["httpclient.ssl.verify"]);
}

#[test]
fn owners_are_found_and_print_only_fields_come_last() {
    let models = Models::new();
    let section = models.grammar.section(models.id("backend")).unwrap();
    let owner = |line: &str| section.owner(&words::split(line).words).map(|slot| section.name(slot).to_owned());
    assert_eq!(owner("option httpclose").as_deref(), Some("http_connection_mode"));
    assert_eq!(owner("no option httpclose").as_deref(), Some("httpclose"), "a mirror reads what its successor cannot");
    assert_eq!(owner("no option abortonclose").as_deref(), Some("abortonclose"));
    assert_eq!(owner("option httpchk GET /x").as_deref(), Some("adv_check"));
    assert_eq!(owner("http-check send-state"), None, "lines of another resource");
    assert_eq!(owner("stats realm a b").as_deref(), Some("stats_realm"));
    assert_eq!(owner("server s h"), None);
    assert_eq!(owner(""), None);
    let slots: Vec<_> = (0..section.len()).map(|slot| section.path(slot)).collect();
    assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "slots stand in order of declaration");
}

#[test]
fn keywords_tell_how_a_line_can_begin() {
    let models = Models::new();
    let words = |model: &str| models.grammar.keywords(models.id(model)).to_vec();
    assert_eq!(words("server"), [Keyword::Word("server".into())]);
    assert_eq!(words("log_target"), [Keyword::Word("log".into()), Keyword::Word("no".into())]);
    assert_eq!(words("server_params.set-proxy-v2-tlv-fmt"), [Keyword::Prefix("set-proxy-v2-tlv-fmt(".into())]);
    assert_eq!(words("server_params"), []);
}

#[test]
fn deep_and_long_lines_are_foreign_but_harmless() {
    let models = Models::new();
    let line = format!("http-request return {}", "hdr a b ".repeat(20_000));
    assert_eq!(models.read("http_request_rule", &line), None);
    let line = format!("acl a src {}", "x ".repeat(20_000));
    assert!(models.read("acl", &line).is_some());
}

fn one_message(line: &str, fields: Vec<Field>) -> Tables {
    let mut message = MessageType { full_name: "M".into(), line: Some(line.into()), ..MessageType::default() };
    for (at, field) in fields.iter().enumerate() {
        message.by_json.insert(field.json.clone(), at);
    }
    message.fields = fields;
    Tables { messages: vec![message], ..Tables::default() }
}

fn number(text: &str, kind: Kind, numbers: &[i64]) -> Option<i64> {
    let tables = one_message("x {n}", vec![Field { numbers: numbers.to_vec(), ..tables::field("n", kind) }]);
    Grammar::compile(&tables).unwrap().parse_line(0, &["x", text])?.int(0)
}

#[test]
fn numbers_stay_in_their_type_and_list() {
    assert_eq!(number("2147483648", Kind::Int32, &[]), None);
    assert_eq!(number("-2147483648", Kind::Int32, &[]), Some(i64::from(i32::MIN)));
    assert_eq!(number("9223372036854775807", Kind::Int64, &[]), Some(i64::MAX));
    assert_eq!(number("301", Kind::Int64, &[301, 302]), Some(301));
    assert_eq!(number("404", Kind::Int64, &[301, 302]), None);
}

#[test]
fn a_list_that_is_needed_says_so() {
    let mut list = tables::field("n", Kind::Int64);
    list.repeated = true;
    let tables = one_message("x {n...}", vec![list]);
    let fault = Grammar::compile(&tables).unwrap().print_line(0, &Object::new()).unwrap_err();
    assert_eq!(fault.to_string(), "n is needed by what else is set");
}

#[test]
fn faults_of_the_schema_name_message_element_template_and_rule() {
    let tables = one_message("x {nope}", Vec::new());
    let faults = Grammar::compile(&tables).unwrap_err();
    assert_eq!(
        faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["M: A12: unknown field `nope` in template `x {nope}`"]
    );
    let value = |token: &str, number, line: Option<&str>| EnumValue {
        name: token.into(),
        number,
        token: token.into(),
        line: line.map(Into::into),
        print_only: false,
        since: None,
        one_of: Vec::new(),
        goes_with: Vec::new(),
        grpc_only: false,
    };
    let mut tables = one_message("x {e}", vec![tables::field("e", Kind::Enum(0))]);
    tables
        .enums
        .push(EnumType { values: vec![value("a", 1, Some("a {")), value("b", 2, None)], ..EnumType::default() });
    let faults = Grammar::compile(&tables).unwrap_err();
    assert_eq!(faults[0].to_string(), "M.e=a: A12: unbalanced `{` in template `a {`");
}

#[test]
fn two_fields_that_read_the_same_line_are_refused() {
    let (mut tables, _) = models();
    let backend = tables.message_by_name["backend"];
    let at = tables.messages[backend].by_json["description"];
    tables.messages[backend].fields[at].template = Some("option {...}".into());
    let faults = Grammar::compile(&tables).unwrap_err();
    assert_eq!(faults[0].rule, "A10", "{}", faults[0]);
    tables.messages[backend].fields[at].template = None;
    assert!(Grammar::compile(&tables).is_ok());
}

#[test]
fn a_template_that_contains_itself_is_refused() {
    let mut tables = one_message("x {m}", vec![tables::field("m", Kind::Message(0))]);
    assert_eq!(Grammar::compile(&tables).unwrap_err()[0].rule, "A12");
    let value = EnumValue {
        name: "a".into(),
        number: 1,
        token: "a".into(),
        line: Some("a {e}".into()),
        print_only: false,
        since: None,
        one_of: Vec::new(),
        goes_with: Vec::new(),
        grpc_only: false,
    };
    tables = one_message("x {e}", vec![tables::field("e", Kind::Enum(0))]);
    tables.enums.push(EnumType { values: vec![value], ..EnumType::default() });
    assert_eq!(Grammar::compile(&tables).unwrap_err()[0].rule, "A12");
}

#[test]
fn values_of_another_type_are_refused_not_written() {
    let tables = one_message("x {n}", vec![tables::field("n", Kind::Int64)]);
    let grammar = Grammar::compile(&tables).unwrap();
    let mut object = Object::new();
    object.set(0, Value::Str("5 evil".into()));
    assert_eq!(grammar.print_line(0, &object).unwrap_err().path, "n");
}
