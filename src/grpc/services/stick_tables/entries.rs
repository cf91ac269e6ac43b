//! Entries of stick tables: listed, set, counted up, cleared.

use std::cmp::Reverse;

use tokio_stream::StreamExt as _;

use super::message::{data, fields, message, mirrored};
use super::{PROCESS, filters, require_process, stored_fields, wrong};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::Transport;
use crate::grpc::services::Context;
use crate::grpc::services::paging::Page;
use crate::grpc::services::registry::Reply;
use crate::grpc::services::runtime_overrides::writer;
use crate::overrides::Write;
use crate::proto::runtime as pb;
use crate::runtime::{self, DataType, DatumValue, TableEntry, check_table_data};
use crate::stick_table::{Cleared, Listing, Query, Scope};

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
    fn answer(
        &self,
        entries: Vec<pb::StickTableEntry>,
        fields: Vec<pb::StickTableField>,
        total: usize,
    ) -> Result<pb::ListStickTableEntriesResponse> {
        if self.offset > total {
            let message = format!("offset {} is larger than the number of entries, {total}", self.offset);
            return Err(Error::new(Reason::IndexOutOfRange, message).with("length", total));
        }
        let paged = self.page.size.is_some_and(|size| self.count == 0 || size < self.count);
        let more = paged && self.query.start + entries.len() < total;
        let next_page_token = if more { self.page.next(0) } else { String::new() };
        Ok(pb::ListStickTableEntriesResponse { entries, next_page_token, fields })
    }
}

pub(in super::super) async fn entries(
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
        let fields = fields(entries.first().map(|entry| &*entry.data));
        return asked.answer(entries.into_iter().map(mirrored).collect(), fields, total).map(Reply::One);
    }
    let mut listing = context.runtime.table_entries(&asked.table, &asked.query.scope.filters).await?;
    if let Some(kind) = &asked.query.order_by {
        return ordered(&asked, kind, listing).await.map(Reply::One);
    }
    if rest && asked.query.start == 0 && asked.query.limit == usize::MAX {
        let chunks = listing.into_stream().map(move |chunk| {
            let entries = chunk?.into_iter().filter(|entry| asked.wants(entry)).map(message).collect();
            Ok(pb::ListStickTableEntriesResponse { entries, ..pb::ListStickTableEntriesResponse::default() })
        });
        return Ok(Reply::Many(Box::pin(chunks)));
    }
    let (mut seen, mut entries, mut held) = (0, Vec::new(), Vec::new());
    let end = asked.query.start.saturating_add(asked.query.limit);
    while seen <= end
        && let Some(items) = listing.next().await?
    {
        for entry in items.into_iter().filter(|entry| asked.wants(entry)) {
            if (asked.query.start..end).contains(&seen) {
                if entries.is_empty() {
                    held = fields(Some(&entry.data));
                }
                entries.push(message(entry));
            }
            seen += 1;
        }
    }
    asked.answer(entries, held, seen).map(Reply::One)
}

async fn entry_of_key(context: &Context, table: &str, key: &str) -> Result<pb::ListStickTableEntriesResponse> {
    let mut answer = pb::ListStickTableEntriesResponse::default();
    if let Some(entry) = context.runtime.table_entry(table, key).await? {
        answer.fields = fields(Some(&entry.data));
        answer.entries.push(message(entry));
    }
    Ok(answer)
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
    let held = fields(first.get(start).map(|(_, entry)| &*entry.data));
    let entries = first.into_iter().skip(start).take(limit).map(|(_, entry)| message(entry)).collect();
    asked.answer(entries, held, total)
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

pub(in super::super) async fn set_entry(
    context: Context,
    request: pb::SetStickTableEntryRequest,
) -> Result<pb::SetStickTableEntryResponse> {
    require_process(&context, request.process)?;
    let table = &request.stick_table;
    let data = settable(&Stored::of(&context, table), "data_type", request.data_type.as_ref())?;
    // Unlike other writes it is durable only when that is asked for: see the request.
    let persistence = match request.persistence() {
        pb::Persistence::Unspecified => pb::Persistence::Worker,
        asked => asked,
    };
    let write = Write::TableSet(table.clone(), request.key.clone(), check_table_data(&data)?);
    context.overrides.write(write, &writer(&context, persistence, false)).await?;
    context.hub.changed(table);
    Ok(pb::SetStickTableEntryResponse {})
}

pub(in super::super) async fn increment_entry(
    context: Context,
    request: pb::IncrementStickTableEntryRequest,
) -> Result<pb::IncrementStickTableEntryResponse> {
    let table = &request.stick_table;
    let amounts = data(request.amounts.as_ref());
    let stored = Stored::of(&context, table);
    stored.check("amounts", amounts.iter().map(|(kind, _)| kind))?;
    if let Some((kind, _)) = amounts.iter().find(|(kind, _)| !kind.is_counter()) {
        return Err(refused("amounts", kind, "is no counter"));
    }
    let entry = context.runtime.add_to_table_entry(table, &request.key, &amounts).await?;
    context.hub.changed(table);
    Ok(pb::IncrementStickTableEntryResponse { entry: Some(message(entry)) })
}

/// What an entry sets, if the table can take all of it.
pub(super) fn settable(
    stored: &Stored,
    field: &str,
    entry: Option<&pb::StickTableEntry>,
) -> Result<Vec<(DataType, DatumValue)>> {
    if entry.is_some_and(|entry| entry.server_key.is_some()) {
        return Err(refused(field, &DataType::ServerKey, "cannot be set"));
    }
    let data = data(entry);
    stored.check(field, data.iter().map(|(kind, _)| kind))?;
    let number = |(kind, number): (DataType, i64)| match u64::try_from(number) {
        Ok(number) => Ok((kind, DatumValue::Number(number))),
        Err(_) => Err(refused(field, &kind, "should be 0 or more")),
    };
    data.into_iter().map(number).collect()
}

/// What a table stores, as far as the configuration says.
pub(super) struct Stored {
    table: String,
    /// Each with the number of its elements, if it is an array.
    fields: Vec<(String, Option<i64>)>,
}

impl Stored {
    pub(super) fn of(context: &Context, table: &str) -> Stored {
        let name = |field: &pb::StickTableField| {
            let name = field.field().as_str_name();
            name.trim_start_matches("STICK_TABLE_DATA_TYPE_").to_ascii_lowercase()
        };
        let mut fields = stored_fields(context, table);
        // Where the configuration says what we cannot read, HAProxy alone knows.
        if fields.iter().any(|field| field.field() == pb::StickTableDataType::Unspecified) {
            fields.clear();
        }
        let fields = fields.iter().map(|field| (name(field), field.idx)).collect();
        Stored { table: table.to_owned(), fields }
    }

    /// Refuses what the table does not store, before HAProxy sets a part of it, and a request without data.
    pub(super) fn check<'a>(&self, field: &str, kinds: impl Iterator<Item = &'a DataType>) -> Result<()> {
        let mut any = false;
        for kind in kinds {
            any = true;
            if !self.fields.is_empty() && !self.fields.iter().any(|(name, count)| holds(name, *count, kind)) {
                let names: Vec<&str> = self.fields.iter().map(|(name, _)| &**name).collect();
                return Err(refused(field, kind, &format!("is not in table '{}': {}", self.table, names.join(", "))));
            }
        }
        if any { Ok(()) } else { Err(wrong(field, "should name at least one data type")) }
    }
}

/// Whether a table that stores `name`, perhaps with so many elements, stores this.
fn holds(name: &str, count: Option<i64>, kind: &DataType) -> bool {
    let (array, at) = match kind {
        DataType::Gpt(at) => ("gpt", *at),
        DataType::Gpc(at) => ("gpc", *at),
        DataType::GpcRate(at) => ("gpc_rate", *at),
        _ => return name == kind.to_string(),
    };
    name == kind.to_string() || name == array && count.is_none_or(|count| i64::from(at) < count)
}

fn refused(field: &str, kind: &DataType, message: &str) -> Error {
    let field = format!("{field}.{kind}");
    Error::invalid(vec![Violation { field, message: message.into(), code: 0, location: "body" }])
}

pub(in super::super) async fn clear(
    context: Context,
    request: pb::ClearStickTableRequest,
) -> Result<pb::ClearStickTableResponse> {
    let table = &request.stick_table;
    let filters = filters(&request.filter)?;
    match &request.key {
        Some(_) if !filters.is_empty() => return Err(wrong("filter", "should not be given with a key")),
        Some(key) => {
            context.overrides.clear_table_entry(table, key).await?;
            context.hub.cleared(table, Cleared::Key(key));
        }
        None => {
            context.overrides.clear_table(table, &filters).await?;
            let what = if filters.is_empty() { Cleared::All } else { Cleared::Where(&filters) };
            context.hub.cleared(table, what);
        }
    }
    Ok(pb::ClearStickTableResponse {})
}
