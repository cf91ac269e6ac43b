//! What differs when the program stands in for the Data Plane API.

use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::rows::Row;
use super::{Profile, Reading, Settings, User, serve_command, yaml};
use crate::error::{Error, Reason, Result};

/// Where its YAML file is.
pub(super) const FILE: &str = "/etc/haproxy/dataplaneapi.yaml";

/// The whole program under the name `dataplaneapi`: no subcommands.
pub fn drop_in_command() -> Command {
    let version = Arg::new("version").short('v').long("version").action(ArgAction::Version).help("Print the version");
    let (of_v2, own) = Profile::DropIn.version().split_once(' ').unwrap_or_default();
    serve_command()
        .name("dataplaneapi")
        .about("Serves the API of the Data Plane API")
        // Both are printed, with a blank between them, and nothing else.
        .display_name(of_v2)
        .version(own)
        .disable_version_flag(true)
        // Of a flag that is given twice the last one counts.
        .args_override_self(true)
        .arg(version)
}

/// Reads the YAML file, which is made when it is absent.
pub(super) fn read_file(path: &Path) -> Result<yaml::File> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(yaml::read_as(&text, true)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Without the right to make it, the defaults hold all the same.
            drop(std::fs::write(path, "config_version: 2\n"));
            Ok(yaml::File::default())
        }
        Err(error) => Err(Error::new(Reason::InvalidValue, format!("-f: {} cannot be read: {error}", path.display()))),
    }
}

/// Users of the YAML file as it stands; none when there is no such file. `INVALID_VALUE` when it has faults.
pub fn users_of(profile: Profile, path: &Path) -> Result<Vec<User>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::new(Reason::InvalidValue, format!("{} cannot be read: {error}", path.display())));
        }
    };
    let file = yaml::read_as(&text, profile == Profile::DropIn);
    match file.problems.first() {
        None => Ok(file.users),
        Some(problem) => Err(Error::new(Reason::InvalidValue, format!("{}: {problem}", path.display()))),
    }
}

/// The variable of its environment that sets a row, with its value.
pub(super) fn environment(
    profile: Profile,
    row: &Row,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<(&'static str, String)> {
    let name = match row.key {
        _ if profile == Profile::Own => return None,
        "dataplaneapi.host" => "HOST",
        "dataplaneapi.port" => "PORT",
        "dataplaneapi.tls.tls_host" => "TLS_HOST",
        "dataplaneapi.tls.tls_port" => "TLS_PORT",
        "dataplaneapi.tls.tls_certificate" => "TLS_CERTIFICATE",
        "dataplaneapi.tls.tls_key" => "TLS_PRIVATE_KEY",
        "dataplaneapi.tls.tls_ca" => "TLS_CA_CERTIFICATE",
        _ => return None,
    };
    environment(name).filter(|text| !text.is_empty()).map(|text| (name, text))
}

impl Reading {
    /// As a `program` of HAProxy's master the files must be among those that the master loads.
    pub(super) fn check_master_files(&mut self, settings: &Settings, environment: &dyn Fn(&str) -> Option<String>) {
        if self.profile == Profile::Own || environment("HAPROXY_MWORKER").as_deref() != Some("1") {
            return;
        }
        let Some(files) = environment("HAPROXY_CFGFILES") else { return };
        for path in std::iter::once(&settings.config_file).chain(&settings.userlist_file) {
            if !files.split(';').any(|file| Path::new(file) == path) {
                self.problems.push(format!("HAPROXY_CFGFILES: {} is not among the files of haproxy", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{At, Loaded, LogLevel, LogTo, Syslog, SyslogProtocol, resolve_as};
    use super::*;

    fn load(yaml: &str, flags: &[&str], environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d.yaml");
        if !yaml.is_empty() {
            std::fs::write(&file, yaml).unwrap();
        }
        let path = file.display().to_string();
        let words = ["dataplaneapi", "-f", &path, "-r", "true", "-s", "true"].into_iter().chain(flags.iter().copied());
        let loaded = resolve_as(Profile::DropIn, &drop_in_command().try_get_matches_from(words).unwrap(), environment);
        assert!(file.is_file());
        // The file is called `d.yaml` in messages.
        let plain = |words: &str| words.replace(&format!("{}/", folder.path().display()), "");
        loaded
            .map(|loaded| Loaded { warnings: loaded.warnings.iter().map(|words| plain(words)).collect(), ..loaded })
            .map_err(|error| {
                let words = plain(error.message());
                error.message_replaced(words)
            })
    }

    #[test]
    fn defaults_are_those_of_the_data_plane_api() {
        let loaded = load("", &[], &|_| None).unwrap();
        let Settings { listeners, state_dir, transaction_expiry, cors_origins, log, .. } = loaded.settings;
        assert_eq!(listeners.each[0].at, At::Tcp("localhost".to_owned(), 0));
        assert_eq!((listeners.each.len(), transaction_expiry), (1, None));
        assert_eq!(state_dir, Path::new("/tmp/haproxy"));
        assert_eq!((cors_origins, &log[0].to), (vec!["*".to_owned()], &LogTo::Stdout));
        assert_eq!((log.len(), log[0].level, log[0].json), (1, LogLevel::Warning, false));
        assert_eq!(log[0].access.as_deref(), Some("%h - %u %t \"%r\" %>s %B %{us}T"));
    }

    #[test]
    fn flags_win_over_its_environment_over_yaml() {
        let yaml = "dataplaneapi:\n  host: h1\n  port: 1\n  zebra: 2\n";
        let environment = |name: &str| match name {
            "HOST" => Some("h2".to_owned()),
            "PORT" => Some("2".to_owned()),
            _ => None,
        };
        let loaded = load(yaml, &["--port=3"], &environment).unwrap();
        assert_eq!(loaded.settings.listeners.each[0].at, At::Tcp("h2".to_owned(), 3));
        assert_eq!(loaded.warnings, ["d.yaml: dataplaneapi.zebra (line 4): unknown key"]);
    }

    #[test]
    fn the_strategy_custom_wants_both_commands() {
        let matches = drop_in_command().try_get_matches_from(["dataplaneapi", "-f", "/nowhere/d.yaml"]).unwrap();
        let error = resolve_as(Profile::DropIn, &matches, &|_| None).unwrap_err();
        let words = "needed for the reload strategy custom";
        assert_eq!(error.message(), format!("--reload-cmd: {words}\n--restart-cmd: {words}"));
    }

    #[test]
    fn listeners_are_as_flags_environment_and_yaml_say() {
        let yaml = "dataplaneapi:
  scheme: [https, unix]
  host: h
  socket_path: /s
  read_timeout: 5s
  keep_alive: 2m0s
  max_header_size: 64KiB
  tls:
    tls_certificate: /y.crt
    tls_key: /y.key
    tls_read_timeout: 1500ms
";
        let environment = |name: &str| match name {
            "TLS_PORT" => Some("6443".to_owned()),
            "TLS_CERTIFICATE" => Some("/e.crt".to_owned()),
            "TLS_CA_CERTIFICATE" => Some("/ca.crt".to_owned()),
            _ => None,
        };
        let listeners = load(yaml, &["--tls-key", "/f.key"], &environment).unwrap().settings.listeners;
        let [secure, unix] = &listeners.each[..] else { panic!("{listeners:?}") };
        assert_eq!(secure.at, At::Tcp("h".to_owned(), 6443));
        let tls = secure.tls.as_ref().unwrap();
        assert_eq!((tls.certificate.as_path(), tls.key.as_path()), (Path::new("/e.crt"), Path::new("/f.key")));
        assert_eq!(tls.ca.as_deref(), Some(Path::new("/ca.crt")));
        let ms = |time: Option<std::time::Duration>| time.map(|time| time.as_millis());
        assert_eq!((ms(secure.limits.read), ms(unix.limits.read)), (Some(1500), Some(5000)));
        assert_eq!((ms(secure.limits.keep_alive), ms(secure.limits.write)), (Some(120_000), Some(30_000)));
        assert_eq!((unix.at.clone(), unix.limits.connections), (At::Unix("/s".into()), None));
        assert_eq!((listeners.max_header, ms(listeners.idle)), (65536, Some(10_000)));

        let error = load("", &["--scheme=https", "--scheme=ftp"], &|_| None).unwrap_err();
        let words: Vec<&str> = error.message().lines().collect();
        assert_eq!(
            words,
            [
                "--scheme: expected http, https or unix, got \"ftp\"",
                "--tls-certificate or dataplaneapi.tls.tls_certificate: needed for the scheme https",
                "--tls-key or dataplaneapi.tls.tls_key: needed for the scheme https",
            ]
        );
    }

    #[test]
    fn log_targets_say_where_the_log_goes() {
        let yaml = "log_targets:
- log_to: syslog
  syslog_address: 127.0.0.1:514
  syslog_protocol: udp
  syslog_level: error
  log_level: debug
- log_to: file
  log_file: /x/y.log
  log_format: json
  acl_format: '%h'
  log_types: [access]
";
        let log = load(yaml, &["--log-to", "stdout"], &|_| None).unwrap().settings.log;
        let [syslog, file] = &log[..] else { panic!("{log:?}") };
        let LogTo::Syslog(Syslog { address, protocol, facility, .. }) = &syslog.to else { panic!("{syslog:?}") };
        assert_eq!((address.as_str(), *protocol, *facility), ("127.0.0.1:514", SyslogProtocol::Udp, 16));
        assert_eq!((syslog.level, syslog.app), (LogLevel::Error, true));
        assert_eq!(file.to, LogTo::File("/x/y.log".into()));
        assert_eq!(
            (file.level, file.json, file.app, file.access.as_deref()),
            (LogLevel::Warning, true, false, Some("%h"))
        );
        let faults = "log_targets:\n- log_to: paper\n  log_types: [audit]\n- log_to: syslog\n";
        let error = load(faults, &[], &|_| None).unwrap_err();
        let lines: Vec<&str> = error.message().lines().collect();
        assert_eq!(
            lines,
            [
                "d.yaml: log_targets[0].log_to (line 2): expected one of stdout, stderr, file, syslog, got \"paper\"",
                "d.yaml: log_targets[0].log_types (line 3): expected app or access, got \"audit\"",
                "syslog_address: needed to log to syslog",
            ]
        );
        let older = "log:\n  log_to: file\n  log_level: info\n  syslog:\n    syslog_tag: x\n";
        let log = load(older, &["--log-file=/z", "--log-format=json"], &|_| None).unwrap().settings.log;
        assert_eq!((&log[0].to, log[0].level, log[0].json), (&LogTo::File("/z".into()), LogLevel::Info, true));
        let error = load("", &["--log-level=loud"], &|_| None).unwrap_err();
        assert!(error.message().starts_with("--log-level: expected one of trace"), "{error}");
    }

    #[test]
    fn the_master_has_to_load_the_managed_file() {
        let environment = |name: &str| match name {
            "HAPROXY_MWORKER" => Some("1".to_owned()),
            "HAPROXY_CFGFILES" => Some("/a.cfg;/b.cfg".to_owned()),
            _ => None,
        };
        assert!(load("", &["-c", "/b.cfg"], &environment).is_ok());
        let error = load("", &["-c", "/c.cfg"], &environment).unwrap_err();
        assert!(error.message().contains("/c.cfg is not among"), "{error}");
    }
}
