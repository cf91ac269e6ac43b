//! `backstay watch TABLE`: a stick table as it changes, in the terminal or as lines of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use clap::{Arg, ArgMatches, Command, value_parser};
use http::header::{ACCEPT, AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::termios::tcgetwinsize;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::discovery::client::{Client, Trouble, Unopened};
use crate::runtime::DataType;

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
        .arg(flag("sort", "TYPE", "data type with the most first; keys in order if unset").value_parser(sortable))
        .arg(
            flag("top", "NUMBER", "entries in the view; as many as the terminal has room for if unset")
                .value_parser(value_parser!(u16).range(1..)),
        )
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
    let url: http::Uri =
        url.parse().ok().filter(|url: &http::Uri| matches!(url.scheme_str(), Some("http" | "https"))).with_context(
            || format!("--server {}: expected such as http://127.0.0.1:5555", text("server").unwrap_or_default()),
        )?;
    let view = View::new(
        text("table").unwrap_or_default(),
        text("sort"),
        matches.get_one::<u16>("top").map_or(usize::MAX, |top| (*top).into()),
    );
    let lines = matches.get_flag("json") || !io::stdout().is_terminal();
    let mut output = Output { view: (!lines).then_some(view), resized: signal(SignalKind::window_change())? };
    let mut told = String::new();
    loop {
        let reason = match follow(&url, &authorization, &mut output, &mut told).await {
            Err(Ended::Refused(text)) => bail!(text),
            // Whoever read it has seen enough.
            Err(Ended::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(Ended::Output(error)) => return Err(error.into()),
            Err(Ended::Away(reason)) => reason,
            Ok(()) => "the API has ended the watch".to_owned(),
        };
        match &mut output.view {
            Some(view) => {
                // What a broken connection left half told begins anew.
                view.fresh = true;
                view.away = Some(reason);
                output.draw()?;
            }
            None if told == reason => {}
            None => {
                tracing::warn!("{reason}; trying again");
                told = reason;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A name that entries can be sorted by.
fn sortable(name: &str) -> Result<String, String> {
    match DataType::parse(name) {
        DataType::Other(_) | DataType::ServerKey if name != "exp" => {
            Err("expected exp or a data type that is a number, such as http_req_rate".to_owned())
        }
        _ => Ok(name.to_owned()),
    }
}

/// Where events go.
struct Output {
    /// None: lines of JSON.
    view: Option<View>,
    /// The terminal has another size.
    resized: Signal,
}

impl Output {
    fn show(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(view) = &mut self.view {
            view.apply(&serde_json::from_slice(line)?);
            return self.draw();
        }
        let mut out = io::stdout();
        out.write_all(line)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    fn draw(&self) -> io::Result<()> {
        let Some(view) = &self.view else { return Ok(()) };
        let mut out = io::stdout();
        let size = tcgetwinsize(&out).map_or((0, 0), |size| (size.ws_col.into(), size.ws_row.into()));
        // From the upper left corner, each line over the one before and what is below cleared, without flicker.
        let text = view.render(if size.0 == 0 || size.1 == 0 { (80, 24) } else { size });
        out.write_all(format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")).as_bytes())?;
        out.flush()
    }
}

/// Why a watch ended.
enum Ended {
    /// The API does not want it.
    Refused(String),
    /// Nobody reads what is printed, or it makes no sense.
    Output(io::Error),
    /// The API is away.
    Away(String),
}

/// One connection: shows each line as it comes. `told`, why an earlier one ended, is cleared once this one is there.
async fn follow(url: &http::Uri, authorization: &str, output: &mut Output, told: &mut String) -> Result<(), Ended> {
    let client = Client::new(url.scheme_str() == Some("https")).map_err(|error| Ended::Refused(error.to_string()))?;
    let request = http::Request::get(url)
        .header(AUTHORIZATION, authorization)
        .header(ACCEPT, "application/x-ndjson")
        .body(Full::default())
        .map_err(|error| Ended::Refused(error.to_string()))?;
    let response = client.open(request).await.map_err(|unopened| {
        // The rest is the URL, which is known.
        let why = |error: Trouble| {
            let error = error.to_string();
            error.split_once("client error (Connect): ").map_or(&*error, |(_, why)| why).to_owned()
        };
        match unopened {
            Unopened::Untrusted(error) => Ended::Refused(why(error)),
            Unopened::Away(error) => Ended::Away(why(error)),
        }
    })?;
    let status = response.status();
    if !status.is_success() {
        let body = Limited::new(response.into_body(), LINE).collect().await.map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let refused = format!("the API answers {status}: {}", said["message"].as_str().unwrap_or(text.trim()));
        return Err(if status.is_server_error() { Ended::Away(refused) } else { Ended::Refused(refused) });
    }
    told.clear();
    let mut body = response.into_body();
    let mut rest = BytesMut::new();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            Some(()) = output.resized.recv() => {
                output.draw().map_err(Ended::Output)?;
                continue;
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        let Ok(data) = frame.map_err(|error| Ended::Away(error.to_string()))?.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &rest) {
            let line = rest.split_to(end + 1);
            output.show(&line[..end]).map_err(Ended::Output)?;
        }
        if rest.len() > LINE {
            return Err(Ended::Refused("the API sent a line without end".into()));
        }
    }
}

/// What the terminal shows. Pure: events go in, text comes out.
struct View {
    table: String,
    sort: Option<String>,
    top: usize,
    /// Numbers and texts of each entry, by key.
    entries: BTreeMap<String, BTreeMap<String, String>>,
    /// A snapshot is under way: the next one begins anew.
    fresh: bool,
    source: String,
    /// Why nothing comes just now.
    away: Option<String>,
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
            away: None,
        }
    }

    fn apply(&mut self, event: &Value) {
        if let Some(source) = event["source"].as_str() {
            source.clone_into(&mut self.source);
            self.away = None;
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
                if let Some(key) = entry["key"].as_str() {
                    self.entries.insert(key.to_owned(), cells(entry));
                }
            }
        }
        for removal in event["removed"]["entries"].as_array().into_iter().flatten() {
            if let Some(key) = removal["key"].as_str() {
                self.entries.remove(key);
            }
        }
    }

    /// For a terminal of so many columns and lines.
    fn render(&self, (width, height): (usize, usize)) -> String {
        let mut rows: Vec<_> = self.entries.iter().collect();
        let mut head = format!("{}: {} entries, {}", self.table, rows.len(), self.source);
        if let Some(sort) = &self.sort {
            let rank = |cells: &BTreeMap<String, String>| cells.get(sort).and_then(|cell| cell.parse::<u64>().ok());
            rows.sort_by_key(|(_, cells)| std::cmp::Reverse(rank(cells)));
            if rows.first().is_some_and(|(_, cells)| rank(cells).is_none()) {
                head.extend([", none with ", sort]);
            }
        }
        // Two lines above, and one below for the cursor.
        rows.truncate(self.top.min(height.saturating_sub(3)));
        if let Some(reason) = &self.away {
            head.extend(["; trying again: ", reason]);
        }
        // In an order that stays while rows come and go.
        let columns: BTreeSet<&String> = rows.iter().flat_map(|(_, cells)| cells.keys()).collect();
        let mut table = vec![
            std::iter::once("key".to_owned()).chain(columns.iter().map(|name| (*name).clone())).collect::<Vec<_>>(),
        ];
        for (key, cells) in rows {
            let cells = columns.iter().map(|name| cells.get(*name).cloned().unwrap_or_default());
            table.push(std::iter::once(plain(key)).chain(cells).collect());
        }
        let widths: Vec<usize> = (0..=columns.len())
            .map(|at| table.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let mut lines = vec![head];
        for row in table {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Keys to the left, numbers to the right.
                let pad = " ".repeat(width - cell.chars().count());
                let parts = if at == 0 { ["", cell, &pad] } else { ["  ", &pad, cell] };
                line.extend(parts);
            }
            lines.push(line);
        }
        // A line that is too long would push others away.
        lines.iter().map(|line| line.chars().take(width).collect::<String>().trim_end().to_owned() + "\n").collect()
    }
}

/// What of an entry is shown, by name: arrays as their elements.
fn cells(entry: &Value) -> BTreeMap<String, String> {
    let mut cells = BTreeMap::new();
    for (name, value) in entry.as_object().into_iter().flatten() {
        match value {
            Value::Array(elements) => {
                let (base, rate) = match name.trim_end_matches("_array").split_once("_rate") {
                    Some((base, _)) => (base, "_rate"),
                    None => (name.trim_end_matches("_array"), ""),
                };
                cells.extend(elements.iter().enumerate().map(|(at, value)| (format!("{base}{at}{rate}"), cell(value))));
            }
            Value::Number(_) | Value::String(_) if !matches!(name.as_str(), "key" | "id") => {
                cells.insert(name.clone(), cell(value));
            }
            _ => {}
        }
    }
    cells
}

/// A number, which JSON may have as text, or a text.
fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), plain)
}

/// A text that cannot steer the terminal, and is not too wide.
fn plain(text: &str) -> String {
    text.chars().take(CELL).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SIZE: (usize, usize) = (80, 24);

    #[test]
    fn the_view_follows_the_events() {
        let mut view = View::new("t", Some("gpc0"), 2);
        view.apply(&json!({"source": "push", "snapshot": {"entries": [{"key": "a", "gpc0": 1}], "last": false}}));
        view.apply(
            &json!({"source": "push", "snapshot": {"entries": [{"key": "b", "gpc0": 30, "exp": 9}], "last": true}}),
        );
        assert_eq!(view.render(SIZE), "t: 2 entries, push\nkey  exp  gpc0\nb      9    30\na            1\n");
        view.apply(&json!({"changed": {"entries": [{"key": "c\u{1b}[2J", "gpc0": "31"}]}}));
        assert_eq!(
            view.render(SIZE),
            "t: 3 entries, push\nkey    exp  gpc0\nc\u{fffd}[2J         31\nb        9    30\n"
        );
        view.apply(&json!({"removed": {"entries": [{"key": "b", "reason": "expired"}]}}));
        view.apply(&json!({"progress": {}}));
        assert_eq!(view.entries.keys().collect::<Vec<_>>(), ["a", "c\u{1b}[2J"]);
        // A snapshot that breaks off is not mixed with the next one.
        view.apply(&json!({"snapshot": {"entries": [{"key": "half"}], "last": false}}));
        view.apply(&json!({"resync": {}}));
        view.apply(&json!({"snapshot": {"last": true}}));
        assert_eq!(view.render(SIZE), "t: 0 entries, push\nkey\n");
    }

    #[test]
    fn the_view_keeps_to_the_terminal_and_says_what_is_wrong() {
        let mut view = View::new("t", Some("gpc1"), usize::MAX);
        let entries: Vec<_> = (0..9).map(|n| json!({"key": format!("k{n}"), "use": true, "http_req_cnt": n})).collect();
        view.apply(&json!({"source": "poll", "snapshot": {"entries": entries, "last": true}}));
        assert_eq!(
            view.render((30, 5)),
            "t: 9 entries, poll, none with\nkey  http_req_cnt\nk0              0\nk1              1\n"
        );
        assert_eq!(view.render((7, 4)), "t: 9 en\nkey  ht\nk0\n");
        assert_eq!(view.render((80, 1)).lines().count(), 2);
        view.away = Some("refused".into());
        assert!(view.render(SIZE).starts_with("t: 9 entries, poll, none with gpc1; trying again: refused\n"));
        view.fresh = true;
        let arrays = json!({"key": "a", "gpc": {"idx": 1, "value": 5}, "gpc_array": [0, "5"], "gpc_rate_array": [7]});
        view.apply(&json!({"source": "poll", "snapshot": {"entries": [arrays, {"key": "b"}], "last": true}}));
        let shown = "t: 2 entries, poll\nkey  gpc0  gpc0_rate  gpc1\na       0          7     5\nb\n";
        assert_eq!(view.render(SIZE), shown);
    }

    #[test]
    fn only_numbers_can_be_sorted_by() {
        for (name, fine) in
            [("exp", true), ("gpc12", true), ("conn_rate", true), ("server_key", false), ("gcp0", false)]
        {
            assert_eq!(sortable(name).is_ok(), fine, "{name}");
        }
    }
}
