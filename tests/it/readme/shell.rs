//! A shell that runs one command after the other.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Printed behind the output of a command, with its exit status.
const MARK: &str = "--8<-- done";

/// How long a command may take; the first build of an example takes long.
const PATIENCE: Duration = Duration::from_mins(5);

/// A running bash.
pub(super) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Arc<Mutex<Vec<u8>>>,
    /// Whether the last command has succeeded.
    pub(super) succeeded: bool,
}

impl Shell {
    /// Starts one in a folder, with these variables.
    pub(super) fn start(folder: &Path, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile"]).current_dir(folder).process_group(0);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(Stdio::piped()).stdout(writer.try_clone().expect("a pipe")).stderr(writer);
        let mut child = command.spawn().expect("bash");
        let output = Arc::new(Mutex::new(Vec::new()));
        let read = output.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut piece) {
                read.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        let input = child.stdin.take().expect("a pipe");
        let mut shell = Shell { child, input, output, succeeded: true };
        // Each job in the background is a group of its own, and can be ended with all that it has started.
        shell.run("set -m");
        shell
    }

    /// Runs a command and returns what it prints.
    pub(super) fn run(&mut self, command: &str) -> String {
        self.output.lock().unwrap().clear();
        let line = format!("{command}\nprintf '\\n%s %s.\\n' '{MARK}' $?\n");
        self.input.write_all(line.as_bytes()).expect("bash runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned();
            let end =
                text.split_once(&format!("\n{MARK} ")).and_then(|(text, rest)| Some((text, rest.split_once('.')?.0)));
            if let Some((text, status)) = end {
                self.succeeded = status == "0";
                return text.to_owned();
            }
            assert!(Instant::now() < deadline, "{command} does not end:\n{text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a command that does not end by itself, until `enough` of what it has printed; between two looks, `meanwhile`
    /// is called.
    pub(super) fn follow(
        &mut self,
        command: &str,
        enough: impl Fn(&str) -> bool,
        mut meanwhile: impl FnMut(&str),
    ) -> String {
        self.run("output=$(mktemp)");
        self.run(&format!("{{ {command}\n}} >$output 2>&1 </dev/null &"));
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let text = self.run("cat $output");
            if enough(&text) {
                self.run("kill -- -$!; wait $! 2>/dev/null; rm $output");
                return text;
            }
            assert!(Instant::now() < deadline, "{command}:\n{text}");
            meanwhile(&text);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.input.write_all(b"kill $(jobs -p) 2>/dev/null; exit\n"));
        std::thread::sleep(Duration::from_millis(50));
        let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        drop(self.child.wait());
    }
}
