//! What has to be written so that HAProxy pushes a table to us. Pure.

use std::path::Path;

use super::nodes::{lines, local_peer};
use crate::document::{Document, LineKind, Section};
use crate::error::{Error, Reason, Result};

/// Where nobody listens: we dial HAProxy and not the other way round, but a peer must have an address.
const NOWHERE: &str = "127.0.0.1:1";
/// Longest path of a socket that HAProxy can make in two steps.
const SOCKET: usize = 90;

/// Who we are, for [`join`].
#[derive(Debug, Clone, Copy)]
pub struct Joiner<'a> {
    /// Our name as a peer, and of a section that is made for us.
    pub local: &'a str,
    /// Name of this machine, which HAProxy has as a peer unless told otherwise.
    pub host: &'a str,
    /// Where HAProxy is to listen in such a section.
    pub socket: &'a Path,
}

/// A line that joining adds or changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its section, such as `peers backstay`.
    pub section: String,
    /// The line as it will be, without indentation.
    pub text: String,
}

/// The plan of joining a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The file with the lines.
    pub document: Document,
    /// The peers section that the table belongs to then.
    pub section: String,
    /// The lines; none when HAProxy knows us already.
    pub lines: Vec<Line>,
}

/// Makes us a peer of a table, named as the Runtime API names it.
///
/// `OBJECT_NOT_FOUND` when no section has such a table, `UNSUPPORTED` when the table cannot be shared.
pub fn join(document: &Document, table: &str, joiner: Joiner<'_>) -> Result<Plan> {
    let mut plan = Plan { document: document.clone(), section: String::new(), lines: Vec::new() };
    // A table of a peers section bears the name of the section in front.
    if let Some((section, name)) = table.split_once('/')
        && let Some(at) = document.find("peers", section)
        && lines(&document.sections()[at]).any(|words| words.starts_with(&["table", name]))
    {
        section.clone_into(&mut plan.section);
        plan.name_us(joiner, false)?;
        return Ok(plan);
    }
    let missing = || Error::new(Reason::ObjectNotFound, format!("no stick table '{table}' in the configuration"));
    let (at, line) = document
        .sections()
        .iter()
        .enumerate()
        .find_map(|(at, section)| {
            let owns = matches!(section.kind(), "backend" | "frontend" | "listen") && section.name() == table;
            let line = owns.then(|| stick_table_line(section)).flatten()?;
            Some((at, line))
        })
        .ok_or_else(missing)?;
    let section = &document.sections()[at];
    let text = section.line(line).and_then(|line| line.text()).unwrap_or_default().trim().to_owned();
    let words = crate::schema::words::split(&text).words;
    let shared = words.iter().position(|word| *word == "peers").and_then(|at| words.get(at + 1));
    if let Some(shared) = shared {
        (*shared).clone_into(&mut plan.section);
        plan.name_us(joiner, false)?;
        return Ok(plan);
    }
    joiner.local.clone_into(&mut plan.section);
    plan.name_us(joiner, true)?;
    let text = with_peers(&text, joiner.local);
    let mut changed = Section::clone(section);
    changed.replace_line(line, &text)?;
    let at = plan.document.find(section.kind(), section.name()).ok_or_else(missing)?;
    plan.document = plan.document.with_section(at, changed);
    plan.lines.push(Line { section: format!("{} {}", section.kind(), section.name()), text });
    Ok(plan)
}

fn stick_table_line(section: &Section) -> Option<usize> {
    section
        .lines()
        .position(|line| line.kind() == LineKind::Content && line.words().words.first() == Some(&"stick-table"))
}

/// The words of a line with ` peers NAME` behind them, in front of a comment.
fn with_peers(text: &str, name: &str) -> String {
    let (said, rest) = text.split_at(crate::schema::words::split(text).end);
    format!("{said} peers {name}{rest}")
}

impl Plan {
    /// Adds the line with our name to the peers section; with `make`, the section itself when there is none.
    fn name_us(&mut self, joiner: Joiner<'_>, make: bool) -> Result<()> {
        let title = format!("peers {}", self.section);
        let Some(at) = self.document.find("peers", &self.section) else {
            if !make {
                let message = format!("no peers section '{}' in the configuration", self.section);
                return Err(Error::new(Reason::ObjectNotFound, message));
            }
            return self.make_section(joiner, &title);
        };
        let mut section = Section::clone(&self.document.sections()[at]);
        let known = |words: &Vec<&str>| matches!(words[..], ["peer" | "server", name, ..] if name == joiner.local);
        if lines(&section).any(|words| known(&words)) {
            return Ok(());
        }
        if lines(&section).any(|words| words.first() == Some(&"disabled")) {
            let message = format!("the section '{title}' is disabled");
            return Err(Error::new(Reason::Unsupported, message));
        }
        // In the words of the section: either keyword is fine for HAProxy.
        let keyword = lines(&section).find_map(|words| words.first().copied().filter(|word| *word == "peer"));
        let text = format!("{} {} {NOWHERE}", keyword.unwrap_or("server"), joiner.local);
        section.append_line(&text)?;
        self.document = self.document.with_section(at, section);
        self.lines.push(Line { section: title, text });
        Ok(())
    }

    fn make_section(&mut self, joiner: Joiner<'_>, title: &str) -> Result<()> {
        let socket = joiner.socket.display().to_string();
        if socket.len() > SOCKET || socket.contains(char::is_whitespace) {
            let message = format!("the path {socket} is no good for a socket of haproxy: at most {SOCKET} bytes");
            return Err(Error::new(Reason::Unsupported, message));
        }
        let named = local_peer(&self.document);
        let mut section = Section::new(title, self.document.style())?;
        let lines = [
            format!("bind unix@{socket} mode 666"),
            format!("server {}", named.as_deref().unwrap_or(joiner.host)),
            format!("server {} {NOWHERE}", joiner.local),
        ];
        self.lines.push(Line { section: title.to_owned(), text: title.to_owned() });
        for text in lines {
            section.append_line(&text)?;
            self.lines.push(Line { section: title.to_owned(), text });
        }
        let at = self.document.place_for_new("peers");
        self.document.insert_section(at, section);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = "/run/backstay/peers.sock";

    fn of(text: &str, table: &str) -> Result<(String, String, usize)> {
        let joiner = Joiner { local: "backstay", host: "box", socket: Path::new(SOCKET) };
        let plan = join(&Document::parse(text.as_bytes()), table, joiner)?;
        Ok((String::from_utf8(plan.document.to_bytes()).unwrap(), plan.section, plan.lines.len()))
    }

    #[test]
    fn a_table_of_its_own_gets_a_section() {
        let text =
            "global\n\nbackend t # mine\n    stick-table  type ip size 1k store gpc0 # all\n    server s 1.2.3.4:80\n";
        let (after, section, lines) = of(text, "t").unwrap();
        assert_eq!((&*section, lines), ("backstay", 5));
        let changed = text.replace("store gpc0 # all", "store gpc0 peers backstay # all");
        let made = format!(
            "peers backstay\n    bind unix@{SOCKET} mode 666\n    server box\n    server backstay 127.0.0.1:1\n"
        );
        assert_eq!(after, format!("{changed}\n{made}"));
        // Once more: nothing to do.
        assert_eq!(of(&after, "t").unwrap(), (after.clone(), section, 0));
        // A second table joins the same section.
        let two = format!("{after}\nbackend u\n    stick-table type ip size 1k\n");
        let (joined, _, lines) = of(&two, "u").unwrap();
        assert_eq!((joined, lines), (two.replace("type ip size 1k\n", "type ip size 1k peers backstay\n"), 1));
    }

    #[test]
    fn a_table_that_is_shared_already_gets_one_more_peer() {
        let text = "global\n    localpeer a\npeers p\n    peer a 10.0.0.1:1\n    peer b 10.0.0.2:1\n    table own type ip size 1k\n\
            backend t\n    stick-table type ip size 1k peers p store gpc0\n";
        for table in ["t", "p/own"] {
            let (after, section, lines) = of(text, table).unwrap();
            assert_eq!((&*section, lines), ("p", 1));
            let line = "    table own type ip size 1k\n";
            assert_eq!(after, text.replace(line, &format!("{line}    peer backstay 127.0.0.1:1\n")));
        }
    }

    #[test]
    fn what_cannot_be_joined_is_refused_by_name() {
        for (text, table, reason, words) in [
            ("backend t\n", "t", Reason::ObjectNotFound, "'t'"),
            ("peers p\n    table a type ip size 1\n", "p/b", Reason::ObjectNotFound, "'p/b'"),
            ("backend t\n    stick-table type ip size 1 peers gone\n", "t", Reason::ObjectNotFound, "'gone'"),
            (
                "peers p\n    disabled\nbackend t\n    stick-table type ip size 1 peers p\n",
                "t",
                Reason::Unsupported,
                "disabled",
            ),
        ] {
            let error = of(text, table).unwrap_err();
            assert_eq!(error.reason(), reason, "{text}");
            assert!(error.message().contains(words), "{error}");
        }
    }
}
