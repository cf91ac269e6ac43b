//! One call with very many entries of a map: what it takes of memory, and that all of them are kept.
//!
//! `BACKSTAY_FULL=1` writes a million, which takes minutes.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::json;

use crate::support::client::{Transport, request};
use crate::support::world::{World, until};

const PATH: &str = "/v2/services/haproxy/runtime/maps/paths.map";

/// Bytes of a line of the status of the program, such as `VmRSS`.
fn memory(world: &World, line: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/status", world.backstay.pid())).unwrap();
    let value = text.lines().find_map(|all| all.strip_prefix(line)?.strip_prefix(':')).unwrap();
    value.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Lines of a map file: keys come twice, with different values.
fn lines(round: usize, count: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("/r{round}/{:06}", n / 2), format!("v{n}"))).collect()
}

/// Bytes of a request.
fn body(transport: Transport, lines: &[(String, String)]) -> Vec<u8> {
    if transport == Transport::Rest {
        let mut body = String::from("[");
        for (key, value) in lines {
            write!(body, "{}{{\"key\":\"{key}\",\"value\":\"{value}\"}}", if body.len() > 1 { "," } else { "" })
                .unwrap();
        }
        return (body + "]").into_bytes();
    }
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut body = field(1, b"paths.map");
    for (key, value) in lines {
        body.extend(field(6, &[field(2, key.as_bytes()), field(3, value.as_bytes())].concat()));
    }
    body
}

/// Entries as the answer tells of them.
async fn send(world: &World, body: Vec<u8>) -> Result<usize, String> {
    if world.is_rest() {
        let answer = world.client.send(request("PUT", PATH, "application/json", body)).await;
        if answer.status != 201 {
            return Err(format!("{} {}", answer.status, answer.text().chars().take(300).collect::<String>()));
        }
        return Ok(answer.json().as_array().unwrap().len());
    }
    let answer = world.client.unary("/backstay.runtime.v2.MapService/AddMapEntries", body).await;
    let answer = answer.map_err(|status| status.to_string())?;
    Ok(answer.windows(4).filter(|bytes| bytes.starts_with(b"/r") && bytes[3] == b'/').count())
}

/// A write takes at most so many MiB, and keeps nearly nothing.
async fn write(world: &World, lines: &[(String, String)], most: usize) {
    let body = body(world.client.transport, lines);
    // 5 makes the highest point so far the present one.
    std::fs::write(format!("/proc/{}/clear_refs", world.backstay.pid()), "5").unwrap();
    let before = memory(world, "VmRSS");
    assert_eq!(send(world, body).await.unwrap(), lines.len());
    let grown = memory(world, "VmHWM").saturating_sub(before) >> 20;
    #[allow(clippy::print_stderr, reason = "the figure is wanted by hand")]
    if std::env::var_os("BACKSTAY_FULL").is_some() {
        eprintln!("{grown} MiB for {} entries", lines.len());
    }
    assert!(grown <= most, "{grown} MiB for {} entries", lines.len());
    // What is left is given back within a second or so.
    until("the memory is given back", async || memory(world, "VmRSS") <= before + (8 << 20)).await;
}

fn text(lines: &[(String, String)]) -> String {
    let mut text = String::new();
    for (key, value) in lines {
        writeln!(text, "{key} {value}").unwrap();
    }
    text
}

async fn kept(transport: Transport) {
    let full = std::env::var_os("BACKSTAY_FULL").is_some();
    let (count, most) = match (full, transport) {
        (false, _) => (40_000, 16),
        (true, Transport::Rest) => (1_000_000, 64),
        // A message has 16 MiB at most.
        (true, Transport::Grpc) => (600_000, 64),
    };
    let mut world = World::start(transport, &[]);
    let file = world.backstay.folder().join("maps/paths.map");
    let before = std::fs::read_to_string(&file).unwrap();
    // What any first call takes.
    let (few, many) = (lines(0, 4_000), lines(1, count));
    write(&world, &few, 16).await;
    write(&world, &many, most).await;
    let expected = before + &text(&few) + &text(&many);
    assert!(std::fs::read_to_string(&file).unwrap() == expected, "the file is the store, in the order of the call");
    let listed = world.client.call("RuntimeOverrideService.ListRuntimeOverrides", &json!({})).await.unwrap();
    assert_eq!(listed.message["overrides"].as_array().map_or(0, Vec::len), 0, "they are in the file: {listed:?}");
    let state = std::fs::read_dir(world.backstay.folder().join("state")).unwrap();
    let left = state.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("batch")).count();
    assert_eq!(left, 0, "nothing is left behind");

    // A process that comes after all ends has them as well.
    world.backstay.kill_haproxy();
    world.restart();
    let map = file.display().to_string();
    let shown = |key: &str| world.backstay.ask(&format!("get map {map} {key}")).unwrap_or_default();
    let last = many.last().unwrap().0.clone();
    for key in [last.as_str(), "/r1/000000", "/r0/000000"] {
        until("the entry is there", async || shown(key).contains("found=yes")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_take_little_memory_and_are_kept_over_rest() {
    kept(Transport::Rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_take_little_memory_and_are_kept_over_grpc() {
    kept(Transport::Grpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_entry_of_many_and_none_is_written() {
    for transport in [Transport::Rest, Transport::Grpc] {
        let world = World::start(transport, &[]);
        let before = std::fs::read_to_string(world.backstay.folder().join("maps/paths.map")).unwrap();
        let mut lines = lines(0, 8_000);
        lines[7_990].0 = "two words".to_owned();
        let error = send(&world, body(transport, &lines)).await.unwrap_err();
        assert!(error.contains("key"), "{error}");
        let map = world.backstay.folder().join("maps/paths.map");
        let listed = world.backstay.ask(&format!("show map {}", map.display())).unwrap();
        assert!(!listed.contains("/r0/"), "nothing is sent");
        assert_eq!(std::fs::read_to_string(map).unwrap(), before);
        // What was written to a file of its own has gone with the call.
        let state = std::fs::read_dir(world.backstay.folder().join("state")).unwrap();
        assert!(!state.into_iter().any(|entry| entry.unwrap().file_name().to_string_lossy().contains("batch")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_through_reloads() {
    let world = World::start(Transport::Grpc, &[]);
    let map = world.backstay.folder().join("maps/paths.map").display().to_string();
    for round in 0..3 {
        let lines = lines(round, 20_000);
        let master = world.backstay.haproxy().unwrap();
        let reloads = async {
            for _ in 0..2 {
                tokio::time::sleep(std::time::Duration::from_millis(150)).await;
                let sent = Command::new("kill").args(["-USR2", &master.as_raw_nonzero().to_string()]).status();
                assert!(sent.unwrap().success());
            }
        };
        let (sent, ()) = tokio::join!(send(&world, body(Transport::Grpc, &lines)), reloads);
        if let Err(error) = sent {
            assert!(error.contains("haproxy"), "{error}");
            continue;
        }
        // The worker that runs now has them, and so has each that follows.
        let last = lines.last().unwrap().0.clone();
        for key in [last.as_str(), &format!("/r{round}/000000")] {
            let shown = || world.backstay.ask(&format!("get map {map} {key}")).unwrap_or_default();
            until("the entry is there", async || shown().contains("found=yes")).await;
        }
        let file = std::fs::read_to_string(&map).unwrap();
        let own = file.lines().filter(|line| line.starts_with(&format!("/r{round}/"))).count();
        assert!(own >= lines.len(), "{own} of {} are in the file", lines.len());
    }
}
