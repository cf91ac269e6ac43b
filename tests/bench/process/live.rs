//! What a running HAProxy is asked and told: commands, statistics, reloads.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::http::Client;
use crate::rig::{API, Rig, server};
use crate::support::{Cpu, Report, eventually, ms};
use crate::{ROUNDS, each, least, median};

/// The least time of many calls.
fn fastest(calls: u32, mut call: impl FnMut()) -> Duration {
    let once = |_| {
        let begin = Instant::now();
        call();
        begin.elapsed()
    };
    (0..calls).map(once).min().unwrap_or_default()
}

/// Calls a second of 8 callers, each of which has a thing of its own to call with.
fn rate<T>(caller: impl Fn() -> T + Sync, call: impl Fn(&mut T) + Sync) -> f64 {
    let time = Duration::from_secs(2);
    let begin = Instant::now();
    let calls = || {
        let (mut with, mut calls) = (caller(), 0_u32);
        while begin.elapsed() < time {
            call(&mut with);
            calls += 1;
        }
        calls
    };
    let calls: u32 = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(calls)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    f64::from(calls) / begin.elapsed().as_secs_f64()
}

pub(crate) fn commands(report: &mut Report) {
    const CALLS: u32 = 5000;
    const IDLE: Duration = Duration::from_secs(20);
    let mut rig = Rig::new(10, "");
    rig.run();
    let (backstay, _, mut client) = rig.serve(&[]);
    let path = format!("{API}/runtime/servers/s1?backend=b0");
    let raw = || drop(rig.ask("show servers state b0").unwrap());
    let ours = fastest(CALLS, || drop(client.get(&path)));
    report.row(
        "runtime command, least time",
        format!("{:.3} ms", ms(ours)),
        "<= 0.08 ms",
        format!("a raw connection each {:.3} ms", ms(fastest(CALLS, raw))),
    );
    let ours = rate(|| rig.client().unwrap(), |client: &mut Client| drop(client.get(&path)));
    let alone = Mutex::new(());
    let locked = rate(
        || (),
        |()| {
            let _alone = alone.lock().unwrap();
            raw();
        },
    );
    report.row(
        "  calls a second of 8 clients",
        format!("{ours:.0}"),
        ">= 10x one after the other through the peer",
        format!("a raw connection each {:.0}, one at a time {locked:.0}", rate(|| (), |()| raw())),
    );
    // What the requests have left behind is done by then.
    std::thread::sleep(Duration::from_secs(2));
    let idle = Cpu::of(backstay);
    std::thread::sleep(IDLE);
    let minute = idle.spent().as_secs_f64() * 60.0 / IDLE.as_secs_f64();
    report.row("idle CPU, a minute", format!("{minute:.3} s"), "< 0.05 s", format!("in {} s", IDLE.as_secs()));
}

/// A call, its path and body for the n-th time, and the same as a raw command.
struct Call {
    what: &'static str,
    method: &'static str,
    path: fn(u64) -> String,
    body: fn(u64) -> String,
    raw: fn(u64, &str) -> String,
}

/// What is done with single objects of the running HAProxy.
const CALLS: [Call; 6] = [
    Call {
        what: "add a map entry",
        method: "POST",
        path: |_| format!("{API}/runtime/maps_entries?map=small.map"),
        body: |n| format!(r#"{{"key":"k{n}","value":"v"}}"#),
        raw: |n, map| format!("add map {map} r{n} v"),
    },
    Call {
        what: "get a map entry",
        method: "GET",
        path: |n| format!("{API}/runtime/maps_entries/k{n}?map=small.map"),
        body: |_| String::new(),
        raw: |n, map| format!("get map {map} r{n}"),
    },
    Call {
        what: "set a map entry",
        method: "PUT",
        path: |n| format!("{API}/runtime/maps_entries/k{n}?map=small.map"),
        body: |n| format!(r#"{{"value":"w{n}"}}"#),
        raw: |n, map| format!("set map {map} r{n} w{n}"),
    },
    Call {
        what: "delete a map entry",
        method: "DELETE",
        path: |n| format!("{API}/runtime/maps_entries/k{n}?map=small.map"),
        body: |_| String::new(),
        raw: |n, map| format!("del map {map} r{n}"),
    },
    Call {
        what: "set the state of a server",
        method: "PUT",
        path: |_| format!("{API}/runtime/servers/s1?backend=b0"),
        body: |n| format!(r#"{{"admin_state":"{}"}}"#, if n % 2 == 0 { "drain" } else { "ready" }),
        raw: |n, _| format!("set server b0/s1 state {}", if n % 2 == 0 { "drain" } else { "ready" }),
    },
    Call {
        what: "get the process",
        method: "GET",
        path: |_| format!("{API}/runtime/info"),
        body: |_| String::new(),
        raw: |_, _| "show info".to_owned(),
    },
];

pub(crate) fn objects(report: &mut Report) {
    const COUNT: u64 = 2000;
    let reader = "
frontend maps
    bind unix@{dir}/maps.sock mode 600
    http-request set-header x %[hdr(host),map({dir}/maps/small.map)]";
    let mut rig = Rig::new(10, reader);
    let file = rig.path("maps/small.map");
    std::fs::write(&file, "a b\n").unwrap();
    rig.run();
    let (backstay, _, mut client) = rig.serve(&[]);
    let map = file.display().to_string();
    for call in CALLS {
        let (before, mut times, mut raw) = (Cpu::of(backstay), Vec::new(), Vec::new());
        for n in 0..COUNT {
            let begin = Instant::now();
            client.call(call.method, &(call.path)(n), &(call.body)(n));
            times.push(begin.elapsed());
        }
        let cpu = each(before.spent(), COUNT);
        for n in 0..COUNT {
            let begin = Instant::now();
            rig.ask(&(call.raw)(n, &map)).unwrap();
            raw.push(begin.elapsed());
        }
        let (ours, raw) = (ms(median(times)), ms(median(raw)));
        report.row(
            format!("{}, CPU of ours, and time", call.what),
            format!("{cpu:.3} ms, {ours:.3} ms, {:.1}x", ours / raw),
            "<= 0.06 ms, <= 1.8x",
            format!("a raw connection {raw:.3} ms"),
        );
    }
}

pub(crate) fn statistics(report: &mut Report) {
    let mut rig = Rig::new(5000, "");
    rig.run();
    let (backstay, _, mut client) = rig.serve(&[]);
    let haproxy = rig.worker().unwrap();
    let all = format!("{API}/stats/native");
    let one = format!("{API}/stats/native?type=server&name=s1&parent=b777");
    for (what, path, command, target, count) in [
        ("native stats of 5,000 backends", all, "show stat", "<= 2x", 5),
        ("native stats of one server", one, "show stat b777 4 -1", "one targeted command", 500),
    ] {
        let raw = least(|| {
            let before = Cpu::of(haproxy);
            for _ in 0..count {
                rig.ask(command).unwrap();
            }
            each(before.spent(), count)
        });
        let mut calls = || {
            let (before, ours) = (Cpu::of(haproxy), Cpu::of(backstay));
            for _ in 0..count {
                client.get(&path);
            }
            (each(before.spent(), count), each(ours.spent(), count))
        };
        let cheapest =
            (0..ROUNDS).map(|_| calls()).min_by(|one, other| (one.0 + one.1).total_cmp(&(other.0 + other.1)));
        let (asked, ours) = cheapest.unwrap();
        report.row(
            format!("{what}, CPU of HAProxy + ours"),
            format!("{asked:.2} + {ours:.2} ms, {:.1}x", (asked + ours) / raw),
            target,
            format!("raw {command}: HAProxy {raw:.2} ms"),
        );
    }
}

pub(crate) fn forced_reload(report: &mut Report) {
    let mut rig = Rig::new(5000, "");
    rig.run();
    let (_, _, mut client) = rig.serve(&[]);
    let mut version = 1;
    let [mut ours, mut raw, mut checks] = [const { Vec::new() }; 3];
    for n in 0..5 {
        let (worker, begin) = (rig.worker().unwrap(), Instant::now());
        let path = format!("{API}/configuration/servers?backend=b{n}&version={version}&force_reload=true");
        version = client.call("POST", &path, &server("new")).0.version.unwrap();
        rig.replaced(worker);
        ours.push(begin.elapsed());
        let (worker, begin) = (rig.worker().unwrap(), Instant::now());
        let (check, _) = rig.check();
        rig.reload();
        rig.replaced(worker);
        raw.push(begin.elapsed());
        checks.push(check);
    }
    let [ours, raw, check] = [ours, raw, checks].map(|times| median(times).as_secs_f64());
    report.row(
        "force_reload of 5,000 backends, write to effect",
        format!("{ours:.2} s, {:.2}x", ours / raw),
        "<= 1.1x",
        format!("haproxy -c and raw reload {raw:.2} s, of that haproxy -c {check:.2} s"),
    );
}

pub(crate) fn burst(report: &mut Report) {
    const DELAY: f64 = 1.0;
    let mut rig = Rig::new(100, "");
    rig.run();
    let (_, _, mut client) = rig.serve(&["--reload-delay", "1"]);
    let (mut version, mut ids, begin) = (1, BTreeSet::new(), Instant::now());
    for n in 0..100 {
        let path = format!("{API}/configuration/servers?backend=b{n}&version={version}");
        let (head, _) = client.call("POST", &path, &server("new"));
        version = head.version.unwrap();
        ids.extend(head.reload);
    }
    let wrote = begin.elapsed().as_secs_f64();
    let reloads = || std::fs::read_to_string(rig.path("log")).unwrap().matches("haproxy has reloaded").count();
    eventually("the last reload", || (reloads() >= ids.len()).then_some(()));
    let elapsed = begin.elapsed().as_secs_f64();
    // None comes after the last one that was announced.
    std::thread::sleep(Duration::from_secs_f64(2.0 * DELAY));
    report.row(
        "reloads of 100 writes, a delay of 1 s",
        format!("{}", reloads()),
        &format!("<= {:.0}", 1.0 + (elapsed / DELAY).floor()),
        format!("{} announced; writes took {wrote:.1} s, with reloads {elapsed:.1} s", ids.len()),
    );
}
