//! Whole tables: out as a stream, in by pieces.

use std::collections::BTreeSet;

use bytes::BytesMut;
use futures_util::stream;
use prost::Message as _;
use tokio_stream::StreamExt as _;

use super::entries::{Stored, settable};
use super::message::{message, mirrored};
use super::{filters, stored_fields};
use crate::error::{Error, Result};
use crate::grpc::services::Context;
use crate::grpc::services::registry::Items;
use crate::grpc::services::stored::Place;
use crate::proto::runtime as pb;
use crate::runtime::{DataType, Runtime, check_table_data, check_table_key};
use crate::stick_table::Scope;
use crate::storage::{Contents, Progress};

/// Entries that are on their way to HAProxy at the same time.
const AT_ONCE: usize = 32;

/// Workers that an import is begun with: reloads that come faster than a table is filled are somebody's fault.
const ATTEMPTS: u32 = 5;

/// What an entry sets.
type Data = Vec<(DataType, u64)>;

pub(in super::super) async fn export(
    context: Context,
    request: pb::ExportStickTableRequest,
) -> Result<Items<pb::ExportStickTableResponse>> {
    let table = &request.stick_table;
    let scope = Scope { filters: filters(&request.filter)?, key_prefix: request.key_prefix };
    let fields = stored_fields(&context, table);
    let head = |source: pb::WatchSource| pb::ExportStickTableResponse {
        entries: Vec::new(),
        source: source.into(),
        fields: fields.clone(),
    };
    let piece = |entries| pb::ExportStickTableResponse { entries, ..pb::ExportStickTableResponse::default() };
    if let Some(export) = context.hub.export(table, &scope)? {
        let first = stream::iter([Ok(head(pb::WatchSource::Push))]);
        let rest = stream::try_unfold(export, move |mut export| async move {
            let Some(entries) = export.piece()? else { return Ok(None) };
            Ok(Some((piece(entries.into_iter().map(mirrored).collect()), export)))
        });
        return Ok(Box::pin(first.chain(rest)));
    }
    let mut listing = context.runtime.table_entries(table, &scope.filters).await?;
    // What HAProxy refuses is told at once, and not on the stream.
    let begun = listing.next().await?;
    let first = stream::iter([Ok(head(pb::WatchSource::Poll))]);
    let pieces = stream::iter(begun.map(Ok)).chain(listing.into_stream()).map(move |entries| {
        let wanted = entries?.into_iter().filter(|entry| entry.key.starts_with(&scope.key_prefix));
        Ok(piece(wanted.map(message).collect()))
    });
    Ok(Box::pin(first.chain(pieces)))
}

pub(in super::super) async fn import(
    context: Context,
    request: pb::ImportStickTableRequest,
) -> Result<pb::ImportStickTableResponse> {
    let table = &request.stick_table;
    let kind = context.runtime.table(table).await?.kind;
    let stored = Stored::of(&context, table);
    let mut bytes = Vec::new();
    for (at, entry) in request.entries.iter().enumerate() {
        let field = format!("entries[{at}]");
        check_table_key(kind, entry.key()).and_then(|()| checked(&stored, &field, entry).map(drop)).map_err(
            |error| {
                let message = format!("key '{}': {}", entry.key(), error.message());
                error.message_replaced(message).with("key", entry.key())
            },
        )?;
        entry.encode_length_delimited(&mut bytes).map_err(Error::internal)?;
    }
    let target = format!("stick table {table}");
    let place = Place { upload_id: &request.upload_id, offset: request.offset, last: request.last };
    let piece = place.piece(&target, request.entries.len())?;
    match context.uploads.put(piece, &bytes).await? {
        Progress::Open { upload, offset } => Ok(pb::ImportStickTableResponse {
            upload_id: upload,
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            ..pb::ImportStickTableResponse::default()
        }),
        Progress::Whole { offset, contents } => {
            let (runtime, table) = (context.runtime.clone(), table.clone());
            // It goes on without its caller: a table must not be left half filled.
            let filled = tokio::spawn(async move { fill_whole(&runtime, &table, &stored, contents).await });
            let ignored = filled.await.map_err(Error::internal)?;
            context.hub.changed(&request.stick_table);
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            Ok(pb::ImportStickTableResponse { upload_id: String::new(), offset, ignored: ignored? })
        }
    }
}

/// What of an entry is set, and the names of what cannot be.
fn checked(stored: &Stored, field: &str, entry: &pb::StickTableEntry) -> Result<(Data, Vec<&'static str>)> {
    let given = [
        ("id", entry.id.is_some()),
        ("use", entry.r#use.is_some()),
        ("exp", entry.exp.is_some()),
        ("conn_cur", entry.conn_cur.is_some()),
        ("server_key", entry.server_key.is_some()),
    ];
    // Connections that are open now are none of those that were open elsewhere: their number would never go down.
    let rest = pb::StickTableEntry { conn_cur: None, server_key: None, ..entry.clone() };
    let data = check_table_data(&settable(stored, field, Some(&rest))?)?;
    Ok((data, given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()))
}

/// Sets all entries in one worker. What a worker was given goes with it: the next one is given all of it again, which
/// comes to the same, since values are set and not added.
async fn fill_whole(runtime: &Runtime, table: &str, stored: &Stored, mut contents: Contents) -> Result<Vec<String>> {
    let mut begun = 0;
    loop {
        begun += 1;
        let worker = runtime.look().await?;
        match fill(&runtime.one(worker), table, stored, &mut contents).await {
            Err(error) if begun < ATTEMPTS && runtime.worker() != Some(worker) => {
                tracing::info!(%error, table, "an import begins again with the next worker of haproxy");
                contents.rewind().await?;
            }
            result => return result,
        }
    }
}

/// Sets all entries. Returns the names of what was given and cannot be set.
async fn fill(runtime: &Runtime, table: &str, stored: &Stored, contents: &mut Contents) -> Result<Vec<String>> {
    let (mut buffer, mut ignored, mut set) = (BytesMut::new(), BTreeSet::new(), 0_u64);
    let mut more = true;
    while more {
        match contents.next().await? {
            Some(piece) => buffer.extend_from_slice(&piece),
            None => more = false,
        }
        let mut batch = Vec::new();
        while let Some(entry) = cut(&mut buffer)? {
            let (data, left) = checked(stored, "entries", &entry)?;
            ignored.extend(left);
            batch.push((entry.key.unwrap_or_default(), data));
        }
        let calls: Vec<_> = batch.into_iter().map(|(key, data)| set_entry(runtime, table, key, data)).collect();
        let mut results = futures_util::StreamExt::buffered(stream::iter(calls), AT_ONCE);
        while let Some(result) = results.next().await {
            let (key, error) = match result {
                Ok(()) => {
                    set += 1;
                    continue;
                }
                Err(refused) => refused,
            };
            let message = format!("key '{key}': {}; {set} entries before it were set", error.message());
            return Err(error.message_replaced(message).with("key", key).with("set", set));
        }
    }
    if !buffer.is_empty() {
        return Err(Error::internal("an uploaded entry is cut off"));
    }
    Ok(ignored.into_iter().map(str::to_owned).collect())
}

/// The error comes with its key.
async fn set_entry(
    runtime: &Runtime,
    table: &str,
    key: String,
    data: Data,
) -> std::result::Result<(), (String, Error)> {
    runtime.set_table_entry_checked(table, &key, &data).await.map_err(|error| (key, error))
}

/// Takes a whole entry off the front, if there is one.
fn cut(buffer: &mut BytesMut) -> Result<Option<pb::StickTableEntry>> {
    let mut rest = &buffer[..];
    let Ok(length) = prost::decode_length_delimiter(&mut rest) else { return Ok(None) };
    if rest.len() < length {
        return Ok(None);
    }
    let head = buffer.len() - rest.len();
    let entry = buffer.split_to(head + length).split_off(head);
    pb::StickTableEntry::decode(entry).map(Some).map_err(Error::internal)
}
