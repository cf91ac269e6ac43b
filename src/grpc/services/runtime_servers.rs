//! Servers as they run.

use super::Context;
use super::runtime_overrides::writer;
use crate::error::{Reason, Result};
use crate::grpc::call::Transport;
use crate::overrides::{ServerField, Write};
use crate::proto::fields::runtime::{self as fields, runtime_server};
use crate::proto::runtime as pb;
use crate::proto::values::runtime::{admin_state, operational_state};
use crate::runtime::{AdminState, OperationalState, ServerState};
use crate::schema::tables::FieldIndex;
use crate::schema::value::{Object, Value};

fn text(request: &Object, field: FieldIndex) -> &str {
    request.str(field).unwrap_or_default()
}

fn object(state: &ServerState) -> Object {
    let mut out = Object::new();
    let mut set = |field: FieldIndex, value: Value| out.set(field, value);
    if let Some(address) = &state.address {
        set(runtime_server::ADDRESS, Value::Str(address.as_str().into()));
    }
    set(runtime_server::ADMIN_STATE, Value::Enum(admin_number(state.admin_state)));
    set(runtime_server::ID, Value::Str(state.id.as_str().into()));
    set(runtime_server::NAME, Value::Str(state.name.as_str().into()));
    set(runtime_server::OPERATIONAL_STATE, Value::Enum(operational_number(state.operational_state)));
    if let Some(port) = state.port {
        set(runtime_server::PORT, Value::Int(i64::from(port)));
    }
    set(runtime_server::WEIGHT, Value::Int(i64::from(state.weight)));
    out
}

fn admin_number(state: AdminState) -> i32 {
    match state {
        AdminState::Ready => admin_state::READY,
        AdminState::Maint => admin_state::MAINT,
        AdminState::Drain => admin_state::DRAIN,
    }
}

fn operational_number(state: OperationalState) -> i32 {
    match state {
        OperationalState::Up => operational_state::UP,
        OperationalState::Down => operational_state::DOWN,
        OperationalState::Stopping => operational_state::STOPPING,
    }
}

fn answer(field: FieldIndex, value: Value) -> Object {
    let mut out = Object::new();
    out.set(field, value);
    out
}

pub(super) async fn list(context: Context, request: Object) -> Result<Object> {
    let backend = text(&request, fields::list_runtime_servers_request::BACKEND);
    let servers = match context.runtime.servers(backend).await {
        Ok(servers) => servers,
        Err(error) if error.reason() == Reason::ParentNotFound && context.transport == Transport::Rest => Vec::new(),
        Err(error) => return Err(error),
    };
    if servers.is_empty() {
        return Ok(Object::new());
    }
    let servers = servers.iter().map(|state| Value::Object(object(state))).collect();
    Ok(answer(fields::list_runtime_servers_response::SERVERS, Value::List(servers)))
}

pub(super) async fn get(context: Context, request: Object) -> Result<Object> {
    let backend = text(&request, fields::get_runtime_server_request::BACKEND);
    let name = text(&request, fields::get_runtime_server_request::NAME);
    let state = context.runtime.server(backend, name).await?;
    Ok(answer(fields::get_runtime_server_response::SERVER, Value::Object(object(&state))))
}

pub(super) async fn add(context: Context, request: Object) -> Result<Object> {
    let backend = text(&request, fields::add_runtime_server_request::BACKEND);
    let server = request.object(fields::add_runtime_server_request::SERVER).cloned().unwrap_or_default();
    context.runtime.carry_out(&context.engine.server_addition(backend, &server)?).await?;
    Ok(answer(fields::add_runtime_server_response::SERVER, Value::Object(server)))
}

pub(super) async fn set(context: Context, request: Object) -> Result<Object> {
    let backend = text(&request, fields::set_runtime_server_request::BACKEND);
    let name = text(&request, fields::set_runtime_server_request::NAME);
    let wanted = request.object(fields::set_runtime_server_request::SERVER).cloned().unwrap_or_default();
    let health = wanted.enum_number(runtime_server::OPERATIONAL_STATE).and_then(|number| match number {
        operational_state::UP => Some(OperationalState::Up),
        operational_state::DOWN => Some(OperationalState::Down),
        operational_state::STOPPING => Some(OperationalState::Stopping),
        _ => None,
    });
    let now = match health {
        Some(_) => Some(context.runtime.set_server_states(backend, name, health, None).await?),
        None if is_compared(&context, &wanted) => Some(context.runtime.server(backend, name).await?),
        None => None,
    };
    let persistence = request.enum_number(fields::set_runtime_server_request::PERSISTENCE);
    let persistence = persistence.and_then(|number| pb::Persistence::try_from(number).ok()).unwrap_or_default();
    let writer = writer(&context, persistence, false);
    let mut state = None;
    for (field, value) in values(&context, &wanted, now.as_ref()) {
        let write = Write::Server(backend.to_owned(), name.to_owned(), field, value);
        state = context.overrides.write(write, &writer).await?;
    }
    let state = match state {
        Some(state) => state,
        None => context.runtime.server(backend, name).await?,
    };
    Ok(answer(fields::set_runtime_server_response::SERVER, Value::Object(object(&state))))
}

/// Whether something is to be set that is compared with what the server has.
fn is_compared(context: &Context, wanted: &Object) -> bool {
    let compared = [runtime_server::ADDRESS, runtime_server::PORT, runtime_server::WEIGHT];
    context.transport == Transport::Grpc && compared.into_iter().any(|field| wanted.get(field).is_some())
}

/// What is to be set that differs, in the order in which it is set. REST knows states only. A state is set also where the
/// server has it: that may be for the time being.
fn values(context: &Context, wanted: &Object, now: Option<&ServerState>) -> Vec<(ServerField, String)> {
    let mut values = Vec::new();
    if context.transport == Transport::Grpc {
        let port = wanted.int(runtime_server::PORT).map(|port| port.to_string());
        let has_address = now.and_then(|now| now.address.as_deref());
        let has_port = || now.and_then(|now| now.port).map(|port| port.to_string());
        let address = wanted.str(runtime_server::ADDRESS).or(has_address);
        let running = has_address.map(|address| joined(address, has_port()));
        let asked = address.filter(|_| wanted.str(runtime_server::ADDRESS).is_some() || port.is_some());
        let asked = asked.map(|address| joined(address, port.or_else(has_port)));
        values.extend(asked.filter(|asked| Some(asked) != running.as_ref()).map(|asked| (ServerField::Address, asked)));
        let weight = wanted.int(runtime_server::WEIGHT).map(|weight| weight.to_string());
        let has_weight = now.map(|now| now.weight.to_string());
        values.extend(weight.filter(|weight| Some(weight) != has_weight.as_ref()).map(|w| (ServerField::Weight, w)));
        let text = |field: FieldIndex| wanted.str(field).map(str::to_owned);
        values.extend(text(runtime_server::AGENT_ADDR).map(|address| (ServerField::AgentAddress, address)));
        values.extend(text(runtime_server::AGENT_SEND).map(|send| (ServerField::AgentSend, send)));
        let check = match wanted.get(runtime_server::AGENT_CHECK) {
            Some(Value::Bool(on)) => Some(if *on { "on" } else { "off" }.to_owned()),
            _ => None,
        };
        values.extend(check.map(|check| (ServerField::AgentCheck, check)));
    }
    let admin = wanted.enum_number(runtime_server::ADMIN_STATE).and_then(|number| match number {
        admin_state::READY => Some(AdminState::Ready),
        admin_state::MAINT => Some(AdminState::Maint),
        admin_state::DRAIN => Some(AdminState::Drain),
        _ => None,
    });
    values.extend(admin.map(|admin| (ServerField::State, admin.word().to_owned())));
    values
}

fn joined(address: &str, port: Option<String>) -> String {
    port.map_or_else(|| address.to_owned(), |port| format!("{address}:{port}"))
}

pub(super) async fn delete(context: Context, request: Object) -> Result<Object> {
    let backend = text(&request, fields::delete_runtime_server_request::BACKEND);
    let name = text(&request, fields::delete_runtime_server_request::NAME);
    context.runtime.server(backend, name).await?;
    context.runtime.delete_server(backend, name).await?;
    Ok(Object::new())
}
