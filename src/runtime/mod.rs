//! HAProxy's Runtime API: one client with pooled connections, commands that cannot be broken out of, pure readers of
//! the answers, and typed operations on tables, maps, ACLs, servers and statistics.
//!
//! It knows sockets and HAProxy's words, and nothing of requests, resources or files. It talks to the stats socket of
//! the worker; commands relayed by the master process are not used.

mod acls;
mod address;
mod answer;
mod apply;
mod attempts;
mod backends;
mod client;
mod command;
mod connection;
mod lane;
mod lines;
mod maps;
mod parse;
mod process;
mod servers;
mod slots;
mod tables;
mod worker;

pub use address::{Address, Socket};
pub use apply::LiveChanges;
pub use backends::BackendState;
pub use client::{Limits, Runtime};
pub use command::Command;
pub use lines::{Lines, Listing};
pub use maps::{LoadMode, MapLoad, MapRef};
pub use parse::{
    AdminState, DataType, Datum, DatumValue, Filter, Info, InfoValue, MapEntry, OperationalState, Operator,
    PatternEntry, PatternInfo, RawEntry, RawTableEntry, ServerState, StatRow, StatsReader, TableEntry, TableInfo,
    TableType, check_key, check_value, escape_bytes, escape_key, parse_entry, parse_raw_entry,
};
pub(crate) use parse::{number, split_period, unescape};
pub use process::{StatKind, Stats};
pub use tables::{check_table_data, check_table_key};
pub use worker::{Worker, WorkerListener};
