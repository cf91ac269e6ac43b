//! What the tests share.

#![allow(dead_code, reason = "not every test needs everything")]

pub(crate) mod backstay;
pub(crate) mod blessed;
pub(crate) mod client;
pub(crate) mod dns;
#[allow(dead_code, reason = "not every test needs everything")]
pub(crate) mod ec2;
pub(crate) mod examples;
pub(crate) mod haproxy;
pub(crate) mod models;
pub(crate) mod raw;
pub(crate) mod registry;
pub(crate) mod serve;
pub(crate) mod world;
