//! The announcement of the Data Plane API 2.0, step by step on a live HAProxy, over gRPC and over REST.

pub(crate) mod fields;
pub(crate) mod maps;
pub(crate) mod peers;
pub(crate) mod refusals;
pub(crate) mod resolvers;
pub(crate) mod rules;
pub(crate) mod stick_tables;
