//! Map files on disk.

use bytes::{Bytes, BytesMut};

use super::Context;
use super::maps::{store, upload_limit};
use crate::configuration::ports::Reload as _;
use crate::error::{Error, Reason, Result};
use crate::proto::storage as pb;
use crate::storage::MapFile;

const DESCRIPTION: &str = "managed but not loaded map file (no runtime ID)";

fn message(file: MapFile, size: bool) -> pb::StorageMap {
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
    let mut contents = context.maps.read(&request.name).await?;
    let mut data = BytesMut::new();
    while let Some(bytes) = contents.next().await? {
        data.extend_from_slice(&bytes);
    }
    Ok(pb::GetStorageMapResponse { data: data.freeze() })
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
    let version = context.configuration.current().version;
    let reload_id = if request.force_reload {
        context.reloads.force(version).await?;
        String::new()
    } else if request.skip_reload {
        String::new()
    } else {
        context.reloads.request(version)
    };
    Ok(pb::ReplaceStorageMapResponse { reload_id })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteStorageMapRequest,
) -> Result<pb::DeleteStorageMapResponse> {
    let file = context.maps.get(&request.name).await?;
    let path = file.path.display().to_string();
    if let Some((number, line)) = reference_to(&context, &path) {
        let message =
            format!("rejecting attempt to delete file {path} referenced in haproxy conf at line {number}: {line}");
        return Err(Error::new(Reason::ObjectInUse, message).with("line", number));
    }
    context.maps.delete(&request.name).await?;
    Ok(pb::DeleteStorageMapResponse {})
}

/// The first line of the configuration that names a path, comments aside.
fn reference_to(context: &Context, path: &str) -> Option<(usize, String)> {
    let text = Bytes::from(context.configuration.current().document.to_bytes());
    let text = String::from_utf8_lossy(&text);
    text.lines().enumerate().find_map(|(at, line)| {
        let said = crate::schema::words::split(line);
        said.words.iter().any(|word| word.contains(path)).then(|| (at + 1, line.trim().to_owned()))
    })
}
