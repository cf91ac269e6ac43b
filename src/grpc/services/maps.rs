//! Maps: the files, and what HAProxy holds of them.

use std::path::Path;

use prost::Message as _;
use tokio_stream::StreamExt as _;

use super::runtime_overrides::writer;
use super::stored::{UNLIMITED, fill, once};
use super::{Context, Rooms};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Chunks, PIECE};
use crate::overrides::Write;
use crate::proto::runtime as pb;
use crate::runtime::{MapRef, PatternInfo, Runtime};
use crate::storage::{MapBatch, StoredFile, print_line};

/// What is said of a file that HAProxy has not loaded.
const NOT_LOADED: &str = "managed but not loaded map file (no runtime ID)";

pub(super) async fn list(context: Context, request: pb::ListMapsRequest) -> Result<pb::ListMapsResponse> {
    let loaded = context.runtime.maps().await?;
    let maps = loaded
        .into_iter()
        .filter(|map| map.file.is_some())
        .map(|map| message(&context, map))
        .filter(|map| request.include_unmanaged || map.storage_name.is_some())
        .collect();
    Ok(pb::ListMapsResponse { maps })
}

pub(super) async fn get(context: Context, request: pb::GetMapRequest) -> Result<pb::GetMapResponse> {
    let found = loaded(&context, &context.runtime, &request.name).await?;
    Ok(pb::GetMapResponse { map: Some(message(&context, found)) })
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateMapRequest,
    mut data: Chunks,
) -> Result<pb::CreateMapResponse> {
    if !request.entries.is_empty() {
        if data.next().await.transpose()?.is_some_and(|data| !data.is_empty()) {
            return Err(wrong("entries", "either data or entries, not both"));
        }
        let mut text = Vec::new();
        for entry in &request.entries {
            let (key, value) = (entry.key(), entry.value());
            if !print_line(&mut text, key.as_bytes(), value.as_bytes()) {
                return Err(unwritable(key));
            }
        }
        data = once(text.into());
    }
    let file = store(&context, &request.name, data).await?;
    Ok(pb::CreateMapResponse { map: Some(stored(file)) })
}

/// Stores a new map file.
pub(super) async fn store(context: &Context, name: &str, data: Chunks) -> Result<StoredFile> {
    if name.is_empty() {
        return Err(wrong("name", "is required"));
    }
    let (mut file, writer) = context.maps.create(name, UNLIMITED).await?;
    file.size = fill(context, writer, data).await?;
    Ok(file)
}

pub(super) async fn add_entries(
    context: Context,
    request: pb::AddMapEntriesRequest,
) -> Result<pb::AddMapEntriesResponse> {
    let map = looked_up(&context, &request.name).await?;
    if request.force_sync {
        context.map_sync.check(&map.to_string())?;
    }
    // All are checked before the first one is sent.
    for entry in &request.entries {
        crate::runtime::check_key(entry.key())?;
        crate::runtime::check_value(entry.value())?;
    }
    let writer = writer(&context, request.persistence(), request.force_sync);
    let entries = request.entries.iter().map(|entry| (entry.key().to_owned(), entry.value().to_owned())).collect();
    context.overrides.write(Write::MapAppend(map, entries), &writer).await?;
    Ok(pb::AddMapEntriesResponse { entries: request.entries })
}

/// The same for so many entries that they come in pieces, and are answered so.
pub(super) async fn add_many(
    context: Context,
    request: pb::AddMapEntriesRequest,
    mut pieces: Chunks,
) -> Result<Chunks> {
    let map = looked_up(&context, &request.name).await?;
    if request.force_sync {
        context.map_sync.check(&map.to_string())?;
    }
    let mut batch = context.overrides.batch().await?;
    while let Some(piece) = pieces.next().await.transpose()? {
        for entry in pb::AddMapEntriesRequest::decode(piece).map_err(Error::internal)?.entries {
            batch.push(entry.key(), entry.value()).await?;
        }
    }
    drop(pieces);
    let (batch, writer) = (batch.finish().await?, writer(&context, request.persistence(), request.force_sync));
    added(context.overrides.append_batch(&map, batch, &writer).await?).await
}

/// The answer for entries that were added, in pieces.
async fn added(batch: MapBatch) -> Result<Chunks> {
    let entries = batch.read().await?;
    Ok(Box::pin(futures_util::stream::try_unfold((batch, entries), |(batch, mut entries)| async move {
        let (mut answer, mut length) = (pb::AddMapEntriesResponse::default(), 0);
        while length < PIECE
            && let Some((key, value)) = entries.next().await?
        {
            length += key.len() + value.len();
            answer.entries.push(pb::MapEntry { id: None, key: Some(key.into()), value: Some(value.into()) });
        }
        Ok((!answer.entries.is_empty()).then(|| (answer.encode_to_vec().into(), (batch, entries))))
    })))
}

pub(super) async fn clear(context: Context, request: pb::ClearMapRequest) -> Result<pb::ClearMapResponse> {
    let map = to_change(&context, &request.name, request.force_sync || request.force_delete).await?;
    // The file that is deleted need not be written first.
    let writer = writer(&context, request.persistence(), request.force_sync && !request.force_delete);
    context.overrides.write(Write::MapClear(map), &writer).await?;
    if request.force_delete {
        context.maps.delete(&request.name).await?;
    }
    Ok(pb::ClearMapResponse {})
}

/// The map of a name among those that HAProxy has loaded.
async fn loaded(context: &Context, runtime: &Runtime, name: &str) -> Result<PatternInfo> {
    let stored = match context.maps.get(name).await {
        Ok(file) => file.name,
        // The file may be gone while HAProxy still has the map.
        Err(_) => name.to_owned(),
    };
    let maps = runtime.maps().await?;
    let wanted = |map: &PatternInfo| map.file.as_deref().is_some_and(|file| is_named(context, file, name, &stored));
    maps.into_iter().find(wanted).ok_or_else(|| {
        Error::new(Reason::ObjectNotFound, format!("map {name} is not loaded by haproxy")).with("name", name)
    })
}

/// True when a file that HAProxy reports goes by `name`, or lies in the maps folder as `stored`.
fn is_named(rooms: &Rooms, file: &str, name: &str, stored: &str) -> bool {
    if file == name {
        return true;
    }
    match rooms.maps.name_of(file) {
        Some(last) => last == stored || last.strip_suffix(".map") == Some(name),
        // HAProxy resolves relative paths against its own folder, and shows them as they are written.
        None => !file.starts_with('/') && Path::new(file).file_name().is_some_and(|last| last == name),
    }
}

/// How HAProxy calls the map of a name. Looked up once for each worker: methods that use this are registered so that they
/// begin again when the worker turns out to be another one.
pub(super) async fn reference(context: &Context, name: &str) -> Result<MapRef> {
    match context.map_names.get(context.runtime.worker(), name) {
        Some(map) => Ok(map),
        None => looked_up(context, name).await,
    }
}

/// The same without what is remembered.
pub(super) async fn looked_up(context: &Context, name: &str) -> Result<MapRef> {
    if name.is_empty() {
        return Err(wrong("map", "is required"));
    }
    let found = context.runtime.on_one(|one, _| async move { Ok((one.worker(), loaded(context, &one, name).await?)) });
    let (worker, found) = found.await?;
    let map = MapRef::new(found.file.unwrap_or_else(|| format!("#{}", found.id)))?;
    context.map_names.put(worker, name, &map);
    Ok(map)
}

/// The same for a change. One that is to reach the file as well is refused at once where the file cannot be changed.
pub(super) async fn to_change(context: &Context, name: &str, and_file: bool) -> Result<MapRef> {
    let map = reference(context, name).await?;
    if and_file {
        context.map_sync.check(&map.to_string())?;
    }
    Ok(map)
}

fn message(rooms: &Rooms, map: PatternInfo) -> pb::Map {
    let file = map.file.unwrap_or_default();
    pb::Map {
        description: Some(map.description),
        storage_name: rooms.maps.name_of(&file).map(str::to_owned),
        file,
        id: Some(map.id),
        size: None,
    }
}

fn stored(file: StoredFile) -> pb::Map {
    pb::Map {
        description: Some(NOT_LOADED.into()),
        file: file.path.display().to_string(),
        id: None,
        size: i64::try_from(file.size).ok(),
        storage_name: Some(file.name),
    }
}

pub(super) fn unwritable(key: &str) -> Error {
    let message =
        format!("key {key:?} or its value cannot stand in a map file: no blanks in keys, no line feed, no `#` first");
    Error::new(Reason::InvalidValue, message).with("key", key)
}

fn wrong(field: &str, message: &str) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message: message.into(), code: 602, location: "body" }])
}
