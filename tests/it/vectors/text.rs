//! Texts of configurations as sets of lines that mean the same to HAProxy.

use std::collections::BTreeMap;

use serde_json::Value;

/// Words of a line.
pub(super) type Line = Vec<String>;
/// How often lines came (positive) or went (negative).
pub(super) type Change = BTreeMap<Line, i64>;

/// Words that begin a section when they stand at the margin.
const SECTIONS: [&str; 19] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "cache",
    "ring",
    "log-forward",
    "fcgi-app",
    "userlist",
    "program",
    "http-errors",
    "traces",
    "spoe-agent",
    "spoe-message",
    "spoe-group",
];

/// Keywords whose lines have an order that means something.
const ORDERED: [&str; 26] = [
    "acl",
    "http-request",
    "http-response",
    "http-after-response",
    "tcp-request",
    "tcp-response",
    "http-check",
    "tcp-check",
    "use_backend",
    "use-server",
    "server",
    "server-template",
    "bind",
    "dgram-bind",
    "log",
    "filter",
    "stick",
    "capture",
    "declare",
    "http-error",
    "errorfile",
    "peer",
    "nameserver",
    "mailer",
    "user",
    "event",
];

/// Keywords whose parameters may stand in any order.
const ANY_ORDER: [&str; 7] =
    ["server", "server-template", "default-server", "bind", "dgram-bind", "stick-table", "table"];
/// Words before a time whose bare numbers are milliseconds.
const MILLISECONDS: [&str; 16] = [
    "inter",
    "fastinter",
    "downinter",
    "slowstart",
    "expire",
    "time",
    "period",
    "default-period",
    "interval",
    "hard-stop-after",
    "inspect-delay",
    "tcp-ut",
    "close-spread-time",
    "grace",
    "hello",
    "processing",
];
/// Words before a size.
const SIZES: [&str; 2] = ["size", "at-least"];

/// The words of a line with quotes and escapes taken away; the bare words when a quote stays open.
fn words(line: &str) -> Line {
    let mut out = Line::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t' | '\r') => out.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None | Some('"'), '\\') if chars.peek().is_some() => {
                let next = chars.next().unwrap_or_default();
                let text = word.get_or_insert_default();
                if !" #\\\"'$".contains(next) {
                    text.push('\\');
                }
                text.push(next);
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (Some('"'), '$') => word.get_or_insert_default().push_str("\u{1}$"),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    out.extend(word);
    out
}

fn scaled(text: &str, units: &[(&str, f64)], bare: f64, suffix: &str) -> String {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let worth = match unit {
        "" => Some(bare),
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, worth)| *worth),
    };
    match (number.parse::<f64>(), worth) {
        (Ok(number), Some(worth)) => format!("{}{suffix}", number * worth),
        _ => text.to_owned(),
    }
}

fn time(text: &str, bare: f64) -> String {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6), ("d", 8.64e7)];
    scaled(text, &units, bare, "ms")
}

/// A line in the one spelling that all with its meaning have; nothing for one without words.
fn spelled(line: &str) -> Option<Line> {
    let mut words = words(line);
    let size = [("k", 1024.0), ("m", 1_048_576.0), ("g", 1_073_741_824.0)];
    for at in 1..words.len() {
        let before = words[at - 1].clone();
        if MILLISECONDS.contains(&&*before) {
            words[at] = time(&words[at], 1.0);
        } else if matches!(&*before, "refresh" | "maxidle" | "maxlife") {
            words[at] = time(&words[at], 1e3);
        } else if SIZES.contains(&&*before) || before.starts_with("tune.") && before.ends_with("size") {
            words[at] = scaled(&words[at], &size, 1.0, "");
        }
    }
    let first = words.first()?.clone();
    if words.len() > 2 && (matches!(&*first, "timeout" | "hold") || first == "stats" && words[1] == "timeout") {
        words[2] = time(&words[2], 1.0);
    }
    if let (true, Some(address)) = (first.ends_with("bind"), words.get_mut(1))
        && let Some(port) = address.strip_prefix('*').filter(|rest| rest.starts_with(':'))
    {
        *address = port.to_owned();
    }
    if first == "defaults" && words.get(1).is_some_and(|name| name.starts_with("unnamed_defaults_")) {
        words.truncate(1);
    }
    Some(words)
}

/// Parameters in one order where their order means nothing.
fn sorted(line: &Line) -> Line {
    let mut line = line.clone();
    if line.first().is_some_and(|first| ANY_ORDER.contains(&&**first)) {
        line[1..].sort_unstable();
    }
    line
}

/// Sections with their headers. A section that says nothing and has no name may as well be absent.
fn sections(text: &str) -> Vec<(Line, Vec<Line>)> {
    let mut out: Vec<(Line, Vec<Line>)> = Vec::new();
    for raw in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let Some(line) = spelled(raw) else { continue };
        let header =
            !raw.starts_with([' ', '\t']) && SECTIONS.contains(&&*line[0]) || raw.trim_start().starts_with('[');
        if header {
            out.push((line, Vec::new()));
        } else if let Some((_, lines)) = out.last_mut() {
            lines.push(line);
        } else {
            out.push((Line::new(), vec![line]));
        }
    }
    out.retain(|(head, lines)| !lines.is_empty() || head.len() != 1 || !matches!(&*head[0], "global" | "defaults"));
    out
}

fn count(change: &mut Change, line: &Line, times: i64) {
    if line.is_empty() || line.len() == 1 && matches!(&*line[0], "global" | "defaults") {
        return;
    }
    let entry = change.entry(sorted(line)).or_default();
    *entry += times;
    if *entry == 0 {
        change.remove(&sorted(line));
    }
}

fn add(change: &mut Change, sections: &[(Line, Vec<Line>)], times: i64) {
    for (head, lines) in sections {
        count(change, head, times);
        for line in lines {
            count(change, line, times);
        }
    }
}

/// Lines that came and went between two texts.
pub(super) fn change(before: &str, after: &str) -> Change {
    let mut out = Change::new();
    add(&mut out, &sections(after), 1);
    add(&mut out, &sections(before), -1);
    out
}

/// What a record says has to change; each reading of it. Nothing when it does not say.
pub(super) fn expected(record: &Value) -> Vec<Change> {
    if record["config_changed"] == false {
        return vec![Change::new()];
    }
    let text = record["config_text"].as_str();
    if text.is_none() && record.get("added").is_none() {
        return Vec::new();
    }
    let lines = |key: &str| -> Vec<String> {
        record[key].as_array().into_iter().flatten().filter_map(|line| Some(line.as_str()?.to_owned())).collect()
    };
    let added = match record.get("added") {
        Some(_) => lines("added"),
        None => text.unwrap_or_default().lines().map(str::to_owned).collect(),
    };
    let mut by_lines = Change::new();
    added.iter().filter_map(|line| spelled(line)).for_each(|line| count(&mut by_lines, &line, 1));
    lines("removed").iter().filter_map(|line| spelled(line)).for_each(|line| count(&mut by_lines, &line, -1));
    let (Some(text), false) = (text, record["method"] == "DELETE") else { return vec![by_lines] };
    // Where the recorded server changed other lines as it loaded the text before.
    let (before, after) = (sections(record["config_before"].as_str().unwrap_or_default()), sections(text));
    let mut by_text = Change::new();
    add(&mut by_text, &after, 1);
    let kept: Vec<_> = match &after[..] {
        [(head, _)] => before.into_iter().filter(|(h, _)| h == head).take(1).collect(),
        _ => before,
    };
    add(&mut by_text, &kept, -1);
    vec![by_text, by_lines]
}

/// The first section and keyword whose lines stand in another order.
pub(super) fn order(want: &str, got: &str) -> Option<String> {
    let got = sections(got);
    for (head, lines) in sections(want) {
        let theirs: Vec<&Line> = got.iter().filter(|(h, _)| *h == head).flat_map(|(_, lines)| lines).collect();
        for keyword in ORDERED {
            let of = |lines: &mut dyn Iterator<Item = &Line>| -> Vec<Line> {
                lines.filter(|line| line[0] == keyword).map(sorted).collect()
            };
            let (want, got) = (of(&mut lines.iter()), of(&mut theirs.iter().copied()));
            let common = |list: &[Line], other: &[Line]| -> Vec<Line> {
                let mut left = other.to_vec();
                let mut take = |line: &&Line| left.iter().position(|l| l == *line).map(|at| left.remove(at)).is_some();
                list.iter().filter(|line| take(line)).cloned().collect()
            };
            if common(&want, &got) != common(&got, &want) {
                return Some(format!("order of {keyword} in {head:?}: expected {want:?}, got {got:?}"));
            }
        }
    }
    None
}

/// All words of a text, or of its sections of one kind, counted.
pub(super) fn word_bag(text: &str, kind: Option<&str>) -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    for (head, lines) in sections(text) {
        let wanted = kind.is_none_or(|kind| head.first().is_some_and(|word| word == kind));
        // Every text that was loaded has it, whatever it is about.
        let own = lines.into_iter().filter(|line| kind != Some("global") || line[..] != ["daemon"]);
        own.filter(|_| wanted).flatten().for_each(|word| *out.entry(word).or_default() += 1);
    }
    out
}

/// Lines below the margin, which are what a record of a read is about.
pub(super) fn body(text: &str) -> Vec<Line> {
    let own = text.lines().filter(|line| line.starts_with([' ', '\t']) && line.trim() != "daemon");
    own.filter_map(spelled).collect()
}

/// Sorted lines of a text inside an answer.
pub(super) fn lines(text: &str) -> Vec<String> {
    let change = change("", text);
    change.into_iter().flat_map(|(line, times)| (0..times).map(move |_| line.join(" "))).collect()
}
