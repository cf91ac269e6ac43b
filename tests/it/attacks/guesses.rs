//! Guesses of passwords.

use std::net::SocketAddr;
use std::time::Duration;

use super::{exchange, head, status};
use crate::drop_in::Bench;
use crate::support::client::{Transport, basic, request};
use crate::support::world::World;

const INFO: &str = "GET /v2/info";

async fn guess(api: SocketAddr, authorization: String) -> u16 {
    status(&exchange(api, format!("{}\r\n", head(api, INFO, &authorization))).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_are_slow_and_tell_nothing_and_do_not_hinder_who_knows() {
    let world = World::start(Transport::Rest, &[]);
    let api = world.backstay.api;
    let right = world.client.authorization().to_owned();
    let try_once =
        async |authorization: String| exchange(api, format!("{}\r\n", head(api, INFO, &authorization))).await;
    assert_eq!(status(&try_once(right.clone()).await), 200);

    let refusal = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let nothing = try_once(String::new()).await;
    assert!(!nothing.to_lowercase().contains("configuration-version"), "{nothing}");
    for user in ["admin", "nobody"] {
        let answer = try_once(basic(user, "wrong")).await;
        assert_eq!((status(&answer), refusal(&answer)), (401, refusal(&nothing)), "{user}");
    }

    // As many as a client can send at the same time.
    let mut answered = Vec::new();
    for user in ["admin", "nobody"] {
        let guesses: Vec<_> =
            (0..40).map(|number| tokio::spawn(guess(api, basic(user, &format!("guess{number}"))))).collect();
        // What waits for its turn needs no answer.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let (done, waiting): (Vec<_>, Vec<_>) = guesses.into_iter().partition(tokio::task::JoinHandle::is_finished);
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        let mut refused = 0;
        for each in done {
            let status = each.await.unwrap();
            assert!(matches!(status, 401 | 503), "{status}");
            refused += u32::from(status == 401);
        }
        answered.push(refused);
    }
    assert!(answered.iter().all(|number| *number <= 6), "{answered:?} passwords were tried");
    // Not with one of these, nor from this address, is the right one made to wait.
    let right = tokio::time::timeout(Duration::from_secs(10), try_once(right));
    assert_eq!(status(&right.await.expect("an answer")), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expensive_hash_keeps_nobody_else_from_logging_in() {
    let world = World::start(Transport::Rest, &[]);
    let version = world.version().await;
    let list = "/v2/services/haproxy/configuration/users?userlist=controller";
    for (name, hash) in [
        ("slow", "$6$rounds=900000$saltsalt$x"),
        ("late", "$6$rounds=900000$saltsalt$y"),
        ("debian", "$y$j75$abcdefgh$ucNXpbrNU2P3.RvS.JhIZXR6f2/HEKzl78QXiIdPQ76"),
    ] {
        let body = format!("{{\"username\":\"{name}\",\"password\":\"{hash}\",\"secure_password\":true}}");
        let path = format!("{list}&version={}", world.version().await);
        let answer = world.client.send(request("POST", &path, "application/json", body)).await;
        assert!(answer.status < 300, "{}", answer.text());
    }
    assert!(world.version().await > version);
    let api = world.backstay.api;
    let slow: Vec<_> = (0..12)
        .map(|number| {
            let user = if number % 2 == 0 { "slow" } else { "late" };
            tokio::spawn(exchange(api, format!("{}\r\n", head(api, INFO, &basic(user, "pw")))))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let debian = exchange(api, format!("{}\r\n", head(api, INFO, &basic("debian", "pw"))));
    let answer = tokio::time::timeout(Duration::from_secs(40), debian).await.expect("an answer");
    assert_eq!(status(&answer), 200, "{answer}");
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_place_of_the_data_plane_api_refusals_are_worded_as_there() {
    let mut bench = Bench::new();
    bench.start(&[]);
    let api = bench.api;
    for (authorization, said) in [
        (String::new(), "unauthenticated for invalid credentials"),
        (basic("nobody", "hunter2"), "no configured users"),
        (basic("admin", "hunter2"), "invalid password"),
    ] {
        let answer = exchange(api, format!("{}\r\n", head(api, INFO, &authorization))).await;
        assert_eq!(status(&answer), 401);
        assert!(answer.contains(&format!("\"{said}\"")) && !answer.contains("hunter2"), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nconfiguration-version: "), "{answer}");
    }
}
