//! What is said of an object that is not there, or that cannot be written.

use super::address::{Key, Place};
use super::engine::Engine;
use crate::error::{Error, Reason, Violation};
use crate::schema::tables::MessageId;
use crate::schema::template::PrintFault;

impl Engine {
    /// A resource's name for people: `server`.
    pub(super) fn noun(&self, resource: MessageId) -> String {
        let name = &self.schema.tables.messages[resource].full_name;
        let last = name.rsplit('.').next().unwrap_or(name);
        let mut out = String::new();
        for (at, c) in last.char_indices() {
            if c.is_ascii_uppercase() && at > 0 {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }

    pub(super) fn not_found(&self, resource: MessageId, place: &Place, key: &Key) -> Error {
        let noun = self.noun(resource);
        let what = match key {
            Key::Name(name) => format!("{noun} {name}"),
            Key::Index(index) => format!("{noun} with index {index}"),
            Key::Singleton => noun,
        };
        let message = match &place.section {
            Some(_) => format!("{what} does not exist in {place}"),
            None => format!("{what} does not exist"),
        };
        Error::new(Reason::ObjectNotFound, message)
    }

    pub(super) fn out_of_range(&self, resource: MessageId, place: &Place, index: i64, length: usize) -> Error {
        Error::new(
            Reason::IndexOutOfRange,
            format!(
                "index {index} is out of range: {place} has {length} {}, so 0 to {length} are possible",
                self.noun(resource)
            ),
        )
        .with("length", length)
    }
}

/// A value that cannot be written, as an error of the caller.
pub(super) fn refused(fault: PrintFault) -> Error {
    let violation = Violation { field: fault.path.clone(), message: fault.message.clone(), code: 0, location: "body" };
    Error::new(Reason::InvalidValue, format!("{}: {}", fault.path, fault.message)).with_violation(violation)
}
