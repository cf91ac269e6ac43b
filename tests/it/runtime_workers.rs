//! What the client of the Runtime API does when workers come and go, and when a socket or a reader takes its time.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backstay::error::Reason;
use backstay::runtime::{Address, AdminState, DataType, Limits, MapRef, Runtime, StatKind, Worker, WorkerListener};
use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::haproxy::Haproxy;

const BODY: &str = "
frontend web
    bind unix@{dir}/web.sock
    use_backend %[path,map_beg({dir}/paths.map,app)]
backend app
    server s1 127.0.0.1:9
";

fn live(entries: usize) -> (Haproxy, Runtime, MapRef) {
    let mut haproxy = Haproxy::prepare(BODY);
    let lines: Vec<String> = (0..entries).map(|n| format!("/key-number-{n}/ app\n")).collect();
    let map = haproxy.file("paths.map", &lines.concat());
    haproxy.start();
    let limits = Limits { stream_timeout: Duration::from_secs(1), ..Limits::default() };
    let runtime = Runtime::with_limits(vec![Address::Unix(haproxy.socket())], limits);
    (haproxy, runtime, MapRef::new(map.display().to_string()).unwrap())
}

/// Gives each worker an entry, but not before it is allowed to.
struct Keeper {
    map: MapRef,
    allowed: AtomicBool,
    changed: AtomicUsize,
}

impl WorkerListener for Keeper {
    fn changed(&self, _: Worker) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    fn prepare<'a>(&'a self, worker: Worker, runtime: &'a Runtime) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            assert_eq!(runtime.worker(), Some(worker));
            while !self.allowed.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            runtime.map_add(&self.map, "/kept/", "app").await.unwrap();
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_worker_is_prepared_before_it_takes_writes() {
    let (mut haproxy, runtime, map) = live(1);
    let keeper = Arc::new(Keeper { map: map.clone(), allowed: AtomicBool::new(true), changed: AtomicUsize::new(0) });
    runtime.listen(keeper.clone());
    runtime.map_add(&map, "/a/", "app").await.unwrap();
    assert_eq!(runtime.map_entry(&map, "/kept/").await.unwrap().value, "app", "the first worker is a new one, too");
    keeper.allowed.store(false, Ordering::Relaxed);
    let old = haproxy.reload();
    let write = tokio::spawn({
        let (runtime, map) = (runtime.clone(), map.clone());
        async move { runtime.map_add(&map, "/b/", "app").await }
    });
    // Reads are answered by the new one meanwhile.
    let gone = runtime.map_entry(&map, "/a/").await.unwrap_err();
    assert_eq!((gone.reason(), keeper.changed.load(Ordering::Relaxed)), (Reason::ObjectNotFound, 2));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!write.is_finished());
    assert_eq!(runtime.map_entry(&map, "/b/").await.unwrap_err().reason(), Reason::ObjectNotFound);
    keeper.allowed.store(true, Ordering::Relaxed);
    write.await.unwrap().unwrap();
    let entries = runtime.map_entries(&map).await.unwrap().collect().await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/key-number-0/", "/kept/", "/b/"]);
    drop(old.wait_with_output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_nobody_follows_is_unavailable() {
    let (mut haproxy, runtime, map) = live(1);
    runtime.map_add(&map, "/a/", "app").await.unwrap();
    // A connection keeps it alive when it is told to finish.
    let mut held = UnixStream::connect(haproxy.socket()).unwrap();
    held.write_all(b"prompt\nset timeout cli 60\n").unwrap();
    let pid = runtime.worker().unwrap().pid;
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::USR1).unwrap();
    let begun = Instant::now();
    while runtime.info().await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10), "a worker that is stopping still answers");
    }
    let error = runtime.map_add(&map, "/b/", "app").await.unwrap_err();
    assert_eq!(error.reason(), Reason::RuntimeUnavailable, "{error}");
    assert_eq!(runtime.stats(None, None).await.map(drop).unwrap_err().reason(), Reason::RuntimeUnavailable);
    drop(held);
    haproxy.start();
    runtime.map_add(&map, "/b/", "app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_keep_nobody_from_short_listings_and_are_cut_off() {
    let (_haproxy, runtime, map) = live(50_000);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut listing = runtime.map_entries(&map).await.unwrap();
        assert!(listing.next().await.unwrap().is_some());
        slow.push(listing);
    }
    assert!(runtime.stats(Some("app"), Some(StatKind::Server)).await.unwrap().flatten().count() == 1);
    assert_eq!(runtime.maps().await.unwrap().len(), 1);
    // Nobody waits, so they are left alone, however long it takes.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut first = slow.pop().unwrap();
    while first.next().await.unwrap().is_some() {}
    slow.push(runtime.map_entries(&map).await.unwrap());
    // One who waits gets the place of one who takes nothing.
    let listed = runtime.map_entries(&map).await.unwrap().collect().await.unwrap();
    assert_eq!(listed.len(), 50_000);
    let mut cut = 0;
    for mut listing in slow {
        let end = loop {
            match listing.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(error) => break Some(error.reason()),
            }
        };
        assert!(end.is_none_or(|reason| reason == Reason::DeadlineExceeded), "{end:?}");
        cut += usize::from(end.is_some());
    }
    assert!(cut > 0, "somebody had to give up his place");
}

/// Answers as HAProxy does, by a script: the number of the connection and a command give an answer, or nothing, which
/// closes the connection.
struct Scripted {
    _dir: TempDir,
    socket: PathBuf,
}

impl Scripted {
    fn start(script: impl Fn(usize, &str) -> Option<String> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let (listener, script) = (UnixListener::bind(&socket).unwrap(), Arc::new(script));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (Ok(stream), script) = (stream, script.clone()) else { return };
                std::thread::spawn(move || answer(number, stream, &*script));
            }
        });
        Scripted { _dir: dir, socket }
    }

    fn client(&self, limits: Limits) -> Runtime {
        Runtime::with_limits(vec![Address::Unix(self.socket.clone())], limits)
    }
}

fn answer(number: usize, mut stream: UnixStream, script: &dyn Fn(usize, &str) -> Option<String>) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let text = match line.as_str() {
            "prompt" | "set severity-output number" => Some(String::new()),
            command => script(number, command),
        };
        let Some(text) = text else { return };
        // What a trickling socket sends comes in pieces, each behind a pause.
        for piece in text.split('~') {
            if text.contains('~') {
                std::thread::sleep(Duration::from_millis(100));
            }
            if stream.write_all(piece.as_bytes()).is_err() {
                return;
            }
        }
        if stream.write_all(b"\n> ").is_err() {
            return;
        }
    }
}

fn info(pid: u32, stopping: u32) -> String {
    format!("Name: HAProxy\nPid: {pid}\nStopping: {stopping}\nStart_time_sec: {pid}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_trickles_has_one_deadline() {
    let scripted = Scripted::start(|_, command| match command {
        "show info" => Some(info(1, 0)),
        _ => Some(".~".repeat(100)),
    });
    let runtime = scripted.client(Limits { command_timeout: Duration::from_millis(500), ..Limits::default() });
    let begun = Instant::now();
    let error = runtime.version().await.unwrap_err();
    assert_eq!(error.reason(), Reason::RuntimeUnavailable);
    assert!(begun.elapsed() < Duration::from_secs(5), "the trickle takes 10 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_increment_that_a_stopping_worker_took_is_not_repeated() {
    let sets = Arc::new(AtomicUsize::new(0));
    let counted = sets.clone();
    let scripted = Scripted::start(move |number, command| match command {
        // The first connection is to a worker that goes when it has been written to.
        "show info" if number == 0 => Some(info(1, u32::from(counted.load(Ordering::Relaxed) > 0))),
        "show info" => Some(info(2, 0)),
        "show table" => Some("# table: t, type: string, size:100, used:1\n".into()),
        set if set.starts_with("set table") => {
            counted.fetch_add(1, Ordering::Relaxed);
            Some(String::new())
        }
        _ => Some("# table: t, type: string, size:100, used:1\n0x1: key=k use=0 exp=9 gpc0=5\n".into()),
    });
    let runtime = scripted.client(Limits { lanes: 1, ..Limits::default() });
    let amounts = [(DataType::Gpc(0), 1)];
    let error = runtime.add_to_table_entry("t", "k", &amounts).await.unwrap_err();
    assert_eq!((error.reason(), sets.load(Ordering::Relaxed)), (Reason::OutcomeUnknown, 1), "{error}");
    // What says the same however often it is said is repeated.
    assert!(runtime.add_to_table_entry("t", "k", &amounts).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopping_worker_took_is_done_again_with_the_next() {
    let log: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let kept = log.clone();
    let scripted = Scripted::start(move |number, command| {
        let mut log = kept.lock().unwrap();
        if command != "show info" {
            log.push(format!("{} {command}", usize::from(number > 0)));
        }
        let gone = log.iter().any(|line| line.starts_with("0 del") || line.starts_with("0 set"));
        match command {
            "show info" if number == 0 => Some(info(1, u32::from(gone))),
            "show info" => Some(info(2, 0)),
            // The next one read a file that the entry was deleted from already.
            del if del.starts_with("del map") && number > 0 => Some("[3]: Key not found.\n".into()),
            _ => Some(String::new()),
        }
    });
    let map = MapRef::new("/m").unwrap();
    let runtime = scripted.client(Limits { lanes: 1, ..Limits::default() });
    runtime.map_delete(&map, "k").await.unwrap();
    runtime.set_server_state("b", "s", AdminState::Drain).await.unwrap();
    let lines = log.lock().unwrap().clone();
    assert_eq!(
        lines,
        ["0 del map /m k", "0 del map /m k", "1 del map /m k", "1 del map /m k", "1 set server b/s state drain"]
    );
    // A key that was never there is told so.
    assert_eq!(runtime.map_delete(&map, "k").await.unwrap_err().reason(), Reason::ObjectNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_breaks_under_a_command_is_not_asked_for_ever() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let scripted = Scripted::start(move |_, command| {
        if command == "show info" {
            return Some(info(1, 0));
        }
        counted.fetch_add(1, Ordering::Relaxed);
        None
    });
    let runtime = scripted.client(Limits::default());
    assert_eq!(runtime.version().await.unwrap_err().reason(), Reason::RuntimeUnavailable);
    let read = asked.swap(0, Ordering::Relaxed);
    assert!((1..=3).contains(&read), "{read}");
    let error = runtime.set_server_state("b", "s", AdminState::Ready).await.unwrap_err();
    assert_eq!(error.reason(), Reason::OutcomeUnknown);
    assert!((1..=3).contains(&asked.load(Ordering::Relaxed)));
}
