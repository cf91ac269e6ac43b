//! A descriptor set as far as tables are made of it. Options stay bytes until they are asked for: a pool that decodes
//! and links all there is takes more time and memory than everything else at start.

use std::collections::HashMap;

use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Numbers of types in `FieldDescriptorProto`.
pub(super) mod types {
    pub(crate) const DOUBLE: i32 = 1;
    pub(crate) const INT64: i32 = 3;
    pub(crate) const INT32: i32 = 5;
    pub(crate) const BOOL: i32 = 8;
    pub(crate) const STRING: i32 = 9;
    pub(crate) const MESSAGE: i32 = 11;
    pub(crate) const BYTES: i32 = 12;
    pub(crate) const ENUM: i32 = 14;
}

/// The label of lists.
const REPEATED: i32 = 3;

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<Enum>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
    #[prost(message, repeated, tag = "7")]
    extensions: Vec<Field>,
    #[prost(string, tag = "12")]
    syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Message>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<Enum>,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) options: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Field {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "3")]
    number: i32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    pub(super) kind: i32,
    #[prost(string, tag = "6")]
    type_name: String,
    #[prost(bytes = "vec", tag = "8")]
    pub(super) options: Vec<u8>,
    #[prost(int32, optional, tag = "9")]
    oneof: Option<i32>,
    #[prost(string, tag = "10")]
    pub(super) json_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Enum {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EnumValue {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int32, tag = "2")]
    pub(super) number: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) options: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) methods: Vec<Method>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) options: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Method {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    input: String,
    #[prost(string, tag = "3")]
    output: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) options: Vec<u8>,
    #[prost(bool, tag = "5")]
    pub(super) client_streaming: bool,
    #[prost(bool, tag = "6")]
    pub(super) server_streaming: bool,
}

impl Field {
    pub(super) fn number(&self) -> u32 {
        self.number.unsigned_abs()
    }

    pub(super) fn is_list(&self) -> bool {
        self.label == REPEATED
    }

    /// The full name of its message or enum.
    pub(super) fn type_name(&self) -> &str {
        bare(&self.type_name)
    }
}

impl Method {
    pub(super) fn input(&self) -> &str {
        bare(&self.input)
    }

    pub(super) fn output(&self) -> &str {
        bare(&self.output)
    }
}

/// A full name without the dot in front.
fn bare(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

/// An element with its full name and the file that declares it.
#[derive(Debug, Clone)]
pub(super) struct Named<'a, T> {
    pub(super) item: &'a T,
    pub(super) full_name: String,
    file: &'a File,
}

impl<'a, T> Named<'a, T> {
    fn new(file: &'a File, scope: &str, name: &str, item: &'a T) -> Self {
        let full_name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        Named { item, full_name, file }
    }

    /// Name of its file.
    pub(super) fn file(&self) -> &'a str {
        &self.file.name
    }

    /// The package of its file.
    pub(super) fn package(&self) -> &'a str {
        &self.file.package
    }
}

impl Named<'_, Message> {
    /// Whether it can be told if one of its fields is set.
    pub(super) fn has_presence(&self, field: &Field) -> bool {
        !field.is_list() && (self.file.syntax != "proto3" || field.oneof.is_some() || field.kind == types::MESSAGE)
    }
}

/// The decoded set.
#[derive(Debug)]
pub(super) struct Set(Files);

impl Set {
    pub(super) fn decode(bytes: &[u8]) -> Result<Set, String> {
        Files::decode(bytes).map(Set).map_err(|error| error.to_string())
    }

    /// All messages, each before those inside it.
    pub(super) fn messages(&self) -> Vec<Named<'_, Message>> {
        fn add<'a>(file: &'a File, scope: &str, messages: &'a [Message], out: &mut Vec<Named<'a, Message>>) {
            for message in messages {
                let named = Named::new(file, scope, &message.name, message);
                let scope = named.full_name.clone();
                out.push(named);
                add(file, &scope, &message.nested, out);
            }
        }
        let mut out = Vec::new();
        for file in &self.0.file {
            add(file, &file.package, &file.messages, &mut out);
        }
        out
    }

    /// All enums, also those inside messages: those that [`Set::messages`] answered.
    pub(super) fn enums<'a>(&'a self, messages: &[Named<'a, Message>]) -> Vec<Named<'a, Enum>> {
        let outside = self
            .0
            .file
            .iter()
            .flat_map(|file| file.enums.iter().map(move |item| Named::new(file, &file.package, &item.name, item)));
        let mut out: Vec<_> = outside.collect();
        for message in messages {
            let inside = message.item.enums.iter();
            out.extend(inside.map(|item| Named::new(message.file, &message.full_name, &item.name, item)));
        }
        out
    }

    pub(super) fn services(&self) -> Vec<Named<'_, Service>> {
        let all =
            self.0.file.iter().flat_map(|file| {
                file.services.iter().map(move |item| Named::new(file, &file.package, &item.name, item))
            });
        all.collect()
    }

    /// What options mean, with the messages that [`Set::messages`] answered.
    pub(super) fn vocabulary<'a>(&'a self, messages: &[Named<'a, Message>]) -> Vocabulary<'a> {
        let extensions =
            self.0.file.iter().flat_map(|file| {
                file.extensions.iter().map(move |item| Named::new(file, &file.package, &item.name, item))
            });
        Vocabulary {
            messages: messages.iter().map(|message| (message.full_name.clone(), message.item)).collect(),
            extensions: extensions.map(|extension| (extension.full_name, extension.item)).collect(),
        }
    }
}

/// Descriptions of options: each is an extension whose type is a message.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    messages: HashMap<String, &'a Message>,
    extensions: HashMap<String, &'a Field>,
}

impl<'a> Vocabulary<'a> {
    /// Whether an option is declared.
    pub(super) fn has(&self, extension: &str) -> bool {
        self.extensions.contains_key(extension)
    }

    /// The fields of a message; none of one that is not there.
    pub(super) fn fields(&self, message: &str) -> &'a [Field] {
        self.messages.get(message).map(|message| &*message.fields).unwrap_or_default()
    }

    /// The message in an option, when the option is set.
    pub(super) fn rules(&'a self, options: &'a [u8], extension: &str) -> Option<Rules<'a>> {
        let extension = self.extensions.get(extension)?;
        let found = values(options).into_iter().rev().find(|(number, _)| *number == extension.number());
        self.message(extension.type_name(), found?.1)
    }

    fn message(&'a self, name: &str, value: Raw<'a>) -> Option<Rules<'a>> {
        let Raw::Bytes(bytes) = value else { return None };
        let message = self.messages.get(name)?;
        Some(Rules { vocabulary: self, message, values: values(bytes) })
    }
}

/// A value on the wire.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The values of a message by their numbers, up to where it cannot be read. Options have no others than these kinds.
fn values(mut bytes: &[u8]) -> Vec<(u32, Raw<'_>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let Ok((number, kind)) = decode_key(&mut bytes) else { break };
        let value = match kind {
            WireType::Varint => decode_varint(&mut bytes).ok().map(Raw::Number),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).ok().and_then(|length| usize::try_from(length).ok());
                length.and_then(|length| bytes.split_at_checked(length)).map(|(value, rest)| {
                    bytes = rest;
                    Raw::Bytes(value)
                })
            }
            other => {
                if skip_field(other, number, &mut bytes, DecodeContext::default()).is_err() {
                    break;
                }
                continue;
            }
        };
        let Some(value) = value else { break };
        out.push((number, value));
    }
    out
}

/// The message in an option; fields are asked for by name.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    vocabulary: &'a Vocabulary<'a>,
    message: &'a Message,
    values: Vec<(u32, Raw<'a>)>,
}

impl<'a> Rules<'a> {
    fn field(&self, name: &str) -> Option<&'a Field> {
        self.message.fields.iter().find(|field| field.name == name)
    }

    fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = Raw<'a>> {
        let number = self.field(name).map(Field::number);
        self.values.iter().filter(move |(known, _)| Some(*known) == number).map(|(_, value)| *value)
    }

    /// A text; empty when it is not set.
    pub(super) fn text(&self, name: &str) -> Box<str> {
        self.some_text(name).unwrap_or_default()
    }

    /// A text that is not empty.
    pub(super) fn some_text(&self, name: &str) -> Option<Box<str>> {
        self.texts(name).pop().filter(|text| !text.is_empty())
    }

    /// All texts of a list.
    pub(super) fn texts(&self, name: &str) -> Vec<Box<str>> {
        let text = |value| match value {
            Raw::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Into::into),
            Raw::Number(_) => None,
        };
        self.all(name).filter_map(text).collect()
    }

    /// A number, when it is set. Those of enums are numbers as well.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.numbers(name).pop()
    }

    /// All numbers of a list, packed or not.
    pub(super) fn numbers(&self, name: &str) -> Vec<i64> {
        let mut out = Vec::new();
        for value in self.all(name) {
            match value {
                Raw::Number(number) => out.push(number.cast_signed()),
                Raw::Bytes(mut packed) => {
                    while let Ok(number) = decode_varint(&mut packed) {
                        out.push(number.cast_signed());
                    }
                }
            }
        }
        out
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.number(name).is_some_and(|number| number != 0)
    }

    /// All messages of a list.
    pub(super) fn messages(&self, name: &str) -> Vec<Rules<'a>> {
        let Some(field) = self.field(name) else { return Vec::new() };
        self.all(name).filter_map(|value| self.vocabulary.message(field.type_name(), value)).collect()
    }
}
