//! Where an object stands: what a request says about it, by the names of its fields.

use std::fmt;

use crate::error::{Error, Reason, Result, Violation};
use crate::schema::Schema;
use crate::schema::tables::{FieldIndex, Kind, MessageId, MethodId, ResourceKind};
use crate::schema::value::{Object, Value};

/// The section that holds a line; nothing for sections themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Section keyword.
    pub section: Option<Box<str>>,
    /// Name of the section, empty for sections without.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.section {
            Some(kind) if self.name.is_empty() => write!(f, "{kind}"),
            Some(kind) => write!(f, "{kind} {}", self.name),
            None => f.write_str("configuration"),
        }
    }
}

/// Which object of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// By name.
    Name(String),
    /// By position among its kind.
    Index(i64),
    /// The only or first one.
    Singleton,
}

impl Key {
    /// The name, empty when it is found otherwise.
    pub fn name(&self) -> &str {
        match self {
            Key::Name(name) => name,
            Key::Index(_) | Key::Singleton => "",
        }
    }
}

/// The fields of a generic method's request and response, found once by name.
#[derive(Debug, Default, Clone)]
pub struct Plan {
    parent_type: Option<FieldIndex>,
    parent_name: Option<FieldIndex>,
    /// Fields that name a section of one kind, with its keyword.
    parents: Vec<(FieldIndex, Box<str>)>,
    key: Option<FieldIndex>,
    /// SPOE file that holds the object.
    pub spoe: Option<FieldIndex>,
    /// Scope of the SPOE file.
    pub scope: Option<FieldIndex>,
    /// Kind and name of the section that holds any line.
    section: Option<FieldIndex>,
    section_name: Option<FieldIndex>,
    /// The object in the request.
    pub body: Option<FieldIndex>,
    /// Named fields of an update.
    pub update_mask: Option<FieldIndex>,
    /// Filter of a list.
    pub filter: Option<FieldIndex>,
    /// Only ACLs of this name.
    pub acl_name: Option<FieldIndex>,
    /// Page size of a list.
    pub page_size: Option<FieldIndex>,
    /// Page token of a list.
    pub page_token: Option<FieldIndex>,
    /// Transaction to read from or change.
    pub transaction_id: Option<FieldIndex>,
    /// Version that a change is made for.
    pub version: Option<FieldIndex>,
    /// Reload at once.
    pub force_reload: Option<FieldIndex>,
    /// A replacement may be a creation.
    pub allow_missing: Option<FieldIndex>,
    /// Only check.
    pub validate_only: Option<FieldIndex>,
    /// The object or objects in the response.
    pub result: Option<FieldIndex>,
    /// Version in the response.
    pub result_version: Option<FieldIndex>,
    /// Names of fields that the object in the answer cannot show.
    pub not_shown: Option<FieldIndex>,
    /// Reload id in the response.
    pub result_reload: Option<FieldIndex>,
    /// Response: what HAProxy warns of since the change.
    pub result_warnings: Option<FieldIndex>,
    /// Token of the next page in the response.
    pub result_page: Option<FieldIndex>,
}

impl Plan {
    /// The plan of a method, or nothing for a hand-written one.
    pub fn new(schema: &Schema, method: MethodId) -> Option<Plan> {
        let tables = &schema.tables;
        let method = &tables.methods[method];
        let resource = tables.messages[method.resource?].resource.as_ref()?;
        let input = &tables.messages[method.input];
        let output = &tables.messages[method.output];
        let key = match resource.kind {
            ResourceKind::IndexedLine | ResourceKind::AnyLine => "index",
            _ => resource_key(schema, method.resource?),
        };
        let mut plan = Plan {
            parent_type: input.field_named("parent_type"),
            parent_name: input.field_named("parent_name"),
            key: input.field_named(key).filter(|_| !method.singleton),
            spoe: input.field_named("spoe"),
            scope: input.field_named("scope"),
            update_mask: input.field_named("update_mask"),
            filter: input.field_named("filter"),
            acl_name: input.field_named("acl_name"),
            section: input.field_named("section"),
            section_name: input.field_named("section_name"),
            allow_missing: input.field_named("allow_missing"),
            page_size: input.field_named("page_size"),
            page_token: input.field_named("page_token"),
            transaction_id: input.field_named("transaction_id"),
            version: input.field_named("version"),
            force_reload: input.field_named("force_reload"),
            validate_only: input.field_named("validate_only"),
            result_version: output.field_named("version"),
            not_shown: output.field_named("not_shown"),
            result_reload: output.field_named("reload_id"),
            result_warnings: output.field_named("warnings"),
            result_page: output.field_named("next_page_token"),
            ..Plan::default()
        };
        let is_resource = |kind: Kind| kind == Kind::Message(method.resource.unwrap_or(usize::MAX));
        plan.body = input.fields.iter().position(|f| is_resource(f.kind));
        plan.result = output.fields.iter().position(|f| is_resource(f.kind));
        for (at, field) in input.fields.iter().enumerate() {
            // Addressing fields have the numbers 1 to 5, parents before the object itself.
            if field.number > 5 || field.kind != Kind::String || Some(at) == plan.key {
                continue;
            }
            if Some(at) == plan.parent_name || Some(at) == plan.acl_name {
                continue;
            }
            let parent = match &resource.parents[..] {
                [only] => Some(only),
                several => several.iter().find(|p| *p.token == *field.name),
            };
            if let Some(parent) = parent {
                plan.parents.push((at, parent.section.clone()));
            }
        }
        Some(plan)
    }

    /// The place that a request names. `Err` names the parameter that is missing or wrong.
    pub fn place(&self, schema: &Schema, resource: MessageId, request: &Object) -> Result<Place> {
        let Some(rules) = &schema.tables.messages[resource].resource else { return Ok(Place::default()) };
        match rules.kind {
            ResourceKind::Section | ResourceKind::Tree | ResourceKind::Site => return Ok(Place::default()),
            ResourceKind::AnyLine => {
                let name = Self::text(self.section_name, request).to_owned();
                return Ok(Place { section: Some(Self::text(self.section, request).into()), name });
            }
            ResourceKind::NamedLine | ResourceKind::IndexedLine => {}
        }
        for (field, section) in &self.parents {
            if let Some(name) = request.str(*field).filter(|n| !n.is_empty()) {
                return Ok(Place { section: Some(section.clone()), name: name.to_owned() });
            }
        }
        let tokens = || rules.parents.iter().map(|p| &*p.token).collect::<Vec<_>>().join(" ");
        let (Some(type_field), Some(name_field)) = (self.parent_type, self.parent_name) else {
            let missing = self.parents.first().map_or("parent", |(at, _)| Self::name_of(schema, resource, *at));
            return Err(missing_parameter(missing));
        };
        let Some(number) = request.enum_number(type_field).filter(|n| *n != 0) else {
            return Err(missing_parameter("parent_type"));
        };
        let token = schema
            .tables
            .enums
            .iter()
            .find(|e| &*e.full_name == "backstay.type.v2.ParentType")
            .and_then(|e| e.value(number))
            .map_or("", |v| &*v.token);
        let Some(parent) = rules.parents.iter().find(|p| *p.token == *token) else {
            return Err(Error::invalid(vec![Violation {
                field: "parent_type".into(),
                message: format!("should be one of [{}]", tokens()),
                code: 606,
                location: "query",
            }]));
        };
        let name = request.str(name_field).unwrap_or_default();
        if name.is_empty() && !matches!(&*parent.section, "global" | "defaults") {
            return Err(missing_parameter("parent_name"));
        }
        Ok(Place { section: Some(parent.section.clone()), name: name.to_owned() })
    }

    fn name_of(schema: &Schema, resource: MessageId, at: FieldIndex) -> &str {
        let method = schema.tables.methods.iter().find(|m| m.resource == Some(resource));
        method.map_or("parent", |m| &*schema.tables.messages[m.input].fields[at].name)
    }

    /// Which object a request names.
    pub fn key(&self, request: &Object) -> Result<Key> {
        let Some(field) = self.key else { return Ok(Key::Singleton) };
        match request.get(field) {
            Some(Value::Str(name)) if !name.is_empty() => Ok(Key::Name(name.to_string())),
            Some(Value::Int(index)) => Ok(Key::Index(*index)),
            _ => Err(Error::invalid(vec![Violation {
                field: "name or index".into(),
                message: "is required".into(),
                code: 602,
                location: "path",
            }])),
        }
    }

    /// The text of an optional request field, empty when there is none.
    pub fn text(field: Option<FieldIndex>, request: &Object) -> &str {
        field.and_then(|f| request.str(f)).unwrap_or_default()
    }
}

/// Name of the request field that names an object, which is also that of its identity.
fn resource_key(schema: &Schema, resource: MessageId) -> &str {
    let message = &schema.tables.messages[resource];
    let Some(rules) = &message.resource else { return "name" };
    match rules.identity[..] {
        [field] => &message.fields[field].name,
        _ => "name",
    }
}

fn missing_parameter(name: &str) -> Error {
    Error::new(Reason::ParentNotFound, format!("{name} in query is required")).with_violation(Violation {
        field: name.to_owned(),
        message: "is required".into(),
        code: 602,
        location: "query",
    })
}
