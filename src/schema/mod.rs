//! The schema: `proto/` as tables, and the interpreters over them.
//!
//! Pure: bytes in, bytes out. Compiled into build.rs too, so that a fault of the schema fails the build.

pub mod check;
pub mod comments;
pub mod json;
pub mod load;
pub mod openapi;
#[cfg(test)]
pub(crate) mod sample;
pub mod tables;
pub mod value;
pub mod wire;
pub mod words;
