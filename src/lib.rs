//! backstay: a gRPC control plane for HAProxy.

pub mod configuration;
pub mod error;
pub mod grpc;
pub mod runtime;
pub mod schema;
pub mod stick_table;
