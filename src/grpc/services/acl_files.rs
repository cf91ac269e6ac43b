//! ACLs and their patterns at run time.

use tokio_stream::StreamExt as _;

use super::Context;
use super::paging::Page;
use super::registry::Reply;
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::Transport;
use crate::proto::runtime as pb;
use crate::runtime::{PatternEntry, PatternInfo};

fn message(acl: PatternInfo) -> pb::AclFile {
    // HAProxy describes a pattern that has no file as: acl 'src' file '/etc/haproxy/haproxy.cfg' line 12
    let quoted = acl.description.split('\'').nth(1).map(str::to_owned);
    let storage_name = acl.file.or(quoted).unwrap_or_default();
    pb::AclFile { description: Some(acl.description), id: acl.id, storage_name }
}

fn entry(found: PatternEntry) -> pb::AclFileEntry {
    pb::AclFileEntry { id: Some(found.id), value: Some(found.value) }
}

pub(super) async fn list(context: Context, _: pb::ListAclFilesRequest) -> Result<pb::ListAclFilesResponse> {
    let acls = context.runtime.acls().await?.into_iter().map(message).collect();
    Ok(pb::ListAclFilesResponse { acls })
}

pub(super) async fn get(context: Context, request: pb::GetAclFileRequest) -> Result<pb::GetAclFileResponse> {
    Ok(pb::GetAclFileResponse { acl: Some(message(find(&context, &request.id).await?)) })
}

/// The ACL of a number, with or without `#`, or of a file.
async fn find(context: &Context, id: &str) -> Result<PatternInfo> {
    let number = id.strip_prefix('#').unwrap_or(id);
    let acls = context.runtime.acls().await?;
    acls.into_iter()
        .find(|acl| acl.id == number || acl.file.as_deref() == Some(id))
        .ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("acl {id} does not exist")).with("id", id))
}

/// The word that names the ACL on the socket.
async fn reference(context: &Context, id: &str) -> Result<String> {
    Ok(format!("#{}", find(context, id).await?.id))
}

pub(super) async fn entries(
    context: Context,
    request: pb::ListAclFileEntriesRequest,
) -> Result<Reply<pb::ListAclFileEntriesResponse>> {
    let acl = reference(&context, &request.acl_id).await?;
    let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
    let listing = context.runtime.acl_entries(&acl).await?;
    if context.transport == Transport::Rest && page.size.is_none() {
        let chunks = listing.into_stream().map(|chunk| {
            Ok(pb::ListAclFileEntriesResponse {
                entries: chunk?.into_iter().map(entry).collect(),
                next_page_token: String::new(),
            })
        });
        return Ok(Reply::Many(Box::pin(chunks)));
    }
    let (found, next_page_token) = page.take(listing).await?;
    let entries = found.into_iter().map(entry).collect();
    Ok(Reply::One(pb::ListAclFileEntriesResponse { entries, next_page_token }))
}

/// The entry with this pointer, or with this pattern.
async fn find_entry(context: &Context, acl: &str, id: &str) -> Result<PatternEntry> {
    let mut listing = context.runtime.acl_entries(acl).await?;
    while let Some(items) = listing.next().await? {
        if let Some(found) = items.into_iter().find(|item| item.id == id || item.value == id) {
            return Ok(found);
        }
    }
    Err(Error::new(Reason::ObjectNotFound, format!("entry {id} does not exist in acl {acl}")).with("id", id))
}

pub(super) async fn get_entry(
    context: Context,
    request: pb::GetAclFileEntryRequest,
) -> Result<pb::GetAclFileEntryResponse> {
    let acl = reference(&context, &request.acl_id).await?;
    let found = find_entry(&context, &acl, &request.id).await?;
    // Clients of /v2 know the value only.
    let id = (context.transport == Transport::Grpc).then_some(found.id);
    Ok(pb::GetAclFileEntryResponse { entry: Some(pb::AclFileEntry { id, value: Some(found.value) }) })
}

pub(super) async fn create_entry(
    context: Context,
    request: pb::CreateAclFileEntryRequest,
) -> Result<pb::CreateAclFileEntryResponse> {
    let acl = reference(&context, &request.acl_id).await?;
    let value = value_of(request.entry)?;
    add(&context, &acl, &value).await?;
    Ok(pb::CreateAclFileEntryResponse { entry: Some(pb::AclFileEntry { id: None, value: Some(value) }) })
}

pub(super) async fn add_entries(
    context: Context,
    request: pb::AddAclFileEntriesRequest,
) -> Result<pb::AddAclFileEntriesResponse> {
    let acl = reference(&context, &request.acl_id).await?;
    let values = request.entries.into_iter().map(|entry| value_of(Some(entry))).collect::<Result<Vec<_>>>()?;
    for value in &values {
        context.runtime.acl_add(&acl, value).await?;
    }
    let entries = values.into_iter().map(|value| pb::AclFileEntry { id: None, value: Some(value) }).collect();
    Ok(pb::AddAclFileEntriesResponse { entries })
}

pub(super) async fn delete_entry(
    context: Context,
    request: pb::DeleteAclFileEntryRequest,
) -> Result<pb::DeleteAclFileEntryResponse> {
    let acl = reference(&context, &request.acl_id).await?;
    let found = find_entry(&context, &acl, &request.id).await?;
    context.runtime.acl_delete_id(&acl, &found.id).await?;
    Ok(pb::DeleteAclFileEntryResponse {})
}

async fn add(context: &Context, acl: &str, value: &str) -> Result<()> {
    match find_entry(context, acl, value).await {
        Ok(_) => {
            let message = format!("entry {value} already exists in acl {acl}");
            Err(Error::new(Reason::ObjectExists, message).with("value", value))
        }
        Err(error) if error.reason() == Reason::ObjectNotFound => context.runtime.acl_add(acl, value).await,
        Err(error) => Err(error),
    }
}

fn value_of(entry: Option<pb::AclFileEntry>) -> Result<String> {
    entry.and_then(|entry| entry.value).filter(|value| !value.is_empty()).ok_or_else(|| {
        Error::invalid(vec![Violation {
            field: "value".into(),
            message: "is required".into(),
            code: 602,
            location: "body",
        }])
    })
}
