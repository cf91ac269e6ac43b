//! Pure readers of HAProxy's answers: bytes in, values out. Nothing here knows a socket or a clock.

mod environment;
mod info;
mod pattern;
mod server;
mod stats;
mod table;

pub(super) use environment::variables;
pub use info::{Info, InfoValue};
pub(super) use pattern::{Lookup, parse_acl_entry, parse_info as parse_pattern_info, parse_lookup};
pub use pattern::{
    MapEntry, PatternEntry, PatternInfo, RawEntry, check_key, check_value, parse_entry, parse_raw_entry,
};
pub(super) use server::parse_servers;
pub use server::{AdminState, OperationalState, ServerState};
pub use stats::{StatRow, StatsReader};
pub use table::{
    DataType, Datum, DatumValue, Filter, Operator, RawTableEntry, TableEntry, TableInfo, TableType, escape_bytes,
    escape_key,
};
pub(crate) use table::{number, split_period, unescape};
pub(super) use table::{parse_entry as parse_table_entry, parse_info as parse_table_info};

/// Bytes as text; what is not UTF-8 is replaced by U+FFFD.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
