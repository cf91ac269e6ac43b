//! Bad input for each step of the announcement, and an HAProxy that is not there.

use std::time::Duration;

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::{Transport, request};
use crate::support::world::{Case, World, done, holds, over_both, refused, refused_saying, refused_with, until};

over_both!(
    bad_input,
    covers [
        "AclService.CreateAcl",
        "BackendService.CreateBackend",
        "BackendService.DeleteBackend",
        "BackendSwitchingRuleService.CreateBackendSwitchingRule",
        "BindService.CreateBind",
        "GlobalService.ReplaceGlobal",
        "HttpRequestRuleService.CreateHttpRequestRule",
        "NameserverService.CreateNameserver",
        "PeerEntryService.CreatePeerEntry",
        "ResolverService.CreateResolver",
        "ServerService.CreateServer"
    ]
);

/// A change that is right but for what a case does to it: method, parent, field of the object, object.
const CHANGES: [(&str, &str, &str, &str); 7] = [
    (
        "PeerEntryService.CreatePeerEntry",
        r#"{"peer_section":"NO"}"#,
        "peer_entry",
        r#"{"name":"a","address":"127.0.0.1","port":1}"#,
    ),
    (
        "NameserverService.CreateNameserver",
        r#"{"resolver":"NO"}"#,
        "nameserver",
        r#"{"name":"a","address":"127.0.0.1","port":53}"#,
    ),
    (
        "ServerService.CreateServer",
        r#"{"parent_type":"backend","parent_name":"NO"}"#,
        "server",
        r#"{"name":"a","address":"127.0.0.1","port":1}"#,
    ),
    (
        "BindService.CreateBind",
        r#"{"parent_type":"frontend","parent_name":"NO"}"#,
        "bind",
        r#"{"name":"a","address":"127.0.0.1","port":1}"#,
    ),
    (
        "AclService.CreateAcl",
        r#"{"parent_type":"frontend","parent_name":"NO"}"#,
        "acl",
        r#"{"index":0,"acl_name":"a","criterion":"path"}"#,
    ),
    (
        "HttpRequestRuleService.CreateHttpRequestRule",
        r#"{"parent_type":"frontend","parent_name":"NO"}"#,
        "http_request_rule",
        r#"{"index":0,"type":"allow"}"#,
    ),
    (
        "BackendSwitchingRuleService.CreateBackendSwitchingRule",
        r#"{"frontend":"NO"}"#,
        "backend_switching_rule",
        r#"{"index":0,"name":"hello"}"#,
    ),
];

fn parse(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

async fn bad_input(world: &mut World) {
    let before = world.backstay.text();
    for (name, parent, field, object) in CHANGES {
        let mut request = parse(parent);
        request[field] = parse(object);
        world.cases([(name, request.clone(), refused(Reason::ParentNotFound))]).await;
        request["version"] = json!(77);
        world.cases([(name, request.clone(), refused(Reason::VersionMismatch))]).await;
        request["version"] = Json::Null;
        world.cases([(name, request.clone(), refused(Reason::TargetMissing))]).await;
        request["transaction_id"] = json!("nope");
        world.cases([(name, request.clone(), refused_with(Reason::TransactionNotFound, 400))]).await;
        if world.is_rest() {
            request["version"] = json!(1);
            world.cases([(name, request, refused(Reason::TargetAmbiguous))]).await;
        }
    }
    let backend = |object: Json| json!({"backend": object});
    let server = |object: Json| json!({"parent_type": "backend", "parent_name": "hello", "server": object});
    let rule = |object: Json| json!({"parent_type": "frontend", "parent_name": "main", "http_request_rule": object});
    let injected = "x\n    stats uri /open";
    let cases: Vec<Case> = vec![
        // Duplicates.
        ("BackendService.CreateBackend", backend(json!({"name": "hello"})), refused(Reason::ObjectExists)),
        ("BackendService.DeleteBackend", json!({"name": "nope"}), refused(Reason::ObjectNotFound)),
        // Missing, out of range, no such word, not of the pattern.
        (
            "BackendService.CreateBackend",
            backend(json!({"mode": "http"})),
            refused_saying(Reason::InvalidField, "name"),
        ),
        (
            "BackendService.CreateBackend",
            backend(json!({"name": "b", "mode": "fast"})),
            refused_saying(Reason::InvalidField, "mode"),
        ),
        ("BackendService.CreateBackend", backend(json!({"name": "a b"})), refused_saying(Reason::InvalidField, "name")),
        (
            "BackendService.CreateBackend",
            backend(json!({"name": "b", "stick_table": {"type": "color"}})),
            refused_saying(Reason::InvalidField, "stick_table.type"),
        ),
        (
            "ServerService.CreateServer",
            server(json!({"name": "s", "address": "127.0.0.1", "port": 65_536})),
            refused_saying(Reason::InvalidField, "65535"),
        ),
        (
            "ServerService.CreateServer",
            server(json!({"name": "s", "address": "127.0.0.1", "port": 0})),
            refused_saying(Reason::InvalidField, "port"),
        ),
        ("ServerService.CreateServer", server(json!({"name": "s"})), refused_saying(Reason::InvalidField, "address")),
        (
            "HttpRequestRuleService.CreateHttpRequestRule",
            rule(json!({"index": 0, "type": "dance"})),
            refused_saying(Reason::InvalidField, "type"),
        ),
        (
            "HttpRequestRuleService.CreateHttpRequestRule",
            rule(json!({"type": "allow"})),
            refused_saying(Reason::InvalidField, "index"),
        ),
        (
            "ResolverService.CreateResolver",
            json!({"resolver": {"name": "r", "accepted_payload_size": 511}}),
            refused_saying(Reason::InvalidField, "512"),
        ),
        // A line feed would begin another line of the file.
        (
            "BackendService.CreateBackend",
            backend(json!({"name": "b", "description": "x\0y"})),
            refused(Reason::InvalidValue),
        ),
        (
            "ServerService.CreateServer",
            server(json!({"name": "s", "address": injected})),
            refused(Reason::InvalidField),
        ),
        (
            "HttpRequestRuleService.CreateHttpRequestRule",
            // The line feed is written as an escape, which is no condition.
            rule(json!({"index": 0, "type": "allow", "cond": "if", "cond_test": injected})),
            refused(Reason::ConfigurationRejected),
        ),
        (
            "HttpRequestRuleService.CreateHttpRequestRule",
            rule(json!({"index": 0, "type": "set-header", "hdr_name": "X", "hdr_format": "x\0y"})),
            refused(Reason::InvalidValue),
        ),
        // HAProxy refuses the candidate and says where.
        (
            "BackendSwitchingRuleService.CreateBackendSwitchingRule",
            json!({"frontend": "main", "backend_switching_rule": {"index": 0, "name": "nowhere"}}),
            refused_saying(Reason::ConfigurationRejected, "unable to find required use_backend: 'nowhere'"),
        ),
        (
            "HttpRequestRuleService.CreateHttpRequestRule",
            rule(json!({"index": 0, "type": "allow", "cond": "if", "cond_test": "no_such_acl"})),
            refused_saying(Reason::ConfigurationRejected, "in frontend main"),
        ),
        ("GlobalService.ReplaceGlobal", json!({"global": {"nbthread": -4}}), refused(Reason::ConfigurationRejected)),
    ];
    world.cases(cases).await;
    let refusal = world
        .refused(
            "ServerService.CreateServer",
            server(json!({"name": "s", "address": "127.0.0.1", "port": 1, "resolvers": "absent"})),
            refused_saying(Reason::ConfigurationRejected, "absent"),
        )
        .await;
    assert!(refusal.text.contains("hello"), "the section is named: {}", refusal.text);
    assert_eq!(world.backstay.text(), before, "nothing of this reached the file");
    world.settled().await;
}

over_both!(
    dangling_references,
    covers ["BackendService.DeleteBackend", "BackendService.CreateBackend"]
);

async fn dangling_references(world: &mut World) {
    world
        .cases([
            ("BackendService.DeleteBackend", json!({"name": "clients"}), refused(Reason::ConfigurationRejected)),
            ("BackendService.DeleteBackend", json!({"name": "status"}), done()),
            (
                "BackendService.CreateBackend",
                json!({"backend": {"name": "b", "from": "no_defaults"}}),
                refused_saying(Reason::InvalidValue, "no_defaults"),
            ),
        ])
        .await;
}

over_both!(
    haproxy_away,
    flags ["--haproxy-bin", crate::support::backstay::HINDERED],
    covers [
        "InfoService.GetProcessInfo",
        "HealthService.GetHealth",
        "MapEntryService.ListMapEntries",
        "StickTableService.ListStickTables",
        "ReloadService.ListReloads",
        "ReloadService.GetReload",
        "ReloadService.WatchReload",
        "BackendService.CreateBackend"
    ]
);

async fn haproxy_away(world: &mut World) {
    world
        .cases([
            ("HealthService.GetHealth", json!({}), holds(json!({"haproxy": "up"}))),
            ("InfoService.GetProcessInfo", json!({}), holds(json!({"processes": [{"info": {}}]}))),
            ("StickTableService.ListStickTables", json!({}), holds(json!({"stick_tables": [{"name": "clients"}]}))),
        ])
        .await;
    let before = world.worker();
    world.backstay.hinder(true);
    world.backstay.kill_haproxy();
    until("runtime calls say so", async || {
        world.client.call("StickTableService.ListStickTables", &json!({})).await.is_err()
    })
    .await;
    let created = world.ok("BackendService.CreateBackend", json!({"backend": {"name": "later", "mode": "http"}})).await;
    let id = created["reload_id"].as_str().expect("a reload").to_owned();
    let forced = json!({"backend": {"name": "forced", "mode": "http"}, "force_reload": true});
    world
        .cases([
            ("StickTableService.ListStickTables", json!({}), refused(Reason::RuntimeUnavailable)),
            ("MapEntryService.ListMapEntries", json!({"map": "paths.map"}), refused(Reason::RuntimeUnavailable)),
            ("InfoService.GetProcessInfo", json!({}), refused(Reason::RuntimeUnavailable)),
            ("HealthService.GetHealth", json!({}), holds(json!({"haproxy": "down"}))),
            ("BackendService.GetBackend", json!({"name": "later"}), done()),
            ("BackendService.CreateBackend", forced, refused(Reason::ReloadFailed)),
            ("BackendService.GetBackend", json!({"name": "forced"}), done()),
            ("ReloadService.GetReload", json!({"id": id}), holds(json!({"reload": {"status": "in_progress"}}))),
        ])
        .await;
    world.backstay.hinder(false);
    // It comes back, and what waited is done.
    until("haproxy is back", async || world.backstay.ask("show info").is_ok()).await;
    until("the reload that waited is done", async || {
        let answer = world.ok("ReloadService.GetReload", json!({"id": id})).await;
        answer["reload"]["status"] == "succeeded"
    })
    .await;
    assert_ne!(world.worker(), before);
    let tables = world.backstay.ask("show stat").unwrap();
    assert!(tables.contains("later,BACKEND"), "{tables}");
    until("runtime calls work again", async || {
        world.client.call("StickTableService.ListStickTables", &json!({})).await.is_ok()
    })
    .await;
    world.cases([("HealthService.GetHealth", json!({}), holds(json!({"haproxy": "up"})))]).await;
    world.ok("ReloadService.ListReloads", json!({})).await;
    world
        .cases([
            ("ReloadService.GetReload", json!({"id": "2006-01-02-9999"}), refused(Reason::ObjectNotFound)),
            ("ReloadService.GetReload", json!({"id": "x"}), refused(Reason::InvalidField)),
        ])
        .await;
    let mut watch = world.stream("ReloadService.WatchReload", json!({"id": id})).await;
    let last = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
    assert_eq!(last["reload"]["status"], "succeeded");
    assert!(watch.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_no_json_are_refused_over_rest() {
    let world = World::start(Transport::Rest, &[]);
    let path = "/v2/services/haproxy/configuration/backends?version=1";
    for (kind, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "", 422),
        ("application/json", r#"{"name":5}"#, 400),
        ("text/plain", "{}", 415),
        ("", "{}", 415),
        ("text/plain", "", 422),
    ] {
        let answer = world.client.send(request("POST", path, kind, body)).await;
        assert_eq!(answer.status, status, "{kind} {body}: {}", answer.text());
        assert!(answer.json()["message"].is_string());
    }
    // Also where nothing is read.
    for (kind, body, status) in [
        ("text/plain", "x", 415),
        ("", "x", 415),
        ("application/json", "{x", 201),
        ("text/plain", "", 201),
        ("", "", 201),
    ] {
        let path = "/v2/services/haproxy/transactions?version=1";
        let answer = world.client.send(request("POST", path, kind, body)).await;
        assert_eq!(answer.status, status, "{kind} {body}: {}", answer.text());
    }
    // Unknown fields are ignored as in /v2, and named in a header.
    let answer = world.client.send(request("POST", path, "application/json", r#"{"name":"b","speed":1}"#)).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(answer.header("warning").contains("speed"), "{:?}", answer.headers);
}
