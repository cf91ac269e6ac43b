//! Transactions, raw configuration, changes from outside, and restarts.

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::client::request;
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

over_both!(runtime_actions, covers["RawConfigurationService.PushRawConfiguration"]);

/// Replaces the text without a reload: over gRPC with typed actions, over REST with the header of /v2.
async fn push(world: &World, text: &str, header: &str, typed: Json) -> Result<(), (u16, String)> {
    let version = world.version().await;
    world.note("RawConfigurationService.PushRawConfiguration");
    if world.is_rest() {
        let path = format!("/v2/services/haproxy/configuration/raw?skip_reload=true&version={version}");
        let mut request = request("POST", &path, "text/plain", text.to_owned());
        request.headers_mut().insert("x-runtime-actions", header.parse().unwrap());
        let answer = world.client.send(request).await;
        return if answer.status == 201 { Ok(()) } else { Err((answer.status, answer.text())) };
    }
    let request = json!({"data": text, "version": version, "skip_reload": true, "runtime_actions": typed});
    let pushed = world.call("RawConfigurationService.PushRawConfiguration", request).await;
    pushed.map(drop).map_err(|refusal| (0, refusal.text))
}

async fn runtime_actions(world: &mut World) {
    let text = format!("{}\nbackend be\n    server s1 127.0.0.1:9 weight 5\n", world.backstay.text());
    let forced = json!({"data": text, "force_reload": true});
    world.ok("RawConfigurationService.PushRawConfiguration", forced).await;
    let (worker, version) = (world.worker(), world.version().await);
    let weight = || world.backstay.ask("get weight be/s1").unwrap().trim().to_owned();
    assert_eq!(weight(), "5 (initial 5)");

    let text = world.backstay.text();
    let heavier = text.replace("weight 5", "weight 7");
    let set = |weight: i64| json!({"type": "SetServerWeight", "backend": "be", "server": "s1", "weight": weight});
    let maint = json!({"type": "SetServerState", "backend": "be", "server": "s1", "state": "maint"});
    let header = "SetServerWeight be s1 7; SetServerState be s1 maint";
    push(world, &heavier, header, json!([set(7), maint])).await.unwrap();
    assert_eq!(weight(), "7 (initial 5)");
    let states = world.backstay.ask("show servers state be").unwrap();
    assert!(states.lines().any(|line| line.contains(" s1 127.0.0.1 0 1 7 ")), "{states}");
    assert!(world.backstay.text().contains("server s1 127.0.0.1:9 weight 7"));
    assert_eq!((world.worker(), world.version().await), (worker, version + 1), "nothing was reloaded");

    // What is wrong in any of them, or in the text, is found before the first is made.
    let lighter = text.replace("weight 5", "weight 1");
    let broken = format!("{lighter}    no-such-keyword\n");
    for (text, header, typed, status, said) in [
        (
            &lighter,
            "SetServerWeight be s1 1;SetServerWeight be s1",
            json!([set(1), {"type": "SetServerWeight"}]),
            500,
            "",
        ),
        (&lighter, "SetServerWeight be s1 1;SetServerWeight be s1 999", json!([set(1), set(999)]), 422, "weight"),
        (&broken, "SetServerWeight be s1 1", json!([set(1)]), 400, "no-such-keyword"),
    ] {
        let (given, words) = push(world, text, header, typed).await.unwrap_err();
        assert!(given == status || !world.is_rest(), "{header}: {given} {words}");
        assert!(words.contains(said), "{header}: {words}");
        assert_eq!((weight().as_str(), world.version().await), ("7 (initial 5)", version + 1), "{header}");
    }
    // What HAProxy refuses leaves the text as it was.
    let gone = json!([{"type": "EnableAgentCheck", "backend": "be", "server": "gone"}]);
    let (_, words) = push(world, &lighter, "EnableAgentCheck be gone", gone).await.unwrap_err();
    assert!(words.contains("runtime_actions[0]"), "{words}");
    assert_eq!(world.version().await, version + 1);
    assert_eq!(world.worker(), worker);
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

over_both!(changed_from_outside, covers["BackendService.GetBackend"]);

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
