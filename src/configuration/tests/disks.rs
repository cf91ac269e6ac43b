//! What disks, mounts, kills and other processes do to the file.

use std::process::Command;

use super::*;
use crate::configuration::Claim;

/// Something that is mounted until it is dropped.
pub(super) struct Mount(std::path::PathBuf);

impl Mount {
    /// A single file, as containers mount it: it cannot be exchanged. `None` where nothing may be mounted.
    pub(super) fn file(file: &Path, over: &Path) -> Option<Self> {
        Mount::new(&["--bind"], file, over)
    }

    /// A disk of so many KiB.
    fn disk(folder: &Path, size: u32) -> Option<Self> {
        Mount::new(&["-t", "tmpfs", "-o", &format!("size={size}k")], Path::new("tmpfs"), folder)
    }

    #[allow(clippy::print_stderr, reason = "a test that does not run says why")]
    fn new(how: &[&str], what: &Path, over: &Path) -> Option<Self> {
        let done = Command::new("mount").args(how).args([what, over]).output();
        match done {
            Ok(done) if done.status.success() => return Some(Mount(over.to_owned())),
            Ok(done) => eprintln!("skipped, nothing can be mounted: {}", String::from_utf8_lossy(&done.stderr)),
            Err(error) => eprintln!("skipped, nothing can be mounted: {error}"),
        }
        None
    }

    /// Forbids to write there.
    async fn read_only(&self) {
        let remount = || Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&self.0).output().unwrap();
        // A write that its caller gave up goes on to its end, and holds the file until then.
        let end = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            let done = remount();
            if done.status.success() {
                return;
            }
            assert!(std::time::Instant::now() < end, "{done:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_file_that_is_mounted_by_itself_is_written_in_place() {
    let mut bench = Bench::new(TEXT);
    let outside = bench.folder.path().join("outside.cfg");
    std::fs::copy(&bench.settings.file, &outside).unwrap();
    let Some(mount) = Mount::file(&outside, &bench.settings.file) else { return };
    bench.settings.last_good_beside = true;
    let configuration = bench.open().await;
    let watch = tokio::spawn(configuration.clone().watch(tokio_util::sync::CancellationToken::new()));
    put(&configuration, 1, "b2").await.unwrap();
    let long = format!("# _version=2\n{TEXT}\nbackend b2\n");
    assert_eq!((bench.file(), std::fs::read_to_string(&outside).unwrap()), (long.clone(), long));
    let raw = crate::configuration::RawOptions { version: Some(2), ..Default::default() };
    configuration.replace_raw(b"global\n", raw).await.unwrap();
    assert_eq!(bench.file(), "# _version=3\nglobal\n", "also a shorter one");
    let id = configuration.begin(3).await.unwrap().id;
    put_in(&configuration, &id, "t").await.unwrap();
    configuration.commit(&id, true).await.unwrap();
    // An edit outside, and a reload that is refused.
    std::fs::write(&outside, "global\n  daemon\n").unwrap();
    assert!(matches!(
        configuration.external_change().await.unwrap(),
        crate::configuration::External::Taken(5) | crate::configuration::External::Unchanged
    ));
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "global\n  daemon\n");
    assert_eq!(leftovers(bench.folder.path()), Vec::<String>::new());
    assert!(!bench.state("in-place").try_exists().unwrap());

    watch.abort();
    drop((watch.await, configuration));
    mount.read_only().await;
    let configuration = bench.open().await;
    let error = put(&configuration, 5, "b3").await.unwrap_err();
    assert_eq!(error.reason(), Reason::FileUnusable);
    assert!(error.message().contains("the file system is read-only"), "{error}");
    assert_eq!(configuration.current().version, 5);
}

#[tokio::test]
async fn a_full_disk_says_so_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::disk(folder.path(), 256) else { return };
    let mut bench = Bench::new(TEXT);
    bench.settings.file = folder.path().join("haproxy.cfg");
    std::fs::write(&bench.settings.file, TEXT).unwrap();
    for state in [bench.settings.state_dir.clone(), folder.path().join("state")] {
        bench.settings.state_dir = state;
        let configuration = bench.open().await;
        let start = configuration.current().version;
        let before = bench.file();
        let ballast = folder.path().join("ballast");
        drop(std::fs::write(&ballast, vec![b'x'; 256 * 1024]));
        let error = put(&configuration, start, "b2").await.unwrap_err();
        assert_eq!(error.reason(), Reason::DiskFull, "{error} {:?}", error.context_text());
        assert!(error.message().contains("no space is left"), "{error}");
        assert_eq!((bench.file(), configuration.current().version), (before, start));
        std::fs::remove_file(&ballast).unwrap();
        let outcome = put(&configuration, start, &format!("b{start}")).await.unwrap();
        assert!(outcome.version > start);
        drop(configuration);
        assert_eq!(bench.open().await.current().version, outcome.version);
        assert_eq!(leftovers(folder.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_file_has_one_server() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let link = bench.folder.path().join("link.cfg");
    std::os::unix::fs::symlink(&bench.settings.file, &link).unwrap();
    let bound = bench.folder.path().join("bound.cfg");
    std::fs::write(&bound, "").unwrap();
    let mount = Mount::file(&bench.settings.file, &bound);
    let second = async |file: &Path| {
        let settings = StoreSettings::new(file, bench.folder.path().join("second"));
        Configuration::open(settings, bench.check.clone(), bench.reload.clone()).await
    };
    for file in [Some(&bench.settings.file), Some(&link), mount.is_some().then_some(&bound)].into_iter().flatten() {
        let error = second(file).await.map(drop).unwrap_err();
        assert_eq!(error.reason(), Reason::FileUnusable);
        assert!(error.message().contains("another backstay manages"), "{error}");
        assert!(!bench.folder.path().join("second").try_exists().unwrap(), "nothing is made");
    }
    drop(mount);
    // Our own writes keep it, and an editor's exchange is seen.
    put(&configuration, 1, "b2").await.unwrap();
    assert!(second(&link).await.is_err());
    let other = bench.folder.path().join("other");
    std::fs::write(&other, "global\n").unwrap();
    std::fs::rename(&other, &bench.settings.file).unwrap();
    configuration.external_change().await.unwrap();
    assert!(second(&link).await.is_err());
    // Also one that HAProxy refuses.
    let hard = bench.folder.path().join("hard.cfg");
    std::fs::write(&other, "global\n  bad\n").unwrap();
    std::fs::rename(&other, &bench.settings.file).unwrap();
    std::fs::hard_link(&bench.settings.file, &hard).unwrap();
    configuration.external_change().await.unwrap();
    assert!(second(&link).await.is_err());
    assert!(second(&hard).await.is_err(), "the same file by another name");
    bench.write("global\n");
    configuration.external_change().await.unwrap();

    // Should someone be faster, only one of the two writes.
    std::fs::write(&other, "global\n  daemon\n").unwrap();
    std::fs::rename(&other, &bench.settings.file).unwrap();
    let thief = second(&link).await.unwrap();
    let error = put(&configuration, 5, "b3").await.unwrap_err();
    assert!(error.message().contains("another backstay"), "{error}");
    drop(configuration);
    put(&thief, thief.current().version, "b4").await.unwrap();
    drop(thief);
    // One that never writes is in nobody's way.
    let mut reader = bench.settings.clone();
    reader.read_only = true;
    let _writer = second(&link).await.unwrap();
    Claim::take(reader).await.unwrap();
}

#[tokio::test]
async fn what_a_kill_left_behind_goes_at_start() {
    let mut bench = Bench::new(TEXT);
    let backups = bench.folder.path().join("backups");
    bench.settings.backups_dir = Some(backups.clone());
    drop(bench.open().await);
    let beside = |name: &str| bench.folder.path().join(name);
    let left = [
        beside(".haproxy.cfg.backstay-tmp"),
        beside(".haproxy.cfg.lkg.backstay-tmp"),
        backups.join(".haproxy.cfg.7.backstay-tmp"),
        bench.state(".aggregations.json.backstay-tmp"),
        bench.state(".refused.cfg.backstay-tmp"),
        bench.state(".journal.backstay-tmp"),
    ];
    let others = [beside(".other.cfg.backstay-tmp"), beside("haproxy.cfg.backstay-tmp"), bench.state("mine")];
    for path in left.iter().chain(&others) {
        std::fs::write(path, "x").unwrap();
    }
    drop(bench.open().await);
    assert_eq!(
        left.iter().filter(|path| path.try_exists().unwrap()).collect::<Vec<_>>(),
        Vec::<&std::path::PathBuf>::new()
    );
    assert!(others.iter().all(|path| path.try_exists().unwrap()), "what is not ours stays");
}
