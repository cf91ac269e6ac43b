//! TCP, TLS and unix sockets, and what they ask of their clients.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::Bench;
use super::wire::{Authority, Tls, get, grpc, unix};
use crate::support::haproxy::{eventually, free_port};

const INFO: &str = "/v2/info";

struct Secure {
    bench: Bench,
    authority: Authority,
    port: u16,
}

/// With http on its usual port, https on another, and a certificate for `localhost`.
fn secure(more: &[&str]) -> Secure {
    let mut bench = Bench::new();
    let authority = Authority::new("one");
    authority.issue(bench.dir(), "api");
    let port = free_port();
    let tls = ["--scheme=http", "--scheme=https", "--tls-certificate={dir}/api.crt", "--tls-key={dir}/api.key"];
    let flag = format!("--tls-port={port}");
    let flags: Vec<&str> = tls.into_iter().chain([&*flag]).chain(more.iter().copied()).collect();
    std::fs::write(bench.path("ca.crt"), authority.pem()).unwrap();
    bench.start(&flags);
    Secure { bench, authority, port }
}

impl Secure {
    fn tls(&self, protocol: &'static str) -> Tls<'_> {
        Tls { trusts: &self.authority, shows: None, version: &TLS13, protocol }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_https_and_unix_serve_every_protocol_at_once() {
    let mut on = secure(&["--scheme=unix", "--socket-path={dir}/api.sock"]);
    let socket = on.bench.path("api.sock");
    let meta = std::fs::metadata(&socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);

    for version in [&TLS12, &TLS13] {
        let tls = Tls { version, ..on.tls("http/1.1") };
        let answer = get(tls.connect(on.port).await.unwrap(), INFO, true).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = get(tls.connect(on.port).await.unwrap(), INFO, false).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let tls = Tls { version, ..on.tls("h2") };
        assert_eq!(grpc(tls.connect(on.port).await.unwrap(), true).await.unwrap(), 0);
        assert_eq!(grpc(tls.connect(on.port).await.unwrap(), false).await.unwrap(), 16);
    }
    assert!(get(unix(&socket).await, INFO, true).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(unix(&socket).await, INFO, false).await.unwrap().starts_with("HTTP/1.1 401"));
    assert_eq!(grpc(unix(&socket).await, true).await.unwrap(), 0);
    let plain = TcpStream::connect(on.bench.api).await.unwrap();
    assert!(get(plain, INFO, true).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(grpc(TcpStream::connect(on.bench.api).await.unwrap(), true).await.unwrap(), 0);

    // Killed, it leaves the socket behind; the next one takes it over, and removes it at its end.
    on.bench.end(Signal::KILL);
    assert!(socket.try_exists().unwrap());
    on.bench.start(&["--scheme=http", "--scheme=unix", "--socket-path={dir}/api.sock"]);
    assert!(get(unix(&socket).await, INFO, true).await.unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(on.bench.end(Signal::TERM), Some(0));
    assert!(!socket.try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_stands_for_a_password() {
    let on = secure(&["--tls-ca={dir}/ca.crt"]);
    let folder = on.bench.dir();
    on.authority.issue(folder, "known");
    Authority::new("other").issue(folder, "foreign");
    for protocol in ["http/1.1", "h2"] {
        let known = Tls { shows: Some((folder, "known")), ..on.tls(protocol) };
        let stream = known.connect(on.port).await.unwrap();
        if protocol == "h2" {
            assert_eq!(grpc(stream, false).await.unwrap(), 0);
        } else {
            let answer = get(stream, INFO, false).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    for shows in [None, Some((folder, "foreign"))] {
        // With TLS 1.3 the refusal comes with the first answer.
        let stranger = Tls { shows, ..on.tls("http/1.1") };
        let refused = match stranger.connect(on.port).await {
            Ok(stream) => get(stream, INFO, true).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{shows:?}");
    }
    // The password is only spared where a certificate was shown.
    let plain = || TcpStream::connect(on.bench.api);
    assert!(get(plain().await.unwrap(), INFO, false).await.unwrap().starts_with("HTTP/1.1 401"));
    assert!(get(plain().await.unwrap(), INFO, true).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again_at_a_hangup_and_broken_ones_change_nothing() {
    let on = secure(&[]);
    let trusted = async |authority: &Authority| {
        let tls = Tls { trusts: authority, shows: None, version: &TLS13, protocol: "http/1.1" };
        match tls.connect(on.port).await {
            Ok(stream) => get(stream, INFO, true).await.is_ok_and(|answer| answer.contains(" 200 ")),
            Err(_) => false,
        }
    };
    assert!(trusted(&on.authority).await);
    let next = Authority::new("next");
    assert!(!trusted(&next).await);
    next.issue(on.bench.dir(), "api");
    on.bench.signal(Signal::HUP);
    crate::support::world::until("the new certificate is shown", async || trusted(&next).await).await;

    std::fs::write(on.bench.path("api.crt"), "no certificate").unwrap();
    on.bench.signal(Signal::HUP);
    on.bench.logged("the settings stay as they were");
    assert!(on.bench.log().contains("api.crt cannot be read as certificates"));
    assert!(trusted(&next).await);
}

#[test]
fn a_watch_does_not_try_again_where_it_would_fail_for_ever() {
    let on = secure(&[]);
    let (tls, plain) = (on.port, on.bench.api.port());
    for (server, said) in
        [(format!("https://localhost:{tls}"), "certificate"), (format!("https://localhost:{plain}"), "")]
    {
        let log = on.bench.path("watch.log");
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_backstay"))
            .args(["watch", "clients", "--json", "--server", &server])
            .env("BACKSTAY_PASSWORD", "adminpwd")
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        eventually("it gives up", || child.try_wait().unwrap().is_some_and(|status| status.code() == Some(1)));
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.to_lowercase().contains(said), "{server}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_cut_by_the_limits_of_the_yaml_file() {
    let mut bench = Bench::new();
    let yaml = "dataplaneapi:\n  read_timeout: 300ms\n  cleanup_timeout: 400ms\n  listen_limit: 2\n  \
                max_header_size: 8KiB\n";
    std::fs::write(bench.path("d.yaml"), yaml).unwrap();
    bench.start(&[]);
    let closed = async |beginning: &str| {
        let mut stream = TcpStream::connect(bench.api).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{beginning:?} stays open");
        String::from_utf8_lossy(&rest).into_owned()
    };
    assert_eq!(closed("GET /v2/info HT").await, "");
    assert!(closed("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.contains(" 200 "), "idle");
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "y".repeat(9000));
    assert!(closed(&long).await.contains(" 431 "));

    // The third connection waits for a place while the others are of people who have logged in.
    let known = async || {
        let mut stream = TcpStream::connect(bench.api).await.unwrap();
        let authorization = crate::support::client::basic("admin", super::PASSWORD);
        let request = format!("GET {INFO} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        stream
    };
    let held = [known().await, known().await];
    let mut third = TcpStream::connect(bench.api).await.unwrap();
    third.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), third.readable()).await;
    assert!(early.is_err(), "answered beyond the limit");
    drop(held);
    let mut byte = [0; 1];
    tokio::time::timeout(Duration::from_secs(10), third.read_exact(&mut byte)).await.unwrap().unwrap();
}

#[test]
fn what_cannot_be_listened_on_ends_the_start() {
    let mut bench = Bench::new();
    let taken = std::net::TcpListener::bind(bench.api).unwrap();
    assert_eq!(bench.fails(&[]), Some(1));
    bench.logged("the port is taken by another process");
    drop(taken);
    std::fs::write(bench.path("file"), "precious").unwrap();
    assert_eq!(bench.fails(&["--scheme=unix", "--socket-path={dir}/file"]), Some(1));
    bench.logged("there is a file that is no socket");
    assert_eq!(std::fs::read_to_string(bench.path("file")).unwrap(), "precious");
    assert_eq!(bench.fails(&["--scheme=https"]), Some(1));
    bench.logged("--tls-certificate or dataplaneapi.tls.tls_certificate: needed");
    assert_eq!(bench.fails(&["--scheme=https", "--tls-certificate={dir}/file", "--tls-key={dir}/file"]), Some(1));
    bench.logged("file cannot be read as certificates");
    eventually("nothing is left open", || std::net::TcpListener::bind(bench.api).is_ok());
}

/// `backstay watch` tries again where nobody answers, but not what another attempt cannot mend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_ends_where_tls_itself_fails() {
    let on = secure(&[]);
    let other = on.bench.path("other.crt");
    std::fs::write(&other, Authority::new("other").pem()).unwrap();
    let (ours, plain) = (on.bench.path("ca.crt"), on.bench.api.port());
    for (port, trusted, words) in
        [(on.port, &other, "certificate"), (plain, &ours, "https"), (on.port, &ours, "the API answers 401")]
    {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_backstay"));
        command.args(["watch", "be", "--server", &format!("https://localhost:{port}")]);
        command.env("BACKSTAY_PASSWORD", "wrong").env("SSL_CERT_FILE", trusted);
        let log = on.bench.path("watch.log");
        command.stdout(std::process::Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        let mut ended = None;
        for _ in 0..2000 {
            ended = child.try_wait().unwrap();
            if ended.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        drop(child.kill());
        child.wait().unwrap();
        assert!(ended.is_some_and(|status| !status.success()), "it goes on: {}", said());
        assert!(words == "https" || said().contains(words), "{}", said());
    }
}
