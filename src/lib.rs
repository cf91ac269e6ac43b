//! backstay: a gRPC control plane for HAProxy.

pub mod configuration;
pub mod document;
pub mod error;
pub mod grpc;
pub mod proto;
pub mod runtime;
pub mod schema;
