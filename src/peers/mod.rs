//! HAProxy's peers protocol, version 2.1: how nodes tell each other of changes of stick tables.
//!
//! We take part as one more peer: HAProxy then sends each change by itself. `varint`, `data`, `table` and `message` say
//! how things are written; `session` is one conversation, with `teach` as its other direction, pure: bytes and a clock go
//! in, bytes and events come out, updates that came together in a `batch`.

mod batch;
mod data;
mod message;
mod session;
mod table;
mod teach;
#[cfg(test)]
mod tests;
mod varint;

pub use batch::Updates;
pub use data::{Column, Rate, Value, put_values};
pub use message::{Frames, MAX_PAYLOAD, Message};
pub use session::{Closed, Options, Phase, Session, Sink, Update};
pub use table::{KeyType, Table};
pub use teach::{Lesson, Taken};

/// Why bytes of a peer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They end within a value.
    Truncated,
    /// A number that no value of its place can have.
    OutOfRange,
    /// A message that is larger than any that a peer may send.
    TooLarge,
    /// A message of a class or kind that must not come.
    Unexpected,
    /// An update of a table that was not described before.
    UnknownTable,
    /// A reference to a text that was not sent before.
    UnknownText,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Malformed::Truncated => "a message ends within a value",
            Malformed::OutOfRange => "a number is out of its range",
            Malformed::TooLarge => "a message is too large",
            Malformed::Unexpected => "a message that must not come here",
            Malformed::UnknownTable => "an update of a table that was not described",
            Malformed::UnknownText => "a reference to a text that was not sent",
        })
    }
}

impl std::error::Error for Malformed {}
