//! Backends that HAProxy takes on while it runs, and what versions without them say.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use backstay::error::Reason;

use crate::support::haproxy::version;
use crate::support::serve::serve;
use crate::support::world::{World, done, holds, is_part, over_both, refused, refused_saying, until};

over_both!(
    backends,
    covers [
        "RuntimeBackendService.ListRuntimeBackends",
        "RuntimeBackendService.AddRuntimeBackend",
        "RuntimeBackendService.PublishRuntimeBackend",
        "RuntimeBackendService.UnpublishRuntimeBackend",
        "RuntimeBackendService.DeleteRuntimeBackend"
    ]
);

const ADD: &str = "RuntimeBackendService.AddRuntimeBackend";
const PUBLISH: &str = "RuntimeBackendService.PublishRuntimeBackend";
const UNPUBLISH: &str = "RuntimeBackendService.UnpublishRuntimeBackend";
const DELETE: &str = "RuntimeBackendService.DeleteRuntimeBackend";

async fn backends(world: &mut World) {
    if world.is_rest() {
        // REST has no such calls.
        return;
    }
    let hello = json!({"name": "hello", "mode": "http", "published": true, "status": "UP"});
    let listed = world.ok("RuntimeBackendService.ListRuntimeBackends", json!({})).await;
    let found = listed["backends"].as_array().unwrap().iter().find(|backend| backend["name"] == "hello");
    assert!(found.is_some_and(|found| is_part(&hello, found)), "{listed}");
    if version() < (3, 4) {
        let of = |name: &str| json!({"name": name});
        let add = json!({"backend": {"name": "live"}, "from": "web"});
        for (method, request) in [(ADD, add), (PUBLISH, of("hello")), (UNPUBLISH, of("hello")), (DELETE, of("hello"))] {
            world.cases([(method, request, refused_saying(Reason::Unsupported, "3.4 and later have it"))]).await;
        }
        return;
    }
    with_traffic(world).await;
    refusals(world).await;
}

async fn with_traffic(world: &mut World) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |_| async { Response::new(Full::new(Bytes::from_static(b"from a live server"))) };
    let serving = tokio::spawn(serve(listener, answer));
    let defaults =
        json!({"name": "web", "mode": "http", "connect_timeout": 5000, "server_timeout": 5000, "client_timeout": 5000});
    world.ok("NamedDefaultsService.CreateNamedDefaults", json!({"defaults": defaults, "force_reload": true})).await;
    let worker = world.worker();
    let live = json!({"name": "live"});
    let server = json!({"name": "s1", "address": "127.0.0.1", "port": port});
    world
        .cases([
            (
                ADD,
                json!({"backend": live, "from": "web", "guid": "g:live"}),
                holds(json!({"backend": {"name": "live", "status": "UP", "mode": "http"}})),
            ),
            ("RuntimeServerService.AddRuntimeServer", json!({"backend": "live", "server": server}), done()),
            (
                "MapEntryService.CreateMapEntry",
                json!({"map": "paths.map", "entry": {"key": "/live", "value": "live"}, "persistence": "worker"}),
                done(),
            ),
        ])
        .await;
    world.visit_until("/live", "Hello").await;
    world.cases([(PUBLISH, live.clone(), holds(json!({"backend": {"name": "live", "published": true}})))]).await;
    assert_eq!(world.visit("/live").await.text(), "from a live server");
    world
        .cases([
            (DELETE, live.clone(), refused_saying(Reason::RuntimeRejected, "unpublished")),
            (UNPUBLISH, live.clone(), holds(json!({"backend": {"name": "live", "published": null}}))),
            (DELETE, live.clone(), refused_saying(Reason::RuntimeRejected, "without server")),
            ("RuntimeServerService.DeleteRuntimeServer", json!({"backend": "live", "name": "s1"}), done()),
        ])
        .await;
    assert!(world.visit("/live").await.text().contains("Hello"), "no rule may choose it");
    until("it serves no request any more", async || world.call(DELETE, live.clone()).await.is_ok()).await;
    world.cases([(DELETE, live, refused(Reason::ObjectNotFound))]).await;
    assert_eq!(world.worker(), worker, "nothing of this reloads haproxy");
    serving.abort();
}

async fn refusals(world: &mut World) {
    let add = |name: &str, more: Json| {
        let mut request = json!({"backend": {"name": name}, "from": "web"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let of = |name: &str| json!({"name": name});
    world
        .cases([
            (ADD, add("kept", json!({"guid": "g:1"})), done()),
            (ADD, add("kept", json!({})), refused(Reason::ObjectExists)),
            (ADD, add("main", json!({})), refused(Reason::ObjectExists)),
            (ADD, add("other", json!({"guid": "g:1"})), refused_saying(Reason::RuntimeRejected, "duplicate")),
            (ADD, add("other", json!({"from": "nobody"})), refused_saying(Reason::RuntimeRejected, "'nobody'")),
            (ADD, add("other", json!({"from": ""})), refused(Reason::InvalidField)),
            (ADD, add("", json!({})), refused(Reason::InvalidField)),
            (ADD, json!({"from": "web"}), refused(Reason::InvalidField)),
            (PUBLISH, of("nobody"), refused(Reason::ObjectNotFound)),
            (UNPUBLISH, of("nobody"), refused(Reason::ObjectNotFound)),
            (PUBLISH, of("main"), refused(Reason::ObjectNotFound)),
            (DELETE, of("nobody"), refused(Reason::ObjectNotFound)),
            (DELETE, of("hello"), refused(Reason::RuntimeRejected)),
            (PUBLISH, of("kept"), done()),
            (PUBLISH, of("kept"), done()),
            (DELETE, of("kept"), refused_saying(Reason::RuntimeRejected, "unpublished")),
        ])
        .await;
    for name in ["a b", "a;shutdown frontend main", "a\nb", "a/b", "é", "a\\", "<<"] {
        for (method, request) in [
            (ADD, add(name, json!({}))),
            (ADD, add("other", json!({"from": name}))),
            (ADD, add("other", json!({"guid": name}))),
            (PUBLISH, of(name)),
            (UNPUBLISH, of(name)),
            (DELETE, of(name)),
        ] {
            world.cases([(method, request, refused(Reason::InvalidField))]).await;
        }
    }
    // It goes with its worker.
    let backend = json!({"backend": {"name": "filed", "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", backend).await;
    until("the next worker has it not", async || {
        let listed = world.ok("RuntimeBackendService.ListRuntimeBackends", json!({})).await;
        let names: Vec<_> = listed["backends"].as_array().unwrap().iter().map(|found| &found["name"]).collect();
        names.contains(&&json!("filed")) && !names.contains(&&json!("kept"))
    })
    .await;
}
