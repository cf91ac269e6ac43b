//! `# key=value` lines at the top of the file: the version and its companions.

use std::ops::Range;
use std::sync::Arc;

use super::Document;
use super::line::without_ending;
use super::section::line_spans;

/// Key of the line that holds the configuration's version.
const VERSION: &str = "_version";

impl Document {
    /// The number of the first `# _version=N` line before the first section.
    pub fn version(&self) -> Option<i64> {
        self.header(VERSION)?.parse().ok()
    }

    /// Writes the version: into the `# _version=` line that is there, else as a new first line, below `# _md5hash=`
    /// when that is the first.
    pub fn set_version(&mut self, version: i64) {
        if self.value_of(VERSION).is_some() {
            self.set_header(VERSION, &version.to_string());
            return;
        }
        let first = line_spans(&self.preamble).next();
        let at =
            first.filter(|&(_, end)| value_in(&self.preamble[..end], "_md5hash").is_some()).map_or(0, |(_, end)| end);
        self.insert_header(at, VERSION, &version.to_string());
    }

    /// The value of the first `# key=value` line before the first section.
    pub fn header(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(&self.preamble[self.value_of(key)?]).ok()
    }

    /// Position in the file of the byte behind the first `# key=` line, for hashes of all that follows.
    pub fn header_end(&self, key: &str) -> Option<usize> {
        let end = self.value_of(key)?.end;
        Some(memchr::memchr(b'\n', &self.preamble[end..]).map_or(self.preamble.len(), |at| end + at + 1))
    }

    /// Writes the value into the `# key=` line that is there, else a new first line; every other byte stays. Nothing
    /// happens when key or value hold a line break.
    pub fn set_header(&mut self, key: &str, value: &str) {
        if key.contains(['\n', '\r', '=']) || value.contains(['\n', '\r']) {
            return;
        }
        match self.value_of(key) {
            Some(range) => {
                Arc::make_mut(&mut self.preamble).splice(range, value.bytes());
            }
            None => self.insert_header(0, key, value),
        }
    }

    fn insert_header(&mut self, at: usize, key: &str, value: &str) {
        let mut line = format!("# {key}={value}").into_bytes();
        line.extend_from_slice(self.style.ending());
        let preamble = Arc::make_mut(&mut self.preamble);
        if at > 0 && preamble[at - 1] != b'\n' {
            line.splice(0..0, self.style.ending().iter().copied());
        }
        preamble.splice(at..at, line);
    }

    fn value_of(&self, key: &str) -> Option<Range<usize>> {
        line_spans(&self.preamble).find_map(|(start, end)| {
            let value = value_in(&self.preamble[start..end], key)?;
            Some(start + value.start..start + value.end)
        })
    }
}

/// Where the value stands in `line`, if it is a `# key=value` comment. Blanks at its end are not part of it.
fn value_in(line: &[u8], key: &str) -> Option<Range<usize>> {
    let line = without_ending(line);
    let rest = line.trim_ascii_start().strip_prefix(b"#")?.trim_ascii_start();
    let value = rest.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?;
    let start = line.len() - value.len();
    Some(start..start + value.trim_ascii_end().len())
}
