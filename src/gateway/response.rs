//! Answers of services as HTTP responses: status, envelope, headers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio_stream::StreamExt as _;
use tonic::body::Body;

use super::compat;
use super::routes::Route;
use super::stream::{Form, JsonBody, Piece};
use crate::error::{Error, Result};
use crate::grpc::call::{Answer, Messages};
use crate::grpc::warning;
use crate::schema::json;
use crate::schema::tables::{FieldIndex, Kind, MessageType, Method, Tables, Verb};
use crate::schema::value::{Object, Value};

/// How long the head of a watch waits for its first message, which may turn out to be an error with its own status.
const FIRST_MESSAGE: Duration = Duration::from_secs(1);

/// `application/json`.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// `application/octet-stream`.
pub const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What of a response message is the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `{"_version":N,"data":...}` around a field.
    Envelope(FieldIndex),
    /// `{"data":...}` around a field.
    Data(FieldIndex),
    /// The value of a field.
    Field(FieldIndex),
    /// The bytes of a field.
    Bytes(FieldIndex),
    /// The message.
    Whole,
    /// Nothing.
    Nothing,
}

impl Shape {
    fn of(tables: &Tables, method: &Method, route: &Route) -> Self {
        let output = &tables.messages[method.output];
        if &*route.rule.method == "DELETE" {
            return Shape::Nothing;
        }
        if let Some(field) = route.response {
            if compat::is_in_data(&route.rule.path, &route.rule.method) {
                return Shape::Data(field);
            }
            // A download is a GET; elsewhere text is a JSON string.
            let bytes = output.fields[field].kind == Kind::Bytes
                && !output.fields[field].repeated
                && &*route.rule.method == "GET";
            return if bytes { Shape::Bytes(field) } else { Shape::Field(field) };
        }
        if compat::answers_nothing(&route.rule.path, method.verb) {
            return Shape::Nothing;
        }
        // A message of these two is an envelope already.
        if let Some(data) = output.field_named("data")
            && output.fields.iter().any(|field| &*field.json == "_version")
        {
            return Shape::Envelope(data);
        }
        let resource = method.resource.map(Kind::Message);
        let holder = output.fields.iter().position(|field| Some(field.kind) == resource);
        match (method.verb, holder) {
            (Verb::List | Verb::Get, Some(field)) => Shape::Envelope(field),
            (Verb::Create | Verb::Replace | Verb::Update, Some(field)) => Shape::Field(field),
            (Verb::Delete, _) => Shape::Nothing,
            _ if output.fields.iter().all(|field| matches!(&*field.name, "reload_id" | "version" | "warnings")) => {
                Shape::Nothing
            }
            _ => Shape::Whole,
        }
    }
}

/// Media types that a route can answer with.
pub fn media_types(tables: &Tables, method: &Method, route: &Route) -> &'static [&'static str] {
    match Shape::of(tables, method, route) {
        Shape::Bytes(_) => &["application/octet-stream", "application/json", "text/plain"],
        _ if method.streaming => &["application/x-ndjson", "text/event-stream", "application/json"],
        _ => &["application/json"],
    }
}

/// What of the request decides about the response.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is another fact of the request")]
pub struct Facts {
    /// It works in a transaction.
    pub transaction: bool,
    /// It asked for a reload at once.
    pub force_reload: bool,
    /// It only asked whether it would work.
    pub validate_only: bool,
    /// The client wants server-sent events.
    pub events: bool,
    /// Status that replaces the method's own.
    pub status: Option<u16>,
}

/// The response to an answer. Fails when a stream fails before its first message.
pub async fn respond(
    tables: &Arc<Tables>,
    method: &Method,
    route: &Route,
    facts: Facts,
    answer: Answer,
) -> Result<Response<Body>> {
    let shape = Shape::of(tables, method, route);
    match answer {
        Answer::Message(mut object) => {
            let mut headers = HeaderMap::new();
            let status = status(tables, method, facts, &mut object, &mut headers);
            let (kind, bytes) = message_body(tables, method, shape, status, &object);
            Ok(response(status, headers, kind, Body::new(Full::new(bytes))))
        }
        Answer::Stream(messages) if method.streaming && !matches!(shape, Shape::Bytes(_)) => {
            watch(tables, method, shape, facts, messages).await
        }
        Answer::Written(_) => Err(Error::internal("an answer in the form of the wire over REST")),
        Answer::Stream(mut messages) => {
            let first = messages.next().await.transpose()?.unwrap_or_default();
            Ok(joined(tables, method, route, shape, first, messages))
        }
    }
}

/// The answer to a list below a parent that does not exist.
pub fn empty_list(tables: &Tables, method: &Method, route: &Route, version: i64) -> Response<Body> {
    let shape = Shape::of(tables, method, route);
    let mut object = Object::new();
    if let Some(field) = tables.messages[method.output].field_named("version") {
        object.set(field, Value::Int(version));
    }
    let (kind, bytes) = message_body(tables, method, shape, StatusCode::OK, &object);
    response(StatusCode::OK, HeaderMap::new(), kind, Body::new(Full::new(bytes)))
}

fn response(status: StatusCode, headers: HeaderMap, kind: Option<HeaderValue>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// The texts of a list, which is no part of the body.
fn take_list(output: &MessageType, object: &mut Object, name: &str) -> Vec<String> {
    let Some(Value::List(items)) = output.field_named(name).and_then(|field| object.take(field)) else {
        return Vec::new();
    };
    items
        .into_iter()
        .filter_map(|item| if let Value::Str(text) = item { Some(text.to_string()) } else { None })
        .collect()
}

/// Status of success, with the headers that belong to it. Takes the fields that became headers out of the message.
fn status(tables: &Tables, method: &Method, facts: Facts, object: &mut Object, headers: &mut HeaderMap) -> StatusCode {
    let output = &tables.messages[method.output];
    warning::add(headers, &take_list(output, object, "warnings"));
    let mut take = |name: &str| {
        let field = output.field_named(name)?;
        let Some(Value::Str(text)) = object.take(field) else { return None };
        (!text.is_empty()).then_some(text)
    };
    let reload = take("reload_id");
    for (field, header) in compat::HEADER_FIELDS {
        if let Some(value) = take(field).and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(HeaderName::from_static(header), value);
        }
    }
    let done = match (method.status, method.verb) {
        (0, Verb::Create) => 201,
        (0, Verb::Delete) => 204,
        (0, _) => 200,
        (status, _) => status,
    };
    let changes = matches!(method.verb, Verb::Create | Verb::Replace | Verb::Update | Verb::Delete);
    let pending = reload.filter(|_| !facts.force_reload);
    if let Some(value) = pending.as_ref().and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert(HeaderName::from_static("reload-id"), value);
    }
    let code = match facts.status {
        Some(status) => status,
        None if facts.validate_only => 200,
        None if facts.transaction && changes || pending.is_some() => 202,
        None => done,
    };
    StatusCode::from_u16(code).unwrap_or(StatusCode::OK)
}

fn message_body(
    tables: &Tables,
    method: &Method,
    shape: Shape,
    status: StatusCode,
    object: &Object,
) -> (Option<HeaderValue>, Bytes) {
    if status == StatusCode::NO_CONTENT {
        return (None, Bytes::new());
    }
    let mut out = Vec::with_capacity(256);
    match shape {
        Shape::Nothing => return (None, Bytes::new()),
        Shape::Bytes(field) => {
            let bytes = match object.get(field) {
                Some(Value::Bytes(bytes)) => bytes.clone(),
                _ => Bytes::new(),
            };
            return (Some(OCTETS), bytes);
        }
        Shape::Envelope(field) => {
            out.extend_from_slice(&envelope_head(tables, method, object));
            write_field(tables, method, field, object, &mut out);
            out.push(b'}');
        }
        Shape::Data(field) => {
            out.extend_from_slice(b"{\"data\":");
            write_field(tables, method, field, object, &mut out);
            out.push(b'}');
        }
        Shape::Field(field) => write_field(tables, method, field, object, &mut out),
        Shape::Whole => json::write(tables, method.output, object, &mut out),
    }
    out.push(b'\n');
    (Some(JSON), out.into())
}

fn envelope_head(tables: &Tables, method: &Method, object: &Object) -> Vec<u8> {
    let version = tables.messages[method.output].field_named("version").and_then(|field| object.int(field));
    format!("{{\"_version\":{},\"data\":", version.unwrap_or(0)).into_bytes()
}

/// Writes the value of a field, or what an absent one stands for.
fn write_field(tables: &Tables, method: &Method, at: FieldIndex, object: &Object, out: &mut Vec<u8>) {
    let field = &tables.messages[method.output].fields[at];
    match object.get(at) {
        Some(Value::List(items)) => {
            out.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                write_value(tables, field.kind, item, out);
            }
            out.push(b']');
        }
        Some(value) => write_value(tables, field.kind, value, out),
        None => out.extend_from_slice(match field.kind {
            _ if field.repeated => compat::empty_list_body(tables, field),
            Kind::Message(_) => b"{}",
            Kind::Bool => b"false",
            Kind::Int32 | Kind::Int64 | Kind::Double => b"0",
            Kind::String | Kind::Bytes | Kind::Enum(_) => b"\"\"",
        }),
    }
}

/// Writes one value, not a list.
pub(super) fn write_value(tables: &Tables, kind: Kind, value: &Value, out: &mut Vec<u8>) {
    match (value, kind) {
        (Value::Object(object), Kind::Message(id)) => json::write(tables, id, object, out),
        (Value::Bool(value), _) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        (Value::Int(number), _) => out.extend_from_slice(number.to_string().as_bytes()),
        (Value::Double(number), _) => write_json(number, out),
        (Value::Str(text), _) => write_json(text, out),
        (Value::Bytes(bytes), _) => write_json(&String::from_utf8_lossy(bytes), out),
        (Value::Enum(number), Kind::Enum(id)) => match tables.enums[id].value(*number) {
            Some(value) => write_json(&value.token, out),
            None if *number == 0 => write_json("", out),
            None => out.extend_from_slice(number.to_string().as_bytes()),
        },
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    let start = out.len();
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

/// A list or a file that comes in pieces, as one body.
fn joined(
    tables: &Arc<Tables>,
    method: &Method,
    route: &Route,
    shape: Shape,
    first: Object,
    messages: Messages,
) -> Response<Body> {
    let output = method.output;
    let (kind, form) = match shape {
        Shape::Bytes(field) => (OCTETS, Form::Bytes(field)),
        Shape::Field(field) => match compat::list_in_parts(&route.rule.path) {
            Some(list) => (JSON, in_parts(tables, method, (field, list), &first)),
            None => (JSON, Form::Array { field, within: None, head: Vec::new(), tail: b"\n" }),
        },
        Shape::Envelope(field) => {
            let head = envelope_head(tables, method, &first);
            (JSON, Form::Array { field, within: None, head, tail: b"}\n" })
        }
        Shape::Data(_) | Shape::Whole | Shape::Nothing => (JSON, Form::Lines(Piece::Message)),
    };
    let body = JsonBody::new(tables.clone(), output, form, Some(first), messages);
    let status = StatusCode::from_u16(method.status).unwrap_or(StatusCode::OK);
    response(status, HeaderMap::new(), Some(kind), Body::new(body))
}

/// A list of one item, whose last field is a list that comes in parts; at least one.
fn in_parts(tables: &Tables, method: &Method, (items, list): (FieldIndex, &str), first: &Object) -> Form {
    let mut form = Form::Array { field: items, within: None, head: Vec::new(), tail: b"\n" };
    let Kind::Message(inner) = tables.messages[method.output].fields[items].kind else { return form };
    if let (Some(field), [Value::Object(item)]) = (tables.messages[inner].field_named(list), first.list(items)) {
        let mut alone = item.clone();
        alone.take(field);
        let mut head = vec![b'['];
        json::write(tables, inner, &alone, &mut head);
        head.pop();
        head.extend_from_slice(if head.ends_with(b"{") { b"\"" } else { b",\"" });
        head.extend_from_slice(tables.messages[inner].fields[field].json.as_bytes());
        head.extend_from_slice(b"\":");
        form = Form::Array { field, within: Some((items, inner)), head, tail: b"}]\n" };
    }
    form
}

/// A watch: one message a line, or one an event.
async fn watch(
    tables: &Arc<Tables>,
    method: &Method,
    shape: Shape,
    facts: Facts,
    mut messages: Messages,
) -> Result<Response<Body>> {
    let first = match tokio::time::timeout(FIRST_MESSAGE, messages.next()).await {
        Ok(Some(first)) => Some(first?),
        Ok(None) | Err(_) => None,
    };
    let piece = match shape {
        Shape::Field(field) => Piece::Field(field),
        _ => Piece::Message,
    };
    let (kind, form) = if facts.events { (EVENTS, Form::Events(piece)) } else { (LINES, Form::Lines(piece)) };
    let body = JsonBody::new(tables.clone(), method.output, form, first, messages);
    let mut response = response(StatusCode::OK, HeaderMap::new(), Some(kind), Body::new(body));
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that buffer would hold the stream back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// The body of an error: `{"code":..,"message":..}`.
pub fn error_body(code: u16, message: &str) -> Bytes {
    let mut out = format!("{{\"code\":{code},\"message\":").into_bytes();
    write_json(message, &mut out);
    out.push(b'}');
    out.into()
}

/// A refusal by the gateway itself.
pub fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    let body = Body::new(Full::new(error_body(status.as_u16(), message)));
    response(status, HeaderMap::new(), Some(JSON), body)
}

/// The response to an error at a route.
pub fn error_response(method: &http::Method, path: &str, error: &Error) -> Response<Body> {
    if let Some(context) = error.context_text() {
        tracing::warn!(reason = error.reason().row().name, message = error.message(), context, "request failed");
    }
    let answer = compat::answer(method, path, error);
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if answer.empty {
        return response(status, HeaderMap::new(), None, Body::empty());
    }
    let body = Body::new(Full::new(error_body(answer.code, &compat::message(error))));
    response(status, HeaderMap::new(), Some(JSON), body)
}
