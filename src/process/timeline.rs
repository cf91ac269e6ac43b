//! The order of reloads as pure bookkeeping: what is pending, what runs, what has been. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// Failed reloads that are kept at most, whatever their age.
const FAILED_LIMIT: usize = 100;

/// First wait before a reload is tried again that nothing took; it doubles up to `RETRY_LIMIT`.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// State of a reload, named as /v2 does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `YYYY-MM-DD-<n>`, n counts from 0 since the start of the process.
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
}

/// The bookkeeping.
///
/// Invariant: at most one reload is pending and at most one runs. Runs that `request` leads to are at least one delay
/// apart, so that n requests within time t cause no more than 1 + t / delay reloads.
#[derive(Debug)]
pub struct Timeline {
    delay: Duration,
    retention: Duration,
    next: u64,
    pending: Option<Waiting>,
    current: Option<(Waiting, i64)>,
    success: Option<(u64, Record)>,
    failed: VecDeque<(u64, Record)>,
}

impl Timeline {
    /// `delay` is the wait between the first request and its reload; `retention` is how long failed ones are kept.
    pub fn new(delay: Duration, retention: Duration) -> Self {
        Timeline { delay, retention, next: 0, pending: None, current: None, success: None, failed: VecDeque::new() }
    }

    /// Asks for a reload: joins the pending one or makes one. `date` is today as `YYYY-MM-DD`.
    pub fn request(&mut self, now: Now, date: &str) -> String {
        if let Some(pending) = &self.pending {
            return pending.id.clone();
        }
        let number = self.next;
        self.next += 1;
        let id = format!("{date}-{number}");
        self.pending = Some(Waiting { number, id: id.clone(), due: now.since + self.delay, retry: RETRY, why: None });
        id
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
        self.success = Some((waiting.number, record.clone()));
        Some(record)
    }

    /// HAProxy refused at the running reload.
    pub fn fail(&mut self, now: Now, response: String, taken_back: Vec<i64>) -> Option<Record> {
        let (waiting, started) = self.current.take()?;
        let mut record = record(waiting.id, Status::Failed, Some(started), Some(response));
        record.taken_back = taken_back;
        let oldest = now.unix - i64::try_from(self.retention.as_secs()).unwrap_or(i64::MAX / 2);
        self.failed.retain(|(_, r)| r.timestamp.is_some_and(|t| t >= oldest));
        while self.failed.len() >= FAILED_LIMIT {
            self.failed.pop_front();
        }
        self.failed.push_back((waiting.number, record.clone()));
        Some(record)
    }

    /// Nothing took the running reload: it is pending again, under its id, and takes over a newer pending one.
    pub fn defer(&mut self, now: Now, why: String) -> Option<String> {
        let (mut waiting, _) = self.current.take()?;
        waiting.due = now.since + waiting.retry;
        waiting.retry = (waiting.retry * 2).min(RETRY_LIMIT);
        waiting.why = Some(why);
        // A newer one was promised to a caller as well: it keeps its id, and the older one is done with it.
        if let Some(newer) = &mut self.pending {
            newer.due = waiting.due;
            newer.retry = waiting.retry;
            newer.why = waiting.why;
            return Some(newer.id.clone());
        }
        let id = waiting.id.clone();
        self.pending = Some(waiting);
        Some(id)
    }

    /// Runs the pending reload now rather than after its delay or backoff.
    pub fn hasten(&mut self, now: Now) {
        if let Some(pending) = &mut self.pending {
            pending.due = pending.due.min(now.since);
        }
    }

    /// Failed ones, the last success, the running and the pending one.
    pub fn list(&self) -> Vec<Record> {
        let failed = self.failed.iter().map(|(_, r)| r.clone());
        let success = self.success.iter().map(|(_, r)| r.clone());
        failed.chain(success).chain(self.open()).collect()
    }

    /// One of them, or one that is older than the last success and so is covered by it.
    pub fn get(&self, id: &str) -> Option<Record> {
        if let Some(found) = self.list().into_iter().find(|r| r.id == id) {
            return Some(found);
        }
        let number: u64 = number_of(id)?;
        let (last, _) = self.success.as_ref()?;
        (number < *last).then(|| record(id.to_owned(), Status::Succeeded, None, None))
    }

    fn open(&self) -> impl Iterator<Item = Record> {
        let current = self.current.iter().map(|(w, at)| record(w.id.clone(), Status::InProgress, Some(*at), None));
        let pending = self.pending.iter().map(|w| record(w.id.clone(), Status::InProgress, None, w.why.clone()));
        current.chain(pending)
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
        Timeline::new(Duration::from_millis(delay_ms), Duration::from_hours(24))
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
            assert_eq!(t.defer(at(ms), "down".into()).as_deref(), Some(id.as_str()));
            let due = t.due().unwrap().as_millis() as u64;
            waits.push(due - ms);
            ms = due;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        let record = t.get(&id).unwrap();
        assert_eq!((record.status, record.response.as_deref()), (Status::InProgress, Some("down")));
        t.hasten(at(ms - 4000));
        assert_eq!(t.due(), Some(Duration::from_millis(ms - 4000)));
        assert_eq!(t.request(at(ms), DAY), id, "later writes join it");
    }

    #[test]
    fn a_deferred_reload_and_a_newer_one_become_one() {
        let mut t = timeline(100);
        let first = t.request(at(0), DAY);
        t.start(at(100));
        let second = t.request(at(101), DAY);
        t.defer(at(200), "down".into());
        assert_eq!(t.pending(), Some(second.as_str()));
        t.start(at(700));
        t.succeed("ok".into());
        assert_eq!(t.get(&first).unwrap().status, Status::Succeeded);
        assert_eq!(t.get(&second).unwrap().response.as_deref(), Some("ok"));
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
