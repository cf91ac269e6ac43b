use super::*;
use crate::error::Reason;
use crate::schema::sample;
use crate::schema::tables::{Kind, Tables};
use crate::schema::value::{Object, Value};
use serde_json::Value as Json;

fn small() -> Tables {
    sample::tables(&serde_json::json!({
        "outer": {"allOf": [{"ref": "part"}, {"fields": {
            "name": {"type": "string"},
            "zero": {"type": "integer", "nullable": true},
            "count": {"type": "integer"},
            "on": {"type": "boolean"},
            "ratio": {"type": "number"},
            "mode": {"enum": ["tcp", "http"]},
            "modes": {"type": "array", "items": {"enum": ["tcp", "http"]}},
            "words": {"type": "array", "items": {"type": "string"}},
            "inner": {"ref": "inner"},
            "list": {"type": "array", "items": {"ref": "inner"}},
        }}]},
        "part": {"fields": {"a-key": {"type": "string"}, "flag": {"type": "boolean"}}},
        "inner": {"fields": {"x": {"type": "integer"}}},
    }))
}

fn parse(tables: &Tables, body: &str, drop_zero: bool) -> crate::error::Result<Reading> {
    read(tables, tables.message_by_name["outer"], body.as_bytes(), JsonRules { drop_zero, only_v2: false })
}

fn echo(body: &str, drop_zero: bool) -> String {
    let tables = small();
    let reading = parse(&tables, body, drop_zero).unwrap();
    let mut out = Vec::new();
    write(&tables, tables.message_by_name["outer"], &reading.object, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn keys_stand_in_the_order_of_the_observed_answers() {
    let data: Json = serde_json::from_str(include_str!("../../../tests/data/v2_bodies.json")).unwrap();
    let tables = sample::schema();
    for order in data["orders"].as_array().unwrap() {
        let message = &tables.messages[tables.message_by_name[order["model"].as_str().unwrap()]];
        let expected: Vec<&str> = order["keys"].as_array().unwrap().iter().filter_map(Json::as_str).collect();
        let mut ours: Vec<&str> = Vec::new();
        for at in &message.json_order {
            let field = &message.fields[*at];
            match field.kind {
                Kind::Message(inner) if field.flatten => {
                    let part = &tables.messages[inner];
                    ours.extend(part.json_order.iter().map(|at| &*part.fields[*at].json));
                }
                _ => ours.push(&field.json),
            }
        }
        ours.retain(|key| expected.contains(key));
        assert_eq!(ours, expected, "{}", order["model"]);
    }
}

#[test]
fn zeros_are_absent_over_rest_and_kept_otherwise() {
    let body = r#"{"name":"","zero":0,"count":0,"on":false,"ratio":0,"words":["",null],"list":[null,{"x":0}]}"#;
    assert_eq!(echo(body, true), r#"{"list":[{},{}],"words":["",""],"zero":0}"#);
    let kept = r#"{"count":0,"list":[{},{"x":0}],"name":"","on":false,"ratio":0,"words":["",""],"zero":0}"#;
    assert_eq!(echo(body, false), kept);
}

#[test]
fn null_and_empty_lists_are_absent_but_empty_objects_are_there() {
    let body = r#"{"name":null,"words":[],"inner":{},"list":null,"flag":null,"a-key":""}"#;
    assert_eq!(echo(body, true), r#"{"inner":{}}"#);
    assert_eq!(echo("null", true), "{}");
}

#[test]
fn of_equal_keys_the_last_one_counts() {
    assert_eq!(echo(r#"{"name":"a","flag":true,"name":"b"}"#, true), r#"{"flag":true,"name":"b"}"#);
    assert_eq!(echo(r#"{"name":"a","name":null}"#, true), "{}");
}

#[test]
fn unknown_keys_are_listed_with_their_paths() {
    let tables = small();
    let reading = parse(&tables, r#"{"name":"a","zz":1,"part":{},"list":[{"y":2}]}"#, true).unwrap();
    assert_eq!(reading.unknown, ["zz", "part", "list.0.y"]);
}

#[test]
fn keys_are_taken_in_any_case_and_the_exact_one_wins() {
    let tables = small();
    let read = |body: &str| {
        let reading = parse(&tables, body, true).unwrap();
        let mut out = Vec::new();
        write(&tables, tables.message_by_name["outer"], &reading.object, &mut out);
        (String::from_utf8(out).unwrap(), reading.recased.join(" "), reading.unknown.join(" "))
    };
    let told = |json: &str, recased: &str, unknown: &str| (json.to_owned(), recased.to_owned(), unknown.to_owned());
    assert_eq!(read(r#"{"Name":"a","FLAG":true}"#), told(r#"{"flag":true,"name":"a"}"#, "Name FLAG", ""));
    assert_eq!(read(r#"{"name":"a","Name":"b"}"#), told(r#"{"name":"a"}"#, "", "Name"));
    assert_eq!(read(r#"{"Name":"b","name":"a"}"#), told(r#"{"name":"a"}"#, "", "Name"));
    assert_eq!(read(r#"{"nAme":"a","Name":"b"}"#), told(r#"{"name":"b"}"#, "nAme Name", ""));
    let body = r#"{"LIST":[{"X":2}],"A-Key":"k"}"#;
    assert_eq!(read(body), told(r#"{"a-key":"k","list":[{"x":2}]}"#, "LIST LIST.0.X A-Key", ""));
}

#[test]
fn whole_numbers_may_have_a_fraction_of_zero_and_what_follows_the_body_is_not_looked_at() {
    assert_eq!(echo(r#"{"count":3.0} "#, true), r#"{"count":3}"#);
    assert_eq!(echo(r#"{"count":-2e1}, and so on"#, true), r#"{"count":-20}"#);
    let error = parse(&small(), r#"{"count":1e300}"#, true).unwrap_err();
    assert_eq!(error.message(), "count: expected an integer, found a fraction");
}

#[test]
fn words_outside_an_enum_are_left_to_the_check() {
    let tables = small();
    let reading = parse(&tables, r#"{"mode":"TCP","modes":["http","x"],"name":"a"}"#, true).unwrap();
    let refused: Vec<_> = reading.refused.iter().map(|v| (&*v.field, &*v.message, v.code)).collect();
    let expected = "should be one of [tcp http]";
    assert_eq!(refused, [("mode", expected, 606), ("modes.1", expected, 606)]);
    assert!(parse(&tables, r#"{"mode":""}"#, true).unwrap().refused.is_empty());
    assert_eq!(parse(&tables, r#"{"modes":[""]}"#, true).unwrap().refused.len(), 1);
}

#[test]
fn wrong_types_are_refused_with_their_path() {
    let tables = small();
    for (body, message) in [
        (r#"{"name":5}"#, "name: expected a string, found a number"),
        (r#"{"mode":true}"#, "mode: expected a string, found a boolean"),
        (r#"{"count":"5"}"#, "count: expected an integer, found a string"),
        (r#"{"count":1.5}"#, "count: expected an integer, found a fraction"),
        (r#"{"count":9223372036854775808}"#, "count: expected an integer, found a number"),
        (r#"{"on":"true"}"#, "on: expected true or false, found a string"),
        (r#"{"ratio":"1"}"#, "ratio: expected a number, found a string"),
        (r#"{"words":"x"}"#, "words: expected a list, found a string"),
        (r#"{"words":["x",5]}"#, "words.1: expected a string, found a number"),
        (r#"{"inner":[]}"#, "inner: expected an object, found a list"),
        (r#"{"list":[{"x":{}}]}"#, "list.0.x: expected an integer, found an object"),
        ("[]", "body: expected an object, found a list"),
    ] {
        let error = parse(&tables, body, true).unwrap_err();
        assert_eq!(error.reason(), Reason::MalformedRequest, "{body}");
        assert_eq!(error.message(), message);
    }
    for body in ["{", "{\"name\":\"\u{0}\"}", r#"{"name":"\ud800"}"#] {
        assert_eq!(parse(&tables, body, true).unwrap_err().reason(), Reason::MalformedRequest, "{body}");
    }
    let error = parse(&tables, " \n", true).unwrap_err();
    assert_eq!((error.reason(), error.message()), (Reason::InvalidField, "data in body is required"));
}

#[test]
fn numbers_and_texts_survive_exactly() {
    let body = r#"{"count":-9223372036854775808,"name":"<a> & \"q\" \\ / é \u0001\b\f\n\r\t€😀","ratio":1e21,"zero":9007199254740993}"#;
    let written = r#"{"count":-9223372036854775808,"name":"<a> & \"q\" \\ / é \u0001\u0008\u000c\n\r\t€😀","ratio":1000000000000000000000,"zero":9007199254740993}"#;
    assert_eq!(echo(body, true), written);
    assert_eq!(
        serde_json::from_str::<Json>(&echo(body, true)).unwrap()["name"],
        serde_json::from_str::<Json>(body).unwrap()["name"]
    );
}

#[test]
fn numbers_that_no_enum_has_are_written_as_numbers() {
    let tables = small();
    let outer = tables.message_by_name["outer"];
    let mut object = Object::new();
    object.set(tables.messages[outer].by_json["mode"], Value::Enum(9));
    let mut out = Vec::new();
    write(&tables, outer, &object, &mut out);
    assert_eq!(out, br#"{"mode":9}"#);
}
