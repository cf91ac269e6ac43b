use std::sync::Arc;

use super::super::slots::Growth;
use super::*;
use crate::schema::Schema;

const BASE: &str = "global\n  daemon\n\ndefaults web\n  mode http\n\ndefaults\n  mode tcp\n\nfrontend f\n  bind :80\n  default_backend consul-a-web\n";

/// A document that is planned upon again and again.
struct Bench {
    planner: Planner,
    document: Document,
    slots: Slots,
    names: u32,
}

impl Bench {
    fn new(text: &str) -> Bench {
        let schema = Arc::new(Schema::compile(crate::proto::SCHEMA).unwrap());
        Bench {
            planner: Planner::new(Engine::new(schema)),
            document: Document::parse(text.as_bytes()),
            slots: Slots { base: 2, growth: Growth::Linear(2) },
            names: 0,
        }
    }

    /// Plans services, each with its ports, and takes the result over. True when something changed.
    fn plan(&mut self, services: &[(&str, &[i64])]) -> (bool, Planned) {
        self.plan_from(services, None).unwrap()
    }

    fn plan_from(&mut self, services: &[(&str, &[i64])], from: Option<&str>) -> Result<(bool, Planned)> {
        let endpoint = |port: &i64| Endpoint { address: "10.0.0.1".into(), port: *port };
        let service = |(name, ports): &(&str, &[i64])| Service {
            name: (*name).to_owned(),
            endpoints: ports.iter().map(endpoint).collect(),
            left_out: None,
        };
        let services: Vec<Service> = services.iter().map(service).collect();
        let wish = Wish {
            services: &services,
            prefix: "consul-a-",
            from,
            slots: self.slots,
            owner: &|name| (name == "consul-a-other").then(|| "somebody else".to_owned()),
            left_over: &|name| name.starts_with("consul-a-"),
        };
        let mut names = || {
            self.names += 1;
            format!("SRV_{:05}", self.names)
        };
        let planned = self.planner.plan(&self.document, &wish, &mut names)?;
        if let Some(document) = &planned.document {
            self.document = document.clone();
        }
        Ok((planned.document.is_some(), planned))
    }

    fn text(&self) -> String {
        String::from_utf8(self.document.to_bytes()).unwrap()
    }

    /// The lines of a section.
    fn section(&self, header: &str) -> Vec<String> {
        let text = self.text();
        let rest = text.split(&format!("\n{header}\n")).nth(1).unwrap_or_else(|| panic!("no {header}: {text}"));
        rest.split("\n\n").next().unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }
}

const USED: &str = "check weight 128";
const FREE: &str = "127.0.0.1:80 check disabled weight 128";

#[test]
fn a_new_service_becomes_a_backend_of_slots() {
    let mut bench = Bench::new(BASE);
    let (changed, planned) = bench.plan(&[("web", &[8001])]);
    assert!(changed && planned.problems.is_empty());
    let lines = [format!("server SRV_00001 10.0.0.1:8001 {USED}"), format!("server SRV_00002 {FREE}")];
    assert_eq!(bench.section("backend consul-a-web"), lines);
    assert!(bench.text().starts_with(BASE), "nothing else changes: {}", bench.text());
    let found = Discovered { name: "web".into(), backend: "consul-a-web".into(), instances: 1, slots: 2 };
    assert_eq!(planned.services, [found]);
    assert!(!bench.plan(&[("web", &[8001])]).0, "nothing changes when nothing changed");
}

#[test]
fn instances_keep_their_slots_while_others_come_and_go() {
    let mut bench = Bench::new(BASE);
    bench.plan(&[("web", &[1, 2])]);
    bench.plan(&[("web", &[2, 3])]);
    let used = |name: u32, port: u16| format!("server SRV_{name:05} 10.0.0.1:{port} {USED}");
    let free = |name: u32| format!("server SRV_{name:05} {FREE}");
    assert_eq!(bench.section("backend consul-a-web"), [used(1, 3), used(2, 2)]);
    bench.plan(&[("web", &[1, 2, 3])]);
    assert_eq!(bench.section("backend consul-a-web"), [used(1, 3), used(2, 2), used(3, 1), free(4)]);
    bench.plan(&[("web", &[1])]);
    assert_eq!(bench.section("backend consul-a-web"), [free(1), used(3, 1)], "shrinks, and no lower than the base");
    // The order of an answer means nothing.
    bench.plan(&[("web", &[1, 5])]);
    assert!(!bench.plan(&[("web", &[5, 1, 1])]).0);
}

#[test]
fn a_service_that_is_gone_leaves_its_backend_with_free_slots() {
    let mut bench = Bench::new(BASE);
    bench.plan(&[("web", &[1, 2, 3]), ("db", &[9])]);
    let (changed, planned) = bench.plan(&[("db", &[9])]);
    assert!(changed && planned.services.len() == 1);
    let lines = bench.section("backend consul-a-web");
    assert!(lines.len() == 2 && lines.iter().all(|line| line.ends_with(FREE)), "{lines:?}");
    assert!(!bench.plan(&[("db", &[9])]).0);
    bench.plan(&[("web", &[7]), ("db", &[9])]);
    assert!(bench.section("backend consul-a-web")[0].contains("10.0.0.1:7 "));
}

#[test]
fn what_is_written_by_hand_stays() {
    let own = "backend consul-a-web\n  # mine\n  balance leastconn\n  server backup 10.9.9.9:1 backup\n  \
        server SRV_abcde 10.0.0.1:1 check weight 7 inter 3s # slow\n  server SRV_fghij 127.0.0.1:80 disabled weight 128\n  \
        server SRV_toolong 10.0.0.1:2\n";
    let mut bench = Bench::new(&format!("{BASE}\n{own}"));
    bench.plan(&[("web", &[1, 2])]);
    let filled = own.replace("127.0.0.1:80 disabled weight 128", &format!("10.0.0.1:2 {USED}"));
    assert_eq!(bench.text(), format!("{BASE}\n{filled}"));
    bench.plan(&[("web", &[2])]);
    let free = filled.replace("10.0.0.1:1 check weight 7 inter 3s", "127.0.0.1:80 check disabled inter 3000 weight 7");
    assert_eq!(bench.text(), format!("{BASE}\n{free}"));
    // Maintenance that a slot was put into by hand is respected.
    let drained = free.replace(&format!("10.0.0.1:2 {USED}"), "10.0.0.1:2 check disabled weight 128");
    let mut bench = Bench::new(&format!("{BASE}\n{drained}"));
    assert!(!bench.plan(&[("web", &[2])]).0);
}

#[test]
fn backends_of_others_are_not_touched() {
    for (own, words) in [
        ("backend consul-a-web\n  server s1 10.0.0.9:9\n", "not made by discovery"),
        ("backend consul-a-web\n", "not made by discovery"),
        ("listen consul-a-web\n  bind :81\n", "listen consul-a-web"),
    ] {
        let mut bench = Bench::new(&format!("{BASE}\n{own}"));
        for services in [&[("web", &[1][..])][..], &[]] {
            let (changed, planned) = bench.plan(services);
            assert!(!changed, "{own}");
            assert_eq!(planned.problems.len(), services.len());
            assert!(planned.problems.iter().all(|problem| problem.contains(words)), "{:?}", planned.problems);
        }
    }
    let (changed, planned) = Bench::new(BASE).plan(&[("other", &[1])]);
    assert!(!changed && planned.problems[0].contains("somebody else"));
}

#[test]
fn what_haproxy_does_not_take_is_left_out_and_told() {
    let mut bench = Bench::new(BASE);
    let services = [
        Service { name: "a b\nbackend x".into(), ..Service::default() },
        Service {
            name: "web".into(),
            endpoints: [("10.0.0.1", 0), ("10.0.0.1", 70_000), ("", 1), ("10.0.0.1 ssl", 1), ("::1", 5)]
                .map(|(address, port)| Endpoint { address: address.into(), port })
                .to_vec(),
            left_out: None,
        },
    ];
    let wish = Wish {
        services: &services,
        prefix: "consul-a-",
        from: None,
        slots: bench.slots,
        owner: &|_| None,
        left_over: &|_| false,
    };
    let mut number = 0;
    let mut names = || {
        number += 1;
        format!("SRV_{number:05}")
    };
    let planned = bench.planner.plan(&bench.document, &wish, &mut names).unwrap();
    bench.document = planned.document.unwrap();
    assert_eq!(planned.problems.len(), 5, "{:?}", planned.problems);
    assert!(!bench.text().contains("backend x") && !bench.text().contains("ssl"));
    assert!(bench.section("backend consul-a-web")[0].contains("[::1]:5 "), "{}", bench.text());
}

#[test]
fn new_backends_start_from_the_named_defaults() {
    let mut bench = Bench::new(BASE);
    let error = bench.plan_from(&[("web", &[1])], Some("none")).unwrap_err();
    assert!(error.to_string().contains("no section defaults none"), "{error}");
    bench.plan_from(&[("web", &[1])], Some("web")).unwrap();
    bench.section("backend consul-a-web from web");
    assert!(!bench.plan_from(&[("web", &[1])], Some("web")).unwrap().0);
    assert!(!bench.plan(&[("web", &[1])]).0, "what is not said stays");
}

#[test]
fn many_instances_are_planned_quickly() {
    let mut bench = Bench::new(BASE);
    bench.slots = Slots { base: 10, growth: Growth::Exponential };
    let ports: Vec<i64> = (1..=2_000).collect();
    let began = std::time::Instant::now();
    bench.plan(&[("web", &ports)]);
    bench.plan(&[("web", &ports[..1_500])]);
    assert_eq!(bench.section("backend consul-a-web").len(), 2_560);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}
