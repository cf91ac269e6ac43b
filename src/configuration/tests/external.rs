use tokio_util::sync::CancellationToken;

use super::*;
use crate::configuration::External;
use crate::configuration::frame::Hash;
use crate::configuration::write::Over;

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_edit_by_hand_is_taken_over_under_a_new_version() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let stop = CancellationToken::new();
    let watch = tokio::spawn(configuration.clone().watch(stop.clone()));
    put(&configuration, 1, "b2").await.unwrap();

    let edited = bench.file().replace("mode http", "mode tcp");
    bench.write(&edited);
    until("taken over", || configuration.current().version == 3).await;
    assert_eq!(bench.file(), edited.replace("_version=2", "_version=3"));
    assert_eq!(configuration.current().document.to_bytes(), bench.file().as_bytes());
    assert_eq!(*bench.reload.requested.lock().unwrap(), [2], "who edits by hand reloads by hand");

    // Our own writes are no external ones.
    put(&configuration, 3, "b3").await.unwrap();
    assert!(matches!(configuration.external_change().await.unwrap(), External::Unchanged));
    assert_eq!(configuration.current().version, 4);
    stop.cancel();
    watch.await.unwrap();
}

#[tokio::test]
async fn a_text_that_is_there_no_more_is_not_taken_over() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    let seen = Hash::of(bench.file().as_bytes());
    put(&configuration, 2, "b3").await.unwrap();
    let mut writer = configuration.shared.writer.lock().await;
    assert!(!configuration.shared.is_ours(&mut writer, Over::Text(seen)).unwrap(), "b3 would be lost");
    assert!(configuration.shared.is_ours(&mut writer, Over::Nothing).unwrap());
}

#[tokio::test]
async fn half_a_file_is_never_taken_for_the_configuration() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    bench.write("");
    until("refused", || configuration.trouble().is_some()).await;
    bench.write("global\n  bad\n");
    until("refused", || configuration.trouble().is_some()).await;
    assert_eq!((configuration.current().version, configuration.current().document.to_bytes()), (1, TEXT.into()));
    bench.write("global\n  maxconn 5\n");
    until("taken over", || configuration.current().version == 2).await;
    assert!(configuration.trouble().is_none());
    assert_eq!(bench.file(), "# _version=2\nglobal\n  maxconn 5\n");
    watch.abort();
}

#[tokio::test]
async fn trouble_ends_when_the_old_text_is_put_back() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    bench.write("global\n  bad\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Refused(_)));
    bench.write(TEXT);
    assert!(matches!(configuration.external_change().await.unwrap(), External::Unchanged));
    assert!(configuration.trouble().is_none());
    assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 2);
}

#[tokio::test]
async fn a_change_never_overwrites_an_edit_that_was_not_seen_yet() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let edited = "global\n  maxconn 5\n";
    bench.write(edited);
    let error = put(&configuration, 1, "b2").await.unwrap_err();
    assert_eq!(error.message(), "version mismatch: version in configuration file is 2, given version is 1");
    assert_eq!(put(&configuration, 2, "b2").await.unwrap().version, 3);
    assert_eq!(bench.file(), format!("# _version=3\n{edited}\nbackend b2\n"));

    bench.write("global\n  bad\n");
    let error = put(&configuration, 3, "b3").await.unwrap_err();
    assert_eq!(error.reason(), Reason::ConfigurationRejected);
    assert!(error.message().contains("changed by someone else"), "{}", error.message());
    assert_eq!(bench.file(), "global\n  bad\n");
}

#[tokio::test]
async fn a_file_that_is_gone_is_written_again_by_the_next_change() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    std::fs::remove_file(&bench.settings.file).unwrap();
    assert!(matches!(configuration.external_change().await.unwrap(), External::Unsettled));
    put(&configuration, 1, "b2").await.unwrap();
    assert_eq!(bench.file(), format!("# _version=2\n{TEXT}\nbackend b2\n"));
}

#[tokio::test]
async fn an_edit_while_nothing_ran_counts_as_a_new_version() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    let id = configuration.begin(2).await.unwrap().id;
    drop(configuration);
    let edited = "# _version=2\nglobal\n  maxconn 5\n";
    bench.write(edited);
    let configuration = bench.open().await;
    assert_eq!((configuration.current().version, bench.file().as_str()), (3, edited), "nothing is written at start");
    assert_eq!(configuration.commit(&id, false).await.unwrap_err().reason(), Reason::VersionMismatch);
    assert_eq!(put(&configuration, 3, "b2").await.unwrap().version, 4);
    // The edited text is what HAProxy was started with: it is the one to go back to.
    assert_eq!(bench.reload.listener().refused(4, "no".into()).await, [4]);
    assert_eq!(bench.file(), "# _version=5\nglobal\n  maxconn 5\n");
}

#[tokio::test]
async fn a_broken_edit_while_nothing_ran_leaves_the_last_good_one_served() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    bench.reload.listener().accepted(2).await;
    drop(configuration);
    bench.write("global\n  bad\n");
    let configuration = bench.open().await;
    assert!(configuration.trouble().is_some());
    assert_eq!(configuration.current().version, 2);
    assert!(has(&configuration.current().document, "b2"));
    assert_eq!(put(&configuration, 2, "b3").await.unwrap_err().reason(), Reason::ConfigurationRejected);
    bench.write("global\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(3)));
}

#[tokio::test]
async fn a_deployed_file_may_decide_the_version() {
    let mut bench = Bench::new("# _version=7\nglobal\n");
    bench.settings.trust_file_version = true;
    let configuration = bench.open().await;
    put(&configuration, 7, "b2").await.unwrap();
    drop(configuration);
    bench.write(TEXT);
    let configuration = bench.open().await;
    assert_eq!(configuration.current().version, 1);
    assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 2);
}
