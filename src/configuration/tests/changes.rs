use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::configuration::{HeaderPolicy, Status};

#[tokio::test]
async fn a_change_is_in_file_and_memory_with_the_next_version_and_a_reload() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    assert_eq!((configuration.current().version, bench.file().as_str()), (1, TEXT), "opening writes nothing");
    let mut changes = configuration.changes();

    let outcome = put(&configuration, 1, "b2").await.unwrap();
    assert_eq!(outcome, Outcome { version: 2, reload_id: Some("r2".into()), ..Outcome::default() });
    assert_eq!(bench.file(), format!("# _version=2\n{TEXT}\nbackend b2\n"));
    assert_eq!(configuration.current().document.to_bytes(), bench.file().as_bytes());
    assert_eq!(*changes.borrow_and_update(), 2);
    assert_eq!(leftovers(bench.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_stale_version_is_refused_before_anything_is_done() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let checked = bench.check.checked.load(Ordering::SeqCst);
    let error = put(&configuration, 9, "b2").await.unwrap_err();
    assert_eq!(error.reason(), Reason::VersionMismatch);
    assert_eq!(error.message(), "version mismatch: version in configuration file is 1, given version is 9");
    assert_eq!((bench.file().as_str(), bench.check.checked.load(Ordering::SeqCst)), (TEXT, checked));
}

#[tokio::test]
async fn of_writers_with_the_same_version_exactly_one_wins() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    // All of them have passed their check before the first one may write.
    *bench.check.barrier.lock().unwrap() = Some(Arc::new(tokio::sync::Barrier::new(8)));
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8 {
        let configuration = configuration.clone();
        tasks.spawn(async move { (index, put(&configuration, 1, &format!("w{index}")).await) });
    }
    let results = tasks.join_all().await;
    let won: Vec<_> = results.iter().filter(|(_, result)| result.is_ok()).map(|(index, _)| *index).collect();
    assert_eq!(won.len(), 1);
    for (_, result) in results.iter().filter(|(_, result)| result.is_err()) {
        assert_eq!(result.as_ref().unwrap_err().reason(), Reason::VersionMismatch);
    }
    let current = configuration.current();
    assert_eq!(current.version, 2);
    assert_eq!((0..8).filter(|index| has(&current.document, &format!("w{index}"))).collect::<Vec<_>>(), won);
}

#[tokio::test]
async fn a_refused_change_changes_nothing_and_may_be_listed_as_failed() {
    let mut bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "bad").await.unwrap_err();
    let raw = crate::configuration::RawOptions { version: Some(1), ..Default::default() };
    configuration.replace_raw(b"bad\n", raw).await.unwrap_err();
    assert_eq!(configuration.transactions(None), [], "nobody began one");
    drop(configuration);

    bench.settings.list_refused = true;
    let configuration = bench.open().await;
    let error = put(&configuration, 1, "bad").await.unwrap_err();
    assert_eq!((error.reason(), error.detail_text()), (Reason::ConfigurationRejected, Some("line 1")));
    assert_eq!((bench.file().as_str(), configuration.current().version), (TEXT, 1));
    let failed = configuration.transactions(Some(Status::Failed));
    assert_eq!((failed.len(), failed[0].message.as_str()), (1, "bad word"));
    assert_eq!(put_in(&configuration, &failed[0].id, "x").await.unwrap_err().reason(), Reason::TransactionFailed);

    for _ in 0..120 {
        put(&configuration, 1, "bad").await.unwrap_err();
    }
    assert_eq!(configuration.transactions(None).len(), 100, "only so many are kept");
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.transactions(Some(Status::Failed)).len(), 100);
    configuration.delete(&configuration.transactions(None)[0].id).await.unwrap();
    assert_eq!(configuration.transactions(None).len(), 99);
}

#[tokio::test]
async fn validate_only_does_everything_but_the_write() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let options = ChangeOptions { validate_only: true, ..ChangeOptions::default() };
    let (sections, outcome) = configuration.change(Target::Version(1), options, add("b2")).await.unwrap();
    assert_eq!((sections, outcome), (3, Outcome { version: 1, ..Outcome::default() }));
    let error = configuration.change(Target::Version(1), options, add("bad")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ConfigurationRejected);
    assert_eq!((bench.file().as_str(), configuration.transactions(None).len()), (TEXT, 0));
    let id = configuration.begin(1).await.unwrap().id;
    configuration.change(Target::Transaction(&id), options, add("b2")).await.unwrap();
    assert!(!has(&configuration.view(Some(&id)).unwrap().document, "b2"));
}

#[tokio::test]
async fn a_change_without_difference_still_raises_the_version() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let same = |document: &Document| Ok((document.clone(), ()));
    configuration.change(Target::Version(1), ChangeOptions::default(), same).await.unwrap();
    assert_eq!(bench.file(), format!("# _version=2\n{TEXT}"));
}

#[tokio::test]
async fn an_edit_that_refuses_leaves_no_trace() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let refuse = |_: &Document| Err::<(Document, ()), _>(Error::new(Reason::ObjectExists, "there already"));
    let error = configuration.change(Target::Version(1), ChangeOptions::default(), refuse).await.unwrap_err();
    assert_eq!((error.reason(), bench.file().as_str()), (Reason::ObjectExists, TEXT));
    assert_eq!(configuration.transactions(None), []);
}

#[tokio::test]
async fn versions_go_on_after_a_restart() {
    let bench = Bench::new("# _version=41\nglobal\n");
    let configuration = bench.open().await;
    assert_eq!(put(&configuration, 41, "b2").await.unwrap().version, 42);
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(configuration.current().version, 42);
    assert_eq!(put(&configuration, 42, "b3").await.unwrap().version, 43);
}

#[tokio::test]
async fn mode_and_link_of_the_file_are_kept() {
    let mut bench = Bench::new(TEXT);
    let real = bench.settings.file.clone();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    let link = bench.folder.path().join("link.cfg");
    std::os::unix::fs::symlink("haproxy.cfg", &link).unwrap();
    bench.settings.file = link.clone();
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(std::fs::read_to_string(&real).unwrap().ends_with("backend b2\n"));
}

#[tokio::test]
async fn the_version_can_live_outside_the_file() {
    let mut bench = Bench::new(TEXT);
    bench.settings.header = HeaderPolicy::Outside;
    let configuration = bench.open().await;
    assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 2);
    assert_eq!(bench.file(), format!("{TEXT}\nbackend b2\n"));
    drop(configuration);
    assert_eq!(bench.open().await.current().version, 2);
}

#[tokio::test]
async fn the_last_outgoing_files_are_kept_as_backups() {
    use crate::configuration::RawSource;
    let mut bench = Bench::new(TEXT);
    bench.settings.backups_number = 2;
    bench.settings.backups_dir = Some(bench.folder.path().join("backups"));
    let configuration = bench.open().await;
    for version in 1..5 {
        put(&configuration, version, &format!("n{version}")).await.unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(bench.folder.path().join("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["haproxy.cfg.3", "haproxy.cfg.4"]);
    let kept = configuration.raw_text(RawSource::Backup(3)).await.unwrap();
    assert_eq!(kept.version, Some(3));
    assert!(kept.text.ends_with(b"backend n2\n"));
    let error = configuration.raw_text(RawSource::Backup(2)).await.unwrap_err();
    assert_eq!(error.message(), "missing object: backup file for version 2 does not exist");
}

#[tokio::test]
async fn a_missing_file_and_a_folder_in_use_are_refused_at_start() {
    let bench = Bench::new(TEXT);
    let first = bench.open().await;
    let second = Configuration::open(bench.settings.clone(), bench.check.clone(), bench.reload.clone()).await;
    assert_eq!(second.err().map(|error| error.reason()), Some(Reason::FileUnusable));
    drop(first);
    std::fs::remove_file(&bench.settings.file).unwrap();
    let missing = Configuration::open(bench.settings.clone(), bench.check.clone(), bench.reload.clone()).await;
    assert!(missing.err().unwrap().message().ends_with("haproxy.cfg does not exist"));
}

#[tokio::test]
async fn a_write_that_fails_on_disk_leaves_the_old_state_and_uses_up_its_version() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    // A folder stands where the temporary file goes.
    let obstacle = bench.folder.path().join(".haproxy.cfg.backstay-tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let error = put(&configuration, 1, "b2").await.unwrap_err();
    assert_eq!(error.reason(), Reason::FileUnusable);
    let said = ".haproxy.cfg.backstay-tmp: a folder stands in its place";
    assert!(error.message().ends_with(said), "{error}");
    assert_eq!((bench.file().as_str(), configuration.current().version), (TEXT, 1));
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 3);
}
