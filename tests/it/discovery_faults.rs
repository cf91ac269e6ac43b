//! Services that HAProxy refuses, or of which the registry says nothing: the others of the agent go on.

use serde_json::json;

use crate::discovery::{Bench, UP};
use crate::support::world::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_service_is_left_out_and_the_others_go_on() {
    let bench = Bench::new(json!({})).await;
    for (name, port) in [("web", 8001), ("bad", 8002), ("sick", 8003), ("long", 8004)] {
        bench.consul.set(name, &[(port, UP)]);
    }
    bench.runs("sick", &[8003], 10).await;
    bench.consul.hide("sick", true);
    // No name of a host has an empty part, or so many letters.
    bench.consul.place("bad", "a..b");
    bench.consul.place("long", &"long".repeat(80));
    bench.consul.set("web", &[(8005, UP)]);
    bench.runs("web", &[8005], 10).await;
    let told = async || {
        let problems = bench.status().await["problems"].to_string();
        ["bad is left out: haproxy refuses", "long is left out: haproxy refuses", "sick is left out: "]
            .iter()
            .all(|words| problems.contains(&format!("service {words}")))
    };
    until("the status names all three", told).await;
    let status = bench.status().await;
    assert_eq!(status["state"], "running", "{status}");
    let stay = ["sick", "bad", "long"].map(|name| bench.running(name).0);
    assert_eq!(stay, [vec![8003], vec![8002], vec![8004]], "they stay as they were");
    assert!(bench.world.backstay.log().contains("a service is left out"));

    // As soon as one is in order it is taken, whatever becomes of the others.
    bench.consul.hide("sick", false);
    bench.consul.set("sick", &[(8006, UP)]);
    bench.consul.place("bad", "127.0.0.1");
    bench.consul.set("bad", &[(8007, UP)]);
    bench.runs("sick", &[8006], 10).await;
    bench.runs("bad", &[8007], 10).await;
}
