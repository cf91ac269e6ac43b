//! The log: for people on standard error, or as `key="value"` on standard output or in a file.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::OpenOptionsExt as _;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::LogTarget;

/// Begins to log. A file that cannot be opened is told on standard error, where the log goes then.
pub fn begin(target: &LogTarget) {
    let filter = EnvFilter::try_from_env("BACKSTAY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let begun = match target {
        LogTarget::Stderr => builder.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).try_init(),
        LogTarget::Stdout => builder.event_format(Pairs).with_writer(io::stdout).try_init(),
        LogTarget::File(path) => {
            let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(true).mode(0o640);
            match folder.and_then(|()| options.open(path)) {
                Ok(file) => builder.event_format(Pairs).with_writer(std::sync::Mutex::new(file)).try_init(),
                Err(error) => {
                    let begun = builder.with_ansi(false).with_writer(io::stderr).try_init();
                    tracing::warn!(file = %path.display(), %error, "cannot log to the file");
                    begun
                }
            }
        }
    };
    // It has begun already.
    drop(begun);
}

/// `time="..." level=info msg="..." key="value"`.
struct Pairs;

impl<S, N> FormatEvent<S, N> for Pairs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let time = jiff::Timestamp::now();
        let level = match *event.metadata().level() {
            tracing::Level::WARN => "warning".to_owned(),
            level => level.as_str().to_lowercase(),
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(writer, "time=\"{time:.0}\" level={level} msg={}{}", quoted(&fields.message), fields.others)
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.extend([" ", field.name(), "=", &quoted(value)]);
        }
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
            c if c.is_control() => out.push(' '),
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
    fn values_stay_on_their_line() {
        assert_eq!(quoted("a \"b\"\nc\\"), r#""a \"b\"\nc\\""#);
    }
}
