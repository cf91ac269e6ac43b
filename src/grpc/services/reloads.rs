//! Reloads.

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::BroadcastStream;

use super::Context;
use super::registry::Items;
use crate::error::Result;
use crate::process::timeline::{Record, Status};
use crate::proto::configuration as pb;

fn message(record: Record) -> pb::Reload {
    let status = match record.status {
        Status::InProgress => pb::ReloadStatus::InProgress,
        Status::Succeeded => pb::ReloadStatus::Succeeded,
        Status::Failed => pb::ReloadStatus::Failed,
    };
    pb::Reload { id: record.id, status: status.into(), reload_timestamp: record.timestamp, response: record.response }
}

pub(super) async fn list(context: Context, _: pb::ListReloadsRequest) -> Result<pb::ListReloadsResponse> {
    Ok(pb::ListReloadsResponse { reloads: context.reloads.list().into_iter().map(message).collect() })
}

pub(super) async fn get(context: Context, request: pb::GetReloadRequest) -> Result<pb::GetReloadResponse> {
    Ok(pb::GetReloadResponse { reload: Some(message(context.reloads.get(&request.id)?)) })
}

/// The reload as it is, and each change until it has ended.
pub(super) async fn watch(context: Context, request: pb::WatchReloadRequest) -> Result<Items<pb::WatchReloadResponse>> {
    // Subscribed first, so that no change falls between the two.
    let changes = BroadcastStream::new(context.reloads.subscribe());
    let first = context.reloads.get(&request.id)?;
    let id = request.id;
    let later = changes.filter_map(move |record| match record {
        Ok(record) => (record.id == id).then_some(record),
        // A slow reader has missed some: what counts is how it stands now.
        Err(_) => context.reloads.get(&id).ok(),
    });
    let all = Box::pin(tokio_stream::once(first).chain(later));
    let all = futures_util::stream::unfold((all, false), |(mut all, ended)| async move {
        if ended {
            return None;
        }
        let record = all.next().await?;
        let ended = record.status != Status::InProgress;
        Some((record, (all, ended)))
    });
    Ok(Box::pin(all.map(|record| Ok(pb::WatchReloadResponse { reload: Some(message(record)) }))))
}
