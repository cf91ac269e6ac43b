//! Tables made by hand: from the fields of a case, and from the table of all models.

use std::collections::HashMap;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use crate::schema::tables::{
    Check, EnumId, EnumType, EnumValue, Field, Kind, MessageId, MessageType, Resource, ResourceKind, Tables,
};
use crate::schema::value::{Object, Value};

pub(super) fn toggle(tables: &mut Tables) -> EnumId {
    if let Some(id) = tables.enums.iter().position(|kind| kind.toggle) {
        return id;
    }
    let id = enumeration(tables, "Toggle", &["enabled", "disabled"], &Json::Null, &[]);
    tables.enums[id].toggle = true;
    id
}

fn enumeration(tables: &mut Tables, name: &str, tokens: &[&str], lines: &Json, print_only: &[&str]) -> EnumId {
    let mut made = EnumType { full_name: name.into(), ..EnumType::default() };
    for (at, token) in tokens.iter().enumerate() {
        let number = at as i32 + 1;
        made.by_token.insert((*token).into(), at);
        made.by_number.insert(number, at);
        made.values.push(EnumValue {
            name: (*token).into(),
            number,
            token: (*token).into(),
            line: lines[*token].as_str().filter(|line| line != token).map(Into::into),
            print_only: print_only.contains(token),
            since: None,
            one_of: Vec::new(),
            goes_with: Vec::new(),
            grpc_only: false,
        });
    }
    tables.enums.push(made);
    tables.enums.len() - 1
}

pub(super) fn field(json: &str, kind: Kind) -> Field {
    Field {
        name: json.replace('-', "_").into(),
        json: json.into(),
        number: 0,
        kind,
        repeated: false,
        presence: true,
        template: None,
        print_only: false,
        no_line: false,
        implicit: false,
        numbers: Vec::new(),
        flatten: false,
        check: Check::default(),
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

fn finish(tables: &mut Tables) {
    for (id, message) in tables.messages.iter_mut().enumerate() {
        tables.message_by_name.insert(message.full_name.clone(), id);
        for (at, field) in message.fields.iter_mut().enumerate() {
            field.number = at as u32 + 1;
            message.by_json.insert(field.json.clone(), at);
            message.by_number.insert(field.number, at);
            message.json_order.push(at);
        }
    }
}

fn strings(json: &Json) -> Vec<&str> {
    json.as_array().map(|list| list.iter().filter_map(Json::as_str).collect()).unwrap_or_default()
}

/// Tables of one case in the short notation; the message is the first one.
pub(super) fn of_case(case: &Json) -> Tables {
    let mut tables = Tables::default();
    tables.messages.push(MessageType { full_name: "Case".into(), ..MessageType::default() });
    let fields = case_fields(&mut tables, &case["fields"], &case["types"], &case["params"]);
    let message = &mut tables.messages[0];
    message.fields = fields;
    let template = case["template"].as_str().unwrap();
    match case["own"].as_str() {
        None => message.line = Some(template.into()),
        Some(own) => {
            message.resource = Some(section());
            let own = message.fields.iter_mut().find(|field| &*field.json == own).unwrap();
            own.template = Some(template.into());
        }
    }
    finish(&mut tables);
    tables
}

fn section() -> Resource {
    Resource {
        kind: ResourceKind::Section,
        keyword: "x".into(),
        parents: Vec::new(),
        identity: vec![0],
        order: 0,
        first: false,
        singleton: true,
        derived_name: false,
    }
}

fn case_fields(tables: &mut Tables, fields: &Json, types: &Json, params: &Json) -> Vec<Field> {
    let mut made = Vec::new();
    for (name, kind) in fields.as_object().unwrap() {
        let mut one = match kind.as_str() {
            Some("string") => field(name, Kind::String),
            Some("int" | "int[]") => field(name, Kind::Int64),
            Some("bool") => field(name, Kind::Bool),
            Some("toggle") => field(name, Kind::Enum(toggle(tables))),
            Some(other) => panic!("kind {other}"),
            None if kind.get("toggle").is_some() => field(name, Kind::Enum(toggle(tables))),
            None if kind.get("enum").is_some() => {
                let id = enumeration(tables, name, &strings(&kind["enum"]), &types[name], &[]);
                field(name, Kind::Enum(id))
            }
            None => {
                let inner = case_fields(tables, &kind["fields"], &Json::Null, &Json::Null);
                let line = kind["message"].as_str().map(Into::into);
                tables.messages.push(MessageType {
                    full_name: name.as_str().into(),
                    fields: inner,
                    line,
                    ..MessageType::default()
                });
                field(name, Kind::Message(tables.messages.len() - 1))
            }
        };
        one.repeated = kind.as_str() == Some("int[]") || kind["repeated"].as_bool() == Some(true);
        one.template = params[name].as_str().map(Into::into);
        made.push(one);
    }
    made
}

/// A JSON object that keeps the order of its keys, which is the order of printing.
struct Ordered<V>(Vec<(String, V)>);

impl<'de, V: serde::Deserialize<'de>> serde::Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys<V>(std::marker::PhantomData<V>);
        impl<'de, V: serde::Deserialize<'de>> Visitor<'de> for Keys<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        from.deserialize_map(Keys(std::marker::PhantomData)).map(Ordered)
    }
}

#[derive(serde::Deserialize)]
struct Model {
    fields: Ordered<Json>,
    #[serde(flatten)]
    other: Json,
}

/// Tables of all models.
pub(super) fn of_models(text: &str) -> Tables {
    let models: Ordered<Model> = serde_json::from_str(text).unwrap();
    let mut tables = Tables::default();
    let ids: HashMap<&str, MessageId> =
        models.0.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
    for (name, Model { fields: described, other: model }) in &models.0 {
        let mut fields = Vec::new();
        for (json, description) in &described.0 {
            fields.push(model_field(&mut tables, name, model, json, description, &ids));
        }
        if let Some(params) = model["flatten"].as_str() {
            let mut flat = field("params", Kind::Message(ids[params]));
            flat.flatten = true;
            fields.insert(0, flat);
        }
        let resource = match model["kind"].as_str() {
            Some("section") => Some(section()),
            Some("named-line") => Some(Resource { kind: ResourceKind::NamedLine, ..section() }),
            Some("indexed-line") => Some(Resource { kind: ResourceKind::IndexedLine, ..section() }),
            _ => None,
        };
        let text = |key: &str| model[key].as_str().map(Into::into);
        tables.messages.push(MessageType {
            full_name: name.as_str().into(),
            fields,
            line: text("line"),
            toggle: text("toggle"),
            resource,
            ..MessageType::default()
        });
    }
    finish(&mut tables);
    tables
}

fn model_field(
    tables: &mut Tables,
    model_name: &str,
    model: &Json,
    json: &str,
    description: &Json,
    ids: &HashMap<&str, MessageId>,
) -> Field {
    let kind = match description["kind"].as_str().unwrap() {
        "string" => Kind::String,
        "int" => Kind::Int64,
        "bool" => Kind::Bool,
        "toggle" => Kind::Enum(toggle(tables)),
        "message" => Kind::Message(ids[description["message"].as_str().unwrap()]),
        "enum" => {
            let print_only =
                if json == "type" || json == "action" { strings(&model["print_only_values"]) } else { Vec::new() };
            let name = format!("{model_name}.{json}");
            Kind::Enum(enumeration(tables, &name, &strings(&description["tokens"]), &model["types"][json], &print_only))
        }
        other => panic!("kind {other}"),
    };
    let set = |key: &str| description[key].as_bool() == Some(true);
    let mut made = field(json, kind);
    made.repeated = set("repeated");
    made.print_only = set("print_only");
    made.implicit = set("implicit");
    made.no_line = description["on"].as_str() == Some("nothing");
    // Default templates are left out: the engine must find them itself.
    made.template = description["template"].as_str().filter(|_| !set("default")).map(Into::into);
    made
}

/// A JSON object as the engine sees it.
pub(super) fn object(tables: &Tables, message: MessageId, json: &Json) -> Object {
    let mut object = Object::new();
    let table = &tables.messages[message];
    for (key, json) in json.as_object().unwrap() {
        if key == "_residue" {
            object.set_residue(strings(json).into_iter().map(Into::into).collect());
            continue;
        }
        let direct = table.by_json.get(key.as_str()).copied();
        let flat = table.fields.iter().position(|field| field.flatten);
        match (direct, flat) {
            (Some(at), _) => object.set(at, value(tables, &table.fields[at], json)),
            (None, Some(flat)) => {
                let Kind::Message(inner) = table.fields[flat].kind else { panic!("flatten") };
                let at = tables.messages[inner].by_json[key.as_str()];
                let value = value(tables, &tables.messages[inner].fields[at], json);
                object.object_mut(flat).set(at, value);
            }
            _ => panic!("no field {key} in {}", table.full_name),
        }
    }
    object
}

fn value(tables: &Tables, field: &Field, json: &Json) -> Value {
    if let Some(list) = json.as_array() {
        assert!(field.repeated, "{}", field.json);
        return Value::List(list.iter().map(|json| single(tables, field, json)).collect());
    }
    single(tables, field, json)
}

fn single(tables: &Tables, field: &Field, json: &Json) -> Value {
    match field.kind {
        Kind::Bool => Value::Bool(json.as_bool().unwrap()),
        Kind::Int32 | Kind::Int64 => Value::Int(json.as_i64().unwrap()),
        Kind::String => Value::Str(json.as_str().unwrap().into()),
        Kind::Enum(id) => Value::Enum(tables.enums[id].number(json.as_str().unwrap()).unwrap_or(0)),
        Kind::Message(id) => Value::Object(object(tables, id, json)),
        Kind::Double | Kind::Bytes => panic!("{}", field.json),
    }
}

/// Model, field and template of every field that has the default of its kind.
pub(super) fn default_templates(text: &str) -> Vec<(String, String, String)> {
    let models: Ordered<Model> = serde_json::from_str(text).unwrap();
    let mut found = Vec::new();
    for (name, model) in models.0 {
        for (field, description) in model.fields.0 {
            if let (Some(true), Some(template)) = (description["default"].as_bool(), description["template"].as_str()) {
                found.push((name.clone(), field, template.to_owned()));
            }
        }
    }
    found
}
