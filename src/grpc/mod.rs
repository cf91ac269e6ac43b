//! gRPC: one generic handler over the method table.

pub mod call;
