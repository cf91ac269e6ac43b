use serde_json::json;

use super::*;
use crate::schema::Schema;

fn tables() -> std::sync::Arc<Tables> {
    Schema::compile(crate::proto::SCHEMA).unwrap().tables
}

const FILE: &str = r#"# settings
config_version: 2
dataplaneapi:
  port: 5555 # here
service_discovery:
  # agents
  consuls:
    # the first
    - address: 10.0.0.1 # rack 1
      enabled: true
      id: 11111111-1111-4111-8111-111111111111
      healthcheckpolicy: null
      healthcheckpolicymin: 0
      description: ""
      port: 8500
      retrytimeout: 10 # seconds
      serverslotsbase: 10
      serverslotsgrowthincrement: 10
      serverslotsgrowthtype: linear
      serviceallowlist:
        - web
        # not yet: - db
      futurekey: [1, 2]
    # the second
    - address: 10.0.0.2
      enabled: false
      id: 22222222-2222-4222-8222-222222222222
      port: 8500
      retrytimeout: 5
      service-denylist: [a, "b"]
# the end
name: me
"#;

fn object(tables: &Tables, values: &Json) -> Object {
    let message = Kind::Consul.message();
    let mut object = json::read_value(tables, message, values, JsonRules::default()).unwrap().object;
    super::super::instance::complete(Kind::Consul, &mut object).unwrap();
    object
}

fn shown(tables: &Tables, entry: &Entry) -> Json {
    Json::Object(values(tables, entry.kind, &entry.object))
}

fn consul(id: &str) -> Json {
    json!({"address": "a", "enabled": true, "id": id, "port": 1, "retry_timeout": 1})
}

#[test]
fn keys_are_read_without_separators_and_empty_values_are_absent() {
    let tables = tables();
    let read = read(&tables, FILE);
    assert_eq!(read.problems, Vec::<String>::new());
    let first = json!({
        "address": "10.0.0.1", "enabled": true, "id": "11111111-1111-4111-8111-111111111111", "port": 8500,
        "retry_timeout": 10, "server_slots_base": 10, "server_slots_growth_increment": 10,
        "server_slots_growth_type": "linear", "service_allowlist": ["web"],
    });
    assert_eq!(shown(&tables, &read.entries[0]), first);
    assert_eq!(shown(&tables, &read.entries[1])["service_denylist"], json!(["a", "b"]));
}

#[test]
fn a_fault_is_named_with_its_line_and_hides_no_other() {
    let tables = tables();
    let text = FILE.replace("port: 8500\n      retrytimeout: 5", "port: 85000\n      retrytimeout: 5");
    let read = super::read(&tables, &text);
    assert_eq!(read.entries.len(), 1);
    let words = "service_discovery.consuls[1] (line 25): port should be less than or equal to 65535";
    assert_eq!(read.problems, [words]);
    let odd = super::read(&tables, "service_discovery:\n  consuls:\n  - word\n");
    assert_eq!(odd.problems, ["service_discovery.consuls[0] (line 3): expected the keys of one instance"]);
}

#[test]
fn an_instance_without_an_id_always_has_the_same_one() {
    let tables = tables();
    let text = FILE.replace("      id: 22222222-2222-4222-8222-222222222222\n", "");
    let ids = |text: &str| -> Vec<String> { read(&tables, text).entries.into_iter().map(|entry| entry.id).collect() };
    let id = ids(&text)[1].clone();
    assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
    assert_eq!(ids(&text.replace("# the end", "# end"))[1], id);
    assert_ne!(ids(&text.replace("10.0.0.2", "10.0.0.3"))[1], id);
    let wanted = object(&tables, &consul(&id));
    let changed = with(&tables, &text, Kind::Consul, &id, Some(&wanted)).unwrap();
    assert_eq!(ids(&changed)[1], id);
    assert!(changed.contains("address: a\n") && !changed.contains("10.0.0.2"), "{changed}");
}

#[test]
fn a_replaced_instance_changes_the_lines_of_its_keys() {
    let tables = tables();
    let entry = &read(&tables, FILE).entries[0];
    let mut values = shown(&tables, entry);
    values["retry_timeout"] = json!(20);
    values["address"] = json!("10.0.0.9");
    values["description"] = json!("a: b # \"c\"");
    values["token"] = json!("123");
    values["service_allowlist"] = json!(["web", "yes"]);
    let changed = with(&tables, FILE, Kind::Consul, &entry.id, Some(&object(&tables, &values))).unwrap();
    let expected = FILE
        .replace("address: 10.0.0.1 # rack 1", "address: \"10.0.0.9\" # rack 1")
        .replace("retrytimeout: 10 # seconds", "retrytimeout: 20 # seconds")
        .replace(
            "      serviceallowlist:\n        - web\n        # not yet: - db\n      futurekey: [1, 2]\n",
            "      serviceallowlist:\n      - web\n      - \"yes\"\n        # not yet: - db\n      futurekey: [1, 2]\n      \
             token: \"123\"\n",
        )
        .replace("description: \"\"", "description: \"a: b # \\\"c\\\"\"");
    assert_eq!(changed, expected);
    assert_eq!(with(&tables, &changed, Kind::Consul, "none", None).unwrap(), changed);
}

#[test]
fn instances_come_and_go_between_comments() {
    let tables = tables();
    let new = object(&tables, &consul("33333333-3333-4333-8333-333333333333"));
    let added = with(&tables, FILE, Kind::Consul, "33333333-3333-4333-8333-333333333333", Some(&new)).unwrap();
    let lines = "    - address: a\n      enabled: true\n      id: \"33333333-3333-4333-8333-333333333333\"\n      port: 1\n      \
        retrytimeout: 1\n      serverslotsbase: 10\n      serverslotsgrowthincrement: 10\n      \
        serverslotsgrowthtype: linear\n";
    assert_eq!(added, FILE.replace("# the end", &format!("{lines}# the end")));
    let back = with(&tables, &added, Kind::Consul, "33333333-3333-4333-8333-333333333333", None).unwrap();
    assert_eq!(back, FILE);
    let one = with(&tables, FILE, Kind::Consul, "11111111-1111-4111-8111-111111111111", None).unwrap();
    assert!(one.contains("# the second\n    - address: 10.0.0.2") && !one.contains("10.0.0.1"), "{one}");
    let none = with(&tables, &one, Kind::Consul, "22222222-2222-4222-8222-222222222222", None).unwrap();
    assert!(none.contains("  consuls: []\n# the end\nname: me\n"), "{none}");
    let again = with(&tables, &none, Kind::Consul, "33333333-3333-4333-8333-333333333333", Some(&new)).unwrap();
    assert_eq!(read(&tables, &again).entries.len(), 1, "{again}");
}

#[test]
fn every_notation_can_be_edited() {
    let tables = tables();
    let id = "33333333-3333-4333-8333-333333333333";
    let new = object(&tables, &consul(id));
    let known = "11111111-1111-4111-8111-111111111111";
    let flow = format!("{{address: x, enabled: true, id: {known}, port: 1, retrytimeout: 1}}");
    for (text, before) in [
        (String::new(), 0),
        ("# nothing\n---\n".to_owned(), 0),
        ("name: x".to_owned(), 0),
        ("name: x\r\nservice_discovery:\r\n  consuls: []\r\n".to_owned(), 0),
        ("service_discovery:\nname: x\n".to_owned(), 0),
        ("service_discovery: {}\nname: x\n".to_owned(), 0),
        (format!("service_discovery: {{consuls: [{flow}]}}\nname: x\n"), 1),
        (format!("service_discovery:\n  consuls: [{flow}]\n"), 1),
        (format!("service_discovery:\n  consuls:\n  - {flow}\n"), 1),
        (
            format!(
                "service_discovery:\n    consuls:\n    -   address: x\n        enabled: true\n        id: {known}\n        port: 1\n        retry_timeout: 1\n"
            ),
            1,
        ),
    ] {
        let added =
            with(&tables, &text, Kind::Consul, id, Some(&new)).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read(&tables, &added).entries.len(), before + 1, "{text}\n->\n{added}");
        assert_eq!(text.contains("name: x"), added.contains("name: x"));
        assert_eq!(text.contains('\r'), added.contains('\r'));
        let replaced = if before == 1 {
            let other = object(&tables, &consul(known));
            with(&tables, &added, Kind::Consul, known, Some(&other)).unwrap()
        } else {
            added
        };
        let gone = with(&tables, &replaced, Kind::Consul, id, None).unwrap();
        assert_eq!(read(&tables, &gone).entries.len(), before, "{gone}");
    }
}

#[test]
fn lists_of_filters_are_edited_too() {
    let tables = tables();
    let id = "44444444-4444-4444-8444-444444444444";
    let text = format!(
        "service_discovery:\n  aws_regions:\n  - accesskeyid: \"\"\n    allowlist:\n    - key: tag:Stage # one\n      value: live\n    \
         denylist: []\n    enabled: true\n    id: {id}\n    ipv4address: private\n    name: main\n    region: us-east-1\n    \
         retrytimeout: 60\n  consuls: []\n"
    );
    let read = read(&tables, &text);
    assert_eq!(read.problems, Vec::<String>::new());
    let mut values = shown(&tables, &read.entries[0]);
    assert_eq!(values["allowlist"], json!([{"key": "tag:Stage", "value": "live"}]));
    assert_eq!(
        (&values["server_slots_growth_type"], &values["server_slots_base"]),
        (&json!("exponential"), &json!(10))
    );
    values["denylist"] = json!([{"key": "tag:A", "value": "x y"}, {"key": "vpc-id", "value": "v1"}]);
    let message = Kind::Aws.message();
    let object = json::read_value(&tables, message, &values, JsonRules::default()).unwrap().object;
    let changed = with(&tables, &text, Kind::Aws, id, Some(&object)).unwrap();
    let denied = "    denylist:\n    - key: \"tag:A\"\n      value: \"x y\"\n    - key: vpc-id\n      value: v1\n";
    assert_eq!(changed, text.replace("    denylist: []\n", denied));
    // Another kind has a list of its own.
    let agent = super::tests::object(&tables, &consul(id));
    let both = with(&tables, &changed, Kind::Consul, id, Some(&agent)).unwrap();
    assert!(both.starts_with(changed.strip_suffix("  consuls: []\n").unwrap()), "{both}");
    assert_eq!(super::read(&tables, &both).entries.len(), 2);
}

#[test]
fn a_text_stays_what_it_is_whatever_yaml_might_take_it_for() {
    let tables = tables();
    for text in [
        "~",
        "null",
        "Null",
        "NULL",
        "true",
        "no",
        "1",
        "0x1f",
        "1e3",
        ".inf",
        "- x",
        "#",
        "a: b",
        "a #b",
        "'",
        "\"",
        "\\",
        "!tag",
        "&a",
        "*a",
        "%",
        "@",
        "`",
        "|",
        ">",
        "?",
        "-",
        "=",
        "<<",
        "[]",
        "{}",
        " x ",
        "a\u{85}b",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "é",
        "\u{1f600}",
        "---",
        "...",
    ] {
        let id = "11111111-1111-4111-8111-111111111111";
        let mut values = consul(id);
        values["name"] = json!(text);
        let object = object(&tables, &values);
        let written =
            with(&tables, FILE, Kind::Consul, id, Some(&object)).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let read = read(&tables, &written);
        assert_eq!(shown(&tables, &read.entries[0])["name"], json!(text), "{written}");
    }
}
