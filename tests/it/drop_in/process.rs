//! Signals, user and group, files of the process, ways to reload, and what keeps it from starting.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::chown;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::Bench;
use crate::support::client::{Client, Transport, basic};
use crate::support::haproxy::{binary, eventually};
use crate::support::world::until;

/// Number of `nobody`.
const NOBODY: u32 = 65534;

async fn add_backend(client: &Client, name: &str) {
    let version =
        client.call("RawConfigurationService.GetVersion", &json!({})).await.unwrap().message["version"].clone();
    let request = json!({"backend": {"name": name, "mode": "http"}, "version": version});
    client.call("BackendService.CreateBackend", &request).await.unwrap();
}

async fn knows(client: &Client, backend: &str) -> bool {
    client.call("BackendService.GetBackend", &json!({"name": backend})).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_version_begins_with_that_of_v2() {
    let mut bench = Bench::running();
    let expected = concat!("v2.9.0 backstay-", env!("CARGO_PKG_VERSION"));
    for flag in ["-v", "--version"] {
        let printed = Command::new(bench.path("dataplaneapi")).arg(flag).output().unwrap();
        assert_eq!((printed.status.code(), String::from_utf8_lossy(&printed.stdout).trim_end()), (Some(0), expected));
    }
    bench.start(&[]);
    let info = bench.client(Transport::Rest).call("InfoService.GetInfo", &json!({})).await.unwrap().message;
    assert_eq!(info["api"]["version"], expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_signal_does_what_it_should() {
    let mut bench = Bench::running();
    bench.start(&["--pid-file={dir}/pid", "--disable-inotify"]);
    let pid = std::fs::read_to_string(bench.path("pid")).unwrap();
    assert_eq!(pid.trim(), bench.pid().as_raw_nonzero().to_string());
    let client = bench.client(Transport::Rest);

    // SIGUSR2: the file and its users are read again; nothing else tells of a change here.
    let text = bench.text().replace("adminpwd", "changed").replace("\nbackend be\n", "\nbackend more\n\nbackend be\n");
    std::fs::write(bench.path("haproxy.cfg"), text).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!knows(&client, "more").await, "nobody has said that the file changed");
    bench.signal(Signal::USR2);
    let changed = client.authorized(&basic("admin", "changed"));
    until("file and users are read", async || knows(&changed, "more").await).await;
    assert!(!knows(&client, "more").await, "the former password");

    // SIGUSR1: connections to HAProxy are made anew.
    bench.signal(Signal::USR1);
    bench.logged("runtime API reconfigured");
    assert!(!bench.log().contains("reload callback completed"), "nothing moved: {}", bench.log());
    let servers = json!({"backend": "be"});
    assert!(changed.call("RuntimeServerService.ListRuntimeServers", &servers).await.is_ok());

    // SIGHUP: settings are read again, on the same port and in the same process.
    let info = async || changed.call("InfoService.GetInfo", &json!({})).await.unwrap().message.to_string();
    assert!(!info().await.contains("hostname"));
    std::fs::write(bench.path("d.yaml"), "dataplaneapi:\n  show_system_info: true\n").unwrap();
    bench.signal(Signal::HUP);
    bench.logged("starting anew");
    bench.wait();
    assert!(info().await.contains("hostname"));
    std::fs::write(bench.path("d.yaml"), "haproxy:\n  reload:\n    reload_delay: soon\n").unwrap();
    bench.signal(Signal::HUP);
    let yaml = bench.path("d.yaml").display().to_string();
    bench.logged(&format!("the settings stay as they were: {yaml}: haproxy.reload.reload_delay (line 3)"));
    assert!(info().await.contains("hostname"));

    assert_eq!(bench.end(Signal::TERM), Some(0));
    assert!(!bench.path("pid").try_exists().unwrap());
    std::fs::remove_file(bench.path("d.yaml")).unwrap();
    bench.start(&[]);
    assert_eq!(bench.end(Signal::INT), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_it_starts_again_at_once_with_all_that_it_has_acknowledged() {
    let mut bench = Bench::running();
    for round in 0..3 {
        bench.start(&["--scheme=http", "--scheme=unix", "--socket-path={dir}/api.sock", "--pid-file={dir}/pid"]);
        let client = bench.client(Transport::Rest);
        for earlier in 0..round {
            assert!(knows(&client, &format!("b{earlier}")).await, "b{earlier}");
        }
        add_backend(&client, &format!("b{round}")).await;
        bench.end(Signal::KILL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_another_user_it_serves_without_the_runtime_socket() {
    let mut bench = Bench::running();
    chown(bench.dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    chown(bench.path("haproxy.cfg"), Some(NOBODY), Some(NOBODY)).unwrap();
    let user = format!("--uid={NOBODY}");
    let group = format!("--gid={NOBODY}");
    bench.start(&[&user, &group, "--pid-file={dir}/pid", "--scheme=http", "--scheme=unix", "--socket-path={dir}/a"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", bench.pid().as_raw_nonzero())).unwrap();
    let ids = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().skip(1).all(|id| id == NOBODY.to_string())
    };
    assert!(ids("Uid:") && ids("Gid:") && ids("Groups:"), "{status}");
    let client = bench.client(Transport::Rest);
    add_backend(&client, "made").await;
    assert!(bench.text().contains("\nbackend made\n"));
    let refusal = client.call("RuntimeServerService.ListRuntimeServers", &json!({"backend": "be"})).await.unwrap_err();
    assert_eq!(refusal.status, 500, "{refusal:?}");
    // It begins anew as that user, though only root could open its files and ports.
    bench.signal(Signal::HUP);
    bench.logged("starting anew");
    bench.wait();
    assert!(knows(&bench.client(Transport::Rest), "made").await);
    assert_eq!(bench.end(Signal::TERM), Some(0));
}

#[test]
fn what_keeps_it_from_starting_ends_it_with_one() {
    let mut bench = Bench::new();
    for (flags, said) in [
        (&["-u", "nobody-here"][..], "userlist nobody-here does not exist in "),
        (&["-u", "nobody-here"][..], "haproxy.cfg: add it, with a line `user NAME password HASH`"),
        (&["--userlist-file={dir}/absent.cfg"], "absent.cfg"),
        (&["-b", "/nowhere/haproxy"], "haproxy-bin: /nowhere/haproxy"),
        (&["-b", "true"], "does not print the version of an haproxy"),
        (&["-p", "/proc/maps"], "/proc/maps"),
        (&["--no-such-flag"], "unexpected argument"),
        (&["--scheme=gopher"], "expected http, https or unix"),
    ] {
        assert_eq!(bench.fails(flags), Some(1), "{flags:?}");
        assert!(bench.log().contains(said), "{flags:?}: {}", bench.log());
    }
    let only = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let yaml = bench.path("d.yaml").display().to_string();
    assert_eq!(bench.fails_bare(&only(&["-f", &yaml])), Some(1));
    bench.logged("--reload-cmd: needed for the reload strategy custom");
    bench.set("HAPROXY_MWORKER", "1");
    bench.set("HAPROXY_CFGFILES", "/etc/other.cfg;/etc/more.cfg");
    assert_eq!(bench.fails(&[]), Some(1));
    bench.logged("haproxy.cfg is not among the files of haproxy");
    for flag in ["-v", "--version"] {
        assert_eq!(bench.fails_bare(&only(&[flag])), Some(0));
        assert!(bench.log().starts_with("v2.9.0 backstay-"), "{}", bench.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_backups_and_the_last_good_file_are_where_they_are_expected() {
    let mut bench = Bench::running();
    bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
    bench.start(&["--backups-number=2", "--backups-dir={dir}/old", "--debug-socket-path={dir}/debug.sock"]);
    assert!(bench.log().contains("--debug-socket-path"), "{}", bench.log());
    for folder in ["maps", "ssl", "general", "spoe", "tr", "tr/failed", "old"] {
        assert!(bench.path(folder).is_dir(), "{folder}");
    }
    let first = bench.text();
    assert!(!first.contains("_version"), "nothing is written at the start");
    assert_eq!(std::fs::read_to_string(bench.path("old/haproxy.cfg.lkg")).unwrap(), first);
    let client = bench.client(Transport::Rest);
    for round in 1..=3 {
        add_backend(&client, &format!("b{round}")).await;
    }
    let text = bench.text();
    let lines: Vec<&str> = text.lines().take(2).collect();
    assert!(lines[0].starts_with("# _md5hash=") && lines[1] == "# _version=4", "{lines:?}");
    let mut kept: Vec<_> =
        std::fs::read_dir(bench.path("old")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    kept.sort();
    assert_eq!(kept, ["haproxy.cfg.2", "haproxy.cfg.3", "haproxy.cfg.lkg"]);
    eventually("the reload command runs, and renews the last good file", || {
        bench.path("reloaded").is_file() && std::fs::read_to_string(bench.path("old/haproxy.cfg.lkg")).unwrap() == text
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strategies_have_their_commands() {
    for (strategy, service, said) in [
        (
            "systemd",
            None,
            ["systemctl --no-ask-password reload haproxy.service", "systemctl --quiet is-active haproxy.service"],
        ),
        (
            "systemd",
            Some("lb.service"),
            ["systemctl --no-ask-password reload lb.service", "systemctl --quiet is-active lb.service"],
        ),
        ("s6", None, ["s6-svc -2 /var/run/service/haproxy", "s6-svstat -u /var/run/service/haproxy"]),
        ("s6", Some("/svc/lb"), ["s6-svc -2 /svc/lb", "s6-svstat -u /svc/lb"]),
    ] {
        // Without a socket to ask, the status command says whether it runs.
        let mut bench = Bench::new();
        bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
        for name in ["sudo", "systemctl", "s6-svc", "s6-svstat"] {
            bench.script(name, &format!("echo {name} \"$@\" >> {{dir}}/commands"));
        }
        let mut flags = without_commands(&bench);
        flags.push(format!("--reload-strategy={strategy}"));
        flags.extend(service.map(|service| format!("--service={service}")));
        bench.start_bare(&flags);
        let client = bench.client(Transport::Rest);
        let health = client.call("HealthService.GetHealth", &json!({})).await.unwrap().message;
        assert_eq!(health["haproxy"], "up", "{strategy}");
        add_backend(&client, "b").await;
        for command in said {
            eventually(command, || {
                std::fs::read_to_string(bench.path("commands")).is_ok_and(|log| log.lines().any(|line| line == command))
            });
        }
    }
}

/// The usual flags, but how to reload.
fn without_commands(bench: &Bench) -> Vec<String> {
    let mut flags = bench.flags();
    for flag in ["-r", "-s"] {
        let at = flags.iter().position(|given| given == flag).unwrap();
        flags.drain(at..at + 2);
    }
    flags
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_asked_with_the_rights_that_there_are() {
    const DIRECT: &str = "systemctl --no-ask-password reload haproxy.service";
    for (polkit, sudo, doas, command, missing) in [
        (true, None, false, DIRECT.to_owned(), false),
        (false, Some(true), false, format!("sudo -n {DIRECT}"), false),
        (false, Some(false), true, format!("doas -n {DIRECT}"), false),
        (false, None, true, format!("doas -n {DIRECT}"), false),
        (false, Some(false), false, format!("sudo -n {DIRECT}"), true),
    ] {
        let mut bench = Bench::new();
        chown(bench.dir(), Some(NOBODY), Some(NOBODY)).unwrap();
        chown(bench.path("haproxy.cfg"), Some(NOBODY), Some(NOBODY)).unwrap();
        bench.set("CI_DATAPLANE_RELOAD_DELAY_OVERRIDE", "20");
        bench.script("systemctl", "echo systemctl \"$@\" >> {dir}/commands");
        bench.script("pkcheck", if polkit { "exit 0" } else { "exit 1" });
        let asked = i32::from(sudo != Some(true));
        if sudo.is_some() {
            let text = format!("case \"$2\" in -l) exit {asked};; esac\necho sudo \"$@\" >> {{dir}}/commands");
            bench.script("sudo", &text);
        }
        if doas {
            bench.script("doas", "echo doas \"$@\" >> {dir}/commands");
        }
        let mut flags = without_commands(&bench);
        flags.extend(["--reload-strategy=systemd", "--status-cmd=true"].map(ToOwned::to_owned));
        flags.extend([format!("--uid={NOBODY}"), format!("--gid={NOBODY}")]);
        bench.start_bare(&flags);
        let client = bench.client(Transport::Rest);
        let why = client.call("HealthService.GetHealth", &json!({})).await.unwrap().message["why"].to_string();
        assert_eq!(why.contains("cannot be reloaded by systemctl"), missing, "{command}: {why}");
        add_backend(&client, "b").await;
        eventually(&command, || {
            std::fs::read_to_string(bench.path("commands")).is_ok_and(|log| log.lines().any(|line| line == command))
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_command_checks_instead_of_haproxy() {
    let mut bench = Bench::running();
    bench.script(
        "check",
        "cp \"$DATAPLANEAPI_TRANSACTION_FILE\" {dir}/seen; echo \"$2\" > {dir}/word\n\
         if grep -q 'backend refused' {dir}/seen; then echo 'no such thing' >&2; exit 3; fi",
    );
    bench.start(&["--validate-cmd", "check -x 'two words'"]);
    let client = bench.client(Transport::Rest);
    add_backend(&client, "good").await;
    assert!(std::fs::read_to_string(bench.path("seen")).unwrap().contains("backend good"));
    assert_eq!(std::fs::read_to_string(bench.path("word")).unwrap(), "two words\n");
    let request = json!({"backend": {"name": "refused", "mode": "http"}, "version": 2});
    let refusal = client.call("BackendService.CreateBackend", &request).await.unwrap_err();
    assert_eq!(refusal.status, 400);
    assert!(refusal.text.contains("no such thing"), "{refusal:?}");
    assert!(!knows(&client, "refused").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_what_the_status_command_says() {
    let mut bench = Bench::running();
    for (flags, health) in
        [(&["--status-cmd=true", "-i"][..], "up"), (&["--status-cmd=false"], "down"), (&[], "unknown")]
    {
        bench.start(flags);
        let client = bench.client(Transport::Rest);
        let answer = client.call("HealthService.GetHealth", &json!({})).await.unwrap().message;
        assert_eq!(answer["haproxy"], health, "{flags:?}");
        assert_eq!(answer["why"].as_array().map_or(0, Vec::len), usize::from(health != "up"), "{answer}");
        if flags.contains(&"-i") {
            let info = client.call("InfoService.GetInfo", &json!({})).await.unwrap().message;
            let memory = &info["system"]["mem_info"];
            for name in ["dataplaneapi_memory", "free_memory", "total_memory"] {
                assert!(memory[name].as_i64().is_some_and(|bytes| bytes > 1 << 20), "{info}");
            }
            assert!(info["system"]["cpu_info"]["num_cpus"].as_i64().is_some_and(|count| count > 0), "{info}");
        }
        assert_eq!(bench.end(Signal::TERM), Some(0));
    }
}

/// An HAProxy with a master process, as the one that starts us as its `program`.
struct Master(Child);

impl Master {
    fn start(bench: &Bench) -> Self {
        let mut command = Command::new(binary());
        command.args(["-W", "-S"]).arg(bench.path("master.sock")).arg("-f").arg(bench.path("haproxy.cfg"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the master answers", || bench.haproxy.ask("show info").is_ok());
        Master(child)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _gone = kill_process(Pid::from_child(&self.0), Signal::TERM);
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_program_of_the_master_it_reloads_through_its_socket() {
    let mut bench = Bench::new();
    let _master = Master::start(&bench);
    bench.set("HAPROXY_MWORKER", "1");
    bench.set("HAPROXY_MASTER_CLI", "unix@{dir}/master.sock");
    bench.set("HAPROXY_CFGFILES", "{dir}/haproxy.cfg");
    bench.start(&[]);
    let worker = || {
        let info = bench.haproxy.ask("show info").unwrap_or_default();
        info.lines().find_map(|line| line.strip_prefix("Pid: ").map(ToOwned::to_owned))
    };
    let before = worker().unwrap();
    let client = bench.client(Transport::Rest);
    let request = json!({"backend": {"name": "b", "mode": "http"}, "version": 1, "force_reload": true});
    let made = client.call("BackendService.CreateBackend", &request).await.unwrap();
    assert_eq!(made.status, 201);
    eventually("another worker serves", || worker().is_some_and(|now| now != before));
    assert!(!bench.path("reloaded").try_exists().unwrap(), "the command is not needed");
}

#[test]
fn a_delayed_start_lets_callers_wait_for_haproxy() {
    let mut bench = Bench::new();
    let mut flags = bench.flags();
    flags.extend(["--delayed-start-max=30s", "--delayed-start-tick=20ms"].map(ToOwned::to_owned));
    bench.spawn(&flags);
    eventually("the port is open", || std::net::TcpStream::connect(bench.api).is_ok());
    let mut caller = std::net::TcpStream::connect(bench.api).unwrap();
    caller.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    caller.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = [0; 12];
    assert!(caller.read(&mut answer).is_err(), "answered before haproxy runs");
    bench.haproxy.start();
    caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    caller.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200");
}
