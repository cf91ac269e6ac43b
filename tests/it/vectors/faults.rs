//! Faults that the recorded server has, and this one must not have: what is accepted is written, what is written is read
//! back, and nothing takes the server down.

use serde_json::{Value, json};

use super::server::{Reply, Server};

const BASE: &str = "/services/haproxy/configuration";

/// Sections for everything that the cases need.
const FILE: &str = "global\n  daemon\n\ndefaults d1\n  mode http\n\nfrontend f1\n  mode http\n\nbackend b1\n  mode http\n\n\
    peers p1\n\nring r1\n\nlog-forward l1\n\nfcgi-app a1\n  docroot /srv\n\nresolvers re1\n";

fn load(server: &mut Server, text: &str) {
    let loaded = server.load(text);
    assert_eq!(loaded.status, 201, "{text}: {}", loaded.body);
    let file = server.file();
    assert!(file.ends_with(text), "loading {text:?} made {file:?}");
}

/// Sends JSON below the configuration; `target` may have a query, the version is added.
fn send(server: &mut Server, method: &str, target: &str, body: &Value) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query: Value =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name, json!(value))).collect();
    if method != "GET" {
        let file = server.file();
        let version = file.lines().find_map(|line| line.strip_prefix("# _version=")).unwrap_or("1");
        query["version"] = json!(version);
    }
    let path = if path.starts_with("/services") { path.to_owned() } else { format!("{BASE}{path}") };
    server.send(method, &path, &query, "application/json", body.to_string().as_bytes())
}

fn read(server: &mut Server, target: &str) -> Value {
    let reply = send(server, "GET", target, &Value::Null);
    assert_eq!(reply.status, 200, "{target}: {}", reply.body);
    reply.body["data"].clone()
}

#[test]
fn no_line_takes_the_server_down() {
    let mut server = Server::start();
    for (section, line, list) in [
        (
            "backend b1",
            "server s1 127.0.0.1:1 set-proxy-v2-tlv-fmt(0x20)",
            "/servers?parent_type=backend&parent_name=b1",
        ),
        (
            "backend b1",
            "server s1 127.0.0.1:1 set-proxy-v2-tlv-fmt(a b) x",
            "/servers?parent_type=backend&parent_name=b1",
        ),
        ("backend b1", "default-server set-proxy-v2-tlv-fmt", "/backends"),
        ("backend b1", "server-template s 3 h:1 set-proxy-v2-tlv-fmt", "/server_templates?backend=b1"),
        ("frontend b1", "http-error status 503 errorfile", "/http_error_rules?parent_type=frontend&parent_name=b1"),
        ("frontend b1", "http-error status 503 lf-string", "/http_error_rules?parent_type=frontend&parent_name=b1"),
        (
            "frontend b1",
            "http-request return content-type a lf-string",
            "/http_request_rules?parent_type=frontend&parent_name=b1",
        ),
        (
            "frontend b1",
            "http-response deny content-type a lf-string",
            "/http_response_rules?parent_type=frontend&parent_name=b1",
        ),
        ("frontend b1", "tcp-request content capture  len 5", "/tcp_request_rules?parent_type=frontend&parent_name=b1"),
        ("frontend b1", "tcp-request content use-service", "/tcp_request_rules?parent_type=frontend&parent_name=b1"),
        (
            "frontend b1",
            "tcp-request content sc-add-gpc(a b,0)",
            "/tcp_request_rules?parent_type=frontend&parent_name=b1",
        ),
        ("backend b1", "tcp-response content set-var(a#b.v1)", "/tcp_response_rules?backend=b1"),
        ("global", "presetenv X", "/global"),
        ("global", "setenv", "/global"),
        ("program b1", "user u", "/programs/b1"),
        ("http-errors b1", "errorfile 418 /x", "/http_errors_sections/b1"),
    ] {
        load(&mut server, &format!("{section}\n  {line}\n"));
        read(&mut server, list);
    }
    assert_eq!(
        read(&mut server, "/http_errors_sections")[0]["name"],
        "b1",
        "a section without readable lines is listed"
    );

    load(&mut server, FILE);
    for (method, target, body, status) in [
        (
            "POST",
            "/servers?backend=b1",
            json!({"name": "s", "address": "h", "set-proxy-v2-tlv-fmt": {"id": "a b", "value": "x"}}),
            400,
        ),
        ("POST", "/backends", json!({"name": "x", "stats_options": {"stats_realm": true}}), 400),
        ("PUT", "/global", json!({"ssl_engines": [{"name": "rdrand"}]}), 202),
        ("POST", "/services/haproxy/sites", json!({"name": "web", "service": {"mode": "http"}}), 202),
        ("PUT", "/services/haproxy/sites/web", json!({"name": "web"}), 202),
        ("POST", "/services/haproxy/sites", json!({"name": "web"}), 409),
        ("POST", "/binds?parent_type=frontend", json!({"name": "x", "address": "127.0.0.1", "port": 1}), 400),
        ("POST", "/servers?parent_name=b1", json!({"name": "s", "address": "h"}), 400),
    ] {
        let reply = send(&mut server, method, target, &body);
        assert_eq!(reply.status, status, "{method} {target} {body}: {}", reply.body);
    }
    let left = send(&mut server, "GET", "/services/haproxy/transactions", &Value::Null);
    assert_eq!(left.body, json!([]), "a refused request leaves no transaction");
}

/// Objects whose every field has to be in the file, and to come back.
#[test]
fn what_is_accepted_is_written_and_read_back() {
    let mut server = Server::start();
    let rules = |kind: &str, parent: &str| format!("/{kind}?parent_type={parent}&parent_name={}1", &parent[..1]);
    for (target, body, line) in [
        ("/backends".to_owned(), json!({"name": "x", "id": 7}), "id 7"),
        ("/frontends".to_owned(), json!({"name": "x", "id": 7}), "id 7"),
        ("/backends".to_owned(), json!({"name": "x", "use_fcgi_app": "a1"}), "use-fcgi-app a1"),
        (
            "/backends".to_owned(),
            json!({"name": "x", "adv_check": "pgsql-check", "pgsql_check_params": {"username": "u"}}),
            "option pgsql-check user u",
        ),
        ("/backends".to_owned(), json!({"name": "x", "source": {"address": "::1", "port": 5}}), "source [::1]:5"),
        (
            "/backends".to_owned(),
            json!({"name": "x", "default_server": {"no_verifyhost": "enabled"}}),
            "default-server no-verifyhost",
        ),
        (
            "/frontends".to_owned(),
            json!({"name": "x", "compression": {"direction": "both"}}),
            "compression direction both",
        ),
        ("/frontends".to_owned(), json!({"name": "x", "unique_id_header": "X-U"}), "unique-id-header X-U"),
        (
            "/frontends".to_owned(),
            json!({"name": "x", "stats_options": {"stats_http_requests": [{"type": "allow", "cond": "if", "cond_test": "TRUE"}]}}),
            "stats http-request allow if TRUE",
        ),
        (
            "/servers?backend=b1".to_owned(),
            json!({"name": "s", "address": "h", "no_tlsv10": "enabled", "agent-check": "disabled"}),
            "server s h no-agent-check no-tlsv10",
        ),
        (
            "/servers?backend=b1".to_owned(),
            json!({"name": "s", "address": "h", "no_sslv3": "disabled", "force_sslv3": "disabled"}),
            "server s h",
        ),
        (
            "/server_templates?backend=b1".to_owned(),
            json!({"prefix": "s", "num_or_range": "3", "fqdn": "h", "port": 80, "id": 7}),
            "server-template s 3 h:80 id 7",
        ),
        (
            rules("http_request_rules", "frontend"),
            json!({"index": 0, "type": "set-query", "query-fmt": "a=%[src]"}),
            "http-request set-query a=%[src]",
        ),
        (
            rules("http_request_rules", "frontend"),
            json!({"index": 0, "type": "set-uri", "uri-fmt": "/x"}),
            "http-request set-uri /x",
        ),
        (
            rules("http_request_rules", "frontend"),
            json!({"index": 0, "type": "tarpit", "deny_status": 500, "return_content_type": "text/plain", "return_content_format": "string", "return_content": "no"}),
            "http-request tarpit deny_status 500 content-type text/plain string no",
        ),
        (
            rules("http_request_rules", "frontend"),
            json!({"index": 0, "type": "sc-inc-gpc", "sc_idx": 2, "sc_id": 1}),
            "http-request sc-inc-gpc(2,1)",
        ),
        (
            rules("http_response_rules", "frontend"),
            json!({"index": 0, "type": "sc-inc-gpc", "sc_idx": 2, "sc_id": 1}),
            "http-response sc-inc-gpc(2,1)",
        ),
        (
            rules("http_response_rules", "frontend"),
            json!({"index": 0, "type": "sc-add-gpc", "sc_idx": 2, "sc_id": 1, "sc_int": 5}),
            "http-response sc-add-gpc(2,1) 5",
        ),
        (
            rules("http_after_response_rules", "frontend"),
            json!({"index": 0, "type": "sc-add-gpc", "sc_idx": 2, "sc_id": 1, "sc_expr": "src"}),
            "http-after-response sc-add-gpc(2,1) src",
        ),
        (
            rules("http_response_rules", "frontend"),
            json!({"index": 0, "type": "wait-for-body", "wait_time": 1000}),
            "http-response wait-for-body time 1000",
        ),
        (
            rules("http_response_rules", "frontend"),
            json!({"index": 0, "type": "set-bandwidth-limit", "bandwidth_limit_name": "bw"}),
            "http-response set-bandwidth-limit bw",
        ),
        (
            rules("tcp_request_rules", "frontend"),
            json!({"index": 0, "type": "content", "action": "sc-set-gpt0", "sc_inc_id": "1", "sc_int": 5}),
            "tcp-request content sc-set-gpt0(1) 5",
        ),
        (
            rules("tcp_request_rules", "frontend"),
            json!({"index": 0, "type": "session", "action": "sc-add-gpc", "sc_idx": "2", "sc_inc_id": "1", "expr": "src"}),
            "tcp-request session sc-add-gpc(2,1) src",
        ),
        (
            rules("tcp_request_rules", "frontend"),
            json!({"index": 0, "type": "session", "action": "set-mark", "mark_value": "7"}),
            "tcp-request session set-mark 7",
        ),
        (
            rules("tcp_request_rules", "frontend"),
            json!({"index": 0, "type": "content", "action": "set-src", "expr": "src"}),
            "tcp-request content set-src src",
        ),
        (
            rules("tcp_request_rules", "frontend"),
            json!({"index": 0, "type": "content", "action": "capture", "capture_sample": "req.hdr(host)", "capture_len": 9}),
            "tcp-request content capture req.hdr(host) len 9",
        ),
        (
            "/tcp_response_rules?backend=b1".to_owned(),
            json!({"index": 0, "type": "content", "action": "set-var", "var_scope": "res", "var_name": "a", "expr": "src"}),
            "tcp-response content set-var(res.a) src",
        ),
        (
            rules("tcp_checks", "backend"),
            json!({"index": 0, "action": "connect", "port": 8443}),
            "tcp-check connect port 8443",
        ),
        (
            rules("http_checks", "backend"),
            json!({"index": 0, "type": "set-var-fmt", "var_scope": "check", "var_name": "a", "var_format": "%[src]"}),
            "http-check set-var-fmt(check.a) %[src]",
        ),
        (
            rules("filters", "backend"),
            json!({"index": 0, "type": "bwlim-in", "bandwidth_limit_name": "b", "limit": 5, "key": "src"}),
            "filter bwlim-in b limit 5 key src",
        ),
        ("/fcgi_apps".to_owned(), json!({"name": "x", "docroot": "/x", "mpxs_conns": "enabled"}), "option mpxs-conns"),
        (
            "/nameservers?resolver=re1".to_owned(),
            json!({"name": "n", "address": "::1", "port": 53}),
            "nameserver n ::1:53",
        ),
        (
            "/dgram_binds?log_forward=l1".to_owned(),
            json!({"name": "x", "address": "/run/x.sock"}),
            "dgram-bind /run/x.sock name x",
        ),
        ("/binds?frontend=f1".to_owned(), json!({"name": "x", "address": "::", "port": 80}), "bind [::]:80 name x"),
        ("/binds?frontend=f1".to_owned(), json!({"name": "x", "address": "127.0.0.1"}), "bind 127.0.0.1 name x"),
    ] {
        load(&mut server, FILE);
        let reply = send(&mut server, "POST", &target, &body);
        assert_eq!(reply.status, 202, "{target} {body}: {}", reply.body);
        let file = server.file();
        assert!(file.lines().any(|written| written.trim() == line), "{line:?} is not in {file}");
        // Read anew from the text that was written.
        let text = file.split_once("\n\n").map_or("", |(_, text)| text).to_owned();
        load(&mut server, &text);
        let list = read(&mut server, &target);
        let found =
            list.as_array().unwrap().iter().find(|item| item["name"] == body["name"] || item.get("index").is_some());
        let read = found.or(list.get(0)).unwrap_or_else(|| panic!("{target} is empty: {text}"));
        for (field, value) in body.as_object().unwrap() {
            // Some are read under the name of their successor.
            let successor = match field.as_str() {
                "query-fmt" | "uri-fmt" => "hdr_format",
                "capture_sample" => "expr",
                "no_tlsv10" => {
                    assert_eq!(read["force_tlsv10"], "disabled", "{line}: {read}");
                    continue;
                }
                "port" if line.starts_with("tcp-check") => continue,
                // Off says nothing where on has no other word.
                "no_sslv3" | "force_sslv3" => continue,
                other => other,
            };
            assert_eq!(&read[successor], value, "{field} of {line}: {read}");
        }
    }

    load(&mut server, FILE);
    for (field, value, line) in [
        ("insecure_setuid_wanted", json!(true), "insecure-setuid-wanted"),
        ("profiling_tasks", json!("on"), "profiling.tasks on"),
        ("tune_options", json!({"ssl_ocsp_update_min_delay": 5}), "tune.ssl.ocsp-update.mindelay 5"),
        ("tune_options", json!({"ssl_ocsp_update_max_delay": 5}), "tune.ssl.ocsp-update.maxdelay 5"),
        ("tune_options", json!({"stick_counters": 5}), "tune.stick-counters 5"),
    ] {
        let reply = send(&mut server, "PUT", "/global", &json!({field: value}));
        assert_eq!(reply.status, 202, "{field}: {}", reply.body);
        assert!(server.file().contains(&format!("\n  {line}\n")), "{}", server.file());
        assert_eq!(read(&mut server, "/global")[field], value);
    }
    let reply =
        send(&mut server, "POST", "/servers?parent_type=ring&parent_name=r1", &json!({"name": "s", "address": "h"}));
    assert_eq!(reply.status, 202, "{}", reply.body);
}

#[test]
fn values_stay_values() {
    let mut server = Server::start();
    load(&mut server, FILE);
    let request = |value: &str| json!({"index": 0, "type": "return", "return_content_format": "string", "return_content": value, "return_content_type": "text/plain"});
    let rules = "/http_request_rules?parent_type=frontend&parent_name=f1";
    for (value, hint) in
        [("two words", "'two words'"), ("a#b", "'a#b'"), ("it's", "\"it's\""), ("a\u{0}b", ""), ("open\"", "'")]
    {
        let before = server.file();
        let reply = send(&mut server, "POST", rules, &request(value));
        assert_eq!(reply.status, 400, "{value:?}: {}", reply.body);
        let message = reply.body["message"].as_str().unwrap();
        assert!(message.starts_with("return_content: ") && message.contains(hint), "{message}");
        assert_eq!(server.file(), before);
    }
    for quoted in ["'two words'", "two\\ words", "\"it's\"", "'a#b'", "${HOME}"] {
        let reply = send(&mut server, "POST", rules, &request(quoted));
        assert_eq!(reply.status, 202, "{quoted}: {}", reply.body);
        assert_eq!(read(&mut server, rules)[0]["return_content"], quoted);
    }
    // A line feed is an escape in the file, and is shown as such.
    let reply = send(&mut server, "POST", rules, &request("a\nb"));
    assert_eq!(reply.status, 202, "{}", reply.body);
    assert_eq!(read(&mut server, rules)[0]["return_content"], r"a\nb");
    assert!(server.file().contains(r" string a\nb"), "{}", server.file());
    for half in [json!({"cond": "if"}), json!({"cond_test": "TRUE"}), json!({"cond": "unless", "cond_test": ""})] {
        let mut body = json!({"index": 0, "type": "deny"});
        body.as_object_mut().unwrap().extend(half.as_object().unwrap().clone());
        let reply = send(&mut server, "POST", rules, &body);
        assert_eq!(reply.status, 400, "{body}: {}", reply.body);
    }
}

#[test]
fn no_text_is_lost() {
    let mut server = Server::start();
    let file = "global\n  daemon\n  lua-load /x.lua a b\n  external-check preserve-env\n  master-worker no-exit-on-failure\n  \
        ssl-load-extra-files bundle sctl\n  tune.lua.maxmem 10\n  nosplice\n.if defined(X)\n  maxconn 5\n.endif\n\n\
        defaults d2 # b\n  mode tcp\n\nfrontend f1\n  bind abns@x guid y # z\n  capture request header Host len 5\n  \
        http-request redirect prefix / drop-query append-slash set-cookie A=1 if TRUE\n  timeout client 1m30s\n\n\
        defaults d1\n  mode http\n\nbackend b1\n  stick-table type ip size 1k store gpc0 store http_req_rate(10s)\n  \
        server s1 127.0.0.1:1 guid x ktls y\n  balance url_param id check_post\n  stats auth u:p:q\n  source ::1\n  \
        cookie C insert maxidle 30m\n  unknown line\n\nbackend b1\n  mode tcp\n";
    load(&mut server, file);
    let reply = send(&mut server, "POST", "/servers?backend=b1", &json!({"name": "s2", "address": "127.0.0.2"}));
    assert_eq!(reply.status, 202, "{}", reply.body);
    let expected = file.replacen("guid x ktls y\n", "guid x ktls y\n  server s2 127.0.0.2\n", 1);
    assert!(server.file().ends_with(&expected), "{}", server.file());
    let reply =
        send(&mut server, "PUT", "/servers/s1?backend=b1", &json!({"name": "s1", "address": "127.0.0.1", "port": 9}));
    assert_eq!(reply.status, 202, "{}", reply.body);
    assert!(server.file().contains("  server s1 127.0.0.1:9 guid x ktls y\n"), "{}", server.file());
    let backend = read(&mut server, "/backends/b1");
    assert_eq!(backend["stick_table"]["store"], "gpc0,http_req_rate(10s)");
    assert_eq!(backend["stats_options"]["stats_auths"], json!([{"user": "u", "passwd": "p:q"}]));
    assert_eq!((&backend["source"]["address"], &backend["cookie"]["maxidle"]), (&json!("::1"), &json!(1800)));
    assert_eq!(read(&mut server, "/frontends/f1")["client_timeout"], 90_000);
    assert_eq!(read(&mut server, "/binds?frontend=f1")[0]["address"], "abns@x");
}

#[test]
fn requests_are_held_to_their_rules() {
    let mut server = Server::start();
    load(&mut server, FILE);
    let rule = |index: i64| json!({"index": index, "type": "deny"});
    let rules = "/http_request_rules?parent_type=frontend&parent_name=f1";
    for name in ["s1", "s2"] {
        let reply = send(&mut server, "POST", "/servers?backend=b1", &json!({"name": name, "address": "h"}));
        assert_eq!(reply.status, 202, "{}", reply.body);
    }
    for (method, target, body, status) in [
        ("POST", rules, rule(-1), 400),
        ("POST", rules, rule(1), 400),
        ("PUT", "/servers/s1?backend=b1", json!({"name": "s2", "address": "h"}), 409),
        ("PUT", "/global", Value::Null, 422),
        (
            "POST",
            "/acls?parent_type=fcgi-app&parent_name=a1",
            json!({"index": 0, "acl_name": "a", "criterion": "path"}),
            202,
        ),
        ("PUT", "/backends/b1", json!({"name": "b1", "source": {"address": "h", "port": 70000}}), 422),
    ] {
        let reply = send(&mut server, method, target, &body);
        assert_eq!(reply.status, status, "{method} {target} {body}: {}", reply.body);
    }
    let path = format!("{BASE}/backends");
    let more = server.send("POST", &path, &json!({"version": 4}), "application/json", b"{\"name\":\"x\"} x");
    assert_eq!(more.status, 202, "what follows the JSON value is not looked at: {}", more.body);
    let garbage = server.send("POST", &path, &json!({"version": 5}), "application/json", b"{\"name\":\"y\"");
    assert_eq!(garbage.status, 400, "{}", garbage.body);
    // Which users there are is told in place of the Data Plane API alone.
    let message = "unauthenticated for invalid credentials";
    for credentials in ["admin:hunter2", "zz:hunter2"] {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let headers = format!("authorization: Basic {encoded}\r\n");
        let reply = server.send_with("GET", &format!("{BASE}/version"), &Value::Null, &headers, b"");
        assert_eq!((reply.status, &reply.body["message"]), (401, &json!(message)));
    }
}
