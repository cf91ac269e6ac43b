//! The one table of settings: flag, YAML key, kind, default, meaning. Command line, YAML reader and documentation come
//! from it.

pub(super) use super::row::{Kind, Row};
use super::row::{later, row, short, silent};

const SECONDS: Kind = Kind::Time(1000);
const DAYS: Kind = Kind::Time(86_400_000);
const HOURS: Kind = Kind::Time(3_600_000);
/// Up to a tebibyte.
const BYTES: Kind = Kind::Whole(1, 1 << 40);
/// A number of things.
const COUNT: Kind = Kind::Whole(0, 1_000_000);
/// Numbers of users and groups; the highest one means none.
const ID: Kind = Kind::Whole(0, 4_294_967_294);

/// All settings.
pub(super) const ROWS: &[Row] = &[
    row(
        "standalone",
        "backstay.standalone",
        Kind::Path,
        "",
        "folder of the embedded default: runs an haproxy of its own there",
    ),
    row(
        "frontend-addr",
        "backstay.frontend_addr",
        Kind::Address,
        "127.0.0.1:8080",
        "where the frontend of a new embedded default listens",
    ),
    row("host", "dataplaneapi.host", Kind::Text, "127.0.0.1", "address of the API; loopback only unless changed"),
    row("port", "dataplaneapi.port", Kind::Whole(0, 65535), "5555", "port of the API, 0 for a free one"),
    short('c', row("config-file", "haproxy.config_file", Kind::Path, "/etc/haproxy/haproxy.cfg", "the managed file")),
    short(
        'b',
        row("haproxy-bin", "haproxy.haproxy_bin", Kind::Path, "haproxy", "binary that checks the configuration"),
    ),
    short(
        'm',
        row(
            "master-runtime",
            "haproxy.master_runtime",
            Kind::Path,
            "",
            "master socket, for reloads and the state of processes",
        ),
    ),
    row(
        "master-worker-mode",
        "haproxy.master_worker_mode",
        Kind::Switch,
        "false",
        "reload through the master socket even with a reload command",
    ),
    row(
        "stats-socket",
        "backstay.stats_socket",
        Kind::Text,
        "the first one of the global section",
        "stats socket: a path or host:port",
    ),
    short(
        'd',
        row(
            "reload-delay",
            "haproxy.reload.reload_delay",
            SECONDS,
            "5",
            "wait before a reload, in which others join it",
        ),
    ),
    short(
        'r',
        row(
            "reload-cmd",
            "haproxy.reload.reload_cmd",
            Kind::Text,
            "by strategy",
            "reloads haproxy; split at single spaces, no shell",
        ),
    ),
    short(
        's',
        row(
            "restart-cmd",
            "haproxy.reload.restart_cmd",
            Kind::Text,
            "by strategy",
            "restarts haproxy; split at single spaces, no shell",
        ),
    ),
    row("status-cmd", "haproxy.reload.status_cmd", Kind::Text, "by strategy", "exits with 0 when haproxy runs"),
    row("service", "haproxy.reload.service_name", Kind::Text, "by strategy", "unit of systemd or service folder of s6"),
    row(
        "reload-timeout",
        "haproxy.reload.reload_timeout",
        SECONDS,
        "8",
        "how long HAProxy may show nothing of a reload before it counts as pending",
    ),
    row("reload-retention", "haproxy.reload.reload_retention", DAYS, "1", "how long failed reloads are listed"),
    row(
        "reload-strategy",
        "haproxy.reload.reload_strategy",
        Kind::OneOf(&["custom", "systemd", "s6"]),
        "custom",
        "which commands are the default",
    ),
    row(
        "validate-cmd",
        "haproxy.reload.validate_cmd",
        Kind::Text,
        "haproxy -W -c -f FILE",
        "checks the file in DATAPLANEAPI_TRANSACTION_FILE instead; words as in a shell",
    ),
    short(
        'u',
        row(
            "userlist",
            "dataplaneapi.userlist.userlist",
            Kind::Text,
            "controller",
            "userlist of haproxy.cfg whose users may use the API",
        ),
    ),
    row(
        "userlist-file",
        "dataplaneapi.userlist.userlist_file",
        Kind::Path,
        "",
        "file with the userlist, instead of haproxy.cfg",
    ),
    short(
        'p',
        row(
            "maps-dir",
            "dataplaneapi.resources.maps_dir",
            Kind::Path,
            "/etc/haproxy/maps",
            "folder of map files, made when absent",
        ),
    ),
    row(
        "ssl-certs-dir",
        "dataplaneapi.resources.ssl_certs_dir",
        Kind::Path,
        "/etc/haproxy/ssl",
        "folder of certificates with their keys, made when absent",
    ),
    row(
        "general-storage-dir",
        "dataplaneapi.resources.general_storage_dir",
        Kind::Path,
        "/etc/haproxy/general",
        "folder of files for any use, made when absent",
    ),
    row(
        "spoe-dir",
        "dataplaneapi.resources.spoe_dir",
        Kind::Path,
        "/etc/haproxy/spoe",
        "folder of SPOE files, made when absent",
    ),
    row(
        "update-map-files",
        "dataplaneapi.resources.update_map_files",
        Kind::Switch,
        "false",
        "write all runtime changes of maps to their files, not only durable ones",
    ),
    row(
        "update-map-files-period",
        "dataplaneapi.resources.update_map_files_period",
        SECONDS,
        "10",
        "how often changes of maps are written to their files",
    ),
    short(
        't',
        row(
            "transaction-dir",
            "dataplaneapi.transaction.transaction_dir",
            Kind::Path,
            "transactions in the state folder",
            "folder of open transactions; also the state folder unless one is given",
        ),
    ),
    row(
        "max-open-transactions",
        "dataplaneapi.transaction.max_open_transactions",
        Kind::Whole(0, 1_000_000),
        "20",
        "transactions that may be open, 0 for no limit",
    ),
    row(
        "transaction-expiry",
        "backstay.transaction_expiry",
        HOURS,
        "24h",
        "idle transactions end after this, 0 for never",
    ),
    row("state-dir", "backstay.state_dir", Kind::Path, "/var/lib/backstay", "journal, transactions and last good file"),
    row(
        "durability",
        "backstay.durability",
        Kind::Switch,
        "true",
        "every acknowledged change survives a loss of power",
    ),
    row(
        "haproxy-env",
        "backstay.haproxy_env",
        Kind::List,
        "",
        "variables that checks of the configuration find while haproxy cannot tell its own: NAME as here, NAME=VALUE",
    ),
    row(
        "runtime-persistence",
        "backstay.runtime_persistence",
        Kind::OneOf(&["worker", "durable"]),
        "durable, as `dataplaneapi` worker",
        "whether writes at run time stay over reloads when they do not say",
    ),
    row(
        "rest-listen-sections",
        "backstay.rest_listen_sections",
        Kind::Switch,
        "false",
        "REST lists listen sections among frontends and backends",
    ),
    row(
        "peer-name",
        "backstay.peer_name",
        Kind::Text,
        "backstay",
        "name of this program in peers sections; another one for each replica",
    ),
    row(
        "peer-tls-ca",
        "backstay.peer_tls.ca",
        Kind::Path,
        "",
        "PEM file with the authorities of haproxy's certificate in peers sections that are bound with ssl",
    ),
    row(
        "peer-tls-certificate",
        "backstay.peer_tls.certificate",
        Kind::Path,
        "",
        "PEM file with the certificate that is shown there, and those of its authorities",
    ),
    row("peer-tls-key", "backstay.peer_tls.key", Kind::Path, "", "PEM file with its private key"),
    row(
        "peer-tls-name",
        "backstay.peer_tls.name",
        Kind::Text,
        "its address",
        "name that haproxy's certificate there must have; * for any",
    ),
    row(
        "max-body-size",
        "backstay.max_body_size",
        BYTES,
        "67108864",
        "bytes of the largest REST body that is read whole; gRPC messages have at most 16 MiB",
    ),
    row(
        "max-upload-size",
        "backstay.max_upload_size",
        BYTES,
        "1073741824",
        "bytes of the largest file that is taken: over REST while it arrives, over gRPC in pieces",
    ),
    row(
        "cors-origin",
        "backstay.cors_origins",
        Kind::List,
        "",
        "web origins that may call the API; * for all, of which those not listed by name have to ask before a change",
    ),
    row(
        "allowed-host",
        "backstay.allowed_hosts",
        Kind::List,
        "",
        "names beside those of loopback by which browsers may call an API that listens on loopback, * for any",
    ),
    row(
        "scheme",
        "dataplaneapi.scheme",
        Kind::List,
        "http",
        "listeners of the API: http, https, unix; may be given several times",
    ),
    row(
        "socket-path",
        "dataplaneapi.socket_path",
        Kind::Path,
        "/var/run/data-plane.sock",
        "unix socket of the API, with the scheme unix",
    ),
    row(
        "listen-limit",
        "dataplaneapi.listen_limit",
        COUNT,
        "1024",
        "connections at the same time, 0 for no limit; for one more the oldest that never logged in is closed",
    ),
    row(
        "keep-alive",
        "dataplaneapi.keep_alive",
        SECONDS,
        "3m",
        "how often silent connections are probed, 0 for one request per connection",
    ),
    row(
        "read-timeout",
        "dataplaneapi.read_timeout",
        SECONDS,
        "30s",
        "time for the head of a request and for a body that trickles, 0 for no limit",
    ),
    row(
        "write-timeout",
        "dataplaneapi.write_timeout",
        SECONDS,
        "30s",
        "how long a client may leave an answer untouched, 0 for no limit",
    ),
    row(
        "cleanup-timeout",
        "dataplaneapi.cleanup_timeout",
        SECONDS,
        "60s",
        "connections without a request are closed after this, 0 for never",
    ),
    row(
        "graceful-timeout",
        "dataplaneapi.graceful_timeout",
        SECONDS,
        "15s",
        "time that open requests have to end at the stop",
    ),
    row(
        "max-header-size",
        "dataplaneapi.max_header_size",
        Kind::Size,
        "1MiB",
        "bytes that the head of a request may have, at least 8KiB",
    ),
    row("tls-host", "dataplaneapi.tls.tls_host", Kind::Text, "as host", "address of the API with the scheme https"),
    row("tls-port", "dataplaneapi.tls.tls_port", Kind::Whole(0, 65535), "5556", "its port, 0 for a free one"),
    row(
        "tls-certificate",
        "dataplaneapi.tls.tls_certificate",
        Kind::Path,
        "",
        "PEM file with the certificate of the API and those above it; read again on SIGHUP",
    ),
    row("tls-key", "dataplaneapi.tls.tls_key", Kind::Path, "", "PEM file with its private key"),
    row(
        "tls-ca",
        "dataplaneapi.tls.tls_ca",
        Kind::Path,
        "",
        "PEM file with authorities of client certificates: with it a client has to show one, and needs no password",
    ),
    row("tls-listen-limit", "dataplaneapi.tls.tls_listen_limit", COUNT, "as listen-limit", "the same for https"),
    row("tls-keep-alive", "dataplaneapi.tls.tls_keep_alive", SECONDS, "as keep-alive", "the same for https"),
    row("tls-read-timeout", "dataplaneapi.tls.tls_read_timeout", SECONDS, "as read-timeout", "the same for https"),
    row("tls-write-timeout", "dataplaneapi.tls.tls_write_timeout", SECONDS, "as write-timeout", "the same for https"),
    row("uid", "dataplaneapi.uid", ID, "", "user to run as, by number, once the port is bound"),
    row("gid", "dataplaneapi.gid", ID, "", "group to run as, by number, once the port is bound"),
    row("pid-file", "dataplaneapi.pid_file", Kind::Path, "", "file with the id of the process"),
    short(
        'i',
        row(
            "show-system-info",
            "dataplaneapi.show_system_info",
            Kind::Switch,
            "false",
            "tell of the machine in the info of the API",
        ),
    ),
    row(
        "read-only",
        "backstay.read_only",
        Kind::Switch,
        "false",
        "refuse every change of the managed file and of stored files; a running haproxy can still be changed",
    ),
    row(
        "version-outside",
        "backstay.version_outside",
        Kind::Switch,
        "false",
        "keep the version in the state folder, not in the managed file",
    ),
    row(
        "disable-inotify",
        "dataplaneapi.disable_inotify",
        Kind::Switch,
        "false",
        "look for changes that others make to the managed file only on SIGUSR2, and before each write",
    ),
    later("debug-socket-path", "dataplaneapi.debug_socket_path"),
    later("api-address", "dataplaneapi.advertised.api_address"),
    later("api-port", "dataplaneapi.advertised.api_port"),
    short(
        'n',
        row(
            "backups-number",
            "dataplaneapi.transaction.backups_number",
            Kind::Whole(0, 100_000),
            "0",
            "earlier files that are kept, each with its version behind the name",
        ),
    ),
    row(
        "backups-dir",
        "dataplaneapi.transaction.backups_dir",
        Kind::Path,
        "beside the managed file",
        "folder of earlier files",
    ),
    row(
        "spoe-transaction-dir",
        "dataplaneapi.resources.spoe_transaction_dir",
        Kind::Path,
        "spoe in state-dir",
        "folder of open transactions of SPOE files, made when absent",
    ),
    later("fid", "haproxy.fid"),
    row(
        "delayed-start-max",
        "haproxy.delayed_start_max",
        SECONDS,
        "0",
        "how long the start waits for haproxy to run; calls find it anyway once it does",
    ),
    row("delayed-start-tick", "haproxy.delayed_start_tick", SECONDS, "500ms", "time between two looks meanwhile"),
    later("cluster-tls-dir", "cluster.cluster_tls_dir"),
    row(
        "log-to",
        "log.log_to",
        Kind::OneOf(&["stdout", "stderr", "file", "syslog"]),
        "stderr",
        "where the log goes, unless log_targets says it",
    ),
    row(
        "log-file",
        "log.log_file",
        Kind::Path,
        "/var/log/dataplaneapi/dataplaneapi.log",
        "file of the log, when it goes to one; opened again on SIGHUP",
    ),
    row(
        "log-level",
        "log.log_level",
        Kind::OneOf(&["trace", "debug", "info", "warning", "error"]),
        "info",
        "the least important lines",
    ),
    row("log-format", "log.log_format", Kind::OneOf(&["text", "json"]), "text", "how a line looks"),
    row(
        "apache-common-log-format",
        "log.apache_common_log_format",
        Kind::Text,
        "%h - %u %t \"%r\" %>s %B %{us}T",
        "line for each request, in the notation of Apache's LogFormat",
    ),
    row("syslog-address", "log.syslog.syslog_address", Kind::Text, "", "host:port or socket of the syslog server"),
    row(
        "syslog-protocol",
        "log.syslog.syslog_protocol",
        Kind::OneOf(&["tcp", "udp", "unix", "unixgram"]),
        "tcp",
        "how it is reached",
    ),
    row("syslog-tag", "log.syslog.syslog_tag", Kind::Text, "dataplaneapi", "name of the program there"),
    row("syslog-level", "log.syslog.syslog_level", Kind::Text, "debug", "the least important lines there"),
    row("syslog-facility", "log.syslog.syslog_facility", Kind::Text, "local0", "facility there"),
    row(
        "",
        LOG_TARGETS,
        Kind::Any,
        "",
        "list of places for the log, each with log_to, log_level and so on, and with log_types app and access",
    ),
    silent("config_version"),
    silent("name"),
    silent("mode"),
    silent("status"),
    later("", "bootstrap_key"),
    later("", "cluster.url"),
    later("", "cluster.port"),
    later("", "cluster.api_base_path"),
    later("", "cluster.api_nodes_path"),
    later("", "cluster.api_register_path"),
    later("", "cluster.token"),
    later("", "cluster.id"),
    later("", "cluster.bootstrap_key"),
    later("", "cluster.active_bootstrap_key"),
    later("", "cluster.storage_dir"),
    later("", "cluster.cert_path"),
    later("", "cluster.cert_fetched"),
    later("", "cluster.name"),
    later("", "cluster.description"),
    later("", "cluster.cluster_id"),
    later("", "cluster.cluster_log_targets"),
    row("", "service_discovery.consuls", Kind::Any, "", "Consul agents that are searched; the API keeps the list"),
    row("", "service_discovery.aws_regions", Kind::Any, "", "AWS regions that are searched; the API keeps the list"),
];

/// The users of the YAML file have no flag: passwords do not belong on a command line.
pub(super) const USER_KEY: &str = "dataplaneapi.user";

/// Keys of one user.
pub(super) const USER_KEYS: &[&str] = &["name", "insecure", "password"];

/// Several places for the log.
pub(super) const LOG_TARGETS: &str = "log_targets";

/// Keys of one element of `log_targets`.
pub(super) const LOG_TARGET_KEYS: &[&str] = &[
    "log_to",
    "log_file",
    "log_level",
    "log_format",
    "acl_format",
    "syslog_address",
    "syslog_protocol",
    "syslog_tag",
    "syslog_level",
    "syslog_facility",
    "syslog_msgid",
    "log_types",
];

/// The row of a YAML key.
pub(super) fn by_key(key: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_letters_and_keys_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for row in ROWS {
            assert!(seen.insert(row.key.to_owned()), "{}", row.key);
            assert!(row.flag.is_empty() || seen.insert(format!("--{}", row.flag)), "{}", row.flag);
            assert!(row.short.is_none_or(|c| c != 'f' && c != 'h' && seen.insert(format!("-{c}"))), "{}", row.flag);
        }
    }
}
