//! Aggregations of stick tables.

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::registry::{Items, to_object, to_struct};
use super::{Context, paging};
use crate::aggregation::{NodeStatus, Status, Target};
use crate::error::{Error, Result};
use crate::proto::aggregation as pb;
use crate::proto::messages;
use crate::schema::check::check;
use crate::schema::mask::apply_mask;

pub(super) async fn list(
    context: Context,
    request: pb::ListAggregationsRequest,
) -> Result<pb::ListAggregationsResponse> {
    let page = paging::Page::new(request.page_size.into(), &request.page_token, context.transport)?;
    let (all, revision) = context.aggregations.list();
    let (aggregations, next_page_token) = page.cut(all, revision)?;
    Ok(pb::ListAggregationsResponse { aggregations, next_page_token })
}

pub(super) async fn get(context: Context, request: pb::GetAggregationRequest) -> Result<pb::GetAggregationResponse> {
    Ok(pb::GetAggregationResponse { aggregation: Some(context.aggregations.get(&request.name)?) })
}

pub(super) async fn create(
    context: Context,
    request: pb::CreateAggregationRequest,
) -> Result<pb::CreateAggregationResponse> {
    let aggregation = context.aggregations.create(request.aggregation.unwrap_or_default()).await?;
    Ok(pb::CreateAggregationResponse { aggregation: Some(aggregation) })
}

pub(super) async fn replace(
    context: Context,
    request: pb::ReplaceAggregationRequest,
) -> Result<pb::ReplaceAggregationResponse> {
    let wanted = request.aggregation.unwrap_or_default();
    let aggregation = context.aggregations.replace(&request.name, wanted).await?;
    Ok(pb::ReplaceAggregationResponse { aggregation: Some(aggregation) })
}

pub(super) async fn update(
    context: Context,
    request: pb::UpdateAggregationRequest,
) -> Result<pb::UpdateAggregationResponse> {
    let tables = &context.schema.tables;
    let message = messages::aggregation::AGGREGATION;
    let object = |aggregation: &pb::Aggregation| to_object(&context.schema, message, aggregation);
    let patch = object(&request.aggregation.unwrap_or_default())?;
    let paths = request.update_mask.unwrap_or_default().paths;
    let change = |current: &pb::Aggregation| {
        let mut wanted = object(current)?;
        apply_mask(tables, message, &mut wanted, &patch, &paths)?;
        let violations = check(tables, message, &wanted, "body");
        if !violations.is_empty() {
            return Err(Error::invalid(violations));
        }
        to_struct(&context.schema, message, &wanted)
    };
    let aggregation = context.aggregations.update(&request.name, change).await?;
    Ok(pb::UpdateAggregationResponse { aggregation: Some(aggregation) })
}

pub(super) async fn delete(
    context: Context,
    request: pb::DeleteAggregationRequest,
) -> Result<pb::DeleteAggregationResponse> {
    context.aggregations.delete(&request.name).await?;
    Ok(pb::DeleteAggregationResponse {})
}

pub(super) async fn status(
    context: Context,
    request: pb::GetAggregationStatusRequest,
) -> Result<pb::GetAggregationStatusResponse> {
    Ok(pb::GetAggregationStatusResponse { status: Some(message_of(context.aggregations.status(&request.name)?)) })
}

pub(super) async fn watch(
    context: Context,
    request: pb::WatchAggregationStatusRequest,
) -> Result<Items<pb::WatchAggregationStatusResponse>> {
    let statuses = WatchStream::new(context.aggregations.watch(&request.name)?);
    let statuses = statuses.map(|status| Ok(pb::WatchAggregationStatusResponse { status: Some(message_of(status)) }));
    Ok(Box::pin(statuses))
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn message_of(status: Status) -> pb::AggregationStatus {
    let state = match (status.teaches, status.stands_by) {
        (true, true) => pb::AggregationState::Standby,
        (true, false) => pb::AggregationState::Teaching,
        (false, _) => pb::AggregationState::Starting,
    };
    pb::AggregationStatus {
        state: state.into(),
        keys: count(status.keys),
        nodes: status.nodes.into_iter().map(node).collect(),
    }
}

fn node(node: NodeStatus) -> pb::AggregationNodeStatus {
    let target = match node.target {
        Target::Unknown => pb::AggregationTargetState::Unknown,
        Target::Waiting => pb::AggregationTargetState::Waiting,
        Target::Taken => pb::AggregationTargetState::Taken,
        Target::Ignored => pb::AggregationTargetState::Ignored,
    };
    pb::AggregationNodeStatus {
        staleness_ms: node.staleness().map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
        name: node.name,
        connected: node.connected,
        entries: count(node.entries),
        pending: count(node.pending),
        target: target.into(),
        error: node.error,
        last_error: node.last_error,
        last_error_time_ms: i64::try_from(node.last_error_time).unwrap_or(i64::MAX),
    }
}
