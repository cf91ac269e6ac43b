//! ACLs and their patterns at run time.

use tokio_stream::StreamExt as _;

use super::Context;
use super::paging::Page;
use super::registry::Reply;
use super::runtime_overrides::writer;
use crate::error::{Error, Reason, Result, Violation};
use crate::grpc::call::Transport;
use crate::overrides::{AclRef, Write};
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
    Ok(pb::GetAclFileResponse { acl: Some(message(context.runtime.acl(&request.id).await?)) })
}

pub(super) async fn entries(
    context: Context,
    request: pb::ListAclFileEntriesRequest,
) -> Result<Reply<pb::ListAclFileEntriesResponse>> {
    let page = Page::new(i64::from(request.page_size), &request.page_token, context.transport)?;
    let id = &*request.acl_id;
    let listed = context.runtime.on_one(|one, _| async move { one.acl_entries(&one.acl_word(id).await?).await });
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

pub(super) async fn get_entry(
    context: Context,
    request: pb::GetAclFileEntryRequest,
) -> Result<pb::GetAclFileEntryResponse> {
    let request = &request;
    let found = context.runtime.on_one(|one, _| async move {
        let acl = one.acl_word(&request.acl_id).await?;
        one.acl_entry(&acl, &request.id).await
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
    let writer = writer(&context, request.persistence(), false);
    let value = value_of(request.entry.clone())?;
    let acl = to_change(&context, &request.acl_id, request.persistence()).await?;
    context.overrides.write(Write::AclCreate(acl, value.clone()), &writer).await?;
    Ok(pb::CreateAclFileEntryResponse { entry: Some(pb::AclFileEntry { id: None, value: Some(value) }) })
}

pub(super) async fn add_entries(
    context: Context,
    request: pb::AddAclFileEntriesRequest,
) -> Result<pb::AddAclFileEntriesResponse> {
    let writer = writer(&context, request.persistence(), false);
    let acl = to_change(&context, &request.acl_id, request.persistence()).await?;
    let values = request.entries.into_iter().map(|entry| value_of(Some(entry))).collect::<Result<Vec<_>>>()?;
    context.overrides.write(Write::AclAdd(acl, values.clone()), &writer).await?;
    let entries = values.into_iter().map(|value| pb::AclFileEntry { id: None, value: Some(value) }).collect();
    Ok(pb::AddAclFileEntriesResponse { entries })
}

pub(super) async fn delete_entry(
    context: Context,
    request: pb::DeleteAclFileEntryRequest,
) -> Result<pb::DeleteAclFileEntryResponse> {
    let writer = writer(&context, request.persistence(), false);
    let acl = to_change(&context, &request.acl_id, request.persistence()).await?;
    let id = &*request.id;
    // A pointer means something to one worker only; the pattern means the same to all.
    let pattern = if id.starts_with("0x") {
        let word = &*acl.id;
        let found = context.runtime.on_one(|one, _| async move { one.acl_entry(&one.acl_word(word).await?, id).await });
        found.await?.value
    } else {
        id.to_owned()
    };
    context.overrides.write(Write::AclDelete(acl, pattern), &writer).await?;
    Ok(pb::DeleteAclFileEntryResponse {})
}

/// The ACL of an id. `NOT_DURABLE` when its patterns stand in the configuration and the change is to stay.
async fn to_change(context: &Context, id: &str, persistence: pb::Persistence) -> Result<AclRef> {
    let found = context.runtime.acl(id).await?;
    if found.file.is_none() && persistence == pb::Persistence::Durable {
        let message = format!("acl {id} has no file: its patterns stand in the configuration, change them there");
        return Err(Error::new(Reason::NotDurable, message).with("field", "persistence"));
    }
    let id = found.file.clone().unwrap_or_else(|| id.to_owned());
    Ok(AclRef { id, file: found.file })
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
