//! The comments of `proto/`, which are the documentation of the API.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Text by element: messages, enums and services by full name, fields, enum values and methods by
/// `<full name of what holds them>.<name>`. Lines are joined, paragraphs parted by an empty line.
pub type Comments = HashMap<Box<str>, Box<str>>;

// Numbers of the fields of descriptor.proto that source paths are made of.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const MESSAGE_NESTED: i32 = 3;
const MESSAGE_ENUM: i32 = 4;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

/// Collects the comments of an encoded descriptor set that keeps its source info. Empty for anything else: comments
/// are never worth a failure.
pub fn comments(descriptor_set: &[u8]) -> Comments {
    let mut out = Comments::new();
    for file in FileDescriptorSet::decode(descriptor_set).unwrap_or_default().file {
        for location in file.source_code_info.iter().flat_map(|info| &info.location) {
            let Some(text) = location.leading_comments.as_deref() else { continue };
            if let Some(name) = element(&file, &location.path) {
                out.insert(name.into(), unwrapped(text).into());
            }
        }
    }
    out
}

fn element(file: &FileDescriptorProto, path: &[i32]) -> Option<String> {
    let (&kind, rest) = path.split_first()?;
    let (at, rest) = index(rest)?;
    let package = file.package();
    match kind {
        FILE_MESSAGE => in_message(file.message_type.get(at)?, package, rest),
        FILE_ENUM => in_enum(file.enum_type.get(at)?, package, rest),
        FILE_SERVICE => {
            let service = file.service.get(at)?;
            let name = format!("{package}.{}", service.name());
            match rest {
                [] => Some(name),
                [SERVICE_METHOD, method] => {
                    Some(format!("{name}.{}", service.method.get(usize::try_from(*method).ok()?)?.name()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn in_message(message: &DescriptorProto, parent: &str, path: &[i32]) -> Option<String> {
    let name = format!("{parent}.{}", message.name());
    let Some((&kind, rest)) = path.split_first() else { return Some(name) };
    let (at, rest) = index(rest)?;
    match kind {
        MESSAGE_FIELD if rest.is_empty() => Some(format!("{name}.{}", message.field.get(at)?.name())),
        MESSAGE_NESTED => in_message(message.nested_type.get(at)?, &name, rest),
        MESSAGE_ENUM => in_enum(message.enum_type.get(at)?, &name, rest),
        _ => None,
    }
}

fn in_enum(item: &EnumDescriptorProto, parent: &str, path: &[i32]) -> Option<String> {
    let name = format!("{parent}.{}", item.name());
    match path {
        [] => Some(name),
        [ENUM_VALUE, at] => Some(format!("{name}.{}", item.value.get(usize::try_from(*at).ok()?)?.name())),
        _ => None,
    }
}

fn index(path: &[i32]) -> Option<(usize, &[i32])> {
    let (&at, rest) = path.split_first()?;
    Some((usize::try_from(at).ok()?, rest))
}

/// Undoes the line breaks of the source.
fn unwrapped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut pending = "";
    for line in text.trim().lines().map(str::trim) {
        if line.is_empty() {
            pending = "\n\n";
            continue;
        }
        out.push_str(pending);
        out.push_str(line);
        pending = " ";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_element_has_its_comment() {
        let comments = comments(include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin")));
        for (name, start) in [
            ("backstay.configuration.v2.AclService", "ACLs of the configuration."),
            ("backstay.configuration.v2.AclService.ListAcls", "Lists all ACLs in the order of the file."),
            ("backstay.configuration.v2.GetAclRequest.index", "Position in the list"),
            ("backstay.type.v2.Toggle", "A setting that is on, off, or not written at all."),
            ("backstay.type.v2.Toggle.TOGGLE_ENABLED", "On."),
            ("backstay.configuration.v2.Acl", "A named condition."),
        ] {
            let text = comments.get(name).unwrap();
            assert!(text.starts_with(start), "{name}: {text}");
            assert!(!text.contains('\n'), "{name}: {text}");
        }
        assert!(super::comments(b"\xff").is_empty());
    }

    #[test]
    fn wrapped_lines_are_joined_and_paragraphs_kept() {
        assert_eq!(unwrapped(" a\n b\n\n c\n"), "a b\n\nc");
    }
}
