//! Where the log goes, what it says, and what it never says.

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use super::Bench;
use crate::support::client::{Transport, basic, request};
use crate::support::haproxy::eventually;

fn read(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(name)).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_get_their_lines_in_their_form() {
    let mut bench = Bench::running();
    let yaml = "log_targets:
- log_to: file
  log_file: {dir}/logs/app.log
  log_level: info
  log_format: json
  log_types: [app]
- log_to: file
  log_file: {dir}/logs/access.log
  acl_format: '%h %u \"%r\" %>s %B'
  log_types: [access]
";
    std::fs::write(bench.path("d.yaml"), bench.filled(yaml)).unwrap();
    bench.start(&[]);
    let client = bench.client(Transport::Rest);
    client.call("InfoService.GetInfo", &json!({})).await.unwrap();
    let wrong = client.authorized(&basic("mallory", "secret-guess"));
    wrong.call("InfoService.GetInfo", &json!({})).await.unwrap_err();
    let grpc = bench.client(Transport::Grpc);
    grpc.call("InfoService.GetInfo", &json!({})).await.unwrap();
    grpc.call("BackendService.GetBackend", &json!({"name": "none"})).await.unwrap_err();
    grpc.authorized("").call("InfoService.GetInfo", &json!({})).await.unwrap_err();
    let mut asks = request("OPTIONS", "/v2/nothing", "", "");
    asks.headers_mut().insert("origin", "http://b.example".parse().unwrap());
    asks.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
    client.send(asks).await;
    let lines = [
        "127.0.0.1 admin \"GET /v2/info HTTP/1.1\" 200 ",
        "127.0.0.1 mallory \"GET /v2/info HTTP/1.1\" 401 ",
        "127.0.0.1 admin \"POST /backstay.runtime.v2.InfoService/GetInfo HTTP/2.0\" 200 ",
        // What failed is told by the trailers.
        "127.0.0.1 admin \"POST /backstay.configuration.v2.BackendService/GetBackend HTTP/2.0\" 404 ",
        "127.0.0.1 - \"POST /backstay.runtime.v2.InfoService/GetInfo HTTP/2.0\" 401 ",
        "127.0.0.1 admin \"OPTIONS /v2/nothing HTTP/1.1\" 204 ",
    ];
    for line in lines {
        eventually(line, || read(&bench, "logs/access.log").lines().any(|found| found.starts_with(line)));
    }
    let app = read(&bench, "logs/app.log");
    let objects: Vec<Json> = app.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let serving = objects.iter().find(|object| object["msg"] == "serving gRPC and REST").unwrap();
    assert_eq!((&serving["level"], &serving["address"]), (&json!("info"), &json!(bench.api.to_string())));
    assert!(!app.contains("answered") && !read(&bench, "logs/access.log").contains("serving"));
    for log in ["logs/app.log", "logs/access.log", "log"] {
        let text = read(&bench, log);
        assert!(!text.contains("secret-guess") && !text.contains("adminpwd"), "{log}: {text}");
    }

    // A log that was moved away is begun anew at a hangup.
    std::fs::rename(bench.path("logs/app.log"), bench.path("logs/app.1")).unwrap();
    bench.signal(Signal::HUP);
    eventually("a new file", || read(&bench, "logs/app.log").contains("starting anew"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settings_it_tells_of_requests_and_of_what_goes_wrong() {
    let mut bench = Bench::running();
    let mut flags = bench.flags();
    let at = flags.iter().position(|flag| flag == "--log-level").unwrap();
    flags.drain(at..at + 2);
    flags.push("--fid=/x".to_owned());
    bench.start_bare(&flags);
    bench.client(Transport::Rest).call("InfoService.GetInfo", &json!({})).await.unwrap();
    bench.logged("] \"GET /v2/info HTTP/1.1\" 200 ");
    let log = bench.log();
    assert!(log.contains("level=warning msg=\"--fid: not supported yet, no effect\""), "{log}");
    assert!(!log.contains("level=info"), "{log}");
}
