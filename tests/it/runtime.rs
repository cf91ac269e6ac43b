//! The Runtime API client against a live stats socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstay::error::Reason;
use backstay::runtime::{
    Address, AdminState, Command, DataType, DatumValue, Filter, Limits, LoadMode, MapRef, OperationalState, Operator,
    Runtime, StatKind,
};

use crate::support::haproxy::{Haproxy, free_port};

const BODY: &str = "
frontend web
    bind 127.0.0.1:{port}
    http-request track-sc0 hdr(x-key) table names
    http-request sc-inc-gpc(1,0)
    use_backend %[path,map_beg({dir}/paths.map,app)]
    acl listed path -f {dir}/list.acl
    http-request deny if { src,map_ip({dir}/nets.map) -m found } { path_beg /never }
    default_backend app
backend app
    balance roundrobin
    server s1 127.0.0.1:9 weight 10
    server s2 127.0.0.1:10
backend addresses
    stick-table type ip size 1m expire 10m store gpc0,conn_rate(10s),server_id
backend names
    stick-table type string len 100 size 100k expire 10m store gpc(3),gpt(2)
backend numbers
    stick-table type integer size 1k store gpc0
";

struct Live {
    haproxy: Haproxy,
    runtime: Runtime,
    paths: MapRef,
    port: u16,
}

fn live() -> Live {
    let port = free_port();
    let mut haproxy = Haproxy::prepare(&BODY.replace("{port}", &port.to_string()));
    let map = haproxy.file("paths.map", "/static/ app\n");
    haproxy.file("nets.map", "10.0.0.0/8 internal\n");
    haproxy.file("list.acl", "/one\n/two\n");
    haproxy.start();
    let runtime = Runtime::new(vec![Address::Unix(haproxy.socket())]);
    let paths = MapRef::new(map.display().to_string()).unwrap();
    Live { haproxy, runtime, paths, port }
}

async fn entries(runtime: &Runtime, map: &MapRef) -> Vec<(String, String)> {
    let all = runtime.map_entries(map).await.unwrap().collect().await.unwrap();
    all.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn info_and_statistics_are_typed() {
    let live = live();
    let info = live.runtime.info().await.unwrap();
    assert_eq!(info.text("Name"), Some("HAProxy"));
    assert_eq!(info.version().unwrap(), live.runtime.version().await.unwrap());
    assert!(info.pid().unwrap() > 1);
    let rows: Vec<_> = live.runtime.stats(None, None).await.unwrap().flatten().collect();
    assert!(rows.iter().any(|row| row.get("pxname") == Some("web") && row.get("svname") == Some("FRONTEND")));
    let servers: Vec<_> = live.runtime.stats(Some("app"), Some(StatKind::Server)).await.unwrap().flatten().collect();
    assert_eq!(servers.iter().filter_map(|row| row.get("svname")).collect::<Vec<_>>(), ["s1", "s2"]);
    assert_eq!(live.runtime.server_stats("app", "s1").await.unwrap().get("weight"), Some("10"));
    assert_eq!(live.runtime.server_stats("app", "s9").await.unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(live.runtime.stats(Some("nope"), None).await.unwrap().flatten().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn map_entries_survive_with_every_character_or_are_refused() {
    let Live { runtime, paths, haproxy, .. } = live();
    let maps = runtime.maps().await.unwrap();
    let loaded = maps.iter().find(|map| map.file.as_deref() == Some(&paths.to_string())).unwrap();
    assert_eq!(loaded.entries, Some(1));

    let keys = [
        "/api/",
        "a;b",
        "a\\b",
        "a\\ b",
        "\"q\"",
        "'",
        "a=b&c",
        "a#b",
        "<<",
        "x<<",
        "ключ/é",
        "-1",
        "@1",
        "%[x]",
        "prompt",
        "#a",
        "#0x12",
        "#",
    ];
    let values = [
        "v",
        "two words",
        "a;clear map x",
        "back\\slash\\",
        "\"q\" 'r'",
        "# no comment",
        "<<",
        "x <<",
        "é",
        "t\tab",
        "<<%x",
    ];
    for (n, key) in keys.iter().filter(|key| !key.contains(' ')).enumerate() {
        let value = values[n % values.len()];
        runtime.map_add(&paths, key, value).await.unwrap();
        let entry = runtime.map_entry(&paths, key).await.unwrap();
        assert_eq!((entry.key.as_str(), entry.value.as_str()), (*key, value));
        let again = runtime.map_add(&paths, key, "other").await.unwrap_err();
        assert_eq!(again.reason(), Reason::ObjectExists);
        for value in values {
            runtime.map_set(&paths, key, value).await.unwrap();
            assert_eq!(runtime.map_entry(&paths, key).await.unwrap().value, value, "{key}");
        }
        assert!(entries(&runtime, &paths).await.contains(&((*key).to_owned(), values[values.len() - 1].to_owned())));
        runtime.map_delete(&paths, key).await.unwrap();
        assert_eq!(runtime.map_entry(&paths, key).await.unwrap_err().reason(), Reason::ObjectNotFound);
        assert_eq!(runtime.map_delete(&paths, key).await.unwrap_err().reason(), Reason::ObjectNotFound);
        assert_eq!(runtime.map_set(&paths, key, "v").await.unwrap_err().reason(), Reason::ObjectNotFound);
    }
    let map = paths.to_string();
    for key in [format!("a\nclear map {map}"), "a b".into(), String::new(), "a\0".into(), "a\rb".into()] {
        assert_eq!(runtime.map_add(&paths, &key, "v").await.unwrap_err().reason(), Reason::InvalidValue, "{key:?}");
    }
    for key in [format!("a\nclear map {map}"), format!("a;clear map {map}"), format!("a <<\nclear map {map}")] {
        drop(runtime.map_entry(&paths, &key).await);
        drop(runtime.map_delete(&paths, &key).await);
        drop(runtime.raw(Command::from_words(&["show", "info"]).unwrap()).await.unwrap());
    }
    let long = runtime.map_add(&paths, "long", &"v".repeat(20_000)).await.unwrap_err();
    assert_eq!(long.reason(), Reason::InvalidValue);
    assert_eq!(entries(&runtime, &paths).await, [("/static/".to_owned(), "app".to_owned())]);

    // A key that only other tools can add is still found and removed.
    haproxy.ask(&format!("add map {map} #odd v")).unwrap();
    assert_eq!(runtime.map_entry(&paths, "#odd").await.unwrap().value, "v");
    runtime.map_set(&paths, "#odd", "w").await.unwrap();
    assert_eq!(runtime.map_entry(&paths, "#odd").await.unwrap().value, "w");
    runtime.map_delete(&paths, "#odd").await.unwrap();
    assert_eq!(entries(&runtime, &paths).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_exact_in_maps_that_match_otherwise() {
    let Live { runtime, paths, haproxy, .. } = live();
    assert_eq!(runtime.map_entry(&paths, "/static/x").await.unwrap_err().reason(), Reason::ObjectNotFound);
    let nets = MapRef::new(haproxy.dir().join("nets.map").display().to_string()).unwrap();
    assert_eq!(runtime.map_entry(&nets, "10.0.0.0/8").await.unwrap().value, "internal");
    assert_eq!(runtime.map_entry(&nets, "10.0.0.1").await.unwrap_err().reason(), Reason::ObjectNotFound);
    let bad = runtime.map_add(&nets, "no address", "x").await.unwrap_err();
    assert_eq!(bad.reason(), Reason::InvalidValue);
    let bad = runtime.map_add(&nets, "noaddress", "x").await.unwrap_err();
    assert_eq!(bad.reason(), Reason::RuntimeRejected, "{bad}");
    let missing = MapRef::new("/no/such.map").unwrap();
    assert_eq!(runtime.map_entry(&missing, "a").await.unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(runtime.map_add(&missing, "a", "b").await.unwrap_err().reason(), Reason::ObjectNotFound);
    let listed = runtime.map_entries(&missing).await.unwrap().collect().await.unwrap_err();
    assert_eq!(listed.reason(), Reason::ObjectNotFound);
    assert_eq!(runtime.map_load(&missing, LoadMode::Replace).await.unwrap_err().reason(), Reason::ObjectNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_are_loaded_at_once_or_not_at_all() {
    let Live { runtime, paths, haproxy: _running, .. } = live();
    let mut load = runtime.map_load(&paths, LoadMode::Replace).await.unwrap();
    for n in 0..5_000 {
        load.push(&format!("/key/{n}"), &format!("value {n} ; \\ x")).await.unwrap();
    }
    assert_eq!(load.push("a b", "v").await.unwrap_err().message().split(':').next(), Some("entry 5001"));
    assert_eq!(entries(&runtime, &paths).await.len(), 1);
    assert_eq!(load.commit().await.unwrap(), 5_000);
    let now = entries(&runtime, &paths).await;
    assert_eq!(now.len(), 5_000);
    assert_eq!(now[77], ("/key/77".to_owned(), "value 77 ; \\ x".to_owned()));

    let mut load = runtime.map_load(&paths, LoadMode::Replace).await.unwrap();
    load.push("/lost", "v").await.unwrap();
    load.abort().await.unwrap();
    assert_eq!(entries(&runtime, &paths).await.len(), 5_000);

    let mut load = runtime.map_load(&paths, LoadMode::Append).await.unwrap();
    load.push("/more", "v").await.unwrap();
    assert_eq!(load.commit().await.unwrap(), 1);
    assert_eq!(entries(&runtime, &paths).await.len(), 5_001);
    runtime.map_clear(&paths).await.unwrap();
    assert!(entries(&runtime, &paths).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stick_tables_are_listed_read_and_written() {
    let Live { runtime, haproxy: _running, .. } = live();
    let names: Vec<_> = runtime.tables().await.unwrap().into_iter().map(|table| table.name).collect();
    for name in ["addresses", "names", "numbers"] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    assert_eq!(runtime.table("nope").await.unwrap_err().reason(), Reason::ObjectNotFound);
    for n in 1..=20_u64 {
        let data = [(DataType::Gpc(0), DatumValue::Number(n)), (DataType::ConnRate, DatumValue::Number(2 * n))];
        runtime.set_table_entry("addresses", &format!("10.0.0.{n}"), &data).await.unwrap();
    }
    assert_eq!(runtime.table("addresses").await.unwrap().used, 20);
    let entry = runtime.table_entry("addresses", "10.0.0.7").await.unwrap().unwrap();
    assert_eq!(entry.number(&DataType::Gpc(0)), Some(7));
    assert_eq!(entry.number(&DataType::ConnRate), Some(14));
    let filter = Filter { kind: DataType::Gpc(0), operator: Operator::Gt, value: 15 };
    let some =
        runtime.table_entries("addresses", std::slice::from_ref(&filter)).await.unwrap().collect().await.unwrap();
    assert_eq!(some.len(), 5);
    let wrong = Filter { kind: DataType::HttpReqCnt, operator: Operator::Gt, value: 1 };
    let error = runtime.table_entries("addresses", &[wrong]).await.unwrap().collect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::RuntimeRejected);
    let error = runtime.table_entries("nope", &[]).await.unwrap().collect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectNotFound);

    assert_eq!(runtime.set_table_entry("addresses", "bad", &[]).await.unwrap_err().reason(), Reason::InvalidValue);
    assert_eq!(runtime.set_table_entry("nope", "1", &[]).await.unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(runtime.table_entry("addresses", "1.1.1.1").await.unwrap(), None);
    assert_eq!(runtime.table_entry("nope", "1.1.1.1").await.unwrap_err().reason(), Reason::ObjectNotFound);

    runtime.clear_table_entry("addresses", "10.0.0.7").await.unwrap();
    assert_eq!(runtime.table_entry("addresses", "10.0.0.7").await.unwrap(), None);
    runtime.clear_table("addresses", &[filter]).await.unwrap();
    assert_eq!(runtime.table("addresses").await.unwrap().used, 14);
    runtime.clear_table("addresses", &[]).await.unwrap();
    assert_eq!(runtime.table("addresses").await.unwrap().used, 0);

    for key in ["plain", " a b ", "x=y use=3 exp=9", "semi;colon", "back\\slash", "é<<", "<<", "tab\tkey", "#1", "\"q'"]
    {
        runtime.set_table_entry("names", key, &[]).await.unwrap();
        assert_eq!(runtime.table_entry("names", key).await.unwrap().unwrap().key, key);
        let all = runtime.table_entries("names", &[]).await.unwrap().collect().await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].key, key);
        runtime.clear_table_entry("names", key).await.unwrap();
        assert_eq!(runtime.table("names").await.unwrap().used, 0, "{key}");
    }
    assert_eq!(runtime.set_table_entry("names", "a\nb", &[]).await.unwrap_err().reason(), Reason::InvalidValue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_follow_what_is_asked() {
    let Live { runtime, haproxy: _running, .. } = live();
    assert_eq!(runtime.servers("nope").await.unwrap_err().reason(), Reason::ParentNotFound);
    assert_eq!(runtime.server("app", "s9").await.unwrap_err().reason(), Reason::ObjectNotFound);
    runtime.set_server_state("app", "s1", AdminState::Drain).await.unwrap();
    assert_eq!(runtime.server("app", "s1").await.unwrap().admin_state, AdminState::Drain);
    runtime.set_server_state("app", "s1", AdminState::Ready).await.unwrap();
    runtime.set_server_weight("app", "s1", 77).await.unwrap();
    runtime.set_server_address("app", "s1", "127.0.0.9", Some(81)).await.unwrap();
    let server = runtime.server("app", "s1").await.unwrap();
    assert_eq!((server.weight, server.initial_weight, server.port), (77, 10, Some(81)));
    assert_eq!(server.address.as_deref(), Some("127.0.0.9"));
    assert_eq!(server.operational_state, OperationalState::Up);
    assert_eq!(runtime.set_server_weight("app", "s1", 300).await.unwrap_err().reason(), Reason::RuntimeRejected);
    assert_eq!(runtime.set_server_weight("app", "s9", 3).await.unwrap_err().reason(), Reason::ObjectNotFound);

    runtime.add_server("app", "s3", &["127.0.0.1:99", "weight", "5"]).await.unwrap();
    let error = runtime.add_server("app", "s3", &["127.0.0.1:99"]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ObjectExists);
    assert_eq!(runtime.add_server("nope", "s3", &["127.0.0.1:99"]).await.unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(runtime.server("app", "s3").await.unwrap().weight, 5);
    runtime.delete_server("app", "s3").await.unwrap();
    assert_eq!(runtime.delete_server("app", "s3").await.unwrap_err().reason(), Reason::ObjectNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acl_entries_are_listed_added_and_deleted() {
    let Live { runtime, haproxy, .. } = live();
    let file = haproxy.dir().join("list.acl").display().to_string();
    let acl = runtime.acls().await.unwrap().into_iter().find(|acl| acl.file.as_deref() == Some(&file)).unwrap();
    let values = async || {
        let all = runtime.acl_entries(&format!("#{}", acl.id)).await.unwrap().collect().await.unwrap();
        all.into_iter().map(|entry| entry.value).collect::<Vec<_>>()
    };
    assert_eq!(values().await, ["/one", "/two"]);
    runtime.acl_add(&file, "/three").await.unwrap();
    runtime.acl_delete(&file, "/one").await.unwrap();
    assert_eq!(values().await, ["/two", "/three"]);
    let all = runtime.acl_entries(&file).await.unwrap().collect().await.unwrap();
    runtime.acl_delete_id(&file, &all[0].id).await.unwrap();
    assert_eq!(values().await, ["/three"]);
    assert_eq!(runtime.acl_delete_id(&file, "0x1234").await.unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(runtime.acl_delete(&file, "/none").await.unwrap_err().reason(), Reason::ObjectNotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_haproxy_is_unavailable_and_found_again() {
    let mut live = live();
    let runtime = live.runtime.clone();
    runtime.info().await.unwrap();
    live.haproxy.stop();
    let socket = live.haproxy.socket().display().to_string();
    for error in [
        runtime.info().await.unwrap_err(),
        runtime.map_add(&live.paths, "a", "b").await.unwrap_err(),
        runtime.table_entries("names", &[]).await.map(drop).unwrap_err(),
        runtime.raw(Command::new("show errors")).await.unwrap_err(),
    ] {
        assert_eq!(error.reason(), Reason::RuntimeUnavailable);
        assert!(error.message().contains(&socket), "{error}");
    }
    live.haproxy.start();
    runtime.info().await.unwrap();
    runtime.map_add(&live.paths, "a", "b").await.unwrap();
    assert_eq!(entries(&runtime, &live.paths).await.len(), 2);

    runtime.set_address(None);
    let error = runtime.info().await.unwrap_err();
    assert_eq!(error.reason(), Reason::RuntimeUnavailable);
    assert!(error.message().contains("stats socket"), "{error}");
    runtime.set_addresses(vec![Address::Unix("/nowhere.sock".into()), Address::Unix(live.haproxy.socket())]);
    runtime.info().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_noticed_with_and_without_being_told() {
    let mut live = live();
    let runtime = live.runtime.clone();
    let pid = async || runtime.info().await.unwrap().pid().unwrap();
    let first = pid().await;
    let mut old = live.haproxy.reload();
    let second = pid().await;
    assert_ne!(first, second);
    let mut older = live.haproxy.reload();
    let deadline = Instant::now() + Duration::from_secs(5);
    while pid().await == second {
        assert!(Instant::now() < deadline, "the old worker is still asked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nothing of ours may keep the old workers alive.
    for child in [&mut old, &mut older] {
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline + Duration::from_secs(5), "an old worker does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_few_connections_and_get_their_own_answers() {
    let live = live();
    let runtime = Arc::new(live.runtime.clone());
    for n in 0..200 {
        runtime.map_add(&live.paths, &format!("/k{n}/"), &format!("v{n}")).await.unwrap();
    }
    let mut tasks = Vec::new();
    for caller in 0..32 {
        let (runtime, paths) = (runtime.clone(), live.paths.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..200 {
                let n = (caller * 37 + round) % 200;
                if round % 17 == 0 {
                    // A caller that gives up must not shift the answers of others.
                    let key = format!("/k{n}/");
                    let call = runtime.map_entry(&paths, &key);
                    drop(tokio::time::timeout(Duration::from_micros(20), call).await);
                }
                let entry = runtime.map_entry(&paths, &format!("/k{n}/")).await.unwrap();
                assert_eq!(entry.value, format!("v{n}"));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(live.port > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_beyond_the_limit_are_refused_and_the_client_goes_on() {
    let live = live();
    let limits = Limits { max_answer: 600, ..Limits::default() };
    let runtime = Runtime::with_limits(vec![Address::Unix(live.haproxy.socket())], limits);
    assert_eq!(runtime.info().await.unwrap_err().reason(), Reason::TooLarge);
    assert_eq!(runtime.raw(Command::new("help")).await.unwrap_err().reason(), Reason::TooLarge);
    assert!(!runtime.version().await.unwrap().is_empty());
    assert_eq!(entries(&runtime, &live.paths).await.len(), 1);
}
