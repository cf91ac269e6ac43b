//! The YAML file in the shapes that it has, users, and which of several values counts.

use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use super::Bench;
use crate::support::client::{Transport, basic};

/// As short as it can be; the rest are flags.
const SHORT: &str = "dataplaneapi:\n  userlist:\n    userlist: operators\n";

/// Every key of the Data Plane API, as it writes them itself. `{dir}` and `{port}` are filled in.
const FULL: &str = "config_version: 2
name: node_one
mode: single
dataplaneapi:
  advertised:
    api_address: 10.0.0.1
    api_port: 5555
  scheme: [http, unix]
  cleanup_timeout: 10s
  graceful_timeout: 15s
  max_header_size: 1MiB
  socket_path: {dir}/full.sock
  host: 127.0.0.1
  port: {port}
  listen_limit: 1024
  disable_inotify: false
  pid_file: {dir}/full.pid
  debug_socket_path: \"\"
  keep_alive: 3m0s
  read_timeout: 30s
  write_timeout: 30s
  show_system_info: true
  tls:
    tls_host: null
    tls_port: null
    tls_certificate: null
    tls_key: null
    tls_ca: null
    tls_listen_limit: null
    tls_keep_alive: null
    tls_read_timeout: null
    tls_write_timeout: null
  userlist:
    userlist: operators
    userlist_file: \"\"
  transaction:
    transaction_dir: {dir}/full-tr
    backups_number: 1
    backups_dir: {dir}/full-old
    max_open_transactions: 2
  resources:
    maps_dir: {dir}/full-maps
    ssl_certs_dir: {dir}/full-ssl
    general_storage_dir: {dir}/full-general
    spoe_dir: {dir}/full-spoe
    spoe_transaction_dir: {dir}/full-spoe-tr
    update_map_files: true
    update_map_files_period: 10
haproxy:
  config_file: {dir}/haproxy.cfg
  haproxy_bin: {haproxy}
  master_runtime: \"\"
  fid: \"\"
  master_worker_mode: false
  delayed_start_max: 1s
  delayed_start_tick: 100ms
  reload:
    reload_delay: 5
    reload_cmd: touch {dir}/reloaded
    restart_cmd: touch {dir}/restarted
    status_cmd: \"true\"
    service_name: haproxy.service
    reload_retention: 1
    reload_strategy: custom
    validate_cmd: \"\"
cluster:
  cluster_tls_dir: null
  id: null
  name: null
log_targets:
- log_to: stdout
  log_level: info
  log_format: text
  log_types: [app, access]
";

/// Keys at the top that are deprecated, and logging as it was before `log_targets`.
const LEGACY: &str = "name: node_one
mode: single
status: null
bootstrap_key: null
dataplaneapi:
  host: 127.0.0.1
  port: {port}
  user:
  - name: first
    insecure: true
    password: '\"${FIRST_PASSWORD}\"'
  - name: second
    insecure: false
    password: $1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.
haproxy:
  reload:
    reload_strategy: custom
log:
  log_to: stdout
  log_level: info
  log_format: text
";

fn bench(yaml: &str) -> Bench {
    let bench = Bench::running();
    let text = bench.text().replace("userlist controller", "userlist operators");
    std::fs::write(bench.path("haproxy.cfg"), text).unwrap();
    let haproxy = crate::support::haproxy::binary().into_string().unwrap();
    std::fs::write(bench.path("d.yaml"), bench.filled(yaml).replace("{haproxy}", &haproxy)).unwrap();
    bench
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_shape_completes_the_flags() {
    let mut bench = bench(SHORT);
    bench.start(&[]);
    let client = bench.client(Transport::Rest);
    assert!(client.call("InfoService.GetInfo", &json!({})).await.is_ok());
    assert!(!bench.log().contains("level=warning"), "{}", bench.log());
    assert_eq!(std::fs::read_to_string(bench.path("d.yaml")).unwrap(), SHORT, "the file of the user stays as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_full_shape_needs_no_flags() {
    let mut bench = bench(FULL);
    let yaml = std::fs::read_to_string(bench.path("d.yaml")).unwrap();
    bench.start_bare(&["-f".to_owned(), bench.path("d.yaml").display().to_string()]);
    let client = bench.client(Transport::Rest);
    let info = client.call("InfoService.GetInfo", &json!({})).await.unwrap();
    assert!(info.message.to_string().contains("hostname"));
    for path in ["full.sock", "full.pid", "full-tr", "full-old", "full-maps", "full-ssl", "full-general", "full-spoe"] {
        assert!(bench.path(path).try_exists().unwrap(), "{path}");
    }
    for _ in 0..2 {
        client.call("TransactionService.BeginTransaction", &json!({"version": 1})).await.unwrap();
    }
    let third = client.call("TransactionService.BeginTransaction", &json!({"version": 1})).await.unwrap_err();
    assert_eq!(third.status, 429);
    // Only keys that ask for something that is not done are told.
    let warnings: Vec<String> =
        bench.log().lines().filter(|line| line.contains("level=warning")).map(ToOwned::to_owned).collect();
    for warning in &warnings {
        let known = ["api_address", "api_port", "spoe_transaction_dir"].iter().any(|key| warning.contains(key));
        assert!(known, "{warning}");
    }
    assert_eq!(std::fs::read_to_string(bench.path("d.yaml")).unwrap(), yaml);
    assert_eq!(bench.end(Signal::TERM), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_yaml_file_stand_in_for_the_userlist() {
    let mut bench = bench(LEGACY);
    bench.set("FIRST_PASSWORD", "from outside");
    bench.start(&[]);
    let client = bench.client(Transport::Rest);
    for (user, password, lets_in) in [
        ("first", "from outside", true),
        ("first", "${FIRST_PASSWORD}", false),
        ("second", "pw", true),
        ("second", "$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.", false),
        ("admin", "adminpwd", false),
    ] {
        let answer = client.authorized(&basic(user, password)).call("InfoService.GetInfo", &json!({})).await;
        assert_eq!(answer.is_ok(), lets_in, "{user}");
    }
    assert!(!bench.log().contains("from outside"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_mistyped_keys_are_told_with_their_line() {
    let mut bench = bench("dataplaneapi:\n  userlist:\n    userlist: operators\n  maximum: 3\n  reed_timeout: 5s\n");
    bench.start(&[]);
    assert!(bench.log().contains("dataplaneapi.maximum (line 4): unknown key"), "{}", bench.log());
    assert!(
        bench.log().contains("dataplaneapi.reed_timeout (line 5): unknown key, did you mean read_timeout?"),
        "{}",
        bench.log()
    );
    std::fs::write(bench.path("d.yaml"), "dataplaneapi:\n  transaction:\n    max_open_transactions: many\n").unwrap();
    assert_eq!(bench.end(Signal::TERM), Some(0));
    assert_eq!(bench.fails(&[]), Some(1));
    bench.logged("dataplaneapi.transaction.max_open_transactions (line 3): expected a whole number");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_wins_over_the_environment_over_the_file() {
    let other = crate::support::haproxy::free_port();
    let mut bench = bench(&format!("{SHORT}  host: 127.0.0.1\n  port: {other}\n  show_system_info: true\n"));
    // The flag.
    bench.set("PORT", &other.to_string());
    bench.start(&[]);
    assert!(std::net::TcpListener::bind(("127.0.0.1", other)).is_ok());
    let info = bench.client(Transport::Rest).call("InfoService.GetInfo", &json!({})).await.unwrap();
    assert!(info.message.to_string().contains("hostname"), "from the file, where nothing else says");
    assert_eq!(bench.end(Signal::TERM), Some(0));
    // The environment.
    let mut flags = bench.flags();
    flags.drain(..2);
    bench.set("PORT", "{port}");
    bench.start_bare(&flags);
    assert_eq!(bench.end(Signal::TERM), Some(0));
}

#[test]
fn without_a_file_one_is_made() {
    let mut bench = Bench::running();
    bench.start(&[]);
    assert_eq!(std::fs::read_to_string(bench.path("d.yaml")).unwrap(), "config_version: 2\n");
}

#[test]
fn migrate_explains_every_key_of_a_file() {
    let bench = bench(FULL);
    let explained = |file: &str| {
        Command::new(env!("CARGO_BIN_EXE_backstay")).arg("migrate").arg(bench.path(file)).output().unwrap()
    };
    let output = explained("d.yaml");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |key: &str| text.lines().find(|line| line.contains(&format!(" {key} "))).unwrap_or("none").to_owned();
    assert!(line("dataplaneapi.scheme").starts_with("supported  dataplaneapi.scheme (line 8): listeners"), "{text}");
    assert!(line("haproxy.reload.reload_cmd").starts_with("supported"), "{text}");
    assert!(line("dataplaneapi.advertised.api_port").starts_with("no effect"), "{text}");
    assert!(line("name").starts_with("no effect"), "{text}");
    std::fs::write(bench.path("odd.yaml"), "dataplaneapi:\n  prot: 1\n  port: [x]\n").unwrap();
    let text = String::from_utf8(explained("odd.yaml").stdout).unwrap();
    assert!(text.contains("unknown    dataplaneapi.prot (line 2): unknown key, did you mean port?"), "{text}");
    assert!(text.contains("wrong      dataplaneapi.port (line 3): expected a whole number"), "{text}");
    assert_eq!(explained("absent.yaml").status.code(), Some(1));
}
