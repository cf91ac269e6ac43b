use std::sync::Arc;

use super::super::carry::carried;
use super::*;
use crate::schema::Schema;

const FILE: &str = "# _version=1\nglobal\n  daemon\n\nfrontend f\n  bind :80\n  maxconn 10\n\nbackend b\n  balance roundrobin\n  server s1 127.0.0.1:1 check weight 3 disabled proxy-v2-options ssl # one\n  server s2 127.0.0.1:2\n\nring r\n  server x 127.0.0.1:9\n";

fn plan_of(new: &str, live: Live) -> Plan {
    let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
    engine.plan(&Document::parse(FILE.as_bytes()), &Document::parse(new.as_bytes()), live)
}

/// The plan when `from` becomes `to` in the file.
fn plan(from: &str, to: &str, live: Live) -> Plan {
    assert!(FILE.contains(from), "{from}");
    plan_of(&FILE.replacen(from, to, 1), live)
}

fn set(server: &str, set: ServerChange) -> Plan {
    Plan::Live(vec![Change::Server { backend: "b".into(), server: server.into(), set }])
}

#[test]
fn values_of_servers_change_while_they_run() {
    for live in [Live::Values, Live::Everything] {
        assert_eq!(plan("weight 3", "weight 4", live), set("s1", ServerChange::Weight(4)));
        assert_eq!(plan("127.0.0.1:2", "127.0.0.1:2 weight 4", live), set("s2", ServerChange::Weight(4)));
        let address = ServerChange::Address("127.0.0.9".into(), Some(2));
        assert_eq!(plan("127.0.0.1:2", "127.0.0.9:2", live), set("s2", address));
        let both = ServerChange::Address("127.0.0.9".into(), Some(8));
        assert_eq!(plan("127.0.0.1:2", "127.0.0.9:8", live), set("s2", both));
        assert_eq!(plan(" disabled", " enabled", live), set("s1", ServerChange::Maintenance(false)));
        assert_eq!(plan("127.0.0.1:2", "127.0.0.1:2 disabled", live), set("s2", ServerChange::Maintenance(true)));
        assert_eq!(plan("check", "check port 99", live), set("s1", ServerChange::HealthCheckPort(99)));
        assert_eq!(plan("check", "check agent-send x", live), set("s1", ServerChange::AgentSend("x".into())));
        assert_eq!(plan("check", "check agent-addr x", live), set("s1", ServerChange::AgentAddress("x".into())));
        assert_eq!(plan("check", "check agent-check", live), set("s1", ServerChange::AgentCheck(true)));
    }
    assert_eq!(plan("check", "check maxconn 7", Live::Everything), set("s1", ServerChange::Maxconn(7)));
    assert_eq!(plan("check", "check maxconn 7", Live::Values), Plan::Reload);
}

#[test]
fn several_values_keep_their_server() {
    let Plan::Live(changes) = plan("weight 3 disabled", "weight 4 enabled", Live::Values) else { panic!("reload") };
    assert_eq!(changes.len(), 2, "{changes:?}");
}

#[test]
fn a_server_is_changed_while_it_takes_no_traffic() {
    let server = |set| Change::Server { backend: "b".into(), server: "s1".into(), set };
    let address = || server(ServerChange::Address("127.0.0.9".into(), Some(7)));
    let (on, off) = ("127.0.0.1:1 check weight 3 disabled", "127.0.0.9:7 check weight 3");
    let up = vec![address(), server(ServerChange::Maintenance(false))];
    assert_eq!(plan(on, off, Live::Everything), Plan::Live(up));
    assert_eq!(plan(on, off, Live::Values), Plan::Reload);
    let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
    let (old, new) = (FILE.replace(on, off), FILE);
    let back = |old: &str, new: &str| {
        engine.plan(&Document::parse(old.as_bytes()), &Document::parse(new.as_bytes()), Live::Everything)
    };
    let address = server(ServerChange::Address("127.0.0.1".into(), Some(1)));
    assert_eq!(back(&old, new), Plan::Live(vec![server(ServerChange::Maintenance(true)), address]));
    // What is not on the line may be inherited.
    let inheriting = |text: &str| text.replace("  balance", "  default-server disabled\n  balance");
    assert_eq!(back(&inheriting(new), &inheriting(&old)), Plan::Reload);
}

#[test]
fn what_haproxy_cannot_take_over_is_a_reload() {
    for (from, to) in [
        (" weight 3", ""),
        ("127.0.0.1:2", "127.0.0.1"),
        ("weight 3", "weight 3 inter 5s"),
        ("weight 3", "weight 4 inter 5s"),
        ("weight 3", "weight 3 brandnew unknown-word"),
        ("weight 3", "weight 999"),
        ("127.0.0.1:9", "127.0.0.1:8"),
        ("roundrobin", "leastconn"),
        ("bind :80", "bind :81"),
        ("  maxconn 10\n", ""),
        ("maxconn 10", "maxconn 0"),
        ("daemon", "daemon\n  maxconn 3"),
        ("ring r", "ring q"),
        ("backend b\n", "backend c\n\nbackend b\n"),
        ("  server s2", ".if defined(X)\n  server s2"),
    ] {
        assert_eq!(plan(from, to, Live::Everything), Plan::Reload, "{from} -> {to}");
    }
    assert_eq!(plan("weight 3", "weight 4", Live::Nothing), Plan::Reload);
}

#[test]
fn lists_are_compared_too() {
    assert_eq!(plan("proxy-v2-options ssl", "proxy-v2-options ssl,crc32c", Live::Everything), Plan::Reload);
}

#[test]
fn comments_spaces_and_versions_are_no_difference() {
    for (from, to) in
        [("# one", "# two"), ("  bind", "\t\tbind"), ("_version=1", "_version=2"), ("backend b", "# x\nbackend b")]
    {
        assert_eq!(plan(from, to, Live::Values), Plan::Live(vec![]), "{from} -> {to}");
    }
    assert_eq!(plan_of(FILE, Live::Values), Plan::Live(vec![]));
}

#[test]
fn a_frontend_takes_other_connections() {
    let changed = Plan::Live(vec![Change::FrontendMaxconn { frontend: "f".into(), maxconn: 20 }]);
    assert_eq!(plan("maxconn 10", "maxconn 20", Live::Values), changed);
}

#[test]
fn servers_come_and_go_when_everything_is_wanted() {
    let to = "  server s2 127.0.0.1:2\n  server s3 [::1]:3 check disabled\n";
    let from = "  server s2 127.0.0.1:2\n";
    let Plan::Live(changes) = plan(from, to, Live::Everything) else { panic!("reload") };
    let [Change::AddServer { backend, server, words, check, agent, ready }] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((backend.as_str(), server.as_str(), words.join(" ").as_str()), ("b", "s3", "[::1]:3 check disabled"));
    assert_eq!((check, agent, ready), (&true, &false, &false));
    assert_eq!(plan(from, to, Live::Values), Plan::Reload);
    let gone = Plan::Live(vec![Change::DeleteServer { backend: "b".into(), server: "s2".into() }]);
    assert_eq!(plan(from, "", Live::Everything), gone);
    assert_eq!(plan(from, "", Live::Values), Plan::Reload);
}

#[test]
fn an_added_server_is_told_what_it_is_not_anyway() {
    let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
    let server = engine.schema().tables.message_by_name["backstay.configuration.v2.Server"];
    for (line, expected) in [
        ("enabled no-check no-ssl no-send-proxy-v2-ssl stick ssl-reuse", (vec![], false, true)),
        ("sni-auto check-sni-auto", (vec![], false, true)),
        ("no-sni-auto", (vec!["no-sni-auto"], false, true)),
        ("disabled no-tls-tickets", (vec!["disabled", "no-tls-tickets"], false, false)),
        ("check cookie \"a\"", (vec!["a", "check", "cookie"], true, true)),
    ] {
        let line = format!("server s 127.0.0.1:1 {line}");
        let words = crate::schema::words::split(&line).words;
        let object = engine.line_object(server, &words, 0).unwrap();
        let Change::AddServer { server, mut words, check, ready, .. } = engine.server_addition("b", &object).unwrap()
        else {
            panic!("no addition")
        };
        assert_eq!((server.as_str(), words.remove(0).as_str()), ("s", "127.0.0.1:1"), "{line}");
        words.sort();
        assert_eq!((words.iter().map(String::as_str).collect(), check, ready), expected, "{line}");
    }
}

#[test]
fn an_added_server_inherits_nothing_so_defaults_need_a_reload() {
    let new = FILE.replace("  server s2 ", "  server s3 127.0.0.1:3\n  server s2 ");
    assert!(matches!(plan_of(&new, Live::Everything), Plan::Live(_)));
    let engine = Engine::new(Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap()));
    for (from, to) in [
        ("  balance", "  default-server inter 5s\n  balance"),
        ("frontend f", "defaults\n  default-server inter 5s\n\nfrontend f"),
    ] {
        let (old, new) = (FILE.replace(from, to), new.replace(from, to));
        let plan = engine.plan(&Document::parse(old.as_bytes()), &Document::parse(new.as_bytes()), Live::Everything);
        assert_eq!(plan, Plan::Reload, "{to}");
    }
}

#[test]
fn a_change_is_carried_to_an_older_text_without_the_changes_in_between() {
    let base = Document::parse(FILE.as_bytes());
    let old = FILE.replace("bind :80", "bind :81").replace("balance", "mode http\n  balance");
    let new = old.replace("weight 3", "weight 4");
    let carried_to = |old: &str, new: &str| {
        let document = carried(&base, &Document::parse(old.as_bytes()), &Document::parse(new.as_bytes()));
        document.map(|document| String::from_utf8(document.to_bytes()).unwrap())
    };
    assert_eq!(carried_to(&old, &new).unwrap(), FILE.replace("weight 3", "weight 4"));
    let more = old.replace("  server s2 127.0.0.1:2\n", "  server s2 127.0.0.1:2\n  server s3 127.0.0.1:3\n");
    let wanted = FILE.replace("  server s2 127.0.0.1:2\n", "  server s2 127.0.0.1:2\n  server s3 127.0.0.1:3\n");
    assert_eq!(carried_to(&old, &more).unwrap(), wanted);
    let less = old.replace("  server s2 127.0.0.1:2\n", "");
    assert_eq!(carried_to(&old, &less).unwrap(), FILE.replace("  server s2 127.0.0.1:2\n", ""));
    let elsewhere = format!("{old}\nbackend new\n  server y 127.0.0.1:5 weight 1\n");
    assert_eq!(carried_to(&elsewhere, &elsewhere.replace("weight 1", "weight 2")), None);
}
