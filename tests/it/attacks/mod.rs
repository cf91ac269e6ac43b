//! What people try who have no rights: pages in the browsers of others, guesses of passwords, floods.

mod pages;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes as they are, and returns everything that comes back until the server closes.
async fn exchange(api: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(api).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let shown = String::from_utf8_lossy(request);
    assert!(read.is_ok(), "the connection stays open after {}", &shown[..shown.floor_char_boundary(500)]);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status of the first answer.
fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {answer:?}"))
}
