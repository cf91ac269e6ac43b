//! Stick tables: what they are, and watches.

mod entries;
mod message;
mod transfer;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio_stream::StreamExt as _;

pub(super) use self::entries::{clear, entries, increment_entry, set_entry};
use self::message::mirrored;
pub(super) use self::transfer::{export, import};
use super::Context;
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Chunks, Transport};
use crate::proto::runtime as pb;
use crate::runtime::{Filter, TableInfo, TableType};
use crate::stick_table::{Entry, Event, RemovalReason, Revision, Scope, SourceKind, Told, Update, WatchOptions};

/// The only process that HAProxy has since version 2.5.
const PROCESS: i64 = 1;
/// Bounds of the interval that a watcher may ask for, in milliseconds.
const INTERVAL: std::ops::RangeInclusive<i32> = 50..=3_600_000;

pub(super) async fn list(context: Context, request: pb::ListStickTablesRequest) -> Result<pb::ListStickTablesResponse> {
    if request.process.is_some_and(|process| process != PROCESS && process != 0) {
        return Ok(pb::ListStickTablesResponse::default());
    }
    let tables = context.runtime.tables().await?;
    Ok(pb::ListStickTablesResponse { stick_tables: tables.into_iter().map(|t| table(&context, t)).collect() })
}

pub(super) async fn get(context: Context, request: pb::GetStickTableRequest) -> Result<pb::GetStickTableResponse> {
    require_process(&context, request.process)?;
    let info = context.runtime.table(&request.name).await?;
    Ok(pb::GetStickTableResponse { stick_table: Some(table(&context, info)) })
}

fn table(context: &Context, info: TableInfo) -> pb::StickTable {
    let kind = info.kind.map_or(pb::StickTableType::Unspecified, |kind| match kind {
        TableType::Ip => pb::StickTableType::Ip,
        TableType::Ipv6 => pb::StickTableType::Ipv6,
        TableType::Integer => pb::StickTableType::Integer,
        TableType::String => pb::StickTableType::String,
        TableType::Binary => pb::StickTableType::Binary,
    });
    let document = &context.configuration.current().document;
    let expire = context.engine.table_setting(document, &info.name, "expire");
    pb::StickTable {
        fields: stored_fields(context, &info.name),
        expire: expire.and_then(|time| crate::schema::template::milliseconds(&time)),
        name: info.name,
        process: Some(PROCESS),
        size: i64::try_from(info.size).ok(),
        r#type: kind.into(),
        used: i64::try_from(info.used).ok(),
    }
}

/// What the configuration says that a table stores; HAProxy itself does not tell before there is an entry.
fn stored_fields(context: &Context, name: &str) -> Vec<pb::StickTableField> {
    let document = &context.configuration.current().document;
    let Some(store) = context.engine.table_setting(document, name, "store") else { return Vec::new() };
    let items = store.split(',').map(|item| item.trim().trim_matches(['"', '\'']));
    items.filter(|item| !item.is_empty()).map(field).collect()
}

/// One item of `store`: `gpc0`, `http_req_rate(10s)`, `gpc(3)`, `gpc_rate(3,10s)`.
fn field(item: &str) -> pb::StickTableField {
    let (name, arguments) = match item.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')').split(',').map(str::trim).collect()),
        None => (item, Vec::new()),
    };
    let kind = pb::StickTableDataType::from_str_name(&format!("STICK_TABLE_DATA_TYPE_{}", name.to_ascii_uppercase()));
    let rate = name.ends_with("_rate");
    let mut arguments = arguments.into_iter();
    let array = matches!(name, "gpc" | "gpt" | "gpc_rate");
    let idx = if array { arguments.next().and_then(|n| n.parse().ok()) } else { None };
    let period = if rate { arguments.next().and_then(crate::schema::template::milliseconds) } else { None };
    pb::StickTableField {
        field: kind.unwrap_or(pb::StickTableDataType::Unspecified).into(),
        r#type: if rate { pb::StickTableFieldType::Rate } else { pb::StickTableFieldType::Counter }.into(),
        idx,
        period,
    }
}

pub(super) async fn watch(context: Context, request: pb::WatchStickTableRequest) -> Result<Chunks> {
    let interval = match request.interval_ms {
        0 => 1_000,
        given if INTERVAL.contains(&given) => given,
        _ => return Err(wrong("interval_ms", "should be 50 to 3600000")),
    };
    let options = WatchOptions {
        scope: Scope { filters: filters(&request.filter)?, key_prefix: request.key_prefix },
        interval: Duration::from_millis(u64::from(interval.unsigned_abs())),
        resume: resume(&request.resume_token)?,
        entries_in_snapshot: !request.changes_only,
    };
    // A table that is not there is told at once and not on the stream, when HAProxy can be asked.
    match context.runtime.table(&request.stick_table).await {
        Err(error) if error.reason() == Reason::ObjectNotFound => return Err(error),
        _ => {}
    }
    let watch = context.hub.watch(&request.stick_table, options);
    // Written once for all watchers who are told the same.
    let written = |told: Arc<Told>| told.written(|update| event(update.clone()).encode_to_vec().into());
    Ok(Box::pin(watch.into_stream().map(move |told| told.map(written))))
}

fn event(update: Update) -> pb::WatchStickTableResponse {
    use pb::watch_stick_table_response::Event as Kind;
    let entries = |entries: Vec<Entry>| entries.into_iter().map(mirrored);
    let kind = match update.event {
        Event::Snapshot { entries: all, last } => {
            let fields = message::fields(all.first().map(|entry| &*entry.data));
            Kind::Snapshot(pb::StickTableSnapshot { entries: entries(all).collect(), last, fields })
        }
        Event::Changed(changed) => Kind::Changed(pb::StickTableChanged { entries: entries(changed).collect() }),
        Event::Removed { keys, reason } => {
            let reason = match reason {
                RemovalReason::Expired => pb::RemovalReason::Expired,
                RemovalReason::Cleared => pb::RemovalReason::Cleared,
                RemovalReason::Swept => pb::RemovalReason::Swept,
                RemovalReason::Unknown => pb::RemovalReason::Unknown,
            };
            let entries = keys.into_iter().map(|key| pb::StickTableRemoval { key, reason: reason.into() }).collect();
            Kind::Removed(pb::StickTableRemoved { entries })
        }
        Event::Progress => Kind::Progress(pb::WatchProgress {}),
        Event::Resync => Kind::Resync(pb::WatchResync { cause: "changes may have been missed".into() }),
    };
    let source = match update.source {
        SourceKind::Poll => pb::WatchSource::Poll,
        SourceKind::Push => pb::WatchSource::Push,
    };
    let Revision { epoch, number } = update.revision;
    let can_resume = update.revision != Revision::default();
    pb::WatchStickTableResponse {
        resume_token: if can_resume { format!("{epoch}.{number}") } else { String::new() },
        revision: i64::try_from(number).unwrap_or(i64::MAX),
        source: source.into(),
        staleness_ms: i64::try_from(update.staleness.as_millis()).unwrap_or(i64::MAX),
        event: Some(kind),
    }
}

fn resume(token: &str) -> Result<Option<Revision>> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token
        .split_once('.')
        .and_then(|(epoch, number)| Some(Revision { epoch: epoch.parse().ok()?, number: number.parse().ok()? }));
    match parsed {
        Some(revision) => Ok(Some(revision)),
        None => Err(wrong("resume_token", "is not a token that a watch returned")),
    }
}

/// The process that a request names; over REST it must name one.
fn require_process(context: &Context, process: Option<i64>) -> Result<i64> {
    match process {
        None if context.transport == Transport::Rest => Err(Error::invalid(vec![Violation {
            field: "process".into(),
            message: "is required".into(),
            code: 602,
            location: "query",
        }])),
        None => Ok(PROCESS),
        Some(process) => Ok(process),
    }
}

/// Conditions joined by ` AND `, or by commas as in /v2.
fn filters(text: &str) -> Result<Vec<Filter>> {
    text.split(" AND ")
        .flat_map(|terms| terms.split(','))
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .map(Filter::from_str)
        .collect()
}

fn wrong(field: &str, message: &str) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message: message.into(), code: 0, location: "query" }])
}
