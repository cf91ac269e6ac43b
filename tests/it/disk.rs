//! The file on disk is the configuration: also when HAProxy refuses it, when it is mounted by itself, and when a second
//! server is started on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use backstay::error::Reason;

use crate::support::backstay::Backstay;
use crate::support::client::{Client, Transport, request};
use crate::support::haproxy::binary;
use crate::support::world::{World, done, holds, over_both, refused, refused_saying, until};

const BROKEN: &str = "\nbackend broken\n    no-such-keyword\n";

over_both!(
    refused_by_haproxy,
    covers [
        "RawConfigurationService.GetRawConfiguration",
        "HealthService.GetHealth",
        "BackendService.DeleteBackend",
        "BackendService.CreateBackend"
    ]
);

async fn refused_by_haproxy(world: &mut World) {
    for at_start in [false, true] {
        let text = format!("{}{BROKEN}", world.backstay.text());
        if at_start {
            world.backstay.kill();
            std::fs::write(world.backstay.config(), &text).unwrap();
            world.backstay.run();
            world.client = Client::new(world.client.transport, world.backstay.api, &world.backstay.password);
        } else {
            std::fs::write(world.backstay.config(), &text).unwrap();
        }
        until("the text is served", async || {
            world.call("BackendService.GetBackend", json!({"name": "broken"})).await.is_ok()
        })
        .await;
        let raw = world.ok("RawConfigurationService.GetRawConfiguration", json!({})).await;
        assert_eq!((raw["data"].as_str(), &world.backstay.text()), (Some(&*text), &text), "as it stands");
        let health = world.ok("HealthService.GetHealth", json!({})).await.to_string();
        assert!(health.contains("no-such-keyword"), "{health}");
        assert!(world.backstay.log().contains("no-such-keyword"));
        if world.is_rest() {
            let path = "/v2/services/haproxy/configuration/version";
            let answer = world.client.send(request("GET", path, "application/json", String::new())).await;
            let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert!(warning.contains("no-such-keyword"), "{:?}", answer.headers);
        }
        let other = json!({"backend": {"name": format!("other{at_start}"), "mode": "http"}});
        let said = refused_saying(Reason::ConfigurationRejected, "no-such-keyword");
        let refusal = world.refused("BackendService.CreateBackend", other.clone(), said).await;
        assert!(refusal.text.contains("the configuration file as it stands is refused"), "{}", refusal.text);
        assert_eq!(world.backstay.text(), text);
        world.visit_until("/hello", "Hello").await;

        world
            .cases([
                ("BackendService.DeleteBackend", json!({"name": "broken"}), done()),
                ("BackendService.CreateBackend", other, done()),
            ])
            .await;
        let health = world.ok("HealthService.GetHealth", json!({})).await.to_string();
        assert!(!health.contains("no-such-keyword"), "{health}");
        let version = world.version().await;
        assert!(world.backstay.text().starts_with(&format!("# _version={version}\n")), "{}", world.backstay.text());
        let name = format!("other{at_start}");
        until("haproxy runs what was repaired", async || {
            world.backstay.ask("show backend").is_ok_and(|backends| backends.contains(&name))
        })
        .await;
    }
}

over_both!(ends_and_numbers, covers["RawConfigurationService.PushRawConfiguration"]);

async fn ends_and_numbers(world: &mut World) {
    let text = world.backstay.text();
    let cut = format!("{text}\nbackend cut\n    mode http");
    let push = |data: &str, more: serde_json::Value| {
        let mut request = json!({"data": data});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("RawConfigurationService.PushRawConfiguration", request)
    };
    let only = json!({"only_validate": true, "version": null});
    let (name, as_it_came) = push(&cut, only.clone());
    world.cases([(name, as_it_came, refused_saying(Reason::ConfigurationRejected, "Missing LF on last line"))]).await;
    let (name, completed) = push(&cut, json!({"force_reload": true}));
    world.cases([(name, completed, done())]).await;
    assert_eq!(world.backstay.text(), format!("# _version={}\n{cut}\n", world.version().await));
    assert!(world.backstay.ask("show backend").unwrap().contains("cut"));
    // Line feeds of another system are as good.
    let other = text.replace('\n', "\r\n");
    let (name, request) = push(other.trim_end(), json!({"force_reload": true}));
    world.cases([(name, request, done())]).await;
    assert!(world.backstay.text().ends_with("\r\n"));

    let version = world.version().await;
    for words in ["9007199254740992", "9223372036854775807", "99999999999999999999999"] {
        let numbered = format!("# _version={words}\n{text}");
        for more in [json!({"skip_version": true, "version": null}), json!({}), only.clone()] {
            let (name, request) = push(&numbered, more);
            world.cases([(name, request, refused(Reason::InvalidValue))]).await;
        }
        // By hand, the next number counts; it takes its place with the next change.
        let before = world.version().await;
        let edited = format!("{numbered}\n# {words}\n");
        std::fs::write(world.backstay.config(), &edited).unwrap();
        until("taken over", async || world.version().await == before + 1).await;
        assert_eq!(world.backstay.text(), edited);
        let made = json!({"backend": {"name": format!("n{words}"), "mode": "http"}});
        world.cases([("BackendService.CreateBackend", made, done())]).await;
        assert!(world.backstay.text().starts_with(&format!("# _version={}\n", before + 2)));
    }
    assert_eq!(world.version().await, version + 6);
    world
        .cases([(
            "BackendService.CreateBackend",
            json!({"backend": {"name": "next", "mode": "http"}}),
            holds(json!({"version": version + 7})),
        )])
        .await;
}

/// Waits longer than a busy machine takes to start a program.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A file that is mounted over another one, as containers do it, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with a word why, where nothing may be mounted.
    fn file(file: &Path, over: &Path) -> Option<Self> {
        Mount::new(&["--bind"], file, over)
    }

    /// A disk of one MiB.
    fn small_disk(folder: &Path) -> Option<Self> {
        Mount::new(&["-t", "tmpfs", "-o", "size=1m"], Path::new("tmpfs"), folder)
    }

    #[allow(clippy::print_stderr, reason = "a test that does not run says why")]
    fn new(how: &[&str], what: &Path, over: &Path) -> Option<Self> {
        let done = Command::new("mount").args(how).args([what, over]).output();
        if done.as_ref().is_ok_and(|done| done.status.success()) {
            return Some(Mount(over.to_owned()));
        }
        eprintln!("skipped, nothing can be mounted: {done:?}");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_mounted_by_itself_can_be_changed_in_every_way() {
    let mut world = World::start(Transport::Rest, &[]);
    world.backstay.kill();
    let outside = world.backstay.dir().join("outside.cfg");
    std::fs::copy(world.backstay.config(), &outside).unwrap();
    let Some(_mount) = Mount::file(&outside, &world.backstay.config()) else { return };
    world.restart();
    let backend = |name: &str| json!({"backend": {"name": name, "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", backend("one")).await;
    let raw = format!("{}\nbackend two\n    mode http\n", world.backstay.text());
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": raw, "force_reload": true})).await;
    let begun = world.ok("TransactionService.BeginTransaction", json!({})).await;
    let id = begun["transaction"]["id"].clone();
    let three = json!({"backend": {"name": "three", "mode": "http"}, "transaction_id": id});
    world.ok("BackendService.CreateBackend", three).await;
    world.ok("TransactionService.CommitTransaction", json!({"id": id, "force_reload": true})).await;
    let seen = std::fs::read_to_string(&outside).unwrap();
    assert_eq!(seen, world.backstay.text());
    let loaded = world.backstay.ask("show backend").unwrap();
    assert!(["one", "two", "three"].iter().all(|name| seen.contains(name) && loaded.contains(name)), "{loaded}");
    world.restart();
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), seen);
    world.ok("BackendService.DeleteBackend", json!({"name": "two"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_says_so_and_loses_nothing() {
    let mut mount = None;
    let backstay = Backstay::start_with(&[], |dir| {
        let folder = dir.join("run");
        std::fs::create_dir(&folder).unwrap();
        mount = Mount::small_disk(&folder);
    });
    if mount.is_none() {
        return;
    }
    for transport in [Transport::Rest, Transport::Grpc] {
        let client = Client::new(transport, backstay.api, &backstay.password);
        let call = async |name: &str| {
            let version =
                client.call("RawConfigurationService.GetVersion", &json!({})).await.unwrap().message["version"].clone();
            let request = json!({"backend": {"name": name, "mode": "http"}, "version": version});
            client.call("BackendService.CreateBackend", &request).await
        };
        let before = backstay.text();
        let ballast = backstay.folder().join("ballast");
        drop(std::fs::write(&ballast, vec![b'x'; 1 << 20]));
        let refusal = call("full").await.unwrap_err();
        assert!(refusal.text.contains("no space is left on the disk"), "{refusal:?}");
        eventually("the log says so", || backstay.log().contains("no space is left on the disk"));
        assert_eq!(backstay.text(), before);
        std::fs::remove_file(&ballast).unwrap();
        call(if transport == Transport::Rest { "rest" } else { "grpc" }).await.unwrap();
    }
    assert!(backstay.text().contains("backend rest") && backstay.text().contains("backend grpc"));
}

/// A server of its own in a folder, told where its state is kept.
fn serve(config: &Path, state: &Path, log: &Path) -> Child {
    let log = std::fs::File::create(log).unwrap();
    Command::new(env!("CARGO_BIN_EXE_backstay"))
        .args(["serve", "--port", "0", "--reload-cmd", "true", "--haproxy-bin"])
        .arg(binary())
        .arg("--config-file")
        .arg(config)
        .arg("--state-dir")
        .arg(state)
        .args(
            ["maps", "ssl", "general", "spoe"]
                .iter()
                .zip(["maps-dir", "ssl-certs-dir", "general-storage-dir", "spoe-dir"])
                .map(|(name, flag)| format!("--{flag}={}", state.with_file_name(name).display())),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Starts a server that is expected to end, and returns what it said.
fn said(config: &Path, state: &Path) -> String {
    let log = config.with_file_name("second.log");
    let mut child = serve(config, state, &log);
    eventually("it ends", || !matches!(child.try_wait(), Ok(None)));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    std::fs::read_to_string(log).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_has_one_server_until_that_ends_however_it_does() {
    let mut world = World::start(Transport::Rest, &[]);
    let dir = world.backstay.dir().to_owned();
    std::fs::create_dir(dir.join("second")).unwrap();
    let state = dir.join("second/state");
    let link = dir.join("link.cfg");
    std::os::unix::fs::symlink(world.backstay.config(), &link).unwrap();
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "ours", "mode": "http"}})).await;
    for config in [&link, &world.backstay.config()] {
        let said = said(config, &state);
        assert!(said.contains("another backstay manages"), "{said}");
        assert_eq!(std::fs::read_dir(dir.join("second")).unwrap().count(), 0, "nothing is made");
    }
    world.settled().await;
    world.backstay.kill();
    let log = dir.join("third.log");
    let mut third = serve(&link, &state, &log);
    eventually("it serves", || std::fs::read_to_string(&log).unwrap().contains("serving gRPC and REST"));
    third.kill().unwrap();
    third.wait().unwrap();
}

#[test]
fn a_start_that_fails_says_why_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("haproxy.cfg"), dir.path().join("second/state"));
    std::fs::create_dir(dir.path().join("second")).unwrap();
    let check = |words: &str| {
        let said = said(&config, &state);
        assert!(said.contains(words) && said.contains("haproxy.cfg"), "{said}");
        assert!(!said.contains("see the log"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path().join("second")).unwrap().count(), 0, "nothing is made: {words}");
    };
    check("does not exist");
    std::fs::write(&config, "global\n").unwrap();
    check("userlist controller does not exist");
    std::fs::remove_file(&config).unwrap();
    std::fs::create_dir(&config).unwrap();
    check("a folder stands in its place");
}

over_both!(
    changes_are_logged,
    covers [
        "BackendService.CreateBackend",
        "BackendService.GetBackend",
        "RawConfigurationService.PushRawConfiguration",
        "TransactionService.CommitTransaction"
    ]
);

async fn changes_are_logged(world: &mut World) {
    let lines = |world: &World| -> Vec<String> {
        let log = world.backstay.log();
        log.lines().filter(|line| line.contains("the configuration changed")).map(str::to_owned).collect()
    };
    let backend = |name: &str| json!({"backend": {"name": name, "mode": "http"}});
    world.ok("BackendService.CreateBackend", backend("logged")).await;
    let version = world.version().await;
    let one = lines(world);
    assert_eq!(one.len(), 1, "{one:?}");
    for words in ["admin", "BackendService.CreateBackend", "logged", &format!("version={version}")] {
        assert!(one[0].contains(words), "{words}: {}", one[0]);
    }
    // What changes nothing is not told: a read, a check, a refusal, an edit of a transaction.
    let mut only = backend("checked");
    only["validate_only"] = json!(true);
    let begun = world.ok("TransactionService.BeginTransaction", json!({})).await;
    let id = begun["transaction"]["id"].clone();
    let mut edit = backend("edited");
    edit["transaction_id"] = id.clone();
    world
        .cases([
            ("BackendService.GetBackend", json!({"name": "logged"}), done()),
            ("BackendService.CreateBackend", only, done()),
            ("BackendService.CreateBackend", backend("logged"), refused(Reason::ObjectExists)),
            ("BackendService.CreateBackend", edit, done()),
        ])
        .await;
    assert_eq!(lines(world), one);
    world.ok("TransactionService.CommitTransaction", json!({"id": id})).await;
    let text = world.backstay.text();
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text})).await;
    let all = lines(world);
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[1].contains("TransactionService.CommitTransaction"), "{all:?}");
    assert!(all[2].contains(&format!("version={}", world.version().await)), "{all:?}");
    assert!(!all[2].contains("frontend"), "the text is no part of the line");
    // Changes that HAProxy refuses leave no transaction.
    let rule = json!({"frontend": "main", "backend_switching_rule": {"index": 0, "name": "nowhere"}});
    let broken = json!({"data": format!("{}{BROKEN}", world.backstay.text())});
    world
        .cases([
            ("BackendSwitchingRuleService.CreateBackendSwitchingRule", rule, refused(Reason::ConfigurationRejected)),
            ("RawConfigurationService.PushRawConfiguration", broken, refused(Reason::ConfigurationRejected)),
        ])
        .await;
    let listed = world.ok("TransactionService.ListTransactions", json!({})).await;
    assert_eq!(listed["transactions"].as_array().map_or(0, Vec::len), 0, "{listed}");
}
