//! Tests against a real HAProxy: `HAPROXY_BIN` names the binary, otherwise the one in the path.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::child::{ChildOptions, Supervised};
use super::presence::{Listening, Presence, Standing};
use super::strategy::{How, Outcome, Reloader, Strategy};
use super::version::Version;

/// The binary to test with.
pub(crate) fn haproxy() -> PathBuf {
    if let Some(path) = std::env::var_os("HAPROXY_BIN") {
        return path.into();
    }
    let debian = PathBuf::from("/usr/sbin/haproxy");
    if debian.is_file() { debian } else { "haproxy".into() }
}

struct Bench {
    folder: tempfile::TempDir,
    port: u16,
    options: ChildOptions,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| folder.path().join(name);
        let options = ChildOptions {
            grace: Duration::from_millis(300),
            ..ChildOptions::new(&haproxy(), &at("haproxy.cfg"), &at("master.sock"), &at("haproxy.pid"))
        };
        let bench = Bench { folder, port, options };
        bench.write("");
        bench
    }

    fn text(&self, more: &str) -> String {
        let stats = self.folder.path().join("stats.sock");
        format!(
            "global\n  stats socket {} level admin\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  \
             timeout connect 5s\nfrontend fe\n  bind 127.0.0.1:{}\n  http-request return status 200\n{more}",
            stats.display(),
            self.port
        )
    }

    fn write(&self, more: &str) {
        std::fs::write(&self.options.config_file, self.text(more)).unwrap();
    }

    async fn strategy(&self, child: &Supervised) -> Strategy {
        let how = if Version::of(&haproxy()).await.unwrap().at_least(2, 7) {
            How::Master(child.master())
        } else {
            How::Signal { pid: child.pid(), master: child.master(), log: child.log() }
        };
        Strategy::new(how, Presence { master: Some(child.master()), ..Presence::default() })
    }

    /// What only knows the stats socket.
    fn stats(&self) -> Presence {
        let loaded = vec![self.folder.path().join("stats.sock").display().to_string().parse().unwrap()];
        let listening = Listening { loaded, present: Vec::new() };
        Presence { stats: Some(Arc::new(move || listening.clone())), ..Presence::default() }
    }

    fn serves(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Running {
    child: Arc<Supervised>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(bench: &Bench) -> Running {
        let child = Supervised::start(bench.options.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(child.clone().run(stop.clone()));
        Running { child, stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn reloads_are_taken_and_a_refused_one_is_known_and_said() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let strategy = bench.strategy(&running.child).await;
    let before = running.child.master().processes(Duration::from_secs(2)).await.unwrap();

    assert!(matches!(strategy.reload().await, Outcome::Done(_)));
    let after = running.child.master().processes(Duration::from_secs(2)).await.unwrap();
    assert!(after.has_fresh_worker(&before), "{after:?}");

    // Passes the check and fails when the worker binds.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    bench.write(&format!("frontend f2\n  bind 127.0.0.1:{port}\n"));
    for _ in 0..2 {
        match strategy.reload().await {
            Outcome::Refused(said) => assert!(said.contains("cannot bind socket") && said.contains("f2"), "{said}"),
            other => panic!("{other:?}"),
        }
        assert!(bench.serves(), "the former worker goes on");
    }
    bench.write("  bogus such keyword\n");
    match strategy.reload().await {
        Outcome::Refused(said) => assert!(said.contains("unknown keyword"), "{said}"),
        other => panic!("{other:?}"),
    }
    bench.write("");
    assert!(matches!(strategy.reload().await, Outcome::Done(_)), "and a good one works again");
    assert!(bench.serves());
    running.end().await;
    assert!(!bench.serves());
    assert!(matches!(strategy.reload().await, Outcome::Unreachable(_)));
}

#[tokio::test]
async fn a_command_that_only_sends_a_signal_is_looked_up_at_the_master() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let pid = running.child.pid().borrow().unwrap();
    let words = |text: &str| super::command::split_spaces(text).unwrap();
    let presence = Presence { master: Some(running.child.master()), ..Presence::default() };
    let signal = Strategy::new(How::Command(words(&format!("kill -USR2 {pid}"))), presence.clone());
    assert!(matches!(signal.reload().await, Outcome::Done(_)));
    bench.write("  bogus such keyword\n");
    assert!(matches!(signal.reload().await, Outcome::Refused(_)));
    running.end().await;
}

/// A strategy by a shell script, which must hold no blank but those between its words.
fn by_script(bench: &Bench, script: &str, presence: &Presence) -> Strategy {
    use std::os::unix::fs::PermissionsExt as _;
    let file = bench.folder.path().join("reload.sh");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut strategy = Strategy::new(How::Command(vec![file.display().to_string()]), presence.clone());
    strategy.patience = Duration::from_millis(1500);
    strategy
}

#[tokio::test]
async fn a_command_that_fails_for_its_own_reasons_is_no_refusal() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let pid = running.child.pid().borrow().unwrap();
    let master = Presence { master: Some(running.child.master()), ..Presence::default() };
    let stats = bench.stats();
    let by = |script: &str, presence: &Presence| by_script(&bench, script, presence);
    for presence in [&master, &stats] {
        for (script, said) in [
            ("exit 1", "failed: exit status 1"),
            ("ls /nowhere/at/all", "failed: exit status 2, ls: "),
            ("kill -USR2 4194303", "failed: exit status 1, "),
            ("kill -KILL $$", "failed: signal: 9"),
            ("echo 'Job for haproxy.service canceled.' >&2; exit 1", "Job for haproxy.service canceled."),
            ("echo '[ALERT] (1) : Current worker (7) exited with code 137 (Killed)'; exit 1", "exit status 1"),
            ("exit 0", "ended with success, but "),
        ] {
            match by(script, presence).reload().await {
                Outcome::NotDone(words) => assert!(words.contains(said), "{script}: {words}"),
                other => panic!("{script}: {other:?}"),
            }
        }
        // What HAProxy shows counts, whatever the command says of itself.
        let hook = by(&format!("kill -USR2 {pid}; sleep 0.3; echo 'hook failed' >&2; exit 7"), presence);
        match hook.reload().await {
            Outcome::Done(said) => assert!(said.ends_with("exit status 7, hook failed"), "{said}"),
            other => panic!("{other:?}"),
        }
    }
    let mut trusting = by("echo done", &stats);
    trusting.trust_exit_status = true;
    assert_eq!(trusting.reload().await, Outcome::Unseen("done".into()));
    trusting = by(&format!("kill -USR2 {pid}; echo done"), &stats);
    trusting.trust_exit_status = true;
    assert_eq!(trusting.reload().await, Outcome::Done("done".into()));
    assert_eq!(by("echo done", &Presence::default()).reload().await, Outcome::Done("done".into()), "nobody to ask");
    // HAProxy's own words are proof.
    match by("echo '[ALERT] (1) : Binding [x:3] for frontend f2: cannot bind socket' >&2; exit 1", &stats)
        .reload()
        .await
    {
        Outcome::Refused(said) => assert!(said.starts_with("[ALERT]") && said.contains("exit status 1"), "{said}"),
        other => panic!("{other:?}"),
    }
    running.end().await;
}

#[tokio::test]
async fn a_frozen_master_has_not_reloaded() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let pid = running.child.pid().borrow().unwrap();
    let mut strategy = bench.strategy(&running.child).await;
    strategy.patience = Duration::from_millis(500);
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
        assert!(sent.success());
    };
    signal("-STOP");
    match strategy.reload().await {
        Outcome::NotDone(said) => assert!(said.ends_with("does not answer"), "{said}"),
        other => panic!("{other:?}"),
    }
    signal("-CONT");
    strategy.patience = Duration::from_secs(8);
    assert!(matches!(strategy.reload().await, Outcome::Done(_)));
    running.end().await;
}

#[tokio::test]
async fn the_alert_is_found_behind_many_warnings() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let strategy = bench.strategy(&running.child).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let backends = (0..300).map(|n| format!("backend b{n}\n  option tcplog\n")).collect::<Vec<_>>().concat();
    bench.write(&format!("{backends}frontend f2\n  bind 127.0.0.1:{port}\n"));
    match strategy.reload().await {
        Outcome::Refused(said) => {
            let first = said.lines().next().unwrap();
            assert!(first.starts_with("[ALERT]") && first.contains("cannot bind socket"), "{said}");
        }
        other => panic!("{other:?}"),
    }
    running.end().await;
}

#[tokio::test]
async fn presence_asks_sockets_and_then_the_status_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s").display().to_string();
    let status = |program: &str| Some(vec![program.to_owned()]);
    let listening = |loaded: &[&str], present: &[&str]| {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let listening = Listening { loaded: read(loaded), present: read(present) };
        Presence { stats: Some(Arc::new(move || listening.clone())), ..Presence::default() }
    };
    let here = format!("unix@{path}");
    let presence = listening(&[&here], &[]);
    let down = async |presence: Presence| matches!(presence.standing().await, Standing::Down(_));
    assert!(down(presence.clone()).await);
    assert_eq!(Presence { status_cmd: status("true"), ..presence.clone() }.standing().await, Standing::Up);
    assert!(down(Presence { status_cmd: status("false"), ..presence.clone() }).await);
    assert!(matches!(Presence::default().standing().await, Standing::Unknown(_)), "nothing to ask");
    assert!(matches!(listening(&[], &[&here]).standing().await, Standing::Unknown(_)), "it comes with the reload");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for presence in [presence, listening(&[&here], &["/nowhere"]), listening(&["/nowhere"], &[&here])] {
        assert_eq!(Presence { status_cmd: status("false"), ..presence }.standing().await, Standing::Up);
    }
}

#[tokio::test]
async fn a_dead_child_is_started_again() {
    let bench = Bench::new();
    let running = Running::start(&bench).await;
    let mut pid = running.child.pid();
    let first = pid.borrow_and_update().unwrap();
    let killed = std::process::Command::new("kill").args(["-KILL", &first.to_string()]).status().unwrap();
    assert!(killed.success());
    until("a new one", async || pid.borrow().is_some_and(|now| now != first)).await;
    until("it serves", async || bench.serves() && running.child.master().connects().await).await;
    running.end().await;
}

#[tokio::test]
async fn one_that_outlived_us_is_stopped_at_the_next_start() {
    let bench = Bench::new();
    let mut orphan = std::process::Command::new(haproxy())
        .args(["-W", "-db", "-S"])
        .arg(&bench.options.master_socket)
        .arg("-f")
        .arg(&bench.options.config_file)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::fs::write(&bench.options.pid_file, orphan.id().to_string()).unwrap();
    until("the orphan serves", async || bench.serves()).await;
    let running = Running::start(&bench).await;
    until("the orphan was stopped", async || orphan.try_wait().unwrap().is_some()).await;
    assert!(bench.serves());
    assert!(*running.child.pid().borrow() != Some(orphan.id()));
    running.end().await;
    assert!(!bench.options.pid_file.try_exists().unwrap());
}

#[tokio::test]
async fn another_process_of_that_number_is_left_alone() {
    let bench = Bench::new();
    let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&bench.options.pid_file, other.id().to_string()).unwrap();
    let running = Running::start(&bench).await;
    assert!(other.try_wait().unwrap().is_none());
    running.end().await;
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_first_start_that_fails_says_why() {
    let bench = Bench::new();
    let say = async |options: ChildOptions| Supervised::start(options).await.err().unwrap().message().to_owned();

    let taken = TcpListener::bind(("127.0.0.1", bench.port)).unwrap();
    let message = say(bench.options.clone()).await;
    assert!(message.contains("line 9, frontend fe: ") && message.contains("cannot bind socket"), "{message}");
    assert!(message.contains(&format!("127.0.0.1:{}", bench.port)), "{message}");
    drop(taken);

    bench.write("  bogus such keyword\n");
    let message = say(bench.options.clone()).await;
    assert!(message.contains("line 11, frontend fe: unknown keyword 'bogus' in 'frontend' section"), "{message}");

    let message = say(ChildOptions { binary: "/nowhere/haproxy".into(), ..bench.options.clone() }).await;
    assert!(message.starts_with("haproxy-bin: /nowhere/haproxy cannot be run"), "{message}");

    let message =
        say(ChildOptions { master_socket: format!("/tmp/{}", "x".repeat(100)).into(), ..bench.options.clone() }).await;
    assert!(message.contains("is too long for a socket"), "{message}");
}
