//! Keywords that not every HAProxy has, and combinations that none has.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::Transport;
use crate::support::haproxy::version;
use crate::support::world::{Expected, World, over_both, refused_saying};

/// A change that needs a version of HAProxy: the version, the method, the request, the field at fault.
fn newer() -> [((u32, u32), &'static str, Json, &'static str); 12] {
    let server = |name: &str, more: Json| {
        let mut server = json!({"name": name, "address": "127.0.0.1", "port": 9});
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"parent_type": "backend", "parent_name": "hello", "server": server})
    };
    [
        ((3, 0), "ServerService.CreateServer", server("s1", json!({"hash_key": "addr"})), "hash_key"),
        ((3, 1), "ServerService.CreateServer", server("s2", json!({"init_state": "fully-down"})), "init_state"),
        ((3, 2), "ServerService.CreateServer", server("s3", json!({"strict_maxconn": true})), "strict_maxconn"),
        (
            (3, 2),
            "BackendService.CreateBackend",
            json!({"backend": {"name": "new", "default_server": {"idle_ping": 5000}}}),
            "default_server.idle_ping",
        ),
        (
            (3, 2),
            "HttpRequestRuleService.CreateHttpRequestRule",
            json!({
                "parent_type": "backend", "parent_name": "hello",
                "http_request_rule": {"index": 0, "type": "set-retries", "expr": "3"},
            }),
            "type",
        ),
        (
            (3, 2),
            "GlobalService.UpdateGlobal",
            json!({
                "global": {"tune_options": {"takeover_other_tg_connections": "full"}},
                "update_mask": {"paths": ["tune_options.takeover_other_tg_connections"]},
            }),
            "tune_options.takeover_other_tg_connections",
        ),
        (
            (3, 1),
            "LogProfileService.CreateLogProfile",
            json!({"log_profile": {"name": "new", "steps": [{"step": "error", "drop": true}]}}),
            "name",
        ),
        ((3, 3), "ServerService.CreateServer", server("s4", json!({"sni_auto": "disabled"})), "sni_auto"),
        (
            (3, 3),
            "GlobalService.UpdateGlobal",
            json!({
                "global": {"tune_options": {"quic_fe_stream_max_total": 1000}},
                "update_mask": {"paths": ["tune_options.quic_fe_stream_max_total"]},
            }),
            "tune_options.quic_fe_stream_max_total",
        ),
        (
            (3, 4),
            "HttpRequestRuleService.CreateHttpRequestRule",
            json!({
                "parent_type": "backend", "parent_name": "hello",
                "http_request_rule": {"index": 0, "type": "set-headers-bin", "expr": "var(txn.h)"},
            }),
            "type",
        ),
        (
            (3, 4),
            "HealthcheckService.CreateHealthcheck",
            json!({"healthcheck": {"name": "new", "type": "tcp-check"}}),
            "name",
        ),
        (
            (3, 4),
            "BackendService.CreateBackend",
            json!({"backend": {"name": "hidden", "be_unpublished": true}}),
            "be_unpublished",
        ),
    ]
}

/// An older HAProxy than a keyword needs is told from the schema, before anything is written or checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyword_that_haproxy_is_too_old_for_is_refused_with_the_version_that_has_it() {
    let world = World::start(Transport::Grpc, &["--reload-delay", "1h"]);
    for ((major, minor), method, request, field) in newer() {
        let (before, at) = (world.backstay.text(), world.version().await);
        if version() < (major, minor) {
            let refusal = world.refused(method, request, refused_saying(Reason::InvalidField, "")).await;
            let (is_major, is_minor) = version();
            let words = format!("needs haproxy {major}.{minor} or later, this is {is_major}.{is_minor}");
            assert!(refusal.text.contains(&words), "{refusal:?}");
            assert!(refusal.fields.iter().any(|named| named == field), "{refusal:?} names no {field}");
            assert_eq!((world.backstay.text(), world.version().await), (before, at), "{method} wrote something");
        } else {
            world.ok(method, request).await;
            assert_ne!(world.backstay.text(), before, "{method} wrote nothing");
        }
    }
}

/// Keywords that went: the version that last had them is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyword_that_haproxy_has_no_longer_is_refused_with_the_version_that_last_had_it() {
    let world = World::start(Transport::Grpc, &["--reload-delay", "1h"]);
    let gone = [
        (json!({"no-quic": true}), "no-quic"),
        (
            json!({"tune_options": {"quic_frontend_conn_tx_buffers_limit": 20}}),
            "tune_options.quic_frontend_conn_tx_buffers_limit",
        ),
    ];
    let before = world.backstay.text();
    for (global, path) in gone {
        let request = json!({"global": global, "update_mask": {"paths": [path]}});
        if version() >= (3, 3) {
            let refusal =
                world.refused("GlobalService.UpdateGlobal", request, refused_saying(Reason::InvalidField, "")).await;
            assert!(refusal.text.contains("the last that has it is 3.2"), "{refusal:?}");
            assert_eq!(world.backstay.text(), before);
        }
    }
}

/// A check that servers of several backends share: its section, its steps, and the servers that name it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_share_a_health_check_that_is_a_section_of_its_own() {
    let world = World::start(Transport::Grpc, &["--reload-delay", "1h"]);
    let section = json!({"parent_type": "healthcheck", "parent_name": "shared"});
    let with = |more: Json| {
        let mut request = section.as_object().unwrap().clone();
        request.extend(more.as_object().unwrap().clone());
        Json::Object(request)
    };
    let step = |index: u64, kind: &str, more: Json| {
        let mut step = json!({"index": index, "type": kind});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with(json!({"http_check": step}))
    };
    if version() < (3, 4) {
        let expected = refused_saying(Reason::ParentNotFound, "");
        world.refused("HttpCheckService.CreateHttpCheck", step(0, "connect", json!({})), expected).await;
        return;
    }
    let check = json!({"name": "shared", "type": "httpchk"});
    world.ok("HealthcheckService.CreateHealthcheck", json!({"healthcheck": check})).await;
    let send = json!({"method": "GET", "uri": "/health"});
    world.ok("HttpCheckService.CreateHttpCheck", step(0, "send", send)).await;
    let expect = json!({"match": "status", "pattern": "200-299"});
    world.ok("HttpCheckService.CreateHttpCheck", step(1, "expect", expect)).await;
    let listed = world.ok("HttpCheckService.ListHttpChecks", section.clone()).await;
    assert_eq!(listed["http_checks"].as_array().map(Vec::len), Some(2), "{listed}");
    let server = json!({
        "parent_type": "backend", "parent_name": "hello",
        "server": {"name": "checked", "address": "127.0.0.1", "port": 9, "check": "enabled", "healthcheck": "shared"},
    });
    world.ok("ServerService.CreateServer", server).await;
    let text = world.backstay.text();
    for line in
        ["healthcheck shared\n", "type httpchk\n", "http-check send meth GET uri /health\n", "healthcheck shared"]
    {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    // A section that a server names stays.
    let refused = refused_saying(Reason::ConfigurationRejected, "shared");
    world.refused("HealthcheckService.DeleteHealthcheck", json!({"name": "shared"}), refused).await;
}

async fn combinations(world: &mut World) {
    let before = world.backstay.text();
    let rule = |kind: &str, action: &str| {
        json!({
            "parent_type": "frontend", "parent_name": "main",
            "tcp_request_rule": {"index": 0, "type": kind, "action": action},
        })
    };
    // To gRPC each is a wrong field; to /v2 what fields demand of each other is a wrong value.
    let reason = if world.is_rest() { Reason::InvalidValue } else { Reason::InvalidField };
    let method = "TcpRequestRuleService.CreateTcpRequestRule";
    for (kind, action, words) in [
        ("connection", "switch-mode", "switch-mode goes only with type content, not connection"),
        ("session", "expect-proxy", "expect-proxy goes only with type connection, not session"),
        ("content", "attach-srv", "attach-srv goes only with type session, not content"),
    ] {
        world.refused(method, rule(kind, action), Expected::Refused(reason, None, words)).await;
    }
    assert_eq!(world.backstay.text(), before);
    world.ok(method, rule("connection", "expect-proxy")).await;
    assert!(world.backstay.text().contains("tcp-request connection expect-proxy layer4"));
}

over_both!(combinations, covers["TcpRequestRuleService.CreateTcpRequestRule"]);
