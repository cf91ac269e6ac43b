//! Stick tables: what they are, their entries, and watches.

use std::cmp::Reverse;
use std::str::FromStr as _;
use std::time::Duration;

use tokio_stream::StreamExt as _;

use super::Context;
use super::paging::Page;
use super::registry::{Items, Reply};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::Transport;
use crate::proto::runtime as pb;
use crate::runtime::{self, DataType, Datum, DatumValue, Filter, TableEntry, TableInfo, TableType};
use crate::stick_table::{
    Cleared, Entry, Event, Listing, Query, RemovalReason, Revision, Scope, SourceKind, Update, WatchOptions,
};

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
    pb::StickTable {
        fields: stored_fields(context, &info.name),
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
    let Some(store) = context.engine.stored_data(document, name) else { return Vec::new() };
    store.split(',').map(str::trim).filter(|item| !item.is_empty()).map(field).collect()
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

/// What is asked of a list of entries.
struct Asked {
    table: String,
    query: Query,
    page: Page,
    /// Entries that the caller leaves out.
    offset: usize,
    /// Most entries in all, whatever the page; 0 for no limit.
    count: usize,
}

impl Asked {
    fn read(context: &Context, request: &pb::ListStickTableEntriesRequest) -> Result<Asked> {
        let offset = usize::try_from(request.offset).map_err(|_| wrong("offset", "should be 0 or more"))?;
        let count = usize::try_from(request.count).map_err(|_| wrong("count", "should be 0 or more"))?;
        let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
        let limit = [Some(count).filter(|count| *count > 0), page.size].into_iter().flatten().min();
        let query = Query {
            scope: Scope { filters: filters(&request.filter)?, key_prefix: request.key_prefix.clone() },
            order_by: order(&request.order_by)?,
            start: offset + page.start,
            limit: limit.unwrap_or(usize::MAX),
        };
        Ok(Asked { table: request.stick_table.clone(), query, page, offset, count })
    }

    fn wants(&self, entry: &TableEntry) -> bool {
        entry.key.starts_with(&self.query.scope.key_prefix)
    }

    /// The answer with the entries of the page, out of so many that there are at least.
    fn answer(&self, entries: Vec<pb::StickTableEntry>, total: usize) -> Result<pb::ListStickTableEntriesResponse> {
        if self.offset > total {
            let message = format!("offset {} is larger than the number of entries, {total}", self.offset);
            return Err(Error::new(Reason::IndexOutOfRange, message).with("length", total));
        }
        let paged = self.page.size.is_some_and(|size| self.count == 0 || size < self.count);
        let more = paged && self.query.start + entries.len() < total;
        let next_page_token = if more { self.page.next(0) } else { String::new() };
        Ok(pb::ListStickTableEntriesResponse { entries, next_page_token })
    }
}

pub(super) async fn entries(
    context: Context,
    request: pb::ListStickTableEntriesRequest,
) -> Result<Reply<pb::ListStickTableEntriesResponse>> {
    if require_process(&context, request.process)? != PROCESS {
        return Ok(Reply::One(pb::ListStickTableEntriesResponse::default()));
    }
    if !request.key.is_empty() {
        return entry_of_key(&context, &request.stick_table, &request.key).await.map(Reply::One);
    }
    let asked = Asked::read(&context, &request)?;
    let rest = context.transport == Transport::Rest;
    // Clients of REST know entries by the ids that HAProxy alone has.
    if !rest && let Some(Listing { entries, total }) = context.hub.list(&asked.table, &asked.query)? {
        return asked.answer(entries.into_iter().map(mirrored).collect(), total).map(Reply::One);
    }
    let mut listing = context.runtime.table_entries(&asked.table, &asked.query.scope.filters).await?;
    if let Some(kind) = &asked.query.order_by {
        return ordered(&asked, kind, listing).await.map(Reply::One);
    }
    if rest && asked.query.start == 0 && asked.query.limit == usize::MAX {
        let chunks = listing.into_stream().map(move |chunk| {
            let entries = chunk?.into_iter().filter(|entry| asked.wants(entry)).map(message).collect();
            Ok(pb::ListStickTableEntriesResponse { entries, next_page_token: String::new() })
        });
        return Ok(Reply::Many(Box::pin(chunks)));
    }
    let (mut seen, mut entries) = (0, Vec::new());
    let end = asked.query.start.saturating_add(asked.query.limit);
    while seen <= end
        && let Some(items) = listing.next().await?
    {
        for entry in items.into_iter().filter(|entry| asked.wants(entry)) {
            if (asked.query.start..end).contains(&seen) {
                entries.push(message(entry));
            }
            seen += 1;
        }
    }
    asked.answer(entries, seen).map(Reply::One)
}

async fn entry_of_key(context: &Context, table: &str, key: &str) -> Result<pb::ListStickTableEntriesResponse> {
    let entries = match context.runtime.table_entry(table, key).await {
        Ok(entry) => vec![message(entry)],
        Err(error) if error.reason() == Reason::ObjectNotFound && error.message().starts_with("no entry") => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(pb::ListStickTableEntriesResponse { entries, next_page_token: String::new() })
}

/// The entries with the most of a data type; of all others no more are held than make one page.
async fn ordered(
    asked: &Asked,
    kind: &DataType,
    mut listing: runtime::Listing<TableEntry>,
) -> Result<pb::ListStickTableEntriesResponse> {
    let Query { start, limit, .. } = asked.query;
    let end = start.saturating_add(limit);
    let (mut first, mut total) = (Vec::new(), 0);
    while let Some(items) = listing.next().await? {
        let before = first.len();
        first.extend(items.into_iter().filter(|entry| asked.wants(entry)).map(|entry| (rank(&entry, kind), entry)));
        total += first.len() - before;
        if first.len() / 2 > end.max(1_000) {
            first.select_nth_unstable_by(end, |one, other| (&one.0, &one.1.key).cmp(&(&other.0, &other.1.key)));
            first.truncate(end);
        }
    }
    first.sort_unstable_by(|one, other| (&one.0, &one.1.key).cmp(&(&other.0, &other.1.key)));
    let entries = first.into_iter().skip(start).take(limit).map(|(_, entry)| message(entry)).collect();
    asked.answer(entries, total)
}

/// The data type that comes first.
fn order(text: &str) -> Result<Option<DataType>> {
    match DataType::parse(text) {
        _ if text.is_empty() => Ok(None),
        DataType::Other(_) | DataType::ServerKey => Err(wrong("order_by", "should be a data type, such as gpc0")),
        kind => Ok(Some(kind)),
    }
}

/// Orders entries by what they have most of.
fn rank(entry: &TableEntry, kind: &DataType) -> Reverse<u64> {
    let value = entry.data.iter().find(|datum| datum.kind == *kind).map(|datum| &datum.value);
    Reverse(if let Some(DatumValue::Number(number)) = value { *number } else { 0 })
}

pub(super) async fn set_entry(
    context: Context,
    request: pb::SetStickTableEntryRequest,
) -> Result<pb::SetStickTableEntryResponse> {
    require_process(&context, request.process)?;
    let data = data(request.data_type.as_ref());
    if data.is_empty() {
        return Err(wrong("data_type", "should set at least one data type"));
    }
    context.runtime.set_table_entry(&request.stick_table, &request.key, &data).await?;
    Ok(pb::SetStickTableEntryResponse {})
}

pub(super) async fn clear(
    context: Context,
    request: pb::ClearStickTableRequest,
) -> Result<pb::ClearStickTableResponse> {
    let table = &request.stick_table;
    if let Some(key) = &request.key {
        context.runtime.clear_table_entry(table, key).await?;
        context.hub.cleared(table, Cleared::Key(key));
    } else {
        context.runtime.clear_table(table, &[]).await?;
        context.hub.cleared(table, Cleared::All);
    }
    Ok(pb::ClearStickTableResponse {})
}

pub(super) async fn watch(
    context: Context,
    request: pb::WatchStickTableRequest,
) -> Result<Items<pb::WatchStickTableResponse>> {
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
    Ok(Box::pin(watch.into_stream().map(|update| update.map(event))))
}

fn event(update: Update) -> pb::WatchStickTableResponse {
    use pb::watch_stick_table_response::Event as Kind;
    let entries = |entries: Vec<Entry>| entries.into_iter().map(mirrored);
    let kind = match update.event {
        Event::Snapshot { entries: all, last } => {
            Kind::Snapshot(pb::StickTableSnapshot { entries: entries(all).collect(), last })
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
    pb::WatchStickTableResponse {
        resume_token: if number == 0 { String::new() } else { format!("{epoch}.{number}") },
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

/// Conditions joined by ` AND `.
fn filters(text: &str) -> Result<Vec<Filter>> {
    text.split(" AND ").map(str::trim).filter(|term| !term.is_empty()).map(Filter::from_str).collect()
}

/// An entry of a mirror.
fn mirrored(entry: Entry) -> pb::StickTableEntry {
    let mut message = pb::StickTableEntry {
        key: Some(entry.key),
        r#use: Some(entry.uses > 0),
        exp: entry.expires_in.and_then(|ms| i64::try_from(ms).ok()),
        ..pb::StickTableEntry::default()
    };
    fill(&mut message, entry.data);
    message
}

fn message(entry: TableEntry) -> pb::StickTableEntry {
    let mut message = pb::StickTableEntry {
        id: Some(entry.id),
        key: Some(entry.key),
        r#use: Some(entry.uses > 0),
        exp: i64::try_from(entry.expires_in).ok(),
        ..pb::StickTableEntry::default()
    };
    fill(&mut message, entry.data);
    message
}

macro_rules! data_fields {
    ($($kind:ident = $field:ident,)+) => {
        /// Puts stored data into the fields of their names.
        fn fill(message: &mut pb::StickTableEntry, data: Vec<Datum>) {
            for datum in data {
                let number = match datum.value {
                    DatumValue::Number(number) => i64::try_from(number).unwrap_or(i64::MAX),
                    DatumValue::Text(text) => {
                        message.server_key = Some(text);
                        continue;
                    }
                };
                match datum.kind {
                    $(DataType::$kind => message.$field = Some(number),)+
                    DataType::Gpt(n) => {
                        if n == 0 { message.gpt0 = Some(number) }
                        array(&mut message.gpt_array, &mut message.gpt, n, 1, number);
                    }
                    DataType::Gpc(n) => {
                        if n == 0 { message.gpc0 = Some(number) }
                        if n == 1 { message.gpc1 = Some(number) }
                        array(&mut message.gpc_array, &mut message.gpc, n, 2, number);
                    }
                    DataType::GpcRate(n) => {
                        if n == 0 { message.gpc0_rate = Some(number) }
                        if n == 1 { message.gpc1_rate = Some(number) }
                        array(&mut message.gpc_rate_array, &mut message.gpc_rate, n, 2, number);
                    }
                    DataType::ServerKey | DataType::Other(_) => {}
                }
            }
        }

        /// The data types that an entry sets.
        fn data(entry: Option<&pb::StickTableEntry>) -> Vec<(DataType, DatumValue)> {
            let Some(entry) = entry else { return Vec::new() };
            let mut out = Vec::new();
            let mut add = |kind, value: Option<i64>| {
                if let Some(number) = value.and_then(|v| u64::try_from(v).ok()) {
                    out.push((kind, DatumValue::Number(number)));
                }
            };
            $(add(DataType::$kind, entry.$field);)+
            add(DataType::Gpt(0), entry.gpt0);
            add(DataType::Gpc(0), entry.gpc0);
            add(DataType::Gpc(1), entry.gpc1);
            add(DataType::GpcRate(0), entry.gpc0_rate);
            add(DataType::GpcRate(1), entry.gpc1_rate);
            let index = |element: &pb::IndexedCounter| u16::try_from(element.idx.unwrap_or(0)).unwrap_or(0);
            if let Some(element) = &entry.gpt { add(DataType::Gpt(index(element)), element.value) }
            if let Some(element) = &entry.gpc { add(DataType::Gpc(index(element)), element.value) }
            if let Some(element) = &entry.gpc_rate { add(DataType::GpcRate(index(element)), element.value) }
            if let Some(key) = &entry.server_key {
                out.push((DataType::ServerKey, DatumValue::Text(key.clone())));
            }
            out
        }
    };
}

data_fields! {
    ServerId = server_id,
    ConnCnt = conn_cnt,
    ConnRate = conn_rate,
    ConnCur = conn_cur,
    SessCnt = sess_cnt,
    SessRate = sess_rate,
    HttpReqCnt = http_req_cnt,
    HttpReqRate = http_req_rate,
    HttpErrCnt = http_err_cnt,
    HttpErrRate = http_err_rate,
    HttpFailCnt = http_fail_cnt,
    HttpFailRate = http_fail_rate,
    BytesInCnt = bytes_in_cnt,
    BytesInRate = bytes_in_rate,
    BytesOutCnt = bytes_out_cnt,
    BytesOutRate = bytes_out_rate,
    GlitchCnt = glitch_cnt,
    GlitchRate = glitch_rate,
}

/// Adds element `n` to an array; the single field shows the first element beyond the `named` ones that have a field of
/// their own.
fn array(all: &mut Vec<i64>, single: &mut Option<pb::IndexedCounter>, n: u16, named: u16, number: i64) {
    let at = usize::from(n);
    if all.len() <= at {
        all.resize(at + 1, 0);
    }
    all[at] = number;
    if n >= named && number != 0 && single.is_none() {
        *single = Some(pb::IndexedCounter { idx: Some(i64::from(n)), value: Some(number) });
    }
}

fn wrong(field: &str, message: &str) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message: message.into(), code: 0, location: "query" }])
}
