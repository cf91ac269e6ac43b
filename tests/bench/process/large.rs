//! Maps and stick tables of a million entries.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use backstay::proto::runtime as pb;
use prost::Message as _;
use tonic::transport::Channel;

use crate::http::Client;
use crate::rig::{API, Rig, growth};
use crate::support::{Cpu, Report, STORE, eventually, ms, teach};
use crate::{least_of_both, median, mib};

#[path = "../../it/support/raw.rs"]
mod raw;

use raw::Raw;

const MILLION: u32 = 1_000_000;

/// Lists over the API and with a raw command, and prints time and growth of the memory.
fn list(report: &mut Report, what: &str, rig: &Rig, client: &mut Client, path: &str, backstay: u32, command: &str) {
    let (mut bytes, mut grown, mut cpu) = (0, 0, f64::MAX);
    let raw = || {
        let begin = Instant::now();
        let raw = rig.ask(command).unwrap();
        let took = begin.elapsed().as_secs_f64();
        let lines = memchr::memchr_iter(b'\n', &raw).count();
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]);
        assert!(lines >= MILLION as usize, "{command}: {lines} lines, {shown}");
        took
    };
    let ours = || {
        let (mut status, mut took, ours) = (0, 0.0, Cpu::of(backstay));
        bytes = 0;
        let grew = growth(backstay, || {
            let begin = Instant::now();
            status = client.read("GET", path, "", |piece| bytes += piece.len()).status;
            took = begin.elapsed().as_secs_f64();
        });
        assert_eq!(status, 200, "{path}");
        (grown, cpu) = (grew.max(grown), ours.spent().as_secs_f64().min(cpu));
        took
    };
    let (took, raw) = least_of_both(ours, raw);
    report.row(
        format!("list a {what} of 1M entries"),
        format!("{took:.2} s, {:.2}x", took / raw),
        "<= 1.3x",
        format!("raw {raw:.2} s; CPU of ours {cpu:.2} s for {:.0} MiB", mib(bytes)),
    );
    report.row("  growth of memory meanwhile", format!("{:.1} MiB", mib(grown)), "<= 4 MiB", "-".to_owned());
}

pub(crate) fn map(report: &mut Report) {
    let reader = "
frontend maps
    bind unix@{dir}/maps.sock mode 600
    http-request set-header x %[hdr(host),map({dir}/maps/big.map)]";
    let mut rig = Rig::new(10, reader);
    let mut text = String::new();
    for n in 0..MILLION {
        writeln!(text, "key{n:07}.example.com value{n}").unwrap();
    }
    let file = rig.path("maps/big.map");
    std::fs::write(&file, &text).unwrap();
    rig.run();
    let (backstay, _, mut client) = rig.serve(&[]);
    let path = format!("{API}/runtime/maps_entries?map=big.map");
    list(report, "map", &rig, &mut client, &path, backstay, &format!("show map {}", file.display()));

    client.content = "text/plain";
    let path = format!("{API}/storage/maps/big.map?force_reload=true");
    let ours = || {
        let (worker, begin) = (rig.worker().unwrap(), Instant::now());
        client.call("PUT", &path, &text);
        rig.replaced(worker);
        begin.elapsed().as_secs_f64()
    };
    let raw = || {
        let (worker, begin) = (rig.worker().unwrap(), Instant::now());
        let mut written = std::fs::File::create(&file).unwrap();
        written.write_all(text.as_bytes()).unwrap();
        written.sync_all().unwrap();
        rig.reload();
        rig.replaced(worker);
        begin.elapsed().as_secs_f64()
    };
    let (ours, raw) = least_of_both(ours, raw);
    report.row(
        "load a map of 1M entries as a file, to effect",
        format!("{ours:.2} s, {:.2}x", ours / raw),
        "<= 1.2x",
        format!("written, and a raw reload {raw:.2} s"),
    );
}

pub(crate) fn stick_tables(report: &mut Report) {
    // Only the table `pushed` has a mirror in backstay.
    let tables = format!(
        "
peers p
    bind unix@{{dir}}/peers.sock mode 600
    server hap1
    server backstay 127.0.0.1:1
peers others
    bind unix@{{dir}}/others.sock mode 600
    server hap1
    server teacher 127.0.0.1:1
backend pushed
    stick-table type ip size 200k expire 1h store {STORE} peers p
backend million
    stick-table type ip size 2m expire 1h store {STORE} peers others"
    );
    let mut rig = Rig::new(10, &tables);
    rig.run();
    teach(&rig.path("peers.sock"), "backstay", &rig.path("stats.sock"), "pushed", MILLION / 10);
    teach(&rig.path("others.sock"), "teacher", &rig.path("stats.sock"), "million", MILLION);
    let (backstay, _, mut client) = rig.serve(&[]);
    page(report, &rig, &mut client);
    let path = format!("{API}/runtime/stick_table_entries?stick_table=million&process=1");
    list(report, "stick table", &rig, &mut client, &path, backstay, "show table million");
}

/// Pages of 100 out of the table that HAProxy pushes, over gRPC.
fn page(report: &mut Report, rig: &Rig, rest: &mut Client) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let channel = {
        let _context = runtime.enter();
        Channel::from_shared(format!("http://127.0.0.1:{}", rig.port)).unwrap().connect_lazy()
    };
    let mut client = tonic::client::Grpc::new(channel);
    let mut page = |token: &str| {
        let request = pb::ListStickTableEntriesRequest {
            stick_table: "pushed".into(),
            page_size: 100,
            page_token: token.into(),
            ..pb::ListStickTableEntriesRequest::default()
        };
        let mut request = tonic::Request::new(request.encode_to_vec());
        request.metadata_mut().insert("authorization", "Basic YWRtaW46YmVuY2g=".parse().unwrap());
        let path = "/backstay.runtime.v2.StickTableEntryService/ListStickTableEntries".parse().unwrap();
        let begin = Instant::now();
        let answer = runtime.block_on(async {
            client.ready().await.unwrap();
            client.unary(request, path, Raw).await.unwrap().into_inner()
        });
        let answer = pb::ListStickTableEntriesResponse::decode(answer).unwrap();
        assert_eq!(answer.entries.len(), 100);
        (answer.next_page_token, begin.elapsed())
    };
    // Until HAProxy has pushed all of it, a page takes a dump.
    eventually("haproxy pushes", || {
        let sessions = rest.get("/v2/services/backstay/peer_sessions");
        let sessions: serde_json::Value = serde_json::from_slice(&sessions).unwrap();
        (sessions[0]["live"] == true).then_some(())
    });
    let (mut token, mut times) = (String::new(), Vec::new());
    for _ in 0..300 {
        let (next, took) = page(&token);
        token = next;
        times.push(took);
    }
    let most = times.iter().max().copied().unwrap_or_default();
    let begin = Instant::now();
    rig.ask("show table pushed").unwrap();
    report.row(
        "page of 100 from a stick table of 100k, p50 / most",
        format!("{:.2} / {:.2} ms", ms(median(times)), ms(most)),
        "<= 5 ms",
        format!("raw show table {:.0} ms", ms(begin.elapsed())),
    );
}
