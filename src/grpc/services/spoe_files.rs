//! SPOE files as a whole, and their versions.

use super::Context;
use crate::error::Result;
use crate::proto::spoe as pb;

pub(super) async fn list(context: Context, _: pb::ListSpoeFilesRequest) -> Result<pb::ListSpoeFilesResponse> {
    Ok(pb::ListSpoeFilesResponse { files: context.spoe.list().await? })
}

pub(super) async fn get(context: Context, request: pb::GetSpoeFileRequest) -> Result<pb::GetSpoeFileResponse> {
    let bytes = context.spoe.read(&request.name).await?;
    Ok(pb::GetSpoeFileResponse { data: String::from_utf8_lossy(&bytes).into_owned() })
}

pub(super) async fn create(context: Context, request: pb::CreateSpoeFileRequest) -> Result<pb::CreateSpoeFileResponse> {
    Ok(pb::CreateSpoeFileResponse { file: context.spoe.create(&request.name, &request.data).await? })
}

pub(super) async fn delete(context: Context, request: pb::DeleteSpoeFileRequest) -> Result<pb::DeleteSpoeFileResponse> {
    context.spoe.delete(&request.name).await?;
    Ok(pb::DeleteSpoeFileResponse {})
}

pub(super) async fn version(
    context: Context,
    request: pb::GetSpoeVersionRequest,
) -> Result<pb::GetSpoeVersionResponse> {
    let id = Some(request.transaction_id.as_str()).filter(|id| !id.is_empty());
    Ok(pb::GetSpoeVersionResponse { version: context.spoe.view(&request.spoe, id).await?.version() })
}
