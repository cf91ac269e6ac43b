//! What the check of a candidate may do: read everything, write nothing, and tell nothing of the environment.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::drop_in::Bench;
use crate::support::backstay::Backstay;
use crate::support::client::{Client, Http, Transport, basic, request};
use crate::support::haproxy::{Haproxy, binary, eventually, free_port, version};
use crate::support::world::until;

const SECRET: &str = "never-to-be-told-1";
const LISTENER: &str = "frontend checked\n    mode http\n    timeout client 1s\n    bind 127.0.0.1:1\n";

/// What a candidate that passes is answered with.
const VALID: u16 = 202;

async fn validate(client: &Client, text: &str) -> Http {
    let path = "/v2/services/haproxy/configuration/raw?only_validate=true&skip_version=true";
    client.send(request("POST", path, "text/plain", text.to_owned())).await
}

/// A Lua file that tries to write in each way that Lua has, below `dir`, and to end a process.
fn mischief(dir: &Path, pid: u32) -> String {
    let lua = format!(
        "local function write(path) local f = io.open(path, 'w') if f then f:write('lua') f:close() end end
write('{dir}/kept') write('{dir}/new') write('{dir}/run/haproxy.cfg')
os.remove('{dir}/kept') os.rename('{dir}/kept', '{dir}/moved')
os.execute('echo shell > {dir}/shell; ln -s /etc {dir}/link; mkdir {dir}/folder; : > {dir}/kept; kill -9 {pid}')
",
        dir = dir.display()
    );
    let path = dir.join("mischief.lua");
    std::fs::write(&path, lua).unwrap();
    format!("global\n    lua-load {}\n{LISTENER}", path.display())
}

/// Names in a folder with sizes of files.
fn listing(dir: &Path) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().size()))
        .filter(|(name, _)| name != "log")
        .collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lua_of_a_candidate_writes_nothing_and_ends_no_process() {
    let backstay = Backstay::start(&[]);
    let client = Client::new(Transport::Rest, backstay.api, &backstay.password);
    std::fs::write(backstay.dir().join("kept"), "whole").unwrap();
    let text = mischief(backstay.dir(), backstay.pid());
    let (before, config) = (listing(backstay.dir()), backstay.text());
    let answer = validate(&client, &text).await;
    assert_eq!(answer.status, VALID, "{}", answer.text());
    assert_eq!((listing(backstay.dir()), backstay.text()), (before, config));
    assert_eq!(std::fs::read_to_string(backstay.dir().join("kept")).unwrap(), "whole");
    // It is still there, and so is nothing of the check.
    assert_eq!(validate(&client, LISTENER).await.status, VALID);
    let state = listing(&backstay.folder().join("state"));
    assert!(!state.iter().any(|(name, _)| name.starts_with(".check")), "{state:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_haproxy_writes_are_not_touched_by_checks() {
    let backstay = Backstay::start(&[]);
    let client = Client::new(Transport::Rest, backstay.api, &backstay.password);
    let ring = backstay.dir().join("events.ring");
    let mut text = format!(
        "{}\nring events\n    format raw\n    maxlen 1000\n    size 32768\n    backing-file {}\n",
        backstay.text(),
        ring.display()
    );
    let push = "/v2/services/haproxy/configuration/raw?skip_version=true&force_reload=true";
    let pushed = client.send(request("POST", push, "text/plain", text.clone())).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let identity = || std::fs::metadata(&ring).map(|data| (data.ino(), data.size(), data.mtime_nsec())).unwrap();
    let (before, beside) = (identity(), listing(backstay.dir()));
    // 3.2 makes keys of ACME accounts also where it only checks, and 3.4 a file for statistics.
    let key = PathBuf::from(format!("key-of-a-test-{}", std::process::id()));
    if version() >= (3, 2) {
        text = text.replacen("global\n", "global\n    expose-experimental-directives\n", 1);
        text = format!("{text}acme {}\n    directory https://a.example/\n", key.display());
    }
    if version() >= (3, 4) {
        let shared = backstay.dir().join("shared-stats");
        text = text.replacen("global\n", &format!("global\n    shm-stats-file {}\n", shared.display()), 1);
    }
    for _ in 0..2 {
        let answer = validate(&client, &text).await;
        assert_eq!(answer.status, VALID, "{}", answer.text());
    }
    // A line that HAProxy refuses has the number that it has in the text of the caller.
    let refused = validate(&client, &format!("{text}frontend f\n    no-such-word\n")).await;
    let line = text.lines().count() + 2;
    assert!(refused.text().contains(&format!("line {line} in frontend f")), "{}", refused.text());
    assert_eq!((identity(), listing(backstay.dir())), (before, beside));
    assert!(!key.with_extension("account.key").try_exists().unwrap());
}

/// Candidates whose faults HAProxy tells in words of its environment.
fn curious(name: &str) -> Vec<String> {
    vec![
        format!(".alert \"x${{{name}}}x\"\n{LISTENER}"),
        format!("global\n    ca-base /\n{LISTENER}    bind 127.0.0.1:2 ssl crt \"/${{{name}}}\"\n"),
        format!("{LISTENER}    errorfile 503 \"${{{name}}}\"\n"),
        format!("{LISTENER}    \"${{{name}}}\" x\n"),
        format!("{LISTENER}    timeout client-fin \"${{{name}}}\"\n"),
        format!("{LISTENER}    bind \"127.0.0.1:${{{name}}}\"\n"),
        format!("{LISTENER}    acl \"${{{name}}}\" nosuch\n    default_backend \"${{{name}}}\"\n"),
        format!("global\n    setenv COPY \"a${{{name}}}b\"\n.alert \"${{COPY}}\"\n{LISTENER}"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_environment_is_told() {
    let hidden = format!("env:OF_BOTH={SECRET}");
    let (cloud, own) = (format!("env:AWS_SECRET_ACCESS_KEY={SECRET}"), format!("env:BACKSTAY_PASSWORD={SECRET}"));
    let backstay = Backstay::start(&[&hidden, &cloud, &own]);
    let client = Client::new(Transport::Rest, backstay.api, &backstay.password);
    for name in ["OF_BOTH", "AWS_SECRET_ACCESS_KEY", "BACKSTAY_PASSWORD"] {
        let mut told = 0;
        for text in curious(name) {
            let push = "/v2/services/haproxy/configuration/raw?skip_version=true";
            let pushed = client.send(request("POST", push, "text/plain", text.clone())).await;
            let validated = validate(&client, &text).await;
            for answer in [pushed, validated] {
                assert!(!answer.text().contains(SECRET), "{text}\n{}", answer.text());
                told += usize::from(answer.text().contains("${OF_BOTH}"));
            }
        }
        assert_eq!(told > 0, name == "OF_BOTH", "{name}");
    }
    assert!(!backstay.log().contains(SECRET));
    let failed = client.send(request("GET", "/v2/services/haproxy/transactions", "", "")).await;
    assert!(!failed.text().contains(SECRET), "{}", failed.text());
}

/// The program beside an HAProxy that is not its own.
struct Beside(Child);

impl Beside {
    fn start(haproxy: &Haproxy, port: u16, more: &[&str]) -> Self {
        let dir = haproxy.dir();
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.arg("serve").arg("--haproxy-bin").arg(binary()).arg("--config-file").arg(haproxy.config());
        for folder in ["state", "maps", "ssl-certs", "general-storage", "spoe"] {
            command.arg(format!("--{folder}-dir")).arg(dir.join(folder));
        }
        command.args(["--reload-cmd", "true", "--port", &port.to_string()]).args(more).env("OURS_ALONE", SECRET);
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        eventually("it serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Beside(child)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_finds_the_environment_of_haproxy() {
    let users = "userlist controller\n    user admin insecure-password adminpwd\n";
    let mut haproxy = Haproxy::run(&format!("{users}global\n    setenv PLACE 127.0.0.1:1\n{LISTENER}"));
    let port = free_port();
    let backstay = Beside::start(&haproxy, port, &["--haproxy-env", "OURS_ALONE,GIVEN=a value"]);
    let client = Client::new(Transport::Rest, ([127, 0, 0, 1], port).into(), "adminpwd");
    let wanted = LISTENER.replace("127.0.0.1:1", "\"${PLACE}\"");
    let condition = |name: &str| format!(".if defined({name})\n.alert \"it is there\"\n.endif\n{LISTENER}");
    let is_there = async |name: &str| validate(&client, &condition(name)).await.text().contains("it is there");
    assert_eq!(validate(&client, &wanted).await.status, VALID);
    assert!(!is_there("OURS_ALONE").await && !is_there("GIVEN").await);
    // What it said last holds as long as it is away.
    haproxy.stop();
    assert_eq!(validate(&client, &wanted).await.status, VALID);
    drop(backstay);
    // And where it never said anything, what the setting names.
    let _backstay = Beside::start(&haproxy, port, &["--haproxy-env", "OURS_ALONE,GIVEN=a value"]);
    assert_ne!(validate(&client, &wanted).await.status, VALID);
    assert!(is_there("OURS_ALONE").await && is_there("GIVEN").await && is_there("PATH").await);
    let told = validate(&client, &curious("OURS_ALONE")[0]).await.text();
    assert!(told.contains("${OURS_ALONE}") && !told.contains(SECRET), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn called_as_dataplaneapi_and_as_another_user_it_is_the_same() {
    let mut bench = Bench::running();
    bench.set("OF_BOTH", SECRET);
    bench.set("AWS_SESSION_TOKEN", SECRET);
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(bench.dir(), everybody).unwrap();
    let root = rustix::process::geteuid().is_root();
    bench.start(if root { &["--uid=65534", "--gid=65534"] } else { &[] });
    let client = bench.client(Transport::Rest);
    std::fs::write(bench.path("kept"), "whole").unwrap();
    let text = mischief(bench.dir(), bench.pid().as_raw_nonzero().get().cast_unsigned());
    let before = listing(bench.dir());
    let answer = validate(&client, &text).await;
    assert_eq!(answer.status, VALID, "{}", answer.text());
    assert_eq!(listing(bench.dir()), before);
    let told = validate(&client, &curious("OF_BOTH")[0]).await.text();
    assert!(told.contains("x${OF_BOTH}x") && !told.contains(SECRET), "{told}");
    let told = validate(&client, &curious("AWS_SESSION_TOKEN")[0]).await.text();
    assert!(told.contains("xx"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_command_is_not_confined_and_tells_nothing_either() {
    let mut bench = Bench::running();
    bench.set("OF_BOTH", SECRET);
    bench.script("check", "echo \"$DATAPLANEAPI_TRANSACTION_FILE\" > {dir}/asked; echo \"no: $OF_BOTH\"; exit 3");
    bench.start(&["--validate-cmd=check"]);
    let answer = validate(&bench.client(Transport::Rest), LISTENER).await;
    assert!(bench.path("asked").try_exists().unwrap());
    assert!(answer.text().contains("no: ${OF_BOTH}"), "{}", answer.text());
}

/// Checks under way.
fn checks(bench: &Bench) -> usize {
    listing(&bench.path("tr")).iter().filter(|(name, _)| name.starts_with(".check")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_does_not_wait_behind_the_checks_of_another_user() {
    let mut bench = Bench::running();
    bench.script("check", "grep -q hang \"$DATAPLANEAPI_TRANSACTION_FILE\" || exit 0; exec sleep 28");
    let text = bench.text().replace("user admin", "user other insecure-password otherpwd\n    user admin");
    std::fs::write(bench.path("haproxy.cfg"), text).unwrap();
    bench.start(&["--validate-cmd=check"]);
    let client = bench.client(Transport::Rest);
    let other = client.authorized(&basic("other", "otherpwd"));
    let hang = format!("# hang\n{LISTENER}");
    let call = |_| {
        let (client, hang) = (client.clone(), hang.clone());
        tokio::spawn(async move { validate(&client, &hang).await })
    };
    let hanging: Vec<_> = (0..40).map(call).collect();
    until("some of them hang", async || checks(&bench) >= 2).await;
    let version = other.send(request("GET", "/v2/services/haproxy/configuration/version", "", "")).await.text();
    let path = format!("/v2/services/haproxy/configuration/backends?version={}", version.trim());
    let answer = other.send(request("POST", &path, "application/json", "{\"name\":\"soon\"}")).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(checks(&bench) <= 12, "some places are for others");
    assert!(hanging.iter().all(|call| !call.is_finished()), "it waits for none of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_hang_keep_nobody_waiting_and_leave_nothing() {
    let mut bench = Bench::running();
    bench.script("check", "grep -q hang \"$DATAPLANEAPI_TRANSACTION_FILE\" || exit 0; exec sleep 25");
    bench.start(&["--validate-cmd=check"]);
    let client = bench.client(Transport::Rest);
    let hang = format!("# hang\n{LISTENER}");
    let left = checks;
    let good = async {
        until("all of them hang", async || left(&bench) >= 2).await;
        validate(&client, LISTENER).await
    };
    tokio::select! {
        _ = futures_util::future::join_all((0..4).map(|_| validate(&client, &hang))) => panic!("they should hang"),
        answer = good => assert_eq!(answer.status, VALID, "{}", answer.text()),
    }
    assert!(left(&bench) > 0);
    bench.end(Signal::KILL);
    bench.start(&[]);
    // The start may check as well.
    until("what a killed process left goes at the next start", async || left(&bench) == 0).await;
}
