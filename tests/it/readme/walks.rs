//! Every block of README.md is run as it stands there; only ports and folders are others.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::blocks::{Step, blocks, fits, section, settled, steps};
use super::shell::Shell;
use crate::support::examples::{cache, root};
use crate::support::haproxy::{binary, free_port};

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstay");

/// Waits until it holds, on a busy machine as well.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A copy of what README.md names, in which commands are run, and other ports than README.md says.
struct Place {
    dir: TempDir,
    /// What README.md says, and what the test has instead.
    instead: Vec<(String, String)>,
    programs: Vec<Child>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rd").tempdir().expect("a folder");
        let mut place = Place { dir, instead: Vec::new(), programs: Vec::new() };
        for port in [5555, 8080, 8000] {
            place.instead.push((format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port())));
        }
        for (from, to) in [
            (PathBuf::from(PROGRAM), "target/release/backstay"),
            (cache(), ".cache"),
            (root().join("proto"), "proto"),
            (root().join("buf.yaml"), "buf.yaml"),
        ] {
            std::fs::create_dir_all(place.path(to).parent().expect("a folder")).expect("a folder");
            symlink(from, place.path(to)).expect("a link");
        }
        for example in ["tests/clients/go", "tests/clients/web"] {
            std::fs::create_dir_all(place.path(example)).expect("a folder");
            let files = std::fs::read_dir(root().join(example)).expect("an example").flatten();
            for file in files.filter(|file| file.path().is_file()) {
                std::fs::copy(file.path(), place.path(example).join(file.file_name())).expect("a copy");
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A text of README.md with the ports of this test.
    fn filled(&self, text: &str) -> String {
        self.instead.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    fn address(&self, of: &str) -> &str {
        &self.instead.iter().find(|(from, _)| from == of).expect("an address of README.md").1
    }

    /// Starts what `make run` starts, and waits until the API and HAProxy answer.
    fn make_run(&mut self) {
        let makefile = std::fs::read_to_string(root().join("Makefile")).expect("Makefile");
        let (_, target) = makefile.split_once("\nrun:\n").expect("the target of `make run`");
        let line = target.lines().take_while(|line| line.starts_with('\t')).last().expect("its last line").trim();
        let (frontend, port) = (self.address("127.0.0.1:8080"), self.port());
        let binary = binary().into_string().expect("a path");
        self.start(&format!(
            "exec {line} --port {port} --frontend-addr {frontend} --haproxy-bin {binary} --reload-delay 10m"
        ));
        let ready = || std::net::TcpStream::connect(self.address("127.0.0.1:8080")).is_ok();
        eventually("haproxy serves", ready);
    }

    fn port(&self) -> &str {
        self.address("127.0.0.1:5555").rsplit(':').next().expect("a port")
    }

    /// Starts a program that goes on, and waits until the API answers.
    fn start(&mut self, line: &str) {
        let log = std::fs::File::create(self.path("log")).expect("a log");
        let mut command = Command::new("bash");
        command.arg("-c").arg(line).current_dir(self.dir.path()).env("PATH", self.search());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.programs.push(command.spawn().expect("a program"));
        let api = self.address("127.0.0.1:5555").to_owned();
        let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
        eventually("it serves", || std::net::TcpStream::connect(&api).is_ok() || log().contains("ERROR"));
        assert!(std::net::TcpStream::connect(&api).is_ok(), "{line}:\n{}", log());
    }

    /// Where programs are found: tools in the cache, and backstay as if it were installed.
    fn search(&self) -> String {
        let here = self.dir.path().display();
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{here}/target/release:{here}/.cache/bin:{here}/.cache/web/node_modules/.bin:{path}")
    }

    fn shell(&self) -> Shell {
        let cache = cache();
        let variables = [
            ("PATH", self.search()),
            ("GOMODCACHE", cache.join("go/mod").display().to_string()),
            ("GOCACHE", cache.join("go/build").display().to_string()),
            ("GOFLAGS", "-modcacherw -buildvcs=false".to_owned()),
        ];
        let mut shell = Shell::start(self.dir.path(), &variables);
        // Packages of npm are those that were fetched before.
        shell.run(&format!(
            "npm() {{ if [ \"$1\" = ci ]; then ln -sfn {}/web/node_modules node_modules; else command npm \"$@\"; fi; }}",
            cache.display()
        ));
        shell
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for mut program in self.programs.drain(..) {
            let _gone = rustix::process::kill_process(
                rustix::process::Pid::from_child(&program),
                rustix::process::Signal::TERM,
            );
            drop(program.wait());
        }
    }
}

/// Runs steps, and says which of them print something else than README.md says.
struct Walk<'a> {
    place: &'a Place,
    shell: Shell,
    /// Ids that README.md shows, and those that there are instead.
    ids: Vec<(String, String)>,
    faults: String,
}

impl<'a> Walk<'a> {
    fn new(place: &'a Place) -> Self {
        Walk { place, shell: place.shell(), ids: Vec::new(), faults: String::new() }
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let command = self.ids.iter().fold(self.place.filled(&step.command), |text, (from, to)| text.replace(from, to));
        let output = if command.contains("/WatchStickTable") {
            let hello = format!("http://{}/hello", self.place.address("127.0.0.1:8080"));
            let messages = |text: &str| text.lines().filter(|line| *line == "}").count();
            let mut visited = false;
            self.shell.follow(
                &command,
                |text| messages(text) == 2,
                |text| {
                    if messages(text) == 1 && !visited {
                        visited = Command::new("curl").args(["-s", &hello]).output().expect("curl").status.success();
                    }
                },
            )
        } else if command.contains("backstay watch") {
            let server = self.place.address("127.0.0.1:5555");
            let view = format!("stty rows 24 cols 100; {command} --server http://{server}");
            let shown = self.shell.follow(
                &format!("script -qefc '{view}' /dev/null"),
                |text| settled(text).lines().any(|line| line == "ROW"),
                |_| {},
            );
            // Views follow each other; the first one with an entry is meant.
            let shown = settled(&shown);
            let until: Vec<_> = shown.lines().take_while(|line| *line != "ROW").chain(["ROW"]).collect();
            until[until.len().saturating_sub(step.output.lines().count())..].join("\n")
        } else if command.contains("http.server") {
            let port = self.place.address("127.0.0.1:8000").rsplit(':').next().expect("a port");
            self.shell.run(&format!("{} >/dev/null 2>&1 &", command.replace("8000", port)));
            String::new()
        } else if command.contains("go run . ") {
            let api = self.place.address("127.0.0.1:5555");
            self.shell.run(&command.replace("go run . ", &format!("go run . -api {api} ")))
        } else {
            self.shell.run(&command)
        };
        self.learn(&step.output, &output);
        // Where README.md shows nothing, the command has to succeed, whatever it says.
        let fits = if step.output.is_empty() { self.shell.succeeded } else { fits(&step.output, &output) };
        if !fits {
            let (wanted, output) = (settled(&step.output), settled(&output));
            write!(self.faults, "\n$ {command}\n{output}\n-- README.md says\n{wanted}\n").expect("text");
        }
    }

    /// An id of README.md stands for the one that is answered at its place.
    fn learn(&mut self, wanted: &str, given: &str) {
        let id = regex::Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").expect("a pattern");
        if let (Some(wanted), Some(given)) = (id.find(wanted), id.find(given)) {
            self.ids.push((wanted.as_str().to_owned(), given.as_str().to_owned()));
        }
    }

    fn end(self) {
        assert!(self.faults.is_empty(), "{}", self.faults);
    }
}

/// The variables and functions that all later blocks use.
fn preface() -> Vec<Step> {
    let steps = steps(&section("The first ten minutes"));
    steps.into_iter().take_while(|step| !step.command.starts_with("curl")).collect()
}

#[test]
fn the_first_ten_minutes_are_as_shown() {
    let mut place = Place::new();
    place.make_run();
    let mut walk = Walk::new(&place);
    walk.steps(&steps(&section("The first ten minutes")));
    walk.end();
}

#[test]
fn the_clients_are_built_and_run_as_shown() {
    let mut place = Place::new();
    place.make_run();
    let mut walk = Walk::new(&place);
    walk.steps(&preface());
    // The table has changes that HAProxy pushes once the first ten minutes are over.
    let peer =
        steps(&section("The first ten minutes")).into_iter().find(|step| step.command.contains("AddStickTablePeer"));
    let command = place.filled(&peer.expect("the step").command).replace("\"version\": 3", "\"version\": 1");
    walk.shell.run(&command);
    for _ in 0..2 {
        walk.shell.run(&place.filled("curl -s http://127.0.0.1:8080/hello"));
    }
    let mut folder = String::new();
    for step in steps(&section("Clients")) {
        if step.command.starts_with("cd ") {
            walk.shell.run(&format!("cd {}", place.dir.path().display()));
            folder = step.command.split_once(' ').expect("a folder").1.to_owned();
        }
        walk.step(&step);
    }
    // The page is served.
    let page = format!("http://{}/", place.address("127.0.0.1:8000"));
    let wanted = std::fs::read_to_string(place.path(&folder).join("index.html")).expect("a page");
    eventually("the page is served", || {
        let got = Command::new("curl").args(["-s", &page]).output().expect("curl");
        String::from_utf8_lossy(&got.stdout) == wanted
    });
    walk.end();
}

#[test]
fn the_settings_file_serves_beside_an_haproxy_that_runs_already() {
    let mut place = Place::new();
    let text = section("Next to an HAProxy that runs already");
    let yaml = blocks(&text, "yaml").remove(0);
    let here = place.dir.path().display().to_string();
    let binary = binary().into_string().expect("a path");
    let yaml = yaml
        .replace("port: 5555", &format!("port: {}", place.port()))
        .replace("/etc/haproxy", &here)
        .replace("/usr/sbin/haproxy", &binary);
    std::fs::write(place.path("backstay.yaml"), yaml).expect("a file");
    let configuration = format!(
        "global\n    stats socket {here}/stats.sock level admin\ndefaults\n    mode http\n    timeout connect 1s\n    \
         timeout client 1s\n    timeout server 1s\nuserlist controller\n    user admin insecure-password secret\n\
         frontend web\n    bind unix@{here}/web.sock\n"
    );
    std::fs::write(place.path("haproxy.cfg"), configuration).expect("a file");
    let mut haproxy = Command::new(&binary);
    haproxy.args(["-db", "-f", "haproxy.cfg"]).current_dir(place.dir.path()).stderr(Stdio::null());
    place.programs.push(haproxy.spawn().expect("haproxy"));
    let line = text.lines().find_map(|line| line.strip_prefix("    backstay serve ")).expect("the command");
    let state = place.path("state").display().to_string();
    place.start(&format!("exec backstay serve {line} --state-dir {state} --ssl-certs-dir {here}/ssl --general-storage-dir {here}/general --spoe-dir {here}/spoe"));
    let url = format!("http://{}/v2/services/haproxy/runtime/info", place.address("127.0.0.1:5555"));
    let got = Command::new("curl").args(["-s", "-u", "admin:secret", &url]).output().expect("curl");
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(got.contains("\"version\""), "{got}");
}

/// The first digits of two ports that are free; others than those of tests beside this one, as it seems.
fn free_pair() -> String {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let begin = rand::random::<u16>() % 1500;
    let tens = (1500 + begin..3200).find(|tens| free(tens * 10 + 1) && free(tens * 10 + 2));
    tens.expect("two free ports").to_string()
}

fn haproxy(folder: &Path, name: &str, text: &str) -> Child {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("a file");
    Command::new(binary()).arg("-db").arg("-f").arg(file).stderr(Stdio::null()).spawn().expect("haproxy")
}

#[test]
fn limits_hold_over_several_haproxys() {
    let mut place = Place::new();
    place.make_run();
    let text = section("Limits over several HAProxys");
    let configuration = blocks(&text, "").remove(0);
    for of in ["127.0.0.1:1100", "127.0.0.1:1200"] {
        place.instead.push((of.to_owned(), format!("127.0.0.1:{}", free_pair())));
    }
    let second = configuration.replace("hap1", "hap2").replace("11001", "11002").replace("12001", "12002");
    for (name, text) in [("hap1.cfg", &configuration), ("hap2.cfg", &second)] {
        let node = haproxy(place.dir.path(), name, &place.filled(text));
        place.programs.push(node);
    }
    let web = place.filled("127.0.0.1:12002");
    eventually("the nodes serve", || std::net::TcpStream::connect(&web).is_ok());
    let mut walk = Walk::new(&place);
    walk.steps(&preface());
    walk.steps(&steps(&text));
    walk.end();
}
