//! The folder of the embedded default: a small working configuration, a map, a password, and the paths of all files.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::error::{Error, Reason, Result};

/// Name of the userlist that the configuration has.
pub const USERLIST: &str = "controller";

/// Name of its only user.
pub const USER: &str = "admin";

/// Length of the password that is made, in characters out of 62: 142 bits.
const PASSWORD_LENGTH: usize = 24;

/// The files of the embedded default; all paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standalone {
    /// The folder itself.
    pub folder: PathBuf,
    /// `haproxy.cfg`, mode 0640.
    pub config_file: PathBuf,
    /// `master.sock`.
    pub master_socket: PathBuf,
    /// `stats.sock`.
    pub stats_socket: PathBuf,
    /// `haproxy.pid`.
    pub pid_file: PathBuf,
    /// `maps`, with `paths.map` in it.
    pub maps_dir: PathBuf,
    /// `state`: journal, transactions, last good file.
    pub state_dir: PathBuf,
    /// `password` of the user `admin`, mode 0600.
    pub password_file: PathBuf,
    /// Whether the configuration was written now.
    pub created: bool,
}

impl Standalone {
    /// Makes the folder and what is missing in it. A configuration that is there stays as it is.
    ///
    /// `frontend` is where the frontend of a new configuration listens.
    pub fn prepare(folder: &Path, frontend: SocketAddr) -> Result<Standalone> {
        // Before it is made, and again when links in it are known.
        plain(&std::path::absolute(folder).map_err(|e| cannot("use", folder, &e))?)?;
        private_folder(folder)?;
        let folder = folder.canonicalize().map_err(|e| cannot("read", folder, &e))?;
        plain(&folder)?;
        let mut made = Standalone {
            config_file: folder.join("haproxy.cfg"),
            master_socket: folder.join("master.sock"),
            stats_socket: folder.join("stats.sock"),
            pid_file: folder.join("haproxy.pid"),
            maps_dir: folder.join("maps"),
            state_dir: folder.join("state"),
            password_file: folder.join("password"),
            created: false,
            folder,
        };
        private_folder(&made.maps_dir)?;
        private_folder(&made.state_dir)?;
        if made.config_file.try_exists().map_err(|e| cannot("read", &made.config_file, &e))? {
            return Ok(made);
        }
        let password: String = rand::rng().sample_iter(Alphanumeric).take(PASSWORD_LENGTH).map(char::from).collect();
        let hash = pwhash::sha512_crypt::hash(&password).map_err(Error::internal)?;
        let map = made.maps_dir.join("paths.map");
        if !map.try_exists().map_err(|e| cannot("read", &map, &e))? {
            write(&map, 0o640, MAP)?;
        }
        // A password left by an earlier configuration is no longer the right one.
        match std::fs::remove_file(&made.password_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(cannot("write", &made.password_file, &error));
            }
            _ => {}
        }
        write(&made.password_file, 0o600, &format!("{password}\n"))?;
        // Last, and in one step: a configuration that is there is complete.
        let part = made.folder.join("haproxy.cfg.new");
        match std::fs::remove_file(&part) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot("write", &part, &error)),
            _ => {}
        }
        write(&part, 0o640, &made.configuration(frontend, &hash))?;
        std::fs::rename(&part, &made.config_file).map_err(|e| cannot("write", &made.config_file, &e))?;
        made.created = true;
        Ok(made)
    }

    /// The password of the user `admin`; `None` when the file is gone, as the user may have set another.
    pub fn password(&self) -> Option<String> {
        std::fs::read_to_string(&self.password_file).ok().map(|text| text.trim_end().to_owned())
    }

    fn configuration(&self, frontend: SocketAddr, hash: &str) -> String {
        let stats = self.stats_socket.display();
        let map = self.maps_dir.join("paths.map");
        let map = map.display();
        format!(
            "# The first configuration of backstay. Change it through the API or here.

global
    stats socket {stats} mode 600 level admin
    stats timeout 2m
    hard-stop-after 30s

defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
    timeout http-keep-alive 10s

# Who may use the API.
userlist {USERLIST}
    user {USER} password {hash}

# The map names the backend for the beginning of a path; an entry that is added works at once.
frontend main
    bind {frontend}
    http-request track-sc0 src table clients
    use_backend %[path,map_beg({map},hello)]
    default_backend hello

backend hello
    http-request return status 200 content-type text/plain string \"Hello from haproxy, managed by backstay.\"

backend status
    http-request return status 200 content-type text/plain string \"The map of paths sent this request here.\"

# Counts the requests of each client.
backend clients
    stick-table type ip size 100k expire 10m store http_req_cnt,http_req_rate(10s),conn_cnt,gpc0
"
        )
    }
}

/// The path stands inside an expression of haproxy.cfg, where blanks, commas and brackets cannot be quoted.
fn plain(folder: &Path) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@~".contains(c);
    if folder.to_str().is_some_and(|shown| !shown.is_empty() && shown.chars().all(plain)) {
        return Ok(());
    }
    let message = format!("the path {} may only hold letters, digits and /._-+@~", folder.display());
    Err(Error::new(Reason::InvalidValue, message))
}

const MAP: &str = "/hello hello\n/status status\n";

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Reason::Internal, format!("cannot {what} {}: {error}", path.display()))
}

fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| cannot("make", path, &e))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|e| cannot("write", path, &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::live;
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_is_made_once_and_holds_a_password_that_opens_it() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("a/b");
        let address = "127.0.0.1:8080".parse().unwrap();
        let made = Standalone::prepare(&folder, address).unwrap();
        assert!(made.created && made.config_file.is_absolute());
        assert_eq!((mode(&made.config_file), mode(&made.password_file), mode(&made.folder)), (0o640, 0o600, 0o700));
        let text = std::fs::read_to_string(&made.config_file).unwrap();
        let hash = text.split_once("user admin password ").unwrap().1.lines().next().unwrap();
        assert!(hash.starts_with("$6$") && hash.split('$').count() == 4, "{hash}");
        let password = made.password().unwrap();
        assert!(pwhash::unix::verify(&password, hash) && !text.contains(&password));

        std::fs::write(&made.config_file, "# mine\n").unwrap();
        let again = Standalone::prepare(&folder, address).unwrap();
        assert!(!again.created);
        assert_eq!(again.password(), Some(password));
        assert_eq!(std::fs::read_to_string(&made.config_file).unwrap(), "# mine\n");
    }

    #[test]
    fn a_path_that_cannot_stand_in_the_configuration_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let error = Standalone::prepare(&base.path().join("a b"), "127.0.0.1:1".parse().unwrap()).unwrap_err();
        assert!(error.message().contains("may only hold"), "{error}");
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0, "nothing is made");
    }

    #[test]
    fn haproxy_accepts_the_configuration_without_a_word() {
        let base = tempfile::tempdir().unwrap();
        let made = Standalone::prepare(base.path(), "127.0.0.1:8080".parse().unwrap()).unwrap();
        let done = std::process::Command::new(live::haproxy())
            .args(["-W", "-c", "-f"])
            .arg(&made.config_file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.trim().is_empty(), "{said}");
    }
}
