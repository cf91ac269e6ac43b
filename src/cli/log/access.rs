//! Lines for requests, in the notation of Apache's `LogFormat`.

use super::line::Record;

/// A notation, read once.
pub(super) struct Pattern(Vec<Part>);

enum Part {
    Text(String),
    /// A directive: what stands in its braces, and its letter.
    Value(String, char),
}

impl Pattern {
    /// Reads a notation. A directive that is not known stays as it is written.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            parts.push(Part::Text(before.to_owned()));
            // `%>s` is the status after all redirects, of which there are none.
            let after = after.trim_start_matches(['<', '>']);
            let (argument, after) =
                after.strip_prefix('{').and_then(|inner| inner.split_once('}')).unwrap_or(("", after));
            let Some(letter) = after.chars().next() else {
                rest = "%";
                break;
            };
            parts.push(Part::Value(argument.to_owned(), letter));
            rest = after.get(letter.len_utf8()..).unwrap_or_default();
        }
        parts.push(Part::Text(rest.to_owned()));
        Pattern(parts)
    }

    /// The line of a request.
    pub(super) fn line(&self, record: &Record) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(_, '%') => out.push('%'),
                Part::Value(argument, letter) => match value(record, argument, *letter) {
                    Some(value) if value.is_empty() => out.push('-'),
                    Some(value) => out.extend(value.chars().filter(|c| !c.is_control())),
                    None if argument.is_empty() => out.extend(['%', *letter]),
                    None => out.push('-'),
                },
            }
        }
        out
    }
}

fn value(record: &Record, argument: &str, letter: char) -> Option<String> {
    let field = |name: &str| Some(record.field(name).to_owned());
    let target = record.field("target");
    let (path, query) = target.split_once('?').map_or((target, ""), |(path, query)| (path, query));
    let micros = || record.field("micros").parse::<u64>().unwrap_or(0);
    match letter {
        'h' | 'a' => field("client"),
        'l' => Some(String::new()),
        'u' => field("user"),
        't' => Some(record.time.strftime("[%d/%b/%Y:%H:%M:%S +0000]").to_string()),
        'r' => Some(format!("{} {target} {}", record.field("method"), record.field("version"))),
        'm' => field("method"),
        'U' => Some(path.to_owned()),
        'q' => Some(if query.is_empty() { String::new() } else { format!("?{query}") }),
        'H' => field("version"),
        's' => field("status"),
        'b' => field("bytes"),
        'B' => {
            Some(record.field("bytes").to_owned()).map(|bytes| if bytes.is_empty() { "0".to_owned() } else { bytes })
        }
        'D' => Some(micros().to_string()),
        'T' => Some(match argument {
            "us" => micros(),
            "ms" => micros() / 1000,
            _ => micros() / 1_000_000,
        })
        .map(|time| time.to_string()),
        'i' if argument.eq_ignore_ascii_case("user-agent") => field("agent"),
        'i' if argument.eq_ignore_ascii_case("referer") => field("referer"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_filled_in() {
        let record = Record::made(
            "2026-01-02T03:04:05Z",
            &[
                ("client", "10.0.0.1"),
                ("user", "admin"),
                ("method", "GET"),
                ("target", "/v2/info?x=1"),
                ("version", "HTTP/1.1"),
                ("status", "200"),
                ("bytes", "17"),
                ("micros", "2500"),
                ("agent", "curl\n"),
            ],
        );
        for (pattern, line) in [
            (
                "%h - %u %t \"%r\" %>s %B %{us}T",
                "10.0.0.1 - admin [02/Jan/2026:03:04:05 +0000] \"GET /v2/info?x=1 HTTP/1.1\" 200 17 2500",
            ),
            ("%m %U%q %H %b %D %T %{ms}T 100%%", "GET /v2/info?x=1 HTTP/1.1 17 2500 0 2 100%"),
            ("%{User-Agent}i %{Referer}i %{Cookie}i %l", "curl - - -"),
            ("%Z %", "%Z %"),
        ] {
            assert_eq!(Pattern::parse(pattern).line(&record), line, "{pattern}");
        }
    }
}
