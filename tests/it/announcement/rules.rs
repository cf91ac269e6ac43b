//! Order of rules, and balance and cookie as objects.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::world::{World, done, holds, over_both, refused};

over_both!(
    positions,
    covers [
        "HttpRequestRuleService.CreateHttpRequestRule",
        "HttpRequestRuleService.ListHttpRequestRules",
        "HttpRequestRuleService.GetHttpRequestRule",
        "HttpRequestRuleService.ReplaceHttpRequestRule",
        "HttpRequestRuleService.DeleteHttpRequestRule"
    ]
);

async fn positions(world: &mut World) {
    let with = |more: Json| {
        let mut request = json!({"parent_type": "frontend", "parent_name": "main"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let header = |index: i64, value: &str| json!({"index": index, "type": "set-header", "hdr_name": "X-Step", "hdr_format": value});
    let put = |index: i64, value: &str| with(json!({"http_request_rule": header(index, value)}));
    world
        .cases([
            ("HttpRequestRuleService.CreateHttpRequestRule", put(1, "last"), done()),
            ("HttpRequestRuleService.CreateHttpRequestRule", put(0, "first"), done()),
            ("HttpRequestRuleService.CreateHttpRequestRule", put(1, "second"), done()),
            ("HttpRequestRuleService.CreateHttpRequestRule", put(9, "no"), refused(Reason::IndexOutOfRange)),
            ("HttpRequestRuleService.CreateHttpRequestRule", put(-1, "no"), refused(Reason::IndexOutOfRange)),
            (
                "HttpRequestRuleService.ListHttpRequestRules",
                with(json!({})),
                holds(json!({"http_request_rules": [
                    header(0, "first"),
                    header(1, "second"),
                    {"index": 2, "type": "track-sc"},
                    header(3, "last"),
                ]})),
            ),
            (
                "HttpRequestRuleService.ReplaceHttpRequestRule",
                with(json!({"index": 1, "http_request_rule": header(1, "other")})),
                done(),
            ),
            (
                "HttpRequestRuleService.ReplaceHttpRequestRule",
                with(json!({"index": 4, "http_request_rule": header(4, "no")})),
                refused(Reason::ObjectNotFound),
            ),
            ("HttpRequestRuleService.DeleteHttpRequestRule", with(json!({"index": 0})), done()),
            (
                "HttpRequestRuleService.DeleteHttpRequestRule",
                with(json!({"index": 9})),
                refused(Reason::ObjectNotFound),
            ),
            (
                "HttpRequestRuleService.GetHttpRequestRule",
                with(json!({"index": 0})),
                holds(json!({"http_request_rule": header(0, "other")})),
            ),
            ("HttpRequestRuleService.GetHttpRequestRule", with(json!({"index": 3})), refused(Reason::ObjectNotFound)),
        ])
        .await;
    let text = world.backstay.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("http-request") && line.contains("X-Step")).collect();
    assert_eq!(lines.len(), 2, "{text}");
}

over_both!(
    balance_and_cookie,
    covers [
        "BackendService.CreateBackend",
        "BackendService.GetBackend",
        "BackendService.ReplaceBackend",
        "BackendService.UpdateBackend",
        "NamedDefaultsService.CreateNamedDefaults",
        "NamedDefaultsService.GetNamedDefaults",
        "NamedDefaultsService.ReplaceNamedDefaults"
    ]
);

async fn balance_and_cookie(world: &mut World) {
    let cookie = json!({
        "name": "SRV", "type": "insert", "indirect": true, "nocache": true, "httponly": true, "secure": true,
        "maxidle": 1800, "maxlife": 3600, "domain": [{"value": ".example.com"}], "attr": [{"value": "SameSite=Lax"}],
    });
    let uri = json!({"algorithm": "uri", "uri_depth": 3, "uri_len": 20, "uri_whole": true});
    let hash = json!({"algorithm": "hdr", "hdr_name": "Host", "hdr_use_domain_only": true});
    let of = |name: &str, balance: &Json| json!({"name": name, "mode": "http", "balance": balance, "cookie": cookie});
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": of("app", &uri)}), done()),
            ("BackendService.GetBackend", json!({"name": "app"}), holds(json!({"backend": of("app", &uri)}))),
            ("BackendService.ReplaceBackend", json!({"name": "app", "backend": of("app", &hash)}), done()),
            ("BackendService.GetBackend", json!({"name": "app"}), holds(json!({"backend": of("app", &hash)}))),
            (
                "BackendService.UpdateBackend",
                json!({"name": "app", "backend": {"balance": {"algorithm": "roundrobin"}},
                    "update_mask": {"paths": ["balance"]}}),
                holds(json!({"backend": {"balance": {"algorithm": "roundrobin", "hdr_name": null}, "cookie": cookie}})),
            ),
            (
                "BackendService.CreateBackend",
                json!({"backend": {"name": "bad", "balance": {"algorithm": "guess"}}}),
                refused(Reason::InvalidField),
            ),
            (
                "BackendService.CreateBackend",
                json!({"backend": {"name": "bad", "balance": {}}}),
                refused(Reason::InvalidField),
            ),
            (
                "BackendService.CreateBackend",
                json!({"backend": {"name": "bad", "cookie": {"type": "insert"}}}),
                refused(Reason::InvalidField),
            ),
            (
                "NamedDefaultsService.CreateNamedDefaults",
                json!({"defaults": {"name": "web", "mode": "http", "balance": {"algorithm": "leastconn"},
                    "cookie": cookie}}),
                done(),
            ),
            (
                "NamedDefaultsService.GetNamedDefaults",
                json!({"name": "web"}),
                holds(json!({"defaults": {"balance": {"algorithm": "leastconn"}, "cookie": cookie}})),
            ),
            (
                "NamedDefaultsService.ReplaceNamedDefaults",
                json!({"name": "web", "defaults": {"name": "web", "mode": "http",
                    "balance": {"algorithm": "random", "random_draws": 3}}}),
                done(),
            ),
            (
                "NamedDefaultsService.GetNamedDefaults",
                json!({"name": "web"}),
                holds(json!({"defaults": {"balance": {"algorithm": "random", "random_draws": 3}, "cookie": null}})),
            ),
        ])
        .await;
    let text = world.backstay.text();
    let rest = text.lines().find(|line| line.contains("cookie SRV")).expect("the cookie of the backend");
    for word in ["insert", "indirect", "nocache", "httponly", "secure", "maxidle", "domain .example.com"] {
        assert!(rest.contains(word), "{rest}");
    }
    assert!(text.contains("balance random(3)"), "{text}");
}
