//! What the tests share.

#[allow(dead_code, reason = "not every test needs everything")]
pub(crate) mod haproxy;
