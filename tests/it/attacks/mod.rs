//! What people try who have no rights: pages in the browsers of others, guesses of passwords, floods.

mod floods;
mod guesses;
mod pages;
mod rights;
mod sessions;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The beginning of a request over HTTP/1.1, which is the last one of its connection.
fn head(api: SocketAddr, line: &str, authorization: &str) -> String {
    let credentials =
        if authorization.is_empty() { String::new() } else { format!("authorization: {authorization}\r\n") };
    format!("{line} HTTP/1.1\r\nhost: {api}\r\nconnection: close\r\n{credentials}")
}

/// Sends bytes as they are, all of them before it reads, and returns everything that comes back until the server closes.
async fn exchange(api: SocketAddr, request: impl Into<Vec<u8>>) -> String {
    let request = request.into();
    let mut stream = TcpStream::connect(api).await.unwrap();
    let shown = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
    stream.write_all(&request).await.unwrap_or_else(|error| panic!("{error} while it sends {shown}"));
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    let read = read.unwrap_or_else(|_| panic!("the connection stays open after {shown}"));
    assert!(read.is_ok() || !answer.is_empty(), "{read:?} after {shown}");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status of the first answer.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}
