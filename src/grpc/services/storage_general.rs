//! Files for any use on disk.

use super::Context;
use super::registry::{Items, Reply};
use super::stored::{Place, UNLIMITED, download, existing, export, fill, import, refuse_in_use, reload};
use crate::error::Result;
use crate::grpc::call::Chunks;
use crate::proto::storage as pb;
use crate::storage::StoredFile;

const DESCRIPTION: &str = "managed general use file";

fn message(file: StoredFile, size: bool) -> pb::StorageGeneralFile {
    pb::StorageGeneralFile {
        description: Some(DESCRIPTION.into()),
        file: file.path.display().to_string(),
        size: if size { i64::try_from(file.size).ok() } else { None },
        storage_name: file.name,
    }
}

pub(super) async fn list(
    context: Context,
    _: pb::ListStorageGeneralFilesRequest,
) -> Result<pb::ListStorageGeneralFilesResponse> {
    let files = context.general.list().await?.into_iter().map(|file| message(file, false)).collect();
    Ok(pb::ListStorageGeneralFilesResponse { files })
}

pub(super) async fn get(
    context: Context,
    request: pb::GetStorageGeneralFileRequest,
) -> Result<Reply<pb::GetStorageGeneralFileResponse>> {
    download(&context, &context.general, &request.name, |data| pb::GetStorageGeneralFileResponse { data }).await
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateStorageGeneralFileRequest,
    data: Chunks,
) -> Result<pb::CreateStorageGeneralFileResponse> {
    let file = store(&context, &request.name, data).await?;
    Ok(pb::CreateStorageGeneralFileResponse { file: Some(message(file, true)) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceStorageGeneralFileRequest,
    data: Chunks,
) -> Result<pb::ReplaceStorageGeneralFileResponse> {
    refill(&context, &request.name, data).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::ReplaceStorageGeneralFileResponse { reload_id })
}

/// Stores a new file.
async fn store(context: &Context, name: &str, data: Chunks) -> Result<StoredFile> {
    let (mut file, writer) = context.general.create(name, UNLIMITED).await?;
    file.size = fill(context, writer, data).await?;
    Ok(file)
}

/// Fills a file anew.
async fn refill(context: &Context, name: &str, data: Chunks) -> Result<u64> {
    let writer = context.general.replace(name, UNLIMITED).await?;
    fill(context, writer, data).await
}

pub(super) async fn export_file(
    context: Context,
    request: pb::ExportStorageGeneralFileRequest,
) -> Result<Items<pb::ExportStorageGeneralFileResponse>> {
    export(&context.general, &request.name, |data| pb::ExportStorageGeneralFileResponse { data }).await
}

pub(super) async fn import_file(
    context: Context,
    request: pb::ImportStorageGeneralFileRequest,
) -> Result<pb::ImportStorageGeneralFileResponse> {
    let name = &request.name;
    let place = Place { upload_id: &request.upload_id, offset: request.offset, last: request.last };
    let data = match import(&context, &context.general, name, place, &request.data).await? {
        Ok(data) => data,
        Err((upload_id, offset)) => {
            return Ok(pb::ImportStorageGeneralFileResponse {
                upload_id,
                offset,
                ..pb::ImportStorageGeneralFileResponse::default()
            });
        }
    };
    let (file, reload_id) = match existing(&context.general, name).await? {
        Some(mut file) => {
            file.size = refill(&context, name, data).await?;
            (file, reload(&context, request.force_reload, request.skip_reload).await?)
        }
        None => (store(&context, name, data).await?, String::new()),
    };
    let offset = i64::try_from(file.size).unwrap_or(i64::MAX);
    let file = Some(message(file, true));
    Ok(pb::ImportStorageGeneralFileResponse { upload_id: String::new(), offset, reload_id, file })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteStorageGeneralFileRequest,
) -> Result<pb::DeleteStorageGeneralFileResponse> {
    refuse_in_use(&context, &context.general.get(&request.name).await?)?;
    context.general.delete(&request.name).await?;
    Ok(pb::DeleteStorageGeneralFileResponse {})
}
