use super::*;
use crate::configuration::{HeaderPolicy, RawOptions, RawSource};

const BODY: &[u8] = b"global\n  maxconn 5\n";

fn at(version: i64) -> RawOptions {
    RawOptions { version: Some(version), ..RawOptions::default() }
}

#[tokio::test]
async fn a_text_replaces_the_file_byte_by_byte_but_for_its_version() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let before = configuration.raw_text(RawSource::Current).await.unwrap();
    assert_eq!((before.version, before.text), (Some(1), TEXT.into()));

    let odd = b"# _version=7\n# note\r\nglobal\t\n  maxconn 5 # x\n\n\nno such section\n  y";
    let outcome = configuration.replace_raw(odd, at(1)).await.unwrap();
    assert_eq!((outcome.version, outcome.reload_id), (2, Some("r2".into())));
    // HAProxy refuses a file whose last line has no ending.
    assert_eq!(bench.file(), "# _version=2\r\n# note\r\nglobal\t\n  maxconn 5 # x\n\n\nno such section\n  y\r\n");
    let raw = configuration.raw_text(RawSource::Current).await.unwrap();
    assert_eq!((raw.version, raw.text), (Some(2), bench.file().into_bytes()));
    // What counts is told also of a text by hand that says nothing of it.
    bench.write("global\n");
    configuration.external_change().await.unwrap();
    let raw = configuration.raw_text(RawSource::Current).await.unwrap();
    assert_eq!((raw.version, raw.text), (Some(3), b"global\n".to_vec()));
}

#[tokio::test]
async fn bodies_and_versions_that_do_not_fit_are_refused() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let cases: [(&[u8], RawOptions, Reason, &str); 5] = [
        (b"", at(1), Reason::InvalidField, "data in body is required"),
        (b"global", at(1), Reason::InvalidValue, "invalid configuration: no newline character found"),
        (
            BODY,
            at(9),
            Reason::VersionMismatch,
            "version mismatch: version in configuration file is 1, given version is 9",
        ),
        (
            BODY,
            RawOptions::default(),
            Reason::TargetMissing,
            "version or transaction not specified: version or transaction not specified, specify only one",
        ),
        (b"bad\n", at(1), Reason::ConfigurationRejected, "bad word"),
    ];
    for (body, options, reason, message) in cases {
        let error = configuration.replace_raw(body, options).await.unwrap_err();
        assert_eq!((error.reason(), error.message()), (reason, message));
    }
    assert_eq!(bench.file(), TEXT);
}

#[tokio::test]
async fn skip_version_keeps_the_number_of_the_text_or_the_present_one() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let skip = RawOptions { skip_version: true, ..RawOptions::default() };
    assert_eq!(configuration.replace_raw(BODY, skip).await.unwrap().version, 1);
    let skip = RawOptions { skip_reload: true, ..skip };
    let outcome = configuration.replace_raw(b"# _version=42\nglobal\n", skip).await.unwrap();
    assert_eq!((outcome.version, outcome.reload_id), (42, None));
    assert_eq!(bench.file(), "# _version=42\nglobal\n");
    assert_eq!(put(&configuration, 42, "b2").await.unwrap().version, 43);
    assert_eq!(configuration.replace_raw(b"# _version=1\nglobal\n", skip).await.unwrap().version, 1);
    assert_eq!(put(&configuration, 1, "b2").await.unwrap().version, 2);
    drop(configuration);
    assert_eq!(bench.open().await.current().version, 2);
}

#[tokio::test]
async fn a_version_that_clients_cannot_give_back_is_refused() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let skip = RawOptions { skip_version: true, ..RawOptions::default() };
    let only = RawOptions { only_validate: true, ..RawOptions::default() };
    for words in ["9007199254740992", "9223372036854775807", "99999999999999999999"] {
        let text = format!("# _version={words}\nglobal\n");
        for options in [skip, only, at(1)] {
            let error = configuration.replace_raw(text.as_bytes(), options).await.unwrap_err();
            assert_eq!(error.reason(), Reason::InvalidValue, "{words}");
        }
    }
    assert_eq!((bench.file().as_str(), configuration.current().version), (TEXT, 1));
    // Numbers that are none count as no version line, and the highest one is followed by the first.
    for words in ["0", "-7", "x"] {
        let text = format!("# _version={words}\nglobal\n");
        assert_eq!(configuration.replace_raw(text.as_bytes(), skip).await.unwrap().version, 1, "{words}");
    }
    let highest = configuration.replace_raw(b"# _version=9007199254740991\nglobal\n", skip).await.unwrap().version;
    assert_eq!(highest, 9_007_199_254_740_991);
    for version in [1, 2] {
        let before = configuration.current().version;
        assert_eq!(put(&configuration, before, &format!("b{version}")).await.unwrap().version, version);
    }
    drop(configuration);
    assert_eq!(bench.open().await.current().version, 2);
}

#[tokio::test]
async fn every_write_ends_the_file_with_a_line_feed() {
    let bench = Bench::new("global\n  daemon");
    let configuration = bench.open().await;
    let edit = |text: &'static str| move |_: &Document| Ok((Document::parse(text.as_bytes()), ()));
    let changed = configuration.change(Target::Version(1), ChangeOptions::default(), edit("global\n  nbthread 1"));
    changed.await.unwrap();
    assert_eq!(bench.file(), "# _version=2\nglobal\n  nbthread 1\n");
    let id = configuration.begin(2).await.unwrap().id;
    let changed = configuration.change(Target::Transaction(&id), ChangeOptions::default(), edit("global\n  b"));
    changed.await.unwrap();
    configuration.commit(&id, false).await.unwrap();
    assert_eq!(bench.file(), "# _version=3\nglobal\n  b\n");
    configuration.replace_raw(b"global\n  c", at(3)).await.unwrap();
    assert_eq!(bench.file(), "# _version=4\nglobal\n  c\n");
}

#[tokio::test]
async fn a_transaction_does_not_overwrite_another_text_with_the_same_number() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let id = configuration.begin(1).await.unwrap().id;
    let skip = RawOptions { skip_version: true, ..RawOptions::default() };
    configuration.replace_raw(BODY, skip).await.unwrap();
    assert_eq!(configuration.commit(&id, false).await.unwrap_err().reason(), Reason::VersionMismatch);
    assert_eq!(bench.file(), "# _version=1\nglobal\n  maxconn 5\n");
}

#[tokio::test]
async fn only_validate_checks_the_text_as_given_and_writes_nothing() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let only = RawOptions { only_validate: true, ..RawOptions::default() };
    let outcome = configuration.replace_raw(b"global", only).await.unwrap();
    assert_eq!(outcome, Outcome { version: 1, ..Outcome::default() });
    assert_eq!(configuration.replace_raw(b"bad", only).await.unwrap_err().reason(), Reason::ConfigurationRejected);
    assert_eq!((bench.file().as_str(), configuration.transactions(None).len()), (TEXT, 0));
}

#[tokio::test]
async fn force_and_skip_reload_are_heard() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let forced = RawOptions { force_reload: true, ..at(1) };
    assert!(configuration.replace_raw(BODY, forced).await.unwrap().reloaded);
    let skipped = RawOptions { skip_reload: true, ..at(2) };
    assert_eq!(configuration.replace_raw(BODY, skipped).await.unwrap().reload_id, None);
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new());
    assert_eq!(*bench.reload.forced.lock().unwrap(), [2]);
}

#[tokio::test]
async fn a_raw_text_never_replaces_an_edit_that_its_caller_has_not_seen() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    for (edit, version) in [("global\n  bad\n", 2), ("global\n  daemon\n", 3)] {
        bench.write(edit);
        let error = configuration.replace_raw(BODY, at(version - 1)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::VersionMismatch, "{edit}");
        assert_eq!((bench.file().contains(edit), configuration.current().version), (true, version));
    }
    assert_eq!(configuration.replace_raw(BODY, at(3)).await.unwrap().version, 4);
    // Who asks for no version means whatever is there; it is kept.
    bench.write("global\n  bad\n");
    let skip = RawOptions { skip_version: true, ..RawOptions::default() };
    assert_eq!(configuration.replace_raw(BODY, skip).await.unwrap().version, 4);
    assert_eq!(std::fs::read_to_string(bench.state("aside/overwritten-1.cfg")).unwrap(), "global\n  bad\n");
}

#[tokio::test]
async fn checksum_and_transaction_text_are_served() {
    let mut bench = Bench::new(TEXT);
    bench.settings.header = HeaderPolicy::VersionAndChecksum;
    let configuration = bench.open().await;
    configuration.replace_raw(b"# _cluster_version=3\nglobal\n", at(1)).await.unwrap();
    let raw = configuration.raw_text(RawSource::Current).await.unwrap();
    assert_eq!((raw.version, raw.cluster_version), (Some(2), Some("3".into())));
    assert_eq!(raw.checksum.unwrap().len(), 32);
    let id = configuration.begin(2).await.unwrap().id;
    put_in(&configuration, &id, "t1").await.unwrap();
    let raw = configuration.raw_text(RawSource::Transaction(&id)).await.unwrap();
    assert_eq!(raw.version, Some(2));
    assert!(raw.text.ends_with(b"\nbackend t1\n"));
    let unknown = configuration.raw_text(RawSource::Transaction("zz")).await.unwrap_err();
    assert_eq!(unknown.reason(), Reason::TransactionNotFound);
}
