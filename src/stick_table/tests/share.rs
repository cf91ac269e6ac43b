//! Watchers who ask for the same share what they are told, and each of them still knows the whole truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::hub::{Fake, every};
use crate::runtime::DatumValue;
use crate::stick_table::share::Told;
use crate::stick_table::view::Scope;
use crate::stick_table::watch::{Event, Watch, WatchOptions};

struct Client {
    watch: Watch,
    known: BTreeMap<String, u64>,
    number: u64,
    told: Vec<Arc<Told>>,
}

impl Client {
    fn new(fake: &crate::stick_table::Hub, scope: &Scope) -> Self {
        let watch = fake.watch("t", WatchOptions { scope: scope.clone(), ..every(50) });
        Client { watch, known: BTreeMap::new(), number: 0, told: Vec::new() }
    }

    /// Takes what there is, up to so many messages.
    async fn read(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(told) = timeout(Duration::from_millis(60), self.watch.told()).await else { return };
            let told = told.unwrap().unwrap();
            match told.update.event.clone() {
                Event::Snapshot { entries, .. } | Event::Changed(entries) => {
                    for entry in entries {
                        let DatumValue::Number(value) = entry.data[0].value else { panic!("a number") };
                        self.known.insert(entry.key, value);
                    }
                }
                Event::Removed { keys, .. } => self.known.retain(|key, _| !keys.contains(key)),
                Event::Progress => {}
                Event::Resync => panic!("nothing is lost"),
            }
            assert!(told.update.revision.number >= self.number, "revisions grow");
            self.number = told.update.revision.number;
            self.told.push(told);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_and_however_slow_it_is_it_knows_what_it_asked_for() {
    let fake = Fake::default();
    let hub = fake.hub();
    let all = Scope::default();
    let some = Scope { filters: vec!["gpc0 ge 5".parse().unwrap()], key_prefix: String::new() };
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut clients: Vec<(Scope, Client)> = Vec::new();
    for round in 0..300 {
        if round % 20 == 0 {
            let scope = if round % 40 == 0 { &all } else { &some };
            clients.push((scope.clone(), Client::new(&hub, scope)));
        }
        if round % 70 == 69 {
            let gone = random(clients.len() as u64) as usize;
            clients.swap_remove(gone);
        }
        for _ in 0..random(4) {
            let (key, value) = (format!("k{}", random(8)), random(10));
            fake.with(|state| {
                if value == 0 {
                    state.table.remove(&key)
                } else {
                    state.table.insert(key, value)
                };
            });
        }
        sleep(Duration::from_millis(60)).await;
        for (at, (_, client)) in clients.iter_mut().enumerate() {
            // Some read all the time, others once in a while.
            if random(1 + (at as u64 % 4) * 10) == 0 {
                client.read(3).await;
            }
        }
    }
    let table: BTreeMap<String, u64> = {
        let mut table = BTreeMap::new();
        fake.with(|state| table.clone_from(&state.table));
        table
    };
    for (scope, client) in &mut clients {
        client.read(usize::MAX).await;
        let wanted = |value: u64| scope.filters.iter().all(|filter| filter.operator.holds(value, filter.value));
        let expected = table.iter().filter(|(_, value)| wanted(**value)).map(|(key, value)| (key.clone(), *value));
        assert_eq!(client.known, expected.collect());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_many_is_written_once() {
    let fake = Fake::default();
    let hub = fake.hub();
    let set = |value| fake.with(|state| state.table.extend([("a".to_owned(), value)]));
    set(1);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::new(&hub, &Scope::default())).collect();
    for value in 2..6 {
        for client in &mut clients {
            client.read(1).await;
        }
        set(value);
        sleep(Duration::from_millis(120)).await;
    }
    let written = std::cell::Cell::new(0);
    for client in &clients {
        // The first message is the snapshot, and only after the first change it is known that they stand together.
        for told in &client.told[2..] {
            told.written(|_| {
                written.set(written.get() + 1);
                bytes::Bytes::new()
            });
        }
    }
    let seen: usize = clients.iter().map(|client| client.told.len() - 2).sum();
    assert_eq!((seen, written.get()), (20, 2));
}
