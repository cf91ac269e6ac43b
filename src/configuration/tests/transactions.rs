use super::*;
use crate::configuration::Status;

#[tokio::test]
async fn a_transaction_is_invisible_until_its_commit() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let begun = configuration.begin(1).await.unwrap();
    assert_eq!((begun.version, begun.status), (1, Status::InProgress));
    assert_eq!(put_in(&configuration, &begun.id, "t1").await.unwrap().version, 1);
    assert_eq!(put_in(&configuration, &begun.id, "t2").await.unwrap().reload_id, None);
    assert!(has(&configuration.view(Some(&begun.id)).unwrap().document, "t2"));
    assert!(!has(&configuration.view(None).unwrap().document, "t1"));
    assert_eq!(bench.file(), TEXT);

    let (committed, outcome) = configuration.commit(&begun.id, false).await.unwrap();
    assert_eq!((committed.version, committed.status), (1, Status::Success));
    assert_eq!(outcome, Outcome { version: 2, reload_id: Some("r2".into()), ..Outcome::default() });
    assert_eq!(bench.file(), format!("# _version=2\n{TEXT}\nbackend t1\n\nbackend t2\n"));
    assert_eq!(configuration.transaction(&begun.id).unwrap_err().reason(), Reason::TransactionNotFound);
    assert_eq!(std::fs::read_dir(bench.state("transactions")).unwrap().count(), 0);
}

#[tokio::test]
async fn unknown_transactions_are_named() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let error = put_in(&configuration, "zz", "x").await.unwrap_err();
    assert_eq!((error.reason(), error.message()), (Reason::TransactionNotFound, "transaction does not exist: zz"));
    assert_eq!(configuration.view(Some("zz")).unwrap_err().reason(), Reason::TransactionNotFound);
    let error = configuration.transaction("zz").unwrap_err();
    assert_eq!(error.message(), "transaction does not exist: transaction zz does not exist");
    assert_eq!(configuration.delete("zz").await.unwrap_err().reason(), Reason::TransactionNotFound);
    assert_eq!(configuration.commit("zz", false).await.unwrap_err().reason(), Reason::TransactionNotFound);
    assert_eq!((configuration.version_of(Some("zz")), configuration.version_of(None)), (0, 1));
    assert_eq!(configuration.begin(7).await.unwrap_err().reason(), Reason::VersionMismatch);
}

#[tokio::test]
async fn open_transactions_survive_a_restart_with_every_answered_edit() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let first = configuration.begin(1).await.unwrap().id;
    put_in(&configuration, &first, "t1").await.unwrap();
    put(&configuration, 1, "b2").await.unwrap();
    let second = configuration.begin(2).await.unwrap().id;
    put_in(&configuration, &second, "u1").await.unwrap();
    put_in(&configuration, &second, "u2").await.unwrap();
    let before = (configuration.transactions(None), configuration.view(Some(&first)).unwrap().document.to_bytes());
    drop(configuration);

    // A record that was cut off by a power failure was never answered.
    let log = bench.state("transactions").join(format!("{second}.log"));
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(&[9, 0, 0, 0, 1, 2]);
    std::fs::write(&log, bytes).unwrap();

    let configuration = bench.open().await;
    assert_eq!(configuration.transactions(None), before.0);
    assert_eq!(configuration.view(Some(&first)).unwrap().document.to_bytes(), before.1);
    put_in(&configuration, &second, "u3").await.unwrap();
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.commit(&first, false).await.unwrap_err().reason(), Reason::VersionMismatch);
    configuration.commit(&second, false).await.unwrap();
    let document = &configuration.current().document;
    assert!(["b2", "u1", "u2", "u3"].iter().all(|name| has(document, name)) && !has(document, "t1"));
}

#[tokio::test]
async fn a_transaction_whose_base_is_lost_is_failed_and_not_silently_empty() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    put(&configuration, 1, "b2").await.unwrap();
    drop(configuration);
    for entry in std::fs::read_dir(bench.state("transactions")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "base") {
            std::fs::write(path, "other").unwrap();
        }
    }
    let configuration = bench.open().await;
    assert_eq!(configuration.transaction(&id).unwrap().status, Status::Failed);
}

#[tokio::test]
async fn a_commit_on_a_moved_version_is_a_mismatch_once_and_outdated_afterwards() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    put(&configuration, 1, "b2").await.unwrap();
    assert_eq!(configuration.transaction(&id).unwrap().status, Status::InProgress, "a plain write outdates nothing");
    let error = configuration.commit(&id, false).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.message()),
        (Reason::VersionMismatch, "version mismatch: version mismatch, transaction version: 1, configured version: 2")
    );
    for _ in 0..2 {
        let error = configuration.commit(&id, false).await.unwrap_err();
        let text = format!("transaction {id} is outdated and cannot be committed");
        assert_eq!((error.reason(), error.message()), (Reason::TransactionOutdated, text.as_str()));
    }
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.transaction(&id).unwrap().status, Status::Outdated);
    assert_eq!(put_in(&configuration, &id, "x").await.unwrap_err().reason(), Reason::TransactionOutdated);
}

#[tokio::test]
async fn a_commit_outdates_the_others_at_once() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let ids = [configuration.begin(1).await.unwrap().id, configuration.begin(1).await.unwrap().id];
    configuration.commit(&ids[0], false).await.unwrap();
    assert_eq!(configuration.transaction(&ids[1]).unwrap().status, Status::Outdated);
    assert_eq!(configuration.commit(&ids[1], false).await.unwrap_err().reason(), Reason::TransactionOutdated);
    configuration.delete(&ids[1]).await.unwrap();
    assert_eq!(configuration.delete(&ids[1]).await.unwrap_err().reason(), Reason::TransactionNotFound);
}

#[tokio::test]
async fn a_refused_commit_fails_the_transaction_for_good() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    put_in(&configuration, &id, "bad").await.unwrap();
    assert_eq!(configuration.commit(&id, false).await.unwrap_err().reason(), Reason::ConfigurationRejected);
    assert_eq!(configuration.commit(&id, false).await.unwrap_err().reason(), Reason::TransactionFailed);
    assert_eq!(bench.file(), TEXT);
    assert_eq!(configuration.transactions(Some(Status::Failed)).len(), 1);
    assert_eq!(configuration.transactions(Some(Status::InProgress)), []);
    drop(configuration);
    assert_eq!(bench.open().await.transaction(&id).unwrap().status, Status::Failed);
}

#[tokio::test]
async fn only_so_many_may_be_open() {
    let mut bench = Bench::new(TEXT);
    bench.settings.max_open_transactions = 2;
    let configuration = bench.open().await;
    let first = configuration.begin(1).await.unwrap().id;
    configuration.begin(1).await.unwrap();
    let error = configuration.begin(1).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TransactionLimit);
    assert_eq!(
        error.message(),
        "cannot start a new transaction, reached the maximum amount of 2 active transactions available"
    );
    configuration.delete(&first).await.unwrap();
    configuration.begin(1).await.unwrap();
}

#[tokio::test]
async fn abandoned_transactions_expire_by_the_clock_given() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let idle = configuration.begin(1).await.unwrap().id;
    let used = configuration.begin(1).await.unwrap().id;
    let day = 24 * 3600 * 1000;
    bench.now.fetch_add(day - 1, Ordering::SeqCst);
    put_in(&configuration, &used, "t1").await.unwrap();
    assert_eq!(configuration.expire().await.unwrap(), 0);
    bench.now.fetch_add(2, Ordering::SeqCst);
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.expire().await.unwrap(), 1);
    assert_eq!(configuration.transaction(&idle).unwrap_err().reason(), Reason::TransactionNotFound);
    assert!(configuration.transaction(&used).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_of_one_transaction_by_many_callers_are_all_kept() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..16 {
        let (configuration, id) = (configuration.clone(), id.clone());
        tasks.spawn(async move { put_in(&configuration, &id, &format!("n{index}")).await.unwrap() });
    }
    tasks.join_all().await;
    drop(configuration);
    let configuration = bench.open().await;
    let view = configuration.view(Some(&id)).unwrap();
    assert!((0..16).all(|index| has(&view.document, &format!("n{index}"))));
}

#[tokio::test]
async fn force_reload_is_not_for_transactions_but_for_their_commit() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    let options = ChangeOptions { force_reload: true, ..ChangeOptions::default() };
    let error = configuration.change(Target::Transaction(&id), options, add("x")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TargetAmbiguous);
    let (_, outcome) = configuration.commit(&id, true).await.unwrap();
    assert_eq!(outcome, Outcome { version: 2, reloaded: true, ..Outcome::default() });
    assert_eq!(*bench.reload.forced.lock().unwrap(), [2]);
}
