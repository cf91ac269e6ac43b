//! Settings: defaults, then the YAML file, then environment and flags; all checked before anything is started.
//!
//! `rows` is the one table. An unknown key of the file is an error with its line and the nearest key; a key of the Data Plane
//! API that has no effect yet is a warning.

mod drop_in;
mod listeners;
mod logging;
mod migrate;
mod reload;
mod row;
mod rows;
mod secret;
mod values;
mod yaml;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::{Error, Reason, Result};
pub use drop_in::{drop_in_command, users_of};
pub use listeners::{At, Limits, Listener, Listeners, Tls};
pub use logging::{LogLevel, LogTarget, LogTo, Syslog, SyslogProtocol};
pub use migrate::explain;
use rows::{Kind, ROWS, Row};
pub use secret::Secret;

/// Exit code for wrong flags and settings, as of sysexits.
pub const EXIT_USAGE: u8 = 64;

/// A user of the YAML file. With at least one, no userlist is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Whether the password is plain text rather than a crypt(3) hash.
    pub insecure: bool,
    /// Password or hash; `"${NAME}"` with its quotes stands for an environment variable.
    pub password: Secret,
}

/// How HAProxy is reloaded, with commands split into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadMethod {
    /// It is our own child, see `process::child`.
    Supervised,
    /// Through the master socket.
    Master(PathBuf),
    /// By a command.
    Command {
        /// Reloads.
        reload: Vec<String>,
        /// Restarts, where known.
        restart: Option<Vec<String>>,
    },
    /// By systemd; with which rights is found out at the start.
    Systemd {
        /// The unit.
        unit: String,
    },
}

/// How the start waits for HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedStart {
    /// As long as this. Default 30 s.
    pub max: Duration,
    /// Time between two looks, 500 ms unless set, at least 10 ms.
    pub tick: Duration,
}

/// Whose defaults and manners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Our own.
    Own,
    /// Those of the Data Plane API, in whose place the program was started.
    DropIn,
}

impl Profile {
    /// What the program says its version is. In the place of the Data Plane API the version of /v2 comes first, where
    /// clients look for at least 2.0, and what was built comes behind it.
    pub const fn version(self) -> &'static str {
        match self {
            Profile::Own => env!("CARGO_PKG_VERSION"),
            Profile::DropIn => concat!("v2.9.0 backstay-", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// All settings of `serve`.
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose defaults and manners.
    pub profile: Profile,
    /// The YAML file that the settings come from.
    pub yaml_file: Option<PathBuf>,
    /// User to run as once the port is bound.
    pub uid: Option<u32>,
    /// Group to run as once the port is bound.
    pub gid: Option<u32>,
    /// File with the id of the process.
    pub pid_file: Option<PathBuf>,
    /// Whether the machine is described to callers. Default false.
    pub show_system_info: bool,
    /// Whether changes of the managed file are refused. Default false.
    pub read_only: bool,
    /// Whether changes that others make to the managed file are looked for all the time. Default true.
    pub watch_file: bool,
    /// Whether the version lives in the state folder only. Default false.
    pub version_outside: bool,
    /// Earlier files that are kept. Default 0.
    pub backups_number: u32,
    /// Their folder; beside the managed file when `None`.
    pub backups_dir: Option<PathBuf>,
    /// Where the log goes, at least one place. Default standard error; in place of the Data Plane API standard output.
    pub log: Vec<LogTarget>,
    /// Folder of the embedded default.
    pub standalone: Option<PathBuf>,
    /// Where the frontend of a new embedded default listens. Default 127.0.0.1:8080.
    pub frontend_addr: SocketAddr,
    /// Where the API listens. Default 127.0.0.1:5555.
    pub listeners: Listeners,
    /// The managed file. Default /etc/haproxy/haproxy.cfg; standalone: in its folder.
    pub config_file: PathBuf,
    /// HAProxy's binary, looked up in the path without a slash. Default `haproxy`.
    pub haproxy_bin: PathBuf,
    /// The master socket of an HAProxy that is not ours.
    pub master_runtime: Option<PathBuf>,
    /// Stats socket to use instead of the first one of the global section: a path or host:port.
    pub stats_socket: Option<String>,
    /// Whether the start waits for HAProxy. Default no: every call connects for itself.
    pub delayed_start: Option<DelayedStart>,
    /// How to reload.
    pub reload_method: ReloadMethod,
    /// Says by exit code 0 that HAProxy runs.
    pub status_cmd: Option<Vec<String>>,
    /// Wait before a reload. Default 5 s.
    pub reload_delay: Duration,
    /// How long HAProxy may show nothing of a reload, and how long the caller of a forced one waits. Default 8 s.
    pub reload_timeout: Duration,
    /// How long failed reloads are listed. Default 1 day.
    pub reload_retention: Duration,
    /// Checks a candidate instead of `haproxy -c`; to be split as a shell does.
    pub validate_cmd: Option<String>,
    /// Users of the YAML file.
    pub users: Vec<User>,
    /// Name of the userlist. Default `controller`.
    pub userlist: String,
    /// File of the userlist; the managed file when `None`.
    pub userlist_file: Option<PathBuf>,
    /// Folder of maps. Default /etc/haproxy/maps; standalone: in its folder.
    pub maps_dir: PathBuf,
    /// Folder of certificates with their keys. Default /etc/haproxy/ssl; standalone: in its folder.
    pub ssl_certs_dir: PathBuf,
    /// Folder of files for any use. Default /etc/haproxy/general; standalone: in its folder.
    pub general_storage_dir: PathBuf,
    /// Folder of SPOE files. Default /etc/haproxy/spoe; standalone: in its folder.
    pub spoe_dir: PathBuf,
    /// Open transactions of SPOE files. Default `spoe` in `state_dir`; called as `dataplaneapi`: /tmp/spoe-haproxy.
    pub spoe_transaction_dir: PathBuf,
    /// Whether runtime changes of maps are written to their files. Default false.
    pub update_map_files: bool,
    /// How often. Default 10 s, at least 1 ms.
    pub update_map_files_period: Duration,
    /// Whether writes at run time stay over reloads when they do not say.
    pub durable_writes: bool,
    /// Journal, last good file, history. Default /var/lib/backstay, or `transaction_dir` when only that is given.
    pub state_dir: PathBuf,
    /// Open transactions. Default `transactions` in `state_dir`.
    pub transaction_dir: PathBuf,
    /// Transactions that may be open; `None` for no limit. Default 20.
    pub max_open_transactions: Option<usize>,
    /// Idle time after which a transaction ends; `None` for never. Default 24 h.
    pub transaction_expiry: Option<Duration>,
    /// Whether answers wait for the disk. Default true.
    pub durability: bool,
    /// Variables that checks of the configuration find while HAProxy cannot tell its own: `NAME`, or `NAME=value`.
    pub haproxy_env: Vec<String>,
    /// Whether REST lists `listen` sections among frontends and backends. Default false.
    pub rest_listen_sections: bool,
    /// Name of this program in peers sections. Default `backstay`.
    pub peer_name: String,
    /// Sessions over TLS with HAProxy as its peer; `None` without authorities to trust. Default none.
    pub peer_tls: Option<PeerTls>,
    /// Bytes of the largest REST body that is read whole. Default 64 MiB.
    pub max_body_size: usize,
    /// Bytes of the largest file that REST takes. Default 1 GiB.
    pub max_upload_size: usize,
    /// Web origins that may call the API. Default none.
    pub cors_origins: Vec<String>,
    /// Names beside those of loopback by which browsers may call a listener on loopback. Default none.
    pub allowed_hosts: Vec<String>,
}

/// What is trusted and shown where HAProxy listens for peers with TLS. All are PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// Authorities of HAProxy's certificate.
    pub ca: PathBuf,
    /// The certificate that is shown to HAProxy, and its private key. Default none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name that HAProxy's certificate must have, `*` for any. Default: the address.
    pub name: Option<String>,
}

/// Settings, and what is to be told about them.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// For the log: keys without effect.
    pub warnings: Vec<String>,
}

/// A row of the settings table in the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// `-d, --reload-delay`; empty when there is none.
    pub flag: String,
    /// `haproxy.reload.reload_delay`; empty for `-f`.
    pub key: &'static str,
    /// As text; empty for none.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// The settings that have an effect, in the order of the documentation.
pub fn table() -> Vec<TableRow> {
    let file = TableRow { flag: "-f".to_owned(), key: "", default: "", meaning: "the YAML file" };
    let users = TableRow {
        flag: String::new(),
        key: rows::USER_KEY,
        default: "",
        meaning: "users of the API: name, insecure, password",
    };
    let row = |row: &Row| TableRow {
        flag: match row.short {
            _ if row.flag.is_empty() => String::new(),
            None => format!("--{}", row.flag),
            Some(letter) => format!("-{letter}, --{}", row.flag),
        },
        key: row.key,
        default: row.default,
        meaning: row.meaning,
    };
    let rows = ROWS.iter().filter(|row| row.supported()).map(row);
    std::iter::once(file).chain(rows).chain(std::iter::once(users)).collect()
}

/// The subcommand `serve` with all its flags.
pub fn serve_command() -> Command {
    let file =
        Arg::new("file").short('f').value_name("FILE").help("The YAML file").value_parser(clap::value_parser!(PathBuf));
    let mut command = Command::new("serve").about("Serve the API for an haproxy").arg(file);
    for row in ROWS.iter().filter(|row| !row.flag.is_empty()) {
        let mut help = row.meaning.to_owned();
        if !row.default.is_empty() {
            help = format!("{help} [default: {}]", row.default);
        }
        let mut arg =
            Arg::new(row.key).long(row.flag).value_name(row.kind.value_name()).help(help).hide(!row.supported());
        if let Some(letter) = row.short {
            arg = arg.short(letter);
        }
        arg = match row.kind {
            Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::List => arg.action(ArgAction::Append).value_delimiter(','),
            Kind::Any => arg.num_args(0..=1).default_missing_value("true").action(ArgAction::Append),
            _ => arg,
        };
        command = command.arg(arg);
    }
    command
}

/// Where a value comes from.
#[derive(Debug, Clone)]
enum Origin {
    Yaml(usize),
    Env(String),
    Flag,
}

struct Given {
    values: Vec<String>,
    origin: Origin,
}

/// Values that were given, by key, and the faults found on the way.
struct Reading {
    profile: Profile,
    /// What stands before a key with its line: the file and a colon.
    yaml_file: String,
    log_targets: Vec<Vec<logging::LogKey>>,
    given: HashMap<&'static str, Given>,
    problems: Vec<String>,
    /// Nothing says how HAProxy is reloaded.
    reload_is_missing: bool,
}

/// Environment variable of a flag: `BACKSTAY_RELOAD_DELAY` for `--reload-delay`.
fn variable(row: &Row) -> String {
    format!("BACKSTAY_{}", row.flag.to_uppercase().replace('-', "_"))
}

/// Puts the settings of `serve` together. `environment` looks a variable up.
///
/// Every fault is a line of the message of the one error, `INVALID_VALUE`.
pub fn resolve(matches: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded> {
    resolve_as(Profile::Own, matches, environment)
}

/// As [`resolve`], with the defaults and manners of a profile.
pub fn resolve_as(
    profile: Profile,
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded> {
    let given = matches.get_one::<PathBuf>("file").map(PathBuf::as_path);
    let path = if profile == Profile::DropIn { Some(given.unwrap_or(Path::new(drop_in::FILE))) } else { given };
    let file = match path {
        Some(path) if profile == Profile::DropIn => drop_in::read_file(path)?,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::new(Reason::InvalidValue, format!("-f: {} cannot be read: {error}", path.display()))
            })?;
            yaml::read(&text)
        }
        None => yaml::File::default(),
    };
    // A line says nothing without its file.
    let yaml_file = path.map(|path| format!("{}: ", path.display())).unwrap_or_default();
    let in_file = |words: &String| format!("{yaml_file}{words}");
    let told = |key: &str| rows::by_key(key).is_some_and(|row| row.kind != Kind::None);
    let mut warnings: Vec<String> = file
        .unsupported
        .iter()
        .filter(|(key, _)| told(key))
        .map(|(key, line)| format!("{yaml_file}{key} (line {line}): not supported yet, no effect"))
        .collect();
    warnings.extend(file.unknown.iter().map(in_file));
    let problems = file.problems.iter().map(in_file).collect();
    let log_targets = file.log_targets;
    let given = HashMap::new();
    let mut reading = Reading { profile, yaml_file, given, problems, log_targets, reload_is_missing: false };
    for entry in file.entries {
        reading.given.insert(entry.key, Given { values: entry.values, origin: Origin::Yaml(entry.line) });
    }
    for row in ROWS.iter().filter(|row| !row.flag.is_empty()) {
        let flag: Option<Vec<String>> = matches.get_many::<String>(row.key).map(|values| values.cloned().collect());
        if !row.supported() {
            if flag.is_some() {
                warnings.push(format!("--{}: not supported yet, no effect", row.flag));
            }
            continue;
        }
        if let Some(values) = flag {
            reading.given.insert(row.key, Given { values, origin: Origin::Flag });
        } else if let Some((name, text)) = drop_in::environment(profile, row, environment) {
            reading.given.insert(row.key, Given { values: vec![text], origin: Origin::Env(name.to_owned()) });
        } else if let Some(text) = environment(&variable(row)) {
            let values = match row.kind {
                Kind::List => text.split(',').map(|part| part.trim().to_owned()).collect(),
                _ => vec![text],
            };
            reading.given.insert(row.key, Given { values, origin: Origin::Env(variable(row)) });
        }
    }
    reading.take_master_environment(environment);
    let mut settings = reading.settings(file.users, environment);
    settings.yaml_file = path.map(Path::to_owned);
    reading.ask_for_reload();
    if reading.problems.is_empty() {
        Ok(Loaded { settings, warnings })
    } else {
        Err(Error::new(Reason::InvalidValue, reading.problems.join("\n")))
    }
}

const MASTER: &str = "haproxy.master_runtime";
const MODE: &str = "haproxy.master_worker_mode";
const DELAY: &str = "haproxy.reload.reload_delay";
const DELAY_OVERRIDE: &str = "CI_DATAPLANE_RELOAD_DELAY_OVERRIDE";

impl Reading {
    /// As a `program` of HAProxy's master, its environment says where the master socket is.
    fn take_master_environment(&mut self, environment: &dyn Fn(&str) -> Option<String>) {
        if environment("HAPROXY_MWORKER").as_deref() != Some("1") || self.given.contains_key(MASTER) {
            return;
        }
        let Some(sockets) = environment("HAPROXY_MASTER_CLI") else { return };
        if let Some(path) = sockets.split(';').find_map(|one| one.strip_prefix("unix@")) {
            let given = |text: &str| Given {
                values: vec![text.to_owned()],
                origin: Origin::Env("HAPROXY_MASTER_CLI".to_owned()),
            };
            self.given.insert(MASTER, given(path));
            self.given.insert(MODE, given("true"));
        }
    }

    fn wrong(&mut self, key: &str, origin: &Origin, words: &str) {
        let flag = rows::by_key(key).map(|row| row.flag).unwrap_or_default();
        self.problems.push(match origin {
            Origin::Yaml(line) => format!("{}{key} (line {line}): {words}", self.yaml_file),
            Origin::Env(name) => format!("{name}: {words}"),
            Origin::Flag => format!("--{flag}: {words}"),
        });
    }

    /// The value of a key as `parse` reads it; a fault is noted and counts as not given.
    fn get<T>(&mut self, key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let given = self.given.get(key)?;
        let text = given.values.last()?.trim().to_owned();
        let origin = given.origin.clone();
        let value = if text.is_empty() { None } else { parse(&text) };
        if value.is_none() {
            let expected = rows::by_key(key).map(|row| row.kind.expected()).unwrap_or_default();
            self.wrong(key, &origin, &format!("expected {expected}, got {text:?}"));
        }
        value
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.get(key, |text| Some(text.to_owned()))
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.get(key, |text| Some(PathBuf::from(text)))
    }

    fn switch(&mut self, key: &str, default: bool) -> bool {
        self.get(key, values::switch).unwrap_or(default)
    }

    fn whole(&mut self, key: &str, default: u64) -> u64 {
        let Some(Kind::Whole(low, high)) = rows::by_key(key).map(|row| row.kind) else { return default };
        self.get(key, |text| values::whole(text, low, high)).unwrap_or(default)
    }

    fn time(&mut self, key: &str, default: Duration) -> Duration {
        let Some(Kind::Time(unit)) = rows::by_key(key).map(|row| row.kind) else { return default };
        self.get(key, |text| values::time(text, unit)).unwrap_or(default)
    }

    fn words(&mut self, key: &str) -> Option<Vec<String>> {
        self.get(key, |text| Some(text.split(' ').map(str::to_owned).collect()))
    }

    fn bytes(&mut self, key: &str, default: usize) -> usize {
        usize::try_from(self.whole(key, default as u64)).unwrap_or(default)
    }

    fn settings(&mut self, users: Vec<User>, environment: &dyn Fn(&str) -> Option<String>) -> Settings {
        let standalone = self.path("backstay.standalone");
        let inside = |name: &str, default: &str| match &standalone {
            Some(folder) => folder.join(name),
            None => PathBuf::from(default),
        };
        let (config, maps) = (inside("haproxy.cfg", "/etc/haproxy/haproxy.cfg"), inside("maps", "/etc/haproxy/maps"));
        let (ssl, general) = (inside("ssl", "/etc/haproxy/ssl"), inside("general", "/etc/haproxy/general"));
        let spoe = inside("spoe", "/etc/haproxy/spoe");
        let state = inside("state", "/var/lib/backstay");
        if standalone.is_some() {
            for key in ["haproxy.config_file", MASTER, "haproxy.reload.reload_cmd", "haproxy.reload.reload_strategy"] {
                if let Some(origin) = self.given.get(key).map(|given| given.origin.clone()) {
                    self.wrong(key, &origin, "cannot be set together with standalone");
                }
            }
        }
        let drop_in = self.profile == Profile::DropIn;
        let mut transaction_dir = self.path("dataplaneapi.transaction.transaction_dir");
        if drop_in && transaction_dir.is_none() {
            transaction_dir = Some("/tmp/haproxy".into());
        }
        let state_dir = match (self.path("backstay.state_dir"), &transaction_dir, &standalone) {
            (Some(folder), _, _) => folder,
            (None, Some(folder), None) => folder.clone(),
            (None, _, _) => state,
        };
        let mut reload_delay = self.time(DELAY, Duration::from_secs(5));
        // As in the Data Plane API, 0 is the default.
        if reload_delay.is_zero() {
            reload_delay = Duration::from_secs(5);
        }
        if let Some(text) = environment(DELAY_OVERRIDE) {
            match values::whole(text.trim(), 1, u64::from(u32::MAX)) {
                Some(ms) => reload_delay = Duration::from_millis(ms),
                None => self.problems.push(format!("{DELAY_OVERRIDE}: expected milliseconds, got {text:?}")),
            }
        }
        let master_runtime = self.path(MASTER);
        let (reload_method, status_cmd) = self.reload(standalone.is_some(), master_runtime.as_deref());
        let max_open = self.whole("dataplaneapi.transaction.max_open_transactions", 20);
        let expiry = self.time("backstay.transaction_expiry", Duration::from_hours(24));
        let period = self.time("dataplaneapi.resources.update_map_files_period", Duration::from_secs(10));
        let log = self.log();
        let number = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
        let id = |reading: &mut Self, key: &str| {
            number(reading.get(key, |text| values::whole(text, 0, u64::from(u32::MAX - 1))))
        };
        let (uid, gid) = (id(self, "dataplaneapi.uid"), id(self, "dataplaneapi.gid"));
        let cors = if drop_in { vec!["*".to_owned()] } else { Vec::new() };
        let settings = Settings {
            profile: self.profile,
            yaml_file: None,
            uid,
            gid,
            pid_file: self.path("dataplaneapi.pid_file"),
            show_system_info: self.switch("dataplaneapi.show_system_info", false),
            read_only: self.switch("backstay.read_only", false),
            watch_file: !self.switch("dataplaneapi.disable_inotify", false),
            version_outside: self.switch("backstay.version_outside", false),
            backups_number: u32::try_from(self.whole("dataplaneapi.transaction.backups_number", 0)).unwrap_or(0),
            backups_dir: self.path("dataplaneapi.transaction.backups_dir"),
            log,
            frontend_addr: self
                .get("backstay.frontend_addr", |text| text.parse().ok())
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            listeners: self.listeners(),
            config_file: self.path("haproxy.config_file").unwrap_or(config),
            haproxy_bin: self.path("haproxy.haproxy_bin").unwrap_or_else(|| "haproxy".into()),
            master_runtime,
            stats_socket: self.text("backstay.stats_socket"),
            delayed_start: self.delayed_start(),
            reload_method,
            status_cmd,
            reload_delay,
            reload_timeout: self.time("haproxy.reload.reload_timeout", Duration::from_secs(8)),
            reload_retention: self.time("haproxy.reload.reload_retention", Duration::from_hours(24)),
            validate_cmd: self.text("haproxy.reload.validate_cmd"),
            users,
            userlist: self.text("dataplaneapi.userlist.userlist").unwrap_or_else(|| "controller".to_owned()),
            userlist_file: self.path("dataplaneapi.userlist.userlist_file"),
            maps_dir: self.path("dataplaneapi.resources.maps_dir").unwrap_or(maps),
            ssl_certs_dir: self.path("dataplaneapi.resources.ssl_certs_dir").unwrap_or(ssl),
            general_storage_dir: self.path("dataplaneapi.resources.general_storage_dir").unwrap_or(general),
            spoe_dir: self.path("dataplaneapi.resources.spoe_dir").unwrap_or(spoe),
            spoe_transaction_dir: self
                .path("dataplaneapi.resources.spoe_transaction_dir")
                .unwrap_or_else(|| if drop_in { "/tmp/spoe-haproxy".into() } else { state_dir.join("spoe") }),
            update_map_files: self.switch("dataplaneapi.resources.update_map_files", false),
            durable_writes: self.text("backstay.runtime_persistence").map_or(!drop_in, |word| word == "durable"),
            update_map_files_period: period.max(Duration::from_millis(1)),
            transaction_dir: transaction_dir.unwrap_or_else(|| state_dir.join("transactions")),
            state_dir,
            max_open_transactions: usize::try_from(max_open).ok().filter(|max| *max > 0),
            transaction_expiry: Some(expiry).filter(|expiry| {
                !expiry.is_zero() && (!drop_in || self.given.contains_key("backstay.transaction_expiry"))
            }),
            durability: self.switch("backstay.durability", true),
            haproxy_env: self.given.get("backstay.haproxy_env").map(|g| g.values.clone()).unwrap_or_default(),
            rest_listen_sections: self.switch("backstay.rest_listen_sections", false),
            peer_name: self.text("backstay.peer_name").unwrap_or_else(|| "backstay".to_owned()),
            peer_tls: self.peer_tls(),
            max_body_size: self.bytes("backstay.max_body_size", 64 << 20),
            max_upload_size: self.bytes("backstay.max_upload_size", 1 << 30),
            cors_origins: self.given.get("backstay.cors_origins").map_or(cors, |g| g.values.clone()),
            allowed_hosts: self.given.get("backstay.allowed_hosts").map_or(Vec::new(), |g| g.values.clone()),
            standalone,
        };
        self.check_master_files(&settings, environment);
        if settings.read_only && settings.update_map_files {
            self.problems.push("--update-map-files: cannot be set together with read-only".to_owned());
        }
        settings
    }
}

#[cfg(test)]
mod tests;
