//! Changes of the configuration that HAProxy takes over while it runs: answered without a reload, and in effect.

use serde_json::{Value as Json, json};

use crate::support::backstay::Backstay;
use crate::support::client::{Client, Http, Transport, basic, request};

const V2: &str = "/v2/services/haproxy/configuration";

struct Bench {
    backstay: Backstay,
    rest: Client,
}

impl Bench {
    async fn new() -> Self {
        // A reload that is not wanted is far away.
        let backstay = Backstay::start(&["--reload-delay", "1h"]);
        let rest = Client::new(Transport::Rest, backstay.api, "").authorized(&basic("admin", &backstay.password));
        let bench = Bench { backstay, rest };
        for (path, body) in [
            ("backends", json!({"name": "app", "mode": "http", "balance": {"algorithm": "roundrobin"}})),
            ("servers?backend=app", json!({"name": "s1", "address": "127.0.0.1", "port": 9, "weight": 10})),
            ("frontends", json!({"name": "front", "mode": "http", "maxconn": 100})),
        ] {
            let answer = bench.write("POST", path, "force_reload=true", &body).await;
            assert_eq!(answer.status, 201, "{path}: {}", answer.text());
        }
        bench
    }

    async fn version(&self) -> i64 {
        let answer = self.rest.send(request("GET", &format!("{V2}/version"), "", "")).await;
        answer.text().trim().parse().unwrap()
    }

    async fn write(&self, method: &str, path: &str, more: &str, body: &Json) -> Http {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{V2}/{path}{joint}version={}&{more}", self.version().await);
        self.rest.send(request(method, &path, "application/json", body.to_string())).await
    }

    /// A PUT that has to be answered without a reload.
    async fn live(&self, path: &str, body: &Json) {
        let before = self.version().await;
        let answer = self.write("PUT", path, "", body).await;
        assert_eq!((answer.status, answer.header("reload-id")), (200, ""), "{body}: {}", answer.text());
        assert_eq!(self.version().await, before + 1);
    }

    fn server(&self, name: &str) -> Vec<String> {
        let state = self.backstay.ask("show servers state app").unwrap();
        let line = state.lines().find(|line| line.split(' ').nth(3) == Some(name));
        line.unwrap_or_default().split(' ').map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_server_are_put_without_a_reload() {
    let bench = Bench::new().await;
    let path = "servers/s1?backend=app";
    let mut server = json!({"name": "s1", "address": "127.0.0.1", "port": 9, "weight": 10});
    bench.live(path, &server).await;
    server["weight"] = json!(20);
    bench.live(path, &server).await;
    assert_eq!(bench.server("s1")[7], "20");
    server["address"] = json!("127.0.0.2");
    server["port"] = json!(10);
    bench.live(path, &server).await;
    assert_eq!((bench.server("s1")[4].as_str(), bench.server("s1")[18].as_str()), ("127.0.0.2", "10"));
    server["maintenance"] = json!("enabled");
    bench.live(path, &server).await;
    assert_eq!(bench.server("s1")[6], "1", "forced maintenance");
    server["maintenance"] = json!("disabled");
    bench.live(path, &server).await;
    assert_eq!(bench.server("s1")[6], "0");
    let text = bench.backstay.text();
    assert!(text.contains("server s1 127.0.0.2:10") && text.contains("weight 20"), "{text}");
    bench.live("frontends/front", &json!({"name": "front", "mode": "http", "maxconn": 90})).await;
    assert!(bench.backstay.ask("show stat front 1 -1").unwrap().contains(",90,"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_haproxy_cannot_take_over_is_a_reload() {
    let bench = Bench::new().await;
    let path = "servers/s1?backend=app";
    for (path, server) in [
        // A value that is gone, and another field.
        (path, json!({"name": "s1", "address": "127.0.0.1", "port": 9})),
        (path, json!({"name": "s1", "address": "127.0.0.1", "port": 9, "weight": 11, "inter": 3000})),
        ("backends/app", json!({"name": "app", "mode": "http", "balance": {"algorithm": "roundrobin"}})),
        ("frontends/front", json!({"name": "front", "mode": "http"})),
    ] {
        let answer = bench.write("PUT", path, "", &server).await;
        assert_eq!(answer.status, 202, "{server}: {}", answer.text());
        assert_ne!(answer.header("reload-id"), "", "{server}");
    }
    let created = json!({"name": "s2", "address": "127.0.0.1", "port": 8});
    let answer = bench.write("POST", "servers?backend=app", "", &created).await;
    assert_eq!((answer.status, answer.header("reload-id").is_empty()), (202, false), "clients of /v2 rely on it");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_come_and_go_over_grpc_without_a_reload() {
    let bench = Bench::new().await;
    let grpc =
        Client::new(Transport::Grpc, bench.backstay.api, "").authorized(&basic("admin", &bench.backstay.password));
    let server = json!({"name": "s2", "address": "127.0.0.1", "port": 8, "check": "enabled"});
    let version = bench.version().await;
    let create = json!({"backend": "app", "data": server, "server": server, "version": version});
    let create = fitting("ServerService.CreateServer", &create);
    let answer = grpc.call("ServerService.CreateServer", &create).await.unwrap();
    assert_eq!(answer.message["reload_id"], Json::Null, "{}", answer.message);
    let state = bench.server("s2");
    assert_eq!((state[4].as_str(), state[6].as_str()), ("127.0.0.1", "0"), "added and ready: {state:?}");
    let delete = json!({"backend": "app", "name": "s2", "version": version + 1});
    let answer = grpc.call("ServerService.DeleteServer", &delete).await.unwrap();
    assert_eq!(answer.message["reload_id"], Json::Null, "{}", answer.message);
    assert!(bench.server("s2").len() < 2, "deleted");
    assert!(!bench.backstay.text().contains("server s2"));
}

/// A request without what the method has no field for.
fn fitting(name: &str, request: &Json) -> Json {
    let method = crate::support::client::method(name);
    let input = &crate::support::client::tables().messages[method.input];
    let fields = request.as_object().unwrap().iter().filter(|(name, _)| input.by_json.contains_key(name.as_str()));
    Json::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}
