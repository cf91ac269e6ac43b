//! The check of a candidate configuration by HAProxy itself, or by a command in its place.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::Instant;

use super::command::{self, split_shell};
use super::confine::{self, Confined};
use super::environment::{Surroundings, Variables};
use super::redirect::{Redirected, redirect};
use super::report;
use super::scratch::Scratch;
use super::turns::Turns;
use crate::configuration::ports::{Check, Pending, Warning};
use crate::error::{Error, Reason, Result};

/// What the candidate's file is called while the output of a check is read: no value of a variable holds it.
const FILE: &str = "\u{2}";

/// How candidates are checked.
#[derive(Debug)]
pub struct CheckOptions {
    /// HAProxy's binary, run as `<binary> -W -c -f <file>`.
    pub binary: PathBuf,
    /// Run instead of the binary: words as a shell splits them, with the path of the candidate in the environment variable
    /// `DATAPLANEAPI_TRANSACTION_FILE`, unconfined and with our own environment.
    pub validate_cmd: Option<String>,
    /// This program, which limits itself before it becomes the check. Without it the check has all our rights.
    pub confiner: Option<PathBuf>,
    /// The environment of the check.
    pub surroundings: Surroundings,
    /// Existing folder for the candidate's file and what HAProxy writes while it checks. All of it is removed after each
    /// check.
    pub folder: PathBuf,
    /// The managed file: a candidate that says `default-path config` is checked beside it, since its own paths are meant
    /// from there.
    pub config_file: PathBuf,
    /// HAProxy's working folder, against which it resolves relative paths; our own when `None`.
    pub working_folder: Option<PathBuf>,
    /// How long a check may take, waiting for others included; 30 s by default.
    pub limit: Duration,
}

impl CheckOptions {
    /// The defaults, for a binary and the managed file: unconfined, in our own environment.
    pub fn new(binary: impl Into<PathBuf>, folder: impl Into<PathBuf>, config_file: impl Into<PathBuf>) -> Self {
        CheckOptions {
            binary: binary.into(),
            validate_cmd: None,
            confiner: None,
            surroundings: Surroundings::known(Variables::ours().for_haproxy()),
            folder: folder.into(),
            config_file: config_file.into(),
            working_folder: None,
            limit: Duration::from_secs(30),
        }
    }
}

/// Runs the check.
#[derive(Debug)]
pub struct Checker {
    options: CheckOptions,
    validate: Option<Vec<String>>,
    turns: Turns,
}

/// A check that can be run.
struct Prepared {
    command: Command,
    variables: Arc<Variables>,
}

impl Checker {
    /// Fails when the command in HAProxy's place cannot be split into words.
    pub fn new(options: CheckOptions) -> Result<Self> {
        let validate = match options.validate_cmd.as_deref() {
            None => None,
            Some(text) => Some(split_shell(text).ok_or_else(|| {
                Error::new(Reason::InvalidValue, "validate-cmd must be a command with closed quotes".to_owned())
            })?),
        };
        Ok(Checker { options, validate, turns: Turns::default() })
    }

    /// Removes what checks of an earlier process left behind. No other process may check in the same folder.
    pub fn sweep(&self) {
        Scratch::sweep(&self.options.folder);
        if let Some(beside) = self.options.config_file.parent() {
            Scratch::sweep(beside);
        }
    }

    /// The command of the user's own: it may be `sudo`, or reach into a container.
    fn own_command(words: &[String], scratch: &Scratch) -> Prepared {
        let mut command = Command::new(words.first().map(String::as_str).unwrap_or_default());
        command.args(words.iter().skip(1)).env("DATAPLANEAPI_TRANSACTION_FILE", scratch.file());
        Prepared { command, variables: Arc::new(Variables::ours()) }
    }

    async fn haproxy(&self, scratch: &Scratch) -> Prepared {
        let options = &self.options;
        let mut command = match &options.confiner {
            Some(confiner) => {
                let confined = Confined { confiner, folder: scratch.path(), time: options.limit };
                confined.command(&found(&options.binary))
            }
            None => Command::new(&options.binary),
        };
        let variables = options.surroundings.variables().await;
        command.env_clear().envs(variables.iter());
        command.args(["-W", "-c", "-f"]).arg(scratch.file());
        Prepared { command, variables }
    }

    async fn run(&self, candidate: &[u8], label: &str, user: &str) -> Result<Vec<Warning>> {
        let deadline = Instant::now() + self.options.limit;
        self.turns.work(user, deadline, self.check_now(candidate, label, deadline)).await?
    }

    async fn check_now(&self, candidate: &[u8], label: &str, deadline: Instant) -> Result<Vec<Warning>> {
        let options = &self.options;
        let parent = options.config_file.parent();
        let beside = parent.filter(|_| says_default_path_config(candidate));
        let working = options.working_folder.as_deref().unwrap_or(Path::new(""));
        let is_there = |folder: &Path, path: &Path| folder.join(path).try_exists().unwrap_or(false);
        let exists = |path: &Path| is_there(working, path) || parent.is_some_and(|folder| is_there(folder, path));
        let scratch = Scratch::make(&options.folder, beside)?;
        let redirected = match &self.validate {
            Some(_) => Redirected::unchanged(candidate),
            None => redirect(candidate, scratch.path(), &exists),
        };
        scratch.write(&redirected.text)?;
        let Prepared { mut command, variables } = match &self.validate {
            Some(words) => Self::own_command(words, &scratch),
            None => self.haproxy(&scratch).await,
        };
        if let Some(folder) = &options.working_folder {
            command.current_dir(folder);
        }
        let done = match command::run_closed(command, deadline.saturating_duration_since(Instant::now())).await {
            Ok(done) => done,
            Err(command::Failure::TimedOut { .. }) => return Err(self.took_too_long()),
            Err(failure) => return Err(not_run(&failure.to_string())),
        };
        let shown = |output: &str| {
            let output = output.replace(&*scratch.file().to_string_lossy(), FILE);
            variables.hide(&redirected.restored(&output, FILE), candidate)
        };
        if done.success() {
            return Ok(report::warnings(&shown(&done.stderr), FILE, candidate));
        }
        if let Some(why) = confine::failure(done.status.code(), &done.stderr) {
            return Err(not_run(why));
        }
        let status = done.shown_status();
        let output =
            if done.stdout.trim().is_empty() { done.stderr } else { format!("{}\n{}", done.stderr, done.stdout) };
        Err(rejection(candidate, &shown(&output), FILE, label, &status))
    }

    fn took_too_long(&self) -> Error {
        let program = self.validate.as_ref().and_then(|words| words.first());
        let program = program.cloned().unwrap_or_else(|| self.options.binary.display().to_string());
        let seconds = self.options.limit.as_secs_f64();
        let text = format!("the check of the configuration: {program} did not end within {seconds} s");
        Error::new(Reason::ConfigurationRejected, text)
    }
}

fn not_run(why: &str) -> Error {
    Error::new(Reason::Internal, format!("the check of the configuration: {why}"))
}

/// The binary as it is found with our own `PATH`: that of HAProxy's environment may be another.
fn found(binary: &Path) -> PathBuf {
    let is_name = binary.components().count() == 1 && !binary.as_os_str().as_encoded_bytes().contains(&b'/');
    let path = std::env::var_os("PATH").filter(|_| is_name);
    let all = path.iter().flat_map(std::env::split_paths).map(|folder| folder.join(binary));
    all.into_iter().find(|file| file.is_file()).unwrap_or_else(|| binary.to_owned())
}

impl Check for Checker {
    fn check<'a>(&'a self, candidate: &'a [u8], label: &'a str, user: &'a str) -> Pending<'a, Result<Vec<Warning>>> {
        Box::pin(self.run(candidate, label, user))
    }
}

/// The error for a refused candidate: the first alert in plain words; all of them as the detail.
///
/// Metadata: `status` (such as `exit status 1`), and `line` and `section` where HAProxy names a line.
fn rejection(candidate: &[u8], output: &str, file: &str, label: &str, status: &str) -> Error {
    let fault = report::first_alert(output, file);
    let line = fault.as_ref().and_then(|f| f.line);
    let section = line.and_then(|line| report::section_at(candidate, line));
    let words = match &fault {
        Some(fault) => fault.message.replace(file, label),
        None => output.lines().find(|l| !l.trim().is_empty()).unwrap_or(status).trim().replace(file, label),
    };
    let message = match (line, &section) {
        (Some(line), Some(section)) => format!("haproxy refuses line {line} in {section}: {words}"),
        (Some(line), None) => format!("haproxy refuses line {line}: {words}"),
        _ => format!("haproxy refuses the configuration: {words}"),
    };
    let mut error = Error::new(Reason::ConfigurationRejected, report::cap(&message))
        .detail(report::detail(output, file, label))
        .with("status", status);
    if let Some(line) = line {
        error = error.with("line", line);
    }
    if let Some(section) = section {
        error = error.with("section", section);
    }
    error
}

/// Whether relative paths are meant from the folder of the configuration file itself.
fn says_default_path_config(candidate: &[u8]) -> bool {
    if memchr::memmem::find(candidate, b"default-path").is_none() {
        return false;
    }
    candidate.split(|b| *b == b'\n').any(|line| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
        words.next() == Some(b"default-path") && matches!(words.next(), Some(b"config" | b"parent"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::live;
    use super::*;

    fn checker(change: impl FnOnce(&mut CheckOptions)) -> (tempfile::TempDir, Checker) {
        let folder = tempfile::tempdir().unwrap();
        let mut options = CheckOptions::new(live::haproxy(), folder.path(), folder.path().join("haproxy.cfg"));
        change(&mut options);
        (folder, Checker::new(options).unwrap())
    }

    fn left(folder: &tempfile::TempDir) -> usize {
        std::fs::read_dir(folder.path()).unwrap().count()
    }

    fn fact<'a>(error: &'a Error, key: &str) -> Option<&'a str> {
        error.metadata().iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }

    #[tokio::test]
    async fn a_good_candidate_passes_and_leaves_no_file() {
        let (folder, checker) = checker(|_| ());
        // Without a listener 3.1 and later refuse.
        let text = b"frontend fe\n  mode http\n  timeout client 1s\n  bind 127.0.0.1:1\n";
        checker.check(text, "candidate", "").await.unwrap();
        assert_eq!(left(&folder), 0);
    }

    #[tokio::test]
    async fn a_refusal_names_line_section_and_what_haproxy_said() {
        let (folder, checker) = checker(|_| ());
        let text = b"global\n  maxconn 10\nfrontend fe\n  mode http\n  foo bar\n  use_backend nope\n";
        let error = checker.check(text, "tx-1", "").await.unwrap_err();
        assert_eq!(error.reason(), Reason::ConfigurationRejected);
        assert!(error.message().starts_with("haproxy refuses line 5 in frontend fe: unknown keyword 'foo'"), "{error}");
        assert_eq!((fact(&error, "line"), fact(&error, "section")), (Some("5"), Some("frontend fe")));
        assert_eq!(fact(&error, "status"), Some("exit status 1"));
        let detail = error.detail_text().unwrap();
        assert!(detail.contains("parsing [tx-1:5]") && !detail.contains("candidate-"), "{detail}");
        assert_eq!(left(&folder), 0);
    }

    #[tokio::test]
    async fn a_command_of_the_users_own_gets_the_file_in_its_environment() {
        let (folder, checker) = checker(|o| {
            o.validate_cmd = Some(
                r#"sh -c 'grep -q "good one" "$DATAPLANEAPI_TRANSACTION_FILE" || { echo "not good"; exit 7; }'"#.into(),
            );
        });
        checker.check(b"# good one\n", "a", "").await.unwrap();
        let error = checker.check(b"# bad\n", "a", "").await.unwrap_err();
        assert_eq!(error.message(), "haproxy refuses the configuration: not good");
        assert_eq!(fact(&error, "status"), Some("exit status 7"));
        assert_eq!(left(&folder), 0);
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_ended_and_a_cancelled_one_leaves_no_file() {
        let hang = |o: &mut CheckOptions| {
            o.validate_cmd = Some("sleep 600".into());
            o.limit = Duration::from_millis(300);
        };
        let (folder, checker) = checker(hang);
        let error = checker.check(b"", "a", "").await.unwrap_err();
        assert!(error.message().contains("did not end within 0.3 s"), "{error}");
        assert_eq!(left(&folder), 0);
        let cut = tokio::time::timeout(Duration::from_millis(50), checker.check(b"", "a", "")).await;
        assert!(cut.is_err());
        assert_eq!(left(&folder), 0);
    }

    #[tokio::test]
    async fn a_missing_binary_is_named() {
        let (_folder, checker) = checker(|o| o.binary = "/nowhere/haproxy".into());
        let error = checker.check(b"", "a", "").await.unwrap_err();
        assert!(error.message().contains("/nowhere/haproxy cannot be run"), "{error}");
        assert!(Checker::new(CheckOptions { validate_cmd: Some("a 'b".into()), ..checker.options }).is_err());
        assert_eq!(found(Path::new("./sh")), Path::new("./sh"));
        assert!(found(Path::new("sh")).is_absolute());
    }

    #[tokio::test]
    async fn paths_relative_to_the_configuration_are_found() {
        let (folder, checker) = checker(|o| o.folder = std::env::temp_dir());
        std::fs::write(folder.path().join("a.map"), "a b\n").unwrap();
        let text = "global\n  default-path config\nfrontend fe\n  mode http\n  bind 127.0.0.1:1\n  timeout client 1s\n  \
                    http-request set-header x %[path,map(a.map)]\n";
        checker.check(text.as_bytes(), "a", "").await.unwrap();
        assert_eq!(left(&folder), 1);
        assert!(checker.check(text.replace("config", "current").as_bytes(), "a", "").await.is_err());
    }
}
