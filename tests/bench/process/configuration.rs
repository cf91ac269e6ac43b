//! What the file costs: start, reads, lists, passwords, writes, transactions. No HAProxy needs to run for it.

use std::time::Duration;

use crate::http::{Client, floor, hammer};
use crate::rig::{API, Rig, reaped, server};
use crate::support::{Cpu, Report, cpu_time, memory, ms};
use crate::{ROUNDS, each, least_of_both, median, mib};

/// Requests of a row of reads.
const READS: u64 = 20_000;

pub(crate) fn starts(report: &mut Report) {
    start(report, 10, "<= 80 ms", "<= 16 MiB");
    start(report, 20_000, "<= 200 ms", "<= 64 MiB");
}

fn start(report: &mut Report, backends: usize, time: &str, size: &str) {
    const STARTS: u32 = 5;
    let mut rig = Rig::new(backends, "");
    // With 20,000 it would need more descriptors than it mostly may have.
    if backends < 5000 {
        rig.run();
    }
    let [mut own, mut walls] = [const { Vec::new() }; 2];
    let mut children = Duration::ZERO;
    let [mut resident, mut anonymous] = [0; 2];
    for _ in 0..STARTS {
        let (backstay, until, _client) = rig.serve(&[]);
        own.push(cpu_time(backstay));
        children += reaped(backstay);
        walls.push(until);
        std::thread::sleep(Duration::from_millis(500));
        resident = resident.max(memory(backstay, "VmRSS"));
        anonymous = anonymous.max(memory(backstay, "RssAnon"));
        rig.stop_serving();
    }
    report.row(
        format!("start to first answer, {backends} backends, own CPU"),
        format!("{:.0} ms", ms(median(own))),
        time,
        format!("CPU of children {:.0} ms; wall {:.0} ms", ms(children / STARTS), ms(median(walls))),
    );
    report.row(
        "  resident memory then",
        format!("{:.1} MiB", mib(resident)),
        size,
        format!("without pages of files {:.1} MiB", mib(anonymous)),
    );
}

/// Milliseconds of processor time of a request. Over one connection a quiet machine sleeps between requests, and what a
/// wake-up costs there is in the figure; how much it is, the same bytes from memory show.
fn cost(rig: &Rig, backstay: u32, user: &str, connections: u64, path: &(dyn Fn(u32) -> String + Sync)) -> f64 {
    let ours = Cpu::of(backstay);
    let requests = hammer(rig.port, user, connections, READS, path);
    each(ours.spent(), requests)
}

pub(crate) fn reads(report: &mut Report) {
    for backends in [1000, 20_000] {
        let mut rig = Rig::new(backends as usize, "");
        let (backstay, _, mut client) = rig.serve(&[]);
        let backend = |number: u32| format!("{API}/configuration/backends/b{}", number % backends);
        let server = |number: u32| format!("{API}/configuration/servers/s1?backend=b{}", number % backends);
        let paths: [(_, &(dyn Fn(u32) -> String + Sync)); 2] = [("backend", &backend), ("server", &server)];
        for (what, path) in paths {
            let body = client.get(&path(7));
            let measure = |connections| {
                let ours = || cost(&rig, backstay, "admin", connections, path);
                least_of_both(ours, || each(floor(&body, connections, READS), READS))
            };
            let [(one, least_one), (eight, least_eight)] = [1, 8].map(measure);
            report.row(
                format!("GET one {what} of {backends}, 1 / 8 connections, CPU"),
                format!("{one:.4} / {eight:.4} ms"),
                "<= 0.03 ms",
                format!("the same from memory {least_one:.4} / {least_eight:.4} ms"),
            );
        }
    }
}

pub(crate) fn password(report: &mut Report) {
    let mut rig = Rig::new(1000, "");
    let (backstay, _, _client) = rig.serve(&[]);
    let path = |number: u32| format!("{API}/configuration/backends/b{}", number % 1000);
    // The first request verifies it.
    hammer(rig.port, "crypt", 1, 1, path);
    let cost = |user| cost(&rig, backstay, user, 1, &path);
    let (crypt, plain) = least_of_both(|| cost("crypt"), || cost("admin"));
    report.row(
        "a sha512-crypt password, more CPU a request",
        format!("{:+.4} ms", crypt - plain),
        "<= 0.005 ms",
        format!("{crypt:.4} ms, without it {plain:.4} ms"),
    );
}

pub(crate) fn lists(report: &mut Report) {
    const LISTS: u64 = 25;
    let path = format!("{API}/configuration/backends");
    for (backends, target) in [(5000, "<= 7 ms"), (20_000, "answers")] {
        let mut rig = Rig::new(backends, "");
        let (backstay, _, mut client) = rig.serve(&[]);
        let body = client.get(&path);
        let ours = || {
            let ours = Cpu::of(backstay);
            for _ in 0..LISTS {
                client.get(&path);
            }
            each(ours.spent(), LISTS)
        };
        let (ours, from_memory) = least_of_both(ours, || each(floor(&body, 1, LISTS), LISTS));
        report.row(
            format!("list {backends} backends, CPU"),
            format!("{ours:.1} ms"),
            target,
            format!("the same from memory {from_memory:.2} ms; {} kB", body.len() / 1000),
        );
    }
}

fn version(client: &mut Client) -> i64 {
    let text = client.get(&format!("{API}/configuration/version"));
    String::from_utf8_lossy(&text).trim().parse().unwrap()
}

/// Opens a transaction of the present version.
fn open(client: &mut Client) -> String {
    let version = version(client);
    let (_, answer) = client.call("POST", &format!("{API}/transactions?version={version}"), "");
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    answer["id"].as_str().unwrap().to_owned()
}

pub(crate) fn writes(report: &mut Report) {
    changes(report, 1000, "<= 3 ms");
    changes(report, 5000, "<= 10 ms");
}

/// Milliseconds of processor time of `haproxy -c`.
fn checked(rig: &Rig) -> f64 {
    const CHECKS: u32 = 5;
    let spent: Duration = (0..CHECKS).map(|_| rig.check().1).sum();
    ms(spent / CHECKS)
}

fn changes(report: &mut Report, backends: usize, own: &str) {
    let mut rig = Rig::new(backends, "");
    let (backstay, _, mut client) = rig.serve(&["--max-open-transactions", "0"]);
    let check = checked(&rig);
    let writes = if backends < 2000 { 40 } else { 15 };
    let mut now = version(&mut client);
    let (mut own_times, before) = (Vec::new(), reaped(backstay));
    for n in 0..writes {
        let path = format!("{API}/configuration/servers?backend=b{n}&version={now}");
        let ours = Cpu::of(backstay);
        now = client.call("POST", &path, &server("new")).0.version.unwrap();
        own_times.push(ours.spent());
    }
    let checks = reaped(backstay).saturating_sub(before);
    report.row(
        format!("validated write, {backends} backends, own CPU"),
        format!("{:.2} ms", ms(median(own_times))),
        own,
        format!("haproxy -c {check:.0} ms, that of ours {:.0} ms", each(checks, writes)),
    );
    open_transactions(report, &mut client, backstay, backends);
    transactions(report, &rig, &mut client, backstay, backends, own);
}

/// What transactions hold in memory that each have one change.
fn open_transactions(report: &mut Report, client: &mut Client, backstay: u32, backends: usize) {
    const OPEN: usize = 100;
    let before = memory(backstay, "VmRSS");
    let ids: Vec<_> = (0..OPEN)
        .map(|n| {
            let id = open(client);
            let path = format!("{API}/configuration/servers?backend=b{n}&transaction_id={id}");
            client.call("POST", &path, &server("open"));
            id
        })
        .collect();
    let grown = memory(backstay, "VmRSS").saturating_sub(before) / OPEN;
    for id in ids {
        client.call("DELETE", &format!("{API}/transactions/{id}"), "");
    }
    report.row(
        format!("an open transaction, {backends} backends, memory"),
        format!("{:.3} MiB", mib(grown)),
        "<= 0.2 MiB",
        format!("mean of {OPEN}"),
    );
}

fn transactions(report: &mut Report, rig: &Rig, client: &mut Client, backstay: u32, backends: usize, own: &str) {
    const CREATES: u64 = 1000;
    let [mut creating, mut committing] = [const { Vec::new() }; 2];
    let mut checking = Duration::ZERO;
    for round in 0..ROUNDS {
        let id = open(client);
        let ours = Cpu::of(backstay);
        for n in 0..CREATES {
            let path = format!("{API}/configuration/servers?backend=b{n}&transaction_id={id}");
            client.call("POST", &path, &server(&format!("t{round}")));
        }
        creating.push(ours.spent());
        let (ours, before) = (Cpu::of(backstay), reaped(backstay));
        client.call("PUT", &format!("{API}/transactions/{id}"), "");
        committing.push(ours.spent());
        checking += reaped(backstay).saturating_sub(before);
    }
    report.row(
        format!("transaction of {CREATES} creates, {backends} backends, CPU a create"),
        format!("{:.3} ms", each(median(creating), CREATES)),
        "<= 0.1 ms",
        "-".to_owned(),
    );
    report.row(
        "  its commit, own CPU",
        format!("{:.2} ms", ms(median(committing))),
        own,
        // The file has more servers than at the beginning.
        format!("haproxy -c {:.0} ms, that of ours {:.0} ms", checked(rig), each(checking, ROUNDS as u64)),
    );
}
