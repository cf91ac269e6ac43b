//! `backstay watch TABLE`: a stick table as it changes, in the terminal or as lines of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use clap::{Arg, ArgMatches, Command, value_parser};
use http::header::{ACCEPT, AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::discovery::client::Client;

/// Between two attempts to reach the API.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest line of an answer, in bytes: a chunk of a snapshot has about half a mebibyte.
const LINE: usize = 16 << 20;
/// Widest cell of the view.
const CELL: usize = 40;

/// The subcommand with its flags.
pub(super) fn command() -> Command {
    let flag = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("watch")
        .about("Follow a stick table: a live view in the terminal, lines of JSON elsewhere")
        .arg(Arg::new("table").value_name("TABLE").required(true).help("name of the stick table"))
        .arg(flag("server", "URL", "where backstay serves").default_value("http://127.0.0.1:5555"))
        .arg(flag("user", "NAME", "user of the API").default_value("admin"))
        .arg(
            flag("password-file", "FILE", "file with the password; BACKSTAY_PASSWORD otherwise")
                .value_parser(value_parser!(std::path::PathBuf)),
        )
        .arg(flag("filter", "CONDITION", "only entries that meet it, such as 'http_req_rate gt 10'"))
        .arg(flag("key-prefix", "TEXT", "only entries whose key begins so"))
        .arg(flag("sort", "TYPE", "data type with the most first; keys in order if unset"))
        .arg(flag("top", "NUMBER", "lines of the view").default_value("20").value_parser(value_parser!(usize)))
        .arg(flag("json", "", "lines of JSON also in a terminal").num_args(0).action(clap::ArgAction::SetTrue))
}

/// Follows a table until the process is told to end, or the API refuses.
pub async fn watch(matches: &ArgMatches) -> anyhow::Result<()> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let password = match matches.get_one::<std::path::PathBuf>("password-file") {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => std::env::var("BACKSTAY_PASSWORD").context("no password: give --password-file or BACKSTAY_PASSWORD")?,
    };
    let user = text("user").unwrap_or_default();
    let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{}", password.trim_end())));
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut url = format!(
        "{}/v2/services/backstay/stick_tables/{}/watch?",
        text("server").unwrap_or_default().trim_end_matches('/'),
        encoded(text("table").unwrap_or_default())
    );
    for (name, parameter) in [("filter", "filter"), ("key-prefix", "key_prefix")] {
        if let Some(value) = text(name) {
            write!(url, "{parameter}={}&", encoded(value))?;
        }
    }
    let url: http::Uri = url.parse().context("--server is no URL")?;
    let lines = matches.get_flag("json") || !std::io::stdout().is_terminal();
    let top = matches.get_one::<usize>("top").copied().unwrap_or(20);
    let mut view = View::new(text("table").unwrap_or_default(), text("sort"), top);
    loop {
        let mut out = std::io::stdout();
        let mut show = |line: &[u8]| -> anyhow::Result<()> {
            if lines {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            } else {
                view.apply(&serde_json::from_slice(line).context("the API sent no JSON")?);
                // Home, then clear what is below.
                write!(out, "\x1b[H\x1b[J{}", view.render())?;
            }
            Ok(out.flush()?)
        };
        let followed = follow(&url, &authorization, &mut show).await;
        // What a broken connection left half told begins anew.
        view.fresh = true;
        match followed {
            Err(Ended::Refused(text)) => bail!(text),
            Err(Ended::Output(error)) => return Err(error),
            Err(Ended::Away(reason)) => tracing::warn!("{reason}; trying again"),
            Ok(()) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why a watch ended.
enum Ended {
    /// The API does not want it.
    Refused(String),
    /// Nobody reads what is printed, or it makes no sense.
    Output(anyhow::Error),
    /// The API is away.
    Away(String),
}

/// One connection: hands out each line as it comes.
async fn follow(
    url: &http::Uri,
    authorization: &str,
    show: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> Result<(), Ended> {
    let client = Client::new(url.scheme_str() == Some("https")).map_err(|error| Ended::Refused(error.to_string()))?;
    let request = http::Request::get(url)
        .header(AUTHORIZATION, authorization)
        .header(ACCEPT, "application/x-ndjson")
        .body(Full::default())
        .map_err(|error| Ended::Refused(error.to_string()))?;
    let response = client.open(request).await.map_err(|error| Ended::Away(error.to_string()))?;
    let status = response.status();
    if !status.is_success() {
        let body = Limited::new(response.into_body(), LINE).collect().await.map(http_body_util::Collected::to_bytes);
        let text = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_owned();
        let refused = format!("the API answers {status}: {text}");
        return Err(if status.is_server_error() { Ended::Away(refused) } else { Ended::Refused(refused) });
    }
    let mut body = response.into_body();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| Ended::Away(error.to_string()))?.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line = rest.split_to(end + 1);
            show(&line[..end]).map_err(Ended::Output)?;
        }
        if rest.len() > LINE {
            return Err(Ended::Refused("the API sent a line without end".into()));
        }
    }
    Ok(())
}

/// What the terminal shows. Pure: events go in, text comes out.
struct View {
    table: String,
    sort: Option<String>,
    top: usize,
    entries: BTreeMap<String, Map<String, Value>>,
    /// A snapshot is under way: the next one begins anew.
    fresh: bool,
    source: String,
}

impl View {
    fn new(table: &str, sort: Option<&str>, top: usize) -> Self {
        View {
            table: table.to_owned(),
            sort: sort.map(str::to_owned),
            top,
            entries: BTreeMap::new(),
            fresh: true,
            source: String::new(),
        }
    }

    fn apply(&mut self, event: &Value) {
        if let Some(source) = event["source"].as_str() {
            source.clone_into(&mut self.source);
        }
        self.fresh |= !event["resync"].is_null();
        let snapshot = &event["snapshot"];
        if !snapshot.is_null() {
            if std::mem::replace(&mut self.fresh, false) {
                self.entries.clear();
            }
            self.fresh = snapshot["last"].as_bool().unwrap_or(false);
        }
        for list in [&snapshot["entries"], &event["changed"]["entries"]] {
            for entry in list.as_array().into_iter().flatten() {
                if let (Some(key), Some(fields)) = (entry["key"].as_str(), entry.as_object()) {
                    self.entries.insert(key.to_owned(), fields.clone());
                }
            }
        }
        for removal in event["removed"]["entries"].as_array().into_iter().flatten() {
            if let Some(key) = removal["key"].as_str() {
                self.entries.remove(key);
            }
        }
    }

    fn render(&self) -> String {
        let mut rows: Vec<_> = self.entries.iter().collect();
        if let Some(sort) = &self.sort {
            let rank = |fields: &Map<String, Value>| fields.get(sort).map_or(0, number);
            rows.sort_by_key(|(_, fields)| std::cmp::Reverse(rank(fields)));
        }
        rows.truncate(self.top);
        let shown = |name: &&String| !matches!(name.as_str(), "key" | "id" | "use") && !name.ends_with("_array");
        // In an order that stays while rows come and go.
        let columns: BTreeSet<&String> = rows.iter().flat_map(|(_, fields)| fields.keys()).filter(shown).collect();
        let mut table = vec![
            std::iter::once("key".to_owned()).chain(columns.iter().map(|name| (*name).clone())).collect::<Vec<_>>(),
        ];
        for (key, fields) in rows {
            let cells = columns.iter().map(|name| fields.get(*name).map_or_else(String::new, cell));
            table.push(std::iter::once(plain(key)).chain(cells).collect());
        }
        let widths: Vec<usize> = (0..=columns.len())
            .map(|at| table.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("{}: {} entries, {}\n", self.table, self.entries.len(), self.source);
        for row in table {
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Keys to the left, numbers to the right.
                let pad = " ".repeat(width - cell.chars().count());
                let parts = if at == 0 { ["", cell, &pad] } else { ["  ", &pad, cell] };
                text.extend(parts);
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

/// A number, which JSON may have as text.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => String::new(),
        other => plain(&other.to_string()),
    }
}

/// A text that cannot steer the terminal, and is not too wide.
fn plain(text: &str) -> String {
    text.chars().take(CELL).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_view_follows_the_events() {
        let mut view = View::new("t", Some("gpc0"), 2);
        view.apply(&json!({"source": "push", "snapshot": {"entries": [{"key": "a", "gpc0": 1}], "last": false}}));
        view.apply(
            &json!({"source": "push", "snapshot": {"entries": [{"key": "b", "gpc0": 30, "exp": 9}], "last": true}}),
        );
        assert_eq!(view.render(), "t: 2 entries, push\nkey  exp  gpc0\nb      9    30\na            1\n");
        view.apply(&json!({"changed": {"entries": [{"key": "c\u{1b}[2J", "gpc0": "31"}]}}));
        assert_eq!(view.render(), "t: 3 entries, push\nkey    exp  gpc0\nc\u{fffd}[2J         31\nb        9    30\n");
        view.apply(&json!({"removed": {"entries": [{"key": "b", "reason": "expired"}]}}));
        view.apply(&json!({"progress": {}}));
        assert_eq!(view.entries.keys().collect::<Vec<_>>(), ["a", "c\u{1b}[2J"]);
        // A snapshot that breaks off is not mixed with the next one.
        view.apply(&json!({"snapshot": {"entries": [{"key": "half"}], "last": false}}));
        view.apply(&json!({"resync": {}}));
        view.apply(&json!({"snapshot": {"last": true}}));
        assert_eq!(view.render(), "t: 0 entries, push\nkey\n");
    }
}
