//! Writes at run time that HAProxy has made and nobody heard of it: the program is killed, or the caller goes away, before
//! the answer is there. They are there or not, but whole: HAProxy, the file and the list of overrides agree.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::support::client::{Client, Transport};
use crate::support::haproxy::{Haproxy, binary};
use crate::support::world::until;

/// Before HAProxy's stats socket. It keeps back the answer to commands that hold a word, and all that follow on that
/// connection.
#[derive(Clone, Default)]
struct Between(Arc<Mutex<Option<&'static str>>>);

impl Between {
    fn listen(&self, dir: &Path) {
        let (listener, behind) = (UnixListener::bind(dir.join("between.sock")).unwrap(), dir.join("stats.sock"));
        let between = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(haproxy)) = (client, UnixStream::connect(&behind)) else { continue };
                between.join(client, haproxy);
            }
        });
    }

    fn join(&self, mut client: UnixStream, mut haproxy: UnixStream) {
        let mute = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (mut answers, mut back) = (haproxy.try_clone().unwrap(), client.try_clone().unwrap());
        let (between, muted) = (self.clone(), mute.clone());
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while let Ok(read @ 1..) = client.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                if between.0.lock().unwrap().is_some_and(|word| text.contains(word)) {
                    muted.store(true, std::sync::atomic::Ordering::SeqCst);
                }
                if haproxy.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            drop(haproxy.shutdown(std::net::Shutdown::Write));
        });
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while let Ok(read @ 1..) = answers.read(&mut bytes) {
                if !mute.load(std::sync::atomic::Ordering::SeqCst) && back.write_all(&bytes[..read]).is_err() {
                    break;
                }
            }
            if !mute.load(std::sync::atomic::Ordering::SeqCst) {
                drop(back.shutdown(std::net::Shutdown::Both));
            }
        });
    }

    fn keep_back(&self, word: Option<&'static str>) {
        *self.0.lock().unwrap() = word;
    }
}

const CONFIGURATION: &str = "
userlist controller
    user admin insecure-password adminpwd
frontend main
    bind unix@{dir}/main.sock
    http-request deny if { path,map({dir}/maps/paths.map) -m str never }
    http-request deny if { path -f {dir}/blocked.lst }
backend app
    server s1 127.0.0.1:9
";

/// An HAProxy that goes on when the program is killed.
struct Ground {
    haproxy: Haproxy,
    between: Between,
    backstay: Option<Child>,
    starts: usize,
    client: Client,
}

impl Ground {
    fn new() -> Self {
        let mut haproxy = Haproxy::prepare(CONFIGURATION);
        std::fs::create_dir(haproxy.dir().join("maps")).unwrap();
        haproxy.file("maps/paths.map", "# who\n/a 1\n/b 2\n");
        haproxy.file("blocked.lst", "/one\n");
        haproxy.start();
        let between = Between::default();
        between.listen(haproxy.dir());
        let nowhere = ([127, 0, 0, 1], 1).into();
        let client = Client::new(Transport::Grpc, nowhere, "adminpwd");
        let mut ground = Ground { haproxy, between, backstay: None, starts: 0, client };
        ground.start();
        ground
    }

    fn start(&mut self) {
        let path = |name: &str| self.haproxy.dir().join(name);
        self.starts += 1;
        let log = path(&format!("log.{}", self.starts));
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.arg("serve").args(["--port", "0", "-r", "true", "--update-map-files-period", "1"]);
        command.arg("-b").arg(binary()).arg("--stats-socket").arg(path("between.sock"));
        for (flag, name) in [
            ("-c", "haproxy.cfg"),
            ("--state-dir", "state"),
            ("-p", "maps"),
            ("--ssl-certs-dir", "ssl"),
            ("--general-storage-dir", "general"),
            ("--spoe-dir", "spoe"),
        ] {
            command.arg(flag).arg(path(name));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        self.backstay = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let api = loop {
            let text = std::fs::read_to_string(&log).unwrap();
            let address =
                text.split_once("serving gRPC and REST address=\"").and_then(|(_, rest)| rest.split_once('"'));
            if let Some(address) = address.and_then(|(address, _)| address.parse().ok()) {
                break address;
            }
            assert!(Instant::now() < deadline, "backstay does not start:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.client = Client::new(Transport::Grpc, api, "adminpwd");
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.backstay.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    async fn ok(&self, name: &str, request: Json) -> Json {
        self.client.call(name, &request).await.unwrap_or_else(|refusal| panic!("{name} {request}: {refusal:?}")).message
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.path("maps/paths.map")).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.haproxy.dir().join(name).display().to_string()
    }

    /// Entries of the map, patterns of the ACL and the state of the server, as HAProxy holds them.
    fn held(&self) -> String {
        let ask = |command: &str| self.haproxy.ask(command).unwrap_or_default();
        let (map, acl) = (self.path("maps/paths.map"), self.path("blocked.lst"));
        let listed = ask(&format!("show map {map}")) + &ask(&format!("show acl {acl}"));
        let entries = listed.lines().filter_map(|line| line.strip_prefix("0x")?.split_once(' '));
        let entries: Vec<&str> = entries.map(|(_, entry)| entry).collect();
        let servers = ask("show servers state app");
        let flags = servers.lines().find(|line| line.contains(" s1 ")).and_then(|line| line.split(' ').nth(6));
        format!("{}, {}", entries.join(", "), flags.unwrap_or_default())
    }

    /// Begins a write that HAProxy makes and whose answer does not arrive.
    async fn begin(&self, word: &'static str, held: &str, name: &str, request: Json) -> tokio::task::JoinHandle<()> {
        self.between.keep_back(Some(word));
        let (client, name) = (self.client.clone(), name.to_owned());
        let call = tokio::spawn(async move { drop(client.call(&name, &request).await) });
        let (deadline, mut now) = (Instant::now() + Duration::from_secs(10), String::new());
        while now != held {
            assert!(Instant::now() < deadline, "haproxy holds {now}, not {held}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            now = self.held();
        }
        self.between.keep_back(None);
        call
    }

    async fn overrides(&self) -> usize {
        let listed = self.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
        listed["overrides"].as_array().map_or(0, Vec::len)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.kill();
    }
}

fn entry(key: &str, value: &str) -> Json {
    json!({"map": "paths.map", "entry": {"key": key, "value": value}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_haproxy_and_the_journal() {
    let mut ground = Ground::new();
    let pattern = json!({"acl_id": ground.path("blocked.lst"), "entry": {"value": "/two"}});
    let many = json!({"name": "paths.map", "entries": [{"key": "/z", "value": "1"}, {"key": "/a", "value": "9"}]});
    let state = json!({"backend": "app", "name": "s1", "server": {"admin_state": "drain"}});
    let deleted = json!({"map": "paths.map", "id": "/b"});
    for (word, held, name, request) in [
        ("add map", "/a 1, /b 2, /c 3, /one, 0", "MapEntryService.CreateMapEntry", entry("/c", "3")),
        ("del map", "/a 1, /c 3, /one, 0", "MapEntryService.DeleteMapEntry", deleted),
        ("add map", "/a 1, /c 3, /z 1, /a 9, /one, 0", "MapService.AddMapEntries", many),
        ("add acl", "/a 1, /c 3, /z 1, /a 9, /one, /two, 0", "AclFileEntryService.CreateAclFileEntry", pattern),
        ("set server", "/a 1, /c 3, /z 1, /a 9, /one, /two, 8", "RuntimeServerService.SetRuntimeServer", state),
    ] {
        let call = ground.begin(word, held, name, request).await;
        ground.kill();
        call.await.unwrap();
        ground.start();
    }
    let (held, file) = (ground.held(), "# who\n/a 1\n/c 3\n/z 1\n/a 9\n");
    until("the file has what haproxy has", async || ground.file() == file).await;
    assert_eq!(ground.held(), held);
    until("the others are in the journal", async || ground.overrides().await == 2).await;
    drop(ground.haproxy.reload().wait());
    until("the next process has everything", async || ground.held() == held).await;
    assert_eq!(ground.file(), file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_very_many_entries() {
    let mut ground = Ground::new();
    let entries: Vec<Json> = (0..8_000).map(|n| json!({"key": format!("/many/{}", n / 2), "value": "v"})).collect();
    let request = json!({"name": "paths.map", "entries": entries});
    ground.between.keep_back(Some("add map"));
    let client = ground.client.clone();
    let call = tokio::spawn(async move { drop(client.call("MapService.AddMapEntries", &request).await) });
    until("haproxy has a part of them", async || ground.held().contains("/many/0 v")).await;
    let held = ground.held();
    let count = held.matches("/many/").count();
    assert!((1..8_000).contains(&count), "{count}");
    ground.kill();
    call.await.unwrap();
    ground.between.keep_back(None);
    ground.start();
    let map = held.split_once(", /one").unwrap().0;
    let file = format!("# who\n{}\n", map.replace(", ", "\n"));
    until("the file has what haproxy has, and no more", async || ground.file() == file).await;
    assert_eq!(ground.held(), held);
    drop(ground.haproxy.reload().wait());
    until("the next process has them", async || ground.held() == held).await;
    let state = std::fs::read_dir(ground.haproxy.dir().join("state")).unwrap();
    let left: Vec<_> = state.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("batch")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away() {
    let ground = Ground::new();
    let add = entry("/c", "3");
    let call = ground.begin("add map", "/a 1, /b 2, /c 3, /one, 0", "MapEntryService.CreateMapEntry", add).await;
    call.abort();
    drop(call.await);
    until("the file has what haproxy has", async || ground.file() == "# who\n/a 1\n/b 2\n/c 3\n").await;
    // What is refused leaves nothing behind.
    ground.client.call("MapEntryService.CreateMapEntry", &entry("/c", "4")).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ground.file(), "# who\n/a 1\n/b 2\n/c 3\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_processes_that_were_started_by_hand() {
    let mut ground = Ground::new();
    let state = json!({"backend": "app", "name": "s1", "server": {"admin_state": "drain"}});
    ground.ok("RuntimeServerService.SetRuntimeServer", state).await;
    let mut wanted = vec!["/a 1".to_owned(), "/b 2".to_owned()];
    for round in 0..3 {
        let client = ground.client.clone();
        let writer = tokio::spawn(async move {
            let mut written = Vec::new();
            for number in 0..200 {
                let key = format!("/r{round}n{number}");
                let written_one = client.call("MapEntryService.CreateMapEntry", &entry(&key, "v")).await;
                written_one.unwrap_or_else(|refusal| panic!("{key}: {refusal:?}"));
                written.push(format!("{key} v"));
            }
            written
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(ground.haproxy.reload().wait());
        wanted.extend(writer.await.unwrap());
        let held = || -> Vec<String> {
            let mut held: Vec<_> = ground.held().split(", ").map(str::to_owned).collect();
            assert_eq!(held.split_off(held.len().saturating_sub(2)), ["/one", "8"]);
            held
        };
        let same = async || {
            let (mut held, mut wanted) = (held(), wanted.clone());
            held.sort();
            wanted.sort();
            held == wanted
        };
        until("the server drains", async || ground.held().ends_with(", 8")).await;
        until("the next process has everything", same).await;
    }
    until("the file has everything", async || ground.file().lines().count() == wanted.len() + 1).await;
}
