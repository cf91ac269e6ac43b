//! gRPC: one generic handler over the method table.

pub mod call;
pub mod ending;
pub mod frame;
pub mod handler;
pub mod health;
pub mod memory;
pub mod server;
pub mod services;
pub mod status;
pub mod stop;
pub mod warning;
