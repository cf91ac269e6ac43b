//! Sessions that several share, with a listener in the place of HAProxy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::peers::{KeyType, Lesson, Message, Session, Sink, Table, Updates};
use crate::runtime::Address;
use crate::stick_table::{Follower, Lines, Peer};

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<u8>>>);

impl Notes {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    async fn wait(&self, expected: &[&str]) {
        let reached = async {
            while *self.0.lock().unwrap() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(Duration::from_secs(10), reached).await.is_ok(), "{:?}", self.0.lock().unwrap());
    }
}

impl Sink for Notes {
    fn resync(&mut self) {
        self.add("resync");
    }

    fn resynced(&mut self) {
        self.add("resynced");
    }

    fn table(&mut self, table: &Table) {
        self.add(table.name.clone());
    }

    fn updates(&mut self, _: &Table, updates: Updates<'_>) {
        updates.iter().for_each(|update| self.add(String::from_utf8_lossy(update.key)));
    }
}

impl Follower for Notes {
    fn teach(&mut self, session: &mut Session) -> bool {
        let mut lessons = self.1.lock().unwrap();
        let Some(key) = lessons.pop().filter(|_| session.has_room()) else { return false };
        session.teach(&table(), Lesson { key: &[key], expires_in: None, values: &[] });
        !lessons.is_empty()
    }

    fn resync_after(&self) -> Duration {
        Duration::from_mins(5)
    }

    fn ended(&mut self, _: &str, _: Duration) {
        self.add("ended");
    }
}

fn table() -> Table {
    Table {
        id: 1,
        name: "t".into(),
        key_type: KeyType::String,
        key_length: 9,
        columns: Vec::new(),
        expire: 0,
        unknown: None,
    }
}

async fn expect(socket: &mut UnixStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    timeout(Duration::from_secs(10), socket.read_exact(&mut read)).await.expect("in time").unwrap();
    assert_eq!(read, bytes, "{}", String::from_utf8_lossy(&read));
}

/// Reads until these bytes have come.
async fn until(socket: &mut UnixStream, bytes: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(bytes) {
        let byte = timeout(Duration::from_secs(10), socket.read_u8()).await;
        read.push(byte.unwrap_or_else(|_| panic!("in time: {read:?}")).unwrap());
    }
}

async fn send(socket: &mut UnixStream, messages: &[Message<'_>]) {
    let mut out = Vec::new();
    for message in messages {
        message.put(&mut out);
    }
    socket.write_all(&out).await.unwrap();
}

#[tokio::test]
async fn a_session_is_shared_and_who_comes_later_learns_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let lines = Lines::default();
    let peer = |remote: &str| Peer {
        address: Address::Unix(path.clone()),
        local: "us".into(),
        remotes: vec![remote.to_owned()],
    };
    let (one, two) = (Notes::default(), Notes::default());
    let first = lines.join(peer("hap1"), Box::new(one.clone()));
    let (mut socket, _) = listener.accept().await.unwrap();
    let greeting = format!("HAProxyS 2.1\nhap1\nus {} 1\n", std::process::id());
    expect(&mut socket, greeting.as_bytes()).await;
    socket.write_all(b"200\n").await.unwrap();
    expect(&mut socket, &[0, 4, 0, 0]).await;
    let body = [1, b'k'];
    let update = Message::Update { number: Some(1), expires_in: None, body: &body };
    send(&mut socket, &[Message::Define(table()), update.clone()]).await;
    one.wait(&["resync", "t", "k"]).await;
    // It comes in the middle: it hears nothing before all entries come anew.
    let second = lines.join(peer("hap2"), Box::new(two.clone()));
    send(&mut socket, &[Message::ResyncFinished]).await;
    one.wait(&["resync", "t", "k", "resynced", "resync", "t"]).await;
    send(&mut socket, &[update, Message::ResyncFinished]).await;
    two.wait(&["resync", "t", "k", "resynced"]).await;
    drop(first);
    one.wait(&["resync", "t", "k", "resynced", "resync", "t", "k", "resynced"]).await;
    // What one of them teaches is sent when it says so, and when HAProxy asks for it.
    let mut lesson = Vec::new();
    Message::Define(table()).put(&mut lesson);
    Message::Update { number: Some(1), expires_in: None, body: &[1, b'x'] }.put(&mut lesson);
    two.1.lock().unwrap().push(b'x');
    second.wake();
    until(&mut socket, &lesson).await;
    lesson.clear();
    for (number, key) in [(2, b'z'), (3, b'y')] {
        Message::Update { number: Some(number), expires_in: None, body: &[1, key] }.put(&mut lesson);
    }
    Message::ResyncFinished.put(&mut lesson);
    two.1.lock().unwrap().extend(b"yz");
    send(&mut socket, &[Message::ResyncRequest]).await;
    until(&mut socket, &lesson).await;
    drop(socket);
    two.wait(&["resync", "t", "k", "resynced", "ended"]).await;
    // Only the name that is left is tried again; without anybody nothing is.
    let (mut socket, _) = listener.accept().await.unwrap();
    expect(&mut socket, greeting.replace("hap1", "hap2").as_bytes()).await;
    drop(second);
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await.expect("an end").unwrap();
    assert!(rest.is_empty());
}
