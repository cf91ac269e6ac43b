//! A process of this program that limits itself and then becomes the check of a configuration.
//!
//! HAProxy writes files and runs Lua also where it only checks. So the check may read everything, and write only in a
//! folder of its own that is removed after it. Networks stay open: HAProxy resolves names of servers.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, setrlimit};

/// First argument of a process that is to limit itself. It is no flag, and stands in no help.
pub const CONFINED: &str = "--confined-check";

/// What comes first in the output of a process that could not become the check, and its exit status.
const FAILED: &str = "confined check: ";
const FAILED_STATUS: u8 = 127;

/// How far the kernel can keep the check from writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// It cannot write outside of its folder, and reach no process but its own.
    Full,
    /// The kernel is older than 6.12, and knows only a part of the limits.
    Partial,
    /// The kernel has no Landlock, or it is switched off.
    None,
}

impl Strength {
    /// Finds out, by a thread that limits itself and ends.
    pub fn of_kernel() -> Strength {
        match std::thread::spawn(|| forbid_writing(None)).join() {
            Ok(Ok(RulesetStatus::FullyEnforced)) => Strength::Full,
            Ok(Ok(RulesetStatus::PartiallyEnforced)) => Strength::Partial,
            _ => Strength::None,
        }
    }
}

/// The command line of a confined process.
#[derive(Debug)]
pub struct Confined<'a> {
    /// This program.
    pub confiner: &'a Path,
    /// The only folder that it may write in.
    pub folder: &'a Path,
    /// Time of the processor that it, and each process that it starts, may use.
    pub time: Duration,
}

impl Confined<'_> {
    /// The command that becomes `program`, to which arguments can be added.
    pub fn command(&self, program: &Path) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.confiner);
        command.arg(CONFINED).arg(self.folder).arg(seconds(self.time).to_string()).arg(program);
        command
    }
}

/// Why a confined process did not become its program, out of its exit status and standard error.
pub fn failure(status: Option<i32>, stderr: &str) -> Option<&str> {
    (status == Some(FAILED_STATUS.into())).then(|| stderr.strip_prefix(FAILED)).flatten().map(str::trim_end)
}

/// Limits this process and makes it the program of the arguments, which are those behind [`CONFINED`].
///
/// Returns only when that fails. No other thread may run yet: they would keep their rights.
pub fn become_check(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let why = confined(arguments).unwrap_or_else(|| "arguments are missing".to_owned());
    drop(writeln!(std::io::stderr(), "{FAILED}{why}"));
    ExitCode::from(FAILED_STATUS)
}

fn confined(mut arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let folder = PathBuf::from(arguments.next()?);
    let seconds = arguments.next()?.to_str()?.parse().ok()?;
    let program = arguments.next()?;
    if let Err(why) = limit(&folder, seconds) {
        return Some(why);
    }
    let error = Command::new(&program).args(arguments).exec();
    Some(format!("{} cannot be run: {error}", Path::new(&program).display()))
}

fn limit(folder: &Path, seconds: u64) -> Result<(), String> {
    let refused = |error: rustix::io::Errno| format!("its limits cannot be set: {error}");
    rustix::thread::set_no_new_privs(true).map_err(refused)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
    let allowed = rustix::process::getrlimit(Resource::Cpu).maximum.map_or(seconds, |most| most.min(seconds));
    setrlimit(Resource::Cpu, Rlimit { current: Some(allowed), maximum: Some(allowed) }).map_err(refused)?;
    forbid_writing(Some(folder)).map(drop).map_err(|error| format!("its rights cannot be limited: {error}"))
}

/// Takes from this thread, and from what it becomes, the right to write anywhere but in `folder` and `/dev/null`, and
/// to signal other processes. As far as the kernel can.
fn forbid_writing(folder: Option<&Path>) -> Result<RulesetStatus, RulesetError> {
    // Later versions would close the sockets by which names may be resolved.
    let writing: BitFlags<AccessFs> = AccessFs::from_write(ABI::V5);
    let ruleset = Ruleset::default().handle_access(writing)?.scope(Scope::from_all(ABI::V6))?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(folder, writing))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Whole seconds, at least one.
fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_from_what_the_program_says_itself() {
        assert_eq!(failure(Some(127), "confined check: x cannot be run: y\n"), Some("x cannot be run: y"));
        assert_eq!(failure(Some(127), "sh: x: not found\n"), None);
        assert_eq!(failure(Some(1), "confined check: x\n"), None);
    }

    #[test]
    fn arguments_that_are_missing_are_told() {
        assert_eq!(confined(["/tmp".into(), "x".into(), "y".into()].into_iter()), None);
        assert_eq!((seconds(Duration::from_millis(1)), seconds(Duration::from_secs(3))), (1, 3));
    }
}
