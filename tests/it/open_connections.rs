//! Open connections are added up over nodes into a table that only receives. Any other one keeps to what it counts itself.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::aggregation::{Node, aggregation};
use crate::support::client::Transport;
use crate::support::haproxy::{binary, eventually, version};
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

/// An HAProxy and the server behind it.
struct Site {
    node: Node,
    server: TcpListener,
}

impl Site {
    fn run(name: &'static str) -> Site {
        let receives = if version() < (3, 2) { "" } else { "recv-only" };
        let server = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let silent = server.local_addr().unwrap().port().to_string();
        let body = BODY.replace("{receives}", receives).replace("{silent}", &silent);
        Site { node: Node::run_with(name, binary(), &body), server }
    }

    /// A request, and what its server has of it.
    fn open(&self) -> [TcpStream; 2] {
        let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.node.port))).unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-key: k\r\n\r\n").unwrap();
        [socket, self.server.accept().unwrap().0]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_of_all_nodes_are_added_up() {
    let sites = ["one", "two"].map(Site::run);
    let world = World::start(Transport::Grpc, &[]);
    let nodes = || sites.iter().map(|site| &site.node);
    let request = json!({"aggregation": aggregation(nodes(), json!({"target_table": "fleet/open"}))});
    world.ok("AggregationService.CreateAggregation", request).await;

    let mut sockets = vec![sites[0].open(), sites[0].open(), sites[1].open()];
    // A table that does not only receive takes all but what it counts itself.
    let expected = |open: u64| Some(if version() < (3, 2) { 0 } else { open });
    for (open, requests) in [(3, 3), (2, 3), (3, 4), (0, 4)] {
        sockets.truncate(open);
        if open > sockets.len() {
            sockets.push(sites[1].open());
        }
        let here = |data| nodes().map(|node| node.value("here", "k", data)).sum::<u64>();
        eventually(&format!("{open} are counted"), || {
            (here("conn_cur"), here("http_req_cnt")) == (open as u64, requests)
        });
        for node in nodes() {
            let total = |data| node.shown("fleet/open", "k", data);
            eventually(&format!("{open} open on {}", node.name), || {
                total("http_req_cnt") == Some(requests) && total("conn_cur") == expected(open as u64)
            });
        }
    }
}
