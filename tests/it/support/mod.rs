//! What the tests share.

pub(crate) mod blessed;
#[allow(dead_code, reason = "not every test needs everything")]
pub(crate) mod haproxy;
