//! Where the log goes, how much of it, and how a line looks.

use std::path::PathBuf;

use super::{Origin, Profile, Reading};

/// One place that gets the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogTarget {
    /// The place.
    pub to: LogTo,
    /// The least important lines that it gets. Default info, called as `dataplaneapi` warning.
    pub level: LogLevel,
    /// JSON instead of `key="value"`.
    pub json: bool,
    /// Whether it gets what the program says of itself.
    pub app: bool,
    /// With it, a line for each request, in the notation of Apache's `LogFormat`.
    pub access: Option<String>,
}

/// A place for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTo {
    /// Standard error, for people.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file; made when absent, opened again on SIGHUP.
    File(PathBuf),
    /// A syslog server.
    Syslog(Syslog),
}

/// A syslog server, and how it is spoken to (RFC 5424).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// `host:port`, or the path of a socket.
    pub address: String,
    /// Default TCP.
    pub protocol: SyslogProtocol,
    /// Name of the program. Default `dataplaneapi`.
    pub tag: String,
    /// Number of the facility. Default local0, which is 16.
    pub facility: u8,
    /// Kind of the messages; `-` for none.
    pub msgid: String,
}

/// How a syslog server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogProtocol {
    /// A line each.
    Tcp,
    /// A datagram each.
    Udp,
    /// A line each, over a unix socket.
    Unix,
    /// A datagram each, over a unix socket.
    UnixDatagram,
}

/// Importance, the most important last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
}

impl LogTarget {
    /// Standard error, for people: what there is before there are settings.
    pub fn stderr() -> Self {
        LogTarget { to: LogTo::Stderr, level: LogLevel::Info, json: false, app: true, access: None }
    }
}

/// A line as Apache's common format has it, with the time in microseconds.
const COMMON: &str = "%h - %u %t \"%r\" %>s %B %{us}T";
/// Where the Data Plane API logs to.
const FILE: &str = "/var/log/dataplaneapi/dataplaneapi.log";
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// A key of one element of `log_targets`, with its line and its values.
pub(super) type LogKey = (String, usize, Vec<String>);

/// The values of a key, and where they were found, for messages.
type Found = (Vec<String>, String);

/// Looks a key up.
type Find<'a> = Box<dyn Fn(&str) -> Option<Found> + 'a>;

/// The words of one target, wherever they come from.
struct Words<'a> {
    find: Find<'a>,
    problems: Vec<String>,
}

impl Words<'_> {
    fn text(&self, key: &str) -> Option<String> {
        (self.find)(key)?.0.last().cloned().filter(|text| !text.is_empty())
    }

    fn word<T>(&mut self, key: &str, expected: &str, default: T, parse: impl Fn(&str) -> Option<T>) -> T {
        let Some((values, place)) = (self.find)(key) else { return default };
        let Some(text) = values.last().filter(|text| !text.is_empty()) else { return default };
        parse(&text.to_ascii_lowercase()).unwrap_or_else(|| {
            self.problems.push(format!("{place}: expected {expected}, got {text:?}"));
            default
        })
    }

    fn level(&mut self, key: &str, default: LogLevel) -> LogLevel {
        self.word(key, "one of trace, debug, info, warning, error", default, |word| {
            Some(match word {
                "trace" => LogLevel::Trace,
                "debug" => LogLevel::Debug,
                "info" | "notice" => LogLevel::Info,
                "warning" | "warn" => LogLevel::Warning,
                "error" | "err" | "fatal" | "panic" | "crit" | "alert" | "emerg" => LogLevel::Error,
                _ => return None,
            })
        })
    }

    fn target(&mut self, profile: Profile, access: &str) -> LogTarget {
        let drop_in = profile == Profile::DropIn;
        let default = if drop_in { "stdout" } else { "stderr" };
        let to = self.word("log_to", "one of stdout, stderr, file, syslog", default, |word| {
            ["stdout", "stderr", "file", "syslog"].into_iter().find(|known| *known == word)
        });
        let mut level = self.level("log_level", if drop_in { LogLevel::Warning } else { LogLevel::Info });
        let json = self.word("log_format", "text or json", false, |word| match word {
            "text" => Some(false),
            "json" => Some(true),
            _ => None,
        });
        let to = match to {
            "stdout" => LogTo::Stdout,
            "stderr" => LogTo::Stderr,
            "file" => LogTo::File(self.text("log_file").unwrap_or_else(|| FILE.to_owned()).into()),
            _ => {
                level = level.max(self.level("syslog_level", LogLevel::Debug));
                LogTo::Syslog(self.syslog())
            }
        };
        let access = self.text(access).unwrap_or_else(|| COMMON.to_owned());
        let Some((types, place)) = (self.find)("log_types") else {
            // Our own program tells of requests only where it is asked to.
            return LogTarget { to, level, json, app: true, access: drop_in.then_some(access) };
        };
        for kind in types.iter().filter(|kind| !["app", "access"].contains(&kind.as_str())) {
            self.problems.push(format!("{place}: expected app or access, got {kind:?}"));
        }
        let has = |word: &str| types.iter().any(|kind| kind == word);
        LogTarget { to, level, json, app: has("app"), access: has("access").then_some(access) }
    }

    fn syslog(&mut self) -> Syslog {
        let address = self.text("syslog_address").unwrap_or_default();
        if address.is_empty() {
            self.problems.push("syslog_address: needed to log to syslog".to_owned());
        }
        Syslog {
            address,
            protocol: self.word("syslog_protocol", "one of tcp, udp, unix, unixgram", SyslogProtocol::Tcp, |word| {
                Some(match word {
                    "tcp" | "tcp4" | "tcp6" => SyslogProtocol::Tcp,
                    "udp" | "udp4" | "udp6" => SyslogProtocol::Udp,
                    "unix" => SyslogProtocol::Unix,
                    "unixgram" => SyslogProtocol::UnixDatagram,
                    _ => return None,
                })
            }),
            tag: self.text("syslog_tag").unwrap_or_else(|| "dataplaneapi".to_owned()),
            facility: self.word("syslog_facility", "a facility such as local0", 16, |word| {
                FACILITIES.iter().position(|known| *known == word).and_then(|at| u8::try_from(at).ok())
            }),
            msgid: self.text("syslog_msgid").unwrap_or_else(|| "-".to_owned()),
        }
    }
}

impl Reading {
    /// The targets of the YAML file; without any, the one of the older settings.
    pub(super) fn log(&mut self) -> Vec<LogTarget> {
        let mut targets = Vec::new();
        for (number, keys) in std::mem::take(&mut self.log_targets).iter().enumerate() {
            let find = |name: &str| {
                let (_, line, values) = keys.iter().find(|(key, ..)| key == name)?;
                Some((values.clone(), format!("{}log_targets[{number}].{name} (line {line})", self.yaml_file)))
            };
            let mut words = Words { find: Box::new(find), problems: Vec::new() };
            targets.push(words.target(self.profile, "acl_format"));
            let faults = words.problems;
            self.problems.extend(faults);
        }
        if !targets.is_empty() {
            return targets;
        }
        let find = |name: &str| {
            let folder = if name.starts_with("syslog_") { "log.syslog" } else { "log" };
            let (key, given) = self.given.get_key_value(&*format!("{folder}.{name}"))?;
            let place = match &given.origin {
                Origin::Yaml(line) => format!("{}{key} (line {line})", self.yaml_file),
                Origin::Env(variable) => variable.clone(),
                Origin::Flag => format!("--{}", name.replace('_', "-")),
            };
            Some((given.values.clone(), place))
        };
        let mut words = Words { find: Box::new(find), problems: Vec::new() };
        let target = words.target(self.profile, "apache_common_log_format");
        let faults = words.problems;
        self.problems.extend(faults);
        vec![target]
    }
}
