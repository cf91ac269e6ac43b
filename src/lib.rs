//! backstay: a gRPC control plane for HAProxy.

pub mod auth;
pub mod cli;
pub mod configuration;
pub mod document;
pub mod error;
pub mod gateway;
pub mod grpc;
pub mod process;
pub mod proto;
pub mod runtime;
pub mod schema;
pub mod settings;
pub mod spoe;
pub mod stick_table;
pub mod storage;
