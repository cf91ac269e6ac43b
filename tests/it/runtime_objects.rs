//! Live servers, files of ACLs and statistics of a running HAProxy, and the oldest path to the defaults.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::haproxy::version;
use crate::support::world::{World, done, holds, over_both, refused};

over_both!(
    live_servers,
    covers [
        "RuntimeServerService.ListRuntimeServers",
        "RuntimeServerService.GetRuntimeServer",
        "RuntimeServerService.AddRuntimeServer",
        "RuntimeServerService.SetRuntimeServer",
        "RuntimeServerService.DeleteRuntimeServer"
    ]
);

async fn live_servers(world: &mut World) {
    let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9});
    world
        .cases([
            (
                "BackendService.CreateBackend",
                json!({"backend": {"name": "app", "mode": "http", "balance": {"algorithm": "roundrobin"}}}),
                done(),
            ),
            (
                "ServerService.CreateServer",
                json!({"parent_type": "backend", "parent_name": "app", "server": server}),
                done(),
            ),
        ])
        .await;
    world.settled().await;
    let of = |name: &str| json!({"backend": "app", "name": name});
    let set = |name: &str, server: Json| json!({"backend": "app", "name": name, "server": server});
    let ready = json!({"name": "s1", "address": "127.0.0.1", "port": 9, "admin_state": "ready"});
    let worker = world.worker();
    world
        .cases([
            ("RuntimeServerService.ListRuntimeServers", json!({"backend": "app"}), holds(json!({"servers": [ready]}))),
            ("RuntimeServerService.GetRuntimeServer", of("s1"), holds(json!({"server": ready}))),
            ("RuntimeServerService.GetRuntimeServer", of("s9"), refused(Reason::ObjectNotFound)),
            (
                "RuntimeServerService.SetRuntimeServer",
                set("s1", json!({"admin_state": "maint"})),
                holds(json!({"server": {"admin_state": "maint"}})),
            ),
            (
                "RuntimeServerService.SetRuntimeServer",
                set("s1", json!({"admin_state": "drain"})),
                holds(json!({"server": {"admin_state": "drain"}})),
            ),
            (
                "RuntimeServerService.AddRuntimeServer",
                json!({"backend": "app", "server": {"name": "s2", "address": "127.0.0.1", "port": 10}}),
                holds(json!({"server": {"name": "s2", "port": 10}})),
            ),
            (
                "RuntimeServerService.AddRuntimeServer",
                json!({"backend": "app", "server": {"name": "s2", "address": "127.0.0.1", "port": 10}}),
                refused(Reason::ObjectExists),
            ),
            (
                "RuntimeServerService.ListRuntimeServers",
                json!({"backend": "app"}),
                holds(json!({"servers": [{"name": "s1"}, {"name": "s2"}]})),
            ),
            ("RuntimeServerService.DeleteRuntimeServer", of("s2"), done()),
            ("RuntimeServerService.DeleteRuntimeServer", of("s2"), refused(Reason::ObjectNotFound)),
            (
                "RuntimeServerService.ListRuntimeServers",
                json!({"backend": "app"}),
                holds(json!({"servers": [{"name": "s1", "admin_state": "drain"}]})),
            ),
        ])
        .await;
    assert_eq!(world.worker(), worker, "nothing of this reloads haproxy");
}

over_both!(
    acl_files,
    covers [
        "AclFileService.ListAclFiles",
        "AclFileService.GetAclFile",
        "AclFileEntryService.ListAclFileEntries",
        "AclFileEntryService.GetAclFileEntry",
        "AclFileEntryService.CreateAclFileEntry",
        "AclFileEntryService.AddAclFileEntries",
        "AclFileEntryService.DeleteAclFileEntry"
    ]
);

async fn acl_files(world: &mut World) {
    let file = world.backstay.dir().join("blocked.lst");
    std::fs::write(&file, "/one\n").unwrap();
    let shown = file.display().to_string();
    let rule = json!({"index": 0, "type": "deny", "deny_status": 403, "cond": "if",
        "cond_test": format!("{{ path -f {shown} }}")});
    world
        .cases([(
            "HttpRequestRuleService.CreateHttpRequestRule",
            json!({"parent_type": "frontend", "parent_name": "main", "http_request_rule": rule}),
            done(),
        )])
        .await;
    world.settled().await;
    let listed = world.ok("AclFileService.ListAclFiles", json!({})).await["acls"].clone();
    let found = listed.as_array().unwrap().iter().find(|acl| acl["storage_name"] == json!(shown));
    let id = found.unwrap_or_else(|| panic!("{listed}"))["id"].as_str().unwrap().to_owned();
    world
        .cases([
            ("AclFileService.GetAclFile", json!({"id": id}), holds(json!({"acl": {"storage_name": shown}}))),
            ("AclFileService.GetAclFile", json!({"id": "9999"}), refused(Reason::ObjectNotFound)),
            (
                "AclFileEntryService.ListAclFileEntries",
                json!({"acl_id": id}),
                holds(json!({"entries": [{"value": "/one"}]})),
            ),
            (
                "AclFileEntryService.CreateAclFileEntry",
                json!({"acl_id": id, "entry": {"value": "/hello"}}),
                holds(json!({"entry": {"value": "/hello"}})),
            ),
            (
                "AclFileEntryService.GetAclFileEntry",
                json!({"acl_id": id, "id": "/hello"}),
                holds(json!({"entry": {"value": "/hello"}})),
            ),
        ])
        .await;
    assert_eq!(world.visit("/hello").await.status, 403);
    let entries = world.ok("AclFileEntryService.ListAclFileEntries", json!({"acl_id": id})).await["entries"].clone();
    let entry = entries.as_array().unwrap().iter().find(|entry| entry["value"] == "/hello").unwrap();
    world
        .cases([
            ("AclFileEntryService.DeleteAclFileEntry", json!({"acl_id": id, "id": entry["id"]}), done()),
            (
                "AclFileEntryService.AddAclFileEntries",
                json!({"acl_id": id, "entries": [{"value": "/two"}, {"value": "/three"}]}),
                done(),
            ),
            (
                "AclFileEntryService.ListAclFileEntries",
                json!({"acl_id": id}),
                holds(json!({"entries": [{"value": "/one"}, {"value": "/two"}, {"value": "/three"}]})),
            ),
        ])
        .await;
    assert_eq!(world.visit("/hello").await.status, 200);
    assert_eq!(world.visit("/three").await.status, 403);
}

over_both!(statistics, covers ["NativeStatsService.GetNativeStats", "InfoService.GetProcessInfo"]);

async fn statistics(world: &mut World) {
    assert_eq!(world.visit("/hello").await.status, 200);
    let all = world.ok("NativeStatsService.GetNativeStats", json!({})).await;
    let rows = all["collections"][0]["stats"].as_array().unwrap_or_else(|| panic!("{all}")).clone();
    assert!(rows.iter().any(|row| row["type"] == "frontend" && row["name"] == "main"), "{all}");
    let one = json!({"type": "frontend", "name": "main"});
    let main = world.ok("NativeStatsService.GetNativeStats", one).await;
    let stats = &main["collections"][0]["stats"];
    assert_eq!(stats.as_array().map(Vec::len), Some(1), "{main}");
    assert!(stats[0]["stats"]["req_tot"].as_i64().unwrap() >= 1, "{main}");
    world.cases([("NativeStatsService.GetNativeStats", json!({"type": "dance"}), refused(Reason::InvalidField))]).await;
    let info = world.ok("InfoService.GetProcessInfo", json!({})).await;
    let (major, minor) = version();
    let shown = info["processes"][0]["info"]["version"].as_str().unwrap_or_else(|| panic!("{info}")).to_owned();
    assert!(shown.starts_with(&format!("{major}.{minor}")), "{shown}");
}

over_both!(
    first_defaults,
    covers ["DefaultsService.GetDefaults", "DefaultsService.ReplaceDefaults", "DefaultsService.UpdateDefaults"]
);

async fn first_defaults(world: &mut World) {
    let timeouts = json!({"mode": "http", "client_timeout": 1_000, "server_timeout": 2_000, "connect_timeout": 3_000});
    world
        .cases([
            ("DefaultsService.GetDefaults", json!({}), holds(json!({"defaults": {"mode": "http"}}))),
            ("DefaultsService.ReplaceDefaults", json!({"defaults": timeouts}), done()),
            ("DefaultsService.GetDefaults", json!({}), holds(json!({"defaults": timeouts}))),
            (
                "DefaultsService.UpdateDefaults",
                json!({"defaults": {"retries": 5}, "update_mask": {"paths": ["retries"]}}),
                holds(json!({"defaults": {"retries": 5, "client_timeout": 1_000}})),
            ),
        ])
        .await;
}
