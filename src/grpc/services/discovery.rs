//! Instances of service discovery.

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;

use super::registry::{Items, to_object};
use super::{Context, paging};
use crate::discovery::{Kind, Listed, State, Status};
use crate::error::Result;
use crate::grpc::call::Transport;
use crate::proto::discovery as pb;
use crate::schema::tables::FieldIndex;
use crate::schema::value::{Object, Value};

/// How the messages of a kind are called.
struct Names {
    one: &'static str,
    many: &'static str,
    /// Fields that hold one, and all of them.
    field: &'static str,
    list: &'static str,
}

fn names(kind: Kind) -> Names {
    match kind {
        Kind::Consul => Names { one: "Consul", many: "Consuls", field: "consul", list: "consuls" },
        Kind::Aws => Names { one: "AwsRegion", many: "AwsRegions", field: "region", list: "regions" },
    }
}

/// Position of a field of one of our messages.
fn field(context: &Context, message: &str, name: &str) -> FieldIndex {
    context.schema.tables.field(&format!("backstay.discovery.v2.{message}"), name)
}

fn text<'o>(context: &Context, message: &str, name: &str, request: &'o Object) -> &'o str {
    request.str(field(context, message, name)).unwrap_or_default()
}

/// An instance as the caller may see it: over gRPC without secrets and with its status. Clients of /v2 send back what they
/// read, secrets included, and know no status.
fn shown(context: &Context, kind: Kind, listed: Listed) -> Result<Value> {
    let Listed { mut object, status } = listed;
    if context.transport == Transport::Grpc {
        for secret in kind.secrets() {
            object.take(field(context, names(kind).one, secret));
        }
        let tables = &context.schema.tables;
        let message = tables.message_by_name.get("backstay.discovery.v2.DiscoveryStatus").copied().unwrap_or_default();
        let status = to_object(&context.schema, message, &message_of(status))?;
        object.set(field(context, names(kind).one, "status"), Value::Object(status));
    }
    Ok(Value::Object(object))
}

fn answer(context: &Context, kind: Kind, verb: &str, listed: Listed) -> Result<Object> {
    let mut out = Object::new();
    let message = format!("{verb}{}Response", names(kind).one);
    out.set(field(context, &message, names(kind).field), shown(context, kind, listed)?);
    Ok(out)
}

pub(super) fn list(context: Context, kind: Kind, request: &Object) -> Result<Object> {
    let (input, output) = (format!("List{}Request", names(kind).many), format!("List{}Response", names(kind).many));
    let size = request.int(field(&context, &input, "page_size")).unwrap_or(0);
    let page = paging::Page::new(size, text(&context, &input, "page_token", request), context.transport)?;
    let (all, revision) = context.discovery.list(kind);
    let (all, next) = page.cut(all, revision)?;
    let mut out = Object::new();
    for listed in all {
        out.push(field(&context, &output, names(kind).list), shown(&context, kind, listed)?);
    }
    if !next.is_empty() {
        out.set(field(&context, &output, "next_page_token"), Value::Str(next.into()));
    }
    Ok(out)
}

pub(super) fn get(context: Context, kind: Kind, request: &Object) -> Result<Object> {
    let id = text(&context, &format!("Get{}Request", names(kind).one), "id", request);
    answer(&context, kind, "Get", context.discovery.get(kind, id)?)
}

pub(super) async fn create(context: Context, kind: Kind, request: Object) -> Result<Object> {
    let message = format!("Create{}Request", names(kind).one);
    let object = request.object(field(&context, &message, names(kind).field)).cloned().unwrap_or_default();
    answer(&context, kind, "Create", context.discovery.create(kind, &object).await?)
}

pub(super) async fn replace(context: Context, kind: Kind, request: Object) -> Result<Object> {
    let message = format!("Replace{}Request", names(kind).one);
    let id = text(&context, &message, "id", &request);
    let mut object = request.object(field(&context, &message, names(kind).field)).cloned().unwrap_or_default();
    if context.transport == Transport::Grpc {
        // Who was not shown a secret cannot send it back.
        let known = context.discovery.get(kind, id)?.object;
        for secret in kind.secrets().iter().map(|secret| field(&context, names(kind).one, secret)) {
            if let (None, Some(value)) = (object.get(secret), known.get(secret)) {
                object.set(secret, value.clone());
            }
        }
    }
    answer(&context, kind, "Replace", context.discovery.replace(kind, id, &object).await?)
}

pub(super) async fn delete(context: Context, kind: Kind, request: Object) -> Result<Object> {
    let id = text(&context, &format!("Delete{}Request", names(kind).one), "id", &request);
    context.discovery.delete(kind, id).await?;
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
