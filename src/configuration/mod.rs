//! The managed configuration: objects in, objects out, a lossless file underneath.

pub mod ports;
