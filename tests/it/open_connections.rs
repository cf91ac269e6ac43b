//! Open connections are added up over nodes into a table that only receives. Any other one keeps to what it counts itself.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::support::client::Transport;
use crate::support::haproxy::{Haproxy, binary, eventually, free_port, version};
use crate::support::world::World;

/// A request stays open until its server closes the connection.
const BODY: &str = "
global
    localpeer {name}
peers fleet
    bind unix@{dir}/peers.sock mode 600
    server {name}
    server backstay 127.0.0.1:1
    table open type string len 40 size 1k expire 1m {receives} store conn_cur,http_req_cnt
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-key) table here
    default_backend silent
backend silent
    timeout server 1m
    server s 127.0.0.1:{silent}
backend here
    stick-table type string len 40 size 1k expire 1m store conn_cur,http_req_cnt peers fleet
";

struct Node {
    name: &'static str,
    haproxy: Haproxy,
    port: u16,
    silent: TcpListener,
}

impl Node {
    fn run(name: &'static str) -> Node {
        let (port, receives) = (free_port(), if version() < (3, 2) { "" } else { "recv-only" });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let silent = listener.local_addr().unwrap().port();
        let body = BODY.replace("{name}", name).replace("{receives}", receives);
        let body = body.replace("{port}", &port.to_string()).replace("{silent}", &silent.to_string());
        Node { name, haproxy: Haproxy::run_with(binary(), &body), port, silent: listener }
    }

    /// A request, and what its server has of it.
    fn open(&self) -> [TcpStream; 2] {
        let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-key: k\r\n\r\n").unwrap();
        [socket, self.silent.accept().unwrap().0]
    }

    fn value(&self, table: &str, data: &str) -> Option<u64> {
        let shown = self.haproxy.ask(&format!("show table {table} key k")).unwrap_or_default();
        let found = shown.split_whitespace().find_map(|word| word.strip_prefix(data)?.strip_prefix('='));
        found.map(|value| value.parse().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_of_all_nodes_are_added_up() {
    let nodes = ["one", "two"].map(Node::run);
    let world = World::start(Transport::Grpc, &[]);
    let joined = nodes.iter().map(|node| {
        let address = node.haproxy.dir().join("peers.sock");
        json!({"name": node.name, "address": address, "local_peer": node.name})
    });
    let nodes_of = joined.collect::<Vec<_>>();
    let aggregation = json!({"name": "open", "nodes": nodes_of, "source_table": "here", "target_table": "fleet/open"});
    world.ok("AggregationService.CreateAggregation", json!({"aggregation": aggregation})).await;

    let mut sockets = vec![nodes[0].open(), nodes[0].open(), nodes[1].open()];
    // A table that does not only receive takes all but what it counts itself.
    let expected = |open: u64| Some(if version() < (3, 2) { 0 } else { open });
    for (open, requests) in [(3, 3), (2, 3), (3, 4), (0, 4)] {
        sockets.truncate(open);
        if open > sockets.len() {
            sockets.push(nodes[1].open());
        }
        let here = |data| nodes.iter().filter_map(|node| node.value("here", data)).sum::<u64>();
        eventually(&format!("{open} are counted"), || {
            (here("conn_cur"), here("http_req_cnt")) == (open as u64, requests)
        });
        for node in &nodes {
            let total = |data| node.value("fleet/open", data);
            eventually(&format!("{open} open on {}", node.name), || {
                total("http_req_cnt") == Some(requests) && total("conn_cur") == expected(open as u64)
            });
        }
    }
}
