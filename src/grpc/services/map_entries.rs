//! Entries of maps at run time.

use tokio_stream::StreamExt as _;

use super::Context;
use super::maps::{looked_up, reference, to_change};
use super::paging::Page;
use super::registry::{Items, Reply};
use super::runtime_overrides::writer;
use crate::error::{Error, Result, Violation};
use crate::grpc::call::Transport;
use crate::overrides::Write;
use crate::proto::runtime as pb;
use crate::runtime::MapEntry;

fn message(entry: MapEntry) -> pb::MapEntry {
    pb::MapEntry { id: entry.id, key: Some(entry.key), value: Some(entry.value) }
}

pub(super) async fn list(
    context: Context,
    request: pb::ListMapEntriesRequest,
) -> Result<Reply<pb::ListMapEntriesResponse>> {
    let map = looked_up(&context, &request.map).await?;
    let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
    let listing = context.runtime.map_entries(&map).await?;
    if context.transport == Transport::Rest && page.size.is_none() {
        let chunks = listing.into_stream().map(|chunk| {
            Ok(pb::ListMapEntriesResponse {
                entries: chunk?.into_iter().map(message).collect(),
                next_page_token: String::new(),
            })
        });
        return Ok(Reply::Many(Box::pin(chunks)));
    }
    let (found, next_page_token) = page.take(listing).await?;
    let entries = found.into_iter().map(message).collect();
    Ok(Reply::One(pb::ListMapEntriesResponse { entries, next_page_token }))
}

pub(super) async fn export(
    context: Context,
    request: pb::ExportMapEntriesRequest,
) -> Result<Items<pb::ExportMapEntriesResponse>> {
    let map = looked_up(&context, &request.map).await?;
    let listing = context.runtime.map_entries(&map).await?;
    Ok(Box::pin(
        listing
            .into_stream()
            .map(|chunk| Ok(pb::ExportMapEntriesResponse { entries: chunk?.into_iter().map(message).collect() })),
    ))
}

pub(super) async fn get(context: Context, request: pb::GetMapEntryRequest) -> Result<pb::GetMapEntryResponse> {
    let map = reference(&context, &request.map).await?;
    let entry = context.runtime.map_entry(&map, &request.id).await?;
    Ok(pb::GetMapEntryResponse { entry: Some(message(entry)) })
}

pub(super) async fn create(context: Context, request: pb::CreateMapEntryRequest) -> Result<pb::CreateMapEntryResponse> {
    let entry = request.entry.clone().unwrap_or_default();
    let (Some(key), Some(value)) = (&entry.key, &entry.value) else {
        return Err(missing(if entry.key.is_none() { "key" } else { "value" }));
    };
    let map = to_change(&context, &request.map, request.force_sync).await?;
    let writer = writer(&context, request.persistence(), request.force_sync);
    context.overrides.write(Write::MapAdd(map, key.clone(), value.clone()), &writer).await?;
    Ok(pb::CreateMapEntryResponse { entry: Some(entry) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceMapEntryRequest,
) -> Result<pb::ReplaceMapEntryResponse> {
    let Some(value) = request.entry.clone().and_then(|entry| entry.value) else { return Err(missing("value")) };
    let map = to_change(&context, &request.map, request.force_sync).await?;
    let writer = writer(&context, request.persistence(), request.force_sync);
    context.overrides.write(Write::MapSet(map, request.id.clone(), value.clone()), &writer).await?;
    let entry = pb::MapEntry { id: None, key: Some(request.id), value: Some(value) };
    Ok(pb::ReplaceMapEntryResponse { entry: Some(entry) })
}

pub(super) async fn delete(context: Context, request: pb::DeleteMapEntryRequest) -> Result<pb::DeleteMapEntryResponse> {
    let map = to_change(&context, &request.map, request.force_sync).await?;
    let writer = writer(&context, request.persistence(), request.force_sync);
    context.overrides.write(Write::MapDelete(map, request.id), &writer).await?;
    Ok(pb::DeleteMapEntryResponse {})
}

fn missing(field: &str) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message: "is required".into(), code: 602, location: "body" }])
}
