//! A request header that is a list of calls: `Name argument argument;Name argument`.
//!
//! It is read into the messages that the request has for it. The schema says how a name is written; which arguments
//! belong to it stands here, because only the header has them without their names.

use crate::error::{Error, Reason, Result};
use crate::schema::tables::{Field, Kind, Tables};
use crate::schema::value::{Object, Value};

/// Name of the header, for messages.
pub(super) const HEADER: &str = "X-Runtime-Actions";

/// Fields of the arguments, by the name of the call.
const ARGUMENTS: [(&str, &[&str]); 9] = [
    ("SetFrontendMaxConn", &["frontend", "maxconn"]),
    ("SetServerWeight", &["backend", "server", "weight"]),
    ("SetServerCheckPort", &["backend", "server", "port"]),
    ("SetServerAddr", &["backend", "server", "address", "port"]),
    ("SetServerState", &["backend", "server", "state"]),
    ("EnableAgentCheck", &["backend", "server"]),
    ("DisableAgentCheck", &["backend", "server"]),
    ("SetServerAgentAddr", &["backend", "server", "address"]),
    ("SetServerAgentSend", &["backend", "server", "text"]),
];

/// The calls of a header as values of a repeated field. `INVALID_VALUE`, with the header in its metadata, says which call
/// is at fault.
pub(super) fn read(tables: &Tables, field: &Field, header: &str) -> Result<Vec<Value>> {
    let Kind::Message(message) = field.kind else { return Ok(vec![Value::Str(header.into())]) };
    let mut calls = Vec::new();
    for call in header.split(';').map(str::trim).filter(|call| !call.is_empty()) {
        let mut words = call.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let wrong =
            |what: &str| Error::new(Reason::InvalidValue, format!("{HEADER}: {name} {what}")).with("header", HEADER);
        let known = ARGUMENTS.iter().find(|(known, _)| *known == name);
        let (_, fields) = known.ok_or_else(|| wrong("is not known"))?;
        let expected = || wrong(&format!("needs {}", fields.join(", ")));
        let mut object = Object::new();
        set(tables, message, "type", name, &mut object).ok_or_else(|| wrong("is not known"))?;
        for field in *fields {
            let word = words.next().ok_or_else(expected)?;
            set(tables, message, field, word, &mut object)
                .ok_or_else(|| wrong(&format!("does not know {field} {word}")))?;
        }
        if words.next().is_some() {
            return Err(expected());
        }
        calls.push(Value::Object(object));
    }
    Ok(calls)
}

fn set(tables: &Tables, message: usize, name: &str, word: &str, object: &mut Object) -> Option<()> {
    let at = tables.messages[message].field_named(name)?;
    let value = match tables.messages[message].fields[at].kind {
        Kind::Enum(id) => Value::Enum(tables.enums[id].values.iter().find(|value| &*value.token == word)?.number),
        Kind::String => Value::Str(word.into()),
        _ => Value::Int(word.parse().ok()?),
    };
    object.set(at, value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Schema, json};

    fn read_text(header: &str) -> Result<String> {
        let schema = Schema::compile(crate::proto::SCHEMA).unwrap();
        let tables = &schema.tables;
        let input = tables.message_by_name["backstay.configuration.v2.PushRawConfigurationRequest"];
        let at = tables.messages[input].field_named("runtime_actions").unwrap();
        let mut request = Object::new();
        for value in read(tables, &tables.messages[input].fields[at], header)? {
            request.push(at, value);
        }
        let mut text = Vec::new();
        json::write(tables, input, &request, &mut text);
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn calls_become_messages() {
        assert_eq!(
            read_text("SetFrontendMaxConn fe 100; SetServerState be s1 drain ;EnableAgentCheck be s1;").unwrap(),
            "{\"runtime_actions\":[{\"frontend\":\"fe\",\"maxconn\":100,\"type\":\"SetFrontendMaxConn\"},\
             {\"backend\":\"be\",\"server\":\"s1\",\"state\":\"drain\",\"type\":\"SetServerState\"},\
             {\"backend\":\"be\",\"server\":\"s1\",\"type\":\"EnableAgentCheck\"}]}"
        );
        for (name, fields) in ARGUMENTS {
            let words = fields.iter().map(|field| match *field {
                "maxconn" | "weight" | "port" => "80",
                "state" => "ready",
                _ => "x",
            });
            let call = [name].into_iter().chain(words).collect::<Vec<_>>().join(" ");
            assert!(read_text(&call).is_ok(), "{call}");
        }
    }

    #[test]
    fn faults_name_the_call() {
        for (header, said) in [
            ("SetServerWeight be s1", "SetServerWeight needs backend, server, weight"),
            ("SetServerWeight be s1 5 6", "SetServerWeight needs backend, server, weight"),
            ("SetServerWeight be s1 heavy", "SetServerWeight does not know weight heavy"),
            ("SetServerState be s1 gone", "SetServerState does not know state gone"),
            ("EnableAgentCheck be s1;ShutdownSessions be", "ShutdownSessions is not known"),
        ] {
            assert_eq!(read_text(header).unwrap_err().message(), format!("{HEADER}: {said}"));
        }
    }
}
