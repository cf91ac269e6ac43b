//! The version of an HAProxy binary.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::command;
use crate::error::{Error, Reason, Result};

/// An HAProxy version. Ordered by major, minor and patch; `raw` has no part in it.
#[derive(Debug, Clone)]
pub struct Version {
    /// 2 in `2.6.12-1+deb12u4`.
    pub major: u16,
    /// 6 in `2.6.12-1+deb12u4`.
    pub minor: u16,
    /// 12 in `2.6.12-1+deb12u4`, 0 where there is none (`3.2-dev5`).
    pub patch: u16,
    /// The whole version as HAProxy prints it.
    pub raw: String,
}

impl Version {
    /// Asks a binary with `-v`.
    pub async fn of(binary: &Path) -> Result<Version> {
        let mut command = Command::new(binary);
        command.arg("-v");
        let shown = binary.display();
        let done = command::run(command, Duration::from_secs(10))
            .await
            .map_err(|failure| Error::new(Reason::Internal, format!("haproxy-bin: {failure}")))?;
        Version::parse(&done.stdout).ok_or_else(|| {
            Error::new(Reason::Internal, format!("haproxy-bin: {shown} -v does not print the version of an haproxy"))
                .detail(done.stdout + &done.stderr)
        })
    }

    /// Reads the first line of `haproxy -v`: `HAProxy version 2.6.12-1+deb12u4 2026/10/17 - ...`, before 2.4 `HA-Proxy`.
    pub fn parse(text: &str) -> Option<Version> {
        let mut words = text.lines().next()?.split_ascii_whitespace();
        if !matches!(words.next()?, "HAProxy" | "HA-Proxy") || words.next()? != "version" {
            return None;
        }
        Version::from_raw(words.next()?)
    }

    /// Reads a bare version such as `3.0.11-1+deb13u4`, as `show proc` and `show info` give it.
    pub fn from_raw(raw: &str) -> Option<Version> {
        let numbers = raw.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.split('.').filter(|p| !p.is_empty()).map(str::parse);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        let patch = parts.next().and_then(Result::ok).unwrap_or(0);
        Some(Version { major, minor, patch, raw: raw.to_owned() })
    }

    /// Whether it is `major.minor` or later.
    pub fn at_least(&self, major: u16, minor: u16) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    fn key(&self) -> (u16, u16, u16) {
        (self.major, self.minor, self.patch)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds_are_read_and_ordered() {
        let read = |text: &str| Version::parse(text).unwrap();
        let debian = read("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: x\n");
        assert_eq!((debian.key(), debian.raw.as_str()), ((2, 6, 12), "2.6.12-1+deb12u4"));
        assert_eq!(read("HAProxy version 3.2-dev5-abc 2025/01/01 - x").key(), (3, 2, 0));
        assert_eq!(read("HA-Proxy version 2.2.9-2 2021 - x").key(), (2, 2, 9));
        assert!(debian.at_least(2, 6) && !debian.at_least(2, 7) && debian.at_least(1, 9));
        assert!(read("HAProxy version 2.10.0 x") > read("HAProxy version 2.9.9 x"));
        assert!(Version::parse("nginx version: nginx/1.2").is_none());
        assert!(Version::parse("").is_none());
    }

    #[tokio::test]
    async fn a_binary_that_is_no_haproxy_is_named() {
        let missing = Version::of(Path::new("/nowhere/haproxy")).await.unwrap_err();
        assert!(missing.message().starts_with("haproxy-bin: /nowhere/haproxy cannot be run"), "{missing}");
        let other = Version::of(Path::new("/bin/true")).await.unwrap_err();
        assert!(other.message().contains("/bin/true -v does not print the version"), "{other}");
    }
}
