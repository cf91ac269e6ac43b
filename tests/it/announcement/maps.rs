//! Maps that route requests, changed while HAProxy runs.

use serde_json::json;

use backstay::error::Reason;

use crate::support::world::{World, done, holds, over_both, refused, refused_with, until};

over_both!(
    maps,
    covers [
        "MapService.CreateMap",
        "MapService.ListMaps",
        "MapService.GetMap",
        "MapService.AddMapEntries",
        "MapService.ClearMap",
        "MapEntryService.CreateMapEntry",
        "MapEntryService.GetMapEntry",
        "MapEntryService.ListMapEntries",
        "MapEntryService.ReplaceMapEntry",
        "MapEntryService.DeleteMapEntry",
        "MapEntryService.ExportMapEntries",
        "BackendService.CreateBackend",
        "HttpRequestRuleService.CreateHttpRequestRule",
        "BackendSwitchingRuleService.CreateBackendSwitchingRule"
    ]
);

/// A backend that answers with its name.
async fn answering_backend(world: &World, name: &str) {
    let rule = json!({
        "index": 0, "type": "return", "return_status_code": 200, "return_content": name,
        "return_content_format": "string", "return_content_type": "text/plain",
    });
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": {"name": name, "mode": "http"}}), done()),
            (
                "HttpRequestRuleService.CreateHttpRequestRule",
                json!({"parent_type": "backend", "parent_name": name, "http_request_rule": rule}),
                done(),
            ),
        ])
        .await;
}

async fn maps(world: &mut World) {
    for name in ["app", "api", "images"] {
        answering_backend(world, name).await;
    }
    let file = world.backstay.folder().join("maps/routes.map");
    let shown = file.display().to_string();
    let rule = json!({"index": 0, "name": format!("%[path,map_beg({shown},app)]")});
    world
        .cases([
            (
                "MapService.CreateMap",
                json!({"name": "routes.map", "data": "/images/ images\n"}),
                holds(json!({"map": {"storage_name": "routes.map", "file": shown, "size": 16}})),
            ),
            ("MapService.CreateMap", json!({"name": "routes.map", "data": "x y\n"}), refused(Reason::ObjectExists)),
            ("MapService.GetMap", json!({"name": "routes.map"}), refused(Reason::ObjectNotFound)),
            (
                "BackendSwitchingRuleService.CreateBackendSwitchingRule",
                json!({"frontend": "main", "backend_switching_rule": rule}),
                holds(json!({"backend_switching_rule": rule})),
            ),
        ])
        .await;
    world.settled().await;
    world.visit_until("/images/a.png", "images").await;
    assert_eq!(world.visit("/api/users").await.text(), "app");

    let worker = world.worker();
    let key = |id: &str| json!({"map": "routes.map", "id": id});
    let entry = |key: &str, value: &str| json!({"map": "routes.map", "entry": {"key": key, "value": value}});
    world
        .cases([
            (
                "MapEntryService.CreateMapEntry",
                entry("/api/", "api"),
                holds(json!({"entry": {"key": "/api/", "value": "api"}})),
            ),
            ("MapEntryService.CreateMapEntry", entry("/api/", "app"), refused(Reason::ObjectExists)),
            ("MapEntryService.GetMapEntry", key("/api/"), holds(json!({"entry": {"key": "/api/", "value": "api"}}))),
        ])
        .await;
    assert_eq!(world.visit("/api/users").await.text(), "api", "the next request follows the entry");
    world
        .cases([
            (
                "MapEntryService.ReplaceMapEntry",
                json!({"map": "routes.map", "id": "/api/", "entry": {"value": "images"}}),
                holds(json!({"entry": {"key": "/api/", "value": "images"}})),
            ),
            (
                "MapEntryService.ReplaceMapEntry",
                json!({"map": "routes.map", "id": "/no/", "entry": {"value": "x"}}),
                refused(Reason::ObjectNotFound),
            ),
        ])
        .await;
    assert_eq!(world.visit("/api/users").await.text(), "images");
    let odd = "/a%2Fb?c=d&e#f:g\\\"é'";
    world
        .cases([
            ("MapEntryService.DeleteMapEntry", key("/api/"), done()),
            ("MapEntryService.DeleteMapEntry", key("/api/"), refused(Reason::ObjectNotFound)),
            ("MapEntryService.GetMapEntry", key("/api/"), refused(Reason::ObjectNotFound)),
            ("MapEntryService.CreateMapEntry", entry(odd, "two words # \\ 'é'"), done()),
            (
                "MapEntryService.GetMapEntry",
                key(odd),
                holds(json!({"entry": {"key": odd, "value": "two words # \\ 'é'"}})),
            ),
            ("MapEntryService.DeleteMapEntry", key(odd), done()),
        ])
        .await;
    assert_eq!(world.visit("/api/users").await.text(), "app");
    let entries = json!([{"key": "/b/", "value": "api"}, {"key": "/c/", "value": "images"}]);
    let all = json!([{"key": "/images/", "value": "images"}, entries[0], entries[1]]);
    world
        .cases([
            (
                "MapService.AddMapEntries",
                json!({"name": "routes.map", "entries": entries}),
                holds(json!({"entries": entries})),
            ),
            ("MapEntryService.ListMapEntries", json!({"map": "routes.map"}), holds(json!({"entries": all}))),
            (
                "MapEntryService.ListMapEntries",
                json!({"map": "routes.map", "page_size": 2}),
                holds(json!({"entries": [all[0], all[1]]})),
            ),
            ("MapEntryService.ListMapEntries", json!({"map": "nope"}), refused(Reason::ObjectNotFound)),
            ("MapService.GetMap", json!({"name": "routes.map"}), holds(json!({"map": {"file": shown}}))),
            ("MapService.GetMap", json!({"name": "nope.map"}), refused(Reason::ObjectNotFound)),
        ])
        .await;
    let maps = world.ok("MapService.ListMaps", json!({})).await["maps"].clone();
    let files: Vec<_> = maps.as_array().unwrap().iter().map(|map| map["storage_name"].as_str().unwrap()).collect();
    assert!(files.contains(&"routes.map") && files.contains(&"paths.map"), "{maps}");
    let mut export = world.stream("MapEntryService.ExportMapEntries", json!({"map": "routes.map"})).await;
    let mut exported = Vec::new();
    while let Some(message) = export.next().await {
        exported.extend(message["entries"].as_array().cloned().unwrap_or_default());
    }
    assert_eq!(exported.len(), 3, "{exported:?}");

    // The file stays as it was until it is asked to follow.
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "/images/ images\n");
    let synced = json!({"map": "routes.map", "id": "/b/", "force_sync": true});
    world.cases([("MapEntryService.DeleteMapEntry", synced, done())]).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "/images/ images\n/c/ images\n");
    world
        .cases([
            ("MapService.ClearMap", json!({"name": "routes.map", "force_sync": true}), done()),
            ("MapEntryService.ListMapEntries", json!({"map": "routes.map"}), holds(json!({"entries": null}))),
        ])
        .await;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
    assert_eq!(world.visit("/images/a.png").await.text(), "app");
    assert_eq!(world.worker(), worker, "nothing of this reloaded haproxy");
}

over_both!(
    entries_that_cannot_be,
    covers ["MapEntryService.CreateMapEntry", "MapEntryService.ReplaceMapEntry", "MapService.AddMapEntries"]
);

async fn entries_that_cannot_be(world: &mut World) {
    let entry = |key: &str, value: &str| json!({"map": "paths.map", "entry": {"key": key, "value": value}});
    let before = world.ok("MapEntryService.ListMapEntries", json!({"map": "paths.map"})).await;
    let attack = format!("x\nclear map {}", world.backstay.folder().join("maps/paths.map").display());
    world
        .cases([
            ("MapEntryService.CreateMapEntry", entry(&attack, "x"), refused(Reason::InvalidValue)),
            ("MapEntryService.CreateMapEntry", entry("/x", &attack), refused(Reason::InvalidValue)),
            ("MapEntryService.CreateMapEntry", entry("a b", "x"), refused(Reason::InvalidValue)),
            (
                "MapEntryService.CreateMapEntry",
                json!({"map": "paths.map", "entry": {"key": "a"}}),
                refused(Reason::InvalidField),
            ),
            (
                "MapEntryService.CreateMapEntry",
                json!({"map": "nope", "entry": {"key": "a", "value": "b"}}),
                refused(Reason::ObjectNotFound),
            ),
            (
                "MapEntryService.ReplaceMapEntry",
                json!({"map": "paths.map", "id": "/hello", "entry": {"value": attack}}),
                refused(Reason::InvalidValue),
            ),
            (
                "MapService.AddMapEntries",
                json!({"name": "paths.map", "entries": [{"key": "/ok", "value": "x"}, {"key": attack, "value": "y"}]}),
                refused(Reason::InvalidValue),
            ),
        ])
        .await;
    let after = world.ok("MapEntryService.ListMapEntries", json!({"map": "paths.map"})).await;
    assert_eq!(after, before);
}

over_both!(
    map_files_follow,
    flags ["--update-map-files", "--update-map-files-period", "50ms"],
    covers ["MapEntryService.CreateMapEntry"]
);

async fn map_files_follow(world: &mut World) {
    let file = world.backstay.folder().join("maps/paths.map");
    let entry = json!({"map": "paths.map", "entry": {"key": "/follow/", "value": "status"}});
    world.cases([("MapEntryService.CreateMapEntry", entry, done())]).await;
    until("the file has the entry", async || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("/follow/ status\n"))
    })
    .await;
}

over_both!(
    stored_maps,
    covers [
        "StorageMapService.ListStorageMaps",
        "StorageMapService.GetStorageMap",
        "StorageMapService.CreateStorageMap",
        "StorageMapService.ReplaceStorageMap",
        "StorageMapService.DeleteStorageMap"
    ]
);

async fn stored_maps(world: &mut World) {
    world
        .cases([
            (
                "StorageMapService.CreateStorageMap",
                json!({"name": "more.map", "data": "a b\n"}),
                holds(json!({"map": {"storage_name": "more.map", "size": 4}})),
            ),
            (
                "StorageMapService.CreateStorageMap",
                json!({"name": "more.map", "data": "a b\n"}),
                refused(Reason::ObjectExists),
            ),
            (
                "StorageMapService.ListStorageMaps",
                json!({}),
                holds(json!({"maps": [{"storage_name": "more.map"}, {"storage_name": "paths.map"}]})),
            ),
            ("StorageMapService.GetStorageMap", json!({"name": "more.map"}), holds(json!({"data": "a b\n"}))),
            (
                "StorageMapService.ReplaceStorageMap",
                json!({"name": "more.map", "data": "# c\na c\n", "skip_reload": true}),
                done(),
            ),
            ("StorageMapService.GetStorageMap", json!({"name": "more.map"}), holds(json!({"data": "# c\na c\n"}))),
            ("StorageMapService.DeleteStorageMap", json!({"name": "paths.map"}), refused(Reason::ObjectInUse)),
            ("StorageMapService.DeleteStorageMap", json!({"name": "more.map"}), done()),
            ("StorageMapService.DeleteStorageMap", json!({"name": "more.map"}), refused(Reason::ObjectNotFound)),
            ("StorageMapService.GetStorageMap", json!({"name": "more.map"}), refused(Reason::ObjectNotFound)),
            (
                "StorageMapService.ReplaceStorageMap",
                json!({"name": "more.map", "data": "a b\n"}),
                refused_with(Reason::ObjectNotFound, 404),
            ),
        ])
        .await;
    // The replaced file is what haproxy has after the reload.
    let replaced = json!({"name": "paths.map", "data": "/sent/ status\n", "force_reload": true});
    world.cases([("StorageMapService.ReplaceStorageMap", replaced, done())]).await;
    world.visit_until("/sent/x", "The map of paths").await;
}
