//! Statistics of frontends, backends and servers.

use super::Context;
use crate::error::{Error, Reason, Result};
use crate::proto::stats as pb;
use crate::runtime::{StatKind, StatRow};
use crate::schema::tables::{Kind, MessageId, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::wire;

pub(super) async fn get(context: Context, request: pb::GetNativeStatsRequest) -> Result<pb::GetNativeStatsResponse> {
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
    let tables = &context.schema.tables;
    let id = tables.message_by_name.get("backstay.stats.v2.NativeStatStats").copied().unwrap_or_default();
    let stats = rows.iter().filter_map(|row| stat(tables, id, row)).collect();
    let runtime_api = context.runtime.addresses().first().map(ToString::to_string).unwrap_or_default();
    Ok(pb::GetNativeStatsResponse { collections: vec![pb::NativeStatsCollection { error: None, runtime_api, stats }] })
}

/// Nothing of that name is an empty answer.
fn found(rows: Result<Vec<StatRow>>) -> Result<Vec<StatRow>> {
    match rows {
        Err(error) if matches!(error.reason(), Reason::ObjectNotFound | Reason::ParentNotFound) => Ok(Vec::new()),
        rows => rows,
    }
}

fn stat(tables: &Tables, id: MessageId, row: &StatRow) -> Option<pb::NativeStat> {
    let (proxy, server) = (row.get("pxname")?, row.get("svname")?);
    let (kind, name, backend) = match row.get("type")? {
        "0" => (pb::NativeStatType::Frontend, proxy, None),
        "1" => (pb::NativeStatType::Backend, proxy, None),
        "2" => (pb::NativeStatType::Server, server, Some(proxy.to_owned())),
        _ => return None,
    };
    let mut object = Object::new();
    for (at, field) in tables.messages[id].fields.iter().enumerate() {
        let Some(text) = row.get(&field.name) else { continue };
        match (field.kind, text.parse()) {
            (Kind::Int64, Ok(number)) => object.set(at, Value::Int(number)),
            (Kind::String, _) => object.set(at, Value::Str(text.into())),
            _ => {}
        }
    }
    let mut bytes = Vec::new();
    wire::encode(tables, id, &object, &mut bytes);
    let stats = prost::Message::decode(bytes.as_slice()).ok()?;
    Some(pb::NativeStat { backend_name: backend, name: name.to_owned(), stats: Some(stats), r#type: kind.into() })
}

fn wrong(message: &'static str) -> Error {
    Error::new(Reason::InvalidValue, message)
}
