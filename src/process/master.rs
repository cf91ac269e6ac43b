//! The socket of HAProxy's master process: used for reloads and the state of processes, for nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::version::Version;

/// Most that is read of an answer, in bytes: that to a reload holds all warnings of the configuration.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// A client of the master socket; one connection for each command.
#[derive(Debug, Clone)]
pub struct MasterSocket {
    path: PathBuf,
}

impl MasterSocket {
    /// The path, with or without HAProxy's `unix@`.
    pub fn new(path: &Path) -> Self {
        let stripped = path.to_str().and_then(|p| p.strip_prefix("unix@"));
        MasterSocket { path: stripped.map_or_else(|| path.to_owned(), PathBuf::from) }
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends one command and reads the answer. An empty answer is none: the connection was closed.
    pub async fn send(&self, command: &str, limit: Duration) -> io::Result<String> {
        let work = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            // The connection of a reload closes by itself; closing our side early would lose its answer.
            let reload = command == "reload";
            if !reload {
                stream.shutdown().await?;
            }
            let mut answer = Vec::new();
            let mut buffer = vec![0_u8; 16 * 1024];
            while answer.len() < ANSWER_LIMIT {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    count => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                }
                // A refusal that comes at once leaves the connection open.
                if reload && answer.starts_with(b"Success=0") && answer.ends_with(b"\n\n") && says_busy(&answer) {
                    break;
                }
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The state of master and workers; fails while the master is loading.
    pub async fn processes(&self, limit: Duration) -> io::Result<Processes> {
        let answer = self.send("show proc", limit).await?;
        Processes::parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer to show proc"))
    }

    /// Whether something accepts connections there.
    pub async fn connects(&self) -> bool {
        matches!(tokio::time::timeout(Duration::from_secs(2), UnixStream::connect(&self.path)).await, Ok(Ok(_)))
    }
}

/// Whether the master answers that another reload runs.
pub(super) fn says_busy(answer: &[u8]) -> bool {
    memchr::memmem::find(answer, b"reload is still in progress").is_some()
}

/// The answer to `show proc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes {
    /// Process id of the master; the same for its whole life.
    pub master: u32,
    /// Reloads since the master started, failed ones included.
    pub reloads: u64,
    /// Seconds since the master started.
    pub uptime: u64,
    /// Failed reloads since the last good one.
    pub failed: u64,
    /// Workers under `# workers`: the current one, and with 3.1 and later also one that is loading.
    pub workers: Vec<Worker>,
    /// Version of the master.
    pub version: Option<Version>,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Process id.
    pub pid: u32,
    /// Reloads that it has outlived; 0 for the one of the last good reload.
    pub reloads: u64,
}

impl Processes {
    /// Reads the table of `show proc`, forms of 2.6 to 3.2.
    pub fn parse(text: &str) -> Option<Processes> {
        let mut found: Option<Processes> = None;
        let mut current = false;
        for line in text.lines() {
            if line.starts_with('#') {
                current = line.trim() == "# workers";
                continue;
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match (words.as_slice(), &mut found) {
                ([pid, "master", reloads, rest @ ..], None) => {
                    let uptime = rest.iter().find_map(|word| uptime(word)).unwrap_or(0);
                    let failed = match rest {
                        ["[failed:", count, ..] => count.trim_end_matches(']').parse().ok()?,
                        _ => 0,
                    };
                    found = Some(Processes {
                        master: pid.parse().ok()?,
                        reloads: reloads.parse().ok()?,
                        uptime,
                        failed,
                        workers: Vec::new(),
                        version: rest.last().and_then(|v| Version::from_raw(v)),
                    });
                }
                ([pid, "worker", reloads, ..], Some(processes)) if current => {
                    processes.workers.push(Worker { pid: pid.parse().ok()?, reloads: reloads.parse().ok()? });
                }
                _ => {}
            }
        }
        found
    }

    /// Whether a worker runs that `before` did not have and that no reload has passed.
    pub fn has_fresh_worker(&self, before: &Processes) -> bool {
        let anew = self.is_restarted(before);
        self.workers.iter().any(|w| w.reloads == 0 && (anew || before.workers.iter().all(|old| old.pid != w.pid)))
    }

    /// Whether the master has counted a reload since `before`, or was itself started anew.
    pub fn has_reloaded(&self, before: &Processes) -> bool {
        self.reloads > before.reloads || self.is_restarted(before)
    }

    /// Another master, perhaps under the same number as happens in containers: then it counts from 0 again.
    fn is_restarted(&self, before: &Processes) -> bool {
        self.master != before.master
            || self.reloads < before.reloads
            || (self.reloads == before.reloads && self.uptime < before.uptime)
    }
}

/// Reads `1d02h03m04s`, in seconds.
fn uptime(word: &str) -> Option<u64> {
    let mut rest = word;
    let mut seconds = 0_u64;
    for (unit, length) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        let (number, after) = rest.split_once(unit)?;
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(length)?)?;
        rest = after;
    }
    rest.is_empty().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
        23576           master          2 [failed: 1]   0d00h00m05s     2.6.12-1+deb12u4\n# workers\n\
        23608           worker          1               0d00h00m04s     2.6.12-1+deb12u4\n# programs\n\n\n";
    const LOADING: &str = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n\
        23576           master          3 [failed: 0]   0d00h00m02s     3.2.26-1       \n# workers\n\
        23648           worker          0               0d00h00m00s     3.2.26-1       \n# old workers\n\
        23608           worker          1               0d00h00m01s     3.2.26-1       \n\n";

    #[test]
    fn show_proc_is_read() {
        let before = Processes::parse(BEFORE).unwrap();
        assert_eq!((before.master, before.reloads, before.failed, before.uptime), (23576, 2, 1, 5));
        assert_eq!(before.workers, [Worker { pid: 23608, reloads: 1 }]);
        assert!(!before.version.clone().unwrap().at_least(2, 7));
        let after = Processes::parse(LOADING).unwrap();
        assert_eq!(after.workers, [Worker { pid: 23648, reloads: 0 }]);
        assert!(after.has_fresh_worker(&before));
        assert!(!before.has_fresh_worker(&before));
        assert!(after.has_reloaded(&before) && !before.has_reloaded(&before));
        // In a container a restart may bring the same numbers.
        let anew = Processes { uptime: 0, ..before.clone() };
        assert!(anew.has_reloaded(&before));
        assert_eq!((uptime("1d02h03m04s"), uptime("5s"), uptime("3.2.26-1")), (Some(93_784), None, None));
        assert_eq!(Processes::parse(""), None);
        assert_eq!(Processes::parse("Unknown command\n"), None);
    }
}
