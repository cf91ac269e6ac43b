//! Becoming a peer of HAProxy by one call, and what watches and lists are like then.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::world::{World, holds, over_both, refused, until};

over_both!(
    pushed_tables,
    covers [
        "StickTableService.AddStickTablePeer",
        "StickTableService.ListPeerSessions",
        "StickTableService.WatchStickTable",
        "StickTableEntryService.ListStickTableEntries",
        "StickTableEntryService.SetStickTableEntry"
    ]
);

async fn sessions(world: &World) -> Json {
    world.ok("StickTableService.ListPeerSessions", json!({})).await["sessions"].clone()
}

async fn live(world: &World) {
    until("the session is live", async || {
        let sessions = sessions(world).await;
        sessions[0]["live"] == json!(true) && sessions[0]["stick_tables"] == json!(["clients"])
    })
    .await;
}

async fn pushed_tables(world: &mut World) {
    let add = "StickTableService.AddStickTablePeer";
    let (before, text) = (world.version().await, world.backstay.text());
    assert!(sessions(world).await.as_array().is_none_or(Vec::is_empty));
    let plan = world.ok(add, json!({"stick_table": "clients", "validate_only": true})).await;
    let lines = plan["lines"].as_array().unwrap();
    assert_eq!((lines.len(), &plan["section"]), (5, &json!("backstay")), "{plan}");
    assert_eq!(lines[0], json!({"section": "peers backstay", "text": "peers backstay"}));
    assert!(lines[4]["text"].as_str().unwrap().ends_with(" peers backstay"), "{plan}");
    assert_eq!((world.version().await, world.backstay.text()), (before, text));
    world.cases([(add, json!({"stick_table": "nowhere"}), refused(Reason::ObjectNotFound))]).await;

    world.ok(add, json!({"stick_table": "clients", "force_reload": true})).await;
    let version = world.version().await;
    assert_eq!(version, before + 1);
    live(world).await;
    // Once more: there is nothing to do.
    world.cases([(add, json!({"stick_table": "clients"}), holds(json!({"lines": null})))]).await;
    assert_eq!(world.version().await, version);

    let mut watch = world.stream("StickTableService.WatchStickTable", json!({"stick_table": "clients"})).await;
    let first = watch.next().await.unwrap();
    assert_eq!(
        (first["source"].as_str().is_some_and(|s| s.to_lowercase().ends_with("push")), first.get("snapshot").is_some()),
        (true, true),
        "{first}"
    );
    world.visit("/").await;
    let changed = watch.next().await.unwrap();
    assert_eq!(changed["changed"]["entries"][0]["key"], "127.0.0.1", "{changed}");
    // HAProxy says what is set through it as well.
    let data = json!({"stick_table": "clients", "process": 1, "key": "10.9.9.9", "data_type": {"gpc0": 77}});
    world.ok("StickTableEntryService.SetStickTableEntry", data).await;
    loop {
        let event = watch.next().await.unwrap();
        let entries = event["changed"]["entries"].as_array().cloned().unwrap_or_default();
        if let Some(entry) = entries.iter().find(|entry| entry["key"] == "10.9.9.9") {
            assert_eq!(entry["gpc0"].to_string().trim_matches('"'), "77");
            break;
        }
    }
    let list = "StickTableEntryService.ListStickTableEntries";
    let most = json!({"stick_table": "clients", "process": 1, "order_by": "gpc0", "page_size": 1});
    let page = world.ok(list, most).await;
    assert_eq!(page["entries"][0]["key"], "10.9.9.9", "{page}");
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    let begin = json!({"stick_table": "clients", "process": 1, "key_prefix": "127."});
    assert_eq!(world.ok(list, begin).await["entries"][0]["key"], "127.0.0.1");
    let wrong = json!({"stick_table": "clients", "process": 1, "order_by": "odd"});
    world.refused(list, wrong, refused(Reason::InvalidField)).await;

    // Whoever is killed, the program or HAProxy, joins again.
    world.restart();
    live(world).await;
    counted(world).await;
    let worker = world.worker();
    world.backstay.kill_haproxy();
    until("haproxy runs again", async || world.backstay.ask("show info").is_ok()).await;
    live(world).await;
    assert_ne!(world.worker(), worker);
    counted(world).await;
}

/// A request is counted, and the list knows.
async fn counted(world: &World) {
    world.visit("/").await;
    let request = json!({"stick_table": "clients", "process": 1, "order_by": "http_req_cnt"});
    until("the request is listed", async || {
        let list = world.ok("StickTableEntryService.ListStickTableEntries", request.clone()).await;
        list["entries"][0]["key"] == json!("127.0.0.1")
    })
    .await;
}
