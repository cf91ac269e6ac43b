//! What clients of the API rely on (names, numbers, types, JSON keys, paths) against `tests/data/proto.digest`.
//!
//! An accidental change fails here. `BACKSTAY_BLESS=1 cargo test --test it digest` takes a wanted one over; a line that
//! is gone or different breaks clients, a new line does not.

use std::fmt::Write as _;

use backstay::proto;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor,
};

use crate::support::blessed;

#[test]
fn names_numbers_and_paths_of_the_protos_are_those_of_the_digest() {
    let pool = DescriptorPool::decode(proto::SCHEMA).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let mut lines = Vec::new();
    let files: Vec<_> = pool.files().filter(|f| f.package_name().starts_with("backstay.")).collect();
    assert!(files.len() > 40, "the pool holds only {} files", files.len());
    for file in files {
        file.messages().for_each(|m| message(&m, &mut lines));
        file.enums().for_each(|e| enumeration(&e, &mut lines));
        for service in file.services() {
            lines.extend(service.methods().map(|m| rpc(&m, &http)));
        }
        lines.extend(file.extensions().map(|e| {
            format!(
                "extension {} {} {} of {}",
                e.full_name(),
                e.number(),
                kind(&e.kind()),
                e.containing_message().full_name()
            )
        }));
    }
    lines.sort();
    blessed::file("tests/data/proto.digest", &(lines.join("\n") + "\n"));
}

fn message(message: &MessageDescriptor, lines: &mut Vec<String>) {
    lines.push(format!("message {}", message.full_name()));
    lines.extend(message.fields().map(|f| field(&f)));
    for range in message.reserved_ranges() {
        lines.push(format!("reserved {} {}..{}", message.full_name(), range.start, range.end));
    }
    for inner in message.child_messages().filter(|m| !m.is_map_entry()) {
        self::message(&inner, lines);
    }
    message.child_enums().for_each(|e| enumeration(&e, lines));
}

fn field(field: &FieldDescriptor) -> String {
    let label = match field {
        f if f.is_map() => "map ",
        f if f.is_list() => "repeated ",
        f if f.containing_oneof().is_some_and(|o| !o.is_synthetic()) => "oneof ",
        f if f.supports_presence() && !matches!(f.kind(), Kind::Message(_)) => "optional ",
        _ => "",
    };
    format!("field {} {} {label}{} {:?}", field.full_name(), field.number(), kind(&field.kind()), field.json_name())
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(list) => list.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn enumeration(list: &EnumDescriptor, lines: &mut Vec<String>) {
    for value in list.values() {
        lines.push(format!("value {}.{} {}", list.full_name(), value.name(), value.number()));
    }
}

fn rpc(method: &MethodDescriptor, http: &ExtensionDescriptor) -> String {
    let stream = |yes| if yes { "stream " } else { "" };
    let mut line = format!(
        "rpc {}/{} ({}{}) ({}{})",
        method.parent_service().full_name(),
        method.name(),
        stream(method.is_client_streaming()),
        method.input().full_name(),
        stream(method.is_server_streaming()),
        method.output().full_name(),
    );
    let options = method.options();
    if options.has_extension(http)
        && let Some(rule) = options.get_extension(http).as_message()
    {
        bindings(rule, &mut line);
    }
    line
}

fn bindings(rule: &DynamicMessage, line: &mut String) {
    for verb in ["get", "put", "post", "delete", "patch"] {
        if let Some(path) = rule.get_field_by_name(verb).as_deref().and_then(|v| v.as_str())
            && !path.is_empty()
        {
            write!(line, " {} {path}", verb.to_uppercase()).unwrap();
        }
    }
    for part in ["body", "response_body"] {
        if let Some(name) = rule.get_field_by_name(part).as_deref().and_then(|v| v.as_str())
            && !name.is_empty()
        {
            write!(line, " {part}={name}").unwrap();
        }
    }
    if let Some(more) = rule.get_field_by_name("additional_bindings").as_deref().and_then(|v| v.as_list()) {
        more.iter().filter_map(|v| v.as_message()).for_each(|rule| bindings(rule, line));
    }
}
