//! Sections as a whole: trees, and what /v2 cannot say.

use serde_json::json;

use backstay::error::Reason;

use crate::support::world::{World, done, holds, over_both, refused, refused_saying};

async fn backend_trees(world: &mut World) {
    let base = world.backstay.text();
    let servers: Vec<_> = (0..500)
        .map(|number| json!({"name": format!("s{number}"), "address": "127.0.0.1", "port": 1000 + number, "weight": 1}))
        .collect();
    let tree = |servers: &[serde_json::Value]| {
        json!({
            "backend": {"name": "shop", "mode": "http", "balance": {"algorithm": "roundrobin"}},
            "acls": [{"acl_name": "api", "criterion": "path_beg", "value": "/api"}],
            "http_request_rules": [{"type": "deny", "cond": "if", "cond_test": "api"}, {"type": "set-path", "path_fmt": "/x"}],
            "servers": servers,
        })
    };
    let first = tree(&servers);
    world
        .cases(vec![
            ("BackendTreeService.GetBackendTree", json!({"name": "shop"}), refused(Reason::ObjectNotFound)),
            (
                "BackendTreeService.ReplaceBackendTree",
                json!({"name": "shop", "backend_tree": first}),
                refused(Reason::ObjectNotFound),
            ),
            ("BackendTreeService.CreateBackendTree", json!({"backend_tree": first}), done()),
            ("BackendTreeService.CreateBackendTree", json!({"backend_tree": first}), refused(Reason::ObjectExists)),
            (
                "BackendTreeService.GetBackendTree",
                json!({"name": "shop"}),
                holds(
                    json!({"backend_tree": {"http_request_rules": [{"index": 0}, {"index": 1, "type": "set-path"}]}}),
                ),
            ),
        ])
        .await;
    let before = world.backstay.text();
    assert!(before.contains("    server s499 127.0.0.1:1499 weight 1\n"), "{before}");

    // Another 500 in one call, of which most stay: only lines that differ are touched.
    let mut changed = servers.clone();
    changed[7] = json!({"name": "s7", "address": "127.0.0.2", "port": 1007, "weight": 1});
    changed.remove(0);
    changed.push(json!({"name": "s500", "address": "127.0.0.1", "port": 1500}));
    let replace = json!({"name": "shop", "backend_tree": tree(&changed)});
    world.cases(vec![("BackendTreeService.ReplaceBackendTree", replace, done())]).await;
    let body = |text: &str| text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n");
    let expected = before
        .replace("    server s0 127.0.0.1:1000 weight 1\n", "")
        .replace("server s7 127.0.0.1:1007", "server s7 127.0.0.2:1007")
        .replace(
            "server s499 127.0.0.1:1499 weight 1\n",
            "server s499 127.0.0.1:1499 weight 1\n    server s500 127.0.0.1:1500\n",
        );
    assert_eq!(body(&world.backstay.text()), body(&expected));

    let bad = json!({"backend": {"name": "shop"}, "http_request_rules": [{"type": "deny"}, {"cond": "if"}]});
    let rejected = json!({"backend": {"name": "shop"}, "http_request_rules": [{"type": "use-service", "service_name": "nothing"}]});
    let empty = json!({"backend": {"name": "shop"}});
    world
        .cases(vec![
            (
                "BackendTreeService.ReplaceBackendTree",
                json!({"name": "shop", "backend_tree": bad}),
                refused_saying(Reason::InvalidField, "http_request_rules.1.type"),
            ),
            (
                "BackendTreeService.ReplaceBackendTree",
                json!({"name": "shop", "backend_tree": rejected}),
                refused(Reason::ConfigurationRejected),
            ),
            (
                "BackendTreeService.UpdateBackendTree",
                json!({"name": "shop", "backend_tree": {"backend": {"name": "shop"}}, "update_mask": {"paths": ["servers"]}}),
                done(),
            ),
            ("BackendTreeService.ReplaceBackendTree", json!({"name": "shop", "backend_tree": empty}), done()),
            (
                "BackendTreeService.ReplaceBackendTree",
                json!({"name": "other", "backend_tree": {"backend": {"name": "other"}}, "allow_missing": true}),
                done(),
            ),
            ("BackendTreeService.ListBackendTrees", json!({"filter": ""}), done()),
            ("BackendService.DeleteBackend", json!({"name": "other"}), done()),
            ("BackendService.DeleteBackend", json!({"name": "shop"}), done()),
        ])
        .await;
    assert_eq!(body(&world.backstay.text()).trim_end(), body(&base).trim_end());
}

over_both!(backend_trees, flags ["--reload-delay", "1h"], covers [
    "BackendTreeService.ListBackendTrees",
    "BackendTreeService.GetBackendTree",
    "BackendTreeService.CreateBackendTree",
    "BackendTreeService.ReplaceBackendTree",
    "BackendTreeService.UpdateBackendTree",
]);

async fn frontend_trees(world: &mut World) {
    let tree = json!({
        "frontend": {"name": "web", "mode": "http"},
        "binds": [{"name": "one", "address": "127.0.0.1", "port": 18763}],
        "captures": [{"type": "request", "length": 5}],
    });
    world
        .cases(vec![
            ("FrontendTreeService.CreateFrontendTree", json!({"frontend_tree": tree}), done()),
            (
                "FrontendTreeService.GetFrontendTree",
                json!({"name": "web"}),
                holds(json!({"frontend_tree": {"captures": [{"index": 0, "length": 5}]}})),
            ),
            ("FrontendTreeService.ListFrontendTrees", json!({}), done()),
            ("FrontendTreeService.ReplaceFrontendTree", json!({"name": "web", "frontend_tree": tree}), done()),
            (
                "FrontendTreeService.UpdateFrontendTree",
                json!({"name": "web", "frontend_tree": {"frontend": {"name": "web", "maxconn": 5}}, "update_mask": {"paths": ["frontend.maxconn"]}}),
                done(),
            ),
            (
                "FrontendTreeService.GetFrontendTree",
                json!({"name": "web"}),
                holds(json!({"frontend_tree": {"frontend": {"mode": "http"}, "binds": [{"name": "one"}]}})),
            ),
            ("FrontendService.DeleteFrontend", json!({"name": "web"}), done()),
        ])
        .await;
}

over_both!(frontend_trees, flags ["--reload-delay", "1h"], covers [
    "FrontendTreeService.ListFrontendTrees",
    "FrontendTreeService.GetFrontendTree",
    "FrontendTreeService.CreateFrontendTree",
    "FrontendTreeService.ReplaceFrontendTree",
    "FrontendTreeService.UpdateFrontendTree",
]);
