//! Stick tables: `show table` and `show table <name>`.

use std::fmt;
use std::str::FromStr;

use super::text;
use crate::error::{Error, Reason};

/// What the keys of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableType {
    /// IPv4 addresses.
    Ip,
    /// IPv6 addresses.
    Ipv6,
    /// Unsigned 32-bit numbers.
    Integer,
    /// Text.
    String,
    /// Bytes, shown in hexadecimal.
    Binary,
}

impl TableType {
    /// HAProxy's word.
    pub fn word(self) -> &'static str {
        match self {
            TableType::Ip => "ip",
            TableType::Ipv6 => "ipv6",
            TableType::Integer => "integer",
            TableType::String => "string",
            TableType::Binary => "binary",
        }
    }
}

/// A line of `show table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Name: that of its backend or frontend, or `peers-section/table`.
    pub name: String,
    /// What its keys are; none for a type that is not known here.
    pub kind: Option<TableType>,
    /// Entries it can hold.
    pub size: u64,
    /// Entries it holds.
    pub used: u64,
}

macro_rules! data_types {
    ($($variant:ident = $name:literal,)+) => {
        /// What a table stores with each key.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "the names are those of HAProxy's manual")]
        pub enum DataType {
            $($variant,)+
            /// `gpt0`, or element n of the array `gpt`.
            Gpt(u16),
            /// `gpc0`, `gpc1`, or element n of the array `gpc`.
            Gpc(u16),
            /// The rate of such a counter.
            GpcRate(u16),
            /// A type that is not known here, by HAProxy's name.
            Other(String),
        }

        impl DataType {
            /// Reads HAProxy's name, such as `conn_rate` or `gpc12`. Never fails: unknown names are kept.
            pub fn parse(name: &str) -> Self {
                match name {
                    $($name => DataType::$variant,)+
                    other => DataType::numbered(other),
                }
            }
        }

        impl fmt::Display for DataType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(DataType::$variant => f.write_str($name),)+
                    DataType::Gpt(n) => write!(f, "gpt{n}"),
                    DataType::Gpc(n) => write!(f, "gpc{n}"),
                    DataType::GpcRate(n) => write!(f, "gpc{n}_rate"),
                    DataType::Other(name) => f.write_str(name),
                }
            }
        }
    };
}

data_types! {
    ServerId = "server_id",
    ServerKey = "server_key",
    ConnCnt = "conn_cnt",
    ConnRate = "conn_rate",
    ConnCur = "conn_cur",
    SessCnt = "sess_cnt",
    SessRate = "sess_rate",
    HttpReqCnt = "http_req_cnt",
    HttpReqRate = "http_req_rate",
    HttpErrCnt = "http_err_cnt",
    HttpErrRate = "http_err_rate",
    HttpFailCnt = "http_fail_cnt",
    HttpFailRate = "http_fail_rate",
    BytesInCnt = "bytes_in_cnt",
    BytesInRate = "bytes_in_rate",
    BytesOutCnt = "bytes_out_cnt",
    BytesOutRate = "bytes_out_rate",
    GlitchCnt = "glitch_cnt",
    GlitchRate = "glitch_rate",
}

impl DataType {
    /// Whether it may be an element of an array: `gpc0` is one in a table that stores `gpc(3)`.
    pub fn is_indexed(&self) -> bool {
        matches!(self, DataType::Gpt(_) | DataType::Gpc(_) | DataType::GpcRate(_))
    }

    /// Whether it counts up.
    pub fn is_counter(&self) -> bool {
        matches!(self, DataType::Gpc(_)) || self.to_string().ends_with("_cnt")
    }

    /// Whether it is a rate.
    pub fn is_rate(&self) -> bool {
        self.to_string().ends_with("_rate")
    }

    /// The largest number that HAProxy stores of it. Larger ones are those of JSON and protobuf.
    pub fn largest(&self) -> u64 {
        match self {
            DataType::BytesInCnt | DataType::BytesOutCnt => i64::MAX.unsigned_abs(),
            DataType::ServerId => i32::MAX.unsigned_abs().into(),
            _ => u32::MAX.into(),
        }
    }

    /// Its name in commands; as an element of an array `gpc[2]`.
    pub(crate) fn spelled(&self, array: bool) -> String {
        match self {
            DataType::Gpt(n) if array => format!("gpt[{n}]"),
            DataType::Gpc(n) if array => format!("gpc[{n}]"),
            DataType::GpcRate(n) if array => format!("gpc_rate[{n}]"),
            other => other.to_string(),
        }
    }

    fn numbered(name: &str) -> Self {
        let number = |digits: &str| digits.parse().ok();
        let parsed = if let Some(digits) = name.strip_prefix("gpt") {
            number(digits).map(DataType::Gpt)
        } else if let Some(rest) = name.strip_prefix("gpc") {
            match rest.strip_suffix("_rate") {
                Some(digits) => number(digits).map(DataType::GpcRate),
                None => number(rest).map(DataType::Gpc),
            }
        } else {
            None
        };
        parsed.unwrap_or_else(|| DataType::Other(name.to_owned()))
    }
}

/// The value of a datum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DatumValue {
    /// A counter, a rate or a tag.
    Number(u64),
    /// Text: the key of a server.
    Text(String),
}

/// One stored datum of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datum {
    /// What it is.
    pub kind: DataType,
    /// For rates: the period in milliseconds.
    pub period: Option<u32>,
    /// Its value.
    pub value: DatumValue,
}

/// An entry of a stick table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// HAProxy's pointer such as `0x55f0a0`.
    pub id: String,
    /// Key, unescaped. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub key: String,
    /// How many sessions track it now.
    pub uses: u32,
    /// Milliseconds until it expires; 0 when the table does not expire entries.
    pub expires_in: u64,
    /// Stored data in HAProxy's order.
    pub data: Vec<Datum>,
}

impl TableEntry {
    /// The value of a counter or rate, if it is stored.
    pub fn number(&self, kind: &DataType) -> Option<u64> {
        self.data.iter().find(|datum| datum.kind == *kind).and_then(|datum| match datum.value {
            DatumValue::Number(number) => Some(number),
            DatumValue::Text(_) => None,
        })
    }
}

/// Reads a line of `show table`; nothing for other lines.
pub(crate) fn parse_info(line: &[u8]) -> Option<TableInfo> {
    let line = text(line.strip_prefix(b"# table: ")?);
    let (name, rest) = line.split_once(", type: ")?;
    let (kind, rest) = rest.split_once(", size:")?;
    let (size, used) = rest.split_once(", used:")?;
    // Newer versions may append more fields.
    let used = used.split(',').next().unwrap_or_default();
    let kind = [TableType::Ip, TableType::Ipv6, TableType::Integer, TableType::String, TableType::Binary]
        .into_iter()
        .find(|known| known.word() == kind.trim());
    Some(TableInfo { name: name.to_owned(), kind, size: size.trim().parse().ok()?, used: used.trim().parse().ok()? })
}

/// A line of `show table <name>` cut into its parts, nothing copied.
#[derive(Debug, Clone, Copy)]
pub struct RawTableEntry<'a> {
    /// HAProxy's pointer.
    pub id: &'a [u8],
    /// Key as HAProxy escapes it: no blank, no `=`.
    pub key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> RawTableEntry<'a> {
    /// Cuts a line; nothing for the header and the empty line at the end.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let at = memchr::memmem::find(line, b": key=")?;
        if !line.starts_with(b"0x") {
            return None;
        }
        let (id, rest) = (&line[..at], &line[at + 6..]);
        let end = end_of_key(rest);
        Some(RawTableEntry { id, key: &rest[..end], rest: rest.get(end + 1..).unwrap_or_default() })
    }

    /// The words `name=value` behind the key, `use`, `exp` and `shard` included.
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.rest.split(|&byte| byte == b' ').filter_map(|word| {
            let at = memchr::memchr(b'=', word)?;
            Some((&word[..at], &word[at + 1..]))
        })
    }

    /// Key as text, unescaped.
    pub fn key_text(&self) -> String {
        unescape(self.key)
    }
}

/// Where the escaped key ends: at the first blank that no backslash precedes.
fn end_of_key(rest: &[u8]) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b' ' => return at,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Reads a line of `show table <name>`.
pub(crate) fn parse_entry(line: &[u8]) -> Option<TableEntry> {
    let raw = RawTableEntry::parse(line)?;
    let mut entry =
        TableEntry { id: text(raw.id), key: raw.key_text(), uses: 0, expires_in: 0, data: Vec::with_capacity(8) };
    for (name, value) in raw.fields() {
        match name {
            b"use" => entry.uses = number(value).unwrap_or(0) as u32,
            b"exp" => entry.expires_in = number(value).unwrap_or(0),
            // Which of several shards of a peers group owns the entry: no stored datum.
            b"shard" => {}
            _ => entry.data.push(datum(name, value)),
        }
    }
    Some(entry)
}

fn datum(name: &[u8], value: &[u8]) -> Datum {
    let (kind, period) = split_period(name);
    let kind = DataType::parse(&text(kind));
    let value = match number(value) {
        Some(number) if kind != DataType::ServerKey => DatumValue::Number(number),
        _ => DatumValue::Text(unescape(value)),
    };
    Datum { kind, period, value }
}

/// `conn_rate(10000)` is the rate over ten seconds.
pub(crate) fn split_period(name: &[u8]) -> (&[u8], Option<u32>) {
    match name.strip_suffix(b")").and_then(|start| memchr::memchr(b'(', start).map(|at| start.split_at(at))) {
        Some((kind, period)) => (kind, number(&period[1..]).map(|period| period as u32)),
        None => (name, None),
    }
}

pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Escapes a key as HAProxy shows it.
pub fn escape_key(key: &str) -> Vec<u8> {
    escape_bytes(key.as_bytes())
}

/// Escapes the bytes of a key as HAProxy shows them.
pub fn escape_bytes(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len());
    for &byte in key {
        match byte {
            b' ' | b'=' | b'\\' => out.extend([b'\\', byte]),
            b'\t' => out.extend(b"\\t"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            0x1b => out.extend(b"\\e"),
            0x21..=0x7e => out.push(byte),
            _ => out.extend(format!("\\x{byte:02X}").into_bytes()),
        }
    }
    out
}

/// Undoes HAProxy's escapes: a backslash before a blank, `=` and itself; `\n`, `\r`, `\t`, `\e`; `\xHH` for the rest.
pub(crate) fn unescape(bytes: &[u8]) -> String {
    if memchr::memchr(b'\\', bytes).is_none() {
        return text(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'\\' || at + 1 == bytes.len() {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let hex = |range: std::ops::Range<usize>| {
            let digits = std::str::from_utf8(bytes.get(range)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        let (byte, length) = match bytes[at + 1] {
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'e' => (0x1b, 2),
            b'x' => hex(at + 2..at + 4).map_or((b'x', 2), |byte| (byte, 4)),
            other => (other, 2),
        };
        out.push(byte);
        at += length;
    }
    text(&out)
}

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of HAProxy's manual")]
pub enum Operator {
    Eq,
    Ne,
    Le,
    Ge,
    Lt,
    Gt,
}

impl Operator {
    /// HAProxy's word.
    pub fn word(self) -> &'static str {
        match self {
            Operator::Eq => "eq",
            Operator::Ne => "ne",
            Operator::Le => "le",
            Operator::Ge => "ge",
            Operator::Lt => "lt",
            Operator::Gt => "gt",
        }
    }

    /// Whether `left operator right` holds.
    pub fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Operator::Eq => left == right,
            Operator::Ne => left != right,
            Operator::Le => left <= right,
            Operator::Ge => left >= right,
            Operator::Lt => left < right,
            Operator::Gt => left > right,
        }
    }
}

/// A condition on a stored datum, such as `gpc0 gt 5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What is compared.
    pub kind: DataType,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

impl FromStr for Filter {
    type Err = Error;

    /// Reads `gpc0 gt 5`, and `gpc0>5` with the signs `=`, `==`, `!=`, `<=`, `>=`, `<`, `>`. `INVALID_VALUE` otherwise.
    fn from_str(filter: &str) -> Result<Self, Error> {
        let refuse = || {
            let message = format!("filter '{filter}': expected a data type, one of eq ne le ge lt gt, and a number");
            Error::new(Reason::InvalidValue, message).with("field", "filter")
        };
        let is_sign = |c: char| matches!(c, '<' | '>' | '=' | '!');
        let words: Vec<&str> = match (filter.find(is_sign), filter.rfind(is_sign)) {
            (Some(start), Some(end)) => vec![&filter[..start], &filter[start..=end], &filter[end + 1..]],
            _ => filter.split_whitespace().collect(),
        };
        let [kind, operator, value] = words[..] else { return Err(refuse()) };
        let operator = match operator.trim() {
            "eq" | "=" | "==" => Operator::Eq,
            "ne" | "!=" => Operator::Ne,
            "le" | "<=" => Operator::Le,
            "ge" | ">=" => Operator::Ge,
            "lt" | "<" => Operator::Lt,
            "gt" | ">" => Operator::Gt,
            _ => return Err(refuse()),
        };
        let value = value.trim().parse().map_err(|_| refuse())?;
        let kind = kind.trim();
        match DataType::parse(kind.strip_prefix("data.").unwrap_or(kind)) {
            DataType::Other(_) | DataType::ServerKey => Err(refuse()),
            kind => Ok(Filter { kind, operator, value }),
        }
    }
}

#[cfg(test)]
mod tests;
