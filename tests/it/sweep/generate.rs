//! Samples for elements that `samples.jsonl` says nothing about: the shortest sample of the resource, with one more field
//! that has the value it has elsewhere.

use std::collections::BTreeMap;

use backstay::schema::tables::{Field, Kind, MessageId, Tables};
use serde_json::{Map, Value as Json, json};

/// Makes samples in the form of `samples.jsonl`.
pub(crate) struct Generator<'t> {
    tables: &'t Tables,
    samples: Vec<Json>,
    /// A value of each field, by its key.
    values: BTreeMap<String, Json>,
}

impl<'t> Generator<'t> {
    pub(crate) fn new(tables: &'t Tables, samples: Vec<Json>) -> Self {
        let mut values = BTreeMap::new();
        for sample in &samples {
            collect(&sample["o"], &mut values);
        }
        Generator { tables, samples, values }
    }

    /// A sample with an element such as `Server.check`, `Bind.level=admin` or `HttpRequestRule.type=deny: status`.
    pub(crate) fn sample(&self, element: &str) -> Option<Json> {
        let (resource, rest) = element.split_once('.')?;
        let id = *self.tables.message_by_name.get(format!("backstay.configuration.v2.{resource}").as_str())?;
        let (kind, path) = match rest.split_once(": ") {
            Some((kind, field)) => {
                let (at, token) = kind.split_once('=')?;
                (
                    Some((at, token)),
                    at.rsplit_once('.').map_or(field.to_owned(), |(outer, _)| format!("{outer}.{field}")),
                )
            }
            None => (None, rest.to_owned()),
        };
        let (path, token) = path.split_once('=').map_or((path.as_str(), None), |(path, token)| (path, Some(token)));
        let wanted = kind.or(token.map(|token| (path, token)).filter(|(path, _)| matches!(*path, "type" | "action")));
        let of_resource = self.samples.iter().filter(|sample| sample["r"] == resource);
        let fits = |sample: &&Json| wanted.is_none_or(|(at, token)| sample["o"][at] == token);
        let base = of_resource
            .clone()
            .filter(fits)
            .chain(of_resource)
            .min_by_key(|sample| (!fits(sample), missing(&sample["o"], path), sample.to_string().len()))
            .cloned();
        let mut sample = base.unwrap_or_else(|| json!({ "r": resource, "o": {} }));
        if let Some((at, token)) = kind {
            self.put(id, &mut sample["o"], at, Some(token))?;
        }
        self.put(id, &mut sample["o"], path, token)?;
        Some(sample)
    }

    /// Adds what an error of the engine says is missing.
    pub(crate) fn complete(&self, sample: &mut Json, path: &str) -> Option<()> {
        let id = *self
            .tables
            .message_by_name
            .get(format!("backstay.configuration.v2.{}", sample["r"].as_str()?).as_str())?;
        let plain: String = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect();
        self.put(id, &mut sample["o"], &plain, None)
    }

    fn put(&self, message: MessageId, object: &mut Json, path: &str, token: Option<&str>) -> Option<()> {
        let (part, rest) = path.split_once('.').map_or((path, None), |(part, rest)| (part, Some(rest)));
        let field = field(self.tables, message, part)?;
        if !object.is_object() {
            *object = Json::Object(Map::new());
        }
        let slot = object.as_object_mut()?.entry(part).or_insert(Json::Null);
        if let (Kind::Message(inner), Some(rest)) = (field.kind, rest) {
            if !field.repeated {
                return self.put(inner, slot, rest, token);
            }
            if !slot.is_array() {
                *slot = json!([{}]);
            }
            return self.put(inner, slot.as_array_mut()?.first_mut()?, rest, token);
        }
        let value = token.map_or_else(|| self.value(field), |token| json!(token));
        *slot = if field.repeated { json!([value]) } else { value };
        Some(())
    }

    fn value(&self, field: &Field) -> Json {
        match field.kind {
            Kind::Bool => json!(true),
            Kind::Enum(id) => json!(self.tables.enums[id].values[0].token),
            Kind::Int32 | Kind::Int64 | Kind::Double => match self.values.get(&*field.json) {
                Some(value) if value.is_number() => value.clone(),
                _ => json!(field.numbers.first().copied().or(field.check.min).unwrap_or(10).max(1)),
            },
            Kind::Message(_) => json!({}),
            _ => match self.values.get(&*field.json) {
                Some(value) if value.is_string() => value.clone(),
                _ => json!("x1"),
            },
        }
    }
}

/// How many steps of a path an object does not have.
fn missing(mut object: &Json, path: &str) -> usize {
    let mut rest = path.split('.').count();
    for part in path.split('.') {
        let next = &object[part];
        if next.is_null() {
            break;
        }
        rest -= 1;
        object = if next.is_array() { &next[0] } else { next };
    }
    rest
}

fn collect(value: &Json, into: &mut BTreeMap<String, Json>) {
    if let Json::Object(fields) = value {
        for (key, value) in fields {
            match value {
                Json::Object(_) => collect(value, into),
                Json::Array(items) => items.iter().for_each(|item| {
                    if item.is_object() {
                        collect(item, into);
                    } else {
                        into.entry(key.clone()).or_insert_with(|| item.clone());
                    }
                }),
                value => drop(into.entry(key.clone()).or_insert_with(|| value.clone())),
            }
        }
    }
}

fn field<'t>(tables: &'t Tables, message: MessageId, json: &str) -> Option<&'t Field> {
    let table = &tables.messages[message];
    if let Some(at) = table.by_json.get(json) {
        return Some(&table.fields[*at]);
    }
    table.fields.iter().find_map(|field| match field.kind {
        Kind::Message(inner) if field.flatten => self::field(tables, inner, json),
        _ => None,
    })
}
