//! A client that writes all kinds of things in all ways, and remembers what it was told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value as Json, json};

use super::kinds::{Guard, KINDS, Kind, SPOE_FILE, server_line};
use super::ledger::{Change, Found, Key, Ledger};
use super::{Promise, looks_at};
use crate::support::client::{Client, Refusal, Success};

/// How many things of each kind a writer has.
pub(super) const NAMES: usize = 3;

/// A call that is not answered within this is given up.
const PATIENCE: Duration = Duration::from_secs(12);

/// The gRPC code.
const UNAVAILABLE: i64 = 14;

/// Nothing is answered any more.
struct Gone;

/// What became of a call.
enum Answer {
    Done(Json),
    /// Nothing was changed, and it may be tried again.
    Again,
    /// It may have been done or not.
    Doubtful(String),
    Gone,
}

/// A client.
pub(super) struct Writer {
    number: usize,
    random: StdRng,
    /// The number of the next content; each is written once only.
    serial: u32,
    pub(super) ledger: Ledger,
    /// Answers that should not be.
    pub(super) faults: Vec<String>,
    /// The highest version of the configuration that was acknowledged.
    pub(super) version: i64,
    /// Transactions that were begun and neither committed nor deleted.
    pub(super) open: Vec<String>,
}

impl Writer {
    pub(super) fn new(number: usize, seed: u64, ledger: Ledger) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64));
        Writer { number, random, serial: 1, ledger, faults: Vec::new(), version: 0, open: Vec::new() }
    }

    /// Those things that are its own.
    pub(super) fn share(&self, found: &Found) -> Found {
        let own = |name: &str| {
            name.strip_prefix('w').and_then(|rest| rest.split_once('n')?.0.parse().ok()) == Some(self.number)
        };
        found.iter().filter(|(key, _)| own(&key.name)).map(|(key, value)| (key.clone(), *value)).collect()
    }

    /// Writes until it is told to end, or nobody answers.
    pub(super) async fn run(mut self, clients: [Client; 2], stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            let client = &clients[self.random.random_range(0..clients.len())];
            let done = match self.random.random_range(0..20) {
                0..3 => self.transaction(client).await,
                3..5 => self.raw(client).await,
                5..7 => self.spoe_transaction(client).await,
                7 => self.begin(client).await,
                _ => self.single(client).await,
            };
            if done.is_err() {
                break;
            }
        }
        self
    }

    /// What a thing becomes next.
    fn next(&mut self, kind: &Kind) -> Option<(Key, Option<u32>)> {
        let name = format!("w{}n{}", self.number, self.random.random_range(0..NAMES));
        let key = Key { kind: kind.name, name };
        if self.ledger.is_doubtful(&key) {
            return None;
        }
        self.serial += 1;
        let keeps = self.ledger.value(&key).is_none() || self.random.random_bool(0.7);
        let content = kind.contents.map_or(self.serial, |contents| 1 + self.serial % contents);
        Some((key, keeps.then_some(content)))
    }

    /// One change, by itself.
    async fn single(&mut self, client: &Client) -> Result<(), Gone> {
        let kind = &KINDS[self.random.random_range(0..KINDS.len())];
        if !looks_at(kind.promise) {
            return Ok(());
        }
        let Some((key, new)) = self.next(kind) else { return Ok(()) };
        let old = self.ledger.value(&key);
        let mut target = json!({});
        if kind.guard != Guard::Nothing {
            target["version"] = self.current(client, kind.guard).await?;
        }
        let forced = kind.guard == Guard::Configuration && self.random.random_bool(0.1);
        if forced {
            target["force_reload"] = json!(true);
        }
        let what = (&*key.name, old, new);
        let result = patiently(kind.write(client, what, &target)).await;
        let answer = match result {
            // Nobody is there to ask, or nobody knows.
            Err(refusal)
                if kind.promise == Promise::Runtime
                    && (refusal.status == 500 || refusal.code == UNAVAILABLE && !refusal.reason.is_empty()) =>
            {
                Answer::Doubtful(format!("{refusal:?}"))
            }
            result => self.answer(kind.name, result),
        };
        self.note(vec![(key, new)], answer, &format!("{:?}, {target}", client.transport))
    }

    /// Several changes that belong together.
    async fn transaction(&mut self, client: &Client) -> Result<(), Gone> {
        let Some((id, version)) = self.begun(client).await? else { return Ok(()) };
        let target = json!({"transaction_id": id});
        let mut change = Change::new();
        for _ in 0..4 {
            let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.guard == Guard::Configuration).collect();
            let kind = kinds[self.random.random_range(0..kinds.len())];
            let Some((key, new)) = self.next(kind) else { continue };
            if change.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let what = (&*key.name, self.ledger.value(&key), new);
            match self.answer("in a transaction", patiently(kind.write(client, what, &target)).await) {
                Answer::Done(_) => change.push((key, new)),
                Answer::Gone => return Err(Gone),
                Answer::Again | Answer::Doubtful(_) => {}
            }
        }
        let commit = json!({"id": id, "force_reload": self.random.random_bool(0.2)});
        let result = patiently(call(client, "TransactionService.CommitTransaction", &commit)).await;
        let answer = self.answer("commit", result);
        self.note(change, answer, &format!("{:?}, transaction {id} of version {version}", client.transport))
    }

    /// A transaction that stays open.
    async fn begin(&mut self, client: &Client) -> Result<(), Gone> {
        if self.open.len() < 2
            && let Some((id, _)) = self.begun(client).await?
        {
            self.open.push(id);
        }
        Ok(())
    }

    async fn begun(&mut self, client: &Client) -> Result<Option<(String, Json)>, Gone> {
        let version = self.current(client, Guard::Configuration).await?;
        let result = patiently(call(client, "TransactionService.BeginTransaction", &json!({"version": version}))).await;
        match self.answer("begin", result) {
            Answer::Done(message) => {
                let transaction = if message["transaction"].is_object() { &message["transaction"] } else { &message };
                Ok(transaction["id"].as_str().map(|id| (id.to_owned(), version)))
            }
            Answer::Again | Answer::Doubtful(_) => Ok(None),
            Answer::Gone => Err(Gone),
        }
    }

    /// Changes of the whole text.
    async fn raw(&mut self, client: &Client) -> Result<(), Gone> {
        let Some(kind) = KINDS.iter().find(|kind| kind.name == "raw servers") else { return Ok(()) };
        // First the version, so that a text that is newer than it is refused.
        let version = self.current(client, Guard::Configuration).await?;
        let result = patiently(call(client, "RawConfigurationService.GetRawConfiguration", &json!({}))).await;
        let Answer::Done(message) = self.answer("raw read", result) else { return Err(Gone) };
        let mut text = message["data"].as_str().unwrap_or_default().to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut change = Change::new();
        for _ in 0..NAMES {
            let Some((key, new)) = self.next(kind) else { continue };
            if change.iter().any(|(other, _)| *other == key) {
                continue;
            }
            if let Some(old) = self.ledger.value(&key) {
                text = text.replace(&server_line(&key.name, old), "");
            }
            let line = new.map_or(String::new(), |value| server_line(&key.name, value));
            text = text.replace("\nbackend raw\n", &format!("\nbackend raw\n{line}"));
            change.push((key, new));
        }
        let push = json!({"data": text, "version": version, "force_reload": self.random.random_bool(0.1)});
        let result = patiently(call(client, "RawConfigurationService.PushRawConfiguration", &push)).await;
        let answer = self.answer("raw", result);
        self.note(change, answer, &format!("{:?}, raw over version {version}", client.transport))
    }

    /// Changes of a SPOE file that belong together.
    async fn spoe_transaction(&mut self, client: &Client) -> Result<(), Gone> {
        let Some(kind) = KINDS.iter().find(|kind| kind.guard == Guard::Spoe) else { return Ok(()) };
        let version = self.current(client, Guard::Spoe).await?;
        let begin = json!({"spoe": SPOE_FILE, "version": version});
        let result = patiently(call(client, "SpoeTransactionService.BeginSpoeTransaction", &begin)).await;
        let id = match self.answer("begin of SPOE", result) {
            Answer::Done(message) => message["spoe_transaction"]["id"].clone(),
            Answer::Again | Answer::Doubtful(_) => return Ok(()),
            Answer::Gone => return Err(Gone),
        };
        let target = json!({"transaction_id": id});
        let mut change = Change::new();
        for _ in 0..NAMES {
            let Some((key, new)) = self.next(kind) else { continue };
            if change.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let what = (&*key.name, self.ledger.value(&key), new);
            match self.answer("in a transaction of SPOE", patiently(kind.write(client, what, &target)).await) {
                Answer::Done(_) => change.push((key, new)),
                Answer::Gone => return Err(Gone),
                Answer::Again | Answer::Doubtful(_) => {}
            }
        }
        let commit = json!({"spoe": SPOE_FILE, "id": id});
        let result = patiently(call(client, "SpoeTransactionService.CommitSpoeTransaction", &commit)).await;
        let answer = self.answer("commit of SPOE", result);
        self.note(change, answer, &format!("{:?}, SPOE transaction {id} of version {version}", client.transport))
    }

    /// The version that guards changes.
    async fn current(&mut self, client: &Client, guard: Guard) -> Result<Json, Gone> {
        let spoe = json!({"spoe": SPOE_FILE});
        let (method, request) = match guard {
            Guard::Spoe => ("SpoeFileService.GetSpoeVersion", &spoe),
            _ => ("RawConfigurationService.GetVersion", &json!({})),
        };
        match self.answer("version", patiently(call(client, method, request)).await) {
            Answer::Done(message) => Ok(message["version"].clone()),
            _ => Err(Gone),
        }
    }

    /// What an answer means. A refusal that is nobody's doing is a fault.
    fn answer(&mut self, what: &str, result: Result<Json, Refusal>) -> Answer {
        let refusal = match result {
            Ok(message) => return Answer::Done(message),
            Err(refusal) => refusal,
        };
        if refusal.status == 0 && refusal.reason.is_empty() {
            return Answer::Gone;
        }
        let other_version = ["VERSION_MISMATCH", "TRANSACTION_OUTDATED", "TRANSACTION_LIMIT"];
        let text = &refusal.text;
        if other_version.contains(&&*refusal.reason)
            || matches!(refusal.status, 406 | 429)
            || (refusal.status == 409 && text.contains("version"))
        {
            return Answer::Again;
        }
        if ["RELOAD_FAILED", "RUNTIME_UNAVAILABLE"].contains(&&*refusal.reason) || text.contains("reload") {
            return Answer::Doubtful(format!("{refusal:?}"));
        }
        self.faults.push(format!("{what}: an answer that should not be: {refusal:?}"));
        Answer::Doubtful(format!("{refusal:?}"))
    }

    fn note(&mut self, change: Change, answer: Answer, how: &str) -> Result<(), Gone> {
        match answer {
            Answer::Done(message) => {
                let of_configuration = |(key, _): &(Key, Option<u32>)| {
                    KINDS.iter().any(|kind| kind.name == key.kind && kind.guard == Guard::Configuration)
                };
                if change.iter().all(of_configuration) {
                    self.version = self.version.max(message["version"].as_i64().unwrap_or_default());
                }
                self.ledger.done(&change, how);
            }
            Answer::Again => {}
            Answer::Doubtful(why) => self.ledger.doubt(change, &format!("{how}: {why}")),
            Answer::Gone => {
                self.ledger.doubt(change, &format!("{how}: no answer"));
                return Err(Gone);
            }
        }
        Ok(())
    }
}

async fn call(client: &Client, name: &str, request: &Json) -> Result<Json, Refusal> {
    client.call(name, request).await.map(|Success { message, .. }| message)
}

/// Silence counts as no answer.
async fn patiently(call: impl Future<Output = Result<Json, Refusal>>) -> Result<Json, Refusal> {
    let silence = || Refusal {
        status: 0,
        code: 0,
        reason: String::new(),
        text: format!("no answer within {PATIENCE:?}"),
        fields: Vec::new(),
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(silence()))
}
