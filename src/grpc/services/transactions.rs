//! Transactions.

use super::Context;
use crate::configuration::{Status, Transaction};
use crate::error::{Error, Result, Violation};
use crate::proto::configuration as pb;

fn message(transaction: Transaction) -> pb::Transaction {
    let status = match transaction.status {
        Status::InProgress => pb::TransactionStatus::InProgress,
        Status::Failed => pb::TransactionStatus::Failed,
        Status::Outdated => pb::TransactionStatus::Outdated,
        Status::Success => pb::TransactionStatus::Success,
    };
    let known = matches!(transaction.status, Status::InProgress | Status::Success);
    pb::Transaction { version: known.then_some(transaction.version), id: transaction.id, status: status.into() }
}

pub(super) async fn list(
    context: Context,
    request: pb::ListTransactionsRequest,
) -> Result<pb::ListTransactionsResponse> {
    let status = match request.status() {
        pb::TransactionStatus::Unspecified => None,
        pb::TransactionStatus::InProgress => Some(Status::InProgress),
        pb::TransactionStatus::Failed => Some(Status::Failed),
        pb::TransactionStatus::Outdated | pb::TransactionStatus::Success => {
            return Err(Error::invalid(vec![Violation {
                field: "status".into(),
                message: "should be one of [failed in_progress]".into(),
                code: 606,
                location: "query",
            }]));
        }
    };
    let transactions = context.configuration.transactions(status).into_iter().map(message).collect();
    Ok(pb::ListTransactionsResponse { transactions })
}

pub(super) async fn get(context: Context, request: pb::GetTransactionRequest) -> Result<pb::GetTransactionResponse> {
    let transaction = context.configuration.transaction(&request.id)?;
    Ok(pb::GetTransactionResponse { transaction: Some(message(transaction)) })
}

pub(super) async fn begin(
    context: Context,
    request: pb::BeginTransactionRequest,
) -> Result<pb::BeginTransactionResponse> {
    let Some(version) = request.version else {
        return Err(Error::invalid(vec![Violation {
            field: "version".into(),
            message: "is required".into(),
            code: 602,
            location: "query",
        }]));
    };
    let transaction = context.configuration.begin(version).await?;
    Ok(pb::BeginTransactionResponse { transaction: Some(message(transaction)) })
}

pub(super) async fn commit(
    context: Context,
    request: pb::CommitTransactionRequest,
) -> Result<pb::CommitTransactionResponse> {
    let (transaction, outcome) = context.configuration.commit(&request.id, request.force_reload).await?;
    Ok(pb::CommitTransactionResponse {
        transaction: Some(message(transaction)),
        version: outcome.version,
        reload_id: outcome.reload_id.unwrap_or_default(),
        warnings: outcome.warnings,
    })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteTransactionRequest,
) -> Result<pb::DeleteTransactionResponse> {
    context.configuration.delete(&request.id).await?;
    Ok(pb::DeleteTransactionResponse {})
}
