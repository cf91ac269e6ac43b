//! Requests as clients really send them, byte by byte.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const BASE: &str = "/v2/services/haproxy/configuration";
const JSON: &str = "content-type: application/json\r\n";
const NAME: &str = "{\"name\":\"n\"}";

impl Port {
    /// Everything that comes back for these bytes until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the connection stays open after {request:?}: {}", String::from_utf8_lossy(&answer));
        String::from_utf8(answer).unwrap()
    }
}

/// A request with credentials that is the last one of its connection.
fn request(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    let authorization = credentials();
    format!(
        "{line} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn statuses(answer: &str) -> Vec<&str> {
    let lines = answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.split(' ').nth(1));
    lines.map(|status| status.split_once('\r').map_or(status, |(status, _)| status)).collect()
}

#[tokio::test]
async fn bodies_that_no_operation_reads_do_no_harm() {
    let port = start();
    for line in [format!("GET {BASE}/backends/b1"), format!("DELETE {BASE}/backends/b1?&version=7")] {
        for content_type in ["", JSON, "content-type: text/plain\r\n", "content-type: nonsense\r\n"] {
            for body in ["", "{bad", "null", "{\"name\":1}"] {
                let taken = body.is_empty() || content_type == JSON;
                let answer = port.raw(&request(&line, content_type, body)).await;
                let expected = if taken { "HTTP/1.1 20" } else { "HTTP/1.1 415" };
                assert!(answer.starts_with(expected), "{line} {content_type} {body}: {answer}");
            }
        }
    }
    // The bytes of a body are not taken for the next request.
    for (method, first) in [("GET", "200"), ("PATCH", "405")] {
        let authorization = credentials();
        let head = format!("{method} {BASE}/version HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n");
        let both =
            format!("{head}{JSON}content-length: 5\r\n\r\nhello{}", request(&format!("GET {BASE}/version"), "", ""));
        assert_eq!(statuses(&port.raw(&both).await), [first, "200"], "{method}");
    }
}

#[tokio::test]
async fn names_may_hold_anything_and_be_long() {
    let port = start();
    let long = "x".repeat(10_000);
    for (sent, name) in [
        ("a%2Fb%3Ac%20d", "a/b:c d"),
        ("[b]", "[b]"),
        ("%5Bb%5D", "[b]"),
        ("a+b", "a+b"),
        ("%25", "%"),
        ("a%3Fb", "a?b"),
        ("b%C3%BC", "bü"),
        ("%2e%2E", ".."),
        ("%2e%2E", ".."),
        (&*long, &*long),
    ] {
        let answer = port.raw(&request(&format!("GET {BASE}/backends/{sent}/"), "", "")).await;
        assert!(answer.contains(&format!("\"name\":\"{name}\"")), "{sent}: {answer}");
    }
    let endless = port.raw(&request(&format!("GET {BASE}/backends/{}", "x".repeat(70_000)), "", "")).await;
    assert_eq!(statuses(&endless), ["414"]);
}

#[tokio::test]
async fn parameters_come_empty_twice_and_odd() {
    let port = start();
    for (query, seen) in [
        ("?&version=7", "\"version\":7"),
        ("?version=1&version=7", "\"version\":7"),
        ("?transaction_id=&version=7", "\"version\":7"),
        ("?version=7&", "\"version\":7"),
        ("?version=7&=&force_reload=", "\"version\":7"),
        ("?version=7&parent_name=a+b%2Bc", "\"parent_name\":\"a b+c\""),
        ("?version=7&parent_name=a?b=c", "\"parent_name\":\"a?b=c\""),
        ("?version=7&parent_name=[x]", "\"parent_name\":\"[x]\""),
        ("?version=7&unknown[]=1", "\"version\":7"),
    ] {
        let answer = port.raw(&request(&format!("PUT {BASE}/servers/s/{query}"), JSON, NAME)).await;
        assert!(answer.starts_with("HTTP/1.1 202"), "{query}: {answer}");
        assert!(port.fake.last().contains(seen), "{query}: {}", port.fake.last());
        assert!(!port.fake.last().contains("force_reload"), "{query}: {}", port.fake.last());
    }
    for (query, code) in
        [("?version=%207", "601"), ("?version=7;x", "601"), ("?version=7&parent_type=", "\"name\":\"n\"")]
    {
        let answer = port.raw(&request(&format!("PUT {BASE}/servers/s{query}"), JSON, NAME)).await;
        assert!(answer.contains(code), "{query}: {answer}");
    }
}

#[tokio::test]
async fn methods_that_a_path_has_not_are_named_with_those_that_it_has() {
    let port = start();
    for (line, allowed) in [
        ("POST /version", "GET"),
        ("HEAD /version", "GET"),
        ("get /version", "GET"),
        ("PATCH /backends/", "GET,POST"),
        ("OPTIONS /backends", "GET,POST"),
        ("BREW /backends", "GET,POST"),
        ("POST /backends/b1", "DELETE,GET,PUT"),
    ] {
        let (method, path) = line.split_once(' ').unwrap();
        let answer = port.raw(&request(&format!("{method} {BASE}{path}"), "", "")).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{line}: {answer}");
        assert!(
            answer.to_ascii_lowercase().contains(&format!("\r\nallow: {}\r\n", allowed.to_ascii_lowercase())),
            "{answer}"
        );
        assert!(answer.to_ascii_lowercase().contains("\r\nconfiguration-version: 7\r\n"), "{answer}");
        let body = format!("method {method} is not allowed, but [{allowed}] are");
        assert!(method == "HEAD" || answer.contains(&body), "{answer}");
    }
}

#[tokio::test]
async fn media_types_are_negotiated_as_they_are_written() {
    let port = start();
    for (accept, status) in [
        ("text/html", "406"),
        ("application/json;q=0", "406"),
        ("application/json;q=0, */*;q=0.1", "406"),
        ("application/*;q=0, */*", "406"),
        ("text/html, application/json;q=0.1", "200"),
        ("application/json; charset=utf-8", "200"),
        ("text/*;q=0, */*", "200"),
        ("", "200"),
    ] {
        let answer = port.raw(&request(&format!("GET {BASE}/version"), &format!("accept: {accept}\r\n"), "")).await;
        assert_eq!(statuses(&answer), [status], "{accept}");
    }
    for (content_type, status) in [
        ("", "415"),
        ("content-type: text/json\r\n", "415"),
        ("content-type: application/vnd.x+json\r\n", "415"),
        ("content-type: application/json;charset=UTF-8\r\n", "202"),
        ("content-type: APPLICATION/JSON ; x=y\r\n", "202"),
    ] {
        let answer = port.raw(&request(&format!("POST {BASE}/backends?version=7"), content_type, NAME)).await;
        assert_eq!(statuses(&answer), [status], "{content_type}");
    }
}

#[tokio::test]
async fn bodies_and_connections_come_in_every_form() {
    let port = start();
    let authorization = format!("authorization: {}\r\n", credentials());
    let post =
        format!("POST {BASE}/backends?version=7 HTTP/1.1\r\nhost: x\r\n{authorization}{JSON}connection: close\r\n");
    let asked = port.raw(&format!("{post}expect: 100-continue\r\ncontent-length: 12\r\n\r\n{NAME}")).await;
    assert_eq!(statuses(&asked), ["100", "202"], "{asked}");
    let chunks = "6\r\n{\"name\r\n6;odd=1\r\n\":\"n\"}\r\n0\r\nlast: x\r\n\r\n";
    let chunked = port.raw(&format!("{post}transfer-encoding: chunked\r\n\r\n{chunks}")).await;
    assert_eq!(statuses(&chunked), ["202"], "{chunked}");
    assert!(port.fake.last().contains("\"name\":\"n\""), "{}", port.fake.last());

    let get = format!("{BASE}/version");
    let old = port.raw(&format!("GET {get} HTTP/1.0\r\n{authorization}\r\n")).await;
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("7\n"), "{old}");
    let absolute =
        format!("GET http://127.0.0.1:1{get} HTTP/1.1\r\nhost: x\r\n{authorization}connection: close\r\n\r\n");
    assert_eq!(statuses(&port.raw(&absolute).await), ["200"]);
    let one = format!("GET {get} HTTP/1.1\r\nhost: x\r\n{authorization}\r\n");
    let missing = one.replace("/version", "/backends/missing");
    let last = request(&format!("GET {get}"), "", "");
    assert_eq!(statuses(&port.raw(&format!("{one}{missing}{one}{last}")).await), ["200", "404", "200", "200"]);
}
