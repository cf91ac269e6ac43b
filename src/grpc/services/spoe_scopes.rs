//! Scopes of SPOE files.

use super::Context;
use crate::configuration::Target;
use crate::error::{Error, Reason, Result};
use crate::proto::spoe as pb;

fn transaction(id: &str) -> Option<&str> {
    Some(id).filter(|id| !id.is_empty())
}

pub(super) async fn list(context: Context, request: pb::ListSpoeScopesRequest) -> Result<pb::ListSpoeScopesResponse> {
    let file = context.spoe.view(&request.spoe, transaction(&request.transaction_id)).await?;
    Ok(pb::ListSpoeScopesResponse { version: file.version(), data: file.scopes().map(str::to_owned).collect() })
}

pub(super) async fn get(context: Context, request: pb::GetSpoeScopeRequest) -> Result<pb::GetSpoeScopeResponse> {
    let file = context.spoe.view(&request.spoe, transaction(&request.transaction_id)).await?;
    file.know_scope(&request.name)?;
    Ok(pb::GetSpoeScopeResponse { version: file.version(), data: request.name })
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateSpoeScopeRequest,
) -> Result<pb::CreateSpoeScopeResponse> {
    use pb::create_spoe_scope_request::Target as Given;
    let target = match &request.target {
        Some(Given::Version(version)) => Target::Version(*version),
        Some(Given::TransactionId(id)) => Target::Transaction(id),
        None => return Err(no_target()),
    };
    let version = context.spoe.change(&request.spoe, target, |file| file.add_scope(&request.name)).await?;
    Ok(pb::CreateSpoeScopeResponse { data: String::new(), version })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteSpoeScopeRequest,
) -> Result<pb::DeleteSpoeScopeResponse> {
    use pb::delete_spoe_scope_request::Target as Given;
    let target = match &request.target {
        Some(Given::Version(version)) => Target::Version(*version),
        Some(Given::TransactionId(id)) => Target::Transaction(id),
        None => return Err(no_target()),
    };
    let version = context.spoe.change(&request.spoe, target, |file| file.remove_scope(&request.name)).await?;
    Ok(pb::DeleteSpoeScopeResponse { version })
}

fn no_target() -> Error {
    Error::new(
        Reason::TargetMissing,
        "version or transaction not specified: version or transaction not specified, specify only one",
    )
}
