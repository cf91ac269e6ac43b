//! Words in quotes, with variables and in parts: what is shown is what HAProxy reads, what is put back changes no byte, and
//! a change of one value leaves the spelling of the others.

use serde_json::{Value as Json, json};

use crate::forms::{changed, push, put_back, with};
use crate::support::haproxy::free_port;
use crate::support::world::{World, holds, over_both};

/// A line of a backend or frontend: service, field and key of its object; what is shown; a change, and the line after it.
type Spelling = (&'static str, &'static str, Json, Json, Json, &'static str);

const RULE: &str = "HttpRequestRule/http_request_rule";
const SERVER: &str = "Server/server";

fn spellings() -> Vec<Spelling> {
    let index = || json!({"index": 0});
    let server = || json!({"name": "s"});
    vec![
        (
            "frontend",
            "http-request set-var(\"txn.a\") src",
            index(),
            json!({"var_scope": "txn", "var_name": "a"}),
            json!({"var_expr": "dst"}),
            "http-request set-var(\"txn.a\") dst",
        ),
        (
            "frontend",
            "http-request track-sc0 src table \"other\" if TRUE",
            index(),
            json!({"track_sc_stick_counter": 0}),
            json!({"track_sc_key": "dst"}),
            "http-request track-sc0 dst table \"other\" if TRUE",
        ),
        (
            "frontend",
            "http-request sc-inc-gpc0('1') if TRUE",
            index(),
            json!({"type": "sc-inc-gpc0", "sc_id": 1}),
            json!({"cond": "unless"}),
            "http-request sc-inc-gpc0('1') unless TRUE",
        ),
        (
            "backend",
            "server \"s\" \"${HOST-127.0.0.1}:8080\" check",
            server(),
            json!({"address": "\"${HOST-127.0.0.1}\"", "port": 8080}),
            json!({"port": 8081}),
            "server \"s\" \"${HOST-127.0.0.1}\":8081 check",
        ),
        (
            "backend",
            "server s \"127.0.0.1:${PORT-81}\" weight \"5\"",
            server(),
            json!({"address": "127.0.0.1", "port": null, "weight": 5}),
            json!({"weight": 6}),
            "server s \"127.0.0.1:${PORT-81}\" weight 6",
        ),
        (
            "backend",
            "server s \"[::1]:80\" weight 5 track \"other/t\"",
            server(),
            json!({"address": "::1", "port": 80}),
            json!({"weight": 6}),
            "server s \"[::1]:80\" weight 6 track \"other/t\"",
        ),
    ]
}

async fn words_in_parts(world: &mut World) {
    let base = world.backstay.text();
    let other = "backend other\n  stick-table type ip size 1k store gpc0\n  server t 127.0.0.1:9 check\n";
    for (section, line, key, shown, change, after) in spellings() {
        let port = free_port();
        let bind = if section == "frontend" { format!("  bind \"127.0.0.1:{port}\" name b\n") } else { String::new() };
        let text = format!("{base}{other}{section} forms\n  mode http\n{bind}  {line} # kept\n");
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
        let (noun, field) = if section == "backend" { SERVER } else { RULE }.split_once('/').unwrap();
        let mut place = json!({"parent_type": section, "parent_name": "forms"});
        place.as_object_mut().unwrap().extend(key.as_object().unwrap().clone());
        let get =
            if section == "backend" { "ServerService.GetServer" } else { "HttpRequestRuleService.GetHttpRequestRule" };
        world.cases([(get, place.clone(), holds(with(json!({}), field, shown)))]).await;
        let object = put_back(world, noun, field, place.clone()).await;
        world.ok(&format!("{noun}Service.Replace{noun}"), with(place, field, changed(&object, &change))).await;
        let now = world.backstay.text();
        assert!(now.contains(&format!("  {after} # kept\n")), "{after}:\n{now}");
    }
}

over_both!(words_in_parts, covers["ServerService.ReplaceServer", "HttpRequestRuleService.ReplaceHttpRequestRule"]);

async fn accounts_in_quotes(world: &mut World) {
    let port = free_port();
    let lines = ["'admin:secret'", "\"user:p w\"", "\"${STATS_USER-a}:${STATS_PASS-b}\"", "u:'x y'"];
    let text = format!("frontend forms\n  bind 127.0.0.1:{port}\n  stats auth {}\n", lines.join("\n  stats auth "));
    push(world, &text).await;
    let frontend = put_back(world, "Frontend", "frontend", json!({"name": "forms"})).await;
    let account = |user: &str, password: &str| json!({"user": user, "passwd": password});
    let accounts = json!([
        account("admin", "secret"),
        account("user", "\"p w\""),
        account("\"${STATS_USER-a}\"", "\"${STATS_PASS-b}\""),
        account("u", "'x y'"),
    ]);
    assert_eq!(frontend["stats_options"]["stats_auths"], accounts, "{frontend}");
    let mut other = changed(&frontend, &json!({"maxconn": 7}));
    other["stats_options"]["stats_auths"][1]["passwd"] = json!("q");
    world.ok("FrontendService.ReplaceFrontend", json!({"name": "forms", "frontend": other})).await;
    let now = world.backstay.text();
    let after = [lines[0], "user:q", lines[2], lines[3]];
    assert!(now.contains(&format!("  stats auth {}\n", after.join("\n  stats auth "))), "{now}");
}

over_both!(accounts_in_quotes, covers["FrontendService.ReplaceFrontend"]);

async fn peers_and_mailers_at_variables(world: &mut World) {
    push(world, "peers p\n  peer l \"${H-127.0.0.1}:10000\"\nmailers m\n  mailer q \"127.0.0.1:${P-25}\"\n").await;
    let peer = json!({"peer_section": "p", "name": "l"});
    let shown = put_back(world, "PeerEntry", "peer_entry", peer).await;
    assert_eq!((&shown["address"], &shown["port"]), (&json!("\"${H-127.0.0.1}\""), &json!(10000)), "{shown}");
    // Models of /v2 have no mailer without a port.
    if world.is_rest() {
        return;
    }
    let mailer = json!({"mailers_section": "m", "name": "q"});
    let shown = put_back(world, "MailerEntry", "mailer_entry", mailer).await;
    assert_eq!((&shown["address"], &shown["port"]), (&json!("127.0.0.1"), &Json::Null), "{shown}");
}

over_both!(peers_and_mailers_at_variables, covers["PeerEntryService.GetPeerEntry"]);

async fn ports_out_of_variables(world: &mut World) {
    let port = free_port();
    let server = "server s 127.0.0.1:\"${PORT-81}\" check";
    push(
        world,
        &format!("frontend forms\n  bind \"127.0.0.1:${{BIND-{port}}}\" name b\nbackend pool\n  {server} # kept\n"),
    )
    .await;
    let bind = json!({"parent_type": "frontend", "parent_name": "forms", "name": "b"});
    let shown = put_back(world, "Bind", "bind", bind.clone()).await;
    assert_eq!((&shown["address"], &shown["port"]), (&json!("127.0.0.1"), &Json::Null), "{shown}");
    let place = json!({"parent_type": "backend", "parent_name": "pool", "name": "s"});
    let shown = put_back(world, "Server", "server", place.clone()).await;
    let replace = |more: Json| with(place.clone(), "server", changed(&shown, &more));
    world.ok("ServerService.ReplaceServer", replace(json!({"weight": 3}))).await;
    let now = world.backstay.text();
    assert!(now.contains("127.0.0.1:\"${PORT-81}\"") && now.contains("weight 3"), "{now}");
    if world.is_rest() {
        world.ok("ServerService.ReplaceServer", replace(json!({"port": 82}))).await;
    } else {
        assert_eq!(shown["port_variable"], "\"${PORT-81}\"");
        let refusal = crate::support::world::refused_saying(backstay::error::Reason::InvalidField, "port_variable");
        world.refused("ServerService.ReplaceServer", replace(json!({"port": 82})), refusal).await;
        let request =
            with(with(place.clone(), "server", json!({"port": 82})), "update_mask", json!({"paths": ["port"]}));
        world.ok("ServerService.UpdateServer", request).await;
    }
    let now = world.backstay.text();
    assert!(now.contains("server s 127.0.0.1:82 check") && !now.contains("PORT-81"), "{now}");
}

over_both!(ports_out_of_variables, covers["BindService.GetBind", "ServerService.ReplaceServer"]);
