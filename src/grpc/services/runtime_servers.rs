//! Servers as they run.

use super::Context;
use super::runtime_overrides::writer;
use crate::error::{Error, Reason, Result};
use crate::grpc::call::Transport;
use crate::overrides::{ServerField, Write};
use crate::proto::runtime as pb;
use crate::runtime::{AdminState, OperationalState, ServerState};
use crate::schema::tables::{FieldIndex, Kind, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words::split;

/// Numbers of the enum values in the schema.
const READY: i32 = 1;
const MAINT: i32 = 2;
const DRAIN: i32 = 3;
const UP: i32 = 1;
const DOWN: i32 = 2;
const STOPPING: i32 = 3;

/// Position of a field of one of our messages.
fn field(tables: &Tables, message: &str, name: &str) -> FieldIndex {
    tables.field(&format!("backstay.runtime.v2.{message}"), name)
}

fn text<'o>(context: &Context, message: &str, name: &str, request: &'o Object) -> &'o str {
    request.str(field(&context.schema.tables, message, name)).unwrap_or_default()
}

fn object(context: &Context, state: &ServerState) -> Object {
    let tables = &context.schema.tables;
    let mut out = Object::new();
    let mut set = |name: &str, value: Value| out.set(field(tables, "RuntimeServer", name), value);
    if let Some(address) = &state.address {
        set("address", Value::Str(address.as_str().into()));
    }
    set("admin_state", Value::Enum(admin_number(state.admin_state)));
    set("id", Value::Str(state.id.as_str().into()));
    set("name", Value::Str(state.name.as_str().into()));
    set("operational_state", Value::Enum(operational_number(state.operational_state)));
    if let Some(port) = state.port {
        set("port", Value::Int(i64::from(port)));
    }
    set("weight", Value::Int(i64::from(state.weight)));
    out
}

fn admin_number(state: AdminState) -> i32 {
    match state {
        AdminState::Ready => READY,
        AdminState::Maint => MAINT,
        AdminState::Drain => DRAIN,
    }
}

fn operational_number(state: OperationalState) -> i32 {
    match state {
        OperationalState::Up => UP,
        OperationalState::Down => DOWN,
        OperationalState::Stopping => STOPPING,
    }
}

fn answer(context: &Context, message: &str, name: &str, value: Value) -> Object {
    let mut out = Object::new();
    out.set(field(&context.schema.tables, message, name), value);
    out
}

pub(super) async fn list(context: Context, request: Object) -> Result<Object> {
    let backend = text(&context, "ListRuntimeServersRequest", "backend", &request);
    let servers = match context.runtime.servers(backend).await {
        Ok(servers) => servers,
        Err(error) if error.reason() == Reason::ParentNotFound && context.transport == Transport::Rest => Vec::new(),
        Err(error) => return Err(error),
    };
    if servers.is_empty() {
        return Ok(Object::new());
    }
    let servers = servers.iter().map(|state| Value::Object(object(&context, state))).collect();
    Ok(answer(&context, "ListRuntimeServersResponse", "servers", Value::List(servers)))
}

pub(super) async fn get(context: Context, request: Object) -> Result<Object> {
    let backend = text(&context, "GetRuntimeServerRequest", "backend", &request);
    let name = text(&context, "GetRuntimeServerRequest", "name", &request);
    let state = context.runtime.server(backend, name).await?;
    Ok(answer(&context, "GetRuntimeServerResponse", "server", Value::Object(object(&context, &state))))
}

pub(super) async fn add(context: Context, request: Object) -> Result<Object> {
    let tables = &context.schema.tables;
    let backend = text(&context, "AddRuntimeServerRequest", "backend", &request);
    let at = field(tables, "AddRuntimeServerRequest", "server");
    let Kind::Message(resource) = tables.messages[request_id(tables)].fields[at].kind else {
        return Err(Error::internal("the server of a request is no message"));
    };
    let server = request.object(at).cloned().unwrap_or_default();
    // The line of the file, without its first two words, is what the socket takes.
    let printed = context
        .schema
        .grammar
        .print_line(resource, &server)
        .map_err(|fault| Error::new(Reason::InvalidValue, format!("{}: {}", fault.path, fault.message)))?;
    let words = split(&printed.text).words;
    let (Some(name), Some(parameters)) = (words.get(1), words.get(2..)) else {
        return Err(Error::internal("a server line without a name"));
    };
    context.runtime.add_server(backend, name, parameters).await?;
    Ok(answer(&context, "AddRuntimeServerResponse", "server", Value::Object(server)))
}

fn request_id(tables: &Tables) -> usize {
    tables.message_by_name.get("backstay.runtime.v2.AddRuntimeServerRequest").copied().unwrap_or_default()
}

pub(super) async fn set(context: Context, request: Object) -> Result<Object> {
    let tables = &context.schema.tables;
    let backend = text(&context, "SetRuntimeServerRequest", "backend", &request);
    let name = text(&context, "SetRuntimeServerRequest", "name", &request);
    let wanted = request.object(field(tables, "SetRuntimeServerRequest", "server")).cloned().unwrap_or_default();
    let health =
        wanted.enum_number(field(tables, "RuntimeServer", "operational_state")).and_then(|number| match number {
            UP => Some(OperationalState::Up),
            DOWN => Some(OperationalState::Down),
            STOPPING => Some(OperationalState::Stopping),
            _ => None,
        });
    let now = match health {
        Some(_) => context.runtime.set_server_states(backend, name, health, None).await?,
        None => context.runtime.server(backend, name).await?,
    };
    let persistence = request.enum_number(field(tables, "SetRuntimeServerRequest", "persistence"));
    let persistence = persistence.and_then(|number| pb::Persistence::try_from(number).ok()).unwrap_or_default();
    let writer = writer(&context, persistence, false);
    for (field, value) in values(&context, &wanted, &now, writer.durable) {
        let write = Write::Server(backend.to_owned(), name.to_owned(), field, value);
        context.overrides.write(write, &writer).await?;
    }
    let state = context.runtime.server(backend, name).await?;
    Ok(answer(&context, "SetRuntimeServerResponse", "server", Value::Object(object(&context, &state))))
}

/// What is to be set that differs, in the order in which it is set. REST knows states only. A durable state is set also
/// where the server has it: that may be for the time being.
fn values(context: &Context, wanted: &Object, now: &ServerState, durable: bool) -> Vec<(ServerField, String)> {
    let tables = &context.schema.tables;
    let at = |name: &str| field(tables, "RuntimeServer", name);
    let mut values = Vec::new();
    if context.transport == Transport::Grpc {
        let port = wanted.int(at("port")).map(|port| port.to_string());
        let address = wanted.str(at("address")).or(now.address.as_deref());
        let running = now.address.as_ref().map(|address| joined(address, now.port.map(|port| port.to_string())));
        let asked = address.filter(|_| wanted.str(at("address")).is_some() || port.is_some());
        let asked = asked.map(|address| joined(address, port.or_else(|| now.port.map(|port| port.to_string()))));
        values.extend(asked.filter(|asked| Some(asked) != running.as_ref()).map(|asked| (ServerField::Address, asked)));
        let weight = wanted.int(at("weight")).map(|weight| weight.to_string());
        values.extend(weight.filter(|weight| *weight != now.weight.to_string()).map(|w| (ServerField::Weight, w)));
        let text = |name: &str| wanted.str(at(name)).map(str::to_owned);
        values.extend(text("agent_addr").map(|address| (ServerField::AgentAddress, address)));
        values.extend(text("agent_send").map(|send| (ServerField::AgentSend, send)));
        let check = match wanted.get(at("agent_check")) {
            Some(Value::Bool(on)) => Some(if *on { "on" } else { "off" }.to_owned()),
            _ => None,
        };
        values.extend(check.map(|check| (ServerField::AgentCheck, check)));
    }
    let admin = wanted.enum_number(at("admin_state")).and_then(|number| match number {
        READY => Some(AdminState::Ready),
        MAINT => Some(AdminState::Maint),
        DRAIN => Some(AdminState::Drain),
        _ => None,
    });
    let admin = admin.filter(|admin| durable || *admin != now.admin_state);
    values.extend(admin.map(|admin| (ServerField::State, admin.word().to_owned())));
    values
}

fn joined(address: &str, port: Option<String>) -> String {
    port.map_or_else(|| address.to_owned(), |port| format!("{address}:{port}"))
}

pub(super) async fn delete(context: Context, request: Object) -> Result<Object> {
    let backend = text(&context, "DeleteRuntimeServerRequest", "backend", &request);
    let name = text(&context, "DeleteRuntimeServerRequest", "name", &request);
    context.runtime.server(backend, name).await?;
    context.runtime.delete_server(backend, name).await?;
    Ok(Object::new())
}
