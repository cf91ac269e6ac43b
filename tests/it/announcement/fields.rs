//! Fields of global, defaults, frontends and backends: set, read back, and seen in the file that HAProxy accepts.

use serde_json::{Value as Json, json};

use crate::support::world::{World, done, holds, is_part, over_both};

over_both!(
    fields,
    covers [
        "GlobalService.GetGlobal",
        "GlobalService.ReplaceGlobal",
        "GlobalService.UpdateGlobal",
        "NamedDefaultsService.CreateNamedDefaults",
        "NamedDefaultsService.ListNamedDefaults",
        "NamedDefaultsService.GetNamedDefaults",
        "NamedDefaultsService.ReplaceNamedDefaults",
        "FrontendService.CreateFrontend",
        "FrontendService.GetFrontend",
        "FrontendService.UpdateFrontend",
        "BackendService.CreateBackend",
        "BackendService.GetBackend",
        "HttpRequestRuleService.CreateHttpRequestRule",
        "HttpRequestRuleService.ListHttpRequestRules"
    ]
);

/// The lines of a section.
fn section(world: &World, header: &str) -> Vec<String> {
    let text = world.backstay.text();
    let lines = text.lines().skip_while(|line| *line != header).skip(1);
    lines
        .take_while(|line| line.starts_with([' ', '#']) || line.is_empty())
        .map(|line| line.trim().to_owned())
        .collect()
}

fn assert_lines(lines: &[String], wanted: &[&str]) {
    for wanted in wanted {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} is not among\n{}", lines.join("\n"));
    }
}

async fn fields(world: &mut World) {
    global(world).await;
    defaults(world).await;
    frontend(world).await;
    backend(world).await;
    rules(world).await;
    world.settled().await;
    world.visit_until("/hello", "Hello").await;
}

async fn global(world: &World) {
    let socket = world.backstay.folder().join("stats.sock").display().to_string();
    let global = json!({
        "nbthread": 2, "maxconn": 500, "hard_stop_after": 30_000, "stats_timeout": 120_000,
        "runtime_apis": [
            {"address": socket, "mode": "600", "level": "admin"},
            {"address": world.backstay.dir().join("more.sock").display().to_string(), "level": "operator"},
        ],
        "log_send_hostname": {"enabled": "enabled", "param": "edge"},
    });
    world
        .cases([
            ("GlobalService.ReplaceGlobal", json!({"global": global}), done()),
            ("GlobalService.GetGlobal", json!({}), holds(json!({"global": global}))),
            (
                "GlobalService.UpdateGlobal",
                json!({"global": {"nbthread": 1}, "update_mask": {"paths": ["nbthread"]}}),
                holds(json!({"global": {"nbthread": 1, "maxconn": 500}})),
            ),
        ])
        .await;
    let lines = section(world, "global");
    assert_lines(
        &lines,
        &["maxconn 500", "log-send-hostname edge", &format!("stats socket {socket} mode 600 level admin")],
    );
    assert!(lines.iter().any(|line| line.starts_with("nbthread ")), "{lines:?}");
}

/// Timeouts that defaults, frontends and backends have, in milliseconds.
fn with(base: &Json, more: &Json) -> Json {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn client_side() -> Json {
    json!({
        "client_timeout": 30_000, "client_fin_timeout": 1_500, "http_keep_alive_timeout": 10_000,
        "http_request_timeout": 10_000, "tarpit_timeout": 5_000, "maxconn": 400, "dontlognull": "enabled",
        "dontlog_normal": "disabled", "logasap": "enabled", "log_separate_errors": "enabled", "log_tag": "edge",
        "httplog": true,
    })
}

fn server_side() -> Json {
    json!({
        "server_timeout": 30_000, "server_fin_timeout": 1_000, "connect_timeout": 5_000, "queue_timeout": 6_000,
        "check_timeout": 2_000, "tunnel_timeout": 3_600_000, "retries": 2, "retry_on": "conn-failure empty-response",
        "redispatch": {"enabled": "enabled", "interval": 2}, "log_health_checks": "enabled",
        "adv_check": "httpchk", "httpchk_params": {"method": "GET", "uri": "/health", "version": "HTTP/1.1"},
        "default_server": {"inter": 3_000, "fall": 4, "rise": 3, "maxconn": 50, "check": "enabled"},
    })
}

fn both_sides() -> Json {
    json!({
        "mode": "http", "http_connection_mode": "http-server-close",
        "forwardfor": {"enabled": "enabled", "except": "127.0.0.0/8", "header": "X-Client", "ifnone": true},
        "compression": {"algorithms": ["gzip"], "types": ["text/plain", "text/html"]},
        "stats_options": {"stats_enable": true, "stats_uri_prefix": "/stats", "stats_refresh_delay": 10,
            "stats_hide_version": true, "stats_auths": [{"user": "viewer", "passwd": "pass"}]},
    })
}

async fn defaults(world: &World) {
    let all = with(&with(&both_sides(), &client_side()), &server_side());
    let named = with(&all, &json!({"name": "web"}));
    let unnamed = with(&all, &json!({"name": "unnamed_defaults_1", "default_backend": "hello"}));
    world
        .cases([
            ("NamedDefaultsService.CreateNamedDefaults", json!({"defaults": named}), holds(json!({"defaults": named}))),
            ("NamedDefaultsService.GetNamedDefaults", json!({"name": "web"}), holds(json!({"defaults": named}))),
            (
                "NamedDefaultsService.ReplaceNamedDefaults",
                json!({"name": "unnamed_defaults_1", "defaults": unnamed}),
                done(),
            ),
            (
                "NamedDefaultsService.GetNamedDefaults",
                json!({"name": "unnamed_defaults_1"}),
                holds(json!({"defaults": unnamed})),
            ),
        ])
        .await;
    let listed = world.ok("NamedDefaultsService.ListNamedDefaults", json!({})).await;
    let key = listed.as_object().unwrap().keys().find(|key| key.starts_with("defaults")).cloned().expect("a list");
    let names: Vec<_> = listed[&key].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    // In front of the one without a name, which the proxies below it follow.
    assert_eq!(names, ["web", "unnamed_defaults_1"]);
    for header in ["defaults", "defaults web"] {
        assert_lines(
            &section(world, header),
            &[
                "mode http",
                "option http-server-close",
                "option dontlognull",
                "no option dontlog-normal",
                "option logasap",
                "option httplog",
                "option httpchk GET /health HTTP/1.1",
                "retries 2",
                "option redispatch 2",
                "stats enable",
                "stats uri /stats",
                "compression algo gzip",
                "option forwardfor except 127.0.0.0/8 header X-Client if-none",
            ],
        );
    }
    assert!(world.backstay.text().contains("\ndefaults\n"), "the unnamed section stays unnamed");
}

async fn frontend(world: &World) {
    let frontend =
        with(&with(&both_sides(), &client_side()), &json!({"name": "edge", "from": "web", "default_backend": "hello"}));
    world
        .cases([
            ("FrontendService.CreateFrontend", json!({"frontend": frontend}), holds(json!({"frontend": frontend}))),
            ("FrontendService.GetFrontend", json!({"name": "edge"}), holds(json!({"frontend": frontend}))),
            (
                "FrontendService.UpdateFrontend",
                json!({"name": "edge", "frontend": {"maxconn": 300}, "update_mask": {"paths": ["maxconn", "log_tag"]}}),
                holds(json!({"frontend": {"maxconn": 300, "log_tag": null, "mode": "http"}})),
            ),
        ])
        .await;
    assert_lines(&section(world, "frontend edge from web"), &["default_backend hello", "timeout client-fin 1500"]);
}

async fn backend(world: &World) {
    let backend = with(
        &with(&both_sides(), &server_side()),
        &json!({"name": "app", "from": "web", "balance": {"algorithm": "leastconn"},
            "cookie": {"name": "SRV", "type": "insert"}, "http_reuse": "always"}),
    );
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": backend}), holds(json!({"backend": backend}))),
            ("BackendService.GetBackend", json!({"name": "app"}), holds(json!({"backend": backend}))),
        ])
        .await;
    let lines = section(world, "backend app from web");
    assert_lines(&lines, &["balance leastconn", "cookie SRV insert", "http-reuse always", "timeout queue 6000"]);
    assert!(lines.iter().any(|line| line.starts_with("default-server ") && line.contains("fall 4")), "{lines:?}");
}

/// Every type of rule that the announcement names.
async fn rules(world: &World) {
    let rules = [
        json!({"type": "allow", "cond": "if", "cond_test": "{ path /allowed }"}),
        json!({"type": "set-header", "hdr_name": "X-Set", "hdr_format": "%[src]"}),
        json!({"type": "add-header", "hdr_name": "X-Add", "hdr_format": "\"two words\""}),
        json!({"type": "del-header", "hdr_name": "X-Del"}),
        json!({"type": "track-sc1", "track-sc1-key": "path", "track-sc1-table": "clients"}),
        json!({"type": "track-sc2", "track-sc2-key": "src"}),
        json!({"type": "deny", "deny_status": 403, "cond": "if", "cond_test": "{ path /denied }"}),
        json!({"type": "redirect", "redir_type": "location", "redir_value": "/elsewhere", "redir_code": 301,
            "cond": "if", "cond_test": "{ path /moved }"}),
        json!({"type": "auth", "auth_realm": "Inner", "cond": "if", "cond_test": "{ path /secret } !{ http_auth(controller) }"}),
        json!({"type": "return", "return_status_code": 418, "return_content_type": "text/plain",
            "return_content_format": "string", "return_content": "'a teapot'", "cond": "if",
            "cond_test": "{ path /teapot }"}),
    ];
    let parent = json!({"parent_type": "frontend", "parent_name": "main"});
    for (index, rule) in rules.iter().enumerate() {
        let rule = with(rule, &json!({"index": index}));
        // A table of addresses cannot track paths, and a frontend without a table tracks nothing.
        let refused = rule["type"] == "track-sc2";
        let create = with(&parent, &json!({"http_request_rule": rule}));
        match world.call("HttpRequestRuleService.CreateHttpRequestRule", create).await {
            Ok(success) => assert!(is_part(&json!({"http_request_rule": rule}), &success.message), "{success:?}"),
            Err(refusal) => assert!(refused && refusal.text.contains("track-sc2"), "{rule}: {refusal:?}"),
        }
        if refused {
            let mut rule = rule;
            rule["track-sc2-table"] = json!("clients");
            let create = with(&parent, &json!({"http_request_rule": rule}));
            world.ok("HttpRequestRuleService.CreateHttpRequestRule", create).await;
        }
    }
    let listed = world.ok("HttpRequestRuleService.ListHttpRequestRules", parent).await;
    let listed = listed["http_request_rules"].as_array().unwrap().clone();
    for (rule, listed) in rules.iter().zip(&listed) {
        if !rule["type"].as_str().unwrap().starts_with("track") {
            assert!(is_part(rule, listed), "{rule} became {listed}");
        }
    }
    world.settled().await;
    world.visit_until("/teapot", "a teapot").await;
    assert_eq!(world.visit("/denied").await.status, 403);
    assert_eq!(world.visit("/secret").await.status, 401);
    let moved = world.visit("/moved").await;
    assert_eq!((moved.status, moved.header("location")), (301, "/elsewhere"));
}
