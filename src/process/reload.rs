//! The reload queue: one pending reload at most, run after the delay or at once when forced.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::numbers::Numbers;
use super::report;
use super::strategy::{Outcome, Reloader};
use super::timeline::{AWAY_LIMIT, FAILING_LIMIT, Now, Record, Status, Timeline, number_of};
use crate::configuration::ports::{Blame, Load, Pending, Refusal, Reload, ReloadListener, Verdict};
use crate::configuration::replace_durably;
use crate::error::{Error, Reason, Result};

/// Results that a slow subscriber may be behind before it misses some.
const EVENTS: usize = 64;

/// Forced reloads that wait for the running one; more callers wait to get in.
const FORCED: usize = 64;

/// When reloads are run and how long their results are kept.
#[derive(Debug, Clone)]
pub struct ReloadOptions {
    /// Wait between a request and its reload, in which other requests join it. 5 s by default.
    pub delay: Duration,
    /// How long failed reloads are kept. One day by default.
    pub retention: Duration,
    /// How long the caller of a forced reload waits before it is told that the reload is pending. 8 s by default.
    pub patience: Duration,
    /// Where it is kept which number the next reload gets; without a file they begin at 0 with each process.
    pub numbers: Option<PathBuf>,
    /// Where failed reloads are kept for the next process; without a file they are forgotten at the end.
    pub failures: Option<PathBuf>,
}

impl Default for ReloadOptions {
    fn default() -> Self {
        let (delay, patience) = (Duration::from_secs(5), Duration::from_secs(8));
        ReloadOptions { delay, retention: Duration::from_hours(24), patience, numbers: None, failures: None }
    }
}

/// Who waits for a forced reload.
struct Waiter {
    /// What it wrote.
    version: i64,
    tell: oneshot::Sender<Result<()>>,
}

/// A reload that HAProxy did not take, or not as a whole.
struct Failure {
    error: Error,
    /// What HAProxy does not run, where it runs the rest.
    lacking: Option<Vec<i64>>,
}

impl Failure {
    /// What becomes of the change that is `version`.
    fn of(&self, version: i64) -> Result<()> {
        match &self.lacking {
            Some(lacking) if !lacking.contains(&version) => Ok(()),
            _ => Err(self.error.clone()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, lacking: None }
    }
}

/// The reload queue. `run` must be spawned once; requests made before are not lost.
pub struct ReloadQueue {
    timeline: Mutex<Timeline>,
    started: Instant,
    wake: Notify,
    forces: mpsc::Sender<Waiter>,
    forced: Mutex<Option<mpsc::Receiver<Waiter>>>,
    listener: OnceLock<Arc<dyn ReloadListener>>,
    events: broadcast::Sender<Record>,
    reloader: Arc<dyn Reloader>,
    under_way: AtomicBool,
    patience: Duration,
    failures: Option<PathBuf>,
    /// What is to be said of the last reload that counts as done.
    warning: Mutex<Option<String>>,
}

impl ReloadQueue {
    /// A queue that reloads by `reloader`.
    pub fn new(options: ReloadOptions, reloader: Arc<dyn Reloader>) -> Arc<Self> {
        let (forces, forced) = mpsc::channel(FORCED);
        let mut timeline = Timeline::new(options.delay, options.retention, Numbers::open(options.numbers));
        let kept = options.failures.as_ref().and_then(|file| std::fs::read(file).ok());
        if let Some(failed) = kept.and_then(|text| serde_json::from_slice(&text).ok()) {
            timeline.restore(Now { since: Duration::ZERO, unix: jiff::Timestamp::now().as_second() }, failed);
        }
        Arc::new(ReloadQueue {
            timeline: Mutex::new(timeline),
            started: Instant::now(),
            wake: Notify::new(),
            forces,
            forced: Mutex::new(Some(forced)),
            listener: OnceLock::new(),
            under_way: AtomicBool::new(false),
            events: broadcast::channel(EVENTS).0,
            reloader,
            patience: options.patience,
            failures: options.failures,
            warning: Mutex::new(None),
        })
    }

    /// Failed reloads that are kept, the last success, the running and the pending one.
    pub fn list(&self) -> Vec<Record> {
        self.timeline().list()
    }

    /// One reload. `INVALID_FIELD` for an id that is not `YYYY-MM-DD-<n>`, `OBJECT_NOT_FOUND` for an unknown one.
    pub fn get(&self, id: &str) -> Result<Record> {
        if number_of(id).is_none() {
            return Err(Error::invalid(vec![crate::error::Violation {
                field: "id".to_owned(),
                message: r"should match '^\d{4}-\d{2}-\d{2}-\d+$'".to_owned(),
                code: 605,
                location: "path",
            }]));
        }
        self.timeline().get(id).ok_or_else(|| {
            Error::new(Reason::ObjectNotFound, format!("reload with id {id} does not exist")).with("id", id)
        })
    }

    /// What every answer should say as well: that nobody knows whether the last reload was done. `None` when all is well.
    pub fn warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is not as it should be with reloads, a sentence each.
    pub fn concerns(&self) -> Vec<String> {
        let timeline = self.timeline();
        let deferred = timeline.deferred().map(|(id, why)| format!("reload {id} is pending: {why}"));
        deferred.chain(self.warning()).collect()
    }

    /// Id of the reload that is pending, if any.
    pub fn pending(&self) -> Option<String> {
        self.timeline().pending().map(str::to_owned)
    }

    /// Changes of state from now on: every reload when it starts, ends, or is put off.
    pub fn subscribe(&self) -> broadcast::Receiver<Record> {
        self.events.subscribe()
    }

    /// Runs reloads until `stop`; one that runs then is finished first. A second call returns at once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut forced) = self.forced.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        loop {
            let due = self.timeline().due().map(|due| self.started + due);
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(first) = forced.recv() => {
                    // All who wait are served by one reload: it loads what each of them has written.
                    let mut waiters = vec![first];
                    while let Ok(next) = forced.try_recv() {
                        waiters.push(next);
                    }
                    let result = self.reload().await;
                    for waiter in waiters {
                        let told = result.as_ref().map_or_else(|failure| failure.of(waiter.version), |()| Ok(()));
                        if waiter.tell.send(told).is_err() {
                            tracing::debug!("the caller of a forced reload is gone");
                        }
                    }
                }
                () = wait => {
                    if let Err(Failure { error, .. }) = self.reload().await {
                        tracing::warn!(%error, "reload");
                    }
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Runs the pending reload.
    async fn reload(&self) -> std::result::Result<(), Failure> {
        let id = {
            let mut timeline = self.timeline();
            timeline.expect(self.now(), &today());
            timeline.start(self.now()).unwrap_or_default()
        };
        self.tell(self.timeline().get(&id));
        let listener = self.listener.get();
        self.under_way.store(true, Ordering::SeqCst);
        let version = listener.map_or(0, |l| l.version());
        let mut outcome = self.reloader.reload().await;
        self.under_way.store(false, Ordering::SeqCst);
        if let (Outcome::NotDone(why), Some(listener)) = (&outcome, listener)
            && let Some(said) = listener.refusal(version).await
        {
            outcome = Outcome::Refused(format!("{said}\n{why}"));
        }
        match outcome {
            Outcome::Done(response) => self.done(version, &id, response, None).await,
            Outcome::Unseen(response) => {
                let warning = "the last reload ended with success, but no new worker of haproxy was seen";
                self.done(version, &id, response, Some(warning.to_owned())).await;
            }
            Outcome::Refused(message) => return Err(self.refused(version, &id, message).await),
            Outcome::NotDone(why) => return Err(self.put_off(why, FAILING_LIMIT).into()),
            Outcome::Unreachable(why) => return Err(self.put_off(why, AWAY_LIMIT).into()),
        }
        Ok(())
    }

    async fn done(&self, version: i64, id: &str, response: String, warning: Option<String>) {
        match &warning {
            None => tracing::info!(version, id, "haproxy has reloaded"),
            Some(warning) => tracing::warn!(version, id, "{warning}"),
        }
        *self.warning.lock().unwrap_or_else(PoisonError::into_inner) = warning;
        if let Some(listener) = self.listener.get() {
            listener.accepted(version).await;
        }
        let record = self.timeline().succeed(response);
        self.tell(record);
    }

    async fn refused(&self, version: i64, id: &str, message: String) -> Failure {
        let blame = match self.listener.get() {
            Some(listener) => {
                self.under_way.store(true, Ordering::SeqCst);
                let blame = listener.refused(version, refusal(message.clone()), &Loads(&*self.reloader)).await;
                self.under_way.store(false, Ordering::SeqCst);
                blame
            }
            None => Blame::default(),
        };
        if let Some(why) = blame.pending {
            return self.put_off(why, FAILING_LIMIT).into();
        }
        let lacking = blame.loaded.then(|| [&blame.taken_back[..], &blame.left[..]].concat());
        let versions = blame.taken_back.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let rest = blame.loaded.then(|| self.timeline().request(self.now(), &today()));
        let told = [
            Some(message.clone()),
            (!versions.is_empty()).then(|| format!("versions taken back: {versions}")),
            blame.edit.map(|edit| format!("the edit by hand that is version {edit} stays in the file")),
            rest.as_ref().map(|rest| format!("the rest is loaded by reload {rest}")),
        ];
        let response = told.into_iter().flatten().collect::<Vec<_>>().join("\n");
        let record = self.timeline().fail(self.now(), response, blame.taken_back);
        self.tell(record);
        self.keep_failures().await;
        if rest.is_some() {
            self.timeline().start(self.now());
            let record = self.timeline().succeed(format!("loaded after reload {id} was refused"));
            self.tell(record);
        }
        let words = report::first_alert(&message, "")
            .map_or_else(|| message.lines().next().unwrap_or_default().to_owned(), |fault| fault.message);
        let error = Error::new(Reason::ReloadFailed, format!("haproxy refused at the reload: {words}"))
            .detail(message)
            .with("versions_taken_back", versions)
            .with("reload_id", id)
            .with("rest_reload_id", rest.unwrap_or_default());
        Failure { error, lacking }
    }

    /// Keeps the failed reloads for the next process.
    async fn keep_failures(&self) {
        let Some(file) = self.failures.clone() else { return };
        let failed = self.timeline().failed();
        let keep = move || replace_durably(&file, &serde_json::to_vec(&failed).map_err(Error::internal)?, 0o600);
        let kept = tokio::task::spawn_blocking(keep).await.unwrap_or_else(|error| Err(Error::internal(error)));
        if let Err(error) = kept {
            tracing::warn!(context = error.context_text(), "a failed reload will be forgotten at the next start");
        }
    }

    /// The changes stay, and the reload is tried again.
    fn put_off(&self, why: String, limit: Duration) -> Error {
        let record = {
            let mut timeline = self.timeline();
            let id = timeline.defer(self.now(), why.clone(), limit);
            id.and_then(|id| timeline.get(&id))
        };
        let id = record.as_ref().map(|r| r.id.clone()).unwrap_or_default();
        self.tell(record);
        pending(&id, &why)
    }

    /// Nothing came of a forced reload in the time that its caller waits.
    fn overdue(&self, id: &str) -> Error {
        let why = format!("haproxy did not load it within {} s", self.patience.as_secs_f64());
        self.timeline().announce(id, &why);
        pending(id, &why)
    }

    fn tell(&self, record: Option<Record>) {
        // An error only says that nobody listens.
        if let Some(record) = record
            && self.events.send(record).is_err()
        {
            tracing::trace!("no subscriber to reloads");
        }
    }

    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now { since: self.started.elapsed(), unix: jiff::Timestamp::now().as_second() }
    }
}

fn refusal(message: String) -> Refusal {
    Refusal { places: report::places(&message), message }
}

/// Real loads, for the search for a guilty change.
struct Loads<'a>(&'a dyn Reloader);

impl Load for Loads<'_> {
    fn load(&self) -> Pending<'_, Verdict> {
        Box::pin(async {
            match self.0.reload().await {
                Outcome::Done(_) | Outcome::Unseen(_) => Verdict::Loaded,
                Outcome::Refused(message) => Verdict::Refused(refusal(message)),
                Outcome::NotDone(why) | Outcome::Unreachable(why) => Verdict::Unknown(why),
            }
        })
    }
}

/// The error for a forced reload that is still to come.
fn pending(id: &str, why: &str) -> Error {
    Error::new(Reason::ReloadFailed, format!("the change stays, and its reload {id} is pending: {why}"))
        .with("pending", true)
        .with("reload_id", id)
}

/// Today as `YYYY-MM-DD`, in UTC.
fn today() -> String {
    jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date().to_string()
}

impl Reload for ReloadQueue {
    fn request(&self, version: i64) -> String {
        let id = self.timeline().request(self.now(), &today());
        tracing::debug!(version, id, "reload requested");
        self.wake.notify_one();
        id
    }

    fn force(&self, version: i64) -> Pending<'_, Result<()>> {
        Box::pin(async move {
            let id = self.timeline().expect(self.now(), &today());
            tracing::debug!(version, id, "reload forced");
            let work = async {
                let (tell, result) = oneshot::channel();
                let stopped = || Error::internal("the reload queue has stopped");
                self.forces.send(Waiter { version, tell }).await.map_err(|_| stopped())?;
                result.await.map_err(|_| stopped())?
            };
            tokio::time::timeout(self.patience, work).await.unwrap_or_else(|_| Err(self.overdue(&id)))
        })
    }

    fn under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst)
    }

    fn listen(&self, listener: Arc<dyn ReloadListener>) {
        if self.listener.set(listener).is_err() {
            tracing::error!("the reload queue has a listener already");
        }
    }
}

impl Record {
    /// Whether it is over.
    pub fn done(&self) -> bool {
        self.status != Status::InProgress
    }
}

#[cfg(test)]
mod tests;
