use std::path::Path;

use super::*;

const NONE: &dyn Fn(&str) -> Option<String> = &|_| None;

struct Bench(tempfile::TempDir);

impl Bench {
    fn new(yaml: &str) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s.yaml"), yaml).unwrap();
        Bench(folder)
    }

    fn load(&self, flags: &[&str], environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded> {
        let file = self.0.path().join("s.yaml").display().to_string();
        let words = ["serve", "-f", &file].into_iter().chain(flags.iter().copied());
        resolve(&serve_command().try_get_matches_from(words).unwrap(), environment)
    }
}

fn load(yaml: &str, flags: &[&str]) -> Loaded {
    Bench::new(yaml).load(flags, NONE).unwrap()
}

/// The faults of a file, which is called `s.yaml` in them.
fn fault(yaml: &str, flags: &[&str]) -> String {
    let bench = Bench::new(yaml);
    let folder = format!("{}/", bench.0.path().display());
    bench.load(flags, NONE).unwrap_err().message().replace(&folder, "")
}

const MASTER_YAML: &str = "haproxy:\n  master_runtime: /run/master.sock\n";

#[test]
fn defaults_are_on_loopback_and_cautious() {
    let Settings { listeners, reload_delay, durability, cors_origins, state_dir, transaction_dir, .. } =
        load(MASTER_YAML, &[]).settings;
    assert_eq!(listeners.each[0].at, At::Tcp("127.0.0.1".to_owned(), 5555));
    assert_eq!((listeners.each.len(), reload_delay.as_secs(), durability), (1, 5, true));
    assert!(cors_origins.is_empty());
    assert_eq!(state_dir, Path::new("/var/lib/backstay"));
    assert_eq!(transaction_dir, Path::new("/var/lib/backstay/transactions"));
}

#[test]
fn flags_win_over_environment_over_yaml_over_defaults() {
    let bench = Bench::new(
        "dataplaneapi:\n  port: 1\n  host: h1\nhaproxy:\n  master_runtime: /m\n  reload:\n    reload_delay: 7\n",
    );
    let environment = |name: &str| match name {
        "BACKSTAY_PORT" => Some("2".to_owned()),
        "BACKSTAY_HOST" => Some("h2".to_owned()),
        _ => None,
    };
    let settings = bench.load(&["--port", "3"], &environment).unwrap().settings;
    assert_eq!(settings.listeners.each[0].at, At::Tcp("h2".to_owned(), 3));
    assert_eq!(settings.reload_delay.as_secs(), 7);
    let faster = |name: &str| (name == DELAY_OVERRIDE).then(|| "250".to_owned());
    assert_eq!(bench.load(&["-d", "9"], &faster).unwrap().settings.reload_delay.as_millis(), 250);
}

/// The shape of a file for the Data Plane API that is in use.
const PEER: &str = "name: vec
dataplaneapi:
  host: 127.0.0.1
  port: 5000
  scheme: [http]
  user:
  - name: admin
    insecure: true
    password: very-secret
  userlist:
    userlist_file: /d/userlist.cfg
  resources:
    maps_dir: /d/maps
    ssl_certs_dir: /d/ssl
    general_storage_dir: /d/general
    spoe_dir: /d/spoe
    spoe_transaction_dir: /d/spoetr
  transaction:
    transaction_dir: /d/tr
haproxy:
  config_file: /d/haproxy.cfg
  haproxy_bin: /d/haproxy
  reload:
    reload_delay: 3600
    reload_cmd: \"true\"
    restart_cmd: \"true\"
    status_cmd: \"true\"
    reload_strategy: custom
log_targets:
- log_to: file
  log_file: /d/dpapi.log
  log_level: warning
";

#[test]
fn a_file_of_the_data_plane_api_is_read_and_what_has_no_effect_is_told() {
    let Loaded { settings, warnings } = load(PEER, &["--host", "127.0.0.1", "--port", "0"]);
    assert_eq!(settings.listeners.each[0].at, At::Tcp("127.0.0.1".to_owned(), 0));
    assert_eq!(settings.config_file, Path::new("/d/haproxy.cfg"));
    assert_eq!(settings.haproxy_bin, Path::new("/d/haproxy"));
    assert_eq!((&settings.transaction_dir, &settings.state_dir), (&"/d/tr".into(), &"/d/tr".into()));
    assert_eq!(settings.maps_dir, Path::new("/d/maps"));
    assert_eq!(settings.ssl_certs_dir, Path::new("/d/ssl"));
    assert_eq!(settings.general_storage_dir, Path::new("/d/general"));
    assert_eq!(settings.spoe_dir, Path::new("/d/spoe"));
    assert_eq!(settings.spoe_transaction_dir, Path::new("/d/spoetr"));
    assert_eq!(settings.userlist_file.as_deref(), Some(Path::new("/d/userlist.cfg")));
    let words = |text: &str| vec![text.to_owned()];
    assert_eq!(settings.reload_method, ReloadMethod::Command { reload: words("true"), restart: Some(words("true")) });
    assert_eq!(settings.status_cmd, Some(words("true")));
    assert_eq!(settings.reload_delay.as_secs(), 3600);
    assert_eq!((settings.users.len(), settings.users[0].password.expose()), (1, "very-secret"));
    assert!(!format!("{settings:?}").contains("very-secret"));
    assert_eq!(settings.log[0].to, LogTo::File("/d/dpapi.log".into()));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let yaml = "dataplaneapi:\n  port: many\nhaproxy:\n  reload:\n    reload_dely: 1\n    reload_strategy: upstart\n";
    let message = fault(yaml, &["--update-map-files=perhaps", "-d", "soon", "-m", "/m"]);
    assert_eq!(
        message.lines().collect::<Vec<_>>(),
        [
            "s.yaml: haproxy.reload.reload_dely (line 5): unknown key, did you mean reload_delay?",
            "--reload-delay: expected a time such as 5 (seconds), 5s or 500ms, got \"soon\"",
            "s.yaml: haproxy.reload.reload_strategy (line 6): expected one of custom, systemd, s6, got \"upstart\"",
            "s.yaml: dataplaneapi.port (line 2): expected a whole number from 0 to 65535, got \"many\"",
            "--update-map-files: expected true or false, got \"perhaps\"",
        ]
    );
}

#[test]
fn the_way_to_reload_is_found_or_asked_for() {
    let method = |yaml: &str, flags: &[&str]| load(yaml, flags).settings.reload_method;
    assert_eq!(method("", &["-m", "/m"]), ReloadMethod::Master("/m".into()));
    assert!(
        matches!(method("", &["-m", "/m", "-r", "a b"]), ReloadMethod::Command { reload, .. } if reload == ["a", "b"])
    );
    assert_eq!(method("", &["-m", "/m", "-r", "a", "--master-worker-mode"]), ReloadMethod::Master("/m".into()));
    let Settings { reload_method, status_cmd, .. } =
        load("haproxy:\n  reload: {reload_strategy: systemd, service_name: lb.service}\n", &[]).settings;
    assert_eq!(reload_method, ReloadMethod::Systemd { unit: "lb.service".to_owned() });
    assert_eq!(status_cmd.unwrap().join(" "), "systemctl --quiet is-active lb.service");
    assert!(fault("", &[]).starts_with("nothing says how haproxy is reloaded"));
    // Beside another fault, which may be the reason, it would only lead astray.
    for (yaml, fault_of_it) in [
        ("haproxy:\n  reload:\n    reload_cmdd: x\n", "s.yaml: haproxy.reload.reload_cmdd (line 3): unknown key"),
        ("haproxy: [\n", "s.yaml: line "),
        ("dataplaneapi:\n  port: many\n", "s.yaml: dataplaneapi.port (line 2): expected a whole number"),
    ] {
        let message = fault(yaml, &[]);
        assert!(message.starts_with(fault_of_it) && message.lines().count() == 1, "{message}");
    }
    let program = |name: &str| match name {
        "HAPROXY_MWORKER" => Some("1".to_owned()),
        "HAPROXY_MASTER_CLI" => Some("ipv4@127.0.0.1:1;unix@/run/m.sock".to_owned()),
        _ => None,
    };
    let loaded = Bench::new("haproxy:\n  reload:\n    reload_cmd: x\n").load(&[], &program).unwrap();
    assert_eq!(loaded.settings.reload_method, ReloadMethod::Master("/run/m.sock".into()));
}

#[test]
fn standalone_keeps_everything_in_its_folder() {
    let settings =
        load("", &["--standalone", "/s", "--frontend-addr", "127.0.0.1:81", "--cors-origin", "a,b"]).settings;
    assert_eq!(settings.reload_method, ReloadMethod::Supervised);
    for path in [
        &settings.config_file,
        &settings.maps_dir,
        &settings.ssl_certs_dir,
        &settings.general_storage_dir,
        &settings.spoe_dir,
        &settings.state_dir,
        &settings.transaction_dir,
    ] {
        assert!(path.starts_with("/s"), "{}", path.display());
    }
    assert_eq!(settings.frontend_addr.port(), 81);
    assert_eq!(settings.cors_origins, ["a", "b"]);
    assert_eq!(fault("", &["--standalone", "/s", "-c", "/x"]), "--config-file: cannot be set together with standalone");
}

#[test]
fn zero_has_its_meaning() {
    let settings =
        load(MASTER_YAML, &["--max-open-transactions", "0", "--transaction-expiry", "0", "-d", "0"]).settings;
    assert_eq!((settings.max_open_transactions, settings.transaction_expiry), (None, None));
    assert_eq!(settings.reload_delay.as_secs(), 5);
}

#[test]
fn flags_without_effect_are_told_and_unknown_ones_refused() {
    let loaded = load(MASTER_YAML, &["--fid", "/x", "-i"]);
    assert!(loaded.settings.show_system_info);
    assert_eq!(loaded.warnings, ["--fid: not supported yet, no effect"]);
    assert!(serve_command().try_get_matches_from(["serve", "--reload-dely", "1"]).is_err());
}

#[test]
fn a_missing_file_is_named() {
    let matches = serve_command().try_get_matches_from(["serve", "-f", "/nowhere/x.yaml"]).unwrap();
    let error = resolve(&matches, NONE).unwrap_err();
    assert!(error.message().starts_with("-f: /nowhere/x.yaml cannot be read"), "{error}");
}

#[test]
fn the_command_line_is_sound_and_the_table_is_whole() {
    serve_command().debug_assert();
    let table = table();
    assert_eq!(table[0].flag, "-f");
    assert!(table.iter().any(|r| r.flag == "-d, --reload-delay" && r.key == DELAY && r.default == "5"));
    assert!(table.iter().all(|r| !r.meaning.is_empty()));
}

#[test]
fn sessions_over_tls_need_their_files_together() {
    const YAML: &str = "haproxy:\n  reload:\n    reload_cmd: \"true\"\n";
    let flags = ["--peer-tls-ca", "ca.pem", "--peer-tls-certificate", "us.pem", "--peer-tls-key", "us.key"];
    let tls = load(YAML, &flags).settings.peer_tls.unwrap();
    assert_eq!((tls.ca.as_path(), tls.name), (Path::new("ca.pem"), None));
    assert_eq!(tls.identity.unwrap().1, Path::new("us.key"));
    let yaml = format!("{YAML}backstay:\n  peer_tls:\n    ca: ca.pem\n    name: \"*\"\n");
    let tls = load(&yaml, &[]).settings.peer_tls.unwrap();
    assert_eq!((tls.identity, tls.name.as_deref()), (None, Some("*")));
    assert_eq!(load(YAML, &[]).settings.peer_tls, None);
    let lonely = fault(YAML, &["--peer-tls-ca", "ca.pem", "--peer-tls-key", "us.key"]);
    assert!(lonely.contains("--peer-tls-certificate"), "{lonely}");
    assert!(fault(YAML, &["--peer-tls-name", "a.example"]).contains("--peer-tls-ca"));
}
