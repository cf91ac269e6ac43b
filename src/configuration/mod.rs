//! The managed configuration: objects in, objects out, a lossless file underneath.

pub mod address;
pub mod engine;
pub mod layout;
pub mod ports;
mod section_edit;
