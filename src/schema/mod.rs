//! The schema: `proto/` as tables, and the interpreters over them.
//!
//! Pure: bytes in, bytes out. Compiled into build.rs too, so that a fault of the schema fails the build.

pub mod tables;
pub mod template;
pub mod value;
pub mod words;
