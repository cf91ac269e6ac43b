//! Descriptors with their custom options -> [`Tables`].
//!
//! Whatever an option says wrongly is found here, or when the templates are compiled; build.rs runs both.

mod descriptors;
mod resources;

use std::collections::HashMap;

use descriptors::{Enum, Field as FieldDescriptor, Message, Method as MethodDescriptor, Named, Rules, Service, Set};
use descriptors::{Vocabulary, types};

use super::json::json_order;
use super::tables::{
    Check, EnumType, EnumValue, Field, HttpRule, Kind, MessageType, Method, ServiceType, Tables, Verb,
};

/// The shared on/off enum.
const TOGGLE: &str = "backstay.type.v2.Toggle";

/// What is wrong with an element of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// File of the element.
    pub file: String,
    /// Full name of the element.
    pub element: String,
    /// What is wrong and what was expected.
    pub text: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.element, self.text)
    }
}

/// File that declares a message, for faults found later.
pub fn file_of(descriptor_set: &[u8], message: &str) -> String {
    let Ok(set) = Set::decode(descriptor_set) else { return String::new() };
    let found = set.messages().into_iter().find(|known| known.full_name == message);
    found.map(|message| message.file().to_owned()).unwrap_or_default()
}

/// Custom options, by where they hang.
const OF_MESSAGE: &str = "backstay.type.v2.message";
const OF_FIELD: &str = "backstay.type.v2.field";
const OF_VALUE: &str = "backstay.type.v2.value";
const OF_SERVICE: &str = "backstay.type.v2.service";
const OF_METHOD: &str = "backstay.type.v2.method";
const HTTP: &str = "google.api.http";

/// Makes the tables from an encoded descriptor set that keeps its extension data.
pub fn load(descriptor_set: &[u8]) -> Result<Tables, Vec<Fault>> {
    let fault = |text: String| vec![Fault { file: "descriptor set".into(), element: "-".into(), text }];
    let set = Set::decode(descriptor_set).map_err(fault)?;
    let (messages, services) = (set.messages(), set.services());
    let vocabulary = set.vocabulary(&messages);
    for option in [OF_MESSAGE, OF_FIELD, OF_VALUE, OF_SERVICE, OF_METHOD, HTTP] {
        if !vocabulary.has(option) {
            return Err(fault(format!("option {option} is not declared")));
        }
    }
    let mut files = HashMap::new();
    for message in &messages {
        files.insert(message.full_name.as_str().into(), message.file().into());
    }
    for service in &services {
        for method in &service.item.methods {
            files.insert(format!("/{}/{}", service.full_name, method.name).into(), service.file().into());
        }
    }
    let mut loader = Loader {
        files,
        vocabulary: &vocabulary,
        tables: Tables::default(),
        enums: HashMap::new(),
        patterns: HashMap::new(),
        faults: Vec::new(),
    };
    for (at, message) in messages.iter().enumerate() {
        loader.tables.message_by_name.insert(message.full_name.as_str().into(), at);
    }
    for item in set.enums(&messages) {
        loader.add_enum(&item);
    }
    for message in &messages {
        loader.add_message(message);
    }
    loader.resolve_identities();
    for service in &services {
        loader.add_service(service);
    }
    loader.check_relations();
    loader.check_paths();
    loader.order_json();
    if loader.faults.is_empty() { Ok(loader.tables) } else { Err(loader.faults) }
}

/// `type=content` as (`type`, `content`); without the sign all of it is the name of a field.
fn pair(text: &str) -> (Box<str>, Box<str>) {
    let (field, token) = text.split_once('=').unwrap_or((text, ""));
    (field.into(), token.into())
}

/// `2.8` as (2, 8).
fn version(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

struct Loader<'a> {
    /// File of each message by its full name, and of each method by its path.
    files: HashMap<Box<str>, Box<str>>,
    vocabulary: &'a Vocabulary<'a>,
    tables: Tables,
    enums: HashMap<Box<str>, usize>,
    patterns: HashMap<Box<str>, regex::Regex>,
    faults: Vec<Fault>,
}

impl<'a> Loader<'a> {
    fn fault(&mut self, file: &str, element: &str, text: impl Into<String>) {
        self.faults.push(Fault { file: file.to_owned(), element: element.to_owned(), text: text.into() });
    }

    /// A fault of a message or method, by its full name or path.
    fn fault_in(&mut self, element: &str, text: impl Into<String>) {
        let file = self.files.get(element).cloned().unwrap_or_default();
        self.fault(&file, element, text);
    }

    /// The version of HAProxy that a rule names.
    fn version(&mut self, rule: &str, rules: Option<&Rules<'_>>, file: &str, element: &str) -> Option<(u16, u16)> {
        let written = rules?.some_text(rule)?;
        let parsed = version(&written);
        if parsed.is_none() {
            self.fault(file, element, format!("{rule} `{written}` is not a version such as `2.8`"));
        }
        parsed
    }

    fn add_enum(&mut self, item: &Named<'a, Enum>) {
        let (file, full_name) = (item.file(), item.full_name.as_str());
        let mut out = EnumType { full_name: full_name.into(), toggle: full_name == TOGGLE, ..EnumType::default() };
        let ours = full_name.starts_with("backstay.") && !full_name.starts_with("backstay.type.v2.");
        // Values stand beside their enum.
        let scope = full_name.rsplit_once('.').map_or("", |(scope, _)| scope);
        for value in item.item.values.iter().filter(|value| value.number != 0) {
            let element = format!("{scope}.{}", value.name);
            let rules = self.vocabulary.rules(&value.options, OF_VALUE);
            let rules = rules.as_ref();
            let token = rules.map(|r| r.text("token")).unwrap_or_default();
            if token.is_empty() && ours {
                self.fault(file, &element, "has no token");
            }
            if out.by_token.contains_key(&token) && !token.is_empty() {
                self.fault(file, &element, format!("token `{token}` stands twice"));
            }
            out.by_token.insert(token.clone(), out.values.len());
            out.by_number.insert(value.number, out.values.len());
            out.values.push(EnumValue {
                name: value.name.as_str().into(),
                number: value.number,
                token,
                line: rules.and_then(|r| r.some_text("line")),
                print_only: rules.is_some_and(|r| r.flag("print_only")),
                since: self.version("since", rules, file, &element),
                one_of: rules.map(|r| r.texts("one_of")).unwrap_or_default(),
                goes_with: rules
                    .map(|r| r.texts("goes_with").iter().map(|text| pair(text)).collect())
                    .unwrap_or_default(),
                grpc_only: rules.is_some_and(|r| r.flag("grpc_only")),
            });
        }
        self.enums.insert(full_name.into(), self.tables.enums.len());
        self.tables.enums.push(out);
    }

    fn add_message(&mut self, message: &Named<'a, Message>) {
        let (file, full_name) = (message.file(), message.full_name.as_str());
        let rules = self.vocabulary.rules(&message.item.options, OF_MESSAGE);
        let mut out = MessageType { full_name: full_name.into(), ..MessageType::default() };
        // Declaration order is the order of printing.
        for field in &message.item.fields {
            let at = out.fields.len();
            if let Some(field) = self.field(message, field) {
                if out.by_json.insert(field.json.clone(), at).is_some() {
                    self.fault(file, &format!("{full_name}.{}", field.name), "JSON key stands twice");
                }
                out.by_number.insert(field.number, at);
                out.fields.push(field);
            }
        }
        self.resolve_fields(message, &mut out);
        if let Some(rules) = &rules {
            out.line = rules.some_text("line");
            out.toggle = rules.some_text("toggle");
            if let Some(resource) = rules.messages("resource").pop() {
                out.resource = self.resource(&resource, &out, file);
            }
        }
        self.tables.messages.push(out);
    }

    /// Finds the fields that others name, once all fields of the message are known.
    fn resolve_fields(&mut self, message: &Named<'a, Message>, out: &mut MessageType) {
        for descriptor in &message.item.fields {
            let Some(rules) = self.vocabulary.rules(&descriptor.options, OF_FIELD) else { continue };
            let Some(at) = out.field_named(&descriptor.name) else { continue };
            for option in ["rest_field", "earlier_of", "instead_of"] {
                let Some(wanted) = rules.some_text(option) else { continue };
                let other = out.field_named(&wanted);
                let same_kind = other.is_some_and(|other| out.fields[other].kind == out.fields[at].kind);
                let field = &mut out.fields[at];
                match option {
                    "rest_field" if field.grpc_only && same_kind => field.shown_as = other,
                    "earlier_of" if field.grpc_only && field.repeated && other.is_some() => field.earlier_of = other,
                    "instead_of" if field.grpc_only && other.is_some() => field.instead_of = other,
                    _ => {
                        let text = format!("{option} `{wanted}` should name a field that fits");
                        self.fault(message.file(), &format!("{}.{}", message.full_name, descriptor.name), text);
                    }
                }
            }
        }
    }

    fn field(&mut self, message: &Named<'a, Message>, field: &FieldDescriptor) -> Option<Field> {
        let (file, full_name) = (message.file(), format!("{}.{}", message.full_name, field.name));
        let rules = self.vocabulary.rules(&field.options, OF_FIELD);
        let rules = rules.as_ref();
        let kind = match field.kind {
            types::BOOL => Kind::Bool,
            types::INT32 => Kind::Int32,
            types::INT64 => Kind::Int64,
            types::DOUBLE => Kind::Double,
            types::STRING => Kind::String,
            types::BYTES => Kind::Bytes,
            types::ENUM => Kind::Enum(self.enums.get(field.type_name()).copied()?),
            types::MESSAGE => Kind::Message(self.tables.message_by_name.get(field.type_name()).copied()?),
            other => {
                // Only messages of descriptor.proto use other types, and no interpreter touches those.
                if full_name.starts_with("backstay.") && !full_name.starts_with("backstay.type.") {
                    self.fault(file, &full_name, format!("type {other} of FieldDescriptorProto is not supported"));
                }
                return None;
            }
        };
        let pattern_text = rules.map(|r| r.text("pattern")).unwrap_or_default();
        let pattern = if pattern_text.is_empty() {
            None
        } else {
            self.pattern(&pattern_text).unwrap_or_else(|error| {
                self.fault(file, &full_name, format!("pattern: {error}"));
                None
            })
        };
        let derived = field.json_name.is_empty() || field.json_name == lower_camel(&field.name);
        let json = if derived { &field.name } else { &field.json_name };
        let is = |name: &str| rules.is_some_and(|r| r.flag(name));
        let names = |name: &str| rules.map(|r| r.texts(name)).unwrap_or_default();
        Some(Field {
            name: field.name.as_str().into(),
            json: json.as_str().into(),
            number: field.number(),
            kind,
            repeated: field.is_list(),
            presence: message.has_presence(field),
            template: rules.and_then(|r| r.some_text("line")),
            print_only: is("print_only"),
            no_line: is("no_line"),
            implicit: is("implicit"),
            numbers: rules.map(|r| r.numbers("numbers")).unwrap_or_default(),
            flatten: is("flatten"),
            check: Check {
                required: is("required"),
                min: rules.and_then(|r| r.number("min")),
                max: rules.and_then(|r| r.number("max")),
                pattern,
                pattern_text,
                nullable: is("nullable"),
                needs: names("needs"),
                unless: rules.and_then(|r| r.some_text("unless")),
            },
            since: self.version("since", rules, file, &full_name),
            removed: self.version("removed", rules, file, &full_name),
            grpc_only: is("grpc_only"),
            shown_as: None,
            not_in: names("not_in"),
            adds: is("adds"),
            word: is("word"),
            earlier_of: None,
            instead_of: None,
        })
    }

    /// Most fields share a few patterns, and compiling is what makes loading slow.
    fn pattern(&mut self, text: &str) -> Result<Option<regex::Regex>, regex::Error> {
        if let Some(pattern) = self.patterns.get(text) {
            return Ok(Some(pattern.clone()));
        }
        let pattern = regex::Regex::new(text)?;
        self.patterns.insert(text.into(), pattern.clone());
        Ok(Some(pattern))
    }

    fn add_service(&mut self, service: &Named<'a, Service>) {
        let (file, full_name) = (service.file(), service.full_name.as_str());
        if !full_name.starts_with("backstay.") {
            return;
        }
        let rules = self.vocabulary.rules(&service.item.options, OF_SERVICE);
        let mut resource = None;
        if let Some(name) = rules.as_ref().and_then(|r| r.some_text("resource")) {
            resource = self.tables.message_by_name.get(format!("{}.{name}", service.package()).as_str()).copied();
            if resource.is_none_or(|id| self.tables.messages[id].resource.is_none()) {
                self.fault(file, full_name, format!("`{name}` is not a resource of the package"));
                return;
            }
        }
        let singleton = rules.as_ref().is_some_and(|r| r.flag("singleton"));
        let mut methods = Vec::new();
        for method in &service.item.methods {
            methods.push(self.tables.methods.len());
            if let Some(mut method) = self.method(service, method) {
                let generic = method.verb != Verb::Custom;
                if generic && resource.is_none() {
                    self.fault(file, full_name, "generic methods need the `resource` of the service");
                }
                if generic {
                    method.resource = resource;
                    method.singleton = singleton
                        || resource
                            .and_then(|id| self.tables.messages[id].resource.as_ref())
                            .is_some_and(|r| r.singleton);
                }
                self.tables.method_by_path.insert(method.path.clone(), self.tables.methods.len());
                self.tables.methods.push(method);
            }
        }
        self.tables.services.push(ServiceType { full_name: full_name.into(), methods });
    }

    fn method(&mut self, service: &Named<'a, Service>, method: &'a MethodDescriptor) -> Option<Method> {
        let (file, full_name) = (service.file(), format!("{}.{}", service.full_name, method.name));
        let rules = self.vocabulary.rules(&method.options, OF_METHOD);
        let rules = rules.as_ref();
        let verb = match rules.and_then(|r| r.number("verb")).unwrap_or(0) {
            1 => Verb::List,
            2 => Verb::Get,
            3 => Verb::Create,
            4 => Verb::Replace,
            5 => Verb::Update,
            6 => Verb::Delete,
            7 => Verb::Custom,
            _ => {
                self.fault(file, &full_name, "has no verb");
                return None;
            }
        };
        if method.client_streaming {
            self.fault(file, &full_name, "streams from the client, which gRPC-web cannot");
        }
        let mut http = Vec::new();
        if let Some(rule) = self.vocabulary.rules(&method.options, HTTP) {
            self.http_rules(&rule, method, (file, &full_name), &mut http);
        }
        Some(Method {
            path: format!("/{}/{}", service.full_name, method.name).into(),
            input: self.tables.message_by_name.get(method.input()).copied()?,
            output: self.tables.message_by_name.get(method.output()).copied()?,
            streaming: method.server_streaming,
            verb,
            resource: None,
            singleton: false,
            http,
            status: rules.and_then(|r| r.number("status")).unwrap_or(0) as u16,
            upload: rules.is_some_and(|r| r.flag("upload")),
        })
    }

    fn http_rules(
        &mut self,
        rule: &Rules<'_>,
        method: &MethodDescriptor,
        (file, full_name): (&str, &str),
        out: &mut Vec<HttpRule>,
    ) {
        for name in ["get", "put", "post", "delete", "patch"] {
            let path = rule.text(name);
            if path.is_empty() {
                continue;
            }
            for part in path.split(['{', '}']).skip(1).step_by(2) {
                let input = self.vocabulary.fields(method.input());
                if !input.iter().any(|field| field.name == part || field.json_name == part) {
                    self.fault(file, full_name, format!("path names `{part}`, which the request has not"));
                }
            }
            out.push(HttpRule {
                method: name.to_ascii_uppercase().into(),
                path,
                body: rule.text("body"),
                response_body: rule.text("response_body"),
            });
        }
        for more in rule.messages("additional_bindings") {
            self.http_rules(&more, method, (file, full_name), out);
        }
    }

    /// Rules between fields may only name fields of the message they stand in.
    fn check_relations(&mut self) {
        let tables = &self.tables;
        let mut faults = Vec::new();
        for message in &tables.messages {
            for field in &message.fields {
                let values = match field.kind {
                    Kind::Enum(id) => &tables.enums[id].values[..],
                    _ => &[],
                };
                let named = values.iter().flat_map(|value| &value.one_of).chain(&field.check.needs);
                for name in named.filter(|name| message.field_named(name).is_none()) {
                    faults.push((format!("{}.{}", message.full_name, field.name), format!("names no field `{name}`")));
                }
                for (name, token) in values.iter().flat_map(|value| &value.goes_with) {
                    let other = message.field_named(name).map(|at| message.fields[at].kind);
                    if !matches!(other, Some(Kind::Enum(id)) if tables.enums[id].by_token.contains_key(token)) {
                        let text = format!("names no value `{token}` of a field `{name}`");
                        faults.push((format!("{}.{}", message.full_name, field.name), text));
                    }
                }
            }
        }
        for (element, text) in faults {
            self.fault("-", &element, text);
        }
    }

    /// No REST path may belong to two methods.
    fn check_paths(&mut self) {
        let mut seen: HashMap<(Box<str>, String), Box<str>> = HashMap::new();
        let mut twice = Vec::new();
        for method in &self.tables.methods {
            for rule in &method.http {
                let shape: String = rule
                    .path
                    .split('/')
                    .map(|s| if s.starts_with('{') { "/{}".into() } else { format!("/{s}") })
                    .collect();
                if let Some(other) = seen.insert((rule.method.clone(), shape), method.path.clone()) {
                    twice.push((
                        method.path.to_string(),
                        format!("{} {} belongs to {other} too", rule.method, rule.path),
                    ));
                }
            }
        }
        for (element, text) in twice {
            self.fault_in(&element, text);
        }
    }

    fn order_json(&mut self) {
        for message in &mut self.tables.messages {
            message.json_order = json_order(&message.fields);
        }
    }
}

/// The JSON name that protobuf derives from a field name.
fn lower_camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            out.extend(c.to_uppercase());
            upper = false;
        } else {
            out.push(c);
        }
    }
    out
}
