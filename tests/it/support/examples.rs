//! Builds and runs the client examples of `tests/clients`, and follows what they tell of watches.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::serve::serve;

/// What clients told of each table, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<BTreeMap<String, Vec<Json>>>>);

impl Told {
    fn note(&self, table: &str, event: Json) {
        self.0.lock().unwrap().entry(table.to_owned()).or_default().push(event);
    }

    pub(crate) fn of(&self, table: &str) -> Vec<Json> {
        self.0.lock().unwrap().get(table).cloned().unwrap_or_default()
    }

    /// The entries of a table after all events, by key.
    pub(crate) fn entries(&self, table: &str) -> BTreeMap<String, Json> {
        let mut known = BTreeMap::new();
        let mut whole = true;
        for event in self.of(table) {
            whole |= !event["resync"].is_null();
            if !event["snapshot"].is_null() && whole {
                known.clear();
            }
            if let Some(last) = event.get("snapshot").map(|snapshot| snapshot["last"] == true) {
                whole = last;
            }
            for list in [&event["snapshot"]["entries"], &event["changed"]["entries"]] {
                for entry in list.as_array().into_iter().flatten() {
                    known.insert(entry["key"].as_str().expect("a key").to_owned(), entry.clone());
                }
            }
            for entry in event["removed"]["entries"].as_array().into_iter().flatten() {
                known.remove(entry["key"].as_str().expect("a key"));
            }
        }
        known
    }
}

/// A client as a process of its own, with all that it starts; ends with the test.
pub(crate) struct Running {
    child: Child,
    _folder: Option<TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        drop(self.child.wait());
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `deploy/tools.sh clients` brings.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("BACKSTAY_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from)
}

/// A command with the tools in its path.
fn command(program: &str, folder: &Path) -> Command {
    let cache = cache();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{0}/bin:{0}/web/node_modules/.bin:{path}", cache.display());
    let found = path.split(':').map(|dir| Path::new(dir).join(program)).find(|file| file.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| panic!("no {program}: run `deploy/tools.sh clients`")));
    command.current_dir(folder).env("PATH", path).stdin(Stdio::null());
    command.env("GOMODCACHE", cache.join("go/mod")).env("GOCACHE", cache.join("go/build"));
    command.env("GOFLAGS", "-modcacherw -buildvcs=false");
    command
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let output = command(program, folder).args(arguments).output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}

/// Builds an example in a folder of its own, in which code is generated. What was built of the same files is kept.
fn built(example: &str, build: impl FnOnce(&Path)) -> PathBuf {
    let from = root().join("tests/clients").join(example);
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(example);
    let sources: Vec<PathBuf> = files(&from, 0).collect();
    let mut hash = DefaultHasher::new();
    for file in files(&root().join("proto"), usize::MAX).chain(sources.iter().cloned()) {
        (&file, std::fs::read(&file).unwrap()).hash(&mut hash);
    }
    let hash = hash.finish().to_string();
    if std::fs::read_to_string(to.join("built")).is_ok_and(|built| built == hash) {
        return to;
    }
    drop(std::fs::remove_dir_all(&to));
    std::fs::create_dir_all(&to).unwrap();
    run("buf", &["generate", "-o", to.to_str().unwrap()], &from);
    for file in sources {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
    build(&to);
    std::fs::write(to.join("built"), hash).unwrap();
    to
}

/// The files of a folder and of so many levels below it, in order.
fn files(folder: &Path, levels: usize) -> Box<dyn Iterator<Item = PathBuf>> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    Box::new(found.into_iter().flat_map(move |path| match levels.checked_sub(1) {
        Some(levels) if path.is_dir() => files(&path, levels),
        _ => Box::new(Some(path).into_iter().filter(|path| path.is_file())),
    }))
}

/// Builds the Go client, and all code that is generated for Go.
pub(crate) fn go_client() -> PathBuf {
    let folder = built("go", |folder| {
        run("go", &["build", "./..."], folder);
        run("go", &["build", "-o", "gen/watch", "."], folder);
    });
    folder.join("gen/watch")
}

/// The Go client on a table.
pub(crate) fn go_command(client: &Path, api: SocketAddr, password: &str, table: &str) -> Command {
    let mut command = Command::new(client);
    command.args(["-api", &api.to_string(), "-table", table]).env("BACKSTAY_PASSWORD", password);
    command.stdin(Stdio::null());
    command
}

/// Starts a client that prints events, and notes them.
pub(crate) fn follow(mut command: Command, table: &str, told: &Told) -> Running {
    let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let (table, told) = (table.to_owned(), told.clone());
    std::thread::spawn(move || {
        for line in lines {
            told.note(&table, serde_json::from_str(&line.expect("text")).expect("a line of JSON"));
        }
    });
    Running { child, _folder: None }
}

/// Builds the page, and checks all code that is generated for TypeScript.
fn page() -> PathBuf {
    built("web", |folder| {
        std::os::unix::fs::symlink(cache().join("web/node_modules"), folder.join("node_modules")).unwrap();
        run("npm", &["run", "check"], folder);
        run("npm", &["run", "build"], folder);
    })
}

/// The server of the page.
pub(crate) struct Pages {
    listener: TcpListener,
    /// The origin of what it serves.
    pub(crate) origin: String,
}

impl Pages {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        Pages { listener, origin }
    }

    /// Opens the page in a browser, and notes what it tells.
    pub(crate) fn open(self, api: SocketAddr, password: &str, tables: &[&str], told: &Told) -> Running {
        let folder = page();
        let settings = json!({"api": format!("http://{api}"), "user": "admin", "password": password, "tables": tables});
        let told = told.clone();
        tokio::spawn(serve(self.listener, move |request| {
            answer(request, folder.clone(), settings.to_string(), told.clone())
        }));
        let home = tempfile::tempdir().expect("a folder");
        let mut browser = command("chromium", home.path());
        // All but the page's own traffic is off.
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        browser.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        browser.args(["--disable-dev-shm-usage", "--user-data-dir=."]).arg(format!("{}/", self.origin));
        let log = std::fs::File::create(home.path().join("log")).expect("a log");
        browser.env("HOME", home.path()).process_group(0).stdout(Stdio::null()).stderr(log);
        Running { child: browser.spawn().expect("it starts"), _folder: Some(home) }
    }
}

async fn answer(request: Request<Incoming>, folder: PathBuf, settings: String, told: Told) -> Response<Full<Bytes>> {
    let table = request.uri().query().unwrap_or_default().to_owned();
    let (kind, body) = match request.uri().path() {
        "/events" => {
            let event = request.into_body().collect().await.expect("a body").to_bytes();
            told.note(&table, serde_json::from_slice(&event).expect("JSON"));
            ("text/plain", Vec::new())
        }
        "/settings.json" => ("application/json", settings.into_bytes()),
        "/" => ("text/html", std::fs::read(folder.join("index.html")).expect("a page")),
        "/gen/watch.js" => ("text/javascript", std::fs::read(folder.join("gen/watch.js")).expect("a script")),
        _ => {
            let mut missing = Response::new(Full::default());
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        }
    };
    Response::builder().header("content-type", kind).body(Full::from(body)).expect("an answer")
}
