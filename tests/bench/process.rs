//! backstay as a process, driven over its REST API, beside what HAProxy itself costs: start, reads, writes, transactions,
//! commands, large maps and stick tables, statistics, reloads. HAProxy is the one from the path, or `HAPROXY_BIN`. Prints
//! one table, or the part of it that arguments name as `main` does; takes two to three minutes and some hundred MiB. All
//! traffic stays on the loopback and ends by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on fails, and prints what it found"
)]

#[path = "process/configuration.rs"]
mod configuration;
#[path = "process/http.rs"]
mod http;
#[path = "process/large.rs"]
mod large;
#[path = "process/live.rs"]
mod live;
#[path = "process/rig.rs"]
mod rig;
#[path = "support.rs"]
mod support;

use std::time::Duration;

use support::{Report, ms};

/// Measures some rows of the table.
type Part = fn(&mut Report);

fn main() {
    let parts: [(&str, Part); 12] = [
        ("start", configuration::starts),
        ("read", configuration::reads),
        ("password", configuration::password),
        ("list", configuration::lists),
        ("write", configuration::writes),
        ("command", live::commands),
        ("object", live::objects),
        ("map", large::map),
        ("table", large::stick_tables),
        ("stats", live::statistics),
        ("reload", live::forced_reload),
        ("burst", live::burst),
    ];
    // What cargo adds begins with dashes.
    let named: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let mut report = Report::default();
    for (name, part) in parts {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            part(&mut report);
        }
    }
    report.print();
}

/// How often a figure is taken; the least counts, which what else the machine does changes least.
const ROUNDS: usize = 3;

fn least(measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure).take(ROUNDS).fold(f64::MAX, f64::min)
}

/// The least of two figures that are taken in turn.
fn least_of_both(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    (0..ROUNDS).map(|_| (one(), other())).fold((f64::MAX, f64::MAX), |(a, b), (c, d)| (a.min(c), b.min(d)))
}

/// Milliseconds of each of so many.
fn each(time: Duration, count: u64) -> f64 {
    ms(time) / count as f64
}

/// Bytes as MiB.
fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
