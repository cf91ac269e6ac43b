//! Sections as a whole: trees, and what /v2 cannot say.

use serde_json::json;

use backstay::error::Reason;

use crate::support::world::{Expected, World, done, holds, over_both, refused, refused_saying};

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

async fn section_lines(world: &mut World) {
    let base = world.backstay.text();
    let place = |more: serde_json::Value| {
        let mut request = json!({"section": "backend", "section_name": "raw"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    world
        .cases(vec![
            ("SectionLineService.ListSectionLines", place(json!({})), refused_in_list(world)),
            ("BackendService.CreateBackend", json!({"backend": {"name": "raw", "mode": "http"}}), done()),
            ("SectionLineService.CreateSectionLine", place(json!({"section_line": {"text": "# mine"}})), done()),
            (
                "SectionLineService.CreateSectionLine",
                place(json!({"section_line": {"index": 1, "text": "tcp-request content accept if TRUE # kept"}})),
                done(),
            ),
            (
                "SectionLineService.ListSectionLines",
                place(json!({})),
                holds(json!({"section_lines": [
                    {"index": 0, "kind": "content", "text": "mode http", "field": "mode"},
                    {"index": 1, "resource": "tcp_request_rule", "key": "0", "text": "tcp-request content accept if TRUE # kept"},
                    {"index": 2, "kind": "comment", "text": "# mine"},
                ]})),
            ),
            (
                "SectionLineService.CreateSectionLine",
                place(json!({"section_line": {"text": "no-such-keyword"}})),
                refused_saying(Reason::ConfigurationRejected, "no-such-keyword"),
            ),
            (
                "SectionLineService.CreateSectionLine",
                place(json!({"section_line": {"text": "mode http\nglobal"}})),
                refused(Reason::InvalidValue),
            ),
            ("SectionLineService.CreateSectionLine", place(json!({"section_line": {}})), refused(Reason::InvalidField)),
            (
                "SectionLineService.ReplaceSectionLine",
                place(json!({"index": 2, "section_line": {"text": "# yours"}})),
                done(),
            ),
            (
                "SectionLineService.GetSectionLine",
                place(json!({"index": 2})),
                holds(json!({"section_line": {"text": "# yours", "kind": "comment", "resource": null, "field": null}})),
            ),
            ("SectionLineService.GetSectionLine", place(json!({"index": 3})), refused(Reason::ObjectNotFound)),
            ("SectionLineService.DeleteSectionLine", place(json!({"index": 2})), done()),
            ("SectionLineService.DeleteSectionLine", place(json!({"index": 2})), refused(Reason::ObjectNotFound)),
            ("SectionLineService.DeleteSectionLine", json!({"index": 2}), refused(Reason::InvalidField)),
        ])
        .await;
    assert!(world.backstay.text().contains("    mode http\n    tcp-request content accept if TRUE # kept\n"));
    world.cases(vec![("BackendService.DeleteBackend", json!({"name": "raw"}), done())]).await;
    let body = |text: &str| text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n");
    assert_eq!(body(&world.backstay.text()).trim_end(), body(&base).trim_end());
}

/// Lists below a parent that does not exist are empty over REST.
fn refused_in_list(world: &World) -> Expected {
    if world.is_rest() { holds(json!({"section_lines": null})) } else { refused(Reason::ParentNotFound) }
}

over_both!(section_lines, flags ["--reload-delay", "1h"], covers [
    "SectionLineService.ListSectionLines",
    "SectionLineService.GetSectionLine",
    "SectionLineService.CreateSectionLine",
    "SectionLineService.ReplaceSectionLine",
    "SectionLineService.DeleteSectionLine",
]);

async fn listen_sections(world: &mut World) {
    let base = world.backstay.text();
    let tree = json!({
        "listen": {"name": "both", "mode": "http", "monitor_uri": "/alive"},
        "binds": [{"name": "one", "address": "127.0.0.1", "port": 18764}],
        "acls": [{"acl_name": "api", "criterion": "path_beg", "value": "/api"}],
        "servers": [{"name": "s1", "address": "127.0.0.1", "port": 80}],
    });
    world
        .cases(vec![
            ("ListenTreeService.CreateListenTree", json!({"listen_tree": tree}), done()),
            ("ListenTreeService.GetListenTree", json!({"name": "both"}), holds(json!({"listen_tree": tree}))),
            ("ListenTreeService.ListListenTrees", json!({}), done()),
            ("ListenTreeService.ReplaceListenTree", json!({"name": "both", "listen_tree": tree}), done()),
            (
                "ListenTreeService.UpdateListenTree",
                json!({"name": "both", "listen_tree": {"listen": {"name": "both", "retries": 5}}, "update_mask": {"paths": ["listen.retries"]}}),
                done(),
            ),
            ("ListenService.GetListen", json!({"name": "both"}), holds(json!({"listen": {"mode": "http"}}))),
            // REST knows neither the section nor its lines.
            (
                "FrontendService.GetFrontend",
                json!({"name": "both"}),
                refused(Reason::ObjectNotFound),
            ),
            ("BackendService.GetBackend", json!({"name": "both"}), refused(Reason::ObjectNotFound)),
        ])
        .await;
    if world.is_rest() {
        let inside = json!({"parent_type": "listen", "parent_name": "both"});
        world.cases(vec![("ServerService.ListServers", inside, refused(Reason::InvalidField))]).await;
    } else {
        let inside = json!({"parent_type": "listen", "parent_name": "both"});
        world
            .cases(vec![
                ("ServerService.ListServers", inside.clone(), holds(json!({"servers": [{"name": "s1"}]}))),
                ("AclService.ListAcls", inside, holds(json!({"acls": [{"acl_name": "api"}]}))),
                (
                    "StickRuleService.CreateStickRule",
                    json!({"listen": "both", "stick_rule": {"index": 0, "type": "match", "pattern": "src", "table": "both"}}),
                    refused(Reason::ConfigurationRejected),
                ),
                (
                    "BackendSwitchingRuleService.CreateBackendSwitchingRule",
                    json!({"listen": "both", "backend_switching_rule": {"index": 0, "name": "%[req.hdr(host)]", "cond": "if", "cond_test": "api"}}),
                    done(),
                ),
                (
                    "BackendSwitchingRuleService.ListBackendSwitchingRules",
                    json!({"listen": "both"}),
                    holds(json!({"backend_switching_rules": [{"name": "%[req.hdr(host)]"}]})),
                ),
            ])
            .await;
    }
    world.cases(vec![("ListenService.DeleteListen", json!({"name": "both"}), done())]).await;
    let body = |text: &str| text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n");
    assert_eq!(body(&world.backstay.text()).trim_end(), body(&base).trim_end());
}

over_both!(listen_sections, flags ["--reload-delay", "1h"], covers [
    "ListenTreeService.ListListenTrees",
    "ListenTreeService.GetListenTree",
    "ListenTreeService.CreateListenTree",
    "ListenTreeService.ReplaceListenTree",
    "ListenTreeService.UpdateListenTree",
]);
