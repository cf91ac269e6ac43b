//! Words as HAProxy reads them: whatever is shown can be sent back, and no byte changes.

use serde_json::{Value as Json, json};

use backstay::document::Document;
use backstay::error::Reason;
use backstay::schema::tables::{Field, Kind, Method, ResourceKind, Verb};

use crate::support::client::{short_name, tables};
use crate::support::world::{World, done, holds, over_both, refused, refused_saying};

/// The text without the line of its version.
fn body(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n")
}

async fn push(world: &World, more: &str) {
    std::fs::create_dir_all(world.backstay.folder().join("maps")).unwrap();
    std::fs::write(world.backstay.folder().join("maps/m.map"), "").unwrap();
    let more = more.replace("maps/m.map", &world.backstay.folder().join("maps/m.map").display().to_string());
    let text = format!("{}\n{more}", world.backstay.text());
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
}

/// Generic methods of resources of haproxy.cfg by verb.
fn methods(verb: Verb) -> impl Iterator<Item = &'static Method> {
    tables()
        .methods
        .iter()
        .filter(move |method| method.verb == verb && method.path.starts_with("/backstay.configuration."))
}

/// Puts back whatever objects `section` has, as they are shown. Returns how many there were.
async fn put_back(world: &World, kind: &str, name: &str) -> usize {
    let mut count = 0;
    for list in methods(Verb::List) {
        let resource = list.resource.unwrap();
        let message = &tables().messages[resource];
        let rules = message.resource.as_ref().unwrap();
        let Some(replace) = methods(Verb::Replace).find(|method| method.resource == Some(resource)) else { continue };
        let (list, replace) = (short_name(list), short_name(replace));
        let lines = matches!(rules.kind, ResourceKind::NamedLine | ResourceKind::IndexedLine);
        let parent = rules.parents.iter().find(|parent| &*parent.section == kind);
        if !lines || parent.is_none() || !world.client.has(&list) || !world.client.has(&replace) {
            continue;
        }
        let input = &tables().messages[tables().methods.iter().find(|m| short_name(m) == replace).unwrap().input];
        let place = if input.field_named("parent_type").is_some() {
            json!({"parent_type": parent.unwrap().token, "parent_name": name})
        } else {
            json!({&*parent.unwrap().token: name})
        };
        let answer = world.ok(&list, place.clone()).await;
        let items = answer.as_object().unwrap().values().find_map(Json::as_array).cloned().unwrap_or_default();
        let field = input.fields.iter().find(|field| field.kind == Kind::Message(resource)).unwrap();
        for item in items {
            let mut request = place.clone();
            let named =
                |field: &&Field| field.number < 6 && item.get(&*field.json).is_some_and(|name| !name.is_object());
            if let Some(key) = input.fields.iter().find(named) {
                request[&*key.json] = item[&*key.json].clone();
            }
            request[&*field.json] = item.clone();
            world.ok(&replace, request).await;
            count += 1;
        }
    }
    count
}

over_both!(what_is_shown_is_taken, covers["RawConfigurationService.PushRawConfiguration"]);

async fn what_is_shown_is_taken(world: &mut World) {
    for text in [
        include_str!("../data/configs/blanks.cfg"),
        include_str!("../data/configs/quoted.cfg"),
        include_str!("../data/configs/users.cfg"),
    ] {
        push(world, text).await;
    }
    let before = world.backstay.text();
    let sections: Vec<(String, String)> = Document::parse(before.as_bytes())
        .sections()
        .iter()
        .map(|section| (section.kind().to_owned(), section.name().to_owned()))
        .collect();
    let mut count = 0;
    for (kind, name) in sections.into_iter().filter(|(_, name)| !name.is_empty()) {
        count += put_back(world, &kind, &name).await;
    }
    assert!(count > 25, "{count}");
    assert_eq!(body(&world.backstay.text()), body(&before));
}

over_both!(words_with_blanks, covers["ServerService.ReplaceServer"]);

async fn words_with_blanks(world: &mut World) {
    push(world, include_str!("../data/configs/blanks.cfg")).await;
    let server = |cookie: &str| {
        json!({"parent_type": "backend", "parent_name": "blank_servers", "name": "s2",
        "server": {"name": "s2", "address": "127.0.0.1", "port": 80, "cookie": cookie}})
    };
    let rule = |realm: &str| {
        json!({"parent_type": "frontend", "parent_name": "blanks", "index": 0,
        "http_request_rule": {"index": 0, "type": "auth", "auth_realm": realm, "cond": "unless", "cond_test": "k"}})
    };
    world
        .cases([
            ("ServerService.ReplaceServer", server("'c d'"), done()),
            ("ServerService.ReplaceServer", server("c\\ d"), done()),
            ("ServerService.ReplaceServer", server("c d"), refused_saying(Reason::InvalidField, "should match")),
            ("ServerService.ReplaceServer", server("\"c d"), refused(Reason::InvalidField)),
            ("HttpRequestRuleService.ReplaceHttpRequestRule", rule("\"My Realm\""), done()),
            ("HttpRequestRuleService.ReplaceHttpRequestRule", rule("My Realm"), refused(Reason::InvalidField)),
        ])
        .await;
    let text = world.backstay.text();
    assert!(text.contains("    server s2 127.0.0.1:80 cookie c\\ d\n"), "{text}");
    assert!(text.contains("    http-request auth realm \"My Realm\" unless k\n"), "{text}");
}

over_both!(what_stays_may_break_a_rule, covers["UserService.ReplaceUser"]);

/// A name that the pattern does not know, but HAProxy does.
async fn what_stays_may_break_a_rule(world: &mut World) {
    push(world, include_str!("../data/configs/users.cfg")).await;
    let user = |name: &str, password: &str| {
        json!({"userlist": "quoted", "username": "u6@example.com",
            "user": {"username": name, "password": password, "secure_password": false}})
    };
    world
        .cases([
            (
                "UserService.GetUser",
                json!({"userlist": "quoted", "username": "u3"}),
                holds(json!({"user": {"username": "u3", "password": "x"}})),
            ),
            ("UserService.ReplaceUser", user("u6@example.com", "y"), done()),
            ("UserService.ReplaceUser", user("u7@example.com", "y"), refused(Reason::InvalidField)),
        ])
        .await;
    assert!(world.backstay.text().contains("    user u6@example.com insecure-password y\n"));
}
