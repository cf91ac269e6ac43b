//! What each HAProxy said, as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::samples::Sample;

/// Answers about samples, which are known by their position.
#[derive(Default)]
pub(crate) struct Results {
    /// Samples that at least one version takes.
    pub(crate) accepted: BTreeSet<usize>,
    /// Samples that a version refuses, with its words.
    pub(crate) refused: BTreeMap<usize, BTreeMap<(u16, u16), String>>,
    versions: BTreeMap<(u16, u16), Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: usize,
    refused: usize,
    too_new: usize,
    runs: usize,
}

impl Results {
    /// Takes the answers of a version about some samples.
    pub(crate) fn add(&mut self, version: (u16, u16), which: &[usize], refused: BTreeMap<usize, String>) {
        let counts = self.versions.entry(version).or_default();
        counts.refused += refused.len();
        counts.accepted += which.len() - refused.len();
        self.accepted.extend(which.iter().filter(|at| !refused.contains_key(at)));
        for (at, why) in refused {
            self.refused.entry(at).or_default().insert(version, why);
        }
    }

    /// A version has been asked about all samples that it may know, out of so many.
    pub(crate) fn asked(&mut self, version: (u16, u16), runs: usize, all: usize) {
        let counts = self.versions.entry(version).or_default();
        counts.runs = runs;
        counts.too_new = all - counts.accepted - counts.refused;
    }

    /// First a line for each version, then one for each refused sample and its reason; versions that give the same
    /// reason share it. `dir` is left out of the words.
    pub(crate) fn table(&self, samples: &[Sample], dir: &str) -> String {
        let mut out = String::from("haproxy | accepted | refused | needs a newer one | runs\n");
        for ((major, minor), c) in &self.versions {
            let row = [c.accepted, c.refused, c.too_new, c.runs].map(|count| count.to_string()).join(" | ");
            line(&mut out, &format!("{major}.{minor} | {row}"));
        }
        line(&mut out, "\nrefused by | another takes it | line | why");
        for (at, answers) in &self.refused {
            let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for ((major, minor), why) in answers {
                reasons.entry(why).or_default().push(format!("{major}.{minor}"));
            }
            let taken = if self.accepted.contains(at) { "yes" } else { "no" };
            for (why, versions) in reasons {
                let shown = samples[*at].shown.replace(" | ", "; ");
                let text = format!("{} | {taken} | {shown} | {why}", versions.join(" "));
                line(&mut out, &text.replace(dir, "{dir}"));
            }
        }
        out
    }
}

fn line(out: &mut String, text: &str) {
    assert!(writeln!(out, "{text}").is_ok());
}
