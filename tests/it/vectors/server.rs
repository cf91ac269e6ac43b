//! The server that records are replayed against, on files of its own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::haproxy::{eventually, free_port};

/// HAProxy that accepts everything, as when the records were made.
const STUB: &str = "#!/bin/sh\ncase \"$1\" in -v|-vv) echo 'HAProxy version 2.9.0-stub 2023/12/05';; esac\nexit 0\n";

/// A connection that rested for so long is not used again: the server closes it after ten seconds.
const IDLE: Duration = Duration::from_secs(3);

/// What the credentials of the records say: `admin:pw`.
pub(super) const CREDENTIALS: &str = "Basic YWRtaW46cHc=";

/// An answer.
pub(super) struct Reply {
    pub(super) status: u16,
    /// JSON, or the text as a string.
    pub(super) body: Value,
    /// `WWW-Authenticate`.
    pub(super) challenge: String,
}

pub(super) struct Server {
    dir: TempDir,
    port: u16,
    child: Child,
    connection: Option<BufReader<TcpStream>>,
    /// When the connection was used last.
    used: Instant,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    pub(super) fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("haproxy.cfg"), "# _version=1\n\nglobal\n  daemon\n").unwrap();
        std::fs::write(at("users.cfg"), "userlist controller\n  user admin insecure-password pw\n").unwrap();
        std::fs::write(at("haproxy"), STUB).unwrap();
        std::fs::set_permissions(at("haproxy"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        let d = dir.path().display();
        let yaml = format!(
            "dataplaneapi:\n  host: 127.0.0.1\n  port: {port}\n  scheme: [http]\n  userlist:\n    userlist_file: {d}/users.cfg\n  \
             resources:\n    maps_dir: {d}/maps\n    ssl_certs_dir: {d}/ssl\n    general_storage_dir: {d}/general\n    \
             spoe_dir: {d}/spoe\n    spoe_transaction_dir: {d}/spoe-transactions\n  transaction:\n    \
             transaction_dir: {d}/transactions\nhaproxy:\n  config_file: {d}/haproxy.cfg\n  haproxy_bin: {d}/haproxy\n  \
             reload:\n    reload_delay: 3600\n    reload_cmd: \"true\"\n    restart_cmd: \"true\"\n    status_cmd: \"true\"\n    \
             reload_strategy: custom\n"
        );
        std::fs::write(at("backstay.yaml"), yaml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_backstay"))
            .args(["serve", "-f"])
            .arg(at("backstay.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Server { dir, port, child, connection: None, used: Instant::now() };
        eventually("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// The configuration as it stands on disk.
    pub(super) fn file(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("haproxy.cfg")).unwrap()
    }

    /// The SPOE file of the records.
    pub(super) fn spoe_file(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("spoe/f.cfg")).unwrap_or_default()
    }

    /// Makes a text the configuration, as version 1.
    pub(super) fn load(&mut self, text: &str) -> Reply {
        let query = json!({"skip_version": "true", "skip_reload": "true"});
        let text = format!("# _version=1\n\n{text}");
        self.send("POST", "/services/haproxy/configuration/raw", &query, "text/plain", text.as_bytes())
    }

    /// Makes a text the SPOE file of the records.
    pub(super) fn load_spoe(&mut self, text: &str) -> u16 {
        let files = "/services/haproxy/spoe/spoe_files";
        self.send("DELETE", &format!("{files}/f.cfg"), &Value::Null, "application/json", b"");
        let form = format!(
            "--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"f.cfg\"\r\n\
             content-type: application/octet-stream\r\n\r\n{text}\r\n--B--\r\n"
        );
        self.send("POST", files, &Value::Null, "multipart/form-data; boundary=B", form.as_bytes()).status
    }

    pub(super) fn get(&mut self, path: &str, query: &Value) -> Reply {
        self.send("GET", path, query, "application/json", b"")
    }

    pub(super) fn send(&mut self, method: &str, path: &str, query: &Value, content_type: &str, body: &[u8]) -> Reply {
        let headers = format!("authorization: {CREDENTIALS}\r\ncontent-type: {content_type}\r\n");
        self.send_with(method, path, query, &headers, body)
    }

    pub(super) fn send_with(&mut self, method: &str, path: &str, query: &Value, headers: &str, body: &[u8]) -> Reply {
        let mut target = format!("/v2{path}");
        for (number, (name, value)) in query.as_object().into_iter().flatten().enumerate() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let mark = if number == 0 { '?' } else { '&' };
            write!(target, "{mark}{name}={}", escaped(&value)).unwrap();
        }
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n");
        let port = self.port;
        if self.used.elapsed() > IDLE {
            self.connection = None;
        }
        let connection =
            self.connection.get_or_insert_with(|| BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap()));
        connection.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        let (mut length, mut challenge) = (0, String::new());
        loop {
            line.clear();
            connection.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some((name, value)) if name.eq_ignore_ascii_case("www-authenticate") => {
                    value.clone_into(&mut challenge);
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer).unwrap();
        let text = || match &*String::from_utf8_lossy(&answer) {
            "" => Value::Null,
            text => Value::String(text.to_owned()),
        };
        self.used = Instant::now();
        Reply { status, body: serde_json::from_slice(&answer).unwrap_or_else(|_| text()), challenge }
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap();
        }
        out
    })
}
