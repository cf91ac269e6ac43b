//! Servers whose addresses follow DNS records.

use std::net::Ipv4Addr;

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::support::dns::Dns;
use crate::support::world::{World, done, holds, over_both, refused, until};

over_both!(
    resolvers,
    covers [
        "ResolverService.CreateResolver",
        "ResolverService.GetResolver",
        "ResolverService.ListResolvers",
        "ResolverService.ReplaceResolver",
        "ResolverService.UpdateResolver",
        "ResolverService.DeleteResolver",
        "NameserverService.CreateNameserver",
        "NameserverService.GetNameserver",
        "NameserverService.ListNameservers",
        "NameserverService.ReplaceNameserver",
        "NameserverService.DeleteNameserver",
        "ServerService.CreateServer",
        "ServerService.ReplaceServer",
        "ServerService.GetServer"
    ]
);

async fn resolvers(world: &mut World) {
    let dns = Dns::start(Ipv4Addr::new(127, 0, 5, 1)).await;
    let all = json!({
        "name": "internal_dns", "accepted_payload_size": 4096, "hold_nx": 31_000, "hold_obsolete": 1_000,
        "hold_other": 32_000, "hold_refused": 33_000, "hold_timeout": 34_000, "hold_valid": 100,
        "parse-resolv-conf": true, "resolve_retries": 4, "timeout_resolve": 100, "timeout_retry": 200,
    });
    let mut fewer = all.clone();
    fewer.as_object_mut().unwrap().remove("parse-resolv-conf");
    fewer["hold_nx"] = json!(5_000);
    let nameserver = |name: &str, port: u16| json!({"name": name, "address": "127.0.0.1", "port": port});
    let of = |more: Json| {
        let mut request = json!({"resolver": "internal_dns"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    let live = nameserver("dns1", dns.address.port());
    world
        .cases([
            ("ResolverService.CreateResolver", json!({"resolver": all}), holds(json!({"resolver": all}))),
            ("ResolverService.CreateResolver", json!({"resolver": all}), refused(Reason::ObjectExists)),
            ("ResolverService.GetResolver", json!({"name": "internal_dns"}), holds(json!({"resolver": all}))),
            ("ResolverService.ListResolvers", json!({}), holds(json!({"resolvers": [all]}))),
            (
                "ResolverService.ReplaceResolver",
                json!({"name": "internal_dns", "resolver": fewer}),
                holds(json!({"resolver": fewer})),
            ),
            (
                "ResolverService.GetResolver",
                json!({"name": "internal_dns"}),
                holds(json!({"resolver": {"parse-resolv-conf": null, "hold_nx": 5_000, "hold_valid": 100}})),
            ),
            (
                "ResolverService.UpdateResolver",
                json!({"name": "internal_dns", "resolver": {"hold_nx": 6_000, "hold_other": 1},
                    "update_mask": {"paths": ["hold_nx"]}}),
                holds(json!({"resolver": {"hold_nx": 6_000, "hold_other": 32_000, "timeout_retry": 200}})),
            ),
            ("NameserverService.CreateNameserver", of(json!({"nameserver": nameserver("dns1", 1)})), done()),
            ("NameserverService.CreateNameserver", of(json!({"nameserver": nameserver("dns2", 2)})), done()),
            (
                "NameserverService.CreateNameserver",
                of(json!({"nameserver": nameserver("dns2", 2)})),
                refused(Reason::ObjectExists),
            ),
            (
                "NameserverService.ListNameservers",
                of(json!({})),
                holds(json!({"nameservers": [nameserver("dns1", 1), nameserver("dns2", 2)]})),
            ),
            (
                "NameserverService.ReplaceNameserver",
                of(json!({"name": "dns1", "nameserver": live})),
                holds(json!({"nameserver": live})),
            ),
            ("NameserverService.GetNameserver", of(json!({"name": "dns1"})), holds(json!({"nameserver": live}))),
            ("NameserverService.DeleteNameserver", of(json!({"name": "dns2"})), done()),
            ("NameserverService.DeleteNameserver", of(json!({"name": "dns2"})), refused(Reason::ObjectNotFound)),
            ("NameserverService.GetNameserver", of(json!({"name": "dns2"})), refused(Reason::ObjectNotFound)),
        ])
        .await;
    for line in ["hold nx", "timeout resolve 100", "timeout retry 200", "resolve_retries 4"] {
        assert!(world.backstay.text().contains(line), "{line}:\n{}", world.backstay.text());
    }

    // A name that nothing resolves yet is accepted, as the server starts without an address.
    let server = json!({"name": "app1", "address": "app.internal", "port": 8080, "init-addr": "none"});
    let mut resolving = server.clone();
    resolving["resolvers"] = json!("internal_dns");
    resolving["resolve-prefer"] = json!("ipv4");
    let parent = |more: Json| {
        let mut request = json!({"parent_type": "backend", "parent_name": "named"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request
    };
    world
        .cases([
            ("BackendService.CreateBackend", json!({"backend": {"name": "named", "mode": "http"}}), done()),
            ("ServerService.CreateServer", parent(json!({"server": server})), holds(json!({"server": server}))),
            (
                "ServerService.ReplaceServer",
                parent(json!({"name": "app1", "server": resolving})),
                holds(json!({"server": resolving})),
            ),
            ("ServerService.GetServer", parent(json!({"name": "app1"})), holds(json!({"server": resolving}))),
        ])
        .await;
    world.settled().await;
    let address = || {
        let state = world.backstay.ask("show servers state named").unwrap_or_default();
        let words: Vec<String> = state
            .lines()
            .find(|line| line.contains(" app1 "))
            .map_or_else(Vec::new, |line| line.split(' ').map(str::to_owned).collect());
        words.get(4).cloned().unwrap_or_default()
    };
    until("the server has the address of the record", async || address() == "127.0.5.1").await;
    dns.set(Ipv4Addr::new(127, 0, 5, 2));
    until("the server follows the record", async || address() == "127.0.5.2").await;

    world
        .cases([
            ("ServerService.ReplaceServer", parent(json!({"name": "app1", "server": server})), done()),
            ("ResolverService.DeleteResolver", json!({"name": "internal_dns"}), done()),
            ("ResolverService.DeleteResolver", json!({"name": "internal_dns"}), refused(Reason::ObjectNotFound)),
            ("ResolverService.ListResolvers", json!({}), holds(json!({"resolvers": null}))),
        ])
        .await;
    assert!(!world.backstay.text().contains("nameserver"));
}
