//! Services that answer by the name of the method.

use std::sync::{Arc, Mutex};

use crate::configuration::ports::Pending;
use crate::error::{Error, Reason, Result};
use crate::grpc::call::{Answer, Api, Call, Messages, Transport};
use crate::schema::tables::{MessageId, Tables};
use crate::schema::value::{Object, Value};

pub(super) struct Fake {
    tables: Arc<Tables>,
    /// What was called, as `Method request`.
    pub(super) calls: Mutex<Vec<String>>,
    /// Streams that are open.
    pub(super) open: Arc<()>,
}

impl Fake {
    pub(super) fn new(tables: Arc<Tables>) -> Self {
        Fake { tables, calls: Mutex::new(Vec::new()), open: Arc::new(()) }
    }

    pub(super) fn last(&self) -> String {
        self.calls.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn build(&self, id: MessageId, fields: &[(&str, Value)]) -> Object {
        let mut object = Object::new();
        for (name, value) in fields {
            object.set(self.tables.messages[id].field_named(name).unwrap(), value.clone());
        }
        object
    }

    fn backend(&self, name: &str) -> Value {
        let id = self.tables.message_by_name["backstay.test.v2.Backend"];
        Value::Object(self.build(id, &[("name", text(name)), ("weight", Value::Int(5))]))
    }

    fn answer(&self, call: &Call) -> Result<Answer> {
        let method = &self.tables.methods[call.method];
        let input = &self.tables.messages[method.input];
        let field = |name: &str| input.field_named(name).and_then(|at| call.request.get(at)).cloned();
        let name = match field("name") {
            Some(Value::Str(name)) => name,
            _ => Box::default(),
        };
        let output = method.output;
        let message = |fields: &[(&str, Value)]| Ok(Answer::Message(self.build(output, fields)));
        let messages = |list: Vec<Result<Object>>| -> Messages { Box::pin(tokio_stream::iter(list)) };
        match method.path.rsplit('/').next().unwrap() {
            "ListBackends" if call.transport == Transport::Rest => {
                let piece = |names: &[&str]| {
                    let list = Value::List(names.iter().map(|name| self.backend(name)).collect());
                    Ok(self.build(output, &[("version", Value::Int(7)), ("backends", list)]))
                };
                Ok(Answer::Stream(messages(vec![piece(&["a", "b"]), piece(&["c"])])))
            }
            "ListBackends" => {
                message(&[("version", Value::Int(7)), ("backends", Value::List(vec![self.backend("a")]))])
            }
            "GetBackend" if &*name == "missing" => {
                let error = Error::new(Reason::ObjectNotFound, "backend missing does not exist");
                Err(error.with("type", "backend").with("name", "missing"))
            }
            "GetBackend" if &*name == "panic" => panic!("as the test wants it"),
            "GetBackend" if &*name == "broken" => Err(Error::internal("/secret/path")),
            "GetBackend" if &*name == "large" => {
                let mut object = self.build(output, &[]);
                object.set(1, self.backend(&"x".repeat(17 << 20)));
                Ok(Answer::Message(object))
            }
            "GetBackend" => message(&[("version", Value::Int(7)), ("backend", self.backend(&name))]),
            "CreateBackend" | "ReplaceBackend" | "DeleteBackend" | "UpdateBackend" | "ReplaceServer" => {
                match field("version") {
                    Some(Value::Int(7)) | None => {}
                    Some(_) => {
                        let text = "version in configuration file is 7, given version is 6";
                        return Err(Error::new(Reason::VersionMismatch, text).with("expected", 6).with("actual", 7));
                    }
                }
                if field("version").is_none() && field("transaction_id").is_none() {
                    let text = "version or transaction not specified, specify only one";
                    return Err(Error::new(Reason::TargetMissing, text));
                }
                let mut fields = vec![("version", Value::Int(8))];
                fields.extend(field("backend").or(field("server")).map(|item| ("item", item)));
                // Nothing to reload when the name says so.
                if field("force_reload").is_none() && field("version").is_some() && &*name != "same" {
                    fields.push(("reload_id", text("2024-01-01-1")));
                }
                message(&fields)
            }
            "GetVersion" => message(&[("version", Value::Int(7))]),
            "Commit" if field("id") == Some(text("gone")) => {
                Err(Error::new(Reason::TransactionNotFound, "transaction gone does not exist"))
            }
            "Commit" => message(&[("id", field("id").unwrap()), ("reload_id", text("2024-01-01-2"))]),
            "GetTable" => message(&[("name", text(&name))]),
            "WatchTable" if &*name == "missing" => {
                let error = Error::new(Reason::ObjectNotFound, "table missing does not exist");
                Ok(Answer::Stream(messages(vec![Err(error)])))
            }
            "WatchTable" if &*name == "endless" => {
                let open = self.open.clone();
                let first = Ok(self.build(output, &[("revision", Value::Int(1))]));
                let mut first = Some(first);
                let endless = futures_util::stream::poll_fn(move |_| {
                    assert!(Arc::strong_count(&open) > 1);
                    first.take().map_or(std::task::Poll::Pending, |first| std::task::Poll::Ready(Some(first)))
                });
                Ok(Answer::Stream(Box::pin(endless)))
            }
            "WatchTable" => {
                let revisions = (1..=3).map(|number| Ok(self.build(output, &[("revision", Value::Int(number))])));
                Ok(Answer::Stream(messages(revisions.collect())))
            }
            "ListEntries" => Ok(Answer::Stream(messages(vec![Ok(Object::new())]))),
            "AddEntries" => message(&[("count", Value::Int(2))]),
            "UploadMap" => message(&[("storage_name", field("storage_name").unwrap_or(text("none")))]),
            "ExportMap" => {
                let piece = |data: &'static [u8]| {
                    Ok(self.build(output, &[("data", Value::Bytes(bytes::Bytes::from_static(data)))]))
                };
                Ok(Answer::Stream(messages(vec![piece(b"a 1\n"), piece(b"b \xff\n")])))
            }
            "DeleteMap" => message(&[]),
            "PushRaw" => message(&[
                ("data", field("data").unwrap()),
                ("configuration_checksum", text("abc")),
                ("reload_id", text("2024-01-01-3")),
            ]),
            other => Err(Error::internal(format!("{other} has no answer"))),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

impl Api for Fake {
    fn call(&self, call: Call) -> Pending<'_, Result<Answer>> {
        let method = &self.tables.methods[call.method];
        let mut json = Vec::new();
        crate::schema::json::write(&self.tables, method.input, &call.request, &mut json);
        let name = method.path.rsplit('/').next().unwrap();
        self.calls.lock().unwrap().push(format!("{name} {}", String::from_utf8(json).unwrap()));
        Box::pin(async move {
            let slow = self.last().contains("\"slow\"");
            if slow {
                std::future::pending::<()>().await;
            }
            self.answer(&call)
        })
    }
}
