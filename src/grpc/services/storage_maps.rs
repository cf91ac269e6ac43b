//! Map files on disk.

use super::Context;
use super::maps::store;
use super::registry::{Items, Reply};
use super::stored::{Place, UNLIMITED, download, existing, export, fill, import, refuse_in_use, reload};
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
    refill(&context, &request.name, data).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::ReplaceStorageMapResponse { reload_id })
}

/// Fills a file anew.
async fn refill(context: &Context, name: &str, data: Chunks) -> Result<u64> {
    let file = context.maps.get(name).await?;
    let writer = context.maps.replace(name, UNLIMITED).await?;
    let size = fill(context, writer, data).await?;
    // Until HAProxy has loaded the new file, its old entries are not written over it.
    context.map_sync.replaced(&file.path.display().to_string());
    Ok(size)
}

pub(super) async fn export_file(
    context: Context,
    request: pb::ExportStorageMapRequest,
) -> Result<Items<pb::ExportStorageMapResponse>> {
    export(&context.maps, &request.name, |data| pb::ExportStorageMapResponse { data }).await
}

pub(super) async fn import_file(
    context: Context,
    request: pb::ImportStorageMapRequest,
) -> Result<pb::ImportStorageMapResponse> {
    let name = &request.name;
    let place = Place { upload_id: &request.upload_id, offset: request.offset, last: request.last };
    let data = match import(&context, &context.maps, name, place, &request.data).await? {
        Ok(data) => data,
        Err((upload_id, offset)) => {
            return Ok(pb::ImportStorageMapResponse { upload_id, offset, ..pb::ImportStorageMapResponse::default() });
        }
    };
    let (file, reload_id) = match existing(&context.maps, name).await? {
        Some(mut file) => {
            file.size = refill(&context, name, data).await?;
            (file, reload(&context, request.force_reload, request.skip_reload).await?)
        }
        None => (store(&context, name, data).await?, String::new()),
    };
    let offset = i64::try_from(file.size).unwrap_or(i64::MAX);
    let map = Some(message(file, true));
    Ok(pb::ImportStorageMapResponse { upload_id: String::new(), offset, reload_id, map })
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
