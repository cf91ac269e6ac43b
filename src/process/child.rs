//! The supervised HAProxy of the embedded default: started, restarted with backoff, and stopped with us.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::environment::Variables;
use super::master::MasterSocket;
use super::report;
use crate::error::{Error, Reason, Result};

/// Log lines that are kept, and how much of each, in bytes.
const TAIL_LINES: usize = 256;
const TAIL_WIDTH: usize = 1024;

/// Longest path of a unix socket, in bytes; HAProxy adds a suffix of its own while it binds.
const SOCKET_PATH_LIMIT: usize = 92;

/// First and longest wait before a restart; an HAProxy that ran for `STEADY` starts again with the first.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_LIMIT: Duration = Duration::from_secs(30);
const STEADY: Duration = Duration::from_mins(1);

/// What is started and where.
#[derive(Debug, Clone)]
pub struct ChildOptions {
    /// HAProxy's binary.
    pub binary: PathBuf,
    /// The configuration.
    pub config_file: PathBuf,
    /// The master socket that it is told to open.
    pub master_socket: PathBuf,
    /// Where its process id is kept, so that a later start finds one that outlived us.
    pub pid_file: PathBuf,
    /// Its environment.
    pub environment: Variables,
    /// How long it may take to load, 60 s by default.
    pub start_limit: Duration,
    /// How long connections may go on after the stop began, 5 s by default.
    pub grace: Duration,
}

impl ChildOptions {
    /// With the default times, and our own environment as far as it is meant for HAProxy.
    pub fn new(binary: &Path, config_file: &Path, master_socket: &Path, pid_file: &Path) -> Self {
        ChildOptions {
            binary: binary.to_owned(),
            config_file: config_file.to_owned(),
            master_socket: master_socket.to_owned(),
            pid_file: pid_file.to_owned(),
            environment: Variables::ours().for_haproxy(),
            start_limit: Duration::from_mins(1),
            grace: Duration::from_secs(5),
        }
    }
}

impl ChildOptions {
    /// A line that HAProxy prints, without the values of its environment where it complains.
    fn shown(&self, line: &str) -> String {
        // Others are no words about the configuration, and may be many.
        if !["[ALERT]", "[WARNING", " "].iter().any(|start| line.starts_with(start)) {
            return line.to_owned();
        }
        let mut known = std::fs::read(&self.config_file).unwrap_or_default();
        known.extend_from_slice(self.config_file.as_os_str().as_encoded_bytes());
        known.extend_from_slice(self.master_socket.as_os_str().as_encoded_bytes());
        self.environment.hide(line, &known)
    }
}

/// The last log lines of HAProxy.
#[derive(Debug, Default)]
pub struct LogTail {
    lines: Mutex<(u64, VecDeque<String>)>,
}

impl LogTail {
    fn push(&self, line: &str) {
        let mut end = line.len().min(TAIL_WIDTH);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.1.len() == TAIL_LINES {
            lines.1.pop_front();
        }
        lines.1.push_back(line.get(..end).unwrap_or_default().to_owned());
        lines.0 += 1;
    }

    /// Lines so far; a mark for `since`.
    pub fn position(&self) -> u64 {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lines after a mark, as far as they are kept.
    pub fn since(&self, mark: u64) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let new = usize::try_from(lines.0.saturating_sub(mark)).unwrap_or(usize::MAX);
        let skip = lines.1.len().saturating_sub(new);
        lines.1.iter().skip(skip).fold(String::new(), |text, line| text + line + "\n")
    }
}

/// The supervised HAProxy.
pub struct Supervised {
    options: ChildOptions,
    master: MasterSocket,
    log: Arc<LogTail>,
    pid: watch::Sender<Option<u32>>,
    first: Mutex<Option<Child>>,
}

impl Supervised {
    /// Stops one that a former run of ours left behind, starts a new one and waits until it has loaded its configuration.
    ///
    /// Fails with words for people: binary missing, address in use, configuration refused (with line and section).
    pub async fn start(options: ChildOptions) -> Result<Arc<Self>> {
        let supervised = Supervised::later(options)?;
        take_over(&supervised.options).await?;
        let mut child = supervised.spawn()?;
        let started = supervised.loaded(&mut child).await;
        if let Err(error) = started {
            supervised.end(&mut child, Duration::ZERO).await;
            return Err(error);
        }
        *supervised.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        Ok(supervised)
    }

    /// Starts nothing before [`Supervised::run`]. One of a former run goes on until then.
    pub fn later(options: ChildOptions) -> Result<Arc<Self>> {
        if options.master_socket.as_os_str().len() > SOCKET_PATH_LIMIT {
            let shown = options.master_socket.display();
            let message = format!("the path {shown} is too long for a socket, {SOCKET_PATH_LIMIT} bytes at most");
            return Err(Error::new(Reason::InvalidValue, message));
        }
        Ok(Arc::new(Supervised {
            master: MasterSocket::new(&options.master_socket),
            options,
            log: Arc::new(LogTail::default()),
            pid: watch::Sender::new(None),
            first: Mutex::new(None),
        }))
    }

    /// Whether it was started already.
    pub fn is_started(&self) -> bool {
        self.pid.borrow().is_some()
    }

    /// Process id of the master, `None` while it is down.
    pub fn pid(&self) -> watch::Receiver<Option<u32>> {
        self.pid.subscribe()
    }

    /// Its last log lines.
    pub fn log(&self) -> Arc<LogTail> {
        self.log.clone()
    }

    /// Its master socket.
    pub fn master(&self) -> MasterSocket {
        self.master.clone()
    }

    /// Restarts it with backoff when it dies, and stops it after `stop`. Returns when it has ended.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut next = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        if next.is_none() {
            match take_over(&self.options).await.and_then(|()| self.spawn()) {
                Ok(child) => next = Some(child),
                Err(error) => tracing::error!(%error, "haproxy cannot be started"),
            }
        }
        let mut backoff = BACKOFF;
        loop {
            let since = Instant::now();
            if let Some(mut child) = next.take() {
                tokio::select! {
                    () = stop.cancelled() => {
                        self.end(&mut child, self.options.grace).await;
                        return;
                    }
                    status = child.wait() => {
                        self.pid.send_replace(None);
                        match status {
                            Ok(status) => tracing::error!(%status, "haproxy has ended"),
                            Err(error) => tracing::error!(%error, "haproxy cannot be waited for"),
                        }
                    }
                }
            }
            if since.elapsed() >= STEADY {
                backoff = BACKOFF;
            }
            tracing::warn!(seconds = backoff.as_secs_f64(), "haproxy is started again after a wait");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_LIMIT);
            match self.spawn() {
                Ok(child) => next = Some(child),
                Err(error) => tracing::error!(%error, "haproxy cannot be started again"),
            }
        }
    }

    fn spawn(&self) -> Result<Child> {
        let options = &self.options;
        let mut command = Command::new(&options.binary);
        command.env_clear().envs(options.environment.iter());
        command.args(["-W", "-db", "-S"]).arg(&options.master_socket).arg("-f").arg(&options.config_file);
        // In its own group a Ctrl-C of the terminal reaches us alone, and we stop it in order.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            Error::new(Reason::Internal, format!("haproxy-bin: {} cannot be run: {error}", options.binary.display()))
        })?;
        self.forward(child.stdout.take());
        self.forward(child.stderr.take());
        if let Some(pid) = child.id()
            && let Err(error) = std::fs::write(&options.pid_file, format!("{pid}\n"))
        {
            tracing::warn!(%error, file = %options.pid_file.display(), "the process id cannot be written");
        }
        self.pid.send_replace(child.id());
        Ok(child)
    }

    fn forward(&self, source: Option<impl AsyncRead + Send + Unpin + 'static>) {
        let Some(source) = source else { return };
        let (log, options) = (self.log.clone(), self.options.clone());
        tokio::spawn(async move {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            // Bounded by what a log line of HAProxy may hold; a longer one would come in parts.
            while matches!(source.read_until(b'\n', &mut line).await, Ok(1..)) {
                let text = options.shown(String::from_utf8_lossy(&line).trim_end());
                if !text.is_empty() {
                    log.push(&text);
                    match text.get(..8) {
                        Some("[ALERT] ") => tracing::error!(target: "haproxy", "{text}"),
                        Some("[WARNING") => tracing::warn!(target: "haproxy", "{text}"),
                        _ => tracing::info!(target: "haproxy", "{text}"),
                    }
                }
                line.clear();
            }
        });
    }

    /// Waits until the first configuration is loaded, or says why it was not.
    async fn loaded(&self, child: &mut Child) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = child.try_wait() {
                self.pid.send_replace(None);
                // The last lines may still be in the pipe.
                let patience = Instant::now() + Duration::from_millis(500);
                while !self.log.since(0).contains("[ALERT]") && Instant::now() < patience {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return Err(self.refusal(&status.to_string()));
            }
            // Notices can be switched off: then a worker that has been there for a while is taken as loaded.
            let said = self.log.since(0).contains("Loading success");
            if (said || began.elapsed() > Duration::from_secs(3))
                && let Ok(processes) = self.master.processes(Duration::from_secs(2)).await
                && !processes.workers.is_empty()
            {
                return Ok(());
            }
            if began.elapsed() > self.options.start_limit {
                let seconds = self.options.start_limit.as_secs();
                return Err(Error::new(Reason::Internal, format!("haproxy did not load within {seconds} s"))
                    .detail(report::cap(&self.log.since(0))));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn refusal(&self, status: &str) -> Error {
        let output = self.log.since(0);
        let shown = self.options.config_file.to_string_lossy();
        let Some(fault) = report::first_alert(&output, &shown) else {
            return Error::new(Reason::ConfigurationRejected, format!("haproxy ended at its start: {status}"))
                .detail(report::cap(&output));
        };
        let section = fault.line.and_then(|line| {
            std::fs::read(&self.options.config_file).ok().and_then(|text| report::section_at(&text, line))
        });
        let place = match (fault.line, section) {
            (Some(line), Some(section)) => format!("{shown} line {line}, {section}"),
            (Some(line), None) => format!("{shown} line {line}"),
            _ => shown.into_owned(),
        };
        Error::new(Reason::ConfigurationRejected, format!("haproxy does not start with {place}: {}", fault.message))
            .detail(report::detail(&output, "", ""))
    }

    /// Lets connections end for `grace`, then stops, then kills.
    async fn end(&self, child: &mut Child, grace: Duration) {
        let steps =
            [(Signal::USR1, grace), (Signal::TERM, Duration::from_secs(3)), (Signal::KILL, Duration::from_secs(3))];
        for (signal, wait) in steps {
            let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { break };
            if wait.is_zero() {
                continue;
            }
            if let Err(error) = kill_process(pid, signal) {
                tracing::debug!(%error, "haproxy is gone already");
            }
            if tokio::time::timeout(wait, child.wait()).await.is_ok() {
                break;
            }
        }
        self.pid.send_replace(None);
        for file in [&self.options.pid_file, &self.options.master_socket] {
            if let Err(error) = std::fs::remove_file(file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(%error, file = %file.display(), "cannot be removed");
            }
        }
    }
}

/// Looks in a row that do not find a process before it counts as gone.
const GONE: u32 = 3;

/// Stops an HAProxy that a former run started on the same master socket and did not live to stop.
async fn take_over(options: &ChildOptions) -> Result<()> {
    let written = std::fs::read_to_string(&options.pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let answered = MasterSocket::new(&options.master_socket).processes(Duration::from_secs(2)).await.ok();
    let found = [answered.map(|p| p.master), written];
    let Some(raw) = found.into_iter().flatten().find(|pid| is_ours(*pid, options)) else { return Ok(()) };
    let Some(pid) = Pid::from_raw(raw.cast_signed()) else { return Ok(()) };
    tracing::warn!(pid = raw, "an haproxy of a former run is still there and is stopped");
    for (signal, wait) in [(Signal::TERM, 5), (Signal::KILL, 5)] {
        if kill_process(pid, signal).is_err() {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(wait);
        while Instant::now() < deadline {
            // A zombie still has its id and can no longer be told by its command line; neither can a master in the
            // moment in which it executes itself anew, so that one look is not enough.
            let mut gone = 0;
            while gone < GONE && (test_kill_process(pid).is_err() || !is_ours(raw, options)) {
                gone += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if gone == GONE {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Error::new(Reason::Internal, format!("an haproxy of a former run (process {raw}) cannot be stopped")))
}

/// Whether a process is an HAProxy on our master socket, by its command line.
fn is_ours(pid: u32, options: &ChildOptions) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let socket = options.master_socket.as_os_str().as_encoded_bytes();
    words.windows(2).any(|pair| matches!(pair, [b"-S", path] if *path == socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_after_a_mark() {
        let tail = LogTail::default();
        tail.push("a");
        let mark = tail.position();
        tail.push("b");
        tail.push(&"é".repeat(2000));
        let text = tail.since(mark);
        assert!(text.starts_with("b\né") && text.len() <= TAIL_WIDTH + 4);
        for n in 0..1000 {
            tail.push(&n.to_string());
        }
        assert_eq!(tail.since(0).lines().count(), TAIL_LINES);
        assert_eq!(tail.since(tail.position() - 1), "999\n");
    }
}
