//! What services of stored files have in common.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio_stream::StreamExt as _;

use super::Context;
use super::registry::Reply;
use crate::configuration::ports::{CheckFile as _, Reload as _};
use crate::error::{Error, Reason, Result};
use crate::grpc::call::{Chunks, Transport};
use crate::storage::{FileStore, StoredFile, Writer};

/// Uploads are limited where they arrive.
pub(super) const UNLIMITED: u64 = u64::MAX;
/// Largest file that one message over gRPC can hold, in bytes.
const MESSAGE: u64 = (16 << 20) - 1024;

/// Fills a file and puts it in its place, unless the configuration names it and HAProxy refuses it. Returns its size.
pub(super) async fn fill(context: &Context, mut writer: Writer, mut data: Chunks) -> Result<u64> {
    while let Some(chunk) = data.next().await.transpose()? {
        writer.push(&chunk).await?;
    }
    writer.settle().await?;
    context.configuration.check_file(writer.target(), writer.candidate()).await?;
    writer.commit().await
}

/// Bytes that are all there.
pub(super) fn once(data: Bytes) -> Chunks {
    Box::pin(tokio_stream::once(Ok(data)))
}

/// A file, byte for byte: in pieces over REST, in one message over gRPC.
pub(super) async fn download<A: 'static>(
    context: &Context,
    store: &FileStore,
    name: &str,
    message: fn(Bytes) -> A,
) -> Result<Reply<A>> {
    if context.transport == Transport::Rest {
        let contents = store.read(name).await?;
        return Ok(Reply::Many(Box::pin(stream::try_unfold(contents, move |mut contents| async move {
            Ok(contents.next().await?.map(|data| (message(data), contents)))
        }))));
    }
    let size = store.get(name).await?.size;
    if size > MESSAGE {
        let text = format!("file '{name}' has {size} bytes, and a message holds {MESSAGE}; read it over REST");
        return Err(Error::new(Reason::TooLarge, text).with("limit", MESSAGE));
    }
    read(store, name).await.map(|data| Reply::One(message(data)))
}

/// A file, byte for byte.
pub(super) async fn read(store: &FileStore, name: &str) -> Result<Bytes> {
    let mut contents = store.read(name).await?;
    let mut data = BytesMut::new();
    while let Some(bytes) = contents.next().await? {
        data.extend_from_slice(&bytes);
    }
    Ok(data.freeze())
}

/// Reloads HAProxy, or asks for it and returns the id, or leaves it.
pub(super) async fn reload(context: &Context, force: bool, skip: bool) -> Result<String> {
    let version = context.configuration.current().version;
    if force {
        context.reloads.force(version).await?;
        Ok(String::new())
    } else if skip {
        Ok(String::new())
    } else {
        Ok(context.reloads.request(version))
    }
}

/// `OBJECT_IN_USE` with the first line of the configuration that names the file, comments aside.
pub(super) fn refuse_in_use(context: &Context, file: &StoredFile) -> Result<()> {
    let path = file.path.display().to_string();
    let text = context.configuration.current().document.to_bytes();
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().enumerate().find(|(_, line)| {
        line.contains(&path) && crate::schema::words::split(line).words.iter().any(|word| word.contains(&path))
    });
    let Some((at, line)) = found else { return Ok(()) };
    let (number, line) = (at + 1, line.trim());
    let message =
        format!("rejecting attempt to delete file {path} referenced in haproxy conf at line {number}: {line}");
    Err(Error::new(Reason::ObjectInUse, message).with("line", number))
}
