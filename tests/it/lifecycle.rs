//! Transactions, raw configuration, changes from outside, and restarts.

use serde_json::json;

use backstay::error::Reason;

use crate::support::world::{World, done, holds, over_both, refused, refused_saying, refused_with, until};

over_both!(
    transactions,
    covers [
        "TransactionService.BeginTransaction",
        "TransactionService.CommitTransaction",
        "TransactionService.DeleteTransaction",
        "TransactionService.GetTransaction",
        "TransactionService.ListTransactions",
        "RawConfigurationService.GetVersion"
    ]
);

async fn begin(world: &World) -> String {
    let answer = world.ok("TransactionService.BeginTransaction", json!({})).await;
    answer["transaction"]["id"].as_str().expect("an id").to_owned()
}

async fn transactions(world: &mut World) {
    let start = world.version().await;
    let id = begin(world).await;
    let backend = |name: &str| json!({"backend": {"name": name, "mode": "http"}, "transaction_id": id});
    let open = json!({"id": id, "_version": start, "status": "in_progress"});
    world
        .cases([
            ("TransactionService.BeginTransaction", json!({"version": 99}), refused(Reason::VersionMismatch)),
            ("TransactionService.BeginTransaction", json!({"version": null}), refused(Reason::InvalidField)),
            ("TransactionService.GetTransaction", json!({"id": id}), holds(json!({"transaction": open}))),
            ("TransactionService.GetTransaction", json!({"id": "nope"}), refused(Reason::TransactionNotFound)),
            ("BackendService.CreateBackend", backend("one"), holds(json!({"version": start, "reload_id": null}))),
            ("BackendService.CreateBackend", backend("one"), refused(Reason::ObjectExists)),
            ("BackendService.GetBackend", json!({"name": "one", "transaction_id": id}), done()),
            ("BackendService.GetBackend", json!({"name": "one"}), refused(Reason::ObjectNotFound)),
            (
                "BackendService.GetBackend",
                json!({"name": "one", "transaction_id": "nope"}),
                refused_with(Reason::TransactionNotFound, 400),
            ),
        ])
        .await;

    // It survives the death of the program.
    world.restart();
    world
        .cases([
            ("TransactionService.ListTransactions", json!({}), holds(json!({"transactions": [open]}))),
            ("BackendService.CreateBackend", backend("two"), done()),
            ("BackendService.GetBackend", json!({"name": "one", "transaction_id": id}), done()),
        ])
        .await;
    let other = begin(world).await;
    let committed = json!({"id": id, "_version": start, "status": "success"});
    world
        .cases([
            (
                "TransactionService.CommitTransaction",
                json!({"id": id, "force_reload": true}),
                holds(json!({"transaction": committed, "version": start + 1})),
            ),
            ("TransactionService.GetTransaction", json!({"id": id}), refused(Reason::TransactionNotFound)),
            ("RawConfigurationService.GetVersion", json!({}), holds(json!({"version": start + 1}))),
            ("BackendService.GetBackend", json!({"name": "two"}), holds(json!({"version": start + 1}))),
            // The other one began before and is too late now.
            ("TransactionService.CommitTransaction", json!({"id": other}), refused(Reason::TransactionOutdated)),
            ("TransactionService.DeleteTransaction", json!({"id": other}), done()),
            ("TransactionService.DeleteTransaction", json!({"id": other}), refused(Reason::TransactionNotFound)),
            ("TransactionService.ListTransactions", json!({}), holds(json!({"transactions": null}))),
        ])
        .await;

    // One that a single change overtakes is told so once.
    let late = begin(world).await;
    let single = json!({"backend": {"name": "three", "mode": "http"}});
    world
        .cases([
            ("BackendService.CreateBackend", single, done()),
            ("TransactionService.CommitTransaction", json!({"id": late}), refused(Reason::VersionMismatch)),
            ("TransactionService.CommitTransaction", json!({"id": late}), refused(Reason::TransactionOutdated)),
        ])
        .await;

    // One that haproxy refuses stays failed.
    let bad = begin(world).await;
    let rule = json!({"frontend": "main", "backend_switching_rule": {"index": 0, "name": "nowhere"},
        "transaction_id": bad});
    world
        .cases([
            ("BackendSwitchingRuleService.CreateBackendSwitchingRule", rule, done()),
            (
                "TransactionService.CommitTransaction",
                json!({"id": bad}),
                refused_saying(Reason::ConfigurationRejected, "nowhere"),
            ),
            ("TransactionService.CommitTransaction", json!({"id": bad}), refused(Reason::TransactionFailed)),
            (
                "TransactionService.ListTransactions",
                json!({"status": "failed"}),
                holds(json!({"transactions": [{"id": bad, "status": "failed", "_version": null}]})),
            ),
        ])
        .await;
    let forced = json!({"backend": {"name": "x"}, "transaction_id": begin(world).await, "force_reload": true});
    world.cases([("BackendService.CreateBackend", forced, refused(Reason::TargetAmbiguous))]).await;
}

over_both!(transaction_limit, flags ["--max-open-transactions", "2"], covers ["TransactionService.BeginTransaction"]);

async fn transaction_limit(world: &mut World) {
    begin(world).await;
    let second = begin(world).await;
    world
        .cases([
            ("TransactionService.BeginTransaction", json!({}), refused(Reason::TransactionLimit)),
            ("TransactionService.DeleteTransaction", json!({"id": second}), done()),
            ("TransactionService.BeginTransaction", json!({}), done()),
        ])
        .await;
}

over_both!(
    raw,
    covers [
        "RawConfigurationService.GetRawConfiguration",
        "RawConfigurationService.PushRawConfiguration",
        "RawConfigurationService.GetVersion"
    ]
);

async fn raw(world: &mut World) {
    let text = world.backstay.text();
    let more = format!("{text}\n# kept as it is\nbackend   added\n\tmode http   # odd blanks\n");
    let broken = format!("{text}\nbackend broken\n    no-such-keyword\n");
    let start = world.version().await;
    world
        .cases([
            ("RawConfigurationService.GetRawConfiguration", json!({}), holds(json!({"data": text}))),
            (
                "RawConfigurationService.PushRawConfiguration",
                json!({"data": more, "version": 99}),
                refused(Reason::VersionMismatch),
            ),
            (
                "RawConfigurationService.PushRawConfiguration",
                json!({"data": broken}),
                refused_saying(Reason::ConfigurationRejected, "no-such-keyword"),
            ),
            (
                "RawConfigurationService.PushRawConfiguration",
                json!({"data": "no line feed"}),
                refused(Reason::InvalidValue),
            ),
            (
                "RawConfigurationService.PushRawConfiguration",
                json!({"data": more, "only_validate": true, "version": null}),
                done(),
            ),
            ("RawConfigurationService.GetVersion", json!({}), holds(json!({"version": start}))),
            ("RawConfigurationService.PushRawConfiguration", json!({"data": more}), done()),
            ("RawConfigurationService.GetVersion", json!({}), holds(json!({"version": start + 1}))),
            ("BackendService.GetBackend", json!({"name": "added"}), holds(json!({"backend": {"mode": "http"}}))),
        ])
        .await;
    let stored = world.backstay.text();
    assert_eq!(stored, format!("# _version={}\n{more}", start + 1));
    let read = world.ok("RawConfigurationService.GetRawConfiguration", json!({})).await;
    assert_eq!(read["data"], stored);
    world.settled().await;
}

over_both!(only_validated, covers ["BackendService.CreateBackend", "BackendService.DeleteBackend"]);

async fn only_validated(world: &mut World) {
    let before = (world.version().await, world.backstay.text());
    let backend = json!({"backend": {"name": "b", "mode": "http"}, "validate_only": true});
    let bad = json!({"backend": {"name": "b", "mode": "http", "adv_check": "httpchk",
        "default_server": {"resolvers": "absent"}}, "validate_only": true});
    world
        .cases([
            ("BackendService.CreateBackend", backend, holds(json!({"backend": {"name": "b"}, "reload_id": null}))),
            ("BackendService.GetBackend", json!({"name": "b"}), refused(Reason::ObjectNotFound)),
            (
                "BackendService.DeleteBackend",
                json!({"name": "clients", "validate_only": true}),
                refused(Reason::ConfigurationRejected),
            ),
        ])
        .await;
    drop(world.call("BackendService.CreateBackend", bad).await);
    assert_eq!((world.version().await, world.backstay.text()), before);
}

over_both!(changed_from_outside, covers ["BackendService.GetBackend", "HealthService.GetHealth"]);

async fn changed_from_outside(world: &mut World) {
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "ours", "mode": "http"}})).await;
    let version = world.version().await;
    let text = format!("{}\nbackend theirs\n    mode http\n", world.backstay.text());
    let fresh = world.backstay.folder().join("haproxy.cfg.theirs");
    std::fs::write(&fresh, &text).unwrap();
    std::fs::rename(&fresh, world.backstay.config()).unwrap();
    until("the edit is taken over", async || {
        world.call("BackendService.GetBackend", json!({"name": "theirs"})).await.is_ok()
    })
    .await;
    assert_eq!(world.version().await, version + 1);
    let stale = json!({"backend": {"name": "b"}, "version": version});
    world.cases([("BackendService.CreateBackend", stale, refused(Reason::VersionMismatch))]).await;

    // What haproxy refuses is not taken over, and the last good one is served.
    std::fs::write(&fresh, format!("{text}\nbackend broken\n    no-such-keyword\n")).unwrap();
    std::fs::rename(&fresh, world.backstay.config()).unwrap();
    until("health tells of the difference", async || {
        let health = world.ok("HealthService.GetHealth", json!({})).await;
        health["detail"].as_str().is_some_and(|detail| !detail.is_empty())
    })
    .await;
    world
        .cases([
            ("BackendService.GetBackend", json!({"name": "theirs"}), done()),
            ("BackendService.GetBackend", json!({"name": "broken"}), refused(Reason::ObjectNotFound)),
        ])
        .await;
}

over_both!(stopped_and_started, covers["BackendService.CreateBackend"]);

async fn stopped_and_started(world: &mut World) {
    let haproxy = world.backstay.haproxy();
    world.restart();
    assert_ne!(world.backstay.haproxy(), haproxy, "the haproxy of the dead program is replaced");
    world.visit_until("/hello", "Hello").await;
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "b", "mode": "http"}})).await;
    world.settled().await;
    assert_eq!(world.backstay.stop(), Some(0));
    assert!(world.backstay.ask("show info").is_err(), "haproxy ends with it");
}
