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
    assert_eq!(bench.file(), edited, "who wrote it may go on writing");
    assert_eq!(configuration.current().document.to_bytes(), bench.file().as_bytes());
    assert_eq!(*bench.reload.requested.lock().unwrap(), [2], "who edits by hand reloads by hand");

    // Our own writes are no external ones.
    put(&configuration, 3, "b3").await.unwrap();
    assert!(matches!(configuration.external_change().await.unwrap(), External::Unchanged));
    assert_eq!(configuration.current().version, 4);
    assert!(bench.file().starts_with("# _version=4\n"), "our line in it is renewed by our change");
    stop.cancel();
    watch.await.unwrap();
}

/// Edits the file by hand, as an editor does that renames, as soon as `now` says so. False when the moment was `over` before
/// it was seen.
fn edit_when(
    bench: &Bench,
    edit: String,
    now: impl Fn() -> bool + Send + 'static,
    over: Arc<AtomicBool>,
) -> std::thread::JoinHandle<bool> {
    let (beside, file) = (bench.folder.path().join("edit"), bench.settings.file.clone());
    std::fs::write(&beside, edit).unwrap();
    std::thread::spawn(move || {
        while !now() {
            if over.load(Ordering::SeqCst) {
                return false;
            }
        }
        std::fs::rename(beside, file).unwrap();
        true
    })
}

#[tokio::test]
async fn an_edit_that_falls_into_a_write_is_never_dropped() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    for round in 0..12 {
        let file = bench.settings.file.clone();
        let inode = move || std::fs::metadata(&file).map_or(0, |data| data.ino());
        let (before, temporary) = (inode(), bench.folder.path().join(".haproxy.cfg.backstay-tmp"));
        let edit = format!("global\n  maxconn {}\n", round + 1);
        // While our text is on its way, and as soon as it is there.
        let in_time = round % 2 == 0;
        let now = move || if in_time { temporary.try_exists().unwrap() } else { inode() != before };
        let over = Arc::new(AtomicBool::new(false));
        let hand = edit_when(&bench, edit.clone(), now, over.clone());
        let version = configuration.current().version;
        let outcome = put(&configuration, version, &format!("b{round}")).await;
        over.store(in_time, Ordering::SeqCst);
        if !hand.join().unwrap() {
            continue;
        }
        if let Err(error) = outcome {
            assert_eq!(error.reason(), Reason::VersionMismatch, "{error}");
        }
        configuration.external_change().await.unwrap();
        assert_eq!((bench.file(), configuration.current().document.to_bytes()), (edit.clone(), edit.into_bytes()));
    }
    assert_eq!(leftovers(bench.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_edit_that_falls_into_the_end_of_a_run_is_put_back() {
    use crate::configuration::journal::{Intent, Origin, Record};
    for (outgoing, stands) in [("global\n  maxconn 7\n", "global\n  maxconn 7\n"), (TEXT, "global\n  daemon\n")] {
        let bench = Bench::new(TEXT);
        let configuration = bench.open().await;
        let ours = "global\n  daemon\n";
        let mut writer = configuration.shared.writer.lock().await;
        let intent = Intent {
            sequence: writer.journal.state().sequence + 1,
            origin: Origin::Change,
            old_version: 1,
            new_version: 2,
            old_hash: Hash::of(TEXT.as_bytes()),
            new_hash: Hash::of(ours.as_bytes()),
            reload: false,
            renumber: false,
            transaction: None,
        };
        writer.journal.append(&Record::Intent(intent), true).unwrap();
        drop(writer);
        drop(configuration);
        bench.write(ours);
        std::fs::write(bench.folder.path().join(".haproxy.cfg.backstay-tmp"), outgoing).unwrap();
        let configuration = bench.open().await;
        let shown = configuration.current().document.to_bytes();
        assert_eq!((bench.file().as_str(), shown.as_slice()), (stands, stands.as_bytes()));
        assert_eq!(leftovers(bench.folder.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn only_the_file_that_was_looked_at_is_written_over() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let mut writer = configuration.shared.writer.lock().await;
    assert!(configuration.shared.is_ours(&mut writer, Over::Nothing).unwrap());
    bench.write("global\n");
    assert!(!configuration.shared.replace_file(b"ours\n", &mut writer).unwrap());
    assert_eq!(bench.file(), "global\n");
    assert!(!configuration.shared.is_ours(&mut writer, Over::Nothing).unwrap());
    assert!(configuration.shared.is_ours(&mut writer, Over::Anything).unwrap());
    assert!(configuration.shared.replace_file(b"ours\n", &mut writer).unwrap());
    assert_eq!(bench.file(), "ours\n");
}

#[tokio::test]
async fn who_goes_on_writing_an_edit_is_not_cut_off() {
    use std::io::Write as _;
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&bench.settings.file).unwrap();
    file.write_all(b"global\n  daemon\n").unwrap();
    assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(2)));
    file.write_all(b"  maxconn 5\n").unwrap();
    assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(3)));
    let whole = "global\n  daemon\n  maxconn 5\n";
    assert_eq!((bench.file().as_str(), configuration.current().document.to_bytes()), (whole, whole.into()));
}

#[tokio::test]
async fn half_a_file_is_never_taken_for_the_configuration() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    let whole = "global\n  maxconn 5\n\nbackend late\n  mode http\n";
    // What an editor leaves for a moment, and what a slow writer shows of its text: cut off, or cut between lines.
    for half in ["", "global\n  maxc", "global\n  bad"] {
        bench.write(half);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!((configuration.current().version, configuration.trouble().is_none()), (1, true), "{half:?}");
    }
    let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(&bench.settings.file).unwrap();
    for line in whole.split_inclusive('\n') {
        std::io::Write::write_all(&mut file, line.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("taken over", || configuration.current().version == 2).await;
    assert_eq!(bench.file(), whole);
    watch.abort();
}

#[tokio::test]
async fn a_file_that_stays_cut_off_is_served_as_it_stands() {
    for half in ["", "global\n  daemon bad", "# nothing"] {
        let mut bench = Bench::new(TEXT);
        bench.settings.unfinished = Duration::from_millis(150);
        let configuration = bench.open().await;
        let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
        bench.write(half);
        until("served", || configuration.current().version == 2).await;
        let shown = configuration.current().document.to_bytes();
        assert_eq!((String::from_utf8(shown).unwrap(), bench.file()), (half.to_owned(), half.to_owned()));
        assert_eq!(configuration.trouble().is_none(), half.ends_with("nothing"), "{half:?}");
        watch.abort();
    }
}

#[tokio::test]
async fn a_file_that_never_rests_is_served_after_a_while() {
    let mut bench = Bench::new(TEXT);
    bench.settings.unfinished = Duration::from_millis(300);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut round = 0;
    while configuration.current().version == 1 {
        round += 1;
        bench.write(&format!("global\n  maxconn {round}\n"));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(tokio::time::Instant::now() < end, "never served");
    }
    watch.abort();
}

/// Makes the text `text`, whatever it was.
async fn set(configuration: &Configuration, version: i64, text: &'static str) -> Result<Outcome> {
    let edit = move |_: &Document| Ok((Document::parse(text.as_bytes()), ()));
    let options = ChangeOptions { live: crate::configuration::plan::Live::Everything, ..ChangeOptions::default() };
    configuration.change(Target::Version(version), options, edit).await.map(|((), outcome)| outcome)
}

#[tokio::test]
async fn an_edit_that_haproxy_refuses_is_shown_as_it_stands_until_it_is_repaired() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    let broken = "# _version=1\nglobal\n  bad\n";
    for (round, way) in ["change", "transaction", "raw", "by hand"].into_iter().enumerate() {
        let before = configuration.current().version;
        bench.write(broken);
        until("served", || configuration.current().version == before + 1).await;
        let version = before + 1;
        assert_eq!((configuration.current().document.to_bytes(), bench.file()), (broken.into(), broken.into()));
        assert_eq!(configuration.trouble().unwrap().message(), "bad word");
        let raw = configuration.raw_text(crate::configuration::RawSource::Current).await.unwrap();
        assert_eq!(raw.version, Some(version), "what counts, not what stands in the text");

        // Other changes meet the same fault, or their own as well.
        let error = put(&configuration, version, "b2").await.unwrap_err();
        assert_eq!(error.reason(), Reason::ConfigurationRejected);
        assert!(error.message().contains("does not repair it: bad word"), "{error}");
        assert_eq!((bench.file(), configuration.current().version), (broken.to_owned(), version));

        let repaired = format!("global\n  maxconn {round}\n");
        match way {
            "change" => {
                let outcome = set(&configuration, version, "global\n  maxconn 0\n").await.unwrap();
                assert_eq!(outcome.reload_id, Some(format!("r{}", outcome.version)), "HAProxy runs something else");
            }
            "transaction" => {
                let id = configuration.begin(version).await.unwrap().id;
                let edit = |_: &Document| Ok((Document::parse(b"global\n  maxconn 1\n"), ()));
                configuration.change(Target::Transaction(&id), ChangeOptions::default(), edit).await.unwrap();
                configuration.commit(&id, false).await.unwrap();
            }
            "raw" => {
                let options = crate::configuration::RawOptions { version: Some(version), ..Default::default() };
                configuration.replace_raw(repaired.as_bytes(), options).await.unwrap();
            }
            _ => {
                bench.write(&repaired);
                until("taken over", || configuration.current().version == version + 1).await;
            }
        }
        assert!(configuration.trouble().is_none(), "{way}");
        let line = if way == "by hand" { String::new() } else { format!("# _version={}\n", version + 1) };
        assert_eq!(bench.file(), format!("{line}{repaired}"), "{way}");
    }
    watch.abort();
}

#[tokio::test]
async fn trouble_ends_when_the_old_text_is_put_back() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    bench.write("global\n  bad\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Troubled(2, _)));
    bench.write(TEXT);
    assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(3)));
    assert!(configuration.trouble().is_none());
    assert_eq!(put(&configuration, 3, "b2").await.unwrap().version, 4);
}

#[tokio::test]
async fn trouble_ends_when_haproxy_finds_what_it_missed() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    bench.check.away.store(true, Ordering::SeqCst);
    bench.write("global\n  daemon\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Troubled(2, _)), "it cannot be checked");
    assert_eq!(configuration.current().document.to_bytes(), b"global\n  daemon\n");
    bench.check.away.store(false, Ordering::SeqCst);
    assert!(matches!(configuration.external_change().await.unwrap(), External::Unchanged));
    assert!(configuration.trouble().is_none());
}

#[tokio::test]
async fn a_refused_reload_never_drops_an_edit_by_hand() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    bench.write("global\n  bad\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Troubled(3, _)));
    for version in [2, 3] {
        assert_eq!(bench.refuse(version, &[]).await.0.taken_back, Vec::<i64>::new());
    }
    assert_eq!((bench.file().as_str(), configuration.current().version), ("global\n  bad\n", 3));
    drop(configuration);
    bench.reload.requested.lock().unwrap().clear();
    let configuration = bench.open().await;
    assert!(configuration.trouble().is_some());
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new(), "HAProxy would refuse it");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_trouble_for_as_long_as_that_lasts() {
    let mut bench = Bench::new(TEXT);
    bench.settings.unfinished = Duration::from_millis(100);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    let aside = bench.folder.path().join("aside");
    let said = |words: &str| configuration.trouble().is_some_and(|error| error.message().contains(words));
    std::fs::rename(&bench.settings.file, &aside).unwrap();
    until("gone", || said("is gone")).await;
    std::fs::create_dir(&bench.settings.file).unwrap();
    until("a folder", || said("a folder stands in its place")).await;
    let error = put(&configuration, 1, "b2").await.unwrap_err();
    assert_eq!(error.reason(), Reason::FileUnusable);
    assert!(error.message().contains("a folder stands in its place"), "{error}");
    std::fs::remove_dir(&bench.settings.file).unwrap();
    std::fs::rename(&aside, &bench.settings.file).unwrap();
    until("in order", || configuration.trouble().is_none()).await;
    assert_eq!((configuration.current().version, bench.file().as_str()), (1, TEXT));
    watch.abort();
}

#[tokio::test]
async fn what_is_no_regular_file_is_never_waited_for() {
    let mut bench = Bench::new(TEXT);
    bench.settings.unfinished = Duration::from_millis(100);
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(CancellationToken::new()));
    let aside = bench.folder.path().join("aside");
    let file = bench.settings.file.clone();
    let large = bench.folder.path().join("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    let (loops, no_file) = ("too many levels", "no regular file stands there");
    for (target, words) in
        [("haproxy.cfg", loops), ("/dev/zero", no_file), ("/dev/null", no_file), ("large", "too large")]
    {
        std::fs::rename(&file, &aside).unwrap();
        std::os::unix::fs::symlink(target, &file).unwrap();
        let_trouble_come_and_go(&bench, &configuration, &aside, words).await;
    }
    std::fs::rename(&file, &aside).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let_trouble_come_and_go(&bench, &configuration, &aside, no_file).await;
    watch.abort();
}

/// Something is in the place of the file: all say so in these words, until the file is back.
async fn let_trouble_come_and_go(bench: &Bench, configuration: &Configuration, aside: &Path, words: &str) {
    until(words, || configuration.trouble().is_some_and(|error| error.message().contains(words))).await;
    let version = configuration.current().version;
    let error = put(configuration, version, "b2").await.unwrap_err();
    assert_eq!(error.reason(), Reason::FileUnusable, "{error}");
    assert!(error.message().contains(words), "{error}");
    let start = Configuration::open(
        StoreSettings::new(&bench.settings.file, bench.folder.path().join("second")),
        bench.check.clone(),
        bench.reload.clone(),
    );
    assert!(start.await.is_err_and(|error| error.message().contains(words)));
    std::fs::remove_file(&bench.settings.file).unwrap();
    std::fs::rename(aside, &bench.settings.file).unwrap();
    until("in order", || configuration.trouble().is_none()).await;
    put(configuration, version, &format!("after{version}")).await.unwrap();
}

#[tokio::test]
async fn a_version_that_ends_all_numbers_is_not_taken_from_a_file() {
    for words in ["9007199254740991", "9007199254740992", "9223372036854775807", "99999999999999999999", "0", "-3"] {
        let text = format!("# _version={words}\nglobal\n");
        for trust in [false, true] {
            let mut bench = Bench::new(&text);
            bench.settings.trust_file_version = trust;
            let configuration = bench.open().await;
            assert_eq!(configuration.current().version, 1, "{words}");
            assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 2);
            bench.write(&text);
            assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(3)), "{words}");
            assert_eq!(bench.file(), text);
            drop(configuration);
            bench.write(&text.replace("global", "defaults"));
            let counts_anew = trust && ["0", "-3", "9007199254740991"].contains(&words);
            let expected = if counts_anew { 1 } else { 4 };
            let configuration = bench.open().await;
            assert_eq!(configuration.current().version, expected, "{words} {trust}");
            assert_eq!(put(&configuration, expected, "b2").await.unwrap().version, expected + 1);
        }
    }
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    bench.write("# _version=70\nglobal\n");
    assert!(matches!(configuration.external_change().await.unwrap(), External::Taken(70)), "a higher one counts");
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
    assert_eq!(error.reason(), Reason::VersionMismatch);
    let said = "given version is 3; the file was changed by someone else: bad word";
    assert!(error.message().ends_with(said), "{error}");
    assert_eq!((bench.file().as_str(), configuration.current().version), ("global\n  bad\n", 4));
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
    assert_eq!(bench.refuse(4, &[]).await.0.taken_back, [4]);
    assert_eq!(bench.file(), "# _version=5\nglobal\n  maxconn 5\n");
}

#[tokio::test]
async fn a_broken_edit_while_nothing_ran_is_served_as_it_stands() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "b2").await.unwrap();
    bench.reload.listener().accepted(2).await;
    drop(configuration);
    let broken = "# _version=2\nglobal\n  bad\n";
    bench.write(broken);
    // Also when nobody repairs it before the next start.
    for _ in 0..2 {
        let configuration = bench.open().await;
        assert_eq!(configuration.trouble().unwrap().message(), "bad word");
        let current = configuration.current();
        assert_eq!((current.version, current.document.to_bytes(), bench.file()), (3, broken.into(), broken.into()));
        assert_eq!(put(&configuration, 3, "b3").await.unwrap_err().reason(), Reason::ConfigurationRejected);
    }
    let configuration = bench.open().await;
    assert_eq!(set(&configuration, 3, "global\n").await.unwrap().version, 4);
    assert_eq!(bench.file(), "# _version=4\nglobal\n");
    assert!(configuration.trouble().is_none());
    drop(configuration);
    assert!(bench.open().await.trouble().is_none());
}

#[tokio::test]
async fn a_first_start_says_what_haproxy_refuses() {
    let bench = Bench::new("global\n  bad\n");
    let configuration = bench.open().await;
    assert_eq!(configuration.trouble().unwrap().message(), "bad word");
    assert_eq!((configuration.current().version, bench.file().as_str()), (1, "global\n  bad\n"));
    assert!(!bench.state("last-good.cfg").try_exists().unwrap());
    drop(configuration);
    bench.write("global\n");
    let configuration = bench.open().await;
    assert_eq!((configuration.trouble().is_none(), configuration.current().version), (true, 2));
}

#[tokio::test]
async fn a_start_waits_for_an_edit_that_is_under_way() {
    let mut bench = Bench::new(TEXT);
    bench.settings.unfinished = Duration::from_mins(1);
    drop(bench.open().await);
    bench.write("global\n  dae");
    let settings = bench.settings.clone();
    let opening = tokio::spawn(Configuration::open(settings, bench.check.clone(), bench.reload.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    bench.write("global\n  daemon\n");
    let configuration = opening.await.unwrap().unwrap();
    assert_eq!(configuration.current().document.to_bytes(), b"global\n  daemon\n");
    drop(configuration);

    bench.settings.unfinished = Duration::from_millis(50);
    bench.write("");
    let configuration = bench.open().await;
    assert_eq!(configuration.trouble().unwrap().message(), "the configuration file is empty");
    assert_eq!((configuration.current().version, configuration.current().document.to_bytes()), (3, Vec::new()));
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
