use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use super::*;

/// Answers with prepared outcomes, then always with success.
#[derive(Default)]
struct Fake {
    outcomes: Mutex<VecDeque<Outcome>>,
    runs: AtomicUsize,
    takes: Duration,
}

impl Reloader for Fake {
    fn reload(&self) -> Pending<'_, Outcome> {
        Box::pin(async {
            self.runs.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(self.takes).await;
            self.outcomes.lock().unwrap().pop_front().unwrap_or(Outcome::Done("ok".into()))
        })
    }
}

#[derive(Default)]
struct Store {
    version: AtomicI64,
    accepted: Mutex<Vec<i64>>,
    refused: Mutex<Vec<i64>>,
    /// Versions that the check refuses.
    bad: Mutex<Vec<i64>>,
}

impl ReloadListener for Store {
    fn version(&self) -> i64 {
        self.version.load(Ordering::SeqCst)
    }
    fn accepted(&self, version: i64) -> Pending<'_, ()> {
        self.accepted.lock().unwrap().push(version);
        Box::pin(std::future::ready(()))
    }
    fn refusal(&self, version: i64) -> Pending<'_, Option<String>> {
        let said = self.bad.lock().unwrap().contains(&version).then(|| "the check refuses it".to_owned());
        Box::pin(std::future::ready(said))
    }
    fn refused<'a>(&'a self, version: i64, _refusal: Refusal, _loads: &'a dyn Load) -> Pending<'a, Blame> {
        self.refused.lock().unwrap().push(version);
        let taken_back = vec![version - 1, version];
        Box::pin(std::future::ready(Blame { taken_back, loaded: true, ..Blame::default() }))
    }
}

struct Bench {
    queue: Arc<ReloadQueue>,
    fake: Arc<Fake>,
    store: Arc<Store>,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn bench(outcomes: impl IntoIterator<Item = Outcome>, takes_ms: u64) -> Bench {
    let fake = Arc::new(Fake {
        outcomes: Mutex::new(outcomes.into_iter().collect()),
        takes: Duration::from_millis(takes_ms),
        ..Fake::default()
    });
    let options = ReloadOptions { delay: Duration::from_secs(1), ..ReloadOptions::default() };
    let queue = ReloadQueue::new(options, fake.clone());
    let store = Arc::new(Store::default());
    queue.listen(store.clone());
    let stop = CancellationToken::new();
    tokio::spawn(queue.clone().run(stop.clone()));
    Bench { queue, fake, store, stop }
}

fn write(bench: &Bench, version: i64) -> String {
    bench.store.version.store(version, Ordering::SeqCst);
    bench.queue.request(version)
}

fn runs(bench: &Bench) -> usize {
    bench.fake.runs.load(Ordering::SeqCst)
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_writes_is_one_reload_that_accepts_the_last_version() {
    let bench = bench([], 0);
    let mut events = bench.queue.subscribe();
    let ids: Vec<_> = (1..=100).map(|v| write(&bench, v)).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.ends_with("-0")), "{ids:?}");
    pass(990).await;
    assert_eq!(runs(&bench), 0, "not before the delay");
    assert_eq!(bench.queue.get(&ids[0]).unwrap().status, Status::InProgress);
    pass(20).await;
    assert_eq!(runs(&bench), 1);
    assert_eq!(*bench.store.accepted.lock().unwrap(), [100]);
    let record = bench.queue.get(&ids[0]).unwrap();
    assert_eq!((record.status, record.response.as_deref()), (Status::Succeeded, Some("ok")));
    assert!(record.timestamp.is_some());
    assert_eq!(events.recv().await.unwrap().status, Status::InProgress);
    assert_eq!(events.recv().await.unwrap().status, Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn writes_over_time_cost_one_reload_a_delay() {
    let bench = bench([], 10);
    for version in 1..=500 {
        write(&bench, version);
        pass(10).await;
    }
    pass(1100).await;
    assert!((5..=6).contains(&runs(&bench)), "{}", runs(&bench));
    assert_eq!(bench.store.accepted.lock().unwrap().last(), Some(&500));
}

#[tokio::test(start_paused = true)]
async fn force_runs_at_once_and_serves_the_pending_one() {
    let bench = bench([], 0);
    let id = write(&bench, 5);
    bench.queue.force(5).await.unwrap();
    assert_eq!(runs(&bench), 1);
    assert_eq!(bench.queue.get(&id).unwrap().status, Status::Succeeded);
    pass(3000).await;
    assert_eq!(runs(&bench), 1, "the pending one was served");
    bench.queue.force(5).await.unwrap();
    assert_eq!(bench.queue.list().len(), 1, "a forced reload without a pending one leaves no entry");
}

#[tokio::test(start_paused = true)]
async fn forces_during_a_reload_share_the_next_one() {
    let bench = bench([], 100);
    let first = bench.queue.force(1);
    let rest = async {
        pass(10).await;
        futures_util::future::join_all((0..10).map(|_| bench.queue.force(2))).await
    };
    let (first, rest) = tokio::join!(first, rest);
    first.unwrap();
    assert!(rest.into_iter().all(|r| r.is_ok()));
    assert_eq!(runs(&bench), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_force_is_still_done() {
    let bench = bench([], 100);
    let id = write(&bench, 1);
    let cut = tokio::time::timeout(Duration::from_millis(10), bench.queue.force(1)).await;
    assert!(cut.is_err());
    pass(200).await;
    assert_eq!(bench.queue.get(&id).unwrap().status, Status::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_versions_back_and_says_which() {
    let alert = "[ALERT]    (1) : Binding [/x/haproxy.cfg:12] for frontend f2: cannot bind socket";
    let bench = bench([Outcome::Refused(alert.into()), Outcome::Refused("exit status 3".into())], 0);
    let id = write(&bench, 8);
    pass(1100).await;
    let record = bench.queue.get(&id).unwrap();
    assert_eq!((record.status, record.taken_back.as_slice()), (Status::Failed, [7, 8].as_slice()));
    let response = record.response.unwrap();
    let (said, rest) = response.split_once("\nthe rest is loaded by reload ").unwrap();
    assert!(said.ends_with("versions taken back: 7,8"), "{said}");
    assert_eq!(bench.queue.get(rest).unwrap().status, Status::Succeeded);
    assert_eq!(*bench.store.refused.lock().unwrap(), [8]);
    let error = bench.queue.force(8).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ReloadFailed);
    assert_eq!(error.message(), "haproxy refused at the reload: exit status 3");
    assert!(error.metadata().contains(&("versions_taken_back", "7,8".into())));
    // Somebody else's change is to blame: this one runs.
    bench.fake.outcomes.lock().unwrap().push_back(Outcome::Refused("exit status 3".into()));
    bench.queue.force(6).await.unwrap();
    assert!(bench.store.accepted.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn when_nothing_runs_the_change_stays_and_is_loaded_later() {
    let down = || Outcome::Unreachable("haproxy does not run".into());
    let bench = bench([down(), down(), down()], 0);
    let error = bench.queue.force(3).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ReloadFailed);
    assert!(error.metadata().contains(&("pending", "true".into())), "{error:?}");
    let id = bench.queue.pending().unwrap();
    assert_eq!(write(&bench, 4), id);
    pass(3600).await;
    assert_eq!(runs(&bench), 4, "after 0.5, 1 and 2 s");
    assert_eq!(bench.queue.get(&id).unwrap().status, Status::Succeeded);
    assert_eq!(*bench.store.accepted.lock().unwrap(), [4]);
    assert!(bench.store.refused.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_by_itself_takes_nothing_back_and_is_tried_again_ever_more_rarely() {
    let failing = || Outcome::NotDone("executing /bin/false failed: exit status 1".into());
    let bench = bench((0..10).map(|_| failing()), 0);
    let error = bench.queue.force(3).await.unwrap_err();
    assert!(error.message().ends_with("is pending: executing /bin/false failed: exit status 1"), "{error}");
    let id = bench.queue.pending().unwrap();
    assert!(error.metadata().contains(&("reload_id", id.clone())), "{error:?}");
    assert_eq!(bench.queue.concerns(), [format!("reload {id} is pending: executing /bin/false failed: exit status 1")]);
    pass(100_000).await;
    assert_eq!(runs(&bench), 8, "after 0.5, 1, 2, 4, 8, 16 and 32 s");
    pass(120_000).await;
    assert_eq!(runs(&bench), 10, "then each minute");
    pass(60_000).await;
    assert_eq!(bench.queue.get(&id).unwrap().status, Status::Succeeded);
    assert!(bench.store.refused.lock().unwrap().is_empty() && bench.queue.concerns().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_on_a_text_that_the_check_refuses_has_its_proof() {
    let bench = bench([Outcome::NotDone("exit status 1".into())], 0);
    bench.store.bad.lock().unwrap().push(7);
    let id = write(&bench, 7);
    pass(1100).await;
    assert_eq!(*bench.store.refused.lock().unwrap(), [7]);
    let record = bench.queue.get(&id).unwrap();
    assert!(record.response.unwrap().starts_with("the check refuses it\nexit status 1"));
}

#[tokio::test(start_paused = true)]
async fn the_caller_of_a_forced_reload_does_not_wait_for_ever() {
    let bench = bench([], 60_000);
    let error = bench.queue.force(3).await.unwrap_err();
    assert!(error.message().ends_with("haproxy did not load it within 8 s"), "{error}");
    let (_, id) = error.metadata().iter().find(|(key, _)| *key == "reload_id").unwrap().clone();
    assert_eq!(bench.queue.list()[0].id, id);
    pass(60_000).await;
    assert_eq!(bench.queue.get(&id).unwrap().status, Status::Succeeded);
    assert_eq!(*bench.store.accepted.lock().unwrap(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_nobody_saw_counts_and_is_told() {
    let bench = bench([Outcome::Unseen("ok".into())], 0);
    bench.queue.force(3).await.unwrap();
    let warning = bench.queue.warning().unwrap();
    assert!(warning.contains("no new worker"), "{warning}");
    assert_eq!(bench.queue.concerns(), [warning]);
    bench.queue.force(3).await.unwrap();
    assert_eq!((bench.queue.warning(), bench.queue.concerns()), (None, vec![]));
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_not_found_and_malformed_ones_are_invalid() {
    let bench = bench([], 0);
    assert_eq!(bench.queue.get("2026-11-24-7").unwrap_err().reason(), Reason::ObjectNotFound);
    assert_eq!(bench.queue.get("x").unwrap_err().violations()[0].code, 605);
}
