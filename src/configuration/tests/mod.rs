//! The store against a fake check and a fake reload queue, on real files.

mod changes;
mod crash;
mod disks;
mod external;
mod raw;
mod reloads;
mod transactions;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ports::{Blame, Check, Load, Pending, Refusal, Reload, ReloadListener, Verdict, Warning};
use super::{ChangeOptions, Configuration, Outcome, StoreSettings, Target};
use crate::document::Document;
use crate::error::{Error, Reason, Result};

pub(super) const TEXT: &str = "global\n  daemon\n\nbackend b1\n  mode http\n";

/// Refuses every text with the word `bad`.
#[derive(Default)]
pub(super) struct WordCheck {
    pub(super) checked: AtomicUsize,
    /// Nothing can be checked while it is set.
    pub(super) away: AtomicBool,
    /// When set, checks wait here for one another.
    pub(super) barrier: Mutex<Option<Arc<tokio::sync::Barrier>>>,
}

impl Check for WordCheck {
    fn check<'a>(&'a self, candidate: &'a [u8], _label: &'a str, _user: &'a str) -> Pending<'a, Result<Vec<Warning>>> {
        Box::pin(async move {
            self.checked.fetch_add(1, Ordering::SeqCst);
            if self.away.load(Ordering::SeqCst) {
                return Err(Error::new(Reason::Internal, "no check"));
            }
            let barrier = self.barrier.lock().unwrap().clone();
            if let Some(barrier) = barrier {
                barrier.wait().await;
            }
            if String::from_utf8_lossy(candidate).split_whitespace().any(|word| word == "bad") {
                return Err(Error::new(Reason::ConfigurationRejected, "bad word").detail("line 1"));
            }
            let lines = String::from_utf8_lossy(candidate)
                .lines()
                .enumerate()
                .map(|(at, line)| (at + 1, line.to_owned()))
                .collect::<Vec<_>>();
            let odd = lines.into_iter().filter(|(_, line)| line.contains("odd"));
            Ok(odd.map(|(at, line)| Warning { line: Some(at), section: None, text: None, words: line }).collect())
        })
    }
}

/// Notes what is asked for; results are told by the test.
#[derive(Default)]
pub(super) struct NotedReload {
    pub(super) requested: Mutex<Vec<i64>>,
    pub(super) forced: Mutex<Vec<i64>>,
    pub(super) listener: Mutex<Option<Arc<dyn ReloadListener>>>,
    /// What HAProxy says when it is forced: nothing, "refused", "away" or, for ever nothing, "never".
    pub(super) answer: Mutex<&'static str>,
}

impl NotedReload {
    pub(super) fn listener(&self) -> Arc<dyn ReloadListener> {
        self.listener.lock().unwrap().clone().unwrap()
    }
}

impl Reload for NotedReload {
    fn request(&self, version: i64) -> String {
        self.requested.lock().unwrap().push(version);
        format!("r{version}")
    }

    fn force(&self, version: i64) -> Pending<'_, Result<()>> {
        Box::pin(async move {
            self.forced.lock().unwrap().push(version);
            let answer = *self.answer.lock().unwrap();
            match answer {
                "refused" => {
                    let refusal = Refusal { message: "no".into(), places: Vec::new() };
                    let taken = self.listener().refused(version, refusal, &AllLoad).await.taken_back;
                    Err(Error::new(Reason::ReloadFailed, format!("refused, took back {taken:?}")))
                }
                "never" => std::future::pending().await,
                "away" => Err(Error::new(Reason::ReloadFailed, "nothing runs").with("pending", true)),
                _ => {
                    self.listener().accepted(version).await;
                    Ok(())
                }
            }
        })
    }

    fn listen(&self, listener: Arc<dyn ReloadListener>) {
        *self.listener.lock().unwrap() = Some(listener);
    }
}

/// Loads every text.
pub(super) struct AllLoad;

impl Load for AllLoad {
    fn load(&self) -> Pending<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Loaded))
    }
}

/// Refuses to load files with one of these words, and counts.
pub(super) struct Words {
    pub(super) file: std::path::PathBuf,
    pub(super) refused: Vec<&'static str>,
    pub(super) loads: AtomicUsize,
}

impl Load for Words {
    fn load(&self) -> Pending<'_, Verdict> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let text = std::fs::read_to_string(&self.file).unwrap();
        let found = self.refused.iter().find(|word| text.split_whitespace().any(|other| other == **word));
        Box::pin(std::future::ready(match found {
            Some(word) => Verdict::Refused(Refusal { message: format!("no {word}"), places: Vec::new() }),
            None => Verdict::Loaded,
        }))
    }
}

/// A configuration in a folder of its own.
pub(super) struct Bench {
    pub(super) folder: tempfile::TempDir,
    pub(super) settings: StoreSettings,
    pub(super) check: Arc<WordCheck>,
    pub(super) reload: Arc<NotedReload>,
    pub(super) now: Arc<AtomicU64>,
}

impl Bench {
    pub(super) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let now = Arc::new(AtomicU64::new(1_000_000));
        let mut settings = StoreSettings::new(&file, folder.path().join("state"));
        let clock = now.clone();
        settings.clock = Arc::new(move || clock.load(Ordering::SeqCst));
        settings.settle = Duration::from_millis(20);
        settings.watch_interval = Duration::from_millis(20);
        Bench { folder, settings, check: Arc::default(), reload: Arc::default(), now }
    }

    pub(super) async fn open(&self) -> Arc<Configuration> {
        Configuration::open(self.settings.clone(), self.check.clone(), self.reload.clone()).await.unwrap()
    }

    /// HAProxy refuses a version, and each text with one of these words. What came of it, and how many loads it took.
    pub(super) async fn refuse(&self, version: i64, refused: &[&'static str]) -> (Blame, usize) {
        let loads = Words { file: self.settings.file.clone(), refused: refused.to_vec(), loads: AtomicUsize::new(0) };
        let refusal = Refusal { message: "no".into(), places: Vec::new() };
        let blame = self.reload.listener().refused(version, refusal, &loads).await;
        (blame, loads.loads.load(Ordering::SeqCst))
    }

    pub(super) fn file(&self) -> String {
        std::fs::read_to_string(&self.settings.file).unwrap()
    }

    pub(super) fn write(&self, text: &str) {
        std::fs::write(&self.settings.file, text).unwrap();
    }

    pub(super) fn state(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("state").join(name)
    }
}

/// Adds a backend at the end.
pub(super) fn add(name: &str) -> impl FnOnce(&Document) -> Result<(Document, usize)> + Send {
    let added = format!("\nbackend {name}\n");
    move |document| {
        let text = [document.to_bytes(), added.into_bytes()].concat();
        let document = Document::parse(&text);
        let count = document.sections().len();
        Ok((document, count))
    }
}

pub(super) async fn put(configuration: &Configuration, version: i64, name: &str) -> Result<Outcome> {
    let changed = configuration.change(Target::Version(version), ChangeOptions::default(), add(name)).await;
    changed.map(|(_, outcome)| outcome)
}

pub(super) async fn put_in(configuration: &Configuration, id: &str, name: &str) -> Result<Outcome> {
    let changed = configuration.change(Target::Transaction(id), ChangeOptions::default(), add(name)).await;
    changed.map(|(_, outcome)| outcome)
}

pub(super) fn has(document: &Document, name: &str) -> bool {
    document.find("backend", name).is_some()
}

/// Names of everything below a folder that looks like a leftover.
pub(super) fn leftovers(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(leftovers(&path));
        } else if path.to_string_lossy().ends_with("tmp") {
            found.push(path.display().to_string());
        }
    }
    found
}
