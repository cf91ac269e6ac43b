//! Files for any use on disk.

use super::Context;
use super::registry::Reply;
use super::stored::{UNLIMITED, download, fill, refuse_in_use, reload};
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
    let (mut file, writer) = context.general.create(&request.name, UNLIMITED).await?;
    file.size = fill(&context, writer, data).await?;
    Ok(pb::CreateStorageGeneralFileResponse { file: Some(message(file, true)) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceStorageGeneralFileRequest,
    data: Chunks,
) -> Result<pb::ReplaceStorageGeneralFileResponse> {
    let writer = context.general.replace(&request.name, UNLIMITED).await?;
    fill(&context, writer, data).await?;
    let reload_id = reload(&context, request.force_reload, request.skip_reload).await?;
    Ok(pb::ReplaceStorageGeneralFileResponse { reload_id })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteStorageGeneralFileRequest,
) -> Result<pb::DeleteStorageGeneralFileResponse> {
    refuse_in_use(&context, &context.general.get(&request.name).await?)?;
    context.general.delete(&request.name).await?;
    Ok(pb::DeleteStorageGeneralFileResponse {})
}
