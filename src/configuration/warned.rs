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
        let before = match known {
            Some(known) => known.warnings.clone(),
            // Nobody has looked since the start, or since an edit by hand.
            None => self.shared.check.check(&base.document.to_bytes(), "candidate").await.unwrap_or_default(),
        };
        new_ones(&before, now)
    }

    /// Keeps the warnings about a text that has been written, for the next change.
    pub(super) fn remember(&self, version: i64, warnings: Vec<Warning>) {
        let current = self.current();
        if current.version == version {
            self.shared.warned.store(Some(Arc::new(Warned { hash: current.hash, warnings })));
        }
    }
}

/// What is said more often than before. Lines move with changes, and what HAProxy says of a line may hold a number that it
/// has measured: such a warning is the same for all that.
fn new_ones(before: &[Warning], now: &[Warning]) -> Vec<String> {
    let mut left: Vec<&Warning> = before.iter().collect();
    let mut new: Vec<&Warning> = now.iter().collect();
    for same in [is_same, is_same_but_for_numbers] {
        new.retain(|warning| match left.iter().position(|other| same(other, warning)) {
            Some(at) => {
                left.swap_remove(at);
                false
            }
            None => true,
        });
    }
    new.into_iter().map(ToString::to_string).collect()
}

fn is_same(one: &Warning, other: &Warning) -> bool {
    (&one.section, &one.words) == (&other.section, &other.words)
}

fn is_same_but_for_numbers(one: &Warning, other: &Warning) -> bool {
    let words = |warning: &Warning| warning.words.replace(|c: char| c.is_ascii_digit(), "");
    one.line.is_some() && other.line.is_some() && one.section == other.section && words(one) == words(other)
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
    use super::*;

    fn warning(line: usize, section: &str, words: &str) -> Warning {
        Warning { line: Some(line), section: Some(section.into()), words: words.into() }
    }

    #[test]
    fn only_what_was_not_said_before_is_told() {
        let before = [warning(3, "frontend a", "odd"), warning(4, "frontend a", "odd"), warning(9, "backend b", "old")];
        assert_eq!(new_ones(&before, &before), Vec::<String>::new());
        // Moved, gone, once more, and elsewhere.
        let now = [
            warning(5, "frontend a", "odd"),
            warning(7, "frontend c", "odd"),
            warning(6, "frontend a", "odd"),
            warning(8, "frontend a", "odd"),
        ];
        let told = ["haproxy warns of line 7 in frontend c: odd", "haproxy warns of line 8 in frontend a: odd"];
        assert_eq!(new_ones(&before, &now), told);
        // A measured number is no difference, a name of something else is one.
        let measured = |time: &str| warning(3, "userlist u", &format!("takes {time} milliseconds"));
        assert_eq!(new_ones(&[measured("42")], &[measured("7")]), Vec::<String>::new());
        let of = |name: &str| Warning { line: None, section: None, words: format!("missing timeouts for {name}") };
        assert_eq!(new_ones(&[of("b1")], &[of("b1"), of("b2")]), ["haproxy warns: missing timeouts for b2"]);
        assert_eq!(new_ones(&[of("b1")], &[of("b2")]), ["haproxy warns: missing timeouts for b2"]);
        assert_eq!(new_ones(&[], &[Warning { line: None, section: None, words: "x".into() }]), ["haproxy warns: x"]);
    }
}
