//! Bodies that are written while their messages arrive: arrays, lines, events, bytes. Memory is bounded by one batch.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::Status;

use super::compat;
use super::response::{error_body, write_value};
use crate::error::Error;
use crate::grpc::call::Messages;
use crate::schema::json;
use crate::schema::tables::{FieldIndex, MessageId, Tables};
use crate::schema::value::{Object, Value};

/// Messages that are ready are sent together up to this many bytes.
const BATCH: usize = 32 << 10;

/// How messages become bytes.
#[derive(Debug)]
pub(super) enum Form {
    /// The items of a repeated field of all messages, as one JSON array between a head and a tail.
    Array {
        /// The repeated field.
        field: FieldIndex,
        /// Where it is a field of the one item of another repeated field: that one, and the message of the item.
        within: Option<(FieldIndex, MessageId)>,
        /// Bytes in front of the array.
        head: Vec<u8>,
        /// Bytes behind it.
        tail: &'static [u8],
    },
    /// One JSON value a line.
    Lines(Piece),
    /// One JSON value a server-sent event.
    Events(Piece),
    /// The bytes of a field of all messages.
    Bytes(FieldIndex),
}

/// What of a message is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    /// All of it.
    Message,
    /// One field.
    Field(FieldIndex),
}

/// A body over a stream of messages.
pub(super) struct JsonBody {
    tables: Arc<Tables>,
    output: MessageId,
    form: Form,
    first: Option<Object>,
    messages: Option<Messages>,
    begun: bool,
    items: bool,
}

impl JsonBody {
    /// A body; `first` is a message that was taken from the stream before.
    pub(super) fn new(
        tables: Arc<Tables>,
        output: MessageId,
        form: Form,
        first: Option<Object>,
        messages: Messages,
    ) -> Self {
        JsonBody { tables, output, form, first, messages: Some(messages), begun: false, items: false }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Form::Array { head, .. } = &self.form {
            out.extend_from_slice(head);
            out.push(b'[');
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if let Form::Array { tail, .. } = &self.form {
            out.push(b']');
            out.extend_from_slice(tail);
        }
    }

    fn write(&mut self, object: &Object, out: &mut Vec<u8>) {
        match self.form {
            Form::Array { field, within, .. } => {
                let message = within.map_or(self.output, |(_, message)| message);
                let kind = self.tables.messages[message].fields[field].kind;
                let holder = match within.map(|(items, _)| object.list(items)) {
                    None => object,
                    Some([Value::Object(item)]) => item,
                    Some(_) => return,
                };
                for item in holder.list(field) {
                    if std::mem::replace(&mut self.items, true) {
                        out.push(b',');
                    }
                    write_value(&self.tables, kind, item, out);
                }
            }
            Form::Bytes(field) => {
                if let Some(Value::Bytes(bytes)) = object.get(field) {
                    out.extend_from_slice(bytes);
                }
            }
            Form::Lines(piece) => {
                self.write_piece(piece, object, out);
                out.push(b'\n');
            }
            Form::Events(piece) => {
                let id = self.tables.messages[self.output].field_named(compat::EVENT_ID_FIELD);
                if let Some(id) = id.and_then(|field| object.str(field)).filter(|id| !id.contains(['\r', '\n', '\0'])) {
                    out.extend_from_slice(b"id: ");
                    out.extend_from_slice(id.as_bytes());
                    out.push(b'\n');
                }
                out.extend_from_slice(b"data: ");
                self.write_piece(piece, object, out);
                out.extend_from_slice(b"\n\n");
            }
        }
    }

    fn write_piece(&self, piece: Piece, object: &Object, out: &mut Vec<u8>) {
        match piece {
            Piece::Message => json::write(&self.tables, self.output, object, out),
            Piece::Field(field) => match object.get(field) {
                Some(Value::List(items)) => {
                    let kind = self.tables.messages[self.output].fields[field].kind;
                    out.push(b'[');
                    for (number, item) in items.iter().enumerate() {
                        if number > 0 {
                            out.push(b',');
                        }
                        write_value(&self.tables, kind, item, out);
                    }
                    out.push(b']');
                }
                Some(value) => {
                    write_value(&self.tables, self.tables.messages[self.output].fields[field].kind, value, out);
                }
                None => out.extend_from_slice(b"null"),
            },
        }
    }

    /// Writes an error where the form has a place for one; otherwise the body must break off.
    fn write_error(&mut self, error: &Error, out: &mut Vec<u8>) -> Result<(), Status> {
        let code = error.reason().row().status;
        let body = error_body(code, &compat::message(error));
        match self.form {
            Form::Lines(_) => {
                out.extend_from_slice(b"{\"error\":");
                out.extend_from_slice(&body);
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            Form::Events(_) => {
                out.extend_from_slice(b"event: error\ndata: ");
                out.extend_from_slice(&body);
                out.extend_from_slice(b"\n\n");
                Ok(())
            }
            Form::Array { .. } | Form::Bytes(_) => {
                tracing::warn!(message = error.message(), "answer broken off");
                Err(Status::internal(error.message()))
            }
        }
    }
}

impl Body for JsonBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut out = Vec::new();
        if !std::mem::replace(&mut this.begun, true) {
            this.begin(&mut out);
            if let Some(first) = this.first.take() {
                this.write(&first, &mut out);
            }
        }
        while out.len() < BATCH {
            let Some(messages) = &mut this.messages else { break };
            match messages.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(object))) => this.write(&object, &mut out),
                Poll::Ready(Some(Err(error))) => {
                    this.messages = None;
                    if let Err(broken) = this.write_error(&error, &mut out) {
                        return Poll::Ready(Some(Err(broken)));
                    }
                }
                Poll::Ready(None) => {
                    this.messages = None;
                    this.end(&mut out);
                }
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if out.is_empty() { Poll::Ready(None) } else { Poll::Ready(Some(Ok(Frame::data(out.into())))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Reason, Result};
    use crate::gateway::fixture;
    use http_body_util::BodyExt as _;

    fn output(tables: &Tables, name: &str) -> MessageId {
        tables.message_by_name[&*format!("{}.{name}", fixture::PACKAGE)]
    }

    fn entries(keys: &[&str]) -> Object {
        let mut object = Object::new();
        for key in keys {
            let mut entry = Object::new();
            entry.set(0, Value::Str((*key).into()));
            object.push(0, Value::Object(entry));
        }
        object
    }

    async fn text(
        name: &str,
        form: Form,
        first: Option<Object>,
        rest: Vec<Result<Object>>,
    ) -> std::result::Result<String, Status> {
        let tables = Arc::new(fixture::tables());
        let id = output(&tables, name);
        let body = JsonBody::new(tables, id, form, first, Box::pin(tokio_stream::iter(rest)));
        let bytes = body.collect().await?.to_bytes();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn array() -> Form {
        Form::Array { field: 0, within: None, head: b"{\"data\":".to_vec(), tail: b"}\n" }
    }

    #[tokio::test]
    async fn pieces_of_a_list_become_one_array() {
        let name = "ListEntriesResponse";
        let rest = vec![Ok(entries(&[])), Ok(entries(&["c"])), Ok(entries(&["d", "e"]))];
        let joined = text(name, array(), Some(entries(&["a", "b"])), rest).await.unwrap();
        assert_eq!(
            joined,
            "{\"data\":[{\"key\":\"a\"},{\"key\":\"b\"},{\"key\":\"c\"},{\"key\":\"d\"},{\"key\":\"e\"}]}\n"
        );
        assert_eq!(text(name, array(), None, vec![]).await.unwrap(), "{\"data\":[]}\n");
    }

    #[tokio::test]
    async fn an_array_breaks_off_when_its_source_fails_so_that_nobody_takes_it_for_whole() {
        let failure = || Err(Error::new(Reason::RuntimeUnavailable, "gone"));
        assert!(text("ListEntriesResponse", array(), None, vec![Ok(entries(&["a"])), failure()]).await.is_err());
    }

    #[tokio::test]
    async fn lines_and_events_end_with_the_error() {
        let revision = |number| {
            let mut object = Object::new();
            object.set(0, Value::Int(number));
            Ok(object)
        };
        let rest = || vec![revision(1), revision(2), Err(Error::new(Reason::ObjectNotFound, "table t is gone"))];
        let name = "WatchTableResponse";
        assert_eq!(
            text(name, Form::Lines(Piece::Message), None, rest()).await.unwrap(),
            "{\"revision\":1}\n{\"revision\":2}\n{\"error\":{\"code\":404,\"message\":\"missing object: table t is gone\"}}\n"
        );
        assert_eq!(
            text(name, Form::Events(Piece::Field(0)), None, rest()).await.unwrap(),
            "data: 1\n\ndata: 2\n\nevent: error\ndata: {\"code\":404,\"message\":\"missing object: table t is gone\"}\n\n"
        );
    }

    #[tokio::test]
    async fn batches_stay_small_however_fast_the_source_is() {
        let tables = Arc::new(fixture::tables());
        let id = output(&tables, "ListEntriesResponse");
        let rest = (0..20_000).map(|number| Ok(entries(&[&format!("key{number}")])));
        let mut body = JsonBody::new(tables, id, array(), None, Box::pin(tokio_stream::iter(rest)));
        while let Some(frame) = body.frame().await {
            assert!(frame.unwrap().into_data().unwrap().len() < 2 * BATCH);
        }
    }
}
