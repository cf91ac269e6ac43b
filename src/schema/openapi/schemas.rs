//! Messages as JSON schemas.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value as Json, json};

use super::Dialect;
use crate::schema::comments::Comments;
use crate::schema::tables::{Field, FieldIndex, Kind, MessageId, Tables};

/// Name of the schema of error bodies.
const ERROR: &str = "Error";

/// Schemas that something refers to, and the ones that those refer to.
pub(super) struct Schemas<'a> {
    tables: &'a Tables,
    comments: &'a Comments,
    dialect: Dialect,
    names: HashMap<MessageId, String>,
    wanted: BTreeSet<MessageId>,
}

impl<'a> Schemas<'a> {
    pub(super) fn new(tables: &'a Tables, comments: &'a Comments, dialect: Dialect) -> Self {
        Schemas { tables, comments, dialect, names: names(tables), wanted: BTreeSet::new() }
    }

    /// A reference to the schema of a message.
    pub(super) fn reference(&mut self, message: MessageId) -> Json {
        self.wanted.insert(message);
        self.link(&self.names[&message])
    }

    /// A reference to the schema of error bodies.
    pub(super) fn error(&self) -> Json {
        self.link(ERROR)
    }

    fn link(&self, name: &str) -> Json {
        let place = match self.dialect {
            Dialect::OpenApi3 => "#/components/schemas",
            Dialect::Swagger2 => "#/definitions",
        };
        json!({"$ref": format!("{place}/{name}")})
    }

    /// The value of a field, without its comment.
    pub(super) fn field(&mut self, field: &Field) -> Json {
        let mut schema = match field.kind {
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::String | Kind::Bytes => json!({"type": "string"}),
            Kind::Enum(id) => {
                let tokens: Vec<&str> = self.tables.enums[id].values.iter().map(|value| &*value.token).collect();
                json!({"type": "string", "enum": tokens})
            }
            Kind::Message(inner) => self.reference(inner),
        };
        if !field.numbers.is_empty() {
            schema["enum"] = json!(field.numbers);
        }
        if let Some(min) = field.check.min {
            schema["minimum"] = json!(min);
        }
        if let Some(max) = field.check.max {
            schema["maximum"] = json!(max);
        }
        if !field.check.pattern_text.is_empty() {
            schema["pattern"] = json!(&*field.check.pattern_text);
        }
        if field.repeated { json!({"type": "array", "items": schema}) } else { schema }
    }

    /// An object with these fields of a message, those of flattened messages among them.
    pub(super) fn object(&mut self, message: MessageId, fields: &[FieldIndex]) -> Json {
        let mut properties = Map::new();
        let mut required = Vec::new();
        self.properties(message, fields, &mut properties, &mut required);
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if let Some(comment) = self.comments.get(&self.tables.messages[message].full_name) {
            schema["description"] = json!(&**comment);
        }
        schema
    }

    fn properties(
        &mut self,
        message: MessageId,
        fields: &[FieldIndex],
        properties: &mut Map<String, Json>,
        required: &mut Vec<String>,
    ) {
        let tables = self.tables;
        let table = &tables.messages[message];
        for field in fields.iter().map(|at| &table.fields[*at]) {
            if let (true, Kind::Message(inner)) = (field.flatten, field.kind) {
                self.properties(inner, &tables.messages[inner].json_order, properties, required);
                continue;
            }
            let mut schema = self.field(field);
            let comment = self.comments.get(format!("{}.{}", table.full_name, field.name).as_str());
            if let Some(comment) = comment {
                // Nothing may stand beside a reference.
                if schema.get("$ref").is_some() {
                    schema = json!({"allOf": [schema]});
                }
                let more =
                    if field.grpc_only { " Not in /v2: only over gRPC and below /v2/services/backstay." } else { "" };
                schema["description"] = json!(format!("{comment}{more}"));
            }
            if let Some((major, minor)) = field.since {
                schema["x-haproxy-since"] = json!(format!("{major}.{minor}"));
            }
            if let Some((major, minor)) = field.removed {
                schema["x-haproxy-removed"] = json!(format!("{major}.{minor}"));
            }
            if field.check.required {
                required.push(field.json.to_string());
            }
            properties.insert(field.json.to_string(), schema);
        }
    }

    /// All wanted schemas by name.
    pub(super) fn finish(mut self) -> Json {
        let mut out = Map::new();
        out.insert(
            ERROR.to_owned(),
            json!({
                "type": "object",
                "description": "An error.",
                "required": ["code", "message"],
                "properties": {
                    "code": {"type": "integer", "description": "HTTP status, or the code of a broken rule (601 to 619)."},
                    "message": {"type": "string", "description": "What is wrong, in one sentence."},
                },
            }),
        );
        let mut done = BTreeSet::new();
        while let Some(message) = self.wanted.difference(&done).next().copied() {
            done.insert(message);
            let fields = &self.tables.messages[message].json_order;
            let schema = self.object(message, fields);
            out.insert(self.names[&message].clone(), schema);
        }
        Json::Object(out)
    }
}

/// Short names, with the area in front where two areas share one: `Server`, `runtime.Server`.
fn names(tables: &Tables) -> HashMap<MessageId, String> {
    let parts = |full_name: &str| {
        let mut parts: Vec<&str> = full_name.split('.').collect();
        // `backstay.<area>.v2.` in front of the name proper.
        let own = parts.split_off(parts.len().min(3));
        let area = parts.get(1).copied().unwrap_or_default().to_owned();
        (area, own.join("."))
    };
    let mut count: HashMap<String, usize> = HashMap::new();
    for message in &tables.messages {
        *count.entry(parts(&message.full_name).1).or_default() += 1;
    }
    let name = |message: &str| {
        let (area, own) = parts(message);
        if count.get(&own) == Some(&1) && own != ERROR { own } else { format!("{area}.{own}") }
    };
    tables.messages.iter().enumerate().map(|(id, message)| (id, name(&message.full_name))).collect()
}
