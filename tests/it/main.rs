//! All integration tests, against a real HAProxy (`HAPROXY_BIN`, by default `haproxy`).

#![allow(missing_docs, reason = "tests are described by their names")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod aggregation;
mod announcement;
mod attacks;
mod clients;
mod confinement;
mod contract;
mod coverage;
mod digest;
mod discovery;
mod discovery_faults;
mod disk;
mod drop_in;
mod edits;
mod equality;
mod forms;
mod kept_writes;
mod keywords;
mod kill;
mod large_writes;
mod lifecycle;
mod live_changes;
mod map_files;
mod new_workers;
mod open_connections;
mod overrides;
mod peer_nodes;
mod peer_tls;
mod protocols;
mod push;
mod read_only;
mod readme;
mod reloads;
mod resources;
mod runtime;
mod runtime_backends;
mod runtime_objects;
mod runtime_speed;
mod runtime_workers;
mod sections;
mod stored;
mod stored_rights;
mod support;
mod sweep;
mod table_writes;
mod tidy;
mod transfers;
mod unanswered;
mod unread;
mod uploads;
mod vectors;
mod warnings;
mod watch;
mod words;
