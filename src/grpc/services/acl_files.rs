//! ACLs and their patterns at run time.

use tokio_stream::StreamExt as _;

use super::Context;
use super::paging::Page;
use super::registry::Reply;
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::Transport;
use crate::proto::runtime as pb;
use crate::runtime::{PatternEntry, PatternInfo, Runtime};

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
    Ok(pb::GetAclFileResponse { acl: Some(message(find(&context.runtime, &request.id).await?)) })
}

/// The ACL of a number, with or without `#`, or of a file.
async fn find(runtime: &Runtime, id: &str) -> Result<PatternInfo> {
    let number = id.strip_prefix('#').unwrap_or(id);
    let acls = runtime.acls().await?;
    acls.into_iter()
        .find(|acl| acl.id == number || acl.file.as_deref() == Some(id))
        .ok_or_else(|| Error::new(Reason::ObjectNotFound, format!("acl {id} does not exist")).with("id", id))
}

/// The word that names the ACL on the socket. The next worker may give the number to another one, so it is only good for
/// the worker that was asked.
async fn reference(one: &Runtime, id: &str) -> Result<String> {
    Ok(format!("#{}", find(one, id).await?.id))
}

pub(super) async fn entries(
    context: Context,
    request: pb::ListAclFileEntriesRequest,
) -> Result<Reply<pb::ListAclFileEntriesResponse>> {
    let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
    let id = &*request.acl_id;
    let listed = context.runtime.on_one(|one, _| async move { one.acl_entries(&reference(&one, id).await?).await });
    let listing = listed.await?;
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
async fn find_entry(one: &Runtime, acl: &str, id: &str) -> Result<PatternEntry> {
    let mut listing = one.acl_entries(acl).await?;
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
    let request = &request;
    let found = context.runtime.on_one(|one, _| async move {
        let acl = reference(&one, &request.acl_id).await?;
        find_entry(&one, &acl, &request.id).await
    });
    let found = found.await?;
    // Clients of /v2 know the value only.
    let id = (context.transport == Transport::Grpc).then_some(found.id);
    Ok(pb::GetAclFileEntryResponse { entry: Some(pb::AclFileEntry { id, value: Some(found.value) }) })
}

pub(super) async fn create_entry(
    context: Context,
    request: pb::CreateAclFileEntryRequest,
) -> Result<pb::CreateAclFileEntryResponse> {
    let value = value_of(request.entry)?;
    let (id, given) = (&*request.acl_id, &*value);
    let added = context.runtime.on_one(|one, again| async move {
        let acl = reference(&one, id).await?;
        match find_entry(&one, &acl, given).await {
            // It has arrived, though the answer has not.
            Ok(_) if again => Ok(()),
            Ok(_) => {
                let message = format!("entry {given} already exists in acl {acl}");
                Err(Error::new(Reason::ObjectExists, message).with("value", given))
            }
            Err(error) if error.reason() == Reason::ObjectNotFound => one.acl_add(&acl, given).await,
            Err(error) => Err(error),
        }
    });
    added.await?;
    Ok(pb::CreateAclFileEntryResponse { entry: Some(pb::AclFileEntry { id: None, value: Some(value) }) })
}

pub(super) async fn add_entries(
    context: Context,
    request: pb::AddAclFileEntriesRequest,
) -> Result<pb::AddAclFileEntriesResponse> {
    let values = request.entries.into_iter().map(|entry| value_of(Some(entry))).collect::<Result<Vec<_>>>()?;
    let (id, given) = (&*request.acl_id, &values);
    let added = context.runtime.on_one(|one, _| async move {
        let acl = reference(&one, id).await?;
        for value in given {
            one.acl_add(&acl, value).await?;
        }
        Ok(())
    });
    added.await?;
    let entries = values.into_iter().map(|value| pb::AclFileEntry { id: None, value: Some(value) }).collect();
    Ok(pb::AddAclFileEntriesResponse { entries })
}

pub(super) async fn delete_entry(
    context: Context,
    request: pb::DeleteAclFileEntryRequest,
) -> Result<pb::DeleteAclFileEntryResponse> {
    let request = &request;
    let deleted = context.runtime.on_one(|one, again| async move {
        let acl = reference(&one, &request.acl_id).await?;
        match find_entry(&one, &acl, &request.id).await {
            // It has gone, though the answer has not come.
            Err(error) if again && error.reason() == Reason::ObjectNotFound => Ok(()),
            found => one.acl_delete_id(&acl, &found?.id).await,
        }
    });
    deleted.await?;
    Ok(pb::DeleteAclFileEntryResponse {})
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
