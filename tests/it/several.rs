//! Parameters and lines that stand several times and add up: all are shown, put back, and changed where they stand.

use backstay::error::Reason;
use serde_json::{Value as Json, json};

use crate::forms::{changed, push, put_back, with};
use crate::support::client::request;
use crate::support::haproxy::free_port;
use crate::support::world::{World, over_both, refused_saying};

async fn certificates_beside_the_last(world: &mut World) {
    let port = free_port();
    let pem = |name: &str| {
        let path = world.backstay.folder().join(name);
        std::fs::write(&path, include_str!("../data/sweep/site.pem")).unwrap();
        path.display().to_string()
    };
    let [a, b, c, d] = ["a.pem", "b.pem", "c.pem", "d.pem"].map(pem);
    let list = world.backstay.folder().join("list");
    std::fs::write(&list, format!("{a}\n")).unwrap();
    let list = list.display();
    let line = |words: &str| format!("  bind 127.0.0.1:{port} {words} # kept\n");
    let words = format!("name tls ssl crt {a} crt-list {list} crt \"{b}\" alpn h2 crt-list {list} crt {c}");
    push(world, &format!("frontend forms\n{}  redirect scheme https\n", line(&words))).await;
    let place = json!({"parent_type": "frontend", "parent_name": "forms", "name": "tls"});
    let shown = put_back(world, "Bind", "bind", place.clone()).await;
    assert_eq!(shown["ssl_certificate"], json!(c), "{shown}");
    let binds = json!({"parent_type": "frontend", "parent_name": "forms"});
    if world.is_rest() {
        let path = |more: &str| format!("/v2/services/haproxy/configuration/binds{more}frontend=forms");
        for (path, label) in [(path("/tls?"), ""), (path("?"), "tls.")] {
            let answer = world.client.send(request("GET", &path, "", Vec::new())).await;
            let warned = answer.headers["warning"].to_str().unwrap().to_owned();
            // In a header quotes are others.
            for named in [format!("{label}ssl_certificate ({a}, '{b}')"), format!("{label}crt_list ({list})")] {
                assert!(warned.contains(&named), "{warned}");
            }
        }
    } else {
        assert_eq!(shown["additional_ssl_certificates"], json!([a, format!("\"{b}\"")]), "{shown}");
        assert_eq!(shown["additional_crt_lists"], json!([list.to_string()]), "{shown}");
        let listed = world.ok("BindService.ListBinds", binds).await;
        assert_eq!(listed["binds"][0], shown);
        assert_eq!(listed["not_shown"], Json::Null);
    }
    // What is replaced is the last one, where it stands.
    let bind = changed(&shown, &json!({"ssl_certificate": d}));
    world.ok("BindService.ReplaceBind", with(place.clone(), "bind", bind)).await;
    let after = words.replace(&c, &d);
    assert!(world.backstay.text().contains(&line(&after)), "{}", world.backstay.text());
    if world.is_rest() {
        // The others stay when it goes.
        let mut bind = shown.clone();
        bind.as_object_mut().unwrap().remove("ssl_certificate");
        world.ok("BindService.ReplaceBind", with(place.clone(), "bind", bind)).await;
        let text = world.backstay.text();
        assert!(text.contains(&format!(" crt {a} ")) && text.contains(&format!(" crt \"{b}\"")), "{text}");
        assert!(!text.contains(&d), "{text}");
    } else {
        let bind = changed(&shown, &json!({"additional_ssl_certificates": [a, d], "ssl_certificate": b}));
        world.ok("BindService.ReplaceBind", with(place.clone(), "bind", bind)).await;
        let text = world.backstay.text();
        let bind = text.lines().find(|line| line.contains("name tls")).unwrap();
        let at = |word: &str| bind.find(&format!("crt {word}")).or(bind.find(&format!("crt \"{word}"))).unwrap();
        assert!(at(&a) < at(&d) && at(&d) < at(&b) && !bind.contains(&c), "{bind}");
        let mut bind = shown.clone();
        bind.as_object_mut().unwrap().remove("ssl_certificate");
        let words = refused_saying(Reason::InvalidField, "ssl_certificate");
        world.refused("BindService.ReplaceBind", with(place.clone(), "bind", bind), words).await;
    }
    // What goes with an object and was not seen is named.
    let gone = world.ok("BindService.DeleteBind", place).await;
    let told = gone["warnings"].to_string();
    assert_eq!(told.contains("additional_crt_lists"), world.is_rest(), "{gone}");
    let gone = world.ok("FrontendService.DeleteFrontend", json!({"name": "forms"})).await;
    assert_eq!(gone["warnings"].to_string().contains("redirects"), world.is_rest(), "{gone}");
}

over_both!(certificates_beside_the_last, covers["BindService.GetBind", "BindService.DeleteBind"]);

/// Lines of a frontend that add up: what is shown of them, and what they are after a change.
async fn lines_of_which_each_counts(world: &mut World) {
    let port = free_port();
    let lines = [
        "monitor fail if { nbsrv(pool) lt 2 }",
        "monitor fail if { nbsrv(pool) lt 3 }",
        "compression algo gzip",
        "compression algo deflate raw-deflate",
        "compression type text/html text/css",
        "compression type text/plain",
        "stats enable",
        "stats admin if { src 127.0.0.2 }",
        "stats admin unless { src 127.0.0.3 }",
    ];
    let text = format!(
        "frontend forms\n  bind 127.0.0.1:{port}\n  mode http\n  {}\nbackend pool\n  server-template s 2 a.example:80 resolve-opts allow-dup-ip resolve-net 10.0.0.0/8 resolve-opts ignore-weight resolve-net 172.16.0.0/12 init-addr none\n",
        lines.join("\n  ")
    );
    push(world, &text).await;
    let place = json!({"name": "forms"});
    let shown = put_back(world, "Frontend", "frontend", place.clone()).await;
    assert_eq!(shown["compression"]["algorithms"], json!(["gzip", "deflate", "raw-deflate"]), "{shown}");
    assert_eq!(shown["compression"]["types"], json!(["text/html", "text/css", "text/plain"]), "{shown}");
    assert_eq!(shown["monitor_fail"]["cond_test"], "{ nbsrv(pool) lt 3 }");
    if !world.is_rest() {
        let first = json!([{"cond": "if", "cond_test": "{ nbsrv(pool) lt 2 }"}]);
        assert_eq!(shown["additional_monitor_fails"], first, "{shown}");
        let first = json!([{"cond": "if", "cond_test": "{ src 127.0.0.2 }"}]);
        assert_eq!(shown["stats_options"]["additional_stats_admins"], first, "{shown}");
    }
    let mut frontend = shown.clone();
    frontend["monitor_fail"]["cond_test"] = json!("{ nbsrv(pool) lt 4 }");
    frontend["compression"]["algorithms"] = json!(["gzip", "raw-deflate"]);
    frontend["compression"]["types"] = json!(["text/css", "text/plain", "text/xml"]);
    frontend["stats_options"]["stats_admin_cond"] = json!("if");
    world.ok("FrontendService.ReplaceFrontend", with(place, "frontend", frontend)).await;
    let after = [
        lines[0],
        "monitor fail if { nbsrv(pool) lt 4 }",
        lines[2],
        "compression algo raw-deflate",
        "compression type text/css",
        "compression type text/plain text/xml",
        lines[6],
        lines[7],
        "stats admin if { src 127.0.0.3 }",
    ];
    let now = world.backstay.text();
    assert!(now.contains(&format!("  mode http\n  {}\n", after.join("\n  "))), "{now}");
    // A list of what stands before the last one is nothing without the last one.
    if world.is_rest() {
        let mut frontend = shown.clone();
        frontend["stats_options"] = json!({"stats_enable": true});
        frontend.as_object_mut().unwrap().remove("monitor_fail");
        world.ok("FrontendService.ReplaceFrontend", json!({"name": "forms", "frontend": frontend})).await;
        let now = world.backstay.text();
        assert!(now.contains(lines[0]) && !now.contains("lt 4") && !now.contains("stats admin"), "{now}");
    } else {
        let mut frontend = world.ok("FrontendService.GetFrontend", json!({"name": "forms"})).await["frontend"].clone();
        frontend["stats_options"] = json!({"additional_stats_admins": [{}], "stats_admin": false});
        let words = refused_saying(Reason::InvalidValue, "additional_stats_admins");
        let request = json!({"name": "forms", "frontend": frontend});
        world.refused("FrontendService.ReplaceFrontend", request, words).await;
    }
    let place = json!({"backend": "pool", "prefix": "s"});
    let shown = put_back(world, "ServerTemplate", "server_template", place).await;
    let networks = (&shown["resolve_opts"], &shown["resolve-net"]);
    assert_eq!(networks, (&json!("allow-dup-ip,ignore-weight"), &json!("10.0.0.0/8,172.16.0.0/12")), "{shown}");
}

over_both!(lines_of_which_each_counts, covers["FrontendService.ReplaceFrontend"]);

async fn files_of_lua_for_each_thread(world: &mut World) {
    let lua = |name: &str| {
        let path = world.backstay.folder().join(name);
        std::fs::write(&path, "local arguments = table.pack(...)\n").unwrap();
        format!("lua-load-per-thread {}", path.display())
    };
    let lines = [lua("a.lua") + " x", lua("b.lua"), "unsetenv A B".to_owned(), "unsetenv C".to_owned()];
    let text = world.backstay.text().replacen("global\n", &format!("global\n    {}\n", lines.join("\n    ")), 1);
    world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": text, "skip_version": true})).await;
    let shown = put_back(world, "Global", "global", json!({})).await;
    assert!(
        shown["lua_load_per_thread"].as_str().unwrap().ends_with("b.lua") && shown["unsetenv"] == "A B C",
        "{shown}"
    );
    let changed = changed(&shown, &json!({"lua_load_per_thread": "c.lua 1", "unsetenv": "A B C D"}));
    std::fs::write(world.backstay.folder().join("c.lua"), "").unwrap();
    let path = world.backstay.folder().join("c.lua").display().to_string();
    let changed = with(changed, "lua_load_per_thread", json!(format!("{path} 1")));
    world.ok("GlobalService.ReplaceGlobal", json!({"global": changed})).await;
    let now = world.backstay.text();
    let wanted = [&*lines[0], &format!("lua-load-per-thread {path} 1"), &lines[2], "unsetenv C D"];
    assert!(now.contains(&format!("    {}\n", wanted.join("\n    "))), "{now}");
    if !world.is_rest() {
        let shown = world.ok("GlobalService.GetGlobal", json!({})).await["global"].clone();
        let first = lines[0].strip_prefix("lua-load-per-thread ").unwrap();
        assert_eq!(shown["additional_lua_loads_per_thread"], json!([{"file": first}]), "{shown}");
    }
}

over_both!(files_of_lua_for_each_thread, covers["GlobalService.ReplaceGlobal"]);
