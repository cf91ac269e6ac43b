//! What HAProxy warns of when it accepts a change reaches the one who made it, once.

use serde_json::{Value as Json, json};

use crate::support::client::Transport;
use crate::support::world::{World, over_both};

over_both!(
    told_once,
    covers ["ServerService.CreateServer", "BackendService.DeleteBackend", "TransactionService.CommitTransaction"]
);

/// What an answer tells of.
fn told(answer: &Json) -> Vec<String> {
    let warnings = answer["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

async fn told_once(world: &mut World) {
    // What is warned of before anybody has looked is not told as if it were new.
    let text = world.backstay.text();
    let bare = "defaults bare\n  mode http\nbackend old from bare\n  server s 127.0.0.1:9\n";
    std::fs::write(world.backstay.config(), text + bare).unwrap();
    let known = async || {
        let old = json!({"name": "old"});
        world.client.call("BackendService.GetBackend", &old).await.is_ok()
    };
    crate::support::world::until("the edit is served", known).await;
    let server = |backend: &str| json!({"parent_type": "backend", "parent_name": backend, "server": {"name": "s", "address": "127.0.0.1", "port": 9}});
    let backend = |name: &str| json!({"backend": {"name": name, "from": "bare"}});
    assert_eq!(told(&world.ok("BackendService.CreateBackend", backend("b1")).await), Vec::<String>::new());
    let warned = told(&world.ok("ServerService.CreateServer", server("b1")).await);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("haproxy warns: missing timeouts for backend 'b1'. While not"), "{warned:?}");
    assert!(!warned[0].contains(['|', '\n']), "{warned:?}");

    // Nor is it told again, or with changes of something else.
    assert_eq!(told(&world.ok("BackendService.CreateBackend", backend("b2")).await), Vec::<String>::new());
    let warned = told(&world.ok("ServerService.CreateServer", server("b2")).await);
    assert!(warned.len() == 1 && warned[0].contains("'b2'"), "{warned:?}");
    let gone = world.ok("BackendService.DeleteBackend", json!({"name": "b1"})).await;
    assert_eq!(told(&gone), Vec::<String>::new());

    // A transaction is checked as a whole.
    let version = world.version().await;
    let begun = world.ok("TransactionService.BeginTransaction", json!({"version": version})).await;
    let id = begun["transaction"]["id"].clone();
    let within = |mut request: Json| {
        request["transaction_id"] = id.clone();
        request
    };
    assert_eq!(told(&world.ok("BackendService.CreateBackend", within(backend("b3"))).await), Vec::<String>::new());
    assert_eq!(told(&world.ok("ServerService.CreateServer", within(server("b3"))).await), Vec::<String>::new());
    let warned = told(&world.ok("TransactionService.CommitTransaction", json!({"id": id})).await);
    assert!(warned.len() == 1 && warned[0].contains("'b3'"), "{warned:?}");

    // The whole text, and a change that is only tried.
    let text = world.backstay.text() + "backend b4 from bare\n  server s 127.0.0.1:9\n";
    let version = world.version().await;
    let pushed = json!({"version": version, "data": text});
    if world.client.transport == Transport::Rest {
        let warned = told(&world.ok("RawConfigurationService.PushRawConfiguration", pushed).await);
        assert!(warned.len() == 1 && warned[0].contains("'b4'"), "{warned:?}");
    } else {
        world.ok("BackendService.CreateBackend", backend("b5")).await;
        let mut tried = server("b5");
        tried["validate_only"] = json!(true);
        for _ in 0..2 {
            let warned = told(&world.ok("ServerService.CreateServer", tried.clone()).await);
            assert!(warned.len() == 1 && warned[0].contains("'b5'"), "{warned:?}");
        }
    }
}
