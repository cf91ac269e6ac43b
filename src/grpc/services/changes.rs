//! The line of the log for a change of the configuration: who made it, what it was, and the version that came of it.

use crate::grpc::call::{Answer, Call};
use crate::schema::tables::{MessageId, Tables};
use crate::schema::value::{Object, Value};

/// Numbers of the fields that say what a request is about: the object's address, and the object itself.
const ADDRESS: std::ops::RangeInclusive<u32> = 1..=5;
const RESOURCE: u32 = 6;
/// Fields of a request with which nothing of the configuration changes.
const WITHOUT_EFFECT: [&str; 3] = ["transaction_id", "validate_only", "only_validate"];
/// Fields that name an object.
const NAMES: [&str; 4] = ["name", "username", "id", "index"];

/// A change that is about to be made.
pub(super) struct Change {
    caller: Option<Box<str>>,
    output: MessageId,
    /// Such as `BackendService.CreateBackend name=b`.
    what: String,
}

impl Change {
    /// What a call would change of the configuration; `None` for a call that changes nothing, or a transaction only.
    pub(super) fn of(tables: &Tables, call: &Call) -> Option<Change> {
        let method = &tables.methods[call.method];
        let verb = method.path.rsplit('/').next().unwrap_or_default();
        let reads = ["Get", "List", "Watch", "Export"].iter().any(|read| verb.starts_with(read));
        if reads || method.streaming {
            return None;
        }
        let (input, output) = (&tables.messages[method.input], &tables.messages[method.output]);
        let has_effect = |field: &str| match input.field_named(field).and_then(|at| call.request.get(at)) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Str(text)) => text.is_empty(),
            Some(_) => false,
        };
        if output.field_named("version").is_none() || !WITHOUT_EFFECT.iter().all(|field| has_effect(field)) {
            return None;
        }
        let mut what = method.path.rsplit('.').next().unwrap_or_default().replace('/', ".");
        describe(tables, method.input, &call.request, &mut what);
        Some(Change { caller: call.caller.clone(), output: method.output, what })
    }

    /// Tells what came of it.
    pub(super) fn tell(self, tables: &Tables, answer: &Answer) {
        let Answer::Message(message) = answer else { return };
        let version = tables.messages[self.output].field_named("version").and_then(|at| message.int(at));
        let user = self.caller.as_deref().unwrap_or("(certificate)");
        tracing::info!(user, version, what = self.what, "the configuration changed");
    }
}

/// Appends what a request is about.
fn describe(tables: &Tables, message: MessageId, request: &Object, what: &mut String) {
    use std::fmt::Write as _;
    for (at, field) in tables.messages[message].fields.iter().enumerate() {
        // Writing to a string cannot fail.
        match request.get(at) {
            Some(Value::Str(text)) if ADDRESS.contains(&field.number) => _ = write!(what, " {}={text:?}", field.name),
            Some(Value::Int(number)) if ADDRESS.contains(&field.number) => _ = write!(what, " {}={number}", field.name),
            Some(Value::Object(object)) if field.number == RESOURCE => {
                let crate::schema::tables::Kind::Message(resource) = field.kind else { continue };
                for name in NAMES {
                    match tables.messages[resource].field_named(name).and_then(|at| object.get(at)) {
                        Some(Value::Str(text)) => _ = write!(what, " {}.{name}={text:?}", field.name),
                        Some(Value::Int(number)) => _ = write!(what, " {}.{name}={number}", field.name),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
