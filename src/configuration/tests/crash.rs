//! Kills a process at every step of the write path and looks at what the next start makes of it.
//!
//! The process is this test binary itself, told by the environment to run `child` only.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::configuration::Status;
use crate::configuration::crash::Step;

const FOLDER: &str = "BACKSTAY_TEST_FOLDER";

fn settings(folder: &Path) -> StoreSettings {
    let mut settings = StoreSettings::new(folder.join("haproxy.cfg"), folder.join("state"));
    settings.backups_number = 2;
    settings
}

/// Notes an answer where a kill does not reach it.
fn answered(folder: &Path, line: &str) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("answers")).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

async fn change(configuration: &Configuration, folder: &Path, name: &str) {
    let version = configuration.current().version;
    let outcome = put(configuration, version, name).await.unwrap();
    answered(folder, &format!("change {name} {}", outcome.version));
}

async fn transaction(configuration: &Configuration, folder: &Path, name: &str) {
    let id = configuration.begin(configuration.current().version).await.unwrap().id;
    answered(folder, &format!("begin {id}"));
    for part in ["p", "q"] {
        put_in(configuration, &id, &format!("{name}{part}")).await.unwrap();
        answered(folder, &format!("edit {id} {name}{part}"));
    }
    let (_, outcome) = configuration.commit(&id, false).await.unwrap();
    answered(folder, &format!("commit {id} {name}p,{name}q {}", outcome.version));
}

/// Not a test by itself: the process that is killed.
#[tokio::test]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let reload = Arc::new(NotedReload::default());
    let configuration =
        Configuration::open(settings(folder), Arc::new(WordCheck::default()), reload.clone()).await.unwrap();
    let transaction_first = std::env::var("BACKSTAY_TEST_ORDER").unwrap() == "transaction";
    if std::env::var("BACKSTAY_TEST_ORDER").unwrap() == "refused" {
        for round in 0..24 {
            change(&configuration, folder, &format!("c{round}")).await;
            reload.listener().accepted(configuration.current().version).await;
            let refused = put(&configuration, configuration.current().version, "refused").await.unwrap().version;
            let refusal = Refusal { message: "no".into(), places: Vec::new() };
            assert_eq!(reload.listener().refused(refused, refusal, &AllLoad).await.taken_back, [refused]);
            answered(folder, &format!("back {}", configuration.current().version));
        }
        return;
    }
    for round in 0..12 {
        if transaction_first {
            transaction(&configuration, folder, &format!("t{round}")).await;
        }
        change(&configuration, folder, &format!("c{round}")).await;
        if !transaction_first {
            transaction(&configuration, folder, &format!("t{round}")).await;
        }
        let loaded = configuration.current().version;
        reload.listener().accepted(loaded).await;
        answered(folder, &format!("good {loaded}"));
        change(&configuration, folder, &format!("d{round}")).await;
    }
}

#[tokio::test]
async fn a_kill_at_any_step_loses_no_answered_change_and_no_version_is_used_twice() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let in_place = [Step::KeptAside, Step::HalfOverwritten, Step::Overwritten];
    let exchanged = Step::ALL.iter().filter(|step| !in_place.contains(step));
    for step in exchanged {
        let in_transactions =
            [Step::BaseWritten, Step::BeginWritten, Step::EditWritten, Step::EditSynced, Step::TransactionRemoved];
        for order in ["change", "transaction", "refused"] {
            let never = if order == "refused" { in_transactions.contains(step) } else { *step == Step::OnTrial };
            if !never {
                kill_at(step.name(), order).await;
            }
        }
    }
}

#[tokio::test]
async fn a_kill_while_the_file_is_written_in_place_is_made_good_by_the_next_start() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    for step in [Step::IntentSynced, Step::KeptAside, Step::HalfOverwritten, Step::Overwritten, Step::FolderSynced] {
        for order in ["change", "transaction", "refused"] {
            let bench = Bench::new(TEXT);
            let outside = bench.folder.path().join("outside.cfg");
            std::fs::copy(&bench.settings.file, &outside).unwrap();
            let Some(_mount) = super::disks::Mount::file(&outside, &bench.settings.file) else { return };
            kill_on(&bench, step.name(), order).await;
            assert!(!bench.state("in-place").try_exists().unwrap());
        }
    }
}

async fn kill_at(step: &str, order: &str) {
    kill_on(&Bench::new(TEXT), step, order).await;
}

async fn kill_on(bench: &Bench, step: &str, order: &str) {
    let folder = bench.folder.path();
    let configuration = Configuration::open(settings(folder), bench.check.clone(), bench.reload.clone()).await.unwrap();
    put(&configuration, 1, "before").await.unwrap();
    let waiting = configuration.begin(2).await.unwrap().id;
    put_in(&configuration, &waiting, "waiting").await.unwrap();
    drop(configuration);

    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "configuration::tests::crash::child", "--test-threads=1"])
        .env(FOLDER, folder)
        .env("BACKSTAY_TEST_ORDER", order)
        .env("BACKSTAY_CRASH_AT", step)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9), "step {step} is never reached");

    bench.reload.requested.lock().unwrap().clear();
    let configuration = Configuration::open(settings(folder), bench.check.clone(), bench.reload.clone()).await.unwrap();
    let current = configuration.current();
    let answers = std::fs::read_to_string(folder.join("answers")).unwrap_or_default();
    let (mut version, mut good) = (2, 1);
    assert!(has(&current.document, "before"));
    let mut open = Vec::new();
    for answer in answers.lines() {
        match answer.split(' ').collect::<Vec<_>>()[..] {
            ["change", name, answered] => {
                assert!(has(&current.document, name), "{step}: {answer}");
                version = answered.parse().unwrap();
            }
            ["begin", id] => open.push((id, Vec::new())),
            ["edit", _, name] => open.last_mut().unwrap().1.push(name),
            ["commit", id, names, answered] => {
                assert!(names.split(',').all(|name| has(&current.document, name)), "{step}: {answer}");
                assert!(configuration.transaction(id).is_err(), "{step}: {answer}");
                version = answered.parse().unwrap();
                open.pop();
            }
            ["back", answered] => {
                version = answered.parse().unwrap();
            }
            ["good", loaded] => good = loaded.parse().unwrap(),
            _ => unreachable!("{answer}"),
        }
    }
    // At most what was under way when the kill came: one write, or one and its way back.
    let under_way = if order == "refused" { 2 } else { 1 };
    assert!((version..=version + under_way).contains(&current.version), "{step}: {} {version}", current.version);
    assert_eq!(current.document.to_bytes(), std::fs::read(&bench.settings.file).unwrap(), "{step}");
    assert_eq!(current.document.version(), Some(current.version), "{step}");
    // A commit that was not answered is there whole, with its transaction gone, or not at all.
    for (id, names) in open {
        let applied = names.iter().filter(|name| has(&current.document, name)).count();
        match configuration.view(Some(id)) {
            Ok(view) => {
                assert_eq!(applied, 0, "{step}");
                assert!(names.iter().all(|name| has(&view.document, name)), "{step}");
            }
            Err(_) => assert_eq!(applied, 2, "{step}"),
        }
    }
    if order != "refused" {
        let is_good = current.version == good || step == Step::GoodNoted.name();
        let wanted: &[i64] = if is_good { &[] } else { &[current.version] };
        assert_eq!(*bench.reload.requested.lock().unwrap(), wanted, "{step}");
    }
    assert_eq!(leftovers(folder), Vec::<String>::new(), "{step}");

    // Life goes on, with numbers that nobody has seen.
    let waiting_view = configuration.view(Some(&waiting)).unwrap();
    assert!(has(&waiting_view.document, "waiting"), "{step}");
    if current.version > 2 {
        assert!(configuration.commit(&waiting, false).await.is_err(), "{step}");
        assert_ne!(configuration.transaction(&waiting).unwrap().status, Status::InProgress);
    }
    let next = put(&configuration, current.version, "after").await.unwrap().version;
    assert!(next > current.version, "{step}");
    let id = configuration.begin(next).await.unwrap().id;
    put_in(&configuration, &id, "later").await.unwrap();
    assert!(configuration.commit(&id, false).await.unwrap().1.version > next, "{step}");
}
