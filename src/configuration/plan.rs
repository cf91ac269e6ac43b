//! What of a change HAProxy can take over while it runs, read off the difference of two documents. Pure.
//!
//! Blank lines and comments are no difference. What cannot be told for sure is a reload.

use super::engine::Engine;
use super::layout::begins_with;
use crate::document::{Document, LineKind, LineRef, Section};
use crate::error::{Error, Reason, Result};
use crate::proto::fields::configuration::{server, server_params};
use crate::proto::messages::configuration as messages;
use crate::proto::values::r#type::toggle::{DISABLED, ENABLED};
use crate::schema::tables::{FieldIndex, MessageId, Tables};
use crate::schema::value::{Object, Value};
use crate::schema::words;

/// Which changes a caller wants to have made without a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Live {
    /// None: a reload always follows.
    #[default]
    Nothing,
    /// Those that clients of /v2 know to be answered without a reload: values of servers and the connections of a
    /// frontend.
    Values,
    /// Whatever is possible: also servers that come and go, and their connections.
    Everything,
}

/// One thing that is changed in the running HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a server that is there before and after.
    Server {
        /// Its backend.
        backend: String,
        /// Its name.
        server: String,
        /// What becomes of it.
        set: ServerChange,
    },
    /// A new server.
    AddServer {
        /// Its backend.
        backend: String,
        /// Its name.
        server: String,
        /// The words of its line behind the name.
        words: Vec<String>,
        /// Its health is checked.
        check: bool,
        /// Its agent is asked.
        agent: bool,
        /// It takes traffic at once.
        ready: bool,
    },
    /// A server that is gone.
    DeleteServer {
        /// Its backend.
        backend: String,
        /// Its name.
        server: String,
    },
    /// Connections of a frontend, at least 1.
    FrontendMaxconn {
        /// The frontend.
        frontend: String,
        /// The limit.
        maxconn: u32,
    },
}

/// A value of a server that can change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// Weight, 0 to 256.
    Weight(u16),
    /// Address and port; no port keeps the running one.
    Address(String, Option<u16>),
    /// Into maintenance, or out of it.
    Maintenance(bool),
    /// Agent checks on or off.
    AgentCheck(bool),
    /// Address of the agent.
    AgentAddress(String),
    /// What is sent to the agent.
    AgentSend(String),
    /// Port of the health check.
    HealthCheckPort(u16),
    /// Most connections.
    Maxconn(u32),
}

/// What has to be done so that HAProxy runs the new document, if it runs the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Exactly these changes, in this order; none when nothing differs.
    Live(Vec<Change>),
    /// HAProxy has to load it.
    Reload,
}

impl Engine {
    /// Plans the way from one document to another.
    pub fn plan(&self, old: &Document, new: &Document, live: Live) -> Plan {
        self.changes(old, new, live).map_or(Plan::Reload, Plan::Live)
    }

    fn changes(&self, old: &Document, new: &Document, live: Live) -> Option<Vec<Change>> {
        let alike = live != Live::Nothing && old.sections().len() == new.sections().len();
        if !alike || said(old.preamble()) != said(new.preamble()) {
            return None;
        }
        let mut changes = Vec::new();
        for (before, after) in old.sections().iter().zip(new.sections()) {
            if std::sync::Arc::ptr_eq(before, after) || before.text() == after.text() {
                continue;
            }
            if before.header_words() != after.header_words() || said(before.lead()) != said(after.lead()) {
                return None;
            }
            match before.kind() {
                "backend" => self.servers(new, before, after, live, &mut changes)?,
                "frontend" => frontend(before, after, &mut changes)?,
                _ => same(lines(before), lines(after)).then_some(())?,
            }
        }
        Some(changes)
    }

    fn servers(
        &self,
        document: &Document,
        before: &Section,
        after: &Section,
        live: Live,
        changes: &mut Vec<Change>,
    ) -> Option<()> {
        let is_server = |line: &LineRef<'_>| begins_with(line, "server");
        same(lines(before).filter(|line| !is_server(line)), lines(after).filter(|line| !is_server(line)))
            .then_some(())?;
        let olds: Vec<LineRef<'_>> = lines(before).filter(is_server).collect();
        let news: Vec<LineRef<'_>> = lines(after).filter(is_server).collect();
        if same(olds.iter().copied(), news.iter().copied()) {
            return Some(());
        }
        // In an `.if` block a line may say nothing.
        let plain = |line: &LineRef<'_>| line.depth() == 0 && line.is_utf8();
        (olds.iter().chain(&news).all(plain) && after.depth() == 0).then_some(())?;
        let backend = after.name();
        let name = |line: &LineRef<'_>| line.words().words.get(1).map(|name| (*name).to_owned());
        let (old_names, new_names): (Vec<_>, Vec<_>) =
            (olds.iter().map(name).collect(), news.iter().map(name).collect());
        // Hashes count servers in their order.
        let kept = |names: &[Option<String>], others: &[Option<String>]| -> Vec<Option<String>> {
            names.iter().filter(|name| others.contains(name)).cloned().collect()
        };
        (kept(&old_names, &new_names) == kept(&new_names, &old_names)).then_some(())?;
        let inherits = |section: &Section| lines(section).any(|line| begins_with(&line, "default-server"));
        let mut defaults = document.sections().iter().filter(|section| section.kind() == "defaults");
        // Nothing but its own line says what a server is.
        let plain = live == Live::Everything && !inherits(after) && !defaults.any(|section| inherits(section));
        for (line, name) in olds.iter().zip(&old_names) {
            match new_names.iter().position(|other| other == name).and_then(|at| news.get(at)) {
                Some(now) if now.words().words == line.words().words => {}
                Some(now) => self.server(backend, line, now, live, plain, changes)?,
                None if live == Live::Everything => {
                    changes.push(Change::DeleteServer { backend: backend.to_owned(), server: name.clone()? });
                }
                None => return None,
            }
        }
        for (line, name) in news.iter().zip(&new_names) {
            if old_names.contains(name) {
                continue;
            }
            // A server that is added while HAProxy runs inherits nothing.
            plain.then_some(())?;
            changes.push(self.addition(backend, name.as_ref()?, line)?);
        }
        Some(())
    }

    fn addition(&self, backend: &str, server: &str, line: &LineRef<'_>) -> Option<Change> {
        let object = self.line_object(messages::SERVER, &line.words().words, 0)?;
        let words = line.words().words.get(2..)?.iter().map(|word| (*word).to_owned()).collect();
        Some(added(backend, server, &object, words))
    }

    /// The change that adds a server to a backend of the running HAProxy. `INVALID_VALUE` for a field that cannot be
    /// written.
    pub fn server_addition(&self, backend: &str, server: &Object) -> Result<Change> {
        // The line of the file, without its first two words, is what the socket takes.
        let printed = self.schema().grammar.print_line(messages::SERVER, &without_usual(server));
        let printed =
            printed.map_err(|fault| Error::new(Reason::InvalidValue, format!("{}: {}", fault.path, fault.message)))?;
        let words = words::split(&printed.text).words;
        let (Some(name), Some(parameters)) = (words.get(1), words.get(2..)) else {
            return Err(Error::internal("a server line without a name"));
        };
        Ok(added(backend, &read(name), server, parameters.iter().map(|word| read(word)).collect()))
    }

    fn server(
        &self,
        backend: &str,
        before: &LineRef<'_>,
        after: &LineRef<'_>,
        live: Live,
        plain: bool,
        changes: &mut Vec<Change>,
    ) -> Option<()> {
        let old = self.line_object(messages::SERVER, &before.words().words, 0)?;
        let new = self.line_object(messages::SERVER, &after.words().words, 0)?;
        let differing = differing(&self.schema().tables, &old, &new)?;
        let text = |part: ServerPart| match part.of(&new) {
            Some(Value::Str(text)) => Some(text.to_string()),
            _ => None,
        };
        let int = |part: ServerPart| match part.of(&new) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        };
        let toggle = |part: ServerPart| match part.of(&new) {
            Some(Value::Enum(ENABLED)) => Some(true),
            Some(Value::Enum(DISABLED)) => Some(false),
            _ => None,
        };
        let mut sets = Vec::new();
        for part in differing.iter().copied() {
            // A value that was taken away falls back to one that only a reload knows; without `disabled` a server that
            // inherits nothing takes traffic.
            let enabled = plain && part == ServerPart::MAINTENANCE;
            (enabled || part.of(&new).is_some()).then_some(())?;
            let set = match part {
                ServerPart::WEIGHT => ServerChange::Weight(int(part)?.try_into().ok().filter(|weight| *weight <= 256)?),
                ServerPart::PORT if differing.contains(&ServerPart::ADDRESS) => continue,
                ServerPart::ADDRESS | ServerPart::PORT => {
                    let port = int(ServerPart::PORT).map(u16::try_from).transpose().ok()?;
                    ServerChange::Address(text(ServerPart::ADDRESS)?, port)
                }
                ServerPart::MAINTENANCE => ServerChange::Maintenance(toggle(part).or(enabled.then_some(false))?),
                ServerPart::AGENT_CHECK => ServerChange::AgentCheck(toggle(part)?),
                ServerPart::AGENT_ADDR => ServerChange::AgentAddress(text(part)?),
                ServerPart::AGENT_SEND => ServerChange::AgentSend(text(part)?),
                ServerPart::HEALTH_CHECK_PORT => ServerChange::HealthCheckPort(int(part)?.try_into().ok()?),
                // Clients of /v2 know this one to be answered with a reload.
                ServerPart::MAXCONN if live == Live::Everything => ServerChange::Maxconn(int(part)?.try_into().ok()?),
                _ => return None,
            };
            sets.push(set);
        }
        // No request meets a server that is half changed.
        sets.sort_by_key(|set| match set {
            ServerChange::Maintenance(true) => 0,
            ServerChange::Maintenance(false) => 2,
            _ => 1,
        });
        let server = (*after.words().words.get(1)?).to_owned();
        let change = |set| Change::Server { backend: backend.to_owned(), server: server.clone(), set };
        changes.extend(sets.into_iter().map(change));
        Some(())
    }
}

/// A server that is added and does what its fields say, as far as HAProxy can be told.
fn added(backend: &str, server: &str, object: &Object, words: Vec<String>) -> Change {
    let on = |part: ServerPart| part.of(object) == Some(&Value::Enum(ENABLED));
    Change::AddServer {
        backend: backend.to_owned(),
        server: server.to_owned(),
        words,
        check: on(ServerPart::CHECK),
        agent: on(ServerPart::AGENT_CHECK),
        ready: !on(ServerPart::MAINTENANCE),
    }
}

/// What a server is without a word about it, when it inherits nothing. HAProxy refuses these words for a server that is
/// added at run time, `enabled` since 3.0, the others always.
const USUAL: [(FieldIndex, i32); 13] = [
    (server_params::AGENT_CHECK, DISABLED),
    (server_params::CHECK, DISABLED),
    (server_params::CHECK_SEND_PROXY, DISABLED),
    (server_params::CHECK_SNI_AUTO, ENABLED),
    (server_params::CHECK_SSL, DISABLED),
    (server_params::MAINTENANCE, DISABLED),
    (server_params::NO_VERIFYHOST, ENABLED),
    (server_params::SEND_PROXY_V2_SSL, DISABLED),
    (server_params::SEND_PROXY_V2_SSL_CN, DISABLED),
    (server_params::SNI_AUTO, ENABLED),
    (server_params::SSL, DISABLED),
    (server_params::SSL_REUSE, ENABLED),
    (server_params::STICK, ENABLED),
];

/// The server without what it is anyway when it inherits nothing.
fn without_usual(server: &Object) -> Object {
    let mut server = server.clone();
    if let Some(Value::Object(params)) = server.get_mut(server::PARAMS) {
        for (field, usual) in USUAL {
            if params.get(field) == Some(&Value::Enum(usual)) {
                params.take(field);
            }
        }
    }
    server
}

/// The word that a raw one is read as. The runtime socket knows neither quotes nor variables: a word with a variable stays
/// as it is.
fn read(raw: &str) -> String {
    let meaning = if raw.contains('$') { None } else { words::meaning(raw, &|_| None) };
    let text = meaning.and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
    text.unwrap_or_else(|| raw.to_owned())
}

/// A field of a server: its own, or one of its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerPart {
    /// Of the server itself.
    Own(FieldIndex),
    /// Of its parameters.
    Param(FieldIndex),
}

impl ServerPart {
    /// Where it is reached.
    pub const ADDRESS: ServerPart = ServerPart::Own(server::ADDRESS);
    /// The port there.
    pub const PORT: ServerPart = ServerPart::Own(server::PORT);
    /// Its share of the load.
    pub const WEIGHT: ServerPart = ServerPart::Param(server_params::WEIGHT);
    /// Whether it takes no traffic.
    pub const MAINTENANCE: ServerPart = ServerPart::Param(server_params::MAINTENANCE);
    /// Whether an agent tells its state.
    pub const AGENT_CHECK: ServerPart = ServerPart::Param(server_params::AGENT_CHECK);
    /// Where the agent is.
    pub const AGENT_ADDR: ServerPart = ServerPart::Param(server_params::AGENT_ADDR);
    /// What is sent to the agent.
    pub const AGENT_SEND: ServerPart = ServerPart::Param(server_params::AGENT_SEND);
    const CHECK: ServerPart = ServerPart::Param(server_params::CHECK);
    const HEALTH_CHECK_PORT: ServerPart = ServerPart::Param(server_params::HEALTH_CHECK_PORT);
    const MAXCONN: ServerPart = ServerPart::Param(server_params::MAXCONN);

    pub(super) fn of(self, server: &Object) -> Option<&Value> {
        match self {
            ServerPart::Own(field) => server.get(field),
            ServerPart::Param(field) => server.object(server::PARAMS)?.get(field),
        }
    }
}

/// The fields that differ; `None` when words that no field knows differ. Words that read alike but are written
/// differently are no difference either.
fn differing(tables: &Tables, old: &Object, new: &Object) -> Option<Vec<ServerPart>> {
    if old.all_residue() != new.all_residue() {
        return None;
    }
    let all = |message: MessageId| 0..tables.messages[message].fields.len();
    let own = all(messages::SERVER).filter(|field| *field != server::PARAMS).map(ServerPart::Own);
    let parts = own.chain(all(messages::SERVER_PARAMS).map(ServerPart::Param));
    Some(parts.filter(|part| part.of(old) != part.of(new)).collect())
}

fn frontend(before: &Section, after: &Section, changes: &mut Vec<Change>) -> Option<()> {
    let is_maxconn = |line: &LineRef<'_>| begins_with(line, "maxconn");
    same(lines(before).filter(|line| !is_maxconn(line)), lines(after).filter(|line| !is_maxconn(line))).then_some(())?;
    let olds: Vec<LineRef<'_>> = lines(before).filter(is_maxconn).collect();
    let news: Vec<LineRef<'_>> = lines(after).filter(is_maxconn).collect();
    if same(olds.iter().copied(), news.iter().copied()) {
        return Some(());
    }
    let [line] = news[..] else { return None };
    (line.depth() == 0 && olds.iter().all(|line| line.depth() == 0)).then_some(())?;
    let words = line.words().words;
    let [_, maxconn] = words[..] else { return None };
    let maxconn = maxconn.parse().ok().filter(|maxconn| *maxconn > 0)?;
    changes.push(Change::FrontendMaxconn { frontend: after.name().to_owned(), maxconn });
    Some(())
}

/// Lines that say something, `.if` and its like included.
fn lines(section: &Section) -> impl Iterator<Item = LineRef<'_>> {
    section.lines().filter(|line| !matches!(line.kind(), LineKind::Blank | LineKind::Comment))
}

/// Whether lines say the same, apart from indentation and comments.
fn same<'a>(old: impl Iterator<Item = LineRef<'a>>, new: impl Iterator<Item = LineRef<'a>>) -> bool {
    let alike = |a: &LineRef<'_>, b: &LineRef<'_>| {
        a.raw() == b.raw() || (a.is_utf8() && b.is_utf8() && a.words().words == b.words().words)
    };
    let (mut old, mut new) = (old, new);
    loop {
        match (old.next(), new.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if alike(&a, &b) => {}
            _ => return false,
        }
    }
}

/// The bytes between sections without blank lines and comments.
fn said(bytes: &[u8]) -> Vec<&[u8]> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
