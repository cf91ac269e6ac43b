//! What was acknowledged holds: writers on everything, while backstay and HAProxy are killed and reloaded at random.
//!
//! `BACKSTAY_KILL_SECONDS` says how long (40 unless set), `BACKSTAY_KILL_SEED` repeats the choices of a run, and with
//! `BACKSTAY_KILL_KEEP` the folder stays for a look.

mod ground;
mod kinds;
mod ledger;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::support::client::{Client, Refusal, Transport};

use ground::{Ground, Reloading};
use kinds::{KINDS, Things};
use ledger::{Found, Key, Ledger};
use writer::Writer;

/// What is promised of acknowledged changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// They are in the files, and reads show them.
    Stored,
    /// The running HAProxy has them once no reload is pending.
    Running,
    /// What only the running HAProxy holds comes back in the next one.
    Runtime,
}

/// The promises that are kept. `BACKSTAY_KILL_ALL` looks at others as well.
const KEPT: [Promise; 3] = [Promise::Stored, Promise::Running, Promise::Runtime];

fn looks_at(promise: Promise) -> bool {
    KEPT.contains(&promise) || std::env::var_os("BACKSTAY_KILL_ALL").is_some()
}

const WRITERS: usize = 4;

/// How long reads, files and the running HAProxy have to agree after a restart.
const AGREEMENT: Duration = Duration::from_secs(30);

/// How long what is in doubt has to stay the same before it counts: what became of a write at run time that had no answer
/// is found out beside the reads, and tried again each second while HAProxy cannot be asked.
const DOUBT: Duration = Duration::from_secs(3);

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[allow(clippy::print_stderr, reason = "a long run tells how far it is, and how it is repeated")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_kills_and_reloads() {
    let seed = variable("BACKSTAY_KILL_SEED").unwrap_or_else(rand::random::<u64>);
    let length = Duration::from_secs(variable("BACKSTAY_KILL_SECONDS").unwrap_or(40));
    eprintln!("BACKSTAY_KILL_SEED={seed}");
    let begun = Instant::now();
    let mut random = StdRng::seed_from_u64(seed);
    let mut ground = Ground::new();
    let mut writers: Vec<_> = (0..WRITERS).map(|number| Writer::new(number, seed, Ledger::new(begun))).collect();
    ground.start_haproxy();
    ground.start_backstay(Reloading::Master);
    let mut rounds = 0;
    // On a machine that is busy with other things the first answers may come late.
    let nothing_yet = |writers: &[Writer]| writers.iter().all(|writer| writer.ledger.changes == 0);
    while begun.elapsed() < length || nothing_yet(&writers) && rounds < 20 {
        rounds += 1;
        let (after, said) = round(&mut ground, writers, &mut random).await;
        writers = after;
        let faults = settle(&ground, &mut writers).await;
        let shown = faults.join("\n");
        eprintln!("{:.1} s, round {rounds}: {said}", begun.elapsed().as_secs_f64());
        assert!(faults.is_empty(), "BACKSTAY_KILL_SEED={seed}, round {rounds}: {said}\n{shown}\n{}", ground.log());
    }
    let changes: usize = writers.iter().map(|writer| writer.ledger.changes).sum();
    eprintln!("{rounds} rounds, {changes} acknowledged changes, none lost");
    assert!(changes > 0, "nothing was written");
}

/// Writers write, reloads come, something is killed and started again. Returns what was done, in words.
async fn round(ground: &mut Ground, writers: Vec<Writer>, random: &mut StdRng) -> (Vec<Writer>, String) {
    let clients = [ground.client(Transport::Grpc), ground.client(Transport::Rest)];
    let stop = Arc::new(AtomicBool::new(false));
    let running = writers.into_iter().map(|writer| tokio::spawn(writer.run(clients.clone(), stop.clone())));
    let running: Vec<_> = running.collect();
    let mut said = String::new();
    let end = Instant::now() + Duration::from_millis(random.random_range(200..1500));
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..400))).await;
        match random.random_range(0..6) {
            0 => {
                ground.reload_by_signal();
                said.push_str("SIGUSR2, ");
            }
            1 => {
                ground.reload_by_master();
                said.push_str("reload of the master, ");
            }
            _ => {}
        }
    }
    said.push_str(kill(ground, random));
    // Who lives goes on for a while without the other.
    tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
    stop.store(true, Ordering::Relaxed);
    let mut writers = Vec::new();
    for writer in running {
        writers.push(writer.await.expect("a writer"));
    }
    let reloading = restart(ground, random);
    (writers, format!("{said}, then reloads are by {reloading:?}"))
}

fn kill(ground: &mut Ground, random: &mut StdRng) -> &'static str {
    match random.random_range(0..8) {
        0..3 => {
            ground.kill_backstay();
            "backstay was killed"
        }
        3 => {
            ground.kill_worker();
            "HAProxy's worker was killed"
        }
        4 => {
            ground.kill_master();
            "HAProxy's master was killed"
        }
        5 => {
            ground.kill_haproxy();
            "all of HAProxy was killed"
        }
        6 => {
            ground.kill_backstay();
            ground.kill_haproxy();
            "backstay and then HAProxy were killed"
        }
        _ => {
            ground.kill_haproxy();
            ground.kill_backstay();
            "HAProxy and then backstay were killed"
        }
    }
}

fn restart(ground: &mut Ground, random: &mut StdRng) -> Option<Reloading> {
    let reloading = [Reloading::Master, Reloading::CommandSeen, Reloading::Command][random.random_range(0..3)];
    let haproxy_first = random.random();
    if haproxy_first && !ground.haproxy_runs() {
        ground.start_haproxy();
    }
    let started = !ground.backstay_runs();
    if started {
        ground.start_backstay(reloading);
    }
    if !ground.haproxy_runs() {
        ground.start_haproxy();
    }
    started.then_some(reloading)
}

/// Compares what was acknowledged with the API, the API with files and with the running HAProxy. Returns the faults.
async fn settle(ground: &Ground, writers: &mut [Writer]) -> Vec<String> {
    let client = ground.client(Transport::Grpc);
    let (mut faults, found) = match agreed(ground, &client, writers).await {
        Ok(agreed) => agreed,
        Err(refusal) => return vec![format!("backstay does not answer: {refusal:?}")],
    };
    for writer in &mut *writers {
        faults.extend(writer.ledger.settle(&writer.share(&found)));
        faults.append(&mut writer.faults);
    }
    match transactions(&client, writers).await {
        Ok(more) => faults.extend(more),
        Err(refusal) => faults.push(format!("{refusal:?}")),
    }
    faults
}

/// Waits until no reload is pending, files and HAProxy have what the API shows, and that is what was acknowledged.
/// Returns what never agreed, and what the API shows.
async fn agreed(ground: &Ground, client: &Client, writers: &[Writer]) -> Result<(Vec<String>, Found), Refusal> {
    let deadline = Instant::now() + AGREEMENT;
    let in_doubt = writers.iter().any(|writer| writer.ledger.is_in_doubt());
    let mut steady: Option<(Found, Instant)> = None;
    loop {
        let (mut faults, mut found) = (Vec::new(), Found::new());
        let reloads = client.call("ReloadService.ListReloads", &json!({})).await?.message;
        let pending = |reload: &serde_json::Value| reload["status"] == "in_progress";
        if reloads["reloads"].as_array().is_some_and(|reloads| reloads.iter().any(pending)) {
            faults.push(format!("a reload never ends: {reloads}"));
        }
        for kind in KINDS.iter().filter(|kind| looks_at(kind.promise)) {
            let memory = own(&kind.memory(client).await?);
            for (promise, place, things) in [
                (Promise::Stored, "the file", kind.stored(ground)),
                (Promise::Running, "HAProxy", kind.running(ground)),
            ] {
                let things = things.filter(|_| looks_at(promise)).map(|things| own(&things));
                if let Some(things) = things.filter(|things| *things != memory) {
                    faults.push(format!("{} of {place}: {things:?}\n    but the API shows {memory:?}", kind.name));
                }
            }
            found.extend(memory.into_iter().map(|(name, value)| (Key { kind: kind.name, name }, value)));
        }
        // What was written at run time is brought back soon, but not before reads are answered.
        let complete = writers.iter().all(|writer| writer.ledger.agrees(&writer.share(&found)));
        let since = match &steady {
            Some((before, since)) if *before == found => *since,
            _ => steady.insert((found.clone(), Instant::now())).1,
        };
        let certain = !in_doubt || since.elapsed() >= DOUBT;
        if faults.is_empty() && complete && certain || Instant::now() > deadline {
            return Ok((faults, found));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What writers have written.
fn own(things: &Things) -> Things {
    let is_own = |name: &str| name.strip_prefix('w').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    things.iter().filter(|(name, _)| is_own(name)).map(|(name, value)| (name.clone(), *value)).collect()
}

/// Open transactions are still there; then they are deleted. Versions do not go back.
async fn transactions(client: &Client, writers: &mut [Writer]) -> Result<Vec<String>, Refusal> {
    let mut faults = Vec::new();
    let listed = client.call("TransactionService.ListTransactions", &json!({})).await?.message;
    let listed = listed["transactions"].as_array().cloned().unwrap_or_default();
    let version = client.call("RawConfigurationService.GetVersion", &json!({})).await?.message["version"].clone();
    for writer in writers {
        for id in writer.open.drain(..) {
            if !listed.iter().any(|transaction| transaction["id"] == *id) {
                faults.push(format!("the transaction {id} is gone"));
            }
        }
        if version.as_i64() < Some(writer.version) {
            faults.push(format!("the version is {version}, and was {}", writer.version));
        }
    }
    for transaction in &listed {
        client.call("TransactionService.DeleteTransaction", &json!({"id": transaction["id"]})).await?;
    }
    Ok(faults)
}
