//! What services of stored files have in common.

use bytes::{Bytes, BytesMut};

use super::Context;
use crate::configuration::ports::Reload as _;
use crate::error::{Error, Reason, Result};
use crate::storage::{FileStore, StoredFile};

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
