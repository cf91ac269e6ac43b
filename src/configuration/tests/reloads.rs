use super::*;

fn forced() -> ChangeOptions {
    ChangeOptions { force_reload: true, ..ChangeOptions::default() }
}

#[tokio::test]
async fn a_refused_reload_takes_back_every_change_since_the_last_good_one() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "good").await.unwrap();
    bench.reload.listener().accepted(2).await;
    put(&configuration, 2, "x3").await.unwrap();
    put(&configuration, 3, "x4").await.unwrap();
    let taken = bench.reload.listener().refused(4, "cannot bind".into()).await;
    assert_eq!(taken, [3, 4]);
    let current = configuration.current();
    assert_eq!(current.version, 5, "a new number");
    assert!(has(&current.document, "good") && !has(&current.document, "x3") && !has(&current.document, "x4"));
    assert_eq!(bench.file(), format!("# _version=5\n{TEXT}\nbackend good\n"));
    let kept = std::fs::read_to_string(bench.state("refused.cfg")).unwrap();
    assert!(kept.contains("x4"), "what was refused can be looked at");
    assert_eq!(bench.reload.listener().refused(4, "again".into()).await, Vec::<i64>::new());
    drop(configuration);
    bench.reload.requested.lock().unwrap().clear();
    assert_eq!(bench.open().await.current().version, 5);
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new(), "nothing is pending");
}

#[tokio::test]
async fn the_first_reload_that_is_refused_goes_back_to_the_file_of_the_start() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "x2").await.unwrap();
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(bench.reload.listener().refused(2, "no".into()).await, [2]);
    assert_eq!(bench.file(), format!("# _version=3\n{TEXT}"));
    assert_eq!(configuration.current().version, 3);
}

#[tokio::test]
async fn a_good_version_is_what_was_loaded_and_not_what_came_meanwhile() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "x2").await.unwrap();
    assert_eq!(bench.reload.listener().version(), 2);
    for version in 2..40 {
        put(&configuration, version, &format!("x{}", version + 1)).await.unwrap();
    }
    bench.reload.listener().accepted(2).await;
    let taken = bench.reload.listener().refused(40, "no".into()).await;
    assert_eq!(taken, (3..=40).collect::<Vec<_>>());
    assert_eq!(bench.file(), format!("# _version=41\n{TEXT}\nbackend x2\n"));
}

#[tokio::test]
async fn force_reload_answers_what_haproxy_says() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let (_, outcome) = configuration.change(Target::Version(1), forced(), add("b2")).await.unwrap();
    assert_eq!(outcome, Outcome { version: 2, reload_id: None, reloaded: true });
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new());

    *bench.reload.answer.lock().unwrap() = "refused";
    let error = configuration.change(Target::Version(2), forced(), add("b3")).await.unwrap_err();
    assert_eq!((error.reason(), error.message()), (Reason::ReloadFailed, "refused, took back [3]"));
    assert_eq!(bench.file(), format!("# _version=4\n{TEXT}\nbackend b2\n"));

    *bench.reload.answer.lock().unwrap() = "away";
    let error = configuration.change(Target::Version(4), forced(), add("b4")).await.unwrap_err();
    assert_eq!(error.metadata(), [("pending", "true".to_owned())]);
    assert!(has(&configuration.current().document, "b4"), "an accepted change stays while nothing runs");
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.current().version, 5);
    assert_eq!(*bench.reload.requested.lock().unwrap(), [5], "the reload is asked for again");
}

#[tokio::test]
async fn a_reload_to_come_is_asked_for_again_after_a_restart() {
    let bench = Bench::new(TEXT);
    let skip = ChangeOptions { skip_reload: true, ..ChangeOptions::default() };
    let configuration = bench.open().await;
    configuration.change(Target::Version(1), skip, add("b2")).await.unwrap();
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new(), "none was asked for");
    put(&configuration, 2, "b3").await.unwrap();
    configuration.change(Target::Version(3), skip, add("b4")).await.unwrap();
    bench.reload.requested.lock().unwrap().clear();
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(*bench.reload.requested.lock().unwrap(), [4]);
    bench.reload.listener().accepted(4).await;
    drop(configuration);
    bench.reload.requested.lock().unwrap().clear();
    bench.open().await;
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new());
}

#[tokio::test]
async fn the_last_good_text_lies_beside_the_file_when_asked_for() {
    let mut bench = Bench::new(TEXT);
    bench.settings.last_good_beside = true;
    let beside = bench.folder.path().join("haproxy.cfg.lkg");
    let configuration = bench.open().await;
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), TEXT);
    put(&configuration, 1, "b2").await.unwrap();
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), TEXT);
    bench.reload.listener().accepted(2).await;
    assert_eq!(std::fs::read_to_string(&beside).unwrap(), bench.file());
}

#[tokio::test]
async fn the_listener_does_not_keep_the_configuration_alive() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    drop(configuration);
    assert_eq!(bench.reload.listener().version(), 0);
    bench.reload.listener().accepted(1).await;
    assert_eq!(bench.reload.listener().refused(1, String::new()).await, Vec::<i64>::new());
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_whole_change_behind() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    *bench.reload.answer.lock().unwrap() = "never";
    let call = tokio::spawn({
        let configuration = configuration.clone();
        async move { configuration.change(Target::Version(1), forced(), add("b2")).await.map(drop) }
    });
    let mut changes = configuration.changes();
    changes.wait_for(|version| *version == 2).await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(put(&configuration, 2, "b3").await.unwrap().version, 3, "the writer is free");
}

#[tokio::test]
async fn copies_of_the_file_are_no_more_open_than_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bench = Bench::new(TEXT);
    bench.settings.last_good_beside = true;
    bench.settings.backups_number = 1;
    std::fs::set_permissions(&bench.settings.file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    for name in ["haproxy.cfg", "haproxy.cfg.lkg", "haproxy.cfg.1", "state/last-good.cfg", "state/journal"] {
        let mode = std::fs::metadata(bench.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
