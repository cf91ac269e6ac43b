//! What becomes of changes when a reload is not done, is not seen, or is refused: with a command in HAProxy's place of
//! choice, as operators write them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};

use crate::drop_in::Bench;
use crate::support::client::{Client, Refusal, Success, Transport};
use crate::support::haproxy::{binary, eventually};
use crate::support::world::{World, holds, until};

/// Reloads as a script of the operator does without a master: a new process tells the old one to finish.
const SF: &str = "old=$(cat {dir}/pid); {haproxy} -D -p {dir}/pid -f {dir}/haproxy.cfg -sf $old";

/// An HAProxy that a test reloads by commands, stopped at the end whatever runs by then.
struct Daemon(PathBuf);

impl Daemon {
    fn start(bench: &Bench) -> Self {
        let mut command = Command::new(binary());
        command.args(["-D", "-p"]).arg(bench.path("pid")).arg("-f").arg(bench.path("haproxy.cfg"));
        assert!(command.stdin(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        eventually("haproxy answers", || worker(bench).is_some());
        Daemon(bench.path("pid"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        for pid in text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// An HAProxy with a master.
struct Master(Child);

impl Master {
    fn start(bench: &Bench) -> Self {
        let mut command = Command::new(binary());
        command.args(["-W", "-S"]).arg(bench.path("master.sock")).arg("-f").arg(bench.path("haproxy.cfg"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the master answers", || worker(bench).is_some());
        Master(child)
    }

    fn signal(&self, signal: Signal) {
        let _gone = kill_process(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        drop(self.0.wait());
    }
}

/// Process id of the worker that answers.
fn worker(bench: &Bench) -> Option<String> {
    let info = bench.haproxy.ask("show info").ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid: ").map(ToOwned::to_owned))
}

fn script(bench: &Bench, name: &str, text: &str) {
    bench.script(name, &text.replace("{haproxy}", &binary().into_string().unwrap()));
}

/// A backstay beside an HAProxy without a master, which a command reloads by starting a new one, after a delay in ms.
fn without_master(delay: &str) -> (Bench, Daemon, Client) {
    let mut bench = Bench::new();
    bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", delay);
    script(&bench, "again", SF);
    let daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    (bench, daemon, client)
}

async fn version(client: &Client) -> i64 {
    let answer = client.call("RawConfigurationService.GetVersion", &json!({})).await.unwrap();
    answer.message["version"].as_i64().unwrap()
}

async fn add(client: &Client, name: &str, force: bool) -> Result<Success, Refusal> {
    let backend = json!({"name": name, "mode": "http"});
    let request = json!({"backend": backend, "version": version(client).await, "force_reload": force});
    client.call("BackendService.CreateBackend", &request).await
}

async fn health(client: &Client) -> Json {
    client.call("HealthService.GetHealth", &json!({})).await.unwrap().message
}

async fn reloads(client: &Client) -> Vec<Json> {
    let answer = client.call("ReloadService.ListReloads", &json!({})).await.unwrap().message;
    answer["reloads"].as_array().cloned().unwrap_or_default()
}

fn is_there(bench: &Bench, name: &str) -> bool {
    bench.text().contains(&format!("\nbackend {name}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_fails_for_its_own_reasons_takes_nothing_back() {
    for (command, said) in [
        ("exit 1", "failed: exit status 1"),
        ("kill -USR2 4194303", "failed: exit status 1"),
        ("kill -KILL $$", "failed: signal: 9"),
        ("echo 'Job for haproxy.service canceled.' >&2; exit 1", "Job for haproxy.service canceled."),
    ] {
        let mut bench = Bench::running();
        bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
        script(&bench, "again", command);
        bench.start(&["-r", "{dir}/bin/again"]);
        let client = bench.client(Transport::Rest);
        add(&client, "one", false).await.unwrap();
        until("health says why", async || health(&client).await["detail"].to_string().contains(said)).await;
        let refusal = add(&client, "two", true).await.unwrap_err();
        assert!(refusal.status == 400 && refusal.text.contains(said), "{refusal:?}");
        add(&client, "three", false).await.unwrap();
        let all = |bench: &Bench| ["one", "two", "three"].iter().all(|name| is_there(bench, name));
        assert!(all(&bench), "{}", bench.text());
        let open = reloads(&client).await;
        assert!(open.len() == 1 && open[0]["status"] == "in_progress", "{open:?}");
        // It goes on with the next process, and is done as soon as the command works.
        bench.end(Signal::KILL);
        script(&bench, "again", "touch {dir}/worked");
        bench.start(&["-r", "{dir}/bin/again"]);
        eventually("it is tried again", || bench.path("worked").is_file());
        assert!(all(&bench), "{}", bench.text());
        let client = bench.client(Transport::Rest);
        until("it is done", async || reloads(&client).await.iter().all(|reload| reload["status"] == "succeeded")).await;
        let now = reloads(&client).await;
        assert_ne!(now[0]["id"], open[0]["id"], "no id comes twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_haproxy_runs_counts_whatever_the_command_says() {
    let mut bench = Bench::new();
    script(&bench, "again", &format!("{SF} || exit 1; echo 'hook failed' >&2; exit 7"));
    let _daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    let before = worker(&bench);
    add(&client, "one", true).await.unwrap();
    assert_ne!(worker(&bench), before);
    assert!(is_there(&bench, "one"));

    // HAProxy's own words are proof: the port is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let bind = json!({"frontend": "fe", "bind": {"name": "b", "address": "127.0.0.1", "port": port},
        "version": version(&client).await, "force_reload": true});
    let refusal = client.call("BindService.CreateBind", &bind).await.unwrap_err();
    assert!(refusal.status == 400 && refusal.text.contains("cannot bind socket"), "{refusal:?}");
    // HAProxy leaves its former process without a stats socket then.
    add(&client, "two", true).await.unwrap();
    assert!(worker(&bench).is_some());
    assert!(is_there(&bench, "one") && !bench.text().contains(&port.to_string()), "{}", bench.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_nobody_sees_is_told() {
    let mut bench = Bench::running();
    bench.start(&[]);
    let client = bench.client(Transport::Rest);
    let before = worker(&bench);
    assert_eq!(add(&client, "one", true).await.unwrap().status, 201, "clients know the exit status to decide");
    assert_eq!(worker(&bench), before);
    let said = health(&client).await["detail"].to_string();
    assert!(said.contains("no new worker of haproxy was seen"), "{said}");
    let request = crate::support::client::request("GET", "/v2/health", "application/json", String::new());
    let answer = client.send(request).await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 backstay \"") && warning.contains("no new worker"), "{warning}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forced_reloads_that_a_master_does_not_count_are_errors() {
    let mut bench = Bench::new();
    let master = Master::start(&bench);
    bench.start(&["--master-runtime={dir}/master.sock", "--reload-timeout=2"]);
    let client = bench.client(Transport::Rest);
    let refusal = add(&client, "one", true).await.unwrap_err();
    assert!(refusal.status == 400 && refusal.text.contains("is pending"), "{refusal:?}");
    assert!(is_there(&bench, "one"));

    // A frozen one is silent.
    master.signal(Signal::STOP);
    let refusal = add(&client, "two", true).await.unwrap_err();
    assert!(refusal.status == 400 && refusal.text.contains("is pending"), "{refusal:?}");
    assert!(is_there(&bench, "two"));
    let why = health(&client).await["why"].to_string();
    assert!(why.contains("is pending: "), "{why}");
    master.signal(Signal::CONT);
    bench.end(Signal::KILL);
    let before = worker(&bench);
    bench.start(&["--master-runtime={dir}/master.sock", "-r", &format!("kill -USR2 {}", master.0.id())]);
    eventually("the reload is made up for", || worker(&bench).is_some_and(|now| Some(now) != before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stats_socket_may_move_or_appear_where_there_is_no_master() {
    let (bench, _daemon, client) = without_master("20");
    let moved = bench.path("moved.sock").display().to_string();
    let global = json!({"runtime_apis": [{"address": moved, "level": "admin"}]});
    let request = json!({"global": global, "version": version(&client).await});
    client.call("GlobalService.ReplaceGlobal", &request).await.unwrap();
    eventually("haproxy listens where the new text says", || bench.path("moved.sock").try_exists().unwrap());
    until("it is known to", async || reloads(&client).await.iter().all(|reload| reload["status"] == "succeeded")).await;

    // By hand, and back again.
    let text = bench.text().replace(&moved, &bench.path("stats.sock").display().to_string());
    std::fs::write(bench.path("haproxy.cfg"), text).unwrap();
    let before = version(&client).await;
    until("it is taken over", async || version(&client).await > before).await;
    add(&client, "after", false).await.unwrap();
    until("it is reloaded", async || reloads(&client).await.iter().all(|reload| reload["status"] == "succeeded")).await;
    assert!(worker(&bench).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runtime_calls_stay_with_the_socket_that_answers_until_the_new_one_is_there() {
    let (bench, _daemon, client) = without_master("1500");
    let answers = async || {
        let server = json!({"backend": "be", "name": "s1"});
        client.call("RuntimeServerService.GetRuntimeServer", &server).await.map(drop)
    };
    answers().await.unwrap();
    let moved = bench.path("moved.sock");
    let global = json!({"runtime_apis": [{"address": moved.display().to_string(), "level": "admin"}]});
    let request = json!({"global": global, "version": version(&client).await});
    client.call("GlobalService.ReplaceGlobal", &request).await.unwrap();
    // The text is followed by now, the reload is yet to come.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for _ in 0..10 {
        answers().await.unwrap();
    }
    eventually("haproxy listens where the new text says", || moved.try_exists().unwrap());
    until("the new one is asked", async || answers().await.is_ok()).await;
}

/// Adds a text at the end of the file by hand, and waits until it is taken over.
async fn edit_by_hand(world: &World, added: &str) -> i64 {
    let before = world.version().await;
    let fresh = world.backstay.folder().join("haproxy.cfg.theirs");
    std::fs::write(&fresh, format!("{}\n{added}", world.backstay.text())).unwrap();
    std::fs::rename(&fresh, world.backstay.config()).unwrap();
    until("the edit is taken over", async || world.version().await > before).await;
    world.version().await
}

/// The first reload that failed.
async fn failed(world: &World) -> Json {
    let found = async || {
        let answer = world.ok("ReloadService.ListReloads", json!({})).await;
        let reloads = answer["reloads"].as_array().cloned().unwrap_or_default();
        reloads.into_iter().find(|reload| reload["status"] == "failed")
    };
    until("a reload has failed", async || found().await.is_some()).await;
    found().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_change_that_haproxy_refuses_is_taken_back() {
    let world = World::start(Transport::Rest, &["--reload-delay", "1500ms"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "before", "mode": "http"}})).await;
    let bind = json!({"frontend": "main", "bind": {"name": "taken", "address": "127.0.0.1", "port": port}});
    world.ok("BindService.CreateBind", bind).await;
    let guilty = world.version().await;
    edit_by_hand(&world, "backend theirs\n    mode http\n").await;
    // Who waits for the reload of a change that is not to blame hears that it runs.
    let after = json!({"backend": {"name": "after", "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", after).await;

    let record = failed(&world).await;
    let said = record["response"].as_str().unwrap();
    assert!(said.contains("cannot bind socket") || crate::support::haproxy::version() == (2, 6), "{said}");
    assert!(said.contains(&format!("\nversions taken back: {guilty}\n")), "{said}");
    let rest = said.rsplit_once("the rest is loaded by reload ").unwrap().1;
    world
        .cases([("ReloadService.GetReload", json!({"id": rest}), holds(json!({"reload": {"status": "succeeded"}})))])
        .await;
    let (text, runs) = (world.backstay.text(), world.backstay.ask("show stat").unwrap());
    assert!(!text.contains(&port.to_string()), "{text}");
    for name in ["before", "theirs", "after"] {
        assert!(
            text.contains(&format!("backend {name}\n")) && runs.contains(&format!("{name},BACKEND")),
            "{name}: {text}"
        );
    }
    assert!(world.version().await > guilty + 2, "under a new version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_by_hand_that_haproxy_refuses_stays_and_every_answer_says_so() {
    let mut world = World::start(Transport::Rest, &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let edit = edit_by_hand(&world, &format!("frontend theirs\n    mode http\n    bind 127.0.0.1:{port}\n")).await;
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "ours", "mode": "http"}})).await;
    failed(&world).await;
    let told = async |world: &World| {
        let health = world.ok("HealthService.GetHealth", json!({})).await["detail"].to_string();
        health.contains("refuses the edit of the configuration file by hand")
    };
    assert!(told(&world).await);
    let path = "/v2/services/haproxy/configuration/backends";
    let answer =
        world.client.send(crate::support::client::request("GET", path, "application/json", String::new())).await;
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains(&format!("version {edit}")), "{warning}");
    let text = world.backstay.text();
    assert!(text.contains(&format!("bind 127.0.0.1:{port}")) && text.contains("backend ours"), "{text}");
    assert!(world.backstay.ask("show stat").unwrap().contains("ours,BACKEND"), "the rest runs");
    // So it is after a restart, where HAProxy can start: not with this text.
    drop(taken);
    world.restart();
    until("it is loaded as soon as it can be", async || !told(&world).await).await;
    until("it runs", async || world.backstay.ask("show stat").is_ok_and(|stat| stat.contains("theirs,FRONTEND"))).await;
}

/// A reload by others that has read the file and goes on only when the returned end of a pipe is dropped. Its process
/// waits there because it is told to read the pipe as well.
fn reload_of_others(bench: &Bench) -> std::fs::File {
    let pipe = bench.path("pipe");
    if !pipe.try_exists().unwrap() {
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    }
    let old = std::fs::read_to_string(bench.path("pid")).unwrap();
    let mut command = Command::new(binary());
    command.args(["-D", "-p"]).arg(bench.path("pid")).arg("-f").arg(bench.path("haproxy.cfg")).arg("-f").arg(&pipe);
    command.args(["-sf", old.trim()]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut other = command.spawn().unwrap();
    std::thread::spawn(move || other.wait());
    // This waits for the reader, which has read the file before.
    std::fs::OpenOptions::new().write(true).open(pipe).unwrap()
}

/// A reload that is lost once, in one that others began before.
const LOST_ONCE: &str = "if [ -e {dir}/lose ]; then rm {dir}/lose; exec cat {dir}/lost; fi; ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_others_began_before_the_change_is_not_taken_for_ours() {
    let mut bench = Bench::new();
    script(&bench, "again", &format!("{LOST_ONCE}{SF}"));
    let _daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    assert!(Command::new("mkfifo").arg(bench.path("lost")).status().unwrap().success());
    std::fs::write(bench.path("lose"), "").unwrap();
    let others = reload_of_others(&bench);
    let before = worker(&bench);
    // Theirs comes when ours is under way.
    let lost = bench.path("lost");
    std::thread::spawn(move || drop((std::fs::OpenOptions::new().write(true).open(lost), others)));
    add(&client, "one", true).await.unwrap();
    assert_ne!(worker(&bench), before);
    let runs = bench.haproxy.ask("show stat").unwrap();
    assert!(runs.contains("one,BACKEND"), "what was answered as loaded is not:\n{runs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lacks_what_the_one_before_was_given_at_run_time_is_followed_by_a_reload() {
    for restarted in [false, true] {
        let mut bench = Bench::new();
        bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
        script(&bench, "again", SF);
        let _daemon = Daemon::start(&bench);
        bench.start(&["-r", "{dir}/bin/again"]);
        let client = bench.client(Transport::Rest);
        let others = reload_of_others(&bench);
        let before = worker(&bench);
        let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9, "weight": 77});
        let request = json!({"parent_type": "backend", "parent_name": "be", "name": "s1", "server": server,
            "version": version(&client).await});
        client.call("ServerService.ReplaceServer", &request).await.unwrap();
        let weight = |bench: &Bench| bench.haproxy.ask("get weight be/s1").unwrap_or_default();
        assert!(weight(&bench).starts_with("77") && worker(&bench) == before, "it was given at run time");
        if restarted {
            bench.end(Signal::KILL);
        }
        drop(others);
        eventually("theirs has taken over", || worker(&bench).is_some_and(|now| Some(now) != before));
        if restarted {
            bench.start(&["-r", "{dir}/bin/again"]);
        }
        eventually("it is not lost", || weight(&bench).starts_with("77"));
        // Then nothing is to be done any more, also not after another start.
        let client = bench.client(Transport::Rest);
        until("it is done", async || reloads(&client).await.iter().all(|reload| reload["status"] == "succeeded")).await;
        let running = worker(&bench);
        bench.end(Signal::KILL);
        bench.start(&["-r", "{dir}/bin/again"]);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!((worker(&bench), reloads(&bench.client(Transport::Rest)).await), (running, vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_reloads_nothing_is_run_once_more_and_not_at_each_start() {
    let mut bench = Bench::running();
    bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
    // When HAProxy began is told in whole seconds by some versions.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    bench.script("nothing", "echo >> {dir}/asked");
    let reload = ["-r", "{dir}/bin/nothing"];
    bench.start(&reload);
    let asked = |bench: &Bench| std::fs::read(bench.path("asked")).map_or(0, |lines| lines.len());
    add(&bench.client(Transport::Rest), "one", false).await.unwrap();
    eventually("the change is to be loaded", || asked(&bench) == 1);
    let mut counts = Vec::new();
    for _ in 0..3 {
        let client = bench.client(Transport::Rest);
        let done = async || reloads(&client).await.iter().all(|reload| reload["status"] == "succeeded");
        until("it is done", done).await;
        bench.end(Signal::TERM);
        bench.start(&reload);
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        counts.push(asked(&bench));
    }
    assert!(counts[0] <= 2 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    // Another change is asked for as ever.
    add(&bench.client(Transport::Rest), "two", false).await.unwrap();
    eventually("the other change is to be loaded", || asked(&bench) == counts[0] + 1);
}

/// A socket that cannot be bound, which HAProxy only learns when it loads.
fn nowhere(path: &str) -> Json {
    json!({"frontend": "fe", "bind": {"name": "nowhere", "address": format!("unix@{path}")}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_haproxy_prints_at_a_reload_tells_nothing_of_its_environment() {
    let mut bench = Bench::new();
    bench.set("HIDDEN_PLACE", "/nowhere/top-secret");
    script(&bench, "again", SF);
    let _daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    let text = bench.text().replace("    bind unix", "    bind unix@\"${HIDDEN_PLACE}/x.sock\"\n    bind unix");
    let request = json!({"data": text, "version": version(&client).await, "force_reload": true});
    let refusal = client.call("RawConfigurationService.PushRawConfiguration", &request).await.unwrap_err();
    let record = reloads(&client).await.into_iter().find(|reload| reload["status"] == "failed").unwrap();
    for said in [refusal.text, record["response"].to_string()] {
        assert!(said.contains("${HIDDEN_PLACE}") && said.contains("haproxy.cfg"), "{said}");
        assert!(!said.contains("top-secret"), "{said}");
    }
    assert!(!bench.log().contains("top-secret"), "{}", bench.log());

    // What has failed is known to the next process.
    bench.end(Signal::KILL);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    let request = json!({"id": record["id"]});
    assert_eq!(client.call("ReloadService.GetReload", &request).await.unwrap().message["reload"], record);
    add(&client, "after", true).await.unwrap();
    assert!(reloads(&client).await.contains(&record));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_haproxy_that_lost_its_stats_socket_is_found_by_the_next_process() {
    let mut bench = Bench::new();
    script(&bench, "again", SF);
    let _daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    add(&client, "one", true).await.unwrap();
    // The operator's own reload fails when it binds, and leaves the former process without its stats socket.
    let (file, kept) = (bench.path("haproxy.cfg"), bench.text());
    std::fs::write(&file, format!("{kept}frontend bad\n    mode http\n    bind unix@/nowhere/at/all.sock\n")).unwrap();
    let failed = Command::new(bench.path("bin/again")).stderr(Stdio::null()).status().unwrap();
    assert!(!failed.success());
    std::fs::write(&file, kept).unwrap();
    bench.end(Signal::KILL);
    bench.start(&["-r", "{dir}/bin/again"]);
    add(&bench.client(Transport::Rest), "two", true).await.unwrap();
    assert!(bench.haproxy.ask("show stat").unwrap().contains("two,BACKEND"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_the_search_loses_no_innocent_change() {
    let mut bench = Bench::new();
    bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "6000");
    bench.set("BACKSTAY_CRASH_AT", "on-trial");
    script(&bench, "again", SF);
    let _daemon = Daemon::start(&bench);
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    add(&client, "one", false).await.unwrap();
    let mut bind = nowhere("/nowhere/guilty.sock");
    bind["version"] = version(&client).await.into();
    client.call("BindService.CreateBind", &bind).await.unwrap();
    add(&client, "two", false).await.unwrap();
    eventually("the search has begun", || !bench.text().contains("guilty.sock"));
    bench.end(Signal::KILL);
    bench.set("BACKSTAY_CRASH_AT", "");
    bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
    bench.start(&["-r", "{dir}/bin/again"]);
    let client = bench.client(Transport::Rest);
    until("the guilty change is found", async || {
        let ended = reloads(&client).await.iter().all(|reload| reload["status"] != "in_progress");
        ended && !bench.text().contains("guilty.sock")
    })
    .await;
    let runs = bench.haproxy.ask("show stat").unwrap();
    for name in ["one", "two"] {
        assert!(is_there(&bench, name) && runs.contains(&format!("{name},BACKEND")), "{name}:\n{}", bench.text());
    }
}
