//! What the schema says, as plain tables: messages, fields, enums, methods.
//!
//! Made from descriptors by `load`; unit tests may also fill them by hand. No table is changed after start.

use std::collections::HashMap;

pub use super::value::FieldIndex;

/// Position in [`Tables::messages`].
pub type MessageId = usize;
/// Position in [`Tables::enums`].
pub type EnumId = usize;
/// Position in [`Tables::methods`].
pub type MethodId = usize;

/// All tables.
#[derive(Debug, Default)]
pub struct Tables {
    /// Messages, nested ones included.
    pub messages: Vec<MessageType>,
    /// Enums, nested ones included.
    pub enums: Vec<EnumType>,
    /// Services in order of their files.
    pub services: Vec<ServiceType>,
    /// Methods of all services.
    pub methods: Vec<Method>,
    /// Message by full name (`backstay.configuration.v2.Server`).
    pub message_by_name: HashMap<Box<str>, MessageId>,
    /// Method by gRPC path (`/backstay.configuration.v2.ServerService/GetServer`).
    pub method_by_path: HashMap<Box<str>, MethodId>,
}

/// A message.
#[derive(Debug, Default)]
pub struct MessageType {
    /// Full name.
    pub full_name: Box<str>,
    /// Fields in order of declaration, which is also the order of printing.
    pub fields: Vec<Field>,
    /// Template of its whole line, or of its header when it is a section.
    pub line: Option<Box<str>>,
    /// Template for on/off fields that have none of their own, such as `{=@|no-@}`.
    pub toggle: Option<Box<str>>,
    /// Set for messages that are objects of the configuration.
    pub resource: Option<Resource>,
    /// Field position by number on the wire.
    pub by_number: HashMap<u32, FieldIndex>,
    /// Field position by JSON key.
    pub by_json: HashMap<Box<str>, FieldIndex>,
    /// Field positions in the order of JSON answers.
    pub json_order: Vec<FieldIndex>,
}

/// A field.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of the vocabulary")]
pub struct Field {
    /// Proto name.
    pub name: Box<str>,
    /// Key in JSON, the name used in templates.
    pub json: Box<str>,
    /// Number on the wire.
    pub number: u32,
    /// Type of its value or items.
    pub kind: Kind,
    /// True for lists.
    pub repeated: bool,
    /// True when unset differs from zero (proto3 `optional`, messages).
    pub presence: bool,
    /// Explicit line template. Absent: the default of its kind, unless the message's own line or an enum value names it.
    pub template: Option<Box<str>>,
    /// Printed when set, never chosen by the parser.
    pub print_only: bool,
    /// Has no line at all.
    pub no_line: bool,
    /// An unset integer prints 0 where a template needs it.
    pub implicit: bool,
    /// Listed numbers, when only those are allowed.
    pub numbers: Vec<i64>,
    /// The fields of this message belong to the parent, in JSON and on the line.
    pub flatten: bool,
    /// Value rules.
    pub check: Check,
    /// First HAProxy version that has the keyword, as (major, minor).
    pub since: Option<(u16, u16)>,
    /// First HAProxy version that no longer has the keyword, as (major, minor).
    pub removed: Option<(u16, u16)>,
    /// REST /v2 has no such field.
    pub grpc_only: bool,
    /// The field of the same message under which REST /v2 shows the value of this one.
    pub shown_as: Option<FieldIndex>,
    /// Keywords of sections in which HAProxy does not take it.
    pub not_in: Vec<Box<str>>,
    /// Each line adds its words to those of the lines above it.
    pub adds: bool,
    /// The text is a word, or a list of words: quotes that it does not need are no part of it.
    pub word: bool,
    /// The field of the same message that has the last of several parameters, of which this list has those before it.
    pub earlier_of: Option<FieldIndex>,
    /// The field of the same message in the place of which this one holds what that one cannot.
    pub instead_of: Option<FieldIndex>,
}

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int32`.
    Int32,
    /// `int64`.
    Int64,
    /// `double`.
    Double,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// An enum.
    Enum(EnumId),
    /// A message.
    Message(MessageId),
}

/// Rules for a value, checked before anything is changed.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// A field that, where it is set, stands for this one, so that this one is not required.
    pub unless: Option<Box<str>>,
    /// Must be set, and not to the empty string.
    pub required: bool,
    /// Smallest integer.
    pub min: Option<i64>,
    /// Largest integer.
    pub max: Option<i64>,
    /// Regular expression that a string must match.
    pub pattern: Option<regex::Regex>,
    /// Its text, for messages.
    pub pattern_text: Box<str>,
    /// Over REST an explicit zero, `false` or empty string is a value; otherwise it counts as absent there.
    pub nullable: bool,
    /// Fields of the same message that must be set when this one is.
    pub needs: Vec<Box<str>>,
}

/// An enum.
#[derive(Debug, Default)]
pub struct EnumType {
    /// Full name.
    pub full_name: Box<str>,
    /// True for the shared `enabled`/`disabled` enum, which templates treat as a choice.
    pub toggle: bool,
    /// Values but the unspecified zero.
    pub values: Vec<EnumValue>,
    /// Position in `values` by token.
    pub by_token: HashMap<Box<str>, usize>,
    /// Position in `values` by number.
    pub by_number: HashMap<i32, usize>,
}

/// A value of an enum.
#[derive(Debug, Clone)]
pub struct EnumValue {
    /// Proto name.
    pub name: Box<str>,
    /// Number on the wire.
    pub number: i32,
    /// Word in the file and in JSON.
    pub token: Box<str>,
    /// Text from its keyword onwards; absent: the bare token.
    pub line: Option<Box<str>>,
    /// Printed when set, never chosen by the parser.
    pub print_only: bool,
    /// First HAProxy version that has the keyword, as (major, minor).
    pub since: Option<(u16, u16)>,
    /// Fields of the message that holds the value; exactly one of them must be set with it. Empty: no such rule.
    pub one_of: Vec<Box<str>>,
    /// Field of the same message and token that the value goes with; with another token of that field it is refused.
    /// Empty: no such rule.
    pub goes_with: Vec<(Box<str>, Box<str>)>,
    /// REST /v2 has no such value.
    pub grpc_only: bool,
}

/// How an object of the configuration stands in the file.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Section, line with a name, or line with a position.
    pub kind: ResourceKind,
    /// Its own section keyword when it is a section (`backend`), else the first word of its line.
    pub keyword: Box<str>,
    /// Sections that may hold it, in the order of the parent enum; empty for sections.
    pub parents: Vec<Parent>,
    /// Path to the field that identifies it: the name, or `index`. Two steps when it stands in flattened parameters;
    /// empty for singletons.
    pub identity: Vec<FieldIndex>,
    /// At most one such section exists and it has no name (`global`).
    pub singleton: bool,
    /// The name is derived from the address when the line has none (binds).
    pub derived_name: bool,
    /// Rank among the lines of a section: the first line of a kind goes before those with a higher rank.
    pub order: u32,
    /// A new section goes to the start of the file.
    pub first: bool,
}

/// A section that may hold a resource.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Section keyword (`log-forward`).
    pub section: Box<str>,
    /// Its word in `parent_type` (`log_forward`).
    pub token: Box<str>,
}

impl Parent {
    /// False for a kind of section that /v2 does not know.
    pub fn is_v2(&self) -> bool {
        !matches!(&*self.section, "listen" | "healthcheck")
    }
}

/// Kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceKind {
    /// A section.
    Section,
    /// A line of a section, found by name.
    NamedLine,
    /// A line of a section, found by its position among its kind.
    IndexedLine,
    /// A section with its lines: its first field is the section, each list the lines of one kind.
    Tree,
    /// Any line of any section as it stands there, found by its position among all of them.
    AnyLine,
    /// A frontend with its binds, the backends that it uses and their servers.
    Site,
}

/// A service.
#[derive(Debug)]
pub struct ServiceType {
    /// Full name.
    pub full_name: Box<str>,
    /// Its methods.
    pub methods: Vec<MethodId>,
}

/// What a method does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// All objects of a parent.
    List,
    /// One object.
    Get,
    /// A new object.
    Create,
    /// One object, whole.
    Replace,
    /// Named fields of one object.
    Update,
    /// Removal of one object.
    Delete,
    /// A hand-written method.
    Custom,
}

/// A method.
#[derive(Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: Box<str>,
    /// Request message.
    pub input: MessageId,
    /// Response message, or item of the stream.
    pub output: MessageId,
    /// The answer is a stream.
    pub streaming: bool,
    /// What it does.
    pub verb: Verb,
    /// The configuration resource it works on.
    pub resource: Option<MessageId>,
    /// It works on the first section of the resource's kind, which it does not name.
    pub singleton: bool,
    /// REST bindings.
    pub http: Vec<HttpRule>,
    /// HTTP status of success when it is not what the verb implies (0: implied).
    pub status: u16,
    /// Its body over REST is handed on while it arrives.
    pub upload: bool,
}

/// A REST binding of a method.
#[derive(Debug, Clone)]
pub struct HttpRule {
    /// HTTP method.
    pub method: Box<str>,
    /// Path with `{name}` parts, beginning with `/v2`.
    pub path: Box<str>,
    /// Request field that takes the body; empty: none, `*`: the message itself.
    pub body: Box<str>,
    /// Response field that is the body; empty: the message itself.
    pub response_body: Box<str>,
}

impl Tables {
    /// JSON path of a field, from the positions of fields on the way to it.
    pub fn json_path(&self, message: MessageId, steps: &[FieldIndex]) -> String {
        let mut message = Some(message);
        let mut keys: Vec<&str> = Vec::new();
        for at in steps {
            let Some(field) = message.and_then(|id| self.messages[id].fields.get(*at)) else { break };
            if !field.flatten {
                keys.push(&field.json);
            }
            message = if let Kind::Message(inner) = field.kind { Some(inner) } else { None };
        }
        keys.join(".")
    }

    /// A message by its full name.
    pub fn message(&self, full_name: &str) -> Option<&MessageType> {
        self.message_by_name.get(full_name).map(|id| &self.messages[*id])
    }

    /// Position of a field of a message. A name that is not there answers a position that is never set.
    pub fn field(&self, message: &str, name: &str) -> FieldIndex {
        self.message(message).and_then(|message| message.field_named(name)).unwrap_or(FieldIndex::MAX)
    }
}

impl MessageType {
    /// Field by proto name.
    pub fn field_named(&self, name: &str) -> Option<FieldIndex> {
        self.fields.iter().position(|field| &*field.name == name)
    }
}

impl EnumType {
    /// Value by number.
    pub fn value(&self, number: i32) -> Option<&EnumValue> {
        self.by_number.get(&number).map(|at| &self.values[*at])
    }

    /// Number of a token.
    pub fn number(&self, token: &str) -> Option<i32> {
        self.by_token.get(token).map(|at| self.values[*at].number)
    }
}
