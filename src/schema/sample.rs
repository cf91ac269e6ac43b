//! Tables for tests of the interpreters: the real ones, and small ones from short descriptions.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;

use super::json::json_order;
use super::tables::{Check, EnumType, EnumValue, Field, Kind, MessageId, MessageType, Tables};

/// The tables of `proto/`.
pub(crate) fn schema() -> Arc<Tables> {
    static SCHEMA: LazyLock<Arc<Tables>> = LazyLock::new(|| {
        Arc::new(crate::schema::load::load(include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"))).unwrap())
    });
    SCHEMA.clone()
}

/// Builds tables from a map of model name to model, in the words of Swagger.
pub(crate) fn tables(models: &Json) -> Tables {
    let mut builder = Builder { models, tables: Tables::default(), enums: HashMap::new() };
    for (name, model) in models.as_object().unwrap() {
        if model["type"] != "array" {
            builder.message(name, model);
        }
    }
    builder.tables
}

struct Builder<'a> {
    models: &'a Json,
    tables: Tables,
    enums: HashMap<String, usize>,
}

impl Builder<'_> {
    fn message(&mut self, name: &str, model: &Json) -> MessageId {
        if let Some(id) = self.tables.message_by_name.get(name) {
            return *id;
        }
        let id = self.tables.messages.len();
        self.tables.messages.push(MessageType { full_name: name.into(), ..MessageType::default() });
        self.tables.message_by_name.insert(name.into(), id);
        let mut fields = Vec::new();
        let parts = model["allOf"].as_array().cloned().unwrap_or_else(|| vec![model.clone()]);
        for part in &parts {
            if let Some(inner) = part["ref"].as_str() {
                let mut field = self.field(name, inner, part);
                field.flatten = true;
                fields.push(field);
            }
            for (key, field) in part["fields"].as_object().into_iter().flatten() {
                fields.push(self.field(name, key, field));
            }
        }
        for (at, field) in fields.iter_mut().enumerate() {
            field.number = at as u32 + 1;
        }
        let table = &mut self.tables.messages[id];
        table.by_number = fields.iter().enumerate().map(|(at, field)| (field.number, at)).collect();
        table.by_json = fields.iter().enumerate().map(|(at, field)| (field.json.clone(), at)).collect();
        table.json_order = json_order(&fields);
        table.fields = fields;
        id
    }

    fn field(&mut self, message: &str, key: &str, field: &Json) -> Field {
        let named = field["ref"].as_str().map(|name| &self.models[name]);
        // A reference to a list or to a scalar stands for it.
        let field = match named {
            Some(model) if model["fields"].is_null() && model["allOf"].is_null() => model,
            _ => field,
        };
        let repeated = field["type"] == "array";
        let item = if repeated { &field["items"] } else { field };
        let required = field["required"] == true;
        let (min, max) = (item["minimum"].as_i64(), item["maximum"].as_i64());
        let kind = match item["type"].as_str() {
            _ if item["ref"].is_string() => {
                let inner = item["ref"].as_str().unwrap();
                let model = self.models[inner].clone();
                Kind::Message(self.message(inner, &model))
            }
            _ if item["allOf"].is_array() => Kind::Message(self.message(&format!("{message}.{key}"), item)),
            Some("object") => Kind::Message(self.message(&format!("{message}.{key}"), item)),
            Some("boolean") => Kind::Bool,
            Some("integer") if min.is_some() && max.is_some_and(|max| max <= i32::MAX.into()) => Kind::Int32,
            Some("integer") => Kind::Int64,
            Some("number") => Kind::Double,
            _ if item["enum"].is_array() => Kind::Enum(self.enumeration(&item["enum"])),
            _ => Kind::String,
        };
        let pattern = item["pattern"].as_str();
        Field {
            name: key.replace('-', "_").into(),
            json: key.into(),
            number: 0,
            kind,
            repeated,
            presence: !repeated,
            template: None,
            print_only: false,
            no_line: false,
            implicit: false,
            numbers: match kind {
                Kind::Int32 | Kind::Int64 => {
                    item["enum"].as_array().into_iter().flatten().filter_map(Json::as_i64).collect()
                }
                _ => Vec::new(),
            },
            flatten: false,
            check: Check {
                required,
                min,
                max,
                pattern: pattern.map(|text| regex::Regex::new(text).unwrap()),
                pattern_text: pattern.unwrap_or_default().into(),
                nullable: field["nullable"] == true || (required && field["nullable"] != false),
                needs: Vec::new(),
                unless: None,
            },
            since: None,
            removed: None,
            grpc_only: false,
            shown_as: None,
            not_in: Vec::new(),
            adds: false,
            word: false,
            earlier_of: None,
            instead_of: None,
        }
    }

    fn enumeration(&mut self, tokens: &Json) -> usize {
        *self.enums.entry(tokens.to_string()).or_insert_with(|| {
            let values: Vec<EnumValue> = tokens
                .as_array()
                .unwrap()
                .iter()
                .enumerate()
                .map(|(at, token)| EnumValue {
                    name: format!("VALUE_{at}").into(),
                    number: at as i32 + 1,
                    token: token.as_str().unwrap().into(),
                    line: None,
                    print_only: false,
                    since: None,
                    one_of: Vec::new(),
                    goes_with: Vec::new(),
                    grpc_only: false,
                })
                .collect();
            self.tables.enums.push(EnumType {
                full_name: tokens.to_string().into(),
                toggle: tokens.as_array().unwrap() == &["enabled", "disabled"],
                by_token: values.iter().enumerate().map(|(at, value)| (value.token.clone(), at)).collect(),
                by_number: values.iter().enumerate().map(|(at, value)| (value.number, at)).collect(),
                values,
            });
            self.tables.enums.len() - 1
        })
    }
}
