//! Reading.

use serde_json::{Map, Value as Json};

use crate::error::{Error, Reason, Result, Violation};
use crate::schema::tables::{Field, FieldIndex, Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};

/// How bodies are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonRules {
    /// A zero, `false` or empty string counts as absent, unless the field is `nullable`. On over REST.
    pub drop_zero: bool,
    /// Keys of fields that /v2 does not have are unknown.
    pub only_v2: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Reading {
    /// The object.
    pub object: Object,
    /// Paths of keys that no field has, and of keys in another case beside the exact one. /v2 ignores them.
    pub unknown: Vec<String>,
    /// Paths of keys that were taken for the field that has them in another case.
    pub recased: Vec<String>,
    /// Words that no value of their enum has (the empty one counts as absent). The fields are absent from the object;
    /// [`check_reading`](crate::schema::check::check_reading) reports them together with all else.
    pub refused: Vec<Violation>,
}

/// Reads a body. `null` is the empty object, as `null` for a key is its absence; of equal keys the last one counts.
/// Keys are matched whatever their case, as by clients' and the Data Plane API's own readers of JSON: an exact one wins,
/// else the last one.
pub fn read(tables: &Tables, message: MessageId, bytes: &[u8], rules: JsonRules) -> Result<Reading> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid(vec![Violation {
            field: "data".to_owned(),
            message: "is required".to_owned(),
            code: 602,
            location: "body",
        }]));
    }
    // As clients of /v2 know it, what follows the first value is not looked at.
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Json>();
    let json = values.next().unwrap_or(Ok(Json::Null)).map_err(|error| not_json(&error))?;
    read_value(tables, message, &json, rules)
}

/// The error of a body that cannot be read as JSON.
pub fn not_json(error: &serde_json::Error) -> Error {
    Error::new(Reason::MalformedRequest, format!("body is not JSON: {error}"))
}

/// Reads parsed JSON.
pub fn read_value(tables: &Tables, message: MessageId, json: &Json, rules: JsonRules) -> Result<Reading> {
    let mut reader = Reader { tables, rules, path: String::new(), reading: Reading::default() };
    let object = reader.object(message, json)?;
    Ok(Reading { object, ..reader.reading })
}

/// A whole number, also written with a fraction of zero, as some clients write all numbers.
fn integer(json: &Json) -> Option<i64> {
    /// Up to here every whole number has a floating one of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    json.as_i64().or_else(|| {
        let number = json.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
        Some(number as i64)
    })
}

struct Reader<'a> {
    tables: &'a Tables,
    rules: JsonRules,
    /// Where the reader stands, such as `return_hdrs.0`.
    path: String,
    /// What was found so far, but for the object.
    reading: Reading,
}

impl<'a> Reader<'a> {
    fn object(&mut self, message: MessageId, json: &Json) -> Result<Object> {
        let mut object = Object::new();
        match json {
            Json::Null => {}
            Json::Object(keys) => self.keys(message, keys, &mut object)?,
            other => return Err(self.wrong("an object", other)),
        }
        Ok(object)
    }

    fn keys(&mut self, message: MessageId, keys: &Map<String, Json>, object: &mut Object) -> Result<()> {
        for (key, json) in keys {
            if self.has_key(message, key) {
                self.at(key, |reader| reader.key(message, key, json, object))?;
                continue;
            }
            let name = self.in_another_case(message, key).filter(|name| !keys.contains_key(*name));
            self.at(key, |reader| {
                let path = reader.path.clone();
                let Some(name) = name else {
                    reader.reading.unknown.push(path);
                    return Ok(());
                };
                reader.reading.recased.push(path);
                reader.key(message, name, json, object)
            })?;
        }
        Ok(())
    }

    /// The key of the message, or of a flattened part of it, that is the same but for the case of its letters.
    fn in_another_case(&self, message: MessageId, key: &str) -> Option<&'a str> {
        self.tables.messages[message].fields.iter().find_map(|field| match field.kind {
            Kind::Message(inner) if field.flatten => self.in_another_case(inner, key),
            _ => (field.json.eq_ignore_ascii_case(key) && !self.is_hidden(field)).then_some(&*field.json),
        })
    }

    /// Runs with the path one part longer.
    fn at<T>(&mut self, part: &str, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(part);
        let result = run(self);
        self.path.truncate(length);
        result
    }

    /// Reads one key that the message or a flattened part of it has.
    fn key(&mut self, message: MessageId, key: &str, json: &Json, object: &mut Object) -> Result<()> {
        let tables = self.tables;
        let table = &tables.messages[message];
        if let Some(&at) = table.by_json.get(key)
            && !table.fields[at].flatten
            && !self.is_hidden(&table.fields[at])
        {
            return self.field(&table.fields[at], at, json, object);
        }
        for (at, field) in table.fields.iter().enumerate() {
            let Kind::Message(inner) = field.kind else { continue };
            if !field.flatten || !self.has_key(inner, key) {
                continue;
            }
            let part = object.object_mut(at);
            self.key(inner, key, json, part)?;
            if part.is_empty() {
                object.take(at);
            }
            return Ok(());
        }
        Ok(())
    }

    fn field(&mut self, field: &'a Field, at: FieldIndex, json: &Json, object: &mut Object) -> Result<()> {
        // Keys of one object may lie in several flattened parts, so an earlier value may have to go.
        object.take(at);
        if json.is_null() {
            return Ok(());
        }
        if !field.repeated {
            if let Some(value) = self.value(field, json, false)? {
                object.set(at, value);
            }
            return Ok(());
        }
        let Json::Array(items) = json else { return Err(self.wrong("a list", json)) };
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let value = self.at(&index.to_string(), |reader| reader.value(field, item, true))?;
            list.extend(value);
        }
        if !list.is_empty() {
            object.set(at, Value::List(list));
        }
        Ok(())
    }

    /// A value, or none when it counts as absent or was refused. Items of lists are never absent: `null` is their
    /// zero.
    fn value(&mut self, field: &Field, json: &Json, item: bool) -> Result<Option<Value>> {
        let drop_zero = self.rules.drop_zero && !field.check.nullable && !item;
        let value = match (field.kind, json) {
            (Kind::Message(inner), _) => return Ok(Some(Value::Object(self.object(inner, json)?))),
            (Kind::Bool, Json::Bool(flag)) => Value::Bool(*flag),
            (Kind::Bool, Json::Null) => Value::Bool(false),
            (Kind::Bool, _) => return Err(self.wrong("true or false", json)),
            (Kind::Int32 | Kind::Int64, Json::Null) => Value::Int(0),
            (Kind::Int32 | Kind::Int64, _) => match integer(json) {
                Some(number) => Value::Int(number),
                None => return Err(self.wrong("an integer", json)),
            },
            (Kind::Double, Json::Null) => Value::Double(0.0),
            (Kind::Double, _) => match json.as_f64() {
                Some(number) => Value::Double(number),
                None => return Err(self.wrong("a number", json)),
            },
            (Kind::String | Kind::Bytes | Kind::Enum(_), Json::Null | Json::String(_)) => {
                let text = json.as_str().unwrap_or_default();
                match field.kind {
                    Kind::Enum(id) => {
                        let value =
                            self.tables.enums[id].by_token.get(text).map(|at| &self.tables.enums[id].values[*at]);
                        let known = value.filter(|value| !(self.rules.only_v2 && value.grpc_only));
                        let Some(number) = known.map(|value| value.number) else {
                            // The empty word is the JSON of `..._UNSPECIFIED`.
                            if item || !text.is_empty() {
                                self.refuse(id);
                            }
                            return Ok(None);
                        };
                        Value::Enum(number)
                    }
                    Kind::Bytes => Value::Bytes(bytes::Bytes::copy_from_slice(text.as_bytes())),
                    _ => Value::Str(text.into()),
                }
            }
            (Kind::String | Kind::Bytes | Kind::Enum(_), _) => return Err(self.wrong("a string", json)),
        };
        let zero = match &value {
            Value::Bool(flag) => !flag,
            Value::Int(number) => *number == 0,
            Value::Double(number) => *number == 0.0,
            Value::Str(text) => text.is_empty(),
            Value::Bytes(raw) => raw.is_empty(),
            Value::Enum(_) | Value::Object(_) | Value::List(_) => false,
        };
        Ok((!(zero && drop_zero)).then_some(value))
    }

    fn is_hidden(&self, field: &Field) -> bool {
        self.rules.only_v2 && field.grpc_only
    }

    fn has_key(&self, message: MessageId, key: &str) -> bool {
        let table = &self.tables.messages[message];
        match table.by_json.get(key) {
            Some(&at) if !table.fields[at].flatten => !self.is_hidden(&table.fields[at]),
            _ => table.fields.iter().any(|field| match field.kind {
                Kind::Message(inner) => field.flatten && self.has_key(inner, key),
                _ => false,
            }),
        }
    }

    fn refuse(&mut self, id: usize) {
        self.reading.refused.push(Violation {
            field: self.path.clone(),
            message: self.tables.enums[id].expected(self.rules.only_v2),
            code: 606,
            location: "body",
        });
    }

    fn wrong(&self, expected: &str, found: &Json) -> Error {
        let found = match found {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(number) if number.is_f64() => "a fraction",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        };
        let path = if self.path.is_empty() { "body" } else { &self.path };
        let message = format!("expected {expected}, found {found}");
        Error::new(Reason::MalformedRequest, format!("{path}: {message}")).with_violation(Violation {
            field: self.path.clone(),
            message,
            code: 0,
            location: "body",
        })
    }
}
