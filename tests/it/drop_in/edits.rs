//! Edits of the managed file by people and by other programs.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use super::Bench;
use crate::support::client::{Client, Transport};
use crate::support::world::until;

async fn version(client: &Client) -> i64 {
    let answer = client.call("RawConfigurationService.GetVersion", &json!({})).await.unwrap();
    answer.message["version"].as_i64().unwrap()
}

async fn knows(client: &Client, backend: &str) -> bool {
    client.call("BackendService.GetBackend", &json!({"name": backend})).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_are_taken_over_once_however_the_editor_writes() {
    let mut bench = Bench::running();
    bench.start(&[]);
    let client = bench.client(Transport::Rest);
    client
        .call("BackendService.CreateBackend", &json!({"backend": {"name": "ours", "mode": "http"}, "version": 1}))
        .await
        .unwrap();
    let reloaded = bench.path("reloaded");
    until("the reload of our own change", async || reloaded.is_file()).await;
    std::fs::remove_file(&reloaded).unwrap();
    let config = bench.path("haproxy.cfg");

    // Another file takes the place of the first: the folder is watched, not the file.
    for name in ["one", "two"] {
        let before = version(&client).await;
        let fresh = bench.path("haproxy.cfg.new");
        let edited = format!("{}\nbackend {name}\n    mode http\n", bench.text());
        std::fs::write(&fresh, &edited).unwrap();
        std::fs::rename(&fresh, &config).unwrap();
        until(name, async || knows(&client, name).await).await;
        assert_eq!(version(&client).await, before + 1, "{name}");
        assert_eq!(bench.text(), edited, "who wrote it may go on writing");
    }

    // An editor that empties the file before it writes: what is half there is no configuration.
    let before = version(&client).await;
    let text = format!("{}\nbackend three\n    mode http\n", bench.text());
    let mut file = std::fs::File::create(&config).unwrap();
    let (head, tail) = text.split_at(text.find("frontend fe").unwrap() + 5);
    for part in [head, tail] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(knows(&client, "two").await, "the last good one is served");
        assert_eq!(version(&client).await, before);
        file.write_all(part.as_bytes()).unwrap();
        file.flush().unwrap();
    }
    drop(file);
    until("three", async || knows(&client, "three").await).await;

    // It stays as it is: writing the version back is no further edit, and nobody reloads for an edit by hand.
    let after = version(&client).await;
    assert_eq!(after, before + 1);
    let text = bench.text();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((version(&client).await, bench.text()), (after, text));
    assert!(!reloaded.try_exists().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_nobody_was_told_of_is_not_overwritten() {
    let mut bench = Bench::running();
    bench.start(&["--disable-inotify"]);
    let client = bench.client(Transport::Rest);
    let edited = format!("{}\nbackend theirs\n    mode http\n", bench.text());
    std::fs::write(bench.path("haproxy.cfg"), &edited).unwrap();
    let ours = json!({"backend": {"name": "ours", "mode": "http"}, "version": 1});
    let refusal = client.call("BackendService.CreateBackend", &ours).await.unwrap_err();
    assert_eq!(refusal.status, 409, "{refusal:?}");
    assert!(knows(&client, "theirs").await && !knows(&client, "ours").await);
    let again = json!({"backend": {"name": "ours", "mode": "http"}, "version": version(&client).await});
    client.call("BackendService.CreateBackend", &again).await.unwrap();
    assert!(bench.text().contains("backend theirs") && bench.text().contains("backend ours"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_can_be_kept_out_of_the_file() {
    let mut bench = Bench::running();
    bench.start(&["--version-outside"]);
    let client = bench.client(Transport::Rest);
    for round in 1..=2 {
        let made = json!({"backend": {"name": format!("b{round}"), "mode": "http"}, "version": round});
        client.call("BackendService.CreateBackend", &made).await.unwrap();
    }
    assert_eq!(version(&client).await, 3);
    assert!(!bench.text().contains("_version") && !bench.text().contains("_md5hash"), "{}", bench.text());
    bench.end(rustix::process::Signal::KILL);
    bench.start(&["--version-outside"]);
    assert_eq!(version(&client).await, 3, "it is not lost with the process");
}
