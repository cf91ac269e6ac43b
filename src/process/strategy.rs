//! How HAProxy is made to load its file, and how it is known whether it did.
//!
//! What a command says about itself is no proof: HAProxy has loaded when the master or a new worker shows it, and has
//! refused when the master counts it or HAProxy's own alert is there to read. All else is not done, and is tried again.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;
use tokio::time::Instant;

use super::child::LogTail;
use super::command;
use super::master::{self, MasterSocket, Processes};
use super::presence::{Met, Presence, Seen, Standing, new_worker, run};
use super::report;
use crate::configuration::ports::Pending;

/// Time between two looks at a master or a worker.
const POLL: Duration = Duration::from_millis(40);

/// How long one question to the master may take.
const QUESTION: Duration = Duration::from_secs(2);

/// How long a command that failed may be behind with what HAProxy made of it; and how long a new worker is waited for
/// where the exit status decides.
const GRACE: Duration = Duration::from_secs(1);

/// What became of an attempt to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// HAProxy runs the file as it is. The text is what it or the command printed.
    Done(String),
    /// The command says that HAProxy has loaded the file; no new worker was seen.
    Unseen(String),
    /// HAProxy itself does not take the file. The text says why.
    Refused(String),
    /// HAProxy runs, but did not load: the command failed for its own reasons, or the master is silent or did not count
    /// a reload. The text says which.
    NotDone(String),
    /// Nothing runs that could reload: the reload is still to be done. The text says how that is known.
    Unreachable(String),
}

impl Outcome {
    /// The same outcome in other words.
    #[must_use]
    pub fn said(self, words: impl FnOnce(&str) -> String) -> Self {
        match self {
            Outcome::Done(text) => Outcome::Done(words(&text)),
            Outcome::Unseen(text) => Outcome::Unseen(words(&text)),
            Outcome::Refused(text) => Outcome::Refused(words(&text)),
            Outcome::NotDone(text) => Outcome::NotDone(words(&text)),
            Outcome::Unreachable(text) => Outcome::Unreachable(words(&text)),
        }
    }
}

/// Something that can make HAProxy reload.
pub trait Reloader: Send + Sync {
    /// Reloads and waits for the result.
    fn reload(&self) -> Pending<'_, Outcome>;
}

/// The way to reload.
#[derive(Clone)]
pub enum How {
    /// A command, run without a shell. The result is looked up at the master or the workers.
    Command(Vec<String>),
    /// `reload` on the master socket; its answer says the result from 2.7 on, `show proc` before.
    Master(MasterSocket),
    /// SIGUSR2 to the supervised master, result from `show proc`, words from its log: for 2.6.
    Signal {
        /// Process id of the master; `None` while it is down.
        pid: watch::Receiver<Option<u32>>,
        /// Its socket.
        master: MasterSocket,
        /// Its last log lines.
        log: Arc<LogTail>,
    },
}

/// A way to reload, with the means to see whether HAProxy runs.
#[derive(Clone)]
pub struct Strategy {
    /// The way.
    pub how: How,
    /// Whether HAProxy runs.
    pub presence: Presence,
    /// How long a reload may take, 120 s by default.
    pub limit: Duration,
    /// How long a master may be silent, and how long HAProxy may show nothing of a reload that was begun. 8 s by default.
    pub patience: Duration,
    /// Whether the exit status of the command decides where no master is known, whatever the workers show. Default false.
    pub trust_exit_status: bool,
}

impl Strategy {
    /// With the default limits.
    pub fn new(how: How, presence: Presence) -> Self {
        Strategy {
            how,
            presence,
            limit: Duration::from_mins(2),
            patience: Duration::from_secs(8),
            trust_exit_status: false,
        }
    }

    async fn attempt(&self) -> Outcome {
        if let Standing::Down(why) = self.presence.standing().await {
            return Outcome::Unreachable(why);
        }
        let deadline = Instant::now() + self.limit;
        let outcome = match &self.how {
            How::Command(words) => self.by_command(words, deadline).await,
            How::Master(master) => self.by_master(master, deadline).await,
            How::Signal { pid, master, log } => {
                let pid = *pid.borrow();
                self.by_signal(pid, master, log, deadline).await
            }
        };
        match outcome {
            // It may have gone while it was asked.
            Outcome::NotDone(said) if matches!(self.presence.standing().await, Standing::Down(_)) => {
                Outcome::Unreachable(said)
            }
            outcome => outcome,
        }
    }

    async fn by_command(&self, words: &[String], deadline: Instant) -> Outcome {
        // A master that nothing connects to is none: its path may be wrong.
        let master = match &self.presence.master {
            Some(master) if master.connects().await => Some(master),
            _ => None,
        };
        let before = match master {
            Some(master) => match self.settled_before(master, deadline).await {
                Ok(before) => Before::Master(master, before),
                Err(outcome) => return outcome,
            },
            None => Before::Workers(Seen::now(&self.presence).await),
        };
        while Instant::now() < deadline {
            let done = match run(words, deadline.saturating_duration_since(Instant::now())).await {
                Ok(done) => done,
                Err(failure) => return Outcome::NotDone(format!("reload-cmd: {failure}")),
            };
            if !done.success() {
                return self.after_failure(&before, words, &done, deadline).await;
            }
            if let Some(outcome) = self.after_success(&before, words, report::cap(done.stdout.trim()), deadline).await {
                return outcome;
            }
            tracing::debug!("another's reload came before ours: haproxy is told to reload once more");
        }
        Outcome::NotDone("reloads of others came before it again and again".to_owned())
    }

    /// A command that succeeded may only have sent a signal, or nothing at all. `None` when its reload may have been lost
    /// in one that others began before.
    async fn after_success(
        &self,
        before: &Before<'_>,
        words: &[String],
        said: String,
        deadline: Instant,
    ) -> Option<Outcome> {
        let shown = words.join(" ");
        Some(match before {
            Before::Master(master, before) => {
                if !self.counted(master, before, self.patience).await {
                    let text = format!("{shown} ended with success, but {}", self.uncounted(master));
                    return Some(Outcome::NotDone(text));
                }
                match settled(master, before, deadline).await {
                    Outcome::Done(_) => Outcome::Done(said),
                    outcome => outcome,
                }
            }
            Before::Workers(_) if !self.presence.knows_workers() => Outcome::Done(said),
            Before::Workers(seen) => {
                let patience = if self.trust_exit_status { GRACE } else { self.patience };
                match new_worker(&self.presence, seen, patience, POLL).await {
                    Met::Ours => return Some(Outcome::Done(said)),
                    Met::Others => return None,
                    Met::Nobody => {}
                }
                // A socket that we may not open tells nothing for or against it.
                if self.trust_exit_status || !self.presence.can_ask_workers().await {
                    return Some(Outcome::Unseen(said));
                }
                let waited = patience.as_secs_f64();
                let text =
                    format!("{shown} ended with success, but no new worker of haproxy answered within {waited} s");
                Outcome::NotDone(text)
            }
        })
    }

    fn uncounted(&self, master: &MasterSocket) -> String {
        let (path, waited) = (master.path().display(), self.patience.as_secs_f64());
        format!("the master at {path} did not count a reload within {waited} s")
    }

    /// A command that failed may have reloaded all the same: a hook behind it did not work. What HAProxy shows counts,
    /// then what it said.
    async fn after_failure(
        &self,
        before: &Before<'_>,
        words: &[String],
        done: &command::Finished,
        deadline: Instant,
    ) -> Outcome {
        let output = format!("{}\n{}", done.stderr.trim(), done.stdout.trim());
        let said = if done.stderr.trim().is_empty() { done.stdout.trim() } else { done.stderr.trim() };
        let failure = report::cap(&format!("executing {} failed: {}, {said}", words.join(" "), done.shown_status()));
        match before {
            Before::Master(master, before) => {
                if self.counted(master, before, GRACE).await {
                    return match settled(master, before, deadline).await {
                        Outcome::Done(_) => Outcome::Done(failure),
                        outcome => outcome,
                    };
                }
            }
            Before::Workers(seen) => {
                let grace = if report::has_alert(&output) { Duration::ZERO } else { GRACE };
                if self.presence.knows_workers() && new_worker(&self.presence, seen, grace, POLL).await == Met::Ours {
                    return Outcome::Done(failure);
                }
            }
        }
        if report::has_alert(&output) {
            return Outcome::Refused(report::cap(&format!("{}\n{failure}", report::detail(&output, "", ""))));
        }
        Outcome::NotDone(failure)
    }

    /// The state of a master that is not in the middle of a reload that others began: what is loading has read the file
    /// before it was written, or after, nobody knows which. An outcome when there is no such state.
    async fn settled_before(&self, master: &MasterSocket, deadline: Instant) -> Result<Processes, Outcome> {
        let mut patience = Instant::now() + self.patience;
        loop {
            match master.processes(QUESTION.min(self.patience)).await {
                Ok(now) if !is_loading(master, &now).await => return Ok(now),
                Ok(_) if Instant::now() >= deadline => {
                    return Err(Outcome::NotDone("another reload did not end in time".to_owned()));
                }
                Ok(_) => patience = Instant::now() + self.patience,
                Err(_) if Instant::now() >= patience => return Err(silent(master)),
                Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether the master counts a reload, restarts or becomes busy with one within that time.
    async fn counted(&self, master: &MasterSocket, before: &Processes, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            match master.processes(QUESTION).await {
                Ok(now) if now.has_reloaded(before) => return true,
                // While it loads its socket does not answer, refuses or resets. One that is frozen is silent as well,
                // and never shows a result.
                Err(_) if Instant::now() >= deadline => return true,
                Ok(_) if Instant::now() >= deadline => return false,
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn by_master(&self, master: &MasterSocket, deadline: Instant) -> Outcome {
        loop {
            let before = match self.settled_before(master, deadline).await {
                Ok(before) => before,
                Err(outcome) => return outcome,
            };
            let answer = match master.send("reload", deadline.saturating_duration_since(Instant::now())).await {
                Ok(answer) => answer,
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Outcome::NotDone("the reload did not end in time".to_owned());
                }
                Err(_) => String::new(),
            };
            let Some((result, logs)) = answer.strip_prefix("Success=").and_then(|rest| rest.split_once('\n')) else {
                // 2.6 says nothing.
                if !self.counted(master, &before, self.patience).await {
                    return Outcome::NotDone(self.uncounted(master));
                }
                return settled(master, &before, deadline).await;
            };
            let logs = logs.strip_prefix("--\n").unwrap_or(logs).trim();
            if result.trim() == "1" {
                return Outcome::Done(report::cap(logs));
            }
            if !master::says_busy(logs.as_bytes()) {
                return Outcome::Refused(report::detail(logs, "", ""));
            }
            if Instant::now() >= deadline {
                return Outcome::NotDone("another reload did not end in time".to_owned());
            }
            tokio::time::sleep(POLL * 5).await;
        }
    }

    async fn by_signal(&self, pid: Option<u32>, master: &MasterSocket, log: &LogTail, deadline: Instant) -> Outcome {
        let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
            return Outcome::Unreachable("haproxy does not run".to_owned());
        };
        let before = match self.settled_before(master, deadline).await {
            Ok(before) => before,
            Err(outcome) => return outcome,
        };
        let mark = log.position();
        if let Err(error) = kill_process(pid, Signal::USR2) {
            return Outcome::Unreachable(format!("the master cannot be sent a signal: {error}"));
        }
        match settled(master, &before, deadline).await {
            Outcome::Done(_) => Outcome::Done(report::cap(&log.since(mark))),
            Outcome::Refused(fallback) => {
                // The lines come through a pipe and may be a moment behind the socket.
                let patience = Instant::now() + GRACE;
                while !report::has_alert(&log.since(mark)) && Instant::now() < patience {
                    tokio::time::sleep(POLL).await;
                }
                let said = log.since(mark);
                Outcome::Refused(if report::has_alert(&said) { report::detail(&said, "", "") } else { fallback })
            }
            other => other,
        }
    }
}

/// What was there before a reload.
enum Before<'a> {
    Master(&'a MasterSocket, Processes),
    Workers(Seen),
}

impl Reloader for Strategy {
    fn reload(&self) -> Pending<'_, Outcome> {
        Box::pin(self.attempt())
    }
}

fn silent(master: &MasterSocket) -> Outcome {
    Outcome::NotDone(format!("the master at {} does not answer", master.path().display()))
}

/// Waits until a master that is loading has either a fresh worker or one more failure.
async fn settled(master: &MasterSocket, before: &Processes, deadline: Instant) -> Outcome {
    loop {
        // While the master loads, its socket refuses, resets or does not answer.
        if let Ok(now) = master.processes(QUESTION).await
            && now.has_reloaded(before)
            && let Some(outcome) = judge(master, before, &now).await
        {
            return outcome;
        }
        if Instant::now() >= deadline {
            return Outcome::NotDone("the reload did not end in time".to_owned());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the master has logged about its last load; nothing before 2.7.
async fn startup_logs(master: &MasterSocket, now: &Processes) -> String {
    if now.version.as_ref().is_some_and(|v| v.at_least(2, 7)) {
        master.send("show startup-logs", QUESTION).await.unwrap_or_default()
    } else {
        String::new()
    }
}

/// From 3.1 on the master answers, and lists a worker, while that one still loads: only the log tells that it is done.
fn answers_while_loading(now: &Processes) -> bool {
    now.version.as_ref().is_some_and(|v| v.at_least(3, 1))
}

async fn is_loading(master: &MasterSocket, now: &Processes) -> bool {
    answers_while_loading(now) && {
        let logs = startup_logs(master, now).await;
        !has_loaded(&logs) && !has_failed(&logs)
    }
}

fn has_loaded(logs: &str) -> bool {
    logs.contains("Loading success")
}

fn has_failed(logs: &str) -> bool {
    logs.contains("Loading failure") || logs.contains("Failed to load worker")
}

async fn judge(master: &MasterSocket, before: &Processes, now: &Processes) -> Option<Outcome> {
    let fresh = now.has_fresh_worker(before);
    let logs = startup_logs(master, now).await;
    let loading = fresh && answers_while_loading(now) && !has_loaded(&logs);
    if fresh && !loading {
        return Some(Outcome::Done(report::cap(logs.trim())));
    }
    let failed = now.failed > before.failed || (now.failed > 0 && now.reloads > before.reloads && !fresh);
    if failed || has_failed(&logs) {
        let said = report::detail(&logs, "", "");
        return Some(Outcome::Refused(if said.is_empty() {
            "haproxy kept its former worker: the new configuration could not be loaded".to_owned()
        } else {
            said
        }));
    }
    None
}
