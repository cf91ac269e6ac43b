use super::*;
use crate::error::{Error, Result};
use crate::schema::json::{self, JsonRules};
use crate::schema::sample;
use serde_json::Value as Json;

/// What the gateway does with a body.
fn accept(tables: &Tables, message: MessageId, body: &[u8]) -> Result<Object> {
    let reading = json::read(tables, message, body, JsonRules { drop_zero: true, only_v2: true })?;
    let violations = check_reading(tables, message, &reading);
    if violations.is_empty() { Ok(reading.object) } else { Err(Error::invalid(violations)) }
}

/// Records that are answered otherwise: model and body.
const DEVIATIONS: [(&str, &str); 1] = [
    // A template without a port is shown with the port 0, so that this one is taken for none.
    ("backstay.configuration.v2.ServerTemplate", "\"port\":0"),
];

#[test]
fn observed_bodies_get_the_observed_answers() {
    let data: Json = serde_json::from_str(include_str!("../../tests/data/v2_bodies.json")).unwrap();
    let tables = sample::schema();
    for record in data["records"].as_array().unwrap() {
        let message = tables.message_by_name[record["model"].as_str().unwrap()];
        let body = record["body"].as_str().unwrap();
        if DEVIATIONS.iter().any(|(model, part)| record["model"] == **model && body.contains(part)) {
            continue;
        }
        match accept(&tables, message, body.as_bytes()) {
            Ok(object) => {
                let mut answer = Vec::new();
                json::write(&tables, message, &object, &mut answer);
                assert_eq!(Some(std::str::from_utf8(&answer).unwrap()), record["answer"].as_str(), "{body}");
                assert_eq!(accept(&tables, message, &answer).unwrap(), object, "{body}");
                let mut wire = Vec::new();
                crate::schema::wire::encode(&tables, message, &object, &mut wire);
                assert_eq!(crate::schema::wire::decode(&tables, message, &wire).unwrap(), object, "{body}");
            }
            // What fields demand of each other is asked for by hand-written tests; these records are of single values.
            Err(error) if error.violations().first().is_some_and(|violation| violation.code == 0) => {}
            Err(error) => {
                let row = error.reason().row();
                assert_eq!(record["status"], row.status, "{body}: {error}");
                if let Some(expected) = record["message"].as_str() {
                    assert_eq!(error.message(), expected, "{body}");
                    assert_eq!(record["code"], error.violations()[0].code, "{body}");
                }
            }
        }
    }
}

#[test]
fn every_violation_is_reported_in_the_order_of_keys() {
    let tables = sample::schema();
    let backend = tables.message_by_name["backstay.configuration.v2.Backend"];
    let body = br#"{"name":"a b","mode":"foo","balance":{},"cookie":{"name":"x y"},"adv_check":"x"}"#;
    let reading = json::read(&tables, backend, body, JsonRules::default()).unwrap();
    let found: Vec<(String, u16)> =
        check_reading(&tables, backend, &reading).into_iter().map(|v| (v.field, v.code)).collect();
    let expected = [("adv_check", 606), ("balance.algorithm", 602), ("cookie.name", 605), ("mode", 606), ("name", 605)];
    assert_eq!(found, expected.map(|(field, code)| (field.to_owned(), code)));
}

#[test]
fn objects_from_the_wire_are_held_to_the_same_rules() {
    let tables = sample::schema();
    let server = tables.message_by_name["backstay.configuration.v2.Server"];
    let table = &tables.messages[server];
    let params = table.fields.iter().position(|field| field.flatten).unwrap();
    let Kind::Message(inner) = table.fields[params].kind else { panic!("a flattened field is a message") };
    let port = tables.messages[inner].by_json["agent-port"];
    let check_field = tables.messages[inner].by_json["check"];
    let mut object = Object::new();
    object.object_mut(params).set(port, Value::Int(1 << 40));
    object.object_mut(params).set(check_field, Value::Enum(77));
    object.set(table.by_json["name"], Value::Str("".into()));
    let found: Vec<String> = check(&tables, server, &object, "server")
        .into_iter()
        .map(|v| format!("{} {} {} {}", v.code, v.field, v.location, v.message))
        .collect();
    let expected = [
        "608 agent-port server should be less than or equal to 65535",
        "606 check server should be one of [enabled disabled]",
        "602 address server is required",
        "602 name server is required",
    ];
    assert_eq!(found, expected);
}

#[test]
fn listed_numbers_and_the_width_of_int32_bound_integers() {
    let models = serde_json::json!({"m": {"fields": {
        "code": {"type": "integer", "enum": [200, 400]},
        "narrow": {"type": "integer", "minimum": 0, "maximum": 9},
    }}});
    let mut tables = sample::tables(&models);
    tables.messages[0].fields[1].check = super::super::tables::Check::default();
    let found = |code: i64, narrow: i64| {
        let mut object = Object::new();
        object.set(0, Value::Int(code));
        object.set(1, Value::Int(narrow));
        check(&tables, 0, &object, "body").into_iter().map(|v| v.message).collect::<Vec<_>>()
    };
    assert_eq!(found(200, i64::from(i32::MAX)), Vec::<String>::new());
    let expected = ["should be one of [200 400]", "should be less than or equal to 2147483647"];
    assert_eq!(found(201, 1 << 40), expected);
}

#[test]
fn fields_may_demand_others() {
    let schema = crate::schema::load::load(crate::proto::SCHEMA).unwrap();
    let found = |message: &str, body: &str| {
        let message = schema.message_by_name[format!("backstay.configuration.v2.{message}").as_str()];
        let reading =
            json::read(&schema, message, body.as_bytes(), JsonRules { drop_zero: true, only_v2: false }).unwrap();
        let violations = check_reading(&schema, message, &reading).into_iter();
        violations.map(|v| format!("{} {} {}", v.code, v.field, v.message)).collect::<Vec<_>>()
    };
    let rule = |rest: &str| found("HttpRequestRule", &format!(r#"{{"index":0,"type":"sc-add-gpc","sc_id":1{rest}}}"#));
    let expected = ["0 type sc-add-gpc needs exactly one of sc_int, sc_expr"];
    assert_eq!(rule(""), expected);
    assert_eq!(rule(r#","sc_int":1,"sc_expr":"src""#), expected);
    assert!(rule(r#","sc_int":0"#).is_empty() && rule(r#","sc_expr":"src""#).is_empty());
    let log = |rest: &str| found("LogTarget", &format!(r#"{{"index":0,"address":"a","facility":"user"{rest}}}"#));
    assert_eq!(log(r#","sample_range":"1""#), ["0 sample_range needs sample_size to be set too"]);
    assert!(log(r#","sample_range":"1","sample_size":2"#).is_empty());
    let tcp = |kind: &str| found("TcpRequestRule", &format!(r#"{{"index":0,"action":"switch-mode"{kind}}}"#));
    let expected = "0 action switch-mode goes only with type content, not session";
    assert!(tcp(r#","type":"session""#).contains(&expected.to_owned()));
    assert!(tcp(r#","type":"content""#).is_empty());
    // What is not there is another fault.
    assert_eq!(tcp(""), ["602 type is required"]);
}
