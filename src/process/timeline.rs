//! The order of reloads as pure bookkeeping: what is pending, what runs, what has been. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::numbers::Numbers;

/// Failed reloads that are kept at most, whatever their age.
const FAILED_LIMIT: usize = 100;

/// First wait before a reload is tried again; it doubles.
const RETRY: Duration = Duration::from_millis(500);

/// Longest wait while nothing runs: a look costs little, and HAProxy is to be served soon after it is back.
pub const AWAY_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait when HAProxy runs and the way to reload does not work: each try may do something to it.
pub const FAILING_LIMIT: Duration = Duration::from_mins(1);

/// State of a reload, named as /v2 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Pending or running.
    InProgress,
    /// HAProxy runs the configuration.
    Succeeded,
    /// HAProxy refused the configuration.
    Failed,
}

impl Status {
    /// `in_progress`, `succeeded` or `failed`.
    pub fn name(self) -> &'static str {
        match self {
            Status::InProgress => "in_progress",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
        }
    }
}

/// A reload as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `YYYY-MM-DD-<n>`, where no n comes twice.
    pub id: String,
    /// State.
    pub status: Status,
    /// When it was run, in seconds since 1970; `None` while it is pending and for those whose details are gone.
    pub timestamp: Option<i64>,
    /// What HAProxy or the command said; for a pending one that nothing took, why.
    pub response: Option<String>,
    /// Versions of the configuration that the failed reload took back.
    pub taken_back: Vec<i64>,
}

/// A moment: since the start of the process for durations, and in seconds since 1970 for people.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Monotonic, since an arbitrary start.
    pub since: Duration,
    /// Seconds since 1970.
    pub unix: i64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    id: String,
    due: Duration,
    retry: Duration,
    why: Option<String>,
    /// Whether someone was told its id. A reload that a caller waits for is only listed when it does not succeed.
    listed: bool,
}

/// The bookkeeping.
///
/// Invariant: at most one reload is pending and at most one runs. Runs that `request` leads to are at least one delay
/// apart, so that n requests within time t cause no more than 1 + t / delay reloads.
#[derive(Debug)]
pub struct Timeline {
    delay: Duration,
    retention: Duration,
    numbers: Numbers,
    pending: Option<Waiting>,
    current: Option<(Waiting, i64)>,
    success: Option<(u64, Record)>,
    failed: VecDeque<(u64, Record)>,
}

impl Timeline {
    /// `delay` is the wait between the first request and its reload; `retention` is how long failed ones are kept.
    pub fn new(delay: Duration, retention: Duration, numbers: Numbers) -> Self {
        Timeline { delay, retention, numbers, pending: None, current: None, success: None, failed: VecDeque::new() }
    }

    /// The failed ones, oldest first.
    pub fn failed(&self) -> Vec<Record> {
        self.failed.iter().map(|(_, record)| record.clone()).collect()
    }

    /// Takes over the failed ones of an earlier process.
    pub fn restore(&mut self, now: Now, failed: Vec<Record>) {
        let numbered = failed.into_iter().filter_map(|record| Some((number_of(&record.id)?, record)));
        self.failed = numbered.collect();
        self.drop_old(now);
    }

    fn drop_old(&mut self, now: Now) {
        let oldest = now.unix - i64::try_from(self.retention.as_secs()).unwrap_or(i64::MAX / 2);
        self.failed.retain(|(_, r)| r.timestamp.is_some_and(|t| t >= oldest));
        while self.failed.len() >= FAILED_LIMIT {
            self.failed.pop_front();
        }
    }

    /// Asks for a reload: joins the pending one or makes one. `date` is today as `YYYY-MM-DD`.
    pub fn request(&mut self, now: Now, date: &str) -> String {
        let id = self.expect(now, date);
        self.list_pending();
        id
    }

    /// Asks for a reload whose caller waits for it and may never learn its id.
    pub fn expect(&mut self, now: Now, date: &str) -> String {
        if let Some(pending) = &self.pending {
            return pending.id.clone();
        }
        let number = self.numbers.take();
        let id = format!("{date}-{number}");
        let due = now.since + self.delay;
        self.pending = Some(Waiting { number, id: id.clone(), due, retry: RETRY, why: None, listed: false });
        id
    }

    /// Lists a pending or running reload from now on: a caller is told its id, and why nothing came of it so far.
    pub fn announce(&mut self, id: &str, why: &str) {
        let open = self.current.as_mut().map(|(waiting, _)| waiting).into_iter().chain(&mut self.pending);
        for waiting in open.filter(|waiting| waiting.id == id) {
            waiting.listed = true;
            waiting.why = Some(why.to_owned());
        }
    }

    fn list_pending(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.listed = true;
        }
    }

    /// When the pending reload is to be run; `None` when nothing is pending or one runs.
    pub fn due(&self) -> Option<Duration> {
        if self.current.is_some() { None } else { self.pending.as_ref().map(|p| p.due) }
    }

    /// Id of the pending reload.
    pub fn pending(&self) -> Option<&str> {
        self.pending.as_ref().map(|p| p.id.as_str())
    }

    /// Makes the pending reload the running one. Its id, `None` when nothing is pending.
    pub fn start(&mut self, now: Now) -> Option<String> {
        let pending = self.pending.take()?;
        let id = pending.id.clone();
        self.current = Some((pending, now.unix));
        Some(id)
    }

    /// The running reload did its work.
    pub fn succeed(&mut self, response: String) -> Option<Record> {
        let (waiting, started) = self.current.take()?;
        let record = record(waiting.id, Status::Succeeded, Some(started), Some(response));
        if waiting.listed {
            self.success = Some((waiting.number, record.clone()));
        }
        Some(record)
    }

    /// HAProxy refused at the running reload.
    pub fn fail(&mut self, now: Now, response: String, taken_back: Vec<i64>) -> Option<Record> {
        let (waiting, started) = self.current.take()?;
        let mut record = record(waiting.id, Status::Failed, Some(started), Some(response));
        record.taken_back = taken_back;
        self.drop_old(now);
        self.failed.push_back((waiting.number, record.clone()));
        Some(record)
    }

    /// The running reload was not done: it is pending again, under its id, and takes over a newer pending one. It is
    /// tried again after a wait that doubles up to `limit`.
    pub fn defer(&mut self, now: Now, why: String, limit: Duration) -> Option<String> {
        let (mut waiting, _) = self.current.take()?;
        let wait = waiting.retry.min(limit);
        waiting.due = now.since + wait;
        waiting.retry = wait * 2;
        waiting.why = Some(why);
        waiting.listed = true;
        // A newer one was promised to a caller as well: it keeps its id, and the older one is done with it.
        if let Some(newer) = &mut self.pending {
            newer.due = waiting.due;
            newer.retry = waiting.retry;
            newer.why = waiting.why;
            newer.listed = true;
            return Some(newer.id.clone());
        }
        let id = waiting.id.clone();
        self.pending = Some(waiting);
        Some(id)
    }

    /// Why the open reloads are not done yet, with their ids, as far as they were tried.
    pub fn deferred(&self) -> impl Iterator<Item = (&str, &str)> {
        let open = self.current.iter().map(|(waiting, _)| waiting).chain(&self.pending);
        open.filter_map(|waiting| Some((waiting.id.as_str(), waiting.why.as_deref()?)))
    }

    /// Failed ones, the last success, the running and the pending one.
    pub fn list(&self) -> Vec<Record> {
        let failed = self.failed.iter().map(|(_, r)| r.clone());
        let success = self.success.iter().map(|(_, r)| r.clone());
        failed.chain(success).chain(self.open(|waiting| waiting.listed)).collect()
    }

    /// One of them, or one that is older than the last success and so is covered by it.
    pub fn get(&self, id: &str) -> Option<Record> {
        let unlisted = self.open(|_| true);
        if let Some(found) = self.list().into_iter().chain(unlisted).find(|r| r.id == id) {
            return Some(found);
        }
        let number: u64 = number_of(id)?;
        let (last, _) = self.success.as_ref()?;
        (number < *last).then(|| record(id.to_owned(), Status::Succeeded, None, None))
    }

    fn open(&self, wanted: fn(&Waiting) -> bool) -> impl Iterator<Item = Record> {
        let current = self.current.iter().map(|(waiting, at)| (waiting, Some(*at)));
        let pending = self.pending.iter().map(|waiting| (waiting, None));
        let open = current.chain(pending).filter(move |(waiting, _)| wanted(waiting));
        open.map(|(w, at)| record(w.id.clone(), Status::InProgress, at, w.why.clone()))
    }
}

fn record(id: String, status: Status, timestamp: Option<i64>, response: Option<String>) -> Record {
    Record { id, status, timestamp, response, taken_back: Vec::new() }
}

/// The number of an id `YYYY-MM-DD-<n>`; `None` for anything else.
pub fn number_of(id: &str) -> Option<u64> {
    let mut parts = id.split('-');
    for width in [4, 2, 2] {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    }
    let number = parts.next()?;
    if parts.next().is_some() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "2026-11-24";

    fn at(ms: u64) -> Now {
        Now { since: Duration::from_millis(ms), unix: 1_000_000 + (ms / 1000) as i64 }
    }

    fn timeline(delay_ms: u64) -> Timeline {
        Timeline::new(Duration::from_millis(delay_ms), Duration::from_hours(24), Numbers::default())
    }

    #[test]
    fn writes_join_the_pending_reload_and_ids_count_up() {
        let mut t = timeline(5000);
        assert_eq!(t.request(at(0), DAY), "2026-11-24-0");
        assert_eq!(t.request(at(4000), DAY), "2026-11-24-0");
        assert_eq!(t.due(), Some(Duration::from_secs(5)));
        assert_eq!(t.start(at(5000)).as_deref(), Some("2026-11-24-0"));
        assert_eq!(t.request(at(5001), "2026-11-25"), "2026-11-25-1");
        assert_eq!(t.due(), None, "one runs");
        t.succeed("ok".into());
        assert_eq!(t.due(), Some(Duration::from_millis(10_001)));
        let list = t.list();
        assert_eq!(list.iter().map(|r| r.status.name()).collect::<Vec<_>>(), ["succeeded", "in_progress"]);
        assert_eq!(list[0].timestamp, Some(1_000_005));
        assert_eq!(list[1].timestamp, None);
    }

    #[test]
    fn a_burst_costs_no_more_than_one_reload_a_delay() {
        let mut t = timeline(1000);
        let mut reloads = 0;
        for ms in 0..10_000 {
            if t.due().is_some_and(|due| due <= at(ms).since) {
                t.start(at(ms));
                t.succeed(String::new());
                reloads += 1;
            }
            t.request(at(ms), DAY);
        }
        assert!((9..=11).contains(&reloads), "{reloads}");
    }

    #[test]
    fn a_reload_that_nothing_takes_stays_pending_and_backs_off() {
        let mut t = timeline(100);
        let id = t.request(at(0), DAY);
        let mut waits = Vec::new();
        let mut ms = 100;
        for _ in 0..6 {
            t.start(at(ms));
            assert_eq!(t.defer(at(ms), "down".into(), AWAY_LIMIT).as_deref(), Some(id.as_str()));
            let due = t.due().unwrap().as_millis() as u64;
            waits.push(due - ms);
            ms = due;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        let record = t.get(&id).unwrap();
        assert_eq!((record.status, record.response.as_deref()), (Status::InProgress, Some("down")));
        assert_eq!(t.deferred().collect::<Vec<_>>(), [(id.as_str(), "down")]);
        assert_eq!(t.request(at(ms), DAY), id, "later writes join it");
    }

    #[test]
    fn a_deferred_reload_and_a_newer_one_become_one() {
        let mut t = timeline(100);
        let first = t.request(at(0), DAY);
        t.start(at(100));
        let second = t.request(at(101), DAY);
        t.defer(at(200), "down".into(), AWAY_LIMIT);
        assert_eq!(t.pending(), Some(second.as_str()));
        t.start(at(700));
        t.succeed("ok".into());
        assert_eq!(t.get(&first).unwrap().status, Status::Succeeded);
        assert_eq!(t.get(&second).unwrap().response.as_deref(), Some("ok"));
    }

    #[test]
    fn one_that_a_caller_waits_for_is_listed_when_others_rely_on_it() {
        let mut t = timeline(100);
        let first = t.expect(at(0), DAY);
        assert_eq!((t.list(), t.get(&first).map(|r| r.status)), (vec![], Some(Status::InProgress)));
        t.start(at(0));
        assert_eq!(t.succeed("ok".into()).unwrap().id, first);
        assert_eq!(t.list(), []);
        let second = t.expect(at(1), DAY);
        assert_eq!(t.request(at(2), DAY), second, "a write joins it");
        assert_eq!(t.list().len(), 1);
        t.start(at(3));
        t.succeed("ok".into());
        assert_eq!(t.get(&first).unwrap().status, Status::Succeeded, "one before the last success");
        let third = t.expect(at(4), DAY);
        t.start(at(4));
        t.announce(&third, "it takes long");
        assert_eq!(t.deferred().count(), 1);
        assert_eq!(t.list().last().unwrap().id, third, "its caller did not wait for the end");
        t.defer(at(5), "the master is silent".into(), FAILING_LIMIT);
        assert_eq!(t.pending(), Some(third.as_str()));
    }

    #[test]
    fn failures_name_the_versions_and_go_after_the_retention() {
        let mut t = timeline(100);
        let first = t.request(at(0), DAY);
        t.start(at(100));
        let record = t.fail(at(100), "no".into(), vec![7, 8]).unwrap();
        assert_eq!((record.status, record.taken_back), (Status::Failed, vec![7, 8]));
        assert!(t.get(&first).is_some());
        let day = 86_400_000;
        t.request(at(day + 5000), DAY);
        t.start(at(day + 6000));
        t.fail(at(day + 6000), "no".into(), vec![]);
        assert_eq!(t.get(&first), None);
        assert_eq!(t.list().len(), 1);
        for n in 0..300 {
            t.request(at(day + 7000 + n), DAY);
            t.start(at(day + 7000 + n));
            t.fail(at(day + 7000 + n), "no".into(), vec![]);
        }
        assert_eq!(t.list().len(), FAILED_LIMIT);
    }

    #[test]
    fn only_well_formed_ids_have_a_number() {
        assert_eq!(number_of("2026-11-24-17"), Some(17));
        for bad in ["", "2026-11-24", "2026-11-24-", "26-11-24-1", "2026-11-24-1-2", "2026-11-24-+1", "x"] {
            assert_eq!(number_of(bad), None, "{bad}");
        }
        let mut t = timeline(1);
        t.request(at(0), DAY);
        assert_eq!(t.get("2026-11-24-5"), None);
    }
}
