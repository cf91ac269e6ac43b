//! What HAProxy warns of when it accepts a change: callers are told of what came with their change, not of what was there.

use std::fmt;
use std::sync::Arc;

use super::frame::Hash;
use super::options::Snapshot;
use super::ports::Warning;
use super::store::Configuration;

/// The warnings about a text that is served, or was.
pub(super) struct Warned {
    hash: Hash,
    warnings: Vec<Warning>,
}

impl Configuration {
    /// Of the warnings about a candidate, which was made of `base`, those that `base` does not have.
    pub(super) async fn brought(&self, base: &Snapshot, now: &[Warning]) -> Vec<String> {
        if now.is_empty() {
            return Vec::new();
        }
        let known = self.shared.warned.load_full().filter(|known| known.hash == base.hash);
        let text = base.document.to_bytes();
        let before = match known {
            Some(known) => known.warnings.clone(),
            // Nobody has looked since the start, or since an edit by hand.
            None => self.check(&text, "candidate").await.unwrap_or_default(),
        };
        new_ones(&before, now, &String::from_utf8_lossy(&text))
    }

    /// Keeps the warnings about a text that has been written, for the next change.
    pub(super) fn remember(&self, version: i64, warnings: Vec<Warning>) {
        let current = self.current();
        if current.version == version {
            self.shared.warned.store(Some(Arc::new(Warned { hash: current.hash, warnings })));
        }
    }
}

/// What is said more often than before about `text`. Lines move with changes. What HAProxy measures comes and goes by
/// itself: it is told of lines only that are not there before.
fn new_ones(before: &[Warning], now: &[Warning], text: &str) -> Vec<String> {
    let mut left: Vec<&Warning> = before.iter().collect();
    let mut new = Vec::new();
    for warning in now {
        let same = |other: &&Warning| (&other.section, &other.words) == (&warning.section, &warning.words);
        let was_there = |line: &String| text.lines().any(|other| other.trim() == line);
        if let Some(at) = left.iter().position(same) {
            left.swap_remove(at);
        } else if !(is_measured(warning) && warning.text.as_ref().is_some_and(was_there)) {
            new.push(warning.to_string());
        }
    }
    new
}

/// Whether it says how long something takes, such as the hash of a password.
fn is_measured(warning: &Warning) -> bool {
    warning.words.contains(" milliseconds")
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, &self.section) {
            (Some(line), Some(section)) => write!(f, "haproxy warns of line {line} in {section}: {}", self.words),
            (Some(line), None) => write!(f, "haproxy warns of line {line}: {}", self.words),
            (None, _) => write!(f, "haproxy warns: {}", self.words),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn warning(line: usize, section: &str, words: &str) -> Warning {
        Warning { line: Some(line), section: Some(section.into()), text: Some("user u".into()), words: words.into() }
    }

    fn of_all(words: &str) -> Warning {
        Warning { line: None, section: None, text: None, words: words.into() }
    }

    #[test]
    fn only_what_was_not_said_before_is_told() {
        let before = [warning(3, "frontend a", "odd"), warning(4, "frontend a", "odd"), warning(9, "backend b", "old")];
        assert_eq!(new_ones(&before, &before, ""), Vec::<String>::new());
        // Moved, gone, once more, and elsewhere.
        let now = [
            warning(5, "frontend a", "odd"),
            warning(7, "frontend c", "odd"),
            warning(6, "frontend a", "odd"),
            warning(8, "frontend a", "odd"),
        ];
        let told = ["haproxy warns of line 7 in frontend c: odd", "haproxy warns of line 8 in frontend a: odd"];
        assert_eq!(new_ones(&before, &now, ""), told);
        let (b1, b2) = (of_all("no timeout in b1"), of_all("no timeout in b2"));
        assert_eq!(new_ones(slice::from_ref(&b1), &[b1.clone(), b2.clone()], ""), ["haproxy warns: no timeout in b2"]);
        assert_eq!(new_ones(&[b1], &[b2], ""), ["haproxy warns: no timeout in b2"]);
    }

    #[test]
    fn what_is_measured_is_told_of_new_lines_only() {
        let slow = |time: u32| [warning(2, "userlist l", &format!("takes {time} milliseconds to verify"))];
        let text = "userlist l\n  user u\n";
        assert_eq!(new_ones(&slow(42), &slow(7), text), Vec::<String>::new());
        assert_eq!(new_ones(&[], &slow(7), text), Vec::<String>::new());
        let told = "haproxy warns of line 2 in userlist l: takes 7 milliseconds to verify";
        assert_eq!(new_ones(&[], &slow(7), "userlist l\n"), [told]);
    }
}
