//! backstay: a gRPC control plane for HAProxy.

pub mod auth;
pub mod configuration;
pub mod document;
pub mod error;
pub mod gateway;
pub mod grpc;
pub mod proto;
pub mod runtime;
pub mod process;
pub mod schema;
