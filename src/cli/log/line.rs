//! What an event says, as a line of `key="value"` or of JSON.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// An event with its time.
pub(super) struct Record {
    /// When it was noted.
    pub(super) time: jiff::Timestamp,
    /// Its sentence.
    pub(super) message: String,
    /// Its other values, in their order.
    fields: Vec<(&'static str, String)>,
}

impl Record {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut record = Record { time: jiff::Timestamp::now(), message: String::new(), fields: Vec::new() };
        event.record(&mut record);
        record
    }

    /// The value of a field, empty when there is none.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// `time="..." level=info msg="..." key="value"`.
    pub(super) fn text(&self, level: Level) -> String {
        let mut out = format!("time=\"{:.0}\" level={} msg={}", self.time, name(level), quoted(&self.message));
        for (key, value) in &self.fields {
            out.extend([" ", key, "=", &quoted(value)]);
        }
        out
    }

    /// One object on a line. `whole` adds the other values.
    pub(super) fn json(&self, level: Level, message: &str, whole: bool) -> String {
        let mut object = serde_json::Map::new();
        if whole {
            object.extend(self.fields.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())));
        }
        object.insert("level".to_owned(), name(level).into());
        object.insert("msg".to_owned(), message.into());
        object.insert("time".to_owned(), format!("{:.0}", self.time).into());
        serde_json::Value::Object(object).to_string()
    }

    #[cfg(test)]
    pub(super) fn made(time: &str, fields: &[(&'static str, &str)]) -> Self {
        let fields = fields.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        Record { time: time.parse().unwrap(), message: "said".to_owned(), fields }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), value.to_owned()));
        }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// In double quotes, on one line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_lines() {
        let record = Record::made("2026-01-02T03:04:05.6Z", &[("file", "a \"b\"\nc\\\u{1b}")]);
        assert_eq!(
            record.text(Level::WARN),
            r#"time="2026-01-02T03:04:05Z" level=warning msg="said" file="a \"b\"\nc\\\x1b""#
        );
        assert_eq!(
            record.json(Level::INFO, "other", true),
            r#"{"file":"a \"b\"\nc\\\u001b","level":"info","msg":"other","time":"2026-01-02T03:04:05Z"}"#
        );
        assert!(!record.json(Level::INFO, "other", false).contains("file"));
    }
}
