mod dial;
mod hub;
mod mirror;
mod model;
mod pushed;
mod share;

use crate::runtime::RawTableEntry;

/// Lines of `show table` out of `key: gpc0, conn_rate`, all expiring in a second.
fn lines(entries: &[(&str, u64, u64)]) -> Vec<String> {
    entries
        .iter()
        .map(|(key, gpc0, rate)| format!("0x1: key={key} use=0 exp=1000 shard=0 gpc0={gpc0} conn_rate(10000)={rate}"))
        .collect()
}

fn raw(lines: &[String]) -> Vec<RawTableEntry<'_>> {
    lines.iter().map(|line| RawTableEntry::parse(line.as_bytes()).unwrap()).collect()
}
