//! backstay: a gRPC control plane for HAProxy.

pub mod configuration;
pub mod error;
pub mod grpc;
pub mod process;
pub mod schema;
