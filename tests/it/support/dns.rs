//! A DNS server that knows one address for every name.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// A running server; it ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    record: Arc<Mutex<Ipv4Addr>>,
}

impl Dns {
    pub(crate) async fn start(record: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
        let dns = Dns { address: socket.local_addr().expect("an address"), record: Arc::new(Mutex::new(record)) };
        let record = Arc::clone(&dns.record);
        tokio::spawn(async move {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query).await {
                let record = *record.lock().unwrap();
                if let Some(answer) = answer(&query[..length], record) {
                    drop(socket.send_to(&answer, client).await);
                }
            }
        });
        dns
    }

    /// From now on every name has this address.
    pub(crate) fn set(&self, record: Ipv4Addr) {
        *self.record.lock().unwrap() = record;
    }
}

/// The answer to a query: the address for type A, no records for other types.
fn answer(query: &[u8], record: Ipv4Addr) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let end = HEADER + name + 1 + 4;
    let question = query.get(HEADER..end)?;
    let is_a = question[name + 1..name + 3] == [0, 1];
    let mut out = query[..2].to_vec();
    out.extend_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    out.extend_from_slice(question);
    if is_a {
        // The name of the question, A, IN, a time to live of 1 s, four bytes.
        out.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend_from_slice(&record.octets());
    }
    Some(out)
}
