//! Service discovery: instances and their files, and what becomes of services in a running HAProxy.

use std::time::Duration;

use serde_json::{Value as Json, json};

use backstay::error::Reason;

use crate::drop_in::wire::Authority;
use crate::support::backstay::Backstay;
use crate::support::client::{Client, Transport, basic, request};
use crate::support::ec2::{Ec2, Machine};
use crate::support::registry::Consul;
use crate::support::world::{World, holds, over_both, refused, refused_saying, until};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// An agent that is asked every second.
fn agent(port: u16, more: Json) -> Json {
    let mut agent = json!({"address": "127.0.0.1", "enabled": true, "port": port, "retry_timeout": 1});
    agent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    agent
}

over_both!(
    consul_agents,
    covers [
        "ConsulService.ListConsuls",
        "ConsulService.GetConsul",
        "ConsulService.CreateConsul",
        "ConsulService.ReplaceConsul",
        "ConsulService.DeleteConsul",
        "ConsulService.WatchConsul"
    ]
);

async fn consul_agents(world: &mut World) {
    let create = "ConsulService.CreateConsul";
    let with = |more: Json| json!({"consul": agent(1, more)});
    world
        .cases([
            ("ConsulService.ListConsuls", json!({}), holds(json!({"consuls": null}))),
            (
                create,
                json!({"consul": {"enabled": true, "port": 1, "retry_timeout": 1}}),
                refused(Reason::InvalidField),
            ),
            (create, json!({"consul": {"address": "a", "port": 1, "retry_timeout": 1}}), refused(Reason::InvalidField)),
            (create, with(json!({"port": 70000})), refused(Reason::InvalidField)),
            (create, with(json!({"retry_timeout": 0})), refused(Reason::InvalidField)),
            (create, with(json!({"mode": "gopher"})), refused(Reason::InvalidField)),
            (create, with(json!({"service_allowlist": ["a b"]})), refused(Reason::InvalidField)),
            (
                create,
                with(json!({"health_check_policy": "min"})),
                refused_saying(Reason::InvalidValue, "health_check_policy_min"),
            ),
            ("ConsulService.GetConsul", json!({"id": NOBODY}), refused(Reason::ObjectNotFound)),
            ("ConsulService.DeleteConsul", json!({"id": NOBODY}), refused(Reason::ObjectNotFound)),
            (
                "ConsulService.ReplaceConsul",
                json!({"id": NOBODY, "consul": agent(1, json!({"id": NOBODY}))}),
                refused(Reason::ObjectNotFound),
            ),
        ])
        .await;
    let first = agent(
        8500,
        json!({
            "enabled": false, "name": "dc1", "description": "rack <1>", "health_check_policy": "min", "health_check_policy_min": 2,
            "service-blacklist": ["x"], "service_denylist": ["y"], "token": "s3cret", "server_slots_base": 5, "defaults": "d",
            "mode": "https", "namespace": "n", "service_name_regexp": "^w", "id": NOBODY,
        }),
    );
    let created = world.ok(create, json!({"consul": first})).await["consul"].clone();
    let id = created["id"].as_str().unwrap().to_owned();
    assert_ne!(id, NOBODY, "the id is given");
    let mut shown = first.clone();
    shown["id"] = json!(id);
    shown["server_slots_base"] = json!(10);
    shown["server_slots_growth_type"] = json!("linear");
    shown["server_slots_growth_increment"] = json!(10);
    if !world.is_rest() {
        shown["token"] = Json::Null;
        shown["status"] = json!({"state": "disabled", "last_error": null});
    }
    let other = json!({"server_slots_growth_type": "exponential", "enabled": false});
    let second = world.ok(create, json!({"consul": agent(8501, other)})).await["consul"]["id"].clone();
    world
        .cases([
            ("ConsulService.GetConsul", json!({"id": id}), holds(json!({"consul": shown}))),
            (
                "ConsulService.ListConsuls",
                json!({}),
                holds(json!({"consuls": [{"id": id}, {
                    "id": second, "server_slots_growth_type": "exponential", "server_slots_growth_increment": null,
                }]})),
            ),
            ("ConsulService.DeleteConsul", json!({"id": second}), holds(json!({}))),
            ("ConsulService.DeleteConsul", json!({"id": second}), refused(Reason::ObjectNotFound)),
        ])
        .await;
    // Everything is there after the program was killed.
    world.restart();
    world.cases([("ConsulService.GetConsul", json!({"id": id}), holds(json!({"consul": shown})))]).await;

    let replace = "ConsulService.ReplaceConsul";
    let changed = agent(8502, json!({"id": id, "enabled": false}));
    world
        .refused(replace, json!({"id": id, "consul": agent(0, json!({"id": id}))}), refused(Reason::InvalidField))
        .await;
    if world.is_rest() {
        for body in [agent(1, json!({})), agent(1, json!({"id": "x"})), agent(1, json!({"id": NOBODY}))] {
            world
                .refused(replace, json!({"id": id, "consul": body}), refused_saying(Reason::InvalidValue, "id: "))
                .await;
        }
    }
    let mut watched = world.stream("ConsulService.WatchConsul", json!({"id": id})).await;
    assert_eq!(watched.next().await.unwrap()["status"]["state"], "disabled");
    world.ok(replace, json!({"id": id, "consul": changed})).await;
    let kept = std::fs::read_to_string(world.backstay.folder().join("state/service_discovery.yaml")).unwrap();
    // Who is not shown the token keeps it by leaving it out.
    assert_eq!(kept.contains("s3cret"), !world.is_rest(), "{kept}");
    world
        .cases([(
            "ConsulService.GetConsul",
            json!({"id": id}),
            holds(json!({"consul": {"port": 8502, "name": null, "defaults": null, "token": null}})),
        )])
        .await;
    world.ok("ConsulService.DeleteConsul", json!({"id": id})).await;
    while let Some(message) = watched.next().await {
        assert_eq!(message["status"]["state"], "disabled");
    }
    assert!(!world.backstay.log().contains("s3cret"));
}

/// A running agent, a running backstay that asks it, and the backend of its service `web`.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) consul: Consul,
    id: String,
}

impl Bench {
    pub(crate) async fn new(more: Json) -> Bench {
        // A reload that is not wanted is seen by its worker.
        let world = World::start(Transport::Grpc, &[]);
        let consul = Consul::start().await;
        let wanted = agent(consul.address.port(), more);
        let created = world.ok("ConsulService.CreateConsul", json!({"consul": wanted})).await;
        let id = created["consul"]["id"].as_str().unwrap().to_owned();
        Bench { world, consul, id }
    }

    fn backend(&self, service: &str) -> String {
        format!("consul-backend-127.0.0.1-{}-{service}", self.consul.address.port())
    }

    /// Ports of the servers that take traffic, and the number of all, as HAProxy runs them.
    pub(crate) fn running(&self, service: &str) -> (Vec<u16>, usize) {
        let state =
            self.world.backstay.ask(&format!("show servers state {}", self.backend(service))).unwrap_or_default();
        let mut ports = Vec::new();
        let mut all = 0;
        for words in state.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() > 18) {
            if !words[3].starts_with("SRV_") {
                continue;
            }
            all += 1;
            // Bit 0: in maintenance.
            if words[6].parse::<u32>().unwrap() & 1 == 0 {
                ports.push(words[18].parse().unwrap());
            }
        }
        ports.sort_unstable();
        (ports, all)
    }

    /// Waits until HAProxy runs a service like this.
    pub(crate) async fn runs(&self, service: &str, ports: &[u16], all: usize) {
        let mut last = (Vec::new(), 0);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < deadline {
            last = self.running(service);
            if last == (ports.to_vec(), all) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{service} runs as {last:?}, not {ports:?} of {all}\n{}", self.world.backstay.text());
    }

    pub(crate) async fn status(&self) -> Json {
        self.world.ok("ConsulService.GetConsul", json!({"id": self.id})).await["consul"]["status"].clone()
    }

    /// Waits until the search has asked again, twice.
    async fn asked_again(&self) {
        let asked = || self.consul.questions().iter().filter(|question| question.path.contains("/health/")).count();
        let before = asked();
        until("two more questions", async || asked() >= before + 2).await;
    }
}

pub(crate) const UP: &[&str] = &["passing"];

#[tokio::test(flavor = "multi_thread")]
async fn services_come_change_and_go() {
    let bench = Bench::new(json!({"service_denylist": ["secret"]})).await;
    bench.consul.set("web", &[(8001, UP)]);
    bench.consul.set("secret", &[(9001, UP)]);
    bench.runs("web", &[8001], 10).await;
    let text = bench.world.backstay.text();
    assert!(text.contains(&format!("backend {}\n", bench.backend("web"))), "{text}");
    assert!(text.contains(" 127.0.0.1:8001 check weight 128\n"), "{text}");
    assert_eq!(text.matches(" 127.0.0.1:80 check disabled weight 128\n").count(), 9, "{text}");
    assert!(!text.contains("secret") && !text.contains(&bench.backend("consul")));

    // From here on HAProxy takes over everything while it runs.
    bench.world.settled().await;
    let (worker, version) = (bench.world.worker(), bench.world.version().await);
    bench.consul.set("web", &[(8001, UP), (8002, UP)]);
    bench.runs("web", &[8001, 8002], 10).await;
    bench.consul.set("web", &[(8002, UP)]);
    bench.runs("web", &[8002], 10).await;
    assert_eq!(bench.world.version().await, version + 2, "one change is one version");
    bench.asked_again().await;
    assert_eq!(bench.world.version().await, version + 2, "nothing is written when nothing changed");
    let many: Vec<(u16, &[&str])> = (8002..8013).map(|port| (port, UP)).collect();
    bench.consul.set("web", &many);
    bench.runs("web", &(8002..8013).collect::<Vec<_>>(), 20).await;
    bench.consul.set("web", &many[..3]);
    bench.runs("web", &[8002, 8003, 8004], 10).await;
    let service = json!({"name": "web", "backend": bench.backend("web"), "instances": 3, "slots": 10});
    // HAProxy has the servers a moment before the search says so.
    until("the status tells of the service", async || {
        let status = bench.status().await;
        status["state"] == "running" && status["services"] == json!([service])
    })
    .await;
    bench.consul.remove("web");
    bench.runs("web", &[], 10).await;
    assert_eq!(bench.world.worker(), worker, "haproxy was reloaded");
    let text = bench.world.backstay.text();
    assert_eq!(text.matches(" 127.0.0.1:80 check disabled weight 128\n").count(), 10, "{text}");

    // A backend that somebody else made is not touched.
    let own = format!("{text}\nbackend {}\n  server mine 127.0.0.1:9\n", bench.backend("db"));
    bench.world.ok("RawConfigurationService.PushRawConfiguration", json!({"data": own})).await;
    bench.consul.set("db", &[(8003, UP)]);
    until("the status names it", async || {
        bench.status().await["problems"].to_string().contains("not made by discovery")
    })
    .await;
    assert!(!bench.world.backstay.text().contains("8003"));

    // Without the instance its backends stay.
    bench.consul.set("web", &[(8005, UP)]);
    bench.runs("web", &[8005], 10).await;
    bench.world.ok("ConsulService.DeleteConsul", json!({"id": bench.id})).await;
    bench.consul.remove("web");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bench.running("web").0, [8005]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_keeps_the_last_good_services() {
    let mut bench = Bench::new(json!({"token": "s3cret", "namespace": "n1", "service_name_regexp": "^w"})).await;
    bench.consul.set("web", &[(8001, UP), (8002, &["critical"])]);
    bench.runs("web", &[8001, 8002], 10).await;
    let asked = bench.consul.questions();
    assert!(asked.iter().all(|question| question.token == "s3cret" && question.query["ns"] == "n1"), "{asked:?}");
    let lists = asked.iter().filter(|question| question.path == "/v1/catalog/services");
    assert!(lists.clone().all(|question| question.query["filter"] == "ServiceName matches \"^w\""), "{asked:?}");

    bench.consul.break_down(true);
    bench.consul.remove("web");
    until("the status tells of it", async || bench.status().await["failures"].as_i64() >= Some(2)).await;
    let status = bench.status().await;
    assert_eq!(status["state"], "failing");
    let words = status["last_error"].as_str().unwrap();
    assert!(words.contains("/v1/catalog/services answers 500: no leader for ***"), "{words}");
    assert!(status["next_attempt_time_ms"].as_i64() >= status["last_error_time_ms"].as_i64(), "{status}");
    assert_eq!(bench.running("web").0, [8001, 8002], "the last good services stay");
    assert!(!bench.world.backstay.log().contains("s3cret"));

    // It goes on after a restart in the middle of it, too.
    bench.world.restart();
    until("it fails again", async || bench.status().await["state"] == "failing").await;
    assert!(bench.world.backstay.text().contains("127.0.0.1:8001 check"));
    bench.consul.set("web", &[(8003, UP)]);
    bench.consul.break_down(false);
    bench.runs("web", &[8003], 10).await;
    until("the search has ended well", async || {
        let status = bench.status().await;
        status["state"] == "running" && status["failures"] == Json::Null
    })
    .await;
    let status = bench.status().await;
    assert_ne!(status["last_error"], Json::Null, "what went wrong is still told");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_settings_decide_what_takes_traffic() {
    let bench = Bench::new(json!({
        "health_check_policy": "any", "service_allowlist": ["web"], "server_slots_growth_type": "exponential", "defaults": "none",
    }))
    .await;
    bench.consul.set("web", &[(8001, UP), (8002, &["critical"]), (8003, &[])]);
    bench.consul.set("db", &[(9001, UP)]);
    until("the status names the section", async || {
        bench.status().await["last_error"].as_str().unwrap_or_default().contains("no section defaults none")
    })
    .await;
    assert!(!bench.world.backstay.text().contains("consul-backend"));
    let port = bench.consul.address.port();
    let settings = json!({"health_check_policy": "any", "service_allowlist": ["web"]});
    let changed = json!({"id": bench.id, "consul": agent(port, settings.clone())});
    bench.world.ok("ConsulService.ReplaceConsul", changed).await;
    bench.runs("web", &[8001], 10).await;
    bench.consul.set("web", &[(8001, &["critical"]), (8002, UP)]);
    bench.runs("web", &[8002], 10).await;
    assert!(!bench.world.backstay.text().contains(&bench.backend("db")));

    // Switched off, nothing is asked and nothing changes.
    let mut off = agent(port, settings);
    off["enabled"] = json!(false);
    bench.world.ok("ConsulService.ReplaceConsul", json!({"id": bench.id, "consul": off})).await;
    until("it is off", async || bench.status().await["state"] == "disabled").await;
    let asked = bench.consul.questions().len();
    bench.consul.set("web", &[]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((bench.consul.questions().len(), bench.running("web").0), (asked, vec![8002]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_asked_over_tls_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    for (name, authority) in [("trusted", &trusted), ("other", &other)] {
        authority.issue(folder.path(), name);
    }
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, trusted.pem()).unwrap();
    let world = World::start(Transport::Grpc, &[&format!("env:SSL_CERT_FILE={}", roots.display())]);
    let mut ids = Vec::new();
    for name in ["trusted", "other"] {
        let consul = Consul::start_tls(folder.path(), name).await;
        consul.set(name, &[(8001, UP)]);
        let wanted = agent(consul.address.port(), json!({"mode": "https", "token": "s3cret"}));
        let created = world.ok("ConsulService.CreateConsul", json!({"consul": wanted})).await;
        ids.push((created["consul"]["id"].clone(), consul));
    }
    let status = async |at: usize| {
        world.ok("ConsulService.GetConsul", json!({"id": ids[at].0})).await["consul"]["status"].clone()
    };
    until("the trusted one is asked", async || status(0).await["state"] == "running").await;
    until("the other one is refused", async || status(1).await["state"] == "failing").await;
    let words = status(1).await["last_error"].to_string();
    assert!(words.contains("certificate"), "{words}");
    assert!(ids[1].1.questions().is_empty(), "it has heard the token");
    let text = world.backstay.text();
    assert!(text.contains("-trusted\n") && !text.contains("-other\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_stand_in_the_yaml_file_of_settings() {
    let id = "11111111-1111-4111-8111-111111111111";
    let text = format!(
        "# mine\ndataplaneapi:\n  show_system_info: true # yes\nservice_discovery:\n  consuls:\n  - address: 127.0.0.1 # here\n    \
        enabled: false\n    id: {id}\n    port: 8500\n    retrytimeout: 10\n    healthcheckpolicymin: 0\n"
    );
    let mut backstay =
        Backstay::start_with(&["-f", "{dir}/d.yaml"], |dir| std::fs::write(dir.join("d.yaml"), &text).unwrap());
    let rest = |backstay: &Backstay| {
        Client::new(Transport::Rest, backstay.api, "").authorized(&basic("admin", &backstay.password))
    };
    let path = "/v2/service_discovery/consul";
    let client = rest(&backstay);
    let one = format!(
        "{{\"address\":\"127.0.0.1\",\"enabled\":false,\"id\":\"{id}\",\"port\":8500,\"retry_timeout\":10,\
        \"server_slots_base\":10,\"server_slots_growth_increment\":10,\"server_slots_growth_type\":\"linear\"}}"
    );
    let answer = client.send(request("GET", path, "", "")).await;
    assert_eq!((answer.status, answer.text()), (200, format!("{{\"data\":[{one}]}}\n")));
    let answer = client.send(request("GET", &format!("{path}/{id}"), "", "")).await;
    assert_eq!((answer.status, answer.text()), (200, format!("{{\"data\":{one}}}\n")));
    let answer = client.send(request("GET", &format!("{path}/{NOBODY}"), "", "")).await;
    assert_eq!((answer.status, answer.json()["code"].clone()), (404, json!(404)));

    let changed = one.replace("8500", "8600");
    let answer = client.send(request("PUT", &format!("{path}/{id}"), "application/json", changed.clone())).await;
    assert_eq!((answer.status, answer.text()), (200, format!("{changed}\n")));
    let new = r#"{"address":"b","enabled":false,"port":1,"retry_timeout":3,"service_allowlist":["x"],"zebra":1}"#;
    let answer = client.send(request("POST", path, "application/json", new)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let other = answer.json()["id"].as_str().unwrap().to_owned();
    let file = std::fs::read_to_string(backstay.dir().join("d.yaml")).unwrap();
    let begin = text.replace("port: 8500", "port: 8600");
    assert!(file.starts_with(&begin), "{file}");
    assert!(file.contains("- address: b\n") && file.contains("retrytimeout: 3\n"), "{file}");
    assert!(file.contains("serviceallowlist:\n      - x\n") || file.contains("serviceallowlist:\n    - x\n"), "{file}");

    backstay.kill();
    backstay.run();
    let client = rest(&backstay);
    let list = client.send(request("GET", path, "", "")).await.json();
    assert_eq!((&list["data"][0]["port"], &list["data"][1]["id"]), (&json!(8600), &json!(other)), "{list}");
    let answer = client.send(request("DELETE", &format!("{path}/{other}"), "", "")).await;
    assert_eq!((answer.status, answer.text().as_str()), (204, ""));
    let answer = client.send(request("DELETE", &format!("{path}/{id}"), "", "")).await;
    assert_eq!(answer.status, 204);
    let answer = client.send(request("GET", path, "", "")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"data\":null}\n"));
    let file = std::fs::read_to_string(backstay.dir().join("d.yaml")).unwrap();
    assert!(file.starts_with("# mine\ndataplaneapi:\n  show_system_info: true # yes\n"), "{file}");
}

/// A region that is asked every second.
fn region(more: Json) -> Json {
    let mut region = json!({
        "name": "main", "region": "us-east-1", "enabled": true, "retry_timeout": 1, "ipv4_address": "private",
    });
    region.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    region
}

over_both!(
    aws_regions,
    covers [
        "AwsRegionService.ListAwsRegions",
        "AwsRegionService.GetAwsRegion",
        "AwsRegionService.CreateAwsRegion",
        "AwsRegionService.ReplaceAwsRegion",
        "AwsRegionService.DeleteAwsRegion",
        "AwsRegionService.WatchAwsRegion"
    ]
);

async fn aws_regions(world: &mut World) {
    let create = "AwsRegionService.CreateAwsRegion";
    let with = |more: Json| json!({"region": region(more)});
    world
        .cases([
            ("AwsRegionService.ListAwsRegions", json!({}), holds(json!({"regions": null}))),
            (create, with(json!({"ipv4_address": "v6"})), refused(Reason::InvalidField)),
            (create, with(json!({"name": null})), refused(Reason::InvalidField)),
            (create, with(json!({"region": null})), refused(Reason::InvalidField)),
            (create, with(json!({"allowlist": [{"key": "k"}]})), refused(Reason::InvalidField)),
            (create, with(json!({"retry_timeout": 0})), refused(Reason::InvalidField)),
            ("AwsRegionService.GetAwsRegion", json!({"id": NOBODY}), refused(Reason::ObjectNotFound)),
            ("AwsRegionService.DeleteAwsRegion", json!({"id": NOBODY}), refused(Reason::ObjectNotFound)),
        ])
        .await;
    let first = region(json!({
        "enabled": false, "access_key_id": "AKID", "secret_access_key": "s3cret", "description": "d",
        "allowlist": [{"key": "tag:Stage", "value": "live"}], "denylist": [{"key": "tag:Old", "value": "yes"}],
    }));
    let id = world.ok(create, json!({"region": first})).await["region"]["id"].as_str().unwrap().to_owned();
    let mut shown = first.clone();
    shown["id"] = json!(id);
    shown["server_slots_base"] = json!(10);
    shown["server_slots_growth_type"] = json!("exponential");
    shown["server_slots_growth_increment"] = Json::Null;
    if !world.is_rest() {
        shown["secret_access_key"] = Json::Null;
        shown["status"] = json!({"state": "disabled"});
    }
    let read = ("AwsRegionService.GetAwsRegion", json!({"id": id}), holds(json!({"region": shown})));
    let list = ("AwsRegionService.ListAwsRegions", json!({}), holds(json!({"regions": [{"id": id}]})));
    // An agent of Consul has another list.
    let consuls = ("ConsulService.ListConsuls", json!({}), holds(json!({"consuls": null})));
    world.cases([read.clone(), list.clone(), consuls]).await;
    world.restart();
    world.cases([read, list]).await;
    let mut watched = world.stream("AwsRegionService.WatchAwsRegion", json!({"id": id})).await;
    assert_eq!(watched.next().await.unwrap()["status"]["state"], "disabled");
    let changed = region(json!({"id": id, "enabled": false, "ipv4_address": "public"}));
    world.ok("AwsRegionService.ReplaceAwsRegion", json!({"id": id, "region": changed})).await;
    world
        .cases([
            (
                "AwsRegionService.GetAwsRegion",
                json!({"id": id}),
                holds(json!({"region": {"ipv4_address": "public", "allowlist": null, "description": null}})),
            ),
            ("AwsRegionService.DeleteAwsRegion", json!({"id": id}), holds(json!({}))),
            ("AwsRegionService.ListAwsRegions", json!({}), holds(json!({"regions": null}))),
        ])
        .await;
    while watched.next().await.is_some() {}
}

const WEB: &[(&str, &str)] = &[("HAProxy:Service:Name", "web"), ("HAProxy:Service:Port", "80"), ("Stage", "live")];

const OLD: &[(&str, &str)] =
    &[("HAProxy:Service:Name", "web"), ("HAProxy:Service:Port", "80"), ("Stage", "live"), ("Old", "yes")];

fn machine(address: &'static str, tags: &'static [(&'static str, &'static str)]) -> Machine {
    Machine { address, state: "running", tags }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_aws_come_change_and_go() {
    let ec2 = Ec2::start().await;
    ec2.set(&[
        machine("10.0.0.1", WEB),
        machine("10.0.0.2", &[("HAProxy:Service:Name", "web"), ("HAProxy:Service:Port", "80"), ("Stage", "test")]),
        machine(
            "10.0.0.3",
            &[
                ("HAProxy:Service:Name", "web"),
                ("HAProxy:Service:Port", "80"),
                ("HAProxy:Instance:Port", "8080"),
                ("Stage", "live"),
            ],
        ),
        Machine { address: "10.0.0.4", state: "stopped", tags: WEB },
        machine("10.0.0.5", &[("Stage", "live")]),
        machine("10.0.0.6", OLD),
        machine("10.0.0.7", &[("HAProxy:Service:Name", "db"), ("HAProxy:Service:Port", "5432"), ("Stage", "live")]),
    ]);
    let endpoint = format!("env:AWS_ENDPOINT_URL=http://{}", ec2.address);
    let world = World::start(Transport::Grpc, &[&endpoint]);
    let wanted = region(json!({
        "access_key_id": "AKID", "secret_access_key": "s3cret key",
        "allowlist": [{"key": "tag:Stage", "value": "live"}], "denylist": [{"key": "tag:Old", "value": "yes"}],
    }));
    let created = world.ok("AwsRegionService.CreateAwsRegion", json!({"region": wanted})).await;
    let id = created["region"]["id"].as_str().unwrap().to_owned();
    let status =
        async || world.ok("AwsRegionService.GetAwsRegion", json!({"id": id})).await["region"]["status"].clone();
    let runs = async |service: &str, addresses: &[&str]| {
        until(&format!("{service} is {addresses:?}"), async || {
            let backend = format!("aws-us-east-1-main-{service}");
            let state = world.backstay.ask(&format!("show servers state {backend}")).unwrap_or_default();
            let words = state.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() > 18);
            let ready = words.filter(|words| words[3].starts_with("SRV_") && words[6].parse::<u32>().unwrap() & 1 == 0);
            let mut ready: Vec<String> = ready.map(|words| format!("{}:{}", words[4], words[18])).collect();
            ready.sort();
            ready == addresses
        })
        .await;
    };
    runs("web-80", &["10.0.0.1:80", "10.0.0.3:8080"]).await;
    runs("db-5432", &["10.0.0.7:5432"]).await;
    let asked = ec2.questions();
    let begin = "AWS4-HMAC-SHA256 Credential=AKID/";
    let names = "/us-east-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=";
    assert!(asked.iter().all(|q| q.authorization.starts_with(begin) && q.authorization.contains(names)), "{asked:?}");
    assert!(asked.iter().any(|question| question.form.contains_key("NextToken")), "there is more than one page");

    world.settled().await;
    let worker = world.worker();
    ec2.set(&[machine("10.0.0.8", WEB)]);
    runs("web-80", &["10.0.0.8:80"]).await;
    runs("db-5432", &[]).await;
    assert_eq!(world.worker(), worker, "haproxy was reloaded");

    ec2.break_down(true);
    ec2.set(&[]);
    until("the status tells of it", async || status().await["state"] == "failing").await;
    let words = status().await["last_error"].as_str().unwrap().to_owned();
    assert!(words.contains("answers 401: AuthFailure: not for ***"), "{words}");
    assert!(!world.backstay.log().contains("s3cret"));
    runs("web-80", &["10.0.0.8:80"]).await;
    ec2.break_down(false);
    ec2.set(&[machine("10.0.0.9", WEB)]);
    runs("web-80", &["10.0.0.9:80"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_aws_come_from_the_environment_or_from_the_instance() {
    for (variables, id, token) in [
        (&["AWS_ACCESS_KEY_ID=ENVID", "AWS_SECRET_ACCESS_KEY=x", "AWS_SESSION_TOKEN=session"][..], "ENVID", "session"),
        (&[][..], "ROLEID", "t0ken"),
    ] {
        let ec2 = Ec2::start().await;
        ec2.set(&[machine("10.0.0.1", WEB)]);
        let mut flags: Vec<String> = variables.iter().map(|variable| format!("env:{variable}")).collect();
        for name in ["AWS_ENDPOINT_URL_EC2", "AWS_EC2_METADATA_SERVICE_ENDPOINT"] {
            flags.push(format!("env:{name}=http://{}", ec2.address));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let world = World::start(Transport::Grpc, &flags);
        world.ok("AwsRegionService.CreateAwsRegion", json!({"region": region(json!({}))})).await;
        until("it is found", async || world.backstay.text().contains("server SRV_")).await;
        let asked = ec2.questions();
        let signed = |q: &crate::support::ec2::Question| q.authorization.contains(&format!("Credential={id}/"));
        assert!(asked.iter().all(|question| signed(question) && question.token == token), "{asked:?}");
        assert!(!world.backstay.log().contains("r0le"));
    }
}
