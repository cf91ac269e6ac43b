//! Backends as they run.

use super::Context;
use crate::error::Result;
use crate::proto::runtime as pb;
use crate::runtime::BackendState;

fn message(state: BackendState) -> pb::RuntimeBackend {
    let mode = match &*state.mode {
        "http" => pb::RuntimeBackendMode::Http,
        "tcp" => pb::RuntimeBackendMode::Tcp,
        _ => pb::RuntimeBackendMode::Unspecified,
    };
    pb::RuntimeBackend { name: state.name, mode: mode.into(), published: state.published, status: state.status }
}

pub(super) async fn list(
    context: Context,
    _: pb::ListRuntimeBackendsRequest,
) -> Result<pb::ListRuntimeBackendsResponse> {
    let backends = context.runtime.backends().await?;
    Ok(pb::ListRuntimeBackendsResponse { backends: backends.into_iter().map(message).collect() })
}

pub(super) async fn add(
    context: Context,
    request: pb::AddRuntimeBackendRequest,
) -> Result<pb::AddRuntimeBackendResponse> {
    let backend = request.backend.unwrap_or_default();
    let mode = match backend.mode() {
        pb::RuntimeBackendMode::Unspecified => None,
        pb::RuntimeBackendMode::Http => Some("http"),
        pb::RuntimeBackendMode::Tcp => Some("tcp"),
    };
    let guid = Some(request.guid.as_str()).filter(|guid| !guid.is_empty());
    context.runtime.add_backend(&backend.name, &request.from, mode, guid).await?;
    let state = context.runtime.backend(&backend.name).await?;
    Ok(pb::AddRuntimeBackendResponse { backend: Some(message(state)) })
}

pub(super) async fn publish(
    context: Context,
    request: pb::PublishRuntimeBackendRequest,
) -> Result<pb::PublishRuntimeBackendResponse> {
    context.runtime.publish_backend(&request.name, true).await?;
    let state = context.runtime.backend(&request.name).await?;
    Ok(pb::PublishRuntimeBackendResponse { backend: Some(message(state)) })
}

pub(super) async fn unpublish(
    context: Context,
    request: pb::UnpublishRuntimeBackendRequest,
) -> Result<pb::UnpublishRuntimeBackendResponse> {
    context.runtime.publish_backend(&request.name, false).await?;
    let state = context.runtime.backend(&request.name).await?;
    Ok(pb::UnpublishRuntimeBackendResponse { backend: Some(message(state)) })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteRuntimeBackendRequest,
) -> Result<pb::DeleteRuntimeBackendResponse> {
    context.runtime.delete_backend(&request.name).await?;
    Ok(pb::DeleteRuntimeBackendResponse {})
}
