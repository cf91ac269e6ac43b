//! Map files on disk.

use super::Context;
use super::maps::{store, upload_limit};
use super::stored::{read, refuse_in_use, reload};
use crate::error::Result;
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

pub(super) async fn get(context: Context, request: pb::GetStorageMapRequest) -> Result<pb::GetStorageMapResponse> {
    Ok(pb::GetStorageMapResponse { data: read(&context.maps, &request.name).await? })
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateStorageMapRequest,
) -> Result<pb::CreateStorageMapResponse> {
    let file = store(&context, &request.name, &request.data).await?;
    Ok(pb::CreateStorageMapResponse { map: Some(message(file, true)) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceStorageMapRequest,
) -> Result<pb::ReplaceStorageMapResponse> {
    let file = context.maps.get(&request.name).await?;
    let mut writer = context.maps.replace(&request.name, upload_limit()).await?;
    writer.push(&request.data).await?;
    // Until HAProxy has loaded the new file, its old entries must not be written over it.
    context.map_sync.hold(&file.path.display().to_string());
    writer.commit().await?;
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
