//! REST over HTTP/1.1, with a few looks at HTTP/2.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const CONFIGURATION: &str = "/v2/services/haproxy/configuration";
const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn reads_have_their_envelope() {
    let port = start();
    let one = port.send(&format!("GET {CONFIGURATION}/backends/b1"), "").await;
    assert_eq!(one.status, 200);
    assert_eq!(one.text(), "{\"_version\":7,\"data\":{\"name\":\"b1\",\"weight\":5}}\n");
    assert_eq!(one.header("content-type"), "application/json");
    assert_eq!(one.header("configuration-version"), "7");
    assert_eq!(one.header("vary"), "Origin");
    let all = port.send(&format!("GET {CONFIGURATION}/backends/?"), "").await;
    let names: Vec<String> = serde_json::from_slice::<serde_json::Value>(&all.body).unwrap()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|backend| backend["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(all.text().starts_with("{\"_version\":7,\"data\":["), "{}", all.text());
    let version = port.send(&format!("GET {CONFIGURATION}/version"), "").await;
    assert_eq!(version.text(), "7\n");
    let empty = port.send("GET /v2/services/haproxy/runtime/maps_entries?map=m", "").await;
    assert_eq!((empty.status.as_u16(), empty.text()), (200, "[]\n"));
    let http2 = format!("GET {CONFIGURATION}/version\nauthorization: {}", credentials());
    assert_eq!(port.send_version(&http2, "", true).await.text(), "7\n");
}

#[tokio::test]
async fn writes_answer_by_their_target() {
    let port = start();
    let item = "{\"name\":\"b1\"}";
    let echo = "{\"name\":\"b1\"}\n";
    for (head, body, status, reload, text) in [
        ("POST /backends?version=7", item, 202, "2024-01-01-1", echo),
        ("POST /backends?version=7&force_reload=true", item, 201, "", echo),
        ("POST /backends?transaction_id=t1", item, 202, "", echo),
        ("PUT /backends/b1?version=7", item, 202, "2024-01-01-1", echo),
        ("PUT /backends/b1?version=7&force_reload=1", item, 200, "", echo),
        ("PUT /backends/same?version=7", item, 200, "", echo),
        ("PUT /backends/b1?transaction_id=t1", item, 202, "", echo),
        ("DELETE /backends/b1?version=7", "not json", 202, "2024-01-01-1", ""),
        ("DELETE /backends/b1?version=7&force_reload=true", "", 204, "", ""),
        ("DELETE /backends/same?version=7", "", 204, "", ""),
        ("DELETE /backends/b1?transaction_id=t1", "", 202, "", ""),
    ] {
        let head = head.replacen(' ', &format!(" {CONFIGURATION}"), 1);
        let reply = port.send(&format!("{head}\n{JSON}"), body).await;
        assert_eq!(reply.status, status, "{head}: {}", reply.text());
        assert_eq!(reply.header("reload-id"), reload, "{head}");
        assert_eq!(reply.text(), text, "{head}");
        let expected = if head.contains("transaction") { "8" } else { "7" };
        assert_eq!(reply.header("configuration-version"), expected, "{head}");
    }
}

#[tokio::test]
async fn errors_have_the_body_and_status_of_v2() {
    let port = start();
    for (head, body, status, text) in [
        (
            "GET /backends/missing",
            "",
            404,
            r#"{"code":404,"message":"missing object: backend missing does not exist"}"#,
        ),
        ("GET /backends/broken", "", 500, r#"{"code":500,"message":"internal error, see the log"}"#),
        (
            "DELETE /backends/b?version=6",
            "",
            409,
            r#"{"code":409,"message":"version mismatch: version in configuration file is 7, given version is 6"}"#,
        ),
        (
            "DELETE /backends/b",
            "",
            400,
            r#"{"code":400,"message":"version or transaction not specified: version or transaction not specified, specify only one"}"#,
        ),
        (
            "DELETE /backends/b?version=0",
            "",
            400,
            r#"{"code":400,"message":"version or transaction not specified: version or transaction not specified, specify only one"}"#,
        ),
        (
            "DELETE /backends/b?version=7&transaction_id=t1",
            "",
            400,
            r#"{"code":400,"message":"both version and transaction specified, specify only one"}"#,
        ),
        (
            "DELETE /backends/b?force_reload=true&transaction_id=t1",
            "",
            400,
            r#"{"code":400,"message":"Both force_reload and transaction specified, specify only one"}"#,
        ),
        (
            "DELETE /backends/b?version=abc",
            "",
            422,
            r#"{"code":601,"message":"version in query must be of type int64: \"abc\""}"#,
        ),
        ("POST /backends?version=7", "{}", 422, r#"{"code":602,"message":"name in body is required"}"#),
        ("POST /backends?version=7", "", 422, r#"{"code":602,"message":"data in body is required"}"#),
        (
            "PUT /servers/s?version=7&parent_type=global",
            "{}",
            422,
            r#"{"code":606,"message":"parent_type in query should be one of [backend ring]"}"#,
        ),
        ("PATCH /backends", "", 405, r#"{"code":405,"message":"method PATCH is not allowed, but [GET,POST] are"}"#),
        (
            "GET /Backends",
            "",
            404,
            r#"{"code":404,"message":"path /v2/services/haproxy/configuration/Backends was not found"}"#,
        ),
    ] {
        let head = head.replacen(' ', &format!(" {CONFIGURATION}"), 1);
        let reply = port.send(&format!("{head}\n{JSON}"), body).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (status, text), "{head}");
        assert_eq!(reply.header("content-type"), "application/json", "{head}");
        assert!(!reply.header("configuration-version").is_empty(), "{head}");
    }
    let missing = port.send("GET /v2/services/haproxy/runtime/maps_entries", "").await;
    assert_eq!(
        (missing.status.as_u16(), missing.text()),
        (422, r#"{"code":602,"message":"map in query is required"}"#)
    );
    let gone = port.send("PUT /v2/services/haproxy/transactions/gone", "").await;
    assert_eq!(gone.status, 404);
    let unknown = port.send(&format!("GET {CONFIGURATION}/backends?transaction_id=other"), "").await;
    assert_eq!(unknown.header("configuration-version"), "0");
    let head = port.send(&format!("HEAD {CONFIGURATION}/version"), "").await;
    assert_eq!((head.status.as_u16(), head.header("allow")), (405, "GET"));
}

#[tokio::test]
async fn only_some_paths_are_open() {
    let port = start();
    assert_eq!(port.send_bare("HEAD /healthz", "").await.status, 200);
    for path in ["/", "/healthz", "/v2/docs", "/v2/docs/"] {
        assert_eq!(port.send_bare(&format!("GET {path}"), "").await.status, 200, "{path}");
    }
    for path in [&format!("{CONFIGURATION}/version"), "/v2/specification", "/v2/", "/v2/services/haproxy"] {
        let reply = port.send_bare(&format!("GET {path}"), "").await;
        assert_eq!((reply.status.as_u16(), reply.header("www-authenticate")), (401, "Basic realm=\"API\""), "{path}");
        assert_eq!(reply.text(), r#"{"code":401,"message":"unauthenticated for invalid credentials"}"#);
        assert_eq!(reply.header("configuration-version"), "");
        assert!(port.fake.calls.lock().unwrap().is_empty());
    }
    for path in [&format!("{CONFIGURATION}/version"), "/v2/specification", "/v2/", "/v2/services/haproxy"] {
        assert_eq!(port.send(&format!("GET {path}"), "").await.status, 200, "{path}");
    }
    assert_eq!(port.send_bare("GET /v2/nothing", "").await.status, 404, "unknown paths are 404 without credentials");
    assert_eq!(port.send_bare("GET /elsewhere", "").await.status, 404);
    let wrong = base64::engine::general_purpose::STANDARD.encode("admin:hunter2");
    let reply = port.send_bare(&format!("GET /v2/\nauthorization: Basic {wrong}"), "").await;
    let text = r#"{"code":401,"message":"unauthenticated for invalid credentials"}"#;
    assert_eq!((reply.status.as_u16(), reply.text(), reply.header("configuration-version")), (401, text, ""));
    let to_all = start_with(Settings { version_for_all: true, ..Settings::default() }, Bounds::default());
    let reply = to_all.send_bare("GET /v2/", "").await;
    assert_eq!((reply.status.as_u16(), reply.header("configuration-version")), (401, "7"));
    port.health.set("", false).await;
    assert_eq!(port.send_bare("GET /healthz", "").await.status, 503);
}

#[tokio::test]
async fn negotiation_refuses_what_it_cannot_do() {
    let port = start();
    let path = format!("{CONFIGURATION}/version");
    for (accept, status) in [
        ("text/html", 406),
        ("application/json;q=0", 406),
        ("text/html, application/*;q=0.5", 200),
        ("*/*", 200),
        ("Application/JSON", 200),
    ] {
        let reply = port.send(&format!("GET {path}\naccept: {accept}"), "").await;
        assert_eq!(reply.status, status, "{accept}");
    }
    let reply = port.send(&format!("POST {CONFIGURATION}/backends?version=7\ncontent-type: text/plain"), "{}").await;
    let expected =
        r#"{"code":415,"message":"unsupported media type \"text/plain\", only [application/json] are allowed"}"#;
    assert_eq!((reply.status.as_u16(), reply.text()), (415, expected));
    let bare = port.send(&format!("POST {CONFIGURATION}/backends?version=7"), "{}").await;
    assert!(bare.status == 415 && bare.text().contains("application/octet-stream"), "{}", bare.text());
}

#[tokio::test]
async fn unknown_fields_and_parameters_are_ignored_with_a_warning_or_refused_when_strict() {
    let port = start();
    let request = format!("POST {CONFIGURATION}/backends?version=7&what=1\n{JSON}");
    let body = "{\"name\":\"b\",\"odd\":1}";
    let reply = port.send(&request, body).await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.header("warning"), "299 backstay \"unknown, ignored: what, odd\"");
    let strict = start_with(Settings { strict: true, ..Settings::default() }, Bounds::default());
    let reply = strict.send(&request, body).await;
    assert_eq!(
        (reply.status.as_u16(), reply.text()),
        (400, r#"{"code":400,"message":"unknown fields or parameters: what, odd"}"#)
    );
}

#[tokio::test]
async fn files_go_up_and_down_as_bytes() {
    let port = start();
    let form = "--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"p.map\"\r\n\r\n/api/ be1\n\r\n--B--\r\n";
    let up =
        port.send("POST /v2/services/haproxy/storage/maps\ncontent-type: multipart/form-data; boundary=B", form).await;
    assert_eq!((up.status.as_u16(), up.text()), (201, "{\"storage_name\":\"p.map\"}\n"));
    let down = port.send("GET /v2/services/haproxy/storage/maps/p.map\naccept: application/json", "").await;
    assert_eq!((down.status.as_u16(), down.header("content-type")), (200, "application/octet-stream"));
    assert_eq!(&down.body[..], b"a 1\nb \xff\n");
    let gone = port.send("DELETE /v2/services/haproxy/storage/maps/p.map?forceDelete=true", "").await;
    assert_eq!((gone.status.as_u16(), gone.text()), (204, ""));
    assert!(port.fake.last().contains("\"force_delete\":true"), "{}", port.fake.last());
    let raw = format!(
        "POST {CONFIGURATION}/raw?version=7\ncontent-type: text/plain\nx-runtime-actions: SetServerState a b c"
    );
    let raw = port.send(&raw, "global\n").await;
    assert_eq!((raw.status.as_u16(), raw.text(), raw.header("reload-id")), (202, "\"global\\n\"\n", "2024-01-01-3"));
    assert_eq!(raw.header("configuration-checksum"), "abc");
    assert!(port.fake.last().contains("SetServerState a b c"));
    let add = port.send(&format!("PUT /v2/services/haproxy/runtime/maps/m\n{JSON}"), "[{\"key\":\"a\"}]").await;
    assert_eq!((add.status.as_u16(), add.text()), (201, "{\"count\":2}\n"));
}

#[tokio::test]
async fn watches_are_lines_or_events() {
    let port = start();
    let path = "/v2/services/haproxy/runtime/tables";
    let lines = port.send(&format!("GET {path}/t:watch"), "").await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    assert_eq!(lines.text(), "{\"revision\":1}\n{\"revision\":2}\n{\"revision\":3}\n");
    let events = port.send(&format!("GET {path}/t:watch\naccept: text/event-stream"), "").await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.text(), "data: {\"revision\":1}\n\ndata: {\"revision\":2}\n\ndata: {\"revision\":3}\n\n");
    assert_eq!(port.send(&format!("GET {path}/missing:watch"), "").await.status, 404);
}

/// Reads from a socket until the text appears.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            seen.extend_from_slice(&buffer[..count]);
            let so_far = String::from_utf8_lossy(&seen).into_owned();
            if so_far.contains(text) || count == 0 {
                return so_far;
            }
        }
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_watch_sends_at_once_and_ends_with_its_client() {
    let port = start();
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head = "GET /v2/services/haproxy/runtime/tables/endless:watch HTTP/1.1\r\nhost: x\r\n";
    stream.write_all(format!("{head}authorization: {}\r\n\r\n", credentials()).as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "{\"revision\":1}").await.contains("{\"revision\":1}"));
    assert_eq!(Arc::strong_count(&port.fake.open), 2);
    drop(stream);
    tokio::time::timeout(Duration::from_secs(10), async {
        while Arc::strong_count(&port.fake.open) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the stream behind a closed connection is dropped");
}

#[tokio::test]
async fn odd_requests_are_read_as_they_arrive() {
    let port = start();
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let target = format!("{CONFIGURATION}/servers/[x]?&parent_name=[y]&=force_reload=true&version=7?");
    let request = format!(
        "PUT {target} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n{JSON}\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{{\"name\":\"s\"}}",
        credentials()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("version in query must be"), "{answer}");
    let request = request.replace("version=7?", "version=7");
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("\r\nReload-Id: 2024-01-01-1\r\n"), "{answer}");
    let seen = port.fake.last();
    assert!(seen.contains("\"name\":\"[x]\"") && seen.contains("\"parent_name\":\"[y]\""), "{seen}");
    assert!(!seen.contains("force_reload"), "{seen}");
}

#[tokio::test]
async fn discovery_lists_children() {
    let port = start();
    let reply = port.send("GET /v2/services/haproxy", "").await;
    let list: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(list[0]["url"], "/services/haproxy/configuration");
    assert_eq!(port.send("POST /v2/services", "").await.status, 405);
}

#[tokio::test]
async fn origins_are_answered_only_when_allowed() {
    let preflight = "OPTIONS /v2/info\norigin: https://a.example\naccess-control-request-method: PUT";
    let off = start();
    let reply = off.send_bare(preflight, "").await;
    assert!(reply.status == 403 && reply.header("access-control-allow-origin").is_empty());
    assert!(reply.text().contains("https://a.example"), "{}", reply.text());
    let cors = Cors::of(&["*".to_owned()]);
    let on = start_with(Settings { cors, ..Settings::default() }, Bounds::default());
    let reply = on.send_bare(preflight, "").await;
    assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (204, "https://a.example"));
    let reply = on.send_bare("GET /v2/\norigin: https://a.example", "").await;
    assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (401, "https://a.example"));
    assert!(reply.header("access-control-expose-headers").contains("Reload-ID"));
}

#[tokio::test]
async fn slow_clients_are_closed_and_the_stop_waits_for_open_requests() {
    let bounds = Bounds { read: Some(Duration::from_millis(200)), ..Bounds::default() };
    let port = start_with(Settings::default(), bounds);
    for beginning in ["", "P", "GET / HTTP/1.1\r\nhost"] {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{beginning:?} stays open");
    }
    port.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), port.served).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn the_stop_ends_watches_at_once() {
    let port = start();
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head = "GET /v2/services/haproxy/runtime/tables/endless:watch HTTP/1.1\r\nhost: x\r\n";
    stream.write_all(format!("{head}authorization: {}\r\n\r\n", credentials()).as_bytes()).await.unwrap();
    read_until(&mut stream, "{\"revision\":1}").await;
    port.stop.cancel();
    let rest = read_until(&mut stream, "\"code\":503").await;
    assert!(rest.contains("{\"error\":{\"code\":503,\"message\":\"the server is stopping"), "{rest}");
    tokio::time::timeout(Duration::from_secs(10), port.served).await.unwrap().unwrap();
}

/// A call that never ends does not hold the stop for ever.
#[tokio::test]
async fn the_stop_breaks_off_calls_after_the_grace_time() {
    let port = start();
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head = format!("GET {CONFIGURATION}/backends/slow HTTP/1.1\r\nhost: x\r\n");
    stream.write_all(format!("{head}authorization: {}\r\n\r\n", credentials()).as_bytes()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while port.fake.last().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    port.stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), port.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up_and_a_panic_is_an_answer() {
    let bounds = Bounds { read: Some(Duration::from_millis(300)), ..Bounds::default() };
    let port = start_with(Settings::default(), bounds);
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head =
        format!("POST {CONFIGURATION}/backends?version=7 HTTP/1.1\r\nhost: x\r\n{JSON}\r\ncontent-length: 50\r\n");
    stream.write_all(format!("{head}authorization: {}\r\n\r\n{{\"na", credentials()).as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "ended early").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let reply = port.send(&format!("GET {CONFIGURATION}/backends/panic"), "").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (500, r#"{"code":500,"message":"internal error, see the log"}"#));
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let port = start_with(Settings::default(), Bounds { connections: Some(1), ..Bounds::default() });
    // Without a login it would have to leave.
    let mut stranger = TcpStream::connect(port.address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut stranger, "/v2/docs").await;
    let mut first = TcpStream::connect(port.address).await.unwrap();
    let login = format!("GET / HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", credentials());
    first.write_all(login.as_bytes()).await.unwrap();
    read_until(&mut first, "/v2/docs").await;
    assert_eq!(stranger.read(&mut [0; 8]).await.unwrap_or(0), 0, "it is still there");
    let mut second = TcpStream::connect(port.address).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.readable()).await;
    assert!(early.is_err(), "answered beyond the bound");
    drop(first);
    assert!(read_until(&mut second, "/v2/docs").await.contains("200 OK"));
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_and_one_that_comes_is_not() {
    let bounds = Bounds { read: Some(Duration::from_millis(400)), ..Bounds::default() };
    let port = start_with(Settings::default(), bounds);
    let head = format!(
        "POST {CONFIGURATION}/backends?version=7 HTTP/1.1\r\nhost: x\r\n{JSON}\r\nauthorization: {}\r\n",
        credentials()
    );
    let mut slow = TcpStream::connect(port.address).await.unwrap();
    slow.write_all(format!("{head}content-length: 5000\r\n\r\n").as_bytes()).await.unwrap();
    let trickle = async {
        // Never silent for as long as the limit.
        while slow.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut answer = [0; 12];
            if let Ok(12) = slow.try_read(&mut answer) {
                return answer;
            }
        }
        panic!("no answer");
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), trickle).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");

    // More than the limit as a whole, at a rate that is no attack.
    let body = format!("{{\"name\":\"b\"{}}}", " ".repeat(8000));
    let mut steady = TcpStream::connect(port.address).await.unwrap();
    steady.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
    for part in body.as_bytes().chunks(1000) {
        steady.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let answer = read_until(&mut steady, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}

#[tokio::test]
async fn idle_connections_are_closed_and_watches_are_not() {
    let limit = Some(Duration::from_millis(300));
    let bounds = Bounds { idle: limit, read: limit, write: limit, ..Bounds::default() };
    let port = start_with(Settings::default(), bounds);
    let mut watch = TcpStream::connect(port.address).await.unwrap();
    let head = "GET /v2/services/haproxy/runtime/tables/endless:watch HTTP/1.1\r\nhost: x\r\n";
    watch.write_all(format!("{head}authorization: {}\r\n\r\n", credentials()).as_bytes()).await.unwrap();
    read_until(&mut watch, "{\"revision\":1}").await;
    let mut idle = TcpStream::connect(port.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(10), idle.read_to_end(&mut rest)).await;
    assert!(closed.is_ok_and(|read| read.is_ok()), "an idle connection stays open");
    assert!(rest.starts_with(b"HTTP/1.1 200"));
    let mut byte = [0; 1];
    let quiet = tokio::time::timeout(Duration::from_millis(900), watch.read(&mut byte)).await;
    assert!(quiet.is_err(), "a silent watch was ended");
}

#[tokio::test]
async fn the_idle_limit_alone_closes_what_is_not_used() {
    let limit = Duration::from_millis(500);
    let port = start_with(Settings::default(), Bounds { idle: Some(limit), ..Bounds::default() });
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    // Longer than the limit as a whole.
    for _ in 0..6 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.contains("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(limit / 4).await;
    }
    let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok_and(|read| read.is_ok()), "an idle connection stays open");
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let port = start_with(Settings::default(), Bounds { max_header: 8 << 10, ..Bounds::default() });
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(9000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}
