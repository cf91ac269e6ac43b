//! Transactions of SPOE files.

use super::Context;
use crate::configuration::Status;
use crate::configuration::ports::Reload as _;
use crate::error::{Error, Result, Violation};
use crate::proto::spoe as pb;
use crate::spoe::SpoeTransaction;

fn message(transaction: SpoeTransaction) -> pb::SpoeTransaction {
    let status = match transaction.status {
        Status::InProgress => pb::SpoeTransactionStatus::InProgress,
        Status::Failed => pb::SpoeTransactionStatus::Failed,
        Status::Outdated => pb::SpoeTransactionStatus::Outdated,
        Status::Success => pb::SpoeTransactionStatus::Success,
    };
    let known = matches!(transaction.status, Status::InProgress | Status::Success);
    pb::SpoeTransaction { version: known.then_some(transaction.version), id: transaction.id, status: status.into() }
}

fn wrong(field: &str, message: &str, code: u16) -> Error {
    Error::invalid(vec![Violation { field: field.into(), message: message.into(), code, location: "query" }])
}

pub(super) async fn list(
    context: Context,
    request: pb::ListSpoeTransactionsRequest,
) -> Result<pb::ListSpoeTransactionsResponse> {
    let status = match request.status() {
        pb::SpoeTransactionStatus::Unspecified => None,
        pb::SpoeTransactionStatus::InProgress => Some(Status::InProgress),
        pb::SpoeTransactionStatus::Failed => Some(Status::Failed),
        pb::SpoeTransactionStatus::Outdated | pb::SpoeTransactionStatus::Success => {
            return Err(wrong("status", "should be one of [failed in_progress]", 606));
        }
    };
    let found = context.spoe.transactions(&request.spoe, status).await?;
    Ok(pb::ListSpoeTransactionsResponse { spoe_transactions: found.into_iter().map(message).collect() })
}

pub(super) async fn get(
    context: Context,
    request: pb::GetSpoeTransactionRequest,
) -> Result<pb::GetSpoeTransactionResponse> {
    let transaction = context.spoe.transaction(&request.spoe, &request.id).await?;
    Ok(pb::GetSpoeTransactionResponse { spoe_transaction: Some(message(transaction)) })
}

pub(super) async fn begin(
    context: Context,
    request: pb::BeginSpoeTransactionRequest,
) -> Result<pb::BeginSpoeTransactionResponse> {
    let version = request.version.ok_or_else(|| wrong("version", "is required", 602))?;
    let transaction = context.spoe.begin(&request.spoe, version).await?;
    Ok(pb::BeginSpoeTransactionResponse { spoe_transaction: Some(message(transaction)) })
}

pub(super) async fn commit(
    context: Context,
    request: pb::CommitSpoeTransactionRequest,
) -> Result<pb::CommitSpoeTransactionResponse> {
    let (transaction, version) = context.spoe.commit(&request.spoe, &request.id).await?;
    let configuration = context.configuration.current().version;
    let mut reload_id = String::new();
    if request.force_reload {
        context.reloads.force(configuration).await?;
    } else {
        reload_id = context.reloads.request(configuration);
    }
    Ok(pb::CommitSpoeTransactionResponse { spoe_transaction: Some(message(transaction)), version, reload_id })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteSpoeTransactionRequest,
) -> Result<pb::DeleteSpoeTransactionResponse> {
    context.spoe.end(&request.spoe, &request.id).await?;
    Ok(pb::DeleteSpoeTransactionResponse {})
}
