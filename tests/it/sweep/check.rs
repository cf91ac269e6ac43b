//! Asks HAProxy about many samples at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::samples::Sample;

/// A HAProxy to ask.
pub(crate) struct Binary {
    /// Its version, as 2.8.
    pub(crate) version: (u16, u16),
    path: PathBuf,
}

/// The system's HAProxy and the ones that `deploy/tools.sh matrix` has fetched, oldest first.
pub(crate) fn binaries() -> Vec<Binary> {
    let cache = std::env::var_os("BACKSTAY_CACHE").map_or_else(|| PathBuf::from(".cache"), PathBuf::from);
    let fetched = std::fs::read_dir(cache.join("haproxy")).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = fetched.map(|entry| entry.path().join("haproxy")).collect();
    paths.push("haproxy".into());
    paths.push("/usr/sbin/haproxy".into());
    let mut out: Vec<Binary> =
        paths.into_iter().filter_map(|path| Some(Binary { version: version(&path)?, path })).collect();
    out.sort_by_key(|binary| binary.version);
    out.dedup_by_key(|binary| binary.version);
    out
}

fn version(path: &Path) -> Option<(u16, u16)> {
    let output = Command::new(path).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = word.split(['.', '-']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

impl Binary {
    /// What HAProxy has against a file: nothing when it takes it.
    pub(crate) fn check(&self, file: &Path) -> Result<(), String> {
        let output =
            Command::new(&self.path).args(["-W", "-c"]).arg("-f").arg(file).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        if output.status.success() { Ok(()) } else { Err(text) }
    }
}

/// Checks samples together and tells those that are refused, with HAProxy's words.
pub(crate) struct Sweep<'a> {
    pub(crate) binary: &'a Binary,
    pub(crate) prologue: &'a str,
    pub(crate) samples: &'a [Sample],
    pub(crate) file: PathBuf,
    /// The samples are global settings.
    pub(crate) global: bool,
    /// How often HAProxy was asked.
    pub(crate) runs: usize,
}

impl Sweep<'_> {
    /// Samples that are refused even when they stand alone.
    pub(crate) fn refused(&mut self, which: &[usize]) -> BTreeMap<usize, String> {
        let mut refused = BTreeMap::new();
        for some in which.chunks(400) {
            self.sift(some.to_vec(), &mut refused);
        }
        let together: Vec<usize> = refused.keys().copied().collect();
        for one in together {
            match self.ask(&[one]) {
                Ok(()) => drop(refused.remove(&one)),
                Err(text) => drop(refused.insert(one, complaint(&text))),
            }
        }
        refused
    }

    fn sift(&mut self, mut rest: Vec<usize>, refused: &mut BTreeMap<usize, String>) {
        while !rest.is_empty() {
            let Err(text) = self.ask(&rest) else { return };
            let found = self.blamed(&rest, &text);
            if found.is_empty() {
                if rest.len() == 1 {
                    refused.insert(rest[0], complaint(&text));
                    return;
                }
                let half = rest.split_off(rest.len() / 2);
                self.sift(rest, refused);
                return self.sift(half, refused);
            }
            rest.retain(|one| !found.contains_key(one));
            refused.extend(found);
        }
    }

    fn ask(&mut self, which: &[usize]) -> Result<(), String> {
        self.runs += 1;
        let sections: String = which.iter().map(|at| self.samples[*at].text.as_str()).collect();
        // Some global settings must come first of all.
        let text =
            if self.global { format!("{sections}{}", self.prologue) } else { format!("{}{sections}", self.prologue) };
        std::fs::write(&self.file, text).map_err(|error| error.to_string())?;
        self.binary.check(&self.file)
    }

    /// The samples that alerts name, by line or by the name of their section.
    fn blamed(&self, which: &[usize], text: &str) -> BTreeMap<usize, String> {
        let mut found = BTreeMap::new();
        for alert in text.lines().filter(|line| line.starts_with("[ALERT]")) {
            let mut owner = None;
            if let Some(number) = line_number(alert) {
                let mut last = if self.global { 0 } else { self.prologue.lines().count() };
                owner = which.iter().copied().find(|at| {
                    let first = last;
                    last += self.samples[*at].text.lines().count();
                    first < number && number <= last
                });
            }
            let names = || {
                let words = alert.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                words.filter_map(|word| word.strip_prefix(['n', 'p'])?.parse::<usize>().ok())
            };
            if let Some(at) = owner.or_else(|| names().find(|at| which.contains(at))) {
                found.entry(at).or_insert_with(|| complaint(alert));
            }
        }
        found
    }
}

fn line_number(alert: &str) -> Option<usize> {
    let (_, rest) = alert.split_once(".cfg:")?;
    rest.split(']').next()?.parse().ok()
}

/// The first alert, without its time, process and line.
fn complaint(text: &str) -> String {
    let sums_up = |line: &str| line.contains("found in configuration");
    let mut alerts = text.lines().filter(|line| line.starts_with("[ALERT]"));
    let alert = alerts.clone().find(|line| !sums_up(line));
    // A warning may be all that says why.
    let alert = alert
        .or_else(|| text.lines().find(|line| line.starts_with("[WARNING]")))
        .or_else(|| alerts.next())
        .or_else(|| text.lines().last());
    let alert = alert.unwrap_or_default();
    let alert = alert.split_once(" : ").map_or(alert, |(_, rest)| rest);
    // Some alerts end without a line of their own.
    let alert = alert.split("[ALERT]").next().unwrap_or_default();
    let alert = alert.strip_prefix("config : ").unwrap_or(alert);
    alert
        .strip_prefix("parsing [")
        .and_then(|rest| rest.split_once("] : "))
        .map_or(alert, |(_, rest)| rest)
        .trim()
        .to_owned()
}
