//! backstay: a gRPC control plane for HAProxy.

pub mod error;
pub mod schema;
