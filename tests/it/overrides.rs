//! Writes at run time that stay: over reloads, restarts of HAProxy and of the program, and kills of both.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::{Client, Transport};
use crate::support::world::{World, done, over_both, refused, until};

/// A backend `app` with a server `s1`, and an ACL whose patterns are in a file.
async fn prepared(world: &World) -> String {
    let acl = world.backstay.dir().join("blocked.lst");
    std::fs::write(&acl, "/one\n/two\n").unwrap();
    let acl = acl.display().to_string();
    let test = format!("{{ path -f {acl} }}");
    let rule = json!({"index": 0, "type": "deny", "deny_status": 403, "cond": "if", "cond_test": test});
    let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9});
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": {"name": "app", "mode": "http"}}), done()),
            (
                "ServerService.CreateServer",
                json!({"parent_type": "backend", "parent_name": "app", "server": server}),
                done(),
            ),
            (
                "HttpRequestRuleService.CreateHttpRequestRule",
                json!({"parent_type": "frontend", "parent_name": "main", "http_request_rule": rule}),
                done(),
            ),
            (
                "StorageMapService.ReplaceStorageMap",
                json!({"name": "paths.map", "data": "# who\n/a 1\n/b 2\n", "force_reload": true}),
                done(),
            ),
        ])
        .await;
    world.settled().await;
    acl
}

/// Writes a value of each kind.
async fn write_all(world: &World, acl: &str) {
    let entry = |key: &str, value: &str| json!({"map": "paths.map", "entry": {"key": key, "value": value}});
    world
        .cases([
            ("MapEntryService.CreateMapEntry", entry("/c", "3"), done()),
            (
                "MapEntryService.ReplaceMapEntry",
                json!({"map": "paths.map", "id": "/a", "entry": {"value": "one"}}),
                done(),
            ),
            ("MapEntryService.DeleteMapEntry", json!({"map": "paths.map", "id": "/b"}), done()),
            ("AclFileEntryService.CreateAclFileEntry", json!({"acl_id": acl, "entry": {"value": "/three"}}), done()),
            ("AclFileEntryService.DeleteAclFileEntry", json!({"acl_id": acl, "id": "/one"}), done()),
            (
                "RuntimeServerService.SetRuntimeServer",
                json!({"backend": "app", "name": "s1", "server": {"admin_state": "drain"}}),
                done(),
            ),
        ])
        .await;
}

/// What the running HAProxy holds of them.
fn held(world: &World, acl: &str) -> Vec<String> {
    let map = world.backstay.folder().join("maps/paths.map").display().to_string();
    let mut held = Vec::new();
    for command in [format!("show map {map}"), format!("show acl {acl}")] {
        let answer = world.backstay.ask(&command).unwrap_or_default();
        let entries = answer.lines().filter_map(|line| line.strip_prefix("0x")?.split_once(' '));
        held.extend(entries.map(|(_, entry)| entry.to_owned()));
    }
    let servers = world.backstay.ask("show servers state app").unwrap_or_default();
    let server = servers.lines().find(|line| line.contains(" s1 ")).unwrap_or_default();
    held.push(format!("s1 flags {}", server.split(' ').nth(6).unwrap_or_default()));
    held
}

const WRITTEN: [&str; 5] = ["/a one", "/c 3", "/two", "/three", "s1 flags 8"];
const CONFIGURED: [&str; 5] = ["/a 1", "/b 2", "/one", "/two", "s1 flags 0"];

async fn holds(world: &World, acl: &str, wanted: &[&str]) {
    let mut last = Vec::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while std::time::Instant::now() < deadline {
        last = held(world, acl);
        if last == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("haproxy holds {last:?}, not {wanted:?}");
}

over_both!(
    writes_stay,
    covers ["RuntimeOverrideService.ListRuntimeOverrides", "RuntimeOverrideService.DropRuntimeOverrides"]
);

async fn writes_stay(world: &mut World) {
    let acl = prepared(world).await;
    write_all(world, &acl).await;
    holds(world, &acl, &WRITTEN).await;
    let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await["overrides"].clone();
    let of_acl = |key: &str| listed.as_array().unwrap().iter().find(|found| found["key"] == key).cloned();
    let three = of_acl("/three").unwrap_or_else(|| panic!("{listed}"));
    assert_eq!((&three["user"], &three["value"], &three["acl"]), (&json!("admin"), &json!("/three"), &json!(acl)));
    assert_eq!(listed.as_array().unwrap().len(), 6, "{listed}");

    // Our own reload, queued and forced.
    for force in [false, true] {
        let worker = world.worker();
        let name = format!("more{force}");
        let backend = json!({"backend": {"name": name, "mode": "http"}, "force_reload": force});
        world.ok("BackendService.CreateBackend", backend).await;
        world.settled().await;
        until("another worker", async || world.backstay.ask("show info").is_ok() && world.worker() != worker).await;
        holds(world, &acl, &WRITTEN).await;
    }
    let map = std::fs::read_to_string(world.backstay.folder().join("maps/paths.map")).unwrap();
    assert_eq!(map, "# who\n/a one\n/c 3\n", "the file is the store");

    // HAProxy is killed and started again, by the program that watches it.
    world.backstay.kill_haproxy();
    holds(world, &acl, &WRITTEN).await;
    // Both are killed.
    world.ok("MapEntryService.DeleteMapEntry", json!({"map": "paths.map", "id": "/c"})).await;
    world.backstay.kill_haproxy();
    world.restart();
    let without = ["/a one", "/two", "/three", "s1 flags 8"];
    holds(world, &acl, &without).await;

    // One is dropped, and then the rest.
    world.ok("RuntimeOverrideService.DropRuntimeOverrides", json!({"acl": acl, "key": "/three"})).await;
    holds(world, &acl, &["/a one", "/two", "s1 flags 8"]).await;
    let nothing = json!({"acl": acl, "key": "/none"});
    world.refused("RuntimeOverrideService.DropRuntimeOverrides", nothing, refused(Reason::ObjectNotFound)).await;
    world.refused("RuntimeOverrideService.DropRuntimeOverrides", json!({}), refused(Reason::InvalidField)).await;
    world.ok("RuntimeOverrideService.DropRuntimeOverrides", json!({"all": true})).await;
    let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
    assert_eq!(listed["overrides"].as_array().map_or(0, Vec::len), 0, "{listed}");
    let now = held(world, &acl);
    assert!(now.contains(&"/one".to_owned()) && now.contains(&"s1 flags 0".to_owned()), "{now:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_of_the_worker_go_with_it() {
    let world = World::start(Transport::Rest, &["--runtime-persistence", "worker"]);
    let acl = prepared(&world).await;
    write_all(&world, &acl).await;
    holds(&world, &acl, &WRITTEN).await;
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    world.settled().await;
    holds(&world, &acl, &CONFIGURED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_says_how_long_its_write_stays() {
    let world = World::start(Transport::Grpc, &[]);
    let acl = prepared(&world).await;
    let create =
        |value: &str, persistence: &str| json!({"acl_id": acl, "entry": {"value": value}, "persistence": persistence});
    world.ok("AclFileEntryService.CreateAclFileEntry", create("/worker", "worker")).await;
    world.ok("AclFileEntryService.CreateAclFileEntry", create("/durable", "durable")).await;
    let set = json!({"weight": 7, "address": "127.0.0.2"});
    let set = json!({"backend": "app", "name": "s1", "server": set});
    world.ok("RuntimeServerService.SetRuntimeServer", set).await;
    let acls = world.ok("AclFileService.ListAclFiles", json!({})).await["acls"].clone();
    let inline = acls.as_array().unwrap().iter().find(|acl| acl["storage_name"] == "path");
    if let Some(inline) = inline {
        let durable = json!({"acl_id": inline["id"], "entry": {"value": "/x"}, "persistence": "durable"});
        world.refused("AclFileEntryService.CreateAclFileEntry", durable, refused(Reason::NotDurable)).await;
    }
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    world.settled().await;
    holds(&world, &acl, &["/a 1", "/b 2", "/one", "/two", "/durable", "s1 flags 0"]).await;
    let server = json!({"backend": "app", "name": "s1"});
    let server = world.ok("RuntimeServerService.GetRuntimeServer", server).await["server"].clone();
    assert_eq!((&server["weight"], &server["address"]), (&json!(7), &json!("127.0.0.2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_changes_in_the_configuration_wins() {
    let world = World::start(Transport::Grpc, &[]);
    prepared(&world).await;
    let set = json!({"backend": "app", "name": "s1", "server": {"admin_state": "maint", "weight": 7}});
    world.ok("RuntimeServerService.SetRuntimeServer", set).await;
    let replace = async |params: Json| {
        let mut server = json!({"name": "s1", "address": "127.0.0.1", "port": 9});
        server.as_object_mut().unwrap().extend(params.as_object().unwrap().clone());
        let request = json!({"parent_type": "backend", "parent_name": "app", "name": "s1", "server": server});
        world.ok("ServerService.ReplaceServer", request).await;
        world.settled().await;
    };
    let now = async || {
        let server = world.ok("RuntimeServerService.GetRuntimeServer", json!({"backend": "app", "name": "s1"})).await;
        (server["server"]["admin_state"].clone(), server["server"]["weight"].clone())
    };
    // The old values again, with one that has nothing to do with them.
    replace(json!({"maxconn": 100})).await;
    until("both stay", async || now().await == (json!("maint"), json!(7))).await;
    replace(json!({"maxconn": 100, "weight": 20})).await;
    until("the new weight, the old state", async || now().await == (json!("maint"), json!(20))).await;
    let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
    assert_eq!(listed["overrides"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["dropped"][0]["was"]["field"], "weight", "{listed}");
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    world.settled().await;
    until("over the next reload", async || now().await == (json!("maint"), json!(20))).await;
    // A server that is gone takes its override along.
    let server = json!({"parent_type": "backend", "parent_name": "app", "name": "s1"});
    world.ok("ServerService.DeleteServer", server).await;
    until("no override is left", async || {
        let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
        listed["overrides"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_haproxy_was_given_overrules() {
    let world = World::start(Transport::Grpc, &["--reload-delay", "1h"]);
    let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9, "weight": 10});
    let backend = json!({"backend": {"name": "app", "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", backend).await;
    let create = json!({"parent_type": "backend", "parent_name": "app", "server": server, "force_reload": true});
    world.ok("ServerService.CreateServer", create).await;
    let set = json!({"backend": "app", "name": "s1", "server": {"weight": 7}});
    world.ok("RuntimeServerService.SetRuntimeServer", set.clone()).await;
    let replace = |weight: u32, more: Json| {
        let mut server = server.clone();
        server["weight"] = json!(weight);
        let request = json!({"parent_type": "backend", "parent_name": "app", "name": "s1", "server": server});
        let mut request = request;
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let now = async || {
        let server = world.ok("RuntimeServerService.GetRuntimeServer", json!({"backend": "app", "name": "s1"})).await;
        let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
        (server["server"]["weight"].as_i64().unwrap(), listed["overrides"].as_array().map_or(0, Vec::len))
    };
    let forced = json!({"force_reload": true});

    // A change that is taken back before a reload. Meanwhile the next worker would not get the weight.
    let text = world.backstay.text();
    let changed = text.replace("weight 10", "weight 20") + "\nbackend that_needs_a_reload\n";
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": changed})).await;
    assert_eq!(now().await, (7, 0));
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text})).await;
    assert_eq!(now().await, (7, 1));
    let more = |name: &str| json!({"backend": {"name": name, "mode": "http"}, "force_reload": true});
    world.ok("BackendService.CreateBackend", more("one")).await;
    until("the weight stays", async || now().await == (7, 1)).await;

    // A change that HAProxy refuses, together with a bind on a port that is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = json!({"version": world.version().await});
    let id = world.ok("TransactionService.BeginTransaction", begun).await["transaction"]["id"].clone();
    let with = json!({"transaction_id": id});
    world.ok("ServerService.ReplaceServer", replace(20, with)).await;
    let bind = json!({"name": "taken", "address": "127.0.0.1", "port": taken.local_addr().unwrap().port()});
    let bind = json!({"parent_type": "frontend", "parent_name": "main", "bind": bind, "transaction_id": id});
    world.ok("BindService.CreateBind", bind).await;
    let commit = json!({"id": id, "force_reload": true});
    world.call("TransactionService.CommitTransaction", commit).await.unwrap_err();
    until("the weight stays over a change that was taken back", async || now().await == (7, 1)).await;
    world.ok("BackendService.CreateBackend", more("two")).await;
    until("and over the reload after it", async || now().await == (7, 1)).await;

    // A write after the change counts, and stays.
    let changed = world.backstay.text().replace("weight 10", "weight 20") + "\nbackend that_needs_a_reload\n";
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": changed})).await;
    let set = json!({"backend": "app", "name": "s1", "server": {"weight": 8}});
    world.ok("RuntimeServerService.SetRuntimeServer", set).await;
    world.ok("BackendService.CreateBackend", more("three")).await;
    until("the later write", async || now().await == (8, 1)).await;

    // A change that HAProxy was given wins for good.
    world.ok("ServerService.ReplaceServer", replace(30, forced.clone())).await;
    until("the configuration", async || now().await == (30, 0)).await;
    world.ok("ServerService.ReplaceServer", replace(20, forced)).await;
    until("the configuration again", async || now().await == (20, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_without_a_reload_overrules_at_once() {
    let world = World::start(Transport::Rest, &[]);
    prepared(&world).await;
    let set = json!({"backend": "app", "name": "s1", "server": {"admin_state": "maint"}});
    world.ok("RuntimeServerService.SetRuntimeServer", set).await;
    let grpc = Client::new(Transport::Grpc, world.backstay.api, &world.backstay.password);
    let limit = json!({"name": "main", "frontend": {"maxconn": 77}});
    grpc.call("RuntimeFrontendService.SetRuntimeFrontend", &limit).await.unwrap();
    let listed = async || {
        let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
        listed["overrides"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed().await, 2);
    let worker = world.worker();
    for maintenance in ["enabled", "disabled"] {
        let server = json!({"name": "s1", "address": "127.0.0.1", "port": 9, "maintenance": maintenance});
        let request = json!({"parent_type": "backend", "parent_name": "app", "name": "s1", "server": server});
        world.ok("ServerService.ReplaceServer", request).await;
    }
    world.settled().await;
    if world.worker() == worker {
        assert_eq!(listed().await, 1);
    }
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "more", "mode": "http"}})).await;
    world.settled().await;
    until("only the limit of the frontend is kept", async || listed().await == 1).await;
    let server = world.ok("RuntimeServerService.GetRuntimeServer", json!({"backend": "app", "name": "s1"})).await;
    assert_eq!(server["server"]["admin_state"], "ready");
}

pub(crate) mod limits {
    pub(crate) const COVERS: &[&str] = &["RuntimeFrontendService.SetRuntimeFrontend"];
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_frontends_stay() {
    let mut world = World::start(Transport::Grpc, &[]);
    let set = |maxconn: Json, persistence: &str| json!({"name": "main", "frontend": {"maxconn": maxconn}, "persistence": persistence});
    let limit = |world: &World| {
        let shown = world.backstay.ask("show stat main 1 -1").unwrap_or_default();
        shown.lines().nth(1).and_then(|line| line.split(',').nth(6).map(str::to_owned)).unwrap_or_default()
    };
    // Without a limit of its own it has that of the process, which is not the same for each worker.
    let is_own = |world: &World| ["71", "72", ""].contains(&&*limit(world));
    world.ok("RuntimeFrontendService.SetRuntimeFrontend", set(json!(71), "worker")).await;
    assert_eq!(limit(&world), "71");
    let reload = async |world: &World, name: &str| {
        let backend = json!({"backend": {"name": name, "mode": "http"}, "force_reload": true});
        world.ok("BackendService.CreateBackend", backend).await;
    };
    reload(&world, "one").await;
    until("it went with its worker", async || !is_own(&world)).await;
    world.ok("RuntimeFrontendService.SetRuntimeFrontend", set(json!(72), "durable")).await;
    reload(&world, "two").await;
    until("it stays", async || limit(&world) == "72").await;
    world.restart();
    until("over a restart as well", async || limit(&world) == "72").await;
    world.ok("RuntimeOverrideService.DropRuntimeOverrides", json!({"frontend": "main"})).await;
    until("it is given up", async || !is_own(&world)).await;
    for wrong in [json!(0), Json::Null] {
        let call = set(wrong, "durable");
        world.refused("RuntimeFrontendService.SetRuntimeFrontend", call, refused(Reason::InvalidField)).await;
    }
    let unknown = json!({"name": "nobody", "frontend": {"maxconn": 5}});
    world.refused("RuntimeFrontendService.SetRuntimeFrontend", unknown, refused(Reason::ObjectNotFound)).await;
    let listed = world.ok("RuntimeOverrideService.ListRuntimeOverrides", json!({})).await;
    assert_eq!(listed["overrides"].as_array().map_or(0, Vec::len), 0, "{listed}");
}
