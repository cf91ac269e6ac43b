//! Streams of people who are users no more.

use std::path::Path;

use serde_json::json;
use tonic::Code;

use super::{exchange, head};
use crate::support::backstay::Backstay;
use crate::support::client::{Client, Messages, Transport, basic};
use crate::support::world::{World, until};

const WATCH: &str = "StickTableService.WatchStickTable";

async fn watch(client: &Client, accept: &str) -> Messages {
    let stream = client.stream_as(WATCH, &json!({"stick_table": "clients"}), accept).await;
    let mut stream = stream.unwrap_or_else(|refusal| panic!("{accept}: {refusal:?}"));
    assert!(stream.next().await.is_some(), "{accept}");
    stream
}

/// Reads on until the stream says that its user is gone.
async fn ends(stream: Messages) {
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), async {
        match stream {
            Messages::Grpc(mut stream, _) => loop {
                match stream.message().await {
                    Ok(message) => assert!(message.is_some(), "it ended as if all was well"),
                    Err(status) => return assert_eq!(status.code(), Code::Unauthenticated, "{status:?}"),
                }
            },
            mut rest @ Messages::Rest(..) => loop {
                let message = rest.next().await.expect("a last message");
                if message["code"] == 401 || message["error"]["code"] == 401 {
                    return assert!(rest.next().await.is_none());
                }
            },
        }
    });
    ended.await.expect("the stream goes on");
}

/// A stream of each form, as a user.
async fn all_forms(backstay: &Backstay, authorization: &str) -> Vec<Messages> {
    let client = |transport| Client::new(transport, backstay.api, "").authorized(authorization);
    let (grpc, rest) = (client(Transport::Grpc), client(Transport::Rest));
    vec![watch(&grpc, "").await, watch(&rest, "text/event-stream").await, watch(&rest, "application/x-ndjson").await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_removed_or_changed_hears_nothing_more() {
    let world = World::start(Transport::Grpc, &[]);
    let eve = |password: &str| json!({"username": "eve", "password": password, "secure_password": false});
    let list = "controller";
    world.ok("UserService.CreateUser", json!({"userlist": list, "user": eve("one")})).await;
    let admins = all_forms(&world.backstay, world.client.authorization()).await;
    let first = all_forms(&world.backstay, &basic("eve", "one")).await;
    // In a browser: a message of `stick_table: "clients"`, in a frame.
    let web = format!(
        "{}content-type: application/grpc-web\r\ncontent-length: 14\r\n\r\n\0\0\0\0\x09\x0a\x07clients",
        head(world.backstay.api, "POST /backstay.runtime.v2.StickTableService/WatchStickTable", &basic("eve", "one"))
    );
    let web = tokio::spawn(exchange(world.backstay.api, web.into_bytes()));
    // Other changes of the configuration end nothing.
    world.ok("BackendService.CreateBackend", json!({"backend": {"name": "other", "mode": "http"}})).await;
    world.ok("UserService.ReplaceUser", json!({"userlist": list, "username": "eve", "user": eve("two")})).await;
    for stream in first {
        ends(stream).await;
    }
    let answer = web.await.unwrap();
    assert!(answer.contains("grpc-status:16"), "{answer}");
    let second = all_forms(&world.backstay, &basic("eve", "two")).await;
    world.ok("UserService.DeleteUser", json!({"userlist": list, "username": "eve"})).await;
    for stream in second {
        ends(stream).await;
    }
    for mut stream in admins {
        let more = tokio::time::timeout(std::time::Duration::from_millis(100), stream.next()).await;
        assert!(more.is_err() || more.unwrap().is_some_and(|message| message["code"].is_null()), "it ended");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_with_users_are_followed() {
    let yaml = |password: &str| {
        format!("dataplaneapi:\n  user:\n    - name: admin\n      insecure: true\n      password: {password}\n")
    };
    let list = |password: &str| format!("userlist controller\n  user admin insecure-password {password}\n");
    for flag in ["-f", "--userlist-file"] {
        let text = |password: &str| if flag == "-f" { yaml(password) } else { list(password) };
        let write = |folder: &Path, password: &str| std::fs::write(folder.join("users"), text(password)).unwrap();
        let backstay = Backstay::start_with(&[flag, "{dir}/users"], |folder| write(folder, "one"));
        let streams = all_forms(&backstay, &basic("admin", "one")).await;
        write(backstay.dir(), "two");
        for stream in streams {
            ends(stream).await;
        }
        let client = |password| Client::new(Transport::Rest, backstay.api, password);
        assert_eq!(client("one").call("InfoService.GetInfo", &json!({})).await.unwrap_err().status, 401, "{flag}");
        until("the new password is right", async || {
            client("two").call("InfoService.GetInfo", &json!({})).await.is_ok()
        })
        .await;
    }
}
