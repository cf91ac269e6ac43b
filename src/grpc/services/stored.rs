//! What services of stored files have in common.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio_stream::StreamExt as _;

use super::Context;
use super::registry::{Items, Reply};
use crate::configuration::ports::{CheckFile as _, Reload as _};
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::{Chunks, Transport};
use crate::storage::{Contents, FileStore, Piece, Progress, StoredFile, Writer};

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
        return export(store, name, message).await.map(Reply::Many);
    }
    let size = store.get(name).await?.size;
    if size > MESSAGE {
        let text = format!("file '{name}' has {size} bytes, and a message holds {MESSAGE}; export it");
        return Err(Error::new(Reason::TooLarge, text).with("limit", MESSAGE));
    }
    read(store, name).await.map(|data| Reply::One(message(data)))
}

/// A file, byte for byte, in pieces.
pub(super) async fn export<A: 'static>(store: &FileStore, name: &str, message: fn(Bytes) -> A) -> Result<Items<A>> {
    Ok(Box::pin(chunks(store.read(name).await?).map(move |data| data.map(message))))
}

/// What is read, in pieces.
pub(super) fn chunks(contents: Contents) -> Chunks {
    Box::pin(stream::try_unfold(contents, |mut contents| async move {
        Ok(contents.next().await?.map(|data| (data, contents)))
    }))
}

/// Where a piece belongs, as requests say.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) upload_id: &'a str,
    pub(super) offset: i64,
    pub(super) last: bool,
}

impl<'a> Place<'a> {
    /// A piece of so much.
    pub(super) fn piece(self, target: &'a str, count: usize) -> Result<Piece<'a>> {
        let offset = u64::try_from(self.offset).map_err(|_| {
            let message = "should be 0 or more".into();
            Error::invalid(vec![Violation { field: "offset".into(), message, code: 0, location: "body" }])
        })?;
        Ok(Piece { target, upload: self.upload_id, offset, count: count as u64, last: self.last })
    }
}

/// Adds a piece to the upload of a file. After the last one all of it; before, the upload and where the next begins.
pub(super) async fn import(
    context: &Context,
    store: &FileStore,
    name: &str,
    place: Place<'_>,
    data: &[u8],
) -> Result<std::result::Result<Chunks, (String, i64)>> {
    if place.upload_id.is_empty() {
        store.folder().writable()?;
        existing(store, name).await?;
    }
    let target = store.folder().path().join(name).display().to_string();
    Ok(match context.uploads.put(place.piece(&target, data.len())?, data).await? {
        Progress::Open { upload, offset } => Err((upload, i64::try_from(offset).unwrap_or(i64::MAX))),
        Progress::Whole { contents, .. } => Ok(chunks(contents)),
    })
}

/// The file of a name, if there is one. `INVALID_VALUE` for a name that none can have.
pub(super) async fn existing(store: &FileStore, name: &str) -> Result<Option<StoredFile>> {
    match store.get(name).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.reason() == Reason::ObjectNotFound => Ok(None),
        Err(error) => Err(error),
    }
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
