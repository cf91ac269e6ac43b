//! Live servers, files of ACLs and statistics of a running HAProxy, and the oldest path to the defaults.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::haproxy::version;
use crate::support::world::{World, done, holds, over_both, refused, until};

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

over_both!(added_servers, covers["RuntimeServerService.AddRuntimeServer"]);

/// The words of HAProxy's state of a server: operational state, administrative state, state and result of its check.
fn state(world: &World, server: &str) -> [String; 4] {
    let text = world.backstay.ask("show servers state app").unwrap();
    let line = text.lines().find(|line| line.split(' ').nth(3) == Some(server));
    let words: Vec<&str> = line.unwrap_or_else(|| panic!("{server}: {text}")).split(' ').collect();
    [5, 6, 13, 11].map(|at| words[at].to_owned())
}

/// Bits of the state of a check: configured, enabled.
const CHECKED: u8 = 0x2 | 0x4;

async fn added_servers(world: &mut World) {
    let backend = json!({"name": "app", "mode": "http", "balance": {"algorithm": "roundrobin"}});
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    world.ok("BackendService.CreateBackend", json!({"backend": backend, "force_reload": true})).await;
    let worker = world.worker();
    let add = async |name: &str, more: Json| {
        let mut server = json!({"name": name, "address": "127.0.0.1", "port": port});
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let taken =
            world.ok("RuntimeServerService.AddRuntimeServer", json!({"backend": "app", "server": server})).await;
        assert_eq!(taken["server"], server, "the server as it was taken");
    };
    let check = |name: &str| state(world, name)[2].parse::<u8>().unwrap() & CHECKED;

    // Without a word of it, it takes traffic.
    add("plain", json!({})).await;
    assert_eq!((state(world, "plain")[1].as_str(), check("plain")), ("0", 0));
    assert_ne!(state(world, "plain")[0], "0");
    add("checked", json!({"check": "enabled", "inter": 100, "rise": 1})).await;
    assert_eq!((state(world, "checked")[1].as_str(), check("checked")), ("0", CHECKED));
    until("its check passes", async || state(world, "checked")[3] == "3").await;
    // What a server is anyway may be said, whatever HAProxy thinks of the words.
    let off = [
        "agent-check",
        "backup",
        "check",
        "check-send-proxy",
        "check-ssl",
        "maintenance",
        "send-proxy",
        "send-proxy-v2",
        "send_proxy_v2_ssl",
        "send_proxy_v2_ssl_cn",
        "ssl",
        "tfo",
    ];
    let mut said: serde_json::Map<String, Json> =
        off.iter().map(|name| ((*name).to_owned(), json!("disabled"))).collect();
    said.insert("ssl_reuse".to_owned(), json!("enabled"));
    if !world.is_rest() {
        said.extend(["stick", "no_verifyhost"].map(|name| (name.to_owned(), json!("enabled"))));
    }
    add("said", Json::Object(said)).await;
    assert_eq!((state(world, "said")[1].as_str(), check("said")), ("0", 0));
    add("resting", json!({"check": "enabled", "maintenance": "enabled"})).await;
    assert!(state(world, "resting")[0] == "0" && state(world, "resting")[1] != "0", "{:?}", state(world, "resting"));
    assert_eq!(check("resting"), CHECKED);
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
    let info = &info["processes"][0]["info"];
    for name in ["uptime", "processes", "unstoppable", "ssl_frontend_session_reuse"] {
        assert!(info[name].is_i64() || info[name].is_string(), "{name}: {info}");
    }
    all_of_haproxy_is_told(world, &stats[0]["stats"], info);
    let date = info["release_date"].as_str().unwrap_or_else(|| panic!("{info}"));
    assert!(date.len() == 10 && date.split('-').all(|part| part.parse::<u32>().is_ok()), "{date}");
}

/// Over gRPC each column and each value has its field, whatever the version; REST knows those of /v2.
fn all_of_haproxy_is_told(world: &World, stats: &Json, info: &Json) {
    let shown = world.backstay.ask("show stat main 1 -1").unwrap();
    let mut lines = shown.lines().map(|line| line.trim_start_matches("# ").split(','));
    let (columns, values) = (lines.next().unwrap(), lines.next().unwrap());
    let told = columns.zip(values).filter(|(column, value)| !value.is_empty() && *column != "-");
    let missing: Vec<_> = told.map(|(column, _)| column).filter(|column| stats[*column].is_null()).collect();
    if world.is_rest() {
        assert!(missing.contains(&"h1_bytes_in") && !missing.contains(&"req_tot"), "{missing:?}");
        assert!(info["start_time_sec"].is_null() && info["pid"].is_i64(), "{info}");
        return;
    }
    assert_eq!(missing, ["pxname", "svname", "type"]);
    let fold = |name: &str| name.replace(['_', ' ', '-'], "").to_lowercase();
    let fields: Vec<String> = info.as_object().unwrap().keys().map(|name| fold(name)).collect();
    let renamed =
        ["Name", "Nbproc", "Uptime_sec", "Unstoppable Jobs", "SslFrontendSessionReuse_pct", "TotalSplicdedBytesOut"];
    let shown = world.backstay.ask("show info").unwrap();
    let names = shown.lines().filter_map(|line| line.split_once(": ")).map(|(name, _)| name);
    let missing: Vec<_> = names.filter(|name| !renamed.contains(name) && !fields.contains(&fold(name))).collect();
    assert_eq!(missing, Vec::<&str>::new(), "{info}");
    assert!(info["total_spliced_bytes_out"].is_i64() || info["total_spliced_bytes_out"].is_string(), "{info}");
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
