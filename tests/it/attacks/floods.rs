//! Connections, heads and bodies in such numbers that nobody else would be served.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use super::{exchange, head, status};
use crate::support::backstay::Backstay;
use crate::support::client::{Transport, basic, request};
use crate::support::world::World;

const INFO: &str = "GET /v2/info";
const MIB: usize = 1 << 20;

/// Memory of the process, in bytes.
fn memory(backstay: &Backstay) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", backstay.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// A request over a new connection is answered before the limit of patience with silent clients, which is 30 s.
async fn is_served(api: SocketAddr, authorization: &str) {
    let answer = exchange(api, format!("{}\r\n", head(api, INFO, authorization)));
    let answer = tokio::time::timeout(Duration::from_secs(15), answer).await.expect("locked out");
    assert_eq!(status(&answer), 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_lock_nobody_out() {
    let world = World::start(Transport::Rest, &["--listen-limit", "20"]);
    let (api, authorization) = (world.backstay.api, world.client.authorization());
    let request = head(api, INFO, authorization).replace("connection: close\r\n", "") + "\r\n";
    let mut known = TcpStream::connect(api).await.unwrap();
    let mut ask = async || {
        known.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        known.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        // The rest of the answer, which is short.
        let mut rest = vec![0; 64 << 10];
        while !rest.ends_with(b"}\n") {
            let read = known.read(&mut rest).await.unwrap();
            rest.truncate(read);
            if !rest.ends_with(b"}\n") {
                rest = vec![0; 64 << 10];
            }
        }
    };
    ask().await;
    let mut held = Vec::new();
    for number in 0..60 {
        let mut stream = TcpStream::connect(api).await.unwrap();
        // Silent ones, some with a beginning, some that ask for what needs no login.
        let beginning = ["", "G", "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
        stream.write_all(beginning[number % 4].as_bytes()).await.unwrap();
        held.push(stream);
    }
    is_served(api, authorization).await;
    ask().await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_heads_take_little_memory_and_are_told_so() {
    let world = World::start(Transport::Rest, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization());
    is_served(api, authorization).await;
    let before = memory(&world.backstay);
    let beginning = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(MIB - 200));
    let heads: Vec<_> = (0..100)
        .map(|_| {
            let beginning = beginning.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(api).await.unwrap();
                let mut answer = Vec::new();
                // It may be cut off while it sends.
                let _sent = stream.write_all(beginning.as_bytes()).await;
                let _read = stream.read_to_end(&mut answer).await;
                String::from_utf8_lossy(&answer).into_owned()
            })
        })
        .collect();
    let mut most = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while heads.iter().filter(|head| head.is_finished()).count() < 50 {
        assert!(Instant::now() < deadline, "nobody is told");
        most = most.max(memory(&world.backstay));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_served(api, authorization).await;
    assert!(most.saturating_sub(before) < 50 * MIB, "{} MiB", (most - before) / MIB);
    let mut told = 0;
    for head in heads {
        if head.is_finished() {
            let answer = head.await.unwrap();
            told += usize::from(answer.starts_with("HTTP/1.1 503"));
        } else {
            head.abort();
        }
    }
    assert!(told > 40, "{told}");
}

/// Sends a body of blanks, the last of them only after 8 s, and returns the status of the answer.
async fn send_slowly(api: SocketAddr, start: String, size: usize) -> String {
    let mut stream = TcpStream::connect(api).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let began = Instant::now();
    let send = async move {
        let piece = vec![b' '; MIB];
        for left in (1..=size / MIB).rev() {
            let last = usize::from(left == 1);
            if write.write_all(&piece[last..]).await.is_err() {
                return write;
            }
        }
        // By then somebody was sent away.
        tokio::time::sleep(Duration::from_secs(8).saturating_sub(began.elapsed())).await;
        drop(write.write_all(b" ").await);
        // A client that ends its half would be taken for one that has gone.
        write
    };
    let mut answer = vec![0; 12];
    let (_write, answered) = tokio::join!(send, read.read_exact(&mut answer));
    drop(answered);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_wait_for_each_other_and_not_for_ever() {
    let world = World::start(Transport::Rest, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let before = memory(&world.backstay);
    let size = 60 * MIB;
    // Blanks are no JSON, which is found out when all of them are there.
    let start = format!(
        "{}content-type: application/json\r\ncontent-length: {size}\r\n\r\n",
        head(api, "POST /v2/services/haproxy/configuration/backends?version=1", &authorization)
    );
    let bodies: Vec<_> = (0..8).map(|_| tokio::spawn(send_slowly(api, start.clone(), size))).collect();
    let mut most = 0;
    while bodies.iter().any(|body| !body.is_finished()) {
        most = most.max(memory(&world.backstay));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut answers = Vec::new();
    for body in bodies {
        answers.push(body.await.unwrap());
    }
    let count = |status: &str| answers.iter().filter(|answer| answer.ends_with(status)).count();
    // On a busy machine the first ones may be done before others have come.
    assert!(count("422") >= 4 && count("503") >= 1 && count("422") + count("503") == 8, "{answers:?}");
    assert!(most.saturating_sub(before) < 300 * MIB, "{} MiB", (most - before) / MIB);
    is_served(api, &authorization).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_grpc_share_the_memory() {
    let world = World::start(Transport::Grpc, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let stream = TcpStream::connect(api).await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    // The beginning of a message of almost 16 MiB, and nothing more.
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let prefix = Bytes::from_static(&[0, 0, 0xff, 0xff, 0xf0, 0]);
            let body = tokio_stream::iter([Ok::<_, Infallible>(Frame::data(prefix))]).chain(tokio_stream::pending());
            let request = http::Request::post("http://localhost/backstay.runtime.v2.InfoService/GetInfo")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("authorization", &authorization)
                .body(StreamBody::new(body))
                .unwrap();
            let mut send = send.clone();
            tokio::spawn(async move {
                let response = send.send_request(request).await.unwrap();
                response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    while calls.iter().filter(|call| call.is_finished()).count() < 5 {
        assert!(Instant::now() < deadline, "all of them got room");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for call in calls {
        if call.is_finished() {
            assert_eq!(call.await.unwrap().as_deref(), Some("8"));
        } else {
            call.abort();
        }
    }
    // Small ones overtake.
    is_served(api, &authorization).await;
    connection.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_over_grpc_web_that_nobody_reads_share_the_memory() {
    let world = World::start(Transport::Rest, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let text = world.backstay.text() + &format!("# {}\n", "x".repeat(2000)).repeat(1000);
    let path = "/v2/services/haproxy/configuration/raw?skip_version=true&skip_reload=true";
    let stored = world.client.send(request("POST", path, "text/plain", text)).await;
    assert!(stored.status < 300, "{}", stored.text());
    let before = memory(&world.backstay);
    let stream = TcpStream::connect(api).await.unwrap();
    // The answers get no window.
    let mut handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    handshake.initial_stream_window_size(0);
    let (send, connection) = handshake.handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let path = "http://localhost/backstay.configuration.v2.RawConfigurationService/GetRawConfiguration";
    let call = |_| {
        let request = http::Request::post(path)
            .header("content-type", "application/grpc-web-text+proto")
            .header("authorization", &authorization)
            .body(http_body_util::Full::new(Bytes::from_static(b"AAAAAAA=")))
            .unwrap();
        let mut send = send.clone();
        tokio::spawn(async move { send.send_request(request).await })
    };
    let calls: Vec<_> = (0..150).map(call).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    let grown = memory(&world.backstay).saturating_sub(before) / MIB;
    assert!(grown < 260, "{grown} MiB for {} answers of 2 MB", answers.len());
    is_served(api, &authorization).await;
    connection.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_a_body_that_is_not_wanted_reads_why() {
    let world = World::start(Transport::Rest, &["--max-body-size", "1000000"]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let raw = "POST /v2/services/haproxy/configuration/raw?version=1";
    let large = " ".repeat(20 * MIB);
    let chunked = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let plain = |authorization: &str| {
        format!(
            "{}content-type: text/plain\r\ncontent-length: {}\r\n\r\n{large}",
            head(api, raw, authorization),
            large.len()
        )
    };
    let chunked = format!(
        "{}content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n{chunked}",
        head(api, raw, &authorization)
    );
    let foreign = plain(&authorization).replace("content-type", "origin: http://b.example\r\ncontent-type");
    for (request, wanted) in [
        (plain(&authorization), 413),
        (chunked, 413),
        (plain(&basic("admin", "wrong")), 401),
        (plain(""), 401),
        (foreign, 403),
        (plain(&authorization).replace("/raw", "/nothing"), 404),
    ] {
        let answer = exchange(api, request).await;
        assert_eq!(status(&answer), wanted, "{answer}");
    }
    // Who asks before is not asked to send.
    let asks = plain(&authorization).replace("content-type", "expect: 100-continue\r\ncontent-type");
    let answer = exchange(api, asks[..asks.find("\r\n\r\n").unwrap() + 4].to_owned()).await;
    assert_eq!(status(&answer), 413, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hangup_drops_nobody_who_comes_meanwhile() {
    let world = World::start(Transport::Rest, &[]);
    let (api, authorization) = (world.backstay.api, world.client.authorization().to_owned());
    let stop = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, authorization) = (stop.clone(), authorization.clone());
            tokio::spawn(async move {
                let mut number = 0;
                while !stop.is_cancelled() {
                    let mut stream = TcpStream::connect(api).await.unwrap();
                    // The request comes a moment after its connection.
                    tokio::time::sleep(Duration::from_millis(number % 7)).await;
                    let mut answer = Vec::new();
                    stream.write_all(format!("{}\r\n", head(api, INFO, &authorization)).as_bytes()).await.unwrap();
                    stream.read_to_end(&mut answer).await.unwrap();
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
                    number += 1;
                }
                number
            })
        })
        .collect();
    let pid = rustix::process::Pid::from_raw(i32::try_from(world.backstay.pid()).unwrap()).unwrap();
    for round in 1..=2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        // Beginning anew takes a while on a busy machine.
        let deadline = Instant::now() + Duration::from_mins(1);
        while world.backstay.log().matches("serving gRPC and REST").count() <= round {
            assert!(Instant::now() < deadline, "it does not begin anew");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 2);
    }
}
