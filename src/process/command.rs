//! Commands run to their end, with a time limit and a limit on what is kept of their output.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// What is kept of each of standard output and standard error, in bytes; the rest is read and dropped. A large
/// configuration may have many warnings in front of the one alert.
pub const OUTPUT_LIMIT: usize = 1024 * 1024;

/// How a command ended, and what it printed.
#[derive(Debug)]
pub struct Finished {
    /// Exit status; a signal counts as failure.
    pub status: ExitStatus,
    /// First `OUTPUT_LIMIT` bytes of standard output, lossy UTF-8.
    pub stdout: String,
    /// First `OUTPUT_LIMIT` bytes of standard error, lossy UTF-8.
    pub stderr: String,
}

impl Finished {
    /// Whether the exit code is zero.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// The status in words: `exit status 3`, or the signal that ended it.
    pub fn shown_status(&self) -> String {
        self.status.code().map_or_else(|| self.status.to_string(), |code| format!("exit status {code}"))
    }
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started.
    #[error("{program} cannot be run: {source}")]
    Start {
        /// The program as it was given.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran longer than its limit and was killed.
    #[error("{program} did not end within {} s", .limit.as_secs_f64())]
    TimedOut {
        /// The program as it was given.
        program: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// Its end could not be waited for.
    #[error("{program} cannot be waited for: {source}")]
    Wait {
        /// The program as it was given.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Kills the whole group of the command when it is dropped: a dropped future leaves nothing behind.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.take()
            && let Err(error) = kill_process_group(pid, Signal::KILL)
        {
            tracing::debug!(%error, "the process group of a command was gone already");
        }
    }
}

/// Runs a command to its end in a process group of its own, without standard input. What it leaves running in the
/// background stays.
pub async fn run(command: Command, limit: Duration) -> Result<Finished, Failure> {
    run_group(command, limit).await.map(|(finished, mut group)| {
        group.0 = None;
        finished
    })
}

/// As [`run`], but nothing of its process group outlives the command.
pub async fn run_closed(command: Command, limit: Duration) -> Result<Finished, Failure> {
    run_group(command, limit).await.map(|(finished, _group)| finished)
}

/// Runs a command to its end, and says what of its group may be left.
async fn run_group(mut command: Command, limit: Duration) -> Result<(Finished, Group), Failure> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| Failure::Start { program: program.clone(), source })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        // A grandchild may keep a pipe open after the command has ended: the end of the command counts.
        let mut out = Vec::new();
        let mut err = Vec::new();
        let status = {
            let reading = async { tokio::join!(keep(stdout, &mut out), keep(stderr, &mut err)) };
            tokio::pin!(reading);
            tokio::select! {
                status = child.wait() => {
                    if tokio::time::timeout(Duration::from_millis(500), &mut reading).await.is_err() {
                        tracing::debug!("a command ended and left its output open");
                    }
                    status
                }
                _ = &mut reading => child.wait().await,
            }
        };
        status.map(|status| (status, out, err))
    };
    match tokio::time::timeout(limit, work).await {
        Ok(Ok((status, out, err))) => Ok((Finished { status, stdout: lossy(out), stderr: lossy(err) }, group)),
        Ok(Err(source)) => Err(Failure::Wait { program, source }),
        Err(_) => Err(Failure::TimedOut { program, limit }),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads to the end, keeping the first bytes.
async fn keep(source: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut source) = source else { return };
    let mut buffer = vec![0_u8; 8192];
    loop {
        match source.read(&mut buffer).await {
            Ok(0) => return,
            Ok(count) => {
                let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
            Err(error) => {
                tracing::debug!(%error, "the output of a command cannot be read");
                return;
            }
        }
    }
}

/// Splits a command as a POSIX shell splits words: blanks, single and double quotes, backslashes. Nothing is expanded.
///
/// `None` when a quote is left open, a backslash ends the text, or there is no word.
pub fn split_shell(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if words.is_empty() { None } else { Some(words) }
}

/// Splits a command on single spaces, as reload commands are: no quotes, no shell. `None` when there is no word.
pub fn split_spaces(text: &str) -> Option<Vec<String>> {
    let words: Vec<String> = text.trim().split(' ').map(str::to_owned).collect();
    if words.first().is_none_or(String::is_empty) { None } else { Some(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn shell_words_keep_quoted_blanks_and_refuse_open_quotes() {
        assert_eq!(split_shell(r#"a 'b c' "d \"e\" \n" f\ g ''"#).unwrap(), ["a", "b c", r#"d "e" \n"#, "f g", ""]);
        assert_eq!(split_shell("a 'b"), None);
        assert_eq!(split_shell("a \\"), None);
        assert_eq!(split_shell("  "), None);
    }

    #[test]
    fn reload_commands_split_on_single_spaces_only() {
        assert_eq!(split_spaces("kill -USR2 'x").unwrap(), ["kill", "-USR2", "'x"]);
        assert_eq!(split_spaces("a  b").unwrap(), ["a", "", "b"]);
        assert_eq!(split_spaces(""), None);
    }

    #[tokio::test]
    async fn output_is_kept_up_to_the_limit_and_the_rest_is_drained() {
        let done = run(sh("head -c 3000000 /dev/zero; echo no >&2; exit 3"), Duration::from_secs(20)).await.unwrap();
        assert_eq!(done.status.code(), Some(3));
        assert_eq!(done.stdout.len(), OUTPUT_LIMIT);
        assert_eq!(done.stderr, "no\n");
    }

    #[tokio::test]
    async fn a_command_over_its_time_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let error = run(sh(&script), Duration::from_millis(400)).await.unwrap_err();
        assert!(error.to_string().contains("did not end within 0.4 s"), "{error}");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        // A killed orphan is reaped by init, or stays a zombie where there is none.
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "the child is still there");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_command_leaves_running_stays_or_goes() {
        for closed in [false, true] {
            let script = "sleep 600 >/dev/null 2>&1 & echo $!";
            let limit = Duration::from_secs(20);
            let done = if closed { run_closed(sh(script), limit).await } else { run(sh(script), limit).await };
            let pid: i32 = done.unwrap().stdout.trim().parse().unwrap();
            let left = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "));
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while closed && left() {
                assert!(std::time::Instant::now() < deadline, "the child is still there");
                tokio::task::yield_now().await;
            }
            assert_eq!(left(), !closed);
            if !closed {
                rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(Command::new("/nowhere/haproxy"), Duration::from_secs(1)).await.unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/haproxy cannot be run: No such file"), "{error}");
    }
}
