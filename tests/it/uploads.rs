//! Files of any size over REST: byte for byte, within the limit, and whole or not at all.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use serde_json::json;

use crate::support::client::{Transport, request};
use crate::support::world::{World, until};

const FILES: &str = "/v2/services/haproxy/storage/general";
const MAPS: &str = "/v2/services/haproxy/storage/maps";

/// Bytes without a pattern that could hide a missing piece.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

fn form(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"{name}\"\r\n\r\n");
    [head.as_bytes(), content, b"\r\n--B--\r\n"].concat()
}

/// The highest memory that the program has taken, in KiB.
fn peak(world: &World) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", world.backstay.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn folder(world: &World, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(world.backstay.folder().join(name)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_any_size_come_back_byte_for_byte() {
    let world = World::start(Transport::Rest, &[]);
    let send = async |method: &str, path: &str, kind: &str, body: Vec<u8>| {
        world.client.send(request(method, path, kind, body)).await
    };
    let multipart = "multipart/form-data; boundary=B";
    for size in [0, 1, 1 << 10, (64 << 10) + 1, 5 << 20] {
        let content = bytes(size);
        let name = format!("f{size}.bin");
        let answer = send("POST", FILES, multipart, form(&name, &content)).await;
        assert_eq!((answer.status, answer.json()["size"].as_u64()), (201, Some(size as u64)), "{}", answer.text());
        let path = format!("{FILES}/{name}");
        let answer = send("GET", &path, "", Vec::new()).await;
        assert!(answer.status == 200 && answer.body == content, "{size}: {}", answer.status);
        let turned: Vec<u8> = content.into_iter().rev().collect();
        let answer = send("PUT", &format!("{path}?skip_reload=true"), "text/plain", turned.clone()).await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert!(send("GET", &path, "", Vec::new()).await.body == turned, "{size}");
    }

    // What is written while it arrives is never in memory.
    let size = 128 << 20;
    let before = peak(&world);
    let head = "--B\r\ncontent-disposition: form-data; name=\"file_upload\"; filename=\"big.map\"\r\n\r\n";
    let tail = b"\r\n--B--\r\n";
    let mut socket = TcpStream::connect(world.client.api).unwrap();
    let length = head.len() + size + tail.len();
    write!(socket, "POST {MAPS} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n", world.client.authorization()).unwrap();
    write!(socket, "content-type: {multipart}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{head}").unwrap();
    let piece = bytes(1 << 20);
    for _ in 0..size >> 20 {
        socket.write_all(&piece).unwrap();
    }
    socket.write_all(tail).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains(&format!("\"size\":{size}")), "{answer}");
    assert!(std::fs::read(world.backstay.folder().join("maps/big.map")).unwrap() == piece.repeat(size >> 20));
    let grown = peak(&world).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB for a file of {size} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_or_cut_off_leaves_nothing() {
    let flags = ["--max-upload-size", "1000", "--max-body-size", "2000"];
    let world = World::start(Transport::Rest, &flags);
    let (files, maps) = (folder(&world, "general"), folder(&world, "maps"));
    let multipart = "multipart/form-data; boundary=B";
    for (path, name) in [(FILES, "x.bin"), (MAPS, "x.map")] {
        let answer = world.client.send(request("POST", path, multipart, form(name, &bytes(1001)))).await;
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (413, Some(413)), "{}", answer.text());
        assert!(answer.text().contains("1000 bytes"), "{}", answer.text());
    }
    // A certificate is read whole, so that its limit is the other one.
    let certificates = "/v2/services/haproxy/storage/ssl_certificates";
    let answer = world.client.send(request("POST", certificates, multipart, form("x.pem", &bytes(2001)))).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("2000 bytes"), "{}", answer.text());
    let raw = "/v2/services/haproxy/configuration/raw?skip_version=true";
    let answer = world.client.send(request("POST", raw, "text/plain", vec![b'\n'; 2001])).await;
    assert_eq!(answer.status, 413, "{}", answer.text());

    // Without a length the limit is found on the way; a client that goes away half-way says nothing at all.
    let open = |more: &str| {
        let mut socket = TcpStream::connect(world.client.api).unwrap();
        write!(socket, "POST {FILES} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n", world.client.authorization())
            .unwrap();
        write!(socket, "content-type: {multipart}\r\nconnection: close\r\n{more}\r\n").unwrap();
        socket
    };
    let mut socket = open("transfer-encoding: chunked\r\n");
    let body = form("x.bin", &bytes(1001));
    write!(socket, "{:x}\r\n", body.len()).unwrap();
    socket.write_all(&body).unwrap();
    socket.write_all(b"\r\n0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let body = form("x.bin", &bytes(900));
    let mut socket = open(&format!("content-length: {}\r\n", body.len()));
    socket.write_all(&body[..500]).unwrap();
    until("the upload has begun", async || folder(&world, "general").len() > files.len()).await;
    socket.shutdown(Shutdown::Both).unwrap();
    until("nothing is left", async || folder(&world, "general") == files).await;
    assert_eq!(folder(&world, "maps"), maps);
    let answer = world.client.send(request("GET", &format!("{FILES}/x.bin"), "", "")).await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/octet-stream"));
    assert_eq!(answer.json()["code"], json!(404));
}
