//! Positions of messages and fields, and numbers of enum values, as the text of Rust constants. Pure.
//!
//! build.rs writes it down. Code that names a message, a field or a value names its constant, so that it does not
//! compile after a rename that it did not follow.

use std::collections::BTreeMap;

use heck::{ToShoutySnakeCase as _, ToSnakeCase as _};

use super::tables::{EnumType, MessageType, Tables};

/// What all our packages begin with.
const OURS: &str = "backstay.";

/// Three modules: `messages::PACKAGE::MESSAGE` and `fields::PACKAGE::message::FIELD` are positions in [`Tables`],
/// `values::PACKAGE::enumeration::VALUE` is a number on the wire.
pub fn source(tables: &Tables) -> String {
    let (mut messages, mut fields, mut values) = (Modules::new(), Modules::new(), Modules::new());
    for (at, message) in tables.messages.iter().enumerate() {
        let Some((package, name)) = place(&message.full_name) else { continue };
        constant(messages.entry(package).or_default(), &name.to_shouty_snake_case(), "usize", at);
        module(fields.entry(package).or_default(), &name.to_snake_case(), &of_fields(message));
    }
    for of_enum in &tables.enums {
        let Some((package, name)) = place(&of_enum.full_name) else { continue };
        module(values.entry(package).or_default(), &name.to_snake_case(), &of_values(of_enum));
    }
    let mut out = String::new();
    for (name, packages) in [("messages", messages), ("fields", fields), ("values", values)] {
        let mut inside = String::new();
        for (package, body) in packages {
            module(&mut inside, package, &body);
        }
        module(&mut out, name, &inside);
    }
    out
}

/// Bodies of modules by their names.
type Modules<'a> = BTreeMap<&'a str, String>;

/// Package without our beginning and its version, and the name inside it, of an element of ours.
fn place(full_name: &str) -> Option<(&str, &str)> {
    let (package, rest) = full_name.strip_prefix(OURS)?.split_once('.')?;
    let (_version, name) = rest.split_once('.')?;
    Some((package, name))
}

fn of_fields(message: &MessageType) -> String {
    let mut out = String::new();
    for (at, field) in message.fields.iter().enumerate() {
        constant(&mut out, &field.name.to_shouty_snake_case(), "usize", at);
    }
    out
}

fn of_values(of_enum: &EnumType) -> String {
    let own = of_enum.full_name.rsplit('.').next().unwrap_or_default().to_shouty_snake_case();
    let mut out = String::new();
    for value in &of_enum.values {
        let name = value.name.strip_prefix(own.as_str()).and_then(|rest| rest.strip_prefix('_'));
        let name = name.filter(|rest| !rest.starts_with(|first: char| first.is_ascii_digit())).unwrap_or(&value.name);
        constant(&mut out, name, "i32", value.number);
    }
    out
}

fn constant(out: &mut String, name: &str, of: &str, value: impl std::fmt::Display) {
    out.extend(["pub const ", name, ": ", of, " = ", &value.to_string(), ";\n"]);
}

/// The name is written raw, since it may be a keyword of Rust.
fn module(out: &mut String, name: &str, body: &str) {
    out.extend(["pub mod r#", name, " {\n", body, "}\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_other_packages_have_no_handles() {
        assert_eq!(place("backstay.type.v2.Toggle"), Some(("type", "Toggle")));
        assert_eq!(place("backstay.stats.v2.Outer.Inner"), Some(("stats", "Outer.Inner")));
        assert_eq!(place("google.protobuf.Any"), None);
        assert_eq!(
            source(&Tables::default()),
            "pub mod r#messages {\n}\npub mod r#fields {\n}\npub mod r#values {\n}\n"
        );
    }

    #[test]
    fn constants_are_what_the_tables_say() {
        let tables = super::super::Schema::compile(crate::proto::SCHEMA).unwrap().tables;
        let server = tables.message_by_name["backstay.configuration.v2.Server"];
        assert_eq!(crate::proto::messages::configuration::SERVER, server);
        let address = tables.messages[server].field_named("address");
        assert_eq!(Some(crate::proto::fields::configuration::server::ADDRESS), address);
        let toggle = tables.enums.iter().find(|of| &*of.full_name == "backstay.type.v2.Toggle").unwrap();
        assert_eq!(toggle.number("enabled"), Some(crate::proto::values::r#type::toggle::ENABLED));
    }
}
