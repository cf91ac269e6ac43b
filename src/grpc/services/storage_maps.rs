//! Map files on disk.

use super::Context;
use super::maps::store;
use super::registry::Reply;
use super::stored::{UNLIMITED, download, fill, refuse_in_use, reload};
use crate::error::Result;
use crate::grpc::call::Chunks;
use crate::proto::storage as pb;
use crate::storage::StoredFile;

const DESCRIPTION: &str = "managed but not loaded map file (no runtime ID)";

fn message(file: StoredFile, size: bool) -> pb::StorageMap {
    pb::StorageMap {
        description: Some(DESCRIPTION.into()),
        file: file.path.display().to_string(),
        size: if size { i64::try_from(file.size).ok() } else { None },
        storage_name: file.name,
    }
}

pub(super) async fn list(context: Context, _: pb::ListStorageMapsRequest) -> Result<pb::ListStorageMapsResponse> {
    let maps = context.maps.list().await?.into_iter().map(|file| message(file, false)).collect();
    Ok(pb::ListStorageMapsResponse { maps })
}

pub(super) async fn get(
    context: Context,
    request: pb::GetStorageMapRequest,
) -> Result<Reply<pb::GetStorageMapResponse>> {
    download(&context, &context.maps, &request.name, |data| pb::GetStorageMapResponse { data }).await
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateStorageMapRequest,
    data: Chunks,
) -> Result<pb::CreateStorageMapResponse> {
    let file = store(&context, &request.name, data).await?;
    Ok(pb::CreateStorageMapResponse { map: Some(message(file, true)) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceStorageMapRequest,
    data: Chunks,
) -> Result<pb::ReplaceStorageMapResponse> {
    let file = context.maps.get(&request.name).await?;
    let writer = context.maps.replace(&request.name, UNLIMITED).await?;
    // Until HAProxy has loaded the new file, its old entries must not be written over it.
    context.map_sync.hold(&file.path.display().to_string());
    fill(&context, writer, data).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::ReplaceStorageMapResponse { reload_id })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteStorageMapRequest,
) -> Result<pb::DeleteStorageMapResponse> {
    let file = context.maps.get(&request.name).await?;
    refuse_in_use(&context, &file)?;
    context.maps.delete(&request.name).await?;
    Ok(pb::DeleteStorageMapResponse {})
}
