//! The YAML file: flat values with their lines, and what is wrong with the file. Pure.

use std::collections::BTreeSet;

use marked_yaml::types::{MarkedMappingNode, MarkedScalarNode};
use marked_yaml::{LoaderOptions, Node, parse_yaml_with_options};

use super::logging::LogKey;
use super::rows::{Kind, LOG_TARGET_KEYS, LOG_TARGETS, ROWS, USER_KEY, USER_KEYS, by_key};
use super::{Secret, User};

/// A value of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Path of its key.
    pub(super) key: &'static str,
    /// Line of the key, from 1.
    pub(super) line: usize,
    /// One text, or several for a list.
    pub(super) values: Vec<String>,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Values of supported keys.
    pub(super) entries: Vec<Entry>,
    /// `dataplaneapi.user`.
    pub(super) users: Vec<User>,
    /// Keys that are known and have no effect yet, with their lines.
    pub(super) unsupported: Vec<(String, usize)>,
    /// Keys that nothing knows, one sentence each.
    pub(super) unknown: Vec<String>,
    /// Whether these are no faults.
    lenient: bool,
    /// Elements of `log_targets`: their keys with lines and values.
    pub(super) log_targets: Vec<Vec<LogKey>>,
    /// Faults, one sentence each.
    pub(super) problems: Vec<String>,
}

/// Reads a file.
pub(super) fn read(text: &str) -> File {
    read_as(text, false)
}

/// Reads a file. With `lenient`, unknown keys are listed apart instead of as faults.
pub(super) fn read_as(text: &str, lenient: bool) -> File {
    let mut file = File { lenient, ..File::default() };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---") {
        return file;
    }
    match parse_yaml_with_options(0, text, LoaderOptions::default().error_on_duplicate_keys(true)) {
        Ok(Node::Mapping(top)) => file.mapping("", &top),
        Ok(_) => file.problems.push("the file must be a mapping of keys".to_owned()),
        Err(error) => file.problems.push(fault(&error)),
    }
    file
}

fn fault(error: &marked_yaml::LoadError) -> String {
    use marked_yaml::LoadError as E;
    let (marker, words) = match error {
        E::TopLevelMustBeMapping(m) | E::TopLevelMustBeSequence(m) => {
            (*m, "the file must be a mapping of keys".to_owned())
        }
        E::UnexpectedAnchor(m) => (*m, "anchors are not supported".to_owned()),
        E::MappingKeyMustBeScalar(m) => (*m, "a key must be plain text".to_owned()),
        E::UnexpectedTag(m) => (*m, "tags are not supported".to_owned()),
        E::ScanError(m, scan) => (*m, scan.info().to_owned()),
        E::DuplicateKey(twice) => {
            let line = twice.key.span().start().map_or(0, marked_yaml::Marker::line);
            return format!("{} (line {line}): the key is there twice", twice.key.as_str());
        }
    };
    format!("line {}: {words}", marker.line())
}

fn line_of(scalar: &MarkedScalarNode) -> usize {
    scalar.span().start().map_or(0, marked_yaml::Marker::line)
}

/// Whether a key is written without a value.
fn absent(node: &Node) -> bool {
    node.as_scalar().is_some_and(|s| s.may_coerce() && matches!(s.as_str(), "" | "~" | "null"))
}

impl File {
    /// The Data Plane API writes `""` for what is not set.
    fn absent(&self, node: &Node) -> bool {
        absent(node) || (self.lenient && node.as_scalar().is_some_and(|s| s.as_str().is_empty()))
    }

    fn mapping(&mut self, parent: &str, mapping: &MarkedMappingNode) {
        for (key, node) in mapping.iter() {
            let line = line_of(key);
            let path = if parent.is_empty() { key.as_str().to_owned() } else { format!("{parent}.{}", key.as_str()) };
            if path == USER_KEY {
                self.read_users(line, node);
            } else if let Some(row) = by_key(&path) {
                if self.absent(node) {
                    continue;
                }
                if path == LOG_TARGETS {
                    self.log_targets(line, node);
                    self.entries.push(Entry { key: row.key, line, values: Vec::new() });
                } else if row.supported() && row.kind == Kind::Any {
                    // Another room reads the list.
                    match node {
                        Node::Sequence(_) => self.entries.push(Entry { key: row.key, line, values: Vec::new() }),
                        _ => self.problems.push(format!("{path} (line {line}): expected a list")),
                    }
                } else if !row.supported() {
                    self.unsupported.push((path, line));
                } else if let Some(values) = values(node, row.kind) {
                    self.entries.push(Entry { key: row.key, line, values });
                } else {
                    self.problems.push(format!("{path} (line {line}): expected {}", row.kind.expected()));
                }
            } else if ROWS.iter().any(|row| row.key.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.'))) {
                match node {
                    Node::Mapping(inner) => self.mapping(&path, inner),
                    _ if absent(node) => {}
                    _ => self.problems.push(format!("{path} (line {line}): expected keys below it")),
                }
            } else {
                self.unknown(&path, line, known_keys());
            }
        }
    }

    fn unknown(&mut self, path: &str, line: usize, known: impl Iterator<Item = String>) {
        let hint = nearest(path, known).map(|found| format!(", did you mean {found}?")).unwrap_or_default();
        let words = format!("{path} (line {line}): unknown key{hint}");
        if self.lenient { self.unknown.push(words) } else { self.problems.push(words) }
    }

    fn read_users(&mut self, line: usize, node: &Node) {
        let Some(list) = node.as_sequence() else {
            if !absent(node) {
                self.problems.push(format!("{USER_KEY} (line {line}): expected a list of users"));
            }
            return;
        };
        for (index, item) in list.iter().enumerate() {
            let path = format!("{USER_KEY}[{index}]");
            let Some(mapping) = item.as_mapping() else {
                self.problems.push(format!("{path} (line {line}): expected the keys name, insecure and password"));
                continue;
            };
            let mut user = User { name: String::new(), insecure: false, password: Secret::new(String::new()) };
            for (key, value) in mapping.iter() {
                let (at, path) = (line_of(key), format!("{path}.{}", key.as_str()));
                let text = value.as_scalar().map(|s| s.as_str().to_owned());
                match (key.as_str(), text) {
                    ("name", Some(text)) => user.name = text,
                    ("password", Some(text)) => user.password = Secret::new(text),
                    ("insecure", Some(text)) => match super::values::switch(&text) {
                        Some(insecure) => user.insecure = insecure,
                        None => self.problems.push(format!("{path} (line {at}): expected true or false")),
                    },
                    ("name" | "password" | "insecure", None) => {
                        self.problems.push(format!("{path} (line {at}): expected text"));
                    }
                    _ => self.unknown(&path, at, USER_KEYS.iter().map(|k| format!("{USER_KEY}[{index}].{k}"))),
                }
            }
            if user.name.is_empty() || user.password.expose().is_empty() {
                self.problems.push(format!("{path} (line {line}): expected a name and a password"));
            }
            self.users.push(user);
        }
    }

    fn log_targets(&mut self, line: usize, node: &Node) {
        let Some(list) = node.as_sequence() else {
            self.problems.push(format!("log_targets (line {line}): expected a list"));
            return;
        };
        for (number, item) in list.iter().enumerate() {
            let Some(mapping) = item.as_mapping() else {
                self.problems.push(format!("log_targets[{number}] (line {line}): expected keys such as log_to"));
                continue;
            };
            let mut keys = Vec::new();
            for (key, node) in mapping.iter() {
                match values(node, Kind::List) {
                    _ if absent(node) => {}
                    Some(values) => keys.push((key.as_str().to_owned(), line_of(key), values)),
                    None => {
                        let (key, line) = (key.as_str(), line_of(key));
                        self.problems.push(format!("log_targets[{number}].{key} (line {line}): expected text"));
                    }
                }
            }
            self.log_targets.push(keys);
        }
        let keys = list.iter().filter_map(Node::as_mapping).flat_map(|m| m.keys());
        for key in keys.filter(|key| !LOG_TARGET_KEYS.contains(&key.as_str())) {
            let path = format!("log_targets.{}", key.as_str());
            self.unknown(&path, line_of(key), LOG_TARGET_KEYS.iter().map(|k| format!("log_targets.{k}")));
        }
    }
}

fn values(node: &Node, kind: Kind) -> Option<Vec<String>> {
    match node {
        Node::Scalar(scalar) => Some(vec![scalar.as_str().to_owned()]),
        Node::Sequence(list) if kind == Kind::List => {
            list.iter().map(|item| item.as_scalar().map(|s| s.as_str().to_owned())).collect()
        }
        _ => None,
    }
}

/// All keys, and all keys that have keys below them.
fn known_keys() -> impl Iterator<Item = String> {
    let mut keys: BTreeSet<String> = ROWS.iter().map(|row| row.key.to_owned()).collect();
    keys.insert(USER_KEY.to_owned());
    for row in ROWS {
        for (at, _) in row.key.match_indices('.') {
            keys.insert(row.key.get(..at).unwrap_or_default().to_owned());
        }
    }
    keys.into_iter()
}

/// The key that was probably meant: a similar one in the same place by its last word, else one of the same name elsewhere
/// by its whole path.
fn nearest(path: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    // The peer's flags are written with dashes, its keys with underscores.
    let name = name.to_lowercase().replace('-', "_");
    let limit = (name.len() / 3).clamp(1, 3);
    known
        .filter_map(|key| {
            let (other, last) = key.rsplit_once('.').unwrap_or(("", &key));
            let here = other == parent;
            let distance = distance(&name, last);
            let near = if here { distance <= limit } else { distance <= 1 };
            let shown = if here { last.to_owned() } else { key.clone() };
            near.then_some((distance + usize::from(!here), shown))
        })
        .min()
        .map(|(_, shown)| shown)
}

/// Edit distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut older: Vec<usize> = Vec::new();
    let mut old: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut new = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX / 2);
            let mut best = (get(&old, j) + usize::from(x != y)).min(get(&old, j + 1) + 1).min(get(&new, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(get(&older, j - 1) + 1);
            }
            new.push(best);
        }
        older = std::mem::replace(&mut old, new);
    }
    old.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        read(text).problems
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_nearest_key() {
        let text = "name: x\nhaproxy:\n  reload:\n    reload_dely: 5\n    reload-cmd: x\n";
        assert_eq!(
            problems(text),
            [
                "haproxy.reload.reload_dely (line 4): unknown key, did you mean reload_delay?",
                "haproxy.reload.reload-cmd (line 5): unknown key, did you mean reload_cmd?",
            ]
        );
        assert_eq!(problems("haproxi:\n  reload: {}\n"), ["haproxi (line 1): unknown key, did you mean haproxy?"]);
        assert_eq!(
            problems("haproxy:\n  reload_delay: 3\n"),
            ["haproxy.reload_delay (line 2): unknown key, did you mean haproxy.reload.reload_delay?"]
        );
        assert_eq!(problems("zebra: 1\n"), ["zebra (line 1): unknown key"]);
        assert_eq!(
            problems("log_targets:\n- log_to: file\n  log_fiel: x\n"),
            ["log_targets.log_fiel (line 3): unknown key, did you mean log_file?"]
        );
    }

    #[test]
    fn faults_of_the_file_itself_name_the_line() {
        assert_eq!(problems("haproxy:\n  reload: 5\n"), ["haproxy.reload (line 2): expected keys below it"]);
        assert_eq!(
            problems("dataplaneapi:\n  port: [1]\n"),
            ["dataplaneapi.port (line 2): expected a whole number from 0 to 65535"]
        );
        assert_eq!(problems("name: a\nname: b\n"), ["name (line 2): the key is there twice"]);
        assert!(problems("name: [\n")[0].starts_with("line "), "{:?}", problems("name: [\n"));
        assert!(problems("- a\n")[0].contains("must be a mapping"));
        assert!(problems("# nothing\n---\n\n").is_empty());
    }

    #[test]
    fn users_are_read_and_their_faults_named() {
        let file = read("dataplaneapi:\n  user:\n  - name: admin\n    insecure: true\n    password: pw\n");
        assert!(file.problems.is_empty());
        assert_eq!((file.users[0].name.as_str(), file.users[0].insecure), ("admin", true));
        assert!(!format!("{file:?}").contains("pw"));
        assert_eq!(
            problems("dataplaneapi:\n  user:\n  - name: admin\n    passwort: pw\n"),
            [
                "dataplaneapi.user[0].passwort (line 4): unknown key, did you mean password?",
                "dataplaneapi.user[0] (line 2): expected a name and a password",
            ]
        );
    }

    #[test]
    fn known_keys_without_effect_are_told() {
        let file =
            read("name: x\ndataplaneapi:\n  advertised:\n    api_port: 1\n  port:\nlog_targets: [{log_to: stdout}]\n");
        let keys: Vec<_> = file.unsupported.iter().map(|(k, l)| format!("{k}:{l}")).collect();
        assert_eq!(keys, ["name:1", "dataplaneapi.advertised.api_port:4"]);
        assert!(file.problems.is_empty());
        assert_eq!((file.entries.len(), file.entries[0].key), (1, LOG_TARGETS));
    }

    #[test]
    fn distances() {
        assert_eq!(distance("reload_dely", "reload_delay"), 1);
        assert_eq!(distance("reolad", "reload"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
