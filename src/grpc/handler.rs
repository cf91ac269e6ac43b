//! The generic handler: a path names a row of the method table, the row says how to decode, the seam does the work.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::call::{Answer, Api, Call, Messages, PIECE, Transport, Upload};
use super::frame::{self, Single, Source, Streamed};
use super::memory::Memory;
use super::status::status;
use super::stop::until_ended;
use super::warning;
use crate::auth::Session;
use crate::error::{Error, Reason, Result, Violation};
use crate::schema::tables::{Field, Kind, Method, MethodId, Tables, Verb};
use crate::schema::value::{Object, Value};
use crate::schema::{check, wire};

/// Serves every method of the table over gRPC.
pub struct Handler {
    tables: Arc<Tables>,
    api: Arc<dyn Api>,
    stop: CancellationToken,
}

impl Handler {
    /// A handler for all methods of the table. Streams end when `stop` is cancelled.
    pub fn new(tables: Arc<Tables>, api: Arc<dyn Api>, stop: CancellationToken) -> Self {
        Handler { tables, api, stop }
    }

    /// Answers one call. Errors are answers too.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let mut response = self.answer(request).await.unwrap_or_else(|error| refused(&error));
        warning::add(response.headers_mut(), &self.api.warnings());
        response
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Display,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let id = *self.tables.method_by_path.get(path).ok_or_else(|| unknown_method(path))?;
        let method = &self.tables.methods[id];
        identity_only(&head.headers)?;
        let deadline = timeout(&head.headers)?.map(|timeout| tokio::time::Instant::now() + timeout);
        let session = head.extensions.get::<Session>().cloned().unwrap_or_default();
        let mut room = head.extensions.get::<Memory>().cloned().unwrap_or_default().lease();
        let work = async {
            let message = frame::read_message(body, &mut room).await?;
            let (request, upload) = self.decode(method, message)?;
            let violations = violations(&self.tables, method, &request);
            if !violations.iter().all(|violation| is_doubt(&self.tables, method, violation)) {
                return Err(Error::invalid(violations));
            }
            let caller = session.user().map(Into::into);
            let transport = Transport::Grpc;
            self.api
                .call(Call { method: id, request, transport, caller, upload, doubts: violations, is_json: false })
                .await
        };
        let answer = match deadline {
            None => work.await?,
            Some(deadline) => {
                tokio::time::timeout_at(deadline, work).await.map_err(|_| frame::deadline_exceeded())??
            }
        };
        let body = match answer {
            Answer::Message(object) if !method.streaming => {
                let mut bytes = Vec::with_capacity(256);
                frame::append(&self.tables, method.output, &object, &mut bytes)?;
                Body::new(Single::new(bytes.into()))
            }
            Answer::Message(object) => self.streamed(id, Box::pin(tokio_stream::once(Ok(object))), &session, deadline),
            Answer::Stream(messages) if method.streaming => self.streamed(id, messages, &session, deadline),
            Answer::Written(messages) if method.streaming => {
                let messages = Source::Written(until_ended(messages, &self.stop, &session));
                self.body(id, messages, deadline)
            }
            Answer::Written(message) => Body::new(Single::new(frame::whole(message).await?.into())),
            Answer::Stream(_) => {
                return Err(Error::internal(format!("{path} answered a stream over gRPC")));
            }
        };
        Ok(response(body))
    }

    /// The request; of a method that takes a list in pieces, a long one apart from it.
    fn decode(&self, method: &Method, message: Bytes) -> Result<(Object, Option<Upload>)> {
        let fields = &self.tables.messages[method.input].fields;
        let handed_on = |field: &Field| method.http.iter().any(|rule| rule.body == field.name);
        let is_list = |field: &Field| field.repeated && matches!(field.kind, Kind::Message(_)) && handed_on(field);
        let list = fields.iter().position(is_list);
        let Some(field) = list.filter(|_| method.upload && message.len() > PIECE) else {
            return Ok((wire::decode(&self.tables, method.input, &message)?, None));
        };
        let (rest, pieces) = wire::split(&message, fields[field].number, PIECE)?;
        let request = wire::decode(&self.tables, method.input, &rest)?;
        let (tables, input) = (Arc::clone(&self.tables), method.input);
        let sound = move |piece: Bytes| {
            let read = wire::decode(&tables, input, &piece)?;
            let mut violations = check::check(&tables, input, &read, "body");
            let name = &tables.messages[input].fields[field].json;
            violations.retain(|violation| inside(&violation.field, name));
            if violations.is_empty() { Ok(piece) } else { Err(Error::invalid(violations)) }
        };
        let chunks = Box::pin(tokio_stream::iter(pieces.into_iter().map(sound)));
        Ok((request, Some(Upload { field, chunks })))
    }

    fn streamed(
        &self,
        id: MethodId,
        messages: Messages,
        session: &Session,
        deadline: Option<tokio::time::Instant>,
    ) -> Body {
        self.body(id, Source::Objects(until_ended(messages, &self.stop, session)), deadline)
    }

    fn body(&self, id: MethodId, messages: Source, deadline: Option<tokio::time::Instant>) -> Body {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Body::new(Streamed::new(self.tables.clone(), self.tables.methods[id].output, messages, deadline))
    }
}

/// Number of the field of a request that holds the resource itself.
const RESOURCE: u32 = 6;

/// Broken rules of a request, with paths as the caller sent them.
///
/// The fields of an Update are checked by its service once they are merged: those that are not named need not be there.
fn violations(tables: &Tables, method: &Method, request: &Object) -> Vec<Violation> {
    if let Some(resource) = updated_field(tables, method)
        && let Some(Value::Object(_)) = request.get(resource)
    {
        let mut addressing = request.clone();
        addressing.set(resource, Value::Object(Object::new()));
        let name = &tables.messages[method.input].fields[resource].json;
        let mut found = check::check(tables, method.input, &addressing, "body");
        found.retain(|violation| !inside(&violation.field, name));
        return found;
    }
    check::check(tables, method.input, request, "body")
}

/// True for a rule that the object of a Replace breaks: what is left as it was may break it, which its service looks at.
fn is_doubt(tables: &Tables, method: &Method, violation: &Violation) -> bool {
    let (Verb::Replace, Some(resource)) = (method.verb, method.resource) else { return false };
    let input = &tables.messages[method.input];
    let field = input.fields.iter().find(|field| field.kind == Kind::Message(resource) && !field.repeated);
    field.is_some_and(|field| inside(&violation.field, &field.json))
}

fn inside(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// The request field that holds the resource itself, of an Update.
fn updated_field(tables: &Tables, method: &Method) -> Option<usize> {
    let input = &tables.messages[method.input];
    if let (Verb::Update, Some(resource)) = (method.verb, method.resource) {
        let resource = Kind::Message(resource);
        return input.fields.iter().position(|field| field.kind == resource && !field.repeated);
    }
    // A method written by hand.
    input.field_named("update_mask")?;
    input.fields.iter().position(|field| field.number == RESOURCE)
}

/// A response that carries nothing but a status.
pub fn refused(error: &Error) -> Response<Body> {
    status(error).into_http()
}

/// The answer to a path that is no method.
pub fn unknown_method(path: &str) -> Error {
    Error::new(Reason::Unsupported, format!("method {path} is not known"))
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    response
}

fn identity_only(headers: &HeaderMap) -> Result<()> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => Err(Error::new(
            Reason::Unsupported,
            format!("grpc-encoding {} is not supported, send identity", String::from_utf8_lossy(encoding.as_bytes())),
        )),
        _ => Ok(()),
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let parse = || {
        let text = value.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    match parse() {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Error::new(
            Reason::MalformedRequest,
            "grpc-timeout should be one to eight digits and one of the units H M S m u n",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_in_every_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(read("2H").unwrap(), Some(Duration::from_hours(2)));
        assert_eq!(read("99999999M").unwrap(), Some(Duration::from_mins(99_999_999)));
        assert_eq!(read("150m").unwrap(), Some(Duration::from_millis(150)));
        assert_eq!(read("7n").unwrap(), Some(Duration::from_nanos(7)));
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
        for odd in ["", "S", "1", "123456789S", "1s", "+1S", "1.5S"] {
            assert_eq!(read(odd).unwrap_err().reason(), Reason::MalformedRequest, "{odd}");
        }
    }
}
