//! Instances of service discovery.

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::registry::{Items, to_object};
use super::{Context, paging};
use crate::discovery::{Kind, Listed, State, Status};
use crate::error::Result;
use crate::grpc::call::Transport;
use crate::proto::discovery as pb;
use crate::proto::fields::discovery as fields;
use crate::proto::messages;
use crate::schema::tables::FieldIndex;
use crate::schema::value::{Object, Value};

/// The fields of the messages of a kind that hold an instance, its id or a part of a list.
struct Messages {
    status: FieldIndex,
    get_id: FieldIndex,
    got: FieldIndex,
    page_size: FieldIndex,
    page_token: FieldIndex,
    listed: FieldIndex,
    next_page_token: FieldIndex,
    to_create: FieldIndex,
    created: FieldIndex,
    replace_id: FieldIndex,
    to_replace: FieldIndex,
    replaced: FieldIndex,
    delete_id: FieldIndex,
}

const OF_CONSUL: Messages = Messages {
    status: fields::consul::STATUS,
    get_id: fields::get_consul_request::ID,
    got: fields::get_consul_response::CONSUL,
    page_size: fields::list_consuls_request::PAGE_SIZE,
    page_token: fields::list_consuls_request::PAGE_TOKEN,
    listed: fields::list_consuls_response::CONSULS,
    next_page_token: fields::list_consuls_response::NEXT_PAGE_TOKEN,
    to_create: fields::create_consul_request::CONSUL,
    created: fields::create_consul_response::CONSUL,
    replace_id: fields::replace_consul_request::ID,
    to_replace: fields::replace_consul_request::CONSUL,
    replaced: fields::replace_consul_response::CONSUL,
    delete_id: fields::delete_consul_request::ID,
};

const OF_AWS: Messages = Messages {
    status: fields::aws_region::STATUS,
    get_id: fields::get_aws_region_request::ID,
    got: fields::get_aws_region_response::REGION,
    page_size: fields::list_aws_regions_request::PAGE_SIZE,
    page_token: fields::list_aws_regions_request::PAGE_TOKEN,
    listed: fields::list_aws_regions_response::REGIONS,
    next_page_token: fields::list_aws_regions_response::NEXT_PAGE_TOKEN,
    to_create: fields::create_aws_region_request::REGION,
    created: fields::create_aws_region_response::REGION,
    replace_id: fields::replace_aws_region_request::ID,
    to_replace: fields::replace_aws_region_request::REGION,
    replaced: fields::replace_aws_region_response::REGION,
    delete_id: fields::delete_aws_region_request::ID,
};

fn messages_of(kind: Kind) -> &'static Messages {
    match kind {
        Kind::Consul => &OF_CONSUL,
        Kind::Aws => &OF_AWS,
    }
}

fn text(request: &Object, field: FieldIndex) -> &str {
    request.str(field).unwrap_or_default()
}

/// An instance as the caller may see it: over gRPC without secrets and with its status. Clients of /v2 send back what they
/// read, secrets included, and know no status.
fn shown(context: &Context, kind: Kind, listed: Listed) -> Result<Value> {
    let Listed { mut object, status } = listed;
    if context.transport == Transport::Grpc {
        object.take(kind.secret());
        let status = to_object(&context.schema, messages::discovery::DISCOVERY_STATUS, &message_of(status))?;
        object.set(messages_of(kind).status, Value::Object(status));
    }
    Ok(Value::Object(object))
}

fn answer(context: &Context, kind: Kind, field: FieldIndex, listed: Listed) -> Result<Object> {
    let mut out = Object::new();
    out.set(field, shown(context, kind, listed)?);
    Ok(out)
}

pub(super) fn list(context: Context, kind: Kind, request: &Object) -> Result<Object> {
    let of = messages_of(kind);
    let size = request.int(of.page_size).unwrap_or(0);
    let page = paging::Page::new(size, text(request, of.page_token), context.transport)?;
    let (all, revision) = context.discovery.list(kind);
    let (all, next) = page.cut(all, revision)?;
    let mut out = Object::new();
    for listed in all {
        out.push(of.listed, shown(&context, kind, listed)?);
    }
    if !next.is_empty() {
        out.set(of.next_page_token, Value::Str(next.into()));
    }
    Ok(out)
}

pub(super) fn get(context: Context, kind: Kind, request: &Object) -> Result<Object> {
    let of = messages_of(kind);
    answer(&context, kind, of.got, context.discovery.get(kind, text(request, of.get_id))?)
}

pub(super) async fn create(context: Context, kind: Kind, request: Object) -> Result<Object> {
    let of = messages_of(kind);
    let object = request.object(of.to_create).cloned().unwrap_or_default();
    answer(&context, kind, of.created, context.discovery.create(kind, &object).await?)
}

pub(super) async fn replace(context: Context, kind: Kind, request: Object) -> Result<Object> {
    let of = messages_of(kind);
    let id = text(&request, of.replace_id);
    let mut object = request.object(of.to_replace).cloned().unwrap_or_default();
    if context.transport == Transport::Grpc {
        // Who was not shown a secret cannot send it back.
        let known = context.discovery.get(kind, id)?.object;
        if let (None, Some(value)) = (object.get(kind.secret()), known.get(kind.secret())) {
            object.set(kind.secret(), value.clone());
        }
    }
    answer(&context, kind, of.replaced, context.discovery.replace(kind, id, &object).await?)
}

pub(super) async fn delete(context: Context, kind: Kind, request: Object) -> Result<Object> {
    context.discovery.delete(kind, text(&request, messages_of(kind).delete_id)).await?;
    Ok(Object::new())
}

pub(super) async fn watch_consul(
    context: Context,
    request: pb::WatchConsulRequest,
) -> Result<Items<pb::WatchConsulResponse>> {
    let statuses = WatchStream::new(context.discovery.watch(Kind::Consul, &request.id)?);
    Ok(Box::pin(statuses.map(|status| Ok(pb::WatchConsulResponse { status: Some(message_of(status)) }))))
}

pub(super) async fn watch_region(
    context: Context,
    request: pb::WatchAwsRegionRequest,
) -> Result<Items<pb::WatchAwsRegionResponse>> {
    let statuses = WatchStream::new(context.discovery.watch(Kind::Aws, &request.id)?);
    Ok(Box::pin(statuses.map(|status| Ok(pb::WatchAwsRegionResponse { status: Some(message_of(status)) }))))
}

fn message_of(status: Status) -> pb::DiscoveryStatus {
    let state = match status.state {
        State::Disabled => pb::DiscoveryState::Disabled,
        State::Starting => pb::DiscoveryState::Starting,
        State::Running => pb::DiscoveryState::Running,
        State::Failing => pb::DiscoveryState::Failing,
    };
    let time = |time: Option<u64>| time.and_then(|time| i64::try_from(time).ok()).unwrap_or_default();
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let services = status.services.into_iter().map(|service| pb::DiscoveredService {
        name: service.name,
        backend: service.backend,
        instances: count(service.instances),
        slots: count(service.slots),
    });
    pb::DiscoveryStatus {
        state: state.into(),
        last_error: status.last_error,
        last_error_time_ms: time(status.last_error_time),
        last_success_time_ms: time(status.last_success_time),
        next_attempt_time_ms: time(status.next_attempt_time),
        failures: status.failures.into(),
        services: services.collect(),
        problems: status.problems,
    }
}
