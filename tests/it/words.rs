//! Words as HAProxy reads them: whatever is shown can be sent back, and no byte changes.

use serde_json::{Value as Json, json};

use backstay::document::Document;
use backstay::error::Reason;
use backstay::schema::tables::{Field, Kind, Method, ResourceKind, Verb};

use crate::forms;
use crate::support::client::{Transport, basic, request, short_name, tables};
use crate::support::world::{World, done, holds, over_both, refused, refused_saying};

/// The text without the line of its version.
fn body(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n")
}

/// The same for any bytes.
fn without_version(text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"# _version"));
    lines.flatten().copied().collect()
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

/// Puts back whatever objects `section` has, as they are shown, and returns them.
async fn put_back(world: &World, kind: &str, name: &str) -> Vec<Json> {
    let mut objects = Vec::new();
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
            let by_kind = input.field_named(&parent.unwrap().token).map(|at| &input.fields[at]);
            let first = input.fields.iter().find(|field| field.number == 1);
            json!({&*by_kind.or(first).unwrap().json: name})
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
            objects.push(item);
        }
    }
    objects
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
        count += put_back(world, &kind, &name).await.len();
    }
    assert!(count > 25, "{count}");
    assert_eq!(body(&world.backstay.text()), body(&before));
}

over_both!(quotes_that_are_not_needed, covers["BackendService.ReplaceBackend", "FrontendService.ReplaceFrontend"]);

/// Names, numbers, addresses, times, sizes and lists of words are shown as HAProxy reads them, and stay as they are written.
async fn quotes_that_are_not_needed(world: &mut World) {
    let base = world.backstay.text();
    let quoted = include_str!("../data/configs/quoted_words.cfg").to_owned();
    let mut shown = Vec::new();
    for text in [quoted.replace(['"', '\''], ""), quoted] {
        let data = format!("{base}\n{text}");
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": data, "force_reload": true})).await;
        let mut objects = put_back(world, "frontend", "quoted_words").await;
        objects.extend(put_back(world, "backend", "quoted_pool").await);
        objects.push(forms::put_back(world, "Frontend", "frontend", json!({"name": "quoted_words"})).await);
        objects.push(forms::put_back(world, "Backend", "backend", json!({"name": "quoted_pool"})).await);
        assert!(objects.len() > 15, "{objects:#?}");
        assert_eq!(body(&world.backstay.text()), body(&data));
        shown.push(objects);
    }
    for (plain, quoted) in shown[0].iter().zip(&shown[1]) {
        assert_eq!(quoted, plain);
    }
    // A change of one word leaves the others in their quotes.
    let mut server = shown[1].iter().find(|object| object["name"] == "s1").unwrap().clone();
    server["weight"] = json!(7);
    let request = json!({"parent_type": "backend", "parent_name": "quoted_pool", "name": "s1", "server": server});
    world.ok("ServerService.ReplaceServer", request).await;
    let text = world.backstay.text();
    assert!(
        text.contains("addr \"127.0.0.2\" source \"127.0.0.1\" weight 7 init-addr \"last,libc\" proto \"h1\""),
        "{text}"
    );
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

over_both!(bytes_that_are_not_utf8, covers["ServerService.ReplaceServer"]);

/// Comments are no part of an object; a value is shown with U+FFFD, and its bytes stay.
async fn bytes_that_are_not_utf8(world: &mut World) {
    let mut text = std::fs::read(world.backstay.config()).unwrap();
    text.extend_from_slice(include_bytes!("../data/configs/latin-1.cfg"));
    let raw = async |kind: &str, body: Vec<u8>| {
        let path = format!("/v2/services/haproxy/configuration/raw?version={}&skip_reload=true", world.version().await);
        let answer = world.client.send(request("POST", &path, kind, body)).await;
        assert!(answer.status < 300, "{}", answer.text());
    };
    raw("text/plain", text.clone()).await;
    let file = || {
        let bytes = std::fs::read(world.backstay.config()).unwrap();
        without_version(&bytes)
    };
    let sent = without_version(&text);
    assert!(file() == sent, "text goes in byte for byte");
    let servers = || json!({"parent_type": "backend", "parent_name": "latin_servers"});
    let rules = || json!({"parent_type": "frontend", "parent_name": "latin"});
    let with = |mut place: Json, more: Json| {
        place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place
    };
    let server = |port: u16, cookie: &str| {
        let server = json!({"name": "s2", "address": "127.0.0.1", "port": port, "check": "enabled", "cookie": cookie});
        with(servers(), json!({"name": "s2", "server": server}))
    };
    let rule = |name: &str, format: &str| {
        let rule = json!({"index": 0, "type": "set-header", "hdr_name": name, "hdr_format": format,
            "cond": "if", "cond_test": "{ path /caf\u{fffd} }"});
        with(rules(), json!({"index": 0, "http_request_rule": rule}))
    };
    world
        .cases([
            (
                "ServerService.ListServers",
                servers(),
                holds(json!({"servers": [{"name": "s1"}, {"name": "s2", "cookie": "caf\u{fffd}"}]})),
            ),
            ("BindService.ListBinds", rules(), holds(json!({"binds": [{"port": 6801}]}))),
            (
                "HttpRequestRuleService.ListHttpRequestRules",
                rules(),
                holds(json!({"http_request_rules": [{"hdr_format": "\"caf\u{fffd} x\""}]})),
            ),
            (
                "ServerService.CreateServer",
                with(servers(), json!({"server": {"name": "s1", "address": "127.0.0.1"}})),
                refused(Reason::ObjectExists),
            ),
            ("ServerService.ReplaceServer", server(82, "caf\u{fffd}"), done()),
            ("HttpRequestRuleService.ReplaceHttpRequestRule", rule("X-Other", "\"caf\u{fffd} x\""), done()),
            (
                "HttpRequestRuleService.ReplaceHttpRequestRule",
                rule("X-Other", "\"caf\u{fffd} y\""),
                refused_saying(Reason::InvalidField, "hdr_format"),
            ),
        ])
        .await;
    let replaced = |text: &[u8], from: &str, to: &str| {
        let at = memchr::memmem::find(text, from.as_bytes()).unwrap();
        [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat()
    };
    let expected = replaced(&replaced(&sent, "127.0.0.1:81", "127.0.0.1:82"), "X-Name", "X-Other");
    assert!(file() == expected, "bytes stay where their values do: {}", String::from_utf8_lossy(&file()));

    // JSON cannot carry the bytes: lines that read the same keep them.
    let lossy = String::from_utf8_lossy(&expected).replace("default_backend latin_servers", "maxconn 9");
    raw("application/json", serde_json::to_vec(&format!("# _version=1\n{lossy}")).unwrap()).await;
    let expected = replaced(&expected, "default_backend latin_servers", "maxconn 9");
    assert!(file() == expected, "lines keep their bytes: {}", String::from_utf8_lossy(&file()));
}

over_both!(control_characters, covers["TcpCheckService.CreateTcpCheck", "HttpCheckService.CreateHttpCheck"]);

/// What HAProxy can hold as an escape is written and shown as that; no line feed reaches the file.
async fn control_characters(world: &mut World) {
    push(world, "backend controls\n    option httpchk\n    option tcp-check\n\nfrontend controlled\n    mode http\n")
        .await;
    let (backend, rules) = (
        json!({"parent_type": "backend", "parent_name": "controls"}),
        json!({"parent_type": "frontend", "parent_name": "controlled"}),
    );
    let with = |place: &Json, more: Json| {
        let mut place = place.clone();
        place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place
    };
    let tcp = |data: &str| with(&backend, json!({"tcp_check": {"index": 0, "action": "send", "data": data}}));
    let http = |body: &str| with(&backend, json!({"http_check": {"index": 0, "type": "send", "body": body}}));
    let text = |text: &str| {
        let rule = json!({"index": 0, "type": "return", "return_status_code": 200, "return_content_type": "text/plain",
            "return_content_format": "string", "return_content": text});
        with(&rules, json!({"http_request_rule": rule}))
    };
    let server = |name: &str| with(&backend, json!({"server": {"name": name, "address": "127.0.0.1"}}));
    let first = |place: &Json| with(place, json!({"index": 0}));
    world
        .cases([
            ("TcpCheckService.CreateTcpCheck", tcp("PING\r\n"), done()),
            ("TcpCheckService.GetTcpCheck", first(&backend), holds(json!({"tcp_check": {"data": "PING\\r\\n"}}))),
            ("HttpCheckService.CreateHttpCheck", http("\"a b\r\n\tc\u{1}\""), done()),
            ("HttpRequestRuleService.CreateHttpRequestRule", text("'one two\r\nthree'"), done()),
            (
                "HttpRequestRuleService.GetHttpRequestRule",
                first(&rules),
                holds(json!({"http_request_rule": {"return_content": "'one two'\\r\\n'three'"}})),
            ),
            ("TcpCheckService.CreateTcpCheck", tcp("a\0b"), refused_saying(Reason::InvalidValue, "data")),
            (
                "HttpRequestRuleService.CreateHttpRequestRule",
                text("\"a\0b\""),
                refused_saying(Reason::InvalidValue, "return_content"),
            ),
            ("ServerService.CreateServer", server("a\nb"), refused_saying(Reason::InvalidField, "name")),
        ])
        .await;
    // The characters that stand for single bytes become none. Over gRPC the caller of the tests shows them as U+FFFD.
    if world.is_rest() {
        let case =
            ("TcpCheckService.CreateTcpCheck", tcp("a\u{10ffe9}b"), refused_saying(Reason::InvalidField, "data"));
        world.cases([case]).await;
    }
    let file = world.backstay.text();
    for line in [
        "    tcp-check send PING\\r\\n\n",
        "    http-check send body \"a b\\r\\n\tc\\x01\"\n",
        "    http-request return status 200 content-type text/plain string 'one two'\\r\\n'three'\n",
    ] {
        assert!(file.contains(line), "{line:?} {file}");
    }
}

over_both!(names_that_read_the_same, covers["ServerService.CreateServer"]);

/// Whatever the quotes and escapes, they are the same object.
async fn names_that_read_the_same(world: &mut World) {
    push(world, "backend same\n    server s1 127.0.0.1:80\n\nuserlist same\n    user a\\ b insecure-password x\n")
        .await;
    let place = json!({"parent_type": "backend", "parent_name": "same"});
    let with = |more: Json| {
        let mut place = place.clone();
        place.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        place
    };
    let server = |name: &str| with(json!({"server": {"name": name, "address": "127.0.0.1", "port": 81}}));
    let renamed =
        |name: &str| with(json!({"name": "s1", "server": {"name": name, "address": "127.0.0.1", "port": 82}}));
    world
        .cases([
            ("ServerService.CreateServer", server("\"s1\""), refused(Reason::ObjectExists)),
            ("ServerService.CreateServer", server("s\\x31"), refused(Reason::ObjectExists)),
            ("ServerService.CreateServer", server("s2"), done()),
            ("ServerService.ReplaceServer", renamed("'s2'"), refused(Reason::ObjectExists)),
            ("ServerService.ReplaceServer", renamed("s1"), done()),
        ])
        .await;
    let text = world.backstay.text();
    assert!(text.contains("    server s1 127.0.0.1:82\n    server s2 127.0.0.1:81\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_the_word_that_haproxy_reads() {
    let world = World::start(Transport::Grpc, &[]);
    let mut text = world.backstay.text();
    let line = text.lines().find(|line| line.trim_start().starts_with("user admin")).unwrap().to_owned();
    text = text.replace(
        &line,
        &format!("{line}\n    user \"u3\" insecure-password \"p#x\"\n    user u2 insecure-password p\\ x"),
    );
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "force_reload": true})).await;
    for (name, password, right) in [
        ("u3", "p#x", true),
        ("u2", "p x", true),
        ("u3", "\"p#x\"", false),
        ("u2", "p\\ x", false),
        ("\"u3\"", "p#x", false),
    ] {
        let client = world.client.authorized(&basic(name, password));
        let answer = client.call("RawConfigurationService.GetVersion", &json!({})).await;
        assert_eq!(answer.is_ok(), right, "{name} {password}: {answer:?}");
    }
}
