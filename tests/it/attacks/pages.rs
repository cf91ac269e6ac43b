//! Pages of other origins, to whose requests a browser adds the credentials that it knows.

use std::net::SocketAddr;

use super::{exchange, status};
use crate::drop_in::Bench;
use crate::support::client::{Transport, basic};
use crate::support::world::World;

const RAW: &str = "/v2/services/haproxy/configuration/raw";
const TRANSACTIONS: &str = "/v2/services/haproxy/transactions";
const MAPS: &str = "/v2/services/haproxy/storage/maps";
const EVIL: &str = "origin: http://b.example";
/// A new user, as the body of a push of the whole configuration.
const INTRUDER: &str = "global\nuserlist controller\n  user eve insecure-password eve\n";
const FORM: &str =
    "--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"evil.map\"\r\n\r\na b\r\n--B--\r\n";

/// A request as a browser sends it: the line without its version, headers by line, and a body.
async fn browse(api: SocketAddr, authorization: &str, line: &str, headers: &str, body: &str) -> String {
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\nauthorization: {authorization}\r\n");
    let hosted = headers.lines().any(|header| header.starts_with("host: "));
    let host = (!hosted).then(|| format!("host: {api}"));
    for header in host.as_deref().into_iter().chain(headers.lines()) {
        head.extend([header, "\r\n"]);
    }
    exchange(api, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}

/// What a page can send without asking before.
fn simple(version: i64) -> [(String, &'static str, &'static str); 6] {
    let push = format!("POST {RAW}?version={version}&skip_reload=true");
    let begin = format!("POST {TRANSACTIONS}?version={version}");
    [
        (push.clone(), "content-type: text/plain", INTRUDER),
        (push.clone(), "content-type: Text/Plain;charset=UTF-8", INTRUDER),
        (push, "x: y", INTRUDER),
        (begin.clone(), "x: y", ""),
        (begin, "content-type: application/x-www-form-urlencoded", "a=b"),
        (format!("POST {MAPS}"), "content-type: multipart/form-data; boundary=B", FORM),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_page_changes_nothing() {
    let world = World::start(Transport::Rest, &["--cors-origin", "https://dash.example"]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let before = world.backstay.text();
    let send = async |line: &str, headers: String, body: &str| browse(api, &authorization, line, &headers, body).await;
    let version = world.version().await;
    for (line, kind, body) in simple(version) {
        for mark in [
            EVIL,
            "origin: null",
            "origin: http://localhost",
            "origin: http://b.example\r\nx-forwarded-host: b.example\r\nforwarded: host=b.example",
            "sec-fetch-site: cross-site",
            "sec-fetch-site: same-site\r\nreferer: http://b.example/",
        ] {
            let answer = send(&line, format!("{kind}\n{}", mark.replace("\r\n", "\n")), body).await;
            assert_eq!(status(&answer), 403, "{line} {kind} {mark}: {answer}");
            assert!(answer.contains("\"code\":403"), "{answer}");
        }
    }
    for (line, kind) in [
        (format!("PUT {RAW}"), "content-type: application/json"),
        (format!("DELETE {MAPS}/paths.map"), "x: y"),
        ("GET /v2/info".to_owned(), "x: y"),
        ("GET /v2/services/backstay/stick_tables/clients/watch".to_owned(), "accept: text/event-stream"),
        ("GET /v2/nothing".to_owned(), "x: y"),
        ("OPTIONS /v2/nothing".to_owned(), "access-control-request-method: PUT"),
    ] {
        let answer = send(&line, format!("{kind}\n{EVIL}"), "").await;
        assert_eq!(status(&answer), 403, "{line}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control-allow"), "{answer}");
    }
    // Neither credentials nor a body are waited for.
    let head = format!("POST {RAW} HTTP/1.1\r\nhost: {api}\r\n{EVIL}\r\ncontent-length: 9\r\nexpect: 100-continue\r\n");
    let answer = exchange(api, format!("{head}authorization: Basic !\r\nconnection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(status(&answer), 403, "{answer}");
    assert!(world.backstay.log().contains("http://b.example"), "{}", world.backstay.log());
    assert_eq!((world.backstay.text(), world.version().await), (before, version));
    assert!(!world.backstay.folder().join("maps/evil.map").try_exists().unwrap());

    // Ours, and one that is listed.
    for origin in [format!("http://{api}"), "https://dash.example".to_owned()] {
        let answer = send(&format!("POST {TRANSACTIONS}?version={version}"), format!("origin: {origin}"), "").await;
        assert_eq!(status(&answer), 201, "{origin}: {answer}");
    }
    assert_eq!(status(&send("GET /v2/info", "sec-fetch-site: cross-site".to_owned(), "").await), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_grpc_web_a_foreign_page_is_told_so_by_its_status() {
    let world = World::start(Transport::Grpc, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"] {
        let line = "POST /backstay.configuration.v2.RawConfigurationService/GetVersion";
        let answer = browse(api, &authorization, line, &format!("content-type: {kind}\n{EVIL}"), "\0\0\0\0\0").await;
        assert_eq!(status(&answer), 200, "{answer}");
        let answer = answer.to_lowercase();
        assert!(answer.contains("\r\ngrpc-status: 7\r\n"), "{answer}");
        assert!(answer.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_led_to_loopback_is_none_of_ours() {
    let world = World::start(Transport::Rest, &["--allowed-host", "api.internal"]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let port = api.port();
    for (host, status) in [
        (format!("b.example:{port}"), 403),
        (format!("localhost.b.example:{port}"), 403),
        (format!("0.0.0.0:{port}"), 403),
        (format!("localhost:{port}"), 200),
        (format!("LocalHost.:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("api.internal:{port}"), 200),
    ] {
        for mark in ["sec-fetch-site: same-origin", "sec-fetch-mode: cors", "referer: http://a/", "origin"] {
            let mark = if mark == "origin" { format!("origin: http://{host}") } else { mark.to_owned() };
            let headers = format!("host: {host}\n{mark}");
            let answer = browse(api, &authorization, "GET /v2/info", &headers, "").await;
            assert_eq!(super::status(&answer), status, "{headers}: {answer}");
        }
        let answer = browse(api, &authorization, "GET /v2/info", &format!("host: {host}"), "").await;
        assert_eq!(super::status(&answer), 200, "no browser, {host}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_of_the_data_plane_api_a_foreign_page_has_to_ask_first() {
    let mut bench = Bench::new();
    bench.start(&["--cors-origin=*", "--cors-origin=https://dash.example"]);
    let (api, authorization) = (bench.api, basic("admin", "adminpwd"));
    let before = std::fs::read_to_string(bench.path("haproxy.cfg")).unwrap();
    let send = async |line: &str, headers: String, body: &str| {
        status(&browse(api, &authorization, line, &headers, body).await)
    };
    for (line, kind, body) in simple(1) {
        for mark in [EVIL, "origin: null", "sec-fetch-site: cross-site"] {
            assert_eq!(send(&line, format!("{kind}\n{mark}"), body).await, 403, "{line} {kind} {mark}");
        }
    }
    assert_eq!(std::fs::read_to_string(bench.path("haproxy.cfg")).unwrap(), before);
    assert!(!bench.path("maps/evil.map").try_exists().unwrap());
    // What clients have always done goes on.
    assert_eq!(send("GET /v2/info", EVIL.to_owned(), "").await, 200);
    assert_eq!(send("GET /v2/info", format!("host: any.example\n{EVIL}"), "").await, 200);
    assert_eq!(send("OPTIONS /v2/info", format!("access-control-request-method: PUT\n{EVIL}"), "").await, 204);
    let begin = format!("POST {TRANSACTIONS}?version=1");
    assert_eq!(send(&begin, format!("content-type: application/json\n{EVIL}"), "").await, 201);
    assert_eq!(send(&begin, "origin: https://dash.example".to_owned(), "").await, 201);
    assert_eq!(send(&begin, format!("origin: http://{api}"), "").await, 201);
    assert_eq!(send(&begin, String::new(), "").await, 201);
}
