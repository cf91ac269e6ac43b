use super::*;

fn forced() -> ChangeOptions {
    ChangeOptions { force_reload: true, ..ChangeOptions::default() }
}

#[tokio::test]
async fn a_refused_reload_takes_back_the_guilty_change_only() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "good").await.unwrap();
    bench.reload.listener().accepted(2).await;
    put(&configuration, 2, "x3").await.unwrap();
    put(&configuration, 3, "x4").await.unwrap();
    let (blame, _) = bench.refuse(4, &["x3"]).await;
    assert_eq!(blame, Blame { taken_back: vec![3], loaded: true, ..Blame::default() });
    let current = configuration.current();
    assert_eq!(current.version, 5, "a new number");
    assert_eq!(bench.file(), format!("# _version=5\n{TEXT}\nbackend good\n\nbackend x4\n"));
    assert_eq!(current.document.to_bytes(), bench.file().as_bytes());
    let kept = std::fs::read_to_string(bench.state("aside/refused-1.cfg")).unwrap();
    assert!(kept.contains("x3"), "what was refused can be looked at");
    assert_eq!(bench.refuse(4, &["x3"]).await.0, Blame::default());
    drop(configuration);
    bench.reload.requested.lock().unwrap().clear();
    assert_eq!(bench.open().await.current().version, 5);
    assert_eq!(*bench.reload.requested.lock().unwrap(), Vec::<i64>::new(), "nothing is pending");
}

#[tokio::test]
async fn the_guilty_change_is_found_by_halves_also_after_a_restart() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    for version in 1..=32 {
        put(&configuration, version, &format!("x{}", version + 1)).await.unwrap();
    }
    drop(configuration);
    let configuration = bench.open().await;
    let (blame, loads) = bench.refuse(33, &["x21"]).await;
    assert_eq!(blame.taken_back, [21]);
    assert!(loads <= 5 + 2, "{loads}");
    let kept = |name: &str| has(&configuration.current().document, name);
    assert!((2..=33).all(|at| kept(&format!("x{at}")) == (at != 21)), "{}", bench.file());

    // Two at once, one of them made after the reload that was refused had begun.
    for version in 34..=41 {
        put(&configuration, version, &format!("y{}", version + 1)).await.unwrap();
    }
    let (blame, loads) = bench.refuse(38, &["y36", "y41"]).await;
    assert_eq!(blame.taken_back, [36, 41]);
    assert!(loads <= 2 * (3 + 2), "{loads}");
    assert!((35..=42).all(|at| has(&configuration.current().document, &format!("y{at}")) != [36, 41].contains(&at)));
}

#[tokio::test]
async fn what_cannot_stand_without_the_guilty_change_goes_with_it() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "x2").await.unwrap();
    let inside = |text: &str| text.replace("backend x2\n", "backend x2\n  mode tcp\n");
    let edit = |document: &Document| {
        let text = inside(&String::from_utf8(document.to_bytes()).unwrap());
        Ok((Document::parse(text.as_bytes()), ()))
    };
    configuration.change(Target::Version(2), ChangeOptions::default(), edit).await.unwrap();
    put(&configuration, 3, "x4").await.unwrap();
    let (blame, loads) = bench.refuse(4, &["x2"]).await;
    assert_eq!(blame.taken_back, [2, 3]);
    assert!(loads <= 4, "{loads}");
    assert_eq!(bench.file(), format!("# _version=5\n{TEXT}\nbackend x4\n"));
}

#[tokio::test]
async fn an_edit_by_hand_is_never_dropped() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "x2").await.unwrap();
    bench.write(&format!("{}\nbackend theirs\n", bench.file()));
    configuration.external_change().await.unwrap();
    put(&configuration, 3, "x4").await.unwrap();
    let before = bench.file();
    let (blame, _) = bench.refuse(4, &["theirs"]).await;
    assert_eq!(blame, Blame { loaded: true, edit: Some(3), left: vec![3], ..Blame::default() });
    assert_eq!((bench.file(), configuration.current().version), (before.clone(), 4));
    let told = configuration.refused_edit().unwrap();
    assert!(told.contains("edit of the configuration file by hand that is version 3"), "{told}");
    // A later change that is guilty is still told from it, and the others stay.
    put(&configuration, 4, "x5").await.unwrap();
    put(&configuration, 5, "x6").await.unwrap();
    let (blame, _) = bench.refuse(6, &["theirs", "x5"]).await;
    assert_eq!((blame.taken_back.as_slice(), blame.edit.is_some()), (&[5_i64][..], true));
    assert!(["x2", "theirs", "x4", "x6"].iter().all(|name| has(&configuration.current().document, name)));
    assert!(!bench.file().contains("x5"));
    drop(configuration);
    // However often nobody repairs it before the next start.
    for _ in 0..3 {
        bench.reload.requested.lock().unwrap().clear();
        let configuration = bench.open().await;
        assert_eq!(*bench.reload.requested.lock().unwrap(), [7], "it is tried again");
        assert!(
            configuration.refused_edit().is_some_and(|told| told.contains("is version")),
            "and told from the start"
        );
    }
    let configuration = bench.open().await;
    bench.refuse(7, &["theirs"]).await;
    drop(configuration);
    let configuration = bench.open().await;
    assert!(configuration.refused_edit().is_some());
    bench.reload.listener().version();
    bench.reload.listener().accepted(7).await;
    assert_eq!(configuration.refused_edit(), None);
}

/// Lets somebody edit the file at one of the loads, and, when told so, answers nothing from then on.
struct Hand<'a> {
    words: Words,
    at: usize,
    edit: &'a (dyn Fn(&str) -> String + Sync),
    dies: bool,
}

impl<'a> Hand<'a> {
    fn new(bench: &Bench, at: usize, edit: &'a (dyn Fn(&str) -> String + Sync)) -> Self {
        let file = bench.settings.file.clone();
        Hand { words: Words { file, refused: vec!["x5"], loads: AtomicUsize::new(0) }, at, edit, dies: false }
    }

    fn edit(&self) {
        let beside = self.words.file.with_extension("edit");
        std::fs::write(&beside, (self.edit)(&std::fs::read_to_string(&self.words.file).unwrap())).unwrap();
        std::fs::rename(beside, &self.words.file).unwrap();
    }
}

impl Load for Hand<'_> {
    fn load(&self) -> Pending<'_, Verdict> {
        let verdict = self.words.load();
        if self.words.loads.load(Ordering::SeqCst) == self.at {
            if self.dies {
                return Box::pin(std::future::pending());
            }
            self.edit();
        }
        verdict
    }
}

/// Versions 2 to 9, each with a backend of its own.
async fn eight(bench: &Bench) -> Arc<Configuration> {
    let configuration = bench.open().await;
    for version in 1..=8 {
        put(&configuration, version, &format!("x{}", version + 1)).await.unwrap();
    }
    configuration
}

async fn refused(bench: &Bench, version: i64, hand: &Hand<'_>) -> Blame {
    let refusal = Refusal { message: "no".into(), places: Vec::new() };
    bench.reload.listener().refused(version, refusal, hand).await
}

fn added(text: &str) -> String {
    format!("{text}\nbackend theirs\n")
}

async fn all_but_the_guilty_one_stay(bench: &Bench, configuration: &Configuration, at: usize) {
    let current = configuration.current();
    let all = |names: &[&str]| names.iter().all(|name| has(&configuration.current().document, name));
    let good = ["x2", "x3", "x4", "x6", "x7", "x8", "x9", "theirs"];
    assert!(all(&good), "{at}: {}", bench.file());
    assert_eq!((current.version, current.document.to_bytes()), (10, bench.file().into_bytes()), "{at}");
    assert_eq!(bench.refuse(10, &["x5"]).await.0.taken_back, [5], "{at}");
    assert!(all(&good) && !bench.file().contains("x5"), "{at}: {}", bench.file());
}

#[tokio::test]
async fn an_edit_of_a_text_on_trial_is_made_in_the_configuration() {
    for at in 1..=4 {
        let bench = Bench::new(TEXT);
        let configuration = eight(&bench).await;
        let hand = Hand::new(&bench, at, &added);
        let blame = refused(&bench, 9, &hand).await;
        assert!(blame.pending.is_some_and(|why| why.contains("edited by someone else")), "{at}");
        assert!(bench.file().contains("x5"), "the search begins anew");
        all_but_the_guilty_one_stay(&bench, &configuration, at).await;
    }
}

#[tokio::test]
async fn an_edit_of_a_text_on_trial_after_a_kill_is_made_in_the_configuration() {
    for at in 1..=4 {
        let bench = Bench::new(TEXT);
        let configuration = eight(&bench).await;
        let hand = Hand { dies: true, ..Hand::new(&bench, at, &added) };
        let died = tokio::time::timeout(Duration::from_secs(10), async {
            while hand.words.loads.load(Ordering::SeqCst) < at {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        tokio::select! {
            _ = refused(&bench, 9, &hand) => unreachable!("it never answers"),
            died = died => died.unwrap(),
        }
        drop(configuration);
        hand.edit();
        let configuration = bench.open().await;
        assert_eq!(*bench.reload.requested.lock().unwrap().last().unwrap(), 10);
        all_but_the_guilty_one_stay(&bench, &configuration, at).await;
    }
}

#[tokio::test]
async fn an_edit_of_a_text_on_trial_that_does_not_fit_is_kept_and_told() {
    let bench = Bench::new(TEXT);
    let configuration = eight(&bench).await;
    let before = bench.file();
    // The text on trial lacks this one, the configuration has another.
    let other = |text: &str| format!("{text}\nbackend x8\n  mode tcp\n");
    let hand = Hand::new(&bench, 1, &other);
    assert!(refused(&bench, 9, &hand).await.pending.is_some());
    assert_eq!((bench.file(), configuration.current().version), (before.clone(), 9));
    let told = configuration.refused_edit().unwrap();
    let kept = told.split("kept as ").nth(1).unwrap();
    assert!(std::fs::read_to_string(kept).unwrap().contains("mode tcp"), "{told}");
    // The same text written once more is no edit.
    let same = |text: &str| text.to_owned();
    let hand = Hand::new(&bench, 1, &same);
    refused(&bench, 9, &hand).await;
    assert_eq!((bench.file(), configuration.current().version), (before, 9));
}

#[tokio::test]
async fn nothing_is_taken_back_when_no_change_is_to_blame() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    for version in 1..=8 {
        put(&configuration, version, &format!("x{}", version + 1)).await.unwrap();
    }
    let before = bench.file();
    let (blame, loads) = bench.refuse(9, &["global"]).await;
    assert!(blame.pending.unwrap().contains("also the configuration that it loaded before"));
    assert!(loads <= 6, "{loads}");
    assert_eq!((bench.file(), configuration.current().version), (before, 9));
    let unproven = bench.refuse(9, &["x5"]).await.0.taken_back;
    assert_eq!(unproven, [5], "it can still be found");
}

#[tokio::test]
async fn the_first_reload_that_is_refused_goes_back_to_the_file_of_the_start() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    put(&configuration, 1, "x2").await.unwrap();
    drop(configuration);
    let configuration = bench.open().await;
    assert_eq!(bench.refuse(2, &["x2"]).await.0.taken_back, [2]);
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
    let good = std::fs::read_to_string(bench.state("last-good.cfg")).unwrap();
    assert_eq!(good, format!("# _version=2\n{TEXT}\nbackend x2\n"));
    assert_eq!(bench.refuse(40, &["x3"]).await.0.taken_back, [3]);
    assert!(has(&configuration.current().document, "x40"));
}

#[tokio::test]
async fn force_reload_answers_what_haproxy_says() {
    let bench = Bench::new(TEXT);
    let configuration = bench.open().await;
    let (_, outcome) = configuration.change(Target::Version(1), forced(), add("b2")).await.unwrap();
    assert_eq!(outcome, Outcome { version: 2, reloaded: true, ..Outcome::default() });
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
    assert_eq!(bench.refuse(1, &[]).await.0, Blame::default());
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
