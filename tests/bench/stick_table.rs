//! Stick tables pushed by a real HAProxy (from the path, or `HAPROXY_BIN`), side by side with asking it again and again:
//! latency, updates a second, the first sync of a million entries, a hundred watchers. Prints one table; takes a minute
//! or two and some hundred MiB. All traffic stays on the loopback and ends by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement that cannot go on fails, and prints what it found"
)]

#[path = "stick_table/rig.rs"]
mod rig;
#[path = "support.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use backstay::document::Document;
use backstay::peers::{Message, Options, Session, Sink, Table, Updates};
use backstay::proto::runtime as pb;
use backstay::runtime::{Address, Runtime};
use backstay::stick_table::{Feed, Hub, Poll, Push};
use prost::Message as _;
use rig::{Requests, Rig, load};
use support::{Cpu, Report, ask, described, memory, ms, put_update, random, teach};

const MILLION: u32 = 1_000_000;
const WATCHERS: usize = 100;

fn micros(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}

fn main() {
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // First, while nothing has been freed in this process that later measurements would take again.
    runtime.block_on(first_sync(&mut report));
    {
        let _context = runtime.enter();
        decoding(&mut report);
    }
    runtime.block_on(latency(&mut report));
    runtime.block_on(traffic(&mut report));
    report.print();
}

/// How long it takes to have all entries, in this process, and what they take of its memory.
async fn first_sync(report: &mut Report) {
    let rig = Rig::start(&["million"]);
    teach(&rig.path("peers.sock"), "backstay", &rig.path("stats.sock"), "million", MILLION);
    let runtime = Runtime::new(vec![Address::Unix(rig.path("stats.sock"))]);
    let hub = Hub::new(Poll::new(runtime));
    let push = Push::new(hub, "backstay".into(), "somewhere".into());
    let document = Document::parse(&std::fs::read(rig.path("haproxy.cfg")).unwrap());
    let own = |line| memory(std::process::id(), line);
    let (resident, peak) = (own("VmRSS"), own("VmHWM"));
    let (haproxy, ours, begin) = (Cpu::of(rig.haproxy()), Cpu::of(std::process::id()), Instant::now());
    push.follow(&document);
    while !push.statuses().iter().all(|(_, status)| status.live) {
        assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", push.statuses());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let wall = begin.elapsed();
    let (haproxy, ours) = (haproxy.spent(), ours.spent());
    let each = |now: usize, before: usize| now.saturating_sub(before) / MILLION as usize;
    let (resident, peak) = (each(own("VmRSS"), resident), each(own("VmHWM"), peak.max(resident)));
    drop(push);

    let (before, begin) = (Cpu::of(rig.haproxy()), Instant::now());
    let dump = rig.ask("show table million").unwrap();
    let (dumped, shown) = (begin.elapsed(), before.spent());
    assert!(memchr::memchr_iter(b'\n', &dump).count() > MILLION as usize);
    report.row(
        "first sync of 1M entries, wall",
        format!("{:.2} s", wall.as_secs_f64()),
        "<= 2 s",
        format!("show table {:.2} s", dumped.as_secs_f64()),
    );
    report.row(
        "  CPU of HAProxy / ours",
        format!("{:.2} / {:.2} s", haproxy.as_secs_f64(), ours.as_secs_f64()),
        "0.21-0.31 s / -",
        format!("show table: HAProxy {:.2} s", shown.as_secs_f64()),
    );
    report.row(
        "  memory of an entry, then / peak",
        format!("{resident} / {peak} bytes"),
        "<= 96 bytes",
        format!("a line of show table {} bytes", dump.len() / MILLION as usize),
    );
}

/// Takes updates as the session of a table does.
struct Taker(Feed);

impl Sink for Taker {
    fn resync(&mut self) {
        self.0.begin();
    }
    fn resynced(&mut self) {
        self.0.finish();
    }
    fn table(&mut self, table: &Table) {
        self.0.describe(table);
    }
    fn updates(&mut self, table: &Table, updates: Updates<'_>) {
        self.0.updates(table, updates);
    }
}

/// What an update costs from its bytes into the mirror of a million entries, without sockets.
fn decoding(report: &mut Report) {
    let hub = Hub::new(Poll::new(Runtime::new(Vec::new())));
    let mut sink = Taker(hub.push("million"));
    let mut session = Session::new(&Options { local: "a".into(), remote: "b".into(), pid: 1 }, 0);
    session.receive(b"200\n", 0, &mut sink).unwrap();
    let (mut out, mut body, mut seed) = (Vec::new(), Vec::new(), 5);
    Message::Define(described(1, "million")).put(&mut out);
    let mut took = [0.0; 2];
    for (round, took) in took.iter_mut().enumerate() {
        for n in 0..MILLION {
            let key = if round == 0 { n } else { random(&mut seed) % MILLION };
            put_update(n, key, n % 1000, &mut body, &mut out);
        }
        Message::ResyncFinished.put(&mut out);
        let ours = Cpu::of(std::process::id());
        for read in out.chunks(1 << 16) {
            session.receive(read, 1, &mut sink).unwrap();
        }
        *took = micros(ours.spent(), u64::from(MILLION));
        out.clear();
    }
    let [new, known] = took;
    report.row(
        "decode and mirror an update of 1M entries, CPU",
        format!("{known:.2} µs"),
        "<= 1 µs",
        format!("a new entry {new:.2} µs"),
    );
}

/// The `p`-th of a hundred.
fn percentile(times: &mut [Duration], p: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * p / 100).min(times.len() - 1)]
}

/// From the moment before a request until a watcher has decoded the change, and the time of the request itself.
fn probe(port: u16, count: u32, first: u32, seen: &mpsc::Receiver<(String, Instant)>) -> [Vec<Duration>; 2] {
    let mut requests = Requests::open(port);
    let (mut latencies, mut answers) = (Vec::new(), Vec::new());
    for n in 0..count {
        let number = first + n;
        let [a, b, c, d] = number.to_be_bytes();
        let key = format!("{a}.{b}.{c}.{d}");
        requests.add(&[('d', number)]);
        let begin = Instant::now();
        requests.send(1);
        answers.push(begin.elapsed());
        let at = loop {
            let (seen, at) = seen.recv_timeout(Duration::from_secs(10)).expect("the change reaches the watcher");
            if seen == key {
                break at;
            }
        };
        latencies.push(at.saturating_duration_since(begin));
        std::thread::sleep(Duration::from_millis(2));
    }
    [latencies, answers]
}

async fn traffic(report: &mut Report) {
    let mut rig = Rig::start(&["many", "more", "most", "ten"]);
    // Without backstay, for comparison.
    let time = Duration::from_secs(5);
    let loading = move |port| load(port, 2, "abc", MILLION, f64::INFINITY, time);
    let before = Cpu::of(rig.haproxy());
    let alone = loading(rig.port);
    let alone = micros(before.spent(), alone);
    let backstay = rig.serve();
    for table in ["many", "more", "most", "ten"] {
        rig.pushed(table).await;
    }

    for (watchers, target) in [(0, "<= 1 µs"), (1, "-"), (WATCHERS, "<= 3 µs")] {
        let (stop, seen) = watch(&rig, "many", watchers).await;
        let count =
            async |rig: &Rig| rig.revision("many").await + rig.revision("more").await + rig.revision("most").await;
        let before = count(&rig).await;
        let (haproxy, ours, begin) = (Cpu::of(rig.haproxy()), Cpu::of(backstay), Instant::now());
        let requests = tokio::task::spawn_blocking({
            let port = rig.port;
            move || loading(port)
        });
        let requests = requests.await.unwrap();
        let (haproxy, ours, wall) = (haproxy.spent(), ours.spent(), begin.elapsed());
        let updates = u64::try_from(count(&rig).await - before).unwrap();
        stop.store(true, Ordering::Relaxed);
        report.row(
            format!("pushed updates a second, {watchers} watchers of a third"),
            format!("{:.0} k/s", updates as f64 / wall.as_secs_f64() / 1e3),
            ">= 100 k/s",
            format!("{:.0} k requests/s, three tables each", requests as f64 / wall.as_secs_f64() / 1e3),
        );
        report.row(
            "  CPU of backstay an update",
            format!("{:.2} µs", micros(ours, updates)),
            target,
            format!(
                "HAProxy {:.1} µs a request, {alone:.1} without us; {} messages",
                micros(haproxy, requests),
                seen.load(Ordering::Relaxed)
            ),
        );
    }
    many_watchers(report, &rig, backstay).await;
}

async fn latency(report: &mut Report) {
    let mut rig = Rig::start(&["many", "more", "probe"]);
    rig.serve();
    for table in ["many", "more", "probe"] {
        rig.pushed(table).await;
    }
    let mut watch = rig.watch("probe", true).await;
    drop(watch.message().await.unwrap());
    let (tell, seen) = mpsc::channel();
    let task = tokio::spawn(async move {
        while let Ok(Some(bytes)) = watch.message().await {
            let at = Instant::now();
            let message = pb::WatchStickTableResponse::decode(bytes).unwrap();
            if let Some(pb::watch_stick_table_response::Event::Changed(changed)) = message.event {
                for entry in changed.entries {
                    drop(tell.send((entry.key.unwrap_or_default(), at)));
                }
            }
        }
    });
    let port = rig.port;
    let seen = tokio::task::spawn_blocking(move || (probe(port, 1000, 1 << 24, &seen), seen)).await.unwrap();
    let (idle, seen) = seen;
    row_of_latency(report, "change to watcher, idle, p50 / p99", idle, "<= 1 / 10 ms");
    let loader = std::thread::spawn(move || load(port, 1, "ab", MILLION, 16_500.0, Duration::from_secs(6)));
    let loaded = tokio::task::spawn_blocking(move || probe(port, 1000, 2 << 24, &seen)).await.unwrap();
    let updates = 2.0 * loader.join().unwrap() as f64 / 6e3;
    let what = format!("change to watcher, {updates:.0} k updates/s, p50 / p99");
    row_of_latency(report, &what, loaded, "<= 2 ms / requests' p99 + 20 ms");
    task.abort();
}

fn row_of_latency(report: &mut Report, what: &str, [mut latencies, mut answers]: [Vec<Duration>; 2], target: &str) {
    let pair =
        |times: &mut [Duration]| format!("{:.2} / {:.2} ms", ms(percentile(times, 50)), ms(percentile(times, 99)));
    report.row(what, pair(&mut latencies), target, format!("the request itself {}", pair(&mut answers)));
}

/// So many watchers of a table on connections of their own, which count their messages.
async fn watch(rig: &Rig, table: &str, watchers: usize) -> (Arc<AtomicBool>, Arc<AtomicU64>) {
    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    for _ in 0..watchers {
        let mut watch = rig.watch(table, true).await;
        drop(watch.message().await.unwrap());
        let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed)
                && let Ok(Some(_)) = watch.message().await
            {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (stop, seen)
}

/// A hundred who follow a table of 10,000 entries, through backstay and by asking HAProxy once a second.
async fn many_watchers(report: &mut Report, rig: &Rig, backstay: u32) {
    let port = rig.port;
    let mut requests = Requests::open(port);
    for chunk in (0..10_000).collect::<Vec<u32>>().chunks(100) {
        for key in chunk {
            requests.add(&[('e', *key)]);
        }
        requests.send(chunk.len());
    }
    let time = Duration::from_secs(5);
    let share = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64();
    let change = |rate: f64| tokio::task::spawn_blocking(move || load(port, 1, "e", 10_000, rate, time));
    for (rate, target) in [(10.0, "<= 0.05 core"), (100.0, "<= 0.05 core"), (1000.0, "-")] {
        let (stop, seen) = watch(rig, "ten", WATCHERS).await;
        let (haproxy, ours) = (Cpu::of(rig.haproxy()), Cpu::of(backstay));
        change(rate).await.unwrap();
        let (haproxy, ours) = (haproxy.spent(), ours.spent());
        stop.store(true, Ordering::Relaxed);
        report.row(
            format!("100 watchers of 10k entries, {rate:.0} changes/s"),
            format!("{:.3} core", share(ours)),
            target,
            format!("HAProxy {:.3} core, {} messages", share(haproxy), seen.load(Ordering::Relaxed)),
        );
    }
    let (socket, haproxy, ours) = (rig.path("stats.sock"), Cpu::of(rig.haproxy()), Cpu::of(std::process::id()));
    let poll = move || {
        let begin = Instant::now();
        let mut polls = 0;
        while begin.elapsed() < time {
            ask(&socket, "show table ten").expect("an answer");
            polls += 1;
            std::thread::sleep((begin + polls * Duration::from_secs(1)).saturating_duration_since(Instant::now()));
        }
        polls
    };
    let pollers: Vec<_> = (0..WATCHERS).map(|_| std::thread::spawn(poll.clone())).collect();
    change(100.0).await.unwrap();
    let polls: u32 = pollers.into_iter().map(|poller| poller.join().unwrap()).sum();
    report.row(
        "100 pollers of `show table` each second instead",
        format!("HAProxy {:.2} core", share(haproxy.spent())),
        "-",
        format!("{polls} answers, unread {:.2} core of theirs", share(ours.spent())),
    );
}
