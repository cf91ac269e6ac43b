//! Query and path parameters as request fields.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::compat;
use super::routes::Route;
use crate::error::Violation;
use crate::schema::tables::{FieldIndex, Kind, Method, Tables};
use crate::schema::value::{Object, Value};

/// What parameters became.
#[derive(Debug, Default)]
pub struct Parameters {
    /// Fields that are set.
    pub object: Object,
    /// Values that do not fit their field.
    pub violations: Vec<Violation>,
    /// Parameters that the method does not know.
    pub unknown: Vec<String>,
}

/// Pairs of a query string. Empty and undecodable parts are left out, a part without `=` has an empty value.
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter_map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        (!name.is_empty()).then_some((name, value))
    })
}

fn decoded(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('+') {
        return percent_decode_str(raw).decode_utf8().ok();
    }
    let spaced = raw.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

/// The last value of a parameter.
pub fn value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    pairs(query).filter(|(given, _)| given == name).last().map(|(_, value)| value)
}

/// Reads path values and the query string into an empty request.
pub fn read(tables: &Tables, method: &Method, route: &Route, values: &[String], query: &str) -> Parameters {
    let mut found = Parameters::default();
    for (field, text) in route.parameters.iter().zip(values) {
        found.set(tables, method, &route.rule.path, *field, text, "path");
    }
    let input = &tables.messages[method.input];
    for (name, text) in pairs(query) {
        let known = input.by_json.get(&*name).copied().or_else(|| input.field_named(compat::canonical(&name)));
        let usable = known.filter(|field| {
            !input.fields[*field].grpc_only
                && !route.parameters.contains(field)
                && route.body != Some(super::routes::BodyField::Field(*field))
                && !matches!(input.fields[*field].kind, Kind::Message(_) | Kind::Bytes)
        });
        match usable {
            Some(field) => found.set(tables, method, &route.rule.path, field, &text, "query"),
            None => found.unknown.push(name.into_owned()),
        }
    }
    found
}

impl Parameters {
    fn set(
        &mut self,
        tables: &Tables,
        method: &Method,
        path: &str,
        at: FieldIndex,
        text: &str,
        location: &'static str,
    ) {
        // An empty parameter counts as absent, and so takes back an earlier one of the same name.
        if text.is_empty() {
            self.object.take(at);
            return;
        }
        let field = &tables.messages[method.input].fields[at];
        let mut refuse = |code, message| {
            self.violations.push(Violation { field: field.json.to_string(), message, code, location });
        };
        let value = match field.kind {
            Kind::String => Value::Str(text.into()),
            Kind::Bytes => Value::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes())),
            Kind::Bool => Value::Bool(compat::true_like(text)),
            Kind::Int32 | Kind::Int64 => match text.parse::<i64>() {
                Ok(number) if field.kind == Kind::Int64 || i32::try_from(number).is_ok() => Value::Int(number),
                _ => return refuse(601, format!("must be of type int64: {text:?}")),
            },
            Kind::Double => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Double(number),
                _ => return refuse(601, format!("must be of type float64: {text:?}")),
            },
            Kind::Enum(id) => {
                let allowed = compat::allowed_tokens(tables, method, path, at);
                match tables.enums[id].number(text) {
                    Some(number) if allowed.contains(&text) => Value::Enum(number),
                    _ => return refuse(606, format!("should be one of [{}]", allowed.join(" "))),
                }
            }
            Kind::Message(_) => return,
        };
        if compat::counts_as_absent(&field.name, &value) {
            self.object.take(at);
        } else if field.repeated {
            self.object.push(at, value);
        } else {
            self.object.set(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::fixture;
    use crate::gateway::routes::{Found, Routes};

    fn parse(query: &str) -> (String, Vec<String>, Vec<String>) {
        let tables = fixture::tables();
        let routes = Routes::new(&tables).unwrap();
        let Found::Route(route, values) = routes.find("PUT", "/v2/services/haproxy/configuration/servers/s1") else {
            panic!("no route");
        };
        let method = &tables.methods[route.method];
        let found = read(&tables, method, route, &values, query);
        let mut json = Vec::new();
        crate::schema::json::write(&tables, method.input, &found.object, &mut json);
        let violations =
            found.violations.iter().map(|v| format!("{} {} in {} {}", v.code, v.field, v.location, v.message));
        (String::from_utf8(json).unwrap(), violations.collect(), found.unknown)
    }

    #[test]
    fn odd_query_strings_are_read_as_clients_send_them() {
        for (query, expected) in [
            ("", r#"{"name":"s1"}"#),
            ("&version=3", r#"{"name":"s1","version":3}"#),
            ("version=", r#"{"name":"s1"}"#),
            ("version=0", r#"{"name":"s1"}"#),
            ("version=1&version=2", r#"{"name":"s1","version":2}"#),
            ("=force_reload=true&version=2", r#"{"name":"s1","version":2}"#),
            ("force_reload=yes", r#"{"name":"s1","force_reload":true}"#),
            ("force_reload=abc", r#"{"name":"s1","force_reload":false}"#),
            ("parent_name=a?b", r#"{"name":"s1","parent_name":"a?b"}"#),
            ("parent_name=[x]", r#"{"name":"s1","parent_name":"[x]"}"#),
            ("parent_name=%5Bx%5D+y%2B", r#"{"name":"s1","parent_name":"[x] y+"}"#),
            ("parent_name=%ff&version=4", r#"{"name":"s1","version":4}"#),
            ("parent_type=ring", r#"{"name":"s1","parent_type":"ring"}"#),
        ] {
            let (json, violations, _) = parse(query);
            assert!(violations.is_empty(), "{query}: {violations:?}");
            let (left, right): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&json).unwrap(), serde_json::from_str(expected).unwrap());
            assert_eq!(left, right, "{query}");
        }
    }

    #[test]
    fn values_of_the_wrong_kind_are_named() {
        assert_eq!(parse("version=abc").1, [r#"601 version in query must be of type int64: "abc""#]);
        assert_eq!(
            parse("parent_type=x").1,
            ["606 parent_type in query should be one of [backend ring]"],
            "global is in the enum but is no parent of servers"
        );
        assert_eq!(parse("parent_type=global").1.len(), 1);
    }

    #[test]
    fn unknown_parameters_and_fields_that_are_no_parameters_are_reported() {
        let (json, _, unknown) = parse("name=other&server=x&what=1");
        assert_eq!(json, r#"{"name":"s1"}"#);
        assert_eq!(unknown, ["name", "server", "what"]);
    }
}
