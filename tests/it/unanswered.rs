//! Writes at run time that HAProxy has made and nobody heard of it: the program is killed, or the caller goes away, before
//! the answer is there. They are there or not, but whole: HAProxy, the file and the list of overrides agree.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::support::client::Transport;
use crate::support::world::{World, done, until};

/// Before HAProxy's stats socket. It keeps back the answer to commands that hold a word, and all that follow on that
/// connection.
#[derive(Clone, Default)]
struct Between(Arc<Mutex<Option<&'static str>>>);

impl Between {
    fn listen(&self, dir: &Path) {
        let (listener, behind) = (UnixListener::bind(dir.join("between.sock")).unwrap(), dir.join("run/stats.sock"));
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
            let mut bytes = [0; 65536];
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
            let mut bytes = [0; 65536];
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

struct Ground {
    world: World,
    between: Between,
    acl: String,
}

impl Ground {
    async fn new() -> Self {
        let between = Between::default();
        let flags = ["--stats-socket", "{dir}/between.sock", "--update-map-files-period", "1"];
        let world = World::start_with(Transport::Grpc, &flags, |dir| between.listen(dir));
        let acl = world.backstay.dir().join("blocked.lst");
        std::fs::write(&acl, "/one\n").unwrap();
        let acl = acl.display().to_string();
        let rule = json!({"index": 0, "type": "deny", "cond": "if", "cond_test": format!("{{ path -f {acl} }}")});
        let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9});
        let rule = json!({"parent_type": "frontend", "parent_name": "main", "http_request_rule": rule});
        world
            .cases([
                ("BackendService.CreateBackend", json!({"backend": {"name": "app", "mode": "http"}}), done()),
                (
                    "ServerService.CreateServer",
                    json!({"parent_type": "backend", "parent_name": "app", "server": server}),
                    done(),
                ),
                ("HttpRequestRuleService.CreateHttpRequestRule", rule, done()),
                (
                    "StorageMapService.ReplaceStorageMap",
                    json!({"name": "paths.map", "data": "# who\n/a 1\n/b 2\n", "force_reload": true}),
                    done(),
                ),
            ])
            .await;
        world.settled().await;
        Ground { world, between, acl }
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.map()).unwrap()
    }

    fn map(&self) -> String {
        self.world.backstay.folder().join("maps/paths.map").display().to_string()
    }

    /// Entries of the map, patterns of the ACL and the state of the server, as HAProxy holds them.
    fn held(&self) -> String {
        let ask = |command: &str| self.world.backstay.ask(command).unwrap_or_default();
        let listed = ask(&format!("show map {}", self.map())) + &ask(&format!("show acl {}", self.acl));
        let entries = listed.lines().filter_map(|line| line.strip_prefix("0x")?.split_once(' '));
        let entries: Vec<&str> = entries.map(|(_, entry)| entry).collect();
        let servers = ask("show servers state app");
        let flags = servers.lines().find(|line| line.contains(" s1 ")).and_then(|line| line.split(' ').nth(6));
        format!("{}, {}", entries.join(", "), flags.unwrap_or_default())
    }

    /// Begins a write that HAProxy makes and whose answer does not arrive.
    async fn begin(&self, word: &'static str, held: &str, name: &str, request: Json) -> tokio::task::JoinHandle<()> {
        self.between.keep_back(Some(word));
        let (client, name) = (self.world.client.clone(), name.to_owned());
        let call = tokio::spawn(async move { drop(client.call(&name, &request).await) });
        until("haproxy has made it", async || self.held() == held).await;
        self.between.keep_back(None);
        call
    }

    async fn overrides(&self) -> usize {
        let listed = self.world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
        listed["overrides"].as_array().map_or(0, Vec::len)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_haproxy_and_the_journal() {
    let mut ground = Ground::new().await;
    let map = |key: &str| json!({"map": "paths.map", "entry": {"key": key, "value": "3"}});
    let acl = ground.acl.clone();
    let pattern = json!({"acl_id": acl, "entry": {"value": "/two"}});
    let many = json!({"name": "paths.map", "entries": [{"key": "/z", "value": "1"}, {"key": "/a", "value": "9"}]});
    let state = json!({"backend": "app", "name": "s1", "server": {"admin_state": "drain"}});
    let steps = [
        ("add map", "/a 1, /b 2, /c 3, /one, 0", "MapEntryService.CreateMapEntry", map("/c")),
        ("del map", "/a 1, /c 3, /one, 0", "MapEntryService.DeleteMapEntry", json!({"map": "paths.map", "id": "/b"})),
        ("add map", "/a 1, /c 3, /z 1, /a 9, /one, 0", "MapService.AddMapEntries", many),
        ("add acl", "/a 1, /c 3, /z 1, /a 9, /one, /two, 0", "AclFileEntryService.CreateAclFileEntry", pattern),
        ("set server", "/a 1, /c 3, /z 1, /a 9, /one, /two, 8", "RuntimeServerService.SetRuntimeServer", state),
    ];
    for (word, held, name, request) in steps {
        let call = ground.begin(word, held, name, request).await;
        ground.world.backstay.kill();
        call.await.unwrap();
        ground.world.restart();
    }
    let (held, file) = (ground.held(), "# who\n/a 1\n/c 3\n/z 1\n/a 9\n");
    until("the file has what haproxy has", async || ground.file() == file).await;
    assert_eq!(ground.held(), held);
    until("the others are in the journal", async || ground.overrides().await == 2).await;
    let worker = ground.world.worker();
    ground.world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    ground.world.settled().await;
    until("another worker", async || ground.world.backstay.ask("show info").is_ok() && ground.world.worker() != worker)
        .await;
    until("it has everything", async || ground.held() == held).await;
    assert_eq!(ground.file(), file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away() {
    let ground = Ground::new().await;
    let add = json!({"map": "paths.map", "entry": {"key": "/c", "value": "3"}});
    let call = ground.begin("add map", "/a 1, /b 2, /c 3, /one, 0", "MapEntryService.CreateMapEntry", add).await;
    call.abort();
    drop(call.await);
    until("the file has what haproxy has", async || ground.file() == "# who\n/a 1\n/b 2\n/c 3\n").await;
    // What is refused leaves nothing behind.
    let again = json!({"map": "paths.map", "entry": {"key": "/c", "value": "4"}});
    ground.world.call("MapEntryService.CreateMapEntry", again).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ground.file(), "# who\n/a 1\n/b 2\n/c 3\n");
}
