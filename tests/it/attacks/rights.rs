//! Every method and every route: without credentials, from a foreign page, and where nothing may be changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use http::HeaderMap;
use serde_json::{Value as Json, json};

use backstay::schema::tables::{Field, HttpRule, Kind, Method};

use crate::support::client::{Client, Http, Transport, request, short_name, tables};
use crate::support::world::World;

const SAMPLES: &str = include_str!("../../data/sweep/samples.jsonl");
/// What anybody may read.
const OPEN: [&str; 4] = ["/", "/healthz", "/v2/docs", "/swagger.json"];
/// Pages that are no methods.
const PAGES: [&str; 4] = ["/v2/specification", "/v2/specification_openapiv3", "/v2/services", "/v2"];

/// All routes with something in place of their parameters.
fn routes() -> Vec<(String, String)> {
    let path = |rule: &HttpRule| {
        let parts = rule.path.split('/').map(|part| match part.split_once('}') {
            Some((_, suffix)) => format!("x{suffix}"),
            None => part.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    };
    let rules = tables().methods.iter().flat_map(|method| &method.http);
    let pages = PAGES.iter().map(|page| ("GET".to_owned(), (*page).to_owned()));
    rules.map(|rule| (rule.method.to_string(), path(rule))).chain(pages).collect()
}

async fn send(client: &Client, method: &str, path: &str, kind: &str, headers: &[(&'static str, &str)]) -> Http {
    let mut call = request(method, path, kind, if kind.contains("grpc") { &[0; 5][..] } else { b"" });
    for (name, value) in headers {
        call.headers_mut().insert(*name, value.parse().unwrap());
    }
    client.send(call).await
}

fn status_of_grpc(answer: &Http) -> String {
    let find = |headers: &HeaderMap| headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    find(&answer.headers).unwrap_or_else(|| answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_without_credentials() {
    let world = World::start(Transport::Rest, &[]);
    let version = world.version().await;
    for authorization in ["", "Basic !", "Bearer x", "Basic YWRtaW4="] {
        let stranger = world.client.authorized(authorization);
        // What is no credential at all is looked at in one place.
        let most = if authorization.is_empty() { usize::MAX } else { 10 };
        for (method, path) in routes().into_iter().take(most) {
            let answer = send(&stranger, &method, &path, "application/json", &[]).await;
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"API\"", "{method} {path}");
            assert_eq!(answer.header("configuration-version"), "", "{method} {path}");
        }
        let services = ["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/no.Such/Method"];
        let methods = tables().methods.iter().map(|method| &*method.path).chain(services);
        for path in methods.take(most) {
            let status = stranger.unary(path, Vec::new()).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{path}: {status:?}");
            let answer = send(&stranger, "POST", path, "application/grpc-web", &[]).await;
            assert_eq!(status_of_grpc(&answer), "16", "{path}");
        }
        for path in OPEN {
            let answer = send(&stranger, "GET", path, "", &[]).await;
            assert_eq!((answer.status, answer.header("configuration-version")), (200, ""), "{path}");
        }
    }
    assert_eq!(world.version().await, version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_for_a_foreign_page() {
    let world = World::start(Transport::Rest, &[]);
    let version = world.version().await;
    let foreign: [(&'static str, &str); 1] = [("origin", "http://b.example")];
    for (method, path) in routes().into_iter().chain(OPEN.map(|path| ("GET".to_owned(), path.to_owned()))) {
        let answer = send(&world.client, &method, &path, "application/json", &foreign).await;
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        // Reading is harmless: the page does not see the answer.
        if method != "GET" {
            for site in ["cross-site", "same-site"] {
                let answer = send(&world.client, &method, &path, "", &[("sec-fetch-site", site)]).await;
                assert_eq!(answer.status, 403, "{method} {path} {site}: {}", answer.text());
            }
        }
    }
    for method in &tables().methods {
        for headers in [foreign, [("sec-fetch-site", "cross-site")]] {
            let answer = send(&world.client, "POST", &method.path, "application/grpc-web+proto", &headers).await;
            assert_eq!((answer.status, &*status_of_grpc(&answer)), (200, "7"), "{}", method.path);
        }
    }
    assert_eq!(world.version().await, version);
}

/// An object of each resource.
fn samples() -> BTreeMap<String, Json> {
    let mut found = BTreeMap::new();
    for sample in SAMPLES.lines().filter(|line| !line.contains("{dir}")) {
        let sample: Json = serde_json::from_str(sample).unwrap();
        found.entry(sample["r"].as_str().unwrap().to_owned()).or_insert_with(|| sample["o"].clone());
    }
    found
}

/// A request that has everything it needs.
fn plausible(method: &Method, samples: &BTreeMap<String, Json>, version: i64) -> Json {
    let input = &tables().messages[method.input];
    let in_path = |field: &Field| {
        method.http.iter().any(|rule| {
            rule.path.contains(&format!("{{{}}}", field.name)) || rule.path.contains(&format!("{{{}=**}}", field.name))
        })
    };
    let mut request = serde_json::Map::new();
    for field in &input.fields {
        let resource = method.resource.is_some() && method.resource.map(Kind::Message) == Some(field.kind);
        if &*field.name == "version" {
            request.insert(field.json.to_string(), json!(version));
        } else if resource || field.check.required || in_path(field) || (field.number <= 5 && field.kind != Kind::Bool)
        {
            let value = match field.kind {
                Kind::Message(id) => {
                    let name = tables().messages[id].full_name.rsplit('.').next().unwrap_or_default().to_owned();
                    samples.get(&name).cloned().unwrap_or_else(|| json!({}))
                }
                Kind::Enum(id) => {
                    let first = tables().enums[id].values.iter().find(|value| !value.token.is_empty());
                    json!(first.map(|value| value.token.to_string()))
                }
                Kind::Bool => json!(true),
                Kind::Int32 | Kind::Int64 | Kind::Double => json!(0),
                Kind::String if &*field.name == "userlist" => json!("controller"),
                Kind::String | Kind::Bytes => json!("main"),
            };
            request.insert(field.json.to_string(), if field.repeated { json!([value]) } else { value });
        }
    }
    Json::Object(request)
}

/// Everything that stands in files which are not our own, by path.
fn files(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && entry.file_name() != "state" {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.insert(entry.path().display().to_string(), std::fs::read(entry.path()).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_may_be_changed_nothing_is() {
    let world = World::start(Transport::Grpc, &["--read-only"]);
    let rest = Client::new(Transport::Rest, world.backstay.api, &world.backstay.password);
    let stand = || {
        let mut found = BTreeMap::new();
        files(&world.backstay.folder(), &mut found);
        found.retain(|path, _| !path.ends_with("haproxy.pid"));
        found
    };
    let (before, version, samples) = (stand(), world.version().await, samples());
    let mut changed = BTreeSet::new();
    let of_files = ["/backstay.configuration.", "/backstay.storage.", "/backstay.spoe.", "/backstay.discovery."];
    for method in &tables().methods {
        let name = short_name(method);
        let reads = ["Get", "List", "Watch", "Export"].iter().any(|verb| name.contains(&format!(".{verb}")));
        if reads || method.streaming {
            continue;
        }
        let request = plausible(method, &samples, version);
        for client in [&world.client, &rest] {
            let may = !of_files.iter().any(|package| method.path.starts_with(package));
            if client.has(&name) && client.call(&name, &request).await.is_ok() && !may {
                changed.insert(name.clone());
            }
        }
    }
    assert_eq!(stand(), before);
    assert_eq!(world.version().await, version);
    assert!(changed.is_empty(), "{changed:?}");
}
