//! What the file says of values that can also be written while HAProxy runs. Pure.

use super::engine::Engine;
use super::layout::begins_with;
use super::plan::ServerPart;
use crate::document::{Document, Section};
use crate::proto::messages::configuration::SERVER;
use crate::schema::value::Value;

impl Engine {
    /// What the line of a server says in these fields of its, each as text and empty where it says nothing; `None` when
    /// there is no such line.
    pub fn server_texts(
        &self,
        document: &Document,
        backend: &str,
        server: &str,
        parts: &[ServerPart],
    ) -> Option<Vec<String>> {
        let section = section(document, &["backend", "listen"], backend)?;
        let named = |line: &crate::document::LineRef<'_>| {
            begins_with(line, "server") && line.words().words.get(1).is_some_and(|name| *name == server)
        };
        let line = section.lines().find(named)?;
        let object = self.line_object(SERVER, &line.words().words, 0)?;
        Some(parts.iter().map(|part| part.of(&object).map(text).unwrap_or_default()).collect())
    }

    /// The limit of connections that a frontend has of its own, empty for none; `None` when there is no such frontend.
    pub fn frontend_maxconn(&self, document: &Document, frontend: &str) -> Option<String> {
        let section = section(document, &["frontend", "listen"], frontend)?;
        let mut lines = section.lines().filter(|line| begins_with(line, "maxconn"));
        Some(
            lines
                .next_back()
                .and_then(|line| line.words().words.get(1).map(|word| (*word).to_owned()))
                .unwrap_or_default(),
        )
    }
}

fn section<'d>(document: &'d Document, kinds: &[&str], name: &str) -> Option<&'d Section> {
    let at = kinds.iter().find_map(|kind| document.find(kind, name))?;
    document.section(at).map(std::sync::Arc::as_ref)
}

fn text(value: &Value) -> String {
    match value {
        Value::Str(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Enum(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}
