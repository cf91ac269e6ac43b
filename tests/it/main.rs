//! All integration tests, against a real HAProxy (`HAPROXY_BIN`, by default `haproxy`).

#![allow(missing_docs, reason = "tests are described by their names")]

mod runtime;
mod support;
