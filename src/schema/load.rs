//! Descriptors with their custom options -> [`Tables`].
//!
//! Whatever an option says wrongly is found here, or when the templates are compiled; build.rs runs both.

mod resources;

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind as ProtoKind,
    MessageDescriptor, MethodDescriptor, ServiceDescriptor, Value,
};

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
    let pool = DescriptorPool::decode(descriptor_set).ok();
    let found = pool.and_then(|pool| pool.get_message_by_name(message));
    found.map(|message| message.parent_file().name().to_owned()).unwrap_or_default()
}

/// Makes the tables from an encoded descriptor set that keeps its extension data.
pub fn load(descriptor_set: &[u8]) -> Result<Tables, Vec<Fault>> {
    let fault = |text: String| vec![Fault { file: "descriptor set".into(), element: "-".into(), text }];
    let pool = DescriptorPool::decode(descriptor_set).map_err(|e| fault(e.to_string()))?;
    let options = Options::find(&pool).map_err(fault)?;
    let mut files = HashMap::new();
    for message in pool.all_messages() {
        files.insert(message.full_name().into(), message.parent_file().name().into());
    }
    for service in pool.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            files.insert(path.into(), service.parent_file().name().into());
        }
    }
    let mut loader = Loader {
        files,
        options,
        tables: Tables::default(),
        enums: HashMap::new(),
        patterns: HashMap::new(),
        faults: Vec::new(),
    };
    for (at, message) in pool.all_messages().enumerate() {
        loader.tables.message_by_name.insert(message.full_name().into(), at);
    }
    for item in pool.all_enums() {
        loader.add_enum(&item);
    }
    for message in pool.all_messages() {
        loader.add_message(&message);
    }
    loader.resolve_identities();
    for service in pool.services() {
        loader.add_service(&service);
    }
    loader.check_relations();
    loader.check_paths();
    loader.order_json();
    if loader.faults.is_empty() { Ok(loader.tables) } else { Err(loader.faults) }
}

/// The custom options, by where they hang.
struct Options {
    message: ExtensionDescriptor,
    field: ExtensionDescriptor,
    value: ExtensionDescriptor,
    service: ExtensionDescriptor,
    method: ExtensionDescriptor,
    http: ExtensionDescriptor,
}

impl Options {
    fn find(pool: &DescriptorPool) -> Result<Options, String> {
        let get = |name: &str| pool.get_extension_by_name(name).ok_or_else(|| format!("option {name} is not declared"));
        Ok(Options {
            message: get("backstay.type.v2.message")?,
            field: get("backstay.type.v2.field")?,
            value: get("backstay.type.v2.value")?,
            service: get("backstay.type.v2.service")?,
            method: get("backstay.type.v2.method")?,
            http: get("google.api.http")?,
        })
    }
}

/// The message in an option, when the option is set.
fn rules(options: &DynamicMessage, extension: &ExtensionDescriptor) -> Option<DynamicMessage> {
    options.has_extension(extension).then(|| options.get_extension(extension).as_message().cloned()).flatten()
}

fn text(rules: &DynamicMessage, name: &str) -> Box<str> {
    rules.get_field_by_name(name).and_then(|v| v.as_str().map(Into::into)).unwrap_or_default()
}

fn some_text(rules: &DynamicMessage, name: &str) -> Option<Box<str>> {
    Some(text(rules, name)).filter(|t| !t.is_empty())
}

fn flag(rules: &DynamicMessage, name: &str) -> bool {
    rules.get_field_by_name(name).and_then(|v| v.as_bool()).unwrap_or(false)
}

fn number(rules: &DynamicMessage, name: &str) -> Option<i64> {
    if !rules.has_field_by_name(name) {
        return None;
    }
    rules.get_field_by_name(name).and_then(|v| v.as_i64())
}

fn choice(rules: &DynamicMessage, name: &str) -> i32 {
    rules.get_field_by_name(name).and_then(|v| v.as_enum_number()).unwrap_or(0)
}

fn list<T>(rules: &DynamicMessage, name: &str, item: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    rules
        .get_field_by_name(name)
        .and_then(|v| v.as_list().map(|items| items.iter().filter_map(&item).collect()))
        .unwrap_or_default()
}

fn names(rules: &DynamicMessage, name: &str) -> Vec<Box<str>> {
    list(rules, name, |v| v.as_str().map(Into::into))
}

/// `type=content` as (`type`, `content`); without the sign all of it is the name of a field.
fn pair(value: &Value) -> Option<(Box<str>, Box<str>)> {
    let text = value.as_str()?;
    let (field, token) = text.split_once('=').unwrap_or((text, ""));
    Some((field.into(), token.into()))
}

/// `2.8` as (2, 8).
fn version(text: &str) -> Option<(u16, u16)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

struct Loader {
    /// File of each message by its full name, and of each method by its path.
    files: HashMap<Box<str>, Box<str>>,
    options: Options,
    tables: Tables,
    enums: HashMap<Box<str>, usize>,
    patterns: HashMap<Box<str>, regex::Regex>,
    faults: Vec<Fault>,
}

impl Loader {
    fn fault(&mut self, file: &str, element: &str, text: impl Into<String>) {
        self.faults.push(Fault { file: file.to_owned(), element: element.to_owned(), text: text.into() });
    }

    /// A fault of a message or method, by its full name or path.
    fn fault_in(&mut self, element: &str, text: impl Into<String>) {
        let file = self.files.get(element).cloned().unwrap_or_default();
        self.fault(&file, element, text);
    }

    fn since(&mut self, rules: Option<&DynamicMessage>, file: &str, element: &str) -> Option<(u16, u16)> {
        let written = some_text(rules?, "since")?;
        let parsed = version(&written);
        if parsed.is_none() {
            self.fault(file, element, format!("since `{written}` is not a version such as `2.8`"));
        }
        parsed
    }

    fn add_enum(&mut self, item: &EnumDescriptor) {
        let file = item.parent_file().name().to_owned();
        let mut out =
            EnumType { full_name: item.full_name().into(), toggle: item.full_name() == TOGGLE, ..EnumType::default() };
        let ours = item.full_name().starts_with("backstay.");
        for value in item.values().filter(|v| v.number() != 0) {
            let rules = rules(&value.options(), &self.options.value);
            let token = rules.as_ref().map(|r| text(r, "token")).unwrap_or_default();
            if token.is_empty() && ours && !item.full_name().starts_with("backstay.type.v2.") {
                self.fault(&file, value.full_name(), "has no token");
            }
            if out.by_token.contains_key(&token) && !token.is_empty() {
                self.fault(&file, value.full_name(), format!("token `{token}` stands twice"));
            }
            out.by_token.insert(token.clone(), out.values.len());
            out.by_number.insert(value.number(), out.values.len());
            out.values.push(EnumValue {
                name: value.name().into(),
                number: value.number(),
                token,
                line: rules.as_ref().and_then(|r| some_text(r, "line")),
                print_only: rules.as_ref().is_some_and(|r| flag(r, "print_only")),
                since: self.since(rules.as_ref(), &file, value.full_name()),
                one_of: rules.as_ref().map(|r| names(r, "one_of")).unwrap_or_default(),
                goes_with: rules.as_ref().map(|r| list(r, "goes_with", pair)).unwrap_or_default(),
                grpc_only: rules.as_ref().is_some_and(|r| flag(r, "grpc_only")),
            });
        }
        self.enums.insert(item.full_name().into(), self.tables.enums.len());
        self.tables.enums.push(out);
    }

    fn add_message(&mut self, message: &MessageDescriptor) {
        let file = message.parent_file().name().to_owned();
        let rules = rules(&message.options(), &self.options.message);
        let mut out = MessageType { full_name: message.full_name().into(), ..MessageType::default() };
        // Declaration order is the order of printing; prost-reflect lists fields by number.
        let declared: Vec<u32> =
            message.descriptor_proto().field.iter().map(|f| f.number.unwrap_or(0) as u32).collect();
        for number in declared {
            let Some(field) = message.get_field(number) else { continue };
            let at = out.fields.len();
            if let Some(field) = self.field(&field, &file) {
                if out.by_json.insert(field.json.clone(), at).is_some() {
                    self.fault(&file, &format!("{}.{}", message.full_name(), field.name), "JSON key stands twice");
                }
                out.by_number.insert(field.number, at);
                out.fields.push(field);
            }
        }
        self.resolve_rest_fields(message, &mut out, &file);
        if let Some(rules) = &rules {
            out.line = some_text(rules, "line");
            out.toggle = some_text(rules, "toggle");
            if let Some(resource) = rules.get_field_by_name("resource").and_then(|v| v.as_message().cloned()) {
                out.resource = self.resource(&resource, &out, &file);
            }
        }
        self.tables.messages.push(out);
    }

    /// Finds the fields under which /v2 shows others, once all fields of the message are known.
    fn resolve_rest_fields(&mut self, message: &MessageDescriptor, out: &mut MessageType, file: &str) {
        for descriptor in message.fields() {
            let wanted = rules(&descriptor.options(), &self.options.field).and_then(|r| some_text(&r, "rest_field"));
            let (Some(wanted), Some(at)) = (wanted, out.field_named(descriptor.name())) else { continue };
            match out.field_named(&wanted).filter(|other| out.fields[*other].kind == out.fields[at].kind) {
                Some(other) if out.fields[at].grpc_only => out.fields[at].shown_as = Some(other),
                _ => {
                    let text = format!("rest_field `{wanted}` should name a field of the same type");
                    self.fault(file, descriptor.full_name(), text);
                }
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptor, file: &str) -> Option<Field> {
        let rules = rules(&field.options(), &self.options.field);
        let rules = rules.as_ref();
        let kind = match field.kind() {
            ProtoKind::Bool => Kind::Bool,
            ProtoKind::Int32 => Kind::Int32,
            ProtoKind::Int64 => Kind::Int64,
            ProtoKind::Double => Kind::Double,
            ProtoKind::String => Kind::String,
            ProtoKind::Bytes => Kind::Bytes,
            ProtoKind::Enum(item) => Kind::Enum(self.enums.get(item.full_name()).copied()?),
            ProtoKind::Message(item) => Kind::Message(self.tables.message_by_name.get(item.full_name()).copied()?),
            other => {
                // Only messages of descriptor.proto use other types, and no interpreter touches those.
                if field.full_name().starts_with("backstay.") && !field.full_name().starts_with("backstay.type.") {
                    self.fault(file, field.full_name(), format!("type {other:?} is not supported"));
                }
                return None;
            }
        };
        let pattern_text = rules.map(|r| text(r, "pattern")).unwrap_or_default();
        let pattern = if pattern_text.is_empty() {
            None
        } else {
            self.pattern(&pattern_text).unwrap_or_else(|error| {
                self.fault(file, field.full_name(), format!("pattern: {error}"));
                None
            })
        };
        let json = if field.json_name() == lower_camel(field.name()) { field.name() } else { field.json_name() };
        let is = |name: &str| rules.is_some_and(|r| flag(r, name));
        Some(Field {
            name: field.name().into(),
            json: json.into(),
            number: field.number(),
            kind,
            repeated: field.is_list(),
            presence: field.supports_presence(),
            template: rules.and_then(|r| some_text(r, "line")),
            print_only: is("print_only"),
            no_line: is("no_line"),
            implicit: is("implicit"),
            numbers: rules.map(|r| list(r, "numbers", Value::as_i64)).unwrap_or_default(),
            flatten: is("flatten"),
            check: Check {
                required: is("required"),
                min: rules.and_then(|r| number(r, "min")),
                max: rules.and_then(|r| number(r, "max")),
                pattern,
                pattern_text,
                nullable: is("nullable"),
                needs: rules.map(|r| names(r, "needs")).unwrap_or_default(),
            },
            since: self.since(rules, file, field.full_name()),
            grpc_only: is("grpc_only"),
            shown_as: None,
            not_in: rules.map(|r| names(r, "not_in")).unwrap_or_default(),
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

    fn add_service(&mut self, service: &ServiceDescriptor) {
        if !service.full_name().starts_with("backstay.") {
            return;
        }
        let file = service.parent_file().name().to_owned();
        let rules = rules(&service.options(), &self.options.service);
        let package = service.package_name().to_owned();
        let mut resource = None;
        if let Some(name) = rules.as_ref().and_then(|r| some_text(r, "resource")) {
            resource = self.tables.message_by_name.get(format!("{package}.{name}").as_str()).copied();
            if resource.is_none_or(|id| self.tables.messages[id].resource.is_none()) {
                self.fault(&file, service.full_name(), format!("`{name}` is not a resource of the package"));
                return;
            }
        }
        let singleton = rules.as_ref().is_some_and(|r| flag(r, "singleton"));
        let mut methods = Vec::new();
        for method in service.methods() {
            methods.push(self.tables.methods.len());
            if let Some(mut method) = self.method(&method, &file) {
                let generic = method.verb != Verb::Custom;
                if generic && resource.is_none() {
                    self.fault(&file, service.full_name(), "generic methods need the `resource` of the service");
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
        self.tables.services.push(ServiceType { full_name: service.full_name().into(), methods });
    }

    fn method(&mut self, method: &MethodDescriptor, file: &str) -> Option<Method> {
        let rules = rules(&method.options(), &self.options.method);
        let verb = match rules.as_ref().map_or(0, |r| choice(r, "verb")) {
            1 => Verb::List,
            2 => Verb::Get,
            3 => Verb::Create,
            4 => Verb::Replace,
            5 => Verb::Update,
            6 => Verb::Delete,
            7 => Verb::Custom,
            _ => {
                self.fault(file, method.full_name(), "has no verb");
                return None;
            }
        };
        if method.is_client_streaming() {
            self.fault(file, method.full_name(), "streams from the client, which gRPC-web cannot");
        }
        let mut http = Vec::new();
        if let Some(rule) = self::rules(&method.options(), &self.options.http) {
            self.http_rules(&rule, method, file, &mut http);
        }
        Some(Method {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()).into(),
            input: self.tables.message_by_name.get(method.input().full_name()).copied()?,
            output: self.tables.message_by_name.get(method.output().full_name()).copied()?,
            streaming: method.is_server_streaming(),
            verb,
            resource: None,
            singleton: false,
            http,
            status: rules.as_ref().and_then(|r| r.get_field_by_name("status")?.as_i32()).unwrap_or(0) as u16,
            upload: rules.as_ref().and_then(|r| r.get_field_by_name("upload")?.as_bool()).unwrap_or(false),
        })
    }

    fn http_rules(&mut self, rule: &DynamicMessage, method: &MethodDescriptor, file: &str, out: &mut Vec<HttpRule>) {
        for name in ["get", "put", "post", "delete", "patch"] {
            let path = text(rule, name);
            if path.is_empty() {
                continue;
            }
            for part in path.split(['{', '}']).skip(1).step_by(2) {
                let input = method.input();
                if !input.fields().any(|f| f.name() == part || f.json_name() == part) {
                    self.fault(file, method.full_name(), format!("path names `{part}`, which the request has not"));
                }
            }
            out.push(HttpRule {
                method: name.to_ascii_uppercase().into(),
                path,
                body: text(rule, "body"),
                response_body: text(rule, "response_body"),
            });
        }
        for more in list(rule, "additional_bindings", |v| v.as_message().cloned()) {
            self.http_rules(&more, method, file, out);
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
