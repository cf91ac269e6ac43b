//! Blocks of README.md: commands with their output, and files.

use std::path::Path;

use regex::Regex;

/// A command and what README.md says that it prints.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) command: String,
    pub(super) output: String,
}

/// The text of a section, up to the next one of the same level or above.
pub(super) fn section(title: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README.md");
    let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The texts of the blocks of a kind, such as `console`; `""` for blocks without one.
pub(super) fn blocks(section: &str, kind: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open: Option<bool> = None;
    for line in section.lines() {
        match (open, line.strip_prefix("```")) {
            (None, Some(of)) => {
                open = Some(of == kind);
                found.extend((of == kind).then(String::new));
            }
            (Some(_), Some(_)) => open = None,
            (Some(true), None) => {
                let block = found.last_mut().expect("an open block");
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// The steps of all console blocks. A command goes on to the next line while a quote is open.
pub(super) fn steps(section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks(section, "console") {
        let mut goes_on = false;
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) if !goes_on => {
                    steps.push(Step { command: command.to_owned(), output: String::new() });
                }
                (_, Some(step)) if goes_on => {
                    step.command.push('\n');
                    step.command.push_str(line);
                }
                (_, Some(step)) => {
                    step.output.push_str(line);
                    step.output.push('\n');
                }
                (_, None) => panic!("output without a command: {line}"),
            }
            let command = steps.last().map_or("", |step| &step.command);
            goes_on = command.matches('\'').count() % 2 == 1;
        }
    }
    steps
}

/// What differs from run to run, and what stands for it.
const CHANGES: [(&str, &str); 17] = [
    (r"\x1b\[[0-9;?]*[A-Za-z]|\r", ""),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"\d{4}-\d{2}-\d{2}-\d+", "RELOAD"),
    (r"(?m)^Date: .*$", "Date"),
    (r"(?m)^Content-Length: \d+$", "Length"),
    (r#""resume_token": ?"[\d.]+""#, "TOKEN"),
    // Absent when it is 0.
    (r#"(?m)^ *"staleness_ms": "\d+",\n"#, ""),
    (r#""(exp|http_req_rate|revision|since_ms)": ?"\d+""#, "NUMBER"),
    (r#""id": ?"0x[0-9a-f]+""#, "ENTRY"),
    // Rates and times of the live view.
    (r"(?m)^127\.0\.0\.1( +\d+)+$", "ROW"),
    (r"(?m)^key( +\S+)+$", "HEAD"),
    // HAProxy says it in other words in each version.
    (r"line \d+ in backend blue: .*", "WORDS"),
    (r"unix@\S*/\.backstay/", "unix@FOLDER/"),
    (r"(?m)^( +server) (yourhost|HOSTNAME)$", "$1 HOST"),
    // How many of the requests were answered before the nodes knew of each other's.
    (r"(?m)^ +\d+ (200|429)$", "COUNT $1"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"[ \t]+\n", "\n"),
];

/// A text without what differs from run to run.
pub(super) fn settled(text: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut text = text.replace(&format!("server {host}\n"), "server HOSTNAME\n");
    for (pattern, word) in CHANGES {
        text = Regex::new(pattern).expect("a pattern").replace_all(&text, word).into_owned();
    }
    text.trim().to_owned()
}

/// Whether an output is the one of README.md, where a line `...` stands for any lines, and `[...]` for any list.
pub(super) fn fits(wanted: &str, given: &str) -> bool {
    let pattern = regex::escape(&settled(wanted));
    let pattern = Regex::new(r"(?m)^[ \t]*\\\.\\\.\\\.$").expect("a pattern").replace_all(&pattern, "(?s:.*)");
    let pattern = pattern.replace(r"\[\.\.\.\]", r"\[.*\]");
    Regex::new(&format!("^{pattern}$")).expect("a pattern").is_match(&settled(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_outputs_are_told_apart() {
        let text =
            "words\n```console\n$ one\na\nb\n$ two 'x\n$ y'\n```\n```yaml\nkey: 1\n```\n```console\n$ three\n```\n";
        let step = |command: &str, output: &str| Step { command: command.to_owned(), output: output.to_owned() };
        assert_eq!(steps(text), [step("one", "a\nb\n"), step("two 'x\n$ y'", ""), step("three", "")]);
        assert_eq!(blocks(text, "yaml"), ["key: 1\n"]);
    }

    #[test]
    fn only_what_changes_by_nature_may_differ() {
        let wanted = "HTTP/1.1 202 Accepted\nReload-Id: 2026-11-24-0\nDate: Tue\n{\"exp\": \"1\"}\n  ...\nend [...]\n";
        let given =
            "HTTP/1.1 202 Accepted\r\nReload-Id: 2027-01-02-33\r\nDate: Wed\r\n{\"exp\": \"2\"}\n1\n2\nend [3]\n";
        assert!(fits(wanted, given));
        assert!(!fits(wanted, &given.replace("202 Accepted", "200 OK")));
        assert!(!fits(wanted, &given.replace("end", "more\nend ends")));
        assert!(!fits("a\n", "a\nb\n"));
    }
}
