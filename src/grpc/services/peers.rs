//! Being a peer of HAProxy.

use super::Context;
use crate::configuration::{ChangeOptions, Target};
use crate::error::{Error, Reason, Result};
use crate::proto::runtime as pb;
use crate::runtime::Address;
use crate::stick_table::{Joiner, Status, join};

pub(super) async fn add(
    context: Context,
    request: pb::AddStickTablePeerRequest,
) -> Result<pb::AddStickTablePeerResponse> {
    use pb::add_stick_table_peer_request::Target as Given;
    let target = match &request.target {
        Some(Given::TransactionId(id)) => Target::Transaction(id),
        Some(Given::Version(version)) => Target::Version(*version),
        None => return Err(Error::new(Reason::TargetMissing, "version or transaction_id: one of them is required")),
    };
    let (local, host) = context.push.names();
    let joiner = Joiner { local, host, socket: &context.peers_socket };
    let document = &context.configuration.view(request_transaction(target))?.document;
    let plan = join(document, &request.stick_table, joiner)?;
    let mut response = pb::AddStickTablePeerResponse {
        section: plan.section,
        lines: plan.lines.into_iter().map(|line| pb::PlannedLine { section: line.section, text: line.text }).collect(),
        version: context.configuration.version_of(request_transaction(target)),
        ..pb::AddStickTablePeerResponse::default()
    };
    if response.lines.is_empty() {
        return Ok(response);
    }
    let options = ChangeOptions {
        force_reload: request.force_reload,
        validate_only: request.validate_only,
        ..ChangeOptions::default()
    };
    let edit = |document: &crate::document::Document| Ok((join(document, &request.stick_table, joiner)?.document, ()));
    let ((), outcome) = context.configuration.change(target, options, edit).await?;
    response.version = outcome.version;
    response.reload_id = outcome.reload_id.unwrap_or_default();
    response.warnings = outcome.warnings;
    Ok(response)
}

fn request_transaction(target: Target<'_>) -> Option<&str> {
    match target {
        Target::Transaction(id) => Some(id),
        Target::Version(_) => None,
    }
}

pub(super) async fn sessions(context: Context, _: pb::ListPeerSessionsRequest) -> Result<pb::ListPeerSessionsResponse> {
    let session = |section, address: Option<Address>, other_node, status: Status| pb::PeerSession {
        section,
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        live: status.live,
        stick_tables: status.tables,
        error: status.error,
        other_node,
    };
    let own = context.push.statuses().into_iter();
    let own = own.map(|(node, status)| session(node.section, Some(node.address), String::new(), status));
    let others = context.push.others().into_iter();
    let others = others.map(|(node, other, status)| session(node.section, other.address, other.name, status));
    Ok(pb::ListPeerSessionsResponse { sessions: own.chain(others).collect() })
}
