//! Forms of lines that HAProxy takes: each is shown with its values, put back without a change of a byte, and changed
//! where it stands.

use serde_json::{Value as Json, json};

use crate::support::haproxy::version;
use crate::support::world::{World, holds, over_both};

/// A line of a section: its section, how it is listed, what is shown, and the line after a change of one field.
struct Form {
    section: &'static str,
    line: &'static str,
    /// Service and field of the object in its messages.
    object: (&'static str, &'static str),
    shown: Json,
    change: Json,
    changed: &'static str,
}

fn form(
    section: &'static str,
    line: &'static str,
    object: (&'static str, &'static str),
    shown: Json,
    change: Json,
    changed: &'static str,
) -> Form {
    Form { section, line, object, shown, change, changed }
}

const REQUEST: (&str, &str) = ("HttpRequestRule", "http_request_rule");
const RESPONSE: (&str, &str) = ("HttpResponseRule", "http_response_rule");

/// Arguments in any order.
fn orders() -> Vec<Form> {
    vec![
        form(
            "frontend",
            "http-request redirect code 302 location /a if FALSE",
            REQUEST,
            json!({"type": "redirect", "redir_type": "location", "redir_value": "/a", "redir_code": 302, "cond": "if"}),
            json!({"redir_value": "/b"}),
            "http-request redirect code 302 location /b if FALSE",
        ),
        form(
            "frontend",
            "http-request redirect drop-query location /b append-slash",
            REQUEST,
            json!({"redir_type": "location", "redir_value": "/b", "redir_option": "drop-query append-slash"}),
            json!({"redir_code": 301}),
            "http-request redirect drop-query location /b code 301 append-slash",
        ),
        form(
            "frontend",
            "http-request redirect set-cookie A=1 code 303 prefix /p clear-cookie B=",
            REQUEST,
            json!({"redir_type": "prefix", "redir_code": 303, "redir_option": "set-cookie A=1 clear-cookie B="}),
            json!({"redir_code": 307}),
            "http-request redirect set-cookie A=1 code 307 prefix /p clear-cookie B=",
        ),
        form(
            "frontend",
            "http-response redirect code 303 location /x if FALSE",
            RESPONSE,
            json!({"type": "redirect", "redir_type": "location", "redir_value": "/x", "redir_code": 303}),
            json!({"redir_code": 308}),
            "http-response redirect code 308 location /x if FALSE",
        ),
        form(
            "frontend",
            "http-request wait-for-body at-least 1k time 1s if FALSE",
            REQUEST,
            json!({"type": "wait-for-body", "wait_at_least": 1024, "wait_time": 1000}),
            json!({"wait_time": 2000}),
            "http-request wait-for-body at-least 1k time 2000 if FALSE",
        ),
        form(
            "backend",
            "http-response wait-for-body at-least 2048 time 1m",
            RESPONSE,
            json!({"type": "wait-for-body", "wait_at_least": 2048, "wait_time": 60000}),
            json!({"wait_at_least": 4096}),
            "http-response wait-for-body at-least 4096 time 1m",
        ),
        form(
            "frontend",
            "http-error content-type text/plain status 403 string x",
            ("HttpErrorRule", "http_error_rule"),
            json!({"status": 403, "return_content_type": "text/plain", "return_content": "x"}),
            json!({"status": 404}),
            "http-error content-type text/plain status 404 string x",
        ),
        form(
            "backend",
            "http-check expect !string error",
            ("HttpCheck", "http_check"),
            json!({"type": "expect", "exclamation_mark": true, "match": "string", "pattern": "error"}),
            json!({"pattern": "fault"}),
            "http-check expect !string fault",
        ),
        form(
            "backend",
            "http-check expect status 200-299 comment \"all well\" min-recv 4",
            ("HttpCheck", "http_check"),
            json!({"match": "status", "pattern": "200-299", "min_recv": 4}),
            json!({"pattern": "204"}),
            "http-check expect status 204 comment \"all well\" min-recv 4",
        ),
        form(
            "backend",
            "tcp-check expect !rstring ^a min-recv 3",
            ("TcpCheck", "tcp_check"),
            json!({"action": "expect", "exclamation_mark": true, "match": "rstring", "pattern": "^a", "min_recv": 3}),
            json!({"min_recv": 5}),
            "tcp-check expect !rstring ^a min-recv 5",
        ),
    ]
}

fn place(form: &Form) -> Json {
    json!({"parent_type": form.section, "parent_name": "forms", "index": 0})
}

pub(crate) fn with(mut request: Json, name: &str, value: Json) -> Json {
    request[name] = value;
    request
}

pub(crate) fn changed(shown: &Json, change: &Json) -> Json {
    let mut object = shown.clone();
    object.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    object
}

/// Shows the object of a form, puts it back, and changes it.
async fn try_form(world: &World, base: &str, form: &Form) {
    let check = if form.line.starts_with("tcp-check") { "  option tcp-check\n" } else { "" };
    let text = format!("{base}{} forms\n{check}  {} # kept\n", form.section, form.line);
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let (service, field) = form.object;
    let method = |verb: &str| Box::leak(format!("{service}Service.{verb}{service}").into_boxed_str()) as &'static str;
    let wanted = with(json!({}), field, form.shown.clone());
    world.cases([(method("Get"), place(form), holds(wanted))]).await;
    let shown = world.ok(method("Get"), place(form)).await[field].clone();
    world.ok(method("Replace"), with(place(form), field, shown.clone())).await;
    let line = |line: &str| format!("  {line} # kept\n");
    assert!(world.backstay.text().contains(&line(form.line)), "{} is written anew", form.line);
    world.ok(method("Replace"), with(place(form), field, changed(&shown, &form.change))).await;
    let now = world.backstay.text();
    assert!(now.contains(&line(form.changed)), "{}:\n{now}", form.line);
}

async fn arguments_in_any_order(world: &mut World) {
    let base = world.backstay.text();
    for form in orders() {
        try_form(world, &base, &form).await;
    }
}

over_both!(arguments_in_any_order, covers["HttpRequestRuleService.ReplaceHttpRequestRule"]);

/// Settings of sections in forms of their own: the section with its lines, the field and what it shows.
fn settings() -> Vec<(&'static str, &'static str, Json, Json, &'static str)> {
    vec![
        (
            "backend",
            "stick-table size 1k type ip expire 10m store gpc0",
            json!({"stick_table": {"type": "ip", "size": 1024, "expire": 600_000, "store": "gpc0"}}),
            json!({"stick_table": {"type": "ip", "size": 2048, "expire": 600_000, "store": "gpc0"}}),
            "stick-table size 2048 type ip expire 10m store gpc0",
        ),
        (
            "frontend",
            "stick-table nopurge expire 1h type string len 64 size 1k",
            json!({"stick_table": {"type": "string", "keylen": 64, "size": 1024, "nopurge": true}}),
            json!({"stick_table": {"type": "string", "keylen": 32, "size": 1024, "nopurge": true, "expire": 3_600_000}}),
            "stick-table nopurge expire 1h type string len 32 size 1k",
        ),
    ]
}

async fn settings_in_any_order(world: &mut World) {
    let base = world.backstay.text();
    for (section, line, shown, change, after) in settings() {
        let text = format!("{base}{section} forms\n  {line} # kept\n");
        world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
        let noun = if section == "backend" { "Backend" } else { "Frontend" };
        let method = |verb: &str| Box::leak(format!("{noun}Service.{verb}{noun}").into_boxed_str()) as &'static str;
        world.cases([(method("Get"), json!({"name": "forms"}), holds(with(json!({}), section, shown)))]).await;
        let object = world.ok(method("Get"), json!({"name": "forms"})).await[section].clone();
        world.ok(method("Replace"), with(json!({"name": "forms"}), section, object.clone())).await;
        assert!(world.backstay.text().contains(&format!("  {line} # kept\n")));
        world.ok(method("Replace"), with(json!({"name": "forms"}), section, changed(&object, &change))).await;
        let now = world.backstay.text();
        assert!(now.contains(&format!("  {after} # kept\n")), "{now}");
    }
}

over_both!(settings_in_any_order, covers["BackendService.ReplaceBackend", "FrontendService.ReplaceFrontend"]);

/// Lines that stand in a section of their own kind, as fields that only gRPC has. REST keeps them.
async fn lines_that_v2_does_not_know(world: &mut World) {
    let base = world.backstay.text();
    let lines = [
        "capture request header Host len 32",
        "capture request header User-Agent len 64",
        "capture response header Server len 16",
        "capture cookie SESSION len 8",
        "redirect code 301 prefix https://example.com if { path /old }",
        "redirect scheme https append-slash",
    ];
    let text = format!("{base}frontend forms\n  bind 127.0.0.1:0\n  {}\n", lines.join("\n  "));
    // HAProxy wants a port.
    let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", crate::support::haproxy::free_port()));
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let shown = world.ok("FrontendService.GetFrontend", json!({"name": "forms"})).await["frontend"].clone();
    if world.is_rest() {
        assert_eq!(shown["redirects"], Json::Null);
    } else {
        let header = |name: &str, length: u32| json!({"name": name, "length": length});
        assert_eq!(shown["request_header_captures"], json!([header("Host", 32), header("User-Agent", 64)]));
        assert_eq!(shown["response_header_captures"], json!([header("Server", 16)]));
        assert_eq!(shown["cookie_capture"], header("SESSION", 8));
        assert_eq!(shown["redirects"][0]["code"], 301);
        assert_eq!(shown["redirects"][1], json!({"type": "scheme", "value": "https", "options": "append-slash"}));
    }
    world
        .ok(
            "FrontendService.ReplaceFrontend",
            json!({"name": "forms", "frontend": changed(&shown, &json!({"maxconn": 7}))}),
        )
        .await;
    let now = world.backstay.text();
    assert!(lines.iter().all(|line| now.contains(line)) && now.contains("maxconn 7"), "{now}");
}

over_both!(lines_that_v2_does_not_know, covers["FrontendService.GetFrontend"]);

async fn rules_of_defaults(world: &mut World) {
    let text = format!(
        "{}defaults forms\n  mode http\n  timeout client 1s\n  timeout connect 1s\n  timeout server 1s\n  tcp-request inspect-delay 2s\n  http-request set-header X-A a\n  http-response set-header X-B b\n  http-after-response set-header X-C c\n",
        world.backstay.text()
    );
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let place = json!({"parent_type": "defaults", "parent_name": "forms", "index": 0});
    let rule = |header: &str| json!({"type": "set-header", "hdr_name": header});
    world
        .cases([
            (
                "HttpRequestRuleService.GetHttpRequestRule",
                place.clone(),
                holds(json!({"http_request_rule": rule("X-A")})),
            ),
            (
                "HttpResponseRuleService.GetHttpResponseRule",
                place.clone(),
                holds(json!({"http_response_rule": rule("X-B")})),
            ),
            (
                "HttpAfterResponseRuleService.GetHttpAfterResponseRule",
                place.clone(),
                holds(json!({"http_after_response_rule": rule("X-C")})),
            ),
            (
                "TcpRequestRuleService.GetTcpRequestRule",
                place,
                holds(json!({"tcp_request_rule": {"type": "inspect-delay", "timeout": 2000}})),
            ),
        ])
        .await;
}

over_both!(rules_of_defaults, covers["TcpRequestRuleService.GetTcpRequestRule"]);

async fn settings_of_global(world: &mut World) {
    let text = world.backstay.text();
    let mut lines = vec!["no strict-limits", "no numa-cpu-mapping", "no busy-polling", "log-tag edge"];
    if version() >= (3, 4) {
        lines.extend(["tune.lua.openlibs string,table", "jwt.decrypt_alg_list RSA-OAEP", "jwt.allow_none_alg"]);
    }
    let text = text.replacen("global\n", &format!("global\n    {}\n", lines.join("\n    ")), 1);
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let shown = world.ok("GlobalService.GetGlobal", json!({})).await["global"].clone();
    if !world.is_rest() {
        assert_eq!((&shown["strict_limits"], &shown["log_tag"]), (&json!(false), &json!("edge")), "{shown}");
    }
    let wanted = changed(&shown, &json!({"maxconn": 77}));
    world.ok("GlobalService.ReplaceGlobal", json!({"global": wanted})).await;
    let now = world.backstay.text();
    let read = |line: &&&str| now.contains(&format!("    {line}\n"));
    assert!(now.contains("maxconn 77"), "{now}");
    // What off means over REST is told below.
    let kept = lines.iter().filter(|line| !(world.is_rest() && line.starts_with("no "))).all(|line| read(&line));
    assert!(kept, "{now}");
}

over_both!(settings_of_global, covers["GlobalService.ReplaceGlobal"]);

/// Reads an object, puts it back as it was shown, and sees that no byte has changed.
pub(crate) async fn put_back(world: &World, noun: &str, field: &str, place: Json) -> Json {
    let before = body_of(&world.backstay.text());
    let shown = world.ok(&format!("{noun}Service.Get{noun}"), place.clone()).await[field].clone();
    world.ok(&format!("{noun}Service.Replace{noun}"), with(place, field, shown.clone())).await;
    assert_eq!(body_of(&world.backstay.text()), before, "{noun} {shown}");
    shown
}

fn body_of(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("# _version")).collect::<Vec<_>>().join("\n")
}

pub(crate) async fn push(world: &World, more: &str) {
    let text = format!("{}\n{more}", body_of(&world.backstay.text()));
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
}

async fn zeros_and_empty_values_stay(world: &mut World) {
    let port = crate::support::haproxy::free_port();
    push(
        world,
        &format!(
            "frontend forms\n  bind 127.0.0.1:{port} name a gid 0 maxconn 0 nice 0\n  http-response deny if FALSE\n  http-error status 400\n  stats enable\n  stats show-node\ncache c\n  total-max-size 4\n  max-age 0\nresolvers r\n  nameserver n 127.0.0.1:53\n  resolve_retries 0\n  timeout retry 0\nbackend pool\n  server-template srv 3 _http._tcp.app.example resolvers r init-addr none\n"
        ),
    )
    .await;
    let of = |kind: &str, name: &str, key: &str, value: Json| {
        with(json!({"parent_type": kind, "parent_name": name}), key, value)
    };
    put_back(world, "Bind", "bind", of("frontend", "forms", "name", json!("a"))).await;
    put_back(world, "Cache", "cache", json!({"name": "c"})).await;
    put_back(world, "Resolver", "resolver", json!({"name": "r"})).await;
    put_back(world, "HttpResponseRule", "http_response_rule", of("frontend", "forms", "index", json!(0))).await;
    put_back(world, "HttpErrorRule", "http_error_rule", of("frontend", "forms", "index", json!(0))).await;
    put_back(world, "ServerTemplate", "server_template", json!({"backend": "pool", "prefix": "srv"})).await;
    let shown = put_back(world, "Frontend", "frontend", json!({"name": "forms"})).await;
    world
        .ok(
            "FrontendService.ReplaceFrontend",
            json!({"name": "forms", "frontend": changed(&shown, &json!({"maxconn": 9}))}),
        )
        .await;
    assert!(world.backstay.text().contains("  stats show-node\n"));
}

over_both!(zeros_and_empty_values_stay, covers["CacheService.ReplaceCache", "ResolverService.ReplaceResolver"]);

async fn addresses_of_every_form(world: &mut World) {
    // Clients of /v2 know no server without one.
    let no_address = if world.is_rest() { json!("") } else { json!(null) };
    let servers = [
        ("a", "0.0.0.0:0", json!({"address": "0.0.0.0:0", "port": null})),
        ("b", ":80", json!({"address": no_address, "port": 80})),
        ("c", "127.0.0.1:-100", json!({"address": "127.0.0.1:-100", "port": null})),
        ("d", "127.0.0.1:+100", json!({"address": "127.0.0.1:+100", "port": null})),
        ("e", "127.0.0.1:80 check port 0", json!({"address": "127.0.0.1", "port": 80, "health_check_port": null})),
        ("1", "127.0.0.1:81 inter 500us weight 5", json!({"port": 81, "inter": null, "weight": 5})),
        ("007", "[::1]:82", json!({"address": "::1", "port": 82})),
    ];
    let lines: Vec<String> = servers.iter().map(|(name, text, _)| format!("  server {name} {text}\n")).collect();
    push(world, &format!("backend forms\n{}", lines.concat())).await;
    for (name, text, shown) in servers {
        let place = json!({"parent_type": "backend", "parent_name": "forms", "name": name});
        world.cases([("ServerService.GetServer", place.clone(), holds(json!({"server": shown})))]).await;
        let server = put_back(world, "Server", "server", place.clone()).await;
        if name != "b" {
            let server = changed(&server, &json!({"maxconn": 3}));
            world.ok("ServerService.ReplaceServer", with(place, "server", server)).await;
            let now = world.backstay.text();
            let line = now.lines().find(|line| line.contains(&format!("server {name} "))).unwrap_or_default();
            assert!(text.split(' ').all(|word| line.contains(word)) && line.contains("maxconn 3"), "{line}");
        }
    }
}

over_both!(addresses_of_every_form, covers["ServerService.ReplaceServer"]);

async fn lines_that_add_up(world: &mut World) {
    let text = world.backstay.text();
    let both = "    ssl-default-bind-options no-sslv3\n    ssl-default-bind-options no-tlsv10 no-tls-tickets\n";
    let text = text.replacen("global\n", &format!("global\n{both}"), 1);
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let shown = put_back(world, "Global", "global", json!({})).await;
    assert_eq!(shown["ssl_default_bind_options"], "no-sslv3 no-tlsv10 no-tls-tickets");
    for (options, lines) in [
        ("no-sslv3 no-tlsv10 no-tlsv11", ["no-sslv3", "no-tlsv10 no-tlsv11"].as_slice()),
        ("no-tlsv10 no-tlsv11", &["no-tlsv10 no-tlsv11"]),
    ] {
        let global = changed(&shown, &json!({"ssl_default_bind_options": options}));
        world.ok("GlobalService.ReplaceGlobal", json!({"global": global})).await;
        let now = world.backstay.text();
        let stand: Vec<&str> =
            now.lines().filter_map(|line| line.trim().strip_prefix("ssl-default-bind-options ")).collect();
        assert_eq!(stand, lines, "{options}");
    }
}

over_both!(lines_that_add_up, covers["GlobalService.GetGlobal"]);

async fn names_that_lists_show_are_taken(world: &mut World) {
    let before = world.backstay.text();
    let service = "NamedDefaultsService.CreateNamedDefaults";
    let request = json!({"defaults": {"name": "unnamed_defaults_1", "mode": "http"}});
    world.refused(service, request, crate::support::world::refused(backstay::error::Reason::ObjectExists)).await;
    assert_eq!(world.backstay.text(), before);
}

over_both!(names_that_lists_show_are_taken, covers[]);

async fn values_that_their_type_cannot_show(world: &mut World) {
    let lines = ["maxconn \"${MOST-70}\"", "timeout client \"${SLOW-5s}\"", "backlog 33"];
    let servers = "  server s1 127.0.0.1:80 weight \"${WEIGHT-5}\" check inter 1500us\n  server s2 127.0.0.1:81\n";
    let port = crate::support::haproxy::free_port();
    let front = format!("frontend forms\n  bind 127.0.0.1:{port}\n  {}\n", lines.join("\n  "));
    push(world, &format!("{front}backend pool\n{servers}")).await;
    let place = json!({"parent_type": "backend", "parent_name": "pool", "name": "s1"});
    if !world.is_rest() {
        let frontend = world.ok("FrontendService.GetFrontend", json!({"name": "forms"})).await;
        assert_eq!(frontend["not_shown"], json!(["maxconn", "client_timeout"]), "{frontend}");
        let server = world.ok("ServerService.GetServer", place.clone()).await;
        assert_eq!(server["not_shown"], json!(["weight", "inter"]), "{server}");
        let list = json!({"parent_type": "backend", "parent_name": "pool"});
        let servers = world.ok("ServerService.ListServers", list).await;
        assert_eq!(servers["not_shown"], json!(["s1.weight", "s1.inter"]), "{servers}");
    }
    // What is absent stays, what is set takes the place of the word.
    let shown = put_back(world, "Frontend", "frontend", json!({"name": "forms"})).await;
    assert_eq!(shown["maxconn"], Json::Null);
    let frontend = changed(&shown, &json!({"maxconn": 9}));
    world.ok("FrontendService.ReplaceFrontend", json!({"name": "forms", "frontend": frontend})).await;
    let now = world.backstay.text();
    assert!(now.contains("  maxconn 9\n") && !now.contains("MOST") && now.contains(lines[1]), "{now}");
    let shown = put_back(world, "Server", "server", place.clone()).await;
    assert_eq!((&shown["weight"], &shown["check"]), (&Json::Null, &json!("enabled")));
    world
        .ok("ServerService.ReplaceServer", with(place.clone(), "server", changed(&shown, &json!({"weight": 7}))))
        .await;
    let now = world.backstay.text();
    assert!(now.contains("weight 7") && !now.contains("WEIGHT") && now.contains("inter 1500us"), "{now}");
    // What an update mask names is removed, also where it was not shown.
    if !world.is_rest() {
        let request = with(with(place, "server", json!({})), "update_mask", json!({"paths": ["inter"]}));
        world.ok("ServerService.UpdateServer", request).await;
        let request = json!({"name": "forms", "frontend": {"backlog": 44}, "update_mask": {"paths": ["client_timeout", "backlog"]}});
        world.ok("FrontendService.UpdateFrontend", request).await;
        let now = world.backstay.text();
        assert!(!now.contains("1500us") && !now.contains("SLOW"), "{now}");
        assert!(now.contains("weight 7") && now.contains("  backlog 44\n"), "{now}");
    }
}

over_both!(values_that_their_type_cannot_show, covers["ServerService.GetServer"]);
