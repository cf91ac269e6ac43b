//! A server that changes no file: what it refuses, and what it still does.

use serde_json::json;

use backstay::error::Reason;

use crate::support::world::{World, done, over_both, refused_saying};

over_both!(
    read_only,
    flags["--read-only"],
    covers [
        "BackendService.CreateBackend",
        "BackendService.ListBackends",
        "UserService.CreateUser",
        "TransactionService.BeginTransaction",
        "RawConfigurationService.PushRawConfiguration",
        "StorageMapService.CreateStorageMap",
        "StorageMapService.ImportStorageMap",
        "StorageGeneralFileService.CreateStorageGeneralFile",
        "SpoeFileService.CreateSpoeFile",
        "ConsulService.CreateConsul",
        "ConsulService.DeleteConsul",
        "AwsRegionService.CreateAwsRegion",
        "MapEntryService.CreateMapEntry",
        "MapEntryService.DeleteMapEntry",
        "MapService.ClearMap"
    ]
);

async fn read_only(world: &mut World) {
    let map = world.backstay.folder().join("maps/paths.map");
    let before = (world.backstay.text(), std::fs::read_to_string(&map).unwrap());
    let no = || refused_saying(Reason::Unsupported, "read-only");
    let entry = json!({"key": "/api/", "value": "status"});
    let consul = json!({"address": "127.0.0.1", "port": 9, "enabled": true, "retry_timeout": 1});
    let region =
        json!({"name": "a", "region": "eu-west-1", "enabled": true, "retry_timeout": 1, "ipv4_address": "private"});
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": {"name": "b", "mode": "http"}}), no()),
            (
                "UserService.CreateUser",
                json!({"userlist": "controller", "user": {"username": "eve", "password": "x", "secure_password": false}}),
                no(),
            ),
            ("TransactionService.BeginTransaction", json!({}), no()),
            ("RawConfigurationService.PushRawConfiguration", json!({"data": "global\n"}), no()),
            // A check runs HAProxy on the text of the caller: nothing is checked either, and nothing told of it.
            (
                "RawConfigurationService.PushRawConfiguration",
                json!({"data": ".alert \"${PATH}\"\n", "only_validate": true, "version": null}),
                no(),
            ),
            ("BackendService.CreateBackend", json!({"backend": {"name": "b"}, "validate_only": true}), no()),
            ("BackendService.DeleteBackend", json!({"name": "hello", "version": 99}), no()),
            ("StorageMapService.CreateStorageMap", json!({"name": "new.map", "data": "a b\n"}), no()),
            ("StorageMapService.ImportStorageMap", json!({"name": "new.map", "data": "a b\n"}), no()),
            ("StorageGeneralFileService.CreateStorageGeneralFile", json!({"name": "new.txt", "data": "x"}), no()),
            ("SpoeFileService.CreateSpoeFile", json!({"name": "new.cfg", "data": "[x]\n"}), no()),
            ("ConsulService.CreateConsul", json!({"consul": consul}), no()),
            ("ConsulService.DeleteConsul", json!({"id": "2b1ab76e-6a05-4b4f-8d0b-3d0a2d9c7c5e"}), no()),
            ("AwsRegionService.CreateAwsRegion", json!({"region": region}), no()),
            // Neither half of a change is made when the file cannot follow.
            (
                "MapEntryService.CreateMapEntry",
                json!({"map": "paths.map", "entry": entry, "force_sync": true}),
                no(),
            ),
            ("MapService.ClearMap", json!({"name": "paths.map", "force_delete": true}), no()),
            ("BackendService.ListBackends", json!({}), done()),
        ])
        .await;
    world.visit_until("/api/x", "Hello").await;
    // HAProxy itself can be changed as long as it runs.
    let created = json!({"map": "paths.map", "entry": entry});
    world.cases([("MapEntryService.CreateMapEntry", created, done())]).await;
    world.visit_until("/api/x", "map of paths").await;
    world.cases([("MapEntryService.DeleteMapEntry", json!({"map": "paths.map", "id": "/api/"}), done())]).await;
    assert_eq!((world.backstay.text(), std::fs::read_to_string(&map).unwrap()), before);
    let files = |folder: &str| std::fs::read_dir(world.backstay.folder().join(folder)).unwrap().count();
    assert_eq!((files("maps"), files("general"), files("spoe")), (1, 0, 0));
}
