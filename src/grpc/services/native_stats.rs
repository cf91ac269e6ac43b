//! Statistics of frontends, backends and servers.

use std::sync::Arc;

use super::Context;
use crate::error::{Error, Reason, Result};
use crate::proto::stats as pb;
use crate::runtime::{StatKind, StatRow};
use crate::schema::tables::{FieldIndex, Kind, Tables};
use crate::schema::value::{Object, Value};

/// Position of a field of one of our messages.
fn field(tables: &Tables, message: &str, name: &str) -> FieldIndex {
    tables.field(&format!("backstay.stats.v2.{message}"), name)
}

/// An answer has a hundred values for each server, so it is made as it is needed, without structs in between.
pub(super) async fn get(context: Context, request: Object) -> Result<Object> {
    let tables = &*context.schema.tables;
    let input = |name| field(tables, "GetNativeStatsRequest", name);
    let text = |name| request.str(input(name)).unwrap_or_default();
    let kind = pb::NativeStatType::try_from(request.enum_number(input("type")).unwrap_or_default());
    let kind = match kind.unwrap_or_default() {
        pb::NativeStatType::Unspecified => None,
        pb::NativeStatType::Frontend => Some(StatKind::Frontend),
        pb::NativeStatType::Backend => Some(StatKind::Backend),
        pb::NativeStatType::Server => Some(StatKind::Server),
    };
    let (name, parent) = (Some(text("name")).filter(|name| !name.is_empty()), text("parent"));
    let rows = match (kind, name) {
        (None, Some(_)) => return Err(wrong("name needs a type")),
        (Some(StatKind::Server), Some(server)) => {
            if parent.is_empty() {
                return Err(wrong("the name of a server needs its backend as parent"));
            }
            found(context.runtime.server_stats(parent, server).await.map(|row| vec![row]))?
        }
        (kind, name) => found(context.runtime.stats(name, kind).await)?,
    };
    let mut writer = Writer::new(tables);
    let stats: Vec<_> = rows.iter().filter_map(|row| writer.stat(row)).map(Value::Object).collect();
    let mut collection = Object::new();
    let mut set = |name, value| collection.set(field(tables, "NativeStatsCollection", name), value);
    if let Some(address) = context.runtime.addresses().first() {
        set("runtime_api", Value::Str(address.to_string().into()));
    }
    if !stats.is_empty() {
        set("stats", Value::List(stats));
    }
    let mut response = Object::new();
    response.push(field(tables, "GetNativeStatsResponse", "collections"), Value::Object(collection));
    Ok(response)
}

/// Nothing of that name is an empty answer.
fn found(rows: Result<Vec<StatRow>>) -> Result<Vec<StatRow>> {
    match rows {
        Err(error) if matches!(error.reason(), Reason::ObjectNotFound | Reason::ParentNotFound) => Ok(Vec::new()),
        rows => rows,
    }
}

/// Makes objects of rows.
struct Writer<'a> {
    tables: &'a Tables,
    backend_name: FieldIndex,
    name: FieldIndex,
    stats: FieldIndex,
    kind: FieldIndex,
    /// The field of each column and whether it is a number, for the columns in `of`.
    places: Vec<Option<(FieldIndex, bool)>>,
    of: Option<Arc<[String]>>,
}

impl<'a> Writer<'a> {
    fn new(tables: &'a Tables) -> Self {
        let [backend_name, name, stats, kind] =
            ["backend_name", "name", "stats", "type"].map(|name| field(tables, "NativeStat", name));
        Writer { tables, backend_name, name, stats, kind, places: Vec::new(), of: None }
    }

    fn place(&mut self, row: &StatRow) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, row.columns())) {
            return;
        }
        let table = self.tables.message("backstay.stats.v2.NativeStatStats");
        let place = |column: &String| {
            let field = table?.field_named(column)?;
            match table?.fields[field].kind {
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
            "0" => (pb::NativeStatType::Frontend, proxy, None),
            "1" => (pb::NativeStatType::Backend, proxy, None),
            "2" => (pb::NativeStatType::Server, server, Some(proxy)),
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
        let mut object = Object::new();
        if let Some(backend) = backend {
            object.set(self.backend_name, Value::Str(backend.into()));
        }
        object.set(self.name, Value::Str(name.into()));
        object.set(self.stats, Value::Object(stats));
        object.set(self.kind, Value::Enum(kind.into()));
        Some(object)
    }
}

fn wrong(message: &'static str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
