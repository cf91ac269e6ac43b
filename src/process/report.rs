//! What HAProxy prints when it refuses a configuration, in plain words. Pure.

use crate::configuration::ports::{Place, Warning};

/// Words that begin a section; the same set for every version, a few of them newer than 2.6.
pub(super) const SECTIONS: &[&str] = &[
    "acme",
    "backend",
    "cache",
    "crt-list",
    "crt-store",
    "defaults",
    "fcgi-app",
    "frontend",
    "global",
    "healthcheck",
    "http-errors",
    "listen",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// What is kept of HAProxy's words in an answer, in bytes.
pub const DETAIL_LIMIT: usize = 4096;

/// The first fault that HAProxy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line in the file, from 1, where HAProxy names one.
    pub line: Option<usize>,
    /// What is wrong, without severity, process id, file and line.
    pub message: String,
}

/// What HAProxy says last about any file that it refuses, and that tells nothing of the fault.
const CLOSING: &str = "Error(s) found in configuration file";

/// What an alert about the end of a process says: nothing of the configuration.
const EXITED: &str = " exited with code ";

/// Finds the first alert in what HAProxy printed about `file`.
///
/// Words that HAProxy no longer takes are only warned of before it refuses the file: then that warning is the fault.
pub fn first_alert(output: &str, file: &str) -> Option<Fault> {
    let told = |line: &&str| !line.contains(EXITED);
    let all = |severity| output.lines().filter(told).filter_map(move |line| said(line, severity, file));
    let first = all("[ALERT]").next()?;
    if !first.message.starts_with(CLOSING) {
        return Some(first);
    }
    Some(all("[WARNING]").find(|fault| fault.line.is_some()).unwrap_or(first))
}

/// Reads `[ALERT]    (123) : config : parsing [FILE:11] : unknown keyword 'foo' ...`.
fn said(line: &str, severity: &str, file: &str) -> Option<Fault> {
    let rest = line.trim_start().strip_prefix(severity)?;
    let text = rest.split_once(") : ").map_or(rest, |(_, text)| text).trim();
    let place = format!("[{file}:");
    let text = text.strip_prefix("config : ").unwrap_or(text);
    let Some((before, after)) = text.split_once(&place) else {
        return Some(Fault { line: None, message: text.to_owned() });
    };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let number = after.get(..digits).and_then(|d| d.parse().ok());
    let after = after.get(digits..).and_then(|a| a.strip_prefix(']')).unwrap_or(after);
    let after = after.trim_start_matches([' ', ':']);
    let before = before.trim().trim_end_matches("parsing").trim();
    let message = if before.is_empty() { after.to_owned() } else { format!("{before} {after}") };
    Some(Fault { line: number, message })
}

/// The warnings in what HAProxy printed about `file`, which it accepts, with the lines that continue them.
pub fn warnings(output: &str, file: &str, config: &[u8]) -> Vec<Warning> {
    let mut found: Vec<Warning> = Vec::new();
    let mut open = false;
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with('[') {
            let fault = said(line, "[WARNING]", file);
            open = fault.is_some();
            found.extend(fault.map(|Fault { line, message }| Warning {
                section: line.and_then(|line| section_at(config, line)),
                text: line.and_then(|line| line_at(config, line)),
                line,
                words: without_lines(&message, file),
            }));
        } else if let Some(warning) = found.last_mut().filter(|_| open) {
            warning.words.push(' ');
            warning.words.push_str(without_lines(line.trim().trim_start_matches('|').trim_start(), file).as_str());
        }
    }
    found
}

/// A line, from 1, without blanks around it.
fn line_at(config: &[u8], line: usize) -> Option<String> {
    let text = config.split(|byte| *byte == b'\n').nth(line.checked_sub(1)?)?;
    Some(String::from_utf8_lossy(text.trim_ascii()).into_owned())
}

/// A text with the file called "the configuration", and without the number of a line of it.
fn without_lines(text: &str, file: &str) -> String {
    let mut parts = text.split(file);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("the configuration");
        let number = part.strip_prefix(':').map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        out.push_str(number.unwrap_or(part));
    }
    out
}

/// What the alerts point at: lines of a file and names of sections.
pub fn places(output: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for alert in output.lines().filter(|line| is_alert(line)) {
        let place = Place { line: line_of(alert), section: section_of(alert) };
        if (place.line.is_some() || place.section.is_some()) && !found.contains(&place) {
            found.push(place);
        }
    }
    found
}

/// The line of `[FILE:LINE]`; addresses are written alike.
fn line_of(alert: &str) -> Option<usize> {
    alert.split('[').skip(1).find_map(|rest| {
        let (file, line) = rest.split_once(']')?.0.rsplit_once(':')?;
        let is_file = file.contains('/') || std::path::Path::new(file).extension().is_some_and(|kind| kind == "cfg");
        line.parse().ok().filter(|_| is_file)
    })
}

/// The name behind the keyword of a section.
fn section_of(alert: &str) -> Option<String> {
    let mut words = alert.split_ascii_whitespace();
    words.find(|word| SECTIONS.contains(word) || matches!(*word, "proxy" | "Proxy"))?;
    let name = words.next()?.trim_matches([':', ',', '\'', '"', '.']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The part of the output that says why: alerts first, then warnings, with the lines that continue them, without notices,
/// the file called by `label`, at most `DETAIL_LIMIT` bytes. All of the output when it holds no alert.
pub fn detail(output: &str, file: &str, label: &str) -> String {
    if !has_alert(output) {
        return cap(output.replace(file, label).trim_end());
    }
    let (mut alerts, mut warnings) = (String::new(), String::new());
    let mut kept = None;
    for line in output.lines() {
        if line.starts_with('[') {
            kept = match line {
                _ if is_alert(line) => Some(&mut alerts),
                _ if line.starts_with("[WARNING]") => Some(&mut warnings),
                _ => None,
            };
        }
        if let Some(kept) = &mut kept
            && !line.is_empty()
        {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    cap((alerts + &warnings).replace(file, label).trim_end())
}

/// Whether HAProxy says there what is wrong with the configuration.
pub fn has_alert(output: &str) -> bool {
    output.lines().any(is_alert)
}

fn is_alert(line: &str) -> bool {
    line.trim_start().starts_with("[ALERT]") && !line.contains(EXITED)
}

/// Cuts at `DETAIL_LIMIT` bytes, at a character, and says so.
pub fn cap(text: &str) -> String {
    const CUT: &str = "\n... (cut)";
    if text.len() <= DETAIL_LIMIT {
        return text.to_owned();
    }
    let mut end = DETAIL_LIMIT - CUT.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", text.get(..end).unwrap_or_default())
}

/// The section that holds a line of a configuration, such as `frontend fe` or `global`.
pub fn section_at(config: &[u8], line: usize) -> Option<String> {
    let mut found = None;
    for text in config.split(|b| *b == b'\n').take(line) {
        let text = String::from_utf8_lossy(text);
        let mut words = text.split_ascii_whitespace();
        if let Some(kind) = words.next()
            && SECTIONS.contains(&kind)
        {
            found = Some(match words.next() {
                Some(name) if !name.starts_with('#') => format!("{kind} {}", name.trim_matches(['"', '\''])),
                _ => kind.to_owned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "[NOTICE]   (1) : haproxy version is 2.6.12\n\
        [WARNING]  (1) : config : odd\n\
        [ALERT]    (1) : config : parsing [/t/x:3] : unknown keyword 'foo' in 'frontend' section\n  did you mean 'bar'\n\
        [ALERT]    (1) : config : [/t/x:4] : 'server x/a' : invalid port '99999'\n\
        [ALERT]    (1) : config : Error(s) found in configuration file : /t/x\n";

    #[test]
    fn the_first_alert_gives_line_and_words() {
        let fault = first_alert(OUTPUT, "/t/x").unwrap();
        assert_eq!(fault, Fault { line: Some(3), message: "unknown keyword 'foo' in 'frontend' section".into() });
        let cases = [
            ("[ALERT]    (9) : config : [/t/x:14] : 'server x/a' : bad", Some(14), "'server x/a' : bad"),
            ("[ALERT] 123/45 (9) : parsing [/t/x:2] : old form", Some(2), "old form"),
            ("[ALERT]    (9) : config : parsing [/t/x:13]: Missing LF", Some(13), "Missing LF"),
            ("[ALERT]    (9) : Binding [/t/x:12] for frontend f2: in use", Some(12), "Binding for frontend f2: in use"),
            ("[ALERT]    (9) : config : proxy 'a' : no backend", None, "proxy 'a' : no backend"),
        ];
        for (line, number, message) in cases {
            assert_eq!(first_alert(line, "/t/x").unwrap(), Fault { line: number, message: message.into() }, "{line}");
        }
        assert_eq!(first_alert("[WARNING]  (1) : x", "/t/x"), None);
    }

    #[test]
    fn a_warning_is_the_fault_when_no_alert_names_one() {
        let closing = "[ALERT]    (1) : config : Error(s) found in configuration file : /t/x\n";
        let output = format!(
            "[WARNING]  (1) : config : odd\n[WARNING]  (1) : config : parsing [/t/x:57]: it is gone\n{closing}"
        );
        assert_eq!(first_alert(&output, "/t/x").unwrap(), Fault { line: Some(57), message: "it is gone".into() });
        assert!(first_alert(closing, "/t/x").unwrap().message.starts_with(CLOSING));
    }

    #[test]
    fn warnings_are_read_with_what_continues_them() {
        let config = b"global\ndefaults\n  option httplog\nfrontend f\n  mode tcp\n";
        let output = "[NOTICE]   (1) : haproxy version is 2.6.12\n\
            [WARNING]  (1) : config : parsing [/t/x:3] : 'option httplog' not usable with frontend 'f' at /t/x:4.\n\
            [WARNING]  (1) : missing timeouts for frontend 'f'.\n   | While not invalid,\n   | set 'client'.\n\
            [NOTICE]   (1) : config : other\n  of no interest\n";
        let found = warnings(output, "/t/x", config);
        let words = "'option httplog' not usable with frontend 'f' at the configuration.";
        let text = Some("option httplog".to_owned());
        let first = Warning { line: Some(3), section: Some("defaults".into()), text, words: words.into() };
        let words = "missing timeouts for frontend 'f'. While not invalid, set 'client'.";
        assert_eq!(found, [first, Warning { line: None, section: None, text: None, words: words.into() }]);
    }

    #[test]
    fn the_detail_drops_notices_and_calls_the_file_by_its_label() {
        let text = detail(OUTPUT, "/t/x", "tx1");
        assert!(text.starts_with("[ALERT]") && text.contains("parsing [tx1:3]") && text.contains("did you mean"));
        assert!(text.ends_with("[WARNING]  (1) : config : odd"), "{text}");
        assert!(!text.contains("/t/x") && !text.contains("NOTICE"));
        assert_eq!(detail("plain words of a validator\n", "/t/x", "tx1"), "plain words of a validator");
    }

    #[test]
    fn alerts_point_at_lines_and_sections() {
        let place = |line, section: Option<&str>| Place { line, section: section.map(ToOwned::to_owned) };
        let cases = [
            (
                "[ALERT] (1) : Binding [/x/h.cfg:12] for frontend f2: in use for [127.0.0.1:80]",
                Some(place(Some(12), Some("f2"))),
            ),
            ("[ALERT] (1) : Starting proxy p: cannot bind UNIX socket [/run/x.sock]", Some(place(None, Some("p")))),
            ("[ALERT] (1) : Some protocols failed to start their listeners! Exiting.", None),
            ("[WARNING] (1) : [/x/h.cfg:3] odd", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(places(line), wanted.into_iter().collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn the_alert_is_kept_whatever_stands_before_it() {
        let warnings = "[WARNING]  (1) : config : 'option tcplog' is ignored in backend b\n".repeat(500);
        let alert = "[ALERT]    (1) : Binding [/t/x:9] for frontend f: cannot bind socket\n  [127.0.0.1:80]\n";
        let ended = "[ALERT]    (1) : Current worker (7) exited with code 137 (Killed)\n";
        let text = detail(&format!("{warnings}{ended}{alert}"), "", "");
        assert!(text.starts_with(alert) && text.len() <= DETAIL_LIMIT, "{text}");
        assert!(has_alert(alert) && !has_alert(ended) && !has_alert(&warnings));
        assert_eq!(first_alert(&format!("{ended}{alert}"), "/t/x").unwrap().line, Some(9));
    }

    #[test]
    fn long_words_are_cut_at_a_character() {
        let text = cap(&"é".repeat(4000));
        assert!(text.len() <= DETAIL_LIMIT && text.ends_with("é\n... (cut)"));
    }

    #[test]
    fn a_line_belongs_to_the_section_above_it() {
        let config = b"# x\nglobal # c\n  daemon\n\nfrontend \"fe\" \n  bind :80\r\n  backend_x\ndefaults\n";
        let at = |line| section_at(config, line);
        assert_eq!(at(1), None);
        assert_eq!(at(3).as_deref(), Some("global"));
        assert_eq!(at(5).as_deref(), Some("frontend fe"));
        assert_eq!(at(7).as_deref(), Some("frontend fe"));
        assert_eq!(at(99).as_deref(), Some("defaults"));
    }
}
