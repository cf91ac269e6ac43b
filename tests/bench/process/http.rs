//! A plain client of HTTP/1.1 that keeps its connection, and the least that a server of the same bytes costs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::time::ClockId;

use crate::support::random;

/// What an answer says before its body.
#[derive(Default)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) version: Option<i64>,
    pub(crate) reload: Option<String>,
    /// Bytes of the body; without it they come in chunks.
    length: Option<usize>,
}

pub(crate) struct Client {
    socket: BufReader<TcpStream>,
    /// What bodies of requests are.
    pub(crate) content: &'static str,
    headers: String,
    line: String,
}

impl Client {
    /// A connection for a user, whose password is `bench`.
    pub(crate) fn open(port: u16, user: &str) -> std::io::Result<Self> {
        let socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
        socket.set_nodelay(true)?;
        let credentials = STANDARD.encode(format!("{user}:bench"));
        let headers = format!("host: x\r\nauthorization: Basic {credentials}\r\n");
        Ok(Client {
            socket: BufReader::with_capacity(1 << 16, socket),
            content: "application/json",
            headers,
            line: String::new(),
        })
    }

    /// Sends a request, and hands over the body of its answer piece by piece.
    pub(crate) fn read(&mut self, method: &str, path: &str, body: &str, mut sink: impl FnMut(&[u8])) -> Head {
        let (headers, content, length) = (&self.headers, self.content, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}content-type: {content}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.socket.get_mut().write_all(request.as_bytes()).expect("backstay takes requests");
        let head = self.head();
        match head.length {
            Some(length) => self.take(length, &mut sink),
            None if head.status == 204 => {}
            None => loop {
                let size = usize::from_str_radix(self.line(), 16).expect("the size of a chunk");
                self.take(size, &mut sink);
                self.line();
                if size == 0 {
                    break;
                }
            },
        }
        head
    }

    /// Sends a request that must succeed; the body of the answer.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> (Head, Vec<u8>) {
        let mut answer = Vec::new();
        let head = self.read(method, path, body, |piece| answer.extend_from_slice(piece));
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(500)]);
        assert!((200..300).contains(&head.status), "{method} {path}: {} {shown}", head.status);
        (head, answer)
    }

    pub(crate) fn get(&mut self, path: &str) -> Vec<u8> {
        self.call("GET", path, "").1
    }

    fn head(&mut self) -> Head {
        let status = self.line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut head = Head { status, ..Head::default() };
        while let Some((name, value)) = self.line().split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = value.parse().ok(),
                "configuration-version" => head.version = value.parse().ok(),
                "reload-id" => head.reload = Some(value.to_owned()),
                _ => {}
            }
        }
        head
    }

    fn line(&mut self) -> &str {
        self.line.clear();
        assert!(self.socket.read_line(&mut self.line).expect("an answer") > 0, "backstay closed the connection");
        self.line.trim_end()
    }

    fn take(&mut self, mut length: usize, sink: &mut impl FnMut(&[u8])) {
        while length > 0 {
            let piece = self.socket.fill_buf().expect("a body");
            assert!(!piece.is_empty(), "the body ends too early");
            let now = piece.len().min(length);
            sink(&piece[..now]);
            self.socket.consume(now);
            length -= now;
        }
    }
}

/// Requests over so many connections, each of them with its own sequence of numbers for the paths. Returns how many there
/// were, a multiple of the connections.
pub(crate) fn hammer(
    port: u16,
    user: &str,
    connections: u64,
    requests: u64,
    path: impl Fn(u32) -> String + Sync,
) -> u64 {
    let each = requests / connections;
    let worker = |number: u64| {
        let (mut client, mut seed) = (Client::open(port, user).expect("a connection"), number + 1);
        for _ in 0..each {
            client.get(&path(random(&mut seed)));
        }
    };
    std::thread::scope(|scope| {
        for number in 0..connections {
            let worker = &worker;
            scope.spawn(move || worker(number));
        }
    });
    each * connections
}

/// Processor time for the same requests when a thread for each connection has their answer in memory and looks at nothing.
pub(crate) fn floor(body: &[u8], connections: u64, requests: u64) -> Duration {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    let serve = |mut socket: TcpStream| {
        socket.set_nodelay(true).expect("an option");
        let now = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock"));
        let before = now();
        let mut request = [0; 4096];
        while let Ok(1..) = socket.read(&mut request) {
            socket.write_all(&answer).expect("the client reads");
        }
        now().saturating_sub(before)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| hammer(port, "admin", connections, requests, |_| "/".to_owned()));
        let serve = &serve;
        let accept = |_| listener.accept().expect("a connection").0;
        let servers: Vec<_> = (0..connections).map(accept).map(|socket| scope.spawn(move || serve(socket))).collect();
        servers.into_iter().map(|server| server.join().expect("a server")).sum()
    })
}
