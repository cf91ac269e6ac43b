//! Statistics of frontends, backends and servers.

use std::sync::Arc;

use super::Context;
use crate::error::{Error, Reason, Result};
use crate::grpc::call::{Answer, Transport};
use crate::proto::fields::stats::{self as fields, get_native_stats_request, native_stat};
use crate::proto::messages::stats as messages;
use crate::proto::stats as pb;
use crate::runtime::{StatKind, StatRow};
use crate::schema::tables::{Field, FieldIndex, Kind, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::wire;

/// An answer has a hundred values for each server, so it is made as it is needed, without structs in between: over REST
/// while it is sent, over gRPC as bytes of the wire.
pub(super) async fn get(context: Context, request: Object) -> Result<Answer> {
    let tables = Arc::clone(&context.schema.tables);
    let text = |field: FieldIndex| request.str(field).unwrap_or_default();
    let kind = request.enum_number(get_native_stats_request::TYPE).unwrap_or_default();
    let kind = pb::NativeStatType::try_from(kind);
    let kind = match kind.unwrap_or_default() {
        pb::NativeStatType::Unspecified => None,
        pb::NativeStatType::Frontend => Some(StatKind::Frontend),
        pb::NativeStatType::Backend => Some(StatKind::Backend),
        pb::NativeStatType::Server => Some(StatKind::Server),
    };
    let (name, parent) = (
        Some(text(get_native_stats_request::NAME)).filter(|name| !name.is_empty()),
        text(get_native_stats_request::PARENT),
    );
    let rows: Box<dyn Iterator<Item = Vec<StatRow>> + Send> = match (kind, name) {
        (None, Some(_)) => return Err(wrong("name needs a type")),
        (Some(StatKind::Server), Some(server)) => {
            if parent.is_empty() {
                return Err(wrong("the name of a server needs its backend as parent"));
            }
            Box::new(found(context.runtime.server_stats(parent, server).await)?.into_iter().map(|row| vec![row]))
        }
        (kind, name) => Box::new(found(context.runtime.stats(name, kind).await)?.into_iter().flatten()),
    };
    let address = context.runtime.addresses().first().map(ToString::to_string);
    let mut parts = Parts { writer: Writer::new(&tables, context.transport), address, rows };
    let first = parts.next();
    let nothing = first.is_none();
    let first = first.unwrap_or_else(|| parts.collection(Vec::new()));
    let all = std::iter::once(first).chain(parts);
    if context.transport == Transport::Grpc {
        let bytes = written(&tables, all)?;
        return Ok(Answer::Written(Box::pin(tokio_stream::once(Ok(bytes.into())))));
    }
    let mut responses = all.map(move |collection| {
        let mut response = Object::new();
        response.push(fields::get_native_stats_response::COLLECTIONS, Value::Object(collection));
        response
    });
    Ok(match responses.next() {
        Some(whole) if nothing => Answer::Message(whole),
        first => Answer::Stream(Box::pin(tokio_stream::iter(first.into_iter().chain(responses).map(Ok)))),
    })
}

/// The response on the wire. Parts of a message one behind the other are the message.
fn written(tables: &Tables, parts: impl Iterator<Item = Object>) -> Result<Vec<u8>> {
    let mut collection = Vec::new();
    for part in parts {
        wire::encode(tables, messages::NATIVE_STATS_COLLECTION, &part, &mut collection);
    }
    let mut response = Vec::with_capacity(collection.len() + 8);
    let mut whole = Object::new();
    whole.push(fields::get_native_stats_response::COLLECTIONS, Value::Object(Object::new()));
    // An empty collection is its key and the length 0, which gives way to the real one.
    wire::encode(tables, messages::GET_NATIVE_STATS_RESPONSE, &whole, &mut response);
    response.pop();
    prost::encode_length_delimiter(collection.len(), &mut response).map_err(Error::internal)?;
    response.append(&mut collection);
    Ok(response)
}

/// Nothing of that name is an empty answer.
fn found<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(error) if matches!(error.reason(), Reason::ObjectNotFound | Reason::ParentNotFound) => Ok(None),
        found => found.map(Some),
    }
}

/// The one collection that there is, in parts: the first one says where it is from.
struct Parts {
    writer: Writer,
    address: Option<String>,
    rows: Box<dyn Iterator<Item = Vec<StatRow>> + Send>,
}

impl Parts {
    fn collection(&mut self, stats: Vec<Value>) -> Object {
        let mut collection = Object::new();
        if let Some(address) = self.address.take() {
            collection.set(fields::native_stats_collection::RUNTIME_API, Value::Str(address.into()));
        }
        if !stats.is_empty() {
            collection.set(fields::native_stats_collection::STATS, Value::List(stats));
        }
        collection
    }
}

impl Iterator for Parts {
    type Item = Object;

    fn next(&mut self) -> Option<Object> {
        loop {
            let rows = self.rows.next()?;
            let stats: Vec<_> = rows.iter().filter_map(|row| self.writer.stat(row)).map(Value::Object).collect();
            if !stats.is_empty() {
                return Some(self.collection(stats));
            }
        }
    }
}

/// Makes objects of rows.
struct Writer {
    tables: Arc<Tables>,
    /// REST knows some of the columns only.
    transport: Transport,
    /// The field of each column and whether it is a number, for the columns in `of`.
    places: Vec<Option<(FieldIndex, bool)>>,
    of: Option<Arc<[String]>>,
}

impl Writer {
    fn new(tables: &Arc<Tables>, transport: Transport) -> Self {
        Writer { tables: Arc::clone(tables), transport, places: Vec::new(), of: None }
    }

    fn place(&mut self, row: &StatRow) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, row.columns())) {
            return;
        }
        let table = &self.tables.messages[messages::NATIVE_STAT_STATS];
        let rest = self.transport == Transport::Rest;
        let place = |column: &String| {
            let known = |field: &Field| *field.name == **column && !(rest && field.grpc_only);
            let field = table.fields.iter().position(known)?;
            match table.fields[field].kind {
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
            object.set(native_stat::BACKEND_NAME, Value::Str(backend.into()));
        }
        object.set(native_stat::NAME, Value::Str(name.into()));
        object.set(native_stat::STATS, Value::Object(stats));
        object.set(native_stat::TYPE, Value::Enum(kind.into()));
        Some(object)
    }
}

fn wrong(message: &'static str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
