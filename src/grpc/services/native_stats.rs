//! Statistics of frontends, backends and servers.

use std::sync::Arc;

use super::Context;
use super::registry::to_struct;
use crate::error::{Error, Reason, Result};
use crate::proto::stats as pb;
use crate::runtime::{StatKind, StatRow};
use crate::schema::tables::{FieldIndex, Kind, MessageType};
use crate::schema::value::{Object, Value};

/// An answer has a hundred values for each server, so it is made as it is needed, without structs in between.
pub(super) async fn get(context: Context, request: Object) -> Result<Object> {
    let tables = &context.schema.tables;
    let id = |name: &str| {
        let id = tables.message_by_name.get(format!("backstay.stats.v2.{name}").as_str()).copied();
        id.ok_or_else(|| Error::internal(format!("no message {name}")))
    };
    let table = |name: &str| id(name).map(|id| &tables.messages[id]);
    let request: pb::GetNativeStatsRequest = to_struct(&context.schema, id("GetNativeStatsRequest")?, &request)?;
    let kind = match request.r#type() {
        pb::NativeStatType::Unspecified => None,
        pb::NativeStatType::Frontend => Some(StatKind::Frontend),
        pb::NativeStatType::Backend => Some(StatKind::Backend),
        pb::NativeStatType::Server => Some(StatKind::Server),
    };
    let name = Some(request.name.as_str()).filter(|name| !name.is_empty());
    let rows = match (kind, name) {
        (None, Some(_)) => return Err(wrong("name needs a type")),
        (Some(StatKind::Server), Some(server)) => {
            if request.parent.is_empty() {
                return Err(wrong("the name of a server needs its backend as parent"));
            }
            found(context.runtime.server_stats(&request.parent, server).await.map(|row| vec![row]))?
        }
        (kind, name) => found(context.runtime.stats(name, kind).await)?,
    };
    let (stat, stats) = (table("NativeStat")?, table("NativeStatStats")?);
    let mut writer = Writer { stat, stats, places: Vec::new(), of: None };
    let stats = rows.iter().filter_map(|row| writer.stat(row)).map(Value::Object).collect();
    let address = context.runtime.addresses().first().map(ToString::to_string).unwrap_or_default();
    let values = [("runtime_api", Value::Str(address.into())), ("stats", Value::List(stats))];
    let collection = Value::Object(object(table("NativeStatsCollection")?, values));
    Ok(object(table("GetNativeStatsResponse")?, [("collections", Value::List(vec![collection]))]))
}

/// Nothing of that name is an empty answer.
fn found(rows: Result<Vec<StatRow>>) -> Result<Vec<StatRow>> {
    match rows {
        Err(error) if matches!(error.reason(), Reason::ObjectNotFound | Reason::ParentNotFound) => Ok(Vec::new()),
        rows => rows,
    }
}

/// An object with these values. Empty lists and texts are absent.
fn object<const N: usize>(table: &MessageType, values: [(&str, Value); N]) -> Object {
    let mut object = Object::new();
    for (name, value) in values {
        let absent = match &value {
            Value::List(items) => items.is_empty(),
            Value::Str(text) => text.is_empty(),
            _ => false,
        };
        if let Some(field) = table.field_named(name).filter(|_| !absent) {
            object.set(field, value);
        }
    }
    object
}

/// Makes objects of rows.
struct Writer<'a> {
    stat: &'a MessageType,
    stats: &'a MessageType,
    /// The field of each column and whether it is a number, for the columns in `of`.
    places: Vec<Option<(FieldIndex, bool)>>,
    of: Option<Arc<[String]>>,
}

impl Writer<'_> {
    fn place(&mut self, row: &StatRow) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, row.columns())) {
            return;
        }
        let place = |column: &String| {
            let field = self.stats.field_named(column)?;
            match self.stats.fields[field].kind {
                Kind::Int64 => Some((field, true)),
                Kind::String => Some((field, false)),
                _ => None,
            }
        };
        self.places = row.columns().iter().map(place).collect();
        self.of = Some(Arc::clone(row.columns()));
    }

    fn stat(&mut self, row: &StatRow) -> Option<Object> {
        let (proxy, server) = (row.get("pxname")?, row.get("svname")?);
        let (kind, name, backend) = match row.get("type")? {
            "0" => (pb::NativeStatType::Frontend, proxy, ""),
            "1" => (pb::NativeStatType::Backend, proxy, ""),
            "2" => (pb::NativeStatType::Server, server, proxy),
            _ => return None,
        };
        self.place(row);
        let mut stats = Object::new();
        for (text, place) in row.values().zip(&self.places).filter(|(text, _)| !text.is_empty()) {
            match *place {
                Some((field, true)) => {
                    if let Ok(number) = text.parse() {
                        stats.set(field, Value::Int(number));
                    }
                }
                Some((field, false)) => stats.set(field, Value::Str(text.into())),
                None => {}
            }
        }
        let (backend, name) = (Value::Str(backend.into()), Value::Str(name.into()));
        let (stats, kind) = (Value::Object(stats), Value::Enum(kind.into()));
        Some(object(self.stat, [("backend_name", backend), ("name", name), ("stats", stats), ("type", kind)]))
    }
}

fn wrong(message: &'static str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
